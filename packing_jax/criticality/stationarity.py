"""The stationary activity: its average over the last quarter of a record, and whether it still drifts."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.errors import PackingError

Array = NDArray[np.float64]

FINAL_SPAN = 0.25
"""Share of the recorded time, at its end, over which the final activity is averaged."""

_BLOCKS = 8  # of the last half of the record
_DRIFT = 0.1  # smallest relative change of f_a from the third to the last quarter that counts


def final_activity(time: ArrayLike, activity: ArrayLike, absorbed: ArrayLike | None = None) -> Array:
    """Stationary activity: the time average of f_a over the last quarter of the record.

    (4/T) * integral of f_a dt over the last T/4 of the recorded time T, by the trapezoid rule, so that logarithmic and
    linear times give the same result. A replica that was absorbed counts 0, whenever that happened.

    Args:
        time: recorded steps, (time,), increasing.
        activity: fraction of particles that overlap, (..., time); NaN where not run.
        absorbed: True where the replica was absorbed, (...); None: where the last activity is 0.

    Returns:
        Final activity, (...); NaN where not run.

    Raises:
        PackingError: time not increasing, shapes that do not match, an activity outside [0, 1].
    """
    steps, values = _record(time, activity)
    mean = _average(steps, values, 1.0 - FINAL_SPAN, 1.0)
    gone = values[..., -1] == 0.0 if absorbed is None else np.asarray(absorbed, bool)
    if gone.shape != mean.shape:
        raise PackingError(f"absorbed has shape {gone.shape}: it must be {mean.shape}")
    return np.where(gone & np.isfinite(mean), 0.0, mean)


class Drift(NamedTuple):
    """The change of the activity at the end of the record, (...): last quarter less the one before, and its error."""

    change: Array
    stderr: Array


def final_drift(time: ArrayLike, activity: ArrayLike) -> Drift:
    """Change of the activity from the third to the last quarter of the record, from block averages.

    A straight line is fitted to the averages over 8 equal blocks of the last half. The change is its rise over T/4, and
    the standard error comes from the scatter of the blocks about it. Blocks are correlated where the relaxation time
    exceeds a block, so `drifts` also uses the scatter between replicas.

    Arguments, shapes and exceptions as for `final_activity`.
    """
    steps, values = _record(time, activity)
    edges = 0.5 + 0.5 * np.arange(_BLOCKS + 1) / _BLOCKS
    blocks = np.stack([_average(steps, values, a, b) for a, b in pairwise(edges)], axis=-1)
    place = np.arange(_BLOCKS) - (_BLOCKS - 1) / 2
    slope = blocks @ place / (place @ place)
    residual = blocks - blocks.mean(axis=-1, keepdims=True) - slope[..., None] * place
    stderr = np.sqrt(np.sum(residual**2, axis=-1) / (_BLOCKS - 2) / (place @ place))
    return Drift(np.asarray(slope * _BLOCKS / 2), np.asarray(stderr * _BLOCKS / 2))


def drifts(final: ArrayLike, drift: Drift) -> bool:
    """True if the activity of independent replicas of one phi is not stationary.

    For this their mean change must exceed 10 % of their mean activity and three standard errors, from block averages or
    from the scatter between replicas, whichever is larger. False alarms are rarer than 1 in 100. A critical decay t^-a
    changes by 5 % for a = 0.14 (Manna in 1D), which counts as stationary, and by 15 % for a = 0.42 (2D), which does
    not.

    Args:
        final: `final_activity` of replicas that were not absorbed, (replica,).
        drift: `final_drift` of the same replicas, (replica,) each.
    """
    change, within = np.asarray(drift.change, float), np.asarray(drift.stderr, float)
    count = len(change)
    between = change.std(ddof=1) / count**0.5 if count > 1 else 0.0
    stderr = max(between, float(np.sqrt(np.mean(within**2) / count)))
    return bool(abs(change.mean()) > max(_DRIFT * np.asarray(final, float).mean(), 3 * stderr))


def _record(time: ArrayLike, activity: ArrayLike) -> tuple[Array, Array]:
    steps, values = np.asarray(time, float), np.asarray(activity, float)
    if steps.ndim != 1 or steps.size < 2 or not (np.diff(steps) > 0).all():
        raise PackingError("time must be a list of two or more increasing steps")
    if values.ndim < 1 or values.shape[-1] != steps.size:
        raise PackingError(f"activity has shape {values.shape}: its last axis must be the {steps.size} times")
    if (values < 0).any() or (values > 1 + 1e-6).any():
        raise PackingError("activity is a fraction of particles: it must lie between 0 and 1")
    return steps, values


def _average(time: Array, values: Array, start: float, stop: float) -> Array:
    """Mean of values (..., time) between two shares of the record, exact for straight segments."""
    span = time[-1] - time[0]
    low, high = time[0] + start * span, time[0] + stop * span
    left, right = np.clip(time[:-1], low, high), np.clip(time[1:], low, high)
    share = ((left + right) / 2 - time[:-1]) / np.diff(time)
    weight = np.zeros(len(time))
    weight[:-1] += (right - left) * (1 - share)
    weight[1:] += (right - left) * share
    used = weight > 0
    return np.asarray(values[..., used] @ weight[used] / (high - low))
