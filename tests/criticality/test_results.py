"""Estimates read a trajectory, a dataset or a sweep's directory, and find in each what they find in its arrays."""

import warnings

import numpy as np
import pytest
import xarray as xr
from synthetic import mean_field, sweep

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
    place = tmp_path_factory.mktemp("sweep")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some zarr versions call their own format unstable
        results.to_zarr(place / "results.zarr", consolidated=False)
    return place


@pytest.mark.parametrize("estimate", ARRAYS, ids=lambda one: one.__name__)
def test_each_estimate_takes_what_has_the_arrays(estimate, results, directory):
    scan = scan_of(results, 0, 0)
    expected = estimate(*(getattr(scan, name) for name in ARRAYS[estimate]))
    assert abs(expected.value - 0.6293) < 0.02  # f_a = 0.1 is above phi_c
    for given in (results, Trajectory(results), directory, str(directory)):
        assert estimate(given) == expected


def test_all_estimates_of_a_trajectory():
    results = sweep(kicks=(0.02, 0.05), fractions=(0.5, 1.0))
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
    with pytest.raises(PackingError, match="two or more packing fractions, and 1 have been run"):
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
