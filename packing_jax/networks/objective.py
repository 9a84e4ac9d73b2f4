"""The objective: a model and a loss on samples, as rules and observables use them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.networks.losses import Classifying, Overlapping

#: How the losses of samples add up: a packing's energy is a sum over contacts, a network's loss a mean over samples.
Total = Literal["mean", "sum"]


@dataclass(frozen=True)
class Objective:
    """The functions of a task, the same for all replicas: a constant of the compiled program."""

    apply: Callable[[Any, Any], Any]  #: (weights, inputs (S, ...)) -> outputs
    loss: Callable[[Any, Any], Array]  #: (outputs, targets) -> (S,)
    total: Total = "mean"
    project: Callable[[Any], Any] | None = None  #: weights -> weights, applied after each move
    largest_loss: float = np.inf  #: a replica whose batch has a larger loss has diverged

    def losses(self, weights: Any, inputs: Any, targets: Any) -> Array:
        """The loss of each sample, (S,)."""
        return self.loss(self.apply(weights, inputs), targets)

    def value(self, weights: Any, inputs: Any, targets: Any, chosen: Array | None = None, share: Any = 1.0) -> Array:
        """The total loss, (); of the ``chosen`` samples (S,) only if given, a mean being divided by their ``share``."""
        losses = self.losses(weights, inputs, targets)
        if chosen is not None:
            losses = jnp.where(chosen, losses, 0.0)
        if self.total == "sum":
            return losses.sum()
        return losses.mean() / jnp.asarray(share, losses.dtype)

    def overlaps(self, weights: Any, inputs: Any, targets: Any) -> Array | None:
        """Delta of each sample (S,), above 0 where it is violated; None where the loss has no overlaps."""
        loss: Any = self.loss
        return loss.overlaps(self.apply(weights, inputs), targets) if isinstance(loss, Overlapping) else None

    def correct(self, weights: Any, inputs: Any, targets: Any) -> Array | None:
        """Which samples are classified correctly (S,); None where the loss does not classify."""
        loss: Any = self.loss
        return loss.correct(self.apply(weights, inputs), targets) if isinstance(loss, Classifying) else None


def samples_of(inputs: Any) -> int:
    """P, the length of the sample axis."""
    return len(jax.tree.leaves(inputs)[0])


def size_of(weights: Any) -> int:
    """The number of weights, of one replica."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(weights))


def flat(weights: Any) -> Array:
    """All weights (W,), leaf after leaf."""
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(weights)])
