"""What is done to a set before a run, against its definition, and on the digits that packages ship."""

import jax
import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data, one_hot, parity, principal_components, split, standardised
from packing_jax.networks.files import load


@pytest.fixture
def small() -> Data:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 255, (40, 6)).astype(np.uint8)
    inputs[:, 2] = 7  # a pixel that is the same everywhere
    tests = rng.integers(0, 255, (10, 6)).astype(np.uint8)
    return Data(inputs, np.arange(40) % 10, tests, np.arange(10) % 10)


def test_even_digits_are_positive(small: Data) -> None:
    data = parity(small)
    assert data.targets[:4].tolist() == [1, -1, 1, -1]
    assert np.array_equal(data.targets, data.test_targets[np.arange(40) % 10])
    assert data.targets.dtype == np.float64


def test_one_column_for_each_class(small: Data) -> None:
    data = one_hot(Data(small.inputs, np.arange(40) % 3, small.test_inputs, small.test_targets))
    assert data.targets.shape == (40, 10)  # the test samples have more classes
    assert np.array_equal(data.targets.argmax(1), np.arange(40) % 3)
    assert np.array_equal(data.targets.sum(1), np.ones(40))
    assert np.array_equal(data.test_targets, np.eye(10))


def test_standardised_pixels_have_mean_0_and_variance_1_and_constant_ones_are_0(small: Data) -> None:
    data = standardised(small)
    varying = np.arange(6) != 2
    np.testing.assert_allclose(data.inputs.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(data.inputs.var(0)[varying], 1, rtol=1e-13)
    assert not np.any(data.inputs[:, 2])
    assert not np.any(data.test_inputs[:, 2])  # although it varies there
    by_hand = (small.test_inputs[3, 0] - small.inputs[:, 0].mean()) / small.inputs[:, 0].std()
    assert data.test_inputs[3, 0] == pytest.approx(by_hand, rel=1e-13)


def test_a_constant_that_no_binary_number_is_counts_as_constant() -> None:
    data = standardised(Data(np.full((7, 1), 0.1), np.arange(7)))
    assert np.array_equal(data.inputs, np.zeros((7, 1)))


@pytest.mark.parametrize("whiten", [False, True])
def test_principal_components_are_those_of_a_singular_value_decomposition(small: Data, whiten: bool) -> None:
    data = principal_components(small, 3, whiten=whiten)
    mean = small.inputs.mean(0)
    u, s, vt = np.linalg.svd(small.inputs - mean, full_matrices=False)
    expected, tests = (u * s)[:, :3], (small.test_inputs - mean) @ vt[:3].T
    if whiten:
        scale = s[:3] / np.sqrt(40)
        expected, tests = expected / scale, tests / scale
    signs = np.sign(np.sum(expected * data.inputs, axis=0))
    np.testing.assert_allclose(data.inputs * signs, expected, atol=1e-9)
    np.testing.assert_allclose(data.test_inputs * signs, tests, atol=1e-9)
    assert np.all(np.sign(vt[np.arange(3), np.abs(vt[:3]).argmax(1)]) == signs)  # the largest entry is positive


def test_images_are_taken_as_rows(small: Data) -> None:
    images = Data(
        small.inputs.reshape(40, 2, 3), small.targets, small.test_inputs.reshape(10, 2, 3), small.test_targets
    )
    assert np.array_equal(principal_components(images, 2).inputs, principal_components(small, 2).inputs)
    assert standardised(images).inputs.shape == (40, 2, 3)


def test_a_split_is_a_partition_and_fewer_samples_are_the_first_of_more() -> None:
    pool = Data(np.arange(50)[:, None], np.arange(50))
    data = split(pool, samples=30, tests=20, seed=3)
    assert sorted([*data.targets, *data.test_targets]) == list(range(50))
    assert np.array_equal(data.inputs[:, 0], data.targets)
    fewer = split(pool, samples=10, tests=20, seed=3)
    assert np.array_equal(fewer.targets, data.targets[:10])
    assert np.array_equal(fewer.test_targets, data.test_targets)
    assert not np.array_equal(split(pool, 30, 20, seed=4).targets, data.targets)
    assert data.targets[:5].tolist() == [12, 5, 26, 6, 11]  # for ever: published runs name a seed


def test_every_sample_is_equally_likely_to_come_first() -> None:
    """Chi-squared over 5 samples; false alarms at a rate of 1e-6, at fixed seeds."""
    pool = Data(np.arange(5)[:, None], np.arange(5))
    firsts = np.bincount([int(split(pool, 1, seed=seed).targets[0]) for seed in range(2000)], minlength=5)
    assert np.sum((firsts - 400) ** 2) / 400 < 33.4


def test_a_pool_keeps_tests_of_its_own(small: Data) -> None:
    assert np.array_equal(split(small, 5).test_inputs, small.test_inputs)
    with pytest.raises(PackingError, match="10 tests of its own"):
        split(small, 5, tests=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_the_device_numbers_have_the_precision_and_classes_are_int32(small: Data, dtype: type) -> None:
    with jax.enable_x64(dtype == np.float64):
        data, labelled = small.on_device(dtype), parity(small).on_device(dtype)
    assert data.inputs.dtype == data.test_inputs.dtype == labelled.targets.dtype == dtype
    assert data.targets.dtype == data.test_targets.dtype == np.int32
    assert np.array_equal(data.inputs, small.inputs)
    assert Data(small.inputs, small.targets).on_device(np.float32).test_inputs is None


def test_parity_of_mnist_as_glassy_networks_learn_it() -> None:
    raw = load("mnist-5k")
    assert raw.inputs.shape == (5000, 784)
    assert np.array_equal(np.bincount(raw.targets), np.full(10, 500))
    data = principal_components(standardised(parity(raw)), 10)
    assert data.inputs.shape == (5000, 10)
    assert data.targets.mean() == 0
    np.testing.assert_allclose(data.inputs.mean(0), 0, atol=1e-12)
    covariance = data.inputs.T @ data.inputs / 5000
    variances = np.diag(covariance)
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-10)
    assert np.all(np.diff(variances) < 0)
    pixels = np.sum(np.ptp(raw.inputs, axis=0) > 0)  # each has variance 1
    assert 0.3 < variances.sum() / pixels < 0.35


def test_digits_are_there() -> None:
    data = load("digits")
    assert data.inputs.shape == (1797, 64)
    assert (data.inputs.min(), data.inputs.max()) == (0, 16)
    assert np.bincount(data.targets).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: parity(parity(data)), "classes must be one integer per sample"),
        (lambda data: one_hot(one_hot(data)), "classes must be one integer per sample"),
        (lambda data: one_hot(Data(data.inputs, -data.targets)), "a class is negative"),
        (lambda data: one_hot(Data(data.inputs, data.targets + 2**45)), "more than half of what this machine has"),
        (lambda data: principal_components(data, 0), "there must be 1 to 6, the length of an input"),
        (lambda data: principal_components(data, 7), "7 principal components"),
        (lambda data: principal_components(data, 6), "vary in fewer than the 6 directions"),
        (lambda data: split(data, 41), "the set has 40 in all"),
        (lambda data: split(data, 0), "at least 1 sample is needed"),
        (lambda data: split(data, 30, -1), "-1 tests"),
        (lambda data: split(data, 30, seed=-1), "the seed is -1"),
        (lambda data: data.on_device(np.float16), "it must be float32 or float64"),
        (lambda data: Data(data.inputs, data.test_targets), "their first axes must have the same length"),
        (lambda data: Data(data.inputs[:0], data.targets[:0]), "at least one sample"),
        (lambda data: Data(data.inputs, np.array(3)), "their first axes must have the same length"),
        (lambda data: Data(data.inputs, data.targets, data.test_inputs), "give both or neither"),
        (
            lambda data: Data(data.inputs, data.targets, data.test_inputs[:, 1:], data.test_targets),
            r"each of the test inputs has shape \(5,\); those for training have \(6,\)",
        ),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(small: Data, change: object, sentence: str) -> None:
    with pytest.raises(PackingError, match=sentence):
        change(small)  # type: ignore[operator]
