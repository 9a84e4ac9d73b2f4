"""What the rules share: the base class, the pairs as every rule sees them, their sums, and checks of arguments."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from packing_jax.errors import PackingError, calling, fits, is_real, real_numbers, shown
from packing_jax.exact import bounded_row_sums, row_sums
from packing_jax.spheres import noise
from packing_jax.spheres.energy import Pairs, pair_rows
from packing_jax.spheres.fixed_point import Followed, known_length, reals, row_totals, with_derivative
from packing_jax.spheres.geometry import Placed, quanta, sum_of_squares, take, to_quanta
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.system import System

_LONGEST_KICK, _SHORTEST_KICK = 0.25, 256.0  # box sides, quanta
_LEAST_FRACTION = 2.0**-23

#: Who shares a draw: the two partners of an overlap, or all overlaps of a particle.
Coupling = Literal["pair", "particle", "particle-normalised"]


class Info(NamedTuple):
    """What a step reports to the driver."""

    active: Array  #: (M,) bool, particles active before the move; a run without any is absorbed
    failed: Array  #: () bool, the move was not finite or longer than half the box
    sums: Any = None  #: (dim, M) the row sums of the move, kept so that a derivative need not repeat them


class Rule:
    """A stochastic update of a configuration: what it carries, and one step. The base class of every rule.

    A rule is a frozen dataclass and a pytree (:func:`packing_jax.trees.pytree`) whose leaves are its hyperparameters.
    ``step`` must be written; the rest has defaults that are right for a rule of which nothing is known. Where the moves
    are sums over overlaps, :func:`packing_jax.spheres.rules.pair_rule` makes the whole rule of one function.
    """

    #: A particle without an overlap stays where it is, and no move needs its row. Where few particles overlap and the
    #: energy ends at contact with a finite force, only those with an overlap are then stepped.
    local: bool = False

    #: The terms of a row sum are opposite for the two partners of a pair, up to draws that are given to the sum:
    #: derivatives then need no scatter.
    reciprocal: bool = False

    #: Hyperparameters along which a run has no derivative, since they only select; each with the error message.
    pathless: Mapping[str, str] = MappingProxyType({})

    def init(self, system: System, coordinates: Array | Followed) -> Any:
        """What the rule carries from step to step, a pytree of arrays; nothing by default."""
        return ()

    def step(
        self, words: noise.Words, system: System, coordinates: Array | Followed, neighbors: Neighbors, state: Any
    ) -> tuple[Array, Any, "Info"]:
        """One move of the M particles whose rows are listed.

        Args:
            words: the step's random words, see :mod:`packing_jax.spheres.noise`.
            system: box (of side 1), diameters in the order of the coordinates, energy.
            coordinates: (dim, N) fixed point; ``Followed`` where the step is differentiated, with the ``sums`` that
                the fixed-point step reported.
            neighbors: rows of every pair within reach of the energy, and contact at least.
            state: what the last step carried.

        Returns:
            Displacement (dim, M) in quanta, the next state, and diagnostics. A step may call one of ``sum_of_kicks``,
            ``sum_of_pushes`` and ``exact_row_sum``, once, and must then report the sums as ``Info.sums``.
        """
        raise NotImplementedError(f"{type(self).__name__} is a rule without a step")

    def by_particle(self, state: Any) -> Any:
        """Which leaves of the state have the particles as their last axis: a tree of bools with the state's structure.

        These leaves are sorted with the particles. By default none is.
        """
        return jax.tree.map(lambda _: False, state)

    def check_derivative(self) -> None:
        """Refuse a hyperparameter without a derivative along a run; by default every one has a derivative.

        Raises:
            PackingError: a hyperparameter for which a run has no derivative.
        """


# --- a rule that may be a user's ------------------------------------------------------------------------------


def first_state(rule: Rule, system: System, coordinates: Array | Followed) -> Any:
    """What a rule carries before its first step, as arrays.

    Raises:
        PackingError: its ``init`` raises, or returns something else.
    """
    with calling(f"init of the rule {type(rule).__name__}", "a function of a system and coordinates, in jax.numpy"):
        return jax.tree.map(jnp.asarray, rule.init(system, coordinates))


def stepped(
    rule: Rule,
    words: noise.Words,
    system: System,
    coordinates: Array | Followed,
    neighbors: Neighbors,
    state: Any,
) -> tuple[Array, Any, Info]:
    """A rule's step with its result checked: an array of another shape would be broadcast.

    Raises:
        PackingError: the step raises, or returns something else.
    """
    name = f"step of the rule {type(rule).__name__}"
    with calling(name, "a function as packing_jax.spheres.rules.Rule.step describes, in jax.numpy"):
        move, after, info = rule.step(words, system, coordinates, neighbors, state)
        shapes = [np.shape(one) for one in (move, info.active, info.failed)]
        dtype, kept = jnp.result_type(move), jax.tree.structure(after)
    movers = coordinates.shape[1] if neighbors.own is None else neighbors.own.shape[0]
    wanted = [(coordinates.shape[0], movers), (movers,), ()]
    if shapes != wanted:
        raise PackingError(
            f"the {name} returns a displacement, active and failed of shapes {shapes}; they must be {wanted}"
        )
    real = isinstance(coordinates, Followed)
    if not (jnp.issubdtype(dtype, jnp.floating) if real else dtype == coordinates.dtype):
        raise PackingError(
            f"the {name} returns a displacement of {dtype}; it must be "
            f"{'real where derivatives are followed' if real else f'{coordinates.dtype}, in quanta'}: see as_move"
        )
    tree: Any = jax.tree.structure(state)
    before = [(jnp.shape(one), jnp.result_type(one)) for one in jax.tree.leaves(state)]
    then = [(jnp.shape(one), jnp.result_type(one)) for one in jax.tree.leaves(after)]
    if kept != tree or then != before:
        raise PackingError(f"the {name} returns a state of {then}; it must be as the one before, {before}")
    return move, after, info


class Scene(NamedTuple):
    """One configuration as every rule sees it: its pairs, its overlaps, and this step's random words."""

    pairs: Pairs
    hit: Array  #: (M, K) bool, r < reach sigma_ij; the reach is 1 unless the rule follows an energy beyond contact
    deep: Array  #: (M, K) bool, r < (1 - cut) reach sigma_ij
    particle: Array  #: (M,) words of the particles themselves
    own: Array  #: (M, 1) pair words of the particles
    other: Array  #: (M, K) pair words of their neighbours
    coordinates: Array | Followed
    rows: Array | Placed  #: (M, K) slots of the neighbours

    def of_both(self, draw: Callable[["Scene"], Array]) -> tuple[Array, Array]:
        """A draw (M, K) of a pair, as it is for the particle and for its partner."""
        return draw(self), draw(self._replace(own=self.other, other=self.own))


def look(
    words: noise.Words, system: System, coordinates: Array | Followed, neighbors: Neighbors, reach: float = 1.0
) -> Scene:
    """Measure the pairs of a configuration; those closer than ``reach`` contact distances count as overlapping."""
    own = (words.pair if neighbors.own is None else take(words.pair, neighbors.own))[:, None]
    other = take(words.pair, neighbors.rows)
    pairs = pair_rows(system, coordinates, neighbors.rows, neighbors.own, (own, other))
    hit = pairs.overlapping(reach=reach)
    deep = pairs.overlapping(system.cut, reach) if system.cut else hit
    return Scene(pairs, hit, deep, words.particle, own, other, coordinates, neighbors.rows)


def as_move(displacement: Array, coordinates: Array | Followed) -> Array:
    """A displacement (dim, M) in box sides as a step returns it: in quanta, or real where derivatives are followed."""
    return displacement if isinstance(coordinates, Followed) else to_quanta(displacement)


def sum_of_kicks(
    kicks: Callable[[Array, Array | float], Sequence[Array]],
    size: Array,
    draw: Callable[[Scene], Array],
    shared: bool,
    scene: Scene,
) -> tuple[Array, Array]:
    """Sum pair kicks in box sides, (M, K) per axis, to (dim, M) quanta, each rounded alone: partners stay opposite.

    ``kicks(size, draw(scene))`` is linear in the size and in the draw, which is ``shared`` by the partners or not. A
    derivative multiplies the sum by the size, one product for each particle instead of each pair, and uses the draws of
    both partners where they are not shared.

    Returns the sums, as :func:`as_move` has them, and the mask of active particles.
    """
    followed = scene.coordinates
    if isinstance(followed, Followed):
        known = reals(_known(followed)) / jax.lax.stop_gradient(size)
        one = jnp.ones_like(size)
        if shared:
            totals = _real_sums(kicks(one, draw(scene)), scene, followed)
        else:
            totals = _real_sums(kicks(one, 1.0), scene, followed, scene.of_both(draw))
        return size * with_derivative(known, totals), _active(scene)
    sums, active = row_sums([to_quanta(kick) for kick in kicks(size, draw(scene))], scene.deep)
    return jnp.stack(sums), active


def sum_of_pushes(pushes: Sequence[Array], scene: Scene) -> tuple[Array, Array, Array]:
    """Sum pair moves in box sides, (M, K) per axis, any function of the pair, to (dim, M) quanta.

    Returns the sums, as :func:`as_move` has them, the mask of active particles, and whether a push was not finite or
    longer than half the box, which does not show in quanta.
    """
    if isinstance(scene.coordinates, Followed):
        totals = _real_sums(pushes, scene, scene.coordinates)
        return with_derivative(reals(_known(scene.coordinates)), totals), _active(scene), jnp.zeros((), bool)
    wild = [(~(jnp.abs(push) < 0.5)).astype(jnp.int32) for push in pushes]
    (*sums, bad), active = row_sums([*map(to_quanta, pushes), sum(wild[1:], wild[0])], scene.deep)
    return jnp.stack(sums), active, jnp.any(bad > 0)


def _real_sums(
    values: Sequence[Array], scene: Scene, followed: Followed, draws: tuple[Array, Array] | None = None
) -> Array:
    return jnp.stack(row_totals(values, scene.rows, followed.reciprocal, draws))


def _known(followed: Followed) -> Array:
    if followed.sums is None:
        raise PackingError("the rule's step reports no row sums; it must return those that it used, Info(..., sums)")
    sums: Array = followed.sums
    return sums


def _active(scene: Scene) -> Array:
    return row_sums([], scene.deep)[1]


def exact_row_sum(
    values: Sequence[Array], bound: Array | float, scene: Scene, draws: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Sum floats (M, K), one array per axis, over the rows exactly, in fixed point, whatever their order.

    Each value is at most ``bound``, see :func:`packing_jax.exact.bounded_row_sums`. With ``draws``, (M, K) of both
    partners, the derivative is that of the sum of draws times values.

    Returns the sums (dim, M) and the mask of active particles.
    """
    followed = scene.coordinates
    if isinstance(followed, Followed):
        return with_derivative(_known(followed), _real_sums(values, scene, followed, draws)), _active(scene)
    return bounded_row_sums(values, bound, scene.deep)


def length(vectors: Array) -> Array:
    """Euclidean norm over the leading axis; its derivative is zero at zero."""
    return known_length(vectors, jax.lax.stop_gradient(jnp.sqrt(sum_of_squares(vectors))))


def pair_uniforms(scene: Scene, correlation: float, dtype: np.dtype) -> Array:
    """u_ij ~ U(0, 1) with correlation p between u_ij and u_ji, (M, K).

    p = 1: one draw for both. p = 0: two. Between: a Gaussian copula, (z_ij, z_ji) bivariate normal with
    rho = 2 sin(pi p/6), u = Phi(z), which gives exactly the correlation p of the uniforms.
    """
    if correlation == 1.0:
        return noise.uniform(noise.pair_words(scene.own, scene.other), dtype)
    if correlation == 0.0:
        return noise.uniform(noise.directed_words(scene.own, scene.other), dtype)
    return jax.scipy.special.ndtr(pair_normals(scene, 2.0 * np.sin(np.pi * correlation / 6.0), dtype))


def pair_normals(scene: Scene, rho: float, dtype: np.dtype) -> Array:
    """z_ij ~ N(0, 1) with correlation rho between z_ij and z_ji, (M, K)."""
    if rho == 1.0:
        return noise.normal(noise.pair_words(scene.own, scene.other), dtype)
    alone = noise.normal(noise.directed_words(scene.own, scene.other), dtype)
    if rho == 0.0:
        return alone
    shared = noise.normal(noise.pair_words(scene.own, scene.other), dtype)
    return np.asarray(np.sqrt(rho), dtype) * shared + np.asarray(np.sqrt(1.0 - rho), dtype) * alone


# --- checks at the edge ---------------------------------------------------------------------------------------


def check_rule(rule: Any) -> None:
    """Refuse anything but a rule of spheres; the message names the one that was probably meant.

    Raises:
        PackingError: not a :class:`Rule`.
    """
    if isinstance(rule, Rule):
        return
    if isinstance(rule, str):
        meant = f"it is the name {rule!r}; give the rule itself, such as packing_jax.bro(kick=0.05)"
    elif isinstance(rule, optax.GradientTransformation | jax.tree_util.Partial):
        meant = "it is an optimizer; give packing_jax.sgd(optimizer), which makes a rule of it"
    elif callable(rule):
        meant = f"it is {getattr(rule, '__name__', 'something')} itself; call it, as in packing_jax.bro(kick=0.05)"
    else:
        meant = f"it is of type {type(rule).__name__}; give one of packing_jax.spheres.rules, or an object of a "
        meant += "class of Rule"
    raise PackingError(f"the rule is not a rule for spheres: {meant}")


def check_positive(name: str, values: Any) -> Array:
    """A finite positive number, or one per replica, as an array; NaN where a traced one is not positive."""
    if isinstance(values, jax.core.Tracer):
        return jnp.where(values > 0, values, jnp.nan)
    array = real_numbers(values)
    if array is None or not np.all(np.isfinite(array) & (array > 0)):
        raise PackingError(f"{name} is {shown(values)}; it must be a finite positive number, in mean diameters")
    if not fits(array, _float_for(array)):
        raise PackingError(f"{name} is {shown(values)}, beyond the range of {_float_for(array)}, about 1e-38 to 3e38")
    return jnp.asarray(array, dtype=_float_for(array))


def check_not_negative(name: str, values: Any) -> Array:
    """A finite number that is at least 0, or one per replica, as an array; NaN where a traced one is negative."""
    if isinstance(values, jax.core.Tracer):
        return jnp.where(values >= 0, values, jnp.nan)
    array = real_numbers(values)
    if array is None or array.ndim > 1 or not np.all(np.isfinite(array) & (array >= 0)):
        raise PackingError(f"{name} is {shown(values)}; it must be a finite number, at least 0, or one per replica")
    return check_finite(name, array)


def check_finite(name: str, values: Any) -> Array:
    """A finite number, or one per replica, as an array."""
    if isinstance(values, jax.core.Tracer):
        return jnp.asarray(values)
    array = real_numbers(values)
    if array is None or array.ndim > 1 or not np.all(np.isfinite(array)):
        raise PackingError(f"{name} is {shown(values)}; it must be a finite number, or one per replica")
    if not fits(np.abs(array[array != 0]), _float_for(array)):
        raise PackingError(f"{name} is {shown(values)}, beyond the range of {_float_for(array)}, about 1e-38 to 3e38")
    return jnp.asarray(array, dtype=_float_for(array))


def check_fraction(name: str, values: Any) -> Array:
    """A number in (0, 1], or one per replica, as an array; NaN where a traced one is outside."""
    if isinstance(values, jax.core.Tracer):
        return jnp.where((values > 0) & (values <= 1), values, jnp.nan)
    array = real_numbers(values)
    if array is None or not np.all((array > 0) & (array <= 1)):
        raise PackingError(f"{name} is {shown(values)}; it must be above 0 and at most 1")
    if not np.all(array >= _LEAST_FRACTION):
        raise PackingError(
            f"{name} is {shown(values)}, below the resolution of a random number; it must be at least "
            f"{_LEAST_FRACTION:.2g}"
        )
    return jnp.asarray(array, dtype=_float_for(array))


def check_kick(kick: Any, system: System) -> None:
    """Refuse kicks that the coordinates cannot hold: no move is longer than half the box, or shorter than a quantum.

    Args:
        kick: in mean diameters, one or one per replica; the learning rate of SGD in a sweep.
        system: one, or one per replica.

    Raises:
        PackingError: a kick that is too long or too short.
    """
    sides = np.asarray(kick, np.float64) * np.asarray(system.unit / system.box, np.float64)
    least = _SHORTEST_KICK / quanta(system.box.dtype)
    for bad, right in (
        (sides > _LONGEST_KICK, "it must be below a quarter of a side: use more particles or a smaller kick"),
        (sides < least, f"it must be at least {least:.2g}, well above the resolution of the coordinates"),
    ):
        if np.any(bad):
            first, phi = (np.broadcast_to(one, sides.shape)[bad].flat[0] for one in (np.asarray(kick), system.phi))
            raise PackingError(
                f"a kick of {first:g} diameters is {sides[bad].flat[0]:.3g} box sides for {system.particles} "
                f"particles at phi = {phi:.3g}; {right}"
            )


def check_kick_of(rule: Rule, system: System) -> None:
    """:func:`check_kick` for a rule with a field ``kick``, in mean diameters."""
    kick = getattr(rule, "kick", None)
    if kick is not None and not any(isinstance(one, jax.core.Tracer) for one in (kick, system.unit, system.box)):
        check_kick(kick, system)


def _float_for(array: np.ndarray) -> np.dtype:
    return np.dtype(np.float64 if array.dtype == np.float64 and jax.config.read("jax_enable_x64") else np.float32)


def check_coupling(coupling: str, correlation: Any, allowed: tuple[str, ...] = get_args(Coupling)) -> float:
    """The correlation, if the rule knows the coupling; one other than 1 belongs to pairs only."""
    if isinstance(correlation, jax.core.Tracer):
        raise PackingError("the correlation is a constant of the compiled program: it is not traced or differentiated")
    if coupling not in allowed:
        raise PackingError(f"the coupling is {shown(coupling)}; this rule knows {', '.join(allowed)}")
    if not (is_real(correlation) and 0.0 <= correlation <= 1.0):
        raise PackingError(
            f"the correlation is {shown(correlation)}; it must be between 0 (independent) and 1 (shared)"
        )
    if coupling != "pair" and correlation != 1.0:
        raise PackingError(f"a correlation of {correlation} needs coupling 'pair'; {coupling!r} has no partner draws")
    return float(correlation)
