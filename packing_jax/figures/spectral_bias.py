r"""Spectral bias under momentum: each mode of the tangent kernel decays as the roots of a heavy ball say.

arXiv:2206.14862. In function space, the residual of a wide network on its training set moves along the eigenvectors of
the tangent kernel (NTK): a mode of eigenvalue l is a heavy ball of curvature l/P
(:mod:`packing_jax.networks.theory.discrete`), so that smooth functions are learnt first, and momentum hastens those
that it does not overdamp. Exact for the network's linear part. A network that may leave it differs by 1/width: the
kernel's first derivative is a sum over units that the signs of the last layer make zero on average, and the second is
of that order (derived). That holds at any fixed time for wide enough networks; late in a run, when slow modes are left,
these are not.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import ROUNDING, linear_task
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory import discrete
from packing_jax.networks.theory.heavy_ball import HeavyBall

if TYPE_CHECKING:
    import matplotlib.figure

_SAMPLES = 16  # on a circle
_MOMENTA = (0.0, 0.5, 0.9)
_RATE = 0.5
_WIDTHS = (128, 512, 2048)
_EARLY = 10  # steps
_POWERS = tuple(
    f"power of the width by which whole networks differ from the law, {when}" for when in ("10 steps", "whole run")
)


def _exact(momentum: float) -> str:
    return f"modes of the residual against the law, largest difference over |f - y| at the start, momentum {momentum:g}"


_ANGLE = 2 * np.pi * np.arange(_SAMPLES) / _SAMPLES
_INPUTS = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_TARGETS = np.cos(_ANGLE) + np.sin(2 * _ANGLE) + np.cos(4 * _ANGLE) / 2 + np.cos(7 * _ANGLE) / 2


def _drawn(width: int, count: int) -> dict[str, np.ndarray]:
    """So many networks a.tanh(W x + b)/sqrt(n) of one hidden layer, all weights N(0, 1); the same at every seed."""
    rng = np.random.default_rng((2206, width))
    shapes = {"inner": (count, 2, width), "bias": (count, width), "outer": (count, width)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def _networks(weights: dict[str, Array], inputs: Array) -> Array:
    """The outputs of all networks, (S, count)."""

    def one(inner: Array, bias: Array, outer: Array) -> Array:
        return jnp.tanh(inputs @ inner + bias[None]) @ outer / np.sqrt(len(outer))

    return jax.vmap(one, out_axes=1)(weights["inner"], weights["bias"], weights["outer"])


def _tangent(weights: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (count, P) and their derivatives by all weights (count, P, 4n), in numpy."""
    inner, bias, outer = (weights[name] for name in ("inner", "bias", "outer"))
    hidden = np.tanh(_INPUTS @ inner + bias[:, None])  # (count, P, n)
    slope = outer[:, None] * (1 - hidden**2)
    parts = [hidden, slope, slope * _INPUTS[:, :1], slope * _INPUTS[:, 1:]]
    root = np.sqrt(outer.shape[1])
    return (hidden @ outer[:, :, None])[..., 0] / root, np.concatenate(parts, axis=2) / root


def _modes(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the tangent kernel over P, (..., P), at least 0 as rounding may not have them, and its vectors."""
    values, vectors = np.linalg.eigh(features @ np.swapaxes(features, -1, -2) / _SAMPLES)
    return np.maximum(values, 0), vectors


def _law(momentum: float, curvatures: Any, start: Any, times: Any) -> Any:
    """The residual along modes (..., P) at each of some steps, (..., T, P)."""
    ball = HeavyBall(learning_rate=_RATE, momentum=momentum)
    curvature, first = np.asarray(curvatures)[..., None, :], np.asarray(start)[..., None, :]
    return discrete.mean(ball, curvature, np.asarray(times)[:, None], first)[0]


def _rule(momentum: Any) -> WeightRule:
    return sgd(heavy_ball(_RATE, momentum))


def _residual(seen: Learner) -> Array:
    return seen.objective.apply(seen.weights, seen.data.inputs) - seen.data.targets


def _descents(run: Run, task: Task, momenta: tuple[float, ...], at: np.ndarray, **facts: Any) -> Descents:
    return Descents(
        task=task,
        rule=_rule,
        over={"momentum": momenta},
        observables={"residual": _residual},
        at=at,
        steps=int(at[-1]),
        replicas=1,
        run_seed=run.seed,
        facts=facts,
    )


def _given(weights: dict[str, np.ndarray], key: Array) -> dict[str, Array]:  # noqa: ARG001 - nothing is drawn
    return jax.tree.map(jnp.asarray, weights)


def _whole(run: Run, width: int, count: int, at: np.ndarray) -> Descents:
    """Networks that are free to leave their linear part, all in one replica: their losses add up."""
    data = Data(_INPUTS, np.repeat(_TARGETS[:, None], count, axis=1))
    start = partial(_given, _drawn(width, count))
    task = Task(start, _networks, Squared(), data, precision="float64")
    return _descents(run, task, (_MOMENTA[1],), at, width=width, count=count)


def _measure(run: Run) -> Measured:
    count, steps = run.pick((4, 50), (64, 200), (512, 200))
    at = np.unique(np.concatenate([[0, _EARLY], np.geomspace(1, steps, 25).astype(int)]))
    outputs, features = (part[0] for part in _tangent(_drawn(_WIDTHS[0], 1)))
    values, vectors = _modes(features)
    flat = linear_task(features, _TARGETS - outputs, np.zeros(features.shape[1]))
    found = run.sweep(_descents(run, flat, _MOMENTA, at), "linear part", 0.0, 0.2)["residual"].values[:, 0] @ vectors
    rows: list[Row] = []
    for momentum, seen in zip(_MOMENTA, found, strict=True):
        off = np.abs(seen - _law(momentum, values, seen[0], at)).max() / np.linalg.norm(seen[0])
        rows.append(Row(_exact(momentum), 0.0, ROUNDING, "exact", float(off), 0.0))
    specs = {f"width {width}": _whole(run, width, count, at) for width in _WIDTHS}
    logs = []
    for width, dataset in zip(_WIDTHS, run.sweeps(specs, 0.2, 1.0).values(), strict=True):
        seen = np.moveaxis(dataset["residual"].values[0, 0], -1, 0)  # (count, T, P)
        curvatures, axes = _modes(_tangent(_drawn(width, count))[1])
        along = seen @ axes
        away = np.linalg.norm(along - _law(_MOMENTA[1], curvatures, along[:, 0], at), axis=2)
        ends = np.stack([away[:, at.searchsorted(_EARLY)], away.max(axis=1)])
        logs.append(np.log(ends / np.linalg.norm(seen[:, 0], axis=1)))
    means, errors = mean_and_error(logs, 2)  # (width, 2)
    x = np.log(_WIDTHS) - np.log(_WIDTHS).mean()
    powers, stderrs = x @ means / (x @ x), np.sqrt(((x[:, None] * errors) ** 2).sum(axis=0)) / (x @ x)
    for name, power, stderr in zip(_POWERS, powers, stderrs, strict=True):
        rows.append(Row(name, -1.0, 0.05, "derived", float(power), float(stderr)))
    return Measured(rows, (at, values, found, np.exp(means), np.exp(means) * errors))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    at, values, found, means, errors = curves
    left, middle, right = panels(figure, 3)
    fine = np.arange(at[-1] + 1)
    shown = np.argsort(-values)[[0, 2, 4, 7]]
    for axes, n in ((left, 0), (middle, 2)):
        first = found[n][0]
        lines = np.abs(_law(_MOMENTA[n], values, first, fine) / first)
        for mode, colour, marker, line in zip(shown, shades(4), MARKERS, LINES, strict=False):
            axes.plot(fine, lines[:, mode], color=colour, ls=line, lw=1)
            label = rf"$\lambda/P = {values[mode]:.2g}$"
            axes.plot(at, np.abs(found[n][:, mode] / first[mode]), color=colour, marker=marker, label=label, **POINTS)
        axes.set(yscale="log", ylim=(1e-4, 3), xlabel="Step", ylabel="Residual along a mode")
        axes.set_title(rf"$\beta = {_MOMENTA[n]:g}$", fontsize=9)
        legend(axes)
    widths = np.array(_WIDTHS)
    for n, (marker, when) in enumerate(zip("os", (f"after {_EARLY} steps", "largest of the run"), strict=True)):
        right.errorbar(widths, means[:, n], errors[:, n], color=shades(2)[n], marker=marker, label=when, **POINTS)
        right.plot(widths, means[-1, n] * widths[-1] / widths, color=shades(2)[n], ls="--", lw=1)
    right.set(xscale="log", yscale="log", xlabel="Width", ylabel="Distance from the law (dashed: 1/width)")
    ticks(right, *_WIDTHS)
    legend(right)


FIGURE = Figure(
    name="spectral-bias",
    source="arXiv:2206.14862, modes of the tangent kernel under momentum",
    claim="Under descent with momentum the residual of a wide network decays along each mode of its tangent kernel as "
    "a heavy ball does.",
    meaning="Stiff modes of a packing relax first and soft ones last, and momentum shortens the wait in the same way.",
    minutes={"quick": 0.5, "full": 5},
    resolution={**{_exact(momentum): 0.0 for momentum in _MOMENTA}, **dict.fromkeys(_POWERS, 0.05)},
    measure=_measure,
    draw=_draw,
)
