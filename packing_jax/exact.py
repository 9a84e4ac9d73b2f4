"""Sums that do not depend on the order of their terms: floats are rounded to a common quantum and added as integers.

Particles are stored in the order of cells and neighbours in the order in which they were found. Both change with the
batch, the chunk and the device; a sum of floats in that order would change with them in its last bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core


def row_sums(terms: Sequence[Array], flags: Array) -> tuple[list[Array], Array]:
    """Sums (M,) of integer terms (M, K) over the rows, and whether a row has a flag set.

    All in one reduction: XLA then computes a pair once for all of them, and stores nothing per pair.
    """
    operands = (*terms, flags)
    starts = tuple(np.zeros((), operand.dtype) for operand in operands)

    def add(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
        return (*(a + b for a, b in zip(left[:-1], right[:-1], strict=True)), left[-1] | right[-1])

    *sums, any_flag = jax.lax.reduce(operands, starts, add, (1,))
    return sums, any_flag


def bounded_row_sums(values: Sequence[Array], bound: Array | float, flags: Array) -> tuple[Array, Array]:
    """Sum floats (M, K), one array per axis, over the rows, each value at most ``bound``: (axes, M), and flags (M,).

    The quantum is 2^-24 of the bound in float32, the resolution of the values themselves, and 2^-56 in float64. Long
    rows are summed in high and low halves, so that 2^15 terms cannot overflow. Sums are multiplied by the quantum:
    divided by its inverse, XLA does one or the other, and not the same in all programs.
    """
    dtype = values[0].dtype
    bits = 8 * dtype.itemsize
    bound = jnp.asarray(bound, dtype)
    scale, quantum = np.asarray(2.0 ** (bits - 8), dtype) / bound, np.asarray(2.0 ** (8 - bits), dtype) * bound
    whole = [jnp.rint(value * scale).astype(np.dtype(f"int{bits}")) for value in values]
    if values[0].shape[1] < 127:
        sums, any_flag = row_sums(whole, flags)
        return jnp.stack([total.astype(dtype) for total in sums]) * quantum, any_flag
    half = np.asarray(bits // 2, whole[0].dtype)
    lowest = np.asarray(2 ** (bits // 2) - 1, whole[0].dtype)
    parts, any_flag = row_sums([part for one in whole for part in (one >> half, one & lowest)], flags)
    high, low = (jnp.stack(sums).astype(dtype) for sums in (parts[::2], parts[1::2]))
    return (high * np.asarray(2.0 ** (bits // 2), dtype) + low) * quantum, any_flag


def _whole(values: Array) -> tuple[Array, int, Array, Array]:
    """Floats as integers of so many digits, relative to the largest of them: also its exponent, and itself."""
    largest = jnp.max(jnp.abs(values))
    exponent = jnp.frexp(largest)[1]
    digits, integer = (23, np.int32) if values.dtype == np.float32 else (48, np.int64)
    return jnp.rint(jnp.ldexp(values, digits - exponent)).astype(integer), digits, exponent, largest


def exact_mean(values: Array) -> Array:
    """Mean over all entries, the same bits in any order; relative error 2^-24 of the largest entry (float32).

    Entries are rounded to integers relative to the largest one and summed in limbs of 8 bits, so that 2^23 of them
    cannot overflow an int32. An entry that is not finite makes the mean not finite.
    """
    whole, digits, exponent, largest = _whole(values.reshape(-1))
    integer = whole.dtype
    total = jnp.zeros((), values.dtype)
    for shift in range(0, digits + 1, 8):  # the top limb carries the sign
        limb = whole >> np.asarray(shift, integer)
        if shift + 8 <= digits:
            limb = limb & np.asarray(0xFF, integer)
        total = total + jnp.ldexp(jnp.sum(limb, dtype=integer).astype(values.dtype), shift)
    mean = jnp.where(largest == 0, 0.0, jnp.ldexp(total / whole.shape[0], exponent - digits))
    return jnp.where(jnp.isfinite(largest), mean, largest)


def exact_row_sums(values: Array) -> Array:
    """Sums (N,) of rows (N, K), the same bits in any order; relative error 2^-24 of the largest entry (float32)."""
    whole, digits, exponent, largest = _whole(values)
    integer = whole.dtype
    # two limbs: a heap of particles has rows of thousands
    low, high = (jnp.sum(limb, axis=1, dtype=integer).astype(values.dtype) for limb in (whole & 0xFFFF, whole >> 16))
    total = jnp.ldexp(low + jnp.ldexp(high, 16), exponent - digits)
    return jnp.where(jnp.isfinite(largest), total, largest)


def rounded_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with every product and quotient of floats rounded before it is used, in whatever program.

    Left alone, a product and a sum become one instruction that rounds once in some programs and two in others, and a
    quotient by a number becomes a product with its inverse in some: the same function of the same numbers then differs
    in its last bit between a batch and one replica. A maximum with the lowest float stands between the two. For the
    elementwise functions that users give; what they call inside a loop or a branch is left as it is.
    """

    def evaluated(*arguments: Any, **keywords: Any) -> Any:
        flat, tree = jax.tree.flatten((arguments, keywords))
        result = []

        def of_leaves(*leaves: Any) -> list[Any]:
            these, named = jax.tree.unflatten(tree, leaves)
            out, shape = jax.tree.flatten(function(*these, **named))
            result.append(shape)
            return out

        closed = jax.make_jaxpr(of_leaves)(*flat)
        return jax.tree.unflatten(result[-1], _evaluate(closed.jaxpr, closed.consts, flat))

    return evaluated


def _evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs, name = list(map(read, equation.invars)), equation.primitive.name
        inner = equation.params.get("jaxpr")
        if name in ("jit", "pjit") and inner is not None:
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
        elif name == "div" and jnp.issubdtype(inputs[1].dtype, jnp.floating):
            outputs = [_kept(inputs[0] * _kept(1.0 / inputs[1]))]
        else:
            bound = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = list(bound) if equation.primitive.multiple_results else [bound]
            if name in ("mul", "integer_pow", "square"):
                outputs = list(map(_kept, outputs))
        values |= zip(equation.outvars, outputs, strict=True)
    return list(map(read, jaxpr.outvars))


def _kept(value: Any) -> Any:
    """The value itself, by an operation that no compiler sees through."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return jnp.maximum(value, np.asarray(np.finfo(value.dtype).min, value.dtype))
