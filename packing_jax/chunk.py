"""The compiled half of the driver: at most so many steps of a batch of replicas.

The outer loop rebuilds neighbour rows when some replica's are out of date, measures what is due, and enters the inner
loop, which only steps. A rebuild is therefore a branch that the batch takes together, never a vmapped ``cond``, which
would run both sides at every step; and nothing but what changes at each step is carried through the inner loop.

A step is one fused gather-compute-reduce over the neighbour rows, an addition, the next step's random words, and one
reduction for the decisions. The words are carried from step to step because what a loop carries is stored: computed
where they are used, XLA would inline the cipher into the gather and run it once per pair.

Nothing a replica does depends on the batch, the chunk, the rebuilds or the order of its particles: coordinates and
all sums over neighbours are integers, random numbers are keyed by (key, step, tag), and a replica's key is its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from packing_jax import neighbors as nb
from packing_jax import noise
from packing_jax.geometry import crossings, take
from packing_jax.neighbors import Plan
from packing_jax.observables import Configuration, Observable
from packing_jax.system import System

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
    """What the neighbour search of a chunk met; above the plan's capacity the chunk is void."""

    row: Array  #: () int32, longest row
    slots: Array  #: () int32, longest run of cells
    rebuilds: Array  #: () int32


class _Moving(NamedTuple):
    """What changes at each step; the rest of :class:`State` stays outside the inner loop."""

    coordinates: Array
    rule: Any
    words: noise.Words
    step: Array
    alive: Array  #: (B,) bool; absorbed replicas count until they are noted
    failed: Array
    absorbed_at: Array
    made: Array  #: () int32, iterations of this chunk
    stale: Array  #: () bool, some replica's rows are out of date
    event: Array  #: () bool, a replica has something to be noted


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
    needs = Needs(
        row=jnp.maximum(needs.row, jnp.max(neighbors.needed_row)),
        slots=jnp.maximum(needs.slots, jnp.max(neighbors.needed_slots)),
        rebuilds=needs.rebuilds + 1,
    )
    return state, neighbors, needs


def _measure(
    record: Record, replicas: Replicas, state: State, neighbors: nb.Neighbors, fill: Array
) -> dict[str, Array]:
    """The records with the entries ``fill`` (B, M) set to what is measured now."""

    def observe(replica: Replicas, one: State, listed: nb.Neighbors) -> dict[str, Array]:
        images = one.images + crossings(listed.reference, one.coordinates).astype(jnp.int32)
        seen = Configuration(one.coordinates, images, _columns(replica.start, one.tags), listed.rows)
        return {name: function(_in_slots(replica.system, one.tags), seen) for name, function in record}

    values = jax.vmap(observe)(replicas, state, neighbors)
    return {
        name: jnp.where(fill.reshape(fill.shape + (1,) * (old.ndim - 2)), values[name][:, None].astype(old.dtype), old)
        for name, old in state.records.items()
    }


def _note(record: Record, replicas: Replicas, state: State, neighbors: nb.Neighbors, schedule: Array) -> State:
    """Record what is due. An absorbed replica is over: its last measurement fills the rest of its record."""
    places = jnp.arange(schedule.shape[0], dtype=jnp.int32)[None]
    due = state.alive & (state.step == schedule[state.cursor])
    absorbed = state.alive & (state.absorbed_at >= 0)
    fill = due[:, None] & (places == state.cursor[:, None])
    fill = fill | (absorbed[:, None] & (places >= state.cursor[:, None]))
    measured = partial(_measure, record, replicas)
    return state._replace(
        records=jax.lax.cond(jnp.any(fill), measured, lambda s, *_: dict(s.records), state, neighbors, fill),
        cursor=jnp.minimum(state.cursor + due.astype(jnp.int32), schedule.shape[0] - 1),
        alive=state.alive & ~absorbed,
    )


def _words(keys: Array, step: Array, tags: Array) -> noise.Words:
    """The random words of every replica at its step."""

    def of_one(key: Array, step: Array, tags: Array) -> noise.Words:
        key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), step)
        return noise.particle_words(key, tags)

    words: noise.Words = jax.vmap(of_one)(keys, step, tags)
    return words


@partial(jax.jit, static_argnames=("plan", "record"))
def chunk(
    plan: Plan,
    record: Record,
    replicas: Replicas,
    state: State,
    schedule: Array,
    most: Array,
) -> tuple[State, Needs]:
    """At most ``most`` steps of every live replica, recording ``record`` at the steps of ``schedule``."""
    last = schedule[-1]

    def run(state: State, neighbors: nb.Neighbors, made: Array) -> tuple[State, Array, Array]:
        """Step until rows go out of date, something is to be noted, or enough steps are made."""
        systems = jax.vmap(_in_slots)(replicas.system, state.tags)
        due_at = schedule[state.cursor]

        def advance(moving: _Moving) -> _Moving:
            def move(rule: Any, *seen: Any) -> tuple[Array, Any, Array, Array]:
                displacement, rule_state, info = rule.step(*seen)
                return displacement, rule_state, ~jnp.any(info.active), info.failed

            displacement, rule_state, still, failed = jax.vmap(move)(
                replicas.rule, moving.words, systems, moving.coordinates, neighbors, moving.rule
            )
            finished = moving.step >= last
            failed = moving.alive & failed & ~still & ~finished
            absorbed = moving.alive & still
            moves = moving.alive & ~still & ~finished & ~failed
            alive = moves | absorbed
            step = moving.step + moves.astype(jnp.int32)
            coordinates = jnp.where(moves[:, None, None], moving.coordinates + displacement, moving.coordinates)
            outdated = jax.vmap(partial(nb.outdated, plan))(systems, coordinates, neighbors)
            return _Moving(
                coordinates=coordinates,
                rule=jax.tree.map(
                    lambda new, old: jnp.where(moves.reshape((-1,) + (1,) * (new.ndim - 1)), new, old),
                    rule_state,
                    moving.rule,
                ),
                words=_words(replicas.key, step, state.tags),
                step=step,
                alive=alive,
                failed=moving.failed | failed,
                absorbed_at=jnp.where(absorbed, moving.step, moving.absorbed_at),
                made=moving.made + 1,
                stale=jnp.any(alive & outdated),
                event=~jnp.any(alive) | jnp.any(absorbed | (moves & (step == due_at))),
            )

        moving = _Moving(
            coordinates=state.coordinates,
            rule=state.rule,
            words=_words(replicas.key, state.step, state.tags),
            step=state.step,
            alive=state.alive,
            failed=state.failed,
            absorbed_at=state.absorbed_at,
            made=made,
            stale=jnp.zeros((), bool),
            event=~jnp.any(state.alive),
        )
        moving = jax.lax.while_loop(lambda m: ~m.stale & ~m.event & (m.made < most), advance, moving)
        state = state._replace(
            coordinates=moving.coordinates,
            rule=moving.rule,
            step=moving.step,
            alive=moving.alive,
            failed=moving.failed,
            absorbed_at=moving.absorbed_at,
        )
        return state, moving.made, moving.stale

    def overflowed(needs: Needs) -> Array:
        return (needs.row > plan.capacity) | (needs.slots > plan.slots)

    Carry = tuple[State, nb.Neighbors, Array, Array, Needs]

    def between_events(carry: Carry) -> Carry:
        state, neighbors, made, stale, needs = carry
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
        state, made, stale = run(state, neighbors, made)
        return state, neighbors, made, stale, needs

    def unfinished(carry: Carry) -> Array:
        state, _, made, _, needs = carry
        return ~overflowed(needs) & (made < most) & jnp.any(state.alive)

    zero = jnp.zeros((), jnp.int32)
    none = jnp.zeros(state.step.shape, jnp.int32)
    unlisted = nb.Neighbors(
        rows=jnp.zeros((*state.tags.shape, plan.capacity), jnp.int32),
        tags=state.tags,
        reference=state.coordinates,
        needed_row=none,
        needed_slots=none,
    )
    state, neighbors, _, _, needs = jax.lax.while_loop(
        unfinished, between_events, (state, unlisted, zero, jnp.ones((), bool), Needs(zero, zero, zero))
    )
    crossed = crossings(neighbors.reference, state.coordinates).astype(jnp.int32)
    return state._replace(images=state.images + crossed), needs
