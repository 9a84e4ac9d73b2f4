r"""A Gaussian Boltzmann machine: eigenvalues of a matrix that learns are the charges of a Coulomb gas.

arXiv:2407.16427, 2411.13512: 10 visible and 10 hidden units learn a scalar field on a ring from exact data, with PCD-3
and B chains. The eigenvalues of W^T W settle at x = mu^2 - kappa, from 1 to 5. Four of them are pairs of degenerate
modes, which repel: <S> = sqrt(2 pi) sqrt(alpha x/B), with Wigner's surmise for the spacing. At larger alpha/B all modes
repel, and the ends of the spectrum move outwards. Runs start at the solution; the stationary state is the same.

The prefactor sqrt(2 pi) is of chains that are independent at each step. Those of PCD-3 remember a little, which the law
of :mod:`packing_jax.networks.theory.gaussian_rbm` includes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial

from packing_jax.figures.axes import MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.figures.spacing import variation_of
from packing_jax.networks.learner import Learner
from packing_jax.networks.rules import WeightRule
from packing_jax.networks.rules.contrastive import persistent_chains
from packing_jax.networks.tasks.gaussian_rbm import Gibbs, gaussian_rbm
from packing_jax.networks.theory.coulomb_gas import SPACING_VARIATION, two_mode_density
from packing_jax.networks.theory.gaussian_rbm import GaussianMachine

if TYPE_CHECKING:
    import matplotlib.figure

Point = tuple[float, int]  # alpha, B

_MACHINE = GaussianMachine()
_PAIRS = _MACHINE.pairs()
_SWEEPS = 3
#: alpha/B from 0.0063 down to 0.0004
_POINTS: tuple[Point, ...] = ((0.1, 16), (0.1, 64), (0.05, 64), (0.025, 64))
_LARGEST, _SMALLEST = _POINTS[0], _POINTS[-1]
_ENDS = {"largest": (0, 5.17), "smallest": (-1, 0.83)}  # published
_READ = 0.02  # off a figure
# in relaxation times of the slowest mode: variances have settled to e^-5, records are correlated by e^-2
_BURN, _APART, _TIMES = 2.5, 1.0, 5

_SLOPE = "slope of log <S> against log(alpha x/B), four pairs, alpha/B below 0.002"
_PREFACTOR = "<S>/sqrt(alpha x/B) as alpha/B -> 0, over sqrt(2 pi)"
_MEMORY = "the same over the law of chains with memory"
_VARIATION = "std S/<S> at the smallest alpha/B, four pairs"


def _end(which: str) -> str:
    return f"{which} eigenvalue, alpha {_LARGEST[0]:g}, B {_LARGEST[1]}"


def _eigenvalues(seen: Learner) -> Array:
    """Of W^T W, (n,) descending."""
    return jnp.linalg.eigvalsh(seen.weights.T @ seen.weights)[::-1]


def _records(rate: float) -> list[int]:
    slowest = 1 / (rate * float(_MACHINE.relaxation(_PAIRS).min()))
    return [round(slowest * (_BURN + _APART * i)) for i in range(_TIMES)]


def _spec(run: Run, point: Point) -> Descents:
    rate, chains = point

    def rule(learning_rate: Any) -> WeightRule:
        return persistent_chains(Partial(optax.sgd, learning_rate=learning_rate), Gibbs(_MACHINE.mass), chains, _SWEEPS)

    records = [one // run.pick(50, 1, 1) for one in _records(rate)]
    return Descents(
        task=gaussian_rbm(_MACHINE, scale=None),
        rule=rule,
        over={"learning_rate": (rate,)},
        observables={"eigenvalues": _eigenvalues},
        at=np.array([0, *records]),
        steps=records[-1],
        replicas=run.pick(8, 96, 1024),
        run_seed=run.seed,
        facts={"chains": chains, "sweeps": _SWEEPS},
    )


def _spacings(values: Any) -> Any:
    """S of the pairs, from eigenvalues in descending order: (..., pairs)."""
    return values[..., 1:-1:2] - values[..., 2::2]


def _measure(run: Run) -> Measured:
    points = run.pick((_SMALLEST,), _POINTS, _POINTS)
    swept = run.sweeps({f"alpha-{rate:g}-chains-{chains}": _spec(run, (rate, chains)) for rate, chains in points})
    found = {
        point: one["eigenvalues"].values[0][:, 1:].astype(float)  # (replica, time, mode)
        for point, one in zip(points, swept.values(), strict=True)
    }
    # by replica, so that the errors hold the correlations of times and pairs
    small = {point: _spacings(values).mean(axis=1) for point, values in found.items() if point != _LARGEST}
    rows = [_slope(small)]
    if len(small) > 1:
        rows += _prefactors(small)
    each = _spacings(found[_SMALLEST])
    value, error = variation_of((each / each.mean(axis=(0, 1))).reshape(len(each), -1))
    rows.append(Row(_VARIATION, SPACING_VARIATION, 0.01, "exact", value, error))
    for which, (place, published) in _ENDS.items() if _LARGEST in found else ():
        value, error = mean_and_error(found[_LARGEST][..., place].mean(axis=1), 0)
        rows.append(Row(_end(which), published, _READ, "published", float(value), float(error)))
    return Measured(rows, found)


def _slope(spacings: Mapping[Point, Any]) -> Row:
    x = np.log([rate * _PAIRS / chains for rate, chains in spacings])  # (point, pair)
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    slope, variance = 0.0, 0.0
    for w, one in zip(weight, spacings.values(), strict=True):
        mean = one.mean(axis=0)
        slope += float(w @ np.log(mean))
        variance += float(mean_and_error((one / mean) @ w, 0)[1]) ** 2
    return Row(_SLOPE, 0.5, 0.015, "published", slope, np.sqrt(variance))


def _prefactors(spacings: Mapping[Point, Any]) -> list[Row]:
    """The mean over pairs of S over a law, as a straight line in alpha/B, at alpha/B = 0."""
    rows = []
    for name, sweeps, left_open in ((_PREFACTOR, None, 0.025), (_MEMORY, _SWEEPS, 0.01)):
        values, errors = _over_law(spacings, sweeps)
        b = np.array([rate / chains for rate, chains in spacings])
        (_, value), covariance = np.polyfit(b, values, 1, w=1 / errors, cov="unscaled")
        rows.append(Row(name, 1.0, left_open, "derived", float(value), float(np.sqrt(covariance[1, 1]))))
    return rows


def _over_law(spacings: Mapping[Point, Any], sweeps: int | None) -> tuple[Any, Any]:
    ratios = [
        mean_and_error((one / _MACHINE.spacing(_PAIRS, *point, sweeps)).mean(axis=1), 0)
        for point, one in spacings.items()
    ]
    values, errors = zip(*ratios, strict=True)
    return np.array(values), np.array(errors)


def _draw(figure: "matplotlib.figure.Figure", found: Any) -> None:
    density, spacing, prefactor = panels(figure, 3)
    exact = _MACHINE.eigenvalues()
    edges = np.linspace(0, 6, 121)
    # large alpha/B in the back, and the law of the pairs at the smallest one
    for point, colour in ((_LARGEST, "0.75"), (_SMALLEST, "black")):
        if point not in found:
            continue
        rate, chains = point
        values = found[point].ravel()
        counts = np.histogram(values, edges)[0] / len(values) / np.diff(edges)
        density.stairs(counts, edges, color=colour, fill=point == _LARGEST, label=rf"$\alpha/B={rate / chains:.2g}$")
    line = np.linspace(0.5, 5.5, 1001)
    law = sum(two_mode_density(line, x, _MACHINE.spacing(x, *_SMALLEST, _SWEEPS) / np.sqrt(np.pi)) for x in _PAIRS)
    density.plot(line, law * 2 / _MACHINE.modes, color="tab:blue", ls="--", lw=1, label="Coulomb gas, each pair alone")
    density.plot(exact, np.zeros(len(exact)), "|", color="tab:red", ms=14, mew=1.5, label=r"$\mu^2-\kappa$")
    density.set(xlabel="Eigenvalue $x$", ylabel="Density", xlim=(0.4, 5.8))
    density.set_ylim(0, 1.45 * density.get_ylim()[1])
    legend(density, ncols=2, loc="upper center")
    reach = [np.inf, 0.0]
    for (rate, chains), colour, marker in zip(found, shades(len(found)), MARKERS, strict=False):
        mean, error = mean_and_error(_spacings(found[rate, chains]).mean(axis=1), 0)
        place = np.sqrt(rate * _PAIRS / chains)
        reach = [min(reach[0], *place), max(reach[1], *place)]
        label = rf"$\alpha={rate:g}$, $B={chains}$"
        spacing.errorbar(place, mean, error, color=colour, marker=marker, label=label, **POINTS)
    ends = np.array([reach[0] * 0.8, reach[1] * 1.25])
    spacing.plot(ends, np.sqrt(2 * np.pi) * ends, color="tab:blue", ls="--", label=r"$\sqrt{2\pi}\,\sqrt{\alpha x/B}$")
    spacing.set(xscale="log", yscale="log", xlabel=r"$\sqrt{\alpha x/B}$", ylabel=r"Mean spacing $\langle S\rangle$")
    ticks(spacing, 0.02, 0.05, 0.1, 0.2)
    spacing.set_yticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    spacing.set_yticks([], minor=True)
    legend(spacing)
    spacings = {point: _spacings(values).mean(axis=1) for point, values in found.items()}
    values, errors = _over_law(spacings, None)
    b = np.array([rate / chains for rate, chains in found])
    prefactor.errorbar(b, values, errors, color="black", marker="o", label="simulated, mean of four pairs", **POINTS)
    plain, memory = (_MACHINE.spacing(_PAIRS, *_SMALLEST, sweeps) for sweeps in (None, _SWEEPS))
    prefactor.axhline(1.0, color="tab:blue", ls="--", lw=1, label="independent chains")
    prefactor.axhline((memory / plain).mean(), color="tab:green", lw=1, label="chains of PCD-3, which remember")
    prefactor.set(xlabel=r"$\alpha/B$", ylabel=r"$\langle S\rangle\,/\sqrt{2\pi\alpha x/B}$", xlim=(0, None))
    prefactor.set_ylim(prefactor.get_ylim()[0], 1.06)
    legend(prefactor)


FIGURE = Figure(
    name="coulomb-gas",
    source="arXiv:2407.16427 and 2411.13512, the Gaussian restricted Boltzmann machine",
    claim="The eigenvalues of a Boltzmann machine's weights repel like charges: degenerate pairs split as "
    "the root of learning rate over batch size, and the ends of the spectrum are pushed outwards.",
    meaning="A stationary state of learning is a gas of particles that repel, in one dimension and at a temperature: "
    "soft spheres kept apart, where a packing at rest has contacts.",
    minutes={"quick": 3, "full": 30},
    resolution={
        _SLOPE: 0.015,
        _PREFACTOR: 0.025,
        _MEMORY: 0.025,
        _VARIATION: 0.01,
        **{_end(one): 0.02 for one in _ENDS},
    },
    measure=_measure,
    draw=_draw,
)
