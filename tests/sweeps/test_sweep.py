"""Sweeps: a replica is what it is and not where it stands, every rule reaches its store, a failure stays its own."""

import dataclasses

import jax
import numpy as np
import pytest
import xarray as xr

import packing_jax as pj
from packing_jax.drive.run import state_like
from packing_jax.errors import PackingError
from packing_jax.sweeps.field_types import check_types
from packing_jax.sweeps.model import make_rule
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import sealed
from packing_jax.sweeps.spheres import Sweep, replica_key

N, STEPS = 64, 300
KICK = 0.3
TINY = Sweep(dim=2, particles=N, phi=(0.1, 0.3, 0.9), kick=(KICK,), steps=STEPS, record_every=10, replicas=2, seed=5)
RECORDS = ("activity", "energy", "msd")


def like(**changes):
    return dataclasses.replace(TINY, **changes)


def results(spec, directory, **options):
    """The dataset of a sweep, three replicas at a time so that all sweeps here share their compiled programs."""
    outcome = run_sweep(spec, directory, **{"batch": 3} | options)
    assert outcome.done == outcome.total
    return xr.open_zarr(directory / "results.zarr").load()


def same(one, other, **at):
    """Two replicas, bit for bit."""
    for name in (*RECORDS, "positions", "absorbed_at", "steps_done", "failed"):
        np.testing.assert_array_equal(one[name].sel(at), other[name].sel(at))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return results(TINY, tmp_path_factory.mktemp("grid"))


# --- the same replica is the same trajectory ------------------------------------------------------------------


def test_alone(grid, tmp_path):
    """A sweep of one phi and one replica; another of these is another replica of the grid."""
    alone = results(like(phi=(0.9,), replicas=1), tmp_path)
    assert alone.sizes["replica"] == 1
    same(alone, grid, phi=0.9, kick=KICK, batch_fraction=1.0, replica=0)


def test_through_simulate(grid):
    """What the store calls (phi, kick, replica) is one call of `simulate` with the replica's key."""
    key = replica_key(5, 0.9, KICK, 1.0, 1)
    one = pj.simulate(pj.System.create(0.9, N, 2), pj.bro(KICK), STEPS, key, times=np.arange(0, STEPS + 1, 10))
    stored = grid.sel(phi=0.9, kick=KICK, batch_fraction=1.0, replica=1)
    for name in RECORDS:
        np.testing.assert_array_equal(one[name], stored[name])
    np.testing.assert_array_equal(one.positions, stored["positions"])
    assert one.absorbed_at == stored["absorbed_at"]


def test_one_at_a_time(grid, tmp_path):
    assert grid.identical(results(TINY, tmp_path, batch=1))


def test_in_another_grid(grid, tmp_path):
    """Other phi, more kicks and replicas around it, listed in another order; phi = 0.3 is absorbed, 0.9 is not."""
    other = results(like(phi=(0.9, 0.3), kick=(0.5, KICK), replicas=3), tmp_path)
    assert other["phi"].values.tolist() == [0.3, 0.9]  # sorted
    assert other["kick"].values.tolist() == [KICK, 0.5]
    both = {"phi": [0.3, 0.9], "kick": KICK, "batch_fraction": 1.0, "replica": [0, 1]}
    same(grid, other, **both)
    first = other["msd"].isel(time=-1)
    assert len(np.unique(first)) == first.size  # each its own


def test_the_same_seed_and_another(grid, tmp_path):
    again = results(TINY, tmp_path / "again")
    assert again.identical(grid)
    other = results(like(seed=6), tmp_path / "other")
    assert not np.any(other["msd"].isel(time=-1) == grid["msd"].isel(time=-1))
    assert not np.any(other["positions"] == grid["positions"])


def test_keys_differ_in_everything_that_names_a_replica():
    names = {"seed": 0, "phi": 0.6, "kick": 0.05, "batch_fraction": 1.0, "replica": 0}
    others = [
        {}, {"seed": 1}, {"seed": 2**32 - 1}, {"phi": 0.6000000001}, {"kick": 0.1}, {"batch_fraction": 0.5},
        {"replica": 1}, {"phi": 0.05, "kick": 0.6}, {"kick": 1.0, "batch_fraction": 0.05},
    ]  # fmt: skip
    keys = np.array([jax.random.key_data(replica_key(**names | change)) for change in others])
    assert len(np.unique(keys, axis=0)) == len(others)
    np.testing.assert_array_equal(jax.random.key_data(replica_key(**names)), keys[0])


# --- every rule -----------------------------------------------------------------------------------------------

DENSE = 8.0  # thirty overlaps each at the start, so that a long step throws particles across the box


@pytest.fixture(scope="module")
def descent(tmp_path_factory):
    spec = like(rule="sgd", phi=(0.1, DENSE), kick=(0.1, 0.6), batch_fraction=(0.5, 1.0))
    directory = tmp_path_factory.mktemp("sgd")
    outcome = run_sweep(spec, directory, batch=3)
    return spec, outcome, xr.open_zarr(directory / "results.zarr").load()


def test_a_grid_of_learning_rates_and_batch_fractions(descent, tmp_path):
    spec, _, everything = descent
    assert everything["activity"].shape == (2, 2, 2, 2, 31)
    assert everything["kick"].values.tolist() == [0.1, 0.6]
    assert everything["batch_fraction"].values.tolist() == [0.5, 1.0]
    final = everything["msd"].isel(time=-1).sel(phi=0.1)
    assert len(np.unique(final)) == final.size
    # each point of the grid has its own learning rate and batch fraction
    one = results(dataclasses.replace(spec, kick=(0.1,), batch_fraction=(0.5,)), tmp_path)
    same(one, everything, kick=0.1, batch_fraction=0.5)


def test_a_diverged_replica_is_marked_and_the_rest_goes_on(descent):
    _, outcome, everything = descent
    failed = everything["failed"] == 1
    assert np.all(failed.sel(phi=DENSE, kick=0.6, batch_fraction=1.0))
    assert not np.any(failed.sel(phi=0.1))
    assert not np.any(failed.sel(kick=0.1))
    assert outcome.failed == int(failed.sum())
    assert (outcome.done, outcome.total, outcome.interrupted) == (16, 16, False)
    steps = everything["steps_done"]
    assert np.all((steps >= 1) & (steps.where(~failed, 0) <= STEPS))
    assert np.all(steps.where(failed, 0) < STEPS)
    assert np.all(steps.where(~failed, STEPS) == STEPS)
    assert np.all(np.isnan(everything["activity"].isel(time=-1).where(failed, np.nan)))
    assert np.all(np.isfinite(everything["activity"].where(~failed, 0.0)))


def test_smaller_batches_take_longer_apart(descent):
    _, _, everything = descent
    absorbed = everything["absorbed_at"].sel(phi=0.1).mean("replica")
    assert np.all(absorbed > 0)
    assert np.all(absorbed.sel(batch_fraction=0.5) > absorbed.sel(batch_fraction=1.0))


def test_random_organization(tmp_path):
    run = results(like(rule="ro", phi=(0.2, 0.9), kick=(1.0,)), tmp_path)
    assert run.attrs["coupling"] == "particle"
    assert np.all(run["absorbed_at"].sel(phi=0.2) > 0)
    assert np.all(run["absorbed_at"].sel(phi=0.9) == -1)
    assert np.all(run["activity"].sel(phi=0.9).isel(time=-1) > 0.3)


def test_the_langevin_map_on_a_mixture(tmp_path):
    run = results(like(rule="langevin", mixture="1:1.4", phi=(0.2, 0.95)), tmp_path)
    assert run.attrs["mixture"] == "1:1.4"
    assert np.all(run["absorbed_at"].sel(phi=0.2) > 0)
    assert np.all(run["absorbed_at"].sel(phi=0.95) == -1)
    diameters = run["diameters"].values.astype(float)
    np.testing.assert_allclose(diameters[:, N // 2 :] / diameters[:, :1], 1.4, rtol=1e-6)
    np.testing.assert_allclose(np.pi / 4 * (diameters**2).sum(axis=1), [0.2, 0.95], rtol=1e-6)


def test_rules_get_what_was_asked():
    kick, fraction = jax.numpy.array([0.1]), jax.numpy.array([0.5])
    for rule in ("bro", "sgd", "ro", "langevin"):
        for asked, coupling, correlation in (
            (like(rule=rule, coupling="pair", correlation=0.4), "pair", 0.4),
            (like(rule=rule, coupling="pair-independent"), "pair", 0.0),
            (like(rule=rule, coupling="pair-independent", correlation=0.0), "pair", 0.0),
            (like(rule=rule, coupling="particle"), "particle", 1.0),
        ):
            made = make_rule(asked.checked(), kick, fraction)
            assert (made.coupling, made.correlation) == (coupling, correlation)
    assert make_rule(like(coupling="particle-normalised").checked(), kick, fraction).coupling == "particle-normalised"


# --- defaults and progress ------------------------------------------------------------------------------------


def test_defaults():
    filled = Sweep(phi=(0.6, 0.5), kick=(0.1, 0.04)).checked()
    assert (filled.coupling, filled.batch_fraction, filled.steps) == ("pair", (1.0,), 75000)
    assert (filled.phi, filled.kick) == ((0.5, 0.6), (0.04, 0.1))
    assert Sweep(phi=(0.5,), rule="ro").checked().coupling == "particle"
    assert Sweep(phi=(0.5,), rule="sgd").checked().batch_fraction == (0.75,)


@pytest.mark.parametrize("steps", [1, 2, 99, 100, 101, 12345, 10**6])
def test_default_record_times(steps):
    times = like(steps=steps, record_every=None).checked().times()
    assert times[0] == 0
    assert times[-1] == steps
    assert np.all(np.diff(times) > 0)
    assert {0, 1} <= set(times.tolist())
    assert len(times) <= 150
    assert np.diff(times).max() <= max(1, steps // 100)


def test_progress_rises_to_the_end(tmp_path):
    seen = []
    run_sweep(TINY, tmp_path, batch=3, on_progress=seen.append)
    assert {one.total for one in seen} == {6}
    for name in ("done", "share", "unit_steps"):
        values = [getattr(one, name) for one in seen]
        assert values == sorted(values)
    assert (seen[-1].done, seen[-1].share) == (6, 1.0)


# --- bad input that only Python can give ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phi": ()}, "there is no phi"),
        ({"batch_fraction": ()}, "there is no batch fraction"),
        ({"rule": "sgd", "batch_fraction": ()}, "there is no batch fraction"),
        ({"rule": "sgd", "batch_fraction": (0.5, 1.01)}, "at most 1"),
        ({"batch_fraction": (0.5,)}, "belongs to the rule sgd"),
        ({"phi": (0.1, float("nan"))}, "phi"),
        ({"replicas": True}, "replicas is True; it must be a whole number"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(PackingError, match=message):
        run_sweep(like(**changes), tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phi": 0.3}, r"phi is 0.3; it must be a tuple, each entry a number"),
        ({"phi": (0.3, "a")}, r"phi is \(0.3, 'a'\); it must be a tuple"),
        ({"kick": (None,)}, r"kick is \(None,\); it must be a tuple"),
        ({"particles": 12.5}, "particles is 12.5; it must be different whole numbers, or one"),
        ({"steps": "5"}, "steps is '5'; it must be a whole number"),
        ({"replicas": 1.5}, "replicas is 1.5; it must be a whole number"),
        ({"record_every": 2.5}, "record every is 2.5; it must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5; it must be a whole number"),
        ({"exponent": "a"}, "exponent is 'a'; it must be a number"),
        ({"correlation": "a"}, "correlation is 'a'; it must be a number"),
        ({"mixture": "2:1"}, "mixture is '2:1'; it must be mono or 1:1.4"),
        ({"trajectory": 3}, "trajectory is 3; it must be a text"),
    ],
)
def test_fields_of_another_type(changes, message):
    with pytest.raises(PackingError, match=message):  # a Sweep's annotations are checked first in the tests
        check_types(changes)


def test_a_sweep_too_large_for_any_disk_or_memory():
    for changes in (
        {"particles": 10**9, "phi": (0.3,), "replicas": 10**4},
        {"particles": 2, "phi": (0.1,), "replicas": 10**9},
        {"particles": 2, "phi": (0.1,), "replicas": 10**8},
    ):
        with pytest.raises(PackingError, match="particles"):
            like(**changes).checked()


def test_what_is_stored_does_not_grow_with_steps(tmp_path):
    """Ten times the steps at as many record times: as many files of about the same size, and states as large."""
    sizes = {}
    for steps in (STEPS, 10 * STEPS):
        spec = like(phi=(0.9, 0.95), steps=steps, record_every=steps // 30)
        results(spec, tmp_path / str(steps))
        files = [path for path in (tmp_path / str(steps)).rglob("*") if path.is_file()]
        state = state_like(*spec.checked().build([(0.95, KICK, 1.0, 0)]), spec.times(), spec.record)
        states = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        sizes[steps] = len(files), states, sum(path.stat().st_size for path in files)
    assert sizes[STEPS][:2] == sizes[10 * STEPS][:2]
    assert sizes[10 * STEPS][2] < 1.1 * sizes[STEPS][2]


def test_packing_fractions_of_numpy_describe_the_same_sweep():
    plain = Sweep(dim=2, particles=40, phi=(0.25, 0.5), kick=(0.25,), replicas=2, steps=5, seed=3)
    numbers = dataclasses.replace(plain, phi=tuple(np.linspace(0.25, 0.5, 2)))
    assert numbers.checked() == plain.checked()
    assert Sweep().recorded(sealed(numbers.checked().layout("").attributes)) == plain.checked()


def test_a_sweep_that_goes_on_is_as_it_was_where_nothing_is_said():
    stored = Sweep(dim=2, particles=40, phi=(0.25,), kick=(0.1, 0.2), replicas=2, steps=5, seed=3).checked()
    asked = Sweep(dim=2, particles=40, phi=(0.5,), seed=3)
    grown = stored.extended(asked)
    assert (grown.phi, grown.kick, grown.replicas, grown.steps) == ((0.25, 0.5), (0.1, 0.2), 2, 5)
