"""Particles at given places with their neighbour rows, and one step of a rule under many keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from packing_jax.spheres import neighbors as nb
from packing_jax.spheres import noise
from packing_jax.spheres.geometry import to_fixed
from packing_jax.spheres.system import System

Placed = tuple[System, jax.Array, nb.Neighbors]


def listed(system: System, positions: np.ndarray) -> Placed:
    """Sorted coordinates and their neighbour rows."""
    coordinates = to_fixed(jnp.asarray(positions, system.box.dtype), system.box)
    plan = nb.plan_for(system, 0.3)
    order = nb.cell_order(plan, coordinates)
    neighbors = jax.jit(nb.build, static_argnums=0)(plan, system, coordinates[:, order], order)
    assert not nb.overflowed(plan, neighbors)
    return system, coordinates[:, order], neighbors


@jax.jit
def step(keys: jax.Array, rule: Any, system: System, coordinates: jax.Array, neighbors: nb.Neighbors) -> Any:
    state = rule.init(system, coordinates)
    words = jax.vmap(noise.particle_words, (0, None))(keys, neighbors.tags)
    moves, _, info = jax.vmap(lambda one: rule.step(one, system, coordinates, neighbors, state))(words)
    return moves, info
