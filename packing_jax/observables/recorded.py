"""Activity, energy and displacement of a configuration, which a simulation records as it runs.

Particles are stored in cell order, which depends on when rows were rebuilt; a float sum in that order would not be
reproducible. So counts are integers, and means go through :func:`packing_jax.exact.exact_mean`.
"""

import jax.numpy as jnp
from jax import Array

from packing_jax.exact import exact_mean, exact_row_sums
from packing_jax.spheres.configuration import Configuration
from packing_jax.spheres.energy import pair_rows
from packing_jax.spheres.geometry import sum_of_squares, unwrapped


def activity(seen: Configuration) -> Array:
    """f_a: the fraction of particles with at least one overlap r < (1 - cut) sigma_ij."""
    pairs = pair_rows(seen.system, seen.coordinates, seen.rows)
    active = jnp.any(pairs.overlapping(seen.system.cut), axis=1)
    return jnp.sum(active, dtype=jnp.int32).astype(pairs.distance.dtype) / seen.system.particles


def energy(seen: Configuration) -> Array:
    """E/N in mean diameters, as is the amplitude a0 of the pair energy (1/2 by default)."""
    system = seen.system
    pairs = pair_rows(system, seen.coordinates, seen.rows)
    unit = system.unit / system.box
    contact = jnp.broadcast_to(pairs.contact, pairs.distance.shape)
    rows = jnp.where(pairs.listed, system.energy(pairs.distance, contact, unit), 0.0) / unit
    # summed per particle first: (N, K) could be more entries than the exact mean takes
    return 0.5 * exact_mean(exact_row_sums(rows))


def mean_squared_displacement(seen: Configuration) -> Array:
    """<|x(t) - x(0)|^2> over particles, unwrapped, in squared mean diameters."""
    moved = unwrapped(seen.coordinates, seen.images, seen.start)
    return exact_mean(sum_of_squares(moved)) * (seen.side * seen.side)


def displacement(seen: Configuration) -> Array:
    """x(t) - x(0) of each particle, unwrapped, in mean diameters: (N, dim), in the order of the initial positions.

    ``record={"x": displacement}`` records the unwrapped motion that :mod:`packing_jax.observables.correlators` takes:
    a run's records are (replica, time, N, dim), and ``np.moveaxis(run["x"], -3, 0)`` has time first.
    """
    return seen.displacements
