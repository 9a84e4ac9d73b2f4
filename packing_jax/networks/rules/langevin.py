r"""Langevin dynamics of weights at a temperature.

    w' = w - mu (grad L(w) + lambda w) + sqrt(2 kT mu / P) xi,   xi ~ N(0, 1) for each weight

With the 1/P the Hamiltonian is P L, the sum of the samples' losses: exp(-P L/kT) is stationary for mu -> 0 (at
lambda = 0). In the plain convention, without it, exp(-L/kT) is. Source: arXiv:2405.13098.

At kT > 0 noise moves the weights where no sample is violated too: a run is absorbed at kT = 0 only.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from packing_jax.networks.minibatch import Minibatch, Sampling
from packing_jax.networks.objective import Objective
from packing_jax.networks.rules.base import Moved, WeightRule, check_number, minibatch, normals, quiet_of
from packing_jax.trees import pytree


@pytree(meta=["per_sample", "batch"])
@dataclass(frozen=True)
class Langevin(WeightRule):
    """Langevin dynamics; build with :func:`langevin`."""

    learning_rate: Any
    temperature: Any
    weight_decay: Any
    per_sample: bool
    batch: Minibatch | None

    def step(
        self, key: Array, objective: Objective, seen: tuple[Any, Any], samples: int, weights: Any, state: Any
    ) -> Moved:
        """A step down the gradient, and Gaussian noise on each weight."""
        value, gradient = jax.value_and_grad(lambda weights: objective.value(weights, *seen))(weights)
        over = samples if self.per_sample else 1
        size = jnp.sqrt(2 * self.temperature * self.learning_rate / over)

        def moved(w: Array, g: Array, xi: Array) -> Array:
            return w - self.learning_rate * (g + self.weight_decay * w) + size * xi

        new = jax.tree.map(moved, weights, gradient, normals(key, weights))
        quiet = quiet_of(objective, weights, seen)
        if quiet is not None:
            quiet = quiet & (self.temperature == 0)
        return Moved(new, state, ~(value <= objective.largest_loss), quiet)


def langevin(
    learning_rate: ArrayLike,
    temperature: ArrayLike,
    weight_decay: ArrayLike = 0.0,
    batch_size: int | None = None,
    *,
    sampling: Sampling = "replacement",
    per_sample: bool = True,
) -> Langevin:
    """Langevin dynamics: w' = w - mu (grad L + lambda w) + sqrt(2 kT mu/P) xi. Source: arXiv:2405.13098.

    Args:
        learning_rate: mu > 0; this and the next two are one number, or one per replica.
        temperature: kT >= 0.
        weight_decay: lambda.
        batch_size: S, samples of a step; all of them when None.
        sampling: how they are drawn, see :data:`packing_jax.networks.minibatch.Sampling`.
        per_sample: whether the variance of the noise is divided by P, the number of samples.

    Raises:
        PackingError: an argument out of range.
    """
    return Langevin(
        check_number("learning rate", learning_rate, 0.0, above=True),
        check_number("temperature", temperature, 0.0),
        check_number("weight decay", weight_decay),
        per_sample,
        minibatch(batch_size, sampling),
    )
