"""Where this process computes."""

from collections.abc import Sequence
from typing import Any

import jax


def local_devices() -> Sequence[jax.Device]:
    """All devices of this process, or the one that ``jax.default_device`` names."""
    config: Any = jax.config  # known to its types under no release
    chosen = config.jax_default_device
    if chosen is None:
        return jax.local_devices()
    return jax.local_devices(backend=chosen)[:1] if isinstance(chosen, str) else [chosen]


def on_cpu() -> bool:
    """Whether this process computes on processors and not on accelerators."""
    return local_devices()[0].platform == "cpu"
