r"""The structure factor of an active fluid, from conserved noise to independent noise.

Two-dimensional BRO far above its transition (phi = 0.8, kick 1). The lengths u, u' of two partners' kicks have the
correlation p; as the kicks are antiparallel, kicks have the correlation c = -p. A pair moves its centre of mass by
u - u', of variance 2 (1 - p) Var u. So for p = 1 the density has no long waves, S(q) = A (q sigma)^2, and below it
S(q -> 0) is proportional to 1 - p.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from packing_jax.criticality.fits import Line, misfit, straight_line
from packing_jax.figures.axes import MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.figure import Figure, Measured, Run, Size
from packing_jax.figures.published import published
from packing_jax.observables import (
    fit_zero_limit,
    isotropic_average,
    structure_factor,
    wave_vectors,
)
from packing_jax.observables.hyperuniformity import ZeroLimit
from packing_jax.observables.structure import ShellAverage
from packing_jax.spheres.system import System
from packing_jax.sweeps.spheres import Sweep

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray as xr

PHI, KICK = 0.8, 1.0
CORRELATIONS = (0.0, 0.3, 0.6, 0.9, 1.0)
#: Particles, replicas, steps. The longest wave of 2048 particles is forgotten in 23 steps, of 8192 in four times that.
SIZES: Mapping[Size, tuple[int, int, int]] = {
    "smoke": (128, 2, 40),
    "quick": (2048, 36, 300),
    "full": (8192, 6, 6000),
}
WINDOW = 0.07, 0.5  #: q sigma where the published law S = A (q sigma)^2 was fitted
LAW = "S(q) / (q sigma)^2, 2D BRO phi = 0.8, kick 1, reciprocal"
PLATEAU = "S(q -> 0), 2D BRO phi = 0.8, kick 1, independent"
CONSERVED = "S(q -> 0), 2D BRO phi = 0.8, kick 1, reciprocal"
LINE = "S(q -> 0) against 1 - p, 2D BRO phi = 0.8, kick 1: intercept of a line"


class Spectrum(NamedTuple):
    """S(q) at one correlation p."""

    shells: ShellAverage  #: q in inverse diameters, as far as fits go
    wide: ShellAverage  #: and as far as is drawn
    zero: ZeroLimit  #: S(0) + B q^2 in the window


def spec(correlation: float, particles: int, replicas: int, steps: int, seed: int) -> Sweep:
    """The runs of one correlation."""
    return Sweep(
        dim=2,
        particles=particles,
        phi=(PHI,),
        kick=(KICK,),
        correlation=correlation,
        replicas=replicas,
        steps=steps,
        seed=seed,
    )


def spectrum(results: "xr.Dataset", correlation: float) -> Spectrum:
    """S(q) of the final positions, averaged over directions and replicas."""
    x = results.positions.squeeze(("phi", "kick", "batch_fraction")).transpose("replica", "particle", "axis").values
    side = 1.0 / float(System.create(PHI, x.shape[-2], 2).unit)

    def shells(largest: float) -> ShellAverage:
        modes = wave_vectors(2, largest * side / (2 * np.pi))
        return isotropic_average(modes, structure_factor(x, modes, 1.0), side, width=1.0)

    # of a box too small for three shells in the window, the three longest waves
    high = max(WINDOW[1], 3.6 * 2 * np.pi / side)
    near = shells(high)
    return Spectrum(near, shells(max(2.5, high)), fit_zero_limit(near, high, WINDOW[0] if correlation == 1 else 0.0))


def parabola(shells: ShellAverage) -> tuple[float, float]:
    """A of S = A q^2 and its error by Whittle's likelihood, from shells in the window: sum n S/q^2 / sum n."""
    inside = (shells.q >= WINDOW[0]) & (shells.q <= WINDOW[1])
    count = shells.waves[inside]
    if not count.sum():
        return np.nan, np.nan
    value = float(count @ (shells.value / shells.q**2)[inside] / count.sum())
    return value, value / float(count.sum()) ** 0.5


def line_of(found: Mapping[float, Spectrum]) -> Line:
    """The straight line of S(q -> 0) against 1 - p, with errors widened where it is missed."""
    share = np.array([1.0 - p for p in found])
    zeros, errors = np.array([(one.zero.value, one.zero.value_stderr) for one in found.values()]).T
    line = straight_line(share, zeros, errors)
    stretch = misfit(line.chi2, len(share) - 2)
    return line._replace(intercept_stderr=stretch * line.intercept_stderr, slope_stderr=stretch * line.slope_stderr)


def _measure(run: Run) -> Measured:
    correlations = run.pick((0.0, 1.0), CORRELATIONS, CORRELATIONS)
    particles, replicas, steps = SIZES[run.size]
    specs = {f"correlation-{p:g}": spec(p, particles, replicas, steps, run.seed) for p in correlations}
    results = run.sweeps(specs)
    found = {p: spectrum(one, p) for p, one in zip(correlations, results.values(), strict=True)}
    first, last, line = found[0.0].zero, found[1.0].zero, line_of(found)
    rows = [
        published(LAW).row(*parabola(found[1.0].shells)),
        published(CONSERVED).row(last.value, last.value_stderr),
        published(PLATEAU).row(first.value, first.value_stderr),
        # of the noise nothing is left at p = 1, as in the row of reciprocal kicks
        published(CONSERVED).row(line.intercept, line.intercept_stderr, LINE),
    ]
    return Measured(rows, (found, line))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    found, line = curves
    left, right = panels(figure, 2)
    for (p, one), colour, marker in zip(found.items(), shades(len(found)), MARKERS, strict=False):
        q, value, stderr, _ = one.wide
        left.errorbar(q, value, stderr, color=colour, marker=marker, lw=0.8, label=f"$c = {0 - p:g}$", **POINTS)
        grid = np.geomspace(q[0], WINDOW[1], 50)
        fit = one.zero.value + one.zero.slope * grid**2 if p < 1 else parabola(one.shells)[0] * grid**2
        left.plot(grid, fit, color=colour, lw=0.9)
        right.errorbar(1 - p, one.zero.value, one.zero.value_stderr, color=colour, marker=marker, capsize=2, **POINTS)
    law, plateau = published(LAW).value, published(PLATEAU)
    grid = np.geomspace(min(one.wide.q[0] for one in found.values()), WINDOW[1], 50)
    left.plot(grid, law * grid**2, "k--", lw=0.9, label=rf"published: ${law:g}\,(q\sigma)^2$")
    left.axhline(plateau.value, color="black", ls=":", lw=0.9, label=f"published: {plateau.value:g}")
    left.set(xscale="log", yscale="log", xlabel=r"$q\sigma$", ylabel="$S(q)$")
    ticks(left, 0.1, 0.2, 0.5, 1.0, 2.0)
    legend(left, loc="upper left")
    share = np.linspace(0, 1, 2)
    right.plot(share, line.intercept + line.slope * share, color="0.4", lw=0.9, label="line through the points")
    right.errorbar(
        1.04, plateau.value, plateau.error, color="black", marker="*", capsize=2, ls="none", ms=7, label="published"
    )
    right.set(xlabel="$1 + c$, share of the noise that moves pairs", ylabel=r"$S(q \to 0)$", xlim=(-0.05, 1.1))
    right.axhline(0, color="0.8", lw=0.6, zorder=0)
    legend(right, loc="upper left")


FIGURE = Figure(
    name="correlated-noise",
    source="arXiv:2505.22933, S(q) against the correlation of partners' kicks",
    claim="Kicks that conserve the centre of mass of a pair make the active fluid hyperuniform, S ~ q^2; the more they "
    "do not, the more long waves of the density there are.",
    meaning="How the two partners of an overlap share their noise decides how evenly an active packing fills space.",
    minutes={"quick": 4.0, "full": 25.0},
    resolution={LAW: 0.02, CONSERVED: 0.005, PLATEAU: 0.006, LINE: 0.003},
    measure=_measure,
    draw=_draw,
)
