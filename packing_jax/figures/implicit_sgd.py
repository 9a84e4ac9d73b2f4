r"""Implicit SGD: stable at any learning rate, and with single samples an explicit step of a smaller one.

arXiv:2303.01767. A mode contracts by 1/(1 + eta rho) a step, for any eta. With single samples of equal length |a| the
step is that of SGD at eta/(1 + eta |a|^2), whose stationary covariance is known
(:mod:`packing_jax.networks.theory.fluctuation_dissipation`): as eta grows it tends to Kaczmarz's method, where the
explicit step has long diverged.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.figures.axes import MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import linear_task
from packing_jax.figures.modes import mean_and_error, modes_task
from packing_jax.networks.learner import Learner
from packing_jax.networks.rules import WeightRule, implicit_sgd
from packing_jax.networks.theory.fluctuation_dissipation import covariance
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.implicit import contraction, explicit_learning_rate
from packing_jax.networks.theory.regression import FiniteData

if TYPE_CHECKING:
    import matplotlib.figure

_CURVATURES = np.geomspace(0.01, 100.0, 5)
_RATES = (0.1, 1.0, 10.0)
_NOISY = (0.1, 1.0, 100.0)  # with single samples
_SQUARED_NORM = 2.0
_SAMPLES, _FEATURES = 16, 3
_BURN, _EVERY = 200, 10
_PRECISION = 1e-9  # Newton's method stops at a residual of some roundings of the largest weight


def _contracts(rate: float) -> str:
    return f"largest relative deviation of a mode's contraction from 1/(1 + eta rho), eta {rate:g}"


def _spread(rate: float) -> str:
    return f"Tr Sigma of single samples over its exact value, eta {rate:g}"


def _problem(learning_rate: float) -> FiniteData:
    """Regression on features of equal length, seen by explicit SGD; the same data at every seed."""
    rng = np.random.default_rng(2303)
    raw = rng.standard_normal((_SAMPLES, _FEATURES)) * np.array([1.0, 0.8, 0.6])
    features = raw * np.sqrt(_SQUARED_NORM / (raw**2).sum(axis=1))[:, None]
    targets = features @ np.array([1.0, -1.0, 0.5]) + 0.3 * rng.standard_normal(_SAMPLES)
    return FiniteData(HeavyBall(learning_rate=learning_rate), features, targets)


def _exact(rate: float) -> float:
    return float(np.trace(covariance(_problem(float(explicit_learning_rate(rate, _SQUARED_NORM))))))


def _full(learning_rate: Any) -> WeightRule:
    return implicit_sgd(learning_rate)


def _single(learning_rate: Any) -> WeightRule:
    return implicit_sgd(learning_rate, 1)


def _weights(seen: Learner) -> Array:
    return seen.weights


def _squares(seen: Learner) -> Array:
    off = seen.weights - jnp.asarray(_problem(1.0).minimum)
    return (off * off).sum()


def _measure(run: Run) -> Measured:
    modes = Descents(
        task=modes_task(_CURVATURES, 1, start=1.0, precision="float64"),
        rule=_full,
        over={"learning_rate": _RATES},
        observables={"weights": _weights},
        at=np.arange(3),
        steps=2,
        replicas=1,
        run_seed=run.seed,
    )
    x = run.sweep(modes, "modes", 0.0, 0.2)["weights"].values[:, 0]  # (eta, time, mode)
    measured = x[:, 1:] / x[:, :-1]
    rows = []
    for rate, one in zip(_RATES, measured, strict=True):
        off = np.abs(one / contraction(rate, _CURVATURES) - 1).max()
        rows.append(Row(_contracts(rate), 0.0, _PRECISION, "exact", float(off), 0.0))
    replicas, steps = run.pick((8, 400), (256, 3000), (2048, 6000))
    problem = _problem(1.0)
    noisy = Descents(
        task=linear_task(problem.features, problem.targets, problem.minimum),
        rule=_single,
        over={"learning_rate": _NOISY},
        observables={"squares": _squares},
        at=np.array([0, *range(_BURN, steps + 1, _EVERY)]),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
    )
    seen = run.sweep(noisy, "single samples", 0.2, 1.0)["squares"].values[:, :, 1:].mean(axis=2)
    means, errors = mean_and_error(seen, 1)
    for rate, mean, error in zip(_NOISY, means, errors, strict=True):
        rows.append(Row(_spread(rate), 1.0, 0.0, "exact", mean / _exact(rate), error / _exact(rate)))
    return Measured(rows, (measured, means, errors))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    measured, means, errors = curves
    left, right = panels(figure, 2)
    fine = np.geomspace(5e-4, 2e3, 200)
    dark, pale = shades(2)
    left.plot(fine, contraction(1.0, fine), color=dark, label=r"$1/(1 + \eta\rho)$")
    left.plot(fine, np.abs(1 - fine), color=pale, ls="--", label=r"explicit, $|1 - \eta\rho|$")
    for rate, one, marker in zip(_RATES, measured, MARKERS, strict=False):
        left.plot(rate * _CURVATURES, one[0], color=dark, marker=marker, label=rf"$\eta = {rate:g}$", **POINTS)
    left.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    left.set(xscale="log", yscale="log", ylim=(3e-4, 5), xlabel=r"$\eta\rho$", ylabel="Contraction of a step")
    legend(left, loc="lower left")
    rates = np.geomspace(0.03, 300, 100)
    right.plot(rates, [_exact(rate) for rate in rates], color=dark, label="implicit, exact")
    known = []
    for rate in rates:
        try:
            known.append(np.trace(covariance(_problem(rate))))
        except PackingError:
            break
    right.plot(rates[: len(known)], known, color=pale, ls="--", label="explicit, exact")
    right.axhline(_exact(np.inf), color="0.6", ls=":", lw=0.9, label="Kaczmarz")
    right.errorbar(_NOISY, means, errors, color=dark, marker="o", label="implicit SGD", **POINTS)
    right.set(xscale="log", yscale="log", ylim=(None, 3), xlabel=r"Learning rate $\eta$", ylabel=r"Tr $\Sigma$")
    legend(right, loc="lower right")


FIGURE = Figure(
    name="implicit-sgd",
    source="arXiv:2303.01767, stability of implicit SGD",
    claim="Implicit SGD contracts at any learning rate, and with single samples it is explicit SGD at a bounded one.",
    meaning="A step that is solved for its end does not overshoot an overlap, however large the kick.",
    minutes={"quick": 0.5, "full": 4},
    resolution={
        **{_contracts(rate): 0.0 for rate in _RATES},
        **{_spread(rate): 0.01 for rate in _NOISY},
    },
    measure=_measure,
    draw=_draw,
)
