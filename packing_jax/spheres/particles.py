"""Spheres for the driver: sorted by cell, with neighbour rows that are rebuilt when they are out of date.

A step is one fused gather-compute-reduce over the neighbour rows, an addition, the next step's random words, and one
reduction for the decisions. The words are carried from step to step because what a loop carries is stored: computed
where they are used, XLA would inline the cipher into the gather and run it once per pair.

Nothing a replica does depends on the batch, the devices, the chunk, the rebuilds or the order of its particles:
coordinates and all sums over neighbours are integers, random numbers are keyed by (key, step, tag), and each replica
has its own key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.devices import local_devices, on_cpu
from packing_jax.drive.chunk import step_keys, where_moves
from packing_jax.drive.kind import Clock, Pace, Replicas, Settle
from packing_jax.spheres import active, noise, tuning
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres.configuration import Configuration
from packing_jax.spheres.geometry import Placed, add_at, crossings, take, to_positions
from packing_jax.spheres.neighbors import Plan
from packing_jax.spheres.rules import Rule
from packing_jax.spheres.rules.base import first_state, stepped
from packing_jax.spheres.system import System
from packing_jax.spheres.tuning import Needs


class Place(NamedTuple):
    """Where the particles are; every leaf has a leading replica axis, particles in cell order."""

    coordinates: Array  #: (B, dim, N) fixed-point
    images: Array  #: (B, dim, N) int32, boxes crossed since the start
    tags: Array  #: (B, N) int32, which particle is in a slot


class Work(NamedTuple):
    """What is kept between two steps besides the coordinates."""

    neighbors: nb.Neighbors
    few: Array  #: (B,) bool, the active particles of the batch fit lists


@dataclass(frozen=True)
class Particles:
    """Spheres as a kind of configuration: the shapes of their compiled program, and how these may change."""

    plan: Plan  #: of the neighbour search; the program depends on this field only
    tunes: bool = field(default=True, compare=False)  #: skins and capacities may follow the run
    lists: bool = field(default=True, compare=False)  #: active-only steps may be used where the rule allows them
    double = None
    exact = True
    divergence = "a move was not finite or longer than half the box; use a smaller kick or learning rate"

    # --- compiled ---------------------------------------------------------------------------------------------

    def begin(self, replicas: Replicas) -> tuple[Place, Any]:
        """Particles in their original order, none of which has crossed the boundary."""
        count, dim, n = replicas.start.shape
        tags = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (count, n))
        rule = jax.vmap(first_state)(replicas.rule, replicas.system, replicas.start)
        return Place(replicas.start, jnp.zeros((count, dim, n), jnp.int32), tags), rule

    def blank(self, place: Place) -> tuple[Work, Needs]:
        """Placeholder rows, which the first rebuild replaces."""
        none, zero = jnp.zeros(place.tags.shape[:1], jnp.int32), jnp.zeros((), jnp.int32)
        rows = jnp.zeros((*place.tags.shape, self.plan.capacity), jnp.int32)
        listed = nb.Neighbors(rows, place.tags, place.coordinates, needed_row=none, needed_slots=none)
        return Work(listed, none > 0), Needs(zero, zero, zero, zero)

    def ready(
        self, replicas: Replicas, place: Place, rule: Any, work: Work, met: Needs
    ) -> tuple[Place, Any, Work, Needs]:
        """Sort the particles of every replica by cell and list their neighbours."""
        plan, place = self.plan, self.close(place, work)

        def sort(mover: Rule, one: Place, state: Any) -> tuple[Place, Any]:
            order = nb.cell_order(plan, one.coordinates)
            sorted_place = Place(_columns(one.coordinates, order), _columns(one.images, order), take(one.tags, order))
            return sorted_place, _reordered(mover, state, lambda leaf: _columns(leaf, order))

        def build(replica: Replicas, one: Place) -> nb.Neighbors:
            return nb.build(plan, nb.in_slots(replica.system, one.tags), one.coordinates, one.tags)

        place, rule = jax.vmap(sort)(replicas.rule, place, rule)
        listed: nb.Neighbors = jax.vmap(build)(replicas, place)
        met = met._replace(
            row=jnp.maximum(met.row, jnp.max(listed.needed_row)),
            slots=jnp.maximum(met.slots, jnp.max(listed.needed_slots)),
            rebuilds=met.rebuilds + 1,
        )
        return place, rule, work._replace(neighbors=listed), met

    def advance(
        self,
        replicas: Replicas,
        place: Place,
        rule: Any,
        work: Work,
        clock: Clock,
        settle: Settle,
        going: Callable[[Clock], Array],
        met: Needs,
    ) -> tuple[Place, Any, Work, Clock, Array, Needs]:
        """Step all particles, or where few are active only these, until rows go out of date or the clock says stop."""
        steps = _Steps.of(self.plan, replicas, place, work.neighbors, settle, going)
        axes = tuple(place.coordinates[:, axis] for axis in range(place.coordinates.shape[1]))
        moving = _Moving(axes, rule, clock, jnp.zeros((), bool), jnp.all(work.few), met.active)
        moving = jax.lax.while_loop(
            lambda carry: steps.on(carry[0]) & ~carry[0].few,
            lambda carry: steps.dense(*carry),
            (moving, steps.words_at(clock.step)),
        )[0]
        if self.plan.active:
            moving = jax.lax.cond(moving.few & steps.on(moving), steps.all_sparse, lambda same: same, moving)
        place = place._replace(coordinates=jnp.stack(moving.axes, axis=1))
        work = work._replace(few=jnp.broadcast_to(moving.few, work.few.shape))
        return place, moving.rule, work, moving.clock, moving.stale, met._replace(active=moving.active)

    def seen(self, replica: Replicas, place: Place, work: Work) -> Configuration:
        """The configuration of a replica, the argument of observables."""
        listed = work.neighbors
        images = place.images + crossings(listed.reference, place.coordinates).astype(jnp.int32)
        system, start = nb.in_slots(replica.system, place.tags), _columns(replica.start, place.tags)
        return Configuration(system, place.coordinates, images, start, listed.rows, place.tags)

    def close(self, place: Place, work: Work) -> Place:
        """Count the boxes crossed since the rows were listed.

        Between two rebuilds no particle moves half a box, so the two ends tell whether it crossed the boundary.
        """
        crossed = crossings(work.neighbors.reference, place.coordinates).astype(jnp.int32)
        return place._replace(images=place.images + crossed)

    def void(self, met: Needs) -> Array | np.bool_:
        """Whether a row or a run of cells was longer than the plan holds, so that neighbours were lost."""
        return (met.row > self.plan.capacity) | (met.slots > self.plan.slots)

    # --- on the host ------------------------------------------------------------------------------------------

    def canonical(self, replica: Replicas, place: Place, rule: Any) -> tuple[Place, Any]:
        """Particles in their original order."""
        order = np.argsort(place.tags)
        sorted_place = Place(place.coordinates[:, order], place.images[:, order], place.tags[order])
        return sorted_place, _reordered(replica.rule, rule, lambda leaf: leaf[..., order])

    def grown(self, met: Needs, replicas: Replicas) -> "Particles | str":
        """With room for what overflowed and for a Poisson pattern, where new replicas start; or why there is none."""
        system, plan = replicas.system, self.plan
        row, slots = int(met.row), int(met.slots)
        grown = nb.plan_for(system, plan.skin).grown(max(row, plan.capacity), max(slots, plan.slots))
        if grown.capacity > 4096 and grown.capacity > system.particles:
            return f"has a particle with {row} neighbours in reach: use a smaller skin or a lower packing fraction"
        return replace(self, plan=replace(grown, active=plan.active))

    def tuned(self, met: Needs, pace: Pace, replicas: Replicas) -> "tuple[Particles, float]":
        """The best skin, capacities and list of active particles for the next chunk."""
        if not self.tunes:
            return self, 0.0
        local = self.lists and replicas.rule.local
        plan, gain = tuning.next_plan(self.plan, replicas.system, met, pace.steps, pace.seconds_left, local, pace.batch)
        return replace(self, plan=plan), gain

    def size(self, replicas: Replicas) -> int:
        """Number of particles."""
        return replicas.system.particles

    def width(self, replicas: Replicas) -> int:
        """See :func:`device_width`."""
        return device_width(replicas.system.particles, replicas.system.dim)

    def final(self, replica: Replicas, place: Place) -> Mapping[str, np.ndarray]:
        """Positions (N, dim) in box sides, [0, 1)."""
        box = jnp.asarray(replica.system.box)
        return {"positions": np.asarray(to_positions(jnp.asarray(place.coordinates), box))}


def device_width(particles: int, dim: int) -> int:
    """Packings that a device moves at a time: enough to fill it, few enough for a cache and half of the free memory."""
    devices = local_devices()
    sharing = len(devices) if on_cpu() else 1  # the devices of a CPU share its memory
    room = int(0.5 * tuning.free_bytes(devices[0]) / tuning.bytes_per_particle(dim) / sharing)
    wanted = 2**15 if on_cpu() else 2**22
    return max(1, min(min(wanted, room) // particles, 4096))


def particles_of(replicas: Replicas, skin: float | None = None, *, dense: bool = False) -> Particles:
    """The kind of a batch of packings.

    Args:
        replicas: see :func:`packing_jax.spheres.start.gather_replicas`.
        skin: extra reach of the neighbour rows in mean diameters, fixed for the whole run; tuned on the way when None.
        dense: forbid active-only steps, for comparison: they change the time and nothing else.
    """
    system = replicas.system
    plan = nb.plan_for(system, tuning.first_skin(system.dim) if skin is None else skin)
    return Particles(plan, tunes=skin is None, lists=not dense)


# --- the inner loops ------------------------------------------------------------------------------------------


class _Moving(NamedTuple):
    """What changes at each step.

    Coordinates are one array per axis here: with one array of all axes, XLA splits each index of a batch into replica
    and particle, a division per neighbour, which made batches two to three times as slow.
    """

    axes: tuple[Array, ...]  #: (B, N) coordinates along each axis
    rule: Any
    clock: Clock
    stale: Array  #: () bool, some replica's rows are out of date
    few: Array  #: () bool, the active particles of each replica fit a list
    active: Array  #: () int32, as in :class:`Needs`


class _Steps(NamedTuple):
    """What does not change between two rebuilds, and the two kinds of step."""

    plan: Plan
    replicas: Replicas
    systems: System  #: per-particle leaves in the order of the slots
    tags: Array  #: (B, N)
    neighbors: nb.Neighbors
    placed: nb.Neighbors  #: for the dense step alone: lists of active particles hold slots within one replica
    settle: Settle
    going: Callable[[Clock], Array]

    @classmethod
    def of(
        cls,
        plan: Plan,
        replicas: Replicas,
        place: Place,
        neighbors: nb.Neighbors,
        settle: Settle,
        going: Callable[[Clock], Array],
    ) -> "_Steps":
        """Everything in the order of the slots."""
        systems: System = jax.vmap(nb.in_slots)(replicas.system, place.tags)
        # on a GPU each thread sums a row, and adjacent threads must read adjacent memory
        placed = replace(neighbors, rows=Placed.of(neighbors.rows, across=not on_cpu()))
        return cls(plan, replicas, systems, place.tags, neighbors, placed, settle, going)

    def on(self, moving: _Moving) -> Array:
        """Whether another step can be made with these rows."""
        return ~moving.stale & self.going(moving.clock)

    def words_at(self, step: Array) -> noise.Words:
        """The random words of all particles."""
        words: noise.Words = jax.vmap(noise.particle_words)(step_keys(self.replicas.key, step), self.tags)
        return words

    def _moved(self, words: noise.Words, coordinates: Array, rows: nb.Neighbors, state: Any) -> Any:
        return jax.vmap(stepped)(self.replicas.rule, words, self.systems, coordinates, rows, state)

    def dense(self, moving: _Moving, words: noise.Words) -> tuple[_Moving, noise.Words]:
        """Move all particles."""
        plan, coordinates = self.plan, jnp.stack(moving.axes, axis=1)
        displacement, state, info = self._moved(words, coordinates, self.placed, moving.rule)
        moves, clock = self.settle(moving.clock, ~jnp.any(info.active, axis=1), info.failed)
        # axis by axis: stacking the axes first would write them twice
        axes = tuple(jnp.where(moves[:, None], x + displacement[:, i], x) for i, x in enumerate(moving.axes))
        outdated = jax.vmap(partial(nb.outdated, plan))(self.systems, jnp.stack(axes, axis=1), self.neighbors)
        counts = jnp.sum(info.active, axis=1, dtype=jnp.int32)
        after = _Moving(
            axes=axes,
            rule=where_moves(moves, state, moving.rule),
            clock=clock,
            stale=jnp.any(clock.alive & outdated),
            # a quarter to spare, so that a list that overflowed is not tried again at once
            few=jnp.all(~clock.alive | (4 * counts <= 3 * plan.active)),
            active=_most_active(plan, moving.active, jnp.max(jnp.where(clock.alive, counts, 0))),
        )
        return after, self.words_at(clock.step)

    def sparse(self, moving: _Moving, listed: active.Active, drawn: Array) -> tuple[_Moving, active.Active, Array]:
        """Move the particles of the lists, which are all that move."""
        plan = self.plan
        seen = jax.vmap(active.rows_of)(self.neighbors, listed)
        words = jax.vmap(active.words_of)(step_keys(self.replicas.key, moving.clock.step), seen, drawn)
        displacement, state, info = self._moved(words, jnp.stack(moving.axes, axis=1), seen, moving.rule)
        moves, clock = self.settle(moving.clock, ~jnp.any(info.active, axis=1), info.failed)
        # axis by axis: one array of all axes would be rewritten whole, these are written only where they change
        amounts = jnp.where(moves[:, None, None], displacement, 0)
        axes = tuple(jax.vmap(add_at)(x, seen.own, amounts[:, i]) for i, x in enumerate(moving.axes))
        coordinates = jnp.stack(axes, axis=1)
        outdated = jax.vmap(partial(active.left, plan))(self.systems, coordinates, seen)
        listed = jax.vmap(active.follow)(self.systems, coordinates, seen)
        after = _Moving(
            axes=axes,
            rule=where_moves(moves, state, moving.rule),
            clock=clock,
            stale=jnp.any(clock.alive & outdated),
            few=jnp.all(~clock.alive | (listed.number <= plan.active)),
            active=_most_active(plan, moving.active, jnp.max(jnp.where(clock.alive, listed.number, 0))),
        )
        return after, listed, words.pair

    def all_sparse(self, moving: _Moving) -> _Moving:
        """Find the active particles and move only these while they fit their lists."""
        find = jax.vmap(partial(active.find, self.plan.active))
        listed = find(self.systems, jnp.stack(moving.axes, axis=1), self.neighbors)
        moving = moving._replace(few=jnp.all(~moving.clock.alive | (listed.number <= self.plan.active)))
        return jax.lax.while_loop(
            lambda carry: self.on(carry[0]) & carry[0].few,
            lambda carry: self.sparse(*carry),
            (moving, listed, jnp.zeros(self.tags.shape, jnp.uint32)),
        )[0]


def _most_active(plan: Plan, before: Array, number: Array) -> Array:
    """The largest number since it last exceeded twice the length of a list."""
    return jnp.where(number > 2 * plan.active, number, jnp.maximum(before, number))


def _columns(leaf: Array, order: Array) -> Array:
    """``leaf[..., order]``, for leaves of one value per particle and axis."""
    rows: Array = jax.vmap(take, (0, None))(leaf.reshape(-1, leaf.shape[-1]), order)
    return rows.reshape(leaf.shape)


def _reordered(rule: Rule, state: Any, columns: Callable[[Any], Any]) -> Any:
    """A rule's state with its per-particle leaves reordered."""
    return jax.tree.map(lambda leaf, travels: columns(leaf) if travels else leaf, state, rule.by_particle(state))
