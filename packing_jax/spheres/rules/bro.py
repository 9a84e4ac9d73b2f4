r"""Biased random organization: overlapping particles kick each other apart by random amounts.

pair                  dx_i = eps sum_j u_ij rhat_ij, u_ij and u_ji ~ U(0, 1) with correlation p (1: reciprocal)
particle              dx_i = eps u_i sum_j rhat_ij
particle-normalised   dx_i = eps u_i S/|S|, S = sum_j rhat_ij; no move where S = 0

eps is in mean diameters, the sums run over overlaps r_ij < sigma_ij. Kicks are antiparallel, so draws of correlation
p give kicks of correlation c = -p. Sources: Wilken et al., Phys. Rev. Lett. 127, 038002 (2021); arXiv:2411.11834;
arXiv:2505.22933 for the correlation.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

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
    exact_row_sum,
    length,
    look,
    pair_uniforms,
    sum_of_kicks,
)
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree


@pytree(meta=["coupling", "correlation"])
@dataclass(frozen=True)
class BRO(Rule):
    """Biased random organization; build with :func:`bro`."""

    kick: Leaf
    coupling: Coupling
    correlation: float
    local = True  #: what does not overlap does not move
    reciprocal = True  #: partners get opposite terms, up to draws of their own

    def step(
        self, words: noise.Words, system: System, coordinates: Array | Followed, neighbors: Neighbors, state: tuple[()]
    ) -> tuple[Array, tuple[()], Info]:
        """One synchronous kick of every overlap."""
        dtype = float_of(coordinates)
        scene = look(words, system, coordinates, neighbors)
        kick = self.kick.astype(dtype) * system.unit / system.box
        pairs = scene.pairs
        if self.coupling == "pair":

            def kicks(size: Array, u: Array | float) -> list[Array]:
                weight = jnp.where(scene.hit, size * u / pairs.distance, 0.0)
                return [weight * part for part in pairs.separation]

            def draw(scene: Scene) -> Array:
                return pair_uniforms(scene, self.correlation, dtype)

            move, active = sum_of_kicks(kicks, kick, draw, self.correlation == 1.0, scene)
            return move, state, Info(active, kick >= 0.5, move)
        weight = jnp.where(scene.hit, 1.0 / pairs.distance, 0.0)
        push, active = exact_row_sum([weight * part for part in pairs.separation], 1.0, scene)
        info = Info(active, kick >= 0.5, push)
        if self.coupling == "particle-normalised":
            size = length(push)
            push = jnp.where(size > 0, 1.0 / jnp.where(size > 0, size, 1.0), 0.0)[None] * push
        u = noise.uniform(scene.particle, dtype)
        return as_move((kick * u)[None] * push, coordinates), state, info


def bro(kick: ArrayLike, coupling: Coupling = "pair", correlation: float = 1.0) -> BRO:
    """Biased random organization: dx_i = eps sum_j u_ij rhat_ij over overlaps, u ~ U(0, 1), or its particle-wise forms.

    All three are in the docstring of :mod:`packing_jax.spheres.rules.bro`. Source: Wilken et al., Phys. Rev. Lett. 127,
    038002 (2021); arXiv:2411.11834.

    Args:
        kick: eps > 0, one number or one per replica.
        coupling: "pair", "particle" or "particle-normalised".
        correlation: p in [0, 1] of the partners' draws, for "pair" only.

    Raises:
        PackingError: an argument out of range.
    """
    correlation = check_coupling(coupling, correlation)
    return BRO(check_positive("the kick", kick), coupling, correlation)
