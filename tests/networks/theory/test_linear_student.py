"""The finite-step law against inputs that are averaged over, against another form of it, and against the driver."""

import jax
import numpy as np
import optax
import pytest
from scipy.stats import kstest

from packing_jax import simulate
from packing_jax.errors import PackingError
from packing_jax.networks.rules import sgd, symmetric_noise
from packing_jax.networks.tasks.teacher_student import linear_students
from packing_jax.networks.theory.coulomb_gas import mean_spacing, spacing_distribution
from packing_jax.networks.theory.linear_student import LinearStudent, spacing_of


@pytest.mark.parametrize("dimension", [2, 3])
def test_averaged_over_inputs(dimension):
    """The mean of the exact covariance over 2500 draws of inputs; 5 standard errors: a false alarm in 1e5."""
    law = LinearStudent(0.6, 4, 0.1, dimension)
    rng = np.random.default_rng(3)
    found = np.array([law.given_inputs(rng.standard_normal((7, 4, dimension))) for _ in range(2500)])
    parts = np.stack(
        [found[:, 0, 1, 0, 1], found[:, 0, 1, 1, 0], found[:, 0, 0, 1, 1], found[:, 0, 0, 0, 0]], axis=1
    )  # p, q, r and their sum
    p, q, r = law.moments()
    mean, error = parts.mean(axis=0), parts.std(axis=0) / np.sqrt(2500)
    exact = np.array([p, q, r, p + q + r])
    assert (np.abs(mean - exact) < 5 * error).all()
    assert (np.abs(mean - 1.1 * exact) > 5 * error)[:2].all()


@pytest.mark.parametrize(("alpha", "batch"), [(0.1, 16), (0.5, 4), (0.8, 4)])
def test_two_dimensions(alpha, batch):
    law = LinearStudent(alpha, batch, 0.3)
    b, d = alpha / batch, 2 - alpha
    assert law.spacing() / law.width == pytest.approx(np.sqrt(2 * np.pi * d / ((d + b) * (d - 3 * b))))
    assert law.asymmetry() / law.width == pytest.approx(np.sqrt(8 * b * d / ((d - b) * (d - 3 * b) * (d + b))))
    p, q, r = law.moments()
    one = np.eye(2)
    parts = [np.einsum(f"{pair},{other}->iajb", one, one) for pair, other in (("ij", "ab"), ("ib", "aj"), ("ia", "jb"))]
    assert spacing_of(p * parts[0] + q * parts[1] + r * parts[2]) == pytest.approx(law.spacing())


def test_small_steps_are_a_coulomb_gas():
    law = LinearStudent(1e-5, 4, 0.3)
    assert law.spacing() == pytest.approx(mean_spacing(law.width), rel=1e-4)
    assert law.asymmetry() < 3e-3 * law.width


def students(sampling, inputs):
    """W after 40 steps at alpha = 0.4, B = 16, of 1000 replicas."""
    task = linear_students(inputs)
    rule = sgd(optax.sgd(0.4), 16, sampling=sampling, noise=symmetric_noise(0.1 / 4))
    run = simulate(task, rule, 40, jax.random.split(jax.random.key(2), 1000))
    return np.asarray(task.tree(run.final["weights"]), float)


def spacings(weights):
    values = np.linalg.svd(weights, compute_uv=False)
    return values[..., 0] - values[..., 1]


def test_fresh_data():
    """Means within 4 standard errors and the law's 2 %, Kolmogorov's test at p = 1e-3: a false alarm in 500."""
    law = LinearStudent(0.4, 16, 0.1)
    drawn = np.random.default_rng(0).standard_normal((2**14, 1, 2))
    weights = students("replacement", drawn / drawn.std())[:, 0]
    found = spacings(weights) / law.spacing()
    assert found.mean() == pytest.approx(1, abs=0.02 + 4 * 0.5227 / np.sqrt(1000))
    assert kstest(found, spacing_distribution).pvalue > 1e-3
    assert kstest(1.1 * found, spacing_distribution).pvalue < 1e-3
    crooked = (weights[:, 0, 1] - weights[:, 1, 0]).std() / law.asymmetry()
    assert crooked == pytest.approx(1, abs=4 / np.sqrt(2 * 1000))


def test_frozen_data():
    """Three draws, each within 4 standard errors of its own exact law, which differ: a false alarm in 5000."""
    law = LinearStudent(0.4, 16, 0.1)
    inputs = np.random.default_rng(8).standard_normal((40 * 16, 3, 2))
    found = spacings(students("order", inputs)).mean(axis=0)
    exact = np.array([spacing_of(law.given_inputs(inputs[:, k].reshape(40, 16, 2))) for k in range(3)])
    assert np.ptp(exact) > 0.05 * exact.mean()
    np.testing.assert_allclose(found / exact, 1, atol=4 * 0.5227 / np.sqrt(1000))


def test_out_of_range():
    for numbers in ((0.0, 4, 0.1), (0.1, 0, 0.1), (0.1, 4, 0.0), (0.1, 4, 0.1, 0), (1.3, 4, 0.1)):
        with pytest.raises(PackingError):
            LinearStudent(*numbers)
    with pytest.raises(PackingError, match="inputs of shape"):
        LinearStudent(0.1, 4, 0.1).given_inputs(np.zeros((5, 3, 2)))
    with pytest.raises(PackingError, match="inputs of shape"):
        linear_students(np.zeros((5, 2)))
    with pytest.raises(PackingError, match="noise"):
        symmetric_noise(-1.0)
