r"""The eigenvalues of a noisy matrix as a process of their own: they are pushed, shaken, and repel one another.

Eigenvalues of a symmetric matrix, dX = -grad V dt + sqrt(D) dG (G symmetric, variance dt off the diagonal, 2 dt on it):

    dx_i = -dV/dx_i dt + sum_{j != i} D/(x_i - x_j) dt + sqrt(2 D) dB_i.

Singular values of a K x L matrix, dW = -grad V dt + sqrt(2 D) dB, K <= L:

    ds_i = -dV/ds_i dt + D [(L - K)/s_i + sum_{j != i} 2 s_i/(s_i^2 - s_j^2)] dt + sqrt(2 D) dB_i,

which for x_i = s_i^2 is dx_i = {-2 s_i dV/ds_i + 2 D [L + sum (x_i + x_j)/(x_i - x_j)]} dt + 2 sqrt(2 D x_i) dB_i. V is
the task's loss, as a function of the values.

The repulsion is taken at the end of the step, V's gradient at its beginning: with r = s - h grad V + sqrt(2 D h) xi

    s' = argmin |s' - r|^2/2 - D h log [prod_{i<j} (s'_i - s'_j) ...]

over values in their order. That function is strictly convex and infinite where two values meet: each step has one
solution, with the values in the order they had, however large the noise. An explicit step would let them cross, and an
adaptive one would shrink without end, as gaps of any size > 0 occur (two values repel like a Bessel process of
dimension 2). The noise is the same at all values in these coordinates, unlike in x = s^2. The logarithms are
self-concordant: Newton steps over 1 + (their length in the metric of the repulsion) lower the function and never leave
its domain. Error of the law: first order in h. Source: arXiv:2407.16427, 2412.20496;
the singular values' equation is derived.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from packing_jax.errors import PackingError
from packing_jax.networks.minibatch import Minibatch
from packing_jax.networks.objective import Objective
from packing_jax.networks.rules.base import Moved, WeightRule, check_number, normals, quiet_of
from packing_jax.trees import pytree

_CLOSE = 1e-3  # a Newton decrement from which one full step leaves nothing that matters
_MOST = 100  # Newton steps; ten are usual


@pytree(meta=["excess", "batch"])
@dataclass(frozen=True)
class Eigenvalues(WeightRule):
    """Dyson's process; build with :func:`eigenvalues` or :func:`singular_values`."""

    learning_rate: Any
    diffusion: Any
    excess: int | None  #: L - K of singular values; None: eigenvalues of a symmetric matrix
    batch: Minibatch | None

    def step(
        self, key: Array, objective: Objective, seen: tuple[Any, Any], samples: int, weights: Any, state: Any
    ) -> Moved:
        """One step of the values, (N,) in descending order."""
        value, gradient = jax.value_and_grad(lambda values: objective.value(values, *seen))(weights)
        charge = self.diffusion * self.learning_rate
        pushed = weights - self.learning_rate * gradient + jnp.sqrt(2 * charge) * normals(key, weights)
        new, solved = _apart(weights, pushed, charge, self.excess)
        return Moved(new, state, ~((value <= objective.largest_loss) & solved), quiet_of(objective, weights, seen))


def eigenvalues(learning_rate: ArrayLike, diffusion: ArrayLike) -> Eigenvalues:
    """Eigenvalues (N,) of a symmetric matrix, in descending order, as a process of their own. Source: arXiv:2407.16427.

    Args:
        learning_rate: h > 0, the time step; this and the next are one number, or one per replica.
        diffusion: D > 0; SGD at the learning rate alpha with gradient noise of variance A^2/B off the diagonal, 2 A^2/B
            on it, has D = alpha A^2/B in units of time alpha k.

    Raises:
        PackingError: an argument out of range.
    """
    return _rule(learning_rate, diffusion, None)


def singular_values(learning_rate: ArrayLike, diffusion: ArrayLike, excess: int = 0) -> Eigenvalues:
    """Singular values (K,) of a K x L matrix, in descending order, as a process of their own. Source: arXiv:2412.20496.

    Args:
        learning_rate: h > 0, the time step; this and the next are one number, or one per replica.
        diffusion: D > 0; Langevin dynamics of the matrix (:func:`packing_jax.networks.rules.langevin`, without the
            1/P) at the temperature kT has D = kT.
        excess: L - K. If it is 0 nothing keeps the smallest value from 0, and its sign may change: it stands for its
            modulus, and V must be even in it.

    Raises:
        PackingError: an argument out of range.
    """
    if type(excess) is not int or excess < 0:
        raise PackingError(f"L - K is {excess!r}; it must be a whole number from 0 on")
    return _rule(learning_rate, diffusion, excess)


def _rule(learning_rate: ArrayLike, diffusion: ArrayLike, excess: int | None) -> Eigenvalues:
    return Eigenvalues(
        check_number("learning rate", learning_rate, 0.0, above=True),
        check_number("diffusion", diffusion, 0.0, above=True),
        excess,
        None,
    )


def _apart(start: Array, pushed: Array, charge: Array, excess: int | None) -> tuple[Array, Array]:
    """The values that minimise |y - pushed|^2/(2 charge) - log repulsion, from ordered ones; and whether found."""
    other = 1 - jnp.eye(len(start), dtype=start.dtype)

    def newton(y: Array) -> tuple[Array, Array, Array]:
        """The Newton step, its decrement, and its length in the metric of the repulsion alone."""
        inverse = other / (y[:, None] - y[None] + (1 - other))
        slope = (y - pushed) / charge - inverse.sum(axis=1)
        square = inverse**2
        stiff = jnp.diag(square.sum(axis=1)) - square
        if excess is not None:
            inverse = other / (y[:, None] + y[None] + (1 - other))
            slope = slope - inverse.sum(axis=1) - excess / y
            square = inverse**2
            stiff = stiff + jnp.diag(square.sum(axis=1) + excess / y**2) + square
        step = _solved(stiff + jnp.eye(len(y), dtype=y.dtype) / charge, slope)
        return step, jnp.sqrt(jnp.maximum(step @ slope, 0.0)), jnp.sqrt(jnp.maximum(step @ (stiff @ step), 0.0))

    def unsolved(carry: tuple[Array, Array, Array]) -> Array:
        _, decrement, made = carry
        return ~(decrement < _CLOSE) & (made < _MOST)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        y, _, made = carry
        step, decrement, length = newton(y)
        # below a length of 0.3 full steps stay inside too, and converge quadratically
        return y - step / jnp.where(length < 0.3, 1.0, 1 + length), decrement, made + 1

    far = jnp.full((), jnp.inf, start.dtype)
    y, decrement, _ = jax.lax.while_loop(unsolved, body, (start, far, jnp.zeros((), jnp.int32)))
    # in float32 the decrement may not fall below rounding over the noise of a step
    return y, decrement < 0.25


def _solved(matrix: Array, right: Array) -> Array:
    """The solution of a small positive definite system, by elimination: over a batch, faster than a library's calls."""
    for i in range(len(right)):
        others = np.arange(len(right)) != i
        factor = jnp.where(others, matrix[:, i] / matrix[i, i], 0.0)
        matrix = matrix - factor[:, None] * matrix[i][None]
        right = right - factor * right[i]
    return right / jnp.diagonal(matrix)
