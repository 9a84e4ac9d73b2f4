"""What is simulated: a periodic box, diameters and a pair energy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.devices import local_devices
from packing_jax.errors import PackingError, calling, fits, is_real, real_numbers, shown
from packing_jax.spheres.geometry import (
    check_dim,
    check_particles,
    check_side,
    packing_fraction,
    quanta,
    scale_to_phi,
)
from packing_jax.spheres.potential import LINEAR, Overlap, PairEnergy, is_number
from packing_jax.trees import pytree

#: An array in a pytree's field. Not annotated as one, because jax rebuilds trees with other leaves too: shapes, specs.
Leaf = Any


@pytree(meta=["particles", "dim", "cut"])
@dataclass(frozen=True)
class System:
    """Spheres in a periodic cubic box; a pytree, so that systems of different phi stack into one batch.

    Build one with :meth:`create`; stack several with :func:`stack`, which puts a replica axis before every leaf.
    """

    box: Leaf  #: box side, ()
    diameters: Leaf  #: () for equal spheres or (N,), in the unit of ``box``
    unit: Leaf  #: mean diameter, (): the unit of kicks, learning rates and reported lengths
    energy: Leaf  #: a pair energy, see packing_jax.spheres.potential
    particles: int
    dim: int
    cut: float  #: a pair counts as overlapping when r < (1 - cut) sigma_ij

    def __post_init__(self) -> None:
        check_dim(self.dim)
        check_particles(self.particles)
        _check_energy(self.energy)

    @classmethod
    def create(
        cls,
        phi: float,
        particles: int,
        dim: int = 3,
        *,
        sizes: np.ndarray | None = None,
        energy: Overlap | PairEnergy = LINEAR,
        box: float = 1.0,
        dtype: np.dtype | type = np.float32,
    ) -> "System":
        """A system at packing fraction phi = N v_d <R^d> / box^d.

        Args:
            phi: packing fraction, positive.
            particles: N >= 2.
            dim: 1 to 6.
            sizes: (N,) relative diameters (any positive array); equal spheres when None.
            energy: pair energy, see :mod:`packing_jax.spheres.potential`.
            box: side of the box.
            dtype: float32, or float64 where jax has 64-bit types enabled.

        Raises:
            PackingError: phi, N, sizes or box out of range, or spheres wider than half the box.
        """
        _check_box(particles, dim, box)
        _refuse_traced("phi", phi, "at_phi")
        if not (is_real(phi) and np.isfinite(phi) and phi > 0):
            given: object = phi
            many = isinstance(given, (list, tuple, np.ndarray, Array))
            several = "; for several, stack([System.create(one, ...) for one in phi])" if many else ""
            raise PackingError(f"the packing fraction phi is {shown(phi)}; it must be a positive number{several}")
        relative = _diameters("sizes", 1.0 if sizes is None else sizes, particles)
        if not fits(relative**dim, np.float64):
            raise PackingError(
                f"sizes run from {np.min(relative):.3g} to {np.max(relative):.3g}: their volumes are beyond the range "
                "of float64; relative diameters near 1 will do"
            )
        diameters = scale_to_phi(relative, phi, particles, dim, box)
        if phi < 1 and not fits(diameters, dtype := _precision(dtype)):
            raise PackingError(
                f"the packing fraction phi is {phi:g}, and diameters of {np.min(diameters):.3g} are beyond the range "
                f"of {np.dtype(dtype).name}; give a larger phi"
            )
        return cls.from_diameters(diameters, particles, dim, energy=energy, box=box, dtype=dtype)

    @classmethod
    def from_diameters(
        cls,
        diameters: np.ndarray | float,
        particles: int,
        dim: int = 3,
        *,
        energy: Overlap | PairEnergy = LINEAR,
        box: float = 1.0,
        dtype: np.dtype | type = np.float32,
    ) -> "System":
        """A system with the given diameters, a scalar or (N,), in the unit of ``box``.

        Raises:
            PackingError: N, diameters, box or precision out of range, or spheres wider than half the box.
        """
        _refuse_traced("the diameters", diameters, "with_diameters")
        _check_box(particles, dim, box)
        diameters = _diameters("diameters", diameters, particles)
        dtype = _precision(dtype)
        check_64_bits(dtype)
        local_devices()  # says so where jax has none
        _check_crowding(diameters, particles, dim, box)
        _check_energy(energy)
        _check_range(diameters, energy, box, dtype)
        _check_reach(energy, diameters, box)
        return cls(
            box=jnp.asarray(box, dtype=dtype),
            diameters=jnp.asarray(diameters, dtype=dtype),
            unit=jnp.asarray(np.mean(diameters), dtype=dtype),
            energy=jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=dtype), energy),
            particles=int(particles),
            dim=int(dim),
            cut=_default_cut(energy, dtype),
        )

    def with_diameters(self, diameters: Array | np.ndarray | float) -> "System":
        """The system with other diameters, () or (N,), whose mean is the new unit; diameters may be traced.

        Raises:
            PackingError: as :meth:`from_diameters`, where the diameters are numbers.
        """
        if not is_traced(diameters) and real_numbers(diameters) is None:
            raise PackingError(f"the diameters are {shown(diameters)}; they must be positive numbers")
        diameters = jnp.asarray(diameters, self.box.dtype)
        return _checked(replace(self, diameters=diameters, unit=jnp.mean(diameters)))

    def with_energy(self, energy: Overlap | PairEnergy) -> "System":
        """The system with another pair energy, whose exponent and amplitude may be traced, or be one per replica."""

        def as_leaf(leaf: Array | float) -> Array:
            return jnp.broadcast_to(jnp.asarray(leaf, self.box.dtype), self.box.shape)

        _check_energy(energy)
        return _checked(replace(self, energy=jax.tree.map(as_leaf, energy), cut=_default_cut(energy, self.box.dtype)))

    def at_phi(self, phi: Array | float) -> "System":
        """The system swollen or shrunk to packing fraction phi, which may be traced: :meth:`create` is for numbers.

        Raises:
            PackingError: as :meth:`create`, where phi is a number.
        """
        if not is_traced(phi):
            known = real_numbers(phi)
            if known is None or not fits(known, self.box.dtype):
                raise PackingError(f"the packing fraction phi is {shown(phi)}; it must be a positive number")
            phi = _as_array(phi, known)
        scale = ((phi / self.phi) ** (1.0 / self.dim)).astype(self.box.dtype)
        return _checked(replace(self, diameters=scale * self.diameters, unit=scale * self.unit))

    @property
    def phi(self) -> Array | np.ndarray | np.floating | float:
        """Packing fraction; one per replica of a stacked system."""
        if self.diameters.ndim == self.box.ndim:
            return packing_fraction(self.diameters[..., None], self.particles, self.dim, self.box)
        return packing_fraction(self.diameters, self.particles, self.dim, self.box)

    def to_jax_md(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The (displacement_fn, shift_fn) pair of jax-md for this box."""
        from jax_md import space  # imported here: it takes seconds

        return space.periodic(float(self.box))


def _refuse_traced(name: str, value: object, way: str) -> None:
    if isinstance(value, jax.core.Tracer):
        raise PackingError(
            f"{name} cannot be traced here, where values are checked; make a system of plain numbers outside and call "
            f"its {way}(...) with the traced value"
        )


def is_traced(value: Any) -> bool:
    """Whether a value, or something in a list of them, is traced."""
    return isinstance(value, jax.core.Tracer) or (
        isinstance(value, (list, tuple)) and any(isinstance(one, jax.core.Tracer) for one in value)
    )


def _as_array(value: Any, known: np.ndarray) -> Any:
    return known if isinstance(value, (list, tuple)) else value


def _check_box(particles: int, dim: int, box: float) -> None:
    check_dim(dim)
    check_particles(particles)
    check_side(box)
    if not abs(dim * np.log10(2.0 * float(box))) < 36:
        raise PackingError(
            f"the box side is {shown(box)}, and its volume beyond the range of float32; choose another unit of length"
        )


def _precision(dtype: Any) -> np.dtype:
    if dtype is not None:
        try:
            found = np.dtype(dtype)
        except (TypeError, ValueError):
            found = np.dtype(object)
        if found in (np.float32, np.float64):
            return found
    raise PackingError(f"the precision is {shown(dtype)}; it must be float32 or float64")


def check_system(system: Any) -> None:
    """Refuse anything but a system of spheres, and a float64 one while jax has no 64-bit types.

    Raises:
        PackingError: either of these.
    """
    if not isinstance(system, System):
        raise PackingError(f"the system is {shown(system)}; it must be a packing_jax.System")
    check_64_bits(system.box.dtype)


def check_64_bits(dtype: np.dtype) -> None:
    """Refuse float64 while jax has no 64-bit types: it would round to float32, and fixed-point coordinates overflow.

    Raises:
        PackingError: how to switch them on.
    """
    if dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        raise PackingError("float64 needs jax's 64-bit types; set jax.config.update('jax_enable_x64', True)")


def _check_range(diameters: np.ndarray, energy: Any, box: float, dtype: np.dtype) -> None:
    """Refuse numbers that a precision cannot hold, and spheres that the coordinates cannot resolve."""
    numbers = [diameters, np.asarray(box, np.float64), *(np.asarray(x, np.float64) for x in jax.tree.leaves(energy))]
    if isinstance(energy, PairEnergy):
        numbers.append(np.asarray(energy.slope_bound, np.float64))
    if not all(fits(one, dtype) for one in numbers):
        raise PackingError(
            f"a diameter, the box side or a number of the energy is beyond the range of {dtype}, "
            f"{np.finfo(dtype).tiny:.2g} to {np.finfo(dtype).max:.2g}; choose another unit of length or energy"
        )
    if np.min(diameters) / box < 16.0 / quanta(dtype):
        raise PackingError(
            f"the smallest diameter is {np.min(diameters) / box:.2g} box sides, below the resolution of coordinates in "
            f"{dtype}; it must be at least {16.0 / quanta(dtype):.2g}"
        )


def _diameters(name: str, values: Any, particles: int) -> np.ndarray:
    """The values as numbers, checked."""
    array = real_numbers(values)
    if array is None:
        raise PackingError(f"{name} are {shown(values)}, no real numbers; every diameter must be a positive number")
    _check_diameters(name, array.astype(np.float64), particles)
    return array.astype(np.float64)


def _check_diameters(name: str, values: np.ndarray, particles: int) -> None:
    if values.ndim and values.shape != (particles,):
        raise PackingError(f"{name} has shape {values.shape}; it must be ({particles},), one per particle")
    if not np.all(np.isfinite(values) & (values > 0)):
        raise PackingError(f"{name} has entries that are not positive numbers; every diameter must be")


def _checked(system: System) -> System:
    """The system itself, checked; a traced one is not checked, and of a stack only that diameters are positive."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(system)):
        return system
    if system.box.ndim:
        if not np.all(np.isfinite(system.diameters) & (np.asarray(system.diameters) > 0)):
            raise PackingError("a system has diameters that are not positive numbers; every diameter must be")
    else:
        diameters = np.asarray(system.diameters, np.float64)
        _check_diameters("diameters", diameters, system.particles)
        _check_crowding(diameters, system.particles, system.dim, float(system.box))
        _check_reach(system.energy, diameters, float(system.box))
        _check_range(diameters, system.energy, float(system.box), system.box.dtype)
    return system


def _check_crowding(diameters: np.ndarray, particles: int, dim: int, box: float) -> None:
    phi = float(packing_fraction(diameters, particles, dim, box))
    if 2.0**dim * phi > 64:
        raise PackingError(
            f"phi = {phi:.4g} in {dim}D means about {2.0**dim * phi:.4g} overlaps per sphere; "
            f"row sums are exact up to 64 on average, that is up to phi = {64 / 2.0**dim:.4g}; "
            "phi is a fraction of the volume, such as 0.6"
        )
    if np.max(diameters) >= box / 2:
        raise PackingError(
            f"{particles} particles at phi = {phi:.4g} in {dim}D are {np.max(diameters) / box:.3f} box sides "
            "wide; below half a side each pair meets only once: use more particles or a lower phi"
        )


def _check_energy(energy: Any) -> None:
    if not isinstance(energy, Overlap | PairEnergy):
        raise PackingError(
            f"the energy is {shown(energy)}; it must be LINEAR, HARMONIC, HERTZIAN, overlap(exponent) or a PairEnergy, "
            "which PairEnergy(function, slope_bound) makes of a function of distance and contact distance"
        )


def _check_reach(energy: Overlap | PairEnergy, diameters: np.ndarray, box: float) -> None:
    farthest = energy.reach * np.max(diameters) / box
    if farthest >= 0.5:
        raise PackingError(
            f"the energy reaches {farthest:.3f} box sides; below half a side each pair meets only once: use more "
            "particles, a lower phi or a shorter reach"
        )
    if isinstance(energy, PairEnergy):  # checked for spheres of the mean size when it was made
        for contact in np.unique(np.array([np.min(diameters), np.max(diameters)]) / np.mean(diameters)):
            if contact != 1.0:
                energy.check(float(contact))


def _default_cut(energy: Overlap | PairEnergy, dtype: np.dtype) -> float:
    # Linear forces end an overlap in finite time. Smoother ones shrink it for ever, so a depth must be called zero:
    # 1e-8 in float64. float32 resolves 1 - r/sigma to 6e-8 only and needs a cut well above that.
    if isinstance(energy, Overlap) and is_number(energy.exponent) and energy.exponent == 1:
        return 0.0
    return 1e-8 if dtype == np.float64 else 1e-5


def stack(systems: list[System]) -> System:
    """One batch of systems of the same N, dim and energy family: every leaf gets a leading replica axis.

    Raises:
        PackingError: no list of systems, or systems that differ in N, dim, energy family, or one diameter or many.
    """
    if isinstance(systems, System):
        raise PackingError("stack takes a list of systems, [system, system]; this is one system")
    if not isinstance(systems, (list, tuple)) or not all(isinstance(one, System) for one in systems):
        raise PackingError(f"stack takes a list of systems, [system, system]; this is {shown(systems)}")
    if len({(jax.tree.structure(one), *map(np.shape, jax.tree.leaves(one))) for one in systems}) != 1:
        raise PackingError(
            f"{len(systems)} systems to stack; one or more are needed, alike in N, dim, energy and in having one "
            "diameter or many"
        )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)


def box_of_jax_md(displacement_fn: Callable[..., Any], dim: int) -> float:
    """The side of the periodic cubic box behind a jax-md ``displacement_fn``.

    A periodic displacement d(x) = displacement_fn(x e_1, 0) grows with slope 1 and falls to -x at x = side/2, so the
    side is twice the place of the fall, found by doubling and bisection.

    Raises:
        PackingError: the space is not periodic, or not cubic; or this is no displacement function of jax-md.
    """
    check_dim(dim)

    def along(x: float, axis: int) -> float:
        there = np.zeros(dim)
        there[axis] = x
        with calling("the displacement function", "that of a jax-md space, such as space.periodic(side)[0]"):
            return float(displacement_fn(jnp.asarray(there), jnp.zeros(dim))[axis])

    def falls(x: float, axis: int) -> bool:
        return along(x, axis) < 0.5 * x

    sides = []
    for axis in range(dim):
        # From above: every x beyond half a side falls, while far below it float32 cannot tell d(x) from 0.
        low = 2.0**40
        if not falls(low, axis):
            raise PackingError("this jax-md space is not periodic; packing_jax needs space.periodic(side)")
        while falls(low, axis) and low > 2.0**-40:
            low /= 2
        high = 2 * low
        if not 0.99 < along(0.75 * low, axis) / (0.75 * low) < 1.01:
            raise PackingError("this jax-md space has fractional coordinates; packing_jax needs space.periodic(side)")
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if falls(middle, axis) else (middle, high)
        sides.append(2 * high)
    if max(sides) - min(sides) > 1e-5 * max(sides):
        raise PackingError(f"this jax-md space has sides {sides}; packing_jax needs a cubic box")
    return sides[0]
