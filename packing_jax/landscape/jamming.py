r"""Jamming: the packing fraction phi_J at which compressed spheres begin to carry force, and the moduli above it.

phi_J is a property of a packing and of how it was made. :func:`jam` compresses and decompresses one packing in steps
that shrink, each from the last minimum; :func:`bisect` quenches the same start at every phi. Fast quenches of random
starts give 0.842 for the 2D 1:1.4 mixture and 0.639 for equal spheres in 3D (O'Hern et al., Phys. Rev. E 68, 011306,
2003). Above phi_J, with dphi = phi - phi_J and the exponent a of the energy: E ~ dphi^a, p ~ dphi^(a-1),
Z - 2d ~ dphi^(1/2), B ~ dphi^(a-2), G ~ dphi^(a-3/2).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from packing_jax.errors import PackingError
from packing_jax.landscape.equilibrium import Equilibrium, equilibrium
from packing_jax.landscape.forces import deformed_energy, force_network, pressure
from packing_jax.landscape.minima import FIRE, Minimum, minimise
from packing_jax.spheres.system import System

#: A minimum is jammed above this energy per particle in mean diameters, which is a relative overlap of about 1e-8.
#: Source: O'Hern et al., Phys. Rev. E 68, 011306 (2003).
JAMMED_ENERGY = 1e-16

#: :func:`jam` and :func:`bisect` bracket phi_J to this width.
_RESOLUTION = 1e-6

#: Soft modes close to jamming take hundreds of thousands of steps.
_STEPS = 2_000_000


def is_jammed(minimum: Minimum) -> bool:
    """Whether the energy per particle of a minimum is above 1e-16 mean diameters.

    Raises:
        PackingError: it is above, but the forces do not balance yet.
    """
    # the energy can only fall: once it is below, the forces need not balance
    jammed = minimum.energy > JAMMED_ENERGY * minimum.system.particles * float(minimum.system.unit)
    if jammed:
        minimum.require_converged()
    return jammed


def _quench(system: System, positions: Any, optimizer: optax.GradientTransformation) -> Minimum:
    return minimise(system, positions, optimizer, steps=_STEPS, floor=JAMMED_ENERGY)


@dataclass(frozen=True)
class Jamming:
    """A jamming point: phi_J is bracketed between a packing that is jammed and one that is not."""

    phi: float  #: middle of the bracket
    width: float  #: of the bracket
    minimum: Minimum  #: the jammed packing at the upper end
    quenches: int  #: number of minimisations


def jam(
    system: System,
    positions: Float[Array, "n dim"] | Float[np.ndarray, "n dim"],
    optimizer: optax.GradientTransformation = FIRE,
    *,
    step: float = 0.01,
) -> Jamming:
    """phi_J of one packing by compression and decompression.

    The start is quenched at the system's phi. Then phi goes up by ``step`` while the packing is unjammed and down while
    it is jammed, each time from the last minimum. The step is halved whenever the direction turns, and doubled after
    three steps in one direction, until phi_J lies between values 1e-6 apart.

    Args:
        system: float64, of any phi: a start far below phi_J is a slow compression, one above it a fast quench.
        positions: (N, dim), the start in the unit of the box side.
        optimizer: as in :func:`~packing_jax.landscape.minima.minimise`.
        step: first change of phi.

    Raises:
        PackingError: as :func:`~packing_jax.landscape.minima.minimise`; a minimisation that did not converge; a phi
            outside (0, 1.5).

    Source: Gao, Blawzdziewicz and O'Hern, Phys. Rev. E 74, 061304 (2006).
    """
    if not _RESOLUTION <= step <= 0.1:
        raise PackingError(f"the step in phi is {step}; it must be from {_RESOLUTION:g} to 0.1")
    minimum, phi, quenches, run = _quench(system, positions, optimizer), float(system.phi), 1, 0
    jammed = is_jammed(minimum)
    while True:
        next_phi = phi - step if jammed else phi + step
        _check_phi(next_phi)
        following = _quench(system.at_phi(next_phi), minimum.positions, optimizer)
        quenches += 1
        turned = is_jammed(following) != jammed
        if turned and step <= _RESOLUTION:
            return Jamming(0.5 * (phi + next_phi), step, minimum if jammed else following, quenches)
        # a packing that rearranged may jam at a distant phi: after three steps in one direction the step grows again
        run = 0 if turned else run + 1
        if turned:
            step = max(0.5 * step, _RESOLUTION)
        elif run % 3 == 0:
            step = 2.0 * step
        jammed = jammed != turned
        minimum, phi = following, next_phi


def bisect(
    system: System,
    positions: Float[Array, "n dim"] | Float[np.ndarray, "n dim"],
    low: float,
    high: float,
    optimizer: optax.GradientTransformation = FIRE,
) -> Jamming:
    """phi_J of one start by bisection: the same positions are quenched afresh at every phi.

    Args:
        system: float64; its phi does not matter.
        positions: (N, dim), the start of every quench.
        low: a phi at which the quench ends unjammed.
        high: a phi at which it ends jammed.
        optimizer: as in :func:`~packing_jax.landscape.minima.minimise`.

    Raises:
        PackingError: as :func:`~packing_jax.landscape.minima.minimise`; a minimisation that did not converge; a quench
            at ``low`` that jams, or one at ``high`` that does not.
    """
    if not low < high:
        raise PackingError(f"the bracket of phi_J is from {low} to {high}; the first must be the smaller")
    _check_phi(low)
    _check_phi(high)
    if is_jammed(_quench(system.at_phi(low), positions, optimizer)):
        raise PackingError(f"the quench at phi = {low:.6g} is jammed; begin the bracket lower")
    minimum = _quench(system.at_phi(high), positions, optimizer)
    if not is_jammed(minimum):
        raise PackingError(f"the quench at phi = {high:.6g} is not jammed; end the bracket higher")
    quenches = 2
    while high - low > _RESOLUTION:
        middle = 0.5 * (low + high)
        trial = _quench(system.at_phi(middle), positions, optimizer)
        quenches += 1
        if is_jammed(trial):
            high, minimum = middle, trial
        else:
            low = middle
    return Jamming(0.5 * (low + high), high - low, minimum, quenches)


def _check_phi(phi: float) -> None:
    if not 0.0 < phi < 1.5:
        raise PackingError(f"the search for jamming came to phi = {phi:.4g}, out of (0, 1.5)")


def follow(
    minimum: Minimum, phis: Sequence[float] | Float[np.ndarray, "p"], optimizer: optax.GradientTransformation = FIRE
) -> Iterator[Minimum]:
    """The minima of a packing compressed or decompressed through ``phis``, each from the one before.

    Raises:
        PackingError: a minimisation did not converge.
    """
    for phi in phis:
        minimum = minimise(minimum.system.at_phi(float(phi)), minimum.positions, optimizer, steps=_STEPS)
        minimum.require_converged()
        yield minimum


# --- properties of a jammed packing ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Mechanics:
    """Mechanical properties of a minimum; lengths and energies in mean diameters, moduli in mean diameters^(1-d)."""

    phi: float
    energy: float  #: per particle
    pressure: float
    bulk_modulus: float  #: B = -vol dp/dvol at relaxed positions
    shear_modulus: float  #: G, averaged over all shears without change of volume
    contact_number: float  #: Z, rattlers left out
    excess_contacts: int  #: N_c - [d (N_0 - 1) + 1]
    rattler_fraction: float  #: of the particles


def mechanics(minimum: Minimum) -> Mechanics:
    """Pressure, moduli and contact number of a jammed minimum.

    Raises:
        PackingError: the minimisation did not converge, or no contact carries a force.
    """
    system = minimum.system
    at = equilibrium(minimum)
    network = force_network(minimum)
    bulk, shear = jax.jit(elastic_moduli)(at)
    return Mechanics(
        phi=float(system.phi),
        energy=minimum.energy / (system.particles * float(system.unit)),
        pressure=float(jax.jit(pressure)(system, minimum.positions, at.rows, jnp.eye(system.dim))),
        bulk_modulus=float(bulk),
        shear_modulus=float(shear),
        contact_number=network.contact_number,
        excess_contacts=network.excess_contacts,
        rattler_fraction=float(np.mean(network.rattlers)),
    )


def _strains(dim: int) -> np.ndarray:
    """The unit tensor, then an orthonormal basis of the symmetric traceless tensors, (d (d + 1)/2, dim, dim)."""
    basis = [np.eye(dim)]
    for a in range(dim):
        for b in range(a):
            e = np.zeros((dim, dim))
            e[a, b] = e[b, a] = 0.5**0.5
            basis.append(e)
    for a in range(1, dim):
        e = np.diag([1.0] * a + [-float(a)] + [0.0] * (dim - a - 1))
        basis.append(e / np.linalg.norm(e))
    return np.stack(basis)


def elastic_moduli(at: Equilibrium) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Bulk and shear modulus (B, G) with particles free to relax, in mean diameters^(1-d); differentiable.

    With F = exp(t e) and the energy relaxed at each t, U(t) = E/vol: B = U''/d^2 + p for e = 1, and G = U''/2 averaged
    over an orthonormal basis of symmetric traceless e; for a simple shear gamma, U''/2 is d2U/dgamma2. G of one finite
    packing can be negative close to jamming, because the energy was minimised at a fixed shape of the box.

    Raises:
        PackingError: one dimension, where there is no shear.

    Source: Goodrich, Liu and Sethna, PNAS 113, 9745 (2016), for the average over directions.
    """
    system = at.system
    dim = system.dim
    if dim < 2:
        raise PackingError("a packing in one dimension has no shear; moduli need d >= 2")
    vol = system.box**dim / system.unit ** (dim - 1)

    def curvature(e: Array) -> Array:
        def slope(t: Array) -> Array:
            def deformed(s: Array) -> Array:  # exp(s e) to second order: U is differentiated twice
                return jnp.eye(dim) + s * e + 0.5 * s * s * (e @ e)

            # at the relaxed positions the forces vanish: dU/dt is the derivative at fixed positions
            x = at(system, deformed(t))
            return jax.jvp(lambda s: deformed_energy(system, x, at.rows, deformed(s)), (t,), (jnp.ones_like(t),))[1]

        zero = jnp.zeros((), system.box.dtype)
        return jax.jvp(slope, (zero,), (jnp.ones_like(zero),))[1] / vol

    second = jax.vmap(curvature)(jnp.asarray(_strains(dim), system.box.dtype))
    p = pressure(system, at(system), at.rows, jnp.eye(dim, dtype=system.box.dtype))
    return second[0] / dim**2 + p, 0.5 * jnp.mean(second[1:])
