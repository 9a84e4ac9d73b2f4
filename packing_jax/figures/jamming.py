r"""Jamming: phi_J of fast quenches, and how energy, pressure and contacts grow above it.

O'Hern et al., Phys. Rev. E 68, 011306 (2003), minimise the energy of random starts: phi_J comes to 0.842 for the 2D
mixture 1:1.4 and to 0.639 for equal spheres in 3D, in the limit of large systems. Above it, with dphi = phi - phi_J of
each packing and the harmonic energy, E ~ dphi^2, p ~ dphi and Z - Z_iso ~ dphi^(1/2). Exponents are slopes of straight
lines on logarithmic axes, as in the source. Powers hold for dphi -> 0, and up to dphi = 0.02 they are steeper: bulk
modulus and pressure have begun to stiffen there. The slopes say so, where they are known to a hundredth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.published import Published, published
from packing_jax.landscape.jamming import follow, jam, mechanics
from packing_jax.landscape.minima import Minimum, minimise
from packing_jax.spheres.geometry import mixture_1_to_1_4
from packing_jax.spheres.potential import HARMONIC
from packing_jax.spheres.system import System

if TYPE_CHECKING:
    import matplotlib.figure

Array = NDArray[np.float64]

LAWS = {
    name: published(f"exponent of the {name} above phi_J, harmonic")
    for name in ("energy", "pressure", "excess contacts")
}
_LABELS = {"energy": r"Energy per particle / $\sigma$", "pressure": "Pressure", "excess contacts": "$Z - Z_{iso}$"}
#: phi_J is lower at N than at infinity by (0.12 +- 0.03) N^(-1/(0.71 d)), measured by O'Hern et al.
_SHIFT = (0.12, 0.03)


def phi_j(dim: int) -> Published:
    """The published one."""
    return published(f"phi_J, {dim}D")


def start(dim: int, particles: int, seed: Any) -> tuple[System, Array]:
    """Independent uniform positions at the published phi_J; needs float64."""
    sizes = mixture_1_to_1_4(particles) if dim == 2 else None
    system = System.create(phi_j(dim).value, particles, dim, sizes=sizes, energy=HARMONIC, dtype=np.float64)
    return system, np.random.default_rng(seed).random((particles, dim))


def at_infinite_size(phi: Sequence[float], particles: int, dim: int) -> tuple[float, float]:
    """phi_J of some packings of N particles for N to infinity; the error holds that of the way there."""
    size = particles ** (-1 / (0.71 * dim))
    scatter = float(np.std(phi, ddof=1) / len(phi) ** 0.5) if len(phi) > 1 else np.nan
    return float(np.mean(phi)) + _SHIFT[0] * size, float(np.hypot(scatter, _SHIFT[1] * size))


def decompressed(dim: int, particles: int, seed: Any, dphi: Array) -> tuple[float, list[Minimum]]:
    """phi_J of a packing and its minima at about ``dphi`` above, largest first; needs float64.

    A quench above is decompressed, because compression rearranges a packing more and moves its phi_J.
    """
    system, positions = start(dim, particles, seed)
    top = minimise(system.at_phi(float(system.phi) + 1.25 * float(dphi[0])), positions)
    rough = jam(top.system, top.positions, step=0.005).phi
    minima = list(follow(top, rough + dphi))
    return jam(minima[-1].system, minima[-1].positions, step=2e-4).phi, minima


def laws(phi_j: float, numbers: Sequence[Mapping[str, Any]], particles: int) -> dict[str, Any]:
    """dphi, energy, pressure and excess contacts (per particle that is no rattler), as lists, of one packing.

    Args:
        phi_j: of the packing.
        numbers: the fields of :class:`~packing_jax.landscape.jamming.Mechanics` at each phi.
        particles: N.
    """
    held = [particles * (1 - one["rattler_fraction"]) for one in numbers]
    return {
        "dphi": [one["phi"] - phi_j for one in numbers],
        "energy": [one["energy"] for one in numbers],
        "pressure": [one["pressure"] for one in numbers],
        "excess contacts": [2 * one["excess_contacts"] / n for one, n in zip(numbers, held, strict=True)],
    }


def fitted(packings: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """(a, mean log A) of log y = log A + a log dphi, an A of each packing."""
    dphi, y = (np.array([one[what] for one in packings]) for what in ("dphi", name))
    own = np.repeat(np.eye(len(packings)), dphi.shape[1], axis=0)
    design = np.stack([np.log(dphi).ravel(), *own.T], axis=1)
    known = y.ravel() > 0  # close to phi_J a small packing may have no contact more than it needs
    a, *constants = np.linalg.lstsq(design[known], np.log(y.ravel()[known]), rcond=None)[0]
    return float(a), float(np.mean(constants))


def exponent(packings: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """The exponent of some packings, and its error by the jackknife; NaN of one packing."""
    value, count = fitted(packings, name)[0], len(packings)
    if count == 1:
        return value, np.nan
    left_out = [fitted([*packings[:i], *packings[i + 1 :]], name)[0] for i in range(count)]
    return value, float(np.sqrt(count - 1) * np.std(left_out))


def _exponent_name(name: str, dim: int) -> str:
    return f"{LAWS[name].quantity}, {dim}D"


def _measure(run: Run) -> Measured:
    with jax.enable_x64(True):
        return _measured(run)


def _measured(run: Run) -> Measured:
    dims = run.pick((2,), (2, 3), (2, 3))
    # of 8 particles none has more than 7 neighbours, and one program is enough
    particles = run.pick({2: 8}, {2: 256, 3: 128}, {2: 512, 3: 512})
    points = run.pick({2: 1}, {2: 6, 3: 6}, {2: 24, 3: 12})
    packings = run.pick({2: 0}, {2: 4, 3: 3}, {2: 8, 3: 6})
    dphi = np.geomspace(2e-2, run.pick(2e-3, 1e-3, 5e-4), run.pick(3, 6, 6))
    parts, done = sum(points.values()) + 3 * sum(packings.values()), 0
    rows: list[Row] = []
    curves: dict[int, Any] = {}
    for dim in dims:
        N, quenched, above = particles[dim], [], []
        for one in range(points[dim]):
            run.reached(done / parts, f"{dim}D: phi_J of packing {one + 1}")
            quenched.append(run.kept(f"{dim}d-{one}", partial(_point, dim, N, [run.seed, one])))
            done += 1
        for one in range(packings[dim]):
            run.reached(done / parts, f"{dim}D: packing {one + 1} above phi_J")
            above.append(run.kept(f"{dim}d-above-{one}", partial(_series, dim, N, [run.seed, one], dphi)))
            done += 3
        rows.append(phi_j(dim).row(*at_infinite_size([one["phi"] for one in quenched], N, dim)))
        if above:
            rows += [law.row(*exponent(above, name), _exponent_name(name, dim)) for name, law in LAWS.items()]
        curves[dim] = N, [one["phi"] for one in quenched], above
    return Measured(rows, curves)


def _point(dim: int, particles: int, seed: Any) -> dict[str, Any]:
    return {"phi": jam(*start(dim, particles, seed)).phi}


def _series(dim: int, particles: int, seed: Any, dphi: Array) -> dict[str, Any]:
    phi, minima = decompressed(dim, particles, seed, dphi)
    return {"phi": phi, **laws(phi, [asdict(mechanics(one)) for one in minima], particles)}


def _draw(figure: "matplotlib.figure.Figure", curves: Mapping[int, Any]) -> None:
    first, *rest = panels(figure, 2, 2)
    first.axhline(0, color="0.5", lw=0.8)
    for dim, colour, marker in zip(curves, shades(2), MARKERS, strict=False):
        N, phi, above = curves[dim]
        reference = phi_j(dim)
        value, error = at_infinite_size(phi, N, dim)
        told = dim == next(iter(curves))
        places = dim - 0.3 + 0.2 * np.linspace(0, 1, len(phi))
        first.plot(
            places, np.array(phi) - reference.value, color=colour, marker=marker, label=f"{dim}D, N = {N}", **POINTS
        )
        for place, (y, bar), shade, shape, label in (
            (float(dim), (value - reference.value, error), "C3", "D", r"their mean, carried to $N \to \infty$"),
            (dim + 0.2, (0, reference.error), "black", "s", "published"),
        ):
            first.errorbar(place, y, bar, color=shade, marker=shape, label=label if told else None, **POINTS)
        for space, (name, law) in zip(rest, LAWS.items(), strict=True):
            for i, one in enumerate(above):
                of = f"{dim}D, N = {N}" if i == 0 else None
                space.plot(one["dphi"], one[name], color=colour, marker=marker, label=of, **POINTS)
            if above:
                every = np.concatenate([one["dphi"] for one in above])
                x = np.geomspace(every.min(), every.max(), 50)
                a, constant = fitted(above, name)
                y = np.exp(constant) * x**a
                space.plot(x, y, color=colour, lw=0.8, label=f"slope {a:.2f}")
                last = f"known, slope {law.value:g}" if dim == max(curves) else None
                space.plot(x, y[0] * (x / x[0]) ** law.value, color="C3", ls=LINES[1], lw=0.9, label=last)
    first.set(ylabel=r"$\phi_J$ above the published one", xlabel="Dimension", xticks=list(curves), xlim=(1.5, 3.9))
    legend(first)
    for space, name in zip(rest, LAWS, strict=True):
        space.set(xscale="log", yscale="log", xlabel=r"$\phi - \phi_J$ of each packing", ylabel=_LABELS[name])
        if any(one[2] for one in curves.values()):
            legend(space)


FIGURE = Figure(
    name="jamming",
    source="O'Hern et al., Phys. Rev. E 68, 011306 (2003), arXiv:cond-mat/0304421",
    claim="Fast quenches of random starts jam at one packing fraction, above which energy, pressure and contacts grow "
    "as powers of the distance from it.",
    meaning="The minima above phi_J are the packings that random organization approaches from below as its kicks become"
    " small.",
    minutes={"quick": 3.0, "full": 60.0},
    resolution={
        **{f"phi_J, {dim}D": 0.004 for dim in (2, 3)},
        **{
            _exponent_name(name, dim): {"energy": 0.06, "pressure": 0.05, "excess contacts": 0.1}[name]
            for name in LAWS
            for dim in (2, 3)
        },
    },
    measure=_measure,
    draw=_draw,
)
