"""Cells through the driver: the one place where a sweep calls it, in this process or on a worker."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from packing_jax.devices import local_devices
from packing_jax.drive.chunk import State
from packing_jax.drive.kind import Kind
from packing_jax.drive.run import Progress, Result, Snapshot, default_batch, run, state_like
from packing_jax.sweeps.cells import Finished
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.manifest import CellState, Name, digest_of
from packing_jax.sweeps.recorder import Recorder
from packing_jax.sweeps.schema import Index, Layout
from packing_jax.sweeps.spec import Spec, built
from packing_jax.sweeps.trajectory import Trajectories

#: Cells under way, share of the work, unit-steps, cells that the share is of.
Report = Callable[[Sequence[Index], float, int, int], None]


class Stopped(Exception):  # noqa: N818 - not an error
    """The sweep ends after the present chunk; everything is written."""


def run_cells(
    spec: Spec,
    names: Sequence[Name],
    checkpoints: Checkpoints,
    batch: int | None,
    chunk_steps: int | None,
    on_progress: Callable[[Progress, Sequence[int]], None],
    on_chunk: Callable[[Snapshot], None],
    trajectories: Trajectories | None = None,
) -> Iterator[tuple[int, Result]]:
    """Run some cells on this process's devices, from their checkpoints where there are any.

    Those of equal shape run beside one another, group after group.

    Args:
        spec: of the sweep.
        names: of the cells.
        checkpoints: of the sweep.
        batch: replicas that move at a time.
        chunk_steps: steps between two looks of the host.
        on_progress: called after every chunk with the progress of all cells, and the numbers of those under way.
        on_chunk: called after it with a function that gives the states of those under way, by their numbers.
        trajectories: where to write frames, if at all.

    Yields:
        Number of the cell among ``names``, and its result.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(spec.group(name), []).append(i)
    so_far: dict[int, Progress] = {}
    for number, members in enumerate(groups.values()):

        def told(now: Progress, going: Sequence[int], number: int = number, members: list[int] = members) -> None:
            so_far[number] = now
            on_progress(_together(so_far.values(), len(names)), [members[i] for i in going])

        def looked(snapshot: Snapshot, members: list[int] = members) -> None:
            on_chunk(lambda: {members[i]: state for i, state in snapshot().items()})

        those = [names[i] for i in members]
        for i, result in _run_group(spec, those, checkpoints, batch, chunk_steps, told, looked, trajectories):
            yield members[i], result


def _together(groups: Iterable[Progress], total: int) -> Progress:
    """The progress of so many cells, of which these groups have begun."""
    done, counts, shares, moves = zip(*groups, strict=True)
    share = sum(one * count for one, count in zip(shares, counts, strict=True)) / total
    return Progress(sum(done), total, share, sum(moves))


def _run_group(
    spec: Spec,
    names: Sequence[Name],
    checkpoints: Checkpoints,
    batch: int | None,
    chunk_steps: int | None,
    on_progress: Callable[[Progress, Sequence[int]], None],
    on_chunk: Callable[[Snapshot], None],
    trajectories: Trajectories | None,
) -> Iterator[tuple[int, Result]]:
    """Cells of equal shape, as :func:`run_cells` runs them."""
    (kind, replicas), times, record = built(spec, names), spec.times(), spec.record
    like = state_like(kind, replicas, times, record)
    width = default_batch(kind, replicas) if batch is None else batch
    places = at_once(kind, width)
    ended: set[int] = set()

    def told(progress: Progress) -> None:
        # replicas begin in their order, whenever a place is free
        on_progress(progress, [i for i in range(min(places + len(ended), len(names))) if i not in ended])

    def found(index: int) -> State | None:
        return checkpoints.restore(names[index], like)

    start = partial(
        run, kind, replicas, times, record, batch=width, chunk_steps=chunk_steps, on_progress=told, on_chunk=on_chunk
    )
    if trajectories is None:
        results = start(restore=found)
    else:
        recorder = Recorder(trajectories, names, replicas.system, checkpoints.notes)
        restore = partial(recorder.restore, found)
        results = recorder.results(start(restore=restore, stops=trajectories.times, on_stop=recorder.add))
    for index, result in results:
        ended.add(index)
        yield index, result


def at_once(kind: Kind, width: int) -> int:
    """Replicas that move at a time on this process's devices, in batches as the driver takes them."""
    return width if kind.exact else width * len(local_devices())


def fixed_width(spec: Spec, names: Iterable[Name], batch: int | None) -> int | None:
    """The width that all batches of a sweep have, from its first to its last; None where it changes no bits."""
    groups: dict[Hashable, list[Name]] = {}
    for name in names:
        groups.setdefault(spec.group(name), []).append(name)
    kinds = [(*built(spec, members[:1]), len(members)) for members in groups.values()]
    if all(kind.exact for kind, _, _ in kinds):
        return None
    return batch or max(min(kind.width(replicas), count) for kind, replicas, count in kinds)


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
        finals={name: result.final[name] for name in layout.finals if name in result.final},
        state=state,
        steps=result.steps if result.failed else layout.last,
        absorbed_at=result.absorbed_at,
        reason=result.reason,
    )
