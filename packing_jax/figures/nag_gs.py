r"""NAG-GS: every mode of a quadratic loss contracts alike, up to a curvature that is known.

arXiv:2209.14937. Started at gamma = mu, a mode of curvature kappa mu moves by a 2 x 2 matrix of determinant 1/(1+a)^2,
so that it contracts by 1/(1+a), whatever its curvature, until a^2(kappa-1) = 4(1+a); it diverges above (2+a)^2. Trace
and determinant are read off four successive steps of a run, without a fit.
"""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import trace_and_determinant
from packing_jax.figures.modes import modes_task
from packing_jax.networks.learner import Learner
from packing_jax.networks.rules import WeightRule, nag_gs, sgd
from packing_jax.networks.theory import nag_gs as theory

if TYPE_CHECKING:
    import matplotlib.figure

_MU = 1.0
_STEPS = (0.1, 0.5, 2.0)  # a
_RATIOS = np.array([1.2, 2.0, 3.5, 8.0, 20.0, 60.0, 200.0])  # kappa
_PRECISION = 1e-9  # trace and determinant are ratios of differences of nearly equal numbers
_LIMIT = "curvature ratio at which modes begin to grow over 1 + ((2+a)/a)^2"


def _named(what: str, step: float) -> str:
    return f"{what} of a mode's step, largest difference, a {step:g}"


def _limit(step: float) -> str:
    return f"{_LIMIT}, a {step:g}"


def _rule(step: Any) -> WeightRule:
    return sgd(jax.tree_util.Partial(nag_gs, step, _MU, _MU))


def _weights(seen: Learner) -> Array:
    return seen.weights


def _near(step: float) -> np.ndarray:
    """Curvature ratios on both sides of the limit."""
    return theory.largest_ratio(step) * np.array([0.98, 1.02])


def _measure(run: Run) -> Measured:
    curvatures = _MU * np.concatenate([_RATIOS, *(_near(step) for step in _STEPS)])
    spec = Descents(
        task=modes_task(curvatures, 1, start=1.0, precision="float64"),
        rule=_rule,
        over={"step": _STEPS},
        observables={"weights": _weights},
        at=np.arange(4),
        steps=3,
        replicas=1,
        run_seed=run.seed,
    )
    x = run.sweep(spec, "modes")["weights"].values[:, 0]  # (a, time, mode)
    rows, curves = [], []
    for n, (step, one) in enumerate(zip(_STEPS, x, strict=True)):
        seen = trace_and_determinant(one)
        exact = theory.trace_and_determinant(step, curvatures)
        limit = theory.largest_ratio(step)
        settled = curvatures < 1.1 * limit  # modes that grow fast are soon along one eigenvector, which says nothing
        for what, found, law in zip(("trace", "determinant"), seen, exact, strict=True):
            off = np.abs(found - law)[settled].max()
            rows.append(Row(_named(what, step), 0.0, _PRECISION, "exact", float(off), 0.0))
        # an eigenvalue is -1 where 1 + tr + det, which is linear in the curvature, goes through zero
        low, high = _near(step)
        below, above = (1 + seen[0] + seen[1])[len(_RATIOS) + 2 * n :][:2]
        crossing = low + (high - low) * below / (below - above)
        rows.append(Row(_limit(step), 1.0, _PRECISION, "derived", float(crossing / limit), 0.0))
        curves.append((_RATIOS, np.where(settled, _radius(*seen), np.nan)[: len(_RATIOS)]))
    return Measured(rows, curves)


def _radius(trace: np.ndarray, determinant: np.ndarray) -> np.ndarray:
    root = np.sqrt(np.asarray(trace**2 / 4 - determinant, complex))
    return np.maximum(np.abs(trace / 2 + root), np.abs(trace / 2 - root))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    (axes,) = panels(figure, 1)
    fine = np.geomspace(1.02, 600, 400)
    for step, (ratios, radius), colour, line, marker in zip(
        _STEPS, curves, shades(len(_STEPS)), LINES, MARKERS, strict=False
    ):
        axes.plot(fine, theory.contraction(step, fine), color=colour, ls=line)
        axes.plot(ratios, radius, color=colour, marker=marker, label=f"$a = {step:g}$", **POINTS)
        axes.axvline(theory.largest_ratio(step), color=colour, lw=0.7, ls=":")
    axes.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    axes.set(xscale="log", ylim=(0.2, 1.3), xlabel=r"Curvature $\kappa = h/\mu$", ylabel="Contraction of a step")
    legend(axes, loc="lower right")


FIGURE = Figure(
    name="nag-gs",
    source="arXiv:2209.14937, convergence and stability of NAG-GS on quadratic losses",
    claim="NAG-GS contracts modes of different curvature at one rate, and diverges beyond a curvature that is known.",
    meaning="Packings near jamming have stiff and very soft modes. A step that contracts all alike does not wait "
    "for the soft ones.",
    minutes={"quick": 0.1, "full": 0.1},
    resolution={
        **{_named(what, step): 0.0 for what in ("trace", "determinant") for step in _STEPS},
        **{_limit(step): 0.0 for step in _STEPS},
    },
    measure=_measure,
    draw=_draw,
)
