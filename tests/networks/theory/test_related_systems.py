"""Laws of systems beside the perceptron and the SDE of SGD, against plain loops, enumerations and linear solves."""

import itertools

import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.theory import balance, implicit, low_rank, nag_gs
from packing_jax.networks.theory.fluctuation_dissipation import covariance, dissipation, fluctuation, shared_batches
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.mean_field import MeanField
from packing_jax.networks.theory.regression import FiniteData
from packing_jax.networks.theory.stability import heat_learning_rate, largest_curvature

XY = np.array([1.5, -1.2, 1.0, -0.8])


class TestBalance:
    def test_a_step(self):
        u, w, x, y, eta = 0.8, -0.3, np.array([1.0, 0.7]), np.array([0.5, -1.0]), 0.3
        g = np.mean(2 * x * (u * w * x - y))
        after = (u - eta * w * g) ** 2 - (w - eta * u * g) ** 2
        np.testing.assert_allclose(after, (u**2 - w**2) * balance.balance_factor(eta, g), rtol=1e-14)

    @pytest.mark.parametrize("batch", [1, 3])
    def test_growth_over_all_batches(self, batch):
        means = np.array([np.mean(one) for one in itertools.product(XY, repeat=batch)])
        expected = [np.log(np.abs(1 + sign * 0.2 * means)).mean() for sign in (1, -1)]
        np.testing.assert_allclose(balance.growth_near_zero(0.1, XY, batch), expected, rtol=1e-12)

    def test_collapse(self):
        for batch in (1, 2):
            eta = balance.collapse_learning_rate(XY, batch)
            below, above = (balance.growth_near_zero(by * eta, XY, batch)[0] for by in (0.99, 1.01))
            assert below > 0 > above
        # weak data: the leading order S E/Var
        weak = np.array([0.101, -0.099])
        np.testing.assert_allclose(balance.collapse_learning_rate(weak, 1), weak.mean() / weak.var(), rtol=1e-3)

    def test_bad_input(self):
        for xy in ([1.0, 2.0], [-1.0, 0.5]):
            with pytest.raises(PackingError, match="mean of x y"):
                balance.collapse_learning_rate(xy, 1)
        with pytest.raises(PackingError, match="do not collapse"):
            balance.collapse_learning_rate([5.0] * 20 + [-0.1], 1)


class TestLowRank:
    rng = np.random.default_rng(0)
    target = np.array([[0.3, -0.8, 0.5], [-0.8, 1.2, 0.1], [0.5, 0.1, -0.6]])
    start = 0.3 * rng.standard_normal((3, 2))

    def test_by_small_steps(self):
        """Runge and Kutta's fourth order, with an error below 1e-9 at this step."""

        def slope(u):
            return -(u @ u.T - self.target) @ u

        u, h = self.start, 0.0025
        for _ in range(400):
            a = slope(u)
            b = slope(u + h / 2 * a)
            c = slope(u + h / 2 * b)
            u = u + h / 6 * (a + 2 * b + 2 * c + slope(u + h * c))
        found = low_rank.product(self.target, self.start, [0.0, 1.0])
        np.testing.assert_allclose(found[0], self.start @ self.start.T, atol=1e-14)
        np.testing.assert_allclose(found[1], u @ u.T, atol=1e-8)

    def test_one_mode_and_late_times(self):
        np.testing.assert_allclose(
            low_rank.product(np.array([[2.0]]), np.array([[0.1]]), [0.7])[0, 0, 0],
            low_rank.mode(2.0, 0.01, 0.7),
            rtol=1e-12,
        )
        np.testing.assert_allclose(low_rank.mode(2.0, 0.01, low_rank.learning_time(2.0, 0.01)), 1.0, rtol=1e-12)
        # all that is positive is learnt in the end, though e^(2Mt) then spans a hundred decades
        late = low_rank.product(np.diag([3.0, 0.1, 0.0, -1.0]), np.full((4, 4), 0.1) + 0.1 * np.eye(4), [200.0])[0]
        np.testing.assert_allclose(late, np.diag([3.0, 0.1, 0.0, 0.0]), atol=3e-3)

    def test_bad_input(self):
        with pytest.raises(PackingError, match="symmetric"):
            low_rank.product(np.array([[1.0, 2.0], [0.0, 1.0]]), np.ones((2, 1)), [1.0])
        with pytest.raises(PackingError, match="times"):
            low_rank.product(self.target, self.start, [1.0, 0.5])


def problem(samples=None, **more):
    rng = np.random.default_rng(3)
    a, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    return FiniteData(HeavyBall(learning_rate=0.1, batch_size=2, samples=samples, **more), a, y)


class TestFluctuationDissipation:
    @pytest.mark.parametrize("samples", [None, 6])
    def test_stationary(self, samples):
        """The linear solve against the iteration of FiniteData, which knows the noise in another form."""
        here = problem(samples)
        sigma = covariance(here)
        np.testing.assert_allclose(sigma, here.stationary()[:2, :2], rtol=1e-9)
        np.testing.assert_allclose(dissipation(here, sigma), fluctuation(here), rtol=1e-10, atol=1e-14)

    @pytest.mark.parametrize("samples", [None, 6])
    def test_shared_batches(self, samples):
        """One step, averaged over all batches there are."""
        here, d = problem(samples), np.array([0.4, -1.0])
        batches = itertools.product(range(6), repeat=2) if samples is None else itertools.combinations(range(6), 2)
        after = []
        for batch in batches:
            rows = here.features[list(batch)]
            after.append(d - 0.1 * rows.T @ (rows @ d) / 2)
        expected = np.mean([np.outer(one, one) for one in after], axis=0)
        found = shared_batches(here, d, 2)
        np.testing.assert_allclose(found[1], expected, rtol=1e-12)
        assert np.trace(found[2]) < np.trace(found[1]) < d @ d

    def test_bad_input(self):
        with pytest.raises(PackingError, match="without momentum"):
            covariance(problem(momentum=0.5))
        fast = problem()
        with pytest.raises(PackingError, match="grow without end"):
            covariance(FiniteData(HeavyBall(learning_rate=3.0), fast.features, fast.targets))


def test_mean_field_recursion():
    """The covariance of N particles after many steps of the linear recursion, as matrices."""
    law = MeanField(particles=4, learning_rate=0.3, temperature=0.7, pull=0.5, goal=2.0)
    n = 4
    step = (1 - 0.3 * 0.5) * np.eye(n) - 0.3 * np.ones((n, n)) / n
    sigma, mean = np.zeros((n, n)), np.zeros(n)
    for _ in range(400):
        sigma, mean = step @ sigma @ step.T + 2 * 0.3 * 0.7 * np.eye(n), step @ mean + 0.3 * 2.0
    np.testing.assert_allclose(mean, law.mean, rtol=1e-12)
    np.testing.assert_allclose(sigma.mean(), law.variance_of_mean, rtol=1e-12)
    np.testing.assert_allclose(np.trace(sigma) / n - sigma.mean(), law.centred_variance, rtol=1e-12)


def test_mean_field_refuses():
    good = {"particles": 4, "learning_rate": 0.3, "temperature": 0.7, "pull": 0.5, "goal": 2.0}
    with pytest.raises(PackingError, match="at least 1, at least 0"):
        MeanField(**(good | {"pull": 0.0}))
    with pytest.raises(PackingError, match="diverge"):
        MeanField(**(good | {"learning_rate": 1.4}))


def test_implicit_step_of_one_sample():
    """The solution of theta' = theta - eta a (a.theta' - y), by a linear solve."""
    rng = np.random.default_rng(0)
    a, theta, y = rng.standard_normal(3), rng.standard_normal(3), 0.7
    for eta in (0.1, 50.0):
        solved = np.linalg.solve(np.eye(3) + eta * np.outer(a, a), theta + eta * a * y)
        step = implicit.explicit_learning_rate(eta, a @ a)
        np.testing.assert_allclose(theta - step * a * (a @ theta - y), solved, rtol=1e-12)
    end = theta - implicit.explicit_learning_rate(np.inf, a @ a) * a * (a @ theta - y)
    np.testing.assert_allclose(a @ end, y, rtol=1e-12)
    np.testing.assert_allclose(implicit.contraction(3.0, 2.0), 1 / 7)


class TestNagGs:
    @pytest.mark.parametrize("ratio", [0.5, 3.0, 40.0])
    def test_matrix(self, ratio):
        """The equations of the method, literally, with mu = gamma = 2."""
        a, mu, x, v = 0.4, 2.0, 0.7, -0.3
        h = ratio * mu
        after = (x + a * v) / (1 + a)
        gamma = (mu + a * mu) / (1 + a)
        velocity = (gamma * v + a * mu * after - a * h * after) / (gamma + a * mu)
        matrix = nag_gs.step_matrix(a, ratio)
        np.testing.assert_allclose(matrix @ [x, v], [after, velocity], rtol=1e-13)
        trace, determinant = nag_gs.trace_and_determinant(a, ratio)
        np.testing.assert_allclose([np.trace(matrix), np.linalg.det(matrix)], [trace, determinant], rtol=1e-12)
        radius = np.abs(np.linalg.eigvals(matrix)).max()
        np.testing.assert_allclose(nag_gs.contraction(a, ratio), radius, rtol=1e-12)

    def test_limits(self):
        for a in (0.1, 1.0):
            np.testing.assert_allclose(nag_gs.contraction(a, nag_gs.largest_ratio(a)), 1.0, rtol=1e-9)
        best = nag_gs.best_step(100.0)
        np.testing.assert_allclose(nag_gs.contraction(best, [1.5, 30.0, 99.9]), 1 / (1 + best), rtol=1e-9)
        assert nag_gs.contraction(1.05 * best, 100.0) > 1 / (1 + 1.05 * best)
        with pytest.raises(PackingError, match="above 1"):
            nag_gs.best_step(1.0)


@pytest.mark.parametrize("dim", [1, 2])
def test_heat_equation(dim):
    """The largest eigenvalue of the grid's Laplacian, assembled."""
    n, dx = 6, 0.5
    line = (2 * np.eye(n) - np.roll(np.eye(n), 1, 0) - np.roll(np.eye(n), -1, 0)) / dx**2
    whole = line if dim == 1 else np.kron(line, np.eye(n)) + np.kron(np.eye(n), line)
    fastest = np.linalg.eigvalsh(whole)[-1]
    np.testing.assert_allclose(heat_learning_rate(dx, dim), 2 / fastest, rtol=1e-12)
    np.testing.assert_allclose(largest_curvature(heat_learning_rate(dx, dim, 0.5), 0.5), fastest, rtol=1e-12)
