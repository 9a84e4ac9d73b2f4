"""Where this process computes."""

from collections.abc import Sequence
from typing import Any

import jax

from packing_jax.errors import PackingError, in_one_line


def local_devices() -> Sequence[jax.Device]:
    """All devices of this process, or the one that ``jax.default_device`` names.

    Raises:
        PackingError: jax finds none, as where JAX_PLATFORMS names one that is not there.
    """
    config: Any = jax.config  # known to its types under no release
    chosen = config.jax_default_device
    if chosen is None:
        try:
            return jax.local_devices()
        except RuntimeError as error:
            asked = f"; JAX_PLATFORMS is {config.jax_platforms!r}" if config.jax_platforms else ""
            raise PackingError(f"jax has no device to compute on: {in_one_line(error)}{asked}, cpu would do") from error
    return jax.local_devices(backend=chosen)[:1] if isinstance(chosen, str) else [chosen]


def on_cpu() -> bool:
    """Whether this process computes on processors and not on accelerators."""
    return local_devices()[0].platform == "cpu"
