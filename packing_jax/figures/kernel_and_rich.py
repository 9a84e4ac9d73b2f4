r"""Kernel and rich regimes: which of many solutions descent finds is decided by the size of its start.

arXiv:2002.09277. A diagonal linear network beta = u^2 - v^2, trained from u = v = alpha on fewer samples than weights,
ends at the interpolating beta of least Q (:mod:`packing_jax.networks.theory.diagonal`): the one of least l2 norm for
large alpha, of least l1 norm, which is sparse, for small ones. The flow is the limit of zero learning rate, by
Richardson's extrapolation from three rates.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from packing_jax.figures.axes import POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.low_rank_factorisation import extrapolated
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory.diagonal import interpolator

if TYPE_CHECKING:
    import matplotlib.figure

_SAMPLES, _WEIGHTS = 6, 16
_SCALES = (0.1, 0.3, 1.0)  # alpha
_TEACHER = 1.7  # l1 norm
_RATE = 0.02  # the largest learning rate, over 1 + alpha^2


def _distance(scale: float) -> str:
    return f"distance from the beta of least Q over its length, eta -> 0, alpha {scale:g}"


def _norm(scale: float) -> str:
    return f"l1 norm over that of the beta of least Q, eta -> 0, alpha {scale:g}"


def data() -> tuple[np.ndarray, np.ndarray]:
    """Labels of a teacher with two weights that are not 0; the same at every seed."""
    features = np.random.default_rng(2002).standard_normal((_SAMPLES, _WEIGHTS))
    return features, features[:, :2] @ np.array([1.0, -0.7])


def _beta(weights: dict[str, Array]) -> Array:
    return weights["u"] ** 2 - weights["v"] ** 2


def _model(weights: dict[str, Array], inputs: Array) -> Array:
    return inputs @ _beta(weights)


def _recorded(seen: Learner) -> Array:
    return _beta(seen.weights)


def _from(scale: float) -> Any:
    def start(key: Array) -> dict[str, Array]:  # noqa: ARG001 - a task draws its start, and this is not drawn
        return {name: jnp.full(_WEIGHTS, scale) for name in ("u", "v")}

    return start


def _rule(learning_rate: Any) -> WeightRule:
    return sgd(jax.tree_util.Partial(optax.sgd, learning_rate=learning_rate))


def _measure(run: Run) -> Measured:
    steps = run.pick(2000, 400_000, 2_000_000)
    at = np.unique(np.concatenate([[0], np.geomspace(10, steps, 40).astype(int)]))
    specs = {
        f"alpha {scale:g}": Descents(
            task=Task(_from(scale), _model, Squared(), Data(*data()), precision="float64"),
            rule=_rule,
            over={"learning_rate": tuple(_RATE / (1 + scale**2) / 2**n for n in range(3))},
            observables={"beta": _recorded},
            at=at,
            steps=steps,
            replicas=1,
            run_seed=run.seed,
            facts={"alpha": scale},
        )
        for scale in _SCALES
    }
    rows, curves = [], []
    for scale, found in zip(_SCALES, run.sweeps(specs).values(), strict=True):
        beta = found["beta"].values[:, 0]  # (eta, T, d)
        exact = interpolator(*data(), scale)
        limit = extrapolated(beta[:, -1])
        left = np.linalg.norm(limit - (2 * beta[2, -1] - beta[1, -1])) / np.linalg.norm(exact)
        off = np.linalg.norm(limit - exact) / np.linalg.norm(exact)
        rows.append(Row(_distance(scale), 0.0, 1e-6, "exact", float(off), float(left)))
        ratio = np.abs(limit).sum() / np.abs(exact).sum()
        rows.append(Row(_norm(scale), 1.0, 1e-6, "exact", float(ratio), float(left)))
        curves.append((np.abs(limit).sum(), np.linalg.norm(limit), limit))
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, right = panels(figure, 2)
    fine = np.geomspace(0.01, 10, 60)
    found = [interpolator(*data(), float(scale)) for scale in fine]
    dark, pale = shades(2)
    features, targets = data()
    small = np.linalg.norm(np.linalg.pinv(features) @ targets)
    left.plot(fine, [np.abs(beta).sum() for beta in found], color=dark, label=r"$|\beta|_1$")
    left.plot(fine, [np.linalg.norm(beta) for beta in found], color=pale, ls="--", label=r"$|\beta|_2$")
    left.plot(_SCALES, [one[0] for one in curves], color=dark, marker="o", **POINTS)
    left.plot(_SCALES, [one[1] for one in curves], color=pale, marker="s", **POINTS)
    left.axhline(_TEACHER, color=dark, lw=0.7, ls=":")  # of the teacher, which is the sparsest solution here
    left.axhline(float(small), color=pale, lw=0.7, ls=":")
    left.set(xscale="log", xlabel=r"Size of the start $\alpha$", ylabel="Norm (dotted: smallest of a solution)")
    legend(left, loc="center right")
    for scale, one, colour, marker in zip(_SCALES, curves, shades(len(_SCALES)), "osD", strict=True):
        exact, label = interpolator(*data(), scale), rf"$\alpha = {scale:g}$"
        right.plot(exact, one[2], color=colour, marker=marker, label=label, **POINTS)
    right.plot([-0.8, 1.1], [-0.8, 1.1], color="0.6", lw=0.8, zorder=0)
    right.set(xlabel=r"$\beta_i$ of least $Q$", ylabel=r"$\beta_i$ that descent finds")
    legend(right)


FIGURE = Figure(
    name="kernel-and-rich",
    source="arXiv:2002.09277, the implicit bias of diagonal linear networks",
    claim="Of all solutions, descent finds that of least Q, which goes from the l2 to the l1 norm as its start "
    "shrinks.",
    meaning="Below phi_c a packing has a continuum of absorbing states too. Which one is reached is decided by "
    "the start and by the dynamics, and not by the energy.",
    minutes={"quick": 0.7, "full": 3},
    resolution={name(scale): 1e-3 for name in (_distance, _norm) for scale in _SCALES},
    measure=_measure,
    draw=_draw,
)
