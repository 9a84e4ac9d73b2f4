"""The one value of phi_c to quote, with errors for finite run length and finite size.

Every estimate from runs of T steps moves as T grows. So each is repeated for the same replicas as they were at T/2.
Near a transition the shift falls as T^(-1/nu_par), so what remains of it at T is

    |value(T) - value(T/2)| / (2^(1/nu_par) - 1),

which is the error of run length. The estimate from absorption times (:mod:`packing_jax.criticality.absorption`) is
extrapolated to infinite runs instead; what remains is added only where the difference exceeds its statistical error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.criticality.absorption import (
    OF_TASKS,
    AbsorptionTimes,
    Scaling,
    absorption_phi_c,
    fit,
    outcomes_of,
    scaling_in,
)
from packing_jax.criticality.results import Scan, scan_of
from packing_jax.criticality.stationarity import final_activity, final_drift
from packing_jax.errors import PackingError

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = 2
"""Version of summary.json; version 1, of release 0.1.0, had no `recommended`."""


@dataclass(frozen=True)
class ErrorParts:
    """Standard errors of a value: statistical (number of replicas), of run length, of system size; None: not known."""

    statistical: float
    run_length: float | None
    size: float | None

    @property
    def total(self) -> float | None:
        """The three in quadrature; None where one is not known."""
        if self.run_length is None or self.size is None:
            return None
        return math.hypot(self.statistical, self.run_length, self.size)


@dataclass(frozen=True)
class Recommended:
    """The value of a critical parameter to quote, with its error and where it comes from.

    `stderr` is the total of `statistical`, `run_length` and `size`. `axes` are the values of the other axes of the
    sweep, such as the kick.
    """

    parameter: str
    axes: dict[str, float]
    value: float
    stderr: float
    statistical: float
    run_length: float
    size: float
    method: str
    why: str


def shortened(cell: Scan, steps: float) -> Scan:
    """The same replicas as they were after so many steps."""
    kept = cell.time <= steps
    time, activity = cell.time[kept], cell.activity[..., kept]
    absorbed_at = np.where(cell.absorbed_at <= steps, cell.absorbed_at, -1)
    change, stderr = final_drift(time, activity)
    final = final_activity(time, activity, absorbed_at >= 0)
    final = np.where(np.isnan(cell.final), np.nan, final)
    drift = type(cell.drift)(change, stderr)
    return replace(cell, time=time, activity=activity, absorbed_at=absorbed_at, final=final, drift=drift)


def halfway(cell: Scan) -> Scan | None:
    """The same replicas as they were at T/2; None where too little is recorded by then."""
    found: Scan | None = _attempt(lambda: shortened(cell, cell.time[-1] / 2))
    return found


def with_run_length(found: AbsorptionTimes, earlier: AbsorptionTimes | None, scaling: Scaling) -> AbsorptionTimes:
    """The estimate, its error joined with the change from T/2 to T beyond its statistical error.

    Args:
        found: after T steps.
        earlier: of the same replicas as they stood at T/2; None where that is refused.
        scaling: of the transition.
    """
    if earlier is None:
        return found
    moved = math.sqrt(max(0.0, (found.value - earlier.value) ** 2 - earlier.statistical**2))
    run_length = math.hypot(found.run_length, moved * _left(scaling))
    total = math.hypot(found.statistical, run_length, found.size)
    low, high = (found.value + (end - found.value) * total / found.stderr for end in found.interval)
    return replace(found, stderr=total, run_length=run_length, interval=(low, high))


def absorption_of(cell: Scan, half: Scan | None, seed: int) -> AbsorptionTimes:
    """phi_c by the times of absorption of one size, with what the length of runs leaves out.

    Raises:
        PackingError: what `absorption_phi_c` refuses.
    """
    found = absorption_phi_c(*_absorptions(cell), seed=seed)
    earlier = None if half is None else _attempt(lambda: absorption_phi_c(*_absorptions(half), seed=seed))
    return with_run_length(found, earlier, _scaling(cell))


def error_parts(cell: Scan, half: Scan | None, found: Any, estimate: Callable[[Scan], Any]) -> ErrorParts:
    """Errors of an estimate that is not extrapolated; run_length is None where it is refused at T/2."""
    earlier = None if half is None else _attempt(lambda: estimate(half))
    moved = None if earlier is None else abs(found.value - earlier.value) * _left(_scaling(cell))
    return ErrorParts(found.stderr, moved, _size_error(cell, found.value))


def _size_error(cell: Scan, value: float) -> float | None:
    """The typical shift of a value by a finite N; None where N or the dimension is not known."""
    if cell.particles is None or cell.dim is None:
        return None
    scaling = scaling_in(cell.dim)
    return float(scaling.offset * abs(value) * cell.particles**-scaling.omega)


def of_infinite_systems(sizes: Sequence[xr.Dataset], seed: int = 0) -> list[Recommended]:
    """phi_c of infinite systems for each kick and batch fraction, from the results at several sizes.

    A kick and batch fraction whose data do not suffice is left out.

    Args:
        sizes: results of one size each, as from `by_other_axes`.
        seed: of the walkers.
    """
    found = []
    for k, kick in enumerate(sizes[0]["kick"].values):
        for b, fraction in enumerate(sizes[0]["batch_fraction"].values):
            best = _attempt(partial(_of_all, [scan_of(one, k, b) for one in sizes], seed))
            if best is not None:
                found.append(of_absorption(best, {"kick": float(kick), "batch_fraction": float(fraction)}))
    return found


def of_task(
    parameter: str,
    samples: np.ndarray,
    weights: np.ndarray,
    steps: int,
    absorbed_at: np.ndarray,
    axes: dict[str, float],
) -> Recommended:
    """The number of samples at which networks stop coming to rest, from the times at which replicas were absorbed.

    Args:
        parameter: what the number of samples is called.
        samples: it, of each replica, (replicas,); in any unit.
        weights: N of each replica, (replicas,).
        steps: of every run.
        absorbed_at: step of absorption of each replica, (replicas,), -1 where active.
        axes: values of what else the sweep varies.

    Raises:
        PackingError: what `fit` refuses.
    """

    def after(time: float) -> AbsorptionTimes:
        gone = np.where(absorbed_at <= time, absorbed_at, -1).astype(float)
        counted = outcomes_of(samples, weights.astype(float), np.full(len(gone), time), gone)
        return fit(counted, OF_TASKS, parameter=parameter)

    found = with_run_length(after(float(steps)), _attempt(lambda: after(steps / 2)), OF_TASKS)
    return of_absorption(found, axes, parameter, several=len(np.unique(weights)) > 1)


def of_absorption(
    found: AbsorptionTimes, axes: dict[str, float], parameter: str = "phi", *, several: bool = True
) -> Recommended:
    """An estimate by the times of absorption, of several sizes or one, as the value to quote."""
    which = "each replica of several sizes" if several else "each replica"
    why = f"from the step at which {which} was absorbed, extrapolated to infinite runs and systems"
    parts = found.statistical, found.run_length, found.size
    return Recommended(parameter, axes, found.value, found.stderr, *parts, "absorption", why)


def _of_all(cells: list[Scan], seed: int) -> AbsorptionTimes:
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for cell in cells:
        if cell.particles is None:
            raise PackingError("the number of particles is not known: give the results an attribute 'particles'")
        run = np.isfinite(cell.absorption)
        phi = np.broadcast_to(cell.phi[:, None], run.shape)[run]
        size, steps = np.full(len(phi), float(cell.particles)), np.full(len(phi), float(cell.steps))
        for column, values in zip(columns, (phi, size, steps, cell.absorption[run]), strict=True):
            column.append(values)
    return fit(outcomes_of(*map(np.concatenate, columns)), _scaling(cells[0]), seed=seed)


def _absorptions(cell: Scan) -> tuple[Any, ...]:
    return cell.phi, cell.absorption, cell.steps, cell.particles, cell.dim


def _scaling(cell: Scan) -> Scaling:
    return scaling_in(cell.dim or 4)


def _left(scaling: Scaling) -> float:
    """The shift that remains at T, over the change from T/2 to T."""
    return float(1.0 / (2.0**scaling.decay - 1.0))


def _attempt(estimate: Callable[[], Any]) -> Any:
    try:
        return estimate()
    except PackingError:
        return None
