r"""Pair energies, and the total energy of a configuration as a pure function with an exact, scatter-free gradient.

The overlap family is V(r) = (a0/a) (1 - r/sigma_ij)^a for r < sigma_ij and 0 beyond, with sigma_ij = R_i + R_j.

The convention, stated once: a0 = R, half the mean diameter, unless given. The linear energy (a = 1) of equal
spheres is then V = R - r/2 with slope |dV/dr| = 1/2, dimensionless. A gradient step at learning rate alpha (in mean
diameters) moves each partner by alpha/2, and pairwise BRO at kick eps has the first two moments of pairwise SGD at
alpha = 4 eps/3, b_f = 3/4 (arXiv:2411.11834).

Any other is a :class:`PairEnergy`, which may reach beyond contact. WCA, with a core that is clipped:

    def wca(r, sigma):
        return 4.0 * ((sigma / r) ** 12 - (sigma / r) ** 6) + 1.0

    energy = PairEnergy(wca, slope_bound=50.0, reach=2 ** (1 / 6))
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from packing_jax.errors import PackingError
from packing_jax.exact import rounded_alone
from packing_jax.spheres.fixed_point import Followed, known_length, seen_from, with_derivative
from packing_jax.spheres.geometry import Placed, minimum_image, separation, sum_of_squares, take

if TYPE_CHECKING:
    from packing_jax.spheres.system import System

#: V(distance, contact distance) in mean diameters, elementwise; zero at its end, ``reach`` contact distances.
PairFunction = Callable[[Array, Array], Array]

_ZERO = 1e-5  # of the largest |V| in the last tenth of the range: what counts as zero at its end


@dataclass(frozen=True)
class PairEnergy:
    """A user's pair energy V(r, sigma_ij) for r < reach sigma_ij, 0 beyond, with a bound on its slope.

    Args:
        function: V of arrays of distances and contact distances in mean diameters, elementwise; a jax-md potential
            will do. Beyond its end it is not looked at, and may be anything there.
        slope_bound: the steepest slope |dV/dr| of a pair, in units of (energy/mean diameter) with energies in mean
            diameters. The dynamics sums gradients in fixed point and must know how large one pair's can be. Steeper
            pairs get this slope, which is gradient clipping; so does a hard core, where V overflows.
        reach: where V ends, in contact distances; 1 is contact. Neighbour rows reach as far. Activity still counts
            contacts, r < sigma_ij, but moves along the energy end, and a run of them is absorbed, only where no pair
            is within reach: no force is left.

    Raises:
        PackingError: a bound or a reach out of range; a slope that is NaN, or infinite outside a hard core; V that is
            not zero at its end (to 1e-5 of its largest value in the last tenth of the range), or that goes on beyond
            and falls to zero only there, as a longer-ranged potential does.
    """

    function: PairFunction
    slope_bound: float
    reach: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.slope_bound) and self.slope_bound > 0):
            raise PackingError(
                f"slope_bound is {self.slope_bound}; it must be a finite positive number, "
                "the steepest slope |dV/dr| that one pair may have"
            )
        if not 1.0 <= self.reach <= 10.0:
            raise PackingError(
                f"the energy's reach is {self.reach} contact distances; it must be from 1 (contact) to 10"
            )
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
            value, slope = jax.jvp(lambda x: self.function(x, sigma), (r,), (jnp.ones_like(r),))
        if isinstance(slope, jax.core.Tracer):
            raise PackingError(
                "the pair energy's function holds a traced number; only the exponent and amplitude of `overlap` may be "
                "traced"
            )
        value, slope = np.asarray(value, np.float64), np.asarray(slope, np.float64)
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
                f"the pair energy is {at_end:.3g} at its end, {self.reach:g} sigma, and must be 0 there: subtract what "
                "it is there, or give the reach at which it vanishes"
            )
        longer = np.isfinite(after[:-1]) & (np.abs(after[:-1]) > 1e2 * _ZERO * scale)
        if longer.any() and abs(after[-1]) <= _ZERO * scale:
            raise PackingError(
                f"the pair energy goes on beyond its reach of {self.reach:g} sigma: it is "
                f"{after[:-1][longer][0]:.3g} at {beyond[:-1][longer][0] * self.reach:.3g} sigma and falls to 0 "
                "farther out; give the reach at which it ends, or make it 0 from there on"
            )

    def __call__(self, r: Array, sigma: Array, unit: Array) -> Array:
        """V in the units of ``unit``, the mean diameter: the function sees lengths in mean diameters."""
        inside = r < self.reach * sigma
        r = jnp.where(inside, r, 0.5 * sigma)  # beyond its end the function may be NaN, and its derivative with it
        return jnp.where(inside, rounded_alone(self.function)(r / unit, sigma / unit), 0.0) * unit

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
    reach = 1.0  #: contact distances at which it ends, as :class:`PairEnergy` has

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

LINEAR = Overlap(1.0)
HARMONIC = Overlap(2.0)
HERTZIAN = Overlap(2.5)


def overlap(exponent: float | Array, a0: float | Array = 0.5) -> Overlap:
    """V(r) = (a0/a) (1 - r/sigma_ij)^a inside contact, of exponent a >= 1 and amplitude ``a0`` in mean diameters.

    Raises:
        PackingError: an exponent outside 1 to 100, or an amplitude that is not a positive number.
    """
    if isinstance(exponent, np.generic):
        exponent = exponent.item()  # a number of numpy's is a constant too
    # what is traced is looked at where it is used, see packing_jax.derivatives.rollout
    known = np.ones(()) if isinstance(exponent, jax.core.Tracer) else np.asarray(exponent)
    if not np.all((known >= 1) & (known <= 100)):
        raise PackingError(
            f"the energy's exponent is {exponent}; it must be at least 1 (1 linear, 2 harmonic) and at most 100"
        )
    known = np.ones(()) if isinstance(a0, jax.core.Tracer) else np.asarray(a0)
    if not np.all(np.isfinite(known) & (known > 0)):
        raise PackingError(f"the energy's amplitude a0 is {a0}; it must be a finite positive number")
    return Overlap(exponent, a0)


# --- pairs along neighbour rows -------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """What a particle i sees of its k-th listed neighbour, with lengths in box sides; M particles look."""

    separation: tuple[Float[Array, "m k"], ...]  #: x_i - x_j, minimum image, one array per axis
    distance: Float[Array, "m k"]  #: |x_i - x_j|, positive even for coincident centres
    contact: Float[Array, "..."]  #: sigma_ij, () for equal spheres, else (M, K)
    listed: Array  #: (M, K) bool, False on padding

    def overlapping(self, cut: float = 0.0, reach: float = 1.0) -> Array:
        """Mask of pairs closer than (1 - cut) reach sigma_ij: overlaps, unless another reach is given."""
        return self.listed & (self.distance < self.contact * ((1.0 - cut) * reach))


def pair_rows(
    system: "System",
    positions: Array | Followed,
    rows: Int[Array, "m k"] | Placed,
    own: Int[Array, " m"] | None = None,
    words: tuple[Array, Array] | None = None,
) -> Pairs:
    """Separations, distances and contact distances along neighbour rows of fixed-point coordinates (dim, N).

    Args:
        system: box and diameters, these in the order of the coordinates.
        positions: (dim, N) fixed point, or these with a derivative (and then no ``Placed`` rows).
        rows: (M, K) slots of neighbours, a particle's own slot as padding; in a batch they may be ``Placed``.
        own: (M,) slots of the particles that look; all N in their order when None.
        words: random and different for each particle, (M, 1) of those that look and (M, K) of their neighbours; they
            break the tie of coincident centres: the pair gets a direction along the first axis, opposite for the two
            partners. Without them the direction is zero.

    Every rule must find the same bits in whatever program XLA makes of this, so the arithmetic leaves it no choice: no
    sum of products, see :func:`packing_jax.spheres.geometry.sum_of_squares`, and no division by a bare square root,
    which becomes the processor's approximate reciprocal root, different for each vector width.
    """

    def mine(x: Array) -> Array:
        own_values: Array = x if own is None else take(x, own)
        return own_values[:, None]

    slots = jnp.arange(rows.shape[0], dtype=jnp.int32) if own is None else own
    followed = positions if isinstance(positions, Followed) else None
    fixed = positions.fixed if isinstance(positions, Followed) else positions
    parts = [separation(mine(x), take(x, rows)) for x in fixed]
    dtype = parts[0].dtype
    quantum = np.asarray(2.0 ** -(8 * dtype.itemsize), dtype)
    r2 = sum_of_squares(parts)
    if followed:
        parts = [*with_derivative(tuple(parts), seen_from(followed.real, rows, -1.0, followed.reciprocal))]
    if words is not None:
        way = jnp.where(words[0] < words[1], quantum, -quantum)
        # not r2 == 0: a GPU's program keeps what is used far apart, and would write r2 of each pair to memory
        parts[0] = jnp.where(reduce(and_, (part == 0 for part in parts)), way, parts[0])
    distance = jnp.maximum(jnp.sqrt(r2), quantum)
    sigma = system.diameters / system.box
    if followed:
        distance = known_length(parts, distance)
    if sigma.ndim == 0:
        contact = sigma
    elif followed:
        contact = 0.5 * seen_from((sigma,), rows, 1.0, followed.reciprocal)[0]
    else:
        contact = 0.5 * (mine(sigma) + take(sigma, rows))
    others = take(slots, rows) if isinstance(rows, Placed) else rows
    return Pairs(tuple(parts), distance, contact, others != slots[:, None])


def pair_slopes(system: "System", pairs: Pairs) -> Array:
    """dV/dr of every listed pair (M, K), dimensionless, zero beyond the energy's reach and on padding."""
    unit = system.unit / system.box
    contact = jnp.broadcast_to(pairs.contact, pairs.distance.shape)
    _, slope = jax.jvp(lambda r: system.energy(r, contact, unit), (pairs.distance,), (jnp.ones_like(pairs.distance),))
    if isinstance(system.energy, PairEnergy):
        slope = system.energy.within_bound(slope)
    return jnp.where(pairs.listed, slope, 0.0)


@jax.custom_jvp
def bounded(slope: Array, bound: Array) -> Array:
    """Slopes clipped to [-bound, bound]; one that the bound only rounds keeps its derivative, any other has none."""
    return jnp.clip(slope, -bound, bound)


@bounded.defjvp
def _bounded_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    slope, bound = primals
    return bounded(slope, bound), jnp.where(jnp.abs(slope) <= 1.0001 * bound, tangents[0], 0.0)


# --- total energy of real positions ---------------------------------------------------------------------------


def all_pairs_rows(particles: int) -> Int[Array, "n k"]:
    """Neighbour rows that list every other particle, (N, N - 1)."""
    shift = np.arange(1, particles, dtype=np.int32)[None, :]
    return jnp.asarray((np.arange(particles, dtype=np.int32)[:, None] + shift) % particles, dtype=jnp.int32)


def _row_geometry(system: "System", positions: Array, rows: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Displacements (n, k, dim), distances with a zero-safe root, contact distances and listed mask."""
    delta = minimum_image(positions[:, None] - positions[rows], system.box)
    r2 = jnp.sum(delta * delta, axis=-1)
    apart = r2 > 0
    r = jnp.where(apart, jnp.sqrt(jnp.where(apart, r2, 1.0)), 0.0)
    sigma = system.diameters
    contact = sigma if sigma.ndim == 0 else 0.5 * (sigma[:, None] + sigma[rows])
    listed = rows != jnp.arange(rows.shape[0], dtype=rows.dtype)[:, None]
    return delta, r, jnp.broadcast_to(contact, r.shape), listed, apart


def _energy_sum(system: "System", positions: Array, rows: Array) -> Array:
    _, r, contact, listed, _ = _row_geometry(system, positions, rows)
    return 0.5 * jnp.sum(jnp.where(listed, system.energy(r, contact, system.unit), 0.0))


def energy_gradient(system: "System", positions: Array, rows: Array) -> Array:
    """grad_i E = sum_j V'(r_ij) rhat_ij, each particle from its own row, (N, dim)."""
    delta, r, contact, listed, apart = _row_geometry(system, positions, rows)
    slope = jax.jvp(lambda x: system.energy(x, contact, system.unit), (r,), (jnp.ones_like(r),))[1]
    weight = jnp.where(listed & apart, slope / jnp.where(apart, r, 1.0), 0.0)
    return jnp.sum(weight[..., None] * delta, axis=1)


_total_energy = jax.custom_jvp(_energy_sum)


@_total_energy.defjvp
def _total_energy_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    system, positions, rows = primals
    system_dot, positions_dot, _ = tangents
    # Along the positions: row sums instead of the transposed gather, which would be a scatter-add.
    # Along diameters, box and energy parameters: ordinary differentiation at fixed positions.
    energy, along_system = jax.jvp(lambda s: _energy_sum(s, positions, rows), (system,), (system_dot,))
    along_positions = jnp.sum(energy_gradient(system, positions, rows) * positions_dot)
    return energy, along_system + along_positions


def total_energy(
    system: "System", positions: Float[Array, "n dim"], rows: Int[Array, "n k"] | None = None
) -> Float[Array, ""]:
    r"""E = sum_{i<j} V(|x_i - x_j|, sigma_ij), periodic, with ``jax.grad`` exact and free of scatter.

    Args:
        system: box, diameters and pair energy; lengths in the unit of the box side.
        positions: (N, dim), in the same unit; any periodic image.
        rows: (N, K) neighbour indices, a particle's own index as padding; all pairs when None.

    Returns:
        The energy, a scalar in the unit of the box side (a0 is a length: half the mean diameter by default).

    The derivative rule sums each particle's own row, so gradients and Hessian-vector products (``jvp`` of ``grad``)
    gather and never scatter. Two particles at the same point exert no force on each other; everything stays finite.
    """
    rows = all_pairs_rows(system.particles) if rows is None else rows
    return _total_energy(system, positions, rows)
