"""Stationary densities, currents and the annealing rule, against the published process and the SDE of a mode."""

import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.theory import heavy_ball
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.modified_loss import (
    annealed,
    area_per_time_of_steps,
    decomposed,
    modified_loss,
    phase_space_drift,
    sharpness,
    stationary_covariance_of_steps,
)

DRIFT = [[2.5, -1.5], [-1.5, 2.5]]
NOISE = [[4.0, 0.0], [0.0, 1.0]]
ETA = 1e-4
BALL = HeavyBall(learning_rate=0.05, momentum=0.9, batch_size=8, residual=1.5, weight_decay=0.3)


def test_published_process():
    process = decomposed(DRIFT, NOISE)
    np.testing.assert_allclose(process.covariance(ETA), ETA / 2 * np.array([[2.1625, 0.9375], [0.9375, 0.9625]]))
    np.testing.assert_allclose(process.rotation, [[0, 0.9], [-0.9, 0]], atol=1e-12)
    np.testing.assert_allclose((process.diffusion + process.rotation) @ process.stiffness, DRIFT, rtol=1e-12)
    np.testing.assert_allclose(process.area_per_time(ETA)[0, 1], ETA / 2 * 0.9)


def test_the_current_carries_no_mass_anywhere():
    """Its divergence vanishes, and it runs along lines of equal density."""
    process, h = decomposed(DRIFT, NOISE), 1e-6
    x = np.array([0.3, -0.8])
    step = h * np.eye(2)
    ahead, behind = process.current(1.0, x + step), process.current(1.0, x - step)
    scale = np.abs(process.current(1.0, x)).max()
    assert abs(np.trace(ahead - behind) / (2 * h)) < 1e-7 * scale
    assert abs(process.current(1.0, x) @ process.stiffness @ x) < 1e-12 * scale


def test_current_adds_up_to_the_swept_area():
    """(1/2) Int (x_1 j_2 - x_2 j_1) = (eta/2) Q_12, by a sum over a fine grid."""
    process = decomposed(DRIFT, NOISE)
    line = np.linspace(-9, 9, 401)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    current = process.current(1.0, x)
    swept = (x[..., 0] * current[..., 1] - x[..., 1] * current[..., 0]).sum() * (line[1] - line[0]) ** 2 / 2
    np.testing.assert_allclose(swept, process.area_per_time(1.0)[0, 1], rtol=1e-6)


def test_steps_of_any_learning_rate():
    """The fixed point of the recursion; at small learning rates that of the process."""
    for eta in (0.3, ETA):
        sigma = stationary_covariance_of_steps(DRIFT, NOISE, eta)
        step = np.eye(2) - eta * np.array(DRIFT)
        np.testing.assert_allclose(step @ sigma @ step.T + eta**2 * np.array(NOISE), sigma, rtol=1e-9)
    process = decomposed(DRIFT, NOISE)
    np.testing.assert_allclose(sigma, process.covariance(ETA), rtol=1e-3)
    np.testing.assert_allclose(
        area_per_time_of_steps(DRIFT, NOISE, ETA)[0, 1], process.area_per_time(ETA)[0, 1], rtol=1e-3
    )


def test_swept_area_by_simulation():
    """1000 copies, 400 steps in the stationary state at eta = 0.05; five errors, a false alarm in 1e6."""
    rng, eta = np.random.default_rng(0), 0.05
    a, spread = np.array(DRIFT), np.linalg.cholesky(stationary_covariance_of_steps(DRIFT, NOISE, 0.05))
    x = rng.standard_normal((1000, 2)) @ spread.T
    swept = np.zeros(1000)
    for _ in range(400):
        dx = -eta * x @ a.T + eta * rng.standard_normal((1000, 2)) * [2.0, 1.0]
        swept += (x[:, 0] * dx[:, 1] - x[:, 1] * dx[:, 0]) / 2 / (400 * eta)
        x = x + dx
    expected = area_per_time_of_steps(DRIFT, NOISE, eta)[0, 1]
    assert abs(swept.mean() - expected) < 5 * swept.std() / np.sqrt(1000)
    assert swept.std() / np.sqrt(1000) < expected / 10


def test_a_mode_in_phase_space():
    process = phase_space_drift(BALL, 2.0)
    at_rest = heavy_ball.stationary(BALL, 2.0)
    np.testing.assert_allclose(
        process.covariance(0.05), np.diag([at_rest.position, at_rest.velocity]), rtol=1e-10, atol=1e-15
    )
    np.testing.assert_allclose(process.rotation[0, 1], -2 / 0.05 * at_rest.velocity, rtol=1e-10)


def test_density_of_the_modified_loss():
    """exp(-kappa Psi) is the Gaussian with the stationary variances: Psi of one standard deviation is 1/(2 kappa)."""
    rho = np.array([0.2, 3.0])
    at_rest = heavy_ball.stationary(BALL, rho)
    for mode in np.eye(2):
        np.testing.assert_allclose(
            modified_loss(BALL, rho, mode * np.sqrt(at_rest.position)) * sharpness(BALL), 0.5, rtol=1e-12
        )
        np.testing.assert_allclose(
            modified_loss(BALL, rho, 0.0, mode * np.sqrt(at_rest.velocity)) * sharpness(BALL), 0.5, rtol=1e-12
        )


@pytest.mark.parametrize("share", [0.5, 2.0, 4.0])
def test_annealing_keeps_variances_and_frequency(share):
    other = annealed(BALL, share)
    assert other.batch_size == 8 / share
    rho = np.array([0.2, 3.0])
    np.testing.assert_allclose(heavy_ball.stationary(other, rho), heavy_ball.stationary(BALL, rho), rtol=1e-12)
    np.testing.assert_allclose(other.frequency(rho), BALL.frequency(rho), rtol=1e-12)
    assert (other.damping > BALL.damping) == (share > 1)


def test_bad_input():
    for share, words in ((0.0, "above 0"), (6.0, "at most 5.26"), (0.7, "whole number")):
        with pytest.raises(PackingError, match=words):
            annealed(BALL, share)
    with pytest.raises(PackingError, match="finite set"):
        annealed(HeavyBall(learning_rate=0.1, batch_size=8, samples=100), 2.0)
    with pytest.raises(PackingError, match="does not settle"):
        decomposed([[-1.0, 0.0], [0.0, 1.0]], NOISE)
    with pytest.raises(PackingError, match="not reach"):
        decomposed([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(PackingError, match="one size"):
        decomposed([[1.0]], NOISE)
    with pytest.raises(PackingError, match="do not settle"):
        stationary_covariance_of_steps(DRIFT, NOISE, 1.0)
    with pytest.raises(PackingError, match="above 0"):
        modified_loss(BALL, [0.0], [1.0])
