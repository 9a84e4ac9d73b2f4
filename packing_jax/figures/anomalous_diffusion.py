r"""Anomalous diffusion after convergence: the exponent of |theta_k - theta_0|^2 ~ k^c is that of the spectrum.

arXiv:2107.09133 measures c on networks by a fit of log |Delta|^2 on log k over linearly spaced steps. Where it comes
from is seen on a linear regression: with curvatures l^-a, overdamped and without weight decay, c = 1/a between the
relaxation times of the stiffest and of the softest mode (derived). The closed form at d = 2e5 has that range whole; a
simulation of d = 1000 modes has two decades of it, and is held against the exact discrete steps over the same ones.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import modes_task
from packing_jax.networks.learner import Learner
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
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

_MODES = 1000
_FAST = HeavyBall(learning_rate=0.5)
_SEEN = (100, 10_000)  # steps


def _closed(exponent: float) -> str:
    return f"exponent c, curvatures l^-{exponent:g}, closed form"


def _simulated(exponent: float) -> str:
    return f"exponent c, curvatures l^-{exponent:g}, simulated"


def _rule(learning_rate: Any) -> WeightRule:
    return sgd(heavy_ball(learning_rate), noise=1.0)


def _moved_with(rho: Any) -> Any:
    """|theta_k - theta_0|^2, of modes whose weights are theta over sqrt(rho), so that all have the same noise."""

    def moved(seen: Learner) -> Array:
        off = seen.weights - seen.start
        return jnp.sum(off * off * jnp.asarray(rho, off.dtype))

    return moved


def _simulation(run: Run, exponent: float, begin: float, end: float) -> tuple[Row, Any]:
    rho = displacement.power_law_spectrum(_MODES, exponent)
    replicas, last = run.pick((2, 400), (128, _SEEN[1]), (1024, _SEEN[1]))
    at = np.linspace(min(_SEEN[0], last // 4), last, 100).astype(int)
    spec = Descents(
        task=modes_task(rho, 1),
        rule=_rule,
        over={"learning_rate": (_FAST.learning_rate,)},
        observables={"moved": _moved_with(rho)},
        at=np.array([0, *at]),
        steps=last,
        replicas=replicas,
        run_seed=run.seed,
        facts={"exponent": exponent},
    )
    seen = run.sweep(spec, f"spectrum-{exponent:g}", begin, end)["moved"].values[0][:, 1:]  # (replica, time)
    exact = displacement.fitted_exponent(at, displacement.from_fixed_point_exactly(_FAST, rho, at))
    value = displacement.fitted_exponent(at, seen.mean(axis=0))
    left_out = [displacement.fitted_exponent(at, np.delete(seen, r, 0).mean(axis=0)) for r in range(len(seen))]
    stderr = np.sqrt((len(seen) - 1) * np.var(left_out))  # the jackknife
    return Row(_simulated(exponent), exact, 0.0, "exact", value, stderr), (at, seen.mean(axis=0))


def _measure(run: Run) -> Measured:
    modes = run.pick(20_000, 200_000, 200_000)
    rows, curves = [], {}
    for i, a in enumerate(_EXPONENTS):
        run.reached(i * 0.1, f"closed form, a = {a:g}")
        rho = displacement.power_law_spectrum(modes, a)
        steps = np.linspace(*_WINDOW, _POINTS) / _BALL.learning_rate
        c = displacement.fitted_exponent(steps, displacement.from_fixed_point(_BALL, rho, steps))
        rows.append(Row(_closed(a), 1 / a, _CORRECTION, "derived", c, 0.0))
        steps = np.geomspace(1, 1e9, 91) / _BALL.learning_rate
        curves[a] = steps, displacement.from_fixed_point(_BALL, rho, steps)
    points = {}
    for i, a in enumerate(_EXPONENTS):
        row, points[a] = _simulation(run, a, 0.2 + 0.4 * i, 0.6 + 0.4 * i)
        rows.append(row)
    return Measured(rows, (curves, points))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, right = panels(figure, 2)
    closed, points = curves
    first, last = (edge / _BALL.learning_rate for edge in _WINDOW)
    right.axvspan(first, last, color="0.92", lw=0, zorder=0)
    for a, colour, line, marker in zip(closed, shades(len(closed)), LINES, MARKERS, strict=False):
        at, seen = points[a]
        rho = displacement.power_law_spectrum(_MODES, a)
        fine = np.unique(np.geomspace(1, at[-1], 60).astype(int))
        left.loglog(fine, displacement.from_fixed_point_exactly(_FAST, rho, fine), color=colour, ls=line)
        few = np.unique(np.geomspace(1, len(at), 16).astype(int)) - 1
        left.plot(at[few], seen[few], color=colour, marker=marker, label=f"curvatures $l^{{-{a:g}}}$", **POINTS)
        steps, moved = closed[a]
        right.semilogx(steps, np.gradient(np.log(moved), np.log(steps)), color=colour, ls=line)
        right.axhline(1 / a, color=colour, lw=0.6)
        right.annotate(f"1/{a:g}", (steps[0], 1 / a), xytext=(2, 3), textcoords="offset points", fontsize=8)
    left.set(xlabel="Step $k$", ylabel=r"$\langle|\theta_k-\theta_0|^2\rangle$, $d = 1000$")
    right.set(xlabel="Step $k$", ylabel=r"Local exponent $c$, $d = 2\cdot 10^5$", ylim=(0, 1.1))
    legend(left)


FIGURE = Figure(
    name="anomalous-diffusion",
    source="arXiv:2107.09133, anomalous diffusion after convergence",
    claim="Weights go on moving as a power of time after convergence, with an exponent that the spectrum of the "
    "Hessian sets: 1/a for curvatures l^-a.",
    meaning="Weights wander after convergence as particles of a packing with soft modes do: the spectrum of the Hessian"
    " sets the exponent.",
    minutes={"quick": 1.5, "full": 15},
    resolution={**{_closed(a): 1e-3 for a in _EXPONENTS}, **{_simulated(a): 0.02 for a in _EXPONENTS}},
    measure=_measure,
    draw=_draw,
)
