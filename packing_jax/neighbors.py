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
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.geometry import float_of, separation, take
from packing_jax.system import Leaf, System

_WORD = 32


@dataclass(frozen=True)
class Plan:
    """The static shape of a neighbour search: what the compiled program depends on."""

    cells: int  #: cells per side; 1 searches all pairs
    slots: int  #: candidates per run of cells
    capacity: int  #: neighbours per row
    skin: float  #: list cutoff is sigma_ij + skin, in mean diameters
    active: int = 0  #: particles in a list of active ones, see packing_jax.active; 0: every step moves all

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
    data_fields=["rows", "tags", "reference", "needed_row", "needed_slots", "own"],
    meta_fields=[],
)
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


class _Runs(NamedTuple):
    """Each particle's runs of cells, (N, runs): two contiguous pieces of the sorted order, the second for the wrap."""

    start: Array
    length: Array
    again: Array
    rest: Array

    def slot(self, place: Array) -> Array:
        """The sorted slot of the ``place``-th candidate of a run."""
        return jnp.where(place < self.length, self.start + place, self.again + place - self.length)


def _runs(plan: Plan, coordinates: Array) -> _Runs:
    """The runs around each of the sorted particles."""
    dim, n = coordinates.shape
    if plan.cells == 1:
        zero = jnp.zeros((n, 1), jnp.int32)
        return _Runs(zero, zero + n, zero, zero)
    cells = plan.cells
    along, index = _cells(plan, coordinates)
    starts = jnp.searchsorted(index, jnp.arange(cells**dim + 1, dtype=jnp.int32)).astype(jnp.int32)

    last = along[-1][:, None]
    below, above = last == 0, last == cells - 1
    first = jnp.where(below, 0, last - 1)
    final = jnp.where(above, cells - 1, last + 1)
    wrapped = jnp.where(below, cells - 1, 0)
    # all runs at once: written out one by one, 3^5 of them take the compiler most of a minute
    offsets = np.array(list(itertools.product((-1, 0, 1), repeat=dim - 1)), np.int32)
    row = jnp.zeros((n, len(offsets)), jnp.int32)
    for axis, offset in zip(along[:-1], offsets.T, strict=True):
        moved = axis[:, None] + offset[None, :]
        moved = jnp.where(moved < 0, cells - 1, jnp.where(moved == cells, 0, moved))
        row = row * cells + moved
    row = row * cells
    start, again = take(starts, row + first), take(starts, row + wrapped)
    length = take(starts, row + final + 1) - start
    rest = jnp.where(below | above, take(starts, row + wrapped + 1) - again, 0)
    return _Runs(start, length, again, rest)


def select_bit(word: Array, rank: Array) -> Array:
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
    runs = _runs(plan, coordinates)
    sigma = system.diameters / system.box
    skin = np.asarray(plan.skin, dtype) * system.unit / system.box
    word_bits = min(plan.slots, _WORD)
    per_run = -(-plan.slots // word_bits)
    bit = np.arange(word_bits, dtype=np.int32)

    def words_of(block: Array | int) -> Array:
        """One bit per candidate, (N, runs): set where it is a neighbour."""
        place = jnp.asarray(block * word_bits + bit)[None, None, :]
        wide = _Runs(*(part[:, :, None] for part in runs))
        present = place < wide.length + wide.rest
        slot = jnp.where(present, wide.slot(place), 0)
        parts = [separation(x[:, None, None], take(x, slot)) for x in coordinates]
        r2 = parts[0] * parts[0]
        for part in parts[1:]:
            r2 = r2 + part * part
        contact = sigma if sigma.ndim == 0 else 0.5 * (sigma[:, None, None] + take(sigma, slot))
        cutoff = contact + skin
        hits = present & (slot != me[:, None, None]) & (r2 < cutoff * cutoff)
        return jnp.sum(jnp.where(hits, np.uint32(1) << bit.astype(np.uint32), np.uint32(0)), axis=2, dtype=jnp.uint32)

    if per_run == 1:
        masks = words_of(0)
    else:
        blocks = jax.lax.map(words_of, jnp.arange(per_run, dtype=jnp.int32))  # (per_run, N, runs)
        masks = jnp.moveaxis(blocks, 0, 2).reshape(n, -1)

    ends = jnp.cumsum(jax.lax.population_count(masks).astype(jnp.int32), axis=1)  # (N, W), inclusive
    width = masks.shape[1]
    k = jnp.arange(plan.capacity, dtype=jnp.int32)[None, :]
    which = jnp.zeros((n, plan.capacity), jnp.int32)
    if width <= 32:
        for w in range(width - 1):
            which = which + (ends[:, w, None] <= k).astype(jnp.int32)
    else:
        which = jax.lax.fori_loop(0, width - 1, lambda w, acc: acc + (ends[:, w, None] <= k).astype(jnp.int32), which)
    at = me[:, None] * width + which
    word = take(masks.reshape(-1), at)
    before = take(ends.reshape(-1), at) - jax.lax.population_count(word).astype(jnp.int32)
    run = me[:, None] * runs.start.shape[1] + which // per_run
    place = which % per_run * word_bits + select_bit(word, k - before)
    slot = _Runs(*(take(part.reshape(-1), run) for part in runs)).slot(place)
    return Neighbors(
        rows=jnp.where(k < ends[:, -1:], slot, me[:, None]),
        tags=tags,
        reference=coordinates,
        needed_row=jnp.max(ends[:, -1]),
        needed_slots=jnp.max(runs.length + runs.rest),
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
