r"""Random organization: overlapping particles move in random directions.

particle   dx_i = eps u_i n_i for every particle with an overlap, n_i isotropic
pair       dx_i = eps sum_j u_ij n_ij over overlaps, n_ij = -n_ji isotropic, u_ij and u_ji with correlation p

u ~ U(0, 1), eps in mean diameters. At p = 1 the pair version conserves the centre of mass. Source: Corte, Chaikin,
Gollub and Pine, Nat. Phys. 4, 420 (2008).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from packing_jax.exact import row_sums
from packing_jax.spheres import noise
from packing_jax.spheres.fixed_point import Followed
from packing_jax.spheres.geometry import float_of
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.rules.base import (
    Coupling,
    Info,
    Rule,
    Scene,
    as_move,
    check_coupling,
    check_positive,
    look,
    pair_uniforms,
    sum_of_kicks,
)
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree


@pytree(meta=["coupling", "correlation"])
@dataclass(frozen=True)
class RandomOrganization(Rule):
    """Random organization; build with :func:`random_organization`."""

    kick: Leaf
    coupling: Coupling
    correlation: float
    local = True  #: what does not overlap does not move
    reciprocal = True  #: partners get opposite terms, up to draws of their own

    def step(
        self, words: noise.Words, system: System, coordinates: Array | Followed, neighbors: Neighbors, state: tuple[()]
    ) -> tuple[Array, tuple[()], Info]:
        """One random move of everything that overlaps."""
        dtype = float_of(coordinates)
        scene = look(words, system, coordinates, neighbors)
        kick = self.kick.astype(dtype) * system.unit / system.box
        dim = coordinates.shape[0]
        if self.coupling == "pair":
            way = jnp.where(scene.own < scene.other, 1.0, -1.0).astype(dtype)
            n = noise.unit_vectors(noise.pair_words(scene.own, scene.other, which=1), dim, dtype)

            def kicks(size: Array, u: Array | float) -> list[Array]:
                weight = jnp.where(scene.hit, size * u, 0.0) * way
                return [weight * part for part in n]

            def draw(scene: Scene) -> Array:
                return pair_uniforms(scene, self.correlation, dtype)

            move, active = sum_of_kicks(kicks, kick, draw, self.correlation == 1.0, scene)
            return move, state, Info(active, kick >= 0.5, move)
        u = noise.uniform(scene.particle, dtype)
        n = noise.unit_vectors(scene.particle, dim, dtype)
        _, active = row_sums([], scene.deep)
        # what is called active is deeper than the cut; what moves is every overlap
        moving = active if scene.deep is scene.hit else row_sums([], scene.hit)[1]
        weight = jnp.where(moving, kick * u, 0.0)
        move = as_move(jnp.stack([weight * part for part in n]), coordinates)
        return move, state, Info(active, kick >= 0.5)


def random_organization(
    kick: ArrayLike, coupling: Coupling = "particle", correlation: float = 1.0
) -> RandomOrganization:
    """Random organization: a particle with an overlap moves by eps u_i n_i, u ~ U(0, 1), n_i a random unit vector.

    The pairwise form is in the docstring of :mod:`packing_jax.spheres.rules.random_organization`. Source: Corte,
    Chaikin, Gollub and Pine, Nat. Phys. 4, 420 (2008).

    Args:
        kick: eps > 0, one number or one per replica.
        coupling: "particle" or "pair".
        correlation: p in [0, 1] of the partners' step lengths, for "pair" only.

    Raises:
        PackingError: an argument out of range.
    """
    correlation = check_coupling(coupling, correlation, ("particle", "pair"))
    return RandomOrganization(check_positive("the kick", kick), coupling, correlation)
