r"""A rule from one function: dx_i = sum_j push(pair ij, u_ij) over the overlaps of each particle.

The function gets every overlap of every particle at once, as arrays of shape (components, particles, neighbours), with
one component for scalars and dim for vectors. Write it elementwise.

    def push(pair, u, kick):
        return kick * u * pair.overlap**2 * pair.direction

    rule = pair_rule(push, kick=0.5)

It is a rule like the built-in ones: moves are rounded to quanta and summed as integers, steps are active-only where few
particles overlap, ``kick`` may be one number per replica, and runs can be differentiated in it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from packing_jax.errors import PackingError, in_one_line
from packing_jax.exact import rounded_alone
from packing_jax.spheres import noise
from packing_jax.spheres.fixed_point import Followed
from packing_jax.spheres.geometry import float_of
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.rules.base import (
    Info,
    Rule,
    Scene,
    check_coupling,
    check_finite,
    look,
    pair_normals,
    pair_uniforms,
    sum_of_pushes,
)
from packing_jax.spheres.system import System
from packing_jax.trees import pytree

#: The law of the random number of a pair: U(0, 1), or N(0, 1).
Draw = Literal["uniform", "normal"]


class Pair(NamedTuple):
    """A particle i, which is pushed, and its overlapping neighbour j; lengths in mean diameters."""

    direction: Array  #: (dim, M, K) unit vector from j to i
    distance: Array  #: (1, M, K) r_ij, of the centres
    contact: Array  #: (1, M, K) sigma_ij, the sum of the radii
    overlap: Array  #: (1, M, K) sigma_ij - r_ij, above 0


@pytree(meta=["push", "draw", "correlation"])
@dataclass(frozen=True)
class PairRule(Rule):
    """A rule whose moves are sums of pushes over overlaps; build with :func:`pair_rule`."""

    push: Callable[..., Array]
    draw: Draw
    correlation: float
    numbers: Mapping[str, Any]  #: hyperparameters by the name that the push has for them
    local = True  #: what does not overlap does not move

    def step(
        self, words: noise.Words, system: System, coordinates: Array | Followed, neighbors: Neighbors, state: tuple[()]
    ) -> tuple[Array, tuple[()], Info]:
        """One synchronous push of every overlap."""
        dtype = float_of(coordinates)
        scene = look(words, system, coordinates, neighbors)
        draws = pair_uniforms if self.draw == "uniform" else pair_normals
        u = draws(scene, self.correlation, dtype)
        numbers = {name: value.astype(dtype) for name, value in self.numbers.items()}
        push = _pushes(rounded_alone(self.push), _seen(scene, system), u[None], numbers)
        sides = system.unit / system.box
        parts = [jnp.where(scene.hit, part * sides, 0.0) for part in jnp.broadcast_to(push, (system.dim, *u.shape))]
        move, active, failed = sum_of_pushes(parts, scene)
        return move, state, Info(active, failed, move)


def _seen(scene: Scene, system: System) -> Pair:
    """The pairs of a configuration in mean diameters; those without an overlap get half the contact distance."""
    pairs, diameters = scene.pairs, system.box / system.unit
    contact = jnp.broadcast_to(pairs.contact, pairs.distance.shape)
    # a push, or its derivative, may be NaN beyond contact, and would spoil a derivative even where it is masked out
    distance = jnp.where(scene.hit, pairs.distance, 0.5 * contact)
    lengths = rounded_alone(lambda *lengths: [length[None] * diameters for length in lengths])
    return Pair(
        jnp.stack([part / pairs.distance for part in pairs.separation]), *lengths(distance, contact, contact - distance)
    )


def pair_rule(
    push: Callable[..., Any], *, draw: Draw = "uniform", correlation: float = 1.0, **hyperparameters: ArrayLike
) -> PairRule:
    """A rule of your own: dx_i = sum_j push(pair ij, u_ij, hyperparameters) over overlaps r_ij < sigma_ij.

    Example:
        >>> def push(pair, u, kick):
        ...     return kick * u * pair.overlap**2 * pair.direction
        >>> simulate(system, pair_rule(push, kick=0.5), 1000, jax.random.key(0))

    Args:
        push: a function of a :class:`Pair`, the pair's random number (1, M, K) and the hyperparameters by name, each
            (). Returns the push on i by j in mean diameters, (dim, M, K), by elementwise operations.
        draw: "uniform" on (0, 1) or "normal", mean 0 and variance 1.
        correlation: of the random numbers u_ij and u_ji of the two partners: 1 one number for both, 0 independent.
            With 1, pushes along ``pair.direction`` are opposite for the two and conserve the centre of mass.
        hyperparameters: finite numbers, one or one per replica each; runs have derivatives in them.

    Raises:
        PackingError: an argument out of range, or a push that is no function of these arguments or of another shape.
    """
    if draw not in get_args(Draw):
        raise PackingError(f"the draw is {draw!r}; it must be {' or '.join(map(repr, get_args(Draw)))}")
    correlation = check_coupling("pair", correlation)
    numbers = {name: check_finite(name, value) for name, value in hyperparameters.items()}
    _check_push(push, numbers)
    return PairRule(push, draw, correlation, numbers)


def _check_push(push: Any, numbers: Mapping[str, Array]) -> None:
    """Try the push on shapes, in three dimensions."""

    def shape(*axes: int) -> Any:
        return jax.ShapeDtypeStruct(axes, np.dtype(np.float32))

    arguments = ", ".join(("pair", "u", *numbers))
    one = shape(1, 5, 4)
    try:
        inspect.signature(push).bind(None, None, **numbers)
    except (TypeError, ValueError) as error:
        raise PackingError(f"the push must be a function push({arguments}): {error}") from error
    jax.eval_shape(
        lambda *seen: _pushes(push, *seen), Pair(shape(3, 5, 4), one, one, one), one, dict.fromkeys(numbers, shape())
    )


def _pushes(push: Callable[..., Any], pair: Pair, u: Array, numbers: Mapping[str, Any]) -> Array:
    """The pushes, checked: a real vector for each pair, or one for all."""
    try:
        found = push(pair, u, **numbers)
    except Exception as error:
        choice = any(words in str(error) for words in ("truth value", "boolean conversion"))  # of an if
        hint = "; choose with jnp.where(condition, this, that), not with if" if choice else ""
        raise PackingError(f"the push cannot be called with arrays of pairs: {in_one_line(error)}{hint}") from error
    shape, dim = pair.direction.shape, len(pair.direction)
    vectors = isinstance(found, (Array, np.ndarray))
    real = vectors and any(jnp.issubdtype(found.dtype, one) for one in (jnp.floating, jnp.integer))
    if not real or found.shape not in (shape, (dim, 1, 1)):
        raise PackingError(
            f"the push has shape {np.shape(found)} for pairs of shape {shape}; it must be a vector for each pair, of "
            "real numbers, such as a number times pair.direction"
        )
    return found
