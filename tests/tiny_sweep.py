"""A sweep of six small cells, on both sides of the transition, and how tests run it."""

import dataclasses

import xarray as xr

from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep

TINY = Sweep(dim=2, particles=64, phi=(0.1, 0.3, 0.9), kick=(0.3,), steps=300, record_every=10, replicas=2, seed=5)


def like(**changes):
    return dataclasses.replace(TINY, **changes)


def go(directory, spec=TINY, **options):
    """Three replicas at a time in chunks of 50 steps, so that all sweeps here share their compiled programs."""
    return run_sweep(spec, directory, **{"batch": 3, "chunk_steps": 50, "checkpoint_seconds": 0.0} | options)


def resume(directory, spec=None, **options):
    return go(directory, spec, resume=True, **options)


def tree(directory):
    """Every file of the dataset."""
    root = directory / "results.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()


class After(Stop):
    """Stops after so many chunks."""

    def __init__(self, chunks):
        super().__init__()
        self.left = chunks

    def reason(self):
        self.left -= 1
        return "SIGTERM" if self.left <= 0 else None
