"""Writing trajectories of spheres: frames as a run goes, and the file of a cell when it ends.

The driver stops each replica at the steps of the frames. A frame is added to ``DIR/trajectories/.parts/CELL`` at once;
when the cell ends, its frames become the file, which appears in one move before the cell counts as finished. A part
outlives the process: a cell that goes on from a checkpoint keeps the frames before it and makes the others again, the
same bits as ever. Where a part has lost a frame, its cell starts again. One frame is in memory at a time.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.drive import batch
from packing_jax.drive.chunk import State
from packing_jax.drive.run import Result
from packing_jax.errors import PackingError
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres.energy import pair_rows
from packing_jax.spheres.system import System
from packing_jax.sweeps.manifest import Name, digest
from packing_jax.sweeps.schema import SCRATCH
from packing_jax.sweeps.trajectory import PARTS, Trajectories


class Frame(NamedTuple):
    """One replica at one time, particles in their original order, lengths in mean diameters."""

    step: int
    positions: np.ndarray  #: (N, dim) float32 in [-L/2, L/2)
    active: np.ndarray  #: (N,) uint8, 1 where the particle overlaps another


@partial(jax.jit, static_argnames="plan")
def _overlapping(plan: nb.Plan, system: System, coordinates: Array) -> tuple[Array, nb.Neighbors]:
    """Which of the particles in cell order overlap, as the activity is measured, and their rows."""
    ordered, found = nb.sort_and_build(plan, system, coordinates)
    return jnp.any(pair_rows(ordered, found.reference, found.rows).overlapping(system.cut), axis=1), found


def _packed(frame: Frame) -> bytes:
    """A frame with its checksum, as a part holds it."""
    positions = np.ascontiguousarray(frame.positions, "<f4")
    body = struct.pack("<q", frame.step) + positions.tobytes() + frame.active.tobytes()
    return body + digest(body).encode()


class Recorder:
    """Writes the trajectories of some cells as a run goes."""

    def __init__(self, where: Trajectories, names: Sequence[Name], systems: System, notes: list[str]) -> None:
        """Make the folders.

        Args:
            where: the files.
            names: of the cells, in the order of the run's replicas.
            systems: with a leading replica axis, box side 1.
            notes: takes a sentence about each cell whose frames were lost.

        Raises:
            OSError: the disk says no.
        """
        self.times = where.times
        self._files, self._folder = where, where.folder
        self._names, self._notes = names, notes
        self._systems = jax.device_get(systems)
        self._plan = nb.plan_for(systems, 0.05)
        self._written: dict[int, int] = {}  # replica -> step of its last frame
        for folder in ("trajectories", PARTS):
            self._folder.make(folder)

    def restore(self, found: Callable[[int], State | None], index: int) -> State | None:
        """The state that a replica goes on from: what was found, if all frames before it are there; else None."""
        state = found(index)
        part = self._part(index)
        self._make_way(part)
        kept = 0
        if state is not None:
            needed = self.times[self.times < state.step]
            kept = self._count(part, needed)
            if kept < len(needed):
                kept = self._from_file(index, needed)
            if kept < len(needed):
                self._notes.append(f"the frames of {self._files.name(self._names[index])} were lost; it starts again")
                state, kept = None, 0
        with self._folder.open(part, "ab") as file:
            file.truncate(kept * self._record_size())
        self._written[index] = int(self.times[kept - 1]) if kept else -1
        return state

    def add(self, index: int, state: State) -> None:
        """A frame of a replica, unless it has been written."""
        step = int(state.step)
        if step <= self._written[index]:
            return
        system = batch.pick(self._systems, index)
        side = 1.0 / float(system.unit)
        places = np.asarray(state.place.coordinates)
        positions = np.ldexp(places.T.astype(np.float64), -8 * places.dtype.itemsize) * side
        frame = Frame(step, positions.astype(np.float32), self._active(system, places))
        with self._folder.open(self._part(index), "ab") as file:
            file.write(_packed(frame))
        self._written[index] = step

    def results(self, run: Iterable[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
        """What a run yields, each replica's file in its place before the replica is passed on."""
        for index, result in run:
            if result.failed and not result.state.failed:  # for want of memory: it will be tried again
                self._folder.remove(self._part(index))
            else:
                self.add(index, result.state)
                self._finish(index)
            yield index, result

    def _finish(self, index: int) -> None:
        part, name = self._part(index), self._files.name(self._names[index])
        self._make_way(name)
        with (
            self._folder.replacing(name, drafts=SCRATCH) as draft,
            self._files.hoomd.open(f"/dev/fd/{draft.fileno()}", "w") as file,
        ):
            for frame in self._read(part):
                file.append(self._snapshot(index, frame, first=len(file) == 0))
        self._folder.flush("trajectories")
        self._folder.remove(part)

    def _make_way(self, name: str) -> None:
        """Remove what cannot be the file of this name: a folder, a link and not what it leads to."""
        try:
            right = self._folder.is_file(name)
        except PackingError:
            right = False
        if not right:
            self._folder.remove(name)

    def _snapshot(self, index: int, frame: Frame, *, first: bool) -> Any:
        system = batch.pick(self._systems, index)
        n, dim, side = system.particles, system.dim, 1.0 / float(system.unit)
        made = self._files.hoomd.Frame()
        made.configuration.step = frame.step
        made.configuration.dimensions = dim
        made.configuration.box = [side, side, side if dim == 3 else 0.0, 0.0, 0.0, 0.0]
        made.particles.N = n
        made.particles.position = np.pad(frame.positions, ((0, 0), (0, 3 - dim)))
        made.log["particles/active"] = frame.active.astype(np.int32)
        made.log["activity"] = np.array([frame.active.mean()])
        diameters = np.broadcast_to(np.asarray(system.diameters, np.float64) * side, (n,)).astype(np.float32)
        sizes, kinds = np.unique(diameters, return_inverse=True)
        made.particles.diameter, made.particles.typeid = diameters, kinds.astype(np.uint32)
        made.particles.types = [chr(ord("A") + kind) for kind in range(len(sizes))]
        if first:  # and of all later frames, which have no other
            for word, value in zip(self._files.dims, self._names[index], strict=True):
                made.log[word] = np.array([float(value)])
        return made

    def _active(self, system: System, coordinates: np.ndarray) -> np.ndarray:
        while True:
            overlapping, found = _overlapping(self._plan, system, jnp.asarray(coordinates))
            if not nb.overflowed(self._plan, found):
                flags = np.empty(system.particles, np.uint8)
                flags[np.asarray(found.tags)] = np.asarray(overlapping)
                return flags
            self._plan = self._plan.grown(int(found.needed_row), int(found.needed_slots))

    # --- parts ------------------------------------------------------------------------------------------------

    def _part(self, index: int) -> str:
        return f"{PARTS}/{PurePosixPath(self._files.name(self._names[index])).stem}"

    def _record_size(self) -> int:
        return 8 + self._systems.particles * (4 * self._systems.dim + 1) + 32

    def _read(self, part: str) -> Iterator[Frame]:
        """The frames of a part, up to the first that is cut off or changed."""
        n, dim = self._systems.particles, self._systems.dim
        try:
            with self._folder.open(part) as file:
                while len(record := file.read(self._record_size())) == self._record_size():
                    body = record[:-32]
                    if digest(body).encode() != record[-32:]:
                        return
                    positions = np.frombuffer(body, "<f4", n * dim, 8).reshape(n, dim)
                    (step,) = struct.unpack_from("<q", body)
                    yield Frame(step, positions, np.frombuffer(body[-n:], np.uint8))
        except FileNotFoundError:
            return

    def _count(self, part: str, needed: np.ndarray) -> int:
        """How many of the first frames that are needed a part has."""
        count = 0
        for frame, step in zip(self._read(part), needed, strict=False):
            if frame.step != step:
                break
            count += 1
        return count

    def _from_file(self, index: int, needed: np.ndarray) -> int:
        """Take the frames of a shorter run that ended back into a part."""
        self._folder.remove(self._part(index))
        wanted = set(needed.tolist())
        try:
            with self._files.frames(self._names[index]) as old, self._folder.open(self._part(index), "xb") as file:
                for number in range(len(old)):
                    if (step := old.step(number)) in wanted:
                        frame = old.frame(number)
                        active = frame.log["particles/active"].astype(np.uint8)
                        file.write(_packed(Frame(step, frame.particles.position[:, : self._systems.dim], active)))
        except PackingError:
            pass  # what is missing is found missing below
        return self._count(self._part(index), needed)
