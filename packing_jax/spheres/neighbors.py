r"""Neighbour rows: cell grid -> candidates -> compact rows, without scatter, for any dimension up to 6.

Particles are sorted by cell with the last axis fastest. The cells within reach of a particle then form 3^(d-1) *runs*,
each contiguous in the sorted order except at the periodic boundary of the last axis. A test of the ``slots`` candidates
of a run gives one bit each, packed into words of 32; the k-th neighbour of a particle is the k-th set bit, found from
population counts. Where a grid cannot help (fewer than three cells a side, or few particles) the whole system is a
single run, and the same code is the all-pairs search.

Overflow is counted: ``needed_row`` and ``needed_slots`` say what would have been enough. A list with either above its
capacity is incomplete; the driver then discards the chunk, enlarges the plan and repeats.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError, is_real, shown
from packing_jax.spheres.geometry import float_of, separation, take, windows
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree

_WORD = 32


@dataclass(frozen=True)
class Plan:
    """The static shape of a neighbour search: what the compiled program depends on."""

    cells: int  #: cells per side; 1 searches all pairs
    slots: int  #: candidates per run of cells
    capacity: int  #: neighbours per row
    skin: float  #: list cutoff is reach sigma_ij + skin, in mean diameters
    active: int = 0  #: length of the list of active particles (packing_jax.spheres.active); 0: every step is dense

    def grown(self, needed_row: int, needed_slots: int) -> "Plan":
        """A plan large enough for what was needed."""
        return replace(
            self,
            capacity=max(self.capacity, _round_up(needed_row, 4)),
            slots=max(
                self.slots, _round_up(needed_slots, 4) if needed_slots <= _WORD else _round_up(needed_slots, _WORD)
            ),
        )


@pytree()
@dataclass(frozen=True)
class Neighbors:
    """Neighbour rows of one configuration, valid while no particle is more than half a skin from ``reference``."""

    rows: Leaf  #: (N, K) int32 slots or Placed ones, a particle's own slot as padding
    tags: Leaf  #: (N,) int32 identity of the particle in each slot
    reference: Leaf  #: (dim, N) fixed-point positions when built
    needed_row: Leaf  #: () int32 longest row
    needed_slots: Leaf  #: () int32 longest run of cells
    own: Leaf = None  #: (M,) int32 slots of the particles whose rows are listed; None: all N in their order


def _round_up(n: int, multiple: int) -> int:
    return -(-int(n) // multiple) * multiple


def plan_for(system: System, skin: float) -> Plan:
    """A plan for a system (or the widest spheres of a stacked one), sized for a Poisson pattern.

    Raises:
        PackingError: the skin is not positive.
    """
    if not (is_real(skin) and 0 < skin < math.inf):
        raise PackingError(f"the neighbour skin is {shown(skin)} mean diameters; it must be positive")
    skin = skin if isinstance(skin, (int, float)) else float(skin)  # a constant of compiled programs must have a hash
    dim, n = system.dim, system.particles
    unit = float(np.max(np.asarray(system.unit / system.box)))
    largest = float(np.max(np.asarray(system.diameters) / np.asarray(_like(system.box, system.diameters))))
    reach = largest * system.energy.reach + skin * unit
    # the margin covers float rounding of the cutoff; cells themselves are cut in exact integers
    cells = int(1.0 / (reach * (1.0 + 1e-4)))
    # a dilute system would get millions of empty cells; up to 2^18 a side, rounding to quanta is within the margin
    cells = min(cells, max(3, int((4 * n) ** (1 / dim))), 2**18)
    volume = math.pi ** (dim / 2) / math.gamma(dim / 2 + 1) * reach**dim
    row = _tail(n * volume)
    run = _tail(3 * n / cells**dim) if cells >= 3 else n
    run = _round_up(run, 4) if run <= _WORD else _round_up(run, _WORD)
    if cells < 3 or 3 ** (dim - 1) * run >= n:
        cells, run = 1, _round_up(n, _WORD) if n > _WORD else n
    return Plan(cells=cells, slots=run, capacity=min(_round_up(row, 4), max(n - 1, 1)), skin=skin)


def _like(box: Array, diameters: Array) -> Array:
    return box if box.ndim == diameters.ndim else box[..., None]


def _tail(mean: float) -> int:
    # a Poisson count that is exceeded about once in 1e5 draws
    return math.ceil(mean + 4.5 * math.sqrt(mean) + 2)


def _cells(plan: Plan, coordinates: Array) -> tuple[list[Array], Array]:
    """Cell coordinates, one (N,) array per axis, and the index of the cell, last axis fastest."""
    unsigned = np.dtype(f"uint{8 * coordinates.dtype.itemsize}")
    # rounded down, so that the last cell is the widest: rounded up, it would be narrower by `cells` quanta
    width = (1 << 8 * unsigned.itemsize) // plan.cells
    along = []
    for x in coordinates:
        cell = (x.astype(unsigned) // np.asarray(width, unsigned)).astype(jnp.int32)
        along.append(jnp.minimum(cell, plan.cells - 1))
    index = along[0]
    for cell in along[1:]:
        index = index * plan.cells + cell
    return along, index


def cell_order(plan: Plan, coordinates: Array) -> Array:
    """The order (N,) that sorts particles by cell, last axis fastest."""
    n = coordinates.shape[1]
    slots = jnp.arange(n, dtype=jnp.int32)
    if plan.cells == 1:
        return slots
    _, index = _cells(plan, coordinates)
    bits = (n - 1).bit_length()
    if plan.cells ** coordinates.shape[0] << bits <= 2**32:
        # cell and slot in one word: sorting words is several times as fast as sorting pairs
        words = jax.lax.sort((index.astype(jnp.uint32) << np.uint32(bits)) | slots.astype(jnp.uint32))
        return (words & np.uint32((1 << bits) - 1)).astype(jnp.int32)
    _, order = jax.lax.sort((index, slots), num_keys=1)
    return order


class _Line(NamedTuple):
    """The candidates of all particles in one line.

    It is the sorted order with copies of each row's last cell before the row and of its first cell after it, so that a
    run is contiguous across the periodic boundary too: its candidates are read without a gather.
    """

    slots: Array  #: (P,) sorted slots
    begin: Array  #: where each cell and each copy of one begins, and where the row ends: cells + 3 for each row
    ahead: Array  #: (rows,) copies in the line before each row's own particles
    own: Array  #: (N,) where in the line a particle itself is


def _line(plan: Plan, coordinates: Array) -> _Line:
    """The line of the sorted particles."""
    dim, n = coordinates.shape
    me = jnp.arange(n, dtype=jnp.int32)
    # reads go beyond the end of a run: what is there is ignored, but it must exist
    spare = _round_up(plan.slots, _WORD)
    if plan.cells == 1:
        return _Line(jnp.pad(me, (0, spare)), jnp.asarray([0, 0, 0, n], jnp.int32), jnp.zeros(1, jnp.int32), me)
    cells = plan.cells
    _, index = _cells(plan, coordinates)
    starts = jnp.searchsorted(index, jnp.arange(cells**dim + 1, dtype=jnp.int32)).astype(jnp.int32)
    begins, ends = starts[:-1].reshape(-1, cells), starts[1:].reshape(-1, cells)
    first, stop = begins[:, 0], ends[:, -1]
    before, after = stop - begins[:, -1], ends[:, 0] - first
    ahead = jnp.cumsum(before + after) - after
    # each boundary cell lies in a run, so a line that is too short belongs to a list that overflowed
    copies = min(2 * n, 2 * cells ** (dim - 1) * plan.slots)
    place = jnp.arange(n + copies + spare, dtype=jnp.int32)
    row = jnp.searchsorted(first + ahead - before, place, side="right").astype(jnp.int32) - 1
    slot = place - take(ahead, row)
    slot = jnp.where(slot < take(first, row), slot + take(stop - first, row), slot)
    slot = jnp.where(slot >= take(stop, row), slot - take(stop - first, row), slot)
    edges = [(first - before)[:, None], begins, stop[:, None], (stop + after)[:, None]]
    begin = jnp.concatenate(edges, axis=1) + ahead[:, None]
    return _Line(jnp.clip(slot, 0, n - 1), begin.reshape(-1), ahead, me + take(ahead, index // cells))


def select_bit(word: Array, rank: Array) -> Array:
    """Position of the ``rank``-th set bit of each 32-bit word, by halving.

    The bits are counted once, in pairs, fours, eights and sixteens; a population count at each halving does it five
    times.
    """
    pairs = word - ((word >> np.uint32(1)) & np.uint32(0x55555555))
    fours = (pairs & np.uint32(0x33333333)) + ((pairs >> np.uint32(2)) & np.uint32(0x33333333))
    eights = (fours + (fours >> np.uint32(4))) & np.uint32(0x0F0F0F0F)
    sixteens = (eights + (eights >> np.uint32(8))) & np.uint32(0x00FF00FF)
    position = jnp.zeros_like(word)
    rank = rank.astype(word.dtype)
    for half, counts in ((16, sixteens), (8, eights), (4, fours), (2, pairs), (1, word)):
        low = (counts >> position) & np.uint32((1 << half) - 1)
        up = rank >= low
        rank = jnp.where(up, rank - low, rank)
        position = jnp.where(up, position + np.uint32(half), position)
    return position.astype(jnp.int32)


class _Looking(NamedTuple):
    """What each particle tests, one entry per particle."""

    centre: tuple[Array, ...]  #: coordinates, one array per axis
    reach: Array  #: list cutoff; of unequal spheres, without the radius of the other one
    first: Array  #: index in the line of its first candidate
    stop: Array  #: index in the line where its run ends
    own: Array  #: its own index in the line


class _Tested(NamedTuple):
    """32 test results for each particle, and how to find the slots that they stand for."""

    words: Array  #: one bit per candidate, set where it is a neighbour
    base: Array  #: slot of the first candidate
    jump: Array  #: a candidate's slot is base + bit, less ``jump`` from bit ``cut`` on
    cut: Array  #: that bit plus 64 times ``before``: one number to carry instead of two
    before: Array  #: neighbours in earlier words


@cache
def _hits(bits: int) -> Callable[[_Looking, tuple[Array, ...], Array | None], Array]:
    """A function that tests ``bits`` candidates of each particle, and packs the results into a word.

    The replicas of a batch share one axis: in an array of more axes XLA finds a candidate by divisions, which take
    longer than the test.
    """
    bit = np.arange(bits, dtype=np.int32)

    @jax.custom_batching.custom_vmap
    def hits(looking: _Looking, lines: tuple[Array, ...], half: Array | None) -> Array:
        x, first = looking.centre, looking.first
        parts = [separation(a[:, None], windows(line, first, bits)) for a, line in zip(x, lines, strict=True)]
        r2 = parts[0] * parts[0]
        for part in parts[1:]:
            r2 = r2 + part * part
        cutoff = looking.reach[:, None]
        if half is not None:
            cutoff = cutoff + windows(half, first, bits)
        place = first[:, None] + bit[None, :]
        hit = (place < looking.stop[:, None]) & (place != looking.own[:, None]) & (r2 < cutoff * cutoff)
        return jnp.sum(jnp.where(hit, np.uint32(1) << bit.astype(np.uint32), np.uint32(0)), axis=1, dtype=jnp.uint32)

    @hits.def_vmap
    def _(size: int, batched: Any, *arguments: Any) -> tuple[Array, bool]:
        looking, lines, half = jax.tree.map(
            lambda x, there: x if there else jnp.broadcast_to(x[None], (size, *x.shape)), arguments, tuple(batched)
        )
        ahead = (jnp.arange(size, dtype=jnp.int32) * lines[0].shape[1])[:, None]
        placed = looking._replace(first=looking.first + ahead, stop=looking.stop + ahead, own=looking.own + ahead)
        flat = jax.tree.map(lambda x: x.reshape(-1), (placed, lines, half))
        return hits(*flat).reshape(size, -1), True

    return hits


@cache
def _rows(capacity: int) -> Callable[[_Tested, Array, Array], Array]:
    """A function of test results (words, N), lengths of rows (N,) and padding (N,) that makes the rows (N, K)."""

    @jax.custom_batching.custom_vmap
    def rows(tested: _Tested, total: Array, me: Array) -> Array:
        k = jnp.arange(capacity, dtype=jnp.int32)[None, :]

        carried = tested[:4]

        def pass_word(w: Array | int, there: tuple[Array, ...]) -> tuple[Array, ...]:
            """The word that holds the k-th neighbour, among the words up to the w-th."""
            past = tested.before[w][:, None] <= k
            return tuple(jnp.where(past, x[w][:, None], old) for x, old in zip(carried, there, strict=True))

        count = tested.words.shape[0]
        there = tuple(jnp.broadcast_to(x[0][:, None], (len(me), capacity)) for x in carried)
        if count <= _WORD:
            for w in range(1, count):
                there = pass_word(w, there)
        else:
            there = jax.lax.fori_loop(1, count, pass_word, there)
        words, base, jump, cut = there
        bit = select_bit(words, k - (cut >> 6))
        # computed, not gathered: XLA would find each index of the gather by divisions
        slot = base + bit - jnp.where(bit >= cut & 63, jump, 0)
        return jnp.where(k < total[:, None], slot, me[:, None])

    @rows.def_vmap
    def _(size: int, batched: Any, *arguments: Any) -> tuple[Array, bool]:
        tested, total, me = jax.tree.map(
            lambda x, there: x if there else jnp.broadcast_to(x[None], (size, *x.shape)), arguments, tuple(batched)
        )
        words = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(x.shape[1], -1), tested)
        return rows(words, total.reshape(-1), me.reshape(-1)).reshape(*me.shape, capacity), True

    return rows


def build(plan: Plan, system: System, coordinates: Array, tags: Array) -> Neighbors:
    """Neighbour rows of particles that are already in cell order.

    Lists every pair with |x_i - x_j| < reach sigma_ij + skin (minimum image; the energy's reach, 1 at contact) in both
    partners' rows, provided that ``needed_row <= capacity`` and ``needed_slots <= slots``.
    """
    dim, n = coordinates.shape
    me = jnp.arange(n, dtype=jnp.int32)
    line = _line(plan, coordinates)
    sigma = system.diameters / system.box
    if system.energy.reach != 1.0:
        sigma = sigma * np.asarray(system.energy.reach, sigma.dtype)
    skin = np.asarray(plan.skin, float_of(coordinates)) * system.unit / system.box
    word_bits = min(plan.slots, _WORD)
    per_run = -(-plan.slots // word_bits)
    half = None if sigma.ndim == 0 else take(0.5 * sigma, line.slots)
    reach = jnp.broadcast_to((sigma if sigma.ndim == 0 else 0.5 * sigma) + skin, (n,))
    lines = tuple(take(x, line.slots) for x in coordinates)
    along = _cells(plan, coordinates)[0] if plan.cells > 1 else [me * 0] * dim

    def test_run(seen: tuple[Array, Array], offset: Array) -> tuple[tuple[Array, Array], _Tested]:
        """Test the run at an offset from each particle."""
        found, longest = seen
        row = jnp.zeros(n, jnp.int32)
        for axis in range(dim - 1):
            cell = along[axis] + offset[axis]
            row = row * plan.cells + jnp.where(cell < 0, plan.cells - 1, jnp.where(cell == plan.cells, 0, cell))
        # a run begins one cell before the particle's own, and so does the row's line
        edge = row * (plan.cells + 3)
        at = edge + along[-1]
        start, stop = take(line.begin, at), take(line.begin, at + 3)
        # A copy is as far from its original as the row has particles. Only a run at either end of the row has copies:
        # it begins or ends with them.
        low, high = take(line.begin, edge + 1), take(line.begin, edge + 1 + plan.cells)
        lowest, highest = along[-1] == 0, along[-1] == plan.cells - 1
        ahead = take(line.ahead, row)
        jump = jnp.where(lowest | highest, high - low, 0)

        def word(block: Array) -> tuple[Array, Array]:
            first = start + block * word_bits
            return first, _hits(word_bits)(_Looking(tuple(coordinates), reach, first, stop, line.own), lines, half)

        first, words = jax.lax.map(word, jnp.arange(per_run, dtype=jnp.int32))
        ends = found[None] + jnp.cumsum(jax.lax.population_count(words).astype(jnp.int32), axis=0)
        before = jnp.concatenate([found[None], ends[:-1]])
        cut = jnp.clip(jnp.where(lowest, low, high)[None] - first, 0, _WORD)
        base = first - jnp.where(lowest, ahead - jump, ahead)[None]
        tested = _Tested(words, base, jnp.broadcast_to(jump, first.shape), 64 * before + cut, before)
        return (ends[-1], jnp.maximum(longest, jnp.max(stop - start))), tested

    # One after the other: what a loop carries is stored, and the tests then read contiguous memory.
    offsets = list(itertools.product((-1, 0, 1), repeat=dim - 1)) if plan.cells > 1 else [(0,) * (dim - 1)]
    none = jnp.zeros(n, jnp.int32), jnp.zeros((), jnp.int32)
    (total, longest), tested = jax.lax.scan(test_run, none, jnp.asarray(np.array(offsets, np.int32)))
    tested = jax.tree.map(lambda x: x.reshape(-1, n), tested)
    return Neighbors(
        rows=_rows(plan.capacity)(tested, total, me),
        tags=tags,
        reference=coordinates,
        needed_row=jnp.max(total),
        needed_slots=longest,
    )


def in_slots(system: System, tags: Array) -> System:
    """The system with its per-particle leaves in the order of the slots."""
    return system if system.diameters.ndim == 0 else replace(system, diameters=take(system.diameters, tags))


def sort_and_build(plan: Plan, system: System, coordinates: Array) -> tuple[System, Neighbors]:
    """The system and its neighbour rows sorted by cell: ``tags`` is the order, ``reference`` the sorted coordinates."""
    order = cell_order(plan, coordinates)
    ordered = in_slots(system, order)
    return ordered, build(plan, ordered, jnp.stack([take(x, order) for x in coordinates]), order)


def overflowed(plan: Plan, neighbors: Neighbors) -> Array:
    """Whether the plan was too small for this list."""
    return (neighbors.needed_row > plan.capacity) | (neighbors.needed_slots > plan.slots)


def outdated(plan: Plan, system: System, coordinates: Array, neighbors: Neighbors) -> Array:
    """Whether a particle has moved more than half a skin, so that the list may be incomplete."""
    r2 = sum(separation(x, y) ** 2 for x, y in zip(coordinates, neighbors.reference, strict=True))
    # the factor allows for float rounding of distances and cutoffs
    limit = np.asarray(0.5 * plan.skin * (1.0 - 1e-4), float_of(coordinates)) * system.unit / system.box
    return jnp.max(r2) > limit * limit
