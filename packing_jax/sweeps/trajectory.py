"""Trajectories of a sweep: ``DIR/trajectories/CELL.gsd``, the hoomd schema of GSD, which OVITO and freud read.

When there are frames, where the files are, and whether they are whole; :mod:`packing_jax.sweeps.recorder` writes them.
"""

import contextlib
import functools
import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps import frames
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Entry, Name

_MOST_FRAMES = 10**6  # of a cell
_MOST_BYTES = 2**40  # of a sweep; a slip should not fill a disk
_PER_DECADE = 20


# --- when -----------------------------------------------------------------------------------------------------


def frame_times(trajectory: str, steps: int) -> np.ndarray:
    """The steps of the frames: 0, K, 2K, ... for ``every:K``, twenty a decade for ``log``.

    A longer run has the same ones and more. The last step, and the step of absorption, are frames besides.

    Raises:
        PackingError: another word, K out of range, or more than a million frames.
    """
    if trajectory == "log":
        decades = np.arange(math.ceil(_PER_DECADE * math.log10(max(steps, 1))) + 1) / _PER_DECADE
        times = np.union1d(0, np.rint(10.0**decades)).astype(np.int64)
        return times[times <= steps]
    word, _, number = trajectory.partition(":")
    if word != "every" or not number.isdecimal():
        raise PackingError(f"--trajectory is {trajectory!r}; it must be every:K, such as every:1000, or log")
    every = int(number)
    if not 1 <= every <= steps:
        raise PackingError(f"a frame every {every} steps; it must be between 1 and the number of steps, {steps}")
    if steps // every >= _MOST_FRAMES:
        raise PackingError(f"a frame every {every} of {steps} steps makes more than {_MOST_FRAMES} frames; write fewer")
    return np.arange(0, steps + 1, every)


def check_trajectory(trajectory: str, steps: int, dim: int, particles: int, cells: int) -> None:
    """Refuse what GSD cannot hold and what no disk should.

    Raises:
        PackingError: which it is.
    """
    frames = len(frame_times(trajectory, steps)) + 1
    if dim not in (2, 3):
        raise PackingError(f"the dimension is {dim}; trajectories are GSD files, which have two dimensions or three")
    size = cells * frames * particles * 16
    if size > _MOST_BYTES:
        raise PackingError(
            f"{frames} frames of {particles} particles in {cells} replicas take {size / 2**30:.0f} GiB; the limit is "
            f"{_MOST_BYTES // 2**30} GiB, write fewer frames or ask for fewer replicas or particles"
        )


def hoomd_schema() -> Any:
    """The module that reads and writes GSD files.

    Raises:
        PackingError: it is not installed.
    """
    try:
        return importlib.import_module("gsd.hoomd")
    except ImportError as error:
        raise PackingError(
            'trajectories need the package gsd, which is missing: pip install "packing_jax[trajectory]"'
        ) from error


# --- where ----------------------------------------------------------------------------------------------------


PARTS = "trajectories/.parts"
"""Where the frames of cells under way are, in the folder of a sweep."""


def trajectory_name(dims: Sequence[str], name: Name) -> str:
    """The file of a cell in the folder of a sweep: the axes, the replica last, and the cell's values of them."""
    parts = [f"{_SHORT.get(dim, dim)}{value!r}" for dim, value in zip(dims, name, strict=True)]
    return f"trajectories/{'_'.join(parts)}.gsd"


_SHORT = {"batch_fraction": "bf"}


def frames_of(dims: Sequence[str], attributes: Mapping[str, Any], name: Name) -> tuple[str, int, int]:
    """The file of a cell, its particles in each frame, and how many frames there can be.

    Args:
        dims: axes of the sweep, the replica last.
        attributes: of the store: trajectory, steps and particles, of which several are the first axis.
        name: of the cell.

    Raises:
        PackingError: the sweep writes no trajectories.
    """
    trajectory, particles = attributes.get("trajectory"), attributes.get("particles")
    count = particles if type(particles) is int else name[0]
    if not isinstance(trajectory, str) or type(count) is not int or count < 1:
        raise PackingError("the sweep writes no trajectories")
    most = len(frame_times(trajectory, attributes["steps"])) + 2  # the last step, and that of absorption
    return trajectory_name(dims, name), count, most


class Trajectories:
    """The trajectory files of a sweep."""

    def __init__(
        self, directory: Path, trajectory: str, steps: int, dims: Sequence[str], particles: int | Sequence[int]
    ) -> None:
        """Say where and when.

        Args:
            directory: of the sweep.
            trajectory: every:K or log.
            steps: of each cell.
            dims: axes of the sweep, the replica last.
            particles: of each cell; several are the first axis.

        Raises:
            PackingError: gsd is missing.
        """
        self.directory, self.dims = directory, dims
        self._what = {"trajectory": trajectory, "steps": steps, "particles": particles}
        self.hoomd = hoomd_schema()
        self.times = frame_times(trajectory, steps)  #: steps of the frames
        self.entries: Mapping[Name, Entry] = {}  #: of the cells that ended, with the checksums of their files

    def name(self, name: Name) -> str:
        """The file of a cell in the folder of the sweep."""
        return trajectory_name(self.dims, name)

    @functools.cached_property
    def folder(self) -> Folder:
        """Of the sweep."""
        return Folder(self.directory)

    def frames(self, name: Name) -> contextlib.AbstractContextManager[frames.Frames]:
        """Those of a cell that ended, checked."""
        entry = self.entries.get(name)
        checksum = "" if entry is None else entry.trajectory
        return frames.opened(self.folder, *frames_of(self.dims, self._what, name), checksum)

    def checksum(self, name: Name) -> str:
        """Of the file of a cell that has ended; empty where it has none."""
        try:
            with self.folder.open(self.name(name)) as file:
                return frames.checksum_of(file)
        except FileNotFoundError:
            return ""

    def clear(self, names: Iterable[Name]) -> None:
        """Remove what an earlier sweep in this directory left of these cells.

        Raises:
            OSError: the disk says no.
        """
        if self.folder.is_folder("trajectories"):
            for name in (PARTS, *map(self.name, names)):
                self.folder.remove(name)

    def fault_of(self, entry: Entry) -> str:
        """Why the file of a finished cell is not what it should be; empty where it is."""
        path = self.directory / self.name(entry.cell)
        end = {"absorbed": entry.absorbed_at, "active": entry.covers}.get(entry.state, entry.steps)
        try:
            with self.frames(entry.cell) as found:
                last = found.step(len(found) - 1)
        except PackingError as error:
            return str(error)
        return "" if last == end else f"{path} ends at step {last} and not at {end}"
