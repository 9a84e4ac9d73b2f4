"""Checks and selections that every estimate of phi_c needs: packing fractions in order, replicas that were run."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.criticality.stationarity import Drift, drifts
from packing_jax.errors import PackingError

Array = NDArray[np.float64]

DRAWS = 400
"""Bootstrap draws: errors to about 4 %."""


def scan_order(phi: ArrayLike, activity: ArrayLike) -> list[int]:
    """Indices of the packing fractions that were run, by increasing phi.

    Raises:
        PackingError: phi that repeat or are not finite, activity of another shape or outside [0, 1], or fewer than two
            packing fractions that were run.
    """
    phis, values = np.asarray(phi, float), np.asarray(activity, float)
    if phis.ndim != 1 or not np.isfinite(phis).all() or len(np.unique(phis)) != phis.size:
        raise PackingError("phi must be a list of different, finite packing fractions")
    if values.ndim != 2 or len(values) != phis.size:
        raise PackingError(f"final activity has shape {values.shape}: it must be ({phis.size} phi, replicas)")
    if (values < 0).any() or (values > 1 + 1e-6).any():
        raise PackingError("final activity is a fraction of particles: it must lie in [0, 1]")
    order = [int(i) for i in np.argsort(phis) if np.isfinite(values[i]).any()]
    if len(order) < 2:
        were = "1 was" if order else "none was"
        raise PackingError(f"a transition needs two or more packing fractions, and {were} run: scan a range of phi")
    return order


def replicas_run(values: ArrayLike, order: list[int]) -> list[Array]:
    """The replicas that were run at each packing fraction."""
    rows = np.asarray(values, float)[order]
    return [row[np.isfinite(row)] for row in rows]


def records_run(time: ArrayLike, phi: ArrayLike, activity: ArrayLike) -> tuple[Array, Array, list[Array]]:
    """(steps, phi, activities) by increasing phi, each activity (replica, time) of the replicas that were run."""
    steps, phis, values = np.asarray(time, float), np.asarray(phi, float), np.asarray(activity, float)
    if steps.ndim != 1 or values.ndim != 3 or values.shape[0] != phis.size or values.shape[2] != steps.size:
        raise PackingError(
            f"activity has shape {values.shape}: it must be ({phis.size} phi, replicas, {steps.size} times)"
        )
    if steps.size < 8 or not (np.diff(steps) > 0).all():
        raise PackingError("time must be a list of eight or more increasing steps")
    order = scan_order(phis, values.mean(axis=2))
    return steps, phis[order], [row[np.isfinite(row).all(axis=1)] for row in values[order]]


def drifting(activity: list[Array], drift: Drift | None, order: list[int]) -> list[bool]:
    """Whether the replicas that stayed active drift, at each phi of `order`; with drift None, they do not."""
    if drift is None:
        return [False] * len(order)
    changes, stderrs = (replicas_run(part, order) for part in drift)
    if any(len(row) != len(moved) for row, moved in zip(activity, changes, strict=True)):
        raise PackingError("drift must have the shape of the activity and be NaN where that is")
    found = []
    for row, change, stderr in zip(activity, changes, stderrs, strict=True):
        alive = row > 0
        found.append(bool(alive.any()) and drifts(row[alive], Drift(change[alive], stderr[alive])))
    return found
