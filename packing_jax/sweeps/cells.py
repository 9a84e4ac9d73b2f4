"""What is stored of a cell: arrays in files of their own, and their checksum in the manifest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.manifest import CellState, Entry, digest
from packing_jax.sweeps.schema import CODEC, Index, Layout, Variable


class Finished(NamedTuple):
    """What is stored of a cell."""

    cell: Index
    records: Mapping[str, np.ndarray]  #: name -> (time, ...)
    finals: Mapping[str, np.ndarray]  #: name -> array, at most as large as the layout says; the rest is blank
    state: CellState
    steps: int
    absorbed_at: int
    reason: str = ""


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
        return np.ascontiguousarray(values, variable.stored)
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
        checksum=_checksum(layout, one, len(layout.times)),
        configuration=str(layout.attributes["configuration"]),
        versions=versions,
        reason=one.reason,
    )


def _checksum(layout: Layout, one: Finished, times: int) -> str:
    arrays = stored_arrays(layout, one)
    parts = [json.dumps([one.state, one.steps, one.absorbed_at]).encode()]
    for name in sorted(arrays):
        values = arrays[name][:times] if name in layout.records else arrays[name]
        parts += [name.encode(), np.ascontiguousarray(values).tobytes()]
    return digest(*parts)


def read_cell(path: Path, layout: Layout, cell: Index, entry: Entry) -> Finished:
    """A cell as it is on the disk, checked against its line in the manifest.

    Raises:
        PackingError: which file is missing, cut off or changed.
    """
    arrays = {
        name: decoded(path / layout.chunk_file(name, cell), one.shape, one.dtype) for name, one in layout.arrays.items()
    }
    one = Finished(
        cell,
        {name: arrays[name] for name in layout.records},
        {name: arrays[name] for name in layout.finals},
        entry.state,
        entry.steps,
        entry.absorbed_at,
        entry.reason,
    )
    times = int(np.searchsorted(layout.times, entry.covers, side="right"))
    if _checksum(layout, one, times) != entry.checksum:
        raise PackingError(f"its chunks in {path} are not those that were written: the checksum differs")
    return one


def decoded(file: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
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
