"""What is stored of a cell: arrays in files of their own, and their checksums in the manifest.

A file may come from elsewhere. Its size on the disk is bounded before it is read, and the size that it decompresses to
must be that of the array, by the word of its own header, before memory is taken.
"""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import CellState, Entry, digest, digest_of_array
from packing_jax.sweeps.schema import CODEC, Index, Layout, Variable

_ZSTD = b"\x28\xb5\x2f\xfd"
_ALWAYS_TAKEN = 2**29  # bytes of an array that may come from a file of any size: equal diameters, a record of zeros
_MOST_SHRUNK = 1000  # a larger one is at most so many times larger than its file: numbers that were measured are


class Finished(NamedTuple):
    """What is stored of a cell."""

    cell: Index
    records: Mapping[str, np.ndarray]  #: name -> (time, ...)
    finals: Mapping[str, np.ndarray]  #: name -> array, at most as large as the layout says; the rest is blank
    state: CellState
    steps: int
    absorbed_at: int
    reason: str = ""
    trajectory: str = ""  #: checksum of its trajectory file, if it has one


def lost(layout: Layout, cell: Index, reason: str) -> Finished:
    """A cell of which nothing came back."""
    arrays = {name: np.full(one.shape, one.blank, one.stored) for name, one in layout.arrays.items()}
    return Finished(
        cell,
        {name: arrays[name] for name in layout.records},
        {name: arrays[name] for name in layout.finals},
        state="failed",
        steps=0,
        absorbed_at=-1,
        reason=reason,
    )


def stored_arrays(layout: Layout, one: Finished) -> dict[str, np.ndarray]:
    """A cell's arrays as they are on the disk.

    Raises:
        PackingError: one is missing, or does not fit into the layout.
    """
    arrays = {**one.records, **one.finals}
    if arrays.keys() != layout.arrays.keys():
        raise PackingError(
            f"a replica gave {sorted(arrays)} and the layout says {sorted(layout.arrays)}: they must be the same"
        )
    return {name: _fitted(name, np.asarray(values), layout.arrays[name]) for name, values in arrays.items()}


def _fitted(name: str, values: np.ndarray, variable: Variable) -> np.ndarray:
    if values.shape == variable.shape:
        return np.ascontiguousarray(values, variable.stored).reshape(values.shape)  # one number stays one number
    if values.ndim != len(variable.shape) or any(
        n > room for n, room in zip(values.shape, variable.shape, strict=True)
    ):
        raise PackingError(f"{name} of a replica has the shape {values.shape} and the layout says {variable.shape}")
    whole = np.full(variable.shape, variable.blank, variable.stored)
    whole[tuple(map(slice, values.shape))] = values
    return whole


def encoded(layout: Layout, one: Finished) -> dict[str, bytes]:
    """File name within the dataset -> content."""
    return {
        layout.chunk_file(name, one.cell): CODEC.encode(values) for name, values in stored_arrays(layout, one).items()
    }


def entry_of(layout: Layout, one: Finished, versions: str) -> Entry:
    """The line of the manifest for a finished cell."""
    return Entry(
        cell=layout.cells.name(one.cell),
        state=one.state,
        covers=layout.last,
        steps=one.steps,
        absorbed_at=one.absorbed_at,
        checksum={name: digest_of_array(values) for name, values in stored_arrays(layout, one).items()},
        configuration=str(layout.attributes["configuration"]),
        versions=versions,
        reason=one.reason,
        trajectory=one.trajectory,
    )


def read_cell(dataset: Folder, layout: Layout, cell: Index, entry: Entry) -> Finished:
    """A cell as it is on the disk, checked against its line in the manifest.

    Raises:
        PackingError: which file is missing, cut off or changed.
    """
    arrays = read_arrays(dataset, layout, cell, entry, layout.arrays)
    return Finished(
        cell,
        {name: arrays[name] for name in layout.records},
        {name: arrays[name] for name in layout.finals},
        entry.state,
        entry.steps,
        entry.absorbed_at,
        entry.reason,
        entry.trajectory,
    )


def read_arrays(
    dataset: Folder, layout: Layout, cell: Index, entry: Entry, names: Collection[str]
) -> dict[str, np.ndarray]:
    """Some arrays of a cell, checked; what else the cell has is read only where one checksum is of all arrays.

    Raises:
        PackingError: which file is missing, cut off or changed.
    """
    if entry.configuration != layout.attributes["configuration"]:
        raise PackingError("it was made with another configuration")
    known = entry.checksum
    if isinstance(known, dict) and known.keys() != layout.arrays.keys():
        raise PackingError("the manifest has no checksum of its arrays")
    arrays, times = {}, int(np.searchsorted(layout.times, entry.covers, side="right"))
    for name in names if isinstance(known, dict) else layout.arrays:
        variable = layout.arrays[name]
        arrays[name] = decoded(dataset, layout.chunk_file(name, cell), variable.shape, variable.dtype)
        if isinstance(known, dict) and _checksum(layout, name, arrays[name], times) != known[name]:
            raise PackingError(f"{dataset.path / layout.chunk_file(name, cell)} is not what was written there")
    if isinstance(known, str) and _checksum_of_all(layout, entry, arrays, times) != known:  # an older store
        raise PackingError(f"its chunks in {dataset.path} are not those that were written: the checksum differs")
    return arrays


def _checksum(layout: Layout, name: str, values: np.ndarray, times: int) -> str:
    known = values[:times] if name in layout.records else values
    return digest_of_array(known)


def _checksum_of_all(layout: Layout, entry: Entry, arrays: Mapping[str, np.ndarray], times: int) -> str:
    parts = [json.dumps([entry.state, entry.steps, entry.absorbed_at]).encode()]
    for name in sorted(arrays):
        values = arrays[name][:times] if name in layout.records else arrays[name]
        parts += [name.encode(), np.ascontiguousarray(values).tobytes()]
    return digest(*parts)


def most_bytes(size: int) -> int:
    """How many bytes a file can have that holds so many."""
    return 2 * size + 1024


def decoded(dataset: Folder, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The numbers of a chunk, into memory of the size that they must have.

    Raises:
        PackingError: which file is missing, cut off or changed, or is more or less than these numbers.
    """
    stored, file = np.dtype(dtype).newbyteorder("<"), dataset.path / name
    size = math.prod(shape) * stored.itemsize
    try:
        data = dataset.read(name, most_bytes(size))
    except FileNotFoundError as error:
        raise PackingError(f"{file} is missing") from error
    except OSError as error:
        raise PackingError(f"{file} cannot be read ({error.strerror or error})") from error
    claimed = _decoded_size(data)
    if claimed is None:
        raise PackingError(f"{file} is cut off or changed, it cannot be decompressed")
    if claimed != size:
        raise PackingError(f"{file} holds {claimed} bytes instead of {size}")
    if size > max(_ALWAYS_TAKEN, _MOST_SHRUNK * len(data)):
        raise PackingError(f"{file} has {len(data)} bytes and would take {size}, which no measured data do")
    values = np.empty(shape, stored)
    try:
        CODEC.decode(data, out=values.reshape(-1).view(np.uint8))
    except (RuntimeError, ValueError) as error:
        raise PackingError(f"{file} is cut off or changed, it cannot be decompressed") from error
    return values


def _decoded_size(data: bytes) -> int | None:
    """What a frame of Zstandard says that it decompresses to (RFC 8878, 3.1.1.1); None where it says nothing."""
    if len(data) < 5 or data[:4] != _ZSTD:
        return None
    sort, single = data[4] >> 6, data[4] >> 5 & 1
    length = (single, 2, 4, 8)[sort]
    start = 5 + (not single) + (0, 1, 2, 4)[data[4] & 3]
    field = data[start : start + length]
    if not length or len(field) < length:
        return None
    return int.from_bytes(field, "little") + (256 if length == 2 else 0)
