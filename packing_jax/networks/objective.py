"""The objective: a model and a loss on samples, as rules and observables use them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.losses import Classifying, Overlapping

#: How the losses of samples add up: a packing's energy is a sum over contacts, a network's loss a mean over samples.
#: ``whole``: the loss is one number of all samples of a step together, such as one of their pairs.
Total = Literal["mean", "sum", "whole"]

_VIEWS = 0x76696577  # what a step's key is folded with, so that views share no words with minibatches and noise


@dataclass(frozen=True)
class Objective:
    """The functions of a task, the same for all replicas: a constant of the compiled program."""

    apply: Callable[[Any, Any], Any]  #: (weights, inputs (S, ...)) -> outputs
    loss: Callable[[Any, Any], Array]  #: (outputs, targets) -> (S,)
    total: Total = "mean"
    project: Callable[[Any], Any] | None = None  #: weights -> weights, applied after each move
    largest_loss: float = np.inf  #: a replica whose batch has a larger loss has diverged
    views: Callable[[Array, Any], Any] | None = None  #: (key, input of one sample) -> what the model sees of it

    def viewed(self, key: Array, inputs: Any, which: Array) -> Any:
        """Inputs as the model sees them: of each sample a function of the key and of its number alone.

        Args:
            key: (2,) uint32 key data of a replica at a step.
            inputs: of the samples, sample axis first.
            which: (S,) their numbers among all samples.
        """
        if self.views is None:
            return inputs
        own = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), _VIEWS)
        return jax.vmap(self.views)(jax.vmap(jax.random.fold_in, (None, 0))(own, which), inputs)

    def losses(self, weights: Any, inputs: Any, targets: Any) -> Array:
        """The loss of each sample, (S,); or of all together, ()."""
        return self.loss(self.apply(weights, inputs), targets)

    def value(self, weights: Any, inputs: Any, targets: Any, chosen: Array | None = None, share: Any = 1.0) -> Array:
        """The total loss, (); of the ``chosen`` samples (S,) only if given, a mean being divided by their ``share``."""
        losses = self.losses(weights, inputs, targets)
        if self.total == "whole":
            if chosen is not None:
                raise PackingError("a loss of all samples together has no batch fraction: give a batch size")
            return losses
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
