"""The SDE of a mode, against matrix exponentials in 60 digits, numerical integration, and published periods."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from packing_jax.errors import PackingError
from packing_jax.networks.theory import heavy_ball
from packing_jax.networks.theory.heavy_ball import Covariance, HeavyBall

BALL = HeavyBall(learning_rate=0.1, momentum=0.9, batch_size=4, residual=1.3)
CRITICAL = BALL.damping**2 * BALL.learning_rate * (1 + BALL.momentum) / 2  # the rho at which omega = gamma

#: deeply overdamped, overdamped, critical and next to it on both sides, underdamped
CURVATURES = CRITICAL * np.array([1e-8, 1e-3, 0.5, 1 - 1e-6, 1 - 1e-12, 1.0, 1 + 1e-12, 1 + 1e-6, 2.0, 1e3])
TIMES = np.array([1e-6, 1e-3, 0.1, 1.0, 7.0, 60.0]) / BALL.damping


def in_many_digits(ball, rho, tau):
    """e^(A tau) and the covariance from a point, by mpmath, whose rounding is 60 digits away."""
    with mpmath.workdps(60):
        h, eta, beta = mpmath.mpf(rho), mpmath.mpf(ball.learning_rate), mpmath.mpf(ball.momentum)
        gamma, square = (1 - beta) / (eta * (1 + beta)), 2 * h / (eta * (1 + beta))
        exponential = mpmath.expm(mpmath.matrix([[0, 1], [-square, -2 * gamma]]) * mpmath.mpf(tau))
        q2 = mpmath.mpf(ball.residual) ** 2 * h / ball.batch_size
        stationary = mpmath.diag([eta * q2 / (2 * (1 - beta) * h), q2 / (1 - beta**2)])
        covariance = stationary - exponential * stationary * exponential.T
        return np.array(exponential.tolist(), float), np.array(covariance.tolist(), float)


@pytest.mark.parametrize("rho", CURVATURES, ids=lambda rho: f"{rho / CRITICAL:.12g}")
def test_every_damping_regime_keeps_its_digits(rho):
    for tau in TIMES:
        exponential, covariance = in_many_digits(BALL, rho, tau)
        move = heavy_ball.response(BALL, rho, tau)
        # rates of order 1e2 per unit of tau and phases of up to 2e3: rounding of the arguments is what is left
        scale = 1e-13 * (1 + float(BALL.frequency(rho)) * tau)
        np.testing.assert_allclose([move.relaxation, move.kick], exponential[0], rtol=30 * scale, atol=scale * 1e-3)
        np.testing.assert_allclose(move.velocity, exponential[1, 1], rtol=30 * scale, atol=scale * 1e-3)
        found = heavy_ball.covariance(BALL, rho, tau)
        expected = [covariance[0, 0], covariance[0, 1], covariance[1, 1]]
        np.testing.assert_allclose(found, expected, rtol=100 * scale, atol=1e-20)


def test_forgetting_keeps_its_digits():
    for rho in CURVATURES:
        for tau in TIMES:
            with mpmath.workdps(60):
                h, eta, beta = mpmath.mpf(rho), mpmath.mpf(BALL.learning_rate), mpmath.mpf(BALL.momentum)
                gamma, square = (1 - beta) / (eta * (1 + beta)), 2 * h / (eta * (1 + beta))
                expected = float(1 - mpmath.expm(mpmath.matrix([[0, 1], [-square, -2 * gamma]]) * tau)[0, 0])
            np.testing.assert_allclose(heavy_ball.lost_memory(BALL, rho, tau), expected, rtol=1e-10)


@pytest.mark.parametrize("decay", [0.0, 0.4])
@pytest.mark.parametrize("rho", [0.1 * CRITICAL, CRITICAL, 30 * CRITICAL])
def test_moments_obey_their_equations(rho, decay):
    """d<z> = A <z>, dSigma = A Sigma + Sigma A^T + noise, integrated from a start with place, velocity and spread."""
    ball = HeavyBall(learning_rate=0.1, momentum=0.9, batch_size=4, residual=1.3, weight_decay=decay)
    start = Covariance(0.3, -0.1, 2.0)
    drift = np.array([[0, 1], [-2 * (rho + decay) / 0.19, -2 * 0.1 / 0.19]])
    # a step's kick of -eta v' has the variance eta^2 q^2, in (eta/2)(1+beta) x'' over a time of eta
    noise = np.diag([0, 4 * 1.3**2 * rho / 4 / 0.1 / 1.9**2])

    def slope(_, state):
        sigma = state[2:].reshape(2, 2)
        return np.concatenate([drift @ state[:2], (drift @ sigma + sigma @ drift.T + noise).ravel()])

    times = np.linspace(0.05, 3, 7)
    first = np.concatenate([[0.7, -2.0], [start.position, start.cross, start.cross, start.velocity]])
    found = solve_ivp(slope, (0, 3), first, t_eval=times, rtol=1e-11, atol=1e-13).y
    np.testing.assert_allclose(heavy_ball.mean(ball, rho, times, 0.7, -2.0), found[:2], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(heavy_ball.covariance(ball, rho, times, start), found[[2, 3, 5]], rtol=1e-7, atol=1e-9)


def test_every_start_comes_to_the_stationary_state():
    at_rest = heavy_ball.stationary(BALL, CURVATURES[1:])
    late = heavy_ball.covariance(BALL, CURVATURES[1:], 1e6 / BALL.damping, Covariance(5.0, 1.0, 9.0))
    np.testing.assert_allclose(late, at_rest, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(at_rest.position, 0.1 * 1.3**2 / (2 * 4 * 0.1))  # isotropic without weight decay
    staying = heavy_ball.covariance(
        BALL, CURVATURES[:, None], TIMES, Covariance(*(p[:, None] for p in heavy_ball.stationary(BALL, CURVATURES)))
    )
    np.testing.assert_allclose(staying.position, np.full((10, 6), at_rest.position[0]), rtol=1e-12)


def test_published_periods_and_decays():
    """Figure 2 of arXiv:2107.09133, eta 1e-5: a top eigenvalue of 919 gives the three periods to all their digits."""
    rho = 919.0
    periods, decays = [], []
    for beta in (0.9, 0.99, 0.999):
        ball = HeavyBall(learning_rate=1e-5, momentum=beta, batch_size=512)
        periods.append(2 * np.pi / np.sqrt(ball.frequency(rho) ** 2 - ball.damping**2) / 1e-5)
        decays.append(1 / ball.damping / 1e-5)
    np.testing.assert_allclose(periods, [75.6, 65.5, 65.5], atol=0.06)
    np.testing.assert_allclose(decays, [19, 199, 1999], rtol=1e-9)


def test_finite_data_is_quieter():
    share = HeavyBall(learning_rate=0.1, batch_size=20, samples=100).batch_noise
    np.testing.assert_allclose(share, 80 / (20 * 99))
    assert HeavyBall(learning_rate=0.1, batch_size=100, samples=100).batch_noise == 0
    assert HeavyBall(learning_rate=0.1, batch_size=1, samples=100).batch_noise == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": 0.0}, "learning rate is 0.0"),
        ({"learning_rate": float("inf")}, "learning rate"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"residual": -1.0}, "residual"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"batch_size": 11, "samples": 10}, "batch of 11"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(PackingError, match=words):
        HeavyBall(**{"learning_rate": 0.1, **settings})


def test_bad_curvatures():
    with pytest.raises(PackingError, match="below 0"):
        heavy_ball.mean(BALL, -1.0, 1.0)
    with pytest.raises(PackingError, match="diffuses"):
        heavy_ball.stationary(BALL, [1.0, 0.0])
