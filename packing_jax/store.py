"""The store of a sweep: ``DIR/results.zarr``, an xarray dataset that grows cell by cell.

A cell is one replica at one phi, kick and batch fraction; it is one chunk of every array, and every chunk is one file
that appears in one move (:mod:`packing_jax.files`). What is finished is written in this order, each step on the disk
before the next:

1. its records and positions, where nothing says yet that they are there;
2. a line in ``DIR/manifest.jsonl`` with a checksum of them (:mod:`packing_jax.manifest`): now they count;
3. ``absorbed_at``, ``failed`` and ``steps_done``, which tell a reader of the dataset alone.

So a reader finds whole cells at any moment, and a sweep that was cut between any two system calls knows which cells
to trust. Nothing is ever executed on reading: arrays of numbers and JSON only.
"""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numcodecs import Zstd

from packing_jax import files
from packing_jax.errors import PackingError
from packing_jax.manifest import Entry, Manifest, Name, State, digest, digest_of

CELL_DIMS = ("phi", "kick", "batch_fraction", "replica")

#: Where a cell is in the grid.
Index = tuple[int, int, int, int]

# Every frame carries its own checksum, so that any Zarr reader refuses a chunk with a flipped bit.
_CODEC = Zstd(level=1, checksum=True)

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

_MARKS = {"absorbed_at": -1, "steps_done": 0, "failed": 0}  # and what they say of a cell that was not run


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


class Store:
    """A sweep's results on disk, open for writing by this process alone."""

    def __init__(self, directory: Path, layout: Layout, manifest: Manifest) -> None:
        self.directory = directory
        self.layout = layout
        self.manifest = manifest
        self.notes: list[str] = []  #: what was found damaged and repaired, in words
        self.versions = digest_of(provenance())
        self._index = layout.places()
        self.ended = np.zeros(layout.shape, bool)  #: nothing is left to do, or it failed in this session
        self._marks = {name: np.full(layout.shape, empty, np.int32) for name, empty in _MARKS.items()}

    @property
    def path(self) -> Path:
        """The dataset."""
        return self.directory / "results.zarr"

    @property
    def last(self) -> int:
        """Last step of the schedule."""
        return int(self.layout.coordinates["time"][-1])

    # --- beginning, going on, growing -------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, layout: Layout) -> "Store":
        """Lay out an empty store.

        Raises:
            PackingError: a store is there already, or the disk says no.
        """
        path = directory / "results.zarr"
        made: list[Path] = []
        manifest = None
        try:
            if path.exists():
                raise PackingError(
                    f"{path} exists already; choose another --out, go on with --resume {directory}, or remove it to "
                    "start again"
                )
            made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            if not (directory / "manifest.jsonl").exists():
                made.insert(0, directory / "manifest.jsonl")
            manifest = Manifest.lock(directory / "manifest.jsonl")
            manifest.clear()
            shutil.rmtree(directory / "checkpoints", ignore_errors=True)
            draft = _draft(directory, layout)
            # Written under another name and renamed: a directory called results.zarr is a complete layout.
            draft.rename(path)
            files.flush(directory)
        except (OSError, PackingError) as error:
            if manifest is not None:
                manifest.close()
            _clear(directory)
            for place in made:
                with contextlib.suppress(OSError):
                    place.rmdir() if place.is_dir() else place.unlink()
            if isinstance(error, PackingError):
                raise
            raise cannot_write(path, error) from error
        return cls(directory, layout, manifest)

    @classmethod
    def open(cls, directory: Path, layout: Layout) -> "Store":
        """Go on with a store: whatever in it is not as ``layout`` says is written again and noted.

        Args:
            directory: holds ``results.zarr``.
            layout: of the store as it is, its attributes as :func:`description` reads them.

        Raises:
            PackingError: another process writes there, or the disk says no.
        """
        manifest = Manifest.lock(directory / "manifest.jsonl")
        store = cls(directory, layout, manifest)
        try:
            _clear(directory)
            store._repair_layout()
            if manifest.damaged_lines:
                store.notes.append(
                    f"{manifest.damaged_lines} lines of {manifest.path} are cut off or changed and were left out"
                )
            store._verify()
        except OSError as error:
            manifest.close()
            raise cannot_write(store.path, error) from error
        except BaseException:
            manifest.close()
            raise
        return store

    def grow(self, layout: Layout) -> None:
        """Change to a layout with more cells or later times; nothing that is finished is lost.

        The larger store is built beside the old one, whose files it shares where they are the same, and takes its
        place in one move.
        """
        old_index, times = self._index, len(self.layout.coordinates["time"])
        longer = len(layout.coordinates["time"]) - times
        try:
            draft = _draft(self.directory, layout)
            for name, new in layout.places().items():
                old, entry = old_index.get(name), self.manifest.entries.get(name)
                if old is None or entry is None or not entry.complete:
                    continue
                for variable, (shape, _) in _arrays(self.layout).items():
                    source, target = self.path / _chunk(variable, old), draft / _chunk(variable, new)
                    if variable in layout.record and longer:
                        values = np.concatenate([_decode(source, shape), np.full(longer, np.nan, np.float32)])
                        target.write_bytes(_CODEC.encode(values))
                    else:
                        _link(source, target)
            files.flush_tree(draft)
            files.exchange(draft, self.path)
            shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.layout, self._index = layout, layout.places()
        self._marks = {name: np.full(layout.shape, empty, np.int32) for name, empty in _MARKS.items()}
        self.ended = np.zeros(layout.shape, bool)
        self._mark(entry for name, entry in self.manifest.entries.items() if name in old_index)

    def begin_session(self, command: str) -> None:
        """Record who goes on from here."""
        versions = provenance()
        try:
            self.manifest.begin_session(
                {
                    "command": command,
                    "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "versions": versions,
                    "id": self.versions,
                }
            )
        except OSError as error:
            raise cannot_write(self.manifest.path, error) from error
        before = self.layout.attributes["versions"]
        changed = [f"{name} {before.get(name)} -> {new}" for name, new in versions.items() if before.get(name) != new]
        if changed:
            self.notes.append(
                f"this sweep was begun with other versions ({', '.join(changed)}): replicas run from now on may round "
                "differently, and those under way then start again"
            )

    def close(self) -> None:
        """Let another process write."""
        _clear(self.directory)
        self.manifest.close()

    # --- cells ------------------------------------------------------------------------------------------------

    def write(self, finished: Sequence[Finished]) -> None:
        """Store finished cells, all of them or those before the first that the disk refuses.

        Raises:
            PackingError: the disk says no; what was finished before is kept.
        """
        try:
            files.write_all(
                _scratch(self.directory),
                {self.path / name: data for one in finished for name, data in encoded(one).items()},
            )
            self.accept([entry_of(self.layout, one, self.versions) for one in finished])
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def accept(self, entries: Sequence[Entry]) -> None:
        """From now on these cells count; their records and positions are in place."""
        self.manifest.append(entries)
        self._mark(entries)
        for entry in entries:
            self.ended[self._index[entry.cell]] = True

    def missing(self) -> list[Index]:
        """Cells that are not done."""
        return [(int(i), int(j), int(k), int(r)) for i, j, k, r in np.argwhere(~self.ended)]

    def names_done(self) -> set[Name]:
        """Cells of which nothing is left to do."""
        done = self.manifest.entries.values()
        return {entry.cell for entry in done if entry.complete and entry.covers >= self.last}

    def read(self, cell: Index) -> Finished:
        """A finished cell, if its bytes are those that were written.

        Raises:
            PackingError: which file is missing, cut off or changed.
        """
        entry = self.manifest.entries[self.layout.name(cell)]
        return read_cell(self.path, self.layout, cell, entry)

    def distrust(self, cell: Index, reason: str) -> None:
        """Take a finished cell back: it has to be computed again."""
        name = self.layout.name(cell)
        entry = self.manifest.entries[name]
        self.manifest.append([Entry(**vars(entry) | {"state": "damaged", "reason": reason})])
        self._mark([self.manifest.entries[name]])
        for variable in _arrays(self.layout):
            (self.path / _chunk(variable, cell)).unlink(missing_ok=True)

    def mark_of(self, name: str) -> np.ndarray:
        """absorbed_at, steps_done or failed of every cell."""
        return self._marks[name]

    def _mark(self, entries: Iterable[Entry]) -> None:
        """Tell the readers of the dataset."""
        touched: set[tuple[int, ...]] = set()
        for entry in entries:
            cell = self._index.get(entry.cell)
            if cell is None:
                continue
            trusted = entry.state != "damaged"
            self._marks["absorbed_at"][cell] = entry.absorbed_at if trusted else -1
            self._marks["failed"][cell] = int(entry.state in ("diverged", "failed"))
            self._marks["steps_done"][cell] = max(entry.steps, 1) if trusted else 0
            self.ended[cell] = entry.complete and entry.covers >= self.last
            touched.add(cell[:3])
        for names in (("absorbed_at", "failed"), ("steps_done",)):  # the last says that the others can be read
            changed = {
                self.path / _chunk(name, (*place, 0)): _CODEC.encode(np.ascontiguousarray(self._marks[name][place]))
                for name in names
                for place in touched
            }
            files.write_all(_scratch(self.directory), changed)

    def _verify(self) -> None:
        """Read every finished cell; take back those that are not what was written."""
        known = [
            (cell, self.manifest.entries[name]) for name, cell in self._index.items() if name in self.manifest.entries
        ]
        for cell, entry in known:
            if entry.state == "damaged":
                continue
            try:
                if entry.configuration != self.layout.attributes["configuration"]:
                    raise PackingError("it was made with another configuration")
                read_cell(self.path, self.layout, cell, entry)
            except PackingError as error:
                where = ", ".join(
                    f"{axis} {value:g}" for axis, value in zip(CELL_DIMS, entry.cell, strict=True)
                ).replace("_", " ")
                self.notes.append(f"the finished cell at {where} is damaged and is computed again: {error}")
                self.distrust(cell, str(error))
        self._mark(self.manifest.entries[entry.cell] for _, entry in known)
        self._repair_marks()

    def _repair_layout(self) -> None:
        """Metadata, coordinates and diameters as the layout says."""
        draft = _draft(self.directory, self.layout)
        wrong: dict[Path, bytes] = {}
        for file in draft.rglob("*"):
            name = file.relative_to(draft)
            if (file.is_file() and name.parts[0] not in _MARKS) or name.name.startswith(".z"):
                there = self.path / name
                (self.path / name).parent.mkdir(exist_ok=True)
                if not _same(file, there):
                    wrong[there] = file.read_bytes()
                    self.notes.append(f"{there} was damaged and has been written again")
        files.write_all(_scratch(self.directory), wrong)
        shutil.rmtree(draft, ignore_errors=True)

    def _repair_marks(self) -> None:
        wrong = {}
        for name, values in self._marks.items():
            for place in np.ndindex(*values.shape[:3]):
                file = self.path / _chunk(name, (*place, 0))
                try:
                    right = np.array_equal(_decode(file, values.shape[3:], np.int32), values[place])
                except PackingError:
                    right = False
                if not right:
                    wrong[file] = _CODEC.encode(np.ascontiguousarray(values[place]))
        files.write_all(_scratch(self.directory), wrong)


# --- one cell -------------------------------------------------------------------------------------------------


def encoded(one: Finished) -> dict[str, bytes]:
    """File name within the dataset -> content."""
    arrays = {**one.records, "positions": one.positions}
    return {
        _chunk(name, one.cell): _CODEC.encode(np.ascontiguousarray(values, dtype="<f4"))
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
    arrays = {name: _decode(path / _chunk(name, cell), shape) for name, (shape, _) in _arrays(layout).items()}
    positions = arrays.pop("positions")
    one = Finished(cell, arrays, positions, entry.state, entry.steps, entry.absorbed_at, entry.reason)
    times = int(np.searchsorted(layout.coordinates["time"], entry.covers, side="right"))
    if _checksum(one, times) != entry.checksum:
        raise PackingError(f"its chunks in {path} are not those that were written: the checksum differs")
    return one


def _arrays(layout: Layout) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
    """Shape and dims, beyond those of the grid, of the arrays with one chunk for each cell."""
    times, particles = len(layout.coordinates["time"]), layout.diameters.shape[1]
    arrays: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = dict.fromkeys(layout.record, ((times,), ("time",)))
    return arrays | {"positions": ((particles, int(layout.attributes["dim"])), ("particle", "axis"))}


def _chunk(variable: str, cell: Sequence[int]) -> str:
    """The file of a chunk; Zarr's version 2 names it by its place."""
    beyond = {"positions": (0, 0), **dict.fromkeys(_MARKS, ())}.get(variable, (0,))
    return f"{variable}/{'.'.join(map(str, (*cell, *beyond)))}"


def _decode(file: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """The numbers of a chunk, into memory of the size that they must have."""
    values = np.empty(shape, np.dtype(dtype).newbyteorder("<"))
    try:
        size = file.stat().st_size
        if size > 2 * values.nbytes + 1024:
            raise PackingError(f"{file} has {size} bytes; at most {2 * values.nbytes + 1024} make sense")
        out = np.asarray(_CODEC.decode(file.read_bytes(), out=values.reshape(-1).view(np.uint8)))
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


def _draft(directory: Path, layout: Layout) -> Path:
    """An empty store under another name, every byte of it on the disk."""
    import zarr  # takes a third of a second, as xarray does

    draft = _scratch(directory) / "results.zarr"
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(exist_ok=True)
    group = zarr.open_group(draft, mode="w", zarr_format=2)
    group.attrs.update(sealed(layout.attributes))

    def array(name: str, dims: tuple[str, ...], shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> Any:
        # Integers have no fill value: xarray would read it as missing and turn the variable into floats.
        fill = np.nan if dtype.startswith("f") else None
        made = group.create_array(
            name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, compressors=_CODEC, filters=None
        )
        long_name, units = _UNITS.get(name, (name, "1"))
        made.attrs.update({"_ARRAY_DIMENSIONS": list(dims), "long_name": long_name, "units": units})
        return made

    cells, one = layout.shape, (1,) * len(CELL_DIMS)
    for name, values in layout.coordinates.items():
        kind = "int32" if np.asarray(values).dtype.kind in "iu" else "float64"
        array(name, (name,), (len(values),), (len(values),), kind)[:] = values
    for name, (shape, dims) in _arrays(layout).items():
        array(name, (*CELL_DIMS, *dims), (*cells, *shape), (*one, *shape), "float32")
    for name, empty in _MARKS.items():
        array(name, CELL_DIMS, cells, (*one[:-1], cells[-1]), "int32")[...] = empty
    sizes = layout.diameters.shape
    array("diameters", ("phi", "particle"), sizes, (1, sizes[1]), "float32")[...] = layout.diameters
    zarr.consolidate_metadata(group.store)
    files.flush_tree(draft)
    return draft


def _same(one: Path, other: Path) -> bool:
    """Whether two files say the same; JSON may be spelled differently."""
    try:
        left, right = one.read_bytes(), other.read_bytes()
        return left == right or (one.name.startswith(".z") and json.loads(left) == json.loads(right))
    except (OSError, ValueError, RecursionError):
        return False


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _scratch(directory: Path) -> Path:
    return directory / ".tmp"


def _clear(directory: Path) -> None:
    shutil.rmtree(_scratch(directory), ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> PackingError:
    """What a user reads when the disk says no."""
    return PackingError(f"cannot write {path}: {error.strerror or error}; what was finished before is kept")


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
