"""The compiled half of the driver: at most so many steps of a batch of replicas, in two nested loops.

The outer loop sorts the particles of the whole batch and rebuilds their neighbour rows, the inner one steps until
some replica's rows go out of date. A rebuild is therefore a branch that the batch takes together, never a vmapped
``cond``, which would run both sides at every step.

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
from packing_jax.geometry import crossings
from packing_jax.neighbors import Plan
from packing_jax.observables import Configuration, Observable
from packing_jax.rules import Info
from packing_jax.system import System


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


def _in_slots(system: System, tags: Array) -> System:
    """The system with its per-particle leaves in the order of the slots."""
    return system if system.diameters.ndim == 0 else replace(system, diameters=system.diameters[tags])


@partial(jax.jit, static_argnames=("plan", "record"))
def chunk(
    plan: Plan,
    record: tuple[tuple[str, Observable], ...],
    replicas: Replicas,
    state: State,
    schedule: Array,
    most: Array,
) -> tuple[State, Needs]:
    """At most ``most`` steps of every live replica, recording ``record`` at the steps of ``schedule``."""

    def sort(replica: Replicas, one: State) -> tuple[State, nb.Neighbors]:
        _, order = nb.cell_order(plan, one.coordinates)
        shape = one.coordinates.shape
        one = one._replace(
            coordinates=one.coordinates[:, order],
            images=one.images[:, order],
            tags=one.tags[order],
            rule=jax.tree.map(lambda leaf: leaf[..., order] if leaf.shape[-2:] == shape else leaf, one.rule),
        )
        return one, nb.build(plan, _in_slots(replica.system, one.tags), one.coordinates, one.tags)

    def observe(replica: Replicas, one: State, neighbors: nb.Neighbors) -> dict[str, Array]:
        images = one.images + crossings(neighbors.reference, one.coordinates).astype(jnp.int32)
        seen = Configuration(one.coordinates, images, replica.start[:, one.tags], neighbors.rows)
        return {name: function(_in_slots(replica.system, one.tags), seen) for name, function in record}

    def move(replica: Replicas, one: State, neighbors: nb.Neighbors) -> tuple[Array, Any, Info]:
        key = jax.random.fold_in(jax.random.wrap_key_data(replica.key, impl="threefry2x32"), one.step)
        system = _in_slots(replica.system, one.tags)
        displacement, rule_state, info = replica.rule.step(key, system, one.coordinates, neighbors, one.rule)
        return displacement, rule_state, info

    def stale(replica: Replicas, one: State, neighbors: nb.Neighbors) -> Array:
        return one.alive & nb.outdated(plan, replica.system, one.coordinates, neighbors)

    # A search tests ten candidates per neighbour. One replica's fit a CPU's cache, a batch's do not: one after the
    # other is three times as fast there (28 x 1000 particles, two cores), while a GPU wants them all at once.
    each = partial(jax.lax.map, batch_size=1 if jax.default_backend() == "cpu" else len(state.step))

    last = schedule[-1]
    places = jnp.arange(schedule.shape[0], dtype=jnp.int32)[None]

    def advance(state: State, neighbors: nb.Neighbors) -> State:
        displacement, rule_state, info = jax.vmap(move)(replicas, state, neighbors)
        due = state.alive & (state.step == schedule[state.cursor])
        absorbed = state.alive & (info.active == 0)
        # an absorbed configuration stays what it is: its last measurement fills the rest of the schedule
        fill = (due[:, None] & (places == state.cursor[:, None])) | (
            absorbed[:, None] & (places >= state.cursor[:, None])
        )

        def write(records: Mapping[str, Array]) -> dict[str, Array]:
            values = jax.vmap(observe)(replicas, state, neighbors)
            return {
                name: jnp.where(
                    fill.reshape(fill.shape + (1,) * (old.ndim - 2)), values[name][:, None].astype(old.dtype), old
                )
                for name, old in records.items()
            }

        records = jax.lax.cond(jnp.any(fill), write, dict, state.records)
        finished = state.step >= last
        failed = state.alive & info.failed & ~absorbed & ~finished
        alive = state.alive & ~absorbed & ~finished & ~failed
        keep = alive[:, None, None]
        moved = jnp.where(keep, state.coordinates + displacement, state.coordinates)
        return State(
            coordinates=moved,
            images=state.images,
            tags=state.tags,
            rule=jax.tree.map(
                lambda new, old: jnp.where(alive.reshape((-1,) + (1,) * (new.ndim - 1)), new, old),
                rule_state,
                state.rule,
            ),
            step=state.step + alive.astype(jnp.int32),
            cursor=jnp.minimum(state.cursor + due.astype(jnp.int32), schedule.shape[0] - 1),
            alive=alive,
            failed=state.failed | failed,
            absorbed_at=jnp.where(absorbed, state.step, state.absorbed_at),
            records=records,
        )

    def overflowed(needs: Needs) -> Array:
        return (needs.row > plan.capacity) | (needs.slots > plan.slots)

    def between_rebuilds(carry: tuple[State, Array, Needs]) -> tuple[State, Array, Needs]:
        state, steps, needs = carry
        state, neighbors = each(lambda replica_and_state: sort(*replica_and_state), (replicas, state))
        needs = Needs(
            row=jnp.maximum(needs.row, jnp.max(neighbors.needed_row)),
            slots=jnp.maximum(needs.slots, jnp.max(neighbors.needed_slots)),
            rebuilds=needs.rebuilds + 1,
        )
        complete = ~overflowed(needs)

        def more(inner: tuple[State, Array]) -> Array:
            state, steps = inner
            fresh = ~jnp.any(jax.vmap(stale)(replicas, state, neighbors))
            return complete & fresh & (steps < most) & jnp.any(state.alive)

        def one_step(inner: tuple[State, Array]) -> tuple[State, Array]:
            state, steps = inner
            return advance(state, neighbors), steps + 1

        before = state.coordinates
        state, steps = jax.lax.while_loop(more, one_step, (state, steps))
        # between two rebuilds no particle moves half a box, so the two ends tell whether it crossed the boundary
        state = state._replace(images=state.images + crossings(before, state.coordinates).astype(jnp.int32))
        return state, steps, needs

    def unfinished(carry: tuple[State, Array, Needs]) -> Array:
        state, steps, needs = carry
        return ~overflowed(needs) & (steps < most) & jnp.any(state.alive)

    zero = jnp.zeros((), jnp.int32)
    state, _, needs = jax.lax.while_loop(unfinished, between_rebuilds, (state, zero, Needs(zero, zero, zero)))
    return state, needs
