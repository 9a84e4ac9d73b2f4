"""What is in the files of a store: names, shapes, numbers and their checksums, and what of it is believed.

Zarr's version 2: a cell is one chunk of every array, a chunk is one file. Arrays of numbers and JSON only; whatever is
read may come from elsewhere, so its size is checked before memory is taken, and nothing of it is executed.
"""

import importlib.metadata
import json
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numcodecs import Zstd

from packing_jax.errors import PackingError
from packing_jax.sweeps import files
from packing_jax.sweeps.manifest import Entry, Name, State, digest, digest_of

CELL_DIMS = ("phi", "kick", "batch_fraction", "replica")

#: Where a cell is in the grid.
Index = tuple[int, int, int, int]

# Every frame carries its own checksum, so that any Zarr reader refuses a chunk with a flipped bit.
CODEC = Zstd(level=1, checksum=True)

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
    "failed": ("1 if the replica diverged or could not be run; the manifest says why", "1"),
    "positions": ("final positions", "box sides"),
    "diameters": ("diameters", "box sides"),
}

MARKS = {"absorbed_at": -1, "steps_done": 0, "failed": 0}  # and what they say of a cell that was not run


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


class Layout(NamedTuple):
    """Everything about a store that is known before the first step."""

    coordinates: Mapping[str, np.ndarray]  #: phi, kick, batch_fraction, replica, time
    diameters: np.ndarray  #: (phi, particle), box sides
    record: tuple[str, ...]  #: names of the recorded observables
    attributes: Mapping[str, Any]  #: JSON-able description of the run

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis of the grid."""
        return tuple(len(self.coordinates[name]) for name in CELL_DIMS)

    def name(self, cell: Index) -> Name:
        """(phi, kick, batch fraction, replica) of a place in the grid."""
        phi, kick, fraction = (
            float(self.coordinates[axis][i]) for axis, i in zip(CELL_DIMS[:3], cell[:3], strict=True)
        )
        return phi, kick, fraction, int(self.coordinates["replica"][cell[3]])

    def places(self) -> dict[Name, Index]:
        """The place of each cell."""
        places = ((int(i), int(j), int(k), int(r)) for i, j, k, r in np.ndindex(*self.shape))
        return {self.name(place): place for place in places}


class Finished(NamedTuple):
    """What is stored of a cell."""

    cell: Index
    records: Mapping[str, np.ndarray]  #: name -> (time,)
    positions: np.ndarray  #: (particle, axis)
    state: State
    steps: int
    absorbed_at: int
    reason: str = ""


# --- one cell -------------------------------------------------------------------------------------------------


def encoded(one: Finished) -> dict[str, bytes]:
    """File name within the dataset -> content."""
    arrays = {**one.records, "positions": one.positions}
    return {
        chunk_file(name, one.cell): CODEC.encode(np.ascontiguousarray(values, dtype="<f4"))
        for name, values in arrays.items()
    }


def entry_of(layout: Layout, one: Finished, versions: str) -> Entry:
    """The line of the manifest for a finished cell."""
    last = int(layout.coordinates["time"][-1])
    return Entry(
        cell=layout.name(one.cell),
        state=one.state,
        covers=last,
        steps=one.steps,
        absorbed_at=one.absorbed_at,
        checksum=_checksum(one, len(layout.coordinates["time"])),
        configuration=str(layout.attributes["configuration"]),
        versions=versions,
        reason=one.reason,
    )


def _checksum(one: Finished, times: int) -> str:
    arrays = {**{name: values[:times] for name, values in one.records.items()}, "positions": one.positions}
    parts = [json.dumps([one.state, one.steps, one.absorbed_at]).encode()]
    for name in sorted(arrays):
        parts += [name.encode(), np.ascontiguousarray(arrays[name], dtype="<f4").tobytes()]
    return digest(*parts)


def read_cell(path: Path, layout: Layout, cell: Index, entry: Entry) -> Finished:
    """A cell as it is on the disk, checked against its line in the manifest.

    Raises:
        PackingError: which file is missing, cut off or changed.
    """
    arrays = {name: decoded(path / chunk_file(name, cell), shape) for name, (shape, _) in cell_arrays(layout).items()}
    positions = arrays.pop("positions")
    one = Finished(cell, arrays, positions, entry.state, entry.steps, entry.absorbed_at, entry.reason)
    times = int(np.searchsorted(layout.coordinates["time"], entry.covers, side="right"))
    if _checksum(one, times) != entry.checksum:
        raise PackingError(f"its chunks in {path} are not those that were written: the checksum differs")
    return one


def cell_arrays(layout: Layout) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
    """Shape and dims, beyond those of the grid, of the arrays with one chunk for each cell."""
    times, particles = len(layout.coordinates["time"]), layout.diameters.shape[1]
    arrays: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = dict.fromkeys(layout.record, ((times,), ("time",)))
    return arrays | {"positions": ((particles, int(layout.attributes["dim"])), ("particle", "axis"))}


def chunk_file(variable: str, cell: Sequence[int]) -> str:
    """The file of a chunk; Zarr's version 2 names it by its place."""
    beyond = {"positions": (0, 0), **dict.fromkeys(MARKS, ())}.get(variable, (0,))
    return f"{variable}/{'.'.join(map(str, (*cell, *beyond)))}"


def decoded(file: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """The numbers of a chunk, into memory of the size that they must have."""
    values = np.empty(shape, np.dtype(dtype).newbyteorder("<"))
    try:
        size = file.stat().st_size
        if size > 2 * values.nbytes + 1024:
            raise PackingError(f"{file} has {size} bytes; at most {2 * values.nbytes + 1024} make sense")
        out = np.asarray(CODEC.decode(file.read_bytes(), out=values.reshape(-1).view(np.uint8)))
    except FileNotFoundError as error:
        raise PackingError(f"{file} is missing") from error
    except OSError as error:
        raise PackingError(f"{file} cannot be read ({error.strerror or error})") from error
    except (RuntimeError, ValueError) as error:
        raise PackingError(f"{file} is cut off or changed, it cannot be decompressed") from error
    if out.nbytes != values.nbytes:
        raise PackingError(f"{file} holds {out.nbytes} bytes instead of {values.nbytes}")
    return values


# --- the description of a store -------------------------------------------------------------------------------


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as JSON keeps them, with a checksum of all of them."""
    plain = json.loads(json.dumps({name: value for name, value in attributes.items() if name != "seal"}))
    return {**plain, "seal": digest_of(plain)}


def description(directory: Path) -> dict[str, Any]:
    """The attributes of a store, from whichever of their two copies is whole.

    Raises:
        PackingError: no store there, none that can be gone on with, or both copies are damaged.
    """
    path = directory / "results.zarr"
    try:
        files.recover(path)
        there = path.is_dir()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise PackingError(f"{directory} has no results.zarr: give the directory that packing-jax run or sweep wrote")
    found = False
    for name in (".zattrs", ".zmetadata"):
        try:
            with (path / name).open("rb") as file:
                value = json.loads(file.read(_LARGEST_DESCRIPTION))
            value = value if name == ".zattrs" else value["metadata"][".zattrs"]
            found = True
            if sealed(value) == value:
                return dict(value)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    raise PackingError(
        f"the description of the sweep in {path} is "
        + ("damaged or from an earlier version" if found else "missing")
        + ", so it cannot be gone on with; run the sweep again into a new directory"
    )


_LARGEST_DESCRIPTION = 2**26  # bytes; a million cells have far shorter ones


def draft_of(directory: Path, layout: Layout) -> Path:
    """An empty store under another name, every byte of it on the disk."""
    import zarr  # takes a third of a second, as xarray does

    draft = scratch(directory) / "results.zarr"
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(exist_ok=True)
    group = zarr.open_group(draft, mode="w", zarr_format=2)
    group.attrs.update(sealed(layout.attributes))

    def array(name: str, dims: tuple[str, ...], shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> Any:
        # Integers have no fill value: xarray would read it as missing and turn the variable into floats.
        fill = np.nan if dtype.startswith("f") else None
        made = group.create_array(
            name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, compressors=CODEC, filters=None
        )
        long_name, units = _UNITS.get(name, (name, "1"))
        made.attrs.update({"_ARRAY_DIMENSIONS": list(dims), "long_name": long_name, "units": units})
        return made

    cells, one = layout.shape, (1,) * len(CELL_DIMS)
    for name, values in layout.coordinates.items():
        kind = "int32" if np.asarray(values).dtype.kind in "iu" else "float64"
        array(name, (name,), (len(values),), (len(values),), kind)[:] = values
    for name, (shape, dims) in cell_arrays(layout).items():
        array(name, (*CELL_DIMS, *dims), (*cells, *shape), (*one, *shape), "float32")
    for name, empty in MARKS.items():
        array(name, CELL_DIMS, cells, (*one[:-1], cells[-1]), "int32")[...] = empty
    sizes = layout.diameters.shape
    array("diameters", ("phi", "particle"), sizes, (1, sizes[1]), "float32")[...] = layout.diameters
    zarr.consolidate_metadata(group.store)
    files.flush_tree(draft)
    return draft


def scratch(directory: Path) -> Path:
    """Where files are written before they are moved to their place."""
    return directory / ".tmp"


# --- stores from elsewhere -------------------------------------------------------------------------------------------

_LARGEST_ARRAY = 2**40  # bytes


def check_memory(size: int) -> None:
    """Refuse to read more than half of this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise PackingError(f"it would take {size / 2**30:.3g} GiB of memory, more than half of what this machine has")


def check_metadata(path: Path) -> None:
    """Refuse a Zarr store from elsewhere that would run code or that claims absurd sizes.

    Arrays of numbers behind ordinary compression only: a filter or an object codec could be ``pickle``.

    Raises:
        PackingError: which array, and why.
    """
    for file in sorted([*path.glob("*/.zarray"), *path.glob("*/zarr.json")]):
        try:
            with file.open("rb") as handle:
                array = json.loads(handle.read(2**20))
            if file.name == ".zarray":
                dtype, chunks = np.dtype(array["dtype"]), array["chunks"]
                codecs = [codec["id"] for codec in (array["compressor"], *(array.get("filters") or ())) if codec]
            else:
                if array["node_type"] == "group":
                    continue
                dtype, chunks = np.dtype(array["data_type"]), array["chunk_grid"]["configuration"]["chunk_shape"]
                codecs = [codec["name"] for codec in array["codecs"]]
            size = max(math.prod(map(int, axes)) for axes in (array["shape"], chunks)) * dtype.itemsize
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise PackingError(f"{file} is damaged") from error
        if dtype.kind not in "fiub" or not set(codecs) <= _KNOWN_CODECS:
            raise PackingError(f"{file} asks for more than numbers behind ordinary compression, and is not read")
        if size > _LARGEST_ARRAY:
            raise PackingError(f"{file} claims {size / 2**30:.3g} GiB, more than any sweep stores")


_KNOWN_CODECS = {"zstd", "blosc", "zlib", "gzip", "lz4", "bytes", "crc32c"}
