"""Where activity starts: phi_c with an error bar, from the final activity of independent replicas.

Below phi_c every replica ends absorbed (no overlap left, f_a = 0 for ever); above it a finite
activity f_a = A (phi - phi_c)^beta survives. Two estimates of phi_c come from the same numbers:

- `threshold_phi_c`: the definition of arXiv:2411.11834, the largest scanned phi with f_a < 0.1;
- `power_law_phi_c`: a fit of the law itself with phi_c, A and beta free.

`zero_kick_limit` then carries phi_c(kick) to kick = 0 along a straight line. Everything here is
float64 NumPy on the host. It knows arrays, or an `xarray.Dataset` of results, and not how they were
simulated. What the data cannot carry is refused by a `PackingError` that says what would help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.errors import PackingError
from packing_jax.fits import (
    bootstrap_means,
    half_width,
    power_law,
    standard_error,
    straight_line,
)
from packing_jax.steady import final_activity, final_drift

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

ACTIVITY_CUT = 0.1
"""Final activity below which arXiv:2411.11834 counts a packing fraction as absorbing."""

MIN_POINTS = 4
"""Packing fractions a power-law fit needs: three free parameters and one degree of freedom."""

_SURVIVING = 0.75  # share of replicas still active at a phi that enters the power-law fit
_DRIFT = 0.1  # relative change of f_a, last quarter against the one before, called not stationary
_OPEN = 0.16  # share of bootstrap fits at the lowest scanned phi above which phi_c is not determined
_DRAWS = 400  # bootstrap draws: errors to about 4 %


@dataclass(frozen=True)
class Threshold:
    """phi_c as the largest scanned phi with f_a < 0.1; the crossing lies inside `bracket`."""

    value: float
    stderr: float
    bracket: tuple[float, float]


@dataclass(frozen=True)
class PowerLaw:
    """f_a = amplitude * (phi - value)^beta, fitted to `points` packing fractions in `window`."""

    value: float
    stderr: float
    amplitude: float
    beta: float
    beta_stderr: float
    chi2: float
    dof: int
    window: tuple[float, float]
    points: int

    def activity(self, phi: ArrayLike) -> Array:
        """f_a of the fit at `phi`; zero at and below phi_c."""
        above = np.maximum(np.asarray(phi, float) - self.value, 0.0)
        f_a: Array = self.amplitude * above**self.beta
        return f_a


@dataclass(frozen=True)
class ZeroKickLimit:
    """phi_c(kick) = value + slope * kick; `value` is the limit at zero kick."""

    value: float
    stderr: float
    slope: float
    slope_stderr: float
    chi2: float
    dof: int


@dataclass(frozen=True)
class KickEstimate:
    """phi_c of one kick and batch fraction; where a method refused, None and a sentence.

    `refusals` holds pairs (method, sentence). `missing` of the `runs` (phi, replica) runs are not
    in the results yet.
    """

    kick: float
    batch_fraction: float
    threshold: Threshold | None
    power_law: PowerLaw | None
    refusals: tuple[tuple[str, str], ...]
    missing: int
    runs: int


def threshold_phi_c(phi: ArrayLike, activity: ArrayLike, *, draws: int = _DRAWS, seed: int = 0) -> Threshold:
    """phi_c as the largest scanned phi whose final activity, averaged over replicas, is below 0.1.

    The crossing itself lies between that phi and the next one scanned, a spacing h above. The error
    joins the bootstrap over replicas with h/sqrt(3), the root-mean-square distance of a crossing
    uniform in that interval from its lower edge (h/sqrt(12) is the one from its midpoint), so a
    coarse scan has a large error even if all replicas agree. Source: arXiv:2411.11834.

    Args:
        phi: packing fractions, (phi,).
        activity: final activity, (phi, replica); 0 where absorbed, NaN where not run.
        draws: bootstrap draws.
        seed: of the bootstrap; the same seed gives the same error.

    Raises:
        PackingError: fewer than two packing fractions, or no crossing inside the scan.
    """
    order = _scan_order(phi, activity)
    phis, rows = np.asarray(phi, float)[order], _replicas(activity, order)
    below = np.flatnonzero([row.mean() < ACTIVITY_CUT for row in rows])
    if not below.size:
        raise PackingError(
            f"the final activity is {ACTIVITY_CUT:g} or more at every phi, down to {phis[0]:g}: scan lower phi"
        )
    edge = int(below[-1])
    if edge == len(phis) - 1:
        raise PackingError(
            f"the final activity is below {ACTIVITY_CUT:g} at the highest phi, {phis[-1]:g}: scan higher phi"
        )
    under = bootstrap_means(rows, draws, np.random.default_rng(seed)) < ACTIVITY_CUT
    edges = np.where(under.any(axis=1), len(phis) - 1 - np.argmax(under[:, ::-1], axis=1), 0)
    scatter = np.sqrt(np.mean((phis[edges] - phis[edge]) ** 2))
    bracket = float(phis[edge]), float(phis[edge + 1])
    grid = (bracket[1] - bracket[0]) / np.sqrt(3.0)
    return Threshold(value=bracket[0], stderr=math.hypot(scatter, grid), bracket=bracket)


def power_law_phi_c(
    phi: ArrayLike,
    activity: ArrayLike,
    drift: ArrayLike | None = None,
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> PowerLaw:
    """phi_c, A and beta of f_a = A (phi - phi_c)^beta by weighted least squares, all three free.

    Points: every phi at which three quarters or more of the replicas stayed active and stationary
    (the last quarter of the record against the one before: within 10 % or three standard errors).
    f_a is averaged over the survivors, since absorption above phi_c is the finite size at work;
    weights come from the scatter between them. phi_c is searched from the lowest scanned phi up to
    the first of these points.

    Window: the law holds only near phi_c, so points are dropped from the top where that lowers
    chi^2 + 2 (points dropped) (arXiv:2008.01069). Errors: bootstrap over replicas within each phi
    (half the central 68 % interval), times sqrt(chi^2/dof) where that exceeds 1, joined with the
    scatter between windows weighted by exp(-(chi^2 + 2 dropped)/2), and for phi_c with f_1 h: f_1 is
    the lowest fitted activity, the relative size of corrections to the law, and h the interval
    below it, where nothing is fitted. Where f_1 is not small, beta is an effective exponent.

    Args:
        phi: packing fractions, (phi,).
        activity: final activity, (phi, replica); 0 where absorbed, NaN where not run.
        drift: `final_drift` of the same replicas, (phi, replica); None: taken as stationary.
        draws: bootstrap draws.
        seed: of the bootstrap; the same seed gives the same errors.

    Raises:
        PackingError: all absorbed, all active, one replica, fewer than four active and stationary
            packing fractions, or a fit that leaves phi_c open. The sentence says what would help.
    """
    phis, rows, scanned = _active_points(phi, activity, drift)
    lowest, below = scanned[0], scanned[scanned < phis[0]][-1]
    mean, error = np.array([row.mean() for row in rows]), standard_error(rows)
    gaps = np.geomspace(1e-3 * np.diff(phis).min(), phis[0] - lowest, 400)

    sizes = np.arange(MIN_POINTS, len(phis) + 1)
    fits = [power_law(phis[:n], mean[None, :n], error[:n], gaps) for n in sizes]
    cost = np.array([fit.chi2[0] for fit in fits]) + 2.0 * (len(phis) - sizes)
    for best in np.argsort(cost):
        fit, n = fits[best], int(sizes[best])
        gap, value, amplitude, beta, chi2 = (float(part[0]) for part in fit)
        if gap <= gaps[1] or beta <= 0:
            continue  # a jump
        resampled = bootstrap_means(rows[:n], draws, np.random.default_rng(seed))
        drawn = power_law(phis[:n], resampled, error[:n], gaps, amplitude * (phis[:n] - value) ** beta)
        if np.mean(drawn.gap >= gaps[-2]) <= _OPEN:
            break
    else:
        raise PackingError(
            f"no power law that starts between phi = {lowest:g} and {phis[0]:g}, where f_a is already {mean[0]:.2g}, "
            "follows the activity: scan more finely just above phi_c, or run more replicas"
        )
    share = np.exp(-0.5 * (cost - cost.min()))

    def between(values: list[Array]) -> float:
        """Scatter of a parameter between windows about its value in the chosen one."""
        offset = np.concatenate(values) - values[best]
        return float(np.sqrt(share @ offset**2 / share.sum()))

    stretch = max(1.0, chi2 / (n - 3)) ** 0.5
    statistical, windows = stretch * half_width(drawn.origin), between([fit.origin for fit in fits])
    return PowerLaw(
        value=value,
        stderr=math.hypot(statistical, windows, mean[0] * (phis[0] - below)),
        amplitude=amplitude,
        beta=beta,
        beta_stderr=math.hypot(stretch * half_width(drawn.beta), between([fit.beta for fit in fits])),
        chi2=chi2,
        dof=n - 3,
        window=(float(phis[0]), float(phis[n - 1])),
        points=n,
    )


def zero_kick_limit(kick: ArrayLike, phi_c: ArrayLike, stderr: ArrayLike) -> ZeroKickLimit:
    """phi_c at zero kick: the intercept of a weighted straight line, phi_c = value + slope * kick.

    Errors come from the weights 1/stderr^2, times sqrt(chi^2/dof) where that exceeds 1, so that a
    curved phi_c(kick) shows as a larger error. Source: arXiv:2411.11834.

    Args:
        kick: kick sizes in mean diameters (for SGD: learning rates), (kick,).
        phi_c: estimates, (kick,).
        stderr: their standard errors, (kick,), positive.

    Raises:
        PackingError: fewer than three different kicks, shapes that differ, values not finite.
    """
    x, y, error = (np.atleast_1d(np.asarray(part, float)) for part in (kick, phi_c, stderr))
    if x.ndim != 1 or not x.shape == y.shape == error.shape:
        raise PackingError(
            "kick, phi_c and stderr must be lists of one length, and their shapes are "
            f"{x.shape}, {y.shape} and {error.shape}"
        )
    if not np.isfinite([x, y, error]).all() or (error <= 0).any():
        raise PackingError("kick, phi_c and stderr must be finite, and every stderr positive")
    kicks = len(np.unique(x))
    if kicks < 3:
        raise PackingError(
            f"the limit at zero kick needs phi_c at three or more kicks, and it is known at {kicks}: sweep more kicks"
        )
    line, dof = straight_line(x, y, error), len(x) - 2
    stretch = max(1.0, line.chi2 / dof) ** 0.5
    return ZeroKickLimit(
        value=line.intercept,
        stderr=stretch * line.intercept_stderr,
        slope=line.slope,
        slope_stderr=stretch * line.slope_stderr,
        chi2=line.chi2,
        dof=dof,
    )


def estimate_phi_c(results: xr.Dataset, *, draws: int = _DRAWS, seed: int = 0) -> tuple[KickEstimate, ...]:
    """phi_c by both methods for each kick and batch fraction of a sweep, in increasing order.

    Replicas not run yet or failed (see `was_run`), or without activity in the last half of the
    record, are left out and counted as missing.

    Args:
        results: dims phi, kick, batch_fraction, replica, time; variables activity, absorbed_at,
            steps_done.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        PackingError: a dataset without these dims and variables. A method that refuses is no
            error here: its sentence is in `refusals`.
    """
    check_results(results)
    results = results[["activity", "absorbed_at"]].assign(run=was_run(results)).sortby(["kick", "batch_fraction"])
    dims = ("kick", "batch_fraction", "phi", "replica")
    activity = results["activity"].where(results["run"]).transpose(*dims, "time").values.astype(float)
    absorbed = results["absorbed_at"].transpose(*dims).values >= 0
    time, phi = results["time"].values, results["phi"].values
    drift = final_drift(time, activity)
    final = np.where(np.isnan(drift), np.nan, final_activity(time, activity, absorbed))

    estimates = []
    for k, kick in enumerate(results["kick"].values):
        for b, batch_fraction in enumerate(results["batch_fraction"].values):
            cell, threshold, law, refusals = final[k, b], None, None, []
            try:
                threshold = threshold_phi_c(phi, cell, draws=draws, seed=seed)
            except PackingError as refusal:
                refusals.append(("threshold", str(refusal)))
            try:
                law = power_law_phi_c(phi, cell, drift[k, b], draws=draws, seed=seed)
            except PackingError as refusal:
                refusals.append(("power_law", str(refusal)))
            estimates.append(
                KickEstimate(
                    kick=float(kick),
                    batch_fraction=float(batch_fraction),
                    threshold=threshold,
                    power_law=law,
                    refusals=tuple(refusals),
                    missing=int(np.isnan(cell).sum()),
                    runs=cell.size,
                )
            )
    return tuple(estimates)


def was_run(results: xr.Dataset) -> xr.DataArray:
    """True for each replica whose record can be used: steps_done > 0, and not marked `failed`."""
    run = results["steps_done"] > 0
    return run & (results["failed"] == 0) if "failed" in results else run


def check_results(results: xr.Dataset) -> None:
    """Raise `PackingError` unless `results` has the coordinates and variables of a sweep.

    Coordinates phi, kick, batch_fraction, replica, time; activity over all five, absorbed_at and
    steps_done over the first four.
    """
    coords = ("phi", "kick", "batch_fraction", "replica", "time")
    for name in coords:
        if name not in results.coords or results[name].dims != (name,):
            raise PackingError(f"these results lack the coordinate '{name}' that every sweep has")
        values = results[name].values
        if not values.size or len(np.unique(values)) != values.size:
            raise PackingError(f"the values of '{name}' must be one or more, all different")
    for name in ("activity", "absorbed_at", "steps_done"):
        dims = coords if name == "activity" else coords[:4]
        if name not in results.data_vars:
            raise PackingError(f"these results lack the variable '{name}' that every sweep has")
        if set(results[name].dims) != set(dims):
            raise PackingError(f"'{name}' has dims {results[name].dims}: they must be {dims}")


def _scan_order(phi: ArrayLike, activity: ArrayLike) -> list[int]:
    """Indices of the packing fractions that were run, by increasing phi; bad input ends here."""
    phis, values = np.asarray(phi, float), np.asarray(activity, float)
    if phis.ndim != 1 or not np.isfinite(phis).all() or len(np.unique(phis)) != phis.size:
        raise PackingError("phi must be a list of different, finite packing fractions")
    if values.ndim != 2 or len(values) != phis.size:
        raise PackingError(f"final activity has shape {values.shape}: it must be ({phis.size} phi, replicas)")
    if (values < 0).any() or (values > 1 + 1e-6).any():
        raise PackingError("final activity is a fraction of particles: it must lie in [0, 1]")
    order = [int(i) for i in np.argsort(phis) if np.isfinite(values[i]).any()]
    if len(order) < 2:
        raise PackingError(
            f"a transition needs two or more packing fractions, and {len(order)} have been run: scan a range of phi"
        )
    return order


def _replicas(values: ArrayLike, order: list[int]) -> list[Array]:
    """The replicas that were run at each packing fraction."""
    rows = np.asarray(values, float)[order]
    return [row[np.isfinite(row)] for row in rows]


def _active_points(phi: ArrayLike, activity: ArrayLike, drift: ArrayLike | None) -> tuple[Array, list[Array], Array]:
    """Points of the power-law fit (phi, final activity of survivors), and every phi scanned."""
    order = _scan_order(phi, activity)
    phis, rows = np.asarray(phi, float)[order], _replicas(activity, order)
    drifts = _replicas(np.zeros_like(activity) if drift is None else drift, order)
    if any(len(row) != len(moved) for row, moved in zip(rows, drifts, strict=True)):
        raise PackingError("drift must have the shape of the activity and be NaN where that is")
    if max(len(row) for row in rows) < 2:
        raise PackingError("the error comes from the scatter between replicas: run two or more")
    alive = np.array([np.mean(row > 0) for row in rows])
    if not alive.any():
        raise PackingError(f"every replica was absorbed, up to phi = {phis[-1]:g}: scan higher phi")
    if (alive >= _SURVIVING)[0]:
        raise PackingError(f"the activity survives down to phi = {phis[0]:g}: scan lower phi")
    active = [i for i, row in enumerate(rows) if alive[i] >= _SURVIVING and np.sum(row > 0) >= 2]
    if len(active) < MIN_POINTS:
        raise PackingError(
            f"the activity survives at {len(active)} of the scanned phi, and a power law needs it "
            f"at {MIN_POINTS}: scan more finely above phi_c, or higher"
        )
    steady = [i for i in active if not _drifting(rows[i], drifts[i])]
    if len(steady) < MIN_POINTS:
        raise PackingError(
            f"the activity is stationary at {len(steady)} of {len(active)} active phi, and a power "
            f"law needs it at {MIN_POINTS}: run more steps"
        )
    return phis[steady], [rows[i][rows[i] > 0] for i in steady], phis


def _drifting(final: Array, drift: Array) -> bool:
    """True where the survivors' mean drift exceeds 10 % of f_a and three standard errors."""
    level, moved = final[final > 0], drift[final > 0]
    error = moved.std(ddof=1) / len(moved) ** 0.5
    return bool(abs(moved.mean()) > max(_DRIFT * level.mean(), 3 * error))
