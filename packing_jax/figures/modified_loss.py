r"""The modified loss: after convergence SGD samples not the loss but another quadratic function, which noise shapes.

arXiv:2107.09133: the stationary density of weights and velocities of a linear regression under SGD with momentum and
weight decay is exp(-kappa Psi), Psi = sum (1/(eta(1+beta)))(1 + lambda/rho)(theta - mu)^2 + v^2/(2 rho) and
kappa = S(1-beta^2)/s^2: every degree of freedom has 1/2 of kappa Psi, and not an equal share of the loss. S -> S/q with
beta -> sqrt(1 - q(1-beta^2)) and eta -> eta(1+beta)/(1+beta') leaves the density as it is. To leading order in eta.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory import heavy_ball as sde
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.modified_loss import annealed
from packing_jax.networks.theory.regression import FiniteData

if TYPE_CHECKING:
    import matplotlib.figure

_RHO = np.array([1.0, 0.5, 0.25, 0.125])
_SAMPLES = 256
_BALL = HeavyBall(learning_rate=0.02, momentum=0.9, weight_decay=0.1, batch_size=16)
_SHARES = (1.0, 2.0, 0.5)  # q
_BURN = 1000

_POSITIONS = "kappa Psi per position, and degree of freedom"
_VELOCITIES = "kappa Psi per velocity, and degree of freedom"
_EXACT = "Var theta over its exact value, with the noise of each place"


def _kept(what: str, share: float) -> str:
    return f"Var {what} at S/q over that at S, q = {share:g}"


def _data() -> tuple[Any, Any]:
    """Features of covariance diag(rho), and targets +-1 orthogonal to them: theta* = 0, noise s^2 rho/S with s = 1."""
    rng = np.random.default_rng(33)
    signs = rng.choice([-1.0, 1.0], _SAMPLES)
    raw = np.column_stack([signs, rng.standard_normal((_SAMPLES, len(_RHO)))])
    return np.linalg.qr(raw)[0][:, 1:] * np.sqrt(_SAMPLES * _RHO), signs


def _linear(weights: Array, inputs: Array) -> Array:
    return inputs @ weights


def _rule_of(ball: HeavyBall) -> Any:
    def rule(learning_rate: Any) -> WeightRule:
        return sgd(heavy_ball(learning_rate, ball.momentum, ball.weight_decay), ball.batch_size)

    return rule


def _squares_of(ball: HeavyBall, minimum: Any) -> Any:
    def squares(seen: Learner) -> Array:
        off = seen.weights - jnp.asarray(minimum, seen.weights.dtype)
        v = (seen.before - seen.weights) / ball.learning_rate
        return jnp.stack([off * off, v * v])

    return squares


def _measure(run: Run) -> Measured:
    features, targets = _data()
    problem = FiniteData(_BALL, features, targets)
    replicas, steps = run.pick((16, 1500), (384, 6000), (2048, 40_000))
    found = {}
    for i, share in enumerate(_SHARES):
        ball = annealed(_BALL, share)
        spec = Descents(
            task=Task(lambda _: jnp.asarray(problem.minimum), _linear, Squared(), data=Data(features, targets)),
            rule=_rule_of(ball),
            over={"learning_rate": (ball.learning_rate,)},
            observables={"squares": _squares_of(ball, problem.minimum)},
            at=np.array([0, *range(_BURN, steps + 1, 20)]),
            steps=steps,
            replicas=replicas,
            run_seed=run.seed + i,
            facts={"share": share},
        )
        seen = run.sweep(spec, f"share-{share:g}", i / 3, (i + 1) / 3)
        found[share] = seen["squares"].values[0][:, 1:].mean(axis=1)  # (replica, 2, d)
    at_rest = sde.stationary(_BALL, _RHO)
    rows = []
    # a mode's part of kappa Psi is half of its square over the variance that Psi gives it
    for which, (name, variance) in enumerate([(_POSITIONS, at_rest.position), (_VELOCITIES, at_rest.velocity)]):
        value, stderr = mean_and_error((found[1.0][:, which] / variance / 2).mean(axis=1), 0)
        rows.append(Row(name, 0.5, _LEADING / 2, "published", value, stderr))
    exact = np.diag(problem.stationary()).reshape(2, -1)
    value, stderr = mean_and_error((found[1.0][:, 0] / exact[0]).mean(axis=1), 0)
    rows.append(Row(_EXACT, 1.0, 0.0, "exact", value, stderr))
    for share in _SHARES[1:]:
        for which, name in enumerate(("theta", "v")):
            (one, error), (base, other) = (
                mean_and_error((found[q][:, which] / exact[which]).mean(axis=1), 0) for q in (share, 1.0)
            )
            stderr = one / base * np.hypot(error / one, other / base)
            rows.append(Row(_kept(name, share), 1.0, _LEADING, "published", one / base, stderr))
    return Measured(rows, {share: mean_and_error(seen, 0) for share, seen in found.items()})


#: What the leading order leaves out: eta rho S'/S of the batch's own spread, at most.
_LEADING = 0.02


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, right = panels(figure, 2)
    fine = np.geomspace(0.1, 1.25, 100)
    at_rest = sde.stationary(_BALL, fine)
    for axes, which, expected, name in ((left, 0, at_rest.position, r"\theta"), (right, 1, at_rest.velocity, "v")):
        axes.plot(fine, expected, color="black", lw=0.9, label=r"modified loss")
        for (share, (mean, error)), colour, marker in zip(curves.items(), shades(3), MARKERS, strict=False):
            ball = annealed(_BALL, share)
            label = rf"$S={ball.batch_size}$, $\beta={ball.momentum:.3f}$, $\eta={ball.learning_rate:.4f}$"
            axes.errorbar(_RHO, mean[which], error[which], color=colour, marker=marker, label=label, **POINTS)
        axes.set(xscale="log", yscale="log", xlabel=r"Curvature $\rho$", ylabel=f"Var ${name}$")
    temperature = np.mean(curves[1.0][0][0] * _RHO)
    left.plot(fine, temperature / fine, color="0.6", ls="--", lw=0.9, label="the loss, at one temperature")
    legend(left)


FIGURE = Figure(
    name="modified-loss",
    source="arXiv:2107.09133, the modified loss, and how to anneal without changing it",
    claim="SGD with momentum samples a modified loss, which stays the same when batch, momentum and learning rate are "
    "changed together.",
    meaning="The states where a noisy rule lingers need not be the minima of its energy, in a network or a packing.",
    minutes={"quick": 1, "full": 20},
    resolution={
        _POSITIONS: 0.005,
        _VELOCITIES: 0.005,
        _EXACT: 0.01,
        **{_kept(name, share): 0.01 for share in _SHARES[1:] for name in ("theta", "v")},
    },
    measure=_measure,
    draw=_draw,
)
