r"""Derivatives of a jammed packing's properties with respect to its diameters, box, deformation and energy.

At an energy minimum the forces vanish, g(x, theta) = dE/dx = 0, for diameters, box side, deformation or any other
parameter theta of the energy. Moving theta moves the minimum by the implicit function theorem,

    dx/dtheta = -H^+ dg/dtheta,     H = d2E/dx2,

with one matrix-free conjugate-gradient solve for each direction (forward mode) or for each quantity (reverse mode).
:func:`equilibrium` makes the minimum a function of theta with this derivative. Energies, pressure and contact forces at
the minimum can then be differentiated to any order by ``jax.grad``, ``jax.jvp`` and others.
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
from packing_jax.landscape.curvature import largest_eigenvalues
from packing_jax.landscape.forces import net_forces, require_jammed
from packing_jax.landscape.minima import Minimum, check_differentiable_force, energy_function, rows_of
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
        """Positions of the minimum, as a function of ``system`` and ``deformation`` that can be differentiated.

        Args:
            system: the minimum's own system, with the leaves to be differentiated replaced
                (``dataclasses.replace(system, diameters=d)``); their values must be those of the minimum.
            deformation: F, which must be the identity; None where it is not differentiated. The derivative in F is the
                response to strain and shear.

        Returns:
            (N, dim) positions with the implicit derivative. Rattlers and the centre of the other particles stay.
            Derivatives are NaN where the solve did not converge, because the packing is not stable to first order.
            Positions and derivatives are NaN for a traced system with other values than the minimum's.

        Raises:
            PackingError: a system with other values than the minimum's, which would have to be minimised again, or a
                deformation that is not the identity.
        """
        if deformation is None:
            deformation = jnp.eye(self.system.dim, dtype=self.positions.dtype)
        elif not _traced(deformation) and not np.array_equal(np.asarray(deformation), np.eye(self.system.dim)):
            raise PackingError("the deformation is not the identity; derivatives are taken at the undeformed box")
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
        positions = _minimum_positions(system, deformation, self.positions, self.rows)
        for new, own in unseen:  # a factor, so that NaN reaches the derivatives as well
            positions = positions * jnp.where(jnp.all(new == own), 1.0, jnp.nan)
        return positions


#: Derivatives need a net force below this, dimensionless; their relative error is about the net over a contact's force.
_BALANCED = 1e-9

#: A lowest curvature below minus this share of the largest means a saddle; closer to zero it may be rounding.
_SADDLE = 1e-5

_ITERATIONS = 100  # of Lanczos, which finds both ends of the spectrum


def equilibrium(minimum: Minimum) -> Equilibrium:
    """A minimum as a function of its system, with dx/dtheta = -H^+ dg/dtheta as its derivative.

    The contacts are those of the minimum: a derivative opens and closes none. Global translations are projected out,
    and rattlers stay where they are. The energy scale ``system.unit`` is a leaf of its own: replacing the diameters
    alone changes neither it nor the pair energy's amplitude.

    Example:
        >>> at = equilibrium(minimum)
        >>> def p(diameters):
        ...     system = replace(minimum.system, diameters=diameters)
        ...     return pressure(system, at(system), at.rows, jnp.eye(system.dim))
        >>> jax.grad(p)(minimum.system.diameters)

    Raises:
        PackingError: forces that do not balance to 1e-9; a saddle; an absorbing state, which has no contacts and whose
            derivatives are all zero; or the linear energy, which has no Hessian at contact.
    """
    check_differentiable_force(minimum.system)
    minimum.require_converged()
    if minimum.force > _BALANCED:
        raise PackingError(
            f"the largest net force is {minimum.force:.3g}, and derivatives need {_BALANCED:g} or less: "
            "minimise with a smaller force"
        )
    network = require_jammed(minimum)
    rows = rows_of(network.pairs[network.backbone], minimum.system.particles)
    lowest, highest = _curvatures(minimum.system, minimum.positions, rows)
    if lowest < -_SADDLE * highest:
        raise PackingError(
            f"this is a saddle and not a minimum: forces balance, but the lowest curvature is {float(lowest):.3g} (the "
            f"largest {float(highest):.3g}); shake the positions a little and minimise again"
        )
    return Equilibrium(minimum.system, minimum.positions, rows)


@jax.jit
def _curvatures(system: System, positions: Array, rows: Int[Array, "n k"]) -> tuple[Array, Array]:
    """Lowest and highest eigenvalue of the Hessian by Lanczos: bounds from above and from below."""
    energy, y = energy_function(system, rows), positions / system.unit
    found = largest_eigenvalues(energy, y, jax.random.key(0), count=min(_ITERATIONS, y.size), iterations=_ITERATIONS)
    return jnp.nanmin(found.values), found.values[0]


def _traced(leaf: Any) -> bool:
    return isinstance(leaf, jax.core.Tracer)


@jax.custom_jvp
def _minimum_positions(system: System, deformation: Array, positions: Array, rows: Int[Array, "n k"]) -> Array:
    del system, deformation, rows  # only the derivative depends on them
    return positions


@_minimum_positions.defjvp
def _minimum_positions_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    system, deformation, positions, rows = primals
    system_dot, deformation_dot, _, _ = tangents
    # called again, instead of using its value: in second derivatives the minimum moves here too
    x = _minimum_positions(system, deformation, positions, rows)
    _, pull = jax.jvp(lambda s, f: net_forces(s, x, rows, f), (system, deformation), (system_dot, deformation_dot))

    # linearised once: the solve repeats the linear part only
    _, forces_moved = jax.linearize(lambda y: net_forces(system, y, rows, deformation), x)

    def stiffness(v: Array) -> Array:
        return -forces_moved(v)

    held = jnp.any(rows != jnp.arange(rows.shape[0], dtype=rows.dtype)[:, None], axis=1)
    solve = partial(_solve, held)
    return x, jax.lax.custom_linear_solve(stiffness, pull, solve, symmetric=True)


def _solve(held: Array, stiffness: Callable[[Array], Array], pull: Array) -> Array:
    """H^+ b by conjugate gradients, translations projected out of b and the result; NaN if it does not converge."""

    def centred(v: Array) -> Array:
        mean = jnp.mean(v, axis=0, keepdims=True, where=held[:, None])
        return jnp.where(held[:, None], v - mean, 0.0)

    pull = centred(pull)
    moved, _ = jax.scipy.sparse.linalg.cg(stiffness, pull, tol=1e-12, maxiter=10 * pull.size)
    moved = centred(moved)
    residual = jnp.linalg.norm(stiffness(moved) - pull)
    return jnp.where(residual <= 1e-8 * jnp.linalg.norm(pull), moved, jnp.nan)
