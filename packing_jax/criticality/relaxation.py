"""phi_c from both sides at once: the time to be absorbed below it and the time to become stationary above it."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from packing_jax.criticality.scan import DRAWS, records
from packing_jax.criticality.stationarity import final_activity
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

_WITHIN = 0.1  # |f_a/f_inf - 1| of a relaxed activity (arXiv:2411.11834)
_LATEST = 0.5  # share of the record after which a relaxation is not trusted: f_inf is averaged over the end
_GRID = 300  # values of phi_c tried between the two sides
_SIDE, _MOST = 2, 6  # packing fractions that each side needs, and at most uses: the law holds near phi_c


@dataclass(frozen=True)
class Relaxation:
    """tau = tau_below (phi_c - phi)^-nu_par and tau_above (phi - phi_c)^-nu_par, `value` being phi_c.

    `points` packing fractions in `window`, at least two on each side; times in steps.
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


def relaxation_phi_c(
    time: ArrayLike,
    phi: ArrayLike,
    activity: ArrayLike,
    absorbed_at: ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Relaxation:
    """phi_c where relaxation times from both sides diverge together, ln tau = ln tau_side - nu_par ln|phi - phi_c|.

    Below: every replica was absorbed. Above: three quarters or more stayed active, and the active ones relaxed within
    the first half of the record. phi_c is searched between the two sides, nu_par and the two amplitudes are free.
    Points far from phi_c, on either side, are dropped where that lowers chi^2 + 2 (points dropped).

    Absorption takes ln(N |phi - phi_c|^beta) relaxation times, which the law does not know. nu_par is therefore an
    effective exponent, too small by about beta/ln(N |phi - phi_c|^beta) on the side below, and phi_c is a little high,
    both by more than their errors where replicas scatter little: in mean-field dynamics (nu_par = 1, N = 4096) nu_par
    is 0.7 to 0.9 and phi_c high by up to 0.001. No verdict is given on such a nu_par.

    Errors: bootstrap over replicas, joined with the scatter between windows weighted by
    exp(-(chi^2 + 2 dropped)/2); the 95 % intervals are of chi^2(phi_c) and chi^2(nu_par).

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
    records(time, phi, activity)  # checks
    phis, rows, above = _sides(time, phi, activity, absorbed_at)
    mean, error = np.array([row.mean() for row in rows]), standard_error(rows)
    split, count = int(np.argmax(above)), len(phis)
    gap = phis[split] - phis[split - 1]

    def between(place: Array) -> Array:
        """phi_c at these places of the grid, finer towards both ends, where the logarithms diverge."""
        return phis[split - 1] + gap * (0.5 - 0.5 * np.cos(np.pi * (0.004 + 0.992 * place / (_GRID - 1))))

    grid = between(np.arange(float(_GRID)))
    first, last = range(max(0, split - _MOST), split - 1), range(split + 2, min(count, split + _MOST) + 1)
    windows = [(a, b) for a in first for b in last if b - a > 4]
    dropped = np.array([2 * _MOST - (b - a) for a, b in windows])

    def fitted(grid: Array) -> tuple[Array, Array, list[Array]]:
        """chi^2 and nu_par (windows, grid), and the weight of nu_par (grid,) of each window."""
        fits = [_fit(phis[a:b], mean[None, a:b], error[a:b], above[a:b], grid) for a, b in windows]
        return np.concatenate([fit[0] for fit in fits]), np.concatenate([fit[1] for fit in fits]), [f[2] for f in fits]

    chi2s, slopes, _ = fitted(grid)
    place = lowest(chi2s)
    least, nus = between(place), _at(slopes, place)
    within = np.union1d(grid, least)  # replicas that agree know phi_c better than the grid
    profiles, slopes, weights = fitted(within)
    cost = profiles.min(axis=1) + 2.0 * dropped
    best = int(np.argmin(cost))
    share = akaike_weights(cost)
    value = float(least[best])

    a, b = windows[best]
    chi2, dof = float(profiles[best].min()), b - a - 4
    scale, freedom = misfit(chi2, dof), sum(len(row) - 1 for row in rows)
    resampled = bootstrap_means(rows, draws, np.random.default_rng(seed))[:, a:b]
    drawn, drawn_nu, _ = _fit(phis[a:b], resampled, error[a:b], above[a:b], grid)
    at = lowest(drawn)
    pinned = (at <= 0) | (at >= _GRID - 1)
    if place[best] <= 0 or place[best] >= _GRID - 1 or pinned.mean() > OPEN:
        raise PackingError(
            f"relaxation times do not diverge inside the gap from phi = {phis[split - 1]:g} to {phis[split]:g}, but at "
            "an end of it: run more steps or replicas, or scan more finely there"
        )
    nu = float(nus[best])
    tau = _amplitudes(phis[a:b], mean[a:b], error[a:b], above[a:b], value, nu)
    tried = np.linspace(0.0, 4.0, 201)
    over_nu = np.stack(
        [np.min(z + (tried[:, None] - k) ** 2 * w, axis=1) for z, k, w in zip(profiles, slopes, weights, strict=True)]
    )
    return Relaxation(
        value=value,
        stderr=math.hypot(scale * half_width(between(at)), math.sqrt(share @ (least - value) ** 2)),
        interval=likelihood_interval(within, averaged_profile(profiles / scale**2, dropped), freedom),
        nu_par=nu,
        nu_par_stderr=math.hypot(scale * half_width(_at(drawn_nu, at)), math.sqrt(share @ (nus - nu) ** 2)),
        nu_par_interval=likelihood_interval(tried, averaged_profile(over_nu / scale**2, dropped), freedom),
        tau_below=tau[0],
        tau_above=tau[1],
        chi2=chi2,
        dof=dof,
        window=(float(phis[a]), float(phis[b - 1])),
        points=b - a,
    )


def _sides(
    time: ArrayLike, phi: ArrayLike, activity: ArrayLike, absorbed_at: ArrayLike
) -> tuple[Array, list[Array], NDArray[np.bool_]]:
    """phi, ln tau of its replicas, and whether it is above, for every phi that relaxed."""
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
    both = below + above
    is_above = np.array([False] * len(below) + [True] * len(above))
    return np.array([at for at, _ in both]), [row for _, row in both], is_above


def _centred(values: Array, weight: Array, above: NDArray[np.bool_]) -> Array:
    """Values (..., points) less the weighted mean of their side."""
    sides = np.stack([~above, above]) * weight
    means = values @ (sides / sides.sum(axis=1, keepdims=True)).T
    return values - np.where(above, means[..., 1:], means[..., :1])


def _fit(x: Array, z: Array, error: Array, above: NDArray[np.bool_], grid: Array) -> tuple[Array, Array, Array]:
    """chi^2 and nu_par (samples, grid) of ln tau (samples, points) with phi_c on the grid; weight of nu_par (grid,)."""
    weight = error**-2.0
    u = _centred(np.log(np.abs(x - grid[:, None])), weight, above)
    v = _centred(z, weight, above)
    uu, uv = u**2 @ weight, (v * weight) @ u.T
    return np.maximum((v**2 @ weight)[:, None] - uv**2 / uu, 0.0), -uv / uu, uu


def _at(values: Array, place: Array) -> Array:
    """Each row of values (samples, grid) at its place between two points of the grid."""
    index, every = np.arange(values.shape[1]), zip(values, place, strict=True)
    return np.array([np.interp(one, index, row) for row, one in every])


def _amplitudes(
    x: Array, z: Array, error: Array, above: NDArray[np.bool_], phi_c: float, nu: float
) -> tuple[float, float]:
    logs, weight = z + nu * np.log(np.abs(x - phi_c)), error**-2.0
    below, over = (float(np.exp(logs[side] @ weight[side] / weight[side].sum())) for side in (~above, above))
    return below, over
