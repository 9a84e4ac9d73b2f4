"""What the rules share: the protocol, the exact row sums, and the checks of their arguments."""

from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax import noise
from packing_jax.energy import Pairs, pair_rows
from packing_jax.errors import PackingError
from packing_jax.geometry import to_quanta
from packing_jax.neighbors import Neighbors
from packing_jax.system import System

#: Who shares a draw: the two partners of an overlap, or all overlaps of a particle.
Coupling = Literal["pair", "particle", "particle-normalised"]


class Info(NamedTuple):
    """What a step reports and does not carry."""

    active: Array  #: () int32, particles with at least one overlap before the move
    failed: Array  #: () bool, the move was not finite or longer than half the box


@runtime_checkable
class Rule(Protocol):
    """The algebra of a stochastic update, after optax; see the package docstring."""

    def init(self, system: System, coordinates: Array) -> Any:
        """What the rule carries from step to step."""
        ...

    def step(
        self, key: Array, system: System, coordinates: Array, neighbors: Neighbors, state: Any
    ) -> tuple[Array, Any, Info]:
        """Displacement in quanta (dim, N), the next state, and diagnostics."""
        ...


class Scene(NamedTuple):
    """One configuration as every rule sees it: its pairs, its overlaps, and this step's random words."""

    pairs: Pairs
    hit: Array  #: (K, N) bool, r < sigma_ij
    words: noise.Words
    own: Array  #: (1, N) pair words of the particle
    other: Array  #: (K, N) pair words of its neighbours
    active: Array  #: (N,) bool, at least one overlap deeper than the cut


def look(key: Array, system: System, coordinates: Array, neighbors: Neighbors) -> Scene:
    """Measure the pairs of a configuration and draw the words of a step."""
    words = noise.particle_words(key, neighbors.tags)
    pairs = pair_rows(system, coordinates, neighbors.rows, words.pair)
    hit = pairs.overlapping()
    deep = pairs.overlapping(system.cut) if system.cut else hit
    other = words.pair.at[neighbors.rows].get(mode="promise_in_bounds")
    return Scene(pairs, hit, words, words.pair[None, :], other, jnp.any(deep, axis=0))


def info(scene: Scene, failed: Array | None = None) -> Info:
    """Diagnostics of a step."""
    active = jnp.sum(scene.active, dtype=jnp.int32)
    return Info(active=active, failed=jnp.zeros((), bool) if failed is None else failed)


def sum_of_kicks(kicks: Array) -> Array:
    """Sum (dim, K, N) pair kicks in box sides to (dim, N) quanta, each rounded alone: partners stay opposite."""
    quanta = to_quanta(kicks)
    return jnp.sum(quanta, axis=1, dtype=quanta.dtype)


def exact_row_sum(values: Array, bound: Array | float) -> Array:
    """Sum (dim, K, N) floats over K exactly, in fixed point, whatever their order.

    Each value is at most ``bound``. The quantum is 2^-24 of the bound in float32, the resolution of the values
    themselves, and 2^-56 in float64. High and low halves are summed apart, so that 2^15 terms cannot overflow.
    """
    dtype = values.dtype
    bits = 8 * dtype.itemsize
    scale = np.asarray(2.0 ** (bits - 8), dtype) / jnp.asarray(bound, dtype)
    integers = jnp.rint(values * scale).astype(np.dtype(f"int{bits}"))
    half = np.asarray(bits // 2, integers.dtype)
    low = integers & np.asarray(2 ** (bits // 2) - 1, integers.dtype)
    high_sum = jnp.sum(integers >> half, axis=1, dtype=integers.dtype).astype(dtype)
    low_sum = jnp.sum(low, axis=1, dtype=integers.dtype).astype(dtype)
    return (high_sum * np.asarray(2.0 ** (bits // 2), dtype) + low_sum) / scale


def length(vectors: Array) -> Array:
    """Euclidean norm over the leading axis; a fixed order of additions."""
    return jnp.sqrt(sum((part * part for part in vectors[1:]), vectors[0] * vectors[0]))


def pair_uniforms(scene: Scene, correlation: float, dtype: np.dtype) -> Array:
    """u_ij ~ U(0, 1) with correlation p between u_ij and u_ji, (K, N).

    p = 1: one draw for both. p = 0: two. Between: a Gaussian copula, (z_ij, z_ji) bivariate normal with
    rho = 2 sin(pi p/6), u = Phi(z), which gives exactly the correlation p of the uniforms.
    """
    if correlation == 1.0:
        return noise.uniform(noise.pair_words(scene.own, scene.other), dtype)
    if correlation == 0.0:
        return noise.uniform(noise.directed_words(scene.own, scene.other), dtype)
    return jax.scipy.special.ndtr(pair_normals(scene, 2.0 * np.sin(np.pi * correlation / 6.0), dtype))


def pair_normals(scene: Scene, rho: float, dtype: np.dtype) -> Array:
    """z_ij ~ N(0, 1) with correlation rho between z_ij and z_ji, (K, N)."""
    if rho == 1.0:
        return noise.normal(noise.pair_words(scene.own, scene.other), dtype)
    alone = noise.normal(noise.directed_words(scene.own, scene.other), dtype)
    if rho == 0.0:
        return alone
    shared = noise.normal(noise.pair_words(scene.own, scene.other), dtype)
    return np.asarray(np.sqrt(rho), dtype) * shared + np.asarray(np.sqrt(1.0 - rho), dtype) * alone


# --- checks at the edge ---------------------------------------------------------------------------------------


def check_positive(name: str, values: Any) -> Array:
    """A finite positive number, or one per replica, as an array."""
    if isinstance(values, jax.core.Tracer):
        return jnp.asarray(values)
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or not np.all(np.isfinite(array) & (array > 0)):
        raise PackingError(f"{name} is {values}; it must be a finite positive number, in mean diameters")
    return jnp.asarray(values, dtype=array.dtype if array.dtype == np.float64 and _x64() else np.float32)


def check_fraction(name: str, values: Any) -> Array:
    """A number in (0, 1], or one per replica, as an array."""
    if isinstance(values, jax.core.Tracer):
        return jnp.asarray(values)
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or not np.all((array > 0) & (array <= 1)):
        raise PackingError(f"{name} is {values}; it must be above 0 and at most 1")
    return jnp.asarray(values, dtype=array.dtype if array.dtype == np.float64 and _x64() else np.float32)


def _x64() -> bool:
    return bool(jax.config.read("jax_enable_x64"))


def check_coupling(coupling: str, correlation: float, allowed: tuple[str, ...] = get_args(Coupling)) -> float:
    """The coupling must be one the rule knows; a correlation belongs to pairs only."""
    if coupling not in allowed:
        raise PackingError(f"the coupling is {coupling!r}; this rule knows {', '.join(allowed)}")
    if not 0.0 <= correlation <= 1.0:
        raise PackingError(f"the correlation is {correlation}; it must be between 0 (independent) and 1 (shared)")
    if coupling != "pair" and correlation != 1.0:
        raise PackingError(f"a correlation of {correlation} needs coupling 'pair'; {coupling!r} has no partner draws")
    return float(correlation)
