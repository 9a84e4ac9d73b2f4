r"""Training on random inputs: losses of large systems as integrals over the law of Marchenko and Pastur.

arXiv:2601.01010. A linear model of N weights on P random inputs, trained by descent: on random labels the training loss
is an integral of e^(-2 l t) over the spectrum of the inputs, on a teacher's labels one of l e^(-2 l t). At c = N/P = 1
the spectrum reaches zero and both decay as powers of time.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import linear
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory.marchenko_pastur import loss_on_a_teacher, loss_on_random_labels

if TYPE_CHECKING:
    import matplotlib.figure

_RATIOS = (0.5, 1.0, 2.0)  # c = N/P
_RATE = 0.1
_STEPS = (5, 10, 20)
_COPIES = 8  # of labels and of teachers on the same inputs
_LAWS = {"random labels": loss_on_random_labels, "teacher": loss_on_a_teacher}


def _named(labels: str, ratio: float, steps: int) -> str:
    return f"training loss over its integral, {labels}, N/P {ratio:g}, t {steps * _RATE:g}"


def _task(samples: int, weights: int) -> Task:
    """One set of inputs for each replica; half of the rows of weights learn random labels, half those of teachers."""

    def drawn(key: Array) -> Data:
        # all at once, as drawing takes longer to compile than to do
        sizes = samples * weights, samples * _COPIES, weights * _COPIES
        x, labels, w = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes[:2]))
        x, w = x.reshape(samples, weights), w.reshape(weights, _COPIES)
        right = x @ (w / jnp.linalg.norm(w, axis=0, keepdims=True))
        return Data(x, jnp.concatenate([labels.reshape(samples, _COPIES), right], axis=1))

    return Task(lambda _: jnp.zeros((2 * _COPIES, weights)), linear, Squared(), data_from=drawn)


def _losses(seen: Learner) -> Array:
    """The training loss on random labels and on teachers, (2,)."""
    off = linear(seen.weights, jnp.asarray(seen.data.inputs)) - seen.data.targets
    return (off * off).mean(axis=0).reshape(2, _COPIES).mean(axis=1) / 2


def _rule(learning_rate: Any) -> WeightRule:
    return sgd(heavy_ball(learning_rate))


def _measure(run: Run) -> Measured:
    size, replicas = run.pick((32, 8), (256, 64), (1024, 256))
    steps = 80
    specs = {
        # min(N, P) is the size
        f"ratio {ratio:g}": Descents(
            task=_task(round(size * max(1.0, 1 / ratio)), round(size * max(1.0, ratio))),
            rule=_rule,
            over={"learning_rate": (_RATE,)},
            observables={"losses": _losses},
            at=np.unique(np.concatenate([[0, *_STEPS], np.geomspace(1, steps, 16).astype(int)])),
            steps=steps,
            replicas=replicas,
            run_seed=run.seed,
            facts={"size": size},
        )
        for ratio in _RATIOS
    }
    rows, curves = [], {}
    for ratio, found in zip(_RATIOS, run.sweeps(specs).values(), strict=True):
        times, losses = found["time"].values, found["losses"].values[0]  # (replica, T, 2)
        for which, (labels, law) in enumerate(_LAWS.items()):
            for k in _STEPS:
                seen = losses[:, times.searchsorted(k), which] / law(ratio, _RATE, k)
                rows.append(Row(_named(labels, ratio, k), 1.0, 0.0, "exact", *mean_and_error(seen, 0)))
            curves[labels, ratio] = times, *mean_and_error(losses[:, :, which], 0)
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    for axes, (labels, law) in zip(panels(figure, 2), _LAWS.items(), strict=True):
        for ratio, colour, line, marker in zip(_RATIOS, shades(len(_RATIOS)), LINES, MARKERS, strict=False):
            times, mean, error = curves[labels, ratio]
            fine = np.unique(np.geomspace(1, times[-1], 60).astype(int))
            axes.plot(fine * _RATE, [law(ratio, _RATE, int(k)) for k in fine], color=colour, ls=line)
            axes.errorbar(
                times[1:] * _RATE,
                mean[1:],
                error[1:],
                color=colour,
                marker=marker,
                label=f"$N/P = {ratio:g}$",
                **POINTS,
            )
        axes.set(xscale="log", yscale="log", xlabel=r"Time $\eta k$", ylabel=f"Training loss, {labels}")
        legend(axes)


FIGURE = Figure(
    name="disordered-dynamics",
    source="arXiv:2601.01010, training losses of linear models with random inputs",
    claim="Losses of large linear models fall as integrals over the law of Marchenko and Pastur, on random labels and "
    "on a teacher's.",
    meaning="With as many constraints as unknowns, as at isostaticity, the softest modes reach zero and "
    "relaxation is a power of time.",
    minutes={"quick": 0.5, "full": 10},
    resolution={_named(labels, ratio, k): 0.01 for labels in _LAWS for ratio in _RATIOS for k in _STEPS},
    measure=_measure,
    draw=_draw,
)
