"""Losses of one sample, and what a sample's overlap is.

A loss takes a model's outputs (S,) or (S, k) and the targets (S, ...) and returns (S,) numbers. Hinge losses are
overlap energies: with the overlap Delta = kappa - y f(x), a violated sample (Delta > 0) is a contact, the linear hinge
max(0, Delta) is the linear energy and the quadratic hinge 1/2 max(0, Delta)^2 the harmonic one. A configuration without
a violated sample is absorbing. Any other function of outputs and targets can be a loss too, but has no overlaps.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
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
    """A loss whose samples are classified correctly or not."""

    def correct(self, outputs: Any, targets: Any) -> Array:
        """Which samples are classified correctly, (S,) bool."""
        ...


@runtime_checkable
class Checking(Protocol):
    """A loss that checks its targets."""

    def check(self, outputs: tuple[int, ...], targets: Any) -> None:
        """Refuse targets of another kind.

        Args:
            outputs: the shape of the model's outputs.
            targets: of all samples.

        Raises:
            PackingError: targets that do not fit the loss.
        """
        ...


def _check_signs(outputs: tuple[int, ...], targets: Any) -> None:
    """Refuse targets other than a label +1 or -1 for each output."""
    labels = np.asarray(targets)
    if labels.shape != outputs or labels.dtype.kind not in "fiu" or not np.all(np.abs(labels) == 1):
        raise PackingError(
            f"the targets are {_shown(labels)} for outputs of shape {outputs}; the loss takes a label +1 or -1 for each"
        )


def _shown(targets: np.ndarray) -> str:
    found = np.unique(targets)
    values = ", ".join(f"{value:g}" for value in found[:4]) + (", ..." if len(found) > 4 else "")
    return f"{values} of shape {targets.shape}"


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

    def check(self, outputs: tuple[int, ...], targets: Any) -> None:
        """Refuse targets other than labels +1 and -1."""
        _check_signs(outputs, targets)

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

    def check(self, outputs: tuple[int, ...], targets: Any) -> None:
        """Refuse targets other than labels +1 and -1."""
        _check_signs(outputs, targets)

    def correct(self, outputs: Array, targets: Array) -> Array:
        """y f > 0, (S,)."""
        return targets * outputs > 0

    def __call__(self, outputs: Array, targets: Array) -> Array:  # noqa: D102
        return jax.nn.softplus(-targets * outputs)


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy -ln softmax(f)_y of k outputs, where y is the index of the right one."""

    def check(self, outputs: tuple[int, ...], targets: Any) -> None:
        """Refuse targets other than whole numbers from 0 to k - 1."""
        labels = np.asarray(targets)
        whole = labels.dtype.kind in "fiu" and np.all(labels == np.rint(labels))
        if (
            len(outputs) != 2
            or labels.shape != outputs[:1]
            or not whole
            or labels.min() < 0
            or labels.max() >= outputs[1]
        ):
            raise PackingError(
                f"the targets are {_shown(labels)} for outputs of shape {outputs}; softmax takes the number of the "
                "right output of each sample, from 0 on"
            )

    def correct(self, outputs: Array, targets: Array) -> Array:
        """Whether the largest output is the right one, (S,)."""
        return jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets

    def __call__(self, outputs: Array, targets: Array) -> Array:  # noqa: D102
        chances = jax.nn.log_softmax(outputs, axis=-1)
        return -jnp.take_along_axis(chances, targets[:, None].astype(jnp.int32), axis=-1)[:, 0]


@dataclass(frozen=True)
class NTXent:
    r"""SimCLR's loss of the views of all samples together, in a task whose total is "whole".

        -ln [exp(z_a.z_b/tau) / sum_(c != a) exp(z_a.z_c/tau)]

    with z the outputs at length 1, averaged over all ordered pairs a, b of views of the same sample; c are all other
    views. With two views it is that of the source, arXiv:2002.05709.

    Args:
        temperature: tau > 0.

    Raises:
        PackingError: another temperature, or when called with outputs that are not two views or more of each sample.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        if not (is_real(self.temperature) and 0 < self.temperature < np.inf):
            raise PackingError(f"a temperature of {self.temperature!r}; it must be a number above 0")

    def __call__(self, outputs: Array, targets: Any) -> Array:  # noqa: D102
        if outputs.ndim != 3 or outputs.shape[1] < 2:
            raise PackingError(
                f"the outputs have shape {outputs.shape}; it must be (samples, views, outputs), with two views or more"
            )
        samples, views, dim = outputs.shape
        flat = outputs.reshape(-1, dim)
        z = flat / jnp.sqrt((flat * flat).sum(axis=1, keepdims=True) + 1e-12)
        near = z @ z.T / self.temperature
        itself = np.eye(samples * views, dtype=bool)
        partner = np.kron(np.eye(samples, dtype=bool), np.ones((views, views), bool)) & ~itself
        among = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, near), axis=1)
        return among.mean() - jnp.where(partner, near, 0.0).sum() / (samples * views * (views - 1))
