r"""Flatness of a landscape around a configuration, from random perturbations, for any function.

dV = <V(x + delta) - V(x)> / (N s^2) with delta ~ N(0, s^2) per coordinate; a flat landscape has a small dV. For smooth
V and small s it is Tr H / (2N), and unlike the Hessian it exists for the linear energy too. A packing with fewer
overlaps is flatter, so compare rules at equal energy.

Source: arXiv:2411.11834, with s = 0.03 R and 4000 perturbations.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from packing_jax.errors import PackingError
from packing_jax.estimate import Estimate
from packing_jax.landscape.curvature import Function, hessian_trace, largest_eigenvalues
from packing_jax.landscape.minima import check_differentiable_force, energy_function, neighbour_rows
from packing_jax.spheres.system import System

#: The perturbation of arXiv:2411.11834, 0.03 R, in mean diameters.
PAPER_SCALE = 0.015


def flatness(
    function: Function, configuration: Any, key: Array, *, scale: float | Array, per: int, samples: int = 4000
) -> Estimate:
    """Flatness dV = <f(x + delta) - f(x)> / (per scale^2) over Gaussian delta of standard deviation ``scale``.

    Args:
        function: configuration -> scalar.
        configuration: a pytree of real arrays: positions, network weights.
        key: ``jax.random.key(seed)``; the same key gives the same estimate.
        scale: standard deviation of the perturbation of each coordinate.
        per: the number of particles, or of weights, that dV is divided by.
        samples: perturbations.

    Returns:
        The mean and its standard error.

    Raises:
        PackingError: a scale, ``per`` or number of samples out of range.
    """
    if not isinstance(scale, jax.core.Tracer) and not np.all(np.asarray(scale) > 0):
        raise PackingError(f"the perturbation's scale is {scale}; it must be positive")
    if per < 1 or samples < 2:
        raise PackingError(f"per = {per} and samples = {samples}; at least 1 and 2 are needed")
    here = function(configuration)
    leaves, structure = jax.tree.flatten(configuration)

    def rise(k: Array) -> Array:
        keys = jax.random.split(k, len(leaves))
        moved = [
            x + jnp.asarray(scale, x.dtype) * jax.random.normal(keys[i], x.shape, x.dtype) for i, x in enumerate(leaves)
        ]
        return function(jax.tree.unflatten(structure, moved)) - here

    # a divisor of samples: a remainder would be compiled as a second program
    rises = jax.lax.map(rise, jax.random.split(key, samples), batch_size=math.gcd(samples, 8))
    norm = per * jnp.asarray(scale, rises.dtype) ** 2
    return Estimate(jnp.mean(rises) / norm, jnp.std(rises, ddof=1) / samples**0.5 / norm)


class PackingCurvature(NamedTuple):
    """Curvature of packings in mean diameters; leading replica axes as given."""

    half_trace: Estimate  #: Tr H / (2N), the limit of dV for small perturbations
    largest: Float[Array, "..."]  #: largest eigenvalue of H
    bound: Float[Array, "..."]  #: an eigenvalue of H lies within this distance of ``largest``


@partial(jax.jit, static_argnames=("samples",))
def _flatness(system: System, y: Array, rows: Array, keys: Array, scale: Array, samples: int) -> Estimate:
    def one(system: System, y: Array, rows: Array, key: Array) -> Estimate:
        return flatness(energy_function(system, rows), y, key, scale=scale, per=system.particles, samples=samples)

    return jax.vmap(one)(system, y, rows, keys)


@partial(jax.jit, static_argnames=("probes", "iterations"))
def _curvature(system: System, y: Array, rows: Array, keys: Array, probes: int, iterations: int) -> PackingCurvature:
    def one(system: System, y: Array, rows: Array, key: Array) -> PackingCurvature:
        energy = energy_function(system, rows)
        trace = hessian_trace(energy, y, jax.random.fold_in(key, 0), probes)
        top = largest_eigenvalues(energy, y, jax.random.fold_in(key, 1), 1, iterations)
        share = 0.5 / system.particles
        return PackingCurvature(Estimate(share * trace.value, share * trace.stderr), top.values[0], top.bounds[0])

    return jax.vmap(one)(system, y, rows, keys)


def packing_flatness(
    system: System,
    positions: Float[Array, "*r n dim"] | Float[np.ndarray, "*r n dim"],
    key: Array,
    *,
    scale: float = PAPER_SCALE,
    samples: int = 4000,
) -> Estimate:
    """dV of packings in mean diameters, all replicas in one call.

    Args:
        system: one system, or a stack of them.
        positions: (N, dim), or (R, N, dim) for a stack, in the unit of the box side.
        key: (R,) keys, or one, from which replica r gets ``fold_in(key, r)`` as in ``simulate``.
        scale: s in mean diameters, at most 0.1; by default 0.03 R, as in arXiv:2411.11834.
        samples: perturbations.

    Raises:
        PackingError: shapes that do not fit, positions that are not finite, a scale or number of samples out of range.
    """
    if not 0 < scale <= 0.1:
        raise PackingError(f"the perturbation's scale is {scale} mean diameters; it must be positive and at most 0.1")
    # a pair's separation changes by about sqrt(2) s per coordinate, and never by 20 s
    batch = _batch(system, positions, key, skin=20.0 * scale)
    estimate = _flatness(*batch, jnp.asarray(scale, batch[1].dtype), samples)
    return estimate if system.box.ndim else jax.tree.map(lambda x: x[0], estimate)


def packing_curvature(
    system: System,
    positions: Float[Array, "*r n dim"] | Float[np.ndarray, "*r n dim"],
    key: Array,
    *,
    probes: int = 100,
    iterations: int = 60,
) -> PackingCurvature:
    """Tr H/(2N) and the largest Hessian eigenvalue of packings in mean diameters, all replicas in one call.

    Args:
        system: one system, or a stack of them; an energy with a > 1.
        positions: as in :func:`packing_flatness`.
        key: as in :func:`packing_flatness`.
        probes: random vectors for the trace.
        iterations: Lanczos iterations for the largest eigenvalue.

    Returns:
        Both with their errors; zero for an absorbed packing, around which the energy is flat.

    Raises:
        PackingError: as :func:`packing_flatness`; a linear energy, whose Hessian is a delta function at contact.
    """
    check_differentiable_force(system)
    result = _curvature(*_batch(system, positions, key, skin=1e-3), probes, iterations)
    return result if system.box.ndim else jax.tree.map(lambda x: x[0], result)


def _batch(system: System, positions: Any, key: Array, skin: float) -> tuple[System, Array, Array, Array]:
    """System, positions in mean diameters, rows and keys with a replica axis."""
    shape = (*system.box.shape, system.particles, system.dim)
    if positions.shape != shape or not bool(np.all(np.isfinite(np.asarray(positions)))):
        raise PackingError(f"positions of shape {positions.shape}; they must be {shape} and finite")
    if not system.box.ndim:
        system, positions = jax.tree.map(lambda leaf: leaf[None], system), positions[None]
    count = len(positions)
    if key.shape not in ((), (count,)):
        raise PackingError(f"keys of shape {key.shape} for {count} replicas; one key, or one for each replica")
    keys = key if key.ndim else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    rows = [
        np.asarray(neighbour_rows(jax.tree.map(lambda leaf, r=r: leaf[r], system), positions[r], skin))
        for r in range(count)
    ]
    longest = max(one.shape[1] for one in rows)
    padding = np.arange(system.particles, dtype=np.int32)[:, None]
    padded = [np.concatenate([one, np.repeat(padding, longest - one.shape[1], axis=1)], axis=1) for one in rows]
    y = jnp.asarray(positions, system.box.dtype) / system.unit[:, None, None]
    return system, y, jnp.asarray(np.stack(padded)), keys
