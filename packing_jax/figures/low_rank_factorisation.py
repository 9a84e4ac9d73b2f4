r"""Low-rank factorisation: eigenvectors of the target are learnt one after the other, each along a logistic curve.

arXiv:2411.15972. Gradient descent on (1/4)|U U^T - M|^2. From a start along the eigenvectors of M each mode is
s(t) = m/[1 + (m/s_0 - 1) e^(-2mt)]; from a random start the product U U^T is known too, as the solution of a Riccati
equation (:mod:`packing_jax.networks.theory.low_rank`). Both are held in the limit of zero learning rate, by
Richardson's extrapolation from three rates.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from packing_jax.figures.axes import MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import ROUNDING
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory.low_rank import learning_time, mode, product

if TYPE_CHECKING:
    import matplotlib.figure

STRENGTHS = np.array([2.0, 1.0, 0.5, -0.5])  # eigenvalues of M; what is negative no U U^T has
_SIZE, _RANK = len(STRENGTHS), 3
_SMALL = 1e-3  # s_0
_LENGTH = 10.0  # t at the end
_TIMES = 41

_STEP = "modes against the recursion of a step, largest difference"
_FLOW = "random start: U U^T against the solution of the flow, largest difference at eta -> 0"
_ORDER = "power of the learning rate by which U U^T differs from the flow"


def _half(m: float) -> str:
    return f"s at the time at which half of it is learnt, eta -> 0, m = {m:g}"


def target() -> np.ndarray:
    """M (d, d), in axes that are none of its eigenvectors."""
    vectors = eigenvectors()
    whole = vectors @ np.diag(STRENGTHS) @ vectors.T
    return (whole + whole.T) / 2


def eigenvectors() -> np.ndarray:
    """The eigenvectors of M, columns, (d, d)."""
    return np.linalg.qr(np.random.default_rng(2411).standard_normal((_SIZE, _SIZE)))[0]


def starts() -> dict[str, np.ndarray]:
    """U_0 (d, r): along the eigenvectors, and at random."""
    aligned = np.sqrt(_SMALL) * eigenvectors()[:, :_RANK]
    return {"aligned": aligned, "random": 0.05 * np.random.default_rng(1597).standard_normal((_SIZE, _RANK))}


def _start(first: np.ndarray, key: Array) -> Array:  # noqa: ARG001 - a task draws its start, and this is not drawn
    return jnp.asarray(first)


def _model(weights: Array, inputs: Array) -> Array:
    return inputs @ weights @ weights.T / jnp.sqrt(2.0)


def _rule(learning_rate: Any) -> WeightRule:
    return sgd(jax.tree_util.Partial(optax.sgd, learning_rate=learning_rate))


def _weights(seen: Learner) -> Array:
    return seen.weights


def _descended(run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times, and U U^T at three learning rates, each half of the one before, (3, T, d, d)."""
    coarse = run.pick(200, 2000, 20_000)
    rates = tuple(_LENGTH / coarse / 2**n for n in range(3))
    times = np.linspace(0, _LENGTH, _TIMES)
    at = [np.rint(times / rate).astype(int) for rate in rates]
    specs = {
        name: Descents(
            # rows of the identity, so that the loss summed over samples is (1/4)|U U^T - M|^2
            task=Task(
                partial(_start, first),
                _model,
                Squared(),
                data=Data(np.eye(_SIZE), target() / np.sqrt(2.0)),
                total="sum",
                precision="float64",
            ),
            rule=_rule,
            over={"learning_rate": rates},
            observables={"weights": _weights},
            at=np.unique(np.concatenate(at)),
            steps=int(at[-1][-1]),
            replicas=1,
            run_seed=run.seed,
            facts={"start": name},
        )
        for name, first in starts().items()
    }
    found = {}
    for name, dataset in run.sweeps(specs).items():
        steps, u = dataset["time"].values, dataset["weights"].values[:, 0]
        of_rate = np.stack([u[n, np.searchsorted(steps, at[n])] for n in range(3)])
        found[name] = of_rate @ np.swapaxes(of_rate, -1, -2)
    return np.stack(at), found


def extrapolated(values: np.ndarray) -> Any:
    """The limit of zero learning rate of (3, ...), each rate half of the one before; orders 1 and 2 cancel."""
    first, second = 2 * values[1:] - values[:-1]
    return (4 * second - first) / 3


def _measure(run: Run) -> Measured:
    at, found = _descended(run)
    times = np.linspace(0, _LENGTH, _TIMES)
    vectors = eigenvectors()[:, :_RANK]
    along = np.einsum("di,nkde,ei->nki", vectors, found["aligned"], vectors)  # (3, T, modes)
    m = STRENGTHS[:_RANK]
    recursion = np.full((at[0][-1] + 1, _RANK), _SMALL)
    for k in range(at[0][-1]):
        recursion[k + 1] = recursion[k] * (1 + at_rate(at) * (m - recursion[k])) ** 2
    worst = float(np.abs(along[0] - recursion[at[0]]).max())
    rows = [Row(_STEP, 0.0, ROUNDING, "exact", worst, 0.0)]
    limit, spread = extrapolated(along), np.abs(extrapolated(along) - (2 * along[2] - along[1]))
    for i, one in enumerate(m):
        # at the recorded time next to that at which half is learnt
        k = int(np.abs(times - learning_time(one, _SMALL)).argmin())
        error = float(spread[k, i])  # what the second extrapolation changes is an upper bound of what is left
        rows.append(Row(_half(one), float(mode(one, _SMALL, times[k])), 0.0, "exact", float(limit[k, i]), error))
    exact = product(target(), starts()["random"], times)
    flow = found["random"]
    left = np.abs(extrapolated(flow) - (2 * flow[2] - flow[1])).max()
    off = float(np.abs(extrapolated(flow) - exact).max())
    rows.append(Row(_FLOW, 0.0, 0.0, "exact", off, float(left)))
    distances = np.abs(flow - exact).max(axis=(1, 2, 3))
    power = np.log2(distances[:-1] / distances[1:])
    rows.append(Row(_ORDER, 1.0, 0.0, "derived", float(power[1]), float(abs(power[1] - power[0]))))
    values = np.linalg.eigvalsh(extrapolated(flow))[:, ::-1]
    return Measured(rows, (times, limit, values, np.linalg.eigvalsh(exact)[:, ::-1]))


def at_rate(at: np.ndarray) -> float:
    """The largest learning rate, from the steps (3, T) at which it records."""
    return float(_LENGTH / at[0][-1])


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    times, limit, values, exact = curves
    left, right = panels(figure, 2)
    fine = np.linspace(0, _LENGTH, 400)
    smooth = np.linalg.eigvalsh(product(target(), starts()["random"], fine))[:, ::-1]
    del exact
    for i, (m, colour, marker) in enumerate(zip(STRENGTHS, shades(_RANK), MARKERS, strict=False)):
        left.plot(fine, mode(m, _SMALL, fine), color=colour)
        left.plot(times, limit[:, i], color=colour, marker=marker, label=f"$m = {m:g}$", **POINTS)
        left.axvline(float(learning_time(m, _SMALL)), color=colour, lw=0.7, ls=":")
        right.plot(fine, smooth[:, i], color=colour)
        right.plot(times, values[:, i], color=colour, marker=marker, **POINTS)
    left.set(xlabel=r"Time $\eta k$", ylabel="$s$ along each eigenvector")
    left.set_title("start along the eigenvectors", fontsize=9)
    right.set(xlabel=r"Time $\eta k$", ylabel=r"Eigenvalues of $UU^T$")
    right.set_title("random start", fontsize=9)
    legend(left)


FIGURE = Figure(
    name="low-rank-factorisation",
    source="arXiv:2411.15972, gradient flow of the symmetric factorisation",
    claim="A symmetric factorisation learns the eigenvectors of its target one after the other, by a law that is known "
    "from any start.",
    meaning="None directly: it checks descent far from a minimum, where modes are not independent of one another.",
    minutes={"quick": 0.2, "full": 2},
    resolution={_STEP: 0.0, **{_half(m): 1e-4 for m in STRENGTHS[:_RANK]}, _FLOW: 1e-4, _ORDER: 0.02},
    measure=_measure,
    draw=_draw,
)
