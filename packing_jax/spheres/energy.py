"""Pairs along neighbour rows, and the energy of a configuration, whose gradient needs no scatter."""

from functools import reduce
from operator import and_
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from packing_jax.errors import PackingError, shown
from packing_jax.spheres.fixed_point import Followed, known_length, seen_from, with_derivative
from packing_jax.spheres.geometry import Placed, minimum_image, separation, sum_of_squares, take
from packing_jax.spheres.potential import PairEnergy
from packing_jax.spheres.system import System, check_system

# --- pairs along neighbour rows -------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Each of M particles i with each of its K listed neighbours j; lengths in box sides."""

    separation: tuple[Float[Array, "m k"], ...]  #: x_i - x_j, minimum image, one array per axis
    distance: Float[Array, "m k"]  #: |x_i - x_j|, positive even for coincident centres
    contact: Float[Array, "..."]  #: sigma_ij, () for equal spheres, else (M, K)
    listed: Array  #: (M, K) bool, False on padding

    def overlapping(self, cut: float = 0.0, reach: float = 1.0) -> Array:
        """Mask of pairs closer than (1 - cut) reach sigma_ij: overlaps, unless another reach is given."""
        return self.listed & (self.distance < self.contact * ((1.0 - cut) * reach))


def pair_rows(
    system: System,
    positions: Array | Followed,
    rows: Int[Array, "m k"] | Placed,
    own: Int[Array, " m"] | None = None,
    words: tuple[Array, Array] | None = None,
) -> Pairs:
    """Separations, distances and contact distances along neighbour rows of fixed-point coordinates (dim, N).

    Args:
        system: box and diameters, these in the order of the coordinates.
        positions: (dim, N) fixed point; ``Followed`` where derivatives are taken, with rows that are not ``Placed``.
        rows: (M, K) slots of neighbours, a particle's own slot as padding; in a batch they may be ``Placed``.
        own: (M,) slots of the particles whose rows these are; all N in their order when None.
        words: random words, different for each particle: (M, 1) of the particles and (M, K) of their neighbours. They
            give coincident centres a direction along the first axis, opposite for the two partners. Without them that
            direction is zero.

    The bits must be the same in every program that XLA compiles, so the arithmetic leaves it no choice: no sum of
    products, see :func:`packing_jax.spheres.geometry.sum_of_squares`, and no division by a bare square root, which
    becomes the processor's approximate reciprocal root, different for each vector width.
    """

    def mine(x: Array) -> Array:
        own_values: Array = x if own is None else take(x, own)
        return own_values[:, None]

    slots = jnp.arange(rows.shape[0], dtype=jnp.int32) if own is None else own
    followed = positions if isinstance(positions, Followed) else None
    fixed = positions.fixed if isinstance(positions, Followed) else positions
    parts = [separation(mine(x), take(x, rows)) for x in fixed]
    dtype = parts[0].dtype
    quantum = np.asarray(2.0 ** -(8 * dtype.itemsize), dtype)
    r2 = sum_of_squares(parts)
    if followed:
        parts = [*with_derivative(tuple(parts), seen_from(followed.real, rows, -1.0, followed.reciprocal))]
    if words is not None:
        way = jnp.where(words[0] < words[1], quantum, -quantum)
        # not r2 == 0: used again here, far from where it is computed, r2 of each pair would go to memory on a GPU
        parts[0] = jnp.where(reduce(and_, (part == 0 for part in parts)), way, parts[0])
    distance = jnp.maximum(jnp.sqrt(r2), quantum)
    sigma = system.diameters / system.box
    if followed:
        distance = known_length(parts, distance)
    if sigma.ndim == 0:
        contact = sigma
    elif followed:
        contact = 0.5 * seen_from((sigma,), rows, 1.0, followed.reciprocal)[0]
    else:
        contact = 0.5 * (mine(sigma) + take(sigma, rows))
    others = take(slots, rows) if isinstance(rows, Placed) else rows
    return Pairs(tuple(parts), distance, contact, others != slots[:, None])


def pair_slopes(system: System, pairs: Pairs) -> Array:
    """dV/dr of every listed pair (M, K), dimensionless, zero beyond the energy's reach and on padding."""
    unit = system.unit / system.box
    contact = jnp.broadcast_to(pairs.contact, pairs.distance.shape)
    _, slope = jax.jvp(lambda r: system.energy(r, contact, unit), (pairs.distance,), (jnp.ones_like(pairs.distance),))
    if isinstance(system.energy, PairEnergy):
        slope = system.energy.within_bound(slope)
    return jnp.where(pairs.listed, slope, 0.0)


def all_pairs_rows(particles: int) -> Int[Array, "n k"]:
    """Neighbour rows that list every other particle, (N, N - 1)."""
    shift = np.arange(1, particles, dtype=np.int32)[None, :]
    return jnp.asarray((np.arange(particles, dtype=np.int32)[:, None] + shift) % particles, dtype=jnp.int32)


def _row_geometry(system: System, positions: Array, rows: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Separations (n, k, dim), distances with a zero-safe root, contact distances, masks of listed and of apart."""
    delta = minimum_image(positions[:, None] - positions[rows], system.box)
    r2 = jnp.sum(delta * delta, axis=-1)
    apart = r2 > 0
    r = jnp.where(apart, jnp.sqrt(jnp.where(apart, r2, 1.0)), 0.0)
    sigma = system.diameters
    contact = sigma if sigma.ndim == 0 else 0.5 * (sigma[:, None] + sigma[rows])
    listed = rows != jnp.arange(rows.shape[0], dtype=rows.dtype)[:, None]
    return delta, r, jnp.broadcast_to(contact, r.shape), listed, apart


def _energy_sum(system: System, positions: Array, rows: Array) -> Array:
    _, r, contact, listed, _ = _row_geometry(system, positions, rows)
    return 0.5 * jnp.sum(jnp.where(listed, system.energy(r, contact, system.unit), 0.0))


def energy_gradient(system: System, positions: Array, rows: Array) -> Array:
    """grad_i E = sum_j V'(r_ij) rhat_ij, each particle from its own row, (N, dim)."""
    delta, r, contact, listed, apart = _row_geometry(system, positions, rows)
    slope = jax.jvp(lambda x: system.energy(x, contact, system.unit), (r,), (jnp.ones_like(r),))[1]
    weight = jnp.where(listed & apart, slope / jnp.where(apart, r, 1.0), 0.0)
    return jnp.sum(weight[..., None] * delta, axis=1)


_total_energy = jax.custom_jvp(_energy_sum)


@_total_energy.defjvp
def _total_energy_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    system, positions, rows = primals
    system_dot, positions_dot, _ = tangents
    # Along the positions: row sums instead of the transposed gather, which would be a scatter-add.
    # Along diameters, box and energy parameters: ordinary differentiation at fixed positions.
    energy, along_system = jax.jvp(lambda s: _energy_sum(s, positions, rows), (system,), (system_dot,))
    along_positions = jnp.sum(energy_gradient(system, positions, rows) * positions_dot)
    return energy, along_system + along_positions


def _check_places(system: Any, positions: Any) -> None:
    check_system(system)
    if not isinstance(positions, (Array, np.ndarray)) or not jnp.issubdtype(positions.dtype, jnp.floating):
        raise PackingError(f"the positions are {shown(positions)}; they must be an array of real numbers")
    if positions.shape != (system.particles, system.dim):
        raise PackingError(
            f"the positions have shape {positions.shape}; it must be {(system.particles, system.dim)}, particles by "
            "dimension"
        )


def total_energy(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"] | None = None
) -> Float[Array, ""]:
    r"""E = sum_{i<j} V(|x_i - x_j|, sigma_ij), periodic, with ``jax.grad`` exact and free of scatter.

    Args:
        system: box, diameters and pair energy; lengths in the unit of the box side.
        positions: (N, dim), in the same unit; any periodic image.
        rows: (N, K) neighbour indices, a particle's own index as padding; all pairs when None.

    Returns:
        The energy, a scalar in the unit of the box side (a0 is a length: half the mean diameter by default).

    Raises:
        PackingError: not a system, positions that are not real or of the wrong shape, or rows that are not integers.

    The derivative rule sums each particle's own row, so gradients and Hessian-vector products (``jvp`` of ``grad``)
    gather and never scatter. Two particles at the same point exert no force on each other; everything stays finite.
    """
    _check_places(system, positions)
    rows = all_pairs_rows(system.particles) if rows is None else rows
    known = isinstance(rows, (Array, np.ndarray)) and rows.ndim == 2 and len(rows) == system.particles
    if not known or not jnp.issubdtype(rows.dtype, jnp.integer):
        raise PackingError(f"the rows are {shown(rows)}; they must be integers, ({system.particles}, K)")
    return _total_energy(system, positions, rows)
