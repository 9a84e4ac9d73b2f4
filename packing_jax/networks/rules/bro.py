r"""Biased random organization of weights: random kicks along the gradients of violated samples.

    dw = eps sum_{mu violated} u_mu g_mu,   u_mu ~ U[0, 1],   g_mu = -grad Delta_mu

where Delta_mu is the overlap of a sample; all kicks of a step are computed from the same weights. They reduce the
violation. On a perceptron g_mu = y_mu xi_mu / sqrt N. The mean move is that of gradient descent on the linear hinge at
learning rate eps/2.
Source: arXiv:2411.11834, with samples for contacts.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from packing_jax.errors import PackingError
from packing_jax.networks.minibatch import Minibatch, Sampling
from packing_jax.networks.objective import Objective
from packing_jax.networks.rules.base import CHOICE, Moved, WeightRule, check_number, minibatch
from packing_jax.random_words import uniform, words_of
from packing_jax.trees import pytree


@pytree(meta=["batch"])
@dataclass(frozen=True)
class BRO(WeightRule):
    """Biased random organization; build with :func:`bro`."""

    kick: Any
    batch: Minibatch | None

    def step(
        self, key: Array, objective: Objective, seen: tuple[Any, Any], samples: int, weights: Any, state: Any
    ) -> Moved:
        """A random kick for each violated sample of the step, all from the same weights."""

        def overlaps_of(weights: Any) -> Array:
            found = objective.overlaps(weights, *seen)
            if found is None:
                raise PackingError(
                    f"the rule bro kicks violated samples, and {objective.loss} has no overlaps: use a hinge, or a "
                    "loss with the method overlaps"
                )
            return found

        overlaps, pull = jax.vjp(overlaps_of, weights)
        violated = overlaps > 0
        draws = uniform(words_of(key, len(overlaps), CHOICE), np.dtype(overlaps.dtype))
        (kicks,) = pull(jnp.where(violated, -draws, 0.0))
        new = jax.tree.map(lambda w, kick: w + self.kick * kick, weights, kicks)
        return Moved(new, state, jnp.zeros((), bool), ~jnp.any(violated))


def bro(kick: ArrayLike, batch_size: int | None = None, *, sampling: Sampling = "replacement") -> BRO:
    """BRO over weights: dw = eps sum u_mu g_mu over violated samples, u ~ U[0, 1]. Source: arXiv:2411.11834.

    Args:
        kick: eps > 0, one number or one per replica.
        batch_size: S, samples of a step; all of them when None.
        sampling: how they are drawn, see :data:`packing_jax.networks.minibatch.Sampling`.

    Raises:
        PackingError: an argument out of range.
    """
    return BRO(check_number("kick", kick, 0.0, above=True), minibatch(batch_size, sampling))
