"""Displacements: sums of modes, limits, and the exponents that a spectrum makes."""

import time

import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.theory import discrete, displacement, heavy_ball
from packing_jax.networks.theory.heavy_ball import HeavyBall

BALL = HeavyBall(learning_rate=0.05, momentum=0.9, batch_size=8, residual=1.5)
RHO = np.array([0.01, 0.1, 1.0, 7.0])


def test_per_step():
    """Two neighbouring steps of the stationary state: Var(x' - x) = 2 Var x - 2 Cov(x, x')."""
    by_correlation = np.sum(2 * discrete.stationary(BALL, RHO).position * (1 - discrete.correlation(BALL, RHO, 1)))
    np.testing.assert_allclose(displacement.per_step(BALL, RHO), by_correlation, rtol=1e-10)
    soft = HeavyBall(learning_rate=1e-7, momentum=0.9, batch_size=8, residual=1.5)
    np.testing.assert_allclose(displacement.per_step(soft, RHO), displacement.per_step_law(soft, RHO), rtol=1e-6)
    np.testing.assert_allclose(displacement.per_step_law(BALL, RHO), 0.05**2 * 1.5**2 * RHO.sum() / (8 * 0.19))


def test_exact_displacements_by_brute_force():
    steps = np.array([1, 2, 9, 100])
    from_rest, from_stationary = np.zeros(4), np.zeros(4)
    offset = np.array([1.0, -2.0, 0.5, 0.1])
    for rho, a0 in zip(RHO, offset, strict=True):
        matrix = discrete.step_matrix(BALL, rho)
        xx, xv, vv = discrete.stationary(BALL, rho)
        sigma = np.array([[xx, xv], [xv, vv]])
        noise = BALL.gradient_noise(rho) * np.outer([-0.05, 1], [-0.05, 1])
        spread, place = np.zeros((2, 2)), np.array([a0, 0.0])
        for k in range(1, 101):
            spread, place = matrix @ spread @ matrix.T + noise, matrix @ place
            if k in steps:
                at = list(steps).index(k)
                from_rest[at] += spread[0, 0] + (place[0] - a0) ** 2
                from_stationary[at] += 2 * (xx - (np.linalg.matrix_power(matrix, k) @ sigma)[0, 0])
    np.testing.assert_allclose(displacement.from_fixed_point_exactly(BALL, RHO, steps, offset), from_rest, rtol=1e-9)
    np.testing.assert_allclose(displacement.from_stationary_state_exactly(BALL, RHO, steps), from_stationary, rtol=1e-9)


def test_the_sde_is_their_limit():
    soft = HeavyBall(learning_rate=1e-4, momentum=0.998, batch_size=8, residual=1.5)
    steps = np.array([300, 1000, 30_000])
    for sde, exactly in (
        (displacement.from_stationary_state, displacement.from_stationary_state_exactly),
        (displacement.from_fixed_point, displacement.from_fixed_point_exactly),
    ):
        np.testing.assert_allclose(sde(soft, RHO, steps), exactly(soft, RHO, steps), rtol=5e-3)


def test_ballistic_first_and_stationary_at_last():
    """From rest at a0 the mean moves as (omega^2 a0 tau^2/2)^2; late, the place is forgotten."""
    early = displacement.from_fixed_point(BALL, RHO, [1e-6], 3.0) - displacement.from_fixed_point(BALL, RHO, [1e-6])
    expected = np.sum((BALL.frequency(RHO) ** 2 * 3.0 * (0.05 * 1e-6) ** 2 / 2) ** 2)
    np.testing.assert_allclose(early, expected, rtol=1e-5)
    late = displacement.from_fixed_point(BALL, RHO, [1e9], 3.0)
    np.testing.assert_allclose(late, np.sum(9 + heavy_ball.stationary(BALL, RHO).position))
    np.testing.assert_allclose(
        displacement.from_stationary_state(BALL, RHO, [1e9]), 2 * np.sum(heavy_ball.stationary(BALL, RHO).position)
    )


@pytest.mark.parametrize(("exponent", "low", "high"), [(2.0, 0.49, 0.53), (3.0, 0.33, 0.38)])
def test_a_spectrum_makes_the_exponent(exponent, low, high):
    """c = 1/a between 1/rho_max and 1/rho_min: 2e5 modes, in seconds and without much memory."""
    ball = HeavyBall(learning_rate=0.5, batch_size=1)
    clock = time.perf_counter()
    rho = displacement.power_law_spectrum(200_000, exponent)
    for last in (1e3, 1e5, 1e7):
        steps = np.linspace(last / 100, last, 40)
        c = displacement.fitted_exponent(steps, displacement.from_fixed_point(ball, rho, steps))
        assert low < c < high
    assert time.perf_counter() - clock < 20


def test_blocks_do_not_show(monkeypatch):
    rho, steps = displacement.power_law_spectrum(1000, 2.0), np.linspace(10, 1000, 30)
    offset = np.linspace(0, 1, 1000)
    whole = displacement.from_fixed_point(BALL, rho, steps, offset)
    monkeypatch.setattr(displacement, "_BLOCK", 999)
    np.testing.assert_allclose(displacement.from_fixed_point(BALL, rho, steps, offset), whole, rtol=1e-12)


def test_exponents_of_power_laws():
    steps = np.linspace(1, 100, 50)
    assert displacement.fitted_exponent(steps, 3 * steps**0.7) == pytest.approx(0.7)
    for bad in (([1.0], [1.0]), ([0.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 1.0]), ([1.0, 2.0], [1.0, np.nan])):
        with pytest.raises(PackingError, match="two steps or more"):
            displacement.fitted_exponent(*bad)
    with pytest.raises(PackingError, match="at least 1"):
        displacement.power_law_spectrum(0, 2.0)
