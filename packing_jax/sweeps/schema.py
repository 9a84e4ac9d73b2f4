"""How a store is laid out: its cells, its arrays, and the description from which a reader knows them again.

A sweep has axes, such as phi and kick, and a cell is one combination of their values and a replica number. The store
is an xarray dataset in Zarr's version 2: a cell is one chunk of every array, a chunk is one file. Arrays of numbers and
JSON only; whatever is read may come from elsewhere, so nothing of it is executed, and its sizes are checked before
memory is taken. Nothing here needs the driver, or jax.
"""

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numcodecs import Zstd

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Name, digest_of
from packing_jax.untrusted import LARGEST_STORE

#: Where a cell is: a place along each axis, and the replica number.
Index = tuple[int, ...]

# Every frame carries its own checksum, so that any Zarr reader refuses a chunk with a flipped bit.
CODEC = Zstd(level=1, checksum=True)

MOST_CELLS = 10**6  # each is a file for every variable
MOST_TIMES = 10**7  # to record at
_LARGEST_DESCRIPTION = 2**26  # bytes; a million cells have far shorter ones
_LARGEST_NUMBER = 1e300  # what a float and a sum of them still hold; JSON has any whole number
_MOST_STEPS = 2**31
_NAME = r"[A-Za-z]\w{0,99}"

#: Names in the folder of a sweep: the dataset, and where files are written before they are moved to their place.
RESULTS, SCRATCH = "results.zarr", ".tmp"

#: What the folder of a search for phi_c has instead, see packing_jax.search_folder; the last of version 0.1.0.
SEARCH_FILES = ("search.json", "critical.json")

#: What the marks of a cell say as long as it was not run.
MARKS = {"absorbed_at": -1, "steps_done": 0, "failed": 0}

#: Long name and units of what every store has; a specification adds those of its own arrays.
_LABELS = {
    "replica": ("replica", "1"),
    "time": ("time", "steps"),
    "absorbed_at": ("first step without an overlap, -1 if still active", "steps"),
    "steps_done": ("steps accounted for, 0 where not run; absorbed replicas count to the end", "steps"),
    "failed": ("1 if the replica diverged or could not be run; the manifest says why", "1"),
}

# what stores of the first version have, which do not say
_FIRST_KIND, _FIRST_AXES, _FIRST_CONTROL = "spheres", ("phi", "kick", "batch_fraction"), "phi"


class Cells:
    """The cells of a sweep: every combination of the values of its axes, and in each so many replicas."""

    def __init__(self, axes: Mapping[str, Sequence[float | int]], replicas: int) -> None:
        self.axes: dict[str, tuple[float | int, ...]] = {**{name: tuple(values) for name, values in axes.items()}}
        self.axes["replica"] = tuple(range(replicas))

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes, the replica last."""
        return tuple(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(map(len, self.axes.values()))

    def name(self, cell: Index) -> Name:
        """The values that a cell stands for, its replica number last."""
        return tuple(values[place] for values, place in zip(self.axes.values(), cell, strict=True))

    def place(self, name: Name) -> Index | None:
        """The place of a cell; None where there is none of this name."""
        if len(name) != len(self.axes):
            return None
        found = [along.get(value) for along, value in zip(self._along, name, strict=True)]
        return None if None in found else tuple(one for one in found if one is not None)

    @functools.cached_property
    def _along(self) -> list[dict[float | int, int]]:
        return [{value: at for at, value in enumerate(values)} for values in self.axes.values()]

    def places(self) -> dict[Name, Index]:
        """The place of each cell, in order, the replica fastest."""
        return {self.name(place): place for place in np.ndindex(*self.shape)}

    def described(self, name: Name) -> str:
        """A cell for a person: ``phi 0.6, kick 0.05, replica 1``."""
        return ", ".join(f"{axis} {value:g}" for axis, value in zip(self.dims, name, strict=True)).replace("_", " ")


class Variable(NamedTuple):
    """An array that each cell has."""

    dims: tuple[str, ...] = ()  #: names of its own axes
    shape: tuple[int, ...] = ()
    dtype: str = "float32"

    @property
    def blank(self) -> float | int:
        """What stands where nothing was measured."""
        return np.nan if np.dtype(self.dtype).kind == "f" else 0

    def widened(self, other: "Variable") -> "Variable":
        """The array that holds both."""
        return self._replace(shape=tuple(map(max, self.shape, other.shape)))

    @property
    def stored(self) -> np.dtype[Any]:
        """The type of the bytes on the disk."""
        return np.dtype(self.dtype).newbyteorder("<")


class Table(NamedTuple):
    """An array of the whole sweep that is known before the first step."""

    dims: tuple[str, ...]  #: axes of the sweep, in their order, and then its own
    values: np.ndarray


class Layout(NamedTuple):
    """Everything about a store that is known before the first step."""

    cells: Cells
    times: np.ndarray  #: steps to record at
    records: Mapping[str, Variable]  #: what is measured at each of these times
    finals: Mapping[str, Variable]  #: what is kept of a replica's end
    tables: Mapping[str, Table]
    labels: Mapping[str, tuple[str, str]]  #: long name and units of axes and arrays
    attributes: Mapping[str, Any]  #: JSON-able description of the run

    @property
    def last(self) -> int:
        """Last step of the schedule."""
        return int(self.times[-1])

    @property
    def arrays(self) -> dict[str, Variable]:
        """The arrays with one chunk for each cell, records with the times before their own axes."""
        times = len(self.times)
        records = {
            name: Variable(("time", *one.dims), (times, *one.shape), one.dtype) for name, one in self.records.items()
        }
        return {**records, **self.finals}

    def chunk_file(self, variable: str, cell: Sequence[int]) -> str:
        """The file of a cell's chunk; Zarr's version 2 names it by its place."""
        beyond = () if variable in MARKS else (0,) * len(self.arrays[variable].shape)
        return f"{variable}/{'.'.join(map(str, (*cell, *beyond)))}"

    def check(self) -> None:
        """Refuse what cannot be stored.

        Raises:
            PackingError: a name that is taken or no file name, a value that is no number, too much for any disk.
        """
        cells = math.prod(self.cells.shape)
        _refuse_more(MOST_CELLS, cells, "cells")  # before they are looked at one by one
        _refuse_more(MOST_TIMES, len(self.times), "times to record at")
        taken = [*self.cells.dims, "time", *MARKS, *self.records, *self.finals, *self.tables]
        for name in taken:
            if taken.count(name) > 1 or not re.fullmatch(_NAME, name, re.ASCII):
                raise PackingError(
                    f"{name!r} cannot name an axis or array of the store: a name is letters, digits and underscores, "
                    "and is used once"
                )
        for name, values in self.cells.axes.items():
            if not values or len(set(values)) < len(values) or not all(map(_is_number, values)):
                raise PackingError(
                    f"the axis {name} is {values[:6]}; it must be different finite numbers, at least one"
                )
        sizes: dict[str, int] = dict(zip(self.cells.dims, self.cells.shape, strict=True)) | {"time": len(self.times)}
        shapes = {name: (one.dims, one.shape, one.dtype) for name, one in self.arrays.items()}
        shapes |= {name: (one.dims, one.values.shape, str(one.values.dtype)) for name, one in self.tables.items()}
        for name, (dims, shape, dtype) in shapes.items():
            if len(dims) != len(shape) or any(
                sizes.setdefault(dim, n) != n for dim, n in zip(dims, shape, strict=True)
            ):
                raise PackingError(f"{name} has the axes {dims} and the shape {shape}, which do not go together")
            if 0 in shape:
                raise PackingError(f"{name} has the shape {shape}, in which there is nothing to store")
            if np.dtype(dtype).kind not in "fiub":
                raise PackingError(f"{name} holds {dtype}; a store holds numbers")
        for name in set(shapes) & set(sizes):
            raise PackingError(f"{name} is an array and also an axis of another one; choose another name for it")
        size = cells * sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in self.arrays.values())
        if size > LARGEST_STORE:
            raise PackingError(
                f"the sweep has {cells} cells and would store {size / 2**30:.0f} GiB; the limits are {MOST_CELLS} "
                f"cells and {LARGEST_STORE // 2**30} GiB"
            )


def _refuse_more(most: int, count: int, what: str) -> None:
    if count > most:
        raise PackingError(f"the sweep has {count} {what}; the limit is {most}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST_NUMBER < value < _LARGEST_NUMBER


# --- the description of a store -------------------------------------------------------------------------------


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes as JSON keeps them, with a checksum of all of them."""
    plain = json.loads(json.dumps({name: value for name, value in attributes.items() if name != "seal"}))
    return {**plain, "seal": digest_of(plain)}


def description(directory: Path) -> dict[str, Any]:
    """The attributes of a store, from whichever of their two copies is whole. Nothing is changed.

    Raises:
        PackingError: no store there, none that can be gone on with, or both copies are damaged.
    """
    dataset = dataset_of(directory)
    found, refused = False, None
    for name in (".zattrs", ".zmetadata"):
        try:
            data = dataset.read(name, _LARGEST_DESCRIPTION)
            found = True
            value = json.loads(data) if name == ".zattrs" else json.loads(data)["metadata"][".zattrs"]
            if digest_of({name: one for name, one in value.items() if name != "seal"}) == value["seal"]:
                return _checked(value)
        except PackingError as error:
            refused = error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    # the description follows from the command's words, and cells that do not fit it are computed again
    raise refused or PackingError(
        f"the description of the sweep in {dataset.path} is "
        + ("damaged or from an earlier version" if found else "missing")
        + "; its cells are not lost: begin the same sweep in another directory, stop it, copy results.zarr/.zattrs "
        f"from there, and continue with --resume {directory}"
    )


def dataset_of(directory: Path) -> Folder:
    """The folder of the arrays, in a directory that a sweep wrote.

    Raises:
        PackingError: there is none.
    """
    what = "is not a directory"
    try:
        folder = Folder(directory)
        what = "has no results.zarr"
        return folder.folder(folder.found("results.zarr"))
    except OSError as error:  # a name that is too long among them
        raise PackingError(f"{directory} {what}: give the directory that packing-jax run or sweep wrote") from error


def _checked(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes that hold what every store says, and nothing that no sweep has."""
    for name, kind in (("configuration", str), ("versions", dict)):
        if not isinstance(attributes.get(name), kind):
            raise _no_sweep(name, attributes.get(name))
    for name, what in attributes["versions"].items():
        if not isinstance(what, str):
            raise _no_sweep(f"{name} of versions", what)
    return attributes


def stored_kind(attributes: Mapping[str, Any]) -> str:
    """What was swept, in a store's own word: ``spheres``."""
    return str(attributes.get("kind", _FIRST_KIND))[:80]


def command_of(attributes: Mapping[str, Any]) -> str | None:
    """The command that makes sweeps of a store's kind and goes on with them; None for a user's own kind."""
    return {"spheres": "sweep", "networks": "train"}.get(stored_kind(attributes))


def stored_control(attributes: Mapping[str, Any]) -> str | None:
    """The axis along which a store expects its transition, None if it has none."""
    control = attributes.get("control") if "kind" in attributes else _FIRST_CONTROL
    return control if isinstance(control, str) else None


def stored_steps(attributes: Mapping[str, Any]) -> int:
    """The last step of a store's schedule.

    Raises:
        PackingError: it says none.
    """
    steps = attributes.get("steps")
    if type(steps) is not int or not 1 <= steps < _MOST_STEPS:
        raise _no_sweep("steps", steps)
    return steps


def stored_width(attributes: Mapping[str, Any]) -> int | None:
    """The width of all batches of a sweep whose bits depend on it; None where they do not.

    Raises:
        PackingError: it is no width.
    """
    width = attributes.get("block_width")
    if width is not None and (type(width) is not int or width < 1):
        raise _no_sweep("block_width", width)
    return width


def stored_cells(attributes: Mapping[str, Any]) -> Cells:
    """The cells of a store, from its attributes, which may come from elsewhere.

    Raises:
        PackingError: axes that are missing, no different numbers, or more than any sweep has.
    """
    names, replicas = attributes.get("axes", list(_FIRST_AXES)), attributes.get("replicas")
    if not (
        isinstance(names, list)
        and len({*map(str, names)}) == len(names)
        and all(isinstance(name, str) and re.fullmatch(_NAME, name, re.ASCII) for name in names)
    ):
        raise _no_sweep("axes", names)
    if type(replicas) is not int or not 1 <= replicas <= MOST_CELLS:
        raise _no_sweep("replicas", replicas)
    for name in names:
        values = attributes.get(name)
        if not (isinstance(values, list) and values and all(map(_is_number, values))) or len(set(values)) < len(values):
            raise _no_sweep(name, values)
    count = replicas * math.prod(len(attributes[name]) for name in names)
    if count > MOST_CELLS:
        raise PackingError(f"the store claims {count} cells, more than any sweep has")
    return Cells({name: attributes[name] for name in names}, replicas)


def _no_sweep(name: str, value: Any) -> PackingError:
    return PackingError(f"the store says {name} = {str(value)[:80]}; no sweep has that")


# --- an empty store -------------------------------------------------------------------------------------------


def empty_store(layout: Layout) -> dict[str, bytes]:
    """The files of a store in which no cell has been run: name within the dataset -> content."""
    import zarr  # takes a third of a second, as xarray does
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    memory = MemoryStore(files)
    group = zarr.open_group(memory, mode="w", zarr_format=2)
    group.attrs.update(sealed(layout.attributes))
    labels = {**layout.labels, **_LABELS}

    def array(name: str, dims: tuple[str, ...], shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> Any:
        # Integers have no fill value: xarray would read it as missing and turn the variable into floats.
        fill = np.nan if np.dtype(dtype).kind == "f" else None
        made = group.create_array(
            name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, compressors=CODEC, filters=None
        )
        long_name, units = labels.get(name, (name.replace("_", " "), "1"))
        made.attrs.update({"_ARRAY_DIMENSIONS": list(dims), "long_name": long_name, "units": units})
        return made

    dims, cells = layout.cells.dims, layout.cells.shape
    one = (1,) * len(cells)
    for name, values in {**layout.cells.axes, "time": layout.times}.items():
        kind = "int32" if np.asarray(values).dtype.kind in "iu" else "float64"
        array(name, (name,), (len(values),), (len(values),), kind)[:] = np.asarray(values)
    for name, variable in layout.arrays.items():
        shape = variable.shape
        array(name, (*dims, *variable.dims), (*cells, *shape), (*one, *shape), variable.dtype)
    for name, empty in MARKS.items():
        array(name, dims, cells, (*one[:-1], cells[-1]), "int32")[...] = empty
    for name, table in layout.tables.items():
        chunks = tuple(1 if dim in dims else n for dim, n in zip(table.dims, table.values.shape, strict=True))
        array(name, table.dims, table.values.shape, chunks, str(table.values.dtype))[...] = table.values
    zarr.consolidate_metadata(memory)
    return {name: content.to_bytes() for name, content in files.items()}


def draft_of(folder: Folder, files: Mapping[str, bytes]) -> str:
    """A dataset of these files under another name, every byte of it on the disk."""
    draft = f"{SCRATCH}/{RESULTS}"
    folder.make(SCRATCH)
    folder.remove(draft)
    folder.make(draft)
    for array in dict.fromkeys(name.split("/")[0] for name in files if "/" in name):
        folder.make(f"{draft}/{array}")
    folder.write({f"{draft}/{name}": data for name, data in files.items()}, drafts=SCRATCH)
    return draft
