r"""Stationary currents: SGD whose noise is not in proportion to its curvature goes round in circles for ever.

The two-dimensional process of arXiv:2107.09133: gradient A x with A = [[2.5, -1.5], [-1.5, 2.5]], gradient noise of
covariance D = diag(4, 1) at each step, eta = 1e-4, 1e5 steps. Its stationary covariance is (eta/2) U^-1 and its current
-Q U x p with A = (D + Q) U: not those of a gradient, for which Q = 0. The current is measured as the area that x sweeps
per unit of time, (1/2)<x_1 dx_2 - x_2 dx_1>/eta = (eta/2) Q_12, added up at every step.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from packing_jax.figures.axes import panels
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory.modified_loss import (
    area_per_time_of_steps,
    decomposed,
    stationary_covariance_of_steps,
)

if TYPE_CHECKING:
    import matplotlib.figure

DRIFT = np.array([[2.5, -1.5], [-1.5, 2.5]])
NOISE = np.diag([4.0, 1.0])
_ETA = 1e-4
_ROUNDED = 5e-5  # in the last digit of what is published
ROOT = np.linalg.cholesky(DRIFT)  # |root^T x|^2/2 is the loss
_BURN, _STEPS = 40_000, 100_000  # the slowest variance settles as e^(-2 eta k)

_ROTATION = "Q_12 of the drift A = (D + Q) U"
_COVARIANCE = {(0, 0): 2.1625, (0, 1): 0.9375, (1, 1): 0.9625}  # in eta/2
_CURRENT = "area swept per time, simulated, in eta/2"


def _closed(i: int, j: int) -> str:
    return f"covariance of x_{i + 1} and x_{j + 1}, Lyapunov, in eta/2"


def _simulated(i: int, j: int) -> str:
    return f"covariance of x_{i + 1} and x_{j + 1}, simulated, in eta/2"


# Weights are the places x (copies, 2) of independent copies, and the area that each has swept.


def _stretched(weights: dict[str, Array], inputs: Array) -> Array:
    return (weights["x"] @ inputs[0]).reshape(1, -1)


def _noise(key: Array, gradient: dict[str, Array]) -> dict[str, Array]:
    x = gradient["x"]
    scale = jnp.asarray(np.sqrt(np.diag(NOISE)), x.dtype)
    return {"x": jax.random.normal(key, x.shape, x.dtype) * scale[None], "area": jnp.zeros_like(gradient["area"])}


def _sweeping() -> optax.GradientTransformation:
    """Descent on x, and (1/2)(x_1 dx_2 - x_2 dx_1) in place of the area's update."""

    def update(gradient: Any, state: Any, weights: Any = None) -> Any:
        x, dx = weights["x"], -_ETA * gradient["x"]
        return {"x": dx, "area": (x[:, 0] * dx[:, 1] - x[:, 1] * dx[:, 0]) / 2}, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _rule(learning_rate: Any) -> WeightRule:  # noqa: ARG001 - an axis of one value, which the sweep is named by
    return sgd(_sweeping(), noise=jax.tree_util.Partial(_noise))


def _moments(seen: Learner) -> Array:
    """Means over the copies of x_1^2, x_1 x_2, x_2^2 and the area, in eta/2 and per unit of time, (4,)."""
    x = seen.weights["x"] / jnp.asarray(np.sqrt(_ETA / 2), seen.weights["x"].dtype)
    pairs = (x[:, 0] * x[:, 0], x[:, 0] * x[:, 1], x[:, 1] * x[:, 1], seen.weights["area"] / (_ETA / 2))
    return jnp.stack([one.mean() for one in pairs])


def _measure(run: Run) -> Measured:
    process = decomposed(DRIFT, NOISE)
    sigma = process.covariance(_ETA) / (_ETA / 2)
    rows = [Row(_ROTATION, 0.9, _ROUNDED, "published", float(process.rotation[0, 1]), 0.0)]
    for (i, j), value in _COVARIANCE.items():
        rows.append(Row(_closed(i, j), value, _ROUNDED, "published", float(sigma[i, j]), 0.0))
    copies, replicas, burn, steps = run.pick((32, 4, 400, 1000), (512, 16, _BURN, _STEPS), (2048, 32, _BURN, _STEPS))
    spec = Descents(
        task=Task(
            lambda _: {"x": jnp.zeros((copies, 2)), "area": jnp.zeros(copies)},
            _stretched,
            Squared(),
            data=Data(ROOT[None], np.zeros((1, 2 * copies))),
            total="sum",
        ),
        rule=_rule,
        over={"learning_rate": (_ETA,)},
        observables={"moments": _moments},
        at=np.array([0, *np.linspace(burn, steps, 31).astype(int)]),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
        facts={"copies": copies},
    )
    found = run.sweep(spec, "process")["moments"].values[0][:, 1:]  # (replica, time, 4)
    exact = stationary_covariance_of_steps(DRIFT, NOISE, _ETA) / (_ETA / 2)
    for n, (i, j) in enumerate(_COVARIANCE):
        value, stderr = mean_and_error(found[:, :, n].mean(axis=1), 0)
        rows.append(Row(_simulated(i, j), float(exact[i, j]), 0.0, "exact", value, stderr))
    value, stderr = mean_and_error((found[:, -1, 3] - found[:, 0, 3]) / ((steps - burn) * _ETA), 0)
    swept = float(area_per_time_of_steps(DRIFT, NOISE, _ETA)[0, 1]) / (_ETA / 2)
    rows.append(Row(_CURRENT, swept, 0.0, "exact", value, stderr))
    area = found[:, :, 3] - found[:, :1, 3]
    return Measured(rows, (np.linspace(0, (steps - burn) * _ETA, area.shape[1]), *mean_and_error(area, 0)))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    axes, right = panels(figure, 2)
    process = decomposed(DRIFT, NOISE)
    line = np.linspace(-4, 4, 161)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    levels = np.einsum("...i,ij,...j->...", x, process.stiffness, x)
    axes.contour(line, line, levels.T, levels=[1, 4, 9], colors="black", linewidths=0.8)
    loss = np.einsum("...i,ij,...j->...", x, DRIFT, x)
    axes.contour(line, line, loss.T, levels=[2.5, 10, 22.5], colors="0.6", linewidths=0.8, linestyles="dashed")
    flow = process.current(_ETA, x * np.sqrt(_ETA / 2))
    axes.streamplot(
        line, line, flow[..., 0].T, flow[..., 1].T, color=np.hypot(*np.moveaxis(flow, -1, 0)).T, cmap="viridis_r",
        density=0.9, linewidth=0.8, arrowsize=0.8,
    )  # fmt: skip
    axes.set(xlabel=r"$x_1\,/\sqrt{\eta/2}$", ylabel=r"$x_2\,/\sqrt{\eta/2}$", aspect="equal")
    axes.set_title("current; modified loss (solid), loss (dashed)", fontsize=9)
    time, area, error = curves
    right.fill_between(time, area - error, area + error, color="0.75", lw=0)
    right.plot(time, area, color="black", label="simulated")
    right.plot(time, 0.9 * time, color="tab:red", ls="--", label=r"$(\eta/2)\,Q_{12}\,t$")
    right.set(xlabel=r"Time $\eta k$", ylabel=r"Area swept $/(\eta/2)$")
    right.legend(frameon=False, fontsize=8)


FIGURE = Figure(
    name="currents",
    source="arXiv:2107.09133, the two-dimensional process with oscillating flows",
    claim="In its stationary state SGD samples a modified loss and carries a probability current around the minimum.",
    meaning="A stationary state with currents is out of equilibrium, and no energy alone describes it. Active packings "
    "above phi_c are such states.",
    minutes={"quick": 1.5, "full": 12},
    resolution={
        _ROTATION: 1e-9,
        **{_closed(i, j): 1e-9 for i, j in _COVARIANCE},
        **{_simulated(i, j): 0.02 for i, j in _COVARIANCE},
        _CURRENT: 0.009,
    },
    measure=_measure,
    draw=_draw,
)
