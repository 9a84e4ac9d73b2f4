"""A sweep on many machines, by Dask: a task is some cells, and one process owns the store.

A worker writes the files of a finished cell into a folder of its own and announces it; the owner moves them into the
dataset, appends to the manifest and marks the cell. So no worker ever touches the dataset, and one that was given up
for lost and comes back late cannot harm anything: what it announces again is thrown away, and after the session its
folder has no place to be made in. What a lost worker had under way goes on elsewhere from its checkpoints, which all
processes read.
"""

import contextlib
import queue
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax

from packing_jax.drive.run import Progress, Result, Snapshot, default_batch
from packing_jax.errors import PackingError, shown
from packing_jax.sweeps.cells import encoded, entry_of, lost
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.compute import Report, Stopped, at_once, finished_cell, made_by, run_cells, state_to_keep
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Entry, digest_of
from packing_jax.sweeps.own import changed_modules
from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.schema import RESULTS, SCRATCH, Index, description, stored_width
from packing_jax.sweeps.spec import Spec, check_settings
from packing_jax.sweeps.store import Store, cannot_write
from packing_jax.versions import provenance

_SAY_EVERY = 2.0  # seconds between two messages of a worker that finished nothing
_LOOK_EVERY = 0.2  # seconds between two looks of the owner at its signals


class Task(NamedTuple):
    """What a worker is asked to do."""

    spec: Spec
    cells: tuple[Index, ...]
    directory: str  #: of the sweep, the same on every machine
    session: str  #: name of the session's folder there, and of its messages
    batch: int | None
    chunk_steps: int | None
    checkpoint_seconds: float


class Ended(NamedTuple):
    """What a worker says when it has no more to do for a task."""

    arrived: list[tuple[str, list[dict[str, Any]]]]  #: folders and the entries of the cells in them
    versions: dict[str, str]
    notes: list[str]
    seen: bool  #: whether the worker sees the directory


# --- the worker -----------------------------------------------------------------------------------------------


def dask_setup(_: Any) -> None:
    """Let a local worker survive the Ctrl-C that its terminal sends to all: the owner stops it after a chunk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def work(task: Task) -> Ended:
    """Run the cells of a task on this worker's devices, until they are finished or the session ends."""
    from distributed import get_worker

    directory, arrived = Path(task.directory), list[tuple[str, list[dict[str, Any]]]]()
    session, worker = f"{SCRATCH}/{task.session}", get_worker()
    if not (directory / session).is_dir():
        return Ended(arrived, provenance(), [], seen=False)
    store, attributes = Folder(directory), description(directory)
    if changed := changed_modules(attributes.get("own", {})):
        raise PackingError(f"a worker has another version of {', '.join(changed)} than the process that owns the sweep")
    check_settings(attributes)
    versions = provenance(exact=stored_width(attributes) is None)
    layout = task.spec.layout("")._replace(attributes=attributes)
    names = [layout.cells.name(cell) for cell in task.cells]
    checkpoints = Checkpoints(directory, made_by(layout, digest_of(versions)), task.checkpoint_seconds)
    finished: list[tuple[int, Result]] = []
    attempt, clock, last_message, longest = uuid.uuid4().hex, time.monotonic(), 0.0, 0.0

    def keep(progress: Progress, _: Sequence[int]) -> None:
        nonlocal clock, last_message, longest
        now = time.monotonic()
        longest, clock = max(longest, now - clock), now
        if not store.is_folder(session):
            raise Stopped
        entries: list[dict[str, Any]] = []
        folder = uuid.uuid4().hex
        if finished:
            checkpoints.save_final({names[i]: state_to_keep(result) for i, result in finished})
            cells = [finished_cell(layout, task.cells[i], result) for i, result in finished]
            parts = {_flat(name): data for one in cells for name, data in encoded(layout, one).items()}
            place = f"{session}/{folder}"  # if the session has ended, there is no place to make it in
            store.write({f"{place}/{name}": data for name, data in parts.items()}, drafts=place)
            entries = [asdict(entry_of(layout, one, digest_of(versions))) for one in cells]
            arrived.append((folder, entries))
            finished.clear()
        if entries or now - last_message > _SAY_EVERY:
            last_message = now
            message = {
                "folder": folder,
                "entries": entries,
                "first": task.cells[0],
                "attempt": attempt,
                "share": progress.share * len(task.cells),
                "steps": progress.unit_steps,
                "longest": longest,
            }
            worker.log_event(task.session, message)

    def look(snapshot: Snapshot) -> None:
        def states() -> dict[Any, Any]:
            return {names[i]: state for i, state in snapshot().items()}

        if store.is_file(f"{session}/stop"):
            checkpoints.save(states())
            raise Stopped
        checkpoints.save_if_due(states)

    with contextlib.suppress(Stopped):
        for index, result in run_cells(task.spec, names, checkpoints, task.batch, task.chunk_steps, keep, look):
            finished.append((index, result))
        checkpoints.drop()
    return Ended(arrived, versions, checkpoints.notes, seen=True)


def _flat(name: str) -> str:
    return name.replace("/", " ")


# --- the owner ------------------------------------------------------------------------------------------------


class Cluster:
    """The owner's side of a session."""

    def __init__(self, client: Any, store: Store, stop: Stop, report: Report) -> None:
        self.client, self.store, self.stop, self.report = client, store, stop, report
        self.notes: list[str] = []
        self._session = f"session-{uuid.uuid4().hex}"
        self._place = f"{SCRATCH}/{self._session}"
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._shares: dict[Any, float] = {}
        self._steps: dict[str, int] = {}
        self._makers: set[str] = set()
        self._places = store.layout.cells.places()
        self._total = 0
        self._patience = 30.0  # seconds for workers to stop; a first chunk compiles

    def run(
        self, spec: Spec, todo: Sequence[Index], batch: int | None, chunk_steps: int | None, seconds: float
    ) -> None:
        """Finish cells on the workers of the cluster.

        Raises:
            PackingError: a worker does not see the directory, has no packing_jax, or failed.
            Stopped: the session is to end; what was under way is in the checkpoints.
        """
        kind, replicas = spec.build([self.store.layout.cells.name(todo[0])])
        width = at_once(kind, default_batch(kind, replicas) if batch is None else batch)
        self._total = len(todo)
        tasks = max(-(-len(todo) // width), min(len(todo), len(self.client.nthreads())))
        # dealt like cards, so that each task has its share of dense cells, which take longest
        dealt = [tuple(todo[first::tasks]) for first in range(tasks)]
        directory = str(self.store.folder.path.resolve())
        for place in (SCRATCH, self._place):
            self.store.folder.make(place)
        self.client.subscribe_topic(self._session, lambda event: self._messages.put(event[1]))
        waiting: dict[Any, Task] = {}

        def submit(cells: tuple[Index, ...]) -> None:
            task = Task(spec, cells, directory, self._session, batch, chunk_steps, seconds)
            # a name of its own: a task of the same words in another session is another task
            key = f"packing_jax-{uuid.uuid4().hex}"
            waiting[self.client.submit(work, task, key=key, pure=False)] = task

        try:
            for cells in dealt:
                submit(cells)
            while waiting:
                self._look(waiting)
                for future in [one for one in waiting if one.done()]:
                    task = waiting.pop(future)
                    for cells in self._end(future, task):
                        submit(cells)
                if reason := self.stop.reason():
                    self._end_session(waiting)
                    raise Stopped(reason)
        finally:
            with contextlib.suppress(OSError, PackingError):
                self._tell_to_stop()
            self.client.cancel(list(waiting))
            self.client.unsubscribe_topic(self._session)
            with contextlib.suppress(OSError, PackingError):
                self.store.folder.remove(self._place)

    def _look(self, waiting: dict[Any, Task]) -> None:
        """Take what workers announced, or wait a moment for it."""
        with contextlib.suppress(queue.Empty):
            message = self._messages.get(timeout=_LOOK_EVERY)
            while True:
                self._take(message["folder"], message["entries"])
                self._shares[tuple(message["first"])] = message["share"]
                self._steps[message["attempt"]] = message["steps"]
                self.stop.took(message["longest"])
                self._patience = max(self._patience, 3 * message["longest"])
                going = [cell for task in waiting.values() for cell in task.cells if not self.store.ended[cell]]
                share = sum(self._shares.values()) / self._total
                self.report(going, share, sum(self._steps.values()), self._total)
                message = self._messages.get_nowait()

    def _take(self, folder: str, entries: Sequence[dict[str, Any]]) -> None:
        """Move what a worker wrote into the dataset; what is there already is as good."""
        self.store.manifest.check()
        new, moved = [], set()
        for value in entries:
            entry = Entry(**{**value, "cell": tuple(value["cell"])})
            cell = self._places[entry.cell]
            if self.store.ended[cell]:
                continue
            for name in (self.store.layout.chunk_file(variable, cell) for variable in self.store.layout.arrays):
                target = f"{RESULTS}/{name}"
                self.store.folder.rename(f"{self._place}/{folder}/{_flat(name)}", target)
                moved.add(str(PurePosixPath(target).parent))
            new.append(entry)
        for parent in moved:
            self.store.folder.flush(parent)
        if new:
            self.store.accept(new)
        with contextlib.suppress(OSError):
            self.store.folder.remove(f"{self._place}/{folder}")

    def _end(self, future: Any, task: Task) -> list[tuple[Index, ...]]:
        """Close a task; cells that have to be tried again, those of each new task."""
        from distributed import KilledWorker

        error = future.exception()
        if isinstance(error, KilledWorker):
            left = [cell for cell in task.cells if not self.store.ended[cell]]
            if len(task.cells) > 1:  # one of them may be what no worker survives: each alone
                return [(cell,) for cell in left]
            reason = "was under way on several workers that were lost one after the other"
            self.store.write([lost(self.store.layout, cell, reason) for cell in left])
            return []
        if isinstance(error, OSError):
            raise cannot_write(self.store.folder.path, error) from error
        if isinstance(error, ModuleNotFoundError) or (error is not None and "packing_jax" in str(error.__cause__)):
            lacking = getattr(error, "name", None) or "packing_jax"
            raise PackingError(f"the workers cannot import {lacking}: install the same version there") from error
        if error is not None:
            raise error
        ended: Ended = future.result()
        if not ended.seen:
            raise PackingError(
                f"a worker does not see {self.store.folder.path}: the scheduler's machine and the workers need one "
                "file system, with the directory at the same place"
            )
        for folder, entries in ended.arrived:
            self._take(folder, entries)
        self.notes += ended.notes
        maker = digest_of(ended.versions)
        if self._makers and maker not in self._makers:
            self.notes.append("workers have different versions or devices: replicas may round differently on them")
        self._makers.add(maker)
        return []

    def _end_session(self, waiting: dict[Any, Task]) -> None:
        """Let workers write where they stand, as long as they are not too slow about it."""
        self._tell_to_stop()
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline and any(one.status == "pending" for one in waiting):
            # what waits for a worker has nothing to write
            running = {key for keys in self.client.processing().values() for key in keys}
            if not any(one.key in running and one.status == "pending" for one in waiting):
                break
            self._look(waiting)
        for future, task in waiting.items():
            if future.done() and future.status == "finished":
                self._end(future, task)

    def _tell_to_stop(self) -> None:
        self.store.folder.write({f"{self._place}/stop": b""}, drafts=self._place, flushed=False)


_MOST_WORKERS = 1024


@contextlib.contextmanager
def connected(scheduler: str | None, local_workers: int | None) -> Iterator[Any]:
    """A client of a running scheduler, or of so many worker processes on this machine, or None for neither.

    Raises:
        PackingError: `distributed` is not installed, nobody answers, or both were asked for.
    """
    if scheduler is None and local_workers is None:
        yield None
        return
    if scheduler is not None and local_workers is not None:
        raise PackingError("give --scheduler or --local-workers, not both: a scheduler has workers of its own")
    if local_workers is not None and not 1 <= local_workers <= _MOST_WORKERS:
        raise PackingError(
            f"{shown(local_workers)} local workers; at least 1 is needed, and {_MOST_WORKERS} are the most"
        )
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise PackingError('sweeps on many machines need Dask: pip install "packing_jax[cluster]"') from error
    with contextlib.ExitStack() as stack:
        if local_workers is not None:
            config: Any = jax.config
            cache = config.jax_compilation_cache_dir
            cluster = LocalCluster(
                n_workers=local_workers,
                threads_per_worker=1,
                dashboard_address=":0",
                silence_logs=50,
                preload=["packing_jax.sweeps.cluster"],
                env={"JAX_COMPILATION_CACHE_DIR": cache} if cache else None,
            )
            yield stack.enter_context(Client(stack.enter_context(cluster)))
            return
        try:
            client = stack.enter_context(Client(scheduler, timeout=20))
        except (OSError, ValueError) as error:
            raise PackingError(f"no Dask scheduler answers at {scheduler}: {str(error).splitlines()[0]}") from error
        yield client
