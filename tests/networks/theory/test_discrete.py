"""The exact recursion of a mode, against brute force, a simulation with a stated rate of false alarms, and the SDE."""

import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.theory import discrete, heavy_ball
from packing_jax.networks.theory.heavy_ball import Covariance, HeavyBall

CASES = [(beta, stiffness) for beta in (0.0, 0.9, 0.99) for stiffness in (0.01, 0.2, 1.0, 1.5)]


def ball(beta, eta=0.1, **more):
    return HeavyBall(learning_rate=eta, momentum=beta, batch_size=3, residual=0.8, **more)


@pytest.mark.parametrize(("beta", "stiffness"), [*CASES, (0.5, 3.5), (0.5, 0.0)])
def test_brute_force(beta, stiffness):
    """Step by step from any start, the last two of modes that never settle."""
    decay = 0.0 if stiffness == 0 else 0.02
    settings = ball(beta, weight_decay=decay)
    rho = max(stiffness / 0.1 - decay, 0.0)
    h, q2 = rho + decay, 0.8**2 * rho / 3
    start = Covariance(0.4, -0.2, 1.5)
    mean, sigma = np.array([0.7, -1.0]), np.array([[0.4, -0.2], [-0.2, 1.5]])
    matrix, kick = np.array([[1 - 0.1 * h, -0.1 * beta], [h, beta]]), np.array([-0.1, 1.0])
    steps = [0, 1, 2, 3, 10, 77, 200]
    means, sigmas = [], []
    for k in range(201):
        if k in steps:
            means.append(mean)
            sigmas.append(sigma[[0, 0, 1], [0, 1, 1]])
        mean, sigma = matrix @ mean, matrix @ sigma @ matrix.T + q2 * np.outer(kick, kick)
    np.testing.assert_allclose(
        np.transpose(discrete.mean(settings, rho, steps, 0.7, -1.0)), means, rtol=1e-9, atol=1e-13
    )
    np.testing.assert_allclose(
        np.transpose(discrete.covariance(settings, rho, steps, start)), sigmas, rtol=1e-9, atol=1e-13
    )


@pytest.mark.parametrize(("beta", "stiffness"), CASES)
def test_stationary_values_stay(beta, stiffness):
    settings, rho = ball(beta), stiffness / 0.1
    at_rest = discrete.stationary(settings, rho)
    np.testing.assert_allclose(discrete.covariance(settings, rho, 1, at_rest), at_rest, rtol=1e-12)
    np.testing.assert_allclose(discrete.covariance(settings, rho, 10**6), at_rest, rtol=1e-8)


def test_simulation():
    """All six moments of 20,000 copies at 4 times, a run to run error of 5 sigma: a false alarm in 1e5 runs."""
    settings, rho, copies = ball(0.9), 4.0, 20_000
    rng = np.random.default_rng(3)
    x, v = np.full(copies, 2.0), np.zeros(copies)
    steps, found = [1, 5, 30, 200], []
    for k in range(1, 201):
        v = 0.9 * v + rho * x + np.sqrt(0.8**2 * rho / 3) * rng.standard_normal(copies)
        x = x - 0.1 * v
        if k in steps:
            found.append([x.mean(), v.mean(), x.var(), np.cov(x, v)[0, 1], v.var()])
    mean = np.transpose(discrete.mean(settings, rho, steps, 2.0))
    xx, xv, vv = discrete.covariance(settings, rho, steps)
    errors = np.sqrt(np.stack([xx, vv, 2 * xx**2, xx * vv + xv**2, 2 * vv**2], -1) / copies)
    expected = np.column_stack([mean, xx, xv, vv])
    assert (np.abs(np.array(found) - expected) < 5 * errors).all()


def test_sde_is_the_limit_of_small_learning_rates():
    """At fixed gamma and omega the difference falls in proportion to eta."""
    differences = []
    for eta in (1e-2, 1e-3, 1e-4):
        beta, rho = 1 - 2 * eta, 4 * eta  # gamma near 1, omega near 2
        settings, tau = ball(beta, eta), np.array([0.5, 1.0, 3.0])
        steps = np.round(tau / eta).astype(int)
        exact = discrete.covariance(settings, rho, steps)
        sde = heavy_ball.covariance(settings, rho, steps * eta)
        mean = np.abs(discrete.mean(settings, rho, steps, 1.0)[0] - heavy_ball.mean(settings, rho, steps * eta, 1.0)[0])
        differences.append([np.max(np.abs(exact.position / sde.position - 1)), np.max(mean)])
    ratios = np.array(differences[:-1]) / differences[1:]
    assert (ratios > 7).all()
    assert (ratios < 13).all()


def test_correlation_decays_from_one():
    settings = ball(0.9)
    steps = np.array([0, 1, 7, 5000])
    rho = 4.0
    matrix, sigma = discrete.step_matrix(settings, rho), np.array(discrete.stationary(settings, rho))[[[0, 1], [1, 2]]]
    brute = [(np.linalg.matrix_power(matrix, k) @ sigma)[0, 0] / sigma[0, 0] for k in steps[:3]]
    np.testing.assert_allclose(discrete.correlation(settings, rho, steps), [*brute, 0.0], atol=1e-12)


def test_what_does_not_settle_is_refused():
    with pytest.raises(PackingError, match=r"between 0 and 3\.8"):
        discrete.stationary(ball(0.9), 38.0)
    with pytest.raises(PackingError, match="whole numbers"):
        discrete.mean(ball(0.9), 1.0, 1.5)
    with pytest.raises(PackingError, match="whole numbers"):
        discrete.covariance(ball(0.9), 1.0, [-1])
