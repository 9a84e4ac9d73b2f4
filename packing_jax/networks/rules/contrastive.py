r"""Persistent contrastive divergence: a generative model learns from data and from Markov chains of its own.

    v_c' = T^k v_c at the weights w,  c = 1..B,
    g = grad [ mean over data of F(v) - (1/B) sum_c F(v_c') ],   w' = w + update(g)

F, the free energy of a sample, is the task's loss; T is the model's Markov step, which leaves exp(-F) stationary. The
chains go on from step to step: they are the rule's state. Source: T. Tieleman, ICML 2008; arXiv:2407.16427, 2411.13512.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.minibatch import Minibatch
from packing_jax.networks.objective import Objective
from packing_jax.networks.rules.base import Moved, WeightRule, quiet_of
from packing_jax.optimizers import maker_of
from packing_jax.trees import pytree


@runtime_checkable
class Sampler(Protocol):
    """What makes the chains of a model; hashable, a constant of the compiled program."""

    def begin(self, weights: Any, chains: int) -> Array:
        """The first samples, (B, ...)."""
        ...

    def sweep(self, key: Array, weights: Any, visible: Array) -> Array:
        """One Markov step of all chains, (B, ...)."""
        ...


@pytree(meta=["sampler", "chains", "sweeps", "batch"])
@dataclass(frozen=True)
class Contrastive(WeightRule):
    """Persistent contrastive divergence; build with :func:`persistent_chains`."""

    optimizer: Any  #: a pytree that makes an optax transformation when called
    sampler: Sampler
    chains: int
    sweeps: int
    batch: Minibatch | None

    def init(self, weights: Any) -> tuple[Array, optax.OptState]:
        """The chains, and the optimizer's own state."""
        return self.sampler.begin(weights, self.chains), jax.tree.map(jnp.asarray, self.optimizer().init(weights))

    def step(
        self, key: Array, objective: Objective, seen: tuple[Any, Any], samples: int, weights: Any, state: Any
    ) -> Moved:
        """So many Markov steps of the chains, then one update of the weights."""
        visible, kept = state
        keys = jax.random.split(jax.random.wrap_key_data(key, impl="threefry2x32"), self.sweeps)
        visible, _ = jax.lax.scan(lambda v, one: (self.sampler.sweep(one, weights, v), None), visible, keys)
        inputs, targets = seen
        none = jax.tree.map(lambda leaf: jnp.zeros((self.chains, *leaf.shape[1:]), leaf.dtype), targets)

        def contrast(weights: Any) -> Array:
            return objective.value(weights, inputs, targets) - objective.losses(weights, visible, none).mean()

        value, gradient = jax.value_and_grad(contrast)(weights)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, new = self.optimizer().update(gradient, kept, weights)
        moved = jax.tree.map(lambda w, u: w + u.astype(w.dtype), weights, updates)
        new = jax.tree.map(lambda was, now: jnp.asarray(now).astype(was.dtype), kept, new)
        return Moved(moved, (visible, new), ~(value <= objective.largest_loss), quiet_of(objective, weights, seen))


def persistent_chains(
    optimizer: optax.GradientTransformation | jax.tree_util.Partial, sampler: Sampler, chains: int, sweeps: int = 1
) -> Contrastive:
    """Persistent contrastive divergence, PCD-k, with all data at each step. Source: arXiv:2407.16427.

    Args:
        optimizer: as in :func:`packing_jax.networks.rules.sgd`, of the form (gradient, state, weights) -> update.
        sampler: the model's Markov chain; the task's loss is its free energy, and takes targets that are 0.
        chains: B, the number of chains of a replica.
        sweeps: k, Markov steps of each chain between two updates.

    Raises:
        PackingError: a number out of range, no sampler, or not an optax transformation.
    """
    for name, number in (("number of chains", chains), ("number of sweeps", sweeps)):
        if type(number) is not int or number < 1:
            raise PackingError(f"the {name} is {number!r}; it must be a whole number from 1 on")
    return Contrastive(maker_of(optimizer), sampler, chains, sweeps, None)
