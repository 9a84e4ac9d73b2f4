"""The host's half of the driver: chunks until every replica has ended, each handed out as it ends.

The host calls the compiled :func:`packing_jax.drive.chunk.chunk` again and again and looks at what came back. Replicas
that are absorbed, finished or failed are handed out and waiting ones take their places, so that the slowest replica
near phi_c does not hold the others. Where a chunk is void, because its program's shapes were too small for what it met,
its result is thrown away, the kind grows, and the chunk runs again: no contact is ever lost.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.devices import local_devices
from packing_jax.drive.batch import COMPILE, Batch, pick
from packing_jax.drive.chunk import Observable, Record, State, chunk
from packing_jax.drive.kind import AXES, Kind, Pace, Replicas, types_of
from packing_jax.drive.schedule import STEP_LIMIT
from packing_jax.errors import PackingError, calling, is_whole, shown

#: Gives the states of all replicas under way, each as :class:`Result` has it.
Snapshot = Callable[[], dict[int, State]]

#: Kinds and programs that this process has compiled: to go back to one costs nothing.
_COMPILED: set[tuple[Kind, Any]] = set()

_NO_STOPS = np.zeros(0, np.int64)

_CHUNK_SECONDS = 0.5  # long enough to hide the host's work, short enough for a progress bar and Ctrl-C
_CHUNK_STEPS, _LONGEST_CHUNK = 256, 8.0  # a chunk has so many steps at least, if they take so many seconds at most


class Result(NamedTuple):
    """What one replica did."""

    records: dict[str, np.ndarray]  #: name -> (M, ...)
    final: Mapping[str, np.ndarray]  #: what its kind keeps of the last configuration; of spheres, positions (N, dim)
    absorbed_at: int  #: step at which it was absorbed, -1 if still active
    steps: int  #: moves made; fewer than asked for when absorbed
    failed: bool  #: its rule called a move broken, or it does not fit in memory
    reason: str  #: why it failed, else empty
    state: State  #: where it stands, without the replica axis, in the form that any batch leads to


class Progress(NamedTuple):
    """Where a run stands after a chunk."""

    done: int  #: replicas finished
    total: int
    share: float  #: of the work, 0 to 1; absorbed replicas count as done
    unit_steps: int  #: moves made so far times the units of a replica: particle-steps of spheres


def default_batch(kind: Kind, replicas: Replicas) -> int:
    """Replicas at a time on all devices of this process; where a kind's bits depend on it, on each device."""
    width = kind.width(replicas)
    return width * len(local_devices()) if kind.exact else min(width, len(replicas.key))


def run(
    kind: Kind,
    replicas: Replicas,
    times: np.ndarray,
    record: Mapping[str, Observable],
    batch: int | None = None,
    chunk_steps: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    restore: Callable[[int], State | None] = lambda _: None,
    on_chunk: Callable[[Snapshot], None] = lambda _: None,
    stops: np.ndarray = _NO_STOPS,
    on_stop: Callable[[int, State], None] = lambda *_: None,
) -> Iterator[tuple[int, Result]]:
    """Yield (replica, result) as replicas finish, in no particular order.

    Args:
        kind: what they are.
        replicas: all of them.
        times: increasing steps to record at; the last one ends the run.
        record: name -> observable.
        batch: replicas that move at the same time, by :func:`default_batch` when None. Changes nothing but speed; of a
            kind that is not exact it is the width of a device's block, and changes the rounding.
        chunk_steps: steps between two looks of the host; about half a second's worth when None.
        on_progress: called after every chunk, after what finished in it was yielded.
        restore: gives the state that a replica goes on from, None to begin at its start; asked when it is its turn.
        on_chunk: called after ``on_progress`` with a function that returns the states of all replicas under way. What
            it raises ends the run.
        stops: increasing steps; no chunk moves a replica past one.
        on_stop: called before each chunk with every replica that stands at one of these steps, and its state; again
            where a chunk had to be repeated, and not where a replica ends.

    Raises:
        PackingError: no replicas, a batch or chunk of less than 1, an observable that cannot be measured.
    """
    if not len(replicas.key):
        raise PackingError("there are no replicas: the replica axis has length 0, and at least 1 is needed")
    _check_pace(batch, chunk_steps)
    results = _results(
        kind, replicas, times, record, batch, chunk_steps, on_progress, restore, on_chunk, stops, on_stop
    )
    while True:  # the types are those of the kind in here, and not where the results go
        with types_of(kind):
            result = next(results, None)
        if result is None:
            return
        yield result


def _results(
    kind: Kind,
    replicas: Replicas,
    times: np.ndarray,
    record: Mapping[str, Observable],
    batch: int | None,
    chunk_steps: int | None,
    on_progress: Callable[[Progress], None],
    restore: Callable[[int], State | None],
    on_chunk: Callable[[Snapshot], None],
    stops: np.ndarray,
    on_stop: Callable[[int, State], None],
) -> Iterator[tuple[int, Result]]:
    """What :func:`run` yields."""
    steps, schedule = int(times[-1]), jnp.asarray(times)
    width = default_batch(kind, replicas) if batch is None else batch
    group = Batch(kind, replicas, width, lambda who: begin(kind, who, times, record), restore)
    observe = tuple(record.items())
    pace = min(chunk_steps or 16, STEP_LIMIT)
    shape = _Shape(kind, replicas)
    while True:
        group.visit(stops, on_stop)
        clock, most, seconds, a_step = time.perf_counter(), min(pace, group.until(stops)), 0.0, 0.0
        kind = shape.kind
        after, met, trouble = _attempt(kind, observe, group, schedule, most)
        if met is not None and kind.void(met):
            trouble = shape.grow(met, int(group.made.max()))
            if not trouble:
                continue
        if met is None or trouble:
            if not group.give_up(trouble):
                continue
        else:
            moved = group.accept(after)
            shape.fits()
            program = (observe, jax.tree.structure((group.here, group.state)), group.shapes())
            if (kind, program) not in _COMPILED:  # the time was the compiler's
                _COMPILED.add((kind, program))
            elif moved.any():
                seconds = time.perf_counter() - clock
                left = seconds * float((steps - group.made[~group.ended]).sum()) / float(moved.sum())
                a_step = seconds / float(moved.max())
                before = pace
                if chunk_steps is None and most == pace:  # a chunk that a stop cut short says little
                    pace = _next_pace(pace, seconds)
                if pace <= 2 * before:  # else it was of so few steps that the next will tell more
                    on_each = -(-group.places // len(local_devices()))
                    shape.tune(met, Pace(int(moved.max()), left, on_each), int(group.made.max()), program)
        for index, one, reason in group.leave():
            yield index, _result(kind, one, group.one(index), reason)
        on_progress(_progress(group, steps, kind.size(replicas)))
        on_chunk(group.snapshot)
        if group.ended.all():
            return
        group.refill(seconds, a_step * float((steps - group.made[~group.ended]).max()))


class _Shape:
    """The kind that a run has now: its program's shapes follow what chunks meet."""

    def __init__(self, kind: Kind, replicas: Replicas) -> None:
        self.kind = kind
        self._replicas = replicas
        self._before: Kind | None = None  # of the chunks before, as long as the kind is a guess
        self._failed: dict[Kind, int] = {}  # guesses, and the step at which each was too small

    def grow(self, met: Any, made: int) -> str:
        """Another kind after a void chunk: the one before a guess, or one with more room; else why there is none."""
        if self._before is not None:
            self._failed[self.kind] = made
            self.kind, self._before = self._before, None
            return ""
        grown = self.kind.grown(met, self._replicas)
        if isinstance(grown, str):
            return grown
        self.kind = grown
        return ""

    def fits(self) -> None:
        """A chunk was not void."""
        self._before = None

    def tune(self, met: Any, pace: Pace, made: int, program: Any) -> None:
        """A better kind for the next chunk, where it is worth its compilation; a guess that failed after twice as long.

        Args:
            met: by the last chunk.
            pace: of the run.
            made: steps so far.
            program: what else the compiled program depends on.
        """
        wanted, gain = self.kind.tuned(met, pace, self._replicas)
        known = (wanted, program) in _COMPILED or wanted in self._failed
        if wanted != self.kind and (gain > COMPILE or known) and made >= 2 * self._failed.get(wanted, 0):
            self._before, self.kind = self.kind, wanted


def state_like(kind: Kind, replicas: Replicas, times: np.ndarray, record: Mapping[str, Observable]) -> State:
    """Shapes and dtypes of one replica's state."""
    with types_of(kind):
        one = pick(replicas._replace(shared=()), slice(0, 1))._replace(shared=replicas.shared)
        shapes = jax.eval_shape(lambda: begin(kind, one, times, record))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes)


def begin(kind: Kind, replicas: Replicas, times: np.ndarray, record: Mapping[str, Observable]) -> State:
    """The state before the first step.

    Raises:
        PackingError: an observable that raises, or returns no number and no array.
    """
    place, rule = kind.begin(jax.device_put(replicas._replace(shared=()))._replace(shared=replicas.shared))

    def measure(replica: Replicas, place: Any, work: Any) -> dict[str, Any]:
        seen = kind.seen(replica, place, work)
        return {name: _tried(name, function, seen) for name, function in record.items()}

    shapes = jax.eval_shape(jax.vmap(measure, (AXES, 0, 0)), replicas, place, kind.blank(place)[0])
    count = len(replicas.key)

    def empty(shape: jax.ShapeDtypeStruct) -> Array:
        return jnp.zeros((count, len(times), *shape.shape[1:]), dtype=shape.dtype)

    zero = jnp.zeros(count, jnp.int32)
    return State(
        place=place,
        rule=rule,
        step=zero,
        cursor=zero,
        alive=jnp.ones(count, bool),
        failed=jnp.zeros(count, bool),
        absorbed_at=zero - 1,
        records=jax.tree.map(empty, shapes),
    )


def _tried(name: str, observable: Observable, seen: Any) -> Any:
    """What an observable returns when jax traces it."""
    right = "a function of one configuration, in jax.numpy, that returns a number or an array of fixed shape"
    with calling(f"the observable {name}", right):
        found = observable(seen)
    if not isinstance(found, (Array, np.ndarray, np.generic, bool, int, float)):
        raise PackingError(
            f"the observable {name} returns an object of type {type(found).__name__}; it must return a number or an "
            "array of fixed shape"
        )
    dtype = jnp.result_type(found)
    if not any(jnp.issubdtype(dtype, numbers) for numbers in (jnp.number, jnp.bool_)):
        raise PackingError(f"the observable {name} returns an array of {dtype}; it must return an array of numbers")
    return found


def _attempt(kind: Kind, observe: Record, group: Batch, schedule: Array, most: int) -> tuple[State, Any, str]:
    """One chunk on the device: its end and what it met, or, where memory does not suffice, None and a sentence."""
    try:
        after, met = chunk(kind, observe, group.here, group.state, schedule, jnp.asarray(most, jnp.int32))
        return after, jax.tree.map(np.max, jax.device_get(met)), ""
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = "does not fit in memory, even alone: use a smaller system or a machine with more memory"
        if not kind.exact:
            reason = "does not fit in memory in a block of this width: use a smaller width or a smaller system"
        return group.state, None, reason


def _progress(group: Batch, steps: int, size: int) -> Progress:
    share = float(np.where(group.ended, 1.0, group.made / max(steps, 1)).mean())
    return Progress(int(group.ended.sum()), group.total, share, int((group.made - group.found).sum()) * size)


def _next_pace(pace: int, seconds: float) -> int:
    """Steps of the next chunk, after one of ``pace`` that took so long.

    A chunk begins with making work ready, for spheres a rebuild as dear as ten steps or so. Where half a second is only
    a few steps, that would be most of the work, so chunks of large systems are longer.
    """
    wanted = np.clip(_CHUNK_SECONDS / seconds, 0.25, 4.0) * pace
    enough = min(_CHUNK_STEPS, np.clip(_LONGEST_CHUNK / seconds, 0.25, 4.0) * pace)
    return int(np.clip(max(wanted, enough), 1, 2**24))


def _check_pace(batch: int | None, chunk_steps: int | None) -> None:
    for name, value in (("batch", batch), ("chunk_steps", chunk_steps)):
        if value is not None and not is_whole(value):
            raise PackingError(f"{name} is {shown(value)}; it must be a whole number")
    if batch is not None and batch < 1:
        raise PackingError(f"a batch of {shown(batch)} replicas; at least 1 must move at a time")
    if chunk_steps is not None and chunk_steps < 1:
        raise PackingError(f"chunks of {shown(chunk_steps)} steps; at least 1 is needed")


def _result(kind: Kind, one: State, replica: Replicas, reason: str) -> Result:
    if one.failed:
        reason = f"diverged at step {one.step}: {kind.divergence}"
    return Result(
        records={name: _measured(values, one, ended=not reason) for name, values in one.records.items()},
        final=kind.final(replica, one.place),
        absorbed_at=int(one.absorbed_at),
        steps=int(one.step),
        failed=bool(reason),
        reason=reason,
        state=one,
    )


def _measured(values: Any, one: State, ended: bool) -> np.ndarray:
    """A record, NaN where a replica that failed did not come to. On the devices 0 stands there, which is no error.

    ``jax_debug_nans`` makes one of a NaN.
    """
    array = np.array(values)
    if not ended and np.issubdtype(array.dtype, np.inexact):
        array[int(one.cursor) :] = np.nan
    return array
