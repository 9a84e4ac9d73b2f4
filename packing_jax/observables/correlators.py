r"""Motion between two times: mean squared displacement, self-intermediate scattering, overlap and chi_4.

These take arrays (time, ..., units, components). A unit is a particle with its unwrapped coordinates, or a weight with
one component. Axes between time and units are samples, and are kept in the result. Each function compares the records
``start`` with the records ``end``, index arrays that broadcast together as in numpy:

* ``start=0, end=np.arange(T)``: since the first record;
* ``start=np.arange(T)[:, None], end=np.arange(T)``: the two-time function, (T, T, ...); the run ages if this is not a
  function of the time difference alone;
* ``start, end = lag_pairs(times)`` and then :func:`average_over_origins`: for a stationary run, a function of the lag.

``np.unwrap(positions, period=box, axis=0)`` unwraps records between which no particle moves by half a box or more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.estimate import Estimate
from packing_jax.exact import exact_mean

Float = NDArray[np.float64]

_MEAN_SIZE = 2**22  # numbers that one exact mean takes
_PAIR_SIZE = 2**20  # numbers in one batch of pairs of times

_ROUNDING = 8  # in spacings of floats at the largest time: lags closer than this are equal, as 0.3 and 0.1 + 0.2


class LagAverage(NamedTuple):
    """A correlator as a function of the time between its two records."""

    lag: NDArray[Any]  #: (lags,) increasing, in the unit of the times
    value: Float  #: (lags, ...) mean over origins
    origins: NDArray[np.int64]  #: (lags,) pairs of records averaged; pairs that overlap in time are not independent


def mean_squared_move(x: ArrayLike, start: ArrayLike, end: ArrayLike) -> Array:
    """MSD(s, t) = <|x(t) - x(s)|^2> over units.

    Args:
        x: (time, ..., units, components), unwrapped.
        start: indices of the earlier records, any shape.
        end: indices of the later ones; broadcast against ``start``.

    Returns:
        (pairs..., ...): the broadcast shape of the indices, then the samples.

    Raises:
        PackingError: fewer than three axes, or indices that are not whole numbers or point at no record.
    """
    return _over_pairs(_square, (), x, start, end)


def self_scattering(x: ArrayLike, q: ArrayLike, start: ArrayLike, end: ArrayLike) -> Array:
    """The self-intermediate scattering function of an isotropic system, averaged over units and axes c.

    F_s(q; s, t) = <cos(q (x_c(t) - x_c(s)))>, the wave vector along each axis in turn.

    Args:
        x: (time, ..., units, components), unwrapped.
        q: (waves,) or (), in inverse units of ``x``.
        start: as in :func:`mean_squared_move`.
        end: likewise.

    Returns:
        (pairs..., ..., waves), without the last axis for a single q.

    Raises:
        PackingError: as :func:`mean_squared_move`; a q that is not finite.
    """
    if not np.isfinite(np.asarray(q)).all():
        raise PackingError(f"the wave numbers are {q}; they must be finite")
    return _over_pairs(_cosine, (q,), x, start, end)


def self_overlap(x: ArrayLike, reach: ArrayLike, start: ArrayLike, end: ArrayLike) -> Array:
    """Q(s, t): the fraction of units that moved less than ``reach``, |x(t) - x(s)| < reach.

    Args:
        x: (time, ..., units, components), unwrapped.
        reach: (reaches,) or (), in the unit of ``x``; 0.3 mean diameters is usual for glasses.
        start: as in :func:`mean_squared_move`.
        end: likewise.

    Returns:
        (pairs..., ..., reaches), without the last axis for a single reach.

    Raises:
        PackingError: as :func:`mean_squared_move`; a reach that is not positive.

    Source: Lacevic, Starr, Schroder and Glotzer, J. Chem. Phys. 119, 7372 (2003).
    """
    if not np.all(np.asarray(reach) > 0):
        raise PackingError(f"the reach is {reach}; it must be positive")
    return _over_pairs(_within, (reach,), x, start, end)


def chi_4(overlap: ArrayLike, units: int, axis: int = -1) -> Estimate:
    """chi_4 = units (<Q^2> - <Q>^2), the variance of the overlap between independent samples, and its jackknife error.

    It measures how many units move together: if they move independently and stay with probability p, it is p (1 - p).

    Args:
        overlap: Q from :func:`self_overlap`, with samples along ``axis``.
        units: number of units that Q is a mean over.
        axis: of the samples, three or more.

    Returns:
        chi_4 (unbiased) and its standard error, without that axis.

    Raises:
        PackingError: fewer than three samples, no such axis, no units, or values outside [0, 1].
    """
    samples = np.asarray(overlap, dtype=np.float64)
    if not -samples.ndim <= axis < samples.ndim:
        raise PackingError(f"overlaps of shape {samples.shape} have no axis {axis}")
    q = np.moveaxis(samples, axis, -1)
    n = q.shape[-1]
    if n < 3:
        raise PackingError(f"{n} samples; the variance between samples and its error need three or more")
    if units < 1:
        raise PackingError(f"{units} units; there must be at least one")
    if not np.all((q >= 0) & (q <= 1)):
        raise PackingError("overlaps are fractions of units: they must lie between 0 and 1, without NaN")
    deviation = q - q.mean(axis=-1, keepdims=True)
    squares = np.sum(deviation**2, axis=-1)
    without = (squares[..., None] - deviation**2 * (n / (n - 1))) / (n - 2)  # the variance with one sample left out
    spread = np.sum((without - without.mean(axis=-1, keepdims=True)) ** 2, axis=-1)
    return Estimate(units * squares / (n - 1), units * np.sqrt((n - 1) / n * spread))


# --- pairs of times -------------------------------------------------------------------------------------------


def lag_pairs(times: ArrayLike, lags: ArrayLike | None = None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices (start, end) of all pairs of records with times[end] - times[start] in ``lags``; all lags when None.

    Raises:
        PackingError: times that do not increase, or a lag that no pair of records has.
    """
    t = _check_times(times)
    start, end = np.nonzero(t[None, :] >= t[:, None])
    if lags is None:
        return start, end
    lag, which = _lags(t, start, end)
    asked = np.unique(np.asarray(lags))
    same = np.abs(lag[:, None] - asked) <= _rounding(t)
    missing = asked[~same.any(axis=0)]
    if len(missing):
        raise PackingError(f"no two records are {missing[0]} apart; choose lags among the differences of the times")
    wanted = same.any(axis=1)[which]
    return start[wanted], end[wanted]


def average_over_origins(times: ArrayLike, start: ArrayLike, end: ArrayLike, values: ArrayLike) -> LagAverage:
    """The mean of a correlator (pairs, ...) over all pairs of records with the same lag.

    For stationary runs only: the mean would hide ageing.

    Args:
        times: of the records, (T,), increasing.
        start: indices of the earlier records, (pairs,).
        end: indices of the later ones, (pairs,).
        values: the correlator of each pair, (pairs, ...).

    Raises:
        PackingError: times that do not increase, or shapes that differ.
    """
    t = _check_times(times)
    first, last, array = np.asarray(start), np.asarray(end), np.asarray(values, dtype=np.float64)
    if first.ndim != 1 or first.shape != last.shape or array.shape[:1] != first.shape:
        raise PackingError(
            f"start {first.shape}, end {last.shape} and values {array.shape} must have the same first axis, the pairs"
        )
    lag, which = _lags(t, first, last)
    origins = np.bincount(which)
    order = np.argsort(which, kind="stable")
    sums = np.add.reduceat(array[order], np.concatenate([[0], np.cumsum(origins)[:-1]]), axis=0)
    return LagAverage(lag, sums / origins.reshape(-1, *[1] * (array.ndim - 1)), origins)


def _lags(t: NDArray[Any], start: NDArray[Any], end: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The distinct lags of some pairs, and the index of each pair's lag; lags that differ by rounding are equal."""
    every, which = np.unique(t[end] - t[start], return_inverse=True)
    new = np.concatenate([[True], np.diff(every) > _rounding(t)])
    return every[new], (np.cumsum(new) - 1)[which]


def _rounding(t: NDArray[Any]) -> float:
    """Lags closer than this are the same; 0 for whole numbers."""
    return _ROUNDING * float(np.spacing(np.abs(t).max())) if np.issubdtype(t.dtype, np.floating) else 0.0


def _check_times(times: ArrayLike) -> NDArray[Any]:
    t = np.asarray(times)
    if t.ndim != 1 or not len(t) or np.any(np.diff(t) <= 0):
        raise PackingError("the times of the records must be a list of increasing numbers")
    return t


# --- the compiled part ----------------------------------------------------------------------------------------


def _square(move: Array) -> Array:
    return _mean(jnp.sum(move * move, axis=-1))


def _cosine(move: Array, q: Array) -> Array:
    return _mean(jnp.cos(q * move).reshape(*move.shape[:-2], -1))


def _within(move: Array, reach: Array) -> Array:
    stayed = jnp.sum(move * move, axis=-1) < reach * reach
    return jnp.sum(stayed, axis=-1, dtype=jnp.int32).astype(move.dtype) / move.shape[-2]


def _mean(values: Array) -> Array:
    """Mean over the last axis, exact: a plain float32 sum of a million numbers keeps only four digits."""
    rows, n = values.reshape(-1, values.shape[-1]), values.shape[-1]
    # in blocks that exact_mean can take
    blocks = [rows[:, k : k + _MEAN_SIZE] for k in range(0, n, _MEAN_SIZE)]
    means = [jax.vmap(exact_mean)(block) * np.asarray(block.shape[1] / n, values.dtype) for block in blocks]
    return sum(means[1:], means[0]).reshape(values.shape[:-1])


def _over_pairs(
    statistic: Callable[..., Array], scales: tuple[ArrayLike, ...], x: ArrayLike, start: ArrayLike, end: ArrayLike
) -> Array:
    if np.ndim(x) < 3 or 0 in np.shape(x):
        raise PackingError(f"x has shape {np.shape(x)}; it must be (time, ..., units, components), none of them empty")
    # relative to the first record: float32 on the device then resolves small moves of float64 positions
    array = jnp.asarray(x - x[:1] if isinstance(x, np.ndarray) else x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise PackingError(f"x has entries of type {array.dtype}; it must be real numbers")
    first, last = np.broadcast_arrays(np.asarray(start), np.asarray(end))
    for index in (first, last):
        if not np.issubdtype(index.dtype, np.integer):
            raise PackingError("start and end are indices of records; they must be whole numbers")
        if index.size and (index.min() < 0 or index.max() >= len(array)):
            raise PackingError(f"start and end must be indices of the {len(array)} records, 0 to {len(array) - 1}")
    sizes = tuple(jnp.asarray(scale, array.dtype) for scale in scales)
    if any(size.ndim > 1 for size in sizes):
        raise PackingError("the wave numbers or reaches must be one number or a list of them")
    flat = first.reshape(-1).astype(np.int32), last.reshape(-1).astype(np.int32)
    values = _compiled_over_pairs(statistic, array, jnp.asarray(flat[0]), jnp.asarray(flat[1]), sizes)
    return values.reshape(*first.shape, *values.shape[1:])


@partial(jax.jit, static_argnums=0)
def _compiled_over_pairs(
    statistic: Callable[..., Array], x: Array, start: Array, end: Array, scales: tuple[Array, ...]
) -> Array:
    def one(pair: tuple[Array, Array]) -> Array:
        move = x[pair[1]] - x[pair[0]]
        if not scales or not scales[0].ndim:
            return statistic(move, *scales)
        # one scale at a time: all at once would need a copy of the moves for each
        return jnp.moveaxis(jax.lax.map(lambda scale: statistic(move, scale), scales[0]), 0, -1)

    together = max(1, _PAIR_SIZE // max(1, x[0].size))
    return jax.lax.map(one, (start, end), batch_size=min(together, max(1, len(start))))
