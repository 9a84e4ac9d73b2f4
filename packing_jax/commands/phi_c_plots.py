"""Figures of a transition: activity against phi with what the estimates of phi_c say, and phi_c against kick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.commands.drawing import DPI, LINES, MARKERS, POINTS, legend, new_figure, shades_of
from packing_jax.commands.plots import cell_label, cells_of, kick_name
from packing_jax.criticality import KickEstimate, ZeroKickLimit
from packing_jax.criticality.estimates import stationary
from packing_jax.criticality.results import Scan, scan_of
from packing_jax.errors import PackingError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


def activity_vs_phi(results: xr.Dataset, estimates: Sequence[KickEstimate] = ()) -> Figure:
    """Final activity f_a against phi, one curve for each kick and batch fraction, with the recommended phi_c.

    Points are means over replicas (absorbed ones count 0), with their standard errors. Open ones with an arrow still
    fall at the end of the run: no fit takes them. A vertical line and a band are the recommended phi_c and its error.
    Thin black curves are the power laws over their windows. Where there is one curve, what each estimate says of phi_c
    stands below it, with its whole error.

    Args:
        results: a sweep, as `estimate_phi_c` takes it.
        estimates: what `estimate_phi_c` returns for it; empty: no phi_c is marked.

    Raises:
        PackingError: not the results of a sweep, or none of it has been run.
    """
    found = {(estimate.kick, estimate.batch_fraction): estimate for estimate in estimates}
    cells = cells_of(results)
    beside = len(cells) == 1 and bool(found.get(cells[0]) and found[cells[0]].errors)
    figure, axes, below = _panels(beside)
    kicks, fractions = (sorted(set(part)) for part in zip(*cells, strict=True))
    shades = shades_of(len(kicks))
    falling = fitted = False
    for cell in cells:
        colour = shades[kicks.index(cell[0])]
        index = fractions.index(cell[1]) if len(fractions) > 1 else kicks.index(cell[0])
        scan = scan_of(results, *(results[n].values.tolist().index(v) for n, v in zip(_NAMES, cell, strict=True)))
        estimate = found.get(cell)
        label = cell_label(results, *cell) + _mark_phi_c(axes, estimate, colour)
        falling |= _points(axes, scan, {"color": colour, "marker": MARKERS[index % len(MARKERS)]}, label, index)
        if estimate and estimate.power_law:
            law = estimate.power_law
            fine = law.value + np.linspace(0, 1, 300) ** 2 * (law.window[1] - law.value)
            axes.plot(fine, law.activity(fine), color="black", lw=0.9, zorder=2.5)
            fitted = True
    axes.set(ylabel=r"Final activity $f_a$", ylim=(-0.03, None))
    if falling:
        axes.plot([], [], "v", color="0.4", mfc="white", ms=5, ls="", label="still falling, left out of fits")
    if fitted:
        axes.plot([], [], color="black", lw=0.9, label=r"$f_a = A\,(\phi - \phi_c)^{\beta}$")
    legend(figure, axes)
    if below is not None:
        _estimates(below, found[cells[0]], shades[0])
    (below or axes).set(xlabel=r"Packing fraction $\phi$")
    return figure


_NAMES = ("kick", "batch_fraction")


def _panels(beside: bool) -> tuple[Figure, Axes, Axes | None]:
    """A figure with one pair of axes, and one below that shares its phi."""
    if not beside:
        return *new_figure(5.4, 4.1), None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5.2), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.4))
    for axes in (above, below):
        axes.tick_params(which="both", direction="in", top=True, right=True, labelsize=9)
    return figure, above, below


def _mark_phi_c(axes: Axes, estimate: KickEstimate | None, colour: Any) -> str:
    """A line and a band at the recommended phi_c; its value, for the legend."""
    best = estimate.recommended() if estimate else None
    if best is None:
        return ""
    axes.axvspan(best.value - best.stderr, best.value + best.stderr, color=colour, alpha=0.15, lw=0)
    axes.axvline(best.value, color=colour, lw=0.9)
    return rf":  $\phi_c = {best.value:.4f} \pm {best.stderr:.4f}$"


def _points(axes: Axes, scan: Scan, style: dict[str, Any], label: str, index: int) -> bool:
    """The final activities of one cell; whether some still fall."""
    run = np.flatnonzero(np.isfinite(scan.final).any(axis=1))
    run = run[np.argsort(scan.phi[run])]
    phi, final = scan.phi[run], scan.final[run]
    count = np.isfinite(final).sum(axis=1)
    mean = np.nanmean(final, axis=1)
    stderr = np.sqrt(np.nansum((final - mean[:, None]) ** 2, axis=1) / np.maximum(count - 1, 1) / count)
    settled = np.isin(run, stationary(scan)) if len(run) > 1 else np.ones(len(run), bool)
    axes.plot(phi, mean, color=style["color"], ls=LINES[index % len(LINES)], lw=0.8, alpha=0.6)
    axes.errorbar(phi, mean, stderr, fmt="none", ecolor=style["color"], elinewidth=0.9, capsize=2)
    axes.plot(phi[settled], mean[settled], ls="", label=label, **style, **{**POINTS, "ms": 5.5})
    moving = ~settled
    axes.plot(phi[moving], mean[moving], ls="", **style, ms=5.5, mfc="white", mew=1.1, zorder=3)
    for x, y in zip(phi[moving], mean[moving], strict=True):
        axes.annotate(
            "", (x, y), (0, -16), textcoords="offset points", arrowprops={"arrowstyle": "<-", "color": style["color"]}
        )
    return bool(moving.any())


def _estimates(axes: Axes, estimate: KickEstimate, colour: Any) -> None:
    """What each method says of phi_c: whole error bars thin, those of the replicas alone thick."""
    best = estimate.recommended()
    names = [method for method, _ in estimate.errors]
    for row, (method, part) in enumerate(estimate.errors):
        value = float(getattr(estimate, method).value)
        first = best is not None and method == best.method
        shade, face = (colour, colour) if first else ("0.4", "white")
        if part.total is not None:
            axes.errorbar(value, row, xerr=part.total, fmt="none", ecolor=shade, elinewidth=0.9, capsize=2.5)
        axes.errorbar(value, row, xerr=part.statistical, fmt="none", ecolor=shade, elinewidth=2.6)
        axes.plot(value, row, "o", ms=4.5, color=shade, mfc=face, zorder=3)
    if best is not None:
        axes.axvspan(best.value - best.stderr, best.value + best.stderr, color=colour, alpha=0.15, lw=0)
        axes.axvline(best.value, color=colour, lw=0.9)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set(ylim=(len(names) - 0.5, -0.5), title=r"$\phi_c$ by each method; thick bars: replicas alone")
    axes.title.set_fontsize(8.5)


def phi_c_vs_kick(
    estimates: Sequence[KickEstimate],
    limits: Mapping[tuple[str, float], ZeroKickLimit] | None = None,
    rule: str = "bro",
) -> Figure:
    """phi_c against kick with the line or parabola to zero kick and its intercept.

    Filled symbols and solid lines are the power law, open symbols and dashed lines the threshold.

    Args:
        estimates: what `estimate_phi_c` returns.
        limits: the zero-kick limits to draw, by (method, batch fraction), method "power_law" or "threshold".
        rule: the rule of the sweep; "sgd" calls the kick a learning rate.

    Raises:
        PackingError: no estimate of phi_c in `estimates`.
    """
    limits = limits or {}
    fractions = sorted({estimate.batch_fraction for estimate in estimates})
    figure, axes = new_figure(5.4, 4.1)
    drawn = 0
    shades = shades_of(len(fractions))
    for (index, fraction), method in product(enumerate(fractions), ("power_law", "threshold")):
        cells = [e for e in estimates if e.batch_fraction == fraction]
        found = [(e.kick, getattr(e, method)) for e in cells if getattr(e, method)]
        if not found:
            continue
        drawn += 1
        solid, colour, limit = method == "power_law", shades[index], limits.get((method, fraction))
        label = method.replace("_", " ") + (f", $b_f = {fraction:g}$" if len(fractions) > 1 else "")
        style: dict[str, Any] = {
            "color": colour,
            "marker": MARKERS[index % len(MARKERS)],
            "mfc": colour if solid else "white",
            "ls": "",
            "capsize": 2.5,
            "ms": 5,
            "lw": 1.0,
        }
        kicks = np.array([kick for kick, _ in found])
        values, stderrs = np.array([(phi_c.value, phi_c.stderr) for _, phi_c in found]).T
        if limit:
            label += rf": $\phi_c(0) = {limit.value:.4f} \pm {limit.stderr:.4f}$"
            ends = np.linspace(0.0, kicks.max() * 1.05, 50)
            line = LINES[0] if solid else LINES[1]
            axes.plot(ends, limit.form.at(ends), color=colour, ls=line, lw=1.0)
            intercept = {**style, "marker": "*", "ms": 11, "mec": "black", "mew": 0.6}
            axes.errorbar([0.0], [limit.value], [limit.stderr], **intercept, zorder=4)
        axes.errorbar(kicks, values, stderrs, label=label, **style)
    if not drawn:
        raise PackingError("no phi_c was estimated at any kick: there is nothing to draw")
    axes.set(xlabel=kick_name(rule), ylabel=r"Critical packing fraction $\phi_c$")
    axes.set_xlim(left=-0.03 * max(estimate.kick for estimate in estimates))
    legend(figure, axes)
    return figure
