r"""Pair energies V(r, sigma_ij): overlaps of any exponent, and functions of a user's own.

The overlap family is V(r) = (a0/a) (1 - r/sigma_ij)^a for r < sigma_ij and 0 beyond, with sigma_ij = R_i + R_j.

The convention, stated once: a0 = R, half the mean diameter, unless given. The linear energy (a = 1) of equal
spheres is then V = R - r/2 with slope |dV/dr| = 1/2, dimensionless. A gradient step at learning rate alpha (in mean
diameters) moves each partner by alpha/2, and pairwise BRO at kick eps has the first two moments of pairwise SGD at
alpha = 4 eps/3, b_f = 3/4 (arXiv:2411.11834).

Any other energy is a :class:`PairEnergy`, which may reach beyond contact. For example WCA with a clipped core:

    def wca(r, sigma):
        return 4.0 * ((sigma / r) ** 12 - (sigma / r) ** 6) + 1.0

    energy = PairEnergy(wca, slope_bound=50.0, reach=2 ** (1 / 6))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError, calling, is_real, real_numbers, shown
from packing_jax.exact import rounded_alone

#: V(distance, contact distance) in mean diameters, elementwise; zero at its end, ``reach`` contact distances.
PairFunction = Callable[[Array, Array], Array]

_ZERO = 1e-5  # counts as zero at the end of the range, relative to the largest |V| in its last tenth

_AN_ENERGY = (
    "the pair energy",
    "a function of arrays of distances and contact distances, elementwise and in jax.numpy",
)


@dataclass(frozen=True)
class PairEnergy:
    """A user's pair energy V(r, sigma_ij) for r < reach sigma_ij, 0 beyond, with a bound on its slope.

    Args:
        function: V of arrays of distances and contact distances in mean diameters, elementwise; a jax-md potential
            will do. Its values beyond ``reach`` never enter the dynamics.
        slope_bound: the steepest slope |dV/dr| of a pair, dimensionless: energies and lengths in mean diameters. The
            dynamics sums gradients in fixed point and must know how large one can be. Steeper pairs get this slope
            (gradient clipping), also in a hard core, where V overflows.
        reach: where V ends, in contact distances, 1 (contact) to 10. Neighbour rows reach as far. Activity still
            counts contacts, r < sigma_ij, but a run of SGD, Langevin or thermal is absorbed only when no pair is within
            reach, where no force is left.

    Raises:
        PackingError: a bound or a reach out of range; a function that is not elementwise; a slope that is NaN, or
            infinite outside a hard core; V that is not zero at its end (to 1e-5 of its largest value in the last tenth
            of the range), or that is not zero beyond and falls to zero farther out: the reach is then too short.
    """

    function: PairFunction
    slope_bound: float
    reach: float = 1.0

    def __post_init__(self) -> None:
        if not (is_real(self.slope_bound) and np.isfinite(self.slope_bound) and self.slope_bound > 0):
            raise PackingError(
                f"slope_bound is {shown(self.slope_bound)}; it must be a finite positive number, "
                "the steepest slope |dV/dr| that one pair may have"
            )
        if not (is_real(self.reach) and 1.0 <= self.reach <= 10.0):
            raise PackingError(
                f"the energy's reach is {shown(self.reach)} contact distances; it must be from 1 (contact) to 10"
            )
        for name in ("slope_bound", "reach"):  # constants of compiled programs, which must have a hash
            if not is_number(getattr(self, name)):
                object.__setattr__(self, name, float(getattr(self, name)))
        self.check(1.0)

    def check(self, contact: float) -> None:
        """Try the function at a contact distance in mean diameters.

        Raises:
            PackingError: see the class.
        """
        end = self.reach * contact
        inner, last, beyond = np.array([1e-4, 1e-3, 5e-3]), 1.0 - 1e-4, np.array([1.05, 1.2, 1.5, 2.0, 3.0, 1e4])
        places = np.concatenate([inner, np.linspace(0.02, 0.98, 97), [last], beyond])
        with jax.ensure_compile_time_eval():
            r = jnp.asarray(places * end, jnp.float32)
            sigma = jnp.full_like(r, contact)
            tried = self._tried(r, sigma)
        if isinstance(tried[1], jax.core.Tracer):
            raise PackingError(
                "the pair energy's function holds a traced number; only the exponent and amplitude of `overlap` may be "
                "traced"
            )
        value, slope = (np.asarray(one, np.float64) for one in tried)
        inside = places < 1.0
        steep = slope <= -self.slope_bound  # gets the bound instead, and all that is closer with it
        core = places <= np.max(places[inside & steep], initial=0.0)
        # Forces are summed as integers, in which a NaN would be an ordinary number: it is looked for here, once.
        bad = np.flatnonzero(inside & ~np.isfinite(slope) & ~core)
        if len(bad):
            raise PackingError(
                f"the pair energy's slope is {slope[bad[-1]]} at r = {places[bad[-1]] * self.reach:.3g} sigma; it must "
                "be finite up to its end, except in a core that is steeper than slope_bound"
            )
        outer = inside & (places >= 0.9) & np.isfinite(value)
        scale = np.max(np.abs(value[outer]), initial=0.0)
        at = np.flatnonzero(places == last)[0]
        at_end = value[at] + slope[at] * (1.0 - last) * end
        after = value[places > 1.0]
        if abs(at_end) > _ZERO * scale:
            raise PackingError(
                f"the pair energy is {at_end:.3g} at its end, {self.reach:g} sigma, and must be 0 there: subtract this "
                "value, or give the reach at which it vanishes"
            )
        longer = np.isfinite(after[:-1]) & (np.abs(after[:-1]) > 1e2 * _ZERO * scale)
        if longer.any() and abs(after[-1]) <= _ZERO * scale:
            raise PackingError(
                f"the pair energy goes on beyond its reach of {self.reach:g} sigma: it is "
                f"{after[:-1][longer][0]:.3g} at {beyond[:-1][longer][0] * self.reach:.3g} sigma and falls to 0 "
                "farther out; give the reach at which it ends, or make it 0 from there on"
            )

    def _tried(self, r: Array, sigma: Array) -> tuple[Array, Array]:
        with calling(*_AN_ENERGY):
            value, slope = jax.jvp(lambda x: self.function(x, sigma), (r,), (jnp.ones_like(r),))
        if np.shape(value) != r.shape:
            raise PackingError(
                f"the pair energy has the shape {np.shape(value)} for distances of shape {r.shape}; it must be "
                "elementwise, one number for each"
            )
        return value, slope

    def __call__(self, r: Array, sigma: Array, unit: Array) -> Array:
        """V in the units of ``unit``, the mean diameter: the function sees lengths in mean diameters."""
        inside = r < self.reach * sigma
        r = jnp.where(inside, r, 0.5 * sigma)  # beyond its end the function may be NaN, and its derivative with it
        with calling(*_AN_ENERGY):
            value = rounded_alone(self.function)(r / unit, sigma / unit)
        return jnp.where(inside, value, 0.0) * unit

    def largest_slope(self, sigma: Array, unit: Array) -> Array:
        """A bound on |dV/dr| over all pairs."""
        return jnp.full_like(unit, self.slope_bound)

    def within_bound(self, slope: Array) -> Array:
        """Slopes no steeper than the bound; where the function overflows, in a core, particles are pushed apart."""
        bound = jnp.asarray(self.slope_bound, slope.dtype)
        return bounded(jnp.where(jnp.isfinite(slope), slope, -bound), bound)


@dataclass(frozen=True)
class Overlap:
    """V(r) = (a0/a) (1 - r/sigma_ij)^a inside contact: a = 1 linear, 2 harmonic, 2.5 Hertzian.

    ``a0`` is in mean diameters (1/2, that is R, unless given); ``exponent`` is a >= 1.
    """

    exponent: float | Array = 1.0
    a0: float | Array = 0.5
    reach = 1.0  #: where V ends, in contact distances, see :class:`PairEnergy`

    def __call__(self, r: Array, sigma: Array, unit: Array) -> Array:
        """V(r) with lengths and energies in the units of ``unit``, the mean diameter."""
        inside = r < sigma
        # the branch not taken must have a finite derivative too: 0^(a-1) is not one for a traced a
        # Not 1 - r/sigma: for equal spheres XLA makes 1 - r (1/sigma) of it, and whether that rounds once or twice
        # depends on the program, and so on the length of the neighbour rows.
        depth = jnp.where(inside, (sigma - r) * (1.0 / sigma), 0.5)
        if is_number(self.exponent):
            power = depth if self.exponent == 1 else depth ** float(self.exponent)
        else:
            power = depth**self.exponent
        return jnp.where(inside, power, 0.0) * (self.a0 / self.exponent * unit)

    def largest_slope(self, sigma: Array, unit: Array) -> Array:
        """A bound on |dV/dr| over all pairs: a0 over the smallest contact distance."""
        return self.a0 * unit / jnp.min(sigma)


def is_number(exponent: Any) -> bool:
    """Whether an exponent is a constant of the compiled program rather than an array."""
    return isinstance(exponent, (int, float))


def _flatten_overlap(energy: Overlap) -> tuple[tuple[Any, ...], Any]:
    # A number stays in the compiled program, where a = 1 or 2 costs no power; an array can be differentiated.
    # Whatever is not a number is a leaf: jax also puts numpy arrays, shapes and shardings in its place.
    traced = not is_number(energy.exponent)
    children = (energy.a0, energy.exponent) if traced else (energy.a0,)
    return children, None if traced else energy.exponent


def _unflatten_overlap(exponent: Any, children: tuple[Any, ...]) -> Overlap:
    energy = object.__new__(Overlap)
    object.__setattr__(energy, "a0", children[0])
    object.__setattr__(energy, "exponent", children[1] if exponent is None else exponent)
    return energy


jax.tree_util.register_pytree_node(Overlap, _flatten_overlap, _unflatten_overlap)
jax.tree_util.register_static(PairEnergy)

#: a = 1: the force is finite at contact, as the kicks of BRO are.
LINEAR = Overlap(1.0)
#: a = 2.
HARMONIC = Overlap(2.0)
#: a = 2.5.
HERTZIAN = Overlap(2.5)


def overlap(exponent: float | Array, a0: float | Array = 0.5) -> Overlap:
    """V(r) = (a0/a) (1 - r/sigma_ij)^a inside contact, of exponent a >= 1 and amplitude ``a0`` in mean diameters.

    Raises:
        PackingError: an exponent outside 1 to 100, or an amplitude that is not a positive number.
    """
    right = "it must be at least 1 (1 linear, 2 harmonic) and at most 100"
    exponent = _parameter("the energy's exponent", exponent, 1.0, 100.0, right)
    most = float(np.finfo(np.float64).max)
    a0 = _parameter("the energy's amplitude a0", a0, 1.0 / most, most, "it must be a finite positive number")
    return Overlap(exponent, a0)


def _parameter(name: str, value: Any, least: float, most: float, right: str) -> Any:
    """A parameter of an energy, checked; a traced one is checked where it is used, see derivatives/rollout.py."""
    if isinstance(value, jax.core.Tracer):
        return value
    known = real_numbers(value)
    if known is None or not np.all((known >= least) & (known <= most)):
        raise PackingError(f"{name} is {shown(value)}; {right}")
    if isinstance(value, np.generic):
        return value.item()  # a number of numpy's is a constant too
    return value if isinstance(value, (int, float, Array)) else known


@jax.custom_jvp
def bounded(slope: Array, bound: Array) -> Array:
    """Slopes clipped to [-bound, bound]; the derivative of a clipped slope is 0, unless clipping only rounded it."""
    return jnp.clip(slope, -bound, bound)


@bounded.defjvp
def _bounded_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    slope, bound = primals
    return bounded(slope, bound), jnp.where(jnp.abs(slope) <= 1.0001 * bound, tangents[0], 0.0)
