r"""NAG-GS: Nesterov's accelerated flow, integrated by Gauss-Seidel splitting, as an optax transformation.

    x' = (x + a v)/(1 + a),   gamma' = (gamma + a mu)/(1 + a),
    v' = (gamma' v + a mu x' - a grad f(x'))/(gamma' + a mu)

An optax update is given the gradient at the current weights. So the weights are x', and each update ends with the next
x'. As v = x at the start, the sequence is the same. Source: arXiv:2209.14937.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from packing_jax.errors import PackingError


class NagGsState(NamedTuple):
    """Optimizer state of NAG-GS."""

    v: Any  #: like the weights
    gamma: Array  #: ()


def nag_gs(learning_rate: Any, mu: Any, gamma: Any = 1.0) -> optax.GradientTransformation:
    """NAG-GS; see the equations of this module. Source: arXiv:2209.14937.

    Args:
        learning_rate: a > 0.
        mu: assumed strong convexity, >= 0.
        gamma: its initial value, > 0.
    """

    def init(weights: Any) -> NagGsState:
        return NagGsState(weights, jnp.asarray(gamma, jax.tree.leaves(weights)[0].dtype))

    def update(gradient: Any, state: NagGsState, weights: Any = None) -> tuple[Any, NagGsState]:
        if weights is None:
            raise PackingError("nag_gs needs the weights for an update: update(gradient, state, weights)")
        a = learning_rate
        now = (state.gamma + a * mu) / (1 + a)
        v = jax.tree.map(lambda v, x, g: (now * v + a * mu * x - a * g) / (now + a * mu), state.v, weights, gradient)
        return jax.tree.map(lambda x, v: a * (v - x) / (1 + a), weights, v), NagGsState(v, now)

    return optax.GradientTransformation(init, update)
