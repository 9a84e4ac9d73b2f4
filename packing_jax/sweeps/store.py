"""The store of a sweep: ``DIR/results.zarr``, an xarray dataset that grows cell by cell.

A cell is one replica at one value of each axis; it is one chunk of every array, and every chunk is one file that
appears in one move (:mod:`packing_jax.sweeps.folder`). What is finished is written in this order, each step on the disk
before the next:

1. its arrays, where nothing says yet that they are there;
2. a line in ``DIR/manifest.jsonl`` with a checksum of them (:mod:`packing_jax.sweeps.manifest`): now they count;
3. ``absorbed_at``, ``failed`` and ``steps_done``, which tell a reader of the dataset alone.

So a reader finds whole cells at any moment, and a sweep that was cut between any two system calls knows which cells
to trust. Nothing is ever executed on reading: arrays of numbers and JSON only.

Whoever holds the lock of the manifest writes, and nobody else makes, changes or removes anything here: laying out a new
store, and cleaning up where that fails, are done under it too.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.cells import Finished, decoded, encoded, entry_of, read_cell
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import MANIFEST, Entry, Manifest, Name, digest_of
from packing_jax.sweeps.schema import (
    CODEC,
    MARKS,
    RESULTS,
    SCRATCH,
    Index,
    Layout,
    description,
    draft_of,
    empty_store,
    sealed,
    stored_width,
)
from packing_jax.versions import provenance

_TRIES = 100


class Store:
    """A sweep's results on disk, open for writing by this process alone."""

    def __init__(self, folder: Folder, layout: Layout, manifest: Manifest) -> None:
        self.folder = folder
        self.layout = layout
        self.manifest = manifest
        self.notes: list[str] = []  #: what was found damaged and repaired, in words
        self._maker = provenance(exact=stored_width(layout.attributes) is None)
        self.versions = digest_of(self._maker)
        self._index = layout.cells.places()
        self.ended = np.zeros(layout.cells.shape, bool)  #: nothing is left to do, or it failed in this session
        self._marks = {name: np.full(layout.cells.shape, empty, np.int32) for name, empty in MARKS.items()}

    @property
    def path(self) -> Path:
        """The dataset."""
        return self.folder.path / RESULTS

    @property
    def last(self) -> int:
        """Last step of the schedule."""
        return self.layout.last

    # --- beginning, going on, growing -------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, layout: Layout) -> "Store":
        """Lay out an empty store.

        Raises:
            PackingError: a store is there already, the layout is none, or the disk says no.
        """
        layout.check()
        files = empty_store(layout)
        path = directory / RESULTS
        try:
            for _ in range(_TRIES):
                # another process may remove a folder that it made in vain, before anything of this one is in it
                with contextlib.suppress(FileNotFoundError):
                    return cls._created(directory, layout, files)
            raise PackingError(f"{path} cannot be made: {directory} is a link to nothing, or keeps being removed")
        except OSError as error:
            raise cannot_write(path, error) from error

    @classmethod
    def _created(cls, directory: Path, layout: Layout, files: Mapping[str, bytes]) -> "Store":
        with contextlib.ExitStack() as undo:  # in reverse order, what this process made and nothing else
            for place in [one for one in (directory, *directory.parents) if not one.exists()][::-1]:
                with contextlib.suppress(FileExistsError):
                    place.mkdir()
                    undo.callback(_remove_if_empty, place)
            folder = Folder(directory)
            _refuse_existing(folder)
            manifest = Manifest.lock(folder, math.prod(layout.cells.shape))
            undo.callback(manifest.close)
            folder.recover(RESULTS)
            _refuse_existing(folder)  # another process may have begun and ended a sweep before this one had the lock
            _refuse_links(folder)
            if manifest.new:
                undo.callback(_remove_quietly, folder, MANIFEST)
            undo.callback(_remove_quietly, folder, SCRATCH)
            manifest.clear()
            folder.remove("checkpoints")
            draft = draft_of(folder, files)
            # Written under another name and renamed: a directory called results.zarr is a complete layout.
            manifest.check()
            folder.rename(draft, RESULTS)
            undo.callback(_remove_quietly, folder, RESULTS)
            folder.flush()
            undo.pop_all()
        return cls(folder, layout, manifest)

    @classmethod
    def open(cls, directory: Path, layout: Layout) -> "Store":
        """Go on with a store: whatever in it is not as ``layout`` says is written again and noted.

        Args:
            directory: holds ``results.zarr``.
            layout: of the store as it is, its attributes as :func:`description` reads them.

        Raises:
            PackingError: another process writes there or did so just now, something is a link, or the disk says no.
        """
        try:
            folder = Folder(directory)
            manifest = Manifest.lock(folder, math.prod(layout.cells.shape))
        except OSError as error:
            raise cannot_write(directory, error) from error
        store = cls(folder, layout, manifest)
        try:
            _refuse_links(folder)
            folder.recover(RESULTS)
            folder.remove(SCRATCH)
            if description(directory) != sealed(layout.attributes):
                raise PackingError(f"{store.path} was changed by another process just now; begin again")
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
        layout.check()
        times = len(self.layout.times)
        if not np.array_equal(layout.times[:times], self.layout.times):
            raise PackingError("the times to record at of a resumed sweep must begin with those it had")
        if (layout.records, layout.finals) != (self.layout.records, self.layout.finals):
            raise PackingError("a resumed sweep keeps its arrays and their shapes: no larger replicas can be added")
        old_index, longer = self._index, len(layout.times) - times
        try:
            draft, dataset = draft_of(self.folder, empty_store(layout)), self.folder.folder(RESULTS)
            for name, new in layout.cells.places().items():
                old, entry = old_index.get(name), self.manifest.entries.get(name)
                if old is None or entry is None or not entry.complete:
                    continue
                for variable, was in self.layout.arrays.items():
                    source = self.layout.chunk_file(variable, old)
                    target = f"{draft}/{layout.chunk_file(variable, new)}"
                    if variable in layout.records and longer:
                        values = np.full(layout.arrays[variable].shape, was.blank, was.stored)
                        values[:times] = decoded(dataset, source, was.shape, was.dtype)
                        self.folder.write({target: CODEC.encode(values)}, drafts=SCRATCH)
                    else:
                        self.folder.link(f"{RESULTS}/{source}", target)
            for variable in layout.arrays:
                self.folder.flush(f"{draft}/{variable}")
            self.manifest.check()
            self.folder.exchange(draft, RESULTS)
            self.folder.remove(draft)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        shape = layout.cells.shape
        self.layout, self._index = layout, layout.cells.places()
        self._marks = {name: np.full(shape, empty, np.int32) for name, empty in MARKS.items()}
        self.ended = np.zeros(shape, bool)
        self._mark(entry for name, entry in self.manifest.entries.items() if name in old_index)

    def begin_session(self, command: str, trusted: Sequence[str] = ()) -> None:
        """Record who goes on from here, and what of a user's objects was trusted without being compared."""
        versions = self._maker
        try:
            self.manifest.begin_session(
                {
                    "command": command,
                    "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "versions": versions,
                    "id": self.versions,
                    **({"trusted": list(trusted)} if trusted else {}),
                }
            )
        except OSError as error:
            raise cannot_write(self.manifest.path, error) from error
        self.notes += trusted
        before = self.layout.attributes["versions"]
        changed = [f"{name} {before.get(name)} -> {new}" for name, new in versions.items() if before.get(name) != new]
        if changed:
            self.notes.append(
                f"this sweep was begun with other versions ({', '.join(changed)}): replicas run from now on may round "
                "differently, and those under way then start again"
            )

    def close(self) -> None:
        """Let another process write."""
        if self.manifest.is_held():
            _remove_quietly(self.folder, SCRATCH)
        self.manifest.close()

    # --- cells ------------------------------------------------------------------------------------------------

    def write(self, finished: Sequence[Finished]) -> None:
        """Store finished cells, all of them or those before the first that the disk refuses.

        Raises:
            PackingError: the disk says no, or the manifest was removed or replaced; what was finished before is kept.
        """
        self.manifest.check()
        try:
            self._put({name: data for one in finished for name, data in encoded(self.layout, one).items()})
            self.accept([entry_of(self.layout, one, self.versions) for one in finished])
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _put(self, files: Mapping[str, bytes]) -> None:
        """Replace files of the dataset, and folders that are in their place."""
        named = {f"{RESULTS}/{name}": data for name, data in files.items()}
        try:
            self.folder.write(named, drafts=SCRATCH)
        except IsADirectoryError:
            for name in filter(self.folder.is_folder, named):
                self.folder.remove(name)
            self.folder.write(named, drafts=SCRATCH)

    def accept(self, entries: Sequence[Entry]) -> None:
        """From now on these cells count; their arrays are in place."""
        self.manifest.append(entries)
        self._mark(entries)
        for entry in entries:
            self.ended[self._index[entry.cell]] = True

    def missing(self) -> list[Index]:
        """Cells that are not done."""
        return [tuple(map(int, place)) for place in np.argwhere(~self.ended)]

    def names_done(self) -> set[Name]:
        """Cells of which nothing is left to do."""
        done = self.manifest.entries.values()
        return {entry.cell for entry in done if entry.complete and entry.covers >= self.last}

    def read(self, cell: Index) -> Finished:
        """A finished cell, if its bytes are those that were written.

        Raises:
            PackingError: which file is missing, cut off or changed.
        """
        entry = self.manifest.entries[self.layout.cells.name(cell)]
        return read_cell(self.folder.folder(RESULTS), self.layout, cell, entry)

    def distrust(self, cell: Index, reason: str) -> None:
        """Take a finished cell back: it has to be computed again."""
        name = self.layout.cells.name(cell)
        entry = self.manifest.entries[name]
        self.manifest.append([Entry(**vars(entry) | {"state": "damaged", "reason": reason})])
        self._mark([self.manifest.entries[name]])
        for variable in self.layout.arrays:
            self.folder.remove(f"{RESULTS}/{self.layout.chunk_file(variable, cell)}")

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
            touched.add(cell[:-1])
        for names in (("absorbed_at", "failed"), ("steps_done",)):  # the last says that the others can be read
            self._put(
                {
                    self.layout.chunk_file(name, (*place, 0)): CODEC.encode(
                        np.ascontiguousarray(self._marks[name][place])
                    )
                    for name in names
                    for place in touched
                }
            )

    def _verify(self) -> None:
        """Read every finished cell; take back those that are not what was written."""
        known = [
            (cell, self.manifest.entries[name]) for name, cell in self._index.items() if name in self.manifest.entries
        ]
        for cell, entry in known:
            if entry.state == "damaged":
                continue
            try:
                read_cell(self.folder.folder(RESULTS), self.layout, cell, entry)
            except PackingError as error:
                where = self.layout.cells.described(entry.cell)
                self.notes.append(f"the finished cell at {where} is damaged and is computed again: {error}")
                self.distrust(cell, str(error))
        self._mark(self.manifest.entries[entry.cell] for _, entry in known)
        self._repair_marks()

    def _repair_layout(self) -> None:
        """Metadata, coordinates and tables as the layout says."""
        wrong: dict[str, bytes] = {}
        for name, right in empty_store(self.layout).items():
            array, _, last = name.rpartition("/")
            if array not in MARKS or last.startswith(".z"):
                if array:
                    self.folder.make(f"{RESULTS}/{array}")
                if not self._says(name, right):
                    wrong[name] = right
                    self.notes.append(f"{self.path / name} was damaged and has been written again")
        self._put(wrong)

    def _says(self, name: str, right: bytes) -> bool:
        """Whether a file says what it should; JSON may be spelled differently."""
        try:
            there = self.folder.read(f"{RESULTS}/{name}", 2 * len(right) + 1024)
            spelled = name.rpartition("/")[2].startswith(".z")
            return there == right or (spelled and bool(json.loads(there) == json.loads(right)))
        except (OSError, ValueError, RecursionError):
            return False

    def _repair_marks(self) -> None:
        wrong: dict[str, bytes] = {}
        dataset = self.folder.folder(RESULTS)
        for name, values in self._marks.items():
            for place in np.ndindex(*values.shape[:-1]):
                file = self.layout.chunk_file(name, (*place, 0))
                try:
                    right = np.array_equal(decoded(dataset, file, values.shape[-1:], np.int32), values[place])
                except PackingError:
                    right = False
                if not right:
                    wrong[file] = CODEC.encode(np.ascontiguousarray(values[place]))
        self._put(wrong)


def _refuse_existing(folder: Folder) -> None:
    if folder.stat(RESULTS) is not None:
        raise PackingError(
            f"{folder.path / RESULTS} exists already; choose another --out, continue with --resume {folder.path} (in "
            "Python resume=True), or remove it to start again"
        )


def _refuse_links(folder: Folder) -> None:
    """Say at once what would be refused later."""
    for name in (RESULTS, SCRATCH, "checkpoints", "trajectories", "trajectories/.parts"):
        folder.stat(name)


def _remove_if_empty(place: Path) -> None:
    with contextlib.suppress(OSError):
        place.rmdir()


def _remove_quietly(folder: Folder, name: str) -> None:
    with contextlib.suppress(OSError, PackingError):
        folder.remove(name)


def cannot_write(path: Path, error: OSError) -> PackingError:
    """What a user reads when the disk says no."""
    return PackingError(f"cannot write {path}: {error.strerror or error}; what was finished before is kept")
