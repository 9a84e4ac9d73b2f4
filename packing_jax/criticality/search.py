"""An adaptive search for phi_c: replicas where the transition is, in systems that grow until the error is small enough.

Each replica answers one question: is it absorbed within T steps? At the packing fraction phi_h(N, T) half of them are.
Already in small systems a few replicas find phi_h precisely, but finite N and T shift it away from phi_c. Near the
transition one law describes both shifts: :mod:`packing_jax.criticality.absorption` fits it to the steps at which the
replicas of all sizes were absorbed. When T grows as N^(z/d) both shifts shrink together, since nu_par = z nu_perp
(Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004), section 3).

A round finds phi_h at one N and T. The next has twice the particles and 2^(z/d) times the steps; or, where the error of
phi_c is mostly that of the length of runs, the same particles and four times the steps. In the first round, a small
system with few steps, batches of eight replicas at four phi narrow a bracket, about threefold each. A later round
begins at the phi_h that the earlier ones predict, so that nothing is run far from it. The search ends when the whole
error of phi_c is within the tolerance, or when the budget does not suffice for another round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from packing_jax.criticality.absorption import AbsorptionTimes, Scaling, fit, outcomes_of
from packing_jax.criticality.half_absorbed import HalfAbsorbed, logistic
from packing_jax.errors import PackingError

FEWEST_ROUNDS = 3
"""Sizes that an extrapolation needs."""

_PHIS = 4  # of a batch
_MOST_BATCHES = 16  # of a round
_LONGER = 4  # times the steps of the last round, where run length is the largest part of the error
_SHARE = 0.5  # a round ends when the error of phi_h is at most this share of the tolerance
_DECIMALS = 6  # of phi, so that one can type it


class Ask(NamedTuple):
    """Replicas to run: (phi, number) each, N particles for up to T steps."""

    particles: int
    steps: int
    replicas: tuple[tuple[float, int], ...]


class Answer(NamedTuple):
    """The outcome: each replica's step of absorption, -1 if still active, and the particle-steps of all together."""

    absorbed_at: tuple[int, ...]
    particle_steps: int


#: Anything that answers: the simulator, a record of an earlier session, a model in a test.
Simulator = Callable[[Ask], Answer]


@dataclass(frozen=True)
class Round:
    """One size: the phi at which half of the replicas are absorbed, and what it cost to find."""

    particles: int
    steps: int
    phi_h: float
    stderr: float
    width: float  #: of the logistic curve
    replicas: int
    particle_steps: int


class Outcome(NamedTuple):
    """One replica: its step of absorption, -1 if still active after `steps`."""

    particles: int
    steps: int
    phi: float
    absorbed_at: int


@dataclass(frozen=True)
class SearchResult:
    """phi_c with the rounds behind it; `reached` tells whether the error is within the tolerance.

    `parameter` is what phi is called, and `unit` what N counts. `law` has the parts of the error. With fewer than three
    rounds there is none: `value` is the last phi_h, `stderr` is infinite, and the interval is the bracket, extended
    down to the lowest phi run.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    law: AbsorptionTimes | None
    reached: bool
    rounds: tuple[Round, ...]
    outcomes: tuple[Outcome, ...]
    particle_steps: int
    tolerance: float
    budget: int
    parameter: str
    unit: str


class SearchSettings(NamedTuple):
    """Where a search begins, and when it ends."""

    scaling: Scaling
    bracket: tuple[float, float]  #: the first replicas lie between these phi
    particles: int  #: N of the first round
    steps: int  #: T of the first round
    tolerance: float  #: the standard error of phi_c at which the search ends
    budget: int  #: particle-steps
    highest: float  #: no replica ever lies above this phi
    replicas: int = 2  #: at each of the four phi of a batch
    samples: bool = False  #: phi is a number of samples over N
    parameter: str = "phi"  #: what phi is called
    unit: str = "particle"  #: and what N counts

    def size(self, rounds: Sequence[Round], law: AbsorptionTimes | None) -> tuple[int, int]:
        """(N, T) of the next round: N doubles and T grows as N^growth, or T alone grows."""
        if not rounds:
            return self.particles, self.steps
        last = rounds[-1]
        if law is not None and law.run_length > max(law.size, law.statistical):
            return last.particles, _LONGER * last.steps
        return 2 * last.particles, math.ceil(last.steps * 2.0**self.scaling.growth)

    def cost(self, particles: int, steps: int, batches: int) -> int:
        """Particle-steps of some batches, none absorbed."""
        return particles * steps * _PHIS * self.replicas * batches

    def typed(self, phis: np.ndarray, particles: int) -> list[float]:
        """Packing fractions that systems of this size can have, as one would type them, in increasing order."""
        if self.samples:
            phis = np.maximum(np.round(phis * particles), 1.0) / particles
        found: list[float] = np.unique(np.round(phis, _DECIMALS)).tolist()
        return found

    def check(self) -> None:
        """Refuse a tolerance or a budget with which no search can end.

        Raises:
            PackingError: tolerance not positive, or a budget below that of the first round's bracket.
        """
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise PackingError(f"the tolerance is {self.tolerance:g}; it must be a positive number, such as 0.003")
        least = self.cost(self.particles, self.steps, 4)
        if self.budget < least:
            raise PackingError(
                f"the budget is {self.budget:g} {self.unit}-steps; finding a first bracket with {self.particles} "
                f"{self.unit}s takes {least:.2g} or more"
            )


def refine(
    settings: SearchSettings,
    simulate: Simulator,
    on_round: Callable[[tuple[Round, ...], AbsorptionTimes | None], None],
) -> SearchResult:
    """phi_c to a tolerance, within a budget; see the module.

    Args:
        settings: bracket, first size, tolerance, budget.
        simulate: runs the replicas it is asked for; the same replica must give the same answer.
        on_round: called after every round with all rounds so far and the fit of phi_c; None where there is none yet.

    Raises:
        PackingError: what `SearchSettings.check` refuses, phi_h above the highest phi or nowhere below it, or a budget
            that ends before the first round does.
    """
    settings.check()
    rounds: list[Round] = []
    outcomes: list[Outcome] = []
    left = settings.budget
    law: AbsorptionTimes | None = None
    while law is None or law.stderr > settings.tolerance:
        particles, steps = settings.size(rounds, law)
        if left < settings.cost(particles, steps, 2 if rounds else 1):
            break
        found, ran, spent = _round(settings, (particles, steps), rounds, left, simulate)
        left -= spent
        if found is None:
            break
        rounds.append(found)
        outcomes += ran
        law = _fit(outcomes, settings.scaling)
        on_round(tuple(rounds), law)
    if not rounds:
        raise PackingError(
            f"the budget of {settings.budget:g} {settings.unit}-steps ended before the first round: allow more, or a "
            "larger kick"
        )
    lowest = min(settings.bracket[0], *(one.phi for one in outcomes))
    return SearchResult(
        value=law.value if law else rounds[-1].phi_h,
        stderr=law.stderr if law else math.inf,
        interval=law.interval if law else (lowest, settings.bracket[1]),
        law=law,
        reached=law is not None and law.stderr <= settings.tolerance,
        rounds=tuple(rounds),
        outcomes=tuple(outcomes),
        particle_steps=settings.budget - left,
        tolerance=settings.tolerance,
        budget=settings.budget,
        parameter=settings.parameter,
        unit=settings.unit,
    )


def _fit(outcomes: Sequence[Outcome], scaling: Scaling) -> AbsorptionTimes | None:
    """phi_c of infinite runs and systems; None of fewer than three sizes, or where the replicas leave it open."""
    particles, steps, phi, absorbed_at = np.array(outcomes, float).T
    if len(np.unique(particles)) < FEWEST_ROUNDS:
        return None
    try:
        return fit(outcomes_of(phi, particles, steps, absorbed_at), scaling)
    except PackingError:
        return None


def _aim(settings: SearchSettings, rounds: Sequence[Round]) -> tuple[float, float]:
    """Centre and half-width of the window in which a round begins."""
    low, high = settings.bracket
    if not rounds:
        return (low + high) / 2, (high - low) / 2
    # The window covers the error of the last phi_h and a shift of 1.5 widths; two rounds tell which way phi_h moves.
    last = rounds[-1]
    reach = 2 * last.stderr + 1.5 * last.width
    moved = last.phi_h - rounds[-2].phi_h if len(rounds) > 1 else 0.0
    return last.phi_h + float(np.clip(0.5 * moved, -reach, reach)), reach


def _round(
    settings: SearchSettings, size: tuple[int, int], rounds: Sequence[Round], left: int, simulate: Simulator
) -> tuple[Round | None, list[Outcome], int]:
    """The next round, its replicas, and the particle-steps spent.

    None instead of a round if the budget ends before phi_h is known at all.
    """
    particles, steps = size
    centre, half = _aim(settings, rounds)
    absorbed: dict[float, list[bool]] = {}
    ran: list[Outcome] = []
    spent, best = 0, None
    for batch in range(_MOST_BATCHES):
        asked = _placed(settings, rounds, particles, centre, half, absorbed)
        if spent + particles * steps * len(asked) > left:
            break
        answer = simulate(Ask(particles, steps, asked))
        spent += answer.particle_steps
        for (phi, _), at in zip(asked, answer.absorbed_at, strict=True):
            absorbed.setdefault(phi, []).append(at >= 0)
            ran.append(Outcome(particles, steps, phi, at))
        gone = [all(flags) for flags in absorbed.values()]
        alive = [not any(flags) for flags in absorbed.values()]
        if all(gone) or all(alive):
            centre, half = _shifted(settings, sorted(absorbed), half, all(gone))
            continue
        best = _estimate(absorbed) or best
        if best is None:
            continue  # by chance the share does not fall with phi: repeat the same phi
        # at least two batches: the replicas of one may agree by chance
        if batch and best.stderr <= _SHARE * settings.tolerance:
            break
        low, high = best.interval
        centre, half = best.value, max((high - low) / 2, best.width)
    else:
        if all(alive):
            lowest = f"{settings.parameter} = {min(absorbed):g}"
            raise PackingError(f"every replica is active, down to {lowest}: there is no transition")
        if all(gone):
            highest = f"{settings.parameter} = {max(absorbed):g}"
            raise PackingError(f"every replica is absorbed, up to {highest}: there is no transition")
    if best is None:
        return None, ran, spent
    floor = 10.0**-_DECIMALS
    stderr, width = max(best.stderr, floor), max(best.width, best.stderr, floor)
    return Round(particles, steps, best.value, stderr, width, len(ran), spent), ran, spent


def _placed(
    settings: SearchSettings,
    rounds: Sequence[Round],
    particles: int,
    centre: float,
    half: float,
    absorbed: dict[float, list[bool]],
) -> tuple[tuple[float, int], ...]:
    """A batch, (phi, number) each: replicas at four phi across the window, new ones where a phi was run before."""
    low = settings.bracket[0]
    known = [*absorbed, *(one.phi_h for one in rounds)]
    lowest = min([low, *(0.5 * phi for phi in known)])  # all may be active at the lower end of the bracket
    spots = np.clip(np.linspace(centre - half, centre + half, _PHIS), lowest, settings.highest)
    phis = settings.typed(spots, particles)
    per = -(-_PHIS * settings.replicas // len(phis))
    return tuple((phi, len(absorbed.get(phi, ())) + number) for phi in phis for number in range(per))


def _shifted(settings: SearchSettings, phis: list[float], half: float, gone: bool) -> tuple[float, float]:
    """A window twice as wide: above all that was run if every replica is absorbed, below it if none is."""
    edge = phis[-1] if gone else phis[0]
    if gone and edge >= settings.highest:
        raise PackingError(f"every replica is absorbed, up to {settings.parameter} = {edge:g}: there is no transition")
    half = 2 * half
    return (edge + half if gone else edge - half), half


def _estimate(absorbed: dict[float, list[bool]]) -> HalfAbsorbed | None:
    phis = sorted(absorbed)
    most = max(len(flags) for flags in absorbed.values())
    rows = [absorbed[phi] + [np.nan] * (most - len(absorbed[phi])) for phi in phis]
    try:
        return logistic(phis, np.array(rows, float))
    except PackingError:
        return None
