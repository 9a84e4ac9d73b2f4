r"""Contacts, forces and stress of a packing, in a box that may be deformed.

A deformation F (dim, dim) maps every minimum-image separation, u_ij = F (x_i - x_j): positions stay in the undeformed
cube, and F carries strain and shear. Everything here is a pure function that can be differentiated in the system, the
positions and F, and sums each particle's own row. Stress, pressure and forces are in mean diameters: an energy a0 in
mean diameters over a volume in mean diameters^d.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from packing_jax.errors import PackingError
from packing_jax.landscape.minima import Minimum
from packing_jax.spheres.geometry import minimum_image
from packing_jax.spheres.system import System


def _pairs(system: System, positions: Array, rows: Array, deformation: Array) -> tuple[Array, Array, Array, Array]:
    """Deformed separations (n, k, dim), distances, contact distances and the mask of pairs with a direction."""
    delta = minimum_image(positions[:, None] - positions[rows], system.box) @ deformation.T
    r2 = jnp.sum(delta * delta, axis=-1)
    real = (rows != jnp.arange(rows.shape[0], dtype=rows.dtype)[:, None]) & (r2 > 0)
    r = jnp.sqrt(jnp.where(real, r2, 1.0))
    sigma = system.diameters
    contact = jnp.broadcast_to(sigma if sigma.ndim == 0 else 0.5 * (sigma[:, None] + sigma[rows]), r.shape)
    return delta, r, contact, real


def deformed_energy(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, ""]:
    """E(F) = sum_{i<j} V(|F (x_i - x_j)|, sigma_ij), in the unit of the box side."""
    _, r, contact, real = _pairs(system, positions, rows, deformation)
    return 0.5 * jnp.sum(jnp.where(real, system.energy(r, contact, system.unit), 0.0))


def contact_forces(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, "n k"]:
    """f_ij = -dV/dr of every listed pair, dimensionless, zero beyond contact and on padding; pairs count twice."""
    _, r, contact, real = _pairs(system, positions, rows, deformation)
    slope = jax.jvp(lambda x: system.energy(x, contact, system.unit), (r,), (jnp.ones_like(r),))[1]
    return jnp.where(real, -slope, 0.0)


def net_forces(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, "n dim"]:
    """-grad_i E(F), dimensionless: each particle from its own row, so that its ``jvp`` gathers and never scatters."""
    delta, r, _, _ = _pairs(system, positions, rows, deformation)
    weight = contact_forces(system, positions, rows, deformation) / r
    return jnp.sum(weight[..., None] * delta, axis=1) @ deformation


def stress(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, "dim dim"]:
    """Virial stress s_ab = (1/vol) sum_{i<j} V'(r) u_a u_b / r, in mean diameters; negative under pressure."""
    delta, r, _, _ = _pairs(system, positions, rows, deformation)
    weight = contact_forces(system, positions, rows, deformation) / r
    virial = -0.5 * jnp.einsum("nk,nka,nkb->ab", weight, delta, delta)
    volume = jnp.linalg.det(deformation) * system.box**system.dim
    return virial / volume * system.unit ** (system.dim - 1)


def pressure(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, ""]:
    """p = -tr(stress)/d = -dE/dvol of an affine change of volume, in mean diameters."""
    return -jnp.trace(stress(system, positions, rows, deformation)) / system.dim


_contact_forces = jax.jit(contact_forces)


@dataclass(frozen=True)
class ForceNetwork:
    """The force network of a minimum: rattlers, and contacts that only they make, left out."""

    rows: Int[Array, "n k"]  #: force-bearing contacts, a particle's own index as padding
    rattlers: Bool[np.ndarray, "n"]  #: particles with fewer than d + 1 contacts, found recursively
    forces: Float[np.ndarray, "c"]  #: contact forces, each pair once, dimensionless
    dim: int

    @property
    def backbone(self) -> int:
        """N_0, the number of particles that are not rattlers."""
        return int(np.sum(~self.rattlers))

    @property
    def number(self) -> float:
        """Z = 2 N_c / N_0, contacts per particle without rattlers; 0 where nothing touches."""
        return 2.0 * self.forces.size / self.backbone if self.backbone else 0.0

    @property
    def excess(self) -> int:
        """N_c - [d (N_0 - 1) + 1], contacts beyond the isostatic count of a packing with one state of self stress."""
        return self.forces.size - (self.dim * (self.backbone - 1) + 1)


def force_network(minimum: Minimum) -> ForceNetwork:
    """The contacts that carry force at a minimum.

    A pair is in contact when its force is above ten times the minimum's force tolerance: below that, forces are the
    noise of the minimisation. A particle with fewer than d + 1 contacts cannot be held; it is taken out with its
    contacts, and again until every one left has d + 1.

    Raises:
        PackingError: the minimisation did not converge.
    """
    minimum.require_converged()
    dim, rows = minimum.system.dim, np.array(minimum.rows)
    force = np.array(_contact_forces(minimum.system, minimum.positions, minimum.rows, jnp.eye(dim)))
    touching = force > 10 * minimum.tolerance
    while True:
        loose = touching.sum(axis=1) < dim + 1
        kept = touching & ~loose[:, None] & ~loose[rows]
        if np.array_equal(kept, touching):
            break
        touching = kept
    me = np.arange(len(rows), dtype=rows.dtype)[:, None]
    return ForceNetwork(
        rows=jnp.asarray(np.where(touching, rows, me)),
        rattlers=np.asarray(~touching.any(axis=1)),
        forces=force[touching & (rows > me)],
        dim=dim,
    )


def require_jammed(minimum: Minimum) -> ForceNetwork:
    """The force network of a minimum that has one.

    Raises:
        PackingError: the minimisation did not converge, or it ended without force-bearing contacts.
    """
    network = force_network(minimum)
    if not network.backbone:
        raise PackingError(
            f"no two spheres of this packing (phi = {float(minimum.system.phi):.4g}) press on each other: it is an "
            "absorbing state, its energy is zero all around and so is every derivative; compress it above jamming first"
        )
    return network
