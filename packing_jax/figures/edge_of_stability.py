r"""The edge of stability: training raises the sharpness of a network to what its learning rate can stand.

arXiv:2103.00065: the largest eigenvalue of the Hessian rises to 2/eta, with momentum 2(1+beta)/eta, and stays there
while the loss goes on falling. arXiv:2206.02001 sees the same number as the limit of explicit schemes: gradient descent
on the heat equation's energy is stable up to eta = dx^2/(2d).
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import ROUNDING
from packing_jax.figures.modes import mean_and_error
from packing_jax.landscape.learning import sharpness
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.models import MLP
from packing_jax.networks.random_data import random_labels
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory.stability import heat_learning_rate, largest_curvature
from packing_jax.observables import learning

if TYPE_CHECKING:
    import matplotlib.figure

_MODEL = MLP((10, 32, 32, 1), activation="tanh", biases=True, drawn="gaussian")
_SAMPLES = 250
_EDGES = (10.0, 6.0)  # 2(1+beta)/eta
_MOMENTA = (0.0, 0.5)
_HOVERS = 0.01  # how closely 'hovers at' is meant here: the last half of a run, mean over steps and seeds
_POINTS = {1: 16, 2: 8, 3: 4}  # dimension -> points along each axis of the grid
_SPACING = 0.5
_RATES = _SPACING**2 * np.array([0.1, 0.2, 0.3, 0.45, 0.55])


def _sharp(edge: float, momentum: float) -> str:
    return f"late sharpness times eta/(2(1+beta)), edge {edge:g}, momentum {momentum:g}"


def _limit(dim: int) -> str:
    return f"learning rate at which the heat equation becomes unstable over dx^2/(2d), d {dim}"


def _rule(edge: Any, momentum: Any) -> WeightRule:
    return sgd(heavy_ball(2 * (1 + momentum) / edge, momentum))


def _training(run: Run) -> Descents:
    replicas, steps, every = run.pick((1, 100, 50), (8, 4000, 50), (32, 10_000, 50))
    return Descents(
        task=Task(_MODEL.start, _MODEL.apply, Squared(), random_labels(jax.random.key(2103), _SAMPLES, 10)),
        rule=_rule,
        over={"edge": _EDGES, "momentum": _MOMENTA},
        observables={"sharpness": sharpness, "loss": learning.loss},
        at=np.arange(0, steps + 1, every),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
    )


# The energy (1/2) sum |grad u|^2 of a periodic grid, as a model whose outputs are the differences between neighbours.


def _slopes(weights: tuple[Array, ...], inputs: Array) -> Array:
    slopes = [
        (jnp.roll(u, -1, axis) - u).reshape(-1) / np.asarray(_SPACING, u.dtype)
        for u in weights
        for axis in range(u.ndim)
    ]
    return jnp.concatenate(slopes)[None] * inputs


def _checkerboard(dim: int) -> np.ndarray:
    return np.where(np.indices((_POINTS[dim],) * dim).sum(axis=0) % 2, -1.0, 1.0)


def _fastest(seen: Learner) -> Array:
    """The amplitude of the checkerboard in each dimension."""
    return jnp.stack([(u * jnp.asarray(_checkerboard(u.ndim))).mean() for u in seen.weights])


def _heat(run: Run) -> Descents:
    rng = np.random.default_rng(2206)
    first = [_checkerboard(dim) + rng.standard_normal((n,) * dim) for dim, n in _POINTS.items()]
    differences = sum(u.ndim * u.size for u in first)
    return Descents(
        task=Task(
            lambda _: tuple(jnp.asarray(u) for u in first),
            _slopes,
            Squared(),
            data=Data(np.ones((1, 1)), np.zeros((1, differences))),
            total="sum",
            precision="float64",
        ),
        rule=lambda learning_rate: sgd(heavy_ball(learning_rate)),
        over={"learning_rate": tuple(float(rate) for rate in _RATES)},
        observables={"fastest": _fastest},
        at=np.arange(2),
        steps=1,
        replicas=1,
        run_seed=run.seed,
    )


def _measure(run: Run) -> Measured:
    found = run.sweep(_training(run), "network", 0.0, 0.9)
    time, sharp, loss = (
        found["time"].values,
        found["sharpness"].values,
        found["loss"].values,
    )  # (edge, momentum, replica, T)
    rows: list[Row] = []
    curves: dict[Any, Any] = {}
    for i, edge in enumerate(_EDGES):
        for j, momentum in enumerate(_MOMENTA):
            late = sharp[i, j, :, len(time) // 2 :].mean(axis=1) / edge
            mean, error = mean_and_error(late, 0) if len(late) > 1 else (late[0], np.inf)
            rows.append(Row(_sharp(edge, momentum), 1.0, _HOVERS, "published", mean, error))
            curves[edge, momentum] = time, sharp[i, j, 0], loss[i, j, 0]
    amplitude = run.sweep(_heat(run), "heat equation", 0.9, 1.0)["fastest"].values[:, 0]  # (rate, time, dim)
    factor = amplitude[:, 1] / amplitude[:, 0]
    for n, dim in enumerate(_POINTS):
        # the factor of a step is linear in the learning rate, and -1 at the limit
        slope, first = np.polyfit(_RATES, factor[:, n], 1)
        limit = (-1 - first) / slope / heat_learning_rate(_SPACING, dim)
        rows.append(Row(_limit(dim), 1.0, ROUNDING, "exact", float(limit), 0.0))
    curves["heat"] = factor
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, middle, right = panels(figure, 3)
    colours = shades(len(_EDGES))
    for momentum, line in zip(_MOMENTA, LINES, strict=False):
        for edge, colour in zip(_EDGES, colours, strict=True):
            time, sharp, loss = curves[edge, momentum]
            label = rf"$\eta = {2 * (1 + momentum) / edge:.3g},\ \beta = {momentum:g}$"
            left.plot(time, sharp, color=colour, ls=line, label=label, lw=1.1)
            middle.plot(time, loss, color=colour, ls=line, lw=1.1)
    for edge, colour in zip(_EDGES, colours, strict=True):
        left.axhline(float(largest_curvature(2 / edge)), color=colour, lw=0.8, ls=":")
    left.set(xlabel="Step", ylabel=r"Sharpness (dotted: $2(1+\beta)/\eta$)", ylim=(0, 1.45 * max(_EDGES)))
    legend(left, ncols=2, loc="upper center")
    middle.set(xlabel="Step", ylabel="Training loss", yscale="log")
    fine = np.linspace(0, 0.6, 100)
    for n, (dim, colour, marker) in enumerate(zip(_POINTS, shades(len(_POINTS)), MARKERS, strict=False)):
        right.plot(fine, np.abs(1 - 4 * dim * fine), color=colour, label=f"$d = {dim}$")
        right.plot(_RATES / _SPACING**2, np.abs(curves["heat"][:, n]), color=colour, marker=marker, **POINTS)
        right.axvline(1 / (2 * dim), color=colour, lw=0.8, ls=":")
    right.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    right.set(
        xlabel=r"$\eta/dx^2$ (dotted: $1/(2d)$)", ylabel="Heat equation: checkerboard's factor a step", ylim=(0, 3)
    )
    legend(right)


FIGURE = Figure(
    name="edge-of-stability",
    source="arXiv:2103.00065, sharpness of full-batch descent; arXiv:2206.02001, the heat equation",
    claim="Training raises the sharpness to 2(1+beta)/eta and no higher, the limit of explicit schemes for the heat "
    "equation.",
    meaning="A harmonic overlap is a spring, and SGD on it is stable up to the same step.",
    minutes={"quick": 1.5, "full": 12},
    resolution={
        **{_sharp(edge, momentum): 0.01 for edge in _EDGES for momentum in _MOMENTA},
        **{_limit(dim): 0.0 for dim in _POINTS},
    },
    measure=_measure,
    draw=_draw,
)
