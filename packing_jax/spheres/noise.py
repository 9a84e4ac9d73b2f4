"""Counter-based random numbers: a draw is a function of who draws, when, and nothing else.

Each particle gets two 32-bit words per step from Threefry-2x32 (Salmon et al., SC11), keyed by the replica's key
folded with the step and counted by the particle's tag. A pair's word mixes the sum of its two particles' words, so
both rows of a pair compute the same number and nothing is stored or communicated. Tags, not array slots: sorting
the particles, another list, batch, chunk or device changes no draw.

The kind of spheres computes a step's words beforehand and carries them in its loop, because what a loop carries is stored:
computed where they are used, XLA would inline the cipher into the gather of the neighbours' words and run it once per
pair instead of once per particle (20 times slower on a CPU, whose compiler drops optimisation barriers).

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

from packing_jax.spheres.geometry import sum_of_squares

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _stream(index: int) -> np.uint32:
    """An offset that gives one pair or particle another, independent draw (multiples of the golden ratio)."""
    return np.uint32(index * 0x9E3779B9 & 0xFFFFFFFF)


class Words(NamedTuple):
    """The random words of one step."""

    pair: Array  #: (N,) uint32, combined across a pair; only those of overlapping particles matter
    particle: Array  #: (M,) uint32, for draws of the moving particles on their own


def threefry2x32(key: tuple[Array, Array], counter: tuple[Array, Array]) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds, elementwise; the same bits as jax.random's."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for block in range(5):
        for by in _ROTATIONS[block % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(by)) | (y >> np.uint32(32 - by)))
        x, y = x + keys[(block + 1) % 3], y + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x, y


def particle_words(key: Array, tags: Array) -> Words:
    """The two words of each particle at one step; ``key`` is the replica's key folded with the step."""
    words = jax.random.key_data(key)
    zero = jnp.zeros_like(tags, dtype=jnp.uint32)
    return Words(*threefry2x32((words[0], words[1]), (zero, tags.astype(jnp.uint32))))


def mix(word: Array) -> Array:
    """A bijection of 32-bit words in which each input bit flips each output bit with probability 1/2."""
    word = (word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D)
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B)
    return word ^ (word >> np.uint32(16))


def pair_words(own: Array, other: Array, stream: int = 0) -> Array:
    """The same word for both partners of a pair."""
    return mix(own + other + _stream(stream))


def directed_words(own: Array, other: Array) -> Array:
    """Independent words for the two directions of a pair: the sign of the difference tells them apart."""
    offset = jnp.where(own < other, _stream(7), _stream(11))
    return mix(own + other + offset)


def uniform(words: Array, dtype: np.dtype) -> Array:
    """Uniform on (0, 1), centred in its cell so that the mean is exactly 1/2 and 0 and 1 never occur.

    float32 takes 23 bits of the word: the centres of 2^-24 cells would round up to 1 once in 2^24 draws.
    """
    if np.dtype(dtype) == np.float32:
        return (words >> np.uint32(9)).astype(np.float32) * np.float32(2.0**-23) + np.float32(2.0**-24)
    return words.astype(np.float64) * 2.0**-32 + 2.0**-33


def normal(words: Array, dtype: np.dtype) -> Array:
    """Standard normal by inversion, sqrt(2) erfinv(2u - 1)."""
    return jnp.asarray(np.sqrt(2.0), dtype) * jax.lax.erf_inv(2.0 * uniform(words, dtype) - 1.0)


def chosen(words: Array, probability: Array) -> Array:
    """Bernoulli(probability) as a mask: never at 0, always at 1."""
    return uniform(words, np.dtype(probability.dtype)) < probability


def unit_vectors(words: Array, dim: int, dtype: np.dtype) -> list[Array]:
    """Isotropic unit vectors, one array per component, from one word each."""
    parts = [normal(mix(words + _stream(axis + 1)), dtype) for axis in range(dim)]
    # the maximum, which no draw reaches, keeps XLA from dividing by an approximate root
    norm = jnp.maximum(jnp.sqrt(sum_of_squares(parts)), np.asarray(1e-10, dtype))
    return [part / norm for part in parts]
