"""Files that appear complete or not at all, and are still there after a power cut.

A file is written under another name, flushed to the disk and renamed; the folder's entry is flushed last. Whatever
happens between any two of these system calls, a reader finds the old file or the new one.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_THREADS = 8  # disks flush many files in little more than the time of one: 0.17 ms each instead of 1.6 ms


def write_all(scratch: Path, files: Mapping[Path, bytes], *, flushed: bool = True) -> None:
    """Replace each file in one move; on return all of them are on the disk.

    Args:
        scratch: a folder on the same file system, where they are written first.
        files: path -> content; the folders exist.
        flushed: False where a file is worth nothing after a power cut.

    Raises:
        OSError: the disk says no. Each file is the old one or the new one.
    """
    if len(files) < 2:
        for path, data in files.items():
            _replace(scratch, path, data, flushed)
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(_replace, scratch, path, data, flushed) for path, data in files.items()]:
                done.result()
    for folder in {path.parent for path in files} if flushed else ():
        flush(folder)


def _replace(scratch: Path, path: Path, data: bytes, flushed: bool) -> None:
    with replacing(scratch, path, flushed=flushed) as draft, draft.open("xb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(scratch: Path, path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """Another name to write a file under, which takes the file's place at the end, and is gone if that is not reached.

    Raises:
        OSError: the disk says no. The file is the old one or the new one.
    """
    scratch.mkdir(exist_ok=True)
    draft = scratch / f".{uuid.uuid4().hex}{path.suffix}"
    try:
        yield draft
        if flushed:
            flush(draft)
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Put a file, or the entries of a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(root: Path) -> None:
    """Put everything below a folder on the disk."""
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(flush, [root, *root.rglob("*")]))


def exchange(new: Path, old: Path) -> None:
    """Swap two folders: in one system call where Linux offers it, else in two renames that :func:`recover` repairs."""
    if not _exchange_in_one_call(new, old):
        aside = _aside(old)
        old.rename(aside)
        new.rename(old)
        aside.rename(new)
    flush(old.parent)


def recover(path: Path) -> None:
    """Undo an :func:`exchange` in two renames that was cut between them."""
    aside = _aside(path)
    if aside.is_dir():
        if path.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.aside")


def _exchange_in_one_call(new: Path, old: Path) -> bool:
    at_working_directory, swap = -100, 2
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or an old C library
        return False
    code = rename(at_working_directory, os.fsencode(new), at_working_directory, os.fsencode(old), swap)
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):  # a file system without it
        return False
    raise OSError(number, os.strerror(number), str(old))
