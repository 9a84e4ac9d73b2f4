r"""Langevin dynamics of spheres at a temperature: the overlap energy, and Gaussian noise on every particle.

    dx_i = -mu grad_i V + sqrt(2 kT mu) xi_i,   V = sum of the pair energies,   xi_i ~ N(0, I)

This is the Euler-Maruyama step of overdamped Brownian motion, whose stationary density is exp(-V/kT) as mu -> 0.
Lengths and energies are in mean diameters, as for SGD, whose learning rate is mu. Without contacts the mean squared
displacement after t steps is 2 dim kT mu t. A harmonic mode of stiffness rho has at finite mu the stationary variance
kT / (rho (1 - mu rho/2)): its variance obeys s' = (1 - mu rho)^2 s + 2 kT mu.

All particles move, overlapping or not, and at kT > 0 a run is never absorbed. At kT = 0 this is gradient descent, which
is absorbed when nothing is within the energy's reach. The rule :mod:`packing_jax.spheres.rules.langevin` is another
one: its noise is in the overlaps.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from packing_jax.spheres import noise
from packing_jax.spheres.energy import pair_slopes
from packing_jax.spheres.fixed_point import Followed
from packing_jax.spheres.geometry import float_of
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.potential import bounded
from packing_jax.spheres.rules.base import Info, Rule, as_move, check_not_negative, check_positive, exact_row_sum, look
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree


@pytree()
@dataclass(frozen=True)
class Thermal(Rule):
    """Langevin dynamics at a temperature; build with :func:`thermal`."""

    kick: Leaf
    temperature: Leaf
    local = False  #: what does not overlap diffuses
    reciprocal = True  #: partners push each other by opposite forces

    def step(
        self, words: noise.Words, system: System, coordinates: Array | Followed, neighbors: Neighbors, state: tuple[()]
    ) -> tuple[Array, tuple[()], Info]:
        """One step of all particles."""
        dtype = float_of(coordinates)
        scene = look(words, system, coordinates, neighbors, system.energy.reach)
        pairs, side = scene.pairs, system.unit / system.box
        kick, temperature = self.kick.astype(dtype), self.temperature.astype(dtype)
        bound = system.energy.largest_slope(system.diameters, system.unit)
        weight = bounded(pair_slopes(system, pairs), bound) / pairs.distance
        gradient, active = exact_row_sum([weight * part for part in pairs.separation], bound, scene)
        push = -(kick * side) * gradient
        # two roots: with one, a derivative in the kick would be NaN at zero temperature
        size = jnp.sqrt(temperature) * jnp.sqrt(2.0 * kick) * side
        shake = size * jnp.stack(noise.normals(scene.particle, coordinates.shape[0], dtype))
        # rounded one by one, because a sum of products has other bits where it is compiled to a fused multiply-add
        one, other = as_move(push, coordinates), as_move(shake, coordinates)
        move = one + other
        fits = jnp.all(jnp.abs(push) < 0.5) & jnp.all(jnp.abs(shake) < 0.5)  # false for NaN as well
        # quanta wrap at half the box: a sum of two of one sign that has the other sign is longer than that
        long = ((one < 0) == (other < 0)) & ((move < 0) != (one < 0))
        return move, state, Info(active | (temperature > 0), ~fits | jnp.any(long), gradient)


def thermal(kick: ArrayLike, temperature: ArrayLike) -> Thermal:
    """Langevin dynamics at a temperature: dx_i = -mu grad_i V + sqrt(2 kT mu) xi_i, xi_i ~ N(0, I), for all particles.

    Never absorbed at kT > 0; gradient descent at kT = 0, where a run has no derivative in kT. For the finite step see
    :mod:`packing_jax.spheres.rules.thermal`.

    Args:
        kick: mu > 0, the learning rate of gradient descent, one number or one per replica.
        temperature: kT >= 0 in the units of the energy, mean diameters; one number or one per replica.

    Raises:
        PackingError: an argument out of range.
    """
    return Thermal(check_positive("the kick", kick), check_not_negative("the temperature", temperature))
