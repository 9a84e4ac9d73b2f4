"""Whether everything in a store is as it was written: its names and sizes, or all that it holds."""

import functools
import itertools
import math
import stat
from collections.abc import Iterator

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.cells import most_bytes, read_cell
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.frames import checked_file
from packing_jax.sweeps.manifest import Entry
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.schema import MARKS, Index
from packing_jax.sweeps.trajectory import frames_of, trajectory_name
from packing_jax.untrusted import LARGEST_STORE


def misplaced(sweep: Reader) -> Iterator[str]:
    """A sentence for everything that is missing, is no file, or has a size that is none; no chunk is read."""
    try:
        yield from _misplaced(sweep)
    except PackingError as error:  # the metadata
        yield str(error)


def _misplaced(sweep: Reader) -> Iterator[str]:
    layout, folder = sweep.layout, Folder(sweep.directory)
    folders = {name: sweep.dataset.folder(name) for name in sweep.arrays}
    most = {name: most_bytes(math.prod(one.chunk) * one.dtype.itemsize) for name, one in sweep.arrays.items()}
    for name in (*sweep.cells.dims, *sweep.tables):
        one = sweep.arrays[name]
        # zarr writes no chunk that is blank all over
        blank = one.dtype.kind == "f" if name in sweep.tables else not any(sweep.cells.axes[name])
        for place in np.ndindex(*one.shape[: one.axes]):
            if fault := _fault(folders[name], sweep.chunk(name, place), most[name], blank):
                yield f"{fault}; {sweep.mended} writes it again"
    for place, entry in sorted(sweep.entries.items()):
        files = [(folders[name], sweep.chunk(name, place), most[name]) for name in layout.arrays]
        if entry.trajectory:
            files.append((folder, trajectory_name(sweep.cells.dims, entry.cell), LARGEST_STORE))
        if fault := next(filter(None, itertools.starmap(_fault, files)), None):
            yield sweep.damaged(place, fault)


def _fault(folder: Folder, name: str, most: int, blank: bool = False) -> str | None:
    """Why a file cannot be what was written, which has so many bytes at most; None where it can."""
    where = folder.path / name
    try:
        found = folder.stat(name)
    except PackingError as error:
        return str(error)
    except OSError as error:
        return f"{where} cannot be read ({error.strerror or error})"
    if found is None:
        return None if blank else f"{where} is missing"
    if not stat.S_ISREG(found.st_mode):
        return f"{where} is a folder and no file"
    return None if 0 < found.st_size <= most else f"{where} has {found.st_size} bytes"


def damaged(sweep: Reader) -> Iterator[str]:
    """A sentence for everything that is not what was written; all of it is read."""
    try:
        marks, _ = sweep.marks(), sweep.layout
    except PackingError as error:
        yield str(error)
        return

    def see(name: str, place: Index, values: np.ndarray) -> None:
        right = True
        if name in sweep.cells.axes:
            right = np.array_equal(values, np.asarray(sweep.cells.axes[name]))
        if name in MARKS:  # a cell that is not marked yet is none that would be believed
            right = bool(((values == marks[name][place]) | (values == MARKS[name])).all())
        if not right:
            raise PackingError(f"{sweep.dataset.path / name} is not what was written there")

    for name in (*sweep.cells.dims, *sweep.tables, *MARKS):
        try:
            sweep.compare(name, functools.partial(see, name))
        except PackingError as error:
            yield str(error)
    folder = Folder(sweep.directory)
    for place, entry in sorted(sweep.entries.items()):
        try:
            read_cell(sweep.dataset, sweep.layout, place, entry)
            _check_trajectory(sweep, folder, entry)
        except PackingError as error:
            yield sweep.damaged(place, error)


def _check_trajectory(sweep: Reader, folder: Folder, entry: Entry) -> None:
    if entry.trajectory:
        with checked_file(folder, *frames_of(sweep.cells.dims, sweep.attributes, entry.cell), entry.trajectory):
            pass
