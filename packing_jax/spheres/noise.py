"""Counter-based random numbers: a draw is a function of who draws, when, and nothing else.

Each particle gets two 32-bit words per step from Threefry-2x32 (Salmon et al., SC11), keyed by the replica's key
folded with the step and counted by the particle's tag. A pair's word mixes the sum of its two particles' words, so
both rows of a pair compute the same number and nothing is stored or communicated. Draws belong to tags, not to array
slots: another order of the particles, list, batch, chunk or device changes none.

The loop of spheres computes a step's words beforehand and carries them, because what a loop carries is stored: computed
where they are used, XLA would inline the cipher into the gather of the neighbours' words and run it once per pair
instead of once per particle (20 times slower on a CPU, whose compiler drops optimisation barriers).

The mixer is the two-multiply 32-bit finaliser found by exhaustive search (C. Wellons, "lowbias32", bias 0.17). Its
input, a sum of independent uniform words, is already uniform; mixing hides the linear relations between the words of
pairs that share particles. tests/spheres/test_noise.py checks moments, uniformity, and correlations across steps,
replicas, streams and neighbouring pairs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.random_words import chosen, mix, normal, stream, threefry2x32, uniform
from packing_jax.spheres.geometry import sum_of_squares

__all__ = [
    "Words",
    "chosen",
    "directed_words",
    "mix",
    "normal",
    "normals",
    "pair_words",
    "particle_words",
    "threefry2x32",
    "uniform",
    "unit_vectors",
]


class Words(NamedTuple):
    """The random words of one step."""

    pair: Array  #: (N,) uint32, combined across a pair; only those of overlapping particles matter
    particle: Array  #: (M,) uint32, for draws of the moving particles on their own


def particle_words(key: Array, tags: Array) -> Words:
    """The two words of each particle at one step; ``key`` is the replica's key folded with the step."""
    words = jax.random.key_data(key)
    zero = jnp.zeros_like(tags, dtype=jnp.uint32)
    return Words(*threefry2x32((words[0], words[1]), (zero, tags.astype(jnp.uint32))))


def pair_words(own: Array, other: Array, which: int = 0) -> Array:
    """The same word for both partners of a pair."""
    return mix(own + other + stream(which))


def directed_words(own: Array, other: Array) -> Array:
    """Independent words for the two directions of a pair: the sign of the difference tells them apart."""
    offset = jnp.where(own < other, stream(7), stream(11))
    return mix(own + other + offset)


def normals(words: Array, dim: int, dtype: np.dtype) -> list[Array]:
    """Independent standard normal numbers, one array per component, from one word each."""
    return [normal(mix(words + stream(axis + 1)), dtype) for axis in range(dim)]


def unit_vectors(words: Array, dim: int, dtype: np.dtype) -> list[Array]:
    """Isotropic unit vectors, one array per component, from one word each."""
    parts = normals(words, dim, dtype)
    # the maximum, which no draw reaches, keeps XLA from dividing by an approximate root
    norm = jnp.maximum(jnp.sqrt(sum_of_squares(parts)), np.asarray(1e-10, dtype))
    return [part / norm for part in parts]
