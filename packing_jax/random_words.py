"""Counter-based random words, and the draws that are made of them: a draw is a function of a key and a counter.

Keys and counters go through Threefry-2x32 (Salmon et al., SC11), or where there are many words of one key through a
mixer of 32-bit words. Nothing is carried from draw to draw, so that a draw does not depend on what else is drawn.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def stream(index: int) -> np.uint32:
    """An offset that makes of a word the word of another, independent draw (multiples of the golden ratio)."""
    return np.uint32(index * 0x9E3779B9 & 0xFFFFFFFF)


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


def mix(word: Array) -> Array:
    """A bijection of 32-bit words in which each input bit flips each output bit with probability 1/2."""
    word = (word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D)
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B)
    return word ^ (word >> np.uint32(16))


def words_of(key: Array, count: int, which: int = 0) -> Array:
    """So many words (count,) of one key.

    Each is the counter, spread by the golden ratio, mixed with one half of the key and then with the other.

    Args:
        key: (2,) uint32 key data, of one replica at one step: two words that are random already.
        count: how many.
        which: another number gives another, independent set.
    """
    counter = jnp.arange(count, dtype=jnp.uint32) * np.uint32(0x9E3779B9)
    return mix(mix(counter + key[0] + stream(which)) ^ key[1])


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
