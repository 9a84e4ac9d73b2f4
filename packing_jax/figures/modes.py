r"""Quadratic modes under SGD with momentum and injected noise: what closed forms are held against in several figures.

A mode's gradient is h x plus a normal number of standard deviation 1 at each step: the gradient noise of a linear
regression, s^2 rho/S, in units where it is 1. Copies of a mode are weights of one replica, all independent.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.task import Precision, Task
from packing_jax.networks.theory import discrete
from packing_jax.networks.theory.heavy_ball import Covariance, HeavyBall


def modes_task(
    curvatures: Any,
    copies: int,
    start: float = 0.0,
    waits: tuple[int, ...] = (),
    precision: Precision = "float32",
) -> Task:
    """So many copies of each mode (modes * copies weights), all from one place; loss (1/2) sum h x^2."""
    h = np.repeat(np.asarray(curvatures, float), copies)
    return Task(
        lambda _: jnp.full(len(h), start),
        _stretched,
        Squared(),
        data=Data(np.sqrt(h), np.zeros(len(h))),
        total="sum",
        waits=waits,
        precision=precision,
    )


def _stretched(weights: Array, roots: Array) -> Array:
    return weights * roots


def moments(modes: int, learning_rate: float) -> Any:
    """An observable: means of x, v, x^2, x v and v^2 over the copies of each mode, (5, modes)."""

    def measured(seen: Learner) -> Array:
        x = seen.weights.reshape(modes, -1)
        v = (seen.before - seen.weights).reshape(modes, -1) / learning_rate
        return jnp.stack([one.mean(axis=1) for one in (x, v, x * x, x * v, v * v)])

    return measured


def central_moments(modes: int, learning_rate: float) -> Any:
    """An observable: means of x and v, then Var x, Cov(x, v) and Var v over the copies of each mode, (5, modes).

    About the copies' own means, so that nothing cancels while the variances are small; without bias.
    """

    def measured(seen: Learner) -> Array:
        x = seen.weights.reshape(modes, -1)
        v = (seen.before - seen.weights).reshape(modes, -1) / learning_rate
        means = x.mean(axis=1), v.mean(axis=1)
        x, v = (one - mean[:, None] for one, mean in zip((x, v), means, strict=True))
        return jnp.stack([*means, *(one.sum(axis=1) / (x.shape[1] - 1) for one in (x * x, x * v, v * v))])

    return measured


def moved(modes: int) -> Any:
    """An observable: the mean squared displacement of each mode's copies since the waiting times, (K, modes)."""

    def measured(seen: Learner) -> Array:
        return ((seen.weights[None] - seen.marked) ** 2).reshape(len(seen.waits), modes, -1).mean(axis=2)

    return measured


def exact_stationary(ball: HeavyBall, curvatures: Any) -> Covariance:
    """The discrete stationary values of these modes, whose noise has the variance 1 in place of s^2 rho/S."""
    h = np.asarray(curvatures, float)
    return Covariance(*(part / ball.gradient_noise(h) for part in discrete.stationary(ball, h)))


def exact_covariance(ball: HeavyBall, curvatures: Any, steps: Any) -> Covariance:
    """The same after so many steps from one place."""
    h = np.asarray(curvatures, float)
    return Covariance(*(part / ball.gradient_noise(h) for part in discrete.covariance(ball, h, steps)))


def mean_and_error(values: Any, axis: Any) -> tuple[Any, Any]:
    """Mean over independent replicas, and its standard error."""
    values = np.asarray(values, float)
    return values.mean(axis=axis), values.std(axis=axis, ddof=1) / np.sqrt(values.shape[axis])
