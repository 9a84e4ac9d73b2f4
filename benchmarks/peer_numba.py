"""The yardstick: pairwise BRO and gradient descent as a skilled person writes them by hand, one thread, in Numba.

A Verlet half list over a grid of cells, each pair visited once; particles sorted by cell at each rebuild; pairs across
the periodic boundary listed apart, so that no other pair needs a minimum image; overlapping pairs collected without a
branch before any square root; one 64-bit mixer draw per overlap; a rebuild when a particle has moved half a skin.
Lengths are in diameters.

Style "plain" is the same list and the same sort with the loop that one writes first: a minimum image and a branch for
each pair, and Numba's own random numbers.
"""

import numba
import numpy as np
from common import Channel, Start, pilot

SKINS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
_FORCE = 0.5  # |dV/dr| of the linear energy R - r/2

_OFFSETS = np.array(
    [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)], np.int64
)

compiled = numba.njit(fastmath=True, cache=True)


@compiled
def _sort(x, tags, cells, side, heads, sorted_x, sorted_tags):
    """Wrap into the box and sort by cell, last axis fastest; ``heads`` (cells^3 + 1,) are where cells begin."""
    n = x.shape[0]
    index = np.empty(n, np.int64)
    heads[:] = 0
    for i in range(n):
        cell = 0
        for axis in range(3):
            x[i, axis] -= side * np.floor(x[i, axis] / side)
            along = min(int(x[i, axis] * (cells / side)), cells - 1)
            cell = cell * cells + along
        index[i] = cell
        heads[cell + 1] += 1
    for cell in range(cells**3):
        heads[cell + 1] += heads[cell]
    place = heads[:-1].copy()
    for i in range(n):
        to = place[index[i]]
        place[index[i]] += 1
        sorted_tags[to] = tags[i]
        for axis in range(3):
            sorted_x[to, axis] = x[i, axis]


@compiled
def _list(x, cells, side, heads, offsets, reach2, ends, inner, outer, apart):  # noqa: C901
    """Half list of sorted particles: ``inner`` rows end at ``ends``; ``outer`` (M, 2) pairs cross the boundary.

    Pairs that cross it join the others when they are not wanted ``apart``.

    Returns how many of each there are; those that do not fit are counted and not written.
    """
    found = across = 0
    real = x.dtype.type
    for a in range(cells):
        for b in range(cells):
            for c in range(cells):
                cell = (a * cells + b) * cells + c
                for i in range(heads[cell], heads[cell + 1]):
                    for j in range(i + 1, heads[cell + 1]):
                        dx, dy, dz = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
                        if dx * dx + dy * dy + dz * dz < reach2:
                            if found < inner.shape[0]:
                                inner[found] = j
                            found += 1
                    for k in range(offsets.shape[0]):
                        p, q, s = a + offsets[k, 0], b + offsets[k, 1], c + offsets[k, 2]
                        wraps = apart and (min(p, q, s) < 0 or max(p, q, s) >= cells)
                        sx = real(0) if 0 <= p < cells else (side if p < 0 else -side)
                        sy = real(0) if 0 <= q < cells else (side if q < 0 else -side)
                        sz = real(0) if 0 <= s < cells else (side if s < 0 else -side)
                        p, q, s = (p + cells) % cells, (q + cells) % cells, (s + cells) % cells
                        other = (p * cells + q) * cells + s
                        xi, yi, zi = x[i, 0] + sx, x[i, 1] + sy, x[i, 2] + sz
                        for j in range(heads[other], heads[other + 1]):
                            dx, dy, dz = xi - x[j, 0], yi - x[j, 1], zi - x[j, 2]
                            if dx * dx + dy * dy + dz * dz < reach2:
                                if wraps:
                                    if across < outer.shape[0]:
                                        outer[across, 0] = i
                                        outer[across, 1] = j
                                    across += 1
                                else:
                                    if found < inner.shape[0]:
                                        inner[found] = j
                                    found += 1
                    ends[i] = found
    return found, across


@numba.njit(inline="always")
def _uniform(state, real):
    """U(0, 1) from the top 24 bits of a mixed counter."""
    word = (state ^ (state >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    word = (word ^ (word >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return (real(np.int32(word >> np.uint64(40))) + real(0.5)) * real(2.0**-24)


def _stepper(random):  # noqa: C901
    """The step loop, with the draw compiled in or out."""

    @compiled
    def advance(x, reference, move, ends, inner, outer, across, side, kick, limit2, state, steps):  # noqa: C901
        """At most ``steps`` moves; returns how many, whether the list ran out, and the random state."""
        n = x.shape[0]
        real = x.dtype.type
        one = real(1)
        hits = np.empty(1024, np.int32)
        for made in range(steps):
            begin = 0
            for i in range(n):
                xi, yi, zi = x[i, 0], x[i, 1], x[i, 2]
                count = 0
                for k in range(begin, ends[i]):
                    j = inner[k]
                    dx, dy, dz = xi - x[j, 0], yi - x[j, 1], zi - x[j, 2]
                    hits[count] = j
                    count += dx * dx + dy * dy + dz * dz < one
                begin = ends[i]
                mx, my, mz = move[i, 0], move[i, 1], move[i, 2]
                for k in range(count):
                    j = hits[k]
                    dx, dy, dz = xi - x[j, 0], yi - x[j, 1], zi - x[j, 2]
                    weight = kick / np.sqrt(dx * dx + dy * dy + dz * dz)
                    if random:
                        state += np.uint64(0x9E3779B97F4A7C15)
                        weight *= _uniform(state, real)
                    dx, dy, dz = weight * dx, weight * dy, weight * dz
                    mx, my, mz = mx + dx, my + dy, mz + dz
                    move[j, 0] -= dx
                    move[j, 1] -= dy
                    move[j, 2] -= dz
                move[i, 0], move[i, 1], move[i, 2] = mx, my, mz
            for k in range(across):
                i, j = outer[k, 0], outer[k, 1]
                dx, dy, dz = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
                dx -= side * np.rint(dx / side)
                dy -= side * np.rint(dy / side)
                dz -= side * np.rint(dz / side)
                r2 = dx * dx + dy * dy + dz * dz
                if r2 < one:
                    weight = kick / np.sqrt(r2)
                    if random:
                        state += np.uint64(0x9E3779B97F4A7C15)
                        weight *= _uniform(state, real)
                    for axis, d in enumerate((dx, dy, dz)):
                        move[i, axis] += weight * d
                        move[j, axis] -= weight * d
            farthest = real(0)
            for i in range(n):
                r2 = real(0)
                for axis in range(3):
                    x[i, axis] += move[i, axis]
                    move[i, axis] = real(0)
                    d = x[i, axis] - reference[i, axis]
                    r2 += d * d
                farthest = max(farthest, r2)
            if farthest > limit2:
                return made + 1, True, state
        return steps, False, state

    return advance


@compiled
def _advance_plain(x, reference, move, ends, pairs, _outer, _across, side, kick, limit2, state, steps):
    """The same as a first version has it; takes the same arguments, with all pairs in ``pairs``."""
    n = x.shape[0]
    for made in range(steps):
        begin = 0
        for i in range(n):
            for k in range(begin, ends[i]):
                j = pairs[k]
                dx, dy, dz = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
                dx -= side * np.rint(dx / side)
                dy -= side * np.rint(dy / side)
                dz -= side * np.rint(dz / side)
                r2 = dx * dx + dy * dy + dz * dz
                if r2 < 1:
                    weight = kick * np.random.random() / np.sqrt(r2)  # noqa: NPY002  # what Numba compiles
                    move[i, 0] += weight * dx
                    move[i, 1] += weight * dy
                    move[i, 2] += weight * dz
                    move[j, 0] -= weight * dx
                    move[j, 1] -= weight * dy
                    move[j, 2] -= weight * dz
            begin = ends[i]
        farthest = x.dtype.type(0)
        for i in range(n):
            r2 = x.dtype.type(0)
            for axis in range(3):
                x[i, axis] += move[i, axis]
                move[i, axis] = 0
                r2 += (x[i, axis] - reference[i, axis]) ** 2
            farthest = max(farthest, r2)
        if farthest > limit2:
            return made + 1, True, state
    return steps, False, state


_ADVANCE = {
    ("BRO", "tuned"): _stepper(True),
    ("gradient", "tuned"): _stepper(False),
    ("BRO", "plain"): _advance_plain,
}


class Packing:
    """A packing of unit spheres that steps by BRO at kick ``size``, or by gradient descent at that learning rate."""

    def __init__(self, start, move, size, dtype, skin=0.2, *, style="tuned"):
        self.x = np.ascontiguousarray(start.positions.astype(np.float64) / start.diameter, dtype=dtype)
        self.real = self.x.dtype.type
        self.side = self.real(1.0 / start.diameter)
        self.tags = np.arange(len(start.positions))
        self.advance_list = _ADVANCE[move, style]
        self.apart = style == "tuned"
        self.size = self.real(size if move == "BRO" else size * _FORCE)
        self.state = np.uint64(1)
        n = len(self.x)
        self.skin = skin
        self.cells = int(self.side / (1.0 + skin))
        if self.cells < 3:
            raise ValueError(f"{n} particles are too few for a grid of cells")
        self.heads = np.zeros(self.cells**3 + 1, np.int64)
        self.inner, self.outer = np.empty(8 * n, np.int32), np.empty((4 * n, 2), np.int32)
        self.stale = True

    def rebuild(self):
        """Sort and list."""
        x, tags = np.empty_like(self.x), np.empty_like(self.tags)
        _sort(self.x, self.tags, self.cells, self.side, self.heads, x, tags)
        self.x, self.tags, self.move = x, tags, np.zeros_like(x)
        self.ends = np.empty(len(x), np.int64)
        reach2 = self.real((1.0 + self.skin) ** 2)
        found, self.across = self._listed(reach2)
        if found > len(self.inner) or self.across > len(self.outer):
            self.inner = np.empty(found + found // 8, np.int32)
            self.outer = np.empty((self.across + self.across // 8, 2), np.int32)
            self._listed(reach2)
        self.reference = x.copy()
        self.stale = False

    def _listed(self, reach2):
        x, side, heads = self.x, self.side, self.heads
        return _list(x, self.cells, side, heads, _OFFSETS, reach2, self.ends, self.inner, self.outer, self.apart)

    def advance(self, steps):
        """Make so many moves."""
        limit2 = self.real((0.5 * self.skin) ** 2)
        while steps:
            if self.stale:
                self.rebuild()
            made, self.stale, state = self.advance_list(
                self.x,
                self.reference,
                self.move,
                self.ends,
                self.inner,
                self.outer,
                self.across,
                self.side,
                self.size,
                limit2,
                self.state,
                steps,
            )
            self.state = np.uint64(state)
            steps -= made


def step(channel: Channel, start: Start, kick: float, style: str) -> None:
    """The BRO step, in the precision and with the skin that are fastest here."""
    n = len(start.positions)

    def made(choice: tuple[str, float]) -> Packing:
        return Packing(start, "BRO", kick, *choice, style=style)

    tried = {(d, s): pilot(made((d, s)).advance, n, 0.3) for d in ("float32", "float64") for s in SKINS}
    best = max(tried, key=tried.__getitem__)
    packing = made(best)
    meta = {
        "code": "Numba" if style == "tuned" else f"Numba, {style}",
        "version": numba.__version__,
        "dtype": best[0],
        "threads": 1,
        "note": f"skin {best[1]}",
    }
    channel.serve(packing.advance, n, meta)


def gradient_move(_: Channel, start: Start, rate: float) -> np.ndarray:
    """One gradient move in diameters, (N, dim)."""
    return _moves(Packing(start, "gradient", rate, "float64"), 1)[0]


def bro_moves(_: Channel, start: Start, kick: float, count: int, style: str) -> np.ndarray:
    """``count`` independent BRO moves of the same configuration in diameters, (count, N, dim)."""
    return _moves(Packing(start, "BRO", kick, "float64", style=style), count)


def _moves(packing: Packing, count: int) -> np.ndarray:
    packing.rebuild()
    moves = np.empty((count, *packing.x.shape))
    for move in moves:
        packing.x[:] = packing.reference
        packing.stale = False
        packing.advance(1)
        move[packing.tags] = packing.x - packing.reference
    return moves
