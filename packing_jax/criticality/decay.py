"""phi_c from the decay of the activity: at phi_c, and only there, ln f_a is a straight line in ln t."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.criticality.fits import (
    akaike_weights,
    averaged_profile,
    bootstrap_means,
    half_width,
    jackknife,
    likelihood_interval,
    misfit,
    standard_error,
    student_interval,
)
from packing_jax.criticality.results import or_results
from packing_jax.criticality.scan import DRAWS, records_run
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

_DECADES = 2.0  # fitted at the end of the record, at most
_TIMES = 25  # equally spaced in log t, so that each decade weighs the same
_SIGNIFICANT = 2.0  # standard errors of the curvature that each side of the crossing must show


@dataclass(frozen=True)
class StraightestDecay:
    """phi_c where the curvature of ln f_a(ln t) crosses zero; there f_a ~ t^-alpha.

    `window` is the range of t; `chi2` is that of the straight line through the curvatures of `points` packing
    fractions. alpha depends on the initial correlations: report it, but do not infer a universality class from it.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    alpha: float
    alpha_stderr: float
    alpha_interval: tuple[float, float]
    chi2: float
    dof: int
    window: tuple[float, float]
    points: int


@or_results("time", "phi", "activity")
def straightest_decay_phi_c(
    time: ArrayLike, phi: ArrayLike, activity: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> StraightestDecay:
    """phi_c as the zero of the curvature c(phi) in ln f_a = a - alpha s + c (s^2 - <s^2>), s = ln t - <ln t>.

    f_a(t) bends down to absorption below phi_c and up to its plateau above it. Near phi_c it is
    t^-alpha G((phi - phi_c) t^(1/nu_par)), so that c is linear in phi.

    f_a is the mean over all replicas, absorbed ones included. The fit takes the last two decades of the record, but
    nothing before the activity has halved at the lowest phi that survives: until then almost all particles are active,
    whatever phi is. In a small system replicas below phi_c are soon absorbed, and every phi that survives may level
    off. Then the record is cut to the last time at which two replicas of the next lower phi were active, and so on. A
    cut record holds early times; phi_c is then that of its last decade, and the difference from that of both decades is
    added to the error.

    A straight line c = b (phi - phi_c) is fitted about the change of sign, to windows of one to four packing fractions
    on each side, with weights exp(-(chi^2 + 2 dropped)/2). Errors: the bootstrap over replicas, of jackknife
    pseudo-values because of the logarithm, joined with the scatter between windows; the 95 % interval comes from
    chi^2(phi_c). Corrections to scaling at early times are left out: in mean-field dynamics, f_a = 1/(t + 1) at phi_c,
    a cut record gives a phi_c too high by 0.0003.

    Instead of the arrays: a trajectory, a dataset, or the directory of a sweep (str or Path).

    Args:
        time: recorded steps, (time,), increasing.
        phi: packing fractions, (phi,).
        activity: (phi, replica, time), NaN where not run.
        draws: bootstrap draws.
        seed: of the bootstrap; the same seed gives the same error.

    Raises:
        PackingError: one replica, a record that ends less than a decade after the activity has halved, or no change of
            sign with a significant curvature on both sides.
    """
    steps, phis, values = records_run(time, phi, activity)
    if max(len(rows) for rows in values) < 2:
        raise PackingError("the error comes from the scatter between replicas: run two or more")
    refusals = []
    for count in _lengths(steps, values):
        try:
            cut = steps[:count], phis, [rows[:, :count] for rows in values], draws, seed
            whole = _straightest(*cut, _DECADES)
            return whole if count == len(steps) else _widened(_straightest(*cut, 1.0), whole)
        except PackingError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _lengths(steps: Array, values: list[Array]) -> list[int]:
    """Lengths of record to try: the whole, then up to the last time with two active replicas, for each lower phi."""
    if all(np.sum(rows[:, -1] > 0) < 2 for rows in values):
        return [len(steps)]  # to be refused: nothing is known above the transition
    surviving = [np.flatnonzero((rows > 0).sum(axis=0) >= 2) for rows in reversed(values)]
    cut = [int(at[-1]) + 1 for at in surviving if at.size and at[-1] + 1 < len(steps)]
    return [len(steps), *sorted({count for count in cut if count >= 8}, reverse=True)]


def _widened(late: StraightestDecay, whole: StraightestDecay) -> StraightestDecay:
    """The estimate of a late window, its errors joined with the difference to that of a longer one."""
    off, off_alpha = abs(late.value - whole.value), abs(late.alpha - whole.alpha)
    return replace(
        late,
        stderr=math.hypot(late.stderr, off),
        interval=_stretched(late.value, late.interval, 1.96 * off),
        alpha_stderr=math.hypot(late.alpha_stderr, off_alpha),
        alpha_interval=_stretched(late.alpha, late.alpha_interval, 1.96 * off_alpha),
    )


def _stretched(value: float, interval: tuple[float, float], by: float) -> tuple[float, float]:
    return value - math.hypot(value - interval[0], by), value + math.hypot(interval[1] - value, by)


def _straightest(
    steps: Array, phis: Array, values: list[Array], draws: int, seed: int, decades: float
) -> StraightestDecay:
    start, stop = _window(steps, values, decades)
    log_t = np.linspace(math.log(start), math.log(stop), _TIMES)
    s = log_t - log_t.mean()
    bend = s**2 - np.mean(s**2)

    def shape(f_a: Array) -> Array:
        """(curvature, alpha) of a mean activity (times,)."""
        logs = np.log(f_a)
        return np.array([bend @ logs / (bend @ bend), -(s @ logs) / (s @ s)])

    kept, rows = [], []
    for at, runs in zip(phis, values, strict=True):
        if len(runs) < 2:
            continue
        sampled = np.array([np.interp(log_t, np.log(np.maximum(steps, 0.5)), run) for run in runs])
        if np.sum(sampled[:, -1] > 0) < 2:
            continue  # absorbed within the window: far below phi_c, and f_a has no logarithm
        kept.append(float(at))
        rows.append(jackknife(sampled, shape))
    if len(kept) < 2:
        raise PackingError(
            "two or more replicas survive to the end of the record at fewer than two phi, and the decay is compared "
            "between them: scan higher phi, or run larger systems"
        )
    x, curvature, slopes = np.array(kept), [part[:, 0] for part in rows], [part[:, 1] for part in rows]
    mean, stderr = np.array([row.mean() for row in curvature]), standard_error(curvature)
    edge = _crossing(x, mean, stderr, absorbed=bool(x[0] > phis[0]))

    drawn = bootstrap_means(curvature, draws, np.random.default_rng(seed))
    drawn_alpha = bootstrap_means(slopes, draws, np.random.default_rng(seed))  # the same replicas
    alpha, alpha_stderrs = np.array([row.mean() for row in slopes]), standard_error(slopes)
    windows = sorted({(max(0, edge + 1 - k), min(len(x), edge + 1 + m)) for k in range(1, 5) for m in range(1, 5)})
    most = max(b - a for a, b in windows)
    tried = np.linspace(x[max(0, edge - 1)], x[min(len(x) - 1, edge + 2)], 2001)
    fits = [_Line(x[a:b], stderr[a:b], alpha_stderrs[a:b]) for a, b in windows]
    dropped = np.array([most - (b - a) for a, b in windows])
    roots = np.array([fit.root(mean[None, a:b])[0] for fit, (a, b) in zip(fits, windows, strict=True)])
    tried = np.union1d(tried, roots[(roots > tried[0]) & (roots < tried[-1])])  # may be more precise than the spacing
    profiles = np.stack([fit.chi2(mean[a:b], tried) for fit, (a, b) in zip(fits, windows, strict=True)])
    alphas = np.array(
        [fit.alpha(alpha[None, a:b], root)[0] for fit, (a, b), root in zip(fits, windows, roots, strict=True)]
    )
    cost = profiles.min(axis=1) + 2.0 * dropped
    best = int(np.argmin(cost))
    share = akaike_weights(cost)
    (a, b), fit = windows[best], fits[best]
    chi2, dof = float(profiles[best].min()), b - a - 2
    scale = misfit(chi2, dof)
    low, high = likelihood_interval(
        tried, averaged_profile(profiles / scale**2, dropped), sum(len(r) - 1 for r in rows)
    )
    found = fit.root(drawn[:, a:b])
    statistical = scale * half_width(found)
    between = math.sqrt(share @ (roots - roots[best]) ** 2)
    alpha_stderr = math.hypot(
        scale * half_width(fit.alpha(drawn_alpha[:, a:b], found)), math.sqrt(share @ (alphas - alphas[best]) ** 2)
    )
    return StraightestDecay(
        value=float(roots[best]),
        stderr=math.hypot(statistical, between),
        interval=(low, high),
        alpha=float(alphas[best]),
        alpha_stderr=alpha_stderr,
        alpha_interval=student_interval(float(alphas[best]), alpha_stderr, slopes[a:b]),
        chi2=chi2,
        dof=dof,
        window=(start, stop),
        points=b - a,
    )


def _window(steps: Array, values: list[Array], decades: float) -> tuple[float, float]:
    """First and last time of the fit: the last decades, but after the activity has halved at the lowest active phi."""
    stop = float(steps[-1])
    alive = next((rows for rows in values if np.sum(rows[:, -1] > 0) > 1), None)
    if alive is None:
        raise PackingError("every replica was absorbed: scan higher phi")
    mean = alive.mean(axis=0)
    halved = np.flatnonzero((mean < 0.5 * mean.max()) & (steps > 0))
    start = max(float(steps[halved[0]]) if halved.size else stop, stop / 10**decades)
    if stop < 10 * start * (1 - 1e-9):
        raise PackingError(
            f"the activity has halved at t = {start:g} of {stop:g}, and a decay is judged over the decade after that: "
            "run more steps, or scan lower phi"
        )
    return start, stop


def _crossing(phi: Array, curvature: Array, stderr: Array, absorbed: bool) -> int:
    """Index of the last phi whose decay bends down; `absorbed`: lower phi are left out, as all their replicas were."""
    z = curvature / stderr
    if not (z < -_SIGNIFICANT).any():
        more = "scan more finely below it, or run larger systems" if absorbed else "scan lower phi, or run more steps"
        raise PackingError(f"no decay bends down while replicas survive, down to phi = {phi[0]:g}: {more}")
    if not (z > _SIGNIFICANT).any():
        raise PackingError(
            f"no decay levels off within the record, up to phi = {phi[-1]:g}: scan higher phi, or run more "
            "steps or replicas"
        )
    # the edge with the largest sum of -z below and z above it: a single noisy sign does not move it
    gain = [-z[: i + 1].sum() + z[i + 1 :].sum() for i in range(len(z) - 1)]
    edge = int(np.argmax(gain))
    if z[: edge + 1].min() > -_SIGNIFICANT or z[edge + 1 :].max() < _SIGNIFICANT:
        raise PackingError("the curvature of the decays does not grow with phi: run more replicas, or more steps")
    return edge


class _Line:
    """Weighted straight line through curvatures, its root, and alpha at the root from another line."""

    def __init__(self, x: Array, stderr: Array, alpha_stderrs: Array) -> None:
        self._x, self._w, self._v = x, stderr**-2.0, alpha_stderrs**-2.0

    def chi2(self, y: Array, roots: Array) -> Array:
        """Least chi^2 of y = b (x - root) over b at each root, (roots,)."""
        u = self._x - roots[:, None]
        least: Array = self._w @ y**2 - (u @ (self._w * y)) ** 2 / (u**2 @ self._w)
        return np.maximum(least, 0.0)

    def root(self, y: Array) -> Array:
        """Root of the line through each sample, (samples,)."""
        mean, slope = _line(self._x, y, self._w)
        return self._x @ self._w / self._w.sum() - mean / slope

    def alpha(self, y: Array, at: Array | np.float64) -> Array:
        """alpha of each sample at its own root, (samples,)."""
        mean, slope = _line(self._x, y, self._v)
        return mean + slope * (at - self._x @ self._v / self._v.sum())


def _line(x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    total = weight.sum()
    u = x - x @ weight / total
    return y @ weight / total, y @ (weight * u) / (u**2 @ weight)
