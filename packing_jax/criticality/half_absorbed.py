"""phi_c as the packing fraction at which half of the replicas are absorbed by the end of the record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtri, expit, xlog1py, xlogy

from packing_jax.criticality.fits import misfit
from packing_jax.criticality.results import or_results
from packing_jax.criticality.scan import replicas_run, scan_order
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

_STEPS = 32  # values of phi_c tried between two packing fractions


@dataclass(frozen=True)
class HalfAbsorbed:
    """Half of the replicas are absorbed at `value`; the share falls from 1 to 0 over a few `width`.

    `chi2` is the deviance of the logistic curve, `dof` the packing fractions less two. The value belongs to this N and
    this length of record: only for N -> infinity is the share a step at phi_c.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    width: float
    chi2: float
    dof: int


@or_results("phi", "absorbed")
def half_absorbed_phi_c(phi: ArrayLike, absorbed: ArrayLike) -> HalfAbsorbed:
    """phi at which a replica is absorbed with probability 1/2: logistic regression, P = 1/(1 + exp((phi - phi_c)/w)).

    Maximum likelihood over a table of phi_c and w. The 95 % interval holds every phi_c at which twice the
    log-likelihood, at its best w, is within 3.84 of the maximum; stderr is its half-width over 1.96. Where all replicas
    of each phi agree, a bootstrap would give an error of zero, but the likelihood gives the spacing of the scan. Where
    the logistic curve does not fit, stderr is enlarged, see `packing_jax.criticality.fits.misfit`.

    Instead of the arrays: a trajectory, a dataset, or the directory of a sweep (str or Path).

    Args:
        phi: packing fractions, (phi,).
        absorbed: 1 where the replica was absorbed, 0 where active, NaN where not run, (phi, replica).

    Raises:
        PackingError: all absorbed, all active, a share that does not fall with phi, or a phi_c whose 95 % interval
            reaches the lowest or highest phi: it may then lie beyond.
    """
    share = np.asarray(absorbed, float)
    if not ((share == 0) | (share == 1) | np.isnan(share)).all():
        raise PackingError("absorbed must be 1 where a replica was absorbed, 0 where active, NaN where not run")
    x, gone, count = _counts(phi, absorbed)
    tried = _phi_c_tried(x)
    found = _likeliest(x, gone, count, tried)
    first, last = np.searchsorted(tried, found.interval)
    if last - first + 1 < _STEPS:  # with many replicas the interval is narrower than the spacing of the scan
        ends = tried[max(first - 1, 0)], tried[min(last + 1, len(tried) - 1)]
        found = _likeliest(x, gone, count, np.linspace(*ends, 8 * _STEPS + 1))
    low, high = found.interval
    if low <= x[0] or high >= x[-1]:
        more, end = ("lower", x[0]) if low <= x[0] else ("higher", x[-1])
        raise PackingError(
            f"half of the replicas may be absorbed beyond phi = {end:g}, where the scan ends: scan {more} phi, or run "
            "more replicas"
        )
    return found


def logistic(phi: ArrayLike, absorbed: ArrayLike) -> HalfAbsorbed:
    """:func:`half_absorbed_phi_c`, but phi_c to a 32nd of the spacing, and the interval may reach the ends."""
    x, gone, count = _counts(phi, absorbed)
    return _likeliest(x, gone, count, _phi_c_tried(x))


def _counts(phi: ArrayLike, absorbed: ArrayLike) -> tuple[Array, Array, Array]:
    """Packing fractions in order, and the numbers of replicas of each that were absorbed, and that were run."""
    order = scan_order(phi, absorbed)
    x, rows = np.asarray(phi, float)[order], replicas_run(absorbed, order)
    gone, count = np.array([row.sum() for row in rows]), np.array([float(len(row)) for row in rows])
    if (gone == count).all():
        raise PackingError(f"every replica was absorbed, up to phi = {x[-1]:g}: scan higher phi")
    if (gone == 0).all():
        raise PackingError(f"no replica was absorbed, down to phi = {x[0]:g}: scan lower phi, or run more steps")
    return x, gone, count


def _phi_c_tried(x: Array) -> Array:
    """Values of phi_c to try, 32 in each interval of the scan."""
    return np.unique(np.interp(np.arange(0, len(x) - 1 + 1e-9, 1 / _STEPS), np.arange(len(x)), x))


def _likeliest(x: Array, gone: Array, count: Array, tried: Array) -> HalfAbsorbed:
    """Maximum likelihood over the phi_c tried, which are also the possible ends of the interval."""
    widths = np.geomspace(1e-2 * np.diff(x).min(), x[-1] - x[0], 40)
    share = expit(-(x - tried[:, None, None]) / widths[:, None])
    likelihood = (xlogy(gone, share) + xlog1py(count - gone, -share)).sum(axis=2)
    best_width = likelihood.argmax(axis=1)
    profile = 2.0 * (likelihood.max() - likelihood.max(axis=1))
    if best_width[profile.argmin()] == len(widths) - 1:
        raise PackingError("the share of absorbed replicas does not fall with phi: run more replicas")
    top = tried[profile < 1e-2]  # where the replicas of each phi agree, the maximum is flat: take its middle
    value = 0.5 * float(top[0] + top[-1])
    inside = tried[profile <= chdtri(1, 0.05)]
    at = int(np.argmin(np.abs(tried - value)))
    saturated = xlogy(gone, gone / count) + xlogy(count - gone, 1.0 - gone / count)
    low, high = float(inside[0]), float(inside[-1])
    chi2, dof = max(0.0, 2.0 * float(saturated.sum() - likelihood[at].max())), len(x) - 2
    stretch = misfit(chi2, dof)
    return HalfAbsorbed(
        value=value,
        stderr=stretch * (high - low) / (2 * 1.96),
        interval=(value - stretch * (value - low), value + stretch * (high - value)),
        width=float(widths[best_width[at]]),
        chi2=chi2,
        dof=dof,
    )
