r"""Mean-field Langevin dynamics: N particles fluctuate as the mean-field limit does, up to 1/N, at all times.

arXiv:2306.07221. Particles that see one another by their mean alone, F = (1/2)(E x - a)^2 + (r/2) E x^2, at the
temperature lambda. Mean and variances are exact at any step and any N
(:mod:`packing_jax.networks.theory.mean_field`). Weights of a replica are many copies of each number of particles.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, langevin
from packing_jax.networks.task import Task
from packing_jax.networks.theory.mean_field import MeanField

if TYPE_CHECKING:
    import matplotlib.figure

_PARTICLES = (2, 8, 32)
_RATE, _TEMPERATURE, _PULL, _GOAL = 0.4, 0.5, 0.5, 1.0
_BURN, _EVERY = 60, 5  # steps; the slowest number settles as e^(-eta r k)


def _named(quantity: str, particles: int) -> str:
    return f"{quantity}, N {particles}"


_MEAN, _OF_MEAN, _CENTRED = (
    "mean of the particles over a/(1+r)",
    "variance of the mean over its exact value",
    "centred variance over its exact value",
)


def settings(particles: int) -> MeanField:
    """The settings of the figure at so many particles."""
    return MeanField(particles=particles, learning_rate=_RATE, temperature=_TEMPERATURE, pull=_PULL, goal=_GOAL)


# The functional of N particles is N F, so that each feels (mean x - a) + r x.


def _means(weights: dict[str, Array], inputs: Array) -> Array:
    rows = [x.mean(axis=1) * np.sqrt(x.shape[1]) for x in weights.values()]
    return jnp.concatenate(rows)[None] * inputs


def _rule(temperature: Any) -> WeightRule:
    return langevin(_RATE, temperature, weight_decay=_PULL)


def _moments(seen: Learner) -> Array:
    """Means over the copies of mean x, (mean x - a/(1+r))^2 and the centred variance, (numbers of particles, 3)."""
    found = []
    for x in seen.weights.values():
        mean = x.mean(axis=1)
        off = mean - _GOAL / (1 + _PULL)
        found.append(jnp.stack([mean.mean(), (off * off).mean(), ((x - mean[:, None]) ** 2).mean()]))
    return jnp.stack(found)


def _measure(run: Run) -> Measured:
    copies, replicas, steps = run.pick((8, 4, 200), (128, 64, 2000), (512, 128, 4000))
    names = [f"{n:04d}" for n in _PARTICLES]  # in their order, as trees sort them
    goals = np.concatenate([np.full(copies, _GOAL * np.sqrt(n)) for n in _PARTICLES])
    spec = Descents(
        task=Task(
            lambda _: {
                name: jnp.full((copies, n), settings(n).mean) for name, n in zip(names, _PARTICLES, strict=True)
            },
            _means,
            Squared(),
            data=Data(np.ones((1, 1)), goals[None]),
        ),
        rule=_rule,
        over={"temperature": (_TEMPERATURE,)},
        observables={"moments": _moments},
        at=np.array([0, *range(_BURN, steps + 1, _EVERY)]),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
        facts={"copies": copies},
    )
    seen = run.sweep(spec, "particles")["moments"].values[0][:, 1:].mean(axis=1)  # (replica, N, 3)
    rows, curves = [], []
    for n, particles in enumerate(_PARTICLES):
        law = settings(particles)
        exact = law.mean, law.variance_of_mean, law.centred_variance
        for which, (quantity, value) in enumerate(zip((_MEAN, _OF_MEAN, _CENTRED), exact, strict=True)):
            mean, error = mean_and_error(seen[:, n, which] / value, 0)
            rows.append(Row(_named(quantity, particles), 1.0, 0.0, "exact", mean, error))
        curves.append(np.stack(mean_and_error(seen[:, n], 0)))
    return Measured(rows, np.stack(curves))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    (axes,) = panels(figure, 1)
    fine = np.unique(np.geomspace(2, 128, 60).astype(int))
    dark, pale = shades(2)
    limit = _TEMPERATURE / _PULL / (1 - _RATE * _PULL / 2)
    laws = [settings(int(n)) for n in fine]
    # both as what is missing from, or added to, the mean-field limit
    axes.plot(fine, [limit - law.centred_variance for law in laws], color=dark)
    axes.plot(fine, [law.variance_of_mean for law in laws], color=pale, ls="--")
    axes.errorbar(
        _PARTICLES, limit - curves[:, 0, 2], curves[:, 1, 2], color=dark, marker="o",
        label="centred variance, below its limit", **POINTS,
    )  # fmt: skip
    axes.errorbar(
        _PARTICLES, curves[:, 0, 1], curves[:, 1, 1], color=pale, marker="s", label="variance of the mean", **POINTS
    )
    axes.set(xscale="log", yscale="log", xlabel="Particles $N$", ylabel=r"Distance from the limit, $\propto 1/N$")
    legend(axes)


FIGURE = Figure(
    name="mean-field-langevin",
    source="arXiv:2306.07221, propagation of chaos of mean-field Langevin dynamics",
    claim="Particles that see one another by their mean fluctuate as in the mean-field limit, up to 1/N at all times.",
    meaning="Where each particle sees all others, a finite number of them costs 1/N. Packings of few dimensions, "
    "where particles see their neighbours, have other exponents.",
    minutes={"quick": 0.3, "full": 4},
    resolution={_named(quantity, n): 0.01 for quantity in (_MEAN, _OF_MEAN, _CENTRED) for n in _PARTICLES},
    measure=_measure,
    draw=_draw,
)
