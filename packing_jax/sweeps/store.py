"""The store of a sweep: ``DIR/results.zarr``, an xarray dataset that grows cell by cell.

A cell is one replica at one value of each axis; it is one chunk of every array, and every chunk is one file that
appears in one move (:mod:`packing_jax.sweeps.files`). What is finished is written in this order, each step on the disk
before the next:

1. its arrays, where nothing says yet that they are there;
2. a line in ``DIR/manifest.jsonl`` with a checksum of them (:mod:`packing_jax.sweeps.manifest`): now they count;
3. ``absorbed_at``, ``failed`` and ``steps_done``, which tell a reader of the dataset alone.

So a reader finds whole cells at any moment, and a sweep that was cut between any two system calls knows which cells
to trust. Nothing is ever executed on reading: arrays of numbers and JSON only.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps import files
from packing_jax.sweeps.cells import Finished, decoded, encoded, entry_of, read_cell
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Entry, Manifest, Name, digest_of
from packing_jax.sweeps.schema import CODEC, MARKS, Index, Layout, draft_of, scratch, stored_width
from packing_jax.versions import provenance


class Store:
    """A sweep's results on disk, open for writing by this process alone."""

    def __init__(self, directory: Path, layout: Layout, manifest: Manifest) -> None:
        self.directory = directory
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
        return self.directory / "results.zarr"

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
            draft = draft_of(directory, layout)
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
        layout.check()
        times = len(self.layout.times)
        if not np.array_equal(layout.times[:times], self.layout.times):
            raise PackingError("the times to record at of a sweep that goes on must begin with those it had")
        if (layout.records, layout.finals) != (self.layout.records, self.layout.finals):
            raise PackingError(
                "a sweep that goes on keeps its arrays and their shapes: no larger replicas can be added"
            )
        old_index, longer = self._index, len(layout.times) - times
        try:
            draft = draft_of(self.directory, layout)
            for name, new in layout.cells.places().items():
                old, entry = old_index.get(name), self.manifest.entries.get(name)
                if old is None or entry is None or not entry.complete:
                    continue
                for variable, was in self.layout.arrays.items():
                    source = self.path / self.layout.chunk_file(variable, old)
                    target = draft / layout.chunk_file(variable, new)
                    if variable in layout.records and longer:
                        values = np.full(layout.arrays[variable].shape, was.blank, was.stored)
                        values[:times] = decoded(
                            Folder(self.path), self.layout.chunk_file(variable, old), was.shape, was.dtype
                        )
                        target.write_bytes(CODEC.encode(values))
                    else:
                        _link(source, target)
            files.flush_tree(draft)
            files.exchange(draft, self.path)
            shutil.rmtree(draft, ignore_errors=True)
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
                scratch(self.directory),
                {self.path / name: data for one in finished for name, data in encoded(self.layout, one).items()},
            )
            self.accept([entry_of(self.layout, one, self.versions) for one in finished])
        except OSError as error:
            raise cannot_write(self.path, error) from error

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
        return read_cell(Folder(self.path), self.layout, cell, entry)

    def distrust(self, cell: Index, reason: str) -> None:
        """Take a finished cell back: it has to be computed again."""
        name = self.layout.cells.name(cell)
        entry = self.manifest.entries[name]
        self.manifest.append([Entry(**vars(entry) | {"state": "damaged", "reason": reason})])
        self._mark([self.manifest.entries[name]])
        for variable in self.layout.arrays:
            (self.path / self.layout.chunk_file(variable, cell)).unlink(missing_ok=True)

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
            changed = {
                self.path / self.layout.chunk_file(name, (*place, 0)): CODEC.encode(
                    np.ascontiguousarray(self._marks[name][place])
                )
                for name in names
                for place in touched
            }
            files.write_all(scratch(self.directory), changed)

    def _verify(self) -> None:
        """Read every finished cell; take back those that are not what was written."""
        known = [
            (cell, self.manifest.entries[name]) for name, cell in self._index.items() if name in self.manifest.entries
        ]
        for cell, entry in known:
            if entry.state == "damaged":
                continue
            try:
                read_cell(Folder(self.path), self.layout, cell, entry)
            except PackingError as error:
                where = self.layout.cells.described(entry.cell)
                self.notes.append(f"the finished cell at {where} is damaged and is computed again: {error}")
                self.distrust(cell, str(error))
        self._mark(self.manifest.entries[entry.cell] for _, entry in known)
        self._repair_marks()

    def _repair_layout(self) -> None:
        """Metadata, coordinates and tables as the layout says."""
        draft = draft_of(self.directory, self.layout)
        wrong: dict[Path, bytes] = {}
        for file in draft.rglob("*"):
            name = file.relative_to(draft)
            if (file.is_file() and name.parts[0] not in MARKS) or name.name.startswith(".z"):
                there = self.path / name
                (self.path / name).parent.mkdir(exist_ok=True)
                if not _same(file, there):
                    wrong[there] = file.read_bytes()
                    self.notes.append(f"{there} was damaged and has been written again")
        files.write_all(scratch(self.directory), wrong)
        shutil.rmtree(draft, ignore_errors=True)

    def _repair_marks(self) -> None:
        wrong = {}
        for name, values in self._marks.items():
            for place in np.ndindex(*values.shape[:-1]):
                file = self.path / self.layout.chunk_file(name, (*place, 0))
                try:
                    right = np.array_equal(
                        decoded(
                            Folder(self.path), self.layout.chunk_file(name, (*place, 0)), values.shape[-1:], np.int32
                        ),
                        values[place],
                    )
                except PackingError:
                    right = False
                if not right:
                    wrong[file] = CODEC.encode(np.ascontiguousarray(values[place]))
        files.write_all(scratch(self.directory), wrong)


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


def _clear(directory: Path) -> None:
    shutil.rmtree(scratch(directory), ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> PackingError:
    """What a user reads when the disk says no."""
    return PackingError(f"cannot write {path}: {error.strerror or error}; what was finished before is kept")
