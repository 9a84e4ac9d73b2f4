"""Exponents by power laws in the distance to a known phi_c: beta of the activity, gamma' of its fluctuations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.criticality.fits import (
    akaike_weights,
    bootstrap_means,
    half_width,
    misfit,
    standard_error,
    straight_line,
    student_interval,
)
from packing_jax.criticality.scan import DRAWS
from packing_jax.criticality.stationarity import final_activity
from packing_jax.errors import PackingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Exponent:
    """y ~ (phi - phi_c)^value, fitted to `points` packing fractions in `window`."""

    value: float
    stderr: float
    interval: tuple[float, float]
    chi2: float
    dof: int
    window: tuple[float, float]
    points: int


def exponent(
    phi: ArrayLike,
    values: ArrayLike,
    phi_c: float,
    phi_c_stderr: float,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Exponent:
    """Exponent k of y = A (phi - phi_c)^k at a known phi_c with an error: the slope of ln y against ln(phi - phi_c).

    y = f_a gives beta, y = N Var(f_a) (see `fluctuations`) gives -gamma'. Points are dropped from the top where that
    lowers chi^2 + 2 (points dropped). Errors: bootstrap over replicas, each draw with its own phi_c ~
    N(phi_c, phi_c_stderr^2), joined with the scatter between windows weighted by exp(-(chi^2 + 2 dropped)/2).

    Args:
        phi: packing fractions, (phi,); those at or below phi_c are left out.
        values: y, (phi, replica); 0 or NaN where absorbed or not run.
        phi_c: critical packing fraction.
        phi_c_stderr: its standard error.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        PackingError: fewer than three packing fractions above phi_c with two or more values, or a phi_c whose error
            reaches them.
    """
    x, y = np.asarray(phi, float), np.asarray(values, float)
    if x.ndim != 1 or y.ndim != 2 or len(y) != len(x):
        raise PackingError(f"values have shape {y.shape}: it must be ({x.size} phi, replicas)")
    if not (np.isfinite([phi_c, phi_c_stderr]).all() and phi_c_stderr >= 0):
        raise PackingError(f"phi_c is {phi_c} +- {phi_c_stderr}; both must be finite and the error not negative")
    order = [i for i in np.argsort(x) if x[i] > phi_c and np.sum(y[i] > 0) >= 2]
    if len(order) < 3:
        raise PackingError(
            f"a value at two or more replicas is known at {len(order)} phi above phi_c = {phi_c:g}, and an exponent "
            "needs it at 3: scan more finely above phi_c"
        )
    x, rows = x[order], [y[i][y[i] > 0] for i in order]
    if x[0] - phi_c < 2 * phi_c_stderr:
        raise PackingError(
            f"the lowest phi, {x[0]:g}, is within two errors of phi_c = {phi_c:g} +- {phi_c_stderr:g}: the distance to "
            "phi_c has no logarithm there; scan higher phi or find phi_c better"
        )
    mean, stderrs = np.array([row.mean() for row in rows]), standard_error(rows)
    sizes = np.arange(3, len(x) + 1)
    fits = [straight_line(np.log(x[:n] - phi_c), np.log(mean[:n]), stderrs[:n] / mean[:n]) for n in sizes]
    cost = np.array([fit.chi2 for fit in fits]) + 2.0 * (len(x) - sizes)
    best = int(np.argmin(cost))
    fit, n = fits[best], int(sizes[best])
    between = akaike_weights(cost) @ np.array([(one.slope - fit.slope) ** 2 for one in fits])

    rng = np.random.default_rng(seed)
    resampled = bootstrap_means(rows[:n], draws, rng)
    origin = np.minimum(phi_c + phi_c_stderr * rng.standard_normal(draws), x[0] - 0.05 * (x[0] - phi_c))
    logs = np.log(mean[:n]) + (resampled - mean[:n]) / mean[:n]
    weight = (mean[:n] / stderrs[:n]) ** 2
    u = np.log(x[:n] - origin[:, None])
    u = u - (u @ weight / weight.sum())[:, None]
    slopes = np.sum(u * logs * weight, axis=1) / (u**2 @ weight)
    stderr = float(np.hypot(misfit(fit.chi2, n - 2) * half_width(slopes), between**0.5))
    return Exponent(
        value=fit.slope,
        stderr=stderr,
        interval=student_interval(fit.slope, stderr, rows[:n]),
        chi2=fit.chi2,
        dof=n - 2,
        window=(float(x[0]), float(x[n - 1])),
        points=n,
    )


def fluctuations(time: ArrayLike, activity: ArrayLike, particles: int) -> Array:
    """N <(f_a - <f_a>)^2> of each replica in the stationary state, (..., replica): ~ (phi - phi_c)^-gamma'.

    Averages are over the last quarter of the record. The variance within a replica misses fluctuations that are slower
    than the record, so the squared deviation of the replica's average from the mean over R replicas, times R/(R - 1),
    is added.

    Args:
        time: recorded steps, (time,), increasing.
        activity: (..., replica, time); NaN where not run or absorbed.
        particles: N.

    Raises:
        PackingError: no particles, or times and activities as `final_activity` refuses them.
    """
    if particles < 1:
        raise PackingError(f"{particles} particles; there must be at least one")
    f_a = np.asarray(activity, float)
    alive = np.zeros(f_a.shape[:-1], bool)
    level = final_activity(time, f_a, alive)
    within = final_activity(time, np.minimum((f_a - level[..., None]) ** 2, 1.0), alive)
    count = np.isfinite(level).sum(axis=-1, keepdims=True)
    mean = np.nansum(level, axis=-1, keepdims=True) / np.maximum(count, 1)
    between = (level - mean) ** 2 * count / np.maximum(count - 1, 1)
    found: Array = particles * (within + between)
    return found
