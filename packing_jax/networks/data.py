"""Data (the branch `data` brings this file)."""

from dataclasses import dataclass
from typing import Any

from packing_jax.trees import pytree


@pytree()
@dataclass(frozen=True)
class Data:
    """Samples, with the sample axis first."""

    inputs: Any
    targets: Any = None
    test_inputs: Any = None
    test_targets: Any = None
