r"""The Langevin map whose first two moments are those of BRO and SGD.

pair       dx_i = -eps sum_j [grad V_ij + 3^(-1/2) (g_ij g_ij^T)^(1/2) xi_ij],  g_ij = grad_i V_ij
particle   dx_i = -eps [G_i + 3^(-1/2) (G_i G_i^T)^(1/2) xi_i],                  G_i = sum_j g_ij

Since (g g^T)^(1/2) = g g^T/|g| and a unit vector times a standard normal vector is a standard normal number, the
pair term is -eps g_ij (1 + z_ij/sqrt 3), z ~ N(0, 1): BRO with a Gaussian of mean 1 and variance 1/3 in the place of
2u. Partners share z with correlation p (1 unless given), which conserves the centre of mass.

With the linear energy V = R - r/2 the slope is 1/2, and the mean eps/2 and variance eps^2/12 of a pair move are BRO's.
Source: arXiv:2411.11834.
"""

from dataclasses import dataclass

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from packing_jax.spheres import noise
from packing_jax.spheres.energy import pair_slopes
from packing_jax.spheres.fixed_point import Followed
from packing_jax.spheres.geometry import float_of
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.potential import bounded
from packing_jax.spheres.rules.base import (
    Coupling,
    Info,
    Rule,
    Scene,
    as_move,
    check_coupling,
    check_positive,
    exact_row_sum,
    look,
    pair_normals,
    sum_of_kicks,
)
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree


@pytree(meta=["coupling", "correlation"])
@dataclass(frozen=True)
class Langevin(Rule):
    """The moment-matched Langevin map; build with :func:`langevin`."""

    kick: Leaf
    coupling: Coupling
    correlation: float
    local = True  #: what does not overlap does not move
    reciprocal = True  #: partners get opposite terms, up to draws of their own

    def step(
        self, words: noise.Words, system: System, coordinates: Array | Followed, neighbors: Neighbors, state: tuple[()]
    ) -> tuple[Array, tuple[()], Info]:
        """One step of the map."""
        dtype = float_of(coordinates)
        scene = look(words, system, coordinates, neighbors, system.energy.reach)
        pairs = scene.pairs
        kick = self.kick.astype(dtype) * system.unit / system.box
        slope = pair_slopes(system, pairs)
        amplitude = np.asarray(1.0 / np.sqrt(3.0), dtype)
        if self.coupling == "pair":

            def kicks(size: Array, pull: Array | float) -> list[Array]:
                weight = -size * slope * pull / pairs.distance
                return [weight * part for part in pairs.separation]

            def draw(scene: Scene) -> Array:
                return 1.0 + pair_normals(scene, self.correlation, dtype) * amplitude

            move, active = sum_of_kicks(kicks, kick, draw, self.correlation == 1.0, scene)
            return move, state, Info(active, kick >= 0.5, move)
        bound = system.energy.largest_slope(system.diameters, system.unit)
        weight = bounded(slope, bound) / pairs.distance
        gradient, active = exact_row_sum([weight * part for part in pairs.separation], bound, scene)
        z = noise.normal(scene.particle, dtype)
        move = as_move(-kick * (1.0 + amplitude * z)[None] * gradient, coordinates)
        return move, state, Info(active, kick >= 0.5, gradient)


def langevin(kick: ArrayLike, coupling: Coupling = "pair", correlation: float = 1.0) -> Langevin:
    """The Langevin map of BRO's two moments: dx_i = -eps sum_j grad_i V_ij (1 + z_ij/sqrt 3), z ~ N(0, 1).

    The particle-wise form is in the docstring of :mod:`packing_jax.spheres.rules.langevin`. Source: arXiv:2411.11834.

    Args:
        kick: eps > 0, one number or one per replica.
        coupling: "pair" or "particle".
        correlation: p in [0, 1] of the partners' Gaussian draws, for "pair" only.

    Raises:
        PackingError: an argument out of range.
    """
    correlation = check_coupling(coupling, correlation, ("pair", "particle"))
    return Langevin(check_positive("the kick", kick), coupling, correlation)
