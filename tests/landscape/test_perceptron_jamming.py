"""The perceptron at kappa < 0 jams: as many contacts as weights, in balance; small forces and gaps are power laws."""

import time

import numpy as np
import pytest
from results import keep

from packing_jax.errors import PackingError
from packing_jax.landscape.perceptron import jam_perceptron

GAMMA, THETA = 0.41269, 0.42311  # arXiv:1310.2549
RESOLUTION = {"gamma": 0.03, "theta": 0.08}  # stated before anything was measured
LARGEST = {"gamma": 0.1, "theta": 0.2}  # gap, force (of mean 1): below, the power law is fitted


def instance(N, seed, alpha=10):
    random = np.random.default_rng([N, seed])
    return random.normal(size=(alpha * N, N)), random.normal(size=N)


@pytest.mark.parametrize("seed", range(3))
def test_isostatic_and_in_balance(seed):
    """N - 1 directions on the sphere, and one state of self-stress: N contacts, whatever the instance."""
    x, w = instance(30, seed)
    jammed = jam_perceptron(x, w, -0.5)
    assert len(jammed.forces) == 30
    h = x @ jammed.weights / np.sqrt(30)
    assert np.sum(jammed.weights**2) == pytest.approx(30)
    assert jammed.jamming < jammed.kappa < jammed.jamming + 1e-6
    assert (jammed.forces > 0).all()
    assert (jammed.gaps > 1e-8).all()
    assert len(jammed.gaps) == 270
    np.testing.assert_allclose(np.sort(h[h > jammed.kappa] - jammed.kappa), np.sort(jammed.gaps))
    force = np.maximum(jammed.kappa - h, 0) / np.maximum(jammed.kappa - h, 0).sum() @ x
    radial = jammed.weights * (force @ jammed.weights) / 30
    assert np.linalg.norm(force - radial) < 1e-5 * np.linalg.norm(radial)


def test_a_margin_that_can_be_given_is_no_jamming():
    with pytest.raises(PackingError, match="begin at a larger margin"):
        jam_perceptron(*instance(20, 0, alpha=2), -3.0)


def exponent(values, largest):
    """1 + k of a density ~ v^k below ``largest``, by maximum likelihood."""
    small = values[values < largest]
    return len(small) / np.sum(np.log(largest / small))


@pytest.mark.validation
def test_exponents_of_gaps_and_forces():
    """24 instances of N = 150, alpha = 10; errors: jackknife over instances, and what half of the range changes."""
    began, found = time.monotonic(), [jam_perceptron(*instance(150, seed), -0.5) for seed in range(24)]
    assert all(len(one.forces) == 150 for one in found)
    row = {
        "N": 150,
        "P": 1500,
        "instances": 24,
        "contacts": [len(one.forces) for one in found],
        "kappa_J": float(np.mean([one.jamming for one in found])),
        "kappa_J stderr": float(np.std([one.jamming for one in found], ddof=1) / np.sqrt(24)),
    }
    for name, sign, parts in (("gamma", -1, [one.gaps for one in found]), ("theta", 1, [one.forces for one in found])):
        whole = np.concatenate(parts)
        value, other = (sign * (exponent(whole, LARGEST[name] / by) - 1) for by in (1, 2))
        left_out = [exponent(np.concatenate(parts[:i] + parts[i + 1 :]), LARGEST[name]) for i in range(24)]
        statistical = float(np.sqrt(23) * np.std(left_out))
        row[name] = {"value": value, "statistical": statistical, "range": abs(value - other)}
        row[name] |= {"stderr": float(np.hypot(statistical, value - other)), "resolution": RESOLUTION[name]}
        row[name] |= {"published": {"gamma": GAMMA, "theta": THETA}[name], "largest": LARGEST[name]}
    keep("perceptron.json", "jamming at kappa < 0", row | {"seconds": round(time.monotonic() - began)})
    for name, published in (("gamma", GAMMA), ("theta", THETA)):
        assert abs(row[name]["value"] - published) < 3 * row[name]["stderr"]
