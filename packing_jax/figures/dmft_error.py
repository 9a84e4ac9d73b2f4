r"""Errors on fresh data from two numbers: what mean-field theories of SGD on a Gaussian mixture need to follow.

arXiv:2006.06098. A linear classifier of two clusters errs on fresh data with probability (1/2) erfc(m/sqrt(2 Delta C)),
with m its overlap with the clusters' centre and C its square, at any time of training and for any loss. Here logistic
regression by SGD fits its training set, and its error on fresh data falls and rises again.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Logistic
from packing_jax.networks.random_data import gaussian_mixture, mixture_centre
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory.gaussian_mixture import fresh_error
from packing_jax.observables import learning

if TYPE_CHECKING:
    import matplotlib.figure

_FEATURES, _SAMPLES, _BATCH = 50, 100, 10
_VARIANCE = 0.5
_RATES = (0.1, 1.0)
_STEPS = (10, 100, 1000)


def _named(rate: float, steps: int) -> str:
    return f"error on fresh data over its formula, eta {rate:g}, step {steps}"


def _task(tests: int) -> Task:
    """Clusters of each replica's own; behind the inputs stands their centre, which the model does not see."""

    def drawn(key: Array) -> Data:
        data = gaussian_mixture(key, _SAMPLES, _FEATURES, variance=_VARIANCE, tests=tests)
        centre = mixture_centre(key, _FEATURES)[None]

        def with_centre(inputs: Any) -> Array:
            return jnp.concatenate([inputs, jnp.broadcast_to(centre, inputs.shape)], axis=1)

        return Data(with_centre(data.inputs), data.targets, with_centre(data.test_inputs), data.test_targets)

    return Task(lambda key: 0.1 * jax.random.normal(key, (_FEATURES,)), _linear, Logistic(), data_from=drawn)


def _linear(weights: Array, inputs: Array) -> Array:
    return inputs[:, :_FEATURES] @ weights


def _order(seen: Learner) -> Array:
    """m and C, (2,)."""
    centre = jnp.asarray(seen.data.inputs)[0, _FEATURES:]
    return jnp.stack([(seen.weights * centre).mean(), (seen.weights * seen.weights).mean()])


def _rule(learning_rate: Any) -> WeightRule:
    return sgd(heavy_ball(learning_rate), _BATCH)


def _measure(run: Run) -> Measured:
    replicas, tests = run.pick((4, 200), (256, 1000), (1024, 4000))
    steps = max(_STEPS)
    spec = Descents(
        task=_task(tests),
        rule=_rule,
        over={"learning_rate": _RATES},
        observables={"order": _order, "right": learning.test_accuracy, "train": learning.accuracy},
        at=np.unique(np.concatenate([[0, *_STEPS], np.geomspace(1, steps, 16).astype(int)])),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
        facts={"tests": tests},
    )
    found = run.sweep(spec, "mixture")
    times, error = found["time"].values, 1 - found["right"].values  # (eta, replica, T)
    overlap, square = np.moveaxis(found["order"].values, -1, 0)
    formula = fresh_error(overlap, square, _VARIANCE)
    rows = []
    for n, rate in enumerate(_RATES):
        for k in _STEPS:
            at = times.searchsorted(k)
            scale = formula[n, :, at].mean()
            # the difference alone varies: by the tests that each replica drew
            mean, stderr = mean_and_error((error - formula)[n, :, at], 0)
            rows.append(Row(_named(rate, k), 1.0, 0.0, "exact", 1 + mean / scale, stderr / scale))
    return Measured(rows, (times, error, formula, 1 - found["train"].values))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    times, error, formula, train = curves
    left, right = panels(figure, 2)
    for n, (colour, line, marker) in enumerate(zip(shades(len(_RATES)), LINES, MARKERS, strict=False)):
        label = rf"fresh, $\eta = {_RATES[n]:g}$"
        left.plot(times[1:], formula[n, :, 1:].mean(axis=0), color=colour, ls=line)
        left.plot(times[1:], error[n, :, 1:].mean(axis=0), color=colour, marker=marker, label=label, **POINTS)
        left.plot(times[1:], train[n, :, 1:].mean(axis=0), color=colour, ls=":", lw=1)
        right.plot(formula[n, :, -1], error[n, :, -1], color=colour, marker=marker, ls="none", ms=2.5, alpha=0.6)
    low, high = formula[:, :, -1].min(), formula[:, :, -1].max()
    right.plot([low, high], [low, high], color="black", lw=0.8)
    left.set(xscale="log", ylim=(0, None), xlabel="Step", ylabel="Error (lines: formula; dotted: training)")
    legend(left)
    right.set(xlabel=r"$\frac{1}{2}\,$erfc$(m/\sqrt{2\Delta C})$", ylabel="Error on fresh data, each replica")


FIGURE = Figure(
    name="dmft-error",
    source="arXiv:2006.06098, the error on fresh data of a Gaussian mixture",
    claim="The error on fresh data of a linear classifier of two clusters follows from two numbers at any time.",
    meaning="None directly: few order parameters describe a system of many dimensions, as they do packings in the "
    "limit of infinite dimension.",
    minutes={"quick": 0.3, "full": 4},
    resolution={_named(rate, k): 0.01 for rate in _RATES for k in _STEPS},
    measure=_measure,
    draw=_draw,
)
