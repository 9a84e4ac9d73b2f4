"""THE driver: move configurations by a rule until each is absorbed or done, and measure on the way.

The host calls the compiled :func:`packing_jax.drive.chunk.chunk` again and again and looks at what came back. Replicas
that are absorbed, finished or failed are handed out and waiting ones take their places, so that the slowest replica
near phi_c does not hold the others. If a neighbour row overflowed, the chunk's result is thrown away, the plan grows,
and the chunk runs again: no contact is ever lost.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax import observables
from packing_jax.drive.batch import Batch, take
from packing_jax.drive.chunk import Needs, Replicas, State, chunk, overflowed
from packing_jax.drive.devices import local_devices, on_cpu
from packing_jax.errors import PackingError
from packing_jax.observables import Observable
from packing_jax.spheres import tuning
from packing_jax.spheres.geometry import to_positions
from packing_jax.spheres.neighbors import Plan, plan_for
from packing_jax.spheres.rules import Rule
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System

STEP_LIMIT = 2**31 - 2**20

#: What is recorded unless something else is asked for.
DEFAULT_RECORD: Mapping[str, Observable] = {
    "activity": observables.activity,
    "energy": observables.energy,
    "msd": observables.mean_squared_displacement,
}

#: Gives the states of all replicas under way, each as :class:`Result` has it.
Snapshot = Callable[[], dict[int, State]]

#: Plans and programs that this process has compiled: to go back to one costs nothing.
_COMPILED: set[tuple[Plan, Any]] = set()

_NO_STOPS = np.zeros(0, np.int64)

_CHUNK_SECONDS = 0.5  # long enough to hide the host's work, short enough for a progress bar and Ctrl-C
_CHUNK_STEPS, _LONGEST_CHUNK = 256, 8.0  # a chunk has so many steps at least, if they take so many seconds at most


class Result(NamedTuple):
    """What one replica did."""

    records: dict[str, np.ndarray]  #: name -> (M, ...)
    positions: np.ndarray  #: (N, dim) final positions in [0, box), particles in their original order
    absorbed_at: int  #: first step without an overlap, -1 if still active
    steps: int  #: moves made; fewer than asked for when absorbed
    failed: bool  #: a move was not finite or longer than half the box, or the replica does not fit in memory
    reason: str  #: why it failed, else empty
    state: State  #: where it stands, without the replica axis, particles in their original order


class Progress(NamedTuple):
    """Where a run stands after a chunk."""

    done: int  #: replicas finished
    total: int
    share: float  #: of the work, 0 to 1; absorbed replicas count as done
    particle_steps: int  #: moves times particles made so far


@dataclass(frozen=True)
class Trajectory:
    """What :func:`simulate` returns; every array has a leading replica axis if the input had one."""

    times: np.ndarray  #: (M,) steps at which the records were taken
    records: dict[str, np.ndarray]  #: name -> (..., M)
    positions: np.ndarray  #: (..., N, dim) final positions in [0, box)
    absorbed_at: np.ndarray  #: (...) first step without an overlap, -1 if still active

    def __getitem__(self, name: str) -> np.ndarray:
        """A record by its name."""
        return self.records[name]


# --- schedules ------------------------------------------------------------------------------------------------


def linear_times(steps: int, every: int) -> np.ndarray:
    """0, every, 2 every, ... and the last step.

    Raises:
        PackingError: steps that are no whole number, or an interval not between 1 and the steps.
    """
    _check_steps(steps)
    if not 1 <= every <= max(steps, 1):
        raise PackingError(f"recording every {every} steps; it must be between 1 and the number of steps, {steps}")
    return np.union1d(np.arange(0, steps + 1, every), [0, steps]).astype(np.int32)


def log_times(steps: int, count: int = 60) -> np.ndarray:
    """0, 1 and about ``count`` logarithmically spaced steps up to the last.

    Raises:
        PackingError: steps that are no whole number from 0 on.
    """
    _check_steps(steps)
    return np.union1d(np.rint(np.geomspace(1, max(steps, 1), count)), [0, steps])[: steps + 1].astype(np.int32)


def _check_steps(steps: int) -> None:
    if not (isinstance(steps, (int, np.integer)) and 0 <= steps <= STEP_LIMIT):
        raise PackingError(f"{steps} steps; it must be a whole number from 0 to {STEP_LIMIT}")


# --- the driver -----------------------------------------------------------------------------------------------


def simulate(
    system: System,
    rule: Rule,
    steps: int,
    key: Array,
    *,
    start: Array | np.ndarray | None = None,
    record: Mapping[str, Observable] = DEFAULT_RECORD,
    times: np.ndarray | None = None,
    batch: int | None = None,
    chunk_steps: int | None = None,
    skin: float | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Trajectory:
    """Run a rule on a system, or on a batch of them, and record observables on a schedule.

    A leading replica axis may stand on ``system`` (see :func:`packing_jax.spheres.system.stack`), on the rule's
    hyperparameters, on ``key`` and on ``start``; what has none is shared. One key and R replicas give replica r the
    key ``fold_in(key, r)``. A replica's trajectory depends on its own system, rule, key and start only: it is the same
    bits in any batch and in chunks of any length.

    Args:
        system: box, diameters, energy.
        rule: one of :mod:`packing_jax.spheres.rules`, or any object with its two methods that is a pytree.
        steps: moves to make; absorbed replicas stop earlier, and keep their last measurement to the end.
        key: ``jax.random.key(seed)``, () or (R,).
        start: (N, dim) or (R, N, dim) positions in the unit of the box; independent uniform ones when None.
        record: name -> observable, each a function of a :class:`packing_jax.observables.Configuration`.
        times: increasing steps from 0 to ``steps`` to record at; logarithmic ones when None.
        batch: replicas that move at the same time; chosen from N when None. Changes nothing but speed.
        chunk_steps: steps between two looks of the host; about half a second's worth when None. Likewise.
        skin: extra reach of the neighbour rows in mean diameters; chosen when None. Likewise.
        on_progress: called after every chunk.

    Returns:
        Records (..., M), final positions (..., N, dim) and absorption steps.

    Raises:
        PackingError: arguments out of range, positions not finite, or a replica whose moves diverged.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((system, rule, start))):
        raise PackingError(
            "simulate runs on the host; a derivative goes through packing_jax.derivatives.rollout.rollout"
        )
    times = log_times(steps) if times is None else check_times(times, steps)
    replicas, batched = gather_replicas(system, rule, key, start)
    results: dict[int, Result] = {}
    for index, result in run(replicas, times, record, batch, chunk_steps, skin, on_progress):
        if result.failed:
            raise PackingError(f"replica {index} {result.reason}")
        results[index] = result
    ordered = [results[r] for r in range(len(results))]
    sides = np.broadcast_to(np.asarray(system.box), len(ordered))

    def pick(leaves: list[Any]) -> np.ndarray:
        return np.stack(leaves) if batched else np.asarray(leaves[0])

    return Trajectory(
        times=times,
        records={name: pick([one.records[name] for one in ordered]) for name in record},
        positions=pick([one.positions * side for one, side in zip(ordered, sides, strict=True)]),
        absorbed_at=pick([np.int32(one.absorbed_at) for one in ordered]),
    )


def check_times(times: np.ndarray, steps: int) -> np.ndarray:
    """Record times: whole steps, strictly increasing, ending at the last step."""
    _check_steps(steps)
    array = np.asarray(times)
    if array.ndim != 1 or not len(array) or not np.all(array == np.rint(array)) or np.any(np.diff(array) <= 0):
        raise PackingError("the times to record at must be whole steps in increasing order")
    if array[0] < 0 or array[-1] != steps:
        raise PackingError(f"the times to record at run from {array[0]} to {array[-1]}; they must end at step {steps}")
    return array.astype(np.int32)


def default_batch(particles: int, dim: int) -> int:
    """Replicas at a time: enough to fill each device, few enough for a CPU's cache and for half of the free memory."""
    devices = local_devices()
    # the devices of a CPU share its memory
    sharing = len(devices) if on_cpu() else 1
    room = int(0.5 * tuning.free_bytes(devices[0]) / tuning.bytes_per_particle(dim) / sharing)
    wanted = 2**15 if on_cpu() else 2**22
    return max(1, min(min(wanted, room) // particles, 4096)) * len(devices)


def run(
    replicas: Replicas,
    times: np.ndarray,
    record: Mapping[str, Observable] = DEFAULT_RECORD,
    batch: int | None = None,
    chunk_steps: int | None = None,
    skin: float | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    dense: bool = False,
    restore: Callable[[int], State | None] = lambda _: None,
    on_chunk: Callable[[Snapshot], None] = lambda _: None,
    stops: np.ndarray = _NO_STOPS,
    on_stop: Callable[[int, State], None] = lambda *_: None,
) -> Iterator[tuple[int, Result]]:
    """Yield (replica, result) as replicas finish, in no particular order; see :func:`simulate`.

    Args:
        replicas: see :func:`gather_replicas`.
        times: steps to record at.
        record: name -> observable.
        batch: replicas that move at the same time.
        chunk_steps: steps between two looks of the host.
        skin: extra reach of the neighbour rows.
        on_progress: called after every chunk, after what finished in it was yielded.
        dense: forbid active-only steps, for comparison: they change the time and nothing else.
        restore: gives the state that a replica goes on from, None to begin at its start; asked when it is its turn.
        on_chunk: called after ``on_progress`` with a function that returns the states of all replicas under way. What
            it raises ends the run.
        stops: increasing steps; no chunk moves a replica past one.
        on_stop: called before each chunk with every replica that stands at one of these steps, and its state; again
            where a chunk had to be repeated, and not where a replica ends.
    """
    system = replicas.system
    n, steps = system.particles, int(times[-1])
    local = bool(getattr(replicas.rule, "local", False)) and not dense
    plan = plan_for(system, tuning.first_skin(system.dim) if skin is None else skin)
    observe = tuple(record.items())
    _check_pace(batch, chunk_steps)
    width = default_batch(n, system.dim) if batch is None else batch
    group = Batch(replicas, width, lambda who: _begin(who, times, record), restore)
    schedule = jnp.asarray(times)
    pace = chunk_steps or 16
    while True:
        group.visit(stops, on_stop)
        clock, most = time.perf_counter(), min(pace, group.until(stops))
        after, needs, trouble = _attempt(plan, observe, group, schedule, most)
        if needs is not None and overflowed(plan, needs):
            grown = _grow(plan, int(needs.row), int(needs.slots), system)
            if isinstance(grown, Plan):
                plan = grown
                continue
            trouble = grown
        if needs is None or trouble:
            if not group.give_up(trouble):
                continue
        else:
            moved = group.accept(after)
            program = (observe, jax.tree.structure((group.here, group.state)), n, group.places)
            if (plan, program) not in _COMPILED:  # the time was the compiler's
                _COMPILED.add((plan, program))
            elif moved.any():
                seconds = time.perf_counter() - clock
                left = seconds * float((steps - group.made[~group.ended]).sum()) / float(moved.sum())
                if chunk_steps is None and most == pace:  # a chunk that a stop cut short says little
                    pace = _next_pace(pace, seconds)
                if skin is None:
                    made = int(moved.max())
                    on_each = -(-group.places // len(local_devices()))
                    wanted, gain = tuning.next_plan(plan, system, needs, made, left, local, on_each)
                    plan = wanted if gain > tuning.COMPILE or (wanted, program) in _COMPILED else plan
        for index, one, reason in group.leave():
            yield index, _result(one, group.one(index).system, reason)
        on_progress(_progress(group, steps, n))
        on_chunk(group.snapshot)
        if group.ended.all():
            return
        group.refill()


def _progress(group: Batch, steps: int, particles: int) -> Progress:
    share = float(np.where(group.ended, 1.0, group.made / max(steps, 1)).mean())
    return Progress(int(group.ended.sum()), group.total, share, int((group.made - group.found).sum()) * particles)


def state_like(replicas: Replicas, times: np.ndarray, record: Mapping[str, Observable] = DEFAULT_RECORD) -> State:
    """Shapes and dtypes of one replica's state."""
    shapes = jax.eval_shape(lambda: _begin(take(replicas, slice(0, 1)), times, record))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes)


def _attempt(
    plan: Plan, observe: tuple[tuple[str, Observable], ...], group: Batch, schedule: Array, most: int
) -> tuple[State, Needs | None, str]:
    """One chunk on the device: its end and what its search met, or, where memory does not suffice, a sentence."""
    try:
        steps = jnp.asarray(most, jnp.int32)
        after, needs = chunk(plan, observe, group.here, group.state, schedule, steps)
        return after, Needs(*map(np.max, jax.device_get(needs))), ""
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = "does not fit in memory, even alone: use fewer particles or a machine with more memory"
        return group.state, None, reason


def _next_pace(pace: int, seconds: float) -> int:
    """Steps of the next chunk, after one of ``pace`` that took so long.

    A chunk begins with a rebuild, as dear as ten steps or so. Where half a second is only a few steps, that would be
    most of the work, so chunks of large systems are longer.
    """
    wanted = np.clip(_CHUNK_SECONDS / seconds, 0.25, 4.0) * pace
    enough = min(_CHUNK_STEPS, np.clip(_LONGEST_CHUNK / seconds, 0.25, 4.0) * pace)
    return int(np.clip(max(wanted, enough), 1, 2**24))


def _check_pace(batch: int | None, chunk_steps: int | None) -> None:
    if batch is not None and batch < 1:
        raise PackingError(f"a batch of {batch} replicas; at least 1 must move at a time")
    if chunk_steps is not None and chunk_steps < 1:
        raise PackingError(f"chunks of {chunk_steps} steps; at least 1 is needed")


def _grow(plan: Plan, row: int, slots: int, system: System) -> Plan | str:
    """A plan that holds what overflowed, and any Poisson pattern: new replicas start from one. Or why there is none."""
    grown = plan_for(system, plan.skin).grown(max(row, plan.capacity), max(slots, plan.slots))
    grown = replace(grown, active=plan.active)
    if grown.capacity > 4096 and grown.capacity > system.particles:
        return f"has a particle with {row} neighbours in reach: use a smaller skin or a lower packing fraction"
    return grown


def _begin(replicas: Replicas, times: np.ndarray, record: Mapping[str, Observable]) -> State:
    """The state before the first step."""
    replicas = jax.device_put(replicas)
    start = replicas.start
    count, dim, n = start.shape
    tags = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (count, n))

    def measure(system: System, x: Array) -> dict[str, Array]:
        rows = jnp.zeros((n, 1), jnp.int32)
        images, tags = jnp.zeros((dim, n), jnp.int32), jnp.arange(n, dtype=jnp.int32)
        seen = observables.Configuration(system, x, images, x, rows, tags)
        return {name: function(seen) for name, function in record.items()}

    shapes = jax.eval_shape(jax.vmap(measure), replicas.system, start)

    def empty(shape: jax.ShapeDtypeStruct) -> Array:
        blank = jnp.nan if jnp.issubdtype(shape.dtype, jnp.floating) else 0
        return jnp.full((count, len(times), *shape.shape[1:]), blank, dtype=shape.dtype)

    zero = jnp.zeros(count, jnp.int32)
    return State(
        coordinates=start,
        images=jnp.zeros((count, dim, n), jnp.int32),
        tags=tags,
        rule=jax.vmap(lambda rule, system, x: rule.init(system, x))(replicas.rule, replicas.system, start),
        step=zero,
        cursor=zero,
        alive=jnp.ones(count, bool),
        failed=jnp.zeros(count, bool),
        absorbed_at=zero - 1,
        records=jax.tree.map(empty, shapes),
    )


def _result(one: State, system: System, reason: str) -> Result:
    if one.failed:
        reason = (
            f"diverged at step {one.step}: a move was not finite or longer than half the box; use a smaller kick or "
            "learning rate"
        )
    return Result(
        records={name: np.asarray(values) for name, values in one.records.items()},
        positions=np.asarray(to_positions(jnp.asarray(one.coordinates), jnp.asarray(system.box))),
        absorbed_at=int(one.absorbed_at),
        steps=int(one.step),
        failed=bool(reason),
        reason=reason,
        state=one,
    )
