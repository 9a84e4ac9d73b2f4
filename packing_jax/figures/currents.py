r"""Stationary currents: SGD whose noise is not in proportion to its curvature goes round in circles for ever.

The two-dimensional process of arXiv:2107.09133: gradient A x with A = [[2.5, -1.5], [-1.5, 2.5]], gradient noise of
covariance D = diag(4, 1) at each step, eta = 1e-4, 1e5 steps. Its stationary covariance is (eta/2) U^-1 and its current
-Q U x p with A = (D + Q) U: not those of a gradient, for which Q = 0.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.figures.axes import panels
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.networks.theory.modified_loss import decomposed

if TYPE_CHECKING:
    import matplotlib.figure

_DRIFT = np.array([[2.5, -1.5], [-1.5, 2.5]])
_NOISE = np.diag([4.0, 1.0])
_ETA = 1e-4
_ROUNDED = 5e-5  # in the last digit of what is published

_ROTATION = "Q_12 of the drift A = (D + Q) U"
_COVARIANCE = {(0, 0): 2.1625, (0, 1): 0.9375, (1, 1): 0.9625}  # in eta/2


def _covariance(i: int, j: int) -> str:
    return f"covariance of x_{i + 1} and x_{j + 1}, Lyapunov, in eta/2"


def _measure(run: Run) -> Measured:
    run.reached(0.0, "closed form")
    process = decomposed(_DRIFT, _NOISE)
    sigma = process.covariance(_ETA) / (_ETA / 2)
    rows = [Row(_ROTATION, 0.9, _ROUNDED, "published", float(process.rotation[0, 1]), 0.0)]
    rows += [
        Row(_covariance(i, j), value, _ROUNDED, "published", float(sigma[i, j]), 0.0)
        for (i, j), value in _COVARIANCE.items()
    ]
    run.reached(1.0, "closed form")
    return Measured(rows, {})


def _draw(figure: "matplotlib.figure.Figure", _: Any) -> None:
    (axes,) = panels(figure, 1)
    process = decomposed(_DRIFT, _NOISE)
    scale = np.sqrt(_ETA / 2)
    line = np.linspace(-4, 4, 161)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    levels = np.einsum("...i,ij,...j->...", x, process.stiffness, x)
    axes.contour(line, line, levels.T, levels=[1, 4, 9], colors="black", linewidths=0.8)
    loss = np.einsum("...i,ij,...j->...", x, _DRIFT, x)
    axes.contour(line, line, loss.T, levels=[2.5, 10, 22.5], colors="0.6", linewidths=0.8, linestyles="dashed")
    flow = process.current(_ETA, x * scale)
    axes.streamplot(
        line, line, flow[..., 0].T, flow[..., 1].T, color=np.hypot(*np.moveaxis(flow, -1, 0)).T, cmap="viridis_r",
        density=0.9, linewidth=0.8, arrowsize=0.8,
    )  # fmt: skip
    axes.set(xlabel=r"$x_1\,/\sqrt{\eta/2}$", ylabel=r"$x_2\,/\sqrt{\eta/2}$", aspect="equal")
    axes.set_title("current; modified loss (solid), loss (dashed)", fontsize=9)


FIGURE = Figure(
    name="currents",
    source="arXiv:2107.09133, the two-dimensional process with oscillating flows",
    claim="In its stationary state SGD samples a modified loss and carries a probability current around the minimum.",
    minutes={"quick": 0.1, "full": 0.1},
    resolution={_ROTATION: 1e-9, **{_covariance(i, j): 1e-9 for i, j in _COVARIANCE}},
    measure=_measure,
    draw=_draw,
)
