"""The store: laid out as promised, readable at any moment by xarray alone, and honest about what was not run."""

import contextlib
import errno
import json
import warnings

import numpy as np
import pytest
import xarray as xr

import packing_jax as pj
from packing_jax.commands.summary import report
from packing_jax.errors import PackingError
from packing_jax.sweeps.cells import Finished
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import Cells, Layout, Table, Variable
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.store import Store

CELLS = ("phi", "kick", "batch_fraction", "replica")
DIMS = {
    "activity": (*CELLS, "time"),
    "energy": (*CELLS, "time"),
    "msd": (*CELLS, "time"),
    "absorbed_at": CELLS,
    "steps_done": CELLS,
    "failed": CELLS,
    "positions": (*CELLS, "particle", "axis"),
    "diameters": ("phi", "particle"),
    "box": ("phi",),
}
N, STEPS = 64, 300
TINY = Sweep(dim=2, particles=N, phi=(0.1, 0.3, 0.9), kick=(0.3,), steps=STEPS, record_every=10, replicas=2, seed=5)


def opened(directory):
    """As a user opens it; every warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_zarr(directory / "results.zarr").load()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    outcome = run_sweep(TINY, directory, batch=3, command="packing-jax sweep")
    assert (outcome.done, outcome.total, outcome.failed, outcome.interrupted) == (6, 6, 0, False)
    assert {path.name for path in directory.iterdir()} == {
        "results.zarr", "manifest.jsonl", "progress.json", "checkpoints"
    }  # fmt: skip
    return opened(directory)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("interrupted")

    def stop(progress):
        if progress.done >= 3:
            raise KeyboardInterrupt

    outcome = run_sweep(TINY, directory, batch=3, on_progress=stop)
    assert outcome.interrupted
    assert 3 <= outcome.done < outcome.total == 6
    return directory, outcome.done


# --- a finished sweep -----------------------------------------------------------------------------------------


def test_dims_and_types(finished):
    assert dict(finished.sizes) == {
        "phi": 3, "kick": 1, "batch_fraction": 1, "replica": 2, "time": 31, "particle": N, "axis": 2
    }  # fmt: skip
    assert {name: variable.dims for name, variable in finished.data_vars.items()} == DIMS
    integers = {"absorbed_at", "steps_done", "failed", "replica", "time"}
    for name, variable in finished.variables.items():
        assert variable.dtype.kind == ("i" if name in integers else "f"), name
    assert finished["activity"].dtype == finished["positions"].dtype == np.float32


def test_coordinates(finished):
    assert finished["phi"].values.tolist() == [0.1, 0.3, 0.9]
    assert finished["kick"].values.tolist() == [0.3]
    assert finished["batch_fraction"].values.tolist() == [1.0]  # bro has none
    assert finished["replica"].values.tolist() == [0, 1]
    assert finished["time"].values.tolist() == list(range(0, STEPS + 1, 10))


def test_units(finished):
    expected = {
        "phi": "1", "kick": "mean diameters", "time": "steps", "activity": "1", "energy": "mean diameters (a0 = 1/2)",
        "msd": "squared mean diameters", "absorbed_at": "steps", "positions": "box sides", "diameters": "box sides",
        "box": "mean diameters",
    }  # fmt: skip
    for name, units in expected.items():
        assert finished[name].attrs["units"] == units
    for variable in finished.variables.values():
        assert {"units", "long_name"} <= set(variable.attrs)


def test_attributes_say_what_was_run(finished):
    attributes = finished.attrs
    asked = {
        "rule": "bro", "coupling": "pair", "correlation": 1.0, "dim": 2, "particles": N, "exponent": 1.0,
        "mixture": "mono", "steps": STEPS, "record_every": 10, "seed": 5, "replicas": 2, "kick": [0.3],
        "batch_fraction": [1.0], "command": "packing-jax sweep",
    }  # fmt: skip
    assert {name: attributes[name] for name in asked} == asked
    assert {"packing_jax", "python", "jax", "jaxlib", "optax", "numpy", "xarray", "zarr", "device"} <= set(
        attributes["versions"]
    )
    assert attributes["versions"]["packing_jax"] == pj.__version__
    json.dumps(attributes, allow_nan=False)


def test_the_correlation_is_that_of_the_coupling():
    """Independent partners have correlation 0, whatever the default of the field."""
    assert Sweep(phi=(0.3,), coupling="pair-independent").checked().correlation == 0.0


def test_everything_was_run(finished):
    assert np.all(finished["steps_done"] == STEPS)  # absorbed replicas count as run to the end
    assert np.all(finished["failed"] == 0)
    for name in ("activity", "energy", "msd", "positions", "diameters"):
        assert np.all(np.isfinite(finished[name])), name
    assert np.all(finished["msd"].isel(time=0) == 0)


def test_absorbed_replicas_are_constant_after_absorption(finished):
    absorbed = finished["absorbed_at"].squeeze().values
    assert np.all(absorbed[:2] >= 0)  # dilute
    assert np.all(absorbed[2] == -1)  # dense
    for p, r in np.ndindex(3, 2):
        one = finished.isel(phi=p, kick=0, batch_fraction=0, replica=r)
        last = absorbed[p, r] if absorbed[p, r] >= 0 else STEPS + 1
        before, after = one["time"] < last, one["time"] >= last
        assert np.all(one["activity"][before] > 0)
        assert np.all(one["energy"][before] > 0)
        assert np.all(one["activity"][after] == 0)
        assert np.all(one["energy"][after] == 0)
        assert np.all(one["msd"][after] == one["msd"][-1])
        assert one["msd"][-1] > 0


def test_positions_and_diameters_give_the_last_record(finished):
    for p, r in np.ndindex(3, 2):
        one = finished.isel(phi=p, kick=0, batch_fraction=0, replica=r, time=-1)
        x, sigma = one["positions"].values.astype(float), one["diameters"].values.astype(float)
        assert np.all((x >= 0) & (x < 1))
        assert np.pi / 4 * np.sum(sigma**2) == pytest.approx(float(one["phi"]), rel=1e-6)
        apart = x[:, None] - x[None]
        distance = np.sqrt(np.sum((apart - np.round(apart)) ** 2, axis=-1))
        np.fill_diagonal(distance, np.inf)
        depth = np.maximum(1 - distance / (0.5 * (sigma[:, None] + sigma)), 0)
        # positions are rounded to float32
        assert np.mean(np.any(depth > 1e-5, axis=1)) == pytest.approx(float(one["activity"]), abs=2.5 / N)
        assert 0.5 * depth.sum() / 2 / N == pytest.approx(float(one["energy"]), abs=1e-5)


# --- an unfinished sweep --------------------------------------------------------------------------------------


def test_what_was_not_run_is_empty_and_the_rest_is_complete(interrupted, finished):
    directory, done = interrupted
    part = opened(directory)
    assert {name: variable.dims for name, variable in part.data_vars.items()} == DIMS
    assert {name: v.dtype for name, v in part.variables.items()} == {n: v.dtype for n, v in finished.variables.items()}
    ran = part["steps_done"] > 0
    assert int(ran.sum()) == done
    for name in ("activity", "energy", "msd", "positions"):
        np.testing.assert_array_equal(part[name].where(ran), finished[name].where(ran))
        assert np.all(np.isnan(part[name].where(~ran, drop=True)))
        assert np.all(np.isfinite(part[name].where(ran).stack(at=CELLS).dropna("at")))
    assert np.all(part["absorbed_at"].where(~ran, -1) == -1)
    np.testing.assert_array_equal(part["absorbed_at"].where(ran), finished["absorbed_at"].where(ran))
    assert set(np.unique(part["steps_done"])) == {0, STEPS}
    np.testing.assert_array_equal(part["diameters"], finished["diameters"])


def test_an_unfinished_sweep_can_be_reported(interrupted):
    directory, done = interrupted
    summary = report(directory)
    assert (summary["runs"], summary["missing"], summary["failed"]) == (6, 6 - done, 0)


# --- writing --------------------------------------------------------------------------------------------------


LAYOUT = Layout(
    cells=Cells({"phi": (0.5,), "kick": (0.1,), "batch_fraction": (1.0,)}, 2),
    times=np.array([0, 5], np.int32),
    records={"activity": Variable(), "energy": Variable()},
    finals={"positions": Variable(("particle", "axis"), (4, 3))},
    tables={"diameters": Table(("phi", "particle"), np.full((1, 4), 0.25, np.float32))},
    labels={},
    attributes={"rule": "bro", "configuration": "", "versions": {}},
)
"""A store of two replicas at one point, four particles in 3D."""


def create(directory):
    with contextlib.closing(Store.create(directory, LAYOUT)) as store:
        return store


def write(directory, replica):
    with contextlib.closing(Store.open(directory, LAYOUT)) as store:
        records = {"activity": np.array([1, 0.5], np.float32), "energy": np.array([2, 1], np.float32)}
        positions = np.full((4, 3), 0.5, np.float32)
        state = "diverged" if replica else "active"
        store.write([Finished((0, 0, 0, replica), records, {"positions": positions}, state, 5, -1)])
        return store


def full_disk(monkeypatch, key):
    """No space left as soon as something is written whose name contains ``key``."""

    def refuse(name):
        if key in str(name):
            raise OSError(errno.ENOSPC, "No space left on device")

    write = Folder._write
    monkeypatch.setattr(Folder, "_write", lambda *args: (refuse(args[1]), write(*args)))


def test_an_empty_store_is_complete_in_its_layout(tmp_path):
    create(tmp_path / "new" / "deeper")
    results = opened(tmp_path / "new" / "deeper")
    assert np.all(np.isnan(results["activity"]))
    assert np.all(np.isnan(results["positions"]))
    assert results["absorbed_at"].values.ravel().tolist() == [-1, -1]
    assert results["steps_done"].values.ravel().tolist() == [0, 0]
    assert results["failed"].values.ravel().tolist() == [0, 0]
    assert results["diameters"].values.tolist() == [[0.25] * 4]


def test_an_existing_store_is_left_alone(tmp_path):
    create(tmp_path)
    write(tmp_path, 0)
    before = opened(tmp_path)
    with pytest.raises(PackingError, match=r"results\.zarr exists already; choose another --out"):
        create(tmp_path)
    assert opened(tmp_path).identical(before)
    assert {path.name for path in tmp_path.iterdir()} == {"results.zarr", "manifest.jsonl"}


@pytest.mark.parametrize("key", ["activity", "positions", "absorbed_at", "failed", "steps_done"])
def test_a_disk_that_fills_up(tmp_path, monkeypatch, key):
    """Whatever cannot be written, the replica is not marked as done and those before it are complete."""
    create(tmp_path)
    write(tmp_path, 0)
    before = opened(tmp_path).isel(replica=0)
    with monkeypatch.context() as patch:
        full_disk(patch, f"/{key}/0")
        with pytest.raises(PackingError, match="No space left on device; what was finished before is kept"):
            write(tmp_path, 1)
    results = opened(tmp_path)
    assert results["steps_done"].values.ravel().tolist() == [5, 0]
    assert results.isel(replica=0).identical(before)
    write(tmp_path, 1)  # space was made
    assert opened(tmp_path)["steps_done"].values.ravel().tolist() == [5, 5]
    assert opened(tmp_path)["failed"].values.ravel().tolist() == [0, 1]


def test_a_disk_that_is_full_from_the_start(tmp_path, monkeypatch):
    full_disk(monkeypatch, "results.zarr")
    with pytest.raises(PackingError, match="No space left on device"):
        create(tmp_path / "new" / "deeper")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("key", ["/diameters/", "/steps_done/", ".zmetadata"])
def test_a_disk_that_fills_up_while_the_store_is_laid_out(tmp_path, monkeypatch, key):
    with monkeypatch.context() as patch:
        full_disk(patch, key)
        with pytest.raises(PackingError, match="No space left on device"):
            create(tmp_path)
    assert not (tmp_path / "results.zarr").exists()
    create(tmp_path)  # space was made
    assert not np.any(opened(tmp_path)["steps_done"])


@pytest.mark.parametrize("place", ["taken", "taken/deeper"])
def test_a_file_in_the_way(tmp_path, place):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(PackingError, match="cannot write"):
        create(tmp_path / place)
    assert (tmp_path / "taken").read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) == 1
