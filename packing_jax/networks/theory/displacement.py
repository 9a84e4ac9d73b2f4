r"""Displacements of weights: per step, from a stationary state and from a fixed start; fits of |Delta|^2 ~ t^c.

Sums over modes are taken in blocks, so that 2e5 modes at hundreds of times take seconds and little memory.
Times are steps k, tau = eta k; displacements are squared, summed over modes, in squared units of the weights. Source:
arXiv:2107.09133; the displacement from the stationary state and the ballistic term are derived (reference: section A).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers, discrete, heavy_ball
from packing_jax.networks.theory.heavy_ball import HeavyBall

Array = NDArray[np.float64]

_BLOCK = 30_000  # modes times steps at once: ten times faster where they stay in the cache


def per_step(ball: HeavyBall, rho: Numbers) -> float:
    """E|theta_{k+1} - theta_k|^2 = eta^2 sum_l Var v_l in the stationary state, exactly.

    To leading order eta^2 s^2 Tr H/(S(1-beta^2)): :func:`per_step_law`.
    """
    return float(ball.learning_rate**2 * np.sum(discrete.stationary(ball, rho).velocity))


def per_step_law(ball: HeavyBall, rho: Numbers) -> float:
    """eta^2 s^2 Tr H/(S(1-beta^2)): the local displacement to leading order in eta rho (arXiv:2107.09133)."""
    return float(ball.learning_rate**2 * np.sum(ball.gradient_noise(rho)) / (1 - ball.momentum**2))


def from_stationary_state(ball: HeavyBall, rho: Numbers, steps: Numbers) -> Array:
    """E|theta_{t+k} - theta_t|^2 = 2 sum_l Var_l [1 - R_l(eta k)] of the SDE, (T,), for steps (T,) and rho (d,)."""

    def one(mode: Array, tau: Array) -> Array:
        return 2 * heavy_ball.stationary(ball, mode).position * heavy_ball.lost_memory(ball, mode, tau)

    return _summed(one, rho, ball.learning_rate * np.asarray(steps, float))


def from_stationary_state_exactly(ball: HeavyBall, rho: Numbers, steps: Numbers) -> Array:
    """:func:`from_stationary_state` of the discrete steps: 2 sum_l [Var x_l - Cov(x_l(0), x_l(k))]; steps (T,)."""

    def one(mode: Array, k: Any) -> Array:
        return 2 * discrete.stationary(ball, mode).position * (1 - discrete.correlation(ball, mode, k))

    return _summed(one, rho, np.asarray(steps))


def from_fixed_point(ball: HeavyBall, rho: Numbers, steps: Numbers, offset: Numbers = 0.0) -> Array:
    """E|theta_k - theta_0|^2 = sum_l [a0_l^2 (1 - R_l)^2 + Sigma_l^xx(tau)] of the SDE, from rest at one point.

    The first, ballistic term grows as t^4 at first and gives exponents above 1 at small learning rates.

    Args:
        ball: the settings.
        rho: (d,) curvatures of the loss.
        steps: (T,) steps k.
        offset: () or (d,) a0 = theta_0 - mu, the start relative to the minimum.

    Returns:
        (T,)
    """

    def one(mode: Array, tau: Array, a0: Array) -> Array:
        spread = heavy_ball.spread_from_a_point(ball, mode, tau)
        return spread + (a0 * heavy_ball.lost_memory(ball, mode, tau)) ** 2 if a0.any() else spread

    return _summed(one, rho, ball.learning_rate * np.asarray(steps, float), offset)


def from_fixed_point_exactly(ball: HeavyBall, rho: Numbers, steps: Numbers, offset: Numbers = 0.0) -> Array:
    """:func:`from_fixed_point` of the discrete steps, from v = 0; steps are whole numbers (T,)."""

    def one(mode: Array, k: Any, a0: Array) -> Array:
        moved = a0 - discrete.mean(ball, mode, k, a0)[0]
        return moved**2 + discrete.covariance(ball, mode, k).position

    return _summed(one, rho, np.asarray(steps), offset)


def power_law_spectrum(modes: int, exponent: float) -> Array:
    """Curvatures rho_l = l^(-a), l = 1..d, (d,).

    Overdamped modes without weight decay then move as t^(1/a) between 1/rho_max and 1/rho_min, for a > 1 (derived).

    Raises:
        PackingError: no modes.
    """
    if modes < 1:
        raise PackingError(f"{modes} modes were asked for; there must be at least 1")
    return np.arange(1, modes + 1, dtype=float) ** -exponent


def fitted_exponent(steps: Numbers, displacement: Numbers) -> float:
    """c of |Delta|^2 ~ k^c: the least-squares slope of log |Delta|^2 against log k, with equal weights.

    arXiv:2107.09133 takes linearly spaced steps, which gives the last decade nine tenths of the weight.

    Args:
        steps: (T,) steps, above 0, two or more.
        displacement: (T,) squared displacements, above 0.

    Raises:
        PackingError: fewer than two steps, or numbers that are not above 0.
    """
    k, moved = np.asarray(steps, float), np.asarray(displacement, float)
    if k.ndim != 1 or k.shape != moved.shape or k.size < 2 or not ((k > 0) & (moved > 0) & np.isfinite(moved)).all():
        raise PackingError("an exponent is fitted to two steps or more, above 0, and squared displacements above 0")
    x = np.log(k) - np.log(k).mean()
    return float(x @ np.log(moved) / (x @ x))


def _summed(one: Callable[..., Array], rho: Numbers, times: Any, *of_modes: Numbers) -> Array:
    """The sum over modes of ``one(mode (m, 1), times (T,), ...)``, (T,), in blocks of modes."""
    rho = np.atleast_1d(np.asarray(rho, float))
    if rho.ndim != 1:
        raise PackingError(f"curvatures must be one list of modes; these have the shape {rho.shape}")
    flat = times.reshape(-1)
    others = [np.broadcast_to(np.asarray(other, float), rho.shape) for other in of_modes]
    total: Any = np.zeros(flat.shape)
    block = max(1, _BLOCK // max(1, flat.size))
    for first in range(0, rho.size, block):
        part = slice(first, first + block)
        total = total + one(rho[part, None], flat, *(other[part, None] for other in others)).sum(0)
    return total.reshape(times.shape)
