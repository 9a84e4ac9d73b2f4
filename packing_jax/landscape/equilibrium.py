r"""Derivatives of what a packing is, in what it is made of.

At an energy minimum the forces vanish, g(x, theta) = dE/dx = 0, for diameters, box side, deformation or any other
parameter theta of the energy. Moving theta moves the minimum by the implicit function theorem,

    dx/dtheta = -H^+ dg/dtheta,     H = d2E/dx2,

with one matrix-free conjugate-gradient solve for each direction (forward mode) or for each quantity (reverse mode).
:func:`equilibrium` gives jax the minimum as a function of theta with this derivative, and everything built on it,
energies, pressure, contact forces, is differentiated by ``jax.grad``, ``jax.jvp`` and the rest, to any order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from packing_jax.errors import PackingError
from packing_jax.landscape.contacts import net_forces, require_jammed
from packing_jax.landscape.curvature import largest_eigenvalues
from packing_jax.landscape.minima import Minimum, check_differentiable_force, energy_function
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree


@pytree()
@dataclass(frozen=True)
class Equilibrium:
    """A minimum as a differentiable function of its parameters; see :func:`equilibrium`."""

    system: System
    positions: Leaf  #: (N, dim)
    rows: Leaf  #: (N, K) force-bearing contacts

    def __call__(self, system: System, deformation: Float[Array, "dim dim"] | None = None) -> Float[Array, "n dim"]:
        """Positions of the minimum of ``system`` under ``deformation``, at the values that they have here.

        Args:
            system: the minimum's own system, with the leaves to be differentiated put in their places
                (``dataclasses.replace(system, diameters=d)``).
            deformation: F, the identity when None; its derivative is that under strain and shear.

        Returns:
            (N, dim) positions with the implicit derivative; rattlers do not move, and the mean of the others stays.
            Derivatives are NaN where the solve did not converge: a state that is not stable to first order. All is NaN
            for a traced system of other values than the minimum's.

        Raises:
            PackingError: a system of other values than the minimum's: this follows a minimum, it does not find one.
        """
        if deformation is None:
            deformation = jnp.eye(self.system.dim, dtype=self.positions.dtype)
        elif not _traced(deformation) and not np.array_equal(np.asarray(deformation), np.eye(self.system.dim)):
            raise PackingError("the deformation is not the identity; a minimum is followed from the undeformed box")
        leaves, shape = jax.tree.flatten(system)
        own_leaves, own_shape = jax.tree.flatten(self.system)
        alike = bool(shape == own_shape)  # type: ignore[operator]  # jax types a treedef as unknown
        both = [*zip(leaves, own_leaves, strict=alike), (deformation, jnp.eye(self.system.dim))]
        unseen = [one for one in both if any(map(_traced, one))]
        same = alike and all(
            np.array_equal(np.asarray(new), np.asarray(own)) for new, own in both if not (_traced(new) or _traced(own))
        )
        if not same:
            raise PackingError(
                "this system is not the one of the minimum; derivatives are taken at the minimum's own values, "
                "and for other values the packing must be minimised again"
            )
        positions = _followed(system, deformation, self.positions, self.rows)
        for new, own in unseen:  # a product, so that derivatives are NaN as well
            positions = positions * jnp.where(jnp.all(new == own), 1.0, jnp.nan)
        return positions


#: Largest net force, dimensionless, of what derivatives are taken at: they are off by about it over a contact's force.
_BALANCED = 1e-9

#: Curvatures below minus this share of the largest are a saddle's; above it they may be what a contact leaves.
_SADDLE = 1e-5

_ITERATIONS = 100  # of Lanczos, which finds both ends of the spectrum at once


def equilibrium(minimum: Minimum) -> Equilibrium:
    """A minimum as a function of its system, with dx/dtheta = -H^+ dg/dtheta as its derivative.

    Contacts are those of the minimum: the derivative is exact up to the next contact that opens or closes. Global
    translations are projected out, rattlers stay where they are. The energy scale ``system.unit`` is a leaf of its
    own: replacing the diameters alone keeps it, and the pair energy's amplitude with it.

    Example:
        >>> at = equilibrium(minimum)
        >>> def p(diameters):
        ...     system = replace(minimum.system, diameters=diameters)
        ...     return pressure(system, at(system), at.rows, jnp.eye(system.dim))
        >>> jax.grad(p)(minimum.system.diameters)

    Raises:
        PackingError: the forces do not balance to 1e-9, or do at a saddle; nothing presses on anything (an absorbing
            state, where every derivative is zero); or the energy is linear and has no Hessian at contact.
    """
    check_differentiable_force(minimum.system)
    minimum.require_converged()
    if minimum.force > _BALANCED:
        raise PackingError(
            f"the largest net force is {minimum.force:.3g}, and derivatives need {_BALANCED:g} or less: "
            "minimise with a smaller force"
        )
    network = require_jammed(minimum)
    lowest, highest = _curvatures(minimum.system, minimum.positions, network.rows)
    if lowest < -_SADDLE * highest:
        raise PackingError(
            f"this is a saddle and not a minimum: forces balance, but the lowest curvature is {float(lowest):.3g} (the "
            f"largest {float(highest):.3g}); shake the positions a little and minimise again"
        )
    return Equilibrium(minimum.system, minimum.positions, network.rows)


@jax.jit
def _curvatures(system: System, positions: Array, rows: Int[Array, "n k"]) -> tuple[Array, Array]:
    """Lowest and highest eigenvalue of the Hessian, by Lanczos: a little inside of the true ones."""
    energy, y = energy_function(system, rows), positions / system.unit
    found = largest_eigenvalues(energy, y, jax.random.key(0), count=min(_ITERATIONS, y.size), iterations=_ITERATIONS)
    return jnp.nanmin(found.values), found.values[0]


def _traced(leaf: Any) -> bool:
    return isinstance(leaf, jax.core.Tracer)


@jax.custom_jvp
def _followed(system: System, deformation: Array, positions: Array, rows: Int[Array, "n k"]) -> Array:
    del system, deformation, rows  # they matter to the derivative only
    return positions


@_followed.defjvp
def _followed_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    system, deformation, positions, rows = primals
    system_dot, deformation_dot, _, _ = tangents
    # the function itself, not its value, so that second derivatives see the minimum move too
    x = _followed(system, deformation, positions, rows)
    _, pull = jax.jvp(lambda s, f: net_forces(s, x, rows, f), (system, deformation), (system_dot, deformation_dot))

    # linearised once: the solve repeats only what is linear in the move
    _, forces_moved = jax.linearize(lambda y: net_forces(system, y, rows, deformation), x)

    def stiffness(v: Array) -> Array:
        return -forces_moved(v)

    held = jnp.any(rows != jnp.arange(rows.shape[0], dtype=rows.dtype)[:, None], axis=1)
    solve = partial(_solve, held)
    return x, jax.lax.custom_linear_solve(stiffness, pull, solve, symmetric=True)


def _solve(held: Array, stiffness: Callable[[Array], Array], pull: Array) -> Array:
    """H^+ b by conjugate gradients, which stay in the range of H when b is in it; NaN when they do not converge."""

    def centred(v: Array) -> Array:
        mean = jnp.mean(v, axis=0, keepdims=True, where=held[:, None])
        return jnp.where(held[:, None], v - mean, 0.0)

    pull = centred(pull)
    moved, _ = jax.scipy.sparse.linalg.cg(stiffness, pull, tol=1e-12, maxiter=10 * pull.size)
    moved = centred(moved)
    residual = jnp.linalg.norm(stiffness(moved) - pull)
    return jnp.where(residual <= 1e-8 * jnp.linalg.norm(pull), moved, jnp.nan)
