r"""Epochs without replacement: the noise of a run cancels within each epoch, and what is left moves the minimum.

arXiv:2306.03521. On a regression of seven weights, batches drawn anew fluctuate with a variance proportional to eta,
those of an epoch, at its end, to eta^3; and the mean at the ends of epochs is the minimum of L + (eta/4) <|g_B|^2>.
Both are held against averages over all orders of the batches (:mod:`packing_jax.networks.theory.epochs`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import linear_task
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.learner import Learner
from packing_jax.networks.minibatch import Sampling
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.theory.epochs import ends_of_epochs, shifted_minimum
from packing_jax.networks.theory.fluctuation_dissipation import covariance
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.regression import FiniteData

if TYPE_CHECKING:
    import matplotlib.figure

_SAMPLES, _FEATURES, _BATCH = 8, 7, 2
_EPOCH = _SAMPLES // _BATCH
_RATES = (0.005, 0.01, 0.02)
_KINDS: dict[str, tuple[Sampling, int]] = {"with replacement": ("replacement", 1), "without replacement": ("epochs", 3)}
_LEADING = {"with replacement": 0.025, "without replacement": 0.05}  # half of what the next order may add to the power
_SOLVE = "minimum moved by epochs, linear solve against all orders, eta -> 0, relative"
_FINEST = 1e-4


def _variance(kind: str, rate: float) -> str:
    return f"Tr Sigma at the ends of epochs over its exact value, {kind}, eta {rate:g}"


def _slope(kind: str) -> str:
    return f"power of eta in the variance at the ends of epochs, {kind}"


def _moved(rate: float) -> str:
    return f"mean moved along its shift over the exact one, without replacement, eta {rate:g}"


def data() -> tuple[np.ndarray, np.ndarray]:
    """Features with curvatures from 1.5 to 0.6, and targets that no weights fit; the same at every seed."""
    rng = np.random.default_rng(2306)
    whitened = np.linalg.qr(rng.standard_normal((_SAMPLES, _FEATURES)))[0] * np.sqrt(_SAMPLES)
    features = whitened * np.sqrt(np.geomspace(1.5, 0.6, _FEATURES))
    return features, features @ np.ones(_FEATURES) + rng.standard_normal(_SAMPLES)


def _problem(rate: float) -> FiniteData:
    return FiniteData(HeavyBall(learning_rate=rate, batch_size=_BATCH), *data())


def _exact(kind: str, rate: float) -> float:
    if kind == "with replacement":
        return float(np.trace(covariance(_problem(rate))))
    return float(np.trace(ends_of_epochs(*data(), _BATCH, rate)[1]))


def _weights(seen: Learner) -> Array:
    return seen.weights


def _rule(sampling: Sampling) -> Any:
    def made(learning_rate: Any) -> WeightRule:
        return sgd(heavy_ball(learning_rate), _BATCH, sampling=sampling)

    return made


def _difference() -> float:
    """How far the linear solve is from the mean over all orders in the limit of zero learning rate, relative.

    The shift over eta of the mean over all orders, by Richardson's extrapolation, against the derivative of the solve.
    """
    minimum = _problem(1.0).minimum
    rates = _FINEST * np.array([4.0, 2.0, 1.0])

    def limit(places: list[np.ndarray]) -> np.ndarray:
        over = np.stack([(place - minimum) / rate for place, rate in zip(places, rates, strict=True)])
        first, second = 2 * over[1:] - over[:-1]
        return (4 * second - first) / 3

    averaged = limit([ends_of_epochs(*data(), _BATCH, rate)[0] for rate in rates])
    solved = limit([shifted_minimum(*data(), _BATCH, rate) for rate in rates])
    return float(np.linalg.norm(solved - averaged) / np.linalg.norm(averaged))


def _measure(run: Run) -> Measured:
    replicas, epochs, burn = run.pick((8, 60, 20), (1024, 1600, 400), (4096, 4000, 400))
    at = np.array([0, *range(burn * _EPOCH, epochs * _EPOCH + 1, 8 * _EPOCH)])
    minimum = _problem(1.0).minimum
    specs = {
        kind: Descents(
            task=linear_task(*data(), minimum),
            rule=_rule(sampling),
            over={"learning_rate": _RATES},
            observables={"weights": _weights},
            at=at,
            steps=int(at[-1]),
            replicas=replicas,
            run_seed=run.seed,
            facts={"sampling": sampling},
        )
        for kind, (sampling, _) in _KINDS.items()
    }
    rows = [Row(_SOLVE, 0.0, 1e-6, "exact", run.kept("shift", lambda: {"off": _difference()})["off"], 0.0)]
    curves: dict[str, Any] = {}
    for (kind, (_, power)), found in zip(_KINDS.items(), run.sweeps(specs).values(), strict=True):
        weights = found["weights"].values[:, :, 1:]  # (eta, replica, T, d)
        traces = []
        for rate, seen in zip(_RATES, weights, strict=True):
            centre = minimum
            if kind == "without replacement":
                centre = ends_of_epochs(*data(), _BATCH, rate)[0]
                shift = centre - minimum
                along = (seen.mean(axis=1) - minimum) @ shift / (shift @ shift)
                rows.append(Row(_moved(rate), 1.0, 0.0, "exact", *mean_and_error(along, 0)))
            traces.append(mean_and_error(((seen - centre) ** 2).sum(axis=2).mean(axis=1), 0))
            mean, error = np.array(traces[-1]) / _exact(kind, rate)
            rows.append(Row(_variance(kind, rate), 1.0, 0.0, "exact", mean, error))
        means, errors = np.array(traces).T
        x = np.log(_RATES) - np.log(_RATES).mean()
        slope, stderr = x @ np.log(means) / (x @ x), np.sqrt(((x * errors / means) ** 2).sum()) / (x @ x)
        rows.append(Row(_slope(kind), float(power), _LEADING[kind], "published", float(slope), float(stderr)))
        curves[kind] = means, errors
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, right = panels(figure, 2)
    fine = np.geomspace(0.003, 0.05, 12)
    for (kind, (means, errors)), colour, line, marker in zip(curves.items(), shades(2), LINES, MARKERS, strict=False):
        left.plot(fine, [_exact(kind, rate) for rate in fine], color=colour, ls=line)
        left.errorbar(_RATES, means, errors, color=colour, marker=marker, label=kind, **POINTS)
    left.set(xscale="log", yscale="log", xlabel=r"Learning rate $\eta$", ylabel=r"Tr $\Sigma$ at the ends of epochs")
    legend(left)
    minimum = _problem(1.0).minimum
    exact = [np.linalg.norm(ends_of_epochs(*data(), _BATCH, rate)[0] - minimum) for rate in fine]
    solved = [np.linalg.norm(shifted_minimum(*data(), _BATCH, rate) - minimum) for rate in fine]
    right.plot(fine, exact, color="black", label="all orders of the batches")
    right.plot(fine, solved, color="tab:red", ls="--", label=r"minimum of $L + (\eta/4)\langle|g_B|^2\rangle$")
    right.set(xscale="log", yscale="log", xlabel=r"Learning rate $\eta$", ylabel="Shift of the mean from the minimum")
    for axes in (left, right):
        ticks(axes, 0.003, 0.01, 0.03)
    legend(right)


FIGURE = Figure(
    name="epochs",
    source="arXiv:2306.03521, sampling with and without replacement",
    claim="Epochs without replacement fluctuate as eta^3 in the place of eta, about the minimum of "
    "L + (eta/4)<|g_B|^2>.",
    meaning="Kicks of which each contact gets its share in turn are correlated in time. Such noise can be weaker "
    "by powers of the kick.",
    minutes={"quick": 0.7, "full": 8},
    resolution={
        _SOLVE: 0.0,
        **{_variance(kind, rate): 0.01 for kind in _KINDS for rate in _RATES},
        **{_slope(kind): 0.01 for kind in _KINDS},
        **{_moved(rate): 0.02 for rate in _RATES},
    },
    measure=_measure,
    draw=_draw,
)
