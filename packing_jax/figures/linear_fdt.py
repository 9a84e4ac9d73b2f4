r"""The linear fluctuation-dissipation relation: what SGD loses to the curvature it gains from its noise, at any rate.

arXiv:2106.02220. At the optimum of a regression A Sigma + Sigma A - eta E[A_B Sigma A_B] = eta E[c_B c_B^T], with the
curvature A_B and the gradient c_B of a batch. Its last term, left out in the limit of small learning rates, makes the
covariance diverge at a finite one.
"""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.linalg import solve_continuous_lyapunov

from packing_jax.errors import PackingError
from packing_jax.figures.axes import POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import linear_task
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.learner import Learner
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.theory.fluctuation_dissipation import covariance, dissipation, fluctuation
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.regression import FiniteData

if TYPE_CHECKING:
    import matplotlib.figure

SAMPLES, FEATURES, BATCH = 24, 3, 2
RATES = (0.05, 0.2, 0.4)
_BURN, _EVERY = 200, 10


def problem(learning_rate: float) -> FiniteData:
    """Correlated features of unequal sizes, and targets that no weights fit; the same data at every seed."""
    rng = np.random.default_rng(2106)
    features = rng.standard_normal((SAMPLES, FEATURES)) @ np.array([[1.0, 0.4, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 0.6]])
    targets = features @ np.array([1.0, -1.0, 0.5]) + 0.5 * rng.standard_normal(SAMPLES)
    return FiniteData(HeavyBall(learning_rate=learning_rate, batch_size=BATCH), features, targets)


def rule(learning_rate: Any) -> WeightRule:
    """Plain SGD on batches drawn with replacement."""
    return sgd(heavy_ball(learning_rate), BATCH)


_NAMES = ("Tr Sigma", "Sigma along its own matrix", "training loss above its minimum")


def _named(quantity: str, rate: float) -> str:
    return f"{quantity} over its exact value, eta {rate:g}"


def _relation(rate: float) -> str:
    return f"dissipation of the measured Sigma over fluctuation, traces, eta {rate:g}"


def _products(seen: Learner) -> Array:
    off = seen.weights - jnp.asarray(problem(RATES[0]).minimum)
    return off[:, None] * off[None, :]


def _measure(run: Run) -> Measured:
    replicas, steps = run.pick((8, 400), (512, 4000), (4096, 8000))
    first = problem(RATES[0])
    spec = Descents(
        task=linear_task(first.features, first.targets, first.minimum),
        rule=rule,
        over={"learning_rate": RATES},
        observables={"products": _products},
        at=np.array([0, *range(_BURN, steps + 1, _EVERY)]),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
    )
    found = run.sweep(spec, "regression")["products"].values[:, :, 1:].mean(axis=2)  # (eta, replica, d, d)
    rows, points = [], []
    for rate, seen in zip(RATES, found, strict=True):
        here = problem(rate)
        sigma, noise = covariance(here), np.trace(fluctuation(here))
        lost = np.array([np.trace(dissipation(here, one)) for one in seen])
        measured = {
            _named(_NAMES[0], rate): np.trace(seen, axis1=1, axis2=2) / np.trace(sigma),
            _named(_NAMES[1], rate): (seen * sigma).sum((1, 2)) / (sigma * sigma).sum(),
            _named(_NAMES[2], rate): (seen * here.hessian).sum((1, 2)) / (sigma * here.hessian).sum(),
            _relation(rate): lost / noise,
        }
        rows += [Row(name, 1.0, 0.0, "exact", *mean_and_error(values, 0)) for name, values in measured.items()]
        points.append(mean_and_error(np.trace(seen, axis1=1, axis2=2), 0))
    return Measured(rows, np.array(points))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    (axes,) = panels(figure, 1)
    fine, exact = np.linspace(0.005, 1.0, 200), []
    for rate in fine:
        try:
            exact.append(np.trace(covariance(problem(rate))) / rate)
        except PackingError:
            break
    dark, pale = shades(2)
    axes.plot(fine[: len(exact)], exact, color=dark, label="exact, any learning rate")
    here = problem(1.0)
    small = np.trace(solve_continuous_lyapunov(here.hessian, fluctuation(here)))
    axes.axhline(small, color=pale, ls="--", label=r"small $\eta$: $A\Sigma + \Sigma A = \eta C$")
    axes.axvline(fine[len(exact)], color="0.6", lw=0.8, ls=":", label="second moments diverge")
    rates = np.array(RATES)
    axes.errorbar(rates, curves[:, 0] / rates, curves[:, 1] / rates, color=dark, marker="o", label="SGD", **POINTS)
    axes.set(xlabel=r"Learning rate $\eta$", ylabel=r"Tr $\Sigma/\eta$", yscale="log", ylim=(small / 2, small * 50))
    legend(axes)


FIGURE = Figure(
    name="linear-fdt",
    source="arXiv:2106.02220, the discrete fluctuation-dissipation relation of linear regression",
    claim="The stationary covariance of SGD solves a linear fluctuation-dissipation relation at any learning rate, up "
    "to the one at which it diverges.",
    meaning="Above phi_c overlaps never end, and positions fluctuate about a minimum. This is how curvature and "
    "noise balance there as long as contacts stay the same.",
    minutes={"quick": 0.5, "full": 6},
    resolution={
        **{_named(name, rate): 0.01 for name in _NAMES for rate in RATES},
        **{_relation(rate): 0.01 for rate in RATES},
    },
    measure=_measure,
    draw=_draw,
)
