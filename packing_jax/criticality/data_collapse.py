"""Data collapse of several sizes or times onto one master curve, which gives phi_c and exponents at once.

Finite-size scaling of an absorbing transition, f_a = L^(-beta/nu_perp) F(Delta L^(1/nu_perp), t L^(-z)) with
Delta = (phi - phi_c)/phi_c and L = N^(1/d) (Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004)). `collapse` takes the
stationary state, or, with t in place of L, the early decay f_a = t^(-alpha) G(Delta t^(1/nu_par)). `time_collapse`
takes the decay at phi_c, f_a = L^(-beta/nu_perp) F(t L^(-z)).

The master curve is a cubic spline for ln f_a in the scaled variable. At given (phi_c, nu) or z, the spline and the
exponent of the prefactor are one linear least-squares problem, so that only phi_c and nu, or z, are searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import BSpline
from scipy.optimize import least_squares

from packing_jax.criticality.fits import (
    RESOLUTION,
    bootstrap_mean,
    bootstrap_means,
    half_width,
    jackknife,
    misfit,
    standard_error,
    student_interval,
)
from packing_jax.criticality.scan import DRAWS, scan_order
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

_NEIGHBOURS = 2  # packing fractions on each side that a point shares its variance with
_Z = np.linspace(0.5, 4.0, 71)  # values of z to try
_GAINED = 16.0  # four standard deviations: chi^2 of the best z is so many chi^2/dof below both ends of _Z
_COEFFICIENTS = (6, 8, 10)  # of the master curve: the number with the least chi^2 + 2 (coefficients) is taken


@dataclass(frozen=True)
class Fitted:
    """A fitted parameter of a collapse, with its errors."""

    value: float
    stderr: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Collapse:
    """ln y = -prefactor ln s + P(x): `prefactor` is beta/nu_perp (s = L) or alpha (s = t).

    `collapse` fits phi_c and nu (nu_perp or nu_par), `time_collapse` z; the others are None. `chi2` is that of `points`
    about the master curve P, which has `coefficients` spline coefficients. In `time_collapse` the points of a run are
    correlated: there chi^2 compares fits, and is no test of one.
    """

    prefactor: Fitted
    phi_c: Fitted | None
    nu: Fitted | None
    z: Fitted | None
    chi2: float
    dof: int
    points: int
    coefficients: int


def collapse(
    scales: ArrayLike,
    phis: Sequence[ArrayLike],
    values: Sequence[ArrayLike],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Collapse:
    """phi_c, nu and the prefactor's exponent k of y = s^-k F(Delta s^(1/nu)), Delta = (phi - phi_c)/phi_c.

    With s = L = N^(1/d) and y the stationary activity of surviving runs: nu = nu_perp, k = beta/nu_perp. With s = t and
    y = f_a(t) of all runs: nu = nu_par, k = alpha. The residual of ln y about the master curve is minimised over all of
    them; errors come from the bootstrap over replicas.

    Args:
        scales: s of each set, (sets,): two or more, different.
        phis: packing fractions of each set, (phi,) each.
        values: y of each set, (phi, replica) each; 0 or NaN where absorbed or not run, which is left out.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        PackingError: fewer than two scales, shapes that differ, too few points, a best phi_c outside the scanned phi, a
            best nu that is not positive, or errors that leave phi_c or the sign of nu open.
    """
    s = _scales(scales, len(phis), len(values))
    x, log_s, rows = [], [], []
    for scale, phi, value in zip(s, phis, values, strict=True):
        for i in scan_order(phi, np.minimum(np.asarray(value, float), 1.0)):
            row = np.asarray(value, float)[i]
            if np.sum(row > 0) > 1:
                x.append(float(np.asarray(phi)[i]))
                log_s.append(np.log(scale))
                rows.append(row[row > 0])
    at, sizes = np.array(x), np.array(log_s)
    if len(at) < 12 or len(np.unique(sizes)) < 2:
        raise PackingError(
            f"a collapse needs 12 or more points with two surviving replicas on two scales, and has {len(at)} on "
            f"{len(np.unique(sizes))}: scan more phi near phi_c, or run more replicas"
        )
    logs = [jackknife(row, np.log) for row in rows]
    mean, stderrs = np.array([row.mean() for row in logs]), _local_error(logs, sizes)
    middle = sizes.mean()

    def abscissa(parameters: Array) -> Array:
        phi_c, inverse_nu = parameters
        return np.asarray((at - phi_c) / phi_c * np.exp(inverse_nu * (sizes - middle)))

    low, high = at.min(), at.max()
    starts = np.array([(c, 1 / nu) for c in np.linspace(low, high, 11) for nu in np.geomspace(0.25, 4.0, 9)])
    samples = bootstrap_means(logs, draws, np.random.default_rng(seed))
    best, drawn, fit = _search(abscissa, sizes, mean, stderrs, starts, samples)
    if not (low < best[0] < high and best[1] > 0):
        raise PackingError(
            f"the best collapse has phi_c = {best[0]:.4g} and 1/nu = {best[1]:.3g}, outside what was scanned: scan a "
            "range of phi about phi_c at sizes that differ more"
        )
    stretch = misfit(fit.chi2, fit.dof)
    where = _fitted(best[0], drawn[:, 0], stretch, logs)
    inverse = stretch * half_width(drawn[:, 1])
    if where.stderr > high - low or 2 * inverse > best[1]:
        raise PackingError(
            f"no collapse: phi_c would be {best[0]:.4g} +- {where.stderr:.2g} and 1/nu {best[1]:.3g} +- "
            f"{inverse:.2g}; sizes that differ more, or more replicas, would tell"
        )
    nu = _fitted(1 / best[1], 1 / np.maximum(drawn[:, 1], 1e-3), stretch, logs)
    return Collapse(
        prefactor=_fitted(best[2], drawn[:, 2], stretch, logs),
        phi_c=where,
        nu=nu,
        z=None,
        chi2=fit.chi2,
        dof=fit.dof,
        points=len(at),
        coefficients=fit.coefficients,
    )


def time_collapse(
    sizes: ArrayLike,
    times: Sequence[ArrayLike],
    activities: Sequence[ArrayLike],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Collapse:
    """z and beta/nu_perp of the decay at phi_c, f_a = L^(-beta/nu_perp) F(t L^-z), averaged over all runs.

    Args:
        sizes: L = N^(1/d) of each set, (sets,): two or more, different.
        times: steps of each set, (time,) each, positive: from beyond the first transient on.
        activities: f_a, (replica, time) each, absorbed runs 0.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        PackingError: fewer than two sizes, shapes that differ, one replica, too few points, or a z that is outside
            0.5 to 4 or collapses no better than these ends.
    """
    s = _scales(sizes, len(times), len(activities))
    rng = np.random.default_rng(seed)
    log_t, log_s, mean, samples, logs = [], [], [], [], []
    for size, time, activity in zip(s, times, activities, strict=True):
        t, f_a = np.asarray(time, float), np.asarray(activity, float)
        if t.ndim != 1 or f_a.ndim != 2 or f_a.shape[1] != t.size or (t <= 0).any():
            raise PackingError(
                f"activity of size {size:g} has shape {f_a.shape}: it must be (replicas, {t.size} times), at positive t"
            )
        if not (f_a >= 0).all():
            raise PackingError(f"an activity of size {size:g} is negative or NaN: leave out runs that were not made")
        kept = np.sum(f_a > 0, axis=0) > max(1, len(f_a) // 4)
        if len(f_a) < 2 or not kept.any():
            raise PackingError("the error comes from the scatter between replicas: run two or more that survive")
        rows = jackknife(f_a[:, kept], np.log)
        samples.append(bootstrap_mean(rows, draws, rng))
        log_t.append(np.log(t[kept]))
        log_s.append(np.full(int(kept.sum()), np.log(size)))
        mean.append(rows.mean(axis=0))
        logs += list(rows.T)
    u, v, y = np.concatenate(log_t), np.concatenate(log_s), np.concatenate(mean)
    if len(u) < 12:
        raise PackingError(f"a collapse needs 12 or more points, and has {len(u)}: record more often")

    def abscissa(parameters: Array) -> Array:
        return np.asarray(u - parameters[0] * v)

    best, drawn, fit = _search(abscissa, v, y, standard_error(logs), _Z[:, None], np.concatenate(samples, axis=1))
    shortest = [logs[i] for i in np.cumsum([0] + [len(part) for part in log_t[:-1]])]
    z = _fitted(best[0], drawn[:, 0], 1.0, shortest)
    # a pure power law collapses at any z: the best must be significantly better than both ends
    gained = min(fit.rough[0], fit.rough[-1]) - fit.rough.min()
    if not (_Z[0] <= z.value <= _Z[-1] and gained > _GAINED * max(1.0, fit.rough.min() / fit.dof)):
        raise PackingError(
            f"no collapse: z would be {z.value:.3g} +- {z.stderr:.2g}, but {_Z[0]:g} to {_Z[-1]:g} was scanned, or "
            "other values do as well: runs in which small systems are absorbed, or sizes that differ more, would tell"
        )
    return Collapse(
        prefactor=_fitted(best[1], drawn[:, 1], 1.0, shortest),
        phi_c=None,
        nu=None,
        z=z,
        chi2=fit.chi2,
        dof=fit.dof,
        points=len(u),
        coefficients=fit.coefficients,
    )


@dataclass(frozen=True)
class _Fit:
    chi2: float
    dof: int
    coefficients: int
    rough: Array  #: chi^2 of the fewest coefficients at each start


def _search(
    abscissa: Callable[[Array], Array], log_s: Array, y: Array, stderrs: Array, starts: Array, samples: Array
) -> tuple[Array, Array, _Fit]:
    """Best (parameters..., prefactor), those of each bootstrap sample, and the quality of the fit."""

    def solve(parameters: Array, count: int) -> tuple[Array, Array]:
        """Residuals of y, and the prefactor followed by the spline coefficients."""
        design = np.column_stack([-log_s, _splines(abscissa(parameters), count)]) / stderrs[:, None]
        terms: Array = np.asarray(np.linalg.lstsq(design, y / stderrs, rcond=1e-10)[0], float)
        return y / stderrs - design @ terms, terms

    rough = np.array([np.sum(solve(start, _COEFFICIENTS[0])[0] ** 2) for start in starts])
    first = starts[int(np.argmin(rough))]

    def least(count: int) -> tuple[Array, float]:
        found = least_squares(lambda p: solve(p, count)[0], first, x_scale=np.abs(first), diff_step=1e-4)
        return found.x, 2.0 * float(found.cost)

    fits = {count: least(count) for count in _COEFFICIENTS if count + 1 + len(first) < len(y)}
    count = min(fits, key=lambda k: fits[k][1] + 2 * k)
    parameters, chi2 = fits[count]
    everything = np.append(parameters, solve(parameters, count)[1])
    best = everything[: len(first) + 1]

    # the minimum of each draw by linear response of the fit: hundreds of draws cost as much as one fit
    def model(everything: Array) -> Array:
        design = np.column_stack([-log_s, _splines(abscissa(everything[: len(first)]), count)])
        return design @ everything[len(first) :] / stderrs

    steps = 1e-4 * np.maximum(np.abs(everything), 1e-2)
    columns = [(model(everything + step) - model(everything - step)) / (2 * step.max()) for step in np.diag(steps)]
    response = np.linalg.pinv(np.stack(columns, axis=1))[: len(best)]
    drawn = best + ((samples - y) / stderrs) @ response.T
    return best, drawn, _Fit(chi2, len(y) - count - 1 - len(first), count, rough)


def _splines(x: Array, count: int) -> Array:
    """`count` cubic B-splines at x (points, count), their knots at quantiles of x."""
    inner = np.interp(np.linspace(0, len(x) - 1, count - 2), np.arange(len(x)), np.sort(x))
    pad = 1e-9 * (inner[-1] - inner[0]) + 1e-300
    knots = np.concatenate([[inner[0] - pad] * 4, inner[1:-1], [inner[-1] + pad] * 4])
    design: Array = BSpline(knots, np.eye(count), 3)(x)
    return design


def _local_error(rows: Sequence[Array], log_s: Array) -> Array:
    """Standard errors whose variance is shared with two neighbours in phi on each side, at the same scale.

    Weights from a point's own scatter would favour points whose replicas agree by chance, and the bootstrap, which
    resamples the same few replicas, would not show it.
    """
    squares = np.array([np.sum((row - row.mean()) ** 2) for row in rows])
    count = np.array([len(row) for row in rows])
    place = np.arange(len(rows))
    near = (np.abs(place - place[:, None]) <= _NEIGHBOURS) & (log_s == log_s[:, None])
    stderrs: Array = np.sqrt(near @ squares / (near @ (count - 1)) / count)
    return np.maximum(stderrs, RESOLUTION)


def _scales(scales: ArrayLike, *lengths: int) -> Array:
    s = np.asarray(scales, float)
    if s.ndim != 1 or any(length != s.size for length in lengths):
        raise PackingError(f"{s.size} scales need as many sets of data, and there are {lengths}")
    if len(np.unique(s)) != s.size or s.size < 2 or not (np.isfinite(s).all() and (s > 0).all()):
        raise PackingError("a collapse needs two or more different, positive scales")
    return s


def _fitted(value: float, draws: Array, stretch: float, rows: Sequence[Array]) -> Fitted:
    stderr = stretch * half_width(draws)
    return Fitted(float(value), stderr, student_interval(float(value), stderr, rows))
