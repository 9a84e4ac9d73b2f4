"""phi_c from both sides at once: the time to be absorbed below it and the time to become stationary above it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.criticality.fits import (
    akaike_weights,
    averaged_profile,
    bootstrap_means,
    half_width,
    likelihood_interval,
    lowest,
    misfit,
    standard_error,
)
from packing_jax.criticality.power_law import OPEN, SURVIVING
from packing_jax.criticality.results import or_results
from packing_jax.criticality.scan import DRAWS, records_run
from packing_jax.criticality.stationarity import final_activity
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

_WITHIN = 0.1  # |f_a/f_inf - 1| at which an activity is relaxed (arXiv:2411.11834)
_LATEST = 0.5  # a relaxation later than this share of the record is not trusted: f_inf is averaged over its end
_TRIED = 300  # values of phi_c between the two sides
_SIDE, _MOST = 2, 6  # fewest and most packing fractions on each side: the law holds near phi_c


@dataclass(frozen=True)
class Relaxation:
    """tau = tau_below (phi_c - phi)^-nu_par and tau_above (phi - phi_c)^-nu_par, `value` being phi_c.

    Fitted to `points` packing fractions in `window`, at least two on each side; times in steps.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    nu_par: float
    nu_par_stderr: float
    nu_par_interval: tuple[float, float]
    tau_below: float
    tau_above: float
    chi2: float
    dof: int
    window: tuple[float, float]
    points: int


def relaxation_times(time: ArrayLike, activity: ArrayLike, absorbed_at: ArrayLike) -> Array:
    """Steps a replica takes to relax, (...): to its absorption, or the first t with |f_a/f_inf - 1| < 0.1.

    f_inf is the replica's final activity; t is interpolated in ln t between records. NaN where the replica was not run.

    Args:
        time: recorded steps, (time,), increasing.
        activity: (..., time), NaN where not run.
        absorbed_at: step of absorption, (...), -1 where active.
    """
    steps, f_a, gone = np.asarray(time, float), np.asarray(activity, float), np.asarray(absorbed_at)
    level = final_activity(steps, f_a, gone >= 0)
    far = np.abs(f_a / np.where(level > 0, level, 1.0)[..., None] - 1.0)
    first = np.argmax(far < _WITHIN, axis=-1)
    after = np.take_along_axis(far, first[..., None], -1)[..., 0]
    before = np.take_along_axis(far, np.maximum(first - 1, 0)[..., None], -1)[..., 0]
    log_t = np.log(np.maximum(steps, 0.5))
    gap = np.where(first > 0, np.where(before > after, before - after, 1.0), 1.0)
    share = np.where(first > 0, np.clip((before - _WITHIN) / gap, 0.0, 1.0), 1.0)
    tau = np.exp(log_t[np.maximum(first - 1, 0)] * (1 - share) + log_t[first] * share)
    relaxed = np.where((far < _WITHIN).any(axis=-1), tau, steps[-1])
    return np.where(np.isnan(level), np.nan, np.where(gone >= 0, np.maximum(gone, 1), relaxed))


@or_results("time", "phi", "activity", "absorbed_at")
def relaxation_phi_c(
    time: ArrayLike, phi: ArrayLike, activity: ArrayLike, absorbed_at: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> Relaxation:
    """phi_c where relaxation times from both sides diverge together, ln tau = ln tau_side - nu_par ln|phi - phi_c|.

    A phi is below when every replica was absorbed, and above when at least three quarters stayed active and those
    relaxed within the first half of the record. phi_c is searched between the two sides; nu_par and both amplitudes are
    free. Points far from phi_c, on either side, are dropped where that lowers chi^2 + 2 (points dropped).

    nu_par is an effective exponent and comes out too small: absorption takes ln(N |phi - phi_c|^beta) relaxation times,
    a factor that the law does not have. Below phi_c nu_par is too small by about beta/ln(N |phi - phi_c|^beta), and
    phi_c is a little too high. Both can exceed their errors where replicas scatter little: in mean-field dynamics
    (nu_par = 1, N = 4096) nu_par is 0.7 to 0.9, and phi_c too high by up to 0.001. Do not infer a universality class
    from this nu_par.

    Errors: the bootstrap over replicas, joined with the scatter between windows of weight exp(-(chi^2 + 2 dropped)/2).
    The 95 % intervals come from chi^2(phi_c) and chi^2(nu_par), see `packing_jax.criticality.fits`.

    Instead of the arrays: a trajectory, a dataset, or the directory of a sweep (str or Path).

    Args:
        time: recorded steps, (time,), increasing.
        phi: packing fractions, (phi,).
        activity: (phi, replica, time), NaN where not run.
        absorbed_at: step of absorption, (phi, replica), -1 where active.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        PackingError: one replica, fewer than two packing fractions on a side, fewer than five in all, or times that
            diverge at a packing fraction that was run instead of between two.
    """
    records_run(time, phi, activity)  # checks
    rows, points = _relaxed(time, phi, activity, absorbed_at)
    first_above = int(np.argmax(points.above))
    low, high = points.phi[first_above - 1], points.phi[first_above]
    tried = _between(low, high, np.arange(float(_TRIED)))
    windows = _windows(first_above, len(rows))
    dropped = np.array([2 * _MOST - (b - a) for a, b in windows])

    chi2s, slopes, _ = _fits(points, windows, tried)
    place = lowest(chi2s)
    least, nus = _between(low, high, place), _at(slopes, place)
    tried_too = np.union1d(tried, least)  # may be more precise than the spacing of `tried`
    profiles, slopes, weights = _fits(points, windows, tried_too)
    cost = profiles.min(axis=1) + 2.0 * dropped
    best = int(np.argmin(cost))
    share = akaike_weights(cost)
    value, nu = float(least[best]), float(nus[best])

    a, b = windows[best]
    window = points.part(a, b)
    chi2, dof = float(profiles[best].min()), b - a - 4
    scale, freedom = misfit(chi2, dof), sum(len(row) - 1 for row in rows)
    resampled = bootstrap_means(rows, draws, np.random.default_rng(seed))[:, a:b]
    drawn, drawn_nu, _ = _fit(window, resampled, tried)
    at = lowest(drawn)
    pinned = (at <= 0) | (at >= _TRIED - 1)
    if place[best] <= 0 or place[best] >= _TRIED - 1 or pinned.mean() > OPEN:
        raise PackingError(
            f"relaxation times do not diverge inside the gap from phi = {low:g} to {high:g}, but at an end of it: run "
            "more steps or replicas, or scan more finely there"
        )
    tau_below, tau_above = _amplitudes(window, value, nu)
    nus_tried = np.linspace(0.0, 4.0, 201)
    over_nu = averaged_profile(_over_nu(nus_tried, profiles, slopes, weights) / scale**2, dropped)
    return Relaxation(
        value=value,
        stderr=math.hypot(scale * half_width(_between(low, high, at)), math.sqrt(share @ (least - value) ** 2)),
        interval=likelihood_interval(tried_too, averaged_profile(profiles / scale**2, dropped), freedom),
        nu_par=nu,
        nu_par_stderr=math.hypot(scale * half_width(_at(drawn_nu, at)), math.sqrt(share @ (nus - nu) ** 2)),
        nu_par_interval=likelihood_interval(nus_tried, over_nu, freedom),
        tau_below=tau_below,
        tau_above=tau_above,
        chi2=chi2,
        dof=dof,
        window=(float(window.phi[0]), float(window.phi[-1])),
        points=b - a,
    )


class _Points(NamedTuple):
    """Mean ln tau of the packing fractions that relaxed, by increasing phi; each (points,)."""

    phi: Array
    log_tau: Array
    stderr: Array
    above: NDArray[np.bool_]

    def part(self, a: int, b: int) -> _Points:
        """The points from the a-th to before the b-th."""
        return _Points(self.phi[a:b], self.log_tau[a:b], self.stderr[a:b], self.above[a:b])


def _relaxed(
    time: ArrayLike, phi: ArrayLike, activity: ArrayLike, absorbed_at: ArrayLike
) -> tuple[list[Array], _Points]:
    """ln tau of the replicas of every phi that relaxed, (replica,) each, and their means."""
    phis, f_a, gone = np.asarray(phi, float), np.asarray(activity, float), np.asarray(absorbed_at)
    if gone.shape != f_a.shape[:2]:
        raise PackingError(f"absorbed_at has shape {gone.shape}: it must be {f_a.shape[:2]}")
    tau, latest = relaxation_times(time, f_a, gone), _LATEST * float(np.asarray(time)[-1])
    below: list[tuple[float, Array]] = []
    above: list[tuple[float, Array]] = []
    for i in np.argsort(phis):
        run = np.isfinite(tau[i])
        active = run & (gone[i] < 0)
        if run.sum() < 2:
            continue
        if not active.any():
            below.append((float(phis[i]), np.log(tau[i, run])))
        elif active.sum() >= max(2.0, SURVIVING * run.sum()) and (tau[i, active] < latest).all():
            above.append((float(phis[i]), np.log(tau[i, active])))
    if above:
        below = [one for one in below if one[0] < above[0][0]]
    for side, points, more in (("below", below, "lower"), ("above", above, "higher")):
        if len(points) < _SIDE:
            raise PackingError(
                f"two or more replicas relaxed at {len(points)} phi {side} the transition, and the divergence needs "
                f"{_SIDE} on each side: scan {more} phi, or run more steps"
            )
    if len(below) + len(above) < 5:
        raise PackingError("relaxation times at 4 phi fit any four parameters: scan more finely about phi_c")
    rows = [row for _, row in below + above]
    mean = np.array([row.mean() for row in rows])
    is_above = np.array([False] * len(below) + [True] * len(above))
    return rows, _Points(np.array([at for at, _ in below + above]), mean, standard_error(rows), is_above)


def _between(low: float, high: float, place: Array) -> Array:
    """phi_c at indices 0 to 299 between two phi, closer together towards both ends, where the logarithms diverge."""
    return low + (high - low) * (0.5 - 0.5 * np.cos(np.pi * (0.004 + 0.992 * place / (_TRIED - 1))))


def _windows(first_above: int, count: int) -> list[tuple[int, int]]:
    """Ranges (a, b) of five points or more, with two to six on each side of the transition."""
    first = range(max(0, first_above - _MOST), first_above - 1)
    last = range(first_above + 2, min(count, first_above + _MOST) + 1)
    return [(a, b) for a in first for b in last if b - a > 4]


def _centred(values: Array, weight: Array, above: NDArray[np.bool_]) -> Array:
    """Values (..., points) less the weighted mean of their side."""
    sides = np.stack([~above, above]) * weight
    means = values @ (sides / sides.sum(axis=1, keepdims=True)).T
    return values - np.where(above, means[..., 1:], means[..., :1])


def _fits(points: _Points, windows: list[tuple[int, int]], tried: Array) -> tuple[Array, Array, Array]:
    """:func:`_fit` of the mean ln tau in each window, (windows, tried) each."""
    fits = [_fit(points.part(a, b), points.log_tau[None, a:b], tried) for a, b in windows]
    chi2, nu, weight = (np.concatenate(part) for part in zip(*fits, strict=True))
    return chi2, nu, weight


def _fit(window: _Points, log_tau: Array, tried: Array) -> tuple[Array, Array, Array]:
    """chi^2 and nu_par (samples, tried) of log_tau (samples, points) at each phi_c; weight of nu_par (1, tried)."""
    weight = window.stderr**-2.0
    u = _centred(np.log(np.abs(window.phi - tried[:, None])), weight, window.above)
    v = _centred(log_tau, weight, window.above)
    uu, uv = u**2 @ weight, (v * weight) @ u.T
    return np.maximum((v**2 @ weight)[:, None] - uv**2 / uu, 0.0), -uv / uu, uu[None]


def _over_nu(nus: Array, chi2: Array, best_nu: Array, weight: Array) -> Array:
    """Least chi^2 over phi_c at each nu_par, (windows, nus), from the fits (windows, tried)."""
    return np.stack(
        [np.min(z + (nus[:, None] - k) ** 2 * w, axis=1) for z, k, w in zip(chi2, best_nu, weight, strict=True)]
    )


def _at(values: Array, place: Array) -> Array:
    """Each row of values (samples, tried), interpolated at its fractional index."""
    index, every = np.arange(values.shape[1]), zip(values, place, strict=True)
    return np.array([np.interp(one, index, row) for row, one in every])


def _amplitudes(window: _Points, phi_c: float, nu: float) -> tuple[float, float]:
    """tau_below and tau_above of the law through the mean ln tau."""
    logs, weight = window.log_tau + nu * np.log(np.abs(window.phi - phi_c)), window.stderr**-2.0
    below, above = (
        float(np.exp(logs[side] @ weight[side] / weight[side].sum())) for side in (~window.above, window.above)
    )
    return below, above
