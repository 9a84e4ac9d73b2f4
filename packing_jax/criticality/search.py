"""An adaptive search for phi_c: replicas where the transition is, in systems that grow until the error is small enough.

The question put to every replica is whether it is absorbed within T steps. The packing fraction phi_h(N, T) at which
half of them are is sharp already in small systems, and it is off by what N and T smear. In a critical system these two
are one: the share of absorbed replicas is

    P(phi; N, T) = F((phi - phi_c) N^(1/(d nu_perp)), T N^(-z/d)),

the finite-size scaling of an absorbing state (Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004), section 3; Hinrichsen,
Adv. Phys. 49, 815 (2000), section 4.2). The smearing by a finite time, (T kick)^(-1/nu_par), and that by a finite
size, N^(-1/(d nu_perp)), shrink together where T grows as N^(z/d), since nu_par = z nu_perp, and then

    phi_h(N) = phi_c + a N^(-omega),  width(N) ~ N^(-omega),  omega = 1/(d nu_perp).

A round finds phi_h at one N; the next has twice the particles and 2^(z/d) times the steps. Its replicas are placed by
what is known: in the first round a bracket is narrowed about threefold by eight replicas at four phi, in a small system
and few steps; later rounds begin where the earlier ones point, and nothing is run far from phi_h. Rounds stop when the
error of the intercept phi_c, :func:`intercept`, is within the tolerance, or when the budget would not carry the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from packing_jax.criticality.fits import averaged, misfit, straight_line
from packing_jax.criticality.half_absorbed import HalfAbsorbed, logistic
from packing_jax.criticality.universality import classes_in
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

FEWEST_ROUNDS = 3
"""Sizes that an extrapolation needs: two for the line and one that tests it."""

_PHIS, _REPLICAS = 4, 2  # of a batch
_MOST_BATCHES = 16  # of a round
_DOUBTS = (0.75, 1.0, 1.25)  # times omega: what corrections to scaling, or another class, may make of it
_SHARE = 0.5  # of the tolerance, the error of phi_h at which a round ends
_ROUND = 6  # decimals of phi, so that a replica has a name one can type
_NORMAL = 1.959964


class Ask(NamedTuple):
    """Replicas to run: (phi, number) each, N particles for up to T steps."""

    particles: int
    steps: int
    replicas: tuple[tuple[float, int], ...]


class Answer(NamedTuple):
    """What they did: the step of absorption of each, -1 if still active, and what all cost in particle-steps."""

    absorbed_at: tuple[int, ...]
    particle_steps: int


#: Anything that answers: the simulator, a record of an earlier session, a model in a test.
Simulator = Callable[[Ask], Answer]


@dataclass(frozen=True)
class Round:
    """One size: where half of the replicas are absorbed, and what it took to know."""

    particles: int
    steps: int
    phi_h: float
    stderr: float
    width: float  #: of the logistic curve
    replicas: int
    particle_steps: int


@dataclass(frozen=True)
class SearchResult:
    """phi_c with the rounds behind it; `reached` tells whether the error is within the tolerance.

    `stderr` is one standard deviation and `interval` 95 %. Without three rounds there is no extrapolation: `value` is
    the last phi_h, `stderr` infinite, and the interval the bracket it lies in, as low as replicas were run.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    amplitude: float  #: a of phi_h = phi_c + a (N/N_0)^(-omega), N_0 of the first round
    omega: float
    chi2: float
    dof: int
    reached: bool
    rounds: tuple[Round, ...]
    outcomes: tuple[tuple[int, float, bool], ...]  #: (N, phi, absorbed) of every replica
    particle_steps: int
    tolerance: float
    budget: int

    def phi_h(self, particles: Array) -> Array:
        """phi_h of the fit at these N."""
        line: Array = self.value + self.amplitude * (particles / self.rounds[0].particles) ** -self.omega
        return line


def scaling(dim: int) -> tuple[float, float]:
    """(omega, z/d): exponents of N in the smearing, 1/(d nu_perp), and in the steps; those of the Manna class.

    Above four dimensions, the upper critical one, d is 4: N^(-1/2) in both (Luebeck 2004, section 3.4).
    """
    exponents = classes_in(dim)[0].exponents
    d = min(dim, 4)
    return 1.0 / (d * exponents["nu_perp"][0]), exponents["z"][0] / d


class Intercept(NamedTuple):
    """phi_c and amplitude of phi_h = phi_c + a x^omega."""

    value: float
    stderr: float
    amplitude: float
    chi2: float
    dof: int


def intercept(particles: ArrayLike, phi_h: ArrayLike, stderr: ArrayLike, omega: float) -> Intercept:
    """phi_c = phi_h(N -> infinity): weighted lines in (N/N_0)^(-omega), averaged over windows and over omega.

    Windows drop the smallest sizes, down to three; each counts exp(-(chi^2 + 2 dropped)/2) (arXiv:2008.01069). omega
    counts at 0.75, 1 and 1.25 times its value, alike but for chi^2: corrections to scaling, and the difference between
    Manna and mean-field exponents, are of that order. The variance is the mean of the lines' own, each times
    chi^2/dof where chance gives such a chi^2 less than 1 time in 20, and the scatter between them.

    Args:
        particles: N of each round, increasing, three or more.
        phi_h: of each round.
        stderr: of phi_h, positive.
        omega: 1/(d nu_perp).

    Raises:
        PackingError: fewer than three sizes.
    """
    n, y, error = (np.asarray(part, float) for part in (particles, phi_h, stderr))
    if len(n) < FEWEST_ROUNDS:
        raise PackingError(f"{len(n)} sizes; an extrapolation to infinite N needs {FEWEST_ROUNDS} or more")
    found = []
    for dropped in range(len(n) - FEWEST_ROUNDS + 1):
        for doubt in _DOUBTS:
            line = straight_line((n[dropped:] / n[0]) ** (-doubt * omega), y[dropped:], error[dropped:])
            dof = len(n) - dropped - 2
            spread = line.intercept_stderr * misfit(line.chi2, dof)
            found.append((line.intercept, spread, line.chi2 + 2.0 * dropped))
    centre, total = averaged(*(np.array(part) for part in zip(*found, strict=True)))
    x = (n / n[0]) ** -omega
    weight = error**-2.0 * x
    amplitude = float(weight @ (y - centre) / (weight @ x))
    chi2 = float(np.sum(((y - centre - amplitude * x) / error) ** 2))
    return Intercept(centre, total, amplitude, chi2, len(n) - 2)


class Plan(NamedTuple):
    """What a search is made of, apart from the system."""

    dim: int
    bracket: tuple[float, float]  #: phi between which phi_h is looked for first; it is never above the upper one
    particles: int  #: N of the first round
    steps: int  #: its T
    tolerance: float
    budget: int  #: particle-steps

    def size(self, number: int) -> tuple[int, int]:
        """(N, T) of a round: N doubles, T grows as N^(z/d)."""
        return self.particles * 2**number, math.ceil(self.steps * 2 ** (number * scaling(self.dim)[1]))


def check_plan(plan: Plan) -> None:
    """Refuse a tolerance or a budget with which no search can end.

    Raises:
        PackingError: tolerance not positive, or a budget below that of the first round's bracket.
    """
    if not (math.isfinite(plan.tolerance) and plan.tolerance > 0):
        raise PackingError(f"the tolerance is {plan.tolerance:g}; it must be a positive number, such as 0.003")
    least = cost_of(plan, 0, 4)
    if plan.budget < least:
        raise PackingError(
            f"the budget is {plan.budget:g} particle-steps; finding a first bracket with {plan.particles} particles "
            f"takes {least:.2g} or more"
        )


def cost_of(plan: Plan, number: int, batches: int) -> int:
    """Particle-steps of some batches of a round, none absorbed."""
    particles, steps = plan.size(number)
    return particles * steps * _PHIS * _REPLICAS * batches


def refine(plan: Plan, simulate: Simulator, on_round: Callable[[tuple[Round, ...]], None]) -> SearchResult:
    """phi_c to a tolerance, within a budget; see the module.

    Args:
        plan: bracket, first size, tolerance, budget.
        simulate: runs the replicas it is asked for; the same replica must give the same answer.
        on_round: called after every round with all so far.

    Raises:
        PackingError: what `check_plan` refuses, phi_h above the bracket or nowhere below it, or a budget that ends
            before the first round does.
    """
    check_plan(plan)
    omega, _ = scaling(plan.dim)
    rounds: list[Round] = []
    outcomes: list[tuple[int, float, bool]] = []
    left = plan.budget
    fit: Intercept | None = None
    while fit is None or fit.stderr > plan.tolerance:
        if left < cost_of(plan, len(rounds), 2 if rounds else 1):
            break
        found, gone, spent = _round(plan, rounds, left, omega, simulate)
        left -= spent
        if found is None:
            break
        rounds.append(found)
        outcomes += [(found.particles, phi, absorbed) for phi, absorbed in gone]
        on_round(tuple(rounds))
        if len(rounds) >= FEWEST_ROUNDS:
            rounds = sobered(rounds, outcomes, omega)
            fit = intercept(*_columns(rounds), omega)
    if not rounds:
        raise PackingError(
            f"the budget of {plan.budget:g} particle-steps ended before the first round: allow more, or a larger kick"
        )
    last = rounds[-1]
    if fit is None:
        fit = Intercept(last.phi_h, math.inf, 0.0, 0.0, 0)
        interval = min(plan.bracket[0], *(phi for _, phi, _ in outcomes)), plan.bracket[1]
    else:
        interval = fit.value - _NORMAL * fit.stderr, fit.value + _NORMAL * fit.stderr
    return SearchResult(
        value=fit.value,
        stderr=fit.stderr,
        interval=interval,
        amplitude=fit.amplitude,
        omega=omega,
        chi2=fit.chi2,
        dof=fit.dof,
        reached=fit.stderr <= plan.tolerance,
        rounds=tuple(rounds),
        outcomes=tuple(outcomes),
        particle_steps=plan.budget - left,
        tolerance=plan.tolerance,
        budget=plan.budget,
    )


def sobered(rounds: Sequence[Round], outcomes: Sequence[tuple[int, float, bool]], omega: float) -> list[Round]:
    """The rounds, no error of phi_h below what their replicas can tell.

    A round ends when its error looks small, and some do where few replicas happened to agree. Widths of all rounds are
    one number u times N^-omega, and n replicas at shares P of a logistic curve of width w know its middle to
    1/sqrt(I), I = sum P(1 - P)/w^2 (Fisher's information).
    """
    smear = {one.particles: (one.particles / rounds[0].particles) ** -omega for one in rounds}
    weight = np.array([one.replicas for one in rounds], float)
    u = float(weight @ [one.width / smear[one.particles] for one in rounds] / weight.sum())
    sober = []
    for one in rounds:
        w = u * smear[one.particles]
        p = expit([(one.phi_h - phi) / w for n, phi, _ in outcomes if n == one.particles])
        sober.append(replace(one, stderr=max(one.stderr, w / math.sqrt(max(float(np.sum(p * (1 - p))), 0.25)))))
    return sober


def _columns(rounds: Sequence[Round]) -> tuple[list[int], list[float], list[float]]:
    return [one.particles for one in rounds], [one.phi_h for one in rounds], [one.stderr for one in rounds]


def _aim(plan: Plan, rounds: Sequence[Round], omega: float) -> tuple[float, float]:
    """Centre and half-width of the window in which a round begins."""
    low, high = plan.bracket
    if not rounds:
        return (low + high) / 2, (high - low) / 2
    last = rounds[-1]
    # the smearing of the last round bounds the move of phi_h to this one, and its error is known
    reach = 2 * last.stderr + 1.5 * last.width
    if len(rounds) == 1:
        return last.phi_h, reach
    n, y, error = _columns(rounds)
    x = (np.array([*n, 2 * n[-1]]) / n[0]) ** -omega
    line = straight_line(x[:-1], np.array(y), np.array(error))
    ahead = line.intercept + line.slope * float(x[-1])
    # no further than the reach from where phi_h was: two noisy points make a steep line
    return float(np.clip(ahead, last.phi_h - reach, last.phi_h + reach)), reach


def _round(
    plan: Plan, rounds: Sequence[Round], left: int, omega: float, simulate: Simulator
) -> tuple[Round | None, list[tuple[float, bool]], int]:
    """phi_h at the next size, to a share of the tolerance, the replicas and the particle-steps spent.

    None instead of a round if the budget ends before phi_h is known at all.
    """
    particles, steps = plan.size(len(rounds))
    centre, half = _aim(plan, rounds, omega)
    absorbed: dict[float, list[bool]] = {}
    spent, best = 0, None
    for batch in range(_MOST_BATCHES):
        asked = _placed(plan, rounds, centre, half, absorbed)
        if spent + particles * steps * len(asked) > left:
            break
        answer = simulate(Ask(particles, steps, asked))
        spent += answer.particle_steps
        for (phi, _), at in zip(asked, answer.absorbed_at, strict=True):
            absorbed.setdefault(phi, []).append(at >= 0)
        gone = [all(flags) for flags in absorbed.values()]
        alive = [not any(flags) for flags in absorbed.values()]
        if all(gone) or all(alive):
            centre, half = _shifted(plan, sorted(absorbed), half, all(gone))
            continue
        best = _estimate(absorbed) or best
        if best is None:
            continue  # by chance the share does not fall with phi: the same once more
        # two batches at least: what the first one met, another must confirm
        if batch and best.stderr <= _SHARE * plan.tolerance:
            break
        low, high = best.interval
        centre, half = best.value, max((high - low) / 2, best.width)
    else:
        if all(alive):
            raise PackingError(f"every replica is active, down to phi = {min(absorbed):g}: there is no transition")
    flat = [(phi, flag) for phi, flags in sorted(absorbed.items()) for flag in flags]
    if best is None:
        return None, flat, spent
    floor = 10.0**-_ROUND
    stderr, width = max(best.stderr, floor), max(best.width, best.stderr, floor)
    return Round(particles, steps, best.value, stderr, width, len(flat), spent), flat, spent


def _placed(
    plan: Plan, rounds: Sequence[Round], centre: float, half: float, absorbed: dict[float, list[bool]]
) -> tuple[tuple[float, int], ...]:
    """A batch: two replicas at each of four phi across the window; a phi met again gets new replicas."""
    low, high = plan.bracket
    known = [*absorbed, *(one.phi_h for one in rounds)]
    lowest = min([low, *(0.5 * phi for phi in known)])  # all may be active at the lower end of the bracket
    spots = np.clip(np.linspace(centre - half, centre + half, _PHIS), lowest, high)
    phis = np.unique(np.round(spots, _ROUND)).tolist()
    per = -(-_PHIS * _REPLICAS // len(phis))
    return tuple((phi, len(absorbed.get(phi, ())) + number) for phi in phis for number in range(per))


def _shifted(plan: Plan, phis: list[float], half: float, gone: bool) -> tuple[float, float]:
    """The window beyond what has been run, twice as wide, towards where the replicas behave otherwise."""
    edge = phis[-1] if gone else phis[0]
    if gone and edge >= plan.bracket[1]:
        raise PackingError(f"every replica is absorbed, up to phi = {edge:g}: there is no transition in the bracket")
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
