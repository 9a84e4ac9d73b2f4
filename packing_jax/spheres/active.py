"""The active-only step: where few particles overlap, its time grows with their number and not with N.

A particle without an overlap does not move (under a ``local`` rule), and becomes active only through a neighbour that
moved. So the particles active in the next configuration are among those active now and their neighbours. Each active
particle sums its own row in integers, with the random numbers of its tag, as in the dense step. The trajectory is
therefore the same, bit for bit.

The list is made unique and compact without sorting: overlaps are marked in an array of N flags, 32 flags are packed
into one integer, and the k-th active particle is the k-th set bit, found from population counts.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.spheres import noise
from packing_jax.spheres.energy import pair_rows
from packing_jax.spheres.geometry import add_at, set_at, take
from packing_jax.spheres.neighbors import Neighbors, Plan, outdated, select_bit
from packing_jax.spheres.system import System

_WORD = 32


class Active(NamedTuple):
    """The particles with an overlap."""

    slots: Array  #: (A,) int32, increasing; entries beyond ``number`` are padding
    number: Array  #: () int32, active particles; above A the list is incomplete


def _listed(flags: Array, capacity: int) -> Active:
    """The indices of the set flags (N,)."""
    n = flags.shape[0]
    words = -(-n // _WORD)
    padded = jnp.pad(flags, (0, words * _WORD - n)).reshape(words, _WORD)
    weights = np.uint32(1) << np.arange(_WORD, dtype=np.uint32)
    bits = jnp.sum(jnp.where(padded, weights[None], np.uint32(0)), axis=1, dtype=jnp.uint32)
    counts = jax.lax.population_count(bits).astype(jnp.int32)
    ends = jnp.cumsum(counts)
    k = jnp.arange(capacity, dtype=jnp.int32)
    word = jnp.minimum(jnp.searchsorted(ends, k, side="right").astype(jnp.int32), words - 1)
    rank = k - (take(ends, word) - take(counts, word))
    slots = word * _WORD + select_bit(take(bits, word), rank)
    return Active(jnp.where(k < ends[-1], slots, 0), ends[-1])


def find(capacity: int, system: System, coordinates: Array, neighbors: Neighbors) -> Active:
    """The active particles of a configuration, from all rows."""
    overlapping = pair_rows(system, coordinates, neighbors.rows).overlapping()
    return _listed(jnp.any(overlapping, axis=1), capacity)


def follow(system: System, coordinates: Array, seen: Neighbors) -> Active:
    """The active particles after a step in which only the particles of ``seen`` moved."""
    hit = pair_rows(system, coordinates, seen.rows, seen.own).overlapping().astype(jnp.int32)
    marks = add_at(jnp.zeros(coordinates.shape[1], jnp.int32), seen.rows, hit)
    marks = add_at(marks, seen.own, jnp.sum(hit, axis=1, dtype=jnp.int32))
    return _listed(marks > 0, seen.rows.shape[0])


def rows_of(neighbors: Neighbors, active: Active) -> Neighbors:
    """The neighbour rows of the active particles alone; the row of a padding entry is empty."""
    own = active.slots
    rows = take(neighbors.rows, own)
    real = jnp.arange(own.shape[0], dtype=jnp.int32) < active.number
    return replace(neighbors, rows=jnp.where(real[:, None], rows, own[:, None]), own=own)


def words_of(key: Array, seen: Neighbors, before: Array) -> noise.Words:
    """The random words of the listed particles; the others keep their old ones, ``before`` (N,).

    A particle that is not listed overlaps with none, so that its word is not used.
    """
    words = noise.particle_words(key, take(seen.tags, seen.own))
    return words._replace(pair=set_at(before, seen.own, words.pair))


def left(plan: Plan, system: System, coordinates: Array, seen: Neighbors) -> Array:
    """Whether a listed particle has moved more than half a skin, :func:`packing_jax.spheres.neighbors.outdated`."""
    here = jnp.stack([take(x, seen.own) for x in coordinates])
    there = replace(seen, reference=jnp.stack([take(x, seen.own) for x in seen.reference]))
    return outdated(plan, system, here, there)
