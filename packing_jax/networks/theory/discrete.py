r"""SGD with momentum on a quadratic mode, exact at any learning rate.

The gradient along a mode is h x + noise of variance q^2, the same at every x and independent from step to step:

    v' = beta v + h x + noise,   x' = x - eta v',   (x', v') = M (x, v) + (-eta, 1) noise,
    M = [[1 - eta h, -eta beta], [h, beta]].

Mean and covariance follow for any start and number of steps; a mode is stable where 0 < eta h < 2(1+beta). This is the
law of additive noise. Where the noise depends on x, as for minibatches of a linear regression, the recursion is that of
:mod:`packing_jax.networks.theory.regression`.

Velocities are the optimizer's v, in units of the gradient: the position moves by -eta v' at each step. Arrays of h, q^2
and of step numbers k broadcast against one another.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers
from packing_jax.networks.theory.heavy_ball import AT_A_POINT, Covariance, HeavyBall

Array = NDArray[np.float64]


def step_matrix(ball: HeavyBall, rho: Numbers) -> Array:
    """M, (..., 2, 2): the map of (x, v) in a step without noise, with h = rho + lambda."""
    eta, beta, h = ball.learning_rate, ball.momentum, ball.curvature(rho)
    one = np.ones_like(h)
    return np.stack([np.stack([1 - eta * h, -eta * beta * one], -1), np.stack([h, beta * one], -1)], -2)


def stationary(ball: HeavyBall, rho: Numbers) -> Covariance:
    """The stationary variances of x and v, and their covariance.

    Var x = eta q^2 (1+beta)/{h(1-beta)[2(1+beta) - eta h]}, Var v = 2 q^2/{(1-beta)[2(1+beta) - eta h]},
    Cov(x, v) = -(eta/2) Var v, with q^2 = s^2 rho/S, or (P-S)/[S(P-1)] in place of 1/S. Derived; x and v are those
    after the same step.

    Raises:
        PackingError: an unstable mode: eta h must lie between 0 and 2(1+beta).
    """
    eta, beta, h = ball.learning_rate, ball.momentum, ball.curvature(rho)
    stiffness = 2 * (1 + beta) - eta * h
    if not ((h > 0) & (stiffness > 0)).all():
        raise PackingError(
            f"learning rate times curvature must lie between 0 and {2 * (1 + beta):g} for a stationary state; "
            f"it goes from {np.min(eta * h):g} to {np.max(eta * h):g}"
        )
    q2 = ball.gradient_noise(rho)
    velocity = 2 * q2 / ((1 - beta) * stiffness)
    return Covariance(eta * q2 * (1 + beta) / (h * (1 - beta) * stiffness), -eta / 2 * velocity, velocity)


def mean(
    ball: HeavyBall, rho: Numbers, steps: Numbers, position: Numbers = 0.0, velocity: Numbers = 0.0
) -> tuple[Any, Any]:
    """Mean position (theta - mu) and optimizer's v after k steps: M^k (x0, v0)."""
    power, _ = _after(ball, rho, steps)
    x, v = np.asarray(position, float), np.asarray(velocity, float)
    return power[..., 0, 0] * x + power[..., 0, 1] * v, power[..., 1, 0] * x + power[..., 1, 1] * v


def covariance(ball: HeavyBall, rho: Numbers, steps: Numbers, start: Covariance = AT_A_POINT) -> Covariance:
    """The covariance of (x, v) after k steps, also of unstable modes.

    C_k = M^k C_0 M^kT + q^2 sum_{j<k} M^j b b^T M^jT,   b = (-eta, 1): sums of positive matrices, by doubling, so that
    nothing cancels at few steps, without curvature, or beyond the stable learning rates.
    """
    power, built_up = _after(ball, rho, steps)
    xx, xv, vv = np.broadcast_arrays(*(np.asarray(part, float) for part in start))
    first = np.stack([np.stack([xx, xv], -1), np.stack([xv, vv], -1)], -2)
    both = power @ first @ np.swapaxes(power, -1, -2) + ball.gradient_noise(rho)[..., None, None] * built_up
    return Covariance(both[..., 0, 0], both[..., 0, 1], both[..., 1, 1])


def correlation(ball: HeavyBall, rho: Numbers, steps: Numbers) -> Any:
    """Cov(x_0, x_k)/Var x in the stationary state: the exact R, (M^k C)_xx/C_xx."""
    power, _ = _after(ball, rho, steps)
    at_rest = stationary(ball, rho)
    return power[..., 0, 0] + power[..., 0, 1] * at_rest.cross / at_rest.position


def _after(ball: HeavyBall, rho: Numbers, steps: Numbers) -> tuple[Array, Array]:
    """M^k and sum_{j<k} M^j b b^T M^jT, by binary digits of k."""
    left = np.asarray(steps)
    if left.dtype.kind not in "iu" or (left < 0).any():
        raise PackingError("numbers of steps must be whole numbers from 0 on")
    matrix = step_matrix(ball, rho)
    kick = np.array([-ball.learning_rate, 1.0])
    sums = np.broadcast_to(np.outer(kick, kick), matrix.shape)
    shape = (*np.broadcast_shapes(matrix.shape[:-2], left.shape), 2, 2)
    power, built_up = np.broadcast_to(np.eye(2), shape), np.zeros(shape)
    while left.any():
        odd = (left % 2 == 1)[..., None, None]
        built_up = np.where(odd, built_up + power @ sums @ np.swapaxes(power, -1, -2), built_up)
        power = np.where(odd, power @ matrix, power)
        sums = sums + matrix @ sums @ np.swapaxes(matrix, -1, -2)
        matrix = matrix @ matrix
        left = left // 2
    return power, built_up
