"""The compiled half of the driver: at most so many steps of a batch of replicas.

The outer loop makes a kind's work ready when some replica's is stale (sorts particles and lists neighbours, shuffles
samples), measures what is due, and enters the kind's inner loop, which only steps. Making ready is therefore a branch
that the batch takes together, never a vmapped ``cond``, which would run both sides at every step; and nothing but what
changes at each step is carried through the inner loop.

Several devices share a batch, and each runs both loops over its own replicas: the loops' decisions are taken over the
replicas of one device, so that no device waits for another before the chunk ends.

A replica's random numbers are keyed by (key, step), and its key is its own, so that nothing it does depends on the
batch, the devices or the chunk, as far as the arithmetic of its kind allows
(:attr:`packing_jax.drive.kind.Kind.exact`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from packing_jax.drive.kind import AXES, Clock, Kind, Replicas
from packing_jax.drive.spread import BY_REPLICA, mesh_of

#: A function of what a kind shows of a configuration.
Observable = Callable[..., Array]
#: Names and functions of what is measured.
Record = tuple[tuple[str, Observable], ...]


class State(NamedTuple):
    """Where a replica stands; every leaf has a leading replica axis."""

    place: Any  #: the configuration
    rule: Any  #: what the rule carries
    step: Array  #: (B,) int32, moves made
    cursor: Array  #: (B,) int32, next entry of the schedule
    alive: Array  #: (B,) bool, neither absorbed nor at its last step nor failed
    failed: Array  #: (B,) bool
    absorbed_at: Array  #: (B,) int32, -1 while active
    records: Mapping[str, Array]  #: (B, M, ...)


def settle(clock: Clock, still: Array, broken: Array, *, last: Array | int, due_at: Array | int) -> tuple[Array, Clock]:
    """Who moves in a step, and who is absorbed, failed or finished by it.

    A replica is absorbed where it is ``still``, at its last step too; it fails where its move is ``broken`` and would
    have been made; it is finished at step ``last``. It has something to be noted when it is absorbed or reaches the
    step ``due_at``.
    """
    finished = clock.step >= last
    failed = clock.alive & broken & ~still & ~finished
    absorbed = clock.alive & still
    moves = clock.alive & ~still & ~finished & ~failed
    alive = moves | absorbed
    step = clock.step + moves.astype(jnp.int32)
    return moves, Clock(
        step=step,
        alive=alive,
        failed=clock.failed | failed,
        absorbed_at=jnp.where(absorbed, clock.step, clock.absorbed_at),
        made=clock.made + 1,
        event=~jnp.any(alive) | jnp.any(absorbed | (moves & (step == due_at))),
    )


def where_moves(moves: Array, new: Any, old: Any) -> Any:
    """``new`` for the replicas (B,) that move and ``old`` for the others; trees with a leading replica axis."""
    return jax.tree.map(lambda a, b: jnp.where(moves.reshape((-1,) + (1,) * (a.ndim - 1)), a, b), new, old)


def step_keys(keys: Array, steps: Array) -> Array:
    """Each replica's key folded with its step."""
    return jax.vmap(lambda key, step: jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), step))(
        keys, steps
    )


def _measure(kind: Kind, record: Record, replicas: Replicas, state: State, work: Any, fill: Array) -> dict[str, Array]:
    """The records with the entries ``fill`` (B, M) set to what is measured now.

    An eighth of the batch at a time, those first for whom something is due: replicas that took the places of others
    are at steps of their own, and to measure all whenever one is due would take as long as the steps between.
    """

    def observe(replica: Replicas, one: State, work: Any) -> dict[str, Array]:
        seen = kind.seen(replica, one.place, work)
        return {name: function(seen) for name, function in record}

    def some(carry: tuple[Array, dict[str, Array]]) -> tuple[Array, dict[str, Array]]:
        waiting, records = carry
        places = jnp.argsort(~waiting)[: max(1, len(waiting) // 8)]
        own = replicas._replace(shared=())
        (mine, there, listed), filled = jax.tree.map(lambda leaf: leaf[places], ((own, state, work), fill))
        values = jax.vmap(observe, (AXES, 0, 0))(mine._replace(shared=replicas.shared), there, listed)
        records = {
            name: old.at[places].set(
                jnp.where(
                    filled.reshape(filled.shape + (1,) * (old.ndim - 2)),
                    values[name][:, None].astype(old.dtype),
                    old[places],
                ),
                unique_indices=True,
            )
            for name, old in records.items()
        }
        return waiting.at[places].set(False, unique_indices=True), records

    return jax.lax.while_loop(lambda carry: jnp.any(carry[0]), some, (jnp.any(fill, axis=1), dict(state.records)))[1]


def _note(kind: Kind, record: Record, replicas: Replicas, state: State, work: Any, schedule: Array) -> State:
    """Record what is due. An absorbed replica is over: its last measurement fills the rest of its record."""
    places = jnp.arange(schedule.shape[0], dtype=jnp.int32)[None]
    due = state.alive & (state.step == schedule[state.cursor])
    absorbed = state.alive & (state.absorbed_at >= 0)
    fill = due[:, None] & (places == state.cursor[:, None])
    fill = fill | (absorbed[:, None] & (places >= state.cursor[:, None]))
    return state._replace(
        records=_measure(kind, record, replicas, state, work, fill),
        cursor=jnp.minimum(state.cursor + due.astype(jnp.int32), schedule.shape[0] - 1),
        alive=state.alive & ~absorbed,
    )


def chunk(
    kind: Kind, record: Record, replicas: Replicas, state: State, schedule: Array, most: Array
) -> tuple[State, Any]:
    """At most ``most`` steps of every live replica, recording ``record`` at the steps of ``schedule``; and what is met.

    The devices are those that the replicas lie on, see :class:`packing_jax.drive.spread.Spread`. What is met has one
    entry a device there.
    """
    compiled: tuple[State, Any] = on_devices(kind, record, mesh_of(replicas.key), replicas, state, schedule, most)
    return compiled


@partial(jax.jit, static_argnames=("kind", "record", "mesh"))
def on_devices(
    kind: Kind,
    record: Record,
    mesh: Mesh | None,
    replicas: Replicas,
    state: State,
    schedule: Array,
    most: Array,
) -> tuple[State, Any]:
    """The program of :func:`chunk` on the devices of a mesh, or on one."""
    if mesh is None:
        return _on_one(kind, record, replicas, state, schedule, most)

    def piece(replicas: Replicas, state: State, schedule: Array, most: Array) -> tuple[State, Any]:
        state, met = _on_one(kind, record, replicas, state, schedule, most)
        return state, jax.tree.map(lambda one: one[None], met)

    everywhere = PartitionSpec()
    # check_vma asks each carry of a loop to vary over the devices or not; nothing here is the same on all of them
    shared: Callable[..., tuple[State, Any]] = jax.shard_map(
        piece,
        mesh=mesh,
        in_specs=(Replicas(*(BY_REPLICA,) * 4, everywhere), BY_REPLICA, everywhere, everywhere),
        out_specs=BY_REPLICA,
        check_vma=False,
    )
    return shared(replicas, state, schedule, most)


def _on_one(
    kind: Kind, record: Record, replicas: Replicas, state: State, schedule: Array, most: Array
) -> tuple[State, Any]:
    """The chunk of the replicas of one device."""
    Carry = tuple[State, Any, Array, Array, Any]

    def between_events(carry: Carry) -> Carry:
        state, work, made, stale, met = carry
        place, rule, work, met = jax.lax.cond(
            stale,
            lambda *old: kind.ready(replicas, *old),
            lambda *same: same,
            state.place,
            state.rule,
            work,
            met,
        )
        state = _note(kind, record, replicas, state._replace(place=place, rule=rule), work, schedule)
        clock = Clock(state.step, state.alive, state.failed, state.absorbed_at, made, ~jnp.any(state.alive))
        place, rule, work, clock, stale, met = kind.advance(
            replicas,
            state.place,
            state.rule,
            work,
            clock,
            partial(settle, last=schedule[-1], due_at=schedule[state.cursor]),
            lambda now: ~now.event & (now.made < most),
            met,
        )
        state = state._replace(
            place=place,
            rule=rule,
            step=clock.step,
            alive=clock.alive,
            failed=clock.failed,
            absorbed_at=clock.absorbed_at,
        )
        return state, work, clock.made, stale, met

    def unfinished(carry: Carry) -> Array:
        state, _, made, _, met = carry
        return ~kind.void(met) & (made < most) & jnp.any(state.alive)

    work, met = kind.blank(state.place)
    state, work, _, _, met = jax.lax.while_loop(
        unfinished, between_events, (state, work, jnp.zeros((), jnp.int32), jnp.ones((), bool), met)
    )
    return state._replace(place=kind.close(state.place, work)), met
