"""The files of one folder: opened relative to it, never through a link, and regular files only.

A store may come from elsewhere, and another process may be at work in it. A :class:`Folder` holds the directory itself,
not its name. Every file is reached from there one component at a time, and no component may be a link, so that nothing
outside is read, overwritten or removed, whatever lies inside. A FIFO, a socket or a device is refused without waiting.

What is written appears complete or not at all, and is still there after a power cut: it is written under another name,
flushed to the disk and renamed; the entry of its folder is flushed last.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import uuid
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from packing_jax.errors import PackingError

_THREADS = 8  # disks flush many files in little more than the time of one: 0.17 ms each instead of 1.6 ms
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_FLAGS = {
    "rb": os.O_RDONLY,
    "r+b": os.O_RDWR,
    "xb": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}


class Folder:
    """A folder that stays the same one, and what is in it.

    ``folder = Folder(path)`` opens it; ``path`` itself may be a link, which is the user's choice. Names are relative,
    such as ``"results.zarr/.zattrs"``; a name that leads out of the folder is a ``ValueError``. A link on the way, or
    something that is neither a file nor a folder at its end, is a ``PackingError`` that names it; what is missing is a
    ``FileNotFoundError`` and what the disk refuses another ``OSError``, as from :mod:`os`. The folder is given back to
    the operating system with the last reference to it.
    """

    def __init__(self, path: Path | str, handle: int | None = None) -> None:
        """Open it, or take over what is open.

        Raises:
            OSError: it is missing, no folder, or cannot be opened.
        """
        self.path = Path(path)
        self._handle = os.open(self.path, _FOLDER & ~os.O_NOFOLLOW) if handle is None else handle
        weakref.finalize(self, os.close, self._handle)

    def folder(self, name: str) -> "Folder":
        """A folder in it."""
        with self._parent(f"{name}/.") as (handle, _):
            return Folder(self.path / name, os.dup(handle))

    def is_at_its_path(self) -> bool:
        """Whether its path still leads to this folder, and not to nothing or another one."""
        return _same(self.path, os.fstat(self._handle), None)

    # --- looking ----------------------------------------------------------------------------------------------

    def stat(self, name: str) -> os.stat_result | None:
        """What is there, a regular file or a folder; None if nothing."""
        try:
            with self._parent(name) as (parent, last):
                found = os.stat(last, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise self._refusal(name, found.st_mode)
        return found

    def is_file(self, name: str) -> bool:
        """Whether a regular file is there."""
        found = self.stat(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_folder(self, name: str) -> bool:
        """Whether a folder is there."""
        found = self.stat(name)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def is_same(self, name: str, handle: int) -> bool:
        """Whether an open file is the one that has this name."""
        try:
            with self._parent(name) as (parent, last):
                return _same(last, os.fstat(handle), parent)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self, name: str = ".") -> list[str]:
        """What is in it or in a folder in it, in alphabetical order, whatever it is."""
        with self._parent(f"{name}/.") as (handle, _), os.scandir(handle) as entries:
            return sorted(entry.name for entry in entries)

    # --- reading ----------------------------------------------------------------------------------------------

    def read(self, name: str, most: int) -> bytes:
        """A file as a whole.

        Args:
            name: of the file.
            most: bytes that it may have.

        Raises:
            PackingError: it has more.
        """
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1) if size <= most else b""  # memory is taken for what is asked for
        if size > most or len(data) > most:
            raise PackingError(f"{self.path / name} has {max(size, len(data))} bytes; at most {most} make sense")
        return data

    def open(self, name: str, mode: str = "rb") -> BinaryIO:
        """A file: ``rb`` to read, ``r+b`` to change, ``xb`` a new one to read and write, ``ab`` to append.

        A library that takes names only can be given ``f"/dev/fd/{file.fileno()}"`` as long as the file is open.
        """
        return cast(BinaryIO, os.fdopen(self.handle(name, _FLAGS[mode]), "r+b" if mode == "xb" else mode))

    def handle(self, name: str, flags: int) -> int:
        """The operating system's number of a file, opened with these flags; the caller closes it."""
        with self._parent(name) as (parent, last):
            try:
                handle = os.open(last, flags | _FILE, 0o666, dir_fd=parent)
            except OSError as error:
                self._check(name, parent, last)
                if error.errno == errno.EISDIR:
                    raise self._refusal(name, stat.S_IFDIR) from error
                raise
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            os.close(handle)
            raise self._refusal(name, mode)
        return handle

    # --- writing ----------------------------------------------------------------------------------------------

    def make(self, name: str) -> None:
        """A folder in it, if it is not there; those on the way are."""
        with self._parent(name) as (parent, last), contextlib.suppress(FileExistsError):
            os.mkdir(last, dir_fd=parent)
        with self._parent(f"{name}/."):
            pass

    def write(self, files: Mapping[str, bytes], *, drafts: str = ".", flushed: bool = True) -> None:
        """Replace each file in one move, and folders that have its name; on return all of them are on the disk.

        Args:
            files: name -> content; the folders exist.
            drafts: a folder in this one, where they are written first; it is made if it is not there.
            flushed: False where a file is worth nothing after a power cut.

        Raises:
            OSError: the disk says no. Each file is the old one or the new one.
        """
        if len(files) < 2:
            for name, data in files.items():
                self._write(name, data, drafts, flushed)
        else:
            with ThreadPoolExecutor(_THREADS) as pool:
                for done in [pool.submit(self._write, name, data, drafts, flushed) for name, data in files.items()]:
                    done.result()
        for folder in {str(PurePosixPath(name).parent) for name in files} if flushed else ():
            self.flush(folder)

    def _write(self, name: str, data: bytes, drafts: str, flushed: bool) -> None:
        for last_try in (False, True):
            try:
                with self.replacing(name, drafts=drafts, flushed=flushed) as file:
                    file.write(data)
                return
            except IsADirectoryError:
                if last_try:
                    raise
                self.remove(name)

    @contextlib.contextmanager
    def replacing(self, name: str, *, drafts: str = ".", flushed: bool = True) -> Iterator[BinaryIO]:
        """A new file, which takes the place of the one with this name at the end, and is gone if that is not reached.

        A link of this name is itself replaced; what it leads to is not touched. The entry is not flushed.
        """
        draft = f"{drafts}/.{uuid.uuid4().hex}{PurePosixPath(name).suffix}"
        try:
            file = self.open(draft, "xb")
        except FileNotFoundError:
            self.make(drafts)
            file = self.open(draft, "xb")
        try:
            with file:
                yield file
                file.flush()
                if flushed:
                    os.fsync(file.fileno())
            self.rename(draft, name)
        except BaseException:
            with contextlib.suppress(OSError, PackingError):
                self.remove(draft)
            raise

    def remove(self, name: str) -> None:
        """Remove what has this name, if anything: a file, a link and not what it leads to, a folder with all in it."""
        try:
            with self._parent(name) as (parent, last):
                try:
                    os.unlink(last, dir_fd=parent)
                except (IsADirectoryError, PermissionError):
                    if not stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
                        raise
                    shutil.rmtree(last, dir_fd=parent)
        except FileNotFoundError:
            return

    def rename(self, old: str, new: str) -> None:
        """Give a file or folder another name, in the place of a file or empty folder that has it."""
        with self._parent(old) as (here, was), self._parent(new) as (there, will):
            os.replace(was, will, src_dir_fd=here, dst_dir_fd=there)

    def link(self, source: str, target: str) -> None:
        """A second name for a file, or a copy of it where the file system has no such thing."""
        with self.open(source) as file:
            try:
                with self._parent(source) as (here, was), self._parent(target) as (there, will):
                    os.link(was, will, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
            except OSError:
                with self.open(target, "xb") as copy:
                    shutil.copyfileobj(file, copy)

    def exchange(self, new: str, old: str) -> None:
        """Swap two folders: in one system call where Linux offers it, else in two renames, see :meth:`recover`."""
        with self._parent(new) as (here, one), self._parent(old) as (there, other):
            swapped = _exchange_in_one_call(here, one, there, other)
        if not swapped:
            self.rename(old, _aside(old))
            self.rename(new, old)
            self.rename(_aside(old), new)
        self.flush(str(PurePosixPath(old).parent))

    def recover(self, name: str) -> None:
        """Undo an :meth:`exchange` in two renames that was cut between them; for who holds the lock of the folder."""
        if self.is_folder(_aside(name)):
            if self.stat(name) is not None:
                self.remove(_aside(name))
            else:
                self.rename(_aside(name), name)

    def found(self, name: str) -> str:
        """Where a folder is: at its name, or where an :meth:`exchange` that was cut left it; for who only reads."""
        return _aside(name) if self.stat(name) is None and self.is_folder(_aside(name)) else name

    def flush(self, name: str = ".") -> None:
        """Put the entries of a folder on the disk."""
        with self._parent(f"{name}/.") as (handle, _):
            os.fsync(handle)

    # --- the way there ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int, str]]:
        """The folder that a file is in, opened without following a link, and the last part of its name."""
        *folders, last = name.split("/")
        if name.startswith("/") or ".." in folders or last in ("", ".."):
            raise ValueError(f"{name!r} is not a file name in {self.path}")
        handle = self._handle
        try:
            for place, part in enumerate(folders):
                if part in ("", "."):
                    continue
                try:
                    inner = os.open(part, _FOLDER, dir_fd=handle)
                except OSError:
                    self._check("/".join(folders[: place + 1]), handle, part)
                    raise
                if handle != self._handle:
                    os.close(handle)
                handle = inner
            yield handle, last
        finally:
            if handle != self._handle:
                os.close(handle)

    def _check(self, name: str, parent: int, last: str) -> None:
        """Refuse what is neither a file nor a folder, where opening it failed."""
        try:
            mode = os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode
        except OSError:
            return
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise self._refusal(name, mode)

    def _refusal(self, name: str, mode: int) -> PackingError:
        what = self.path / name
        if stat.S_ISLNK(mode):
            return PackingError(f"{what} is a link; links in a folder of results are not followed: remove it")
        found = "a folder" if stat.S_ISDIR(mode) else "a FIFO, a socket or a device"
        return PackingError(f"{what} is not a regular file but {found}: remove it")


def _same(name: Path | str, open_one: os.stat_result, parent: int | None) -> bool:
    try:
        there = os.stat(name, dir_fd=parent, follow_symlinks=parent is None)
    except OSError:
        return False
    return os.path.samestat(there, open_one)


def _aside(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f".{path.name}.aside"))


def _exchange_in_one_call(here: int, one: str, there: int, other: str) -> bool:
    swap = 2
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or an old C library
        return False
    if rename(here, os.fsencode(one), there, os.fsencode(other), swap) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):  # a file system without it
        return False
    raise OSError(number, os.strerror(number), other)
