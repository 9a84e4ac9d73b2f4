r"""Large-scale density fluctuations: S(q -> 0), the hyperuniformity exponent, and the number variance.

Amplitudes of different density waves are independent and, at small q, Gaussian, so the mean S of n values of
|amplitude|^2 has a gamma distribution: its log-likelihood is -n (S/mu + ln mu), where mu(q) is its expectation. Both
fits maximise this (Whittle's) likelihood. Least squares weighted by S would favour shells that came out low by chance.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.observables.periodic import Float, wrapped
from packing_jax.observables.structure import ShellAverage
from packing_jax.spheres.geometry import ball_volume


class HyperuniformityFit(NamedTuple):
    """S(q) = amplitude q^exponent."""

    exponent: float
    exponent_stderr: float
    amplitude: float
    amplitude_stderr: float
    p_value: float  #: of the fit; below 0.01 the law does not hold up to this q_max
    shells: int


class ZeroLimit(NamedTuple):
    """S(q) = value + slope q^power, so that ``value`` is S(q -> 0)."""

    value: float
    value_stderr: float
    interval: tuple[float, float]  #: 95 % for ``value``, from the profile likelihood; it need not be symmetric
    slope: float
    slope_stderr: float
    p_value: float  #: as in :class:`HyperuniformityFit`
    shells: int


class NumberVariance(NamedTuple):
    """Variance of the number of particles in a ball, each (radii,)."""

    radius: Float
    variance: Float
    stderr: Float
    mean: Float  #: exact, N v_d radius^d / V


_Model = Callable[[Float], tuple[Float, Float]]  # parameters -> mu (shells,) and its derivatives (shells, parameters)


def fit_hyperuniformity(shell_average: ShellAverage, q_max: float, q_min: float = 0.0) -> HyperuniformityFit:
    """The exponent alpha of S(q) = A q^alpha over q_min <= q <= q_max, by maximum likelihood.

    A pattern is hyperuniform when alpha > 0. The law has no constant S(0), so trust an alpha > 0 only if the p-value is
    not small. Errors come from the Fisher information, for independent waves with Gaussian amplitudes.

    Args:
        shell_average: shells of S(q) or chi(q), see :func:`packing_jax.observables.isotropic_average`.
        q_max: upper end, in the unit of ``shell_average.q``. The law is asymptotic: report how alpha depends on q_max.
        q_min: lower end.

    Raises:
        PackingError: fewer than three shells in the window, or a value that is not positive.
    """
    q, s, count = _window(shell_average, q_min, q_max)
    reference = float(np.exp(np.average(np.log(q), weights=count)))  # alpha and ln A are uncorrelated about here
    model = partial(_power_law, np.stack([np.ones_like(q), np.log(q / reference)], axis=1))
    start = np.array([np.log(np.average(s, weights=count)), 0.0])
    theta, covariance, p_value = _most_likely(model, start, s, count)
    amplitude = float(np.exp(theta[0] - theta[1] * np.log(reference)))
    along = np.array([1.0, -np.log(reference)])
    return HyperuniformityFit(
        exponent=float(theta[1]),
        exponent_stderr=float(np.sqrt(covariance[1, 1])),
        amplitude=amplitude,
        amplitude_stderr=amplitude * float(np.sqrt(along @ covariance @ along)),
        p_value=p_value,
        shells=len(q),
    )


def fit_zero_limit(shell_average: ShellAverage, q_max: float, q_min: float = 0.0, power: float = 2.0) -> ZeroLimit:
    """S(q -> 0) from S(q) = S_0 + B q^power over q_min <= q <= q_max, by maximum likelihood.

    The power is 2 wherever correlations are short-ranged, because S is then analytic in q^2. S_0 may come out slightly
    negative: it is not bounded by 0, so that averages over runs have no bias. Where S_0 is much below S(q_max) it rests
    on the few waves of smallest q: use the interval, not the standard error.

    Arguments and exceptions as for :func:`fit_hyperuniformity`; the power must be positive.
    """
    if not (np.isfinite(power) and power > 0):
        raise PackingError(f"the power of q is {power}; it must be positive")
    q, s, count = _window(shell_average, q_min, q_max)
    scale = float(q.max())
    design = np.stack([np.ones_like(q), (q / scale) ** power], axis=1)
    model = partial(_line, np.zeros_like(q), design)
    start = np.array([np.average(s, weights=count), 0.0])
    theta, covariance, p_value = _most_likely(model, start, s, count)
    stderrs = np.sqrt(np.diag(covariance))

    best = _cost(model(theta)[0], s, count)
    lost = partial(_lost, theta=theta, best=best, x=design[:, 1:], s=s, count=count)
    low, high = (_crossing(lost, float(theta[0]), side * float(stderrs[0])) for side in (-1, 1))
    return ZeroLimit(
        value=float(theta[0]),
        value_stderr=float(stderrs[0]),
        interval=(low, high),
        slope=float(theta[1] / scale**power),
        slope_stderr=float(stderrs[1] / scale**power),
        p_value=p_value,
        shells=len(q),
    )


def _power_law(design: Float, theta: Float) -> tuple[Float, Float]:
    mu = np.exp(design @ theta)
    return mu, mu[:, None] * design


def _line(offset: Float, design: Float, theta: Float) -> tuple[Float, Float]:
    return offset + design @ theta, design


def _lost(value: float, theta: Float, best: float, x: Float, s: Float, count: Float) -> float:
    """Twice the log-likelihood lost when S_0 is held at a value and the slope is fitted, less its 95 % quantile."""
    model = partial(_line, np.full_like(s, value), x)
    start = np.maximum(theta[1:], -2 * value / x.min())  # mu must be positive to begin with
    slope = _most_likely(model, start, s, count)[0]
    return 2 * (_cost(model(slope)[0], s, count) - best) - float(scipy.special.chdtri(1, 0.05))


def _window(shell_average: ShellAverage, q_min: float, q_max: float) -> tuple[Float, Float, Float]:
    inside = (shell_average.q >= q_min) & (shell_average.q <= q_max)
    q, s, count = shell_average.q[inside], shell_average.value[inside], shell_average.waves[inside].astype(np.float64)
    if len(q) < 3:
        raise PackingError(
            f"{len(q)} shells between q = {q_min:g} and {q_max:g}; two parameters need three or more: "
            "use a larger q_max or a larger box"
        )
    if not np.all(np.isfinite(s) & (s > 0)):
        raise PackingError("S(q) is zero or not finite in the window: a perfect crystal's waves have no power law")
    return q, s, count


def _cost(mu: Float, s: Float, count: Float) -> float:
    """Minus the log-likelihood, up to a constant."""
    return float(count @ (s / mu + np.log(mu))) if np.all(mu > 0) else np.inf


def _crossing(function: Callable[[float], float], start: float, step: float) -> float:
    """Where a function that is negative at ``start`` crosses zero in the direction of the step."""
    near, far = start, start + 2 * step
    while function(far) < 0:
        near, far = far, far + 2 * (far - near)
    return float(scipy.optimize.brentq(function, near, far, xtol=0.01 * abs(step)))  # a hundredth of a standard error


def _most_likely(model: _Model, theta: Float, s: Float, count: Float) -> tuple[Float, Float, float]:
    """Fisher scoring for gamma-distributed s: parameters, their covariance and the p-value of the fit."""
    best = _cost(model(theta)[0], s, count)
    for _ in range(200):
        mu, slope = model(theta)
        weighted = slope * (count / mu**2)[:, None]
        step = np.linalg.solve(slope.T @ weighted, weighted.T @ (s - mu))
        # the step is halved until the likelihood grows: a full one may overshoot, or make mu negative
        factor = 1.0
        while (there := _cost(model(theta + factor * step)[0], s, count)) > best and factor > 1e-9:
            factor /= 2
        gain, best, theta = best - there, there, theta + factor * step
        if gain < 1e-9:  # in the log-likelihood, where 1/2 is a standard error
            break
    mu, slope = model(theta)
    covariance: Float = np.asarray(np.linalg.inv(slope.T @ (slope * (count / mu**2)[:, None])), np.float64)
    # the deviance is divided by its mean, 2 n (ln n - digamma(n)), which is 1 only for many waves n
    deviance = 2 * count * (s / mu - 1 - np.log(s / mu)) / (2 * count * (np.log(count) - scipy.special.digamma(count)))
    return theta, covariance, float(scipy.special.gammaincc(0.5 * (len(s) - len(theta)), 0.5 * deviance.sum()))


def number_variance(
    positions: np.ndarray | Array, radii: np.ndarray, box: float, windows: int = 10_000, seed: int = 0
) -> NumberVariance:
    r"""sigma_N^2(R) = <N(R)^2> - <N(R)>^2 over balls of radius R placed uniformly at random.

    It grows as R^d for a liquid and, for a hyperuniform pattern of exponent alpha, as R^(d - 1) if alpha > 1 and as
    R^(d - alpha) if alpha < 1. The box holds exactly N particles, so that independent uniform positions have the
    variance N p (1 - p), p = v_d R^d / V.

    Args:
        positions: (..., N, dim), in the unit of ``box``; leading axes are samples.
        radii: (radii,), each at most half the box.
        box: side of the box.
        windows: balls per sample and radius. The error comes from the scatter of five or more samples. With fewer, only
            V / (v_d R^d) balls of each sample count as independent: for hyperuniform patterns this error is far too
            large.
        seed: of the positions of the balls.

    Returns:
        Variance, its standard error and the exact mean, (radii,) each.

    Raises:
        PackingError: radii above half the box or not positive, fewer than two windows, or invalid positions.

    Source: Torquato and Stillinger, Phys. Rev. E 68, 041113 (2003).
    """
    array = wrapped(positions, box)
    particles, dim = array.shape[-2:]
    radii = np.asarray(radii, dtype=np.float64)
    if radii.ndim != 1 or not len(radii) or not np.all((radii > 0) & (radii <= box / 2)):
        raise PackingError(f"radii must be a list of numbers between 0 and half the box, {box / 2:g}")
    if windows < 2:
        raise PackingError(f"{windows} windows; a variance needs 2 or more")
    rng = np.random.default_rng(seed)
    share = ball_volume(dim) * radii**dim / box**dim
    mean = particles * share
    samples = array.reshape(-1, particles, dim)
    second, fourth = np.zeros((2, len(samples), len(radii)))
    for i, sample in enumerate(samples):
        tree = scipy.spatial.KDTree(sample, boxsize=box)
        for k, radius in enumerate(radii):
            centres = rng.uniform(0.0, box, (windows, dim))
            square = (tree.query_ball_point(centres, radius, return_length=True) - mean[k]) ** 2
            second[i, k], fourth[i, k] = square.mean(), np.mean(square**2)
    variance = second.mean(axis=0)
    if len(samples) >= 5:
        stderr = second.std(axis=0, ddof=1) / np.sqrt(len(samples))
    else:
        independent = len(samples) * np.minimum(windows, np.maximum(1.0 / share, 1.0))
        stderr = np.sqrt((fourth.mean(axis=0) - variance**2) / independent)
    return NumberVariance(radii, variance, stderr, mean)
