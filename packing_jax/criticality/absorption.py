"""phi_c from the times at which replicas are absorbed, extrapolated to infinite runs and systems.

The packing fraction phi_h at which half of the replicas are absorbed within t steps depends on t and N. Both shifts
follow from the finite-size scaling of an absorbing state (Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004), section 3;
Hinrichsen, Adv. Phys. 49, 815 (2000), section 4.2): the share of absorbed replicas is

    P(phi; t, N) = 1/(1 + exp((phi - phi_h)/w)),
    phi_h = phi_c + a N^(-omega) - b t^(-1/nu_par),     w = u N^(-omega) + v t^(-1/nu_par),     omega = 1/(d nu_perp).

The likelihood of a replica absorbed between two times is the difference of P there, that of one still active 1 - P at
its last step. So nothing is counted twice, and replicas far below phi_c, which are absorbed early, tell how phi_h moves
in time. The exponents are those of the Manna class, each times a fitted factor: from 3/4 to 5/4 for that of the size,
since corrections to scaling and other classes are of that order, and from 1/2 to 5/4 for that of time, since a finite
system that outlives N^(z/d) steps drifts more slowly, as a logarithm. The error of phi_c is the standard deviation of
its posterior distribution, sampled by an ensemble of walkers (Goodman and Weare, Commun. Appl. Math. Comput. Sci. 5, 65
(2010)). The priors of b, u and v > 0 are flat in the logarithm, that of phi_c is flat, and that of a is normal with
four times :attr:`Scaling.doubt` as standard deviation.

Transitions of tasks follow the same law with exponents of their own, `OF_TASKS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, xlogy

from packing_jax.criticality.power_law import OPEN
from packing_jax.criticality.results import or_results
from packing_jax.criticality.universality import classes_in
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

EDGES = 9
"""Times at which absorbed replicas are counted, in steps of sqrt(2): from 1/16 of the run to its end."""

SIZE_SHIFT = 0.15
"""phi_h of infinite runs of N spheres lies above phi_c by about SIZE_SHIFT phi_c N^-omega: the typical a over phi_c.

Measured in 3D BRO at kick 0.05: half of the replicas of N = 256, 512 and 1000 are absorbed within 1e5 steps at 0.5998,
0.5986 and 0.5973, and all three together give 0.596. Above phi_c a finite system is absorbed by chance.
"""

_IN_TIME = 0.5, 1.25  # factors on the exponent of time
_WALKERS, _STEPS, _FORGOTTEN = 256, 400, 160
_FARTHEST = 0.1  # largest shift of the longest run from infinite ones, relative to phi
_TRIED = 4000  # random points, from the best of which the walkers start
_LEAST = 1e-12  # probability: an outlier costs 28 in ln P, and no more
_CENTRAL = [0.025, 0.975]


@dataclass(frozen=True)
class Scaling:
    """How the shift and the width of a transition vanish with size and time, and what is known of it beforehand."""

    omega: float  #: the shift vanishes as N^-omega
    spread: float  #: the width as N^-spread, with the same factor on the exponent
    decay: float  #: both as t^-decay
    growth: float  #: runs of t ~ N^growth steps see both of them vanish together
    factors: tuple[float, float]  #: between these lies the factor on omega and spread
    offset: float  #: a of the law, typically, in units of phi_c N^-omega
    doubt: float  #: standard deviation of a from that, likewise


def scaling_in(dim: int) -> Scaling:
    """That of the Manna class in dim dimensions; mean field for dim >= 4 (Luebeck 2004, 3.4)."""
    exponents = classes_in(dim)[0].exponents
    omega = 1.0 / (min(dim, 4) * exponents["nu_perp"][0])
    return Scaling(
        omega=omega,
        spread=omega,
        decay=1.0 / exponents["nu_par"][0],
        growth=exponents["z"][0] / min(dim, 4),
        factors=(0.75, 1.25),
        offset=SIZE_SHIFT,
        doubt=SIZE_SHIFT / 2,
    )


OF_TASKS = Scaling(omega=1.0, spread=0.5, decay=1.0, growth=0.5, factors=(0.5, 1.5), offset=0.0, doubt=0.5)
"""Of the number of samples per weight that a task can satisfy: instances scatter by N^-1/2, their median moves by 1/N.

That holds where satisfying all samples is a convex problem, as for a perceptron. Elsewhere the exponents are not known:
so the factor on them is wide, and fitted where there are several sizes. The shift may have either sign. For perceptrons
at kappa = 1 and kick 0.1 it was 0.4 alpha_c/N; at kappa = 0 half of all sets of 2 N patterns can be satisfied.
"""


class Outcomes(NamedTuple):
    """Counts of replicas by the time of absorption; a group for every packing fraction, size and run length."""

    phi: Array
    particles: Array
    steps: Array
    counts: Array  #: (groups, EDGES + 1): absorbed by the first time, by the next, ..., not absorbed

    @property
    def times(self) -> Array:
        """Steps at which they were counted, (groups, EDGES)."""
        times: Array = self.steps[:, None] * 2.0 ** (0.5 * np.arange(1 - EDGES, 1))
        return times


def outcomes_of(phi: Array, particles: Array | int, steps: Array | int, absorbed_at: Array) -> Outcomes:
    """Counts of replicas, from (replicas,) each: absorbed_at is the step of absorption, -1 where active to the end."""
    columns = np.broadcast_arrays(*(np.asarray(one, float) for one in (phi, particles, steps)))
    gone = np.asarray(absorbed_at, float)
    groups, place = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    counted = Outcomes(groups[:, 0], groups[:, 1], groups[:, 2], np.zeros((len(groups), EDGES + 1)))
    place = place.reshape(-1)
    late = (counted.times[place] < gone[:, None]).sum(axis=1)
    bins = np.where((gone < 0) | (gone > columns[2]), EDGES, np.minimum(late, EDGES - 1))
    np.add.at(counted.counts, (place, bins), 1.0)
    return counted


@dataclass(frozen=True)
class AbsorptionTimes:
    """phi_c, `value`, of infinite runs and systems.

    `stderr` has the parts `statistical`, `run_length` (from the exponent of time) and `size`: from the exponent of N
    where there are several sizes, otherwise the doubt in the typical shift that was subtracted. `remaining` is how far
    phi_h of the longest run is below that of infinite runs, `width` the width of the transition there. `chi2` is the
    deviance from the observed shares, `dof` the number of groups less two for each size.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    statistical: float
    run_length: float
    size: float
    remaining: float
    amplitude: float  #: shift a N^-omega at the smallest N, fitted or typical: phi_h of infinite runs less phi_c
    scaling: Scaling  #: the fitted exponents
    width: float
    chi2: float
    dof: int

    def half_absorbed(self, size: Array | float, time: Array | float) -> Array:
        """phi_h of the fit where N is `size` times the smallest and t `time` times the longest run; any shapes."""
        n, t = np.asarray(size, float) ** -self.scaling.omega, np.asarray(time, float) ** -self.scaling.decay
        return np.asarray(self.value + self.amplitude * n - self.remaining * t)


@or_results("phi", "absorption", "steps", "particles", "dim")
def absorption_phi_c(
    phi: ArrayLike, absorbed_at: ArrayLike, steps: int, particles: int | None, dim: int | None, *, seed: int = 0
) -> AbsorptionTimes:
    """phi_c from the times of absorption of one size; see the module.

    One size does not show its own shift: the typical one, `SIZE_SHIFT` phi_c N^-omega, is subtracted, and half of it
    enters the error.

    Instead of the arrays, N and dim: a trajectory, a dataset, or the directory of a sweep (str or Path).

    Args:
        phi: packing fractions, (phi,).
        absorbed_at: step of absorption, (phi, replica); -1 where active, NaN where not run.
        steps: of every run.
        particles: N of every run.
        dim: dimension.
        seed: of the walkers.

    Raises:
        PackingError: N or the dimension not known, all absorbed, all active, fewer than three packing fractions, or
            a phi_c that lies beyond them with a probability above 0.16.
    """
    phis, gone = np.asarray(phi, float), np.asarray(absorbed_at, float)
    if particles is None or dim is None:
        raise PackingError("the size is not known: give the results the attributes particles and dim")
    if phis.ndim != 1 or gone.ndim != 2 or len(gone) != phis.size:
        raise PackingError(f"absorbed_at has shape {gone.shape}: it must be ({phis.size} phi, replicas)")
    run = np.isfinite(gone)
    every = np.broadcast_to(phis[:, None], gone.shape)[run]
    return fit(outcomes_of(every, particles, steps, gone[run]), scaling_in(dim), seed=seed)


def fit(outcomes: Outcomes, scaling: Scaling, *, seed: int = 0, parameter: str = "phi") -> AbsorptionTimes:
    """phi_c from counts of replicas, of one size or several.

    Args:
        outcomes: of the replicas.
        scaling: of the transition.
        seed: of the walkers.
        parameter: what phi is called in what is raised.

    Raises:
        PackingError: as for `absorption_phi_c`.
    """
    _check(outcomes, parameter)
    law = _Law(outcomes, scaling)
    samples = _sampled(law.log_posterior, law.started(np.random.default_rng(seed)), seed)
    phi_c = samples[:, 0]
    low, high = (float(end) for end in np.quantile(phi_c, _CENTRAL))
    _check_ends(outcomes.phi, phi_c, parameter)
    doubts = samples[:, 4:5] if law.sizes == 1 else samples[:, [4, 6]]
    offset = doubts - doubts.mean(axis=0)
    slope = np.linalg.lstsq(offset, phi_c - phi_c.mean(), rcond=None)[0]
    parts = [float(abs(k) * x.std()) for k, x in zip(slope, offset.T, strict=True)]
    statistical = float((phi_c - offset @ slope).std())
    middle = np.median(samples, axis=0)
    factor = float(middle[6]) if law.sizes > 1 else 1.0
    width = float(np.exp(middle[2])) * law.size_ratio
    value, shift = float(phi_c.mean()), 0.0
    size = parts[-1]
    if law.sizes == 1:
        typical = abs(value) * float(outcomes.particles[0]) ** -scaling.omega
        shift, size = scaling.offset * typical, scaling.doubt * typical
    total = math.hypot(statistical, parts[0], size)
    extra = total / math.hypot(statistical, *parts)
    value, low, high = value - shift, low - shift, high - shift
    last = float(np.exp(middle[3])) + width
    chi2, dof = law.deviance(middle)
    return AbsorptionTimes(
        value=value,
        stderr=total,
        interval=(value - extra * (value - low), value + extra * (high - value)),
        statistical=statistical,
        run_length=parts[0],
        size=size,
        remaining=float(np.exp(middle[1])),
        amplitude=shift if law.sizes == 1 else float(middle[5]),
        scaling=replace(
            scaling,
            omega=factor * scaling.omega,
            spread=factor * scaling.spread,
            decay=scaling.decay * float(middle[4]),
        ),
        width=last,
        chi2=chi2,
        dof=dof,
    )


def _transition(outcomes: Outcomes, spacing: float) -> tuple[float, float]:
    """The phi between which replicas of the longest runs begin to survive."""
    alive, gone = outcomes.counts[:, -1] > 0, outcomes.counts[:, :-1].sum(axis=1) > 0
    ends = float(outcomes.phi[alive].min()), float(outcomes.phi[gone].max())
    return min(ends) - spacing, max(ends) + spacing


def _check(outcomes: Outcomes, name: str) -> None:
    phis = np.unique(outcomes.phi)
    if len(phis) < 3:
        raise PackingError(
            f"replicas were run at {len(phis)} {name}, and a transition in time needs three: scan more {name}"
        )
    gone, alive = outcomes.counts[:, :-1].sum(), outcomes.counts[:, -1].sum()
    if not alive:
        raise PackingError(f"every replica was absorbed, up to {name} = {phis[-1]:g}: scan higher {name}")
    if not gone:
        raise PackingError(
            f"no replica was absorbed, down to {name} = {phis[0]:g}: scan lower {name}, or run more steps"
        )


def _check_ends(phi: Array, phi_c: Array, name: str) -> None:
    below, above = float(np.mean(phi_c < phi.min())), float(np.mean(phi_c > phi.max()))
    if max(below, above) > OPEN:
        more, end = ("lower", phi.min()) if below > above else ("higher", phi.max())
        raise PackingError(
            f"the transition of infinite runs may lie beyond {name} = {end:g}, where the scan ends: scan {more} "
            f"{name}, or run more steps"
        )


class _Law:
    """The likelihood; parameters phi_c, ln b, ln u, ln v, factor on 1/nu_par; of several sizes also a, factor on omega.

    b and v are the shift and width of the longest run, a and u those of the smallest system.
    """

    def __init__(self, outcomes: Outcomes, scaling: Scaling) -> None:
        self._outcomes, self._scaling = outcomes, scaling
        phis = np.unique(outcomes.phi)
        self.sizes = len(np.unique(outcomes.particles))
        spacing = float(np.median(np.diff(phis)))
        span = min(float(np.ptp(phis)), _FARTHEST * float(phis.mean()))
        self._between = _transition(outcomes, spacing)
        self._likely_a = 4 * scaling.doubt * float(phis.mean()) * float(outcomes.particles.min()) ** -scaling.omega
        self._log_n = np.log(outcomes.particles / outcomes.particles.min())
        self._log_t = np.log(outcomes.times / outcomes.steps.max())
        self.size_ratio = float(np.exp(-scaling.spread * self._log_n.max()))
        scale = (math.log(1e-2 * spacing), math.log(span))
        low, high = [phis[0] - span, *3 * scale[:1], _IN_TIME[0]], [phis[-1] + span, *3 * scale[1:], _IN_TIME[1]]
        if self.sizes > 1:
            low, high = (
                [*low, -10 * self._likely_a, scaling.factors[0]],
                [*high, 10 * self._likely_a, scaling.factors[1]],
            )
        self._low, self._high = np.array(low), np.array(high)

    def shares(self, at: Array) -> Array:
        """Probability of each outcome, (samples, groups, EDGES + 1), at parameters (samples, parameters)."""
        column = at.T[:, :, None, None]
        t = np.exp(-self._scaling.decay * column[4] * self._log_t)
        several = self.sizes > 1
        factor = column[6] if several else 1.0
        powers = self._scaling.omega, self._scaling.spread
        shift, spread = (np.exp(-power * factor * self._log_n[:, None]) for power in powers)
        half = column[0] + (column[5] * shift if several else 0.0) - np.exp(column[1]) * t
        width = np.exp(column[2]) * spread + np.exp(column[3]) * t
        absorbed = np.maximum.accumulate(expit((half - self._outcomes.phi[:, None]) / width), axis=2)
        return np.diff(absorbed, axis=2, prepend=0.0, append=1.0)

    def log_posterior(self, at: Array) -> Array:
        """ln of the posterior density, up to a constant, (samples,)."""
        inside = ((at > self._low) & (at < self._high)).all(axis=1)
        terms = np.log(np.maximum(self.shares(np.clip(at, self._low, self._high)), _LEAST))
        prior = -0.5 * (at[:, 5] / self._likely_a) ** 2 if self.sizes > 1 else 0.0
        return np.where(inside, np.tensordot(terms, self._outcomes.counts, 2) + prior, -np.inf)

    def started(self, rng: np.random.Generator) -> Array:
        """The best of many random points, (walkers, parameters)."""
        places = rng.uniform(self._low, self._high, (_TRIED, len(self._low)))
        places[:, 0] = rng.uniform(*self._between, _TRIED)
        if self.sizes > 1:
            places[:, 5] *= 0.1
        return places[np.argsort(-self.log_posterior(places), kind="stable")[:_WALKERS]]

    def deviance(self, at: Array) -> tuple[float, int]:
        """Twice the log-likelihood of the observed shares of absorbed replicas less that of the law, and its dof."""
        alive, law = self._outcomes.counts[:, -1], self.shares(at[None])[0, :, -1]
        count = self._outcomes.counts.sum(axis=1)
        saturated = xlogy(alive, alive / count) + xlogy(count - alive, 1.0 - alive / count)
        likelihood = xlogy(alive, np.maximum(law, _LEAST)) + xlogy(count - alive, np.maximum(1.0 - law, _LEAST))
        return max(0.0, float(2 * np.sum(saturated - likelihood))), max(len(alive) - 2 * self.sizes, 0)


def _sampled(log_density: Callable[[Array], Array], start: Array, seed: int) -> Array:
    """Samples of a density, (samples, parameters), by stretch moves of the two halves of an ensemble in turn."""
    rng, at = np.random.default_rng(seed), start.copy()
    half, parameters = len(at) // 2, at.shape[1]
    halves = (slice(0, half), slice(half, 2 * half))
    log_p, kept = log_density(at), []
    for step in range(_STEPS):
        for mine, others in (halves, halves[::-1]):
            stretch = 0.5 * (1.0 + rng.uniform(size=half)) ** 2
            partner = at[others][rng.integers(half, size=half)]
            there = partner + stretch[:, None] * (at[mine] - partner)
            log_there = log_density(there)
            gain = (parameters - 1) * np.log(stretch) + log_there - log_p[mine]
            moved = np.log(rng.uniform(size=half)) < gain
            at[mine] = np.where(moved[:, None], there, at[mine])
            log_p[mine] = np.where(moved, log_there, log_p[mine])
        if step >= _FORGOTTEN:
            kept.append(at.copy())
    return np.concatenate(kept)
