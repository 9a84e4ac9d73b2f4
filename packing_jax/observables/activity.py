"""Activity, energy and mean squared displacement of a configuration.

Particles are stored in cell order, which depends on when lists were rebuilt; a float sum in that order would not be
reproducible. Counts are integers, and means go through :func:`exact_mean`.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.spheres.configuration import Configuration
from packing_jax.spheres.energy import pair_rows
from packing_jax.spheres.geometry import sum_of_squares, unwrapped
from packing_jax.spheres.system import System

Observable = Callable[[System, Configuration], Array]


def exact_mean(values: Array) -> Array:
    """Mean over all entries, the same bits in any order; relative error 2^-24 of the largest entry (float32).

    Entries are rounded to integers relative to the largest one and summed in limbs of 8 bits, so that 2^23 of them
    cannot overflow an int32.
    """
    flat = values.reshape(-1)
    largest = jnp.max(jnp.abs(flat))
    exponent = jnp.frexp(largest)[1]
    digits = 23 if values.dtype == np.float32 else 48
    integer = np.dtype(np.int32 if values.dtype == np.float32 else np.int64)
    whole = jnp.rint(jnp.ldexp(flat, digits - exponent)).astype(integer)
    total = jnp.zeros((), values.dtype)
    for shift in range(0, digits + 1, 8):  # the top limb carries the sign
        limb = whole >> np.asarray(shift, integer)
        if shift + 8 <= digits:
            limb = limb & np.asarray(0xFF, integer)
        total = total + jnp.ldexp(jnp.sum(limb, dtype=integer).astype(values.dtype), shift)
    mean = jnp.where(largest == 0, 0.0, jnp.ldexp(total / flat.shape[0], exponent - digits))
    return jnp.where(jnp.isfinite(largest), mean, largest)


def activity(system: System, configuration: Configuration) -> Array:
    """f_a: the fraction of particles with at least one overlap r < (1 - cut) sigma_ij."""
    pairs = pair_rows(system, configuration.coordinates, configuration.rows)
    active = jnp.any(pairs.overlapping(system.cut), axis=1)
    return jnp.sum(active, dtype=jnp.int32).astype(pairs.distance.dtype) / system.particles


def energy(system: System, configuration: Configuration) -> Array:
    """E/N in mean diameters: a0 is 1/2 there unless given otherwise."""
    pairs = pair_rows(system, configuration.coordinates, configuration.rows)
    unit = system.unit / system.box
    contact = jnp.broadcast_to(pairs.contact, pairs.distance.shape)
    rows = jnp.where(pairs.listed, system.energy(pairs.distance, contact, unit), 0.0) / unit
    # per particle first: all (N, K) at once could be more entries than the exact mean takes
    per_particle = _exact_rows(rows)
    return 0.5 * exact_mean(per_particle)


def _exact_rows(values: Array) -> Array:
    """Sum (N, K) over K in fixed point relative to the largest entry."""
    largest = jnp.max(jnp.abs(values))
    exponent = jnp.frexp(largest)[1]
    digits = 23 if values.dtype == np.float32 else 48
    integer = np.dtype(np.int32 if values.dtype == np.float32 else np.int64)
    whole = jnp.rint(jnp.ldexp(values, digits - exponent)).astype(integer)
    # two limbs: a heap of particles has rows of thousands
    low, high = (jnp.sum(limb, axis=1, dtype=integer).astype(values.dtype) for limb in (whole & 0xFFFF, whole >> 16))
    total = jnp.ldexp(low + jnp.ldexp(high, 16), exponent - digits)
    return jnp.where(jnp.isfinite(largest), total, largest)


def mean_squared_displacement(system: System, configuration: Configuration) -> Array:
    """<|x(t) - x(0)|^2> over particles in squared mean diameters, through the periodic boundary."""
    moved = unwrapped(configuration.coordinates, configuration.images, configuration.start)
    sides = system.box / system.unit
    return exact_mean(sum_of_squares(moved)) * (sides * sides)


def displacement(system: System, configuration: Configuration) -> Array:
    """x(t) - x(0) of each particle in mean diameters, through the periodic boundary: (N, dim), in the particles' order.

    ``record={"x": displacement}`` records the unwrapped motion that :mod:`packing_jax.observables.correlators` takes:
    a run's records are (replica, time, N, dim), and ``np.moveaxis(run["x"], -3, 0)`` has time first.
    """
    moved = unwrapped(configuration.coordinates, configuration.images, configuration.start)
    in_order = jnp.argsort(configuration.tags)
    return moved.T[in_order] * (system.box / system.unit)
