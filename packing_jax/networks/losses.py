"""Losses of one sample, and what a sample's overlap is.

A loss takes a model's outputs (S,) or (S, k) and the targets (S, ...) and returns (S,) numbers. Hinge losses are
overlap energies: with the overlap Delta = kappa - y f(x), a violated sample (Delta > 0) is a contact, the linear hinge
max(0, Delta) is the linear energy and the quadratic hinge 1/2 max(0, Delta)^2 the harmonic one. A configuration without
a violated sample is absorbing. Any function of outputs and targets is a loss too; it has no overlaps then.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from packing_jax.errors import PackingError, is_real


@runtime_checkable
class Overlapping(Protocol):
    """A loss whose samples are violated or not."""

    def overlaps(self, outputs: Any, targets: Any) -> Array:
        """Delta (S,): above 0 where the sample is violated."""
        ...


@runtime_checkable
class Classifying(Protocol):
    """A loss whose samples are classified rightly or not."""

    def correct(self, outputs: Any, targets: Any) -> Array:
        """(S,) bool."""
        ...


@dataclass(frozen=True)
class Squared:
    """1/2 |f - y|^2, summed over the outputs."""

    def __call__(self, outputs: Array, targets: Array) -> Array:  # noqa: D102
        misses = (outputs - targets) ** 2
        return 0.5 * misses.reshape(len(misses), -1).sum(axis=1)


@dataclass(frozen=True)
class Hinge:
    """(1/a) max(0, kappa - y f)^a of labels y = +-1, a = 1 linear or 2 quadratic."""

    kappa: float = 1.0
    exponent: int = 2

    def __post_init__(self) -> None:
        if self.exponent not in (1, 2) or not is_real(self.kappa):
            raise PackingError(
                f"a hinge of exponent {self.exponent} and margin {self.kappa}; the exponent must be 1 or 2 and the "
                "margin a number"
            )

    def overlaps(self, outputs: Array, targets: Array) -> Array:
        """Delta = kappa - y f, (S,)."""
        return self.kappa - targets * outputs

    def correct(self, outputs: Array, targets: Array) -> Array:
        """y f > 0, (S,)."""
        return targets * outputs > 0

    def __call__(self, outputs: Array, targets: Array) -> Array:  # noqa: D102
        depth = jnp.maximum(self.overlaps(outputs, targets), 0.0)
        return depth if self.exponent == 1 else 0.5 * depth * depth


@dataclass(frozen=True)
class Logistic:
    """ln(1 + e^(-y f)) of labels y = +-1."""

    def correct(self, outputs: Array, targets: Array) -> Array:
        """y f > 0, (S,)."""
        return targets * outputs > 0

    def __call__(self, outputs: Array, targets: Array) -> Array:  # noqa: D102
        return jax.nn.softplus(-targets * outputs)


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy -ln softmax(f)_y of k outputs with the number y of the right one."""

    def correct(self, outputs: Array, targets: Array) -> Array:
        """Whether the largest output is the right one, (S,)."""
        return jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets

    def __call__(self, outputs: Array, targets: Array) -> Array:  # noqa: D102
        chances = jax.nn.log_softmax(outputs, axis=-1)
        return -jnp.take_along_axis(chances, targets[:, None].astype(jnp.int32), axis=-1)[:, 0]
