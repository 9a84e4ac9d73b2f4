"""What the figures of packings are made of, on data whose answer is known; and the figures at their smallest."""

import json

import jax
import numpy as np
import pytest
from results import FOLDER

from packing_jax import System, stack
from packing_jax.errors import PackingError
from packing_jax.figures import flat_minima, hyperuniformity, jamming
from packing_jax.figures.figure import Run
from packing_jax.figures.session import reproduce
from packing_jax.landscape.flatness import packing_flatness
from packing_jax.observables.structure import ShellAverage
from packing_jax.spheres.potential import overlap

# --- hyperuniformity ------------------------------------------------------------------------------------------


def waves(random, exponent, count=200):
    """A spectrum of Gaussian density waves, S = q^exponent."""
    q = np.linspace(0.05, 1.0, 20)
    number = np.full(20, count)
    value = q**exponent * random.gamma(number, 1 / number)
    return ShellAverage(q, value, value / number**0.5, number)


def test_hyperuniformity_exponent_of_known_waves():
    """Twenty spectra; the error of a third of a thousandth of them would be wrong by chance."""
    random = np.random.default_rng(0)
    found = [hyperuniformity.exponent([waves(random, 0.45), waves(random, 0.45)]) for _ in range(20)]
    z = np.array([(one.value - 0.45) / one.stderr for one in found])
    assert np.abs(z).max() < 3.5
    assert 0.01 < np.median([one.stderr for one in found]) < 0.03


def test_hyperuniformity_error_holds_what_phi_c_and_window_change():
    random = np.random.default_rng(1)
    apart = hyperuniformity.exponent([waves(random, 0.2), waves(random, 0.6)])
    assert apart.phi == pytest.approx(0.2, abs=0.05)
    assert apart.stderr > apart.phi
    bent = waves(random, 0.0, 2000)
    bent = bent._replace(value=bent.value * (0.2 + bent.q**2))
    assert hyperuniformity.exponent([bent, bent]).window > 0.2


def test_each_wave_counts_once():
    one = ShellAverage(np.ones(1), np.array([1.0]), np.array([0.1]), np.array([100]))
    two = ShellAverage(np.ones(1), np.array([4.0]), np.array([0.2]), np.array([300]))
    both = hyperuniformity.together([one, two])
    assert both.value == pytest.approx([3.25])
    assert both.waves == [400]
    assert both.stderr == pytest.approx([np.hypot(10, 60) / 400])


def test_shells_of_independent_positions():
    x = np.random.default_rng(2).random((40, 200, 2))
    spectrum = hyperuniformity.shells(x, 0.3)
    assert spectrum.q.max() <= 1.05  # in units of the diameter
    assert float(np.average(spectrum.value, weights=spectrum.waves)) == pytest.approx(1.0, abs=0.1)


# --- flat minima ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", flat_minima.EXPONENTS)
def test_flatness_without_sampling(name):
    x = np.random.default_rng(3).random((2, 60, 3)).astype(np.float32)
    systems = stack([System.create(0.5, 60, energy=overlap(flat_minima.EXPONENTS[name]))] * 2)
    found = packing_flatness(systems, x, jax.random.key(1), samples=4000)
    exact = [flat_minima.exact_flatness(one, 0.5, flat_minima.EXPONENTS[name]) for one in x]
    z = (np.asarray(found.value) - exact) / np.asarray(found.stderr)
    assert np.abs(z).max() < 4
    assert np.asarray(found.stderr).max() < 0.15


def test_share_of_flatter_pairs():
    clear, open_ = flat_minima.Ratio(-1.0, 0.01), flat_minima.Ratio(0.0, 0.01)
    share, error = flat_minima.flatter([clear, clear, clear, flat_minima.Ratio(1.0, 0.01)], 4)
    assert (share, error) == (pytest.approx(0.75, abs=1e-3), pytest.approx(0.0, abs=1e-2))
    assert flat_minima.flatter([clear, open_], 4) == (pytest.approx(0.75, abs=1e-3), pytest.approx(0.25, abs=1e-3))


def test_equal_mean_steps():
    for name, rates in flat_minima.RATES.items():
        for a, b in flat_minima.equal_steps(name):
            assert rates[a] * flat_minima.BATCH[b] == pytest.approx(rates[0])


@pytest.mark.parametrize("k", [0.0, 0.4])
def test_flatness_at_equal_energy(k):
    """log dV = 1 - 0.3 log E + k b_f, with another constant at each phi and scatter over replicas."""
    random = np.random.default_rng(4)
    energy = np.exp(random.normal(size=(3, 4, 3, 4)))
    fraction = np.array(flat_minima.BATCH)[:, None]
    flat = np.exp(np.arange(4)[:, None, None] - 0.3 * np.log(energy.mean(axis=-1, keepdims=True)) + k * fraction)
    flat = flat * np.exp(0.01 * random.normal(size=energy.shape))
    for one in flat_minima.equal_energy(flat, energy).values():
        assert abs(one.value - k) < 4 * one.stderr < 0.1


# --- jamming --------------------------------------------------------------------------------------------------


def test_exponents_of_known_laws():
    random = np.random.default_rng(5)
    dphi = np.geomspace(2e-2, 5e-4, 6)
    packings = []
    for _ in range(4):
        x = dphi + 2e-4 * random.random()
        y = random.uniform(1, 2) * x**2 * np.exp(0.01 * random.normal(size=6))
        packings.append({"dphi": x.tolist(), "energy": y.tolist()})
    value, error = jamming.exponent(packings, "energy")
    assert abs(value - 2) < 3 * error < 0.03
    assert np.isnan(jamming.exponent(packings[:1], "energy")[1])


@pytest.mark.parametrize("dim", [2, 3])
def test_kept_packings_have_the_exponents_of_their_row(dim):
    """The validation's row and the figure are one computation."""
    row = json.loads((FOLDER / "jamming.json").read_text())[f"scaling above phi_J, {dim}D harmonic"]
    packings = [jamming.laws(one["phi_J"], one["packings"], row["particles"]) for one in row["series"]]
    for name in jamming.LAWS:
        value, error = jamming.exponent(packings, name)
        assert (value, error) == (pytest.approx(row["value"][name]), pytest.approx(row["stderr"][name]))


def test_phi_j_of_large_systems():
    value, error = jamming.at_infinite_size([0.838, 0.840], 512, 2)
    assert value == pytest.approx(0.839 + 0.12 * 512 ** (-1 / 1.42))
    assert error == pytest.approx(np.hypot(0.001, 0.03 * 512 ** (-1 / 1.42)))


# --- numbers that are no sweep, and all of it -----------------------------------------------------------------


def test_numbers_are_computed_once(tmp_path):
    run = Run("smoke", 0, tmp_path)
    assert run.kept("one", lambda: {"phi": 0.1}) == {"phi": 0.1}
    assert run.kept("one", lambda: {"phi": 0.2}) == {"phi": 0.1}
    for text in ("{", "[]"):
        (tmp_path / "one.json").write_text(text)
        with pytest.raises(PackingError, match=r"one\.json is damaged"):
            run.kept("one", lambda: {"phi": 0.2})


@pytest.mark.parametrize("name", ["hyperuniformity", "flat-minima", "jamming"])
def test_smallest(tmp_path, name):
    result = reproduce(name, tmp_path / name, size="smoke")
    assert result["rows"]
    assert all(one["value"] is not None and one["agrees"] is None for one in result["rows"])
    assert (tmp_path / name / "figure.png").stat().st_size > 10_000
    assert reproduce(name, tmp_path / name, resume=True) == result
