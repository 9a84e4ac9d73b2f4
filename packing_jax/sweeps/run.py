"""From a specification to a store: run every cell of a grid, and go on where a sweep was stopped.

A cell is one replica at one phi, kick and batch fraction. Its trajectory does not depend on what else runs, so cells
can be computed in any order, batch, session or place.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from packing_jax.devices import local_devices
from packing_jax.drive.chunk import State
from packing_jax.drive.run import Progress, Result, Snapshot, run, state_like
from packing_jax.errors import PackingError
from packing_jax.simulate import DEFAULT_RECORD
from packing_jax.spheres.particles import device_width, particles_of
from packing_jax.sweeps.cells import Finished, Index, Layout, description
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.manifest import Name, digest_of
from packing_jax.sweeps.manifest import State as CellState
from packing_jax.sweeps.progress import Clock, Stop, SweepProgress, guess_phi_c, stopping, write_progress
from packing_jax.sweeps.spheres import Sweep, checked, extended, layout_of, record_times, recorded, replicas_of
from packing_jax.sweeps.store import Store, cannot_write
from packing_jax.sweeps.trajectory import Recorder, clear_trajectories, fault_of, frame_times, hoomd_schema

_AT_ONCE = 256  # cells whose records are in memory while a sweep is extended


class Outcome(NamedTuple):
    """How a sweep ended."""

    done: int  #: cells finished, failed ones included
    total: int
    failed: int
    stopped: str | None  #: SIGINT, SIGTERM or walltime; None when nothing is left to do
    reasons: tuple[str, ...] = ()  #: why cells failed, each reason once
    notes: tuple[str, ...] = ()  #: damage that was found, and what was done about it

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its end."""
        return self.stopped is not None


#: Cells under way, share of the work, particle-steps, cells that the share is of.
Report = Callable[[Sequence[Index], float, int, int], None]


class Stopped(Exception):  # noqa: N818 - not an error
    """The sweep ends after the present chunk; everything is written."""


def run_sweep(
    spec: Sweep | None,
    directory: Path | str,
    *,
    resume: bool = False,
    batch: int | None = None,
    chunk_steps: int | None = None,
    on_progress: Callable[[SweepProgress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    command: str = "",
    stop: Stop | None = None,
    checkpoint_seconds: float = 5.0,
    client: Any = None,
) -> Outcome:
    """Run every cell of a grid that is not done, and store each as it finishes.

    Args:
        spec: what to sweep; missing fields get their defaults, see :func:`packing_jax.sweeps.spheres.checked`. With
            ``resume``, None goes on as it was, and more steps, replicas or values of phi, kick and batch fraction are
            added.
        directory: ``results.zarr`` is made here, or gone on with.
        resume: go on with the sweep in ``directory``.
        batch: replicas that move at a time; chosen from N when None.
        chunk_steps: steps between two looks of the host; about half a second's worth when None.
        on_progress: called after every chunk.
        on_note: called with a sentence about each damage that is found.
        command: recorded in the store.
        stop: ends the sweep after a chunk; Ctrl-C and SIGTERM do so in any case.
        checkpoint_seconds: between two records of where unfinished replicas stand; longer where writing one is slow.
        client: a ``dask.distributed.Client`` whose workers run the cells; they see ``directory`` at the same place.

    Returns:
        How many cells are done, how many failed and why it ended. All that is finished is in the store, and where the
        other cells stand in ``checkpoints``.

    Raises:
        PackingError: bad input, an existing store or, with ``resume``, none or another, a full disk.
    """
    directory = Path(directory)
    stop = stop or Stop()
    with stopping(stop):
        if resume:
            store = _reopened(spec, directory)
        else:
            if spec is None:
                raise PackingError("there is nothing to sweep: give a specification, or resume a store")
            spec = checked(spec)
            if spec.trajectory is not None:
                hoomd_schema()  # before anything is made
                _check_engine(spec, client)
            store = Store.create(directory, layout_of(spec, command))
        with contextlib.closing(store):
            spec = recorded(store.layout.attributes)
            _check_engine(spec, client)
            store.begin_session(command)
            session = _Session(spec, store, on_progress, on_note, stop)
            try:
                if spec.trajectory is not None and not resume:
                    clear_trajectories(directory, store.layout.places())
                return session.run(batch, chunk_steps, checkpoint_seconds, client)
            except OSError as error:
                raise cannot_write(directory, error) from error


def _check_engine(spec: Sweep, client: Any) -> None:
    if spec.trajectory is not None and client is not None:
        raise PackingError(
            "trajectories are written by the process that owns the sweep; run it without Dask workers, or begin one "
            "without --trajectory"
        )


def _reopened(asked: Sweep | None, directory: Path) -> Store:
    attributes = description(directory)
    stored = recorded(attributes)
    wanted = stored if asked is None else extended(stored, asked)
    store = Store.open(directory, layout_of(stored, "")._replace(attributes=attributes))
    if wanted != stored:
        grown = layout_of(wanted, "")
        kept = {name: attributes[name] for name in ("command", "versions")}
        try:
            store.grow(grown._replace(attributes={**attributes, **grown.attributes, **kept}))
        except BaseException:
            store.close()
            raise
    return store


class _Session:
    """One process at work on a store, from its first look to its last."""

    def __init__(
        self,
        spec: Sweep,
        store: Store,
        on_progress: Callable[[SweepProgress], None] | None,
        on_note: Callable[[str], None] | None,
        stop: Stop,
    ) -> None:
        self.spec = spec
        self.store = store
        self.stop = stop
        self.notes: list[str] = []
        self._on_progress = on_progress
        self._on_note = on_note
        self._clock = Clock()
        self._began = time.monotonic()
        self._first: tuple[float, float, int] | None = None  #: time, share and particle-steps after the first chunk

    def run(self, batch: int | None, chunk_steps: int | None, checkpoint_seconds: float, client: Any) -> Outcome:
        """Finish what is unfinished."""
        store = self.store
        self._tell(store.notes)
        self._check_trajectories()
        self._fill_ended()
        # dense systems run to the end, so they come first; dilute ones are absorbed and fill the gaps
        todo = sorted(store.missing(), key=lambda cell: -cell[0])
        checkpoints = Checkpoints(store.directory, made_by(store.layout, store.versions), checkpoint_seconds)
        checkpoints.tidy(store.names_done())
        stopped = None
        try:
            self.report(todo[:0], 0.0, 0)
            if todo and client is not None:
                from packing_jax.sweeps.cluster import Cluster

                cluster = Cluster(client, store, self.stop, self.report)
                try:
                    cluster.run(self.spec, todo, batch, chunk_steps, checkpoint_seconds)
                finally:
                    self._tell(cluster.notes)
            elif todo:
                self._run_here(todo, checkpoints, batch, chunk_steps)
        except Stopped as why:
            stopped = str(why)
        except KeyboardInterrupt:
            stopped = "SIGINT"
        checkpoints.tidy(store.names_done())
        self._tell(checkpoints.notes)
        ended = store.manifest.entries.values()
        return Outcome(
            done=int(store.ended.sum()),
            total=store.ended.size,
            failed=int(store.mark_of("failed").sum()),
            stopped=stopped,
            reasons=tuple(dict.fromkeys(entry.reason for entry in ended if entry.state in ("diverged", "failed"))),
            notes=tuple(self.notes),
        )

    def _run_here(
        self, todo: Sequence[Index], checkpoints: Checkpoints, batch: int | None, chunk_steps: int | None
    ) -> None:
        names = [self.store.layout.name(cell) for cell in todo]
        width = device_width(self.spec.particles, self.spec.dim) * len(local_devices()) if batch is None else batch
        finished: list[tuple[int, Result]] = []
        over = 0

        def keep(progress: Progress) -> None:
            nonlocal over
            if finished:
                over += len(finished)
                checkpoints.save_final({names[i]: state_to_keep(result) for i, result in finished})
                self.store.write([finished_cell(self.store.layout, todo[i], result) for i, result in finished])
                finished.clear()
            under_way = [cell for cell in todo[: width + over] if not self.store.ended[cell]]
            self.report(under_way, progress.share, progress.unit_steps, progress.total)

        def look(snapshot: Snapshot) -> None:
            def states() -> dict[Name, Any]:
                return {names[i]: state for i, state in snapshot().items()}

            if reason := self.stop.reason():
                checkpoints.save(states())
                raise Stopped(reason)
            checkpoints.save_if_due(states)

        for index, result in run_cells(
            self.spec, names, checkpoints, batch, chunk_steps, keep, look, self.store.directory
        ):
            finished.append((index, result))

    def _check_trajectories(self) -> None:
        """Take back finished cells whose trajectory is missing or damaged."""
        if self.spec.trajectory is None:
            return
        for name, cell in self.store.layout.places().items():
            entry = self.store.manifest.entries.get(name)
            if entry is not None and entry.complete and (fault := fault_of(self.store.directory, entry)):
                self._tell([f"{fault}: its cell is computed again"])
                self.store.distrust(cell, fault)

    def _fill_ended(self) -> None:
        """Carry cells that ended before the last step, absorbed or diverged, to the end of an extended schedule."""
        layout, entries = self.store.layout, self.store.manifest.entries
        ended = [
            cell
            for cell in self.store.missing()
            if (entry := entries.get(layout.name(cell))) is not None and entry.state in ("absorbed", "diverged")
        ]
        for start in range(0, len(ended), _AT_ONCE):
            filled = []
            for cell in ended[start : start + _AT_ONCE]:
                one = self.store.read(cell)
                if one.state == "absorbed":
                    known = int(np.searchsorted(layout.coordinates["time"], entries[layout.name(cell)].covers)) + 1
                    for values in one.records.values():
                        values[known:] = values[known - 1]
                    one = one._replace(steps=self.store.last)
                filled.append(one)
            self.store.write(filled)

    def report(self, under_way: Sequence[Index], share: float, particle_steps: int, of: int = 0) -> None:
        """Say where the sweep stands; ``share`` is of the ``of`` cells that were unfinished when the session began."""
        ended = self.store.ended
        absorbed = ended & (self.store.mark_of("absorbed_at") >= 0)
        failed = self.store.mark_of("failed") > 0
        active = ended & ~absorbed & ~failed
        going = np.zeros_like(ended)
        if under_way:
            going[tuple(np.array(under_way).T)] = True
        now = time.monotonic()
        began, share_then, steps_then = self._first or (self._began, share, 0)
        if self._first is None and particle_steps > 0:
            self._first = (now, share, particle_steps)  # most of the time until then was the compiler's
        elapsed, gained, made = now - began, share - share_then, particle_steps - steps_then
        progress = SweepProgress(
            done=int(ended.sum()),
            total=ended.size,
            failed=int(failed.sum()),
            absorbed=int(absorbed.sum()),
            active=int(active.sum()),
            running=int(going.sum()),
            share=1.0 - (1.0 - share) * of / ended.size if of else float(ended.mean()),
            particle_steps=particle_steps,
            speed=made / max(elapsed, 1e-9),
            seconds_left=elapsed * (1.0 - share) / gained if gained > 0 else None,
            phi_c=guess_phi_c(dict(self.store.layout.coordinates), absorbed, active | going),
        )
        if self._clock.due() or progress.done == progress.total:
            write_progress(self.store.directory, progress)
        if self._on_progress is not None:
            self._on_progress(progress)

    def _tell(self, notes: list[str]) -> None:
        self.notes += notes
        if self._on_note is not None:
            for note in notes:
                self._on_note(note)


def run_cells(
    spec: Sweep,
    names: Sequence[Name],
    checkpoints: Checkpoints,
    batch: int | None,
    chunk_steps: int | None,
    on_progress: Callable[[Progress], None],
    on_chunk: Callable[[Snapshot], None],
    trajectories: Path | None = None,
) -> Iterator[tuple[int, Result]]:
    """Run some cells on this process's devices, from their checkpoints where there are any.

    ``trajectories`` is the directory of the sweep; None writes none, whatever the specification says.
    """
    replicas = replicas_of(spec, names)
    times = record_times(spec)
    kind = particles_of(replicas)
    like = state_like(kind, replicas, times, DEFAULT_RECORD)
    start = partial(
        run,
        kind,
        replicas,
        times,
        DEFAULT_RECORD,
        batch=batch,
        chunk_steps=chunk_steps,
        on_progress=on_progress,
        on_chunk=on_chunk,
    )

    def found(index: int) -> State | None:
        return checkpoints.restore(names[index], like)

    if trajectories is None or spec.trajectory is None:
        yield from start(restore=found)
        return
    stops = frame_times(spec.trajectory, int(times[-1]))
    recorder = Recorder(trajectories, stops, names, replicas.system, checkpoints.notes)
    yield from recorder.results(start(restore=partial(recorder.restore, found), stops=stops, on_stop=recorder.add))


def made_by(layout: Layout, versions: str) -> str:
    """What must agree for a state to be gone on with."""
    return digest_of([layout.attributes["configuration"], versions])


def state_to_keep(result: Result) -> Any:
    """The last state of a replica that more steps would move."""
    return None if result.failed or result.absorbed_at >= 0 else result.state


def finished_cell(layout: Layout, cell: Index, result: Result) -> Finished:
    """What is stored of a result. An absorbed replica is accounted for to the end, a failed one to where it broke."""
    if result.failed:
        state: CellState = "diverged" if result.state.failed else "failed"
    else:
        state = "absorbed" if result.absorbed_at >= 0 else "active"
    return Finished(
        cell=cell,
        records=result.records,
        positions=result.final["positions"],
        state=state,
        steps=result.steps if result.failed else int(layout.coordinates["time"][-1]),
        absorbed_at=result.absorbed_at,
        reason=result.reason,
    )
