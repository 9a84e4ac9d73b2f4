"""The store of a sweep: ``DIR/results.zarr``, an xarray dataset that grows replica by replica.

Every array is laid out at the start and filled chunk by chunk, one chunk per replica; ``steps_done`` of a replica is
written last, so that what it marks as done is complete whatever happens to the process in between. Nothing is ever
executed on reading: arrays and JSON only.
"""

import contextlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from packing_jax.errors import PackingError

if TYPE_CHECKING:
    import zarr

CELL_DIMS = ("phi", "kick", "batch_fraction", "replica")

_UNITS = {
    "phi": ("packing fraction", "1"),
    "kick": ("kick size eps, or learning rate for sgd", "mean diameters"),
    "batch_fraction": ("batch fraction b_f (1 where the rule has none)", "1"),
    "replica": ("replica", "1"),
    "time": ("time", "steps"),
    "activity": ("fraction of particles with at least one overlap", "1"),
    "energy": ("energy per particle", "mean diameters (a0 = 1/2)"),
    "msd": ("mean squared displacement from the start", "squared mean diameters"),
    "absorbed_at": ("first step without an overlap, -1 if still active", "steps"),
    "steps_done": ("steps accounted for, 0 where not run; absorbed replicas count to the end", "steps"),
    "failed": ("1 if a move was not finite or longer than half the box", "1"),
    "positions": ("final positions", "box sides"),
    "diameters": ("diameters", "box sides"),
}


def provenance() -> dict[str, str]:
    """Versions and device that made the data."""
    packages = ("jax", "jaxlib", "optax", "numpy", "xarray", "zarr")
    versions = {name: importlib.metadata.version(name) for name in packages}
    from packing_jax import __version__

    device = jax.devices()[0]
    return {
        "packing_jax": __version__,
        "python": platform.python_version(),
        **versions,
        "device": f"{device.platform}: {device.device_kind}",
    }


class Store:
    """A sweep's results on disk, open for writing."""

    def __init__(self, directory: Path, group: "zarr.Group") -> None:
        self.directory = directory
        self._group = group

    @classmethod
    def create(
        cls,
        directory: Path,
        coordinates: Mapping[str, np.ndarray],
        diameters: np.ndarray,
        record: tuple[str, ...],
        attributes: Mapping[str, Any],
    ) -> "Store":
        """Lay out an empty store.

        Args:
            directory: where ``results.zarr`` goes; made if absent.
            coordinates: phi, kick, batch_fraction, replica and time.
            diameters: (phi, particle) in box sides.
            record: names of the recorded observables.
            attributes: JSON-able description of the run.

        Raises:
            PackingError: a store is there already, or the disk says no.
        """
        import zarr  # takes a third of a second, as xarray does

        path = directory / "results.zarr"
        cells = tuple(len(coordinates[name]) for name in CELL_DIMS)
        _, particles = diameters.shape
        dim = int(attributes["dim"])
        times = len(coordinates["time"])
        one = (1,) * len(cells)
        # Written under another name and renamed: a directory called results.zarr is a complete layout.
        draft = directory / f".results.zarr.{id(cls)}"
        made: list[Path] = []
        try:
            if path.exists():
                raise PackingError(f"{path} exists already; choose another --out, or remove it to start again")
            made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(draft, ignore_errors=True)
            group = zarr.open_group(draft, mode="w", zarr_format=2)
            group.attrs.update(json.loads(json.dumps(dict(attributes))))

            def array(
                name: str, dims: tuple[str, ...], shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
            ) -> Any:
                # Integers have no fill value: xarray would read it as missing and turn the variable into floats.
                made = group.create_array(
                    name, shape=shape, chunks=chunks, dtype=dtype, fill_value=np.nan if dtype.startswith("f") else None
                )
                long_name, units = _UNITS.get(name, (name, "1"))
                made.attrs.update({"_ARRAY_DIMENSIONS": list(dims), "long_name": long_name, "units": units})
                return made

            for name, values in coordinates.items():
                kind = "int32" if np.asarray(values).dtype.kind in "iu" else "float64"
                array(name, (name,), (len(values),), (len(values),), kind)[:] = values
            for name in record:
                array(name, (*CELL_DIMS, "time"), (*cells, times), (*one, times), "float32")
            for name, empty in (("absorbed_at", -1), ("steps_done", 0), ("failed", 0)):
                array(name, CELL_DIMS, cells, (*one[:-1], cells[-1]), "int32")[...] = empty
            array(
                "positions",
                (*CELL_DIMS, "particle", "axis"),
                (*cells, particles, dim),
                (*one, particles, dim),
                "float32",
            )
            array("diameters", ("phi", "particle"), diameters.shape, (1, particles), "float32")[...] = diameters
            zarr.consolidate_metadata(group.store)
            draft.rename(path)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            for folder in made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise _cannot_write(path, error) from error
        return cls(directory, zarr.open_group(path, mode="r+", zarr_format=2))

    def write(
        self,
        cell: tuple[int, int, int, int],
        records: Mapping[str, np.ndarray],
        positions: np.ndarray,
        absorbed_at: int,
        steps: int,
        failed: bool,
    ) -> None:
        """Store one finished replica; ``steps_done`` last."""
        try:
            for name, values in records.items():
                self._array(name)[cell] = values
            self._array("positions")[cell] = positions
            self._array("absorbed_at")[cell] = absorbed_at
            self._array("failed")[cell] = int(failed)
            self._array("steps_done")[cell] = steps
        except OSError as error:
            raise _cannot_write(self.directory / "results.zarr", error) from error

    def _array(self, name: str) -> Any:
        return self._group[name]


def _cannot_write(path: Path, error: OSError) -> PackingError:
    return PackingError(f"cannot write {path}: {error.strerror or error}; what was finished before is kept")
