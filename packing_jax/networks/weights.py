"""Network weights as a kind of configuration: what the driver moves, and what observables see of it.

All replicas of a block step together: minibatch indices, gradients and noise of all are one program, and the data,
where they are shared, are one array in it. Weights are floats, so that the width of the block is part of a run's
identity (:mod:`packing_jax.drive.batch`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.drive.chunk import step_keys, where_moves
from packing_jax.drive.kind import AXES, Clock, Kind, Pace, Replicas, Settle
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.minibatch import Minibatch
from packing_jax.networks.objective import Objective, samples_of, size_of
from packing_jax.networks.rules.base import Moved


class Place(NamedTuple):
    """The weights and earlier weights; all trees are like the weights."""

    weights: Any
    before: Any  #: weights one step earlier
    marked: Any  #: (K, ...) weights at each waiting time, once it is reached
    step: Array  #: () int32, moves made


@dataclass(frozen=True)
class Weights:
    """Weights as a kind of configuration; see :class:`packing_jax.drive.kind.Kind`."""

    objective: Objective
    samples: int  #: P
    batch: Minibatch | None = None  #: None: each step sees all samples
    waits: tuple[int, ...] = ()  #: waiting times, whose weights are kept
    double: bool = False  #: float64
    wide: int = field(default=1, compare=False)  #: replicas per block

    exact = False
    divergence = "a loss or a weight was not finite, or the loss too large; use a smaller learning rate"

    # --- compiled, for a whole batch --------------------------------------------------------------------------

    def begin(self, replicas: Replicas) -> tuple[Place, Any]:
        """The initial weights, and the state of the rule."""
        start = replicas.start
        states = jax.vmap(lambda rule, weights: rule.init(weights))(replicas.rule, start)
        marked = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], len(self.waits), axis=1), start)
        return Place(start, start, marked, jnp.zeros(len(replicas.key), jnp.int32)), states

    def blank(self, place: Place) -> tuple[Any, Array]:
        """For shuffled epochs, an order of the samples for each replica, and its epoch."""
        count, met = len(place.step), jnp.zeros((), jnp.int32)
        if self.batch is None or self.batch.sampling != "epochs":
            return (), met
        return (jnp.zeros((count, self.samples), jnp.int32), jnp.full(count, -1, jnp.int32)), met

    def ready(self, replicas: Replicas, place: Place, rule: Any, work: Any, met: Any) -> tuple[Place, Any, Any, Array]:
        """Shuffle the samples: a function of the replica and the epoch alone."""
        if self.batch is not None and work != ():
            epoch = place.step // self.batch.per_epoch(self.samples)
            order = jax.vmap(self.batch.order, (0, 0, None))(replicas.key, epoch, self.samples)
            work = order, epoch
        return place, rule, work, met

    def advance(
        self,
        replicas: Replicas,
        place: Place,
        rule: Any,
        work: Any,
        clock: Clock,
        settle: Settle,
        going: Callable[[Clock], Array],
        met: Any,
    ) -> tuple[Place, Any, Any, Clock, Array, Array]:
        """Steps until the clock says stop, or an epoch of some replica is over."""
        place = place._replace(marked=self._mark(place, clock))
        order = None if work == () else work[0]

        def stale(clock: Clock) -> Array:
            if self.batch is None or work == ():
                return jnp.zeros((), bool)
            return jnp.any(clock.alive & (clock.step // self.batch.per_epoch(self.samples) != work[1]))

        def step(carry: tuple[Place, Any, Clock]) -> tuple[Place, Any, Clock]:
            place, rule, clock = carry
            moved = self._step(replicas, place.weights, rule, clock, order)
            moves, clock = settle(clock, self._still(replicas, place.weights, moved), moved.broken)
            weights, state = where_moves(moves, (moved.weights, moved.state), (place.weights, rule))
            before = where_moves(moves, place.weights, place.before)
            return place._replace(weights=weights, before=before), state, clock

        place, rule, clock = jax.lax.while_loop(
            lambda carry: going(carry[2]) & ~stale(carry[2]), step, (place, rule, clock)
        )
        return place._replace(step=clock.step), rule, work, clock, stale(clock), met

    def _mark(self, place: Place, clock: Clock) -> Any:
        """The weights at the waiting times, with those of now if this is one; waiting times are recorded steps."""
        if not self.waits:
            return place.marked
        now = clock.step[:, None] == jnp.asarray(self.waits, jnp.int32)[None]

        def kept(old: Array, new: Array) -> Array:
            return jnp.where(now.reshape(now.shape + (1,) * (new.ndim - 1)), new[:, None], old)

        return jax.tree.map(kept, place.marked, place.weights)

    def _step(self, replicas: Replicas, weights: Any, state: Any, clock: Clock, order: Array | None) -> Moved:
        keys = jax.vmap(jax.random.key_data)(step_keys(replicas.key, clock.step))

        def one(replica: Replicas, weights: Any, state: Any, key: Array, step: Array, order: Array | None) -> Moved:
            data = data_of(replica)
            inputs, targets = data.inputs, data.targets
            some = jnp.arange(self.samples)
            if self.batch is not None:
                some = self.batch.indices(key, step, order, self.samples)
                inputs, targets = jax.tree.map(lambda leaf: leaf[some], (inputs, targets))
            inputs = self.objective.viewed(key, inputs, some)
            moved: Moved = replica.rule.step(key, self.objective, (inputs, targets), self.samples, weights, state)
            if self.objective.project is not None:
                moved = moved._replace(weights=self.objective.project(moved.weights))
            finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(moved.weights)]
            return moved._replace(broken=moved.broken | ~jnp.all(jnp.stack(finite)))

        axes = (AXES, 0, 0, 0, 0, None if order is None else 0)
        return jax.vmap(one, axes)(replicas, weights, state, keys, clock.step, order)

    def _still(self, replicas: Replicas, weights: Any, moved: Moved) -> Array:
        """Which replicas violate none of all samples, (B,).

        A violated sample in a minibatch is enough to know; all samples are checked only if some replica's minibatch has
        none. A loss of all samples together can be violated in a minibatch alone: neither must be. With views there is
        no absorbing state: those of a later step can be violated.
        """

        def satisfied(replica: Replicas, weights: Any) -> Array:
            data = data_of(replica)
            overlaps = self.objective.overlaps(weights, data.inputs, data.targets)
            return jnp.zeros((), bool) if overlaps is None else ~jnp.any(overlaps > 0)

        quiet = moved.quiet
        if quiet is None or self.objective.views is not None:
            return jnp.zeros(len(replicas.key), bool)
        if self.batch is None:
            return quiet
        every = jax.vmap(satisfied, (AXES, 0))
        return jax.lax.cond(
            jnp.any(quiet), lambda: quiet & every(replicas, weights), lambda: jnp.zeros(len(replicas.key), bool)
        )

    def seen(self, replica: Replicas, place: Place, work: Any) -> Learner:
        """The weights, the earlier weights that they are compared with, and the data, in the views of the next step."""
        return Learner(
            self.objective,
            place.weights,
            place.before,
            replica.start,
            place.marked,
            self.waits,
            place.step,
            self._viewed(replica, place.step),
        )

    def _viewed(self, replica: Replicas, step: Array) -> Data:
        data = data_of(replica)
        if self.objective.views is None:
            return data
        key = jax.random.key_data(step_keys(replica.key[None], step[None])[0])
        train = self.objective.viewed(key, data.inputs, jnp.arange(self.samples))
        if data.test_inputs is None:
            return replace(data, inputs=train)
        tests = self.samples + jnp.arange(samples_of(data.test_inputs))
        return replace(data, inputs=train, test_inputs=self.objective.viewed(key, data.test_inputs, tests))

    def close(self, place: Place, work: Any) -> Place:
        """The weights, unchanged."""
        return place

    def void(self, met: Any) -> Array | np.bool_:
        """Never: no shape depends on the run."""
        return np.bool_(False)

    # --- on the host ------------------------------------------------------------------------------------------

    def canonical(self, replica: Replicas, place: Place, rule: Any) -> tuple[Place, Any]:
        """The weights and the rule's state, unchanged."""
        return place, rule

    def grown(self, met: Any, replicas: Replicas) -> "Kind | str":
        """Never called, as no run is void."""
        return self

    def tuned(self, met: Any, pace: Pace, replicas: Replicas) -> tuple[Kind, float]:
        """Itself: there is only one program."""
        return self, 0.0

    def size(self, replicas: Replicas) -> int:
        """Number of weights of a replica."""
        return size_of(jax.tree.map(lambda leaf: leaf[0], replicas.start))

    def width(self, replicas: Replicas) -> int:
        """Replicas per block."""
        return self.wide

    def final(self, replica: Replicas, place: Place) -> Mapping[str, np.ndarray]:
        """All weights in one row, leaf after leaf, (W,); :meth:`packing_jax.networks.task.Task.tree` is the inverse."""
        return {"weights": np.concatenate([np.reshape(leaf, -1) for leaf in jax.tree.leaves(place.weights)])}


def data_of(replica: Replicas) -> Data:
    """A replica's own data, or those that all share."""
    data: Data = replica.shared if replica.system == () else replica.system
    return data
