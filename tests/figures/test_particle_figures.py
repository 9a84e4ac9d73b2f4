"""Statistics of the figures of spheres, on samples whose truth is known."""

import numpy as np
import pytest

from packing_jax.figures import bro_is_sgd, correlated_noise, universality
from packing_jax.figures.phi_c import Point, apart, limit
from packing_jax.observables.hyperuniformity import ZeroLimit
from packing_jax.observables.structure import ShellAverage


def test_every_row_at_full_size_has_a_resolution():
    """Names of rows are made of kicks and rules: those of a full run are stated too."""
    stated = bro_is_sgd.FIGURE.resolution
    assert "Langevin over BRO, kick 0.01, phi = 0.65: displacement at the end" in stated
    assert "SGD and BRO, kick 0.1: rms difference of the activity in standard errors" in stated
    assert {row.quantity for row in universality.rows_of(dict.fromkeys(("beta", "gamma_prime", "z"), (1.0, 0.1)))} < {
        *universality.FIGURE.resolution
    }


class TestDifferences:
    """Curves of replicas, each of one random amplitude, so that times are fully correlated."""

    def samples(self, random, shift):
        curves = 1 + 0.1 * random.normal(size=(2, 8, 1)) + 0.01 * random.normal(size=(2, 8, 25))
        return curves[0] + shift, curves[1]

    def test_one_process_is_within_chance(self):
        random = np.random.default_rng(0)
        found = []
        for _ in range(40):
            one, other = self.samples(random, 0.0)
            expected, scatter = bro_is_sgd.by_chance(one, other, random)
            value = bro_is_sgd.rms(bro_is_sgd.differences(one, other))
            found.append((value - expected) / scatter)
        # the verdict says no beyond two; correlated curves make the law skew
        assert np.mean(np.abs(found) < 2) >= 0.9
        assert abs(np.mean(found)) < 0.5

    def test_two_processes_are_beyond_it(self):
        random = np.random.default_rng(1)
        one, other = self.samples(random, 0.3)
        expected, scatter = bro_is_sgd.by_chance(one, other, random)
        assert bro_is_sgd.rms(bro_is_sgd.differences(one, other)) > expected + 2 * scatter

    def test_no_difference_where_all_have_come_to_rest(self):
        assert not bro_is_sgd.differences(np.zeros((3, 4)), np.zeros((3, 4))).any()


class TestPhiC:
    def test_same_limits_and_a_known_distance(self):
        kicks = (0.05, 0.1, 0.2, 0.3)
        bro = [Point(kick, 0.64 - 0.8 * kick, 0.002, 0.001, "absorption") for kick in kicks]
        other = [Point(kick, 0.643 - 0.8 * kick, 0.002, 0.001, "absorption") for kick in kicks[1:]]
        assert limit(bro).value == pytest.approx(0.64)
        assert limit(other[:2]) is None
        assert limit([]) is None
        value, stderr = apart(other, bro)
        assert value == pytest.approx(0.003)
        assert stderr == pytest.approx(0.001 * (2 / 3) ** 0.5)
        assert np.isnan(apart([], bro)).all()

    def test_scatter_widens_the_error(self):
        bro = [Point(kick, 0.5, 0.002, 0.001, "absorption") for kick in (0.1, 0.2)]
        other = [Point(0.1, 0.51, 0.002, 0.001, "absorption"), Point(0.2, 0.49, 0.002, 0.001, "absorption")]
        value, stderr = apart(other, bro)
        assert value == pytest.approx(0.0)
        assert stderr == pytest.approx(0.01)


def test_laws_of_the_structure_factor():
    q = np.linspace(0.1, 0.5, 5)
    shells = ShellAverage(q, 0.2 * q**2, np.full(5, 0.01), np.full(5, 40))
    value, stderr = correlated_noise.parabola(shells)
    assert value == pytest.approx(0.2)
    assert stderr == pytest.approx(0.2 / 200**0.5)
    spectra = {
        p: correlated_noise.Spectrum(shells, shells, ZeroLimit(0.05 * (1 - p), 0.001, (0, 1), 0.2, 0.1, 0.5, 5))
        for p in correlated_noise.CORRELATIONS
    }
    line = correlated_noise.line_of(spectra)
    assert line.intercept == pytest.approx(0.0, abs=1e-12)
    assert line.slope == pytest.approx(0.05)
