r"""Fixed-point coordinates whose moves can be differentiated.

Integers have no derivative. The real numbers that they were rounded from have one, and since a quantum is far below any
physical length, that is the derivative of the trajectory. A rule's step on :class:`Followed` coordinates computes every
number from the integers, so that its contacts are those of the driver's step to the bit, and passes the derivative
through each rounding (`with_derivative`).

A step gathers along neighbour rows. The transpose of a gather is a scatter, which is slow on a CPU and unordered on a
GPU. Where the two partners of a pair get opposite terms, up to draws of their own, `seen_from` and `row_totals` replace
the scatter by a gather.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.spheres.geometry import float_of, quanta
from packing_jax.trees import pytree


@pytree(meta=["reciprocal"])
@dataclass(frozen=True)
class Followed:
    """Fixed-point coordinates with real ones that carry their derivative, for a rule's step (derivatives/segment.py).

    Every number is computed from ``fixed``, as in the driver. Only the derivative of ``real`` is used, never its value,
    and the step returns real displacements in box sides.
    """

    fixed: Array  #: (dim, N) integers
    real: Array  #: (dim, N) box sides
    reciprocal: bool  #: terms are opposite for the partners of a pair up to draws: transposed sums need no scatter
    sums: Any = None  #: (dim, N) the row sums that the fixed-point step reported, or None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the coordinates."""
        return self.fixed.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the fixed-point coordinates."""
        return self.fixed.dtype


def reals(coordinates: "Array | Followed") -> Array:
    """Coordinates in box sides, in [-1/2, 1/2)."""
    if isinstance(coordinates, Followed):
        return with_derivative(reals(coordinates.fixed), coordinates.real)
    dtype = float_of(coordinates)
    return coordinates.astype(dtype) / quanta(dtype)


@jax.custom_jvp
def with_derivative(value: Any, of: Any) -> Any:  # noqa: ARG001
    """``value`` with the derivative of ``of``: the rounded number gets the derivative of the unrounded one."""
    return value


@with_derivative.defjvp
def _with_derivative_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return with_derivative(*primals), tangents[1]


@jax.custom_jvp
def known_length(parts: Sequence[Array] | Array, size: Array) -> Array:  # noqa: ARG001
    """``size``, the known length of the vectors ``parts``, with its derivative; that is zero at zero length."""
    return size


@known_length.defjvp
def _known_length_jvp(primals: tuple[Any, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    size = known_length(*primals)
    along = sum(part * dot for part, dot in zip(primals[0], tangents[0], strict=True))
    return size, along / jnp.where(size > 0, size, 1.0)


def seen_from(values: Sequence[Array] | Array, rows: Any, sign: float, reciprocal: bool) -> tuple[Array, ...]:
    """``values_i + sign values_j`` (N, K) along the rows, for each array (N,) of ``values``, such as coordinate axes.

    Its transpose is a scatter in general. Where the rows are summed by :func:`row_totals` and the partners of a pair
    get u_ij t_ij and u_ji t_ji with t_ij = -t_ji, the transpose is a sum over the particle's own row:
    sum_k u_ik A_ik^T l_i - u_ki A_ki^T l_k = sum_k A_ik^T (u_ik l_i - u_ki l_k). :func:`row_totals` gives half of the
    bracket, and this function the factor 2.
    """

    def see(rows: Array, xs: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(x[:, None] + np.asarray(sign, x.dtype) * _gathered(x, rows) for x in xs)

    if not reciprocal:
        return see(rows, tuple(values))

    def total(_: Array, cts: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(2.0 * ct for ct in _sums(cts))

    seen: tuple[Array, ...] = jax.custom_derivatives.linear_call(see, total, rows, tuple(values))
    return seen


def row_totals(
    values: Sequence[Array], rows: Any, reciprocal: bool, draws: tuple[Array, Array] | None = None
) -> tuple[Array, ...]:
    """Sums (N,) over rows (N, K) of real numbers, whose transpose is that of :func:`seen_from`.

    With ``draws``, (u_ij, u_ji) of both partners, the sums are of u_ij times the values; the values are opposite for
    the two partners.
    """
    if not reciprocal:
        return _sums(values if draws is None else [draws[0] * value for value in values])

    def add(draws: tuple[Array, Array] | None, parts: tuple[Array, ...]) -> tuple[Array, ...]:
        return _sums(parts if draws is None else [draws[0] * part for part in parts])

    def spread(both: tuple[Any, tuple[Array, Array] | None], cts: tuple[Array, ...]) -> tuple[Array, ...]:
        rows, draws = both
        if draws is None:
            return tuple(0.5 * (ct[:, None] - _gathered(ct, rows)) for ct in cts)
        return tuple(0.5 * (draws[0] * ct[:, None] - draws[1] * _gathered(ct, rows)) for ct in cts)

    totals: tuple[Array, ...] = jax.custom_derivatives.linear_call(
        lambda both, parts: add(both[1], parts), spread, (rows, draws), tuple(values)
    )
    return totals


def _gathered(values: Array, rows: Array) -> Array:
    # not `take`: its batching rule is a call that cannot be transposed
    return values.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _sums(values: Sequence[Array]) -> tuple[Array, ...]:
    """Sums (N,) of rows (N, K), all in one reduction: XLA then computes a pair once for all of them.

    Where K is a multiple of 8, eight partial sums are made first: XLA vectorises these, but not one running sum of
    floats. The order does not matter here.
    """
    zeros = tuple(np.zeros((), value.dtype) for value in values)

    def add(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(a + b for a, b in zip(left, right, strict=True))

    parts = tuple(values)
    n, width = parts[0].shape
    if width % 8 == 0:
        parts = tuple(jax.lax.reduce(tuple(x.reshape(n, width // 8, 8) for x in parts), zeros, add, (1,)))
    return tuple(jax.lax.reduce(parts, zeros, add, (1,)))
