"""Counter-based draws: the same bits as jax.random's, and the statistics of independent uniform numbers.

All seeds are fixed, so a test that passes keeps passing. Each bound is five standard errors: had the seeds been drawn
anew, a single number would exceed it with probability 6e-7, and all numbers compared here together (about 3000) with
probability 2e-3. Chi-square and Kolmogorov-Smirnov tests reject below p = 1e-6.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from packing_jax import System
from packing_jax.spheres import noise
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.rules.base import Scene, look, pair_normals, pair_uniforms

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
SIGMAS, REJECT = 5.0, 1e-6
N = 2**18

words_of = jax.jit(noise.particle_words)
pair_words = jax.jit(noise.pair_words, static_argnums=2)
directed_words = jax.jit(noise.directed_words)
uniform = jax.jit(noise.uniform, static_argnums=1)
normal = jax.jit(noise.normal, static_argnums=1)
unit_vectors = jax.jit(noise.unit_vectors, static_argnums=(1, 2))


def key_of(seed: int = 0, replica: int = 0, step: int = 0) -> jax.Array:
    """The key of one step, folded as the driver folds it."""
    replica_key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), replica), 1)
    return jax.random.fold_in(replica_key, step)


def draw(seed: int = 0, replica: int = 0, step: int = 0, n: int = N) -> jax.Array:
    return words_of(key_of(seed, replica, step), jnp.arange(n, dtype=jnp.int32)).pair


def centred(words: jax.Array) -> np.ndarray:
    """Uniform with mean 0 and variance 1, in float64."""
    return (np.asarray(words, np.float64) * 2.0**-32 + 2.0**-33 - 0.5) * np.sqrt(12.0)


def check_mean(values: np.ndarray, expected: float = 0.0) -> None:
    """The mean of independent values, or of each column, is the expected one within the bound."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - expected) < SIGMAS * error)


def check_uniform_bits(words: jax.Array | np.ndarray) -> None:
    """Each of the 32 bits is a fair coin, and so is the parity of each two neighbouring bits."""
    words = np.asarray(words, np.uint32)
    for word, bits in ((words, 32), (words ^ words >> 1, 31)):
        ones = np.array([np.count_nonzero(word & np.uint32(1 << bit)) for bit in range(bits)])
        assert np.abs(ones - len(words) / 2).max() < SIGMAS * 0.5 * np.sqrt(len(words))


def check_flat(cells: np.ndarray, number: int) -> None:
    """Chi-square: every cell is equally likely."""
    assert scipy.stats.chisquare(np.bincount(cells, minlength=number)).pvalue > REJECT


def check_uniform(words: jax.Array) -> None:
    """Moments one to four, bits, bins of high and low bits, and the whole distribution."""
    words = np.asarray(words, np.uint32).reshape(-1)
    u = words * 2.0**-32 + 2.0**-33
    for k in range(1, 5):
        deviation = np.sqrt(1 / (2 * k + 1) - 1 / (k + 1) ** 2)
        assert abs(np.mean(u**k) - 1 / (k + 1)) < SIGMAS * deviation / np.sqrt(len(u))
    variance_deviation = np.sqrt(1 / 80 - 1 / 144)
    assert abs(np.mean((u - 0.5) ** 2) - 1 / 12) < SIGMAS * variance_deviation / np.sqrt(len(u))
    check_uniform_bits(words)
    check_flat(words >> 23, 512)
    check_flat(words & 511, 512)
    assert scipy.stats.kstest(u, "uniform").pvalue > REJECT


def check_independent(*draws: jax.Array) -> None:
    """No correlation of values, squares, signs, or bits, and equally filled boxes of the joint distribution."""
    values = [centred(words) for words in draws]
    check_mean(np.prod(values, axis=0))
    check_mean(np.prod([value**2 - 1 for value in values], axis=0))
    folded = np.bitwise_xor.reduce([np.asarray(words, np.uint32) for words in draws])
    check_uniform_bits(folded)  # the parity of each bit over all the draws
    for shift, mask in ((28, 15), (0, 15)):  # the four highest bits, the four lowest
        parts = [(np.asarray(words, np.uint32) >> shift & mask).astype(np.int64) for words in draws]
        joint = parts[0]
        for part in parts[1:]:
            joint = joint * 16 + part
        check_flat(joint, 16 ** len(draws))


# --- the cipher -----------------------------------------------------------------------------------------------


def test_words_are_the_bits_of_fold_in() -> None:
    tags = jnp.concatenate([jnp.arange(200, dtype=jnp.int32), jnp.asarray([2**16, 2**31 - 1], jnp.int32)])
    for key in (jax.random.key(0), key_of(7, 3, 11), jax.random.key(2**31 - 1)):
        ours = words_of(key, tags)
        theirs = jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(key, tags))
        np.testing.assert_array_equal(ours.pair, theirs[:, 0])
        np.testing.assert_array_equal(ours.particle, theirs[:, 1])


def test_threefry_of_arbitrary_keys_and_counters() -> None:
    # the published vector of zeros, and fold_in for keys whose words are all different
    zero = jnp.zeros((), jnp.uint32)
    assert [int(word) for word in noise.threefry2x32((zero, zero), (zero, zero))] == [0x6B200159, 0x99BA4EFE]
    ones = jnp.asarray(0xFFFFFFFF, jnp.uint32)
    assert [int(word) for word in noise.threefry2x32((ones, ones), (ones, ones))] == [0x1CB996FC, 0xBB002BE7]


def test_draws_belong_to_tags_and_not_to_slots() -> None:
    order = np.random.default_rng(0).permutation(1000).astype(np.int32)
    key = key_of(1)
    sorted_words = words_of(key, jnp.arange(1000, dtype=jnp.int32))
    shuffled = words_of(key, jnp.asarray(order))
    few = words_of(key, jnp.asarray(order[:7]))
    for ours, theirs, some in zip(shuffled, sorted_words, few, strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs)[order])
        np.testing.assert_array_equal(some, np.asarray(theirs)[order[:7]])


def test_the_mixer_is_a_bijection_that_avalanches() -> None:
    words = np.random.default_rng(1).integers(0, 2**32, 2**16, dtype=np.uint32)
    words = np.unique(np.concatenate([words, np.arange(2**16, dtype=np.uint32)]))
    mix = jax.jit(noise.mix)
    mixed = np.asarray(mix(jnp.asarray(words)))
    assert len(np.unique(mixed)) == len(words)
    random = jnp.asarray(np.random.default_rng(2).integers(0, 2**32, 2**14, dtype=np.uint32))
    flips = jnp.asarray(1 << np.arange(32, dtype=np.uint32))
    changed = np.asarray(jax.jit(jax.vmap(lambda flip: noise.mix(random) ^ noise.mix(random ^ flip)))(flips))
    # 1024 frequencies with standard error 0.004; the mixer's own published bias is 0.17/1000 on average
    frequency = (changed[:, :, None] >> np.arange(32, dtype=np.uint32) & 1).mean(axis=1)
    assert np.abs(frequency - 0.5).max() < 0.02


# --- symmetry -------------------------------------------------------------------------------------------------


def test_partners_share_the_word_of_their_pair() -> None:
    i, j = draw(2, n=500)[:, None], draw(2, n=500)[None, :]
    for stream in (0, 1, 5):
        shared = np.asarray(pair_words(i, j, stream))
        np.testing.assert_array_equal(shared, shared.T)
    directed = np.asarray(directed_words(i, j))
    different = directed != directed.T
    assert np.all(different[~np.eye(500, dtype=bool)])
    upper = shared[np.triu_indices(500, 1)]
    assert len(np.unique(upper)) > len(upper) - 20  # 1.8 coincidences of 125,000 random words are expected


# --- one draw -------------------------------------------------------------------------------------------------


def test_particle_words_are_uniform() -> None:
    words = words_of(key_of(3), jnp.arange(N, dtype=jnp.int32))
    check_uniform(words.pair)
    check_uniform(words.particle)
    check_independent(words.pair, words.particle)
    # many steps of few particles, as in a long run of a small system
    keys = jax.vmap(lambda step: key_of(3, 1, step))(jnp.arange(4096, dtype=jnp.int32))
    steps = jax.jit(jax.vmap(noise.particle_words, (0, None)))(keys, jnp.arange(64, dtype=jnp.int32))
    check_uniform(steps.pair)
    check_uniform(steps.particle)


def test_pair_words_are_uniform() -> None:
    words = draw(4, n=2 * N)
    i, j = words[::2], words[1::2]
    for stream in (0, 1):
        check_uniform(pair_words(i, j, stream))
    check_uniform(directed_words(i, j))
    few = draw(5, n=500)
    check_flat(np.asarray(pair_words(few[:, None], few[None, :], 0))[np.triu_indices(500, 1)] >> 24, 256)


# --- independence ---------------------------------------------------------------------------------------------


def test_no_serial_correlation_in_the_step() -> None:
    keys = jax.vmap(lambda step: key_of(6, 0, step))(jnp.arange(64, dtype=jnp.int32))
    words = jax.jit(jax.vmap(noise.particle_words, (0, None)))(keys, jnp.arange(4096, dtype=jnp.int32)).pair
    pairs = pair_words(words[:, ::2], words[:, 1::2], 0)
    for lag in (1, 2, 10):
        check_independent(words[lag:].reshape(-1), words[:-lag].reshape(-1))
        check_independent(pairs[lag:].reshape(-1), pairs[:-lag].reshape(-1))
    check_independent(pairs[2:].reshape(-1), pairs[1:-1].reshape(-1), pairs[:-2].reshape(-1))
    # each pair through time, 2048 of them, up to fifteen steps apart
    series = centred(pairs)
    for lag in range(1, 16):
        check_mean((series[lag:] * series[:-lag]).reshape(-1))


def test_no_correlation_between_replicas_seeds_and_neighbouring_tags() -> None:
    here = draw(7, 0)
    for other in (draw(7, 1), draw(7, 17), draw(8, 0)):
        check_independent(here, other)
        check_independent(pair_words(here[::2], here[1::2], 0), pair_words(other[::2], other[1::2], 0))
    for lag in (1, 2, 32):
        check_independent(here[lag:], here[:-lag])


def test_streams_and_directions_are_independent() -> None:
    words = draw(9, n=2 * N)
    i, j = words[::2], words[1::2]
    shared, second, third = (pair_words(i, j, stream) for stream in (0, 1, 2))
    there, back = directed_words(i, j), directed_words(j, i)
    for one, other in ((shared, second), (second, third), (there, back), (shared, there), (shared, back), (i, shared)):
        check_independent(one, other)
    check_independent(shared, there, back)
    check_independent(shared, second, third)


def test_pairs_that_share_particles_are_independent() -> None:
    """Stars, triangles and four-cycles.

    A pair's word is a function of the sum of its particles' words. Around a four-cycle the sums are linearly
    dependent, s_12 + s_34 = s_23 + s_41, and what hides that is the mixer alone.
    """
    words = draw(10, n=4 * N)
    a, b, c, d = (words[k::4] for k in range(4))
    ab, bc, cd, da, ca, bd = (pair_words(x, y, 0) for x, y in ((a, b), (b, c), (c, d), (d, a), (c, a), (b, d)))
    check_independent(ab, bc)
    check_independent(ab, cd)
    check_independent(ab, ca, da)  # three pairs of one particle
    check_independent(ab, bc, ca)  # a triangle
    check_independent(ab, bc, cd)  # a path
    check_independent(ab, bc, cd, da)  # a four-cycle
    everything = np.prod([centred(word) for word in (ab, bc, cd, da, ca, bd)], axis=0)
    check_mean(everything)  # all six pairs of four particles: three more dependences
    # directed draws around the cycle, one way and both ways
    there = [directed_words(x, y) for x, y in ((a, b), (b, c), (c, d), (d, a))]
    back = [directed_words(y, x) for x, y in ((a, b), (b, c), (c, d), (d, a))]
    check_independent(*there)
    check_independent(there[0], back[1], there[2], back[3])
    check_independent(there[0], back[0], there[1], back[1])


def test_the_mixer_hides_the_sums_of_a_four_cycle() -> None:
    # unmixed, the four sums fill a sixteenth of their boxes: the check above can fail
    words = draw(10, n=4 * N)
    a, b, c, d = (np.asarray(words[k::4]) for k in range(4))
    with pytest.raises(AssertionError):
        check_independent(a + b, b + c, c + d, d + a)


def test_the_net_draw_of_a_particle_has_the_variance_of_independent_draws() -> None:
    # what the moments of a kick are made of: sums over the pairs of one particle in a complete graph of twelve
    n = 12
    words = draw(11, n=n * 8192).reshape(8192, n)
    table = centred(pair_words(words[:, :, None], words[:, None, :], 0))
    table[:, np.arange(n), np.arange(n)] = 0
    net = table.sum(axis=2)
    check_mean(net)
    check_mean(net**2, n - 1)
    check_mean(net[:, 0] * net[:, 1], 1.0)  # they share one pair
    check_mean((net.sum(axis=1) / 2) ** 2, n * (n - 1) / 2)


# --- distributions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_uniform_is_symmetric_and_never_0_or_1(dtype: np.dtype) -> None:
    with jax.enable_x64(dtype == F64):
        extremes = [0, 1, 255, 256, 511, 512, 2**31 - 1, 2**31, 2**32 - 512, 2**32 - 257, 2**32 - 256, 2**32 - 1]
        random = np.random.default_rng(3).integers(0, 2**32, 10_000, dtype=np.uint32)
        words = np.concatenate([np.array(extremes, np.uint32), random])
        u = np.asarray(uniform(jnp.asarray(words), dtype))
        assert u.dtype == dtype
        assert np.all((u > 0) & (u < 1))
        np.testing.assert_array_equal(np.asarray(uniform(jnp.asarray(~words), dtype)), 1 - u)
        np.testing.assert_allclose(u, words.astype(np.float64) * 2.0**-32, atol=2.0**-23)
        assert np.all(np.diff(u[np.argsort(words)]) >= 0)
        z = np.asarray(normal(jnp.asarray(words), dtype))
        assert z.dtype == dtype
        assert np.all(np.isfinite(z))
        np.testing.assert_allclose(z, scipy.stats.norm.ppf(u.astype(np.float64)), rtol=2e-4, atol=2e-6)
        np.testing.assert_array_equal(np.asarray(normal(jnp.asarray(~words), dtype)), -z)


def test_normals_have_normal_moments() -> None:
    z = np.asarray(normal(draw(12), F32), np.float64)
    for k, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)):
        check_mean(z**k, moment)
    assert scipy.stats.kstest(z, "norm").pvalue > REJECT


def test_chosen_with_the_given_probability() -> None:
    words = draw(13)
    chosen = jax.jit(noise.chosen)
    for p in (1e-3, 0.25, 0.75, 0.999):
        share = np.asarray(chosen(words, jnp.float32(p))).mean()
        assert abs(share - p) < SIGMAS * np.sqrt(p * (1 - p) / N)
    ends = jnp.asarray([0, 1, 2**31, 2**32 - 1], jnp.uint32)
    assert np.all(chosen(ends, jnp.float32(1.0)))
    assert not np.any(chosen(ends, jnp.float32(0.0)))


@pytest.mark.parametrize("dim", range(1, 7))
def test_unit_vectors_are_isotropic(dim: int) -> None:
    words = draw(14, dim, n=2**16)
    vectors = np.asarray(unit_vectors(words, dim, F32), np.float64)
    assert vectors.shape == (dim, 2**16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1, atol=1e-6)
    check_mean(vectors.T)
    for a in range(dim):
        if dim > 1:
            check_mean(vectors[a] ** 2, 1 / dim)
            check_mean(vectors[a] ** 4, 3 / (dim * (dim + 2)))
        for b in range(a):
            check_mean(vectors[a] * vectors[b])
            check_mean(vectors[a] ** 2 * vectors[b] ** 2, 1 / (dim * (dim + 2)))
            check_mean(vectors[a] ** 3 * vectors[b])
    # along a direction that is no axis
    along = np.sum(vectors, axis=0) / np.sqrt(dim)
    if dim > 1:
        check_mean(along**4, 3 / (dim * (dim + 2)))
        square = scipy.stats.beta(0.5, (dim - 1) / 2)  # of one component of a point on the sphere
        assert scipy.stats.kstest(along**2, square.cdf).pvalue > REJECT


# --- correlated partners --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def partners() -> Scene:
    """N pairs, apart from each other: particles 2k and 2k + 1 are neighbours."""
    n = 2 * N
    tags = jnp.arange(n, dtype=jnp.int32)
    coordinates = jnp.zeros((1, n), jnp.int32)
    count = jnp.ones((), jnp.int32)
    rows = Neighbors(rows=tags[:, None] ^ 1, tags=tags, reference=coordinates, needed_row=count, needed_slots=count)
    return jax.jit(look)(noise.particle_words(key_of(15), tags), System.from_diameters(1e-6, n, 1), coordinates, rows)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_partners_uniforms_have_the_given_correlation(partners: Scene, p: float) -> None:
    draws = jax.jit(pair_uniforms, static_argnums=(1, 2))(partners, p, F32)
    mine, yours = np.asarray(draws, np.float64).reshape(-1, 2).T
    for u in (mine, yours):
        assert np.all((u >= 0) & (u <= 1))
        check_mean(u, 0.5)
        check_mean((u - 0.5) ** 2, 1 / 12)
        assert scipy.stats.kstest(u, "uniform").pvalue > REJECT
    if p == 1:
        np.testing.assert_array_equal(mine, yours)
    check_mean(12 * (mine - 0.5) * (yours - 0.5), p)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8, 1.0])
def test_partners_normals_have_the_given_correlation(partners: Scene, rho: float) -> None:
    draws = jax.jit(pair_normals, static_argnums=(1, 2))(partners, rho, F32)
    mine, yours = np.asarray(draws, np.float64).reshape(-1, 2).T
    for z in (mine, yours):
        check_mean(z)
        check_mean(z**2, 1)
        assert scipy.stats.kstest(z, "norm").pvalue > REJECT
    check_mean(mine * yours, rho)
    check_mean(mine**2 * yours**2, 1 + 2 * rho**2)
    if 0 < rho < 1:
        # jointly normal: any combination is
        assert scipy.stats.kstest((mine - yours) / np.sqrt(2 - 2 * rho), "norm").pvalue > REJECT
