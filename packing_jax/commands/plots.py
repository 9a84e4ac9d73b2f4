"""Figures of a sweep: activity against time, an adaptive search, and the packing itself.

Every function returns a new `matplotlib.figure.Figure`, to be saved with `figure.savefig(path)`. It needs no display
and touches no global state (no pyplot). Curves differ in marker or line style as well as in colour, and colour maps are
perceptually uniform, so that figures can be read in grey.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from packing_jax.commands.drawing import LINES, colour_bar, colour_scale, legend, new_figure, shades_of
from packing_jax.criticality import SearchResult, check_results, was_run
from packing_jax.errors import PackingError
from packing_jax.observables.periodic import wrapped
from packing_jax.spheres.geometry import minimum_image

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


def activity_vs_time(results: xr.Dataset, kick: float | None = None, batch_fraction: float | None = None) -> Figure:
    """Activity f_a(t), averaged over replicas, on logarithmic axes: one curve for each phi.

    Curves are solid where activity survives to the end of the record and dashed where every replica was absorbed. An
    absorbed replica counts 0; a curve stops where f_a is 0.

    Args:
        results: a sweep, as `estimate_phi_c` takes it.
        kick: which kick; None: the first that was run.
        batch_fraction: which batch fraction; None: the first that was run.

    Raises:
        PackingError: not the results of a sweep, nothing run, or a kick or batch fraction that is not in it.
    """
    cells = [
        cell
        for cell in cells_of(results)
        if (kick is None or np.isclose(cell[0], kick))
        and (batch_fraction is None or np.isclose(cell[1], batch_fraction))
    ]
    if not cells:
        raise PackingError(
            f"nothing was run at kick {kick} and batch fraction {batch_fraction}: the sweep has "
            f"kicks {results['kick'].values.tolist()} and batch fractions "
            f"{results['batch_fraction'].values.tolist()}"
        )
    phi, activity, _ = _records(results, *cells[0])
    time, mean = results["time"].values, np.nanmean(activity, axis=1)
    if not np.any(mean[:, time > 0] > 0):
        raise PackingError("every replica was absorbed before the first recorded step: record more often")
    figure, axes = new_figure(5.4, 3.8)
    shade = colour_scale(phi[0], phi[-1], "viridis", 0.0, 0.9)
    for at, f_a in zip(phi, mean, strict=True):
        shown = (f_a > 0) & (time > 0)
        line = LINES[0] if f_a[-1] > 0 else LINES[1]
        axes.plot(time[shown], f_a[shown], color=shade.to_rgba(at), ls=line, lw=1.3)
    for line, label in ((LINES[0], "active at the end"), (LINES[1], "absorbed")):
        axes.plot([], [], color="0.3", ls=line, lw=1.3, label=label)
    axes.set(xscale="log", yscale="log", xlabel=r"Time $t$ (steps)", ylabel=r"Activity $f_a$")
    title = cell_label(results, *cells[0])
    axes.legend(frameon=False, fontsize=8, loc="lower left", alignment="left", title=title, title_fontsize=9)
    colour_bar(figure, axes, shade, r"Packing fraction $\phi$")
    return figure


def phi_h_vs_size(result: SearchResult) -> Figure:
    """An adaptive search: where half of the replicas are absorbed against N^-omega, beside the fit, and phi_c.

    Every replica is a small mark at its phi and N, open if it was absorbed and filled if it stayed active. The first
    round's bracket is wide, and some of its replicas lie outside the picture. The band is one standard error of phi_c.

    Args:
        result: what `packing_jax.adaptive.search` returns.
    """
    figure, axes = new_figure(5.4, 4.1)
    sizes = np.array([one.particles for one in result.rounds], float)
    half, stderr = np.array([(one.phi_h, one.stderr) for one in result.rounds]).T
    n, _, phi, absorbed_at = np.array(result.outcomes, float).T
    gone, omega = absorbed_at >= 0, result.law.scaling.omega if result.law else 0.5
    x, at = (n / sizes[0]) ** -omega, (sizes / sizes[0]) ** -omega
    dark, light = shades_of(2)
    for kind, label, face in ((gone, "absorbed", "white"), (~gone, "active", light)):
        axes.plot(x[kind], phi[kind], "o", ms=3, mfc=face, mec=light, mew=0.7, alpha=0.8, label=label)
    axes.errorbar(at, half, stderr, color=dark, marker="s", ls="", ms=5, capsize=2.5, label="half absorbed")
    if result.law is not None:
        steps = np.array([one.steps for one in result.rounds], float)
        fitted = result.law.half_absorbed(sizes / sizes[0], steps / steps.max())
        axes.plot(at, fitted, "_", color="black", ms=14, mew=1.2, label="half absorbed, by the fit", zorder=4)
        name = result.parameter.replace("_", r"\ ")
        greek = rf"\{name}" if name in ("phi", "alpha") else rf"\mathrm{{{name}}}"
        label = rf"${greek}_c = {result.value:.4f} \pm {result.stderr:.4f}$"
        axes.axhline(result.value, color=dark, lw=0.9, label=label)
        axes.axhspan(result.value - result.stderr, result.value + result.stderr, color=dark, alpha=0.15, lw=0)
    reach = max(6 * max(one.width + one.stderr for one in result.rounds), 2 * float(np.ptp(half)))
    axes.set(xlim=(0.0, 1.06), ylim=(half.mean() - reach, half.mean() + reach))
    spheres = result.parameter == "phi"
    exponent = r"-1/(d\nu_\perp)" if spheres else f"-{omega:.2f}"
    axes.set(
        xlabel=rf"$(N/{sizes[0]:.0f})^{{{exponent}}}$",
        ylabel=r"Packing fraction $\phi$" if spheres else "Samples per weight",
    )
    legend(figure, axes)
    return figure


def packing(positions: ArrayLike, diameters: ArrayLike, title: str = "") -> Figure:
    """A picture of a packing, each particle coloured by its largest overlap 1 - r_ij/sigma_ij.

    In two dimensions the discs themselves, repeated across the periodic edges. In three or more, a slice through the
    middle of the box in every axis after the second: a sphere of radius R at a distance h from the slice is a disc of
    radius sqrt(R^2 - h^2). Particles that overlap nothing are pale grey. Axes are in mean diameters.

    Args:
        positions: in box sides, (particle, axis), two axes or more.
        diameters: in box sides, (particle,).
        title: above the picture.

    Raises:
        PackingError: fewer than two dimensions, shapes that differ, values that are not finite, or diameters that are
            not positive.
    """
    from matplotlib.collections import EllipseCollection

    x, sigma = _configuration(positions, diameters)
    overlap, mean = _largest_overlap(x, sigma), sigma.mean()
    away = x[:, 2:] - 0.5
    cut = sigma**2 / 4 - np.sum(away**2, axis=1)
    inside = cut > 0
    centre, radius, depth = x[inside, :2], np.sqrt(cut[inside]), overlap[inside]
    images = [(centre + shift, radius, depth) for shift in product((-1, 0, 1), repeat=2)]
    centre, radius, depth = (np.concatenate(part) for part in zip(*images, strict=True))
    seen = ((centre + radius[:, None] > 0) & (centre - radius[:, None] < 1)).all(axis=1)
    centre, radius, depth = centre[seen] / mean, radius[seen] / mean, depth[seen]

    figure, axes = new_figure(4.6, 4.0)
    shade = colour_scale(0.0, max(float(depth.max(initial=0.0)), 1e-3), "magma_r", 0.15, 0.95)
    faces = np.where((depth > 0)[:, None], shade.to_rgba(depth), (0.93, 0.93, 0.93, 1.0))
    order = np.argsort(depth)  # the deepest overlaps on top
    width = 2 * radius[order]
    discs = EllipseCollection(
        width,
        width,
        np.zeros(len(width)),
        units="xy",
        offsets=centre[order],
        offset_transform=axes.transData,
        facecolors=faces[order],
        edgecolors="0.35",
        linewidths=min(0.5, 12 / np.sqrt(len(width) + 1)),
    )
    axes.add_collection(discs)
    side = 1 / mean
    slice_of = f"slice of the {x.shape[1]}D box" if x.shape[1] > 2 else ""
    axes.set_title(", ".join(part for part in (title, slice_of) if part), fontsize=10)
    axes.set(xlim=(0, side), ylim=(0, side), aspect="equal")
    axes.set(xlabel=r"$x/\bar\sigma$", ylabel=r"$y/\bar\sigma$")
    colour_bar(figure, axes, shade, r"Largest overlap  $1 - r_{ij}/\sigma_{ij}$")
    return figure


def _configuration(positions: ArrayLike, diameters: ArrayLike) -> tuple[Array, Array]:
    x, sigma = np.asarray(positions, float), np.asarray(diameters, float)
    if x.ndim != 2 or sigma.shape != x.shape[:1]:
        raise PackingError(
            f"positions have shape {x.shape} and diameters {sigma.shape}: they must be (particles, axes) and "
            "(particles,)"
        )
    if x.shape[1] < 2:
        raise PackingError("a picture needs two dimensions or more, and this packing has one")
    if not (np.isfinite(x).all() and np.isfinite(sigma).all() and (sigma > 0).all()):
        raise PackingError("positions and diameters must be finite, and diameters positive")
    return wrapped(x, 1.0), sigma


def _largest_overlap(x: Array, sigma: Array) -> Array:
    """Largest 1 - r_ij/sigma_ij of each particle with its neighbours, 0 where it has none."""
    from scipy.spatial import cKDTree

    i, j = cKDTree(x, boxsize=1.0).query_pairs(sigma.max(), output_type="ndarray").T
    r = np.linalg.norm(minimum_image(x[i] - x[j], 1.0), axis=1)
    depth = 1.0 - r / ((sigma[i] + sigma[j]) / 2)
    largest = np.zeros(len(x))
    np.maximum.at(largest, i, depth)
    np.maximum.at(largest, j, depth)
    return largest


def cells_of(results: xr.Dataset) -> list[tuple[float, float]]:
    """(kick, batch fraction) of every cell with at least one replica run, in increasing order."""
    check_results(results)
    run = was_run(results).any(["phi", "replica"]).transpose("kick", "batch_fraction")
    kicks, fractions = results["kick"].values, results["batch_fraction"].values
    cells = [(float(kicks[k]), float(fractions[b])) for k, b in np.argwhere(run.values)]
    if not cells:
        raise PackingError("no replica of this sweep has been run yet: there is nothing to draw")
    return sorted(cells)


def _records(results: xr.Dataset, kick: float, batch_fraction: float) -> tuple[Array, Array, NDArray[np.bool_]]:
    """phi that were run, activity (phi, replica, time) with NaN where not run, and absorbed."""
    cell = results[["activity", "absorbed_at"]].assign(run=was_run(results)).sortby("phi")
    cell = cell.sel(kick=kick, batch_fraction=batch_fraction).transpose("phi", "replica", "time")
    activity = cell["activity"].where(cell["run"]).values.astype(float)
    run = np.isfinite(activity).all(axis=2).any(axis=1)
    return cell["phi"].values[run].astype(float), activity[run], cell["absorbed_at"].values[run] >= 0


def _mean_and_stderr(values: Array) -> tuple[Array, Array]:
    """Mean over replicas and its standard error (0 for a single replica), each (phi,)."""
    count = np.isfinite(values).sum(axis=1)
    mean = np.nanmean(values, axis=1)
    squares = np.nansum((values - mean[:, None]) ** 2, axis=1)
    return mean, np.sqrt(squares / np.maximum(count - 1, 1) / count)


def kick_name(rule: str) -> str:
    """Axis label of what --kick sets."""
    name = r"Learning rate $\alpha$" if rule == "sgd" else r"Kick $\epsilon$"
    return f"{name} (mean diameters)"


def cell_label(results: xr.Dataset, kick: float, batch_fraction: float) -> str:
    """A kick, and a batch fraction where there are several, in symbols."""
    symbol = r"\alpha" if results.attrs.get("rule") == "sgd" else r"\epsilon"
    label = rf"${symbol} = {kick:g}\,\bar\sigma$"
    return label if results.sizes["batch_fraction"] == 1 else f"{label}, $b_f = {batch_fraction:g}$"
