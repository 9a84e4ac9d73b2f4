"""The smallest second kind: a pytree of floats that an optax optimizer moves on a loss, one minibatch a step.

Written as a user would write one, with nothing of the package but the driver's protocol.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from packing_jax.drive.chunk import step_keys, where_moves
from packing_jax.drive.kind import AXES, Replicas


@dataclass(frozen=True)
class Floats:
    """Nothing to sort or list; work is the number of times it was made ready."""

    wide: int = field(default=4, compare=False)
    exact = False
    double = None
    divergence = "a weight was not finite; use a smaller learning rate"

    def begin(self, replicas):
        return replicas.start, jax.vmap(lambda rule, place: rule.init(place))(replicas.rule, replicas.start)

    def blank(self, place):
        return jnp.zeros(len(jax.tree.leaves(place)[0]), jnp.int32), jnp.zeros((), jnp.int32)

    def ready(self, replicas, place, rule, work, met):
        return place, rule, work + 1, met + 1

    def advance(self, replicas, place, rule, work, clock, settle, going, met):
        one = jax.vmap(lambda replica, key, *there: replica.rule.step(key, replica.shared, *there), (AXES, 0, 0, 0))

        def step(carry):
            place, rule, clock = carry
            moved, state, still, broken = one(replicas, step_keys(replicas.key, clock.step), place, rule)
            moves, clock = settle(clock, still, broken)
            return where_moves(moves, moved, place), where_moves(moves, state, rule), clock

        place, rule, clock = jax.lax.while_loop(lambda carry: going(carry[2]), step, (place, rule, clock))
        return place, rule, work, clock, jnp.zeros((), bool), met

    def seen(self, replica, place, work):
        return replica.shared, place

    def close(self, place, work):
        return place

    def void(self, met):
        return jnp.zeros((), bool)

    def canonical(self, replica, place, rule):
        return place, rule

    def grown(self, met, replicas):
        return self

    def tuned(self, met, pace, replicas):
        return self, 0.0

    def size(self, replicas):
        return sum(leaf[0].size for leaf in jax.tree.leaves(replicas.start))

    def width(self, replicas):
        return self.wide

    def final(self, replica, place):
        return {name: np.asarray(leaf) for name, leaf in place.items()}


@partial(jax.tree_util.register_dataclass, data_fields=["rate", "momentum"], meta_fields=["batch"])
@dataclass(frozen=True)
class Descent:
    """Heavy ball on the squared hinge of a perceptron: sample mu is violated where margin - y_mu x_mu.w > 0.

    Absorbed where no sample of the whole set is violated.
    """

    rate: Any
    momentum: Any
    batch: int

    def init(self, weights):
        return self.optimizer().init(weights)

    def optimizer(self):
        return optax.chain(optax.trace(self.momentum), optax.scale(-self.rate))

    def step(self, key, data, weights, state):
        some = jax.random.randint(key, (self.batch,), 0, len(data))
        gradient = jax.grad(lambda w: jnp.mean(jnp.maximum(overlaps(data[some], w), 0.0) ** 2))(weights)
        move, state = self.optimizer().update(gradient, state, weights)
        after = optax.apply_updates(weights, move)
        broken = ~jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(after)]))
        return after, state, ~jnp.any(overlaps(data, weights) > 0), broken


def overlaps(data, weights):
    """kappa - x.w - b for every sample, kappa = 1; the labels are in the samples."""
    return 1.0 - data @ weights["w"] - weights["b"]


@dataclass(frozen=True)
class Perceptron:
    """A data set (P, d), one for all replicas: what simulate takes as a system."""

    data: Any
    replicas: int

    def prepare(self, rule, key, start):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(self.replicas))
        scale = np.float32(0.1)
        weights = jax.vmap(lambda k: {"w": scale * jax.random.normal(k, (self.data.shape[1],)), "b": jnp.zeros(())})(
            keys
        )
        rule = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, jnp.float32), (self.replicas,)), rule)
        noise = jax.vmap(lambda k: jax.random.key_data(jax.random.fold_in(k, 1)))(keys)
        start = weights if start is None else start
        return Floats(), Replicas(None, rule, noise, start, jnp.asarray(self.data, jnp.float32)), True


def activity(seen):
    """The share of violated samples; seen are the data and the weights."""
    return jnp.mean((overlaps(*seen) > 0).astype(jnp.float32))


def loss(seen):
    """The mean squared hinge."""
    return jnp.mean(jnp.maximum(overlaps(*seen), 0.0) ** 2)
