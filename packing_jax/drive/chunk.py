"""The compiled half of the driver: at most so many steps of a batch of replicas.

The outer loop rebuilds neighbour rows when some replica's are out of date, measures what is due, and enters the inner
loop, which only steps. A rebuild is therefore a branch that the batch takes together, never a vmapped ``cond``, which
would run both sides at every step; and nothing but what changes at each step is carried through the inner loop.

A step is one fused gather-compute-reduce over the neighbour rows, an addition, the next step's random words, and one
reduction for the decisions. The words are carried from step to step because what a loop carries is stored: computed
where they are used, XLA would inline the cipher into the gather and run it once per pair.

Several devices share a batch, and each runs both loops over its own replicas: the loops' decisions are taken over the
replicas of one device, so that no device waits for another before the chunk ends.

Nothing a replica does depends on the batch, the devices, the chunk, the rebuilds or the order of its particles:
coordinates and all sums over neighbours are integers, random numbers are keyed by (key, step, tag), and a replica's key
is its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from packing_jax.drive.devices import BY_REPLICA, mesh_of, on_cpu
from packing_jax.observables import Configuration, Observable
from packing_jax.spheres import active, noise
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres.geometry import Placed, add_at, crossings, take
from packing_jax.spheres.neighbors import Plan
from packing_jax.spheres.rules import Info
from packing_jax.spheres.system import System

#: Names and functions of what is measured.
Record = tuple[tuple[str, Observable], ...]


class Replicas(NamedTuple):
    """What a replica is and never changes; every leaf has a leading replica axis."""

    system: System
    rule: Any
    key: Array  #: (B, 2) key data
    start: Array  #: (B, dim, N) first coordinates, by tag


class State(NamedTuple):
    """Where a replica stands; every leaf has a leading replica axis, particles in cell order."""

    coordinates: Array  #: (B, dim, N)
    images: Array  #: (B, dim, N) int32
    tags: Array  #: (B, N) int32
    rule: Any
    step: Array  #: (B,) int32, moves made
    cursor: Array  #: (B,) int32, next entry of the schedule
    alive: Array  #: (B,) bool, neither absorbed nor at its last step nor failed
    failed: Array  #: (B,) bool
    absorbed_at: Array  #: (B,) int32, -1 while active
    records: Mapping[str, Array]  #: (B, M, ...)


class Needs(NamedTuple):
    """What the neighbour search of a chunk met; above the plan's capacity the chunk is void.

    Beside a batch on several devices, each has one entry a device.
    """

    row: Array  #: () int32, longest row
    slots: Array  #: () int32, longest run of cells
    rebuilds: Array  #: () int32
    active: (
        Array  #: () int32, the most active particles of a replica: at any step if lists are in use, else at the last
    )


class _Moving(NamedTuple):
    """What changes at each step; the rest of :class:`State` stays outside the inner loop.

    Coordinates are one array per axis here: gathered from an array of all axes, each index of a batch would be split
    into replica and particle, a division per neighbour, which made batches two to three times as slow.
    """

    axes: tuple[Array, ...]  #: (B, N) coordinates along each axis
    rule: Any
    step: Array
    alive: Array  #: (B,) bool; absorbed replicas count until they are noted
    failed: Array
    absorbed_at: Array
    made: Array  #: () int32, iterations of this chunk
    stale: Array  #: () bool, some replica's rows are out of date
    event: Array  #: () bool, a replica has something to be noted
    few: Array  #: () bool, the active particles of each replica fit a list
    active: Array  #: () int32, as in :class:`Needs`


def overflowed(plan: Plan, needs: Needs) -> Array | np.bool_:
    """Whether a chunk is void: its plan was too small for what it met."""
    return (needs.row > plan.capacity) | (needs.slots > plan.slots)


def _columns(leaf: Array, order: Array) -> Array:
    """``leaf[..., order]``, for leaves of one value per particle and axis."""
    rows: Array = jax.vmap(take, (0, None))(leaf.reshape(-1, leaf.shape[-1]), order)
    return rows.reshape(leaf.shape)


def _in_slots(system: System, tags: Array) -> System:
    """The system with its per-particle leaves in the order of the slots."""
    return system if system.diameters.ndim == 0 else replace(system, diameters=take(system.diameters, tags))


def _rebuild(plan: Plan, replicas: Replicas, state: State, needs: Needs) -> tuple[State, nb.Neighbors, Needs]:
    """Sort the particles of every replica by cell and list their neighbours."""
    shape = state.coordinates.shape[1:]

    def sort(one: State) -> State:
        order = nb.cell_order(plan, one.coordinates)
        return one._replace(
            coordinates=_columns(one.coordinates, order),
            images=_columns(one.images, order),
            tags=take(one.tags, order),
            rule=jax.tree.map(lambda leaf: _columns(leaf, order) if leaf.shape[-2:] == shape else leaf, one.rule),
        )

    def build(replica: Replicas, one: State) -> nb.Neighbors:
        return nb.build(plan, _in_slots(replica.system, one.tags), one.coordinates, one.tags)

    state = jax.vmap(sort)(state)
    neighbors: nb.Neighbors = jax.vmap(build)(replicas, state)
    needs = needs._replace(
        row=jnp.maximum(needs.row, jnp.max(neighbors.needed_row)),
        slots=jnp.maximum(needs.slots, jnp.max(neighbors.needed_slots)),
        rebuilds=needs.rebuilds + 1,
    )
    return state, neighbors, needs


def _measure(
    record: Record, replicas: Replicas, state: State, neighbors: nb.Neighbors, fill: Array
) -> dict[str, Array]:
    """The records with the entries ``fill`` (B, M) set to what is measured now.

    An eighth of the batch at a time, those first for whom something is due: replicas that took the places of others
    are at steps of their own, and to measure all whenever one is due would take as long as the steps between.
    """

    def observe(replica: Replicas, one: State, listed: nb.Neighbors) -> dict[str, Array]:
        images = one.images + crossings(listed.reference, one.coordinates).astype(jnp.int32)
        system, start = _in_slots(replica.system, one.tags), _columns(replica.start, one.tags)
        seen = Configuration(system, one.coordinates, images, start, listed.rows, one.tags)
        return {name: function(seen) for name, function in record}

    def some(carry: tuple[Array, dict[str, Array]]) -> tuple[Array, dict[str, Array]]:
        waiting, records = carry
        places = jnp.argsort(~waiting)[: max(1, len(waiting) // 8)]
        picked, filled = jax.tree.map(lambda leaf: leaf[places], ((replicas, state, neighbors), fill))
        values = jax.vmap(observe)(*picked)
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


def _note(record: Record, replicas: Replicas, state: State, neighbors: nb.Neighbors, schedule: Array) -> State:
    """Record what is due. An absorbed replica is over: its last measurement fills the rest of its record."""
    places = jnp.arange(schedule.shape[0], dtype=jnp.int32)[None]
    due = state.alive & (state.step == schedule[state.cursor])
    absorbed = state.alive & (state.absorbed_at >= 0)
    fill = due[:, None] & (places == state.cursor[:, None])
    fill = fill | (absorbed[:, None] & (places >= state.cursor[:, None]))
    return state._replace(
        records=_measure(record, replicas, state, neighbors, fill),
        cursor=jnp.minimum(state.cursor + due.astype(jnp.int32), schedule.shape[0] - 1),
        alive=state.alive & ~absorbed,
    )


def _axes(coordinates: Array) -> tuple[Array, ...]:
    """(B, N) coordinates along each axis, of those (B, dim, N) along all."""
    return tuple(coordinates[:, axis] for axis in range(coordinates.shape[1]))


def _unlisted(plan: Plan, state: State) -> nb.Neighbors:
    """Rows that a rebuild will replace."""
    none = jnp.zeros(state.step.shape, jnp.int32)
    rows = jnp.zeros((*state.tags.shape, plan.capacity), jnp.int32)
    return nb.Neighbors(rows, state.tags, state.coordinates, needed_row=none, needed_slots=none)


def _most_active(plan: Plan, before: Array, number: Array) -> Array:
    """The largest number so far, not counting the fall of the activity to where a list may hold it."""
    return jnp.where(number > 2 * plan.active, number, jnp.maximum(before, number))


def _step_keys(keys: Array, steps: Array) -> Array:
    """Each replica's key folded with its step."""
    return jax.vmap(lambda key, step: jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), step))(
        keys, steps
    )


def chunk(
    plan: Plan,
    record: Record,
    replicas: Replicas,
    state: State,
    schedule: Array,
    most: Array,
) -> tuple[State, Needs]:
    """At most ``most`` steps of every live replica, recording ``record`` at the steps of ``schedule``.

    The devices are those that the replicas lie on, see :func:`packing_jax.drive.devices.spread`.
    """
    compiled: tuple[State, Needs] = on_devices(plan, record, mesh_of(replicas.key), replicas, state, schedule, most)
    return compiled


@partial(jax.jit, static_argnames=("plan", "record", "mesh"))
def on_devices(
    plan: Plan,
    record: Record,
    mesh: Mesh | None,
    replicas: Replicas,
    state: State,
    schedule: Array,
    most: Array,
) -> tuple[State, Needs]:
    """The program of :func:`chunk` on the devices of a mesh, or on one."""
    if mesh is None:
        return _on_one(plan, record, replicas, state, schedule, most)

    def piece(replicas: Replicas, state: State, schedule: Array, most: Array) -> tuple[State, Needs]:
        state, needs = _on_one(plan, record, replicas, state, schedule, most)
        return state, jax.tree.map(lambda one: one[None], needs)

    everywhere = PartitionSpec()
    # check_vma asks each carry of a loop to vary over the devices or not; nothing here is the same on all of them
    shared: Callable[..., tuple[State, Needs]] = jax.shard_map(
        piece,
        mesh=mesh,
        in_specs=(BY_REPLICA, BY_REPLICA, everywhere, everywhere),
        out_specs=BY_REPLICA,
        check_vma=False,
    )
    return shared(replicas, state, schedule, most)


def _on_one(
    plan: Plan,
    record: Record,
    replicas: Replicas,
    state: State,
    schedule: Array,
    most: Array,
) -> tuple[State, Needs]:
    """The chunk of the replicas of one device."""
    last = schedule[-1]

    def run(state: State, neighbors: nb.Neighbors, made: Array, few: Array, met: Array) -> tuple[State, _Moving]:
        """Step until rows go out of date, something is to be noted, or enough steps are made."""
        systems = jax.vmap(_in_slots)(replicas.system, state.tags)
        due_at = schedule[state.cursor]
        # for the dense step alone: lists of active particles and records name the slots of one replica
        # (on a GPU a thread sums a row, and threads side by side must read side by side)
        placed = replace(neighbors, rows=Placed.of(neighbors.rows, across=not on_cpu()))

        def one_rule(rule: Any, *seen: Any) -> tuple[Array, Any, Info]:
            moved: tuple[Array, Any, Info] = rule.step(*seen)
            return moved

        step_rule: Callable[..., tuple[Array, Any, Info]] = jax.vmap(one_rule)

        def words_at(step: Array) -> noise.Words:
            words: noise.Words = jax.vmap(noise.particle_words)(_step_keys(replicas.key, step), state.tags)
            return words

        def settled(moving: _Moving, info: Info, rule_state: Any) -> tuple[Array, _Moving]:
            """Who moves, and all that follows from it but the coordinates."""
            still = ~jnp.any(info.active, axis=1)
            finished = moving.step >= last
            failed = moving.alive & info.failed & ~still & ~finished
            absorbed = moving.alive & still
            moves = moving.alive & ~still & ~finished & ~failed
            alive = moves | absorbed
            step = moving.step + moves.astype(jnp.int32)
            return moves, moving._replace(
                rule=jax.tree.map(
                    lambda new, old: jnp.where(moves.reshape((-1,) + (1,) * (new.ndim - 1)), new, old),
                    rule_state,
                    moving.rule,
                ),
                step=step,
                alive=alive,
                failed=moving.failed | failed,
                absorbed_at=jnp.where(absorbed, moving.step, moving.absorbed_at),
                made=moving.made + 1,
                event=~jnp.any(alive) | jnp.any(absorbed | (moves & (step == due_at))),
            )

        def dense(moving: _Moving, words: noise.Words) -> tuple[_Moving, noise.Words]:
            coordinates = jnp.stack(moving.axes, axis=1)
            displacement, rule_state, info = step_rule(replicas.rule, words, systems, coordinates, placed, moving.rule)
            moves, after = settled(moving, info, rule_state)
            # axis by axis: where the axes were first stacked, they would be written twice
            axes = tuple(jnp.where(moves[:, None], x + displacement[:, i], x) for i, x in enumerate(moving.axes))
            outdated = jax.vmap(partial(nb.outdated, plan))(systems, jnp.stack(axes, axis=1), neighbors)
            counts = jnp.sum(info.active, axis=1, dtype=jnp.int32)
            after = after._replace(
                axes=axes,
                stale=jnp.any(after.alive & outdated),
                # a quarter to spare, so that a list that overflowed is not tried again at once
                few=jnp.all(~after.alive | (4 * counts <= 3 * plan.active)),
                active=_most_active(plan, moving.active, jnp.max(jnp.where(after.alive, counts, 0))),
            )
            return after, words_at(after.step)

        def sparse(moving: _Moving, listed: active.Active, drawn: Array) -> tuple[_Moving, active.Active, Array]:
            seen = jax.vmap(active.rows_of)(neighbors, listed)
            words = jax.vmap(active.words_of)(_step_keys(replicas.key, moving.step), seen, drawn)
            coordinates = jnp.stack(moving.axes, axis=1)
            displacement, rule_state, info = step_rule(replicas.rule, words, systems, coordinates, seen, moving.rule)
            moves, after = settled(moving, info, rule_state)
            # axis by axis, as in the dense step: an array of all is written whole, and these only where they change
            amounts = jnp.where(moves[:, None, None], displacement, 0)
            axes = tuple(jax.vmap(add_at)(x, seen.own, amounts[:, i]) for i, x in enumerate(moving.axes))
            coordinates = jnp.stack(axes, axis=1)
            outdated = jax.vmap(partial(active.left, plan))(systems, coordinates, seen)
            listed = jax.vmap(active.follow)(systems, coordinates, seen)
            after = after._replace(
                axes=axes,
                stale=jnp.any(after.alive & outdated),
                few=jnp.all(~after.alive | (listed.number <= plan.active)),
                active=_most_active(plan, moving.active, jnp.max(jnp.where(after.alive, listed.number, 0))),
            )
            return after, listed, words.pair

        def on(moving: _Moving) -> Array:
            return ~moving.stale & ~moving.event & (moving.made < most)

        def sparse_steps(moving: _Moving) -> _Moving:
            listed = jax.vmap(partial(active.find, plan.active))(systems, jnp.stack(moving.axes, axis=1), neighbors)
            moving = moving._replace(few=jnp.all(~moving.alive | (listed.number <= plan.active)))
            drawn = jnp.zeros(state.tags.shape, jnp.uint32)
            return jax.lax.while_loop(lambda c: on(c[0]) & c[0].few, lambda c: sparse(*c), (moving, listed, drawn))[0]

        moving = _Moving(
            axes=_axes(state.coordinates),
            rule=state.rule,
            step=state.step,
            alive=state.alive,
            failed=state.failed,
            absorbed_at=state.absorbed_at,
            made=made,
            stale=jnp.zeros((), bool),
            event=~jnp.any(state.alive),
            few=few,
            active=met,
        )
        moving = jax.lax.while_loop(
            lambda c: on(c[0]) & ~c[0].few,
            lambda c: dense(*c),
            (moving, words_at(state.step)),
        )[0]
        if plan.active:
            moving = jax.lax.cond(moving.few & on(moving), sparse_steps, lambda same: same, moving)
        state = state._replace(
            coordinates=jnp.stack(moving.axes, axis=1),
            rule=moving.rule,
            step=moving.step,
            alive=moving.alive,
            failed=moving.failed,
            absorbed_at=moving.absorbed_at,
        )
        return state, moving

    Carry = tuple[State, nb.Neighbors, Array, Array, Array, Needs]

    def between_events(carry: Carry) -> Carry:
        state, neighbors, made, stale, few, needs = carry
        # between two rebuilds no particle moves half a box, so the two ends tell whether it crossed the boundary
        crossed = crossings(neighbors.reference, state.coordinates).astype(jnp.int32)
        state, neighbors, needs = jax.lax.cond(
            stale,
            lambda s, _, needs: _rebuild(plan, replicas, s._replace(images=s.images + crossed), needs),
            lambda *same: same,
            state,
            neighbors,
            needs,
        )
        state = _note(record, replicas, state, neighbors, schedule)
        state, moving = run(state, neighbors, made, few, needs.active)
        return state, neighbors, moving.made, moving.stale, moving.few, needs._replace(active=moving.active)

    def unfinished(carry: Carry) -> Array:
        state, _, made, _, _, needs = carry
        return ~overflowed(plan, needs) & (made < most) & jnp.any(state.alive)

    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    state, neighbors, _, _, _, needs = jax.lax.while_loop(
        unfinished, between_events, (state, _unlisted(plan, state), zero, ~no, no, Needs(zero, zero, zero, zero))
    )
    crossed = crossings(neighbors.reference, state.coordinates).astype(jnp.int32)
    return state._replace(images=state.images + crossed), needs
