r"""Fixed-point coordinates whose moves can be differentiated.

A trajectory is integers, and integers have no derivative. The real numbers that they were rounded from have one, and
since a quantum is far below anything physical, theirs is the derivative of the trajectory. A rule's step on
:class:`Followed` coordinates computes every number from the integers, so that its contacts are those of the driver's
step to the bit, and hands the derivative past each rounding (`with_derivative`).

Written for a neighbour row, a step gathers, and the transpose of a gather is a scatter, which is slow on a CPU and
unordered on a GPU. Where the two partners of a pair get opposite terms, but for a draw of their own, `seen_from` and
`row_totals` put a gather in its place.
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
    """Fixed-point coordinates beside real ones that carry their derivative, for a rule's step (derivatives/segment.py).

    Every number is computed from ``fixed``, as in the driver. Integers have no derivatives, so that of a coordinate
    comes from ``real``, whose value nothing looks at, and the step returns real displacements in box sides.
    """

    fixed: Array  #: (dim, N) integers
    real: Array  #: (dim, N) box sides
    reciprocal: bool  #: terms are opposite for the partners of a pair but for draws: transposed sums need no scatter
    sums: Any = None  #: (dim, N) the row sums that the step of the integers reported; None where it reported none

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the coordinates."""
        return self.fixed.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the fixed-point coordinates."""
        return self.fixed.dtype


def reals(coordinates: "Array | Followed") -> Array:
    """Coordinates in box sides, in [-1/2, 1/2)."""
    if isinstance(coordinates, Followed):
        return with_derivative(reals(coordinates.fixed), coordinates.real)
    dtype = float_of(coordinates)
    return coordinates.astype(dtype) / quanta(dtype)


@jax.custom_jvp
def with_derivative(value: Any, of: Any) -> Any:  # noqa: ARG001
    """``value`` with the derivative of ``of``: what was rounded to integers follows what it was rounded from."""
    return value


@with_derivative.defjvp
def _with_derivative_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return with_derivative(*primals), tangents[1]


@jax.custom_jvp
def known_length(parts: Sequence[Array] | Array, size: Array) -> Array:  # noqa: ARG001
    """``size``, the length of vectors that is known already, with its derivative; zero where the length is zero."""
    return size


@known_length.defjvp
def _known_length_jvp(primals: tuple[Any, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    size = known_length(*primals)
    along = sum(part * dot for part, dot in zip(primals[0], tangents[0], strict=True))
    return size, along / jnp.where(size > 0, size, 1.0)


def seen_from(values: Sequence[Array] | Array, rows: Any, sign: float, reciprocal: bool) -> tuple[Array, ...]:
    """``values_i + sign values_j`` (N, K) along the rows, for each of some values (N,): the axes of a coordinate.

    Its transpose is a scatter in general. Where the rows are summed by :func:`row_totals` and a pair gives its partners
    terms u_ij t_ij and u_ji t_ji with t_ij = -t_ji, the transposed sum is one over the particle's own row, which is
    what it should be: sum_k u_ik A_ik^T l_i - u_ki A_ki^T l_k = sum_k A_ik^T (u_ik l_i - u_ki l_k). Half of the bracket
    comes from there, and twice from here.
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
    """Sums (N,) over rows (N, K) of real numbers; with :func:`seen_from` for their derivative.

    With the draws (u_ij, u_ji) of both partners, of u_ij times the values, where these are opposite for the two.
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
    # not `take`, whose rule for batches is a call that no transpose looks into
    return values.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _sums(values: Sequence[Array]) -> tuple[Array, ...]:
    """Sums (N,) of rows (N, K), all in one reduction: XLA then computes a pair once for all of them.

    Where K is a multiple of 8, eight partial sums first: XLA vectorises these, but not one running sum of floats. Their
    order is free here.
    """
    zeros = tuple(np.zeros((), value.dtype) for value in values)

    def add(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(a + b for a, b in zip(left, right, strict=True))

    parts = tuple(values)
    n, width = parts[0].shape
    if width % 8 == 0:
        parts = tuple(jax.lax.reduce(tuple(x.reshape(n, width // 8, 8) for x in parts), zeros, add, (1,)))
    return tuple(jax.lax.reduce(parts, zeros, add, (1,)))
