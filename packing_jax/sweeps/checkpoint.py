"""Where replicas stand in the middle of a run: ``DIR/checkpoints/*.ckpt``.

One file holds any number of replicas. Its first line gives the length and the checksum of a JSON header, which lists
for each replica its name, its step, the arrays of its state and where their bytes are; each replica's bytes have their
own checksum, so that damage to one costs one. Nothing is executed on reading, and nothing is taken into memory that is
not of the size that the run expects.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np
from numcodecs import Zstd

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Name, cell_name, digest, digest_of
from packing_jax.sweeps.schema import SCRATCH

_MAGIC = b"packing_jax checkpoint 1"
_CODEC = Zstd(level=1)
_LARGEST_HEADER = 2**28


class Found(NamedTuple):
    """One replica in a checkpoint file."""

    path: Path
    step: int
    offset: int
    size: int
    checksum: str
    leaves: list[tuple[str, str, list[int]]]  #: name, dtype, shape


class Checkpoints:
    """The states that one process leaves behind, and those that others left.

    ``running-*.ckpt`` holds the replicas under way and is replaced again and again; ``final-*.ckpt`` holds one that
    was still active at the last step, for an extension to more steps.
    """

    def __init__(self, directory: Path, made_by: str, seconds: float, look: bool = True) -> None:
        """Find what is there.

        Args:
            directory: of the sweep.
            made_by: what must be the same for whoever goes on: configuration and versions.
            seconds: between two checkpoints, longer where writing one takes more than 2 % of that.
            look: whether to go on from what is there.
        """
        self._folder = Folder(directory)
        self._made_by = made_by
        self._file = f"checkpoints/running-{uuid.uuid4().hex}.ckpt"
        self._seconds = seconds
        self._next = time.monotonic() + seconds
        self._look = look
        self._found, self.notes = scan(self._running() if look else [], made_by)

    def restore(self, name: Name, like: Any) -> Any:
        """Where a replica stands, in the form of ``like``; None if nothing usable is there."""
        candidates = [self._found[name]] if name in self._found else []
        final = self._final(name)
        if self._look and self._folder.is_file(final):
            found, notes = scan([self._folder.path / final], self._made_by)
            self.notes += notes
            candidates += [found[name]] if name in found else []
        for one in sorted(candidates, key=lambda found: -found.step):
            try:
                return load(one, like)
            except PackingError as error:
                self.notes.append(
                    f"{error}: the replica {' '.join(f'{x:g}' for x in name)} does not continue from there"
                )
        return None

    def save_if_due(self, states: Callable[[], Mapping[Name, Any]]) -> None:
        """Write the replicas under way if the last time is long enough ago."""
        if time.monotonic() >= self._next:
            self.save(states())

    def save(self, states: Mapping[Name, Any]) -> None:
        """Write the replicas under way now."""
        clock = time.monotonic()
        self._write({self._file: encoded(states, self._made_by)})
        now = time.monotonic()
        self._next = now + max(self._seconds, 50 * (now - clock))

    def save_final(self, ended: Mapping[Name, Any]) -> None:
        """Keep the last states of replicas that ended active; None forgets one."""
        kept = {name: state for name, state in ended.items() if state is not None}
        self._write({self._final(name): encoded({name: state}, self._made_by) for name, state in kept.items()})
        for name in ended.keys() - kept.keys():
            self._folder.remove(self._final(name))

    def _write(self, files: Mapping[str, bytes]) -> None:
        self._folder.make("checkpoints")
        self._folder.write(files, drafts=SCRATCH)

    def drop(self) -> None:
        """Remove the file of the replicas that were under way: all of them are finished."""
        self._folder.remove(self._file)

    def tidy(self, done: Collection[Name]) -> None:
        """Remove files that hold nothing any more that is not done, or older states than another file."""
        running = self._running()
        best, _ = scan(running, self._made_by)
        needed = {found.path for name, found in best.items() if name not in done}
        for path in running:
            if path not in needed:
                self._folder.remove(f"checkpoints/{path.name}")

    def _running(self) -> list[Path]:
        names = self._folder.names("checkpoints") if self._folder.is_folder("checkpoints") else []
        return [self._folder.path / "checkpoints" / name for name in names if name.startswith("running-")]

    def _final(self, name: Name) -> str:
        return f"checkpoints/final-{digest_of(name)}.ckpt"


def encoded(states: Mapping[Name, Any], made_by: str) -> bytes:
    """The content of a file: what each replica is -> where it stands, a pytree of arrays with a field ``step``."""
    entries, blobs, offset = [], [], 0
    for name, state in states.items():
        leaves = [(_key(path), np.asarray(leaf)) for path, leaf in jax.tree.leaves_with_path(state)]
        blob = _CODEC.encode(b"".join(np.ascontiguousarray(leaf).tobytes() for _, leaf in leaves))
        entries.append(
            {
                "cell": name,
                "step": int(state.step),
                "offset": offset,
                "size": len(blob),
                "checksum": digest(blob),
                "leaves": [(key, leaf.dtype.str, leaf.shape) for key, leaf in leaves],
            }
        )
        blobs.append(blob)
        offset += len(blob)
    header = json.dumps({"made_by": made_by, "replicas": entries}).encode()
    first = b"%s %d %s\n" % (_MAGIC, len(header), digest(header).encode())
    return b"".join([first, header, *blobs])


def scan(paths: Iterable[Path], made_by: str) -> tuple[dict[Name, Found], list[str]]:
    """The most advanced state of each replica in these files, and a sentence for each file that is of no use."""
    best: dict[Name, Found] = {}
    notes = []
    for path in paths:
        try:
            for name, found in _header(path, made_by).items():
                if name not in best or found.step > best[name].step:
                    best[name] = found
        except PackingError as error:
            notes.append(f"{error}; its replicas start again")
    return best, notes


def _header(path: Path, made_by: str) -> dict[Name, Found]:
    try:
        with _opened(path) as file:
            magic, size, checksum = file.readline(256).rsplit(b" ", 2)
            if magic != _MAGIC or not 0 < int(size) <= _LARGEST_HEADER:
                raise ValueError
            if int(size) > os.fstat(file.fileno()).st_size:
                raise ValueError
            header = file.read(int(size))
            start = file.tell()
        if digest(header).encode() != checksum.strip():
            raise ValueError
        value = json.loads(header)
        if value["made_by"] != made_by:
            raise PackingError(f"{path} was made by another version, on another device, or of another sweep")
        return {
            cell_name(one["cell"]): Found(
                path, int(one["step"]), start + int(one["offset"]), int(one["size"]), str(one["checksum"]),
                [(str(key), str(dtype), [int(n) for n in shape]) for key, dtype, shape in one["leaves"]],
            )
            for one in value["replicas"]
        }  # fmt: skip
    except OSError as error:
        raise PackingError(f"{path} cannot be read ({error.strerror or error})") from error
    except PackingError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise PackingError(f"{path} is damaged") from error


def _opened(path: Path) -> BinaryIO:
    """A file in DIR/checkpoints."""
    return Folder(path.parents[1]).open(f"{path.parent.name}/{path.name}")


def load(found: Found, like: Any) -> Any:
    """A state in the form of ``like``, a pytree of arrays or their shapes.

    Records may be shorter than those of ``like``, where the schedule has been extended; the rest is 0.

    Raises:
        PackingError: the bytes are damaged, or are of a state of another form.
    """
    expected = [(_key(path), leaf) for path, leaf in jax.tree.leaves_with_path(like)]
    if len(expected) != len(found.leaves):
        raise PackingError(f"{found.path} holds states of another form")
    shapes: list[tuple[int, ...]] = []
    total = 0
    for (key, leaf), (name, dtype, listed) in zip(expected, found.leaves, strict=True):
        shape, whole = tuple(listed), tuple(leaf.shape)
        short = (
            name.startswith(".records")
            and len(shape) == len(whole)
            and 0 < shape[0] <= whole[0]
            and shape[1:] == whole[1:]
        )
        if name != key or np.dtype(leaf.dtype).str != dtype or not (short or shape == whole):
            raise PackingError(f"{found.path} holds states of another form")
        shapes.append(shape)
        total += int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize
    memory = np.empty(total, np.uint8)
    try:
        with _opened(found.path) as file:
            file.seek(found.offset)
            blob = file.read(max(0, min(found.size, os.fstat(file.fileno()).st_size, 2 * total + 1024)))
        if digest(blob) != found.checksum or np.asarray(_CODEC.decode(blob, out=memory)).nbytes != total:
            raise ValueError
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise PackingError(f"{found.path} is damaged") from error
    leaves, at = [], 0
    for (_, leaf), shape in zip(expected, shapes, strict=True):
        size = int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize
        values = memory[at : at + size].copy().view(leaf.dtype).reshape(shape)
        at += size
        if shape != tuple(leaf.shape):
            longer = np.zeros(leaf.shape, leaf.dtype)
            longer[: shape[0]] = values
            values = longer
        leaves.append(values)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _key(path: Any) -> str:
    return jax.tree_util.keystr(path)
