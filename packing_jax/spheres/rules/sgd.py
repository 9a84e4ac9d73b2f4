r"""Stochastic gradient descent on the overlap energy, driven by any optax transformation.

The parameters are the positions, in mean diameters; the minibatch gradient is

pair       g_i = sum_j theta_ij grad_i V_ij,  theta_ij, theta_ji ~ Bernoulli(b_f) with correlation p (1: shared)
particle   g_i = theta_i sum_j grad_i V_ij,   theta_i ~ Bernoulli(b_f)

drawn anew each step; b_f = 1 is gradient descent. Joint law of a correlated pair: P(0,0) = (1-b)^2 + p b (1-b).
``selective`` takes exactly floor(b_f n) + 1 of the n overlapping pairs or active particles instead (all at b_f = 1).
With ``optax.sgd(alpha)`` this is dx = -alpha g. Source: arXiv:2411.11834.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from packing_jax.errors import PackingError, calling
from packing_jax.exact import row_sums
from packing_jax.optimizers import maker_of
from packing_jax.spheres import noise
from packing_jax.spheres.energy import pair_slopes
from packing_jax.spheres.fixed_point import Followed, reals
from packing_jax.spheres.geometry import float_of, take
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.potential import bounded
from packing_jax.spheres.rules.base import (
    Coupling,
    Info,
    Rule,
    Scene,
    as_move,
    check_coupling,
    check_fraction,
    exact_row_sum,
    look,
)
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree

_CHOOSES = (
    "the batch fraction chooses which pairs move and does not enter their moves: the path of a run has no derivative "
    "in it; packing_jax.derivatives.averages.common_random_numbers estimates that of an average over runs"
)


@pytree(meta=["coupling", "correlation", "selective", "local"])
@dataclass(frozen=True)
class SGD(Rule):
    """Stochastic gradient descent; build with :func:`sgd`."""

    optimizer: Any  #: a pytree that makes an optax transformation when called
    batch_fraction: Leaf
    coupling: Coupling
    correlation: float
    selective: bool
    local: bool  #: the optimizer moves each particle by its own gradient alone, and not at all where that is zero
    reciprocal = True  #: partners get opposite terms, up to draws of their own
    pathless = MappingProxyType({"batch_fraction": _CHOOSES})

    def check_derivative(self) -> None:
        """Refuse an optimizer whose update has no derivative at zero gradient; traced numbers are tried as 1/2.

        Raises:
            PackingError: the update has none.
        """
        with jax.ensure_compile_time_eval(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            tried = jax.tree.map(lambda leaf: 0.5 if isinstance(leaf, jax.core.Tracer) else leaf, self.optimizer)()
            places = jnp.ones((1, 2), np.float32)
            gradient = jnp.asarray([[1.0, 0.0]], np.float32)
            start = tried.init(places)
            _, along = jax.jvp(lambda g: tried.update(g, start, places)[0], (gradient,), (0.0 * gradient,))
            if not np.all(np.isfinite(along)):
                raise PackingError(
                    "the optimizer's update has no derivative at the zero gradient of a particle without overlap: it "
                    "takes a square root; give optax.adam and its relatives eps_root > 0, for example 1e-8"
                )

    def init(self, system: System, coordinates: Array | Followed) -> optax.OptState:
        """The optimizer's own state."""
        with calling("the optimizer", "an optax transformation whose init takes parameters"):
            return self.optimizer().init(_parameters(system, coordinates))

    def by_particle(self, state: optax.OptState) -> Any:
        """The leaves whose last axis is the particles, found by comparing states for different numbers of particles.

        Not by optax's ``tree_map_params``, on whose placeholders an optimizer fails if its ``init`` calculates with the
        parameters' shape or values.

        Raises:
            PackingError: the optimizer keeps an array that depends on the number of particles in another way.
        """
        one = _of_one_replica(self.optimizer)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            shapes = [
                jax.eval_shape(lambda x: one().init(x), jax.ShapeDtypeStruct((2, n), np.dtype(np.float32)))
                for n in (3, 5)
            ]

        def follows(few: Any, more: Any) -> bool:
            if few.shape == more.shape:
                return False
            if few.shape[:-1] == more.shape[:-1] and (few.shape[-1], more.shape[-1]) == (3, 5):
                return True
            raise PackingError(
                f"the optimizer keeps an array of shape {few.shape} for parameters of shape (2, 3); one with an entry "
                "for each particle must have the particles as its last axis, as the parameters have"
            )

        marks = jax.tree.leaves(jax.tree.map(follows, *shapes))
        return jax.tree.unflatten(jax.tree.structure(state), marks)

    def step(
        self,
        words: noise.Words,
        system: System,
        coordinates: Array | Followed,
        neighbors: Neighbors,
        state: optax.OptState,
    ) -> tuple[Array, optax.OptState, Info]:
        """One optax update with the minibatch gradient."""
        dtype = float_of(coordinates)
        scene = look(words, system, coordinates, neighbors, system.energy.reach)
        gradient, active = minibatch_gradient(self, system, scene)
        own = coordinates
        if neighbors.own is not None and not isinstance(coordinates, Followed):
            own = jnp.stack([take(x, neighbors.own) for x in coordinates])
        with calling("the optimizer", "an optax transformation whose update takes a gradient, a state and parameters"):
            updates, state = self.optimizer().update(gradient, state, _parameters(system, own))
        if jnp.shape(updates) != gradient.shape or not jnp.issubdtype(updates.dtype, jnp.floating):
            raise PackingError(
                f"the optimizer's update has the shape {jnp.shape(updates)} and the type {jnp.result_type(updates)}; "
                f"it must have those of the gradient, {gradient.shape} and {gradient.dtype}"
            )
        move = updates * system.unit / system.box
        failed = ~jnp.all(jnp.abs(move) < 0.5)  # true for NaN as well
        return as_move(move.astype(dtype), coordinates), state, Info(active, failed, gradient)


def minibatch_gradient(rule: SGD, system: System, scene: Scene) -> tuple[Array, Array]:
    """The sampled gradient (dim, M), dimensionless, summed in fixed point, and the mask of active particles."""
    pairs = scene.pairs
    fraction = rule.batch_fraction.astype(pairs.distance.dtype)
    bound = system.energy.largest_slope(system.diameters, system.unit)
    weight = bounded(pair_slopes(system, pairs), bound) / pairs.distance
    followed, draws, some = isinstance(scene.coordinates, Followed), None, weight != 0
    if rule.coupling == "pair" and followed and rule.correlation != 1.0:
        mine, theirs = scene.of_both(lambda scene: _pair_choice(rule, scene, fraction))
        draws, some = (mine.astype(weight.dtype), theirs.astype(weight.dtype)), some & mine
    elif rule.coupling == "pair":
        weight = jnp.where(_pair_choice(rule, scene, fraction), weight, 0.0)
        some = weight != 0
    total, active = exact_row_sum([weight * part for part in pairs.separation], bound, scene, draws)
    if followed:
        # for an empty minibatch, so that no NaN comes back through an optimizer's 0/0, such as that of a norm
        total = jnp.where(jnp.any(some), total, 0.0)
    if rule.coupling == "particle":
        words = scene.particle
        overlapping = active if scene.deep is scene.hit else row_sums([], scene.hit)[1]
        theta = _select(words, overlapping, fraction, copies=1) if rule.selective else noise.chosen(words, fraction)
        total = jnp.where(theta[None], total, 0.0)
    return total, active


def _pair_choice(rule: SGD, scene: Scene, fraction: Array) -> Array:
    """theta_ij (M, K): which pairs are in the minibatch."""
    shared = noise.pair_words(scene.own, scene.other)
    if rule.selective:
        return _select(shared, scene.hit, fraction, copies=2)
    if rule.correlation == 1.0:
        return noise.chosen(shared, fraction)
    alone = noise.chosen(noise.directed_words(scene.own, scene.other), fraction)
    if rule.correlation == 0.0:
        return alone
    # with probability p the partners share one Bernoulli draw, else each has its own
    together = noise.pair_words(scene.own, scene.other, which=2)
    p = jnp.asarray(rule.correlation, dtype=fraction.dtype)
    return jnp.where(noise.chosen(together, p), noise.chosen(shared, fraction), alone)


def _select(words: Array, candidates: Array, fraction: Array, copies: int) -> Array:
    """Exactly floor(b n) + 1 of the n candidates, those with the smallest words.

    The order statistic is found bit by bit from counts, which needs no sort and does not depend on the order of rows.
    Pairs appear once in each partner's row (``copies`` = 2), with the same word.
    """
    count = jnp.sum(candidates, dtype=jnp.int32) // copies
    wanted = jnp.minimum(jnp.floor(fraction * count.astype(fraction.dtype)).astype(jnp.int32) + 1, count)

    def narrow(bit: Array | int, threshold: Array) -> Array:
        trial = threshold | (np.uint32(1) << (np.uint32(31) - jnp.asarray(bit, jnp.uint32)))
        below = jnp.sum(candidates & (words < trial), dtype=jnp.int32) // copies
        return jnp.where(below < wanted, trial, threshold)

    # the largest threshold with fewer than `wanted` words below it is the wanted word itself
    threshold = jax.lax.fori_loop(0, 32, narrow, jnp.zeros((), jnp.uint32))
    return candidates & (words <= threshold) & (wanted > 0)


def _parameters(system: System, coordinates: Array | Followed) -> Array:
    """Positions in mean diameters (dim, N), as optax sees them."""
    return reals(coordinates) * (system.box / system.unit)


def sgd(
    optimizer: optax.GradientTransformation | jax.tree_util.Partial,
    batch_fraction: ArrayLike = 1.0,
    coupling: Coupling = "pair",
    correlation: float = 1.0,
    selective: bool = False,
) -> SGD:
    """SGD over particle positions: dx = -alpha sum_j theta_ij grad_i V_ij, theta ~ Bernoulli(b_f), or any optax update.

    The particle-wise form and batches of fixed size are in the docstring of :mod:`packing_jax.spheres.rules.sgd`.
    Source: arXiv:2411.11834.

    Args:
        optimizer: an ``optax.GradientTransformation``, or a ``jax.tree_util.Partial`` of the function that makes it.
            The leaves of the Partial may carry a replica axis (``Partial(optax.adam, learning_rate=rates)``) and
            changing them compiles nothing. Updates are in mean diameters. Transformations that draw random numbers by
            array index see the particles in cell order.
        batch_fraction: b_f in (0, 1], one number or one per replica.
        coupling: "pair" or "particle".
        correlation: p in [0, 1] of the partners' selections, for "pair" only.
        selective: exactly floor(b_f n) + 1 of the n overlapping pairs (active particles) instead of independent draws.

    Raises:
        PackingError: an argument out of range, or not an optax transformation.
    """
    correlation = check_coupling(coupling, correlation, ("pair", "particle"))
    if selective and correlation != 1.0:
        raise PackingError("selective batches choose whole pairs; leave the correlation at 1")
    optimizer = maker_of(optimizer)
    fraction = check_fraction("the batch fraction", batch_fraction)
    return SGD(optimizer, fraction, coupling, correlation, selective, _is_local(optimizer))


def _of_one_replica(optimizer: Any) -> Any:
    """The optimizer with the hyperparameters of one replica."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).reshape(-1)[0], optimizer)


def _is_local(optimizer: Any) -> bool:
    """Whether updates are local, by trial: momentum, weight decay and clipping by the global norm are not."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(optimizer)):
        return False
    one = _of_one_replica(optimizer)
    rng = np.random.default_rng(0)
    with jax.ensure_compile_time_eval(), jax.numpy_dtype_promotion("standard"):
        places = jnp.asarray(rng.uniform(1.0, 2.0, (2, 6)), np.float32)
        for size in (1e-6, 1.0, 1e6):
            gradient = jnp.asarray(size * rng.normal(size=(2, 6)), np.float32).at[:, 3:].set(0.0)
            moves = []
            for few in (6, 1):  # the first particle among others and alone
                state = one().init(places[:, :few])
                try:
                    moved = one().update(gradient[:, :few], state, places[:, :few])[0]
                except TypeError as error:
                    raise PackingError(f"the optimizer needs more than a gradient for an update: {error}") from error
                if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(state)):
                    return False
                if isinstance(moved, jax.core.Tracer):
                    raise PackingError(
                        "the optimizer holds a traced number; give jax.tree_util.Partial(optax.sgd, "
                        "learning_rate=...), whose numbers can be differentiated"
                    )
                moves.append(np.asarray(moved))
            if moves[0][:, 3:].any() or not np.array_equal(moves[0][:, :1], moves[1]):
                return False
    return True
