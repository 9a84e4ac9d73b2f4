r"""Anomalous diffusion after convergence: the exponent of |theta_k - theta_0|^2 ~ k^c is that of the spectrum.

arXiv:2107.09133 measures c on networks by a fit of log |Delta|^2 on log k over linearly spaced steps. Where it comes
from is seen on a linear regression: with curvatures l^-a, overdamped and without weight decay, c = 1/a between the
relaxation times of the stiffest and of the softest mode (derived). The closed form at d = 2e5 has that range whole.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.figures.axes import LINES, legend, panels, shades
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.networks.theory import displacement
from packing_jax.networks.theory.heavy_ball import HeavyBall

if TYPE_CHECKING:
    import matplotlib.figure

_EXPONENTS = (2.0, 3.0)
_WINDOW = (1e4, 1e6)  # eta k: far from 1/rho_max = 1, and from 1/rho_min = 4e10 and 8e15
_POINTS = 60
_BALL = HeavyBall(learning_rate=0.1)
#: What 1/a leaves out in the middle of the range, of order (1/window)^(1/a).
_CORRECTION = 0.0025


def _closed(exponent: float) -> str:
    return f"exponent c, curvatures l^-{exponent:g}, closed form"


def _measure(run: Run) -> Measured:
    modes = run.pick(20_000, 200_000, 200_000)
    rows, curves = [], {}
    for i, a in enumerate(_EXPONENTS):
        run.reached(i / len(_EXPONENTS), f"closed form, a = {a:g}")
        rho = displacement.power_law_spectrum(modes, a)
        steps = np.linspace(*_WINDOW, _POINTS) / _BALL.learning_rate
        c = displacement.fitted_exponent(steps, displacement.from_fixed_point(_BALL, rho, steps))
        rows.append(Row(_closed(a), 1 / a, _CORRECTION, "derived", c, 0.0))
        steps = np.geomspace(1, 1e9, 91) / _BALL.learning_rate
        curves[a] = steps, displacement.from_fixed_point(_BALL, rho, steps)
    run.reached(1.0, "closed form")
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, right = panels(figure, 2)
    for (a, (steps, moved)), colour, line in zip(curves.items(), shades(len(curves)), LINES, strict=False):
        left.loglog(steps, moved / moved[-1], color=colour, ls=line, label=f"curvatures $l^{{-{a:g}}}$, closed form")
        slope = np.gradient(np.log(moved), np.log(steps))
        right.semilogx(steps, slope, color=colour, ls=line)
        right.axhline(1 / a, color=colour, lw=0.6)
        right.annotate(f"1/{a:g}", (steps[0], 1 / a), xytext=(2, 3), textcoords="offset points", fontsize=8)
    first, last = (edge / _BALL.learning_rate for edge in _WINDOW)
    for axes in (left, right):
        axes.axvspan(first, last, color="0.92", lw=0, zorder=0)
    left.set(xlabel="Step $k$", ylabel=r"$\langle|\theta_k-\theta_0|^2\rangle$ (its last value)")
    right.set(xlabel="Step $k$", ylabel="Local exponent $c$", ylim=(0, 1.1))
    legend(left)


FIGURE = Figure(
    name="anomalous-diffusion",
    source="arXiv:2107.09133, anomalous diffusion after convergence",
    claim="Weights go on moving as a power of time after convergence, with an exponent that the spectrum of the "
    "Hessian sets: 1/a for curvatures l^-a.",
    minutes={"quick": 0.2, "full": 0.2},
    resolution={_closed(a): 1e-3 for a in _EXPONENTS},
    measure=_measure,
    draw=_draw,
)
