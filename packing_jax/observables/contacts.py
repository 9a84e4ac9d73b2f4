r"""Contacts of a packing: their number without rattlers, isostaticity, forces and gaps.

:func:`find_contacts` counts pairs whose gap h = r / sigma_ij - 1 is at most a tolerance. At 0 these are the overlaps of
a jammed packing; an absorbed packing has none, and needs a tolerance of the order of the kick for its near contacts.
:func:`packing_jax.landscape.forces.force_network` counts pairs that carry a force at a minimum of the energy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.observables.periodic import Float, one_configuration
from packing_jax.spheres.geometry import minimum_image
from packing_jax.spheres.system import System


@dataclass(frozen=True)
class ContactNetwork:
    """The contacts of one configuration, its rattlers, and the pairs that nearly touch; C pairs in all."""

    pairs: NDArray[np.int64]  #: (C, 2) particles i < j
    gap: Float  #: (C,) h = r / sigma_ij - 1, negative for overlaps
    direction: Float  #: (C, dim) unit vector from j to i; zero for coincident centres
    force: Float  #: (C,) -dV/dr, positive when repulsive, dimensionless: energies and lengths in mean diameters
    touching: NDArray[np.bool_]  #: (C,) the pair is a contact
    rattlers: NDArray[np.bool_]  #: (N,) particles with fewer than dim + 1 contacts with particles that are no rattlers
    reach: float  #: every pair with a gap up to here is listed

    @property
    def backbone(self) -> NDArray[np.bool_]:
        """Mask (C,) of the contacts between particles that are not rattlers."""
        return self.touching & ~self.rattlers[self.pairs].any(axis=1)

    @property
    def contact_number(self) -> float:
        """Z = 2 N_c / N_0: contacts per particle, rattlers left out. NaN when every particle is a rattler."""
        kept = int(np.sum(~self.rattlers))
        return 2.0 * int(np.sum(self.backbone)) / kept if kept else float("nan")

    @property
    def excess_contacts(self) -> int:
        """N_c - [dim (N_0 - 1) + 1]: contacts beyond isostaticity, rattlers left out.

        A packing in a periodic box needs at least 0 to be rigid and bear a pressure: dim (N_0 - 1) constraints fix the
        positions, one more the density. Source: Goodrich, Liu and Nagel, PRL 109, 095704 (2012).

        Raises:
            PackingError: every particle is a rattler.
        """
        kept = int(np.sum(~self.rattlers))
        if not kept:
            raise PackingError("every particle is a rattler: there is no packing whose contacts could be counted")
        dim = self.direction.shape[1]
        return int(np.sum(self.backbone)) - (dim * (kept - 1) + 1)


class Histogram(NamedTuple):
    """A density in bins, with Poisson errors; each (bins,)."""

    middle: Float
    density: Float
    stderr: Float


def find_contacts(
    system: System, positions: np.ndarray | Array, tolerance: float = 0.0, reach: float = 0.0
) -> ContactNetwork:
    """The contact network of a configuration, whose contacts are the pairs with r <= (1 + tolerance) sigma_ij.

    Distances and forces are computed in float64 from the stored positions and diameters.

    Args:
        system: box, diameters and pair energy; one system, not a stack.
        positions: (N, dim), any periodic image, in the unit of the box side.
        tolerance: largest gap of a contact.
        reach: pairs with a gap up to here are listed too, for the distribution of gaps, but not as contacts.

    Raises:
        PackingError: positions that do not fit the system, a tolerance of -1 or less, or a reach past half the box.
    """
    array, box = _checked(system, positions)
    longest = (1.0 + max(tolerance, reach)) * float(np.max(np.asarray(system.diameters, np.float64)))
    if not (tolerance > -1 and np.isfinite(reach) and longest < box / 2):
        raise PackingError(
            f"a tolerance of {tolerance} and a reach of {reach} diameters; the first must be above -1, and the longest "
            f"contact, {longest:.3g}, below half the box, {box / 2:.3g}"
        )
    pairs = scipy.spatial.KDTree(array, boxsize=box).query_pairs(longest, output_type="ndarray").astype(np.int64)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return contact_network(system, array, pairs, lambda gap, _: gap <= tolerance, max(tolerance, reach))


def contact_network(
    system: System,
    positions: np.ndarray | Array,
    pairs: NDArray[np.int64],
    touches: Callable[[Float, Float], NDArray[np.bool_]],
    reach: float = 0.0,
) -> ContactNetwork:
    """The contact network among given pairs of particles; ``touches`` says which of them are contacts.

    Args:
        system: box, diameters and pair energy; one system, not a stack.
        positions: (N, dim), any periodic image, in the unit of the box side.
        pairs: (C, 2) particles i < j; every contact and every pair with a gap up to ``reach`` must be among them.
        touches: (gap (C,), force (C,)) -> (C,) whether a pair is a contact.
        reach: pairs with a larger gap are kept only where they are contacts.

    Raises:
        PackingError: positions that do not fit the system.
    """
    array, box = _checked(system, positions)
    diameters = np.broadcast_to(np.asarray(system.diameters, dtype=np.float64), (system.particles,))
    i, j = pairs.T
    bond = minimum_image(array[i] - array[j], box)
    distance = np.linalg.norm(bond, axis=1)
    sigma = 0.5 * (diameters[i] + diameters[j])
    gap, force = distance / sigma - 1.0, _forces(system, distance, sigma)
    touching = touches(gap, force)
    kept = touching | (gap <= reach)
    return ContactNetwork(
        pairs=pairs[kept],
        gap=gap[kept],
        direction=(bond / np.where(distance > 0, distance, 1.0)[:, None])[kept],
        force=force[kept],
        touching=touching[kept],
        rattlers=_rattlers(pairs[touching], system.particles, system.dim),
        reach=reach,
    )


def _checked(system: System, positions: np.ndarray | Array) -> tuple[Float, float]:
    """Wrapped positions of one system, and its box side."""
    if np.ndim(system.box):
        raise PackingError("this is a stack of systems; contacts are found in one system at a time")
    box = float(system.box)
    array = one_configuration(positions, box)
    if array.shape != (system.particles, system.dim):
        raise PackingError(f"positions have shape {array.shape}; this system's are ({system.particles}, {system.dim})")
    return array, box


def _forces(system: System, distance: Float, sigma: Float) -> Float:
    """-dV/dr in float64: in float32, 1 - r / sigma would round away the small overlaps of a jammed packing."""
    with jax.enable_x64(True):
        energy, unit = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (system.energy, system.unit))
        r, contact = jnp.asarray(distance), jnp.asarray(sigma)
        slope = jax.jvp(lambda x: energy(x, contact, unit), (r,), (jnp.ones_like(r),))[1]
        return -np.asarray(slope)


def _rattlers(contacts: NDArray[np.int64], particles: int, dim: int) -> NDArray[np.bool_]:
    """Particles with fewer than dim + 1 contacts, not counting contacts with particles that are rattlers themselves."""
    loose = np.zeros(particles, dtype=bool)
    while True:
        held = contacts[~loose[contacts].any(axis=1)]
        now = np.bincount(held.reshape(-1), minlength=particles) < dim + 1
        if np.array_equal(now, loose):
            return loose
        loose = now


def force_distribution(packings: Sequence[ContactNetwork], edges: np.ndarray) -> Histogram:
    """P(f / <f>): density of contact forces over the mean of their own packing, rattlers left out.

    Args:
        packings: from :func:`find_contacts`, or of minima from :func:`packing_jax.landscape.forces.force_network`.
        edges: (bins + 1,) increasing.

    Raises:
        PackingError: no contact with a force in some packing, or edges that do not increase.
    """
    scaled = []
    for packing in packings:
        force = packing.force[packing.backbone]
        if not (len(force) and force.mean() > 0):
            raise PackingError("a packing has no contact that bears a force; compress it, or leave it out")
        scaled.append(force / force.mean())
    values = np.concatenate(scaled) if scaled else np.zeros(0)
    return _histogram(values, edges, float(len(values)))


def gap_distribution(packings: Sequence[ContactNetwork], edges: np.ndarray) -> Histogram:
    """Density of gaps h: the neighbours of a particle per unit of h, rattlers left out.

    Its integral from the tolerance to h is the number of near contacts of a particle. In a jammed packing the density
    falls as h^-0.413 (Charbonneau et al., Phys. Rev. Lett. 114, 125504 (2015)).

    Args:
        packings: from :func:`find_contacts`, with a ``reach`` of at least the last edge.
        edges: (bins + 1,) increasing.

    Raises:
        PackingError: nothing but rattlers, edges that do not increase, or edges beyond a packing's ``reach``.
    """
    kept = sum(int(np.sum(~packing.rattlers)) for packing in packings)
    if not kept:
        raise PackingError("every particle is a rattler: no gaps are left to count; use a larger tolerance")
    reach, last = min(packing.reach for packing in packings), float(np.max(edges, initial=-np.inf))
    if last > reach + 1e-9 * (1.0 + abs(reach)):
        raise PackingError(
            f"the bins end at a gap of {last:.9g}, and pairs are listed up to {reach:.9g}: call find_contacts with "
            f"reach={last:.9g}"
        )
    gaps = [packing.gap[~packing.rattlers[packing.pairs].any(axis=1)] for packing in packings]
    return _histogram(np.concatenate(gaps), edges, 0.5 * kept)  # both particles of a pair see its gap


def _histogram(values: Float, edges: np.ndarray, norm: float) -> Histogram:
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise PackingError("the edges of the bins must be two or more increasing numbers")
    if not norm:
        raise PackingError("there is no packing to count in; give at least one")
    count = np.histogram(values, edges)[0]
    per_count = 1.0 / (norm * np.diff(edges))
    return Histogram(0.5 * (edges[1:] + edges[:-1]), count * per_count, np.sqrt(np.maximum(count, 1)) * per_count)
