"""From a specification to a store: run every cell of a sweep, and go on where it was stopped.

A cell is one replica at one value of each axis. Its trajectory does not depend on what else runs, so cells can be
computed in any order, batch, session or place.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from packing_jax.drive.run import Progress, Result, Snapshot
from packing_jax.errors import PackingError
from packing_jax.sweeps.cells import Finished
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.compute import Stopped, finished_cell, fixed_width, made_by, run_cells, state_to_keep
from packing_jax.sweeps.kinds import known_spec
from packing_jax.sweeps.manifest import Name
from packing_jax.sweeps.progress import EveryTwoSeconds, Stop, SweepProgress, find_transitions, stopping, write_progress
from packing_jax.sweeps.schema import Index, Layout, description, stored_width
from packing_jax.sweeps.spec import Spec, check_settings, stored_spec
from packing_jax.sweeps.store import Store, cannot_write

_AT_ONCE = 256  # cells whose records are in memory while a sweep is extended


class Outcome(NamedTuple):
    """How a sweep ended."""

    done: int  #: cells finished, failed ones included
    total: int
    failed: int  #: of them, those that diverged included
    stopped: str | None  #: SIGINT, SIGTERM or walltime; None when nothing is left to do
    diverged: int = 0  #: of them
    reasons: tuple[str, ...] = ()  #: why cells failed, each reason once
    notes: tuple[str, ...] = ()  #: damage that was found, and what was done about it

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its end."""
        return self.stopped is not None


def run_sweep(
    spec: Spec | None,
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
    """Run every cell of a sweep that is not done, and store each as it finishes.

    Args:
        spec: what to sweep, such as a :class:`packing_jax.sweeps.spheres.Sweep`; missing fields get their defaults.
            With ``resume``, more steps, replicas or values of the axes are added; None goes on with spheres as it was.
        directory: ``results.zarr`` is made here, or gone on with.
        resume: go on with the sweep in ``directory``.
        batch: replicas that move at a time; chosen from their size when None. Where the kind's bits depend on it, it is
            the width of each device's block, which the store keeps.
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
            spec = spec.checked()
            _check_engine(spec, directory, client)  # before anything is made
            store = Store.create(directory, _laid_out(spec, command, batch))
        with contextlib.closing(store):
            attributes = store.layout.attributes
            if resume or spec is None:
                spec = stored_spec(attributes, known_spec(attributes) if spec is None else spec)
            _check_engine(spec, directory, client)
            try:
                store.begin_session(command, spec.trusted(attributes) if resume else ())
                session = _Session(spec, store, on_progress, on_note, stop)
                if session.trajectories is not None and not resume:
                    session.trajectories.clear(store.layout.cells.places())
                return session.run(_batch(attributes, batch), chunk_steps, checkpoint_seconds, client)
            except OSError as error:
                store.manifest.check()  # the folder may have been removed
                raise cannot_write(directory, error) from error


def _laid_out(spec: Spec, command: str, batch: int | None) -> Layout:
    layout = spec.layout(command)
    width = fixed_width(spec, layout.cells.places(), batch)
    return layout if width is None else layout._replace(attributes={**layout.attributes, "block_width": width})


def _batch(attributes: Mapping[str, Any], asked: int | None) -> int | None:
    width = stored_width(attributes)
    if width is not None and asked not in (None, width):
        raise PackingError(
            f"this sweep was begun with batches of {width}, and its numbers round differently in batches of {asked}: "
            f"omit the batch, or give {width}"
        )
    return asked if width is None else width


def _check_engine(spec: Spec, directory: Path, client: Any) -> None:
    if spec.trajectories(directory) is not None and client is not None:
        raise PackingError(
            "trajectories are written by the process that owns the sweep; run it without Dask workers, or begin one "
            "without --trajectory"
        )


def _reopened(asked: Spec | None, directory: Path) -> Store:
    attributes = description(directory)
    check_settings(attributes)
    stored = stored_spec(attributes, known_spec(attributes) if asked is None else asked)
    wanted = stored if asked is None else stored.extended(asked)
    store = Store.open(directory, _as_it_was(stored.layout(""), attributes))
    if wanted != stored:
        grown = wanted.layout("")
        kept = {name: attributes.get(name) for name in ("command", "versions", "jax_settings")}
        try:
            store.grow(grown._replace(attributes={**attributes, **grown.attributes, **kept}))
        except BaseException:
            store.close()
            raise
    return store


def _as_it_was(layout: Layout, attributes: Mapping[str, Any]) -> Layout:
    """The layout of a store, without the tables that came after it was made."""
    known = attributes.get("digests")
    tables = {name: one for name, one in layout.tables.items() if not isinstance(known, Mapping) or name in known}
    if known is None:
        tables.pop("box", None)
    return layout._replace(attributes=attributes, tables=tables)


class _Session:
    """One process at work on a store, from its first look to its last."""

    def __init__(
        self,
        spec: Spec,
        store: Store,
        on_progress: Callable[[SweepProgress], None] | None,
        on_note: Callable[[str], None] | None,
        stop: Stop,
    ) -> None:
        self.spec = spec
        self.store = store
        self.stop = stop
        self.trajectories = spec.trajectories(store.folder.path)
        if self.trajectories is not None:
            self.trajectories.entries = store.manifest.entries
        self.notes: list[str] = []
        self._on_progress = on_progress
        self._on_note = on_note
        self._clock = EveryTwoSeconds()
        self._began = time.monotonic()
        self._first: tuple[float, float, int] | None = None  #: time, share and unit-steps after the first chunk

    def run(self, batch: int | None, chunk_steps: int | None, checkpoint_seconds: float, client: Any) -> Outcome:
        """Finish what is unfinished."""
        store = self.store
        self._tell(store.notes)
        self._check_trajectories()
        self._fill_ended()
        todo = store.missing()
        if self.spec.control is not None:
            # dense systems run to the end, so they come first; dilute ones are absorbed and fill the gaps
            along = store.layout.cells.dims.index(self.spec.control)
            todo.sort(key=lambda cell: -cell[along])
        checkpoints = Checkpoints(store.folder.path, made_by(store.layout, store.versions), checkpoint_seconds)
        checkpoints.tidy(store.names_done())
        stopped = None
        try:
            self.report(todo[:0], 0.0, 0)
            if todo and self.stop.signal is not None:  # before a program is compiled in vain
                raise Stopped(self.stop.reason())
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
        store.manifest.check()  # before a checkpoint of another sweep is taken for an old one
        checkpoints.tidy(store.names_done())
        self._tell(checkpoints.notes)
        ended = store.manifest.entries.values()
        return Outcome(
            done=int(store.ended.sum()),
            total=store.ended.size,
            failed=int(store.mark_of("failed").sum()),
            stopped=stopped,
            diverged=sum(entry.state == "diverged" for entry in ended),
            reasons=tuple(dict.fromkeys(entry.reason for entry in ended if entry.state in ("diverged", "failed"))),
            notes=tuple(self.notes),
        )

    def _run_here(
        self, todo: Sequence[Index], checkpoints: Checkpoints, batch: int | None, chunk_steps: int | None
    ) -> None:
        names = [self.store.layout.cells.name(cell) for cell in todo]
        finished: list[tuple[int, Result]] = []

        def keep(progress: Progress, under_way: Sequence[int]) -> None:
            if finished:
                self.store.manifest.check()
                checkpoints.save_final({names[i]: state_to_keep(result) for i, result in finished})
                self.store.write([self._ended(todo[i], result) for i, result in finished])
                finished.clear()
            self.report([todo[i] for i in under_way], progress.share, progress.unit_steps, progress.total)

        def look(snapshot: Snapshot) -> None:
            self.store.manifest.check()

            def states() -> dict[Name, Any]:
                return {names[i]: state for i, state in snapshot().items()}

            if reason := self.stop.reason():
                checkpoints.save(states())
                raise Stopped(reason)
            checkpoints.save_if_due(states)

        for index, result in run_cells(
            self.spec, names, checkpoints, batch, chunk_steps, keep, look, self.trajectories
        ):
            finished.append((index, result))

    def _ended(self, cell: Index, result: Result) -> Finished:
        one = finished_cell(self.store.layout, cell, result)
        if self.trajectories is None:
            return one
        return one._replace(trajectory=self.trajectories.checksum(self.store.layout.cells.name(cell)))

    def _check_trajectories(self) -> None:
        """Take back finished cells whose trajectory is missing or damaged."""
        if self.trajectories is None:
            return
        for name, cell in self.store.layout.cells.places().items():
            entry = self.store.manifest.entries.get(name)
            if entry is not None and entry.complete and (fault := self.trajectories.fault_of(entry)):
                self._tell([f"{fault}: its cell is computed again"])
                self.store.distrust(cell, fault)

    def _fill_ended(self) -> None:
        """Carry cells that ended before the last step, absorbed or diverged, to the end of an extended schedule."""
        layout, entries = self.store.layout, self.store.manifest.entries
        ended = [
            cell
            for cell in self.store.missing()
            if (entry := entries.get(layout.cells.name(cell))) is not None and entry.state in ("absorbed", "diverged")
        ]
        for start in range(0, len(ended), _AT_ONCE):
            filled = []
            for cell in ended[start : start + _AT_ONCE]:
                one = self.store.read(cell)
                if one.state == "absorbed":
                    covers = entries[layout.cells.name(cell)].covers
                    known = int(np.searchsorted(layout.times, covers)) + 1
                    for values in one.records.values():
                        values[known:] = values[known - 1]
                    one = one._replace(steps=self.store.last)
                filled.append(one)
            self.store.write(filled)

    def report(self, under_way: Sequence[Index], share: float, unit_steps: int, of: int = 0) -> None:
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
        if self._first is None and unit_steps > 0:
            self._first = (now, share, unit_steps)  # most of the time until then was the compiler's
        elapsed, gained, made = now - began, share - share_then, unit_steps - steps_then
        progress = SweepProgress(
            done=int(ended.sum()),
            total=ended.size,
            failed=int(failed.sum()),
            absorbed=int(absorbed.sum()),
            active=int(active.sum()),
            running=int(going.sum()),
            share=1.0 - (1.0 - share) * of / ended.size if of else float(ended.mean()),
            unit=self.spec.unit,
            unit_steps=unit_steps,
            speed=made / max(elapsed, 1e-9),
            seconds_left=elapsed * (1.0 - share) / gained if gained > 0 else None,
            transitions=find_transitions(self.store.layout.cells, self.spec.control, absorbed, active | going),
        )
        self.store.manifest.check()
        if self._clock.due() or progress.done == progress.total:
            write_progress(self.store.folder, progress)
        if self._on_progress is not None:
            self._on_progress(progress)

    def _tell(self, notes: list[str]) -> None:
        self.notes += notes
        if self._on_note is not None:
            for note in notes:
                self._on_note(note)
