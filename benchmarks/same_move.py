"""Before anything is timed: do all codes compute the same move?

The gradient move of the linear energy, dx_i = (alpha/2) sum_j rhat_ij over overlaps, is compared with a brute-force sum
in float64. BRO's random moves are compared by two moments of projections on fixed directions w: sum_i w_i . dx_i is a
sum over overlaps of u_ij eps c_ij, c_ij = (w_i - w_j) . rhat_ij, so its mean is (eps/2) sum c_ij and its variance
(eps^2/12) sum c_ij^2. Long waves among the directions tell shared draws from independent ones: only the shared ones
cancel there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import Absent, Failed, Start, Worker
from scipy.spatial import cKDTree
from scipy.stats import chi2, norm

#: Largest error of a gradient move at learning rate 1, in diameters. Positions in float32 resolve 6e-8 of the box side,
#: 6e-7 of a diameter at N = 1000; a direction is a difference of two, and a move a sum of several.
GRADIENT_TOLERANCE = 1e-5
#: Probability that correct codes fail the comparison of BRO's moments, all tests of a code together.
FALSE_ALARM = 1e-6
_GRAZING = 2e-5  # pairs this close to contact may count as apart in float32


@dataclass
class MoveCheck:
    """One code's move compared with theory."""

    code: str
    move: str
    mismatch: float | None  #: gradient: largest error in diameters; BRO: allowed over observed p; None when skipped
    limit: float  #: largest mismatch that passes
    passed: bool | None  #: None when the code is absent
    note: str


def overlaps(start: Start) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (M, 2), unit vectors rhat_ij (M, dim), and distances (M,) of pairs within contact or just beyond it."""
    side = 1.0 / start.diameter
    x = (start.positions.astype(np.float64) * side) % side
    pairs = cKDTree(x, boxsize=side).query_pairs(1.0 + _GRAZING, output_type="ndarray")
    delta = x[pairs[:, 0]] - x[pairs[:, 1]]
    delta -= side * np.rint(delta / side)
    distance = np.linalg.norm(delta, axis=1)
    return pairs, delta / distance[:, None], distance


def gradient_checks(start: Start, codes: dict[str, tuple[Any, ...]]) -> list[MoveCheck]:
    """Compare each code's gradient move with the brute-force sum, particles of grazing pairs excepted.

    ``codes``: name -> (module, further arguments of its ``gradient_move``).
    """
    pairs, direction, distance = overlaps(start)
    inside = distance < 1.0
    expected = np.zeros(start.positions.shape)
    np.add.at(expected, pairs[inside, 0], 0.5 * direction[inside])
    np.add.at(expected, pairs[inside, 1], -0.5 * direction[inside])
    clear = np.ones(len(start.positions), bool)
    clear[pairs[np.abs(distance - 1.0) < _GRAZING]] = False

    def compare(move: np.ndarray) -> tuple[float, str]:
        mismatch = float(np.max(np.abs(move - expected)[clear]))
        return mismatch, f"{clear.sum()} of {len(clear)} particles compared, {inside.sum()} overlaps"

    # a learning rate of 1: float32 positions resolve a small one's moves less well
    moves = {code: Worker(module, "gradient_move", start, 1.0, *more) for code, (module, *more) in codes.items()}
    return [_check(code, "gradient", GRADIENT_TOLERANCE, compare, worker) for code, worker in moves.items()]


def directions(positions: np.ndarray) -> np.ndarray:
    """Fields (K, N, dim) to project moves on: random signs, and the longest waves of the box."""
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], (4, *positions.shape))
    waves = [
        np.stack([np.cos(2 * np.pi * positions[:, axis] + phase)] * positions.shape[1], axis=1)
        for axis in range(positions.shape[1])
        for phase in (0.0, 0.5 * np.pi)
    ]
    return np.concatenate([signs, waves])


def bro_checks(start: Start, kick: float, codes: dict[str, tuple[Any, ...]], count: int) -> list[MoveCheck]:
    """Compare two moments of each code's BRO move with theory; ``codes`` as in :func:`gradient_checks`."""
    pairs, direction, distance = overlaps(start)
    inside = distance < 1.0
    pairs, direction = pairs[inside], direction[inside]
    fields = directions(start.positions)
    c = np.sum((fields[:, pairs[:, 0]] - fields[:, pairs[:, 1]]) * direction[None], axis=2)
    mean, variance = 0.5 * kick * c.sum(axis=1), kick**2 / 12.0 * (c * c).sum(axis=1)

    def compare(moves: np.ndarray) -> tuple[float, str]:
        seen = np.einsum("mnd,knd->mk", moves, fields)
        z = (seen.mean(axis=0) - mean) / np.sqrt(variance / count)
        spread = ((seen - seen.mean(axis=0)) ** 2).sum(axis=0) / variance
        tail = np.minimum(chi2.cdf(spread, count - 1), chi2.sf(spread, count - 1))
        least = float(min(2.0 * norm.sf(np.abs(z)).min(), 2.0 * tail.min()))
        drift = float(np.max(np.abs(moves.sum(axis=1)))) / kick
        if drift > 1e-3 * np.sqrt(len(start.positions)):
            raise Failed(f"the centre of mass moves by {drift:.2g} kicks / N")
        tests = 2 * len(fields)
        note = f"{count} moves, {tests} tests, smallest p {least:.2g}, false-alarm rate {FALSE_ALARM:g}"
        return FALSE_ALARM / tests / max(least, 1e-300), note

    moves = {code: Worker(module, "bro_moves", start, kick, count, *more) for code, (module, *more) in codes.items()}
    return [_check(code, "BRO", 1.0, compare, worker) for code, worker in moves.items()]


def _check(
    code: str, move: str, limit: float, compare: Callable[[np.ndarray], tuple[float, str]], worker: Worker
) -> MoveCheck:
    try:
        mismatch, note = compare(worker.end()[0])
    except Absent as absent:
        return MoveCheck(code, move, None, limit, None, f"skipped: {absent}")
    except Failed as failed:
        return MoveCheck(code, move, None, limit, False, str(failed))
    return MoveCheck(code, move, mismatch, limit, bool(mismatch <= limit), note)
