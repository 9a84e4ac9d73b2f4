"""Sets drawn from keys: their laws, which samples they share, and what is refused.

Every statistical test has a fixed seed and the false alarm rate FALSE_ALARM, shared out among its comparisons.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
import scipy.stats

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data
from packing_jax.networks.random_data import (
    gaussian_inputs,
    gaussian_mixture,
    linear_regression,
    linear_teacher,
    mixture_centre,
    perceptron_patterns,
    random_labels,
)

FALSE_ALARM = 1e-6  # of any one test
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def check_normal(z: np.ndarray) -> None:
    """Independent standard normal columns: the law of all numbers, each mean and variance, all correlations."""
    z = np.asarray(z, np.float64)
    samples, features = z.shape
    rate = FALSE_ALARM / (2 * features + 2)
    assert scipy.stats.kstest(z.ravel(), "norm").pvalue > rate
    assert np.max(np.abs(z.mean(0))) * np.sqrt(samples) < scipy.stats.norm.isf(rate / 2)
    low, high = scipy.stats.chi2(samples).ppf([rate / 2, 1 - rate / 2])
    squares = np.sum(z**2, axis=0)
    assert low < squares.min()
    assert squares.max() < high
    pairs = np.triu_indices(features, 1)
    correlations = samples * np.corrcoef(z.T)[pairs] ** 2  # each chi-squared of one degree, for many samples
    assert scipy.stats.chi2(len(correlations)).sf(correlations.sum()) > rate


def check_fair(signs: np.ndarray) -> None:
    """Independent fair coins: how many heads, and how many neighbours that agree."""
    signs = np.asarray(signs)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    for heads in (signs > 0, signs[1:] == signs[:-1]):
        assert scipy.stats.binomtest(int(heads.sum()), heads.size).pvalue > FALSE_ALARM / 2


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_the_covariance_of_gaussian_inputs_has_the_spectrum(exponent: float) -> None:
    inputs = jax.jit(lambda a: gaussian_inputs(jax.random.key(1), 4000, 12, exponent=a))(exponent)
    assert inputs.dtype == F32
    check_normal(np.asarray(inputs) * np.arange(1, 13) ** (exponent / 2))


@pytest.mark.parametrize(("dtype", "tolerance"), [(F32, 2e-6), (F64, 1e-14)])
def test_an_exact_spectrum_is_that_of_the_samples(dtype: np.dtype, tolerance: float) -> None:
    with jax.enable_x64(dtype == F64):
        draw = jax.jit(lambda: gaussian_inputs(jax.random.key(2), 200, 30, exponent=1.5, exact=True, dtype=dtype))
        inputs = np.asarray(draw())
    assert inputs.dtype == dtype
    spectrum = np.arange(1, 31) ** -1.5
    scaled = inputs.astype(F64) / np.sqrt(spectrum)
    np.testing.assert_allclose(scaled.T @ scaled / 200, np.eye(30), atol=tolerance * 10)


def test_exact_columns_are_uniform_in_direction() -> None:
    """The share of one sample in a unit column is a beta variable, and its sign is fair."""
    keys = jax.random.split(jax.random.key(3), 2000)
    first = jax.jit(jax.vmap(lambda key: gaussian_inputs(key, 8, 3, exact=True)[0]))(keys)
    columns = np.asarray(first, F64) / np.sqrt(8)
    for column in columns.T:
        assert scipy.stats.kstest(column**2, scipy.stats.beta(0.5, 3.5).cdf).pvalue > FALSE_ALARM / 6
        assert scipy.stats.binomtest(int(np.sum(column > 0)), len(column)).pvalue > FALSE_ALARM / 6


def test_labels_of_a_linear_teacher_have_its_values_and_the_noise() -> None:
    keys = jax.random.split(jax.random.key(4), 300)

    def draw(key: jax.Array) -> tuple[Data, jax.Array]:
        return linear_regression(key, 40, 6, exponent=1.0, noise=0.5, tests=20), linear_teacher(key, 6)

    data, teachers = jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))
    check_normal(teachers * np.sqrt(6))
    train = data.targets - np.einsum("rpd,rd->rp", data.inputs, teachers)
    test = data.test_targets - np.einsum("rpd,rd->rp", data.test_inputs, teachers)
    check_normal(np.concatenate([train, test], axis=1) / 0.5)
    check_normal(np.concatenate([data.inputs, data.test_inputs], axis=1).reshape(-1, 6) * np.sqrt(np.arange(1, 7)))


def test_an_exact_regression_has_its_minimum_hessian_and_gradient_noise_on_the_samples() -> None:
    key = jax.random.key(5)
    with jax.enable_x64(True):

        def draw() -> tuple[Data, jax.Array]:
            data = linear_regression(key, 120, 10, exponent=2.0, noise=0.3, exact=True, dtype=F64)
            return data, linear_teacher(key, 10, dtype=F64)

        data, teacher = jax.tree.map(np.asarray, jax.jit(draw)())
    x, y = data.inputs, data.targets
    hessian = np.diag(np.arange(1, 11) ** -2.0)
    np.testing.assert_allclose(x.T @ x / 120, hessian, atol=1e-14)
    gradients = (x @ teacher - y)[:, None] * x
    np.testing.assert_allclose(gradients.mean(0), 0, atol=1e-15)
    np.testing.assert_allclose(gradients.T @ gradients / 120, 0.09 * hessian, atol=1e-15)


def test_random_labels_are_fair_and_their_inputs_white() -> None:
    data = jax.tree.map(np.asarray, jax.jit(lambda: random_labels(jax.random.key(6), 5000, 4))())
    check_normal(data.inputs)
    check_fair(data.targets)
    agreement = np.sign(data.inputs) == data.targets[:, None]
    assert scipy.stats.binomtest(int(agreement.sum()), agreement.size).pvalue > FALSE_ALARM


def test_perceptron_patterns_are_white_with_all_targets_positive() -> None:
    data = jax.jit(lambda: perceptron_patterns(jax.random.key(7), 3000, 10))()
    check_normal(np.asarray(data.inputs))
    assert np.array_equal(data.targets, np.ones(3000))


def test_clusters_have_their_centre_and_variance_and_the_error_of_a_direction_is_known() -> None:
    key, d, variance = jax.random.key(8), 20, 2.0

    def draw(key: jax.Array) -> tuple[Data, jax.Array]:
        return gaussian_mixture(key, 4000, d, variance=variance, tests=40_000), mixture_centre(key, d)

    data, centre = jax.tree.map(lambda x: np.asarray(x, F64), jax.jit(draw)(key))
    check_normal((data.inputs - np.outer(data.targets, centre / np.sqrt(d))) / np.sqrt(variance))
    check_fair(data.targets)
    w = centre + np.random.default_rng(0).normal(size=d)
    m, c = w @ centre / d, w @ w / d
    error = 0.5 * scipy.special.erfc(m / np.sqrt(2 * variance * c))
    wrong = np.sign(data.test_inputs @ w) != data.test_targets
    assert scipy.stats.binomtest(int(wrong.sum()), wrong.size, error).pvalue > FALSE_ALARM
    centres = jax.jit(jax.vmap(lambda k: mixture_centre(k, 5)))(jax.random.split(key, 1000))
    check_normal(np.asarray(centres))


def test_sets_of_different_keys_are_independent() -> None:
    keys = jax.random.split(jax.random.key(9), 8)
    data = jax.jit(jax.vmap(lambda key: random_labels(key, 400, 10)))(keys)
    check_normal(np.asarray(data.inputs).reshape(8, -1).T)
    check_fair(np.asarray(data.targets).ravel())


def test_a_set_alone_is_that_set_of_the_batch() -> None:
    keys = jax.random.split(jax.random.key(10), 3)
    together = jax.jit(jax.vmap(lambda key: linear_regression(key, 7, 3, noise=0.1, tests=2)))(keys)
    alone = linear_regression(keys[1], 7, 3, noise=0.1, tests=2)
    for batch, one in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
        np.testing.assert_allclose(batch[1], one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("draw", [random_labels, perceptron_patterns, linear_regression, gaussian_mixture])
def test_fewer_samples_are_the_first_of_more(draw: object) -> None:
    key = jax.random.key(11)
    few, many = jax.jit(lambda: (draw(key, 5, 7), draw(key, 1000, 7)))()  # type: ignore[operator]
    np.testing.assert_allclose(few.inputs, many.inputs[:5], rtol=1e-6)
    np.testing.assert_allclose(few.targets, many.targets[:5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("draw", [linear_regression, gaussian_mixture])
def test_test_samples_change_no_training_sample(draw: object) -> None:
    key = jax.random.key(12)
    without, data = jax.jit(lambda: (draw(key, 5, 4), draw(key, 5, 4, tests=5)))()  # type: ignore[operator]
    assert without.test_inputs is None
    assert np.array_equal(without.inputs, data.inputs)
    assert np.array_equal(without.targets, data.targets)
    assert not np.any(data.inputs == data.test_inputs)


def test_both_precisions_draw_the_same_set() -> None:
    key = jax.random.key(13)

    def draw(dtype: np.dtype) -> Data:
        return linear_regression(key, 60, 5, exponent=1.0, noise=0.2, tests=9, exact=True, dtype=dtype)

    single = jax.jit(draw, static_argnums=0)(F32)
    with jax.enable_x64(True):
        double, again = (jax.jit(draw, static_argnums=0)(dtype) for dtype in (F64, F32))
    assert double.inputs.dtype == F64
    for a, b, c in zip(*map(jax.tree.leaves, (single, double, again)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
        assert np.array_equal(a, c)  # jax's 64-bit types do not change what float32 is drawn


def test_numbers_of_the_law_may_be_traced() -> None:
    key = jax.random.key(14)

    def spread(noise: jax.Array, exponent: jax.Array) -> jax.Array:
        return jnp.std(linear_regression(key, 400, 3, noise=noise, exponent=exponent, dtype=F32).targets)

    spreads = jax.jit(jax.vmap(spread))(jnp.array([0.0, 10.0]), jnp.array([0.0, 2.0]))
    assert spreads[0] < 3 < spreads[1]


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda key: gaussian_inputs(key, 0, 3), "0 samples of 3 features"),
        (lambda key: gaussian_inputs(key, 3, 0), "both must be 1 or more"),
        (lambda key: gaussian_inputs(key, 3, 4, exact=True), "needs as many samples, not 3"),
        (lambda key: gaussian_inputs(key, 3, 4, dtype=np.float16), "it must be float32 or float64"),
        (lambda key: gaussian_inputs(key, 3, 4, dtype=np.float64), "jax_enable_x64"),
        (lambda key: gaussian_inputs(jax.random.split(key), 3, 4), "vmap over keys"),
        (lambda key: gaussian_inputs(jax.random.key_data(key), 3, 4), "one typed key"),
        (lambda key: linear_regression(key, 8, 2, noise=-1.0), "the noise is -1.0"),
        (lambda key: linear_regression(key, 8, 2, noise=float("nan")), "the noise is nan"),
        (lambda key: linear_regression(key, 9, 2, exact=True), "it takes an even number"),
        (lambda key: linear_regression(key, 6, 4, exact=True), "at least 8"),
        (lambda key: gaussian_mixture(key, 8, 2, variance=-0.5), "the variance is -0.5"),
    ],
)
def test_what_makes_no_set_gets_a_sentence(draw: object, sentence: str) -> None:
    with pytest.raises(PackingError, match=sentence):
        draw(jax.random.key(0))  # type: ignore[operator]


def test_a_set_is_a_pytree_of_its_arrays() -> None:
    data = Data(np.zeros((3, 2)), np.zeros(3))
    assert len(jax.tree.leaves(data)) == 2
    doubled = jax.tree.map(lambda x: x + 1, data)
    assert isinstance(doubled, Data)
    assert doubled.test_inputs is None
