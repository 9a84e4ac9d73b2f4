"""One system at one time, as an observable sees it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from packing_jax.spheres.energy import pair_rows
from packing_jax.spheres.geometry import to_positions, unwrapped
from packing_jax.spheres.system import System


class Neighbours(NamedTuple):
    """The neighbours of each particle, those of particle i in row i in any order; lengths in mean diameters."""

    particle: Array  #: (N, K) int32, index of the neighbour; i itself is padding
    separation: Array  #: (N, K, dim) x_i - x_j, minimum image; 0 for i itself
    distance: Array  #: (N, K), infinite for i itself
    contact: Array  #: (N, K) contact distance sigma_ij
    overlapping: Array  #: (N, K) bool, r < (1 - cut) sigma_ij


class Configuration(NamedTuple):
    """One system at one time, the argument of an observable.

    Properties list the particles in the order of the run's initial and final positions, with lengths in mean diameters.
    The fields below are what the driver moves, in cell order. Counts and sums of integers over them are exact; the last
    bits of a sum of floats depend on the order and the program, those of :func:`packing_jax.exact.exact_mean` do not.
    """

    system: System  #: in a box of side 1, diameters in the order of the cells
    coordinates: Array  #: (dim, N) fixed point, the full range of integers is the box
    images: Array  #: (dim, N) int32, boxes crossed since the start
    start: Array  #: (dim, N) fixed point, where each particle started
    rows: Array  #: (N, K) slots of neighbours, a particle's own slot as padding
    tags: Array  #: (N,) int32, index of the particle in each slot; the order changes whenever rows are rebuilt

    @property
    def side(self) -> Array:
        """() box side in mean diameters."""
        return self.system.box / self.system.unit

    @property
    def positions(self) -> Array:
        """(N, dim) in mean diameters, within the box: from 0 to ``side``."""
        fractions = to_positions(self.coordinates, jnp.ones_like(self.system.box))
        return fractions[self._order] * self.side

    @property
    def displacements(self) -> Array:
        """(N, dim) unwrapped displacement x(t) - x(0) in mean diameters."""
        return unwrapped(self.coordinates, self.images, self.start).T[self._order] * self.side

    @property
    def diameters(self) -> Array:
        """(N,) in mean diameters."""
        ratio = self.system.diameters / self.system.unit
        return jnp.broadcast_to(ratio, self.tags.shape) if ratio.ndim == 0 else ratio[self._order]

    @property
    def neighbours(self) -> Neighbours:
        """Every pair in contact or within the energy's reach, and some that are a little farther apart."""
        pairs, order = pair_rows(self.system, self.coordinates, self.rows), self._order
        distance = jnp.where(pairs.listed, pairs.distance * self.side, jnp.inf)
        contact = jnp.broadcast_to(pairs.contact, distance.shape) * self.side
        return Neighbours(
            particle=self.tags[self.rows][order],
            separation=jnp.stack(pairs.separation, axis=-1)[order] * self.side,
            distance=distance[order],
            contact=contact[order],
            overlapping=pairs.overlapping(self.system.cut)[order],
        )

    @property
    def _order(self) -> Array:
        return jnp.argsort(self.tags)


#: A function of one configuration that returns a number or an array of fixed shape; it is vmapped over the batch.
Observable = Callable[[Configuration], Array]
