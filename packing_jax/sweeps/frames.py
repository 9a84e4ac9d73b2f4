"""The frames of a trajectory file, read one at a time and believed in nothing.

A GSD file may come from elsewhere, and says itself how much there is to be read. Here the sweep says it: how many
particles there are and how many frames at most. What the file says is compared with that before memory is taken.
"""

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder

_PER_PARTICLE, _PER_FRAME = 64, 2**13  # bytes of a frame, generously
_HEADER = struct.Struct("<QQQQQ")  # magic, where the index is and its entries, where the names are and their number
_MOST_ENTRIES = 64  # of the index for a frame
_MOST_NAMES = 2**16


class Frames:
    """The frames of one file."""

    def __init__(self, file: BinaryIO, name: str, particles: int, most: int) -> None:
        """Read its index.

        Args:
            file: open for reading.
            name: of the file, for sentences about it.
            particles: in each frame.
            most: how many frames there can be.

        Raises:
            PackingError: it is damaged, or no trajectory of this cell.
        """
        from gsd import hoomd, pygsd

        self._make, self._name, self._particles = hoomd.Frame, name, particles
        size = os.fstat(file.fileno()).st_size
        with _damage(name):
            header = file.read(_HEADER.size)
            _, _, entries, _, names = _HEADER.unpack(header)
            if entries > _MOST_ENTRIES * (most + 16) or names > _MOST_NAMES:
                raise ValueError("its index is too long")
            self._file: Any = pygsd.GSDFile(_Bounded(file, size))
            if not 0 < self._file.nframes <= most:
                raise ValueError(f"it has {self._file.nframes} frames")

    def __len__(self) -> int:
        return int(self._file.nframes)

    def __iter__(self) -> Iterator[Any]:
        return map(self.frame, range(len(self)))

    def frame(self, number: int) -> Any:
        """A frame, a ``gsd.hoomd.Frame`` with what :mod:`packing_jax.sweeps.recorder` writes.

        Raises:
            PackingError: it is damaged, or holds another number of particles.
        """
        frame, n = self._make(), self._particles
        with _damage(self._name):
            frame.configuration.step = self.step(number)
            frame.configuration.dimensions = int(self._numbers(number, "configuration/dimensions", (1,), [3])[0])
            frame.configuration.box = self._numbers(number, "configuration/box", (6,))
            frame.particles.N = int(self._numbers(number, "particles/N", (1,))[0])
            frame.particles.position = self._numbers(number, "particles/position", (n, 3))
            frame.particles.diameter = self._numbers(number, "particles/diameter", (n,), np.ones(n))
            for name, shape in (("particles/active", (n,)), ("activity", (1,)), ("phi", (1,))):
                frame.log[name] = self._numbers(number, f"log/{name}", shape)
            if (
                n != frame.particles.N
                or frame.configuration.dimensions not in (2, 3)
                or not 0 < frame.configuration.box[0] < 1e30
                or not (frame.particles.diameter > 0).all()
            ):
                raise ValueError("it is of other particles")
        return frame

    def step(self, number: int) -> int:
        """The step of a frame.

        Raises:
            PackingError: it is damaged.
        """
        with _damage(self._name):
            return int(self._numbers(number, "configuration/step", (1,), [0])[0])

    def _numbers(self, number: int, name: str, shape: tuple[int, ...], otherwise: Any = None) -> np.ndarray:
        """What a frame holds, or where it holds nothing the first one, as in hoomd's schema."""
        at = next((one for one in (number, 0) if self._file.chunk_exists(one, name)), None)
        if at is None and otherwise is None:
            raise ValueError(f"it has no {name}")
        values = np.asarray(otherwise if at is None else self._file.read_chunk(at, name))
        if values.shape != shape or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise ValueError(f"its {name} is no such array")
        return values


class _Bounded:
    """A file that is asked for no more than it has: reading takes memory for what is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.close = file.seek, file.close

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))


@contextlib.contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except PackingError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, OverflowError, struct.error) as error:
        why = str(error).partition("\n")[0][:200] or "it is cut off"
        raise PackingError(f"{name} is damaged or no trajectory of this sweep: {why}") from error


def checksum_of(file: BinaryIO) -> str:
    """32 hexadecimal digits that change with any bit of a file."""
    total = hashlib.blake2b(digest_size=16)
    while part := file.read(2**20):
        total.update(part)
    return total.hexdigest()


@contextlib.contextmanager
def checked_file(folder: Folder, name: str, particles: int, most: int, checksum: str) -> Iterator[BinaryIO]:
    """A trajectory file in the folder of a sweep, if it is the one that was written.

    Args:
        folder: of the sweep.
        name: of the file.
        particles: in each frame.
        most: how many frames there can be.
        checksum: of the file; empty where it is not known, as in older stores.

    Raises:
        PackingError: it is missing, a link, too large, or another one.
    """
    where = folder.path / name
    try:
        file = folder.open(name)
    except FileNotFoundError as error:
        raise PackingError(f"{where} is missing") from error
    except OSError as error:
        raise PackingError(f"{where} cannot be read ({error.strerror or error})") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > most * (_PER_PARTICLE * particles + _PER_FRAME) + 2**22:
            raise PackingError(f"{where} has {size} bytes, more than {most} frames of {particles} particles take")
        if checksum and checksum_of(file) != checksum:
            raise PackingError(f"{where} is not what was written there")
        file.seek(0)
        yield file


@contextlib.contextmanager
def opened(folder: Folder, name: str, particles: int, most: int, checksum: str) -> Iterator[Frames]:
    """The frames of a trajectory file, with the arguments of :func:`checked_file`.

    Raises:
        PackingError: it is missing, a link, damaged, or another one.
    """
    with checked_file(folder, name, particles, most, checksum) as file:
        yield Frames(file, str(folder.path / name), particles, most)
