"""Numbers of particles as an axis of the store, each replica as in a sweep of its own size; diameters of any array."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from packing_jax.criticality import estimate_phi_c, open_results
from packing_jax.criticality.results import number_of_particles
from packing_jax.errors import PackingError
from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.rerun import rerun
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.status import status

SIZES = Sweep(
    dim=2, particles=(32, 64), phi=(0.3, 0.9), kick=(0.3,), steps=100, record_every=50, replicas=2, mixture="1:1.4"
)


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()


class Soon(Stop):
    """Stops after the second chunk."""

    chunks = 0

    def reason(self):
        self.chunks += 1
        return "SIGTERM" if self.chunks > 1 else None


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sizes")
    seen = []
    outcome = run_sweep(SIZES, directory, batch=3, chunk_steps=50, on_progress=seen.append)
    assert (outcome.done, outcome.total, outcome.failed) == (8, 8, 0)
    for name in ("done", "share", "unit_steps"):
        values = [getattr(one, name) for one in seen]
        assert values == sorted(values)
    assert (seen[-1].done, seen[-1].share) == (8, 1.0)
    assert max(one.running for one in seen) == 3
    return directory


@pytest.mark.parametrize("n", [32, 64])
def test_each_size_is_what_it_is_alone(both, tmp_path, n):
    results = opened(both)
    assert results["positions"].dims == ("particles", "phi", "kick", "batch_fraction", "replica", "particle", "axis")
    assert results["diameters"].dims == ("particles", "phi", "particle")
    assert results["box"].dims == ("particles", "phi")
    np.testing.assert_allclose(results["box"] * results["diameters"].mean("particle"), 1.0, rtol=1e-6)
    run_sweep(dataclasses.replace(SIZES, particles=n), tmp_path, batch=3, chunk_steps=50)
    alone, here = opened(tmp_path), results.sel(particles=n, drop=True)
    assert "particles" not in alone.dims
    for name in alone.data_vars:
        whole = here[name]
        if "particle" in whole.dims:
            assert np.all(np.isnan(whole.isel(particle=slice(n, None))))
            whole = whole.isel(particle=slice(n))
        xr.testing.assert_equal(whole, alone[name])


def test_an_estimate_is_of_one_size(both):
    with pytest.raises(PackingError, match=r"2 numbers of particles, .* choose it by \.sel\(particles=\.\.\.\)"):
        estimate_phi_c(both)
    results = open_results(both)
    for n in (32, 64):
        one = results.sel(particles=n)
        assert number_of_particles(one) == n
        (estimate,) = estimate_phi_c(one, draws=20)
        assert (estimate.runs, estimate.missing) == (4, 0)


def test_one_size_is_no_axis():
    assert dataclasses.replace(SIZES, particles=(32,)).checked() == dataclasses.replace(SIZES, particles=32).checked()


def test_one_size_does_not_become_several():
    one, several = dataclasses.replace(SIZES, particles=32).checked(), SIZES.checked()
    with pytest.raises(PackingError, match=r"particles is 32 there and \(32, 64\) here"):
        one.extended(several)


def test_stopped_and_extended(both, tmp_path):
    assert run_sweep(SIZES, tmp_path, batch=3, chunk_steps=50, stop=Soon()).stopped == "SIGTERM"
    assert status(tmp_path)["missing"] > 0
    assert run_sweep(None, tmp_path, resume=True, batch=3, chunk_steps=50).done == 8
    assert opened(tmp_path).identical(opened(both))
    assert rerun(tmp_path, 1)[0]
    with pytest.raises(PackingError, match="no larger replicas can be added"):
        run_sweep(dataclasses.replace(SIZES, particles=(32, 64, 128)), tmp_path, resume=True)
    with pytest.raises(PackingError, match=r"particles are \(32, 64\) there and 1000 here"):
        run_sweep(dataclasses.replace(SIZES, particles=1000), tmp_path, resume=True)
    assert run_sweep(dataclasses.replace(SIZES, particles=(48,)), tmp_path, resume=True, batch=3).done == 12


def test_diameters_of_any_array(tmp_path):
    """Stored, gone on with where nothing is said of them, and refused where they are others or too few."""
    sizes = np.linspace(0.8, 1.2, 32)
    spec = dataclasses.replace(SIZES, particles=32, mixture="mono", sizes=sizes)
    assert run_sweep(dataclasses.replace(spec, phi=(0.3,)), tmp_path).done == 2
    diameters = opened(tmp_path)["diameters"].sel(phi=0.3).values
    np.testing.assert_allclose(diameters / diameters.mean(), sizes / sizes.mean(), rtol=1e-6)
    assert run_sweep(dataclasses.replace(spec, sizes=None), tmp_path, resume=True).done == 4
    assert rerun(tmp_path, 0)[0]
    with pytest.raises(PackingError, match=r"sizes is \(0\.8, .* there and \(1\.2, .* here"):
        run_sweep(dataclasses.replace(spec, sizes=sizes[::-1]), tmp_path, resume=True)
    for changes in ({"particles": 33}, {"particles": (32, 64)}, {"mixture": "1:1.4"}, {"sizes": 1.0}):
        with pytest.raises(PackingError, match="give one relative diameter for each particle"):
            dataclasses.replace(spec, **changes).checked()
    with pytest.raises(PackingError, match="every diameter must be"):
        dataclasses.replace(spec, sizes=-sizes).checked()
