"""Stores that version 0.1.0 wrote before a store said its kind: they open, report, resume and extend.

``stopped`` is a BRO sweep stopped in the middle, ``completed`` the same finished by that version, ``finished`` an SGD
sweep. Another jax may round differently, so bytes are compared where the versions are those of the store.
"""

import dataclasses
import tarfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from packing_jax.commands.summary import report
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest
from packing_jax.sweeps.rerun import rerun
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.status import status
from packing_jax.versions import provenance

STORES = Path(__file__).parent / "stores"


def unpacked(name, directory):
    with tarfile.open(STORES / f"{name}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    (found,) = directory.iterdir()
    return found


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()


def tree(directory):
    root = directory / "results.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def same_versions(directory):
    made = description(directory)["versions"]
    return all(made[name] == now for name, now in provenance().items() if name in ("jax", "jaxlib", "optax", "device"))


@pytest.fixture
def stopped(tmp_path):
    (tmp_path / "stopped").mkdir()
    return unpacked("stopped", tmp_path / "stopped")


@pytest.fixture
def completed(tmp_path):
    (tmp_path / "completed").mkdir()
    return unpacked("completed", tmp_path / "completed")


def test_they_are_opened_and_reported(tmp_path):
    finished = unpacked("finished", tmp_path)
    before = tree(finished)
    facts = status(finished)
    assert (facts["kind"], facts["total"], facts["done"], facts["absorbed"], facts["missing"]) == (
        "spheres",
        12,
        12,
        4,
        0,
    )
    assert [(one["axis"], one["low"], one["high"]) for one in facts["transitions"]] == [("phi", 0.45, 0.55)] * 2
    summary = report(finished)
    assert (summary["runs"], summary["missing"], summary["failed"]) == (12, 0, 0)
    assert {row["batch_fraction"] for row in summary["phi_c"]} == {0.5, 0.75}
    assert tree(finished) == before


def test_a_finished_one_has_nothing_left_to_do(completed, monkeypatch):
    monkeypatch.setattr("packing_jax.sweeps.compute.run", None)
    before = tree(completed)
    outcome = run_sweep(None, completed, resume=True)
    assert (outcome.done, outcome.total) == (8, 8)
    assert not any("damaged" in note for note in outcome.notes)
    assert tree(completed) == before


def test_a_stopped_one_goes_on(stopped, completed):
    assert (status(stopped)["done"], status(stopped)["missing"]) == (4, 4)
    outcome = run_sweep(None, stopped, resume=True)
    assert (outcome.done, outcome.total, outcome.failed) == (8, 8, 0)
    assert not any("finished cell" in note for note in outcome.notes)
    if same_versions(stopped):
        assert tree(stopped) == tree(completed)
        assert rerun(stopped, 0)[0]
    assert np.all(opened(stopped)["steps_done"] == 400)


def test_one_is_extended(completed, tmp_path):
    """More steps, replicas and phi; what was recorded before is kept as it was."""
    stored = Sweep().recorded(description(completed))
    asked = dataclasses.replace(stored, steps=500, replicas=3, phi=(0.8,))
    assert run_sweep(asked, completed, resume=True).done == 18
    before, after = opened(unpacked("completed", tmp_path / "again")), opened(completed)
    assert (after.attrs["kind"], after.attrs["axes"]) == ("spheres", ["phi", "kick", "batch_fraction"])
    old = {name: before[name].values for name in ("phi", "replica", "time")}
    for name in ("activity", "energy", "msd"):
        np.testing.assert_array_equal(after[name].sel(old), before[name])
    assert np.all(after["steps_done"] == 500)
    assert len(Manifest.read(Folder(completed), 18).sessions) == 4
    assert status(completed)["missing"] == 0
