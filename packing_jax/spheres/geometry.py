r"""Periodic cubic boxes in d = 1..6: fixed-point coordinates, minimum image, ball volumes, phi <-> diameter.

The dynamics keeps a coordinate as a signed integer whose full range is one box side: int32 with float32, int64 with
float64. The integer difference of two coordinates wraps around exactly where the periodic box does, so it *is* the
minimum image; integer sums are associative, so a particle's move does not depend on the order of its neighbours. In
int32 one quantum is 2^-32 of the box side (2e-8 mean diameters at N = 1e6 in 3D).

Arrays of coordinates in the hot loop are (dim, N), one contiguous row per axis; users pass and get (N, dim) in the unit
of the box side.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float, Int

from packing_jax.errors import PackingError, is_real, is_whole, real_numbers, shown
from packing_jax.trees import pytree

MAX_DIM = 6
MOST_PARTICLES = 10**8  # 32-bit indices

_Real = TypeVar("_Real", Array, np.ndarray)  # on the device, or on the host in float64 whatever jax's precision


def check_dim(dim: int) -> None:
    """Raise unless ``dim`` is an integer from 1 to 6."""
    if not is_whole(dim) or not 1 <= dim <= MAX_DIM:
        raise PackingError(f"the dimension is {shown(dim)}; it must be a whole number from 1 to {MAX_DIM}")


def check_particles(particles: Any, least: int = 2) -> None:
    """Raise unless ``particles`` is a whole number from ``least`` (2: a pair) to the most that can be indexed."""
    if not is_whole(particles):
        raise PackingError(f"the number of particles is {shown(particles)}; it must be a whole number")
    if particles < least:
        raise PackingError(f"{shown(particles)} particles; at least {least} are needed{' for a pair' * (least > 1)}")
    if particles > MOST_PARTICLES:
        raise PackingError(f"{shown(particles)} particles; at most {MOST_PARTICLES} can be indexed")


def check_side(box: Any) -> None:
    """Raise unless ``box`` is a positive number."""
    if not (is_real(box) and np.isfinite(box) and box > 0):
        raise PackingError(f"the box side is {shown(box)}; it must be a positive number")


# --- fixed-point coordinates ----------------------------------------------------------------------------------


def float_of(coordinates: Any) -> np.dtype:
    """The float type that goes with a coordinate type: float32 with int32, float64 with int64."""
    return np.dtype(f"float{8 * coordinates.dtype.itemsize}")


def quanta(dtype: np.dtype) -> float:
    """Quanta in one box side: 2^32 for int32 or float32, 2^64 for int64 or float64."""
    return 2.0 ** (8 * np.dtype(dtype).itemsize)


def to_fixed(positions: Float[Array, "*batch n dim"], box: Array) -> Int[Array, "*batch dim n"]:
    """Fixed-point coordinates of real positions; any periodic image of a position gives the same integers."""
    dtype = np.dtype(f"int{8 * positions.dtype.itemsize}")
    fraction = positions / box[..., None, None]
    fraction = fraction - jnp.round(fraction)  # [-1/2, 1/2]: the range of a signed integer
    # +1/2 itself, and what rounds up to it, is the same place as -1/2
    fraction = jnp.where(fraction >= 0.5, fraction - 1.0, fraction)
    fraction = jnp.rint(fraction * quanta(dtype))
    fraction = jnp.where(fraction >= quanta(dtype) / 2, fraction - quanta(dtype), fraction)
    return jnp.swapaxes(fraction.astype(dtype), -1, -2)


def to_positions(coordinates: Int[Array, "*batch dim n"], box: Array) -> Float[Array, "*batch n dim"]:
    """Real positions in [0, box) of fixed-point coordinates."""
    dtype = float_of(coordinates)
    fraction = coordinates.astype(dtype) / quanta(dtype)
    fraction = jnp.where(fraction < 0, fraction + 1.0, fraction)
    fraction = jnp.where(fraction >= 1.0, 0.0, fraction)  # -1 quantum rounds up to a full side
    return jnp.swapaxes(fraction, -1, -2) * box[..., None, None].astype(dtype)


def separation(a: Array, b: Array) -> Array:
    """Minimum image of ``a - b`` in box sides, in [-1/2, 1/2): the wrap-around of the integer difference."""
    dtype = float_of(a)
    return (a - b).astype(dtype) * np.asarray(1.0 / quanta(dtype), dtype)


def to_quanta(displacement: Array) -> Array:
    """Displacements in box sides, rounded to whole quanta, half to even, so that -x gives minus the result."""
    dtype = displacement.dtype
    integer = np.dtype(f"int{8 * dtype.itemsize}")
    return jnp.rint(displacement * np.asarray(quanta(dtype), dtype)).astype(integer)


def sum_of_squares(parts: Sequence[Array] | Array) -> Array:
    """Sum of squares over the axes, each square rounded before it is added, in every compiled program.

    Otherwise XLA makes one instruction of a product and a sum in some programs, which rounds once, and two in others,
    depending on the length of the neighbour rows. A maximum between the two prevents this: with a value far below the
    square of a quantum, which is subtracted at the end, so that zero gives exactly zero.
    """
    dtype = parts[0].dtype
    least = np.asarray(2.0**-100 if dtype == np.float32 else 2.0**-200, dtype)
    total = jnp.maximum(parts[0] * parts[0], least)
    for part in parts[1:]:
        total = total + jnp.maximum(part * part, least)
    return total - np.asarray(len(parts), dtype) * least


def crossings(before: Array, after: Array) -> Array:
    """Box crossings (-1, 0 or 1 per coordinate) of a move shorter than half a box, from its two ends."""
    moved_up = (after - before) > 0
    return jnp.where(moved_up & (after < before), 1, 0) - jnp.where(~moved_up & (after > before), 1, 0)


def unwrapped(coordinates: Array, images: Array, start: Array) -> Array:
    """Unwrapped displacement from ``start`` in box sides."""
    carried = crossings(start, coordinates)  # images count from the start; separation() is the minimum image
    whole = (images - carried.astype(images.dtype)).astype(float_of(coordinates))
    return whole + separation(coordinates, start)


# --- gathers --------------------------------------------------------------------------------------------------


@pytree(meta=["across"])
@dataclass(frozen=True)
class Placed:
    """Slots numbered through the whole batch, those of replica r from r N on: gathers need not add this each time.

    As one long array they are read in the order of memory: XLA splits each index of a batched array of rows into
    replica, row and column by divisions, which on a CPU take as long as the gather.
    """

    slots: Array  #: (..., N, K), or (..., K, N) if ``across``
    across: bool  #: the k-th neighbours of all particles are adjacent in memory, not the neighbours of one

    @classmethod
    def of(cls, rows: Array, across: bool) -> "Placed":
        """The rows (B, N, K) of a batch, ``Placed``; to be called outside the loop that uses them."""
        batch, n, _ = rows.shape
        first = (jnp.arange(batch, dtype=rows.dtype) * np.asarray(n, rows.dtype))[:, None, None]
        slots = jnp.swapaxes(rows + first, 1, 2) if across else rows + first
        return cls(jax.lax.optimization_barrier(slots.reshape(-1)).reshape(slots.shape), across)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the rows, (..., N, K)."""
        *batch, n, k = self.slots.shape
        return (*batch, k, n) if self.across else (*batch, n, k)


def take(values: Array, slots: "Array | Placed") -> Array:
    """``values[slots]`` for slots (...) known to be in bounds; for ``Placed`` slots ``values`` must have one axis.

    Checking or normalising indices costs more than the gather. A batch is gathered as one long array with offset
    slots: on a CPU XLA fuses that with the arithmetic around it, but not vmap's batched gather.
    """
    if not isinstance(slots, Placed):
        found: Array = _take(values, slots)
        return found
    found = _take_placed(values, slots.slots)
    return _turned(found) if slots.across else found


@jax.custom_batching.custom_vmap
def _take(values: Array, slots: Array) -> Array:
    return values.at[slots].get(mode="promise_in_bounds", wrap_negative_indices=False)


@_take.def_vmap
def _take_batch(size: int, batched: list[bool], values: Array, slots: Array) -> tuple[Array, bool]:
    if not batched[0]:
        return _take(values, slots), True
    slots = slots if batched[1] else slots[None]
    offset = jnp.arange(size, dtype=slots.dtype).reshape((size,) + (1,) * (slots.ndim - 1)) * values.shape[1]
    return _take(values.reshape(-1, *values.shape[2:]), slots + offset), True


@jax.custom_batching.custom_vmap
def _take_placed(values: Array, slots: Array) -> Array:
    return _take(values, slots)


@_take_placed.def_vmap
def _take_placed_batch(size: int, batched: list[bool], values: Array, slots: Array) -> tuple[Array, bool]:
    values = values if batched[0] else jnp.broadcast_to(values[None], (size, *values.shape))
    return _take(values.reshape(-1), slots.reshape(-1)).reshape(slots.shape), True


@jax.custom_batching.custom_vmap
def _turned(found: Array) -> Array:
    return found.T


@_turned.def_vmap
def _turned_batch(_size: int, _batched: list[bool], found: Array) -> tuple[Array, bool]:
    # transposed in name only: without this layout, XLA transposes the pairs in memory in some programs
    return with_layout_constraint(jnp.swapaxes(found, 1, 2), Layout((0, 2, 1))), True


def windows(values: Array, starts: Array, width: int) -> Array:
    """``values[start : start + width]``, (M, width), for starts (M,) known to leave room: contiguous reads."""
    dimensions = jax.lax.GatherDimensionNumbers((1,), (), (0,))
    return jax.lax.gather(values, starts[:, None], dimensions, (width,), mode="promise_in_bounds")


@jax.custom_batching.custom_vmap
def add_at(values: Array, slots: Array, amounts: Array) -> Array:
    """``values`` (N,) with ``amounts`` added at ``slots``, which have the same shape and are in bounds.

    For integers only: their sums do not depend on the order. A batch is one long array, as in :func:`take`.
    """
    return values.at[slots].add(amounts, mode="promise_in_bounds", wrap_negative_indices=False)


@jax.custom_batching.custom_vmap
def set_at(values: Array, slots: Array, news: Array) -> Array:
    """``values`` (N,) with ``news`` at ``slots``, which are in bounds; a repeated slot must repeat its value."""
    return values.at[slots].set(news, mode="promise_in_bounds", wrap_negative_indices=False)


def _in_batch(scatter: Callable[[Array, Array, Array], Array]) -> Callable[..., tuple[Array, bool]]:
    def batch(size: int, batched: list[bool], *arguments: Array) -> tuple[Array, bool]:
        values, slots, news = (
            x if there else jnp.broadcast_to(x[None], (size, *x.shape))
            for x, there in zip(arguments, batched, strict=True)
        )
        offset = jnp.arange(size, dtype=slots.dtype).reshape((size,) + (1,) * (slots.ndim - 1)) * values.shape[1]
        return scatter(values.reshape(-1), slots + offset, news).reshape(values.shape), True

    return batch


add_at.def_vmap(_in_batch(add_at))
set_at.def_vmap(_in_batch(set_at))


# --- real-valued periodic geometry ----------------------------------------------------------------------------


def wrap(positions: Array, box: Array) -> Array:
    """Positions moved by whole box sides into [0, box)."""
    return positions - box * jnp.floor(positions / box)


def minimum_image(displacement: _Real, box: Array | float) -> _Real:
    """The shortest periodic image of a displacement, each component in [-box/2, box/2]; numpy in, numpy out."""
    return displacement - box * (displacement / box).round()


# --- balls ----------------------------------------------------------------------------------------------------


def ball_volume(dim: int) -> float:
    """Volume of the unit ball, v_d = pi^(d/2) / Gamma(d/2 + 1)."""
    check_dim(dim)
    return math.pi ** (dim / 2) / math.gamma(dim / 2 + 1)


def packing_fraction(
    diameters: Array | np.ndarray | float, particles: int, dim: int, box: Array | np.ndarray | float = 1.0
) -> Array | np.ndarray | np.floating | float:
    """phi = v_d sum_i (sigma_i/2)^d / box^d; a scalar diameter counts for every particle.

    Raises:
        PackingError: an invalid number of particles, diameters or box side.
    """
    check_particles(particles, least=1)
    diameters, box = _lengths("the diameters", diameters), _lengths("the box side", box)
    powers = diameters**dim
    mean_power = powers.mean(axis=-1) if isinstance(powers, (Array, np.ndarray)) and powers.ndim else powers
    return ball_volume(dim) * particles * mean_power / (2.0 * box) ** dim


def _lengths(name: str, values: Any) -> Any:
    """The values, checked to be positive; arrays on a device pass: a system has checked them, or they are traced."""
    if isinstance(values, Array):
        return values
    known = real_numbers(values)
    if known is None or not np.all(np.isfinite(known) & (known > 0)):
        raise PackingError(f"{name}: {shown(values)}; they must be positive numbers")
    return known if isinstance(values, (list, tuple)) else values


def scale_to_phi(sizes: np.ndarray | float, phi: float, particles: int, dim: int, box: float = 1.0) -> np.ndarray:
    """Diameters in the proportions ``sizes`` that fill a fraction ``phi`` of the box (float64 on the host)."""
    sizes = np.asarray(sizes, dtype=np.float64)
    mean_power = np.mean(sizes**dim)
    side = 2.0 * box * (phi / (ball_volume(dim) * particles * mean_power)) ** (1.0 / dim)
    return np.asarray(sizes * side)


def mixture_1_to_1_4(particles: int) -> np.ndarray:
    """Relative sizes of the standard two-dimensional glass former: half of the particles 1, half 1.4.

    Raises:
        PackingError: an invalid number of particles.

    Source: O'Hern et al., Phys. Rev. E 68, 011306 (2003).
    """
    check_particles(particles, least=1)
    sizes = np.ones(particles)
    sizes[particles // 2 :] = 1.4
    return sizes
