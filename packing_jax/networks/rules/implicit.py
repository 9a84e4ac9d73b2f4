r"""Implicit stochastic gradient descent: the gradient is taken at the end of the step.

    w' = w - eta grad L_B(w')

On a quadratic loss of curvature rho a step contracts by 1/(1 + eta rho), stable for any eta. The equation is solved by
Newton's method, each linear system (1 + eta H) d = r by conjugate gradients; a quadratic loss takes one iteration.
Source: arXiv:2303.01767.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.sparse.linalg import cg
from jax.typing import ArrayLike

from packing_jax.networks.minibatch import Minibatch, Sampling
from packing_jax.networks.objective import Objective
from packing_jax.networks.rules.base import Moved, WeightRule, check_number, minibatch, quiet_of
from packing_jax.trees import pytree

_NEWTON = 20  # most iterations


@pytree(meta=["batch"])
@dataclass(frozen=True)
class Implicit(WeightRule):
    """Implicit SGD; build with :func:`implicit_sgd`."""

    learning_rate: Any
    batch: Minibatch | None

    def step(
        self, key: Array, objective: Objective, seen: tuple[Any, Any], samples: int, weights: Any, state: Any
    ) -> Moved:
        """The solution of the equation, to rounding; broken where none is found."""
        gradient = jax.grad(lambda w: objective.value(w, *seen))
        precise = 8 * float(np.finfo(np.dtype(jax.tree.leaves(weights)[0].dtype)).eps)

        def missing(end: Any) -> Any:
            """The residual of the equation."""
            return jax.tree.map(lambda w, e, g: w - e - self.learning_rate * g, weights, end, gradient(end))

        def unsolved(carry: tuple[Any, Any, Array]) -> Array:
            end, miss, made = carry
            return (made < _NEWTON) & (_largest(miss) > precise * (_largest(end) + _largest(weights)))

        def newton(carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
            end, miss, made = carry

            def system(d: Any) -> Any:
                along = jax.jvp(gradient, (end,), (d,))[1]
                return jax.tree.map(lambda one, other: one + self.learning_rate * other, d, along)

            change, _ = cg(system, miss, tol=precise)
            end = jax.tree.map(jnp.add, end, change)
            return end, missing(end), made + 1

        first = (weights, missing(weights), jnp.zeros((), jnp.int32))
        end, miss, _ = jax.lax.while_loop(unsolved, newton, first)
        # rounding may keep the last digits from converging; a residual of a thousand times that is no solution
        lost = ~(_largest(miss) <= 1e3 * precise * (_largest(end) + _largest(weights)))
        return Moved(end, state, lost, quiet_of(objective, weights, seen))


def _largest(tree: Any) -> Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def implicit_sgd(
    learning_rate: ArrayLike, batch_size: int | None = None, *, sampling: Sampling = "replacement"
) -> Implicit:
    """Implicit SGD: w' = w - eta grad L_B(w'). Source: arXiv:2303.01767.

    Args:
        learning_rate: eta > 0, one number or one per replica.
        batch_size: S, samples of a step; all of them when None.
        sampling: how they are drawn, see :data:`packing_jax.networks.minibatch.Sampling`.

    Raises:
        PackingError: an argument out of range.
    """
    return Implicit(check_number("learning rate", learning_rate, 0.0, above=True), minibatch(batch_size, sampling))
