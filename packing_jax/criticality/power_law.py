"""phi_c from the stationary activity: a fit of f_a = A (phi - phi_c)^beta with all three free."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.criticality.fits import (
    PowerLawFit,
    PowerLawProfile,
    akaike_weights,
    averaged_profile,
    bootstrap_means,
    half_width,
    likelihood_interval,
    misfit,
    power_law,
    power_law_profile,
    standard_error,
)
from packing_jax.criticality.results import or_results
from packing_jax.criticality.scan import DRAWS, drifting, replicas_run, scan_order
from packing_jax.criticality.stationarity import Drift
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

MIN_POINTS = 4
"""Packing fractions that a power law needs: one more than its three free parameters, to test it."""

SURVIVING = 0.75
"""A phi counts as active when at least this share of its replicas is active at the end."""

OPEN = 0.16
"""phi_c is not determined when more than this share of the bootstrap fits lies at an end of the phi_c tried."""


@dataclass(frozen=True)
class PowerLaw:
    """f_a = amplitude * (phi - value)^beta, fitted to `points` packing fractions in `window`."""

    value: float
    stderr: float
    interval: tuple[float, float]
    amplitude: float
    beta: float
    beta_stderr: float
    beta_interval: tuple[float, float]
    chi2: float
    dof: int
    window: tuple[float, float]
    points: int

    def activity(self, phi: ArrayLike) -> Array:
        """f_a of the fit at `phi`; zero at and below phi_c."""
        above = np.maximum(np.asarray(phi, float) - self.value, 0.0)
        f_a: Array = self.amplitude * above**self.beta
        return f_a


@or_results("phi", "final", "drift")
def power_law_phi_c(
    phi: ArrayLike, activity: ArrayLike, drift: Drift | None = None, *, draws: int = DRAWS, seed: int = 0
) -> PowerLaw:
    """phi_c, A and beta of f_a = A (phi - phi_c)^beta by weighted least squares, all three free.

    Points: every phi at which at least three quarters of the replicas stayed active and their activity is stationary,
    see `packing_jax.criticality.stationarity.drifts`. f_a is averaged over the survivors, because above phi_c replicas
    are absorbed only since N is finite; weights come from the scatter between survivors. phi_c is searched between the
    lowest scanned phi and the first point. The law holds only near phi_c: points are dropped from the top where that
    lowers chi^2 + 2 (points dropped) (arXiv:2008.01069).

    Errors: the bootstrap over replicas within each phi, half the central 68 % interval, times sqrt(chi^2/dof) where
    that exceeds 1; joined with the scatter between fits to fewer and to more points, each with the weight
    exp(-(chi^2 + 2 dropped)/2). The error of phi_c is also joined with f_1 h: h is the spacing below the first point,
    where there are no data, and f_1 the activity at that point, which stands for the relative size of corrections to
    the law. Where f_1 is not small, beta is an effective exponent. The 95 % intervals come from chi^2(phi_c) and
    chi^2(beta), see `packing_jax.criticality.fits`.

    Corrections to scaling are not in the errors, and no chi^2 shows them: for f_a = 4 x^0.84 (1 - c x), where x is
    phi - phi_c, scanned to x = 0.04 with noise of 0.004 (4 replicas), 95 % intervals hold phi_c and beta 97 and 96
    times in 100 at c = 0, 92 and 60 times at c = 3, where beta is 0.76 on average, and 76 and 37 times at c = 6, where
    it is 0.69.

    Instead of the arrays: a trajectory, a dataset, or the directory of a sweep (str or Path).

    Args:
        phi: packing fractions, (phi,).
        activity: final activity, (phi, replica); 0 where absorbed, NaN where not run.
        drift: `final_drift` of the same replicas, (phi, replica) each; None: taken as stationary.
        draws: bootstrap draws.
        seed: of the bootstrap; the same seed gives the same errors.

    Raises:
        PackingError: all absorbed, all active, one replica, fewer than four active and stationary packing fractions, or
            a fit that leaves phi_c open. The sentence says what would help.
    """
    phis, rows, scanned = _active_points(phi, activity, drift)
    lowest = scanned[0]
    mean, stderr = np.array([row.mean() for row in rows]), standard_error(rows)
    gaps = np.geomspace(1e-3 * np.diff(phis).min(), phis[0] - lowest, 400)

    sizes = np.arange(MIN_POINTS, len(phis) + 1)
    fits = [power_law(phis[:n], mean[None, :n], stderr[:n], gaps) for n in sizes]
    cost = np.array([fit.chi2[0] for fit in fits]) + 2.0 * (len(phis) - sizes)
    for best in np.argsort(cost):
        n = int(sizes[best])
        resampled = bootstrap_means(rows[:n], draws, np.random.default_rng(seed))
        drawn = _drawn(fits[best], phis[:n], resampled, stderr[:n], gaps)
        if drawn is not None:
            break
    else:
        raise PackingError(
            f"no power law that starts between phi = {lowest:g} and {phis[0]:g}, where f_a is already {mean[0]:.2g}, "
            "follows the activity: scan more finely just above phi_c, or run more replicas"
        )
    _, value, amplitude, beta, chi2 = (float(part[0]) for part in fits[best])
    share = akaike_weights(cost)

    def between(values: list[Array]) -> float:
        """Scatter of a parameter between windows about its value in the chosen one."""
        offset = np.concatenate(values) - values[best]
        return float(np.sqrt(share @ offset**2))

    stretch = max(1.0, chi2 / (n - 3)) ** 0.5
    statistical, windows = stretch * half_width(drawn.origin), between([fit.origin for fit in fits])
    unfitted = mean[0] * (phis[0] - scanned[scanned < phis[0]][-1])
    profiles = [power_law_profile(phis[:k], mean[:k], stderr[:k], gaps[::2]) for k in sizes]
    freedom = sum(len(row) - 1 for row in rows)
    of_phi_c, of_beta = _intervals(phis[0] - gaps[::2], profiles, len(phis) - sizes, misfit(chi2, n - 3), freedom)
    return PowerLaw(
        value=value,
        stderr=math.hypot(statistical, windows, unfitted),
        interval=_joined(value, of_phi_c, 2 * unfitted),
        amplitude=amplitude,
        beta=beta,
        beta_stderr=math.hypot(stretch * half_width(drawn.beta), between([fit.beta for fit in fits])),
        beta_interval=_joined(beta, of_beta),
        chi2=chi2,
        dof=n - 3,
        window=(float(phis[0]), float(phis[n - 1])),
        points=n,
    )


def _drawn(fit: PowerLawFit, phis: Array, resampled: Array, stderr: Array, gaps: Array) -> PowerLawFit | None:
    """Fits of the bootstrap draws (draws, points); None where the fit is a jump, or the draws leave phi_c open."""
    gap, value, amplitude, beta, _ = (float(part[0]) for part in fit)
    if gap <= gaps[1] or beta <= 0:
        return None
    drawn = power_law(phis, resampled, stderr, gaps, amplitude * (phis - value) ** beta)
    return drawn if np.mean(drawn.gap >= gaps[-2]) <= OPEN else None


def _intervals(
    tried: Array, profiles: list[PowerLawProfile], dropped: NDArray[np.int64], scale: float, freedom: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % intervals of phi_c and beta from chi^2 averaged over windows, at the phi_c that were tried."""
    betas = np.linspace(0.0, 3.0, 301)
    over_phi_c = averaged_profile(np.stack([one.chi2 for one in profiles]) / scale**2, dropped)
    over_beta = averaged_profile(np.stack([one.over_beta(betas) for one in profiles]) / scale**2, dropped)
    return likelihood_interval(tried, over_phi_c, freedom), likelihood_interval(betas, over_beta, freedom)


def _joined(value: float, interval: tuple[float, float], more: float = 0.0) -> tuple[float, float]:
    """The interval around a value, each side joined in quadrature with a further error."""
    low, high = (math.hypot(max(side, 0.0), more) for side in (value - interval[0], interval[1] - value))
    return value - low, value + high


def _active_points(phi: ArrayLike, activity: ArrayLike, drift: Drift | None) -> tuple[Array, list[Array], Array]:
    """Points of the power-law fit (phi, final activity of survivors), and every phi scanned."""
    order = scan_order(phi, activity)
    phis, rows = np.asarray(phi, float)[order], replicas_run(activity, order)
    moves = drifting(rows, drift, order)
    if max(len(row) for row in rows) < 2:
        raise PackingError("the error comes from the scatter between replicas: run two or more")
    alive = np.array([np.mean(row > 0) for row in rows])
    if not alive.any():
        raise PackingError(f"every replica was absorbed, up to phi = {phis[-1]:g}: scan higher phi")
    if (alive >= SURVIVING)[0]:
        raise PackingError(f"the activity survives down to phi = {phis[0]:g}: scan lower phi, or run more steps")
    active = [i for i, row in enumerate(rows) if alive[i] >= SURVIVING and np.sum(row > 0) >= 2]
    if len(active) < MIN_POINTS:
        raise PackingError(
            f"the activity survives at {len(active)} of the scanned phi, and a power law needs it "
            f"at {MIN_POINTS}: scan more finely above phi_c, or higher"
        )
    stationary = [i for i in active if not moves[i]]
    if len(stationary) < MIN_POINTS:
        raise PackingError(
            f"the activity is stationary at {len(stationary)} of {len(active)} active phi, and a power "
            f"law needs it at {MIN_POINTS}: run more steps"
        )
    return phis[stationary], [rows[i][rows[i] > 0] for i in stationary], phis
