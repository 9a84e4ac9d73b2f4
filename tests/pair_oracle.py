"""Pair energies and their gradients as sums over all pairs in float64 numpy, and systems to try them on."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from packing_jax import PairEnergy, System, total_energy
from packing_jax.spheres import geometry
from packing_jax.spheres.energy import pair_rows, pair_slopes
from packing_jax.spheres.potential import Overlap

#: Compiled once for all tests: eager derivatives would compile each operation alone.
value_and_gradient = jax.jit(jax.value_and_grad(total_energy, argnums=1))
value_and_both = jax.jit(jax.value_and_grad(total_energy, argnums=(0, 1)))
pairs_along = jax.jit(pair_rows)
to_fixed = jax.jit(geometry.to_fixed)
slopes_of = jax.jit(pair_slopes)


@jax.jit
def curvature_along(system: System, x: jax.Array, v: jax.Array) -> jax.Array:
    """Hessian-vector product."""
    return jax.jvp(lambda y: jax.grad(total_energy, argnums=1)(system, y), (x,), (v,))[1]


FAMILY = [pytest.param(1.0, id="linear"), pytest.param(2.0, id="harmonic"), pytest.param(2.5, id="hertzian")]


def pairs_of(x: np.ndarray, sigma: np.ndarray, box: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimum-image separations, distances and contact distances of all ordered pairs."""
    delta = x[:, None] - x[None]
    delta -= box * np.round(delta / box)
    sigma = np.broadcast_to(sigma, len(x))
    return delta, np.sqrt(np.sum(delta**2, axis=-1)), 0.5 * (sigma[:, None] + sigma[None])


def energy_of(x: np.ndarray, sigma: np.ndarray, box: float, a: float, a0: float) -> float:
    """sum_{i<j} (a0/a) (1 - r/sigma_ij)^a, all lengths in one unit."""
    _, r, contact = pairs_of(x, sigma, box)
    upper = np.triu(r < contact, 1)
    return float(np.sum((a0 / a) * (1 - r[upper] / contact[upper]) ** a))


def gradient_of(x: np.ndarray, sigma: np.ndarray, box: float, a: float, a0: float) -> np.ndarray:
    delta, r, contact = pairs_of(x, sigma, box)
    np.fill_diagonal(r, np.inf)
    slope = np.where(r < contact, -(a0 / contact) * np.maximum(1 - r / contact, 0) ** (a - 1), 0)
    return np.sum((slope / r)[..., None] * delta, axis=1)


def finite_difference(f: Callable[[np.ndarray], float | np.ndarray], x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """Central differences of a scalar or array function, along each entry of ``x``."""
    steps = h * np.eye(x.size).reshape((x.size, *x.shape))
    return np.array([(f(x + step) - f(x - step)) / (2 * h) for step in steps]).reshape(x.shape + np.shape(f(x)))


def crowd(dim: int, n: int, side: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions and unequal diameters with many overlaps, some through the periodic boundary."""
    rng = np.random.default_rng(seed)
    diameters = side * rng.uniform(0.3, 0.48, n)
    middle = rng.random(dim)
    return side * (middle + 0.25 * rng.standard_normal((n, dim))), diameters


def overlapping_system(
    dim: int, energy: Overlap | PairEnergy, n: int = 5, side: float = 1.0, dtype: type = np.float64
) -> tuple[System, np.ndarray, np.ndarray]:
    x, diameters = crowd(dim, n, side)
    system = System.from_diameters(diameters, n, dim, energy=energy, box=side, dtype=dtype)
    return system, x, diameters


def lennard_jones(r: jax.Array, sigma: jax.Array) -> jax.Array:
    return 4.0 * ((sigma / r) ** 12 - (sigma / r) ** 6)
