r"""Neighbour rows: cell grid -> candidates -> compact rows, without scatter, for any dimension up to 6.

Particles are sorted by cell with the last axis fastest. The cells within reach of a particle then form 3^(d-1) *runs*,
each contiguous in the sorted order but for the periodic wrap of the last axis. Testing ``slots`` candidates per run
gives one bit each; 32 bits make a word, and the k-th neighbour of a particle is the k-th set bit of its words, found
from population counts. Where a grid cannot help (fewer than three cells a side, or few particles) the whole system is
a single run, and the same code is the all-pairs search.

Everything a list needs but did not fit is counted: ``needed_row`` and ``needed_slots`` say what would have been
enough. A list with either above its capacity is incomplete; the driver throws its chunk away, grows and repeats.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.geometry import float_of, separation
from packing_jax.system import Leaf, System

_WORD = 32


@dataclass(frozen=True)
class Plan:
    """The static shape of a neighbour search: what the compiled program depends on."""

    cells: int  #: cells per side; 1 searches all pairs
    slots: int  #: candidates per run of cells
    capacity: int  #: neighbours per row
    skin: float  #: list cutoff is sigma_ij + skin, in mean diameters

    def grown(self, needed_row: int, needed_slots: int) -> "Plan":
        """A plan that holds what was needed."""
        return replace(
            self,
            capacity=max(self.capacity, _round_up(needed_row, 4)),
            slots=max(
                self.slots, _round_up(needed_slots, 4) if needed_slots <= _WORD else _round_up(needed_slots, _WORD)
            ),
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "tags", "reference", "needed_row", "needed_slots"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Neighbors:
    """Neighbour rows of one configuration, valid while no particle is more than half a skin from ``reference``."""

    rows: Leaf  #: (K, N) int32 slots, a particle's own slot as padding
    tags: Leaf  #: (N,) int32 identity of the particle in each slot
    reference: Leaf  #: (dim, N) fixed-point positions when built
    needed_row: Leaf  #: () int32 longest row
    needed_slots: Leaf  #: () int32 longest run of cells


def _round_up(n: int, multiple: int) -> int:
    return -(-int(n) // multiple) * multiple


def plan_for(system: System, skin: float) -> Plan:
    """A plan for a system (or the widest spheres of a stacked one), sized for a Poisson pattern.

    Raises:
        PackingError: the skin is not positive.
    """
    if not 0 < skin < math.inf:
        raise PackingError(f"the neighbour skin is {skin} mean diameters; it must be positive")
    dim, n = system.dim, system.particles
    unit = float(np.max(np.asarray(system.unit / system.box)))
    largest = float(np.max(np.asarray(system.diameters) / np.asarray(_like(system.box, system.diameters))))
    reach = largest + skin * unit
    # the margin covers float rounding of the cutoff; cells themselves are cut in exact integers
    cells = int(1.0 / (reach * (1.0 + 1e-4)))
    # a dilute system would ask for millions of empty cells; 2^18 a side are cut in quanta to well within the margin
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


def cell_order(plan: Plan, coordinates: Array) -> tuple[Array, Array]:
    """Cell coordinates (dim, N) and the order that sorts particles by cell, last axis fastest."""
    if plan.cells == 1:
        return jnp.zeros(coordinates.shape, jnp.int32), jnp.arange(coordinates.shape[1], dtype=jnp.int32)
    unsigned = np.dtype(f"uint{8 * coordinates.dtype.itemsize}")
    # rounded down, so that the last cell is the widest: rounded up, it would be narrower by `cells` quanta
    width = (1 << 8 * unsigned.itemsize) // plan.cells
    along = (coordinates.astype(unsigned) // np.asarray(width, unsigned)).astype(jnp.int32)
    along = jnp.minimum(along, plan.cells - 1)
    index = along[0]
    for axis in along[1:]:
        index = index * plan.cells + axis
    _, order = jax.lax.sort((index, jnp.arange(index.shape[0], dtype=jnp.int32)), num_keys=1)
    return along, order


def _runs(plan: Plan, coordinates: Array) -> tuple[Array, Array, Array, Array]:
    """Two contiguous pieces (start, length) of sorted slots for each run, all (runs, N), of sorted particles."""
    dim, n = coordinates.shape
    if plan.cells == 1:
        zero = jnp.zeros((1, n), jnp.int32)
        return zero, zero + n, zero, zero
    cells = plan.cells
    along, _ = cell_order(plan, coordinates)
    index = along[0]
    for axis in along[1:]:
        index = index * cells + axis
    starts = jnp.searchsorted(index, jnp.arange(cells**dim + 1, dtype=jnp.int32)).astype(jnp.int32)

    last = along[-1]
    below, above = last == 0, last == cells - 1
    first = jnp.where(below, 0, last - 1)
    final = jnp.where(above, cells - 1, last + 1)
    wrapped = jnp.where(below, cells - 1, 0)
    # all runs at once: written out one by one, 3^5 of them take the compiler most of a minute
    offsets = np.array(list(itertools.product((-1, 0, 1), repeat=dim - 1)), np.int32)
    row = jnp.zeros((len(offsets), n), jnp.int32)
    for axis, offset in zip(along[:-1], offsets.T, strict=True):
        moved = axis[None, :] + offset[:, None]
        moved = jnp.where(moved < 0, cells - 1, jnp.where(moved == cells, 0, moved))
        row = row * cells + moved
    row = row * cells
    start = starts[row + first[None]]
    again = starts[row + wrapped[None]]
    length = starts[row + final[None] + 1] - start
    rest = jnp.where((below | above)[None], starts[row + wrapped[None] + 1] - again, 0)
    return start, length, again, rest


def _slot(start: Array, length: Array, again: Array, place: Array) -> Array:
    """The sorted slot of the ``place``-th candidate of a run."""
    return jnp.where(place < length, start + place, again + place - length)


def _select_bit(word: Array, rank: Array) -> Array:
    """Position of the ``rank``-th set bit of each 32-bit word, by halving."""
    position = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        low = jax.lax.population_count(word & np.uint32((1 << half) - 1)).astype(rank.dtype)
        up = rank >= low
        rank = jnp.where(up, rank - low, rank)
        word = jnp.where(up, word >> np.uint32(half), word)
        position = jnp.where(up, position + half, position)
    return position


def build(plan: Plan, system: System, coordinates: Array, tags: Array) -> Neighbors:
    """Neighbour rows of particles that are already in cell order.

    Lists every pair with |x_i - x_j| < sigma_ij + skin (minimum image) in both partners' rows, provided that
    ``needed_row <= capacity`` and ``needed_slots <= slots``.
    """
    n = coordinates.shape[1]
    dtype = float_of(coordinates)
    me = jnp.arange(n, dtype=jnp.int32)
    start, length, again, rest = _runs(plan, coordinates)
    runs = start.shape[0]
    sigma = system.diameters / system.box
    skin = np.asarray(plan.skin, dtype) * system.unit / system.box

    def test(place: Array) -> Array:
        """Whether each run's candidate at ``place`` is a neighbour, (runs, places, N)."""
        place = place[None, :, None]
        slot = _slot(start[:, None], length[:, None], again[:, None], place)
        present = place < (length + rest)[:, None]
        slot = jnp.where(present, slot, 0)
        r2 = jnp.zeros(slot.shape, dtype)
        for x in coordinates:
            part = separation(x[None, None, :], x.at[slot].get(mode="promise_in_bounds"))
            r2 = r2 + part * part
        contact = sigma if sigma.ndim == 0 else 0.5 * (sigma[None, None] + sigma.at[slot].get(mode="promise_in_bounds"))
        cutoff = contact + skin
        return present & (slot != me[None, None, :]) & (r2 < cutoff * cutoff)

    word_bits = min(plan.slots, _WORD)
    per_run = -(-plan.slots // word_bits)
    bit = np.arange(word_bits, dtype=np.uint32)

    def block_words(block: Array) -> Array:
        hits = test(block * word_bits + jnp.arange(word_bits, dtype=jnp.int32))
        bits = jnp.where(hits, np.uint32(1) << bit[None, :, None], np.uint32(0))
        return jnp.sum(bits, axis=1, dtype=jnp.uint32)

    blocks = jnp.arange(per_run, dtype=jnp.int32)
    words = block_words(blocks[0])[None] if per_run == 1 else jax.lax.map(block_words, blocks)  # (per_run, runs, N)
    masks = jnp.swapaxes(words, 0, 1).reshape(runs * per_run, n)  # (W, N)

    ends = jnp.cumsum(jax.lax.population_count(masks).astype(jnp.int32), axis=0)  # (W, N), inclusive
    k = jnp.arange(plan.capacity, dtype=jnp.int32)[:, None]
    which = jnp.zeros((plan.capacity, n), jnp.int32)
    for end in ends[:-1] if ends.shape[0] <= 32 else ():
        which = which + (end[None, :] <= k).astype(jnp.int32)
    if ends.shape[0] > 32:
        which = jax.lax.fori_loop(
            0, ends.shape[0] - 1, lambda w, acc: acc + (ends[w][None, :] <= k).astype(jnp.int32), which
        )

    def pick(table: Array, at: Array) -> Array:
        return table.reshape(-1).at[at * n + me[None, :]].get(mode="promise_in_bounds")

    word = pick(masks, which)
    before = pick(ends, which) - jax.lax.population_count(word).astype(jnp.int32)
    place = which % per_run * word_bits + _select_bit(word, k - before)
    run = which // per_run
    slot = _slot(pick(start, run), pick(length, run), pick(again, run), place)
    rows = jnp.where(k < ends[-1][None, :], slot, me[None, :])
    return Neighbors(
        rows=rows,
        tags=tags,
        reference=coordinates,
        needed_row=jnp.max(ends[-1]),
        needed_slots=jnp.max(length + rest),
    )


def overflowed(plan: Plan, neighbors: Neighbors) -> Array:
    """Whether the plan was too small for this list."""
    return (neighbors.needed_row > plan.capacity) | (neighbors.needed_slots > plan.slots)


def outdated(plan: Plan, system: System, coordinates: Array, neighbors: Neighbors) -> Array:
    """Whether a particle has left the ball of half a skin in which the list is complete."""
    r2 = sum(separation(x, y) ** 2 for x, y in zip(coordinates, neighbors.reference, strict=True))
    # the factor pays for float rounding of distances and cutoffs
    limit = np.asarray(0.5 * plan.skin * (1.0 - 1e-4), float_of(coordinates)) * system.unit / system.box
    return jnp.max(r2) > limit * limit
