"""Figures of spheres: each at its smallest to the end, and their statistics on samples whose truth is known."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure as Canvas

from packing_jax.figures import bro_is_sgd, correlated_noise, phi_c, universality
from packing_jax.figures.figure import Run
from packing_jax.figures.phi_c import Point, apart, limit
from packing_jax.figures.session import reproduce
from packing_jax.observables.hyperuniformity import ZeroLimit
from packing_jax.observables.structure import ShellAverage

MODULES = (phi_c, bro_is_sgd, universality, correlated_noise)


def test_at_its_smallest(tmp_path):
    """One of them for real, from a sweep of spheres to the result; the others are run with `-m validation`."""
    result = reproduce("correlated-noise", tmp_path / "out", size="smoke", seed=5)
    assert [row["agrees"] for row in result["rows"]] == [None] * 4
    assert (tmp_path / "out" / "figure.png").stat().st_size > 20_000


# --- measured on a transition that is known -------------------------------------------------------------------


class Pretended(Run):
    """Sweeps of replicas whose activity is given: f_a = 0.6 x^0.6 at x = phi - phi_c > 0, and at rest after |x|^-1.3.

    phi_c is 0.638 - 0.8 kick in 3D, whatever the rule, and 0.3257 in 2D.
    """

    def sweep(self, spec, label, begin=0.0, end=1.0):
        spec, random = spec.checked(), np.random.default_rng(self.seed + sum(map(ord, label)))
        dims = ("phi", "kick", "batch_fraction", "replica")
        shape = len(spec.phi), 1, 1, spec.replicas
        kick = spec.kick[0] / (4 / 3 if spec.rule == "sgd" else 1)
        phi_critical = 0.638 - 0.8 * kick if spec.dim == 3 else universality.ABOUT
        x = np.array(spec.phi)[:, None, None, None] - phi_critical + 0.002 * random.normal(size=shape)
        clock = 1.0 if spec.dim == 2 else kick
        # at phi_c f_a = t^-0.4, until the size of the box is seen
        rest = 1 / (clock * (np.maximum(-x, 0) ** 1.3 + 1e-9))
        times = spec.times()
        t = np.maximum(times * clock, 1e-9)
        level = np.where(x > 0, 0.6 * np.abs(x) ** 0.6, 0.0)[..., None]
        decay = np.minimum(1.0, t**-0.4) * np.exp(-t * np.abs(x[..., None]) ** 1.3)
        f_a = np.minimum(1.0, level + decay) * (1 + 0.02 * random.normal(size=(*shape, len(times))))
        absorbed = np.where(rest < spec.steps, np.ceil(rest), -1).astype(int)
        gone = (absorbed[..., None] >= 0) & (times >= absorbed[..., None])
        msd = kick * t**0.9 * (1 + 0.05 * random.normal(size=(*shape, 1)))
        data = {
            "activity": ((*dims, "time"), np.where(gone, 0.0, f_a)),
            "msd": ((*dims, "time"), msd),
            "absorbed_at": (dims, absorbed),
            "failed": (dims, np.zeros(shape, int)),
            "steps_done": (dims, np.full(shape, spec.steps)),
            "positions": ((*dims, "particle", "axis"), random.random((*shape, spec.particles, spec.dim))),
        }
        axes = {"phi": spec.phi, "kick": spec.kick, "batch_fraction": spec.batch_fraction}
        coordinates = {name: np.array(values) for name, values in axes.items()}
        coordinates |= {"replica": np.arange(spec.replicas), "time": times}
        return xr.Dataset(data, coordinates, {"particles": spec.particles, "dim": spec.dim})


@pytest.fixture(scope="module")
def pretended(tmp_path_factory):
    """What each figure makes of it at its quick size, and its picture."""
    made = {}
    for module in MODULES:
        folder, one = tmp_path_factory.mktemp(module.FIGURE.name), module.FIGURE
        found = one.measured(Pretended("quick", 0, folder))
        canvas = Canvas()
        one.draw(canvas, found.curves)
        canvas.savefig(folder / "figure.png")
        assert (folder / "figure.png").stat().st_size > 20_000
        made[one.name] = {row.quantity: (row, one.agrees(row, "quick")) for row in found.rows}
    return made


def test_phi_c_of_a_known_transition(pretended):
    rows = pretended["phi-c"]
    assert len(rows) == 6
    for name in ("BRO", "SGD", "Langevin"):
        row, agrees = rows[f"phi_c at zero kick, 3D, {name}"]
        assert agrees != "no"
        assert abs(row.value - 0.638) < 2.5 * row.stderr < 0.04
    assert rows["phi_c at kick 0.05, 3D BRO pair"][1] != "no"
    for name in ("SGD", "Langevin"):
        row, agrees = rows[f"phi_c, {name} less BRO, mean over kicks"]
        assert agrees != "no"
        assert abs(row.value) < 3 * row.stderr < 0.02


def test_equal_rules_are_equal(pretended):
    rows = pretended["bro-is-sgd"]
    assert len(rows) == 16
    assert [agrees for _, agrees in rows.values()].count("no") <= 2


def test_exponents_have_both_classes_beside_them(pretended):
    rows = pretended["universality"]
    assert len(rows) == 8
    assert abs(rows["beta, 2D RO, kick 1, against Manna"][0].value - 0.6) < 0.1
    assert {agrees for _, agrees in rows.values()} <= {"yes", "no", "undecided"}


def test_no_order_is_no_law_of_hyperuniformity(pretended):
    """Positions are uniform, so S = 1 at every q and correlation: the published numbers are missed."""
    row, agrees = pretended["correlated-noise"][correlated_noise.PLATEAU]
    assert abs(row.value - 1) < 4 * row.stderr < 0.6
    assert agrees == "no"


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
        for _ in range(12):
            one, other = self.samples(random, 0.0)
            expected, scatter = bro_is_sgd.by_chance(one, other, random)
            value = bro_is_sgd.rms(bro_is_sgd.differences(one, other))
            found.append((value - expected) / scatter)
        # the verdict says no beyond two; correlated curves make the law skew
        assert np.mean(np.abs(found) < 2) >= 0.9
        assert abs(np.mean(found)) < 0.8

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
