"""An adaptive search for phi_c: replicas where the transition is, in systems that grow until the error is small enough.

Each replica answers one question: is it absorbed within T steps? At the packing fraction phi_h(N, T) half of them are.
A few replicas find phi_h to high precision in small systems already, but finite N and T shift it away from phi_c. Near
the transition both shifts follow one scaling law. The share of absorbed replicas is

    P(phi; N, T) = F((phi - phi_c) N^(1/(d nu_perp)), T N^(-z/d)),

the finite-size scaling of an absorbing state (Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004), section 3; Hinrichsen,
Adv. Phys. 49, 815 (2000), section 4.2). A finite time smears the transition by (T kick)^(-1/nu_par), a finite size by
N^(-1/(d nu_perp)). When T grows as N^(z/d) the two shrink together, since nu_par = z nu_perp, and

    phi_h(N) = phi_c + a N^(-omega),  width(N) ~ N^(-omega),  omega = 1/(d nu_perp).

A round finds phi_h at one N; the next has twice the particles and 2^(z/d) times the steps. In the first round, a small
system with few steps, batches of eight replicas at four phi narrow a bracket, about threefold each. A later round
begins at the phi_h that the earlier ones predict, so that nothing is run far from it. The search ends when the standard
error of phi_c, from :func:`intercept`, is within the tolerance, or when the budget does not suffice for another round.
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
"""Sizes that an extrapolation needs: two fix the line, the third tests it."""

_PHIS, _REPLICAS = 4, 2  # of a batch
_MOST_BATCHES = 16  # of a round
_DOUBTS = (0.75, 1.0, 1.25)  # factors on omega: corrections to scaling, or another class, may change it so much
_SHARE = 0.5  # a round ends when the error of phi_h is this share of the tolerance
_DECIMALS = 6  # of phi, so that a replica has a name one can type
_NORMAL = 1.959964


class Ask(NamedTuple):
    """Replicas to run: (phi, number) each, N particles for up to T steps."""

    particles: int
    steps: int
    replicas: tuple[tuple[float, int], ...]


class Answer(NamedTuple):
    """What they did: each replica's step of absorption, -1 if still active, and the particle-steps of all together."""

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


@dataclass(frozen=True)
class SearchResult:
    """phi_c with the rounds behind it; `reached` tells whether the error is within the tolerance.

    `stderr` is one standard deviation and `interval` holds 95 %. With fewer than three rounds there is no
    extrapolation: `value` is the last phi_h, `stderr` is infinite, and the interval is the bracket, extended down to
    the lowest phi run.
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
        """phi_h of the fit at numbers of particles, of any shape."""
        line: Array = self.value + self.amplitude * (particles / self.rounds[0].particles) ** -self.omega
        return line


def size_exponents(dim: int) -> tuple[float, float]:
    """(omega, z/d) of the Manna class: the transition's width falls as N^-omega, and the steps needed grow as N^(z/d).

    omega = 1/(d nu_perp). Above the upper critical dimension 4, d counts as 4: both are 1/2 (Luebeck 2004, section
    3.4).
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

    Lines are fitted to all sizes and with the smallest left out, down to three sizes, and at 0.75, 1 and 1.25 times
    omega: corrections to scaling, and the difference between Manna and mean-field exponents, are of that order. Each
    line has the weight exp(-(chi^2 + 2 dropped)/2) (arXiv:2008.01069). The variance of phi_c is the weighted mean of
    the lines' own variances, plus the scatter between lines. A line's own variance is multiplied by chi^2/dof where
    chance gives such a chi^2 less than 1 time in 20.

    Args:
        particles: N of each round, increasing, three or more.
        phi_h: of each round.
        stderr: of phi_h, positive.
        omega: 1/(d nu_perp).

    Raises:
        PackingError: fewer than three sizes.
    """
    n, y, stderr = (np.asarray(part, float) for part in (particles, phi_h, stderr))
    if len(n) < FEWEST_ROUNDS:
        raise PackingError(f"{len(n)} sizes; an extrapolation to infinite N needs {FEWEST_ROUNDS} or more")
    found = []
    for dropped in range(len(n) - FEWEST_ROUNDS + 1):
        for doubt in _DOUBTS:
            line = straight_line((n[dropped:] / n[0]) ** (-doubt * omega), y[dropped:], stderr[dropped:])
            dof = len(n) - dropped - 2
            spread = line.intercept_stderr * misfit(line.chi2, dof)
            found.append((line.intercept, spread, line.chi2 + 2.0 * dropped))
    centre, total = averaged(*(np.array(part) for part in zip(*found, strict=True)))
    x = (n / n[0]) ** -omega
    weight = stderr**-2.0 * x
    amplitude = float(weight @ (y - centre) / (weight @ x))
    chi2 = float(np.sum(((y - centre - amplitude * x) / stderr) ** 2))
    return Intercept(centre, total, amplitude, chi2, len(n) - 2)


class SearchSettings(NamedTuple):
    """Where a search begins, and when it ends."""

    dim: int
    bracket: tuple[float, float]  #: the first replicas lie between these phi; none ever lies above the upper one
    particles: int  #: N of the first round
    steps: int  #: T of the first round
    tolerance: float  #: the standard error of phi_c at which the search ends
    budget: int  #: particle-steps

    def size(self, number: int) -> tuple[int, int]:
        """(N, T) of a round: N doubles, T grows as N^(z/d)."""
        return self.particles * 2**number, math.ceil(self.steps * 2 ** (number * size_exponents(self.dim)[1]))


def check_settings(settings: SearchSettings) -> None:
    """Refuse a tolerance or a budget with which no search can end.

    Raises:
        PackingError: tolerance not positive, or a budget below that of the first round's bracket.
    """
    if not (math.isfinite(settings.tolerance) and settings.tolerance > 0):
        raise PackingError(f"the tolerance is {settings.tolerance:g}; it must be a positive number, such as 0.003")
    least = cost_of(settings, 0, 4)
    if settings.budget < least:
        raise PackingError(
            f"the budget is {settings.budget:g} particle-steps; finding a first bracket with {settings.particles} "
            f"particles takes {least:.2g} or more"
        )


def cost_of(settings: SearchSettings, number: int, batches: int) -> int:
    """Particle-steps of some batches of a round, none absorbed."""
    particles, steps = settings.size(number)
    return particles * steps * _PHIS * _REPLICAS * batches


def refine(
    settings: SearchSettings, simulate: Simulator, on_round: Callable[[tuple[Round, ...]], None]
) -> SearchResult:
    """phi_c to a tolerance, within a budget; see the module.

    Args:
        settings: bracket, first size, tolerance, budget.
        simulate: runs the replicas it is asked for; the same replica must give the same answer.
        on_round: called after every round with all so far.

    Raises:
        PackingError: what `check_settings` refuses, phi_h above the bracket or nowhere below it, or a budget that ends
            before the first round does.
    """
    check_settings(settings)
    omega, _ = size_exponents(settings.dim)
    rounds: list[Round] = []
    outcomes: list[tuple[int, float, bool]] = []
    left = settings.budget
    fit: Intercept | None = None
    while fit is None or fit.stderr > settings.tolerance:
        if left < cost_of(settings, len(rounds), 2 if rounds else 1):
            break
        found, gone, spent = _round(settings, rounds, left, omega, simulate)
        left -= spent
        if found is None:
            break
        rounds.append(found)
        outcomes += [(found.particles, phi, absorbed) for phi, absorbed in gone]
        on_round(tuple(rounds))
        if len(rounds) >= FEWEST_ROUNDS:
            rounds = with_least_stderrs(rounds, outcomes, omega)
            fit = intercept(*_columns(rounds), omega)
    if not rounds:
        raise PackingError(
            f"the budget of {settings.budget:g} particle-steps ended before the first round: allow more, or a larger "
            "kick"
        )
    last = rounds[-1]
    if fit is None:
        fit = Intercept(last.phi_h, math.inf, 0.0, 0.0, 0)
        interval = min(settings.bracket[0], *(phi for _, phi, _ in outcomes)), settings.bracket[1]
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
        reached=fit.stderr <= settings.tolerance,
        rounds=tuple(rounds),
        outcomes=tuple(outcomes),
        particle_steps=settings.budget - left,
        tolerance=settings.tolerance,
        budget=settings.budget,
    )


def with_least_stderrs(
    rounds: Sequence[Round], outcomes: Sequence[tuple[int, float, bool]], omega: float
) -> list[Round]:
    """The rounds, with each error of phi_h raised to the least that its replicas allow.

    A round ends when its error looks small, and sometimes that is because few replicas happened to agree. The least
    error is 1/sqrt(I) with Fisher's information I = sum P (1 - P)/w^2 over the replicas, P the probability of
    absorption from a logistic curve of width w. The width of a round is u N^-omega, with one number u for all rounds.
    """
    scale = {one.particles: (one.particles / rounds[0].particles) ** -omega for one in rounds}
    weight = np.array([one.replicas for one in rounds], float)
    u = float(weight @ [one.width / scale[one.particles] for one in rounds] / weight.sum())
    raised = []
    for one in rounds:
        w = u * scale[one.particles]
        p = expit([(one.phi_h - phi) / w for n, phi, _ in outcomes if n == one.particles])
        raised.append(replace(one, stderr=max(one.stderr, w / math.sqrt(max(float(np.sum(p * (1 - p))), 0.25)))))
    return raised


def _columns(rounds: Sequence[Round]) -> tuple[list[int], list[float], list[float]]:
    return [one.particles for one in rounds], [one.phi_h for one in rounds], [one.stderr for one in rounds]


def _aim(settings: SearchSettings, rounds: Sequence[Round], omega: float) -> tuple[float, float]:
    """Centre and half-width of the window in which a round begins."""
    low, high = settings.bracket
    if not rounds:
        return (low + high) / 2, (high - low) / 2
    last = rounds[-1]
    # phi_h moves by less than the width of the last round, and the last phi_h has an error
    reach = 2 * last.stderr + 1.5 * last.width
    if len(rounds) == 1:
        return last.phi_h, reach
    n, y, stderr = _columns(rounds)
    x = (np.array([*n, 2 * n[-1]]) / n[0]) ** -omega
    line = straight_line(x[:-1], np.array(y), np.array(stderr))
    ahead = line.intercept + line.slope * float(x[-1])
    # not further than the reach from the last phi_h: a line through two noisy points may be steep
    return float(np.clip(ahead, last.phi_h - reach, last.phi_h + reach)), reach


def _round(
    settings: SearchSettings, rounds: Sequence[Round], left: int, omega: float, simulate: Simulator
) -> tuple[Round | None, list[tuple[float, bool]], int]:
    """The next round, its replicas (phi, absorbed), and the particle-steps spent.

    None instead of a round if the budget ends before phi_h is known at all.
    """
    particles, steps = settings.size(len(rounds))
    centre, half = _aim(settings, rounds, omega)
    absorbed: dict[float, list[bool]] = {}
    spent, best = 0, None
    for batch in range(_MOST_BATCHES):
        asked = _placed(settings, rounds, centre, half, absorbed)
        if spent + particles * steps * len(asked) > left:
            break
        answer = simulate(Ask(particles, steps, asked))
        spent += answer.particle_steps
        for (phi, _), at in zip(asked, answer.absorbed_at, strict=True):
            absorbed.setdefault(phi, []).append(at >= 0)
        gone = [all(flags) for flags in absorbed.values()]
        alive = [not any(flags) for flags in absorbed.values()]
        if all(gone) or all(alive):
            centre, half = _shifted(settings, sorted(absorbed), half, all(gone))
            continue
        best = _estimate(absorbed) or best
        if best is None:
            continue  # by chance the share does not fall with phi: run the same phi again
        # two batches at least: one alone may have agreed by chance
        if batch and best.stderr <= _SHARE * settings.tolerance:
            break
        low, high = best.interval
        centre, half = best.value, max((high - low) / 2, best.width)
    else:
        if all(alive):
            raise PackingError(f"every replica is active, down to phi = {min(absorbed):g}: there is no transition")
    flat = [(phi, flag) for phi, flags in sorted(absorbed.items()) for flag in flags]
    if best is None:
        return None, flat, spent
    floor = 10.0**-_DECIMALS
    stderr, width = max(best.stderr, floor), max(best.width, best.stderr, floor)
    return Round(particles, steps, best.value, stderr, width, len(flat), spent), flat, spent


def _placed(
    settings: SearchSettings, rounds: Sequence[Round], centre: float, half: float, absorbed: dict[float, list[bool]]
) -> tuple[tuple[float, int], ...]:
    """A batch, (phi, number) each: two replicas at four phi across the window, new ones where a phi was run before."""
    low, high = settings.bracket
    known = [*absorbed, *(one.phi_h for one in rounds)]
    lowest = min([low, *(0.5 * phi for phi in known)])  # all may be active at the lower end of the bracket
    spots = np.clip(np.linspace(centre - half, centre + half, _PHIS), lowest, high)
    phis = np.unique(np.round(spots, _DECIMALS)).tolist()
    per = -(-_PHIS * _REPLICAS // len(phis))
    return tuple((phi, len(absorbed.get(phi, ())) + number) for phi in phis for number in range(per))


def _shifted(settings: SearchSettings, phis: list[float], half: float, gone: bool) -> tuple[float, float]:
    """A window twice as wide: above all that was run if every replica is absorbed, below it if none is."""
    edge = phis[-1] if gone else phis[0]
    if gone and edge >= settings.bracket[1]:
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
