r"""Does noisier SGD end in flatter minima? Flatness dV against batch fraction and learning rate above phi_c.

arXiv:2411.11834 finds that the smaller the batch fraction b_f, the smaller dV = <V(x + delta) - V(x)>/(N s^2) where SGD
ends, s = 0.03 R. That is asked here at equal learning rate alpha, and at equal mean step alpha b_f, where the smaller
batch is not merely later: the share of pairs of runs in which the smaller batch is flatter, which is 1 if the claim
holds throughout. A state of the same energy has the same dV, if the energy alone decides: k of log dV = quadratic(log
E) + k b_f would then be 0, and above 0 if smaller batches are flatter beyond their energy. The energy is drawn beside.

dV needs no sampling: the energy is a sum over pairs, and the separation of a pair moves by a Gaussian of variance 2 s^2
in each coordinate.
"""

from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from packing_jax.figures.axes import LINES, MARKERS, legend, panels, shades
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.published import published
from packing_jax.landscape.flatness import PAPER_SCALE, packing_flatness
from packing_jax.spheres.potential import overlap
from packing_jax.spheres.system import System, stack
from packing_jax.sweeps.spheres import Sweep

if TYPE_CHECKING:
    import matplotlib.figure

Array = NDArray[np.float64]

EXPONENTS = {"harmonic": 2.0, "linear": 1.0}
PHI = (0.64, 0.66, 0.68, 0.70, 0.72)
#: From here on the runs of the harmonic energy have come down to their minima's height.
DENSE = 0.68
BATCH = (0.2, 0.6, 1.0)
#: Of three rates each, one mean step alpha b_f is reached with every b_f: 0.3 and 0.06.
RATES = {"harmonic": (0.3, 0.5, 1.5), "linear": (0.06, 0.1, 0.3)}
#: phi in the figure: lines by LINES, and markers.
_LINES, _FILLED = ("solid", "dashed", "dotted"), {"filled": "full", "open": "none", "half": "left"}
STEPS = {"harmonic": (3000, 3000, 3000), "linear": (3400, 2000, 700)}


class Ratio(NamedTuple):
    """A difference of logarithms, or a slope of one."""

    value: float
    stderr: float

    @property
    def deviation(self) -> float:
        """From 0, in standard errors."""
        return self.value / self.stderr


class States(NamedTuple):
    """Where SGD ended, by (learning rate, phi, batch fraction, replica)."""

    energy: Array  #: per particle in mean diameters
    flatness: Array


# --- flatness without sampling --------------------------------------------------------------------------------


@cache
def smoothed(exponent: float, scale: float) -> CubicSpline:
    """<V(|r + sqrt(2) s z|)> of one pair of spheres in 3D against r, in diameters, z of normal coordinates.

    rho = |r + w z| has the density rho/(r w sqrt(2 pi)) [exp(-(rho - r)^2/2w^2) - exp(-(rho + r)^2/2w^2)].
    """
    width = 2**0.5 * scale
    node, weight = np.polynomial.legendre.leggauss(96)
    r = np.arange(0.1 * scale, 1.0 + 10 * scale, 0.1 * scale)[:, None]
    low, high = np.maximum(r - 9 * width, 0.0), np.clip(r + 9 * width, 0.0, 1.0)  # V is 0 beyond 1
    rho = low + 0.5 * (high - low) * (node + 1)
    near, far = (np.exp(-0.5 * ((rho - side * r) / width) ** 2) for side in (1, -1))
    density = rho / (r * width * (2 * np.pi) ** 0.5) * (near - far)
    inside = 0.5 * (high - low)[:, 0] * ((bare(rho, exponent) * density) @ weight)
    return CubicSpline(r[:, 0], np.where(low[:, 0] < 1, inside, 0.0))


def bare(r: Array, exponent: float) -> Array:
    """The energy of a pair in diameters."""
    return 0.5 / exponent * np.maximum(1.0 - r, 0.0) ** exponent


def distances(x: NDArray[Any], phi: float, reach: float) -> Array:
    """Of all pairs closer than ``reach``, in diameters; x in box sides."""
    side = 1.0 / float(System.create(phi, len(x)).unit)
    x = np.mod(x.astype(np.float64), 1.0) * side
    i, j = cKDTree(x, boxsize=side).query_pairs(reach, output_type="ndarray").T
    apart = x[i] - x[j]
    return np.asarray(np.linalg.norm(apart - side * np.round(apart / side), axis=1))


def exact_flatness(x: NDArray[Any], phi: float, exponent: float, scale: float = PAPER_SCALE) -> float:
    """What ``packing_flatness`` tends to with the number of perturbations, for equal spheres in 3D."""
    r = distances(x, phi, 1.0 + 9 * scale)
    return float(np.sum(smoothed(exponent, scale)(r) - bare(r, exponent)) / (len(x) * scale**2))


# --- comparisons ----------------------------------------------------------------------------------------------


def log_ratio(one: Array, two: Array) -> Ratio:
    """Log of the ratio of two cells' means, averaged over leading axes; the last is the replicas."""
    parts = [(x.mean(axis=-1), x.var(axis=-1, ddof=1) / x.shape[-1]) for x in (one, two)]
    value = np.log(parts[0][0] / parts[1][0])
    variance = sum(square / mean**2 for mean, square in parts)
    return Ratio(float(value.mean()), float(np.sqrt(np.sum(variance)) / value.size))


def at_equal_energy(flatness: Array, height: Array, fractions: Any, power: int) -> Ratio:
    """k of log dV = polynomial(log E) + k b_f with a polynomial for each row; the error is of the scatter about it."""
    rows, across = np.indices(flatness.shape)[0].ravel(), flatness.size
    x = np.log(height).ravel()
    x = (x - x.mean()) / x.std()
    columns = [np.where(rows == row, x**p, 0.0) for row in range(len(flatness)) for p in range(power + 1)]
    design = np.stack([np.broadcast_to(fractions, flatness.shape).ravel(), *columns], axis=1)
    fit, *_ = np.linalg.lstsq(design, np.log(flatness).ravel(), rcond=None)
    rest = np.log(flatness).ravel() - design @ fit
    covariance = np.linalg.inv(design.T @ design) * np.sum(rest**2) / (across - design.shape[1])
    return Ratio(float(fit[0]), float(covariance[0, 0] ** 0.5))


def equal_energy(flatness: Array, height: Array) -> dict[int, Ratio]:
    """k by the power of its polynomial, of (learning rate, phi, batch fraction, replica), a polynomial for each phi."""
    flat, high = (np.swapaxes(x.mean(axis=-1), 0, 1).reshape(x.shape[1], -1) for x in (flatness, height))
    return {power: at_equal_energy(flat, high, np.tile(BATCH, len(flatness)), power) for power in (1, 2, 3)}


def flatter(pairs: list[Ratio], replicas: int) -> tuple[float, float]:
    """The share of pairs of which the first is flatter, and its error: where noise leaves a pair open, it is so here.

    Each pair is flatter with the probability that Student's t gives its log ratio.
    """
    chance = stats.t.sf([one.deviation for one in pairs], 2 * (replicas - 1))
    error = np.sqrt(np.sum(chance * (1 - chance))) / len(pairs)
    return round(float(chance.mean()), 3), round(float(error), 3)


def equal_steps(name: str) -> list[tuple[int, int]]:
    """Places (learning rate, batch fraction) of the same mean step as the first rate's with b_f = 1."""
    return [(RATES[name].index(round(RATES[name][0] / fraction, 6)), b) for b, fraction in enumerate(BATCH[:-1])]


# --- the figure -----------------------------------------------------------------------------------------------


def _at_rate(name: str) -> str:
    return f"share of pairs of runs in which the smaller batch is flatter, equal learning rate, {name}"


def _at_step(name: str) -> str:
    return f"share of pairs of runs in which the smaller batch is flatter, equal mean step, {name}"


def _at_energy(name: str) -> str:
    return f"k of log dV = quadratic(log E) + k b_f, {name}"


_SAMPLED = "dV by perturbations over dV without sampling"


def _runs(run: Run, name: str, phis: tuple[float, ...], begin: float, end: float) -> tuple[States, NDArray[Any]]:
    """What SGD reached, and the positions at the smallest rate by (phi, batch fraction, replica)."""
    particles, replicas, shorter = run.pick((64, 2, 60), (300, 3, 1), (1000, 4, 1))
    rates = RATES[name]
    energies, flats, first = [], [], None
    for i, (rate, steps) in enumerate(zip(rates, STEPS[name], strict=True)):
        spec = Sweep(
            rule="sgd",
            exponent=EXPONENTS[name],
            particles=particles,
            phi=phis,
            kick=(rate,),
            batch_fraction=BATCH,
            steps=steps // shorter // 10 * 10,
            record_every=steps // shorter // 10,  # one number of records, and so one program
            replicas=replicas,
            seed=run.seed,
        )
        share = (end - begin) / len(rates)
        found = run.sweep(spec, f"{name}-{rate:g}", begin + i * share, begin + (i + 1) * share).isel(kick=0)
        axes = ("phi", "batch_fraction", "replica")
        energies.append(found.energy.isel(time=-1).transpose(*axes).values)
        x = found.positions.transpose(*axes, "particle", "axis").values
        first = x if first is None else first
        flat = np.zeros(x.shape[:3])
        for place in np.ndindex(flat.shape):
            flat[place] = exact_flatness(x[place], phis[place[0]], EXPONENTS[name])
        flats.append(flat)
    assert first is not None
    return States(np.stack(energies).astype(np.float64), np.stack(flats)), first


def _rows(name: str, found: States) -> list[Row]:
    flat, replicas = found.flatness, found.flatness.shape[-1]
    phis = range(flat.shape[1])
    rate = [log_ratio(flat[a, p, 0], flat[a, p, -1]) for a, p in product(range(len(flat)), phis)]
    step = [log_ratio(flat[a, p, b], flat[0, p, -1]) for (a, b), p in product(equal_steps(name), phis)]
    forms = equal_energy(found.flatness, found.energy)
    k = forms[2].value
    error = float(np.hypot(forms[2].stderr, np.std([one.value for one in forms.values()])))
    claim = published("share of runs in which the smaller batch ends flatter")
    return [
        claim.row(*flatter(rate, replicas), _at_rate(name)),
        claim.row(*flatter(step, replicas), _at_step(name)),
        Row(_at_energy(name), 0.0, 0.0, "consistency", k, error),
    ]


def _sampled(x: NDArray[Any], phis: tuple[float, ...], seed: int, samples: int) -> Row:
    """One state of the linear energy at each phi and batch fraction, by perturbations of all its particles."""
    systems = [System.create(phi, x.shape[-2], energy=overlap(EXPONENTS["linear"])) for phi in phis for _ in BATCH]
    states = x[:, :, 0].reshape(-1, *x.shape[-2:])
    found = packing_flatness(stack(systems), states, jax.random.key(seed), samples=samples)
    exact = [
        exact_flatness(one, phi, EXPONENTS["linear"])
        for one, phi in zip(states, np.repeat(phis, len(BATCH)), strict=True)
    ]
    ratio, error = np.asarray(found.value, np.float64) / exact, np.asarray(found.stderr, np.float64) / exact
    weight = error**-2
    return Row(_SAMPLED, 1.0, 0.0, "exact", float(ratio @ weight / weight.sum()), float(weight.sum() ** -0.5))


def _measure(run: Run) -> Measured:
    phis = run.pick((0.70,), (0.68, 0.72), PHI[PHI.index(DENSE) :])
    rows, curves = [], {}
    for i, name in enumerate(("linear",) if run.size == "smoke" else EXPONENTS):
        found, first = _runs(run, name, phis, 0.45 * i, 0.45 * (i + 1))
        curves[name] = found
        if run.size == "smoke":  # too few for the fits
            rows += _rows(name, found)[:2]
            continue
        rows += _rows(name, found)
        if name == "linear":
            run.reached(0.9, "perturbations")
            rows.append(_sampled(first, phis, run.seed, run.pick(0, 400, 4000)))
    return Measured(rows, (phis, curves))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    phis, found = curves
    axes = panels(figure, 3, len(found))
    for row, (name, states) in enumerate(found.items()):
        flat, high, both = axes[3 * row : 3 * row + 3]
        for space, values in ((flat, states.flatness), (high, states.energy)):
            mean, error = values.mean(axis=-1), values.std(axis=-1, ddof=1) / values.shape[-1] ** 0.5
            for a, (rate, colour) in enumerate(zip(RATES[name], shades(3), strict=True)):
                for p, line in zip(range(len(phis)), LINES, strict=False):
                    style = {"color": colour, "ls": line, "marker": MARKERS[a], "ms": 4.5, "lw": 1.0}
                    label = rf"$\alpha = {rate:g}$" if p == len(phis) - 1 else None
                    space.errorbar(BATCH, mean[a, p], error[a, p], label=label, **style)
            step = [(0, len(BATCH) - 1), *equal_steps(name)]
            path = sorted((BATCH[b], mean[a, -1, b]) for a, b in step)
            space.plot(*zip(*path, strict=True), color="C3", lw=2.5, alpha=0.4, zorder=0, label=r"equal $\alpha b_f$")
        # what decides is the energy: rates in the colours of the other panels, batches by marker, phi by the filling
        for a, colour in enumerate(shades(len(RATES[name]))):
            for p, (b, fraction) in product(range(len(phis)), enumerate(BATCH)):
                one = {"color": colour, "marker": MARKERS[b], "fillstyle": [*_FILLED.values()][p], "ls": "none"}
                label = rf"$b_f = {fraction:g}$" if a == 0 and p == 0 else None
                both.plot(states.energy[a, p, b], states.flatness[a, p, b], label=label, ms=5, mew=0.8, **one)
        scale = "log" if name == "harmonic" else "linear"
        flat.set(xlabel="Batch fraction $b_f$", ylabel=r"$\Delta V\,\sigma$ (flat is small)")
        high.set(xlabel="Batch fraction $b_f$", ylabel=r"Energy per particle / $\sigma$", yscale=scale)
        both.set(xlabel=r"Energy per particle / $\sigma$", ylabel=r"$\Delta V\,\sigma$", xscale=scale)
        flat.set_title(rf"{name} energy, $\phi$ = {_told(phis, _LINES)}", fontsize=9)
        both.set_title(rf"each run; $\phi$ = {_told(phis, _FILLED)}", fontsize=9)
        legend(flat, loc="center right", bbox_to_anchor=(1.0, 0.36))
        legend(both)


def _told(phis: Iterable[float], words: Iterable[str]) -> str:
    return ", ".join(f"{phi:g} ({word})" for phi, word in zip(phis, words, strict=False))


FIGURE = Figure(
    name="flat-minima",
    source="arXiv:2411.11834, flatness of the states that SGD reaches above phi_c",
    claim="The noisier SGD is, by smaller batches, the flatter are the states where it ends above phi_c.",
    meaning="In which of many packings a noisy rule ends depends on its noise, as with the minima of a network. How "
    "much of that is the batch, and how much the learning rate, is what the rows disagree about.",
    minutes={"quick": 1.0, "full": 15.0},
    resolution={
        _SAMPLED: 0.02,
        **dict.fromkeys((_at_rate(name) for name in EXPONENTS), 0.15),
        **dict.fromkeys((_at_step(name) for name in EXPONENTS), 0.15),
        **dict.fromkeys((_at_energy(name) for name in EXPONENTS), 0.1),
    },
    measure=_measure,
    draw=_draw,
)
