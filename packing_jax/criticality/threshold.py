"""phi_c as arXiv:2411.11834 defines it: the largest scanned packing fraction whose final activity is below 0.1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from packing_jax.criticality.fits import bootstrap_means
from packing_jax.criticality.results import or_results
from packing_jax.criticality.scan import DRAWS, drifting, replicas_run, scan_order
from packing_jax.criticality.stationarity import Drift
from packing_jax.errors import PackingError

ACTIVITY_CUT = 0.1
"""Final activity below which arXiv:2411.11834 counts a packing fraction as absorbing."""


@dataclass(frozen=True)
class Threshold:
    """phi_c as the largest scanned phi with f_a < 0.1; the crossing lies inside `bracket`.

    `interval` is the bracket, widened to where the crossing lies in 95 % of the bootstrap draws. It holds the crossing
    of f_a = 0.1, which for f_a = A (phi - phi_c)^beta is above phi_c by (0.1/A)^(1/beta).
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    bracket: tuple[float, float]


@or_results("phi", "final", "drift")
def threshold_phi_c(
    phi: ArrayLike,
    activity: ArrayLike,
    drift: Drift | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Threshold:
    """phi_c as the largest scanned phi whose final activity, averaged over replicas, is below 0.1.

    The crossing lies between that phi and the next one scanned, a spacing h above. The error joins the bootstrap over
    replicas with h/sqrt(3), the root-mean-square distance from the lower edge of a crossing that is uniform in the
    interval. So a coarse scan has a large error even if all replicas agree. With a single replica of each phi the error
    is h/sqrt(3) alone. Source: arXiv:2411.11834.

    Instead of the arrays: a trajectory, a dataset, or the directory of a sweep (str or Path).

    Args:
        phi: packing fractions, (phi,).
        activity: final activity, (phi, replica); 0 where absorbed, NaN where not run.
        drift: `final_drift` of the same replicas, (phi, replica) each; None: taken as stationary.
        draws: bootstrap draws.
        seed: of the bootstrap; the same seed gives the same error.

    Raises:
        PackingError: fewer than two packing fractions, no crossing inside the scan, or an activity just above it
            that still drifts: it may yet fall below 0.1.
    """
    order = scan_order(phi, activity)
    phis, rows = np.asarray(phi, float)[order], replicas_run(activity, order)
    below = np.flatnonzero([row.mean() < ACTIVITY_CUT for row in rows])
    if not below.size:
        raise PackingError(
            f"the final activity is {ACTIVITY_CUT:g} or more at every phi, down to {phis[0]:g}: scan lower phi, or run "
            "more steps"
        )
    edge = int(below[-1])
    if edge == len(phis) - 1:
        raise PackingError(
            f"the final activity is below {ACTIVITY_CUT:g} at the highest phi, {phis[-1]:g}: scan higher phi"
        )
    if drifting(rows, drift, order)[edge + 1]:
        raise PackingError(
            f"the activity at phi = {phis[edge + 1]:g}, the first above {ACTIVITY_CUT:g}, is not stationary: run more "
            "steps"
        )
    under = bootstrap_means(rows, draws, np.random.default_rng(seed)) < ACTIVITY_CUT
    edges = np.where(under.any(axis=1), len(phis) - 1 - np.argmax(under[:, ::-1], axis=1), 0)
    scatter = np.sqrt(np.mean((phis[edges] - phis[edge]) ** 2))
    bracket = float(phis[edge]), float(phis[edge + 1])
    spacing = (bracket[1] - bracket[0]) / np.sqrt(3.0)
    low, high = np.quantile(edges, [0.025, 0.975], method="inverted_cdf").astype(int)
    return Threshold(
        value=bracket[0],
        stderr=math.hypot(scatter, spacing),
        interval=(min(bracket[0], float(phis[low])), max(bracket[1], float(phis[min(high + 1, len(phis) - 1)]))),
        bracket=bracket,
    )
