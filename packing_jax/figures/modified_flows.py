r"""Two runs on the same minibatches: they meet, at a rate that is known, while runs on minibatches of their own do not.

arXiv:2302.07125 replaces the stochastic differential equation of SGD by a flow, in which one noise moves all starts. On
a regression the difference of two runs obeys E|d'|^2 = d^T E[(1 - eta A_B)^2] d; runs with batches of their own end
2 Tr Sigma apart, the same covariance Sigma for both, as one-point statistics cannot tell the two cases.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import linear_task
from packing_jax.figures.linear_fdt import RATES, problem, rule
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.learner import Learner
from packing_jax.networks.theory.fluctuation_dissipation import covariance, shared_batches

if TYPE_CHECKING:
    import matplotlib.figure

_APART = np.array([0.6, 0.5, -0.4])  # from the optimum, the first run; the second starts at minus this
_STEPS = (1, 3, 5)
_BURN, _LONG, _EVERY = 200, 400, 20


def _shared(steps: int, rate: float) -> str:
    return f"E|d|^2 after {steps} shared batches over its exact value, eta {rate:g}"


def _alone(rate: float) -> str:
    return f"E|d|^2 of runs on their own batches over 2 Tr Sigma, eta {rate:g}"


def _difference(seen: Learner) -> Array:
    """|d|^2 of the two runs of a replica, and the first run itself, (1 + d,)."""
    first, second = seen.weights[0], seen.weights[1]
    return jnp.concatenate([((first - second) ** 2).sum()[None], first])


def _measure(run: Run) -> Measured:
    replicas = run.pick(128, 8192, 65_536)
    first = problem(RATES[0])
    spec = Descents(
        task=linear_task(
            first.features,
            np.repeat(first.targets[:, None], 2, axis=1),
            first.minimum + np.stack([_APART, -_APART]),
        ),
        rule=rule,
        over={"learning_rate": RATES},
        observables={"difference": _difference},
        at=np.array([*range(max(_STEPS) + 1), *range(_EVERY, _LONG + 1, _EVERY)]),
        steps=_LONG,
        replicas=replicas,
        run_seed=run.seed,
    )
    found = run.sweep(spec, "pairs")
    times, values = found["time"].values, found["difference"].values  # (eta, replica, T, 1 + d)
    rows, curves = [], []
    for n, rate in enumerate(RATES):
        exact = np.trace(shared_batches(problem(rate), 2 * _APART, _LONG), axis1=1, axis2=2)
        squares = values[n, :, :, 0]
        for k in _STEPS:
            mean, error = mean_and_error(squares[:, times.searchsorted(k)] / exact[k], 0)
            rows.append(Row(_shared(k, rate), 1.0, 0.0, "exact", mean, error))
        # the replicas' first runs, in pairs: batches are independent from one replica to the next
        one, other = values[n, 0::2, :, 1:], values[n, 1::2, :, 1:]
        apart = ((one - other) ** 2).sum(axis=2)
        late = apart[:, times >= _BURN].mean(axis=1)
        level = 2 * np.trace(covariance(problem(rate)))
        rows.append(Row(_alone(rate), 1.0, 0.0, "exact", *mean_and_error(late / level, 0)))
        curves.append((times, squares.mean(axis=0), apart.mean(axis=0), exact, level))
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    (axes,) = panels(figure, 1)
    for rate, (times, shared, alone, exact, level), colour, marker, line in zip(
        RATES, curves, shades(len(RATES)), MARKERS, LINES, strict=False
    ):
        axes.plot(exact, color=colour, ls=line)
        axes.plot(times, shared, color=colour, marker=marker, label=rf"$\eta = {rate:g}$", **POINTS)
        axes.plot(times, alone, color=colour, marker=marker, mfc="none", ls="none", ms=4)
        axes.axhline(level, color=colour, lw=0.7, ls=":")
    axes.set(
        yscale="log", ylim=(1e-6, 10), xlim=(0, 120), xlabel="Step", ylabel=r"$\langle|\theta_1 - \theta_2|^2\rangle$"
    )
    axes.set_title(r"filled: shared batches; open: own batches, dotted $2\,$Tr$\,\Sigma$", fontsize=9)
    legend(axes, loc="upper right")


FIGURE = Figure(
    name="modified-flows",
    source="arXiv:2302.07125, the two-point motion of SGD",
    claim="Two runs on the same minibatches meet as the second moment of their difference says; on minibatches of "
    "their own they stay apart by twice the stationary variance.",
    meaning="Whether two packings under the same random kicks meet is the same question, asked where there are "
    "many minima. Here there is one, and the answer is exact.",
    minutes={"quick": 0.5, "full": 5},
    resolution={
        **{_shared(k, rate): 0.01 for k in _STEPS for rate in RATES},
        **{_alone(rate): 0.02 for rate in RATES},
    },
    measure=_measure,
    draw=_draw,
)
