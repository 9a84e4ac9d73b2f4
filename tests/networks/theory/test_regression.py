"""Second moments of SGD on linear regression, against enumerated batches and simulations with stated false alarms."""

import itertools

import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.theory import discrete
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.regression import FiniteData, moments_on_fresh_data, stationary_on_fresh_data

RHO = np.array([2.0, 0.5, 0.1])


def data(samples=6, weights=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, weights)), rng.standard_normal(samples)


@pytest.mark.parametrize("replaced", [False, True])
def test_noise_of_every_batch(replaced):
    """The covariance over all batches that there are, at a spread of places, of 6 samples in batches of 3."""
    a, y = data()
    ball = HeavyBall(learning_rate=0.1, batch_size=3, samples=None if replaced else 6, weight_decay=0.2)
    problem = FiniteData(ball, a, y)
    places = np.random.default_rng(1).normal([0.5, 1.0], 1.0, (5, 2))  # theta, each with the same probability
    batches = itertools.product(range(6), repeat=3) if replaced else itertools.combinations(range(6), 3)
    batches = np.array(list(batches))
    noise = 0
    for theta in places:
        gradients = np.array([(a[b] * (a[b] @ theta - y[b])[:, None]).mean(0) for b in batches])
        noise = noise + np.cov(gradients.T, bias=True) / len(places)
    offset = places - problem.minimum
    found = problem.gradient_noise(offset.mean(0), offset.T @ offset / len(places))
    np.testing.assert_allclose(found, noise, rtol=1e-10)


def test_finite_data_by_simulation():
    """Mean and covariance at three steps from 40,000 copies: 42 numbers within 5 errors, a false alarm in 4e4 runs."""
    a, y = data()
    ball = HeavyBall(learning_rate=0.1, momentum=0.5, batch_size=2, samples=6, weight_decay=0.1)
    problem, copies, rng = FiniteData(ball, a, y), 40_000, np.random.default_rng(2)
    start = np.array([1.0, -1.0])
    theta, v = np.tile(start, (copies, 1)), np.zeros((copies, 2))
    steps = [1, 4, 60]
    means, covariances = problem.moments(steps, start)
    for k in range(1, 61):
        batch = np.argsort(rng.random((copies, 6)))[:, :2]
        rows = a[batch]
        off = np.einsum("csd,cd->cs", rows, theta) - y[batch]
        v = 0.5 * v + np.einsum("csd,cs->cd", rows, off) / 2 + 0.1 * theta
        theta = theta - 0.1 * v
        if k in steps:
            at = steps.index(k)
            z = np.concatenate([theta - problem.minimum, v], 1)
            centred = z - z.mean(0)
            products = centred[:, :, None] * centred[:, None, :]
            assert (np.abs(z.mean(0) - means[at]) < 5 * z.std(0) / 200).all()
            assert (np.abs(products.mean(0) - covariances[at]) < 5 * products.std(0) / 200).all()


def test_finite_data_settle():
    a, y = data(40, 3)
    ball = HeavyBall(learning_rate=0.05, momentum=0.9, batch_size=4, samples=40, weight_decay=0.05)
    problem = FiniteData(ball, a, y)
    _, late = problem.moments([4000], problem.minimum)
    np.testing.assert_allclose(late[0], problem.stationary(), rtol=1e-8, atol=1e-14)
    full = FiniteData(HeavyBall(learning_rate=0.05, batch_size=40, samples=40), a, y)
    np.testing.assert_allclose(full.stationary(), 0, atol=1e-20)


def test_small_learning_rates_see_the_noise_of_the_minimum():
    """Where residuals know nothing of the features, the modes are those of the discrete recursion, s^2 rho/S."""
    rng = np.random.default_rng(5)
    a, _ = np.linalg.qr(rng.standard_normal((400, 2)))
    a = a * np.sqrt(400 * np.array([2.0, 0.5]))
    y = rng.choice([-1.0, 1.0], 400)
    ball = HeavyBall(learning_rate=1e-4, momentum=0.9, batch_size=4, samples=400)
    problem = FiniteData(ball, a, y - a @ np.linalg.lstsq(a, y, rcond=None)[0])
    expected = discrete.stationary(ball, [2.0, 0.5]).position
    np.testing.assert_allclose(np.diag(problem.stationary())[:2], expected, rtol=0.02)


def test_fresh_data_settle():
    ball = HeavyBall(learning_rate=0.1, momentum=0.8, batch_size=4, residual=0.7)
    at_rest = stationary_on_fresh_data(ball, RHO)
    late = moments_on_fresh_data(ball, RHO, [0, 5000], [1.0, 2.0, 0.0])
    np.testing.assert_allclose(late[0], [[1.0, 4.0, 0.0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(late[1], at_rest, rtol=1e-9)
    assert (at_rest.position > discrete.stationary(ball, RHO).position).all()
    soft = HeavyBall(learning_rate=1e-6, momentum=0.8, batch_size=4, residual=0.7)
    np.testing.assert_allclose(stationary_on_fresh_data(soft, RHO), discrete.stationary(soft, RHO), rtol=1e-5)
    quiet = HeavyBall(learning_rate=0.1, batch_size=4, residual=0.0)
    assert stationary_on_fresh_data(quiet, RHO).position.sum() == 0


def test_fresh_data_by_simulation():
    """Second moments at two steps from 50,000 copies: 18 numbers within 5 errors, a false alarm in 1e5 runs."""
    ball = HeavyBall(learning_rate=0.1, momentum=0.5, batch_size=2, residual=0.7)
    copies, rng = 50_000, np.random.default_rng(4)
    start = np.array([1.0, -1.0, 2.0])
    x, v = np.tile(start, (copies, 1)), np.zeros((copies, 3))
    expected = moments_on_fresh_data(ball, RHO, [3, 25], start)
    for k in range(1, 26):
        rows = rng.standard_normal((copies, 2, 3)) * np.sqrt(RHO)
        off = np.einsum("csd,cd->cs", rows, x) - 0.7 * rng.standard_normal((copies, 2))
        v = 0.5 * v + np.einsum("csd,cs->cd", rows, off) / 2
        x = x - 0.1 * v
        if k in (3, 25):
            products = np.stack([x * x, x * v, v * v], 1)
            errors = products.std(0) / np.sqrt(copies)
            assert (np.abs(products.mean(0) - expected[(3, 25).index(k)]) < 5 * errors).all()


def test_what_grows_is_refused():
    """Single samples of ten equal modes: second moments grow above eta = 2/(d + 2), where the mean still settles."""
    rho = np.ones(10)
    stationary_on_fresh_data(HeavyBall(learning_rate=0.166), rho)
    with pytest.raises(PackingError, match="second moments grow"):
        stationary_on_fresh_data(HeavyBall(learning_rate=0.167), rho)
    a, y = data(40, 10)
    with pytest.raises(PackingError, match="second moments grow"):
        FiniteData(HeavyBall(learning_rate=0.4, samples=40), a, y).stationary()
    with pytest.raises(PackingError, match="mean does not settle"):
        FiniteData(HeavyBall(learning_rate=9.0, samples=40), a, y).stationary()


def test_bad_input():
    a, y = data()
    with pytest.raises(PackingError, match=r"\(P, d\)"):
        FiniteData(HeavyBall(learning_rate=0.1), a, y[:5])
    with pytest.raises(PackingError, match="from 7 samples"):
        FiniteData(HeavyBall(learning_rate=0.1, samples=7), a, y)
    with pytest.raises(PackingError, match="flat"):
        _ = FiniteData(HeavyBall(learning_rate=0.1), a[:1], y[:1]).minimum
    with pytest.raises(PackingError, match="increasing whole"):
        FiniteData(HeavyBall(learning_rate=0.1), a, y).moments([3, 1], [0.0, 0.0])
    with pytest.raises(PackingError, match="FiniteData has both"):
        stationary_on_fresh_data(HeavyBall(learning_rate=0.1, weight_decay=0.1), RHO)
