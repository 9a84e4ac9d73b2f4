r"""Hyperuniformity at the absorbing transition: S(q) ~ q^alpha where the activity dies, 0.45 in 2D and 0.25 in 3D.

Critical states of the Manna class suppress density fluctuations at large scales (Hexner and Levine, Phys. Rev. Lett.
114, 110602 (2015)). Random starts, S = 1, are evolved at phi_c until relaxation, which reaches a distance of t^(1/z),
has crossed the box. Both of the numbers that stand for phi_c of each case are run: in 2D those of the power law of the
activity and of the finite-size collapse, in 3D the ends of the error of the power law (the rows of beta and nu_perp of
tests/validation). Half their distance in alpha, and what the end of the window changes, enter the error where they are
more than the noise of waves.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.figure import Figure, Measured, Run
from packing_jax.figures.published import published
from packing_jax.observables import (
    fit_hyperuniformity,
    isotropic_average,
    structure_factor,
    wave_vectors,
)
from packing_jax.observables.hyperuniformity import HyperuniformityFit
from packing_jax.observables.structure import ShellAverage
from packing_jax.spheres.system import System
from packing_jax.sweeps.spheres import Sweep

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray as xr

#: Ends of the windows of fits, in q sigma; the value is that of the last.
WINDOWS = (0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Case:
    """A rule, and the packing fractions that stand for its phi_c."""

    what: Sweep
    phi: tuple[float, float]
    title: str

    @property
    def quantity(self) -> str:
        """What is measured."""
        return f"hyperuniformity exponent at phi_c, {self.what.dim}D"


CASES = (
    Case(Sweep(rule="ro", dim=2, kick=(1.0,)), (0.32495, 0.32636), "2D random organization, kick 1"),
    Case(Sweep(rule="bro", dim=3, kick=(0.5,)), (0.29735, 0.29837), "3D pairwise BRO, kick 1/2"),
)


class Exponent(NamedTuple):
    """alpha, with what its error holds."""

    value: float
    stderr: float  #: of all below
    statistical: float
    window: float  #: what ending the fit at half q changes, beyond noise
    phi: float  #: half of what the two phi_c differ by, beyond noise


def shells(positions: NDArray[Any], phi: float) -> ShellAverage:
    """S(q) of states up to q sigma = 1, in shells one wave of the box wide.

    Args:
        positions: (replica, N, dim), in box sides.
        phi: packing fraction.
    """
    particles, dim = positions.shape[-2:]
    side = 1.0 / float(System.create(phi, particles, dim).unit)
    modes = wave_vectors(dim, side / (2 * np.pi))
    return isotropic_average(modes, structure_factor(positions, modes, 1.0), side, width=1.0)


def fits(spectrum: ShellAverage) -> dict[float, HyperuniformityFit]:
    """By the end of their window, where it has three shells."""
    return {q: fit_hyperuniformity(spectrum, q) for q in WINDOWS if np.sum(spectrum.q <= q) >= 3}


def together(spectra: list[ShellAverage]) -> ShellAverage:
    """The mean of spectra of nearly the same box, each wave counted once."""
    waves = np.array([one.waves for one in spectra])
    total = waves.sum(axis=0)
    value = np.sum(waves * [one.value for one in spectra], axis=0) / total
    stderr = np.sqrt(np.sum((waves * np.array([one.stderr for one in spectra])) ** 2, axis=0)) / total
    return spectra[0]._replace(value=value, stderr=stderr, waves=total)


def exponent(spectra: list[ShellAverage]) -> Exponent:
    """alpha of the states at both phi_c together."""
    found = fits(together(spectra))
    *shorter, best = found.values()
    window = 0.0
    if shorter:  # nested windows share their waves: the difference has the difference of their variances
        noise = shorter[-1].exponent_stderr ** 2 - best.exponent_stderr**2
        window = beyond(shorter[-1].exponent - best.exponent, noise)
    each = [fit_hyperuniformity(one, WINDOWS[-1]) for one in spectra]
    apart = each[-1].exponent - each[0].exponent
    phi = 0.5 * beyond(apart, sum(one.exponent_stderr**2 for one in each)) if len(each) > 1 else 0.0
    stderr = float(np.linalg.norm([best.exponent_stderr, window, phi]))
    return Exponent(best.exponent, stderr, best.exponent_stderr, window, phi)


def beyond(difference: float, variance: float) -> float:
    """How large a difference is without the noise in it: 0 where noise explains it."""
    return float(np.sqrt(max(0.0, difference**2 - variance)))


def _measure(run: Run) -> Measured:
    smoke = run.size == "smoke"
    cases = CASES[:1] if smoke else CASES
    # a distance of the box within t^(1/z): steps grow with the box to the power z of the class
    particles = run.pick({2: 256}, {2: 4096, 3: 8192}, {2: 16384, 3: 32768})
    steps = run.pick({2: 40}, {2: 2400, 3: 800}, {2: 10_000, 3: 6000})
    replicas = run.pick(2, 4, 8)
    rows, curves = [], []
    for i, case in enumerate(cases):
        dim = case.what.dim
        found = run.sweep(
            _spec(case, particles[dim], steps[dim], replicas, run.seed), f"{dim}d", i / len(cases), (i + 1) / len(cases)
        )
        spectra = [shells(_states(found, phi), phi) for phi in case.phi]
        alpha = exponent(spectra)
        rows.append(published(case.quantity).row(alpha.value, alpha.stderr))
        curves.append((case, spectra, alpha))
    return Measured(rows, curves)


def _spec(case: Case, particles: int, steps: int, replicas: int, seed: int) -> Sweep:
    return replace(case.what, particles=particles, phi=case.phi, steps=steps, replicas=replicas, seed=seed)


def _states(found: "xr.Dataset", phi: float) -> NDArray[Any]:
    at = found.positions.sel(phi=phi).isel(kick=0, batch_fraction=0)
    states: NDArray[Any] = at.transpose("replica", "particle", "axis").values
    return states


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    *spaces, last = panels(figure, len(curves) + 1)
    for space, (case, spectra, alpha), colour, marker in zip(spaces, curves, shades(2), MARKERS, strict=False):
        reference = published(case.quantity)
        every = together(spectra)
        for spectrum, phi, grey in zip(spectra, case.phi, ("0.75", "0.55"), strict=False):
            space.plot(spectrum.q, spectrum.value, color=grey, lw=0.8, label=rf"$\phi = {phi:g}$")
        space.errorbar(every.q, every.value, every.stderr, color=colour, marker=marker, label="both together", **POINTS)
        found = fits(every)
        best = found[WINDOWS[-1]]
        line = np.array([every.q.min(), WINDOWS[-1]])
        space.plot(line, best.amplitude * line**best.exponent, "k-", label=rf"fit, $\alpha$ = {alpha.value:.2f}")
        level = best.amplitude * line[-1] ** best.exponent
        space.plot(
            line,
            level * (line / line[-1]) ** reference.value,
            color="C3",
            ls=LINES[1],
            label=rf"published, {reference.value:g}",
        )
        space.axhline(1.0, color="0.5", ls=LINES[2], lw=0.8, label="independent positions")
        space.set(xscale="log", yscale="log", xlabel=r"$q\sigma$", ylabel="$S(q)$")
        ticks(space, *(q for q in (0.05, 0.1, 0.2, 0.5, 1.0) if q > 0.9 * line[0]))
        space.set_title(case.title, fontsize=9)
        legend(space, loc="upper right", bbox_to_anchor=(1.0, 0.95))
        shift = 1.0 if case.what.dim == 2 else 1.04
        last.errorbar(
            [q * shift for q in found],
            [one.exponent for one in found.values()],
            [one.exponent_stderr for one in found.values()],
            color=colour,
            marker=marker,
            label=f"{case.what.dim}D",
            **POINTS,
        )
        # and thinner what the row's error holds beside that of the waves
        last.errorbar(WINDOWS[-1] * shift, alpha.value, alpha.stderr, color=colour, lw=0.8, capsize=3)
        low, high = reference.value - reference.error, reference.value + reference.error
        last.axhspan(low, high, color=colour, alpha=0.15, lw=0)
    last.set(xlabel=r"End of the window, $q\sigma$", ylabel=r"$\alpha$ (bands: published)", xlim=(0.2, 1.1))
    legend(last)


FIGURE = Figure(
    name="hyperuniformity",
    source="Hexner and Levine, Phys. Rev. Lett. 114, 110602 (2015), arXiv:1407.0146; Wilken et al., Phys. Rev. Lett. "
    "127, 038002 (2021)",
    claim="Where activity dies, density fluctuations vanish at large scales as S(q) ~ q^alpha, with the exponent of "
    "the Manna class.",
    meaning="A packing at phi_c is more even at large scales than a liquid, although every move is random and local.",
    minutes={"quick": 3.0, "full": 120.0},
    resolution={CASES[0].quantity: 0.06, CASES[1].quantity: 0.12},
    measure=_measure,
    draw=_draw,
)
