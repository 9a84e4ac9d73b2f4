"""The manifest of a sweep: ``DIR/manifest.jsonl``, one line for everything that was finished, found damaged or begun.

Lines are only ever appended, and each starts with a checksum of the rest: a line that was cut off or changed is known
and left out, with what it said. The newest line of a cell counts. A process that writes holds a lock on the file,
which the operating system takes back when the process ends, however it ends. A lock counts as long as the file is the
one at that place: whoever finds that it was removed or replaced in the meantime, before or after, has no lock.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder

#: What a cell is, wherever it stands: the values of the sweep's axes, and last the replica number.
Name = tuple[float | int, ...]

CellState = Literal["active", "absorbed", "diverged", "failed", "damaged"]

MANIFEST = "manifest.jsonl"

_LONGEST_LINE = 2**16
_ANY_SIZE = 2**24  # bytes: tens of thousands of sessions
_SIZE_OF_A_CELL = 2**12  # bytes beyond: a few lines, where it was damaged or the sweep extended
_LARGEST = 1e300  # what a float and a sum of them still hold; JSON has any whole number
_LOCK_PATIENCE = 1.0  # seconds; `packing-jax status` holds the lock for an instant


@dataclass(frozen=True)
class Entry:
    """How one cell ended.

    ``active``: still active at its last step; ``absorbed``; ``diverged``: a move was not finite; ``failed``: for a
    reason outside the physics, such as memory, so it is worth another try; ``damaged``: what was finished is not to be
    trusted and has to be computed again.
    """

    cell: Name
    state: CellState
    covers: int  #: last step of the schedule that the records of this cell fill
    steps: int  #: steps accounted for; fewer than ``covers`` where it failed
    absorbed_at: int
    #: of each of the cell's arrays, by its name; in stores of version 0.1.0 one of all arrays and the numbers above
    checksum: str | dict[str, str]
    configuration: str  #: hash of the physics that made it
    versions: str  #: hash of the versions that made it
    reason: str = ""
    trajectory: str = ""  #: checksum of its trajectory file; empty where it has none, or before version 0.2.0

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do up to step ``covers``."""
        return self.state in ("active", "absorbed", "diverged")


def digest(*parts: bytes) -> str:
    """32 hexadecimal digits that change with any bit of the parts."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


class Digest:
    """32 hexadecimal digits that change with any bit of numbers that come in parts, and with their type and shape."""

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._stored = dtype.newbyteorder("<")
        self._total = hashlib.blake2b(f"{self._stored.str} {shape} ".encode(), digest_size=16)

    def update(self, values: np.ndarray) -> None:
        """Add the next part."""
        self._total.update(np.ascontiguousarray(values, self._stored))

    def hexdigest(self) -> str:
        """Of all parts."""
        return self._total.hexdigest()


def digest_of_array(values: np.ndarray) -> str:
    """The same of an array."""
    total = Digest(values.dtype, values.shape)
    total.update(values)
    return total.hexdigest()


def digest_of(value: Any) -> str:
    """The digest of JSON-able data."""
    return digest(json.dumps(value, sort_keys=True, allow_nan=False).encode())


class Manifest:
    """The lines of ``manifest.jsonl``, open for appending or only read."""

    def __init__(self, path: Path, folder: Folder | None = None, handle: int = -1) -> None:
        self.path = path
        self.entries: dict[Name, Entry] = {}
        self.sessions: list[dict[str, Any]] = []
        self.damaged_lines = 0
        self.cut_off = False  #: whether the last of them has no end, as while it is written
        self.new = False  #: whether :meth:`lock` made the file
        self._folder, self._handle = folder, handle

    @classmethod
    def read(cls, folder: Folder, cells: int) -> "Manifest":
        """What the file says now; empty where there is none.

        Args:
            folder: of the sweep.
            cells: of the sweep, by which the size of the file is bounded.

        Raises:
            PackingError: it cannot be read, or is far larger than that of any such sweep.
        """
        manifest = cls(folder.path / MANIFEST)
        try:
            with folder.open(MANIFEST) as file:
                manifest._take_lines(file, cells)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise PackingError(f"cannot read {manifest.path}: {error.strerror or error}") from error
        return manifest

    @classmethod
    def lock(cls, folder: Folder, cells: int) -> "Manifest":
        """That of a folder, made if absent, for the one process that appends to it.

        Args:
            folder: of the sweep.
            cells: of the sweep, by which the size of the file is bounded.

        Raises:
            PackingError: another process writes there, or the file is a link or far too large.
            OSError: the disk says no.
        """
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            handle, new = _opened(folder)
            try:
                _wait_for_lock(handle, folder, deadline)
                if folder.is_same(MANIFEST, handle):
                    manifest = cls(folder.path / MANIFEST, folder, handle)
                    manifest.new = new
                    with os.fdopen(os.dup(handle), "rb") as file:
                        manifest._take_lines(file, cells)
                    size = os.fstat(handle).st_size
                    if size and os.pread(handle, 1, size - 1) != b"\n":
                        os.write(handle, b"\n")  # the last line was cut off
                    return manifest
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # who held the lock has removed the file, so that others lock a new one

    def is_held(self) -> bool:
        """Whether this process holds the lock, on the file that is there."""
        return self._folder is not None and self._handle >= 0 and self._folder.is_same(MANIFEST, self._handle)

    def check(self) -> None:
        """Refuse to write where another process may be writing by now.

        Raises:
            PackingError: the file was removed or replaced, or was opened for reading only.
        """
        if self._folder is None:
            raise PackingError(f"{self.path} is open for reading only")
        if not self.is_held():
            done = sum(entry.complete for entry in self.entries.values())
            raise PackingError(
                f"{self.path} was removed or replaced while this sweep wrote: it ends, and writes nothing more; "
                f"{done} cells were finished, and --resume computes again those that the file there does not list"
            )

    def _take_lines(self, file: BinaryIO, cells: int) -> None:
        left, most = os.fstat(file.fileno()).st_size, _ANY_SIZE + _SIZE_OF_A_CELL * cells
        if left > most:
            raise PackingError(f"{self.path} has {left} bytes; at most {most} make sense for a sweep of {cells} cells")
        while line := file.readline(min(_LONGEST_LINE, left)):  # and not what is added meanwhile
            left -= len(line)
            self._take(line)

    def _take(self, line: bytes) -> None:
        text = line.strip()
        if not text:
            return
        try:
            checksum, content = text[:32], text[33:]
            if digest(content).encode() != checksum:
                raise ValueError
            kind, value = json.loads(content)
            if kind == "cell":
                entry = _entry(value)
                self.entries[entry.cell] = entry
            elif kind == "session" and isinstance(value, dict):
                self.sessions.append(value)
        except (ValueError, TypeError, KeyError, RecursionError):
            self.damaged_lines += 1
            self.cut_off = not line.endswith(b"\n")

    def append(self, entries: Iterable[Entry]) -> None:
        """Add a line for each cell; on return they are on the disk.

        Raises:
            OSError: the disk says no; none of them counts then.
        """
        new = list(entries)
        self._append(*(("cell", asdict(entry)) for entry in new))
        self.entries |= {entry.cell: entry for entry in new}

    def begin_session(self, facts: dict[str, Any]) -> None:
        """Say who goes on from here: versions, device, command line."""
        self._append(("session", facts))
        self.sessions.append(facts)

    def clear(self) -> None:
        """Begin anew."""
        os.ftruncate(self._handle, 0)
        self.entries, self.sessions, self.damaged_lines = {}, [], 0

    def _append(self, *values: tuple[str, Any]) -> None:
        self.check()
        lines = []
        for value in values:
            content = json.dumps(value, allow_nan=False).encode()
            lines.append(digest(content).encode() + b" " + content + b"\n")
        data, size = b"".join(lines), os.fstat(self._handle).st_size
        try:
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, size)
            raise
        self.check()

    def close(self) -> None:
        """Give the lock back."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_locked(folder: Folder) -> bool:
    """Whether a process writes there at this moment."""
    try:
        file = folder.open(MANIFEST)
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _opened(folder: Folder) -> tuple[int, bool]:
    """The file, and whether it was made: exactly one process makes it."""
    flags = os.O_RDWR | os.O_APPEND
    while True:
        with contextlib.suppress(FileExistsError):
            return folder.handle(MANIFEST, flags | os.O_CREAT | os.O_EXCL), True
        with contextlib.suppress(FileNotFoundError):  # removed in between
            return folder.handle(MANIFEST, flags), False


def _wait_for_lock(handle: int, folder: Folder, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise PackingError(
                    f"another process is writing {folder.path}; wait until it ends, or stop it"
                ) from error
            time.sleep(0.05)
        except OSError as error:
            raise PackingError(f"cannot lock {folder.path / MANIFEST}: {error.strerror or error}") from error


def _entry(value: dict[str, Any]) -> Entry:
    """An entry from JSON, or ValueError: nothing else may come out of a file from elsewhere."""
    value = {"trajectory": "", **value}
    numbers, checksum = (value["covers"], value["steps"], value["absorbed_at"]), value["checksum"]
    texts = (value["configuration"], value["versions"], value["reason"], value["trajectory"])
    texts += tuple(checksum.values()) if isinstance(checksum, dict) else (checksum,)
    if (
        value.keys() != {field.name for field in fields(Entry)}
        or not all(type(number) is int and -1 <= number < 2**31 for number in numbers)
        or not all(isinstance(text, str) for text in texts)
        or value["state"] not in get_args(CellState)
    ):
        raise ValueError("not an entry")
    return Entry(**value | {"cell": cell_name(value["cell"])})


def cell_name(value: Any) -> Name:
    """The name of a cell from JSON.

    Raises:
        ValueError: not finite numbers with a replica number at their end.
    """
    if (
        not isinstance(value, list)
        or not value
        or not all(type(one) in (int, float) and -_LARGEST < one < _LARGEST for one in value)
        or not (type(value[-1]) is int and 0 <= value[-1] < 2**31)
    ):
        raise ValueError("not a cell")
    return tuple(value)
