r"""Forces and stress of a packing, in a box that may be deformed, and the contacts that carry force at a minimum.

A deformation F (dim, dim) maps every minimum-image separation, u_ij = F (x_i - x_j): positions stay in the undeformed
cube, and F carries strain and shear. Energy, forces and stress are pure functions that can be differentiated in the
system, the positions and F. Each particle sums over its own row of neighbours. Forces are dimensionless; stress and
pressure are in mean diameters^(1-d), as energies are in mean diameters and volumes in mean diameters^d.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from packing_jax.errors import PackingError
from packing_jax.landscape.minima import Minimum
from packing_jax.observables.contacts import ContactNetwork, contact_network
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
    """f_ij = -dV/dr of every listed pair, dimensionless; zero beyond contact and on padding; pairs have two entries."""
    _, r, contact, real = _pairs(system, positions, rows, deformation)
    slope = jax.jvp(lambda x: system.energy(x, contact, system.unit), (r,), (jnp.ones_like(r),))[1]
    return jnp.where(real, -slope, 0.0)


def net_forces(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, "n dim"]:
    """-dE(F)/dx_i, dimensionless; each particle sums over its own row, so that its ``jvp`` has no scatter."""
    delta, r, _, _ = _pairs(system, positions, rows, deformation)
    weight = contact_forces(system, positions, rows, deformation) / r
    return jnp.sum(weight[..., None] * delta, axis=1) @ deformation


def stress(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, "dim dim"]:
    """Virial stress s_ab = (1/vol) sum_{i<j} V'(r) u_a u_b / r, in mean diameters^(1-d); negative under pressure."""
    delta, r, _, _ = _pairs(system, positions, rows, deformation)
    weight = contact_forces(system, positions, rows, deformation) / r
    virial = -0.5 * jnp.einsum("nk,nka,nkb->ab", weight, delta, delta)
    volume = jnp.linalg.det(deformation) * system.box**system.dim
    return virial / volume * system.unit ** (system.dim - 1)


def pressure(
    system: System, positions: Float[Array, "n dim"], rows: Int[Array, "n k"], deformation: Float[Array, "dim dim"]
) -> Float[Array, ""]:
    """p = -tr(stress)/d = -dE/dvol of an affine change of volume, in mean diameters^(1-d)."""
    return -jnp.trace(stress(system, positions, rows, deformation)) / system.dim


def force_network(minimum: Minimum) -> ContactNetwork:
    """The contacts that carry force at a minimum.

    A pair is in contact when its force is above ten times the minimum's force tolerance: smaller forces may remain
    where the minimisation stopped. A particle with fewer than d + 1 contacts is a rattler and is removed with its
    contacts, until every particle left has d + 1 contacts.

    Raises:
        PackingError: the minimisation did not converge.
    """
    minimum.require_converged()
    rows = np.asarray(minimum.rows)
    i, k = np.nonzero(rows > np.arange(len(rows))[:, None])
    pairs = np.stack([i, rows[i, k]], axis=1).astype(np.int64)
    least = 10 * minimum.tolerance
    return contact_network(minimum.system, minimum.positions, pairs, lambda _, force: force > least)


def require_jammed(minimum: Minimum) -> ContactNetwork:
    """The force network of a minimum that has one.

    Raises:
        PackingError: the minimisation did not converge, or it ended without force-bearing contacts.
    """
    network = force_network(minimum)
    if network.rattlers.all():
        raise PackingError(
            f"no two spheres of this packing (phi = {float(minimum.system.phi):.4g}) press on each other: it is an "
            "absorbing state, whose energy and derivatives are zero; compress it above jamming first"
        )
    return network
