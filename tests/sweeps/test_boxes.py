"""The box of a sweep of spheres is in its store, in mean diameters; stores from before go on without it."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from packing_jax import System, mixture_1_to_1_4
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.status import status

# of the shape of other sweeps in these tests, whose program is compiled once
SPEC = Sweep(dim=2, particles=64, phi=(0.1, 0.3, 0.9), kick=(0.3,), steps=300, record_every=10, replicas=2, seed=5)


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()


@pytest.fixture
def older(tmp_path, monkeypatch):
    """A finished sweep of a version whose stores had no box."""
    tables = Sweep.tables.fget
    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "tables", property(lambda spec: {"diameters": tables(spec)["diameters"]}))
        run_sweep(SPEC, tmp_path / "older")
    return tmp_path / "older"


@pytest.mark.parametrize("mixture", ["mono", "1:1.4"])
def test_the_box_is_that_of_the_system(mixture):
    tables = dataclasses.replace(SPEC, mixture=mixture).checked().tables
    for phi, box, diameters in zip(SPEC.phi, tables["box"].values, tables["diameters"].values, strict=True):
        system = System.create(phi, 64, 2, sizes=None if mixture == "mono" else mixture_1_to_1_4(64))
        np.testing.assert_allclose(box, float(system.box / system.unit), rtol=1e-6)
        # N pi <d^2>/4 over the area of the box is phi
        np.testing.assert_allclose(np.sum(np.pi * (diameters * box) ** 2 / 4) / box**2, phi, rtol=1e-5)


def test_it_is_stored_beside_the_positions(tmp_path):
    run_sweep(SPEC, tmp_path)
    results = opened(tmp_path)
    assert (results["positions"].attrs["units"], results["box"].attrs["units"]) == ("box sides", "mean diameters")
    assert results["box"].dims == ("phi",)
    assert status(tmp_path, verify=True)["damage"] == []


def test_an_older_store_goes_on_without_one(older):
    before = opened(older)
    assert "box" not in before
    outcome = run_sweep(None, older, resume=True)
    assert outcome.notes == ()
    assert opened(older).identical(before)
    assert status(older, verify=True)["damage"] == []


def test_an_older_store_that_grows_gets_one(older):
    before = opened(older)
    run_sweep(dataclasses.replace(SPEC, phi=(0.5,)), older, resume=True)
    after = opened(older)
    assert after["box"].shape == (4,)
    assert after["activity"].sel(phi=[0.1, 0.3, 0.9]).identical(before["activity"])
    assert status(older, verify=True)["damage"] == []
