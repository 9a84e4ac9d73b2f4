"""Averages over all orders of an epoch, entropy production, and integrals over spectra, against what is independent."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from packing_jax.errors import PackingError
from packing_jax.networks.theory import entropy
from packing_jax.networks.theory.diagonal import interpolator, potential
from packing_jax.networks.theory.epochs import ends_of_epochs, shifted_minimum
from packing_jax.networks.theory.fluctuation_dissipation import area_per_step, covariance
from packing_jax.networks.theory.gaussian_mixture import fresh_error, least_error
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.marchenko_pastur import loss_on_a_teacher, loss_on_random_labels, quadrature
from packing_jax.networks.theory.regression import FiniteData

RNG = np.random.default_rng(4)
FEATURES, TARGETS = RNG.standard_normal((4, 2)), RNG.standard_normal(4)


class TestEpochs:
    def test_stationary_ends(self):
        """The moments are those that an epoch in any of the 24 orders leaves as they are, from plain loops."""
        mean, sigma = ends_of_epochs(FEATURES, TARGETS, 1, 0.2)
        root = np.linalg.cholesky(sigma)
        places = np.concatenate([mean + np.sqrt(2) * root.T, mean - np.sqrt(2) * root.T])  # these moments exactly
        ends = []
        for order in itertools.permutations(range(4)):
            for place in places:
                theta = place
                for p in order:
                    theta = theta - 0.2 * FEATURES[p] * (FEATURES[p] @ theta - TARGETS[p])
                ends.append(theta)
        np.testing.assert_allclose(np.mean(ends, axis=0), mean, rtol=1e-10)
        np.testing.assert_allclose(np.cov(np.array(ends).T, bias=True), sigma, rtol=1e-8)

    def test_shifted_minimum(self):
        """The gradient of L + (eta/4) <|g_B|^2>, by differences, vanishes there."""
        eta = 0.1

        def loss(theta):
            batches = [list(b) for b in itertools.combinations(range(4), 2)]
            slopes = [FEATURES[b].T @ (FEATURES[b] @ theta - TARGETS[b]) / 2 for b in batches]
            return ((FEATURES @ theta - TARGETS) ** 2).mean() / 2 + eta / 4 * np.mean([g @ g for g in slopes])

        place = shifted_minimum(FEATURES, TARGETS, 2, eta)
        for way in np.eye(2):
            assert abs(loss(place + 1e-4 * way) - loss(place - 1e-4 * way)) < 1e-12
        # what epochs do, to second order in eta: halving eta divides the difference by four
        gaps = []
        for rate in (0.02, 0.01):
            away = ends_of_epochs(FEATURES, TARGETS, 2, rate)[0] - shifted_minimum(FEATURES, TARGETS, 2, rate)
            gaps.append(np.linalg.norm(away))
        assert 3.5 < gaps[0] / gaps[1] < 4.5

    def test_bad_input(self):
        with pytest.raises(PackingError, match="divisor"):
            ends_of_epochs(FEATURES, TARGETS, 3, 0.1)
        with pytest.raises(PackingError, match="orders"):
            ends_of_epochs(np.ones((12, 1)), np.ones(12), 1, 0.1)
        with pytest.raises(PackingError, match="grow"):
            ends_of_epochs(FEATURES, TARGETS, 1, 5.0)


class TestEntropy:
    step = np.array([[0.8, 0.1], [0.0, 0.7]])
    noise = np.array([[0.5, 0.1], [0.1, 0.2]])

    def paths(self, count, length):
        sigma = sum(
            np.linalg.matrix_power(self.step, k) @ self.noise @ np.linalg.matrix_power(self.step, k).T
            for k in range(200)
        )
        x = [RNG.standard_normal((count, 2)) @ np.linalg.cholesky(sigma).T]
        for _ in range(length):
            x.append(x[-1] @ self.step.T + RNG.standard_normal((count, 2)) @ np.linalg.cholesky(self.noise).T)
        return np.stack(x, axis=1)

    def test_theorem_and_mean(self):
        """Two numbers of 40,000 paths within 5 errors: a false alarm in 1e6."""
        produced = entropy.of_paths(self.paths(40_000, 3), self.step, self.noise)
        for values, exact in ((np.exp(-produced), 1.0), (produced, 3 * entropy.mean_per_step(self.step, self.noise))):
            error = values.std() / 200
            assert abs(values.mean() - exact) < 5 * error
            assert error < 0.03 * exact

    def test_equilibrium_and_reversal(self):
        symmetric = np.array([[0.8, 0.2], [0.2, 0.5]])
        np.testing.assert_allclose(entropy.mean_per_step(symmetric, np.eye(2)), 0, atol=1e-12)
        path = self.paths(1, 4)
        there, back = (entropy.of_paths(one, self.step, self.noise) for one in (path, path[:, ::-1]))
        np.testing.assert_allclose(there, -back, rtol=1e-9)
        with pytest.raises(PackingError, match="settle"):
            entropy.mean_per_step(1.1 * np.eye(2), np.eye(2))


def test_area_by_simulation():
    """Mean area of 20,000 steps of 40 copies within 5 errors, and it is that of a current: far from 0."""
    features = np.repeat([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.5], [-1.0, -0.5]], 2, axis=0)
    targets = np.where(features.prod(axis=1) > 0, 1.5, 0.3) * np.tile([1.0, -1.0], 4)
    problem = FiniteData(HeavyBall(learning_rate=0.2, batch_size=1), features, targets)
    x = RNG.standard_normal((400, 2)) @ np.linalg.cholesky(covariance(problem)).T
    swept = np.zeros(400)
    for _ in range(2000):
        rows = RNG.integers(8, size=400)
        off = (features[rows] * x).sum(1) - targets[rows]
        after = x - 0.2 * features[rows] * off[:, None]
        swept += (x[:, 0] * after[:, 1] - x[:, 1] * after[:, 0]) / 2 / 2000
        x = after
    exact, error = area_per_step(problem)[0, 1], swept.std() / 20
    assert abs(swept.mean() - exact) < 5 * error
    assert abs(exact) > 20 * error


class TestDiagonal:
    features = np.random.default_rng(6).standard_normal((3, 7))
    targets = np.array([1.0, -0.5, 0.3])

    @pytest.mark.parametrize("scale", [0.05, 0.7, 20.0])
    def test_least_potential(self, scale):
        """It interpolates, and every change that keeps on interpolating makes Q larger; Q has the derivative asinh."""
        beta = interpolator(self.features, self.targets, scale)
        np.testing.assert_allclose(self.features @ beta, self.targets, rtol=1e-10)
        flat = np.linalg.svd(self.features)[2][3:]
        slope = np.arcsinh(beta / (2 * scale**2))
        np.testing.assert_allclose(flat @ slope, 0, atol=1e-9)
        for way in flat:
            assert potential(beta + 0.1 * way, scale) > potential(beta, scale) < potential(beta - 0.1 * way, scale)
        h = 1e-5 * scale**2
        ahead, behind = (potential(beta + sign * h * np.eye(7)[0], scale) for sign in (1, -1))
        np.testing.assert_allclose((ahead - behind) / (2 * h) * scale**2, slope[0], rtol=1e-4, atol=1e-9)

    def test_both_ends(self):
        kernel = interpolator(self.features, self.targets, 100.0)
        np.testing.assert_allclose(kernel, np.linalg.pinv(self.features) @ self.targets, rtol=1e-6)
        both = np.hstack([self.features, -self.features])
        least = linprog(np.ones(14), A_eq=both, b_eq=self.targets).fun
        rich = np.abs(interpolator(self.features, self.targets, 1e-8)).sum()
        assert least <= rich < 1.1 * least < np.abs(kernel).sum()

    def test_bad_input(self):
        with pytest.raises(PackingError, match="independent"):
            interpolator(np.ones((2, 3)), np.ones(2), 1.0)


def test_error_of_a_gaussian_mixture():
    """A million fresh samples within 5 errors; and no direction does better than the centre."""
    rng, d, delta = np.random.default_rng(7), 4, 0.6
    v, w = rng.standard_normal(d), rng.standard_normal(d) + 0.5
    inputs = v / np.sqrt(d) + np.sqrt(delta) * rng.standard_normal((1_000_000, d))  # of the label 1
    exact = fresh_error(w @ v / d, w @ w / d, delta)
    assert abs((inputs @ w < 0).mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / 1e6)
    others = v + 0.3 * rng.standard_normal((20, d))
    assert (fresh_error(others @ v / d, (others**2).mean(axis=1), delta) > least_error(v, delta)).all()


class TestMarchenkoPastur:
    @pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
    def test_moments(self, ratio):
        """Mass, mean and mean square are min(1, 1/c), 1 and 1 + c."""
        place, weight = quadrature(ratio)
        tolerance = 1e-10 if ratio != 1 else 2e-3  # at c = 1 the density diverges at 0
        np.testing.assert_allclose(weight.sum(), min(1, 1 / ratio), rtol=tolerance)
        np.testing.assert_allclose([weight @ place, weight @ place**2], [1, 1 + ratio], rtol=1e-10)

    @pytest.mark.parametrize("ratio", [0.5, 2.0])
    def test_one_large_matrix(self, ratio):
        """Averages over labels and teachers on 600 x 300 inputs, by eigenvalues; fluctuations are about 1/300."""
        P = 600 if ratio < 1 else 300
        x = np.random.default_rng(5).standard_normal((P, round(ratio * P)))
        values = np.linalg.eigvalsh(x @ x.T / P)
        decay = (1 - 0.1 * values) ** 20
        np.testing.assert_allclose(loss_on_random_labels(ratio, 0.1, 10), decay.mean() / 2, rtol=0.02)
        teacher = (values * decay).sum() / x.shape[1] / 2
        np.testing.assert_allclose(loss_on_a_teacher(ratio, 0.1, 10), teacher, rtol=0.02)
        np.testing.assert_allclose(loss_on_a_teacher(ratio, 0.1, 0), 0.5, rtol=1e-10)

    def test_bad_input(self):
        with pytest.raises(PackingError, match="above 0"):
            quadrature(0.0)
