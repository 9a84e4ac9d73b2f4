"""The statistics behind phi_c: bootstrap over replicas, fits of lines and power laws, likelihood intervals.

Pure float64 NumPy. Nothing here depends on what is measured, and the calling modules have checked the inputs.

A 95 % interval of a parameter x comes from chi^2(x), the least chi^2 over all other parameters. A law may hold in
several windows w of the data, so chi^2 is averaged over them, P(x) = -2 ln sum_w exp(-(chi_w^2(x) + 2 dropped_w)/2)
(arXiv:2008.01069). The interval holds every x with P(x) - min P below the 95 % quantile of F(1, nu), where nu is the
number of degrees of freedom of the standard errors. Unlike value +- 2 stderr it may be asymmetric: phi_c is often well
bounded from above, by the lowest active phi, and poorly from below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtri, logsumexp, stdtrit  # scipy.stats has them too, and takes a second to import

from packing_jax.errors import PackingError

Array = NDArray[np.float64]

RESOLUTION = 1e-6
"""Floor of a standard error: fractions of particles are stored in float32."""

_PRIOR_REPLICAS = 4  # weight of the pooled variance, in replicas
_LEVEL = 0.95
_MISFIT = 0.05  # a fit with a smaller p-value is a misfit


class PowerLawFit(NamedTuple):
    """y = amplitude * (x - origin)^beta for each sample, (samples,); `gap` is x[0] - origin."""

    gap: Array
    origin: Array
    amplitude: Array
    beta: Array
    chi2: Array


class Line(NamedTuple):
    """y = intercept + slope * x, with errors from the weights alone."""

    intercept: float
    slope: float
    intercept_stderr: float
    slope_stderr: float
    chi2: float


def standard_error(rows: Sequence[Array]) -> Array:
    """Standard error of the mean of each row, (rows,), with a variance that is partly pooled over all rows.

    s^2 = (sum of squares + 4 pooled variance) / (n - 1 + 4). A few replicas alone estimate a variance so badly that a
    point whose replicas agree by chance would dominate a weighted fit. At least one row must hold two values or more.
    """
    count = np.array([len(row) for row in rows])
    squares = np.array([np.sum((row - row.mean()) ** 2) for row in rows])
    pooled = squares.sum() / (count - 1).sum()
    variance = (squares + _PRIOR_REPLICAS * pooled) / (count - 1 + _PRIOR_REPLICAS)
    stderr: Array = np.maximum(np.sqrt(variance / count), RESOLUTION)
    return stderr


def bootstrap_means(rows: Sequence[Array], draws: int, rng: np.random.Generator) -> Array:
    """Means of each row resampled with replacement, (draws, rows).

    Deviations are stretched by sqrt(n/(n - 1)): resampled means of n replicas show only (n - 1)/n of the variance.
    """
    return np.stack([bootstrap_mean(row, draws, rng) for row in rows], axis=1)


def bootstrap_mean(replicas: Array, draws: int, rng: np.random.Generator) -> Array:
    """:func:`bootstrap_means` of one set of replicas (n, ...): each draw takes whole replicas, (draws, ...)."""
    if draws < 2:
        raise PackingError(f"{draws} bootstrap draws; an error needs two or more, and a few hundred to be good to 5 %")
    n, centre = len(replicas), replicas.mean(axis=0)
    drawn = replicas[rng.integers(n, size=(draws, n))].mean(axis=1)
    means: Array = centre + (n / max(n - 1, 1)) ** 0.5 * (drawn - centre)
    return means


def half_width(draws: Array) -> float:
    """Half the central 68.27 % interval: a standard deviation that is robust against outliers."""
    low, high = np.quantile(draws, [0.158655, 0.841345])
    return float(high - low) / 2


def jackknife(rows: Array, statistic: Callable[[Array], Array]) -> Array:
    """Pseudo-values n s(all) - (n - 1) s(all but r) of a statistic of the mean over replicas, (n, ...).

    Their mean estimates s and their scatter its error, so that a nonlinear statistic can use the same bootstrap as a
    linear one.

    Args:
        rows: (n, ...), two replicas or more.
        statistic: a function of the mean over replicas, (...).
    """
    n = len(rows)
    total, whole = rows.sum(axis=0), statistic(rows.mean(axis=0))
    return np.stack([n * whole - (n - 1) * statistic((total - row) / (n - 1)) for row in rows])


def misfit(chi2: float, dof: int) -> float:
    """Factor on errors: sqrt(chi^2/dof) where the p-value of chi^2 is below 0.05, otherwise 1.

    A factor for every chi^2 > dof would widen the errors of a law that holds in half of all cases.
    """
    return float((chi2 / dof) ** 0.5) if dof > 0 and chdtrc(dof, chi2) < _MISFIT else 1.0


def akaike_weights(cost: Array) -> Array:
    """Weights of several fits, exp(-cost/2) over their sum; the cost is chi^2 + 2 (points dropped)."""
    share: Array = np.exp(-0.5 * (cost - cost.min()))
    return share / share.sum()


def averaged(value: Array, stderr: Array, cost: Array) -> tuple[float, float]:
    """Mean of fits with weights exp(-cost/2), and its standard error: their mean variance plus their scatter."""
    share = akaike_weights(cost)
    centre = float(share @ value)
    return centre, float(np.sqrt(share @ (stderr**2 + (value - centre) ** 2)))


def averaged_profile(chi2: Array, dropped: NDArray[np.integer[Any]]) -> Array:
    """P(x) - min P, (tried,), from chi^2 (windows, tried) and the points that each window drops, (windows,)."""
    cost = chi2 + 2.0 * dropped[:, None]
    profile: Array = -2.0 * logsumexp(-0.5 * cost, axis=0)
    return profile - profile.min()


def likelihood_interval(tried: Array, profile: Array, dof: int) -> tuple[float, float]:
    """The lowest and the highest x whose profile is below the 95 % quantile of F(1, dof).

    Args:
        tried: x, in any order, (tried,).
        profile: P(x) - min P, (tried,). Between two x it is interpolated; beyond the outermost x the interval ends.
        dof: degrees of freedom of the standard errors.
    """
    order = np.argsort(tried)
    x, excess = tried[order], profile[order] - fdtri(1, dof, _LEVEL)
    inside = np.flatnonzero(excess <= 0)
    first, last = int(inside[0]), int(inside[-1])
    low = x[first] if first == 0 else np.interp(0.0, excess[[first, first - 1]], x[[first, first - 1]])
    high = x[last] if last == len(x) - 1 else np.interp(0.0, excess[[last, last + 1]], x[[last, last + 1]])
    return float(low), float(high)


def student_interval(value: float, stderr: float, rows: Sequence[Array]) -> tuple[float, float]:
    """95 % interval of a value whose standard error was estimated from these replicas."""
    half = float(stdtrit(sum(len(row) - 1 for row in rows), 0.5 + _LEVEL / 2)) * stderr
    return value - half, value + half


def straight_line(x: Array, y: Array, stderr: Array) -> Line:
    """Weighted least squares of a straight line through points with known errors, all (points,)."""
    weight = stderr**-2.0
    total = weight.sum()
    mean_x, mean_y = weight @ x / total, weight @ y / total
    sxx = weight @ (x - mean_x) ** 2
    slope = weight @ ((x - mean_x) * (y - mean_y)) / sxx
    intercept = mean_y - slope * mean_x
    chi2 = weight @ (y - intercept - slope * x) ** 2
    stderrs = (1 / total + mean_x**2 / sxx) ** 0.5, sxx**-0.5
    return Line(float(intercept), float(slope), float(stderrs[0]), float(stderrs[1]), float(chi2))


def power_law(x: Array, y: Array, stderr: Array, gaps: Array, model: Array | None = None) -> PowerLawFit:
    """Weighted least squares of y = A (x - x_0)^beta for many samples y of the same points at once.

    ln y is linearised about a model m: z = ln m + (y - m)/m with weight (m/stderr)^2. At given x_0 the fit is then a
    straight line in ln(x - x_0), so that only x_0 is searched: over `gaps`, then by a parabola through the three lowest
    chi^2. Without a model, m starts as y itself and is replaced by the fit until they agree: this is least squares in
    y, without the bias of a fit to ln y.

    Args:
        x: increasing, (points,).
        y: (samples, points).
        stderr: of y, (points,).
        gaps: candidates for x[0] - x_0, increasing in equal ratios, (gaps,).
        model: (points,), positive; needed for more than one sample.
    """
    if model is not None:
        return _profile(x, np.log(model) + (y - model) / model, (model / stderr) ** 2, gaps)
    model = y[0]
    for _ in range(5):
        fit = power_law(x, y, stderr, gaps, model)
        model = fit.amplitude * (x - fit.origin) ** fit.beta
    return fit


def lowest(chi2: Array) -> Array:
    """Fractional index at which chi^2 (samples, tried) is least, by the parabola through its three lowest."""
    best = chi2.argmin(axis=1)
    inner = np.clip(best, 1, chi2.shape[1] - 2)
    left, middle, right = (chi2[np.arange(len(chi2)), inner + k] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    found = (best == inner) & (bend > 0)
    shift: Array = np.where(found, (left - right) / (2 * np.where(found, bend, 1.0)), 0.0)
    return best + shift


class PowerLawProfile(NamedTuple):
    """Least chi^2 over A and beta at each gap, that beta, and the curvature of chi^2/2 in beta there; (gaps,)."""

    chi2: Array
    beta: Array
    information: Array

    def over_beta(self, betas: Array) -> Array:
        """Least chi^2 over A and the gap at each of `betas`."""
        away = (betas[:, None] - self.beta) ** 2 * self.information
        least: Array = np.min(self.chi2 + away, axis=1)
        return least


def power_law_profile(x: Array, y: Array, stderr: Array, gaps: Array) -> PowerLawProfile:
    """Least chi^2 of y = A (x - x_0)^beta at each gap x[0] - x_0, by Gauss-Newton in (ln A, beta).

    Unlike `power_law`, which is linearised about one model, it is right far from the best gap too.
    """
    u = np.log(x - x[0] + gaps[:, None])
    weight = (y / stderr) ** 2
    beta, log_amplitude, _ = (part[0] for part in _lines(x, np.log(y)[None], weight, gaps[None]))
    for _ in range(12):
        m = np.exp(log_amplitude[:, None] + beta[:, None] * u) / stderr
        residual, slope = y / stderr - m, m * u
        aa, ab, bb = (m * m).sum(axis=1), (m * slope).sum(axis=1), (slope * slope).sum(axis=1)
        ga, gb = (m * residual).sum(axis=1), (slope * residual).sum(axis=1)
        determinant = aa * bb - ab**2
        # damped: an undetermined direction far from the best gap must not run away
        log_amplitude = log_amplitude + np.clip((bb * ga - ab * gb) / determinant, -1.0, 1.0)
        beta = beta + np.clip((aa * gb - ab * ga) / determinant, -0.3, 0.3)
    m = np.exp(log_amplitude[:, None] + beta[:, None] * u) / stderr
    return PowerLawProfile(np.sum((y / stderr - m) ** 2, axis=1), beta, bb - ab**2 / aa)


def _profile(x: Array, z: Array, weight: Array, gaps: Array) -> PowerLawFit:
    gap = gaps[0] * (gaps[1] / gaps[0]) ** lowest(_lines(x, z, weight, gaps[None])[2])
    beta, log_amplitude, chi2 = (part[:, 0] for part in _lines(x, z, weight, gap[:, None]))
    return PowerLawFit(gap, x[0] - gap, np.exp(log_amplitude), beta, chi2)


def _lines(x: Array, z: Array, weight: Array, gap: Array) -> tuple[Array, Array, Array]:
    """beta, ln A and chi^2 (samples, gaps) of z (samples, points) at gap (samples or 1, gaps)."""
    u = np.log(x - x[0] + gap[..., None])
    total = weight.sum()
    mean_u, mean_z = u @ weight / total, z @ weight / total
    du, dz = u - mean_u[..., None], z - mean_z[:, None]
    suz = (du @ (dz * weight)[..., None])[..., 0]
    beta = suz / (du**2 @ weight)
    chi2 = (dz**2 @ weight)[:, None] - suz * beta
    return beta, mean_z[:, None] - beta * mean_u, np.maximum(chi2, 0.0)
