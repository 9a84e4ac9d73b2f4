"""The results of a sweep, read only: nothing that its files say is believed before it is checked.

The description says which cells there are, the manifest which of them are finished and what their arrays are by their
checksums. A file is opened by :class:`~packing_jax.sweeps.folder.Folder`, its size is known before it is read and the
size of what it holds before memory is taken (:mod:`packing_jax.sweeps.cells`), and what is handed out is what was
written: so neither zarr nor xarray opens a file here, and a chunk of another cell is noticed. Arrays stay on the disk
until they are asked for.
"""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.cells import decoded, read_arrays
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Digest, Entry, Manifest
from packing_jax.sweeps.schema import (
    MARKS,
    MOST_TIMES,
    Index,
    Layout,
    Variable,
    command_of,
    dataset_of,
    description,
    stored_cells,
    stored_kind,
    stored_steps,
)
from packing_jax.untrusted import LARGEST_STORE, check_memory

if TYPE_CHECKING:
    import xarray as xr

_LARGEST_METADATA = 2**16  # bytes of .zarray or .zattrs
_MOST_ARRAYS = 1000
_LOADED = 16  # an estimate takes a few copies in double precision: so many times what is loaded must fit into memory


class _Stored(NamedTuple):
    """An array as its metadata describe it."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    labels: dict[str, str]
    axes: int  #: how many of its dims, at their beginning, are axes of the sweep: a chunk is one place along them

    @property
    def chunk(self) -> tuple[int, ...]:
        return self.shape[self.axes :]


class Reader:
    """What a sweep has finished so far."""

    def __init__(self, directory: Path) -> None:
        """Read its description and its manifest; its arrays wait until they are asked for.

        Raises:
            PackingError: no sweep there, or one of these is damaged or no sweep's.
        """
        self.directory = directory
        self.attributes = description(directory)
        self.cells, self.last = stored_cells(self.attributes), stored_steps(self.attributes)
        self.manifest = Manifest.read(Folder(directory), math.prod(self.cells.shape))
        self.dataset = dataset_of(directory)
        known = self.attributes.get("digests")
        #: of the tables and the times; None in older stores
        self._digests = known if isinstance(known, Mapping) else None
        self._compared: set[str] = set()
        #: of the cells whose arrays are there
        self.entries: dict[Index, Entry] = {
            place: entry
            for name, entry in self.manifest.entries.items()
            if entry.state != "damaged" and (place := self.cells.place(name)) is not None
        }

    @property
    def mended(self) -> str:
        """The command that computes or writes again what is damaged."""
        command = command_of(self.attributes)
        return f"packing-jax {command} --resume {self.directory}" if command else "run_sweep with resume=True"

    @functools.cached_property
    def arrays(self) -> dict[str, _Stored]:
        """The arrays by their metadata, which go together with one another and with the description.

        Raises:
            PackingError: they are damaged or no sweep's; what would mend them.
        """
        try:
            found = dict(self._described())
            self._check_sizes(found)
        except PackingError as error:
            raise PackingError(f"{error}; {self.mended} writes it again") from error
        return found

    # --- the metadata -----------------------------------------------------------------------------------------

    def _described(self) -> Iterator[tuple[str, _Stored]]:
        names = [name for name in self.dataset.names() if not name.startswith(".")]
        if len(names) > _MOST_ARRAYS:
            raise PackingError(f"{self.dataset.path} has {len(names)} arrays; no sweep has more than {_MOST_ARRAYS}")
        for name in names:
            if self.dataset.is_folder(name):
                yield name, self._one(name)

    def _one(self, name: str) -> _Stored:
        file = self.dataset.path / name
        try:
            array = json.loads(self.dataset.read(f"{name}/.zarray", _LARGEST_METADATA))
            labels = json.loads(self.dataset.read(f"{name}/.zattrs", _LARGEST_METADATA))
            dims, shape, chunks = labels.pop("_ARRAY_DIMENSIONS"), array["shape"], array["chunks"]
            dtype = np.dtype(str(array["dtype"]))
            right = (
                all(type(n) is int and 1 <= n <= LARGEST_STORE for n in (*shape, *chunks))
                and len(dims) == len(shape) == len(chunks)
                and all(isinstance(word, str) for word in (*dims, *labels.values()))
                and math.prod(shape) * dtype.itemsize <= LARGEST_STORE
            )
            plain = (
                (dtype.kind in "fiu" or dtype == np.dtype("bool"))
                and (array["order"], array["zarr_format"]) == ("C", 2)
                and not array["filters"]
                and array["compressor"]["id"] == "zstd"
            )
        except FileNotFoundError as error:
            raise PackingError(f"{file / '.zarray'} or {file / '.zattrs'} is missing") from error
        except OSError as error:
            raise PackingError(f"{file} cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, PackingError):
                raise
            raise PackingError(f"{file / '.zarray'} or {file / '.zattrs'} is damaged") from error
        if not plain:
            raise PackingError(f"{file / '.zarray'} asks for more than numbers with ordinary compression")
        axes = 0 if dims in ([name], ["time"]) else sum(dim in self.cells.axes for dim in dims)
        before = len(dims) - 1 if name in MARKS else axes
        if not right or tuple(chunks) != (1,) * before + tuple(shape[before:]):
            raise PackingError(f"{file / '.zarray'} is damaged: it describes no array of this sweep")
        return _Stored(tuple(dims), tuple(shape), dtype.newbyteorder("<"), labels, before)

    def _check_sizes(self, arrays: Mapping[str, _Stored]) -> None:
        """The axes are those of the description, and everything along the same dim is as long."""
        sizes: dict[str, int] = dict(zip(self.cells.dims, self.cells.shape, strict=True))
        if stored_kind(self.attributes) == "spheres":
            for name, value in (("particle", self.attributes.get("particles")), ("axis", self.attributes.get("dim"))):
                known = [one for one in (value if isinstance(value, list) else [value]) if type(one) is int]
                sizes |= {name: max(known)} if known else {}
        for name, one in arrays.items():
            for dim, size in zip(one.dims, one.shape, strict=True):
                if sizes.setdefault(dim, size) != size:
                    raise PackingError(
                        f"{self.dataset.path / name} is {size} long in {dim}, and the sweep {sizes[dim]}"
                    )
        for name in ("time", *self.cells.dims):
            if name not in arrays or arrays[name].dims != (name,):
                raise PackingError(f"{self.dataset.path / name} is missing")
        if sizes["time"] > min(self.last + 1, MOST_TIMES):
            raise PackingError(f"{self.dataset.path / 'time'} lists more times than a sweep of {self.last} steps has")

    @functools.cached_property
    def layout(self) -> Layout:
        """The same as who writes the sweep knows it, but for the tables.

        Raises:
            PackingError: the times are damaged as well; what would mend them.
        """
        found: list[np.ndarray] = []
        self.compare("time", lambda _, values: found.append(values))
        times = found[0]
        if times.dtype.kind != "i" or times[0] < 0 or times[-1] != self.last or not (np.diff(times) > 0).all():
            raise PackingError(
                f"{self.dataset.path / 'time'} is not what was written there; {self.mended} writes it again"
            )
        k = len(self.cells.dims)
        own = {
            name: Variable(one.dims[k:], one.chunk, one.dtype.str)
            for name, one in self.arrays.items()
            if one.dims[:k] == self.cells.dims and name not in MARKS
        }
        records = {
            name: Variable(one.dims[1:], one.shape[1:], one.dtype)
            for name, one in own.items()
            if one.dims[:1] == ("time",)
        }
        finals = {name: one for name, one in own.items() if name not in records}
        for name in self.arrays.keys() - own.keys() - MARKS.keys() - self.cells.axes.keys() - {"time"}:
            # what has all axes and is not laid out as a cell's has no checksum that it could be held against
            unknown = "replica" in self.arrays[name].dims if self._digests is None else name not in self._digests
            if unknown:
                raise PackingError(
                    f"{self.dataset.path / name} is damaged: it describes no array of this sweep; {self.mended} writes "
                    "it again"
                )
        return Layout(self.cells, times, records, finals, {}, {}, self.attributes)

    @property
    def tables(self) -> dict[str, _Stored]:
        """Arrays of the whole sweep."""
        known = {*self.layout.arrays, *MARKS, *self.cells.dims, "time"}
        return {name: one for name, one in self.arrays.items() if name not in known}

    def chunk(self, name: str, place: Index) -> str:
        """The name of a chunk in the folder of its array: a place along those of the dims that are axes."""
        return ".".join(map(str, (*place, *(0,) * len(self.arrays[name].chunk))))

    # --- the numbers ------------------------------------------------------------------------------------------

    def read(self, name: str, place: Index) -> np.ndarray | None:
        """What an array holds at a place along those of its dims that are axes; None where nothing is finished.

        Raises:
            PackingError: it is not what was written there; which cell it is, and what would mend it.
        """
        if name not in self.layout.arrays:
            return self._table(name, place)
        entry = self.entries.get(place)
        if entry is None:
            return None
        try:
            return read_arrays(self.dataset, self.layout, place, entry, [name])[name]
        except PackingError as error:
            raise PackingError(self.damaged(place, error)) from error

    def damaged(self, place: Index, why: PackingError | str) -> str:
        """A sentence about a cell that is not what was written."""
        where = self.cells.described(self.cells.name(place))
        return f"the finished cell at {where} is damaged: {why}; {self.mended} computes it again"

    def _part(self, name: str, place: Index) -> np.ndarray:
        """What a table holds at a place, or a coordinate as a whole."""
        one, file = self.arrays[name], f"{name}/{self.chunk(name, place)}"
        axis = self.cells.axes.get(name)
        if self.dataset.stat(file) is None:  # zarr writes no chunk that is blank all over
            if name in MARKS and not any(cell[:-1] == place for cell in self.entries):
                return np.full(one.chunk, MARKS[name], one.dtype)
            if axis is not None and not any(axis):
                return np.zeros(one.chunk, one.dtype)
            if axis is None and one.dtype.kind == "f":
                return np.full(one.chunk, np.nan, one.dtype)
        return decoded(self.dataset, file, one.chunk, one.dtype)

    def compare(self, name: str, see: Callable[[Index, np.ndarray], None]) -> None:
        """Read a table or coordinate, one chunk in memory at a time, and compare all of it with its checksum.

        Args:
            name: of the array.
            see: is called with the place and the numbers of each chunk.

        Raises:
            PackingError: it is not what was written there; what would mend it.
        """
        one = self.arrays[name]
        known, total = (self._digests or {}).get(name), Digest(one.dtype, one.shape)

        def take(place: Index) -> None:
            values = self._part(name, place)
            total.update(values)
            see(place, values)

        try:
            for place in np.ndindex(*one.shape[: one.axes]):
                take(place)
            if known is not None and known != total.hexdigest():
                raise PackingError(f"{self.dataset.path / name} is not what was written there")
        except PackingError as error:
            raise PackingError(f"{error}; {self.mended} writes it again") from error

    def _table(self, name: str, place: Index) -> np.ndarray:
        """What a table holds at a place; the first time all of it is compared with its checksum."""
        if name not in self._compared:
            self.compare(name, lambda *_: None)
            self._compared.add(name)
        return self._part(name, place)

    def marks(self) -> dict[str, np.ndarray]:
        """absorbed_at, steps_done and failed of every cell, by the manifest."""
        marks = {name: np.full(self.cells.shape, empty, np.int32) for name, empty in MARKS.items()}
        for place, entry in self.entries.items():
            marks["absorbed_at"][place] = entry.absorbed_at
            marks["failed"][place] = entry.state in ("diverged", "failed")
            marks["steps_done"][place] = max(entry.steps, 1)
        return marks

    def results(self, load: tuple[str, ...] = ()) -> "xr.Dataset":
        """Everything as an xarray dataset, what is to be loaded in memory and the rest still on the disk.

        Raises:
            PackingError: what is to be loaded is damaged, or larger than this machine's memory allows.
        """
        import xarray as xr
        from xarray.core.indexing import LazilyIndexedArray

        from packing_jax.sweeps.lazy import OnDisk

        labels = {name: one.labels for name, one in self.arrays.items()}
        axes = {**{name: _numbers(values) for name, values in self.cells.axes.items()}, "time": self.layout.times}
        coordinates = {name: (name, values, labels[name]) for name, values in axes.items()}
        lazy = {
            name: xr.Variable(
                one.dims,
                LazilyIndexedArray(OnDisk(functools.partial(self.read, name), one.shape, one.dtype, one.axes)),
                one.labels,
            )
            for name, one in self.arrays.items()
            if name in self.layout.arrays or name in self.tables
        }
        marks = {name: (self.cells.dims, values, labels.get(name)) for name, values in self.marks().items()}
        made = xr.Dataset({**lazy, **marks}, coordinates, self.attributes)
        found = [name for name in load if name in made]
        check_memory(_LOADED * sum(made[name].nbytes for name in found))
        for name in found:
            made[name].load()
        return made


def _numbers(values: Sequence[float | int]) -> np.ndarray:
    """The values of an axis, in the type that a store has for them."""
    whole = all(type(one) is int and abs(one) < 2**31 for one in values)
    return np.array(values, np.int32 if whole else np.float64)
