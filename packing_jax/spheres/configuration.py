"""One system at one time, as an observable sees it."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from packing_jax.spheres.energy import pair_rows
from packing_jax.spheres.geometry import to_positions, unwrapped
from packing_jax.spheres.system import System


class Neighbours(NamedTuple):
    """The particles near each particle, lengths in mean diameters; those of particle i stand in row i, in any order."""

    particle: Array  #: (N, K) int32, which particle it is; i itself where the row is longer than its neighbours
    separation: Array  #: (N, K, dim) x_i - x_j, by the shortest way through the periodic boundary; 0 for i itself
    distance: Array  #: (N, K), infinite for i itself
    contact: Array  #: (N, K) contact distance sigma_ij
    overlapping: Array  #: (N, K) bool, r < (1 - cut) sigma_ij


class Configuration(NamedTuple):
    """What an observable is called with: one system at one time.

    Properties have the particles in their own order, the one of ``start`` and of final positions, and lengths in mean
    diameters. The fields below are what the driver moves, in the order of the cells in which particles were found:
    counts and sums of integers over them are exact. A sum of floats depends on its order in the last bits, and on the
    program: :func:`packing_jax.exact.exact_mean` does not.
    """

    system: System  #: in a box of side 1, diameters in the order of the cells
    coordinates: Array  #: (dim, N) fixed point, the full range of integers is the box
    images: Array  #: (dim, N) int32, boxes crossed since the start
    start: Array  #: (dim, N) fixed point, where each particle started
    rows: Array  #: (N, K) slots of neighbours, a particle's own slot as padding
    tags: Array  #: (N,) int32, which particle each is; the order changes whenever rows are rebuilt

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
        """(N, dim) x(t) - x(0) in mean diameters, through the periodic boundary as often as it was crossed."""
        return unwrapped(self.coordinates, self.images, self.start).T[self._order] * self.side

    @property
    def diameters(self) -> Array:
        """(N,) in mean diameters."""
        ratio = self.system.diameters / self.system.unit
        return jnp.broadcast_to(ratio, self.tags.shape) if ratio.ndim == 0 else ratio[self._order]

    @property
    def neighbours(self) -> Neighbours:
        """Every pair closer than contact, or than the energy's reach, and some that are a little farther apart."""
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


#: A number or an array of fixed shape, measured on one configuration; runs are batches, so it is vmapped.
Observable = Callable[[Configuration], Array]
