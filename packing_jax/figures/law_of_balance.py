r"""The law of balance: the noise of SGD makes two factors equal, and large steps take both to zero.

arXiv:2308.06671. The model u w x on few samples, loss (u w x - y)^2. At each step u^2 - w^2 is multiplied by
1 - eta^2 g^2, exactly, which gradient flow leaves as it is. Where E ln |1 + 2 eta mean_S(xy)| is negative the factors
collapse to zero, although zero is a saddle of the loss: to leading order at eta/S > E[xy]/Var[xy].
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import ROUNDING
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory.balance import collapse_learning_rate, growth_near_zero

if TYPE_CHECKING:
    import matplotlib.figure

_INPUTS = np.array([1.0, 1.2, 0.8, 0.8, 0.7, 1.0])
_PRODUCTS = np.array([1.5, -1.2, 1.0, -0.8, 0.9, -0.6])  # x y: mean 0.133, variance 1.07
_BATCHES = (1, 2)
_FRACTIONS = (0.3, 0.5, 1.5, 2.0)  # of the learning rate of collapse
_START = 0.8, 0.4
# nothing but the linear part is left there, the steps below stay within floats, and u - w has no rounding in which
# u + w could be lost
_TINY = 1e-100, 1e-100
_COLLAPSED = 1e-6
_IDENTITY = "u^2 - w^2 less its start times all factors, largest, in u^2 + w^2 at the start"


def _growth(batch: int, fraction: float) -> str:
    return f"growth of |u + w| per step near 0, S = {batch}, {fraction:g} of the collapse"


def _gate(batch: int, fraction: float) -> float:
    """3 % of the growth rate, which tells laws apart that differ by a tenth."""
    eta = fraction * collapse_learning_rate(_PRODUCTS, batch)
    return min(0.0015, 0.03 * abs(growth_near_zero(eta, _PRODUCTS, batch)[0]))


def _fate(fraction: float) -> str:
    return f"share of runs at 0, S = 1, {fraction:g} of the collapse"


# Weights are u, w, and the product of all factors 1 - eta^2 g^2 so far, which adds nothing to the model but has the
# derivative g = dL/d(uw).


def _model(weights: dict[str, Array], inputs: Array) -> Array:
    nothing = weights["shrunk"] - jax.lax.stop_gradient(weights["shrunk"])
    return (weights["u"] * weights["w"] + nothing) * inputs


def _squares(outputs: Array, targets: Array) -> Array:
    return (outputs - targets) ** 2


def _descent(learning_rate: Any) -> optax.GradientTransformation:
    def update(gradient: Any, state: Any, weights: Any = None) -> Any:
        moves = {name: -learning_rate * gradient[name] for name in ("u", "w")}
        return {**moves, "shrunk": -((learning_rate * gradient["shrunk"]) ** 2) * weights["shrunk"]}, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _rule(batch: int, learning_rate: Any) -> WeightRule:
    return sgd(jax.tree_util.Partial(_descent, learning_rate=learning_rate), batch)


def _task(u: float, w: float) -> Task:
    return Task(
        lambda _: {"u": jnp.asarray(u), "w": jnp.asarray(w), "shrunk": jnp.asarray(1.0)},
        _model,
        _squares,
        data=Data(_INPUTS, _PRODUCTS / _INPUTS),
        precision="float64",
    )


def _numbers(seen: Learner) -> Array:
    """u, w and the product, (3,)."""
    return jnp.stack([seen.weights["u"], seen.weights["w"], seen.weights["shrunk"]])


def _runs(run: Run, batch: int, start: tuple[float, float], replicas: int, steps: int) -> Descents:
    eta = collapse_learning_rate(_PRODUCTS, batch)
    return Descents(
        task=_task(*start),
        rule=partial(_rule, batch),
        over={"learning_rate": tuple(fraction * eta for fraction in _FRACTIONS)},
        observables={"numbers": _numbers},
        at=np.unique(np.linspace(0, steps, 101).astype(int)),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
        facts={"batch": batch, "start": start},
    )


def _measure(run: Run) -> Measured:
    replicas, steps = run.pick((8, 100), (1024, 1000), (8192, 1000))
    specs = {f"near zero, S={batch}": _runs(run, batch, _TINY, replicas, steps) for batch in _BATCHES}
    # larger batches collapse at larger learning rates, where some runs diverge from here instead
    specs["fate"] = _runs(run, 1, _START, *run.pick((8, 100), (256, 4000), (4096, 4000)))
    found = {
        label: dataset["numbers"].values for label, dataset in run.sweeps(specs).items()
    }  # (eta, replica, time, 3)
    rows: list[Row] = []
    curves: dict[str, Any] = {}
    for batch in _BATCHES:
        eta, near = collapse_learning_rate(_PRODUCTS, batch), found[f"near zero, S={batch}"]
        grown = np.log(np.abs(near[..., -1, 0] + near[..., -1, 1]) / sum(_TINY)) / steps
        means, errors = mean_and_error(grown, 1)
        for i, fraction in enumerate(_FRACTIONS):
            exact, _ = growth_near_zero(fraction * eta, _PRODUCTS, batch)
            rows.append(Row(_growth(batch, fraction), exact, 0.0, "exact", means[i], errors[i]))
        curves[str(batch)] = eta, means, errors
    u, w, shrunk = np.moveaxis(found["fate"], -1, 0)
    there = np.abs(u[..., -1]) + np.abs(w[..., -1]) < _COLLAPSED
    for i, fraction in enumerate(_FRACTIONS):
        rows.append(Row(_fate(fraction), float(fraction > 1), 0.0, "derived", *mean_and_error(there[i], 0)))
    balance = u**2 - w**2
    product = balance[..., :1] * shrunk
    worst = float(np.abs(balance - product).max()) / (_START[0] ** 2 + _START[1] ** 2)
    rows.append(Row(_IDENTITY, 0.0, ROUNDING, "exact", worst, 0.0))
    curves["decay"] = specs["fate"].at, balance[:3, 0], product[:3, 0]
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, right = panels(figure, 2)
    at, seen, product = curves["decay"]
    for one, law, colour, fraction, marker in zip(seen, product, shades(3), _FRACTIONS, MARKERS, strict=False):
        shown = np.abs(law) > 1e-13
        left.plot(at[shown], np.abs(law[shown]), color=colour, lw=1)
        points = shown & (np.abs(one) > 0)
        points[np.arange(len(points)) % (4 if fraction < 1 else 1) != 0] = False
        label = rf"$\eta = {fraction:g}\,\eta_c$"
        left.plot(at[points], np.abs(one[points]), color=colour, marker=marker, label=label, **POINTS)
    left.set(yscale="log", xlabel="Step", ylabel=r"$|u^2 - w^2|$", ylim=(1e-13, 2), xlim=(0, 2000))
    left.set_title(r"points: a run, $S = 1$; lines: $\prod(1 - \eta^2 g^2)$", fontsize=9)
    legend(left)
    for batch, colour, line, marker in zip(_BATCHES, shades(2), LINES, MARKERS, strict=False):
        eta, means, errors = curves[str(batch)]
        fine = np.linspace(0.02, 2.2, 300)
        right.plot(fine, [growth_near_zero(f * eta, _PRODUCTS, batch)[0] for f in fine], color=colour, ls=line)
        right.errorbar(_FRACTIONS, means, errors, color=colour, marker=marker, label=f"$S = {batch}$", **POINTS)
    right.axhline(0.0, color="0.6", lw=0.8, zorder=0)
    right.set(xlabel=r"$\eta/\eta_c$", ylabel=r"Growth of $|u + w|$ per step, near 0")
    legend(right)


FIGURE = Figure(
    name="law-of-balance",
    source="arXiv:2308.06671, the law of balance and the collapse of u w x",
    claim="The noise of SGD makes two factors equal at a rate known exactly, and beyond a learning rate takes both to "
    "a saddle at zero.",
    meaning="Kicks that vanish with the force can drive a system into an absorbing saddle that its energy repels. "
    "Those of a packing vanish in the same way where nothing overlaps.",
    minutes={"quick": 0.5, "full": 3},
    resolution={
        **{_growth(batch, fraction): _gate(batch, fraction) for batch in _BATCHES for fraction in _FRACTIONS},
        **{_fate(fraction): 0.01 for fraction in _FRACTIONS},
        _IDENTITY: 0.0,
    },
    measure=_measure,
    draw=_draw,
)
