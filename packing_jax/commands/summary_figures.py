"""The figures of a report of spheres: activity against phi and time, the packing, phi_c against the kick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from packing_jax.commands import phi_c_plots, plots
from packing_jax.commands.drawing import write_figures
from packing_jax.criticality import KickEstimate, ZeroKickLimit, was_run
from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

Limits = dict[tuple[str, float], ZeroKickLimit]
"""By method and batch fraction."""


def draw(
    folder: Folder, model: str, results: xr.Dataset, estimates: Sequence[KickEstimate], limits: Limits
) -> list[str]:
    """Draw every figure the results allow; returns a note for each that they do not."""
    rule = results.attrs.get("rule", "bro")
    jobs: dict[str, Callable[[], Figure]] = {"packing": partial(_picture, results)}
    if results.sizes["phi"] > 1:
        jobs = {"activity_vs_phi": partial(phi_c_plots.activity_vs_phi, results, estimates)} | jobs
    ran = [e for e in estimates if e.missing < e.runs]
    fractions = {e.batch_fraction for e in ran}
    for e in ran:
        name = "activity_vs_time"
        name += f"_kick_{e.kick:g}" if len(ran) > 1 else ""
        name += f"_batch_{e.batch_fraction:g}" if len(fractions) > 1 else ""
        jobs[name] = partial(plots.activity_vs_time, results, e.kick, e.batch_fraction)
    if len({e.kick for e in estimates if e.threshold or e.power_law}) > 1:
        jobs["phi_c_vs_kick"] = partial(phi_c_plots.phi_c_vs_kick, estimates, limits, rule)

    place = f"figures/{model}".rstrip("/")
    for name in dict.fromkeys(("figures", place)):
        folder.make(name)
    return write_figures(folder, place, jobs)


def _picture(results: xr.Dataset) -> Figure:
    """The packing at the lowest phi that stays active, or the densest one if all are absorbed."""
    for name in ("positions", "diameters"):
        if name not in results:
            raise PackingError(f"these results lack the variable '{name}'")
    dims = ("kick", "batch_fraction", "phi", "replica")
    results = results.sortby(["phi", "kick", "batch_fraction"])
    run = was_run(results).transpose(*dims).values
    active = run & (results["absorbed_at"].transpose(*dims).values < 0)
    if not run.any():
        raise PackingError("no replica of this sweep has been run yet: there is nothing to draw")
    k, b = np.argwhere(run.any(axis=(2, 3)))[0]
    settled = active[k, b].sum(axis=1) > 0.5 * run[k, b].sum(axis=1)
    p = np.flatnonzero(settled)[0] if settled.any() else np.flatnonzero(run[k, b].any(axis=1))[-1]
    r = np.flatnonzero(active[k, b, p] if settled.any() else run[k, b, p])[0]
    at = {"phi": p, "kick": k, "batch_fraction": b, "replica": r}
    try:
        positions = results["positions"].isel(at).transpose("particle", "axis").values
        diameters = results["diameters"].isel(phi=p).values
    except PackingError as error:  # one damaged chunk must not cost the numbers
        raise PackingError(f"the positions cannot be read ({error})") from error
    phi = float(results["phi"].values[p])
    return plots.packing(positions, diameters, title=rf"$\phi = {phi:.4g}$")
