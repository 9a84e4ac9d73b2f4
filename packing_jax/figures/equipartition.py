r"""Equipartition after convergence: positions fluctuate alike in all directions, velocities as the curvature.

arXiv:2107.09133: in the stationary state of SGD with momentum on a linear regression, without weight decay, the
variance of the weights is eta s^2/(2S(1-beta)) in every eigendirection of the Hessian, that of the velocities
s^2 rho/(S(1-beta^2)), to leading order in eta rho. Beside it stand the values that hold at any learning rate: of modes
with injected noise (:mod:`packing_jax.networks.theory.discrete`), and of minibatches without replacement from a finite
data set, whose noise depends on the place (:mod:`packing_jax.networks.theory.regression`).
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import exact_stationary, mean_and_error, modes_task, moments, moved
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory import discrete
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.regression import FiniteData

if TYPE_CHECKING:
    import matplotlib.figure

_ETA = 0.1
_STIFFNESS = np.array([0.01, 0.1, 0.5, 1.0, 1.5])  # eta h
_MOMENTA = (0.0, 0.9, 0.99)
_BURN, _LAG, _EVERY = 2000, 100, 20  # steps; the slowest variance here settles as e^(-k/100)
_QUANTITIES = ("Var x", "Cov(x, v)", "Var v", "displacement of 100 steps")

_SAMPLES, _BATCH = 128, 16
_FEATURES = 8
_REGRESSION = HeavyBall(learning_rate=0.1, momentum=0.9, batch_size=_BATCH, samples=_SAMPLES)

_WORST = "largest deviation from the exact values of injected noise"
_EXACT_X, _EXACT_V = (
    f"{what} by minibatches without replacement, over its exact value" for what in ("Var theta", "Var v")
)
_SPREAD = "Var theta of the stiffest over the softest direction, minibatches"


def _named(quantity: str, momentum: float) -> str:
    return f"{quantity} over its exact value, momentum {momentum:g}"


# --- modes with injected noise --------------------------------------------------------------------------------


def _rule(momentum: Any) -> WeightRule:
    return sgd(heavy_ball(_ETA, momentum), noise=1.0)


def _modes(run: Run) -> tuple[list[Row], Any]:
    copies, replicas, steps = run.pick((32, 2, 2200), (1024, 16, 10_000), (1024, 64, 20_000))
    waits = tuple(range(_BURN, steps - _LAG + 1, 500))
    count = len(_STIFFNESS)
    spec = Descents(
        task=modes_task(_STIFFNESS / _ETA, copies, waits=waits),
        rule=_rule,
        over={"momentum": _MOMENTA},
        observables={"moments": moments(count, _ETA), "moved": moved(count)},
        at=np.array([0, *range(_BURN, steps + 1, _EVERY)]),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
        facts={"copies": copies},
    )
    found = run.sweep(spec, "modes", 0.0, 0.7)
    late = found["time"].values >= _BURN
    at_lag = np.searchsorted(found["time"].values, np.array(waits) + _LAG)
    rows, curves, off = [], {}, []
    for i, momentum in enumerate(_MOMENTA):
        ball = HeavyBall(learning_rate=_ETA, momentum=momentum)
        exact = exact_stationary(ball, _STIFFNESS / _ETA)
        kept = 1 - discrete.correlation(ball, _STIFFNESS / _ETA, _LAG)
        seen = found["moments"].values[i][:, late].mean(axis=1)  # (replica, 5, mode)
        ratios = np.stack(
            [
                seen[:, 2] / exact.position,
                seen[:, 3] / exact.cross,
                seen[:, 4] / exact.velocity,
                found["moved"].values[i][:, at_lag, np.arange(len(waits))].mean(axis=1) / (2 * exact.position * kept),
            ],
            axis=1,
        )
        mean, error = mean_and_error(ratios, 0)  # (4, mode)
        off.append((np.abs(mean - 1), error))
        curves[momentum] = mean[0] * exact.position, error[0] * exact.position
        for j, quantity in enumerate(_QUANTITIES):
            value, stderr = mean_and_error(ratios[:, j].mean(axis=1), 0)
            rows.append(Row(_named(quantity, momentum), 1.0, 0.0, "exact", value, stderr))
    sizes, errors = (np.stack(part).ravel() for part in zip(*off, strict=True))
    worst = sizes.argmax()
    rows.append(Row(_WORST, 0.0, 0.005, "exact", sizes[worst], errors[worst]))
    return rows, curves


# --- minibatches of a linear regression -----------------------------------------------------------------------


def _regression() -> FiniteData:
    """Features with curvatures from 1 to 0.05 and a noisy teacher; the same data at every seed and size."""
    rng = np.random.default_rng(2107)
    raw = rng.standard_normal((_SAMPLES, _FEATURES))
    whitened = np.linalg.qr(raw)[0] * np.sqrt(_SAMPLES)
    features = whitened * np.sqrt(np.geomspace(1.0, 0.05, _FEATURES))
    return FiniteData(_REGRESSION, features, features @ np.ones(_FEATURES) + rng.standard_normal(_SAMPLES))


def _linear(weights: Array, inputs: Array) -> Array:
    return inputs @ weights


def _squares(seen: Learner) -> Array:
    """Squares of theta - theta* and of v, (2, d)."""
    problem = _regression()
    off = seen.weights - jnp.asarray(problem.minimum, seen.weights.dtype)
    v = (seen.before - seen.weights) / _REGRESSION.learning_rate
    return jnp.stack([off * off, v * v])


def _batches(run: Run) -> tuple[list[Row], Any]:
    problem = _regression()
    minimum = problem.minimum
    replicas, steps = run.pick((8, 600), (512, 4000), (1024, 20_000))
    ball = _REGRESSION
    spec = Descents(
        task=Task(lambda _: jnp.asarray(minimum), _linear, Squared(), data=Data(problem.features, problem.targets)),
        rule=lambda momentum: sgd(heavy_ball(ball.learning_rate, momentum), _BATCH, sampling="distinct"),
        over={"momentum": (ball.momentum,)},
        observables={"squares": _squares},
        at=np.array([0, *range(500, steps + 1, 10)]),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
    )
    found = run.sweep(spec, "minibatches", 0.7, 1.0)
    seen = found["squares"].values[0][:, 1:].mean(axis=1)  # (replica, 2, d)
    exact = np.diag(problem.stationary()).reshape(2, _FEATURES)
    mean, error = mean_and_error(seen, 0)
    rows = []
    for which, name in enumerate((_EXACT_X, _EXACT_V)):
        value, stderr = mean_and_error((seen[:, which] / exact[which]).mean(axis=1), 0)
        rows.append(Row(name, 1.0, 0.0, "exact", value, stderr))
    ratio = mean[0, 0] / mean[0, -1]
    stderr = ratio * np.hypot(error[0, 0] / mean[0, 0], error[0, -1] / mean[0, -1])
    # leading order in eta rho, which is 0.1 here, and in the batch's own noise: a tenth is left open
    rows.append(Row(_SPREAD, 1.0, 0.05, "published", ratio, stderr))
    return rows, (mean, error, exact)


def _measure(run: Run) -> Measured:
    first, modes = _modes(run)
    second, batches = _batches(run)
    return Measured(first + second, (modes, batches))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    modes, (mean, error, exact) = curves
    left, right = panels(figure, 2)
    fine = np.geomspace(0.005, 1.9, 200)
    for (momentum, (seen, stderr)), colour, line, marker in zip(
        modes.items(), shades(len(modes)), LINES, MARKERS, strict=False
    ):
        ball = HeavyBall(learning_rate=_ETA, momentum=momentum)
        leading = _ETA / (2 * (1 - momentum))  # times q^2/h
        left.plot(fine, exact_stationary(ball, fine / _ETA).position * fine / _ETA / leading, color=colour, ls=line)
        scale = _STIFFNESS / _ETA / leading
        left.errorbar(
            _STIFFNESS, seen * scale, stderr * scale, color=colour, marker=marker, label=rf"$\beta={momentum:g}$",
            **POINTS,
        )  # fmt: skip
    left.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    left.set(xscale="log", yscale="log", xlabel=r"$\eta h$", ylabel=r"Var $x$ (leading order)")
    legend(left)
    rho = np.diag(_regression().hessian)
    for which, (marker, label, unit) in enumerate(zip("os", (r"$\theta$", "$v$"), (exact[0].mean(), 1), strict=True)):
        by = unit if which == 0 else exact[1][0] / rho[0]
        colour = shades(2)[which]
        right.plot(rho, exact[which] / by, color=colour, ls=LINES[which])
        right.errorbar(rho, mean[which] / by, error[which] / by, color=colour, marker=marker, label=label, **POINTS)
    right.set(xscale="log", yscale="log", xlabel=r"Curvature $\rho$", ylabel="Variance (its unit), minibatches")
    legend(right)


FIGURE = Figure(
    name="equipartition",
    source="arXiv:2107.09133, stationary variances of position and velocity",
    claim="After convergence SGD with momentum fluctuates alike in all directions of the Hessian, at velocities whose "
    "variance is that of the curvature.",
    meaning="Stationary SGD is not a body at a temperature: stiff directions fluctuate as much as soft ones. Nor is a "
    "packing whose noise comes from its overlaps.",
    minutes={"quick": 2, "full": 12},
    resolution={
        **{_named(quantity, momentum): 0.005 for quantity in _QUANTITIES for momentum in _MOMENTA},
        _WORST: 0.005,
        _EXACT_X: 0.01,
        _EXACT_V: 0.01,
        _SPREAD: 0.05,
    },
    measure=_measure,
    draw=_draw,
)
