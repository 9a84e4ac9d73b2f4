"""What the figures of eigenvalues say of spacings whose law is known. Seeds are fixed."""

import numpy as np
import pytest

from packing_jax.figures.coulomb_gas import _PAIRS, _POINTS, _prefactors, _slope, _spacings
from packing_jax.figures.figure import verdict
from packing_jax.figures.spacing import rejected, variation_of
from packing_jax.networks.theory.coulomb_gas import SPACING_VARIATION
from packing_jax.networks.theory.gaussian_rbm import GaussianMachine


def surmised(*shape, seed=0):
    """Spacings of mean 1 by Wigner's surmise."""
    return np.sqrt(-4 / np.pi * np.log(np.random.default_rng(seed).uniform(size=shape)))


def test_spacing_laws_are_rejected_at_the_joint_rate():
    """At a joint rate of 0.1, 15 +- 3.7 of 150 figures of six sets have a false alarm; within four of these."""
    false = sum(rejected(list(surmised(6, 200, seed=n)), 0.1) > 0 for n in range(150))
    assert 1 <= false <= 29
    sets = surmised(6, 3000)
    assert rejected(list(sets)) == 0
    sets[2] *= 1.1
    assert rejected(list(sets)) == 1


def test_variation_and_its_error():
    """Two thousand sets, each of 300 replicas with five records that are alike in pairs: the error of their scatter."""
    sets = surmised(2000, 300, 1, seed=1) * np.ones(5)
    found = np.array([variation_of(one) for one in sets])
    assert found[:, 0].mean() == pytest.approx(SPACING_VARIATION, abs=0.002)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.1)


@pytest.mark.parametrize(("factor", "power", "agree"), [(1.0, 0.5, True), (1.1, 0.5, False), (1.0, 0.55, False)])
def test_spacings_of_four_pairs(factor, power, agree):
    """Four pairs whose spacings have the law, a tenth more, or another power."""
    machine = GaussianMachine()
    points = _POINTS[1:]
    spacings = {}
    for n, (rate, chains) in enumerate(points):
        law = machine.spacing(_PAIRS, rate, chains, 3)
        law = law * factor * (rate * _PAIRS / chains / 0.001) ** (power - 0.5)
        spacings[rate, chains] = law * surmised(1000, len(_PAIRS), seed=n)
    rows = [_slope(spacings), *_prefactors(spacings)]
    resolutions = (0.015, 0.025, 0.025)
    verdicts = [verdict(row, resolution) for row, resolution in zip(rows, resolutions, strict=True)]
    assert (verdicts == ["yes"] * 3) == agree


def test_pairs_of_a_spectrum():
    x = GaussianMachine().eigenvalues()
    x[1:9:2] += 0.1
    np.testing.assert_allclose(_spacings(x), 0.1)
