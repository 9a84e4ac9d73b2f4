"""Estimates read a trajectory, a dataset or a sweep's directory, and find in each what they find in its arrays."""

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from synthetic import mean_field, store, sweep

import packing_jax
from packing_jax import System, bro, observables, sgd, simulate, stack
from packing_jax.criticality import (
    as_sweep,
    estimate_phi_c,
    half_absorbed_phi_c,
    power_law_phi_c,
    relaxation_phi_c,
    straightest_decay_phi_c,
    threshold_phi_c,
)
from packing_jax.criticality.results import scan_of
from packing_jax.errors import PackingError
from packing_jax.simulation import _parameters

ARRAYS = {
    threshold_phi_c: ("phi", "final", "drift"),
    power_law_phi_c: ("phi", "final", "drift"),
    straightest_decay_phi_c: ("time", "phi", "activity"),
    relaxation_phi_c: ("time", "phi", "activity", "absorbed_at"),
    half_absorbed_phi_c: ("phi", "absorbed"),
}


class Trajectory:
    """A batch of replicas as `simulate` gives it."""

    def __init__(self, results, coordinates=("phi", "kick", "batch_fraction")):
        grid = ("phi", "kick", "batch_fraction", "replica")
        whole = results.transpose(*grid, "time", ...)
        axes = np.meshgrid(*(results[axis].values for axis in grid), indexing="ij")
        values = dict(zip(grid, map(np.ravel, axes), strict=True))
        time = results["time"].values
        self.dataset = xr.Dataset(
            {
                "activity": (("replica", "time"), whole["activity"].values.reshape(-1, len(time))),
                "absorbed_at": ("replica", whole["absorbed_at"].values.ravel()),
            },
            {"time": time, **{name: ("replica", values[name]) for name in coordinates}},
            results.attrs,
        )

    def to_xarray(self):
        return self.dataset


@pytest.fixture(scope="module")
def results():
    """Mean-field dynamics, where every estimate finds phi_c = 0.6293, as a sweep stores them."""
    phi = np.linspace(0.60, 0.66, 25)
    time, activity, gone = mean_field(np.random.default_rng(0), phi, 6, 0.6293, noise=0.03)
    grid = ("phi", "kick", "batch_fraction", "replica")
    return xr.Dataset(
        {
            "activity": ((*grid, "time"), activity[:, None, None]),
            "absorbed_at": (grid, gone[:, None, None].astype(int)),
            "steps_done": (grid, np.full((25, 1, 1, 6), time[-1]).astype(int)),
        },
        {"phi": phi, "kick": [0.05], "batch_fraction": [1.0], "replica": np.arange(6), "time": time},
        {"particles": 4096, "dim": 2},
    )


@pytest.fixture(scope="module")
def directory(results, tmp_path_factory):
    return store(tmp_path_factory.mktemp("sweep"), results)


@pytest.mark.parametrize("estimate", ARRAYS, ids=lambda one: one.__name__)
def test_each_estimate_takes_what_has_the_arrays(estimate, results, directory):
    scan = scan_of(results, 0, 0)
    expected = estimate(*(getattr(scan, name) for name in ARRAYS[estimate]))
    assert abs(expected.value - 0.6293) < 0.02  # f_a = 0.1 is above phi_c
    for given in (results, Trajectory(results), directory, str(directory)):
        assert estimate(given) == expected


def test_all_estimates_of_a_trajectory():
    results = sweep(kicks=(0.02, 0.05))
    assert estimate_phi_c(Trajectory(results)) == estimate_phi_c(results)


def test_a_trajectory_without_a_kick(results):
    (estimate,) = estimate_phi_c(Trajectory(results, coordinates=("phi",)))
    assert np.isnan(estimate.kick)
    assert estimate.batch_fraction == 1.0
    assert estimate.power_law == power_law_phi_c(results)


def test_phi_that_were_run_by_different_numbers_of_replicas(results):
    flat = Trajectory(results).to_xarray()
    first = np.flatnonzero(flat["phi"] == flat["phi"][0])[1:]
    fewer = flat.isel(replica=np.setdiff1d(np.arange(flat.sizes["replica"]), first))
    run = (as_sweep(fewer)["steps_done"] > 0).sum("replica").values.ravel()
    assert run.tolist() == [1, *[6] * 24]


def test_a_single_replica_is_no_scan(results):
    one = Trajectory(results).to_xarray().isel(replica=0)
    with pytest.raises(PackingError, match="two or more packing fractions, and 1 was run"):
        threshold_phi_c(one)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: 3, "the results are a int; they must be what simulate returns, an xarray.Dataset, or the directory"),
        (lambda _: "nowhere", "nowhere is not a directory"),
        (lambda flat: flat.drop_vars("phi"), "lack their packing fractions: give them a coordinate phi"),
        (lambda flat: flat.drop_vars("activity"), "lack the variable 'activity': record it"),
        (lambda flat: flat.drop_vars("absorbed_at"), "lack the variable 'absorbed_at'"),
        (
            lambda _: sweep(kicks=(0.02, 0.05)),
            r"have 2 values of 'kick'.*\.sel\(kick=\[...\]\), or take estimate_phi_c",
        ),
    ],
)
def test_what_cannot_be_read(results, change, words):
    with pytest.raises(PackingError, match=words):
        threshold_phi_c(change(Trajectory(results).to_xarray()))


def test_arrays_beside_results_are_refused(results):
    with pytest.raises(PackingError, match="give either these or the results"):
        threshold_phi_c(results, np.zeros((25, 6)))


class TestOfATrajectory:
    """What simulate returns, as a dataset."""

    def test_a_batch_across_the_transition(self):
        phi = np.repeat([0.3, 0.5, 0.7, 0.9], 2)
        system = stack([System.create(one, 32, 2) for one in phi])
        made = simulate(system, bro(0.3), 60, jax.random.key(0), record={"activity": observables.activity})
        results = made.to_xarray()
        assert dict(results.sizes) == {"replica": 8, "time": len(made.times), "particle": 32, "axis": 2}
        np.testing.assert_allclose(results["phi"], phi, rtol=1e-6)
        assert results["kick"].dims == ()
        assert (results.attrs["particles"], results.attrs["dim"], results.attrs["rule"]) == (32, 2, "bro")
        np.testing.assert_array_equal(results["activity"].sel(replica=3), made["activity"][3])
        np.testing.assert_array_equal(results["positions"], made.positions)
        sweep = as_sweep(made)
        assert dict(sweep.sizes) == {"phi": 4, "kick": 1, "batch_fraction": 1, "replica": 2, "time": len(made.times)}
        np.testing.assert_array_equal(sweep["activity"].values[1, 0, 0, 1], made["activity"][3])
        gone = (made.absorbed_at >= 0).reshape(4, 2)
        assert half_absorbed_phi_c(made) == half_absorbed_phi_c(sweep["phi"].values, gone.astype(float))
        (estimate,) = estimate_phi_c(made)
        assert (estimate.kick, estimate.runs, estimate.missing) == (float(np.float32(0.3)), 8, 0)

    def test_other_kinds_and_records_of_any_shape(self):
        made = packing_jax.Trajectory(
            times=np.array([0, 3]),
            records={"loss": np.zeros((5, 2)), "overlap": np.zeros((5, 2, 7))},
            final={"weights": np.zeros((5, 4, 3))},
            absorbed_at=np.full(5, -1),
            parameters={"kick": np.arange(5.0), "loss": np.zeros(())},
        )
        results = made.to_xarray()
        assert results["overlap"].dims == ("replica", "time", "overlap_0")
        assert results["weights"].dims == ("replica", "weights_0", "weights_1")
        assert results["kick"].dims == ("replica",)
        assert "loss" in results.data_vars  # the record, and not the parameter of that name
        with pytest.raises(PackingError, match="lack the variable 'activity'"):
            threshold_phi_c(made)

    def test_the_learning_rate_is_the_kick_of_sgd(self):
        rule = sgd(jax.tree_util.Partial(optax.sgd, learning_rate=np.array([0.1, 0.2])), 0.5)
        found = _parameters(System.create(0.5, 32, 2), rule, (2,))
        np.testing.assert_array_equal(found["kick"], [0.1, 0.2])
        assert found["batch_fraction"] == 0.5
