r"""Large steps find sparse features: with single samples, and not with the whole set.

arXiv:2210.05337. A diagonal network beta = u v, n = 80 samples of d = 200 features of which r = 20 count. SGD on single
samples at a learning rate near the largest one that does not diverge, lowered in the end, ends at sparser solutions
with smaller errors than SGD at a constant, smaller one. Full-batch descent with the same large steps does not: it is
the noise of large steps that shrinks what is not needed.
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
from packing_jax.figures.linear import linear
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.task import Task

if TYPE_CHECKING:
    import matplotlib.figure

_SAMPLES, _FEATURES, _SPARSE = 80, 200, 20
_LENGTH = 0.8  # of the teacher: the source leaves the scale open, and at 0.85 one run in eight diverges
_START = 0.1  # of u; v starts at 0
_LARGE, _CONSTANT = 0.282, 0.25
_DROPS = ((0.1, 4.8), (0.3, 3.4), (0.5, 1.5))  # after this share of the steps the rate is divided by
_COUNTS = 0.01  # the size above which a weight belongs to the support
_LOSS = "share of seeds at which large steps end at a smaller error than constant ones"
_SUPPORT = "share of seeds at which large steps end at a smaller support than constant ones"
_CONTROL = "share of seeds at which large full-batch steps end at a smaller error than constant single samples"


def _data(key: Array) -> Data:
    """Inputs, labels without noise for both runs, and the teacher as the only test input: errors are |b - b*|^2/2."""
    z = jax.random.normal(key, (_SAMPLES + 1, _FEATURES))
    x, raw = z[:-1], jnp.where(jnp.arange(_FEATURES) < _SPARSE, z[-1], 0.0)
    teacher = _LENGTH * raw / jnp.linalg.norm(raw)
    return Data(x, jnp.repeat((x @ teacher)[:, None], 2, axis=1), teacher[None], jnp.zeros((1, 2)))


def _started(key: Array) -> dict[str, Array]:  # noqa: ARG001 - a task draws its start, and this is not drawn
    return {"u": jnp.full((2, _FEATURES), _START), "v": jnp.zeros((2, _FEATURES))}


def _model(weights: dict[str, Array], inputs: Array) -> Array:
    return linear(weights["u"] * weights["v"], inputs)


def _descent(learning_rate: Any, steps: int) -> optax.GradientTransformation:
    """SGD of two rows of weights: large steps that are lowered at three moments, and constant ones."""

    def init(weights: Any) -> Array:  # noqa: ARG001 - as optax calls it
        return jnp.zeros((), jnp.int32)

    def update(gradient: Any, made: Array, weights: Any = None) -> Any:  # noqa: ARG001 - as optax calls it
        large = jnp.asarray(learning_rate)
        for share, by in _DROPS:
            large = large / jnp.where(made >= share * steps, by, 1.0)
        rates = jnp.stack([large, jnp.full_like(large, _CONSTANT)])[:, None]
        return jax.tree.map(lambda g: -rates * g, gradient), made + 1

    return optax.GradientTransformation(init, update)


def _rule(steps: int, batch: int | None) -> Any:
    def made(learning_rate: Any) -> WeightRule:
        return sgd(jax.tree_util.Partial(partial(_descent, steps=steps), learning_rate), batch)

    return made


def _ends(seen: Learner) -> Array:
    """Of both runs, the error on fresh data and the number of weights in the support, (2, 2)."""
    beta = seen.weights["u"] * seen.weights["v"]
    off = beta - jnp.asarray(seen.data.test_inputs)
    return jnp.stack([(off * off).sum(axis=1) / 2, (jnp.abs(beta) > _COUNTS).sum(axis=1).astype(beta.dtype)])


def _measure(run: Run) -> Measured:
    replicas, steps = run.pick((2, 1000), (32, 100_000), (128, 100_000))
    at = np.unique(np.concatenate([[0], np.geomspace(10, steps, 40).astype(int)]))
    specs = {
        name: Descents(
            task=Task(_started, _model, Squared(), data_from=_data),
            rule=_rule(steps, batch),
            over={"learning_rate": (_LARGE,)},  # of both: a replica's data are those of its axes and number
            observables={"ends": _ends},
            at=at,
            steps=steps,
            replicas=replicas,
            run_seed=run.seed,
            facts={"batch": batch or _SAMPLES},
        )
        for name, batch in (("single samples", 1), ("full batch", None))
    }
    single, whole = (dataset["ends"].values[0] for dataset in run.sweeps(specs).values())  # (replica, T, what, run)
    rows = [
        Row(_LOSS, 1.0, 0.02, "published", *_wins(single[:, -1, 0, 0], single[:, -1, 0, 1])),
        Row(_SUPPORT, 1.0, 0.02, "published", *_wins(single[:, -1, 1, 0], single[:, -1, 1, 1])),
        Row(_CONTROL, 0.0, 0.02, "published", *_wins(whole[:, -1, 0, 0], single[:, -1, 0, 1])),
    ]
    return Measured(rows, (at, single, whole))


def _wins(one: np.ndarray, other: np.ndarray) -> tuple[Any, Any]:
    """The share of replicas in which the first is smaller; one that diverged has not won."""
    return mean_and_error(one < other, 0)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    at, single, whole = curves
    kinds = (
        ("single samples, large", single[..., 0]),
        ("single samples, constant", single[..., 1]),
        ("full batch, large", whole[..., 0]),
    )
    for n, (axes, label) in enumerate(
        zip(panels(figure, 2), ("Error on fresh data", "Weights in the support"), strict=True)
    ):
        for (name, one), colour, marker in zip(kinds, shades(3), MARKERS, strict=False):
            low, middle, high = np.nanquantile(one[:, 1:, n], [0.25, 0.5, 0.75], axis=0)
            axes.fill_between(at[1:], low, high, color=colour, alpha=0.2, lw=0)
            axes.plot(at[1:], middle, color=colour, lw=0.8)
            axes.plot(at[1:], middle, color=colour, marker=marker, label=name, **POINTS)
        axes.set(xscale="log", yscale="log", xlabel="Step", ylabel=f"{label}, quartiles")
        for share, _ in _DROPS:
            axes.axvline(share * at[-1], color="0.6", lw=0.7, ls=":")
    legend(axes)


FIGURE = Figure(
    name="large-steps",
    source="arXiv:2210.05337, large steps and sparse features in diagonal networks",
    claim="SGD with large steps that are lowered in the end finds sparser solutions with smaller errors than with "
    "constant steps; full-batch descent does not.",
    meaning="The noise of large steps selects among states that all satisfy the constraints. In packings `flat- "
    "minima` measures such a selection.",
    minutes={"quick": 1, "full": 5},
    resolution={_LOSS: 0.05, _SUPPORT: 0.05, _CONTROL: 0.05},
    measure=_measure,
    draw=_draw,
)
