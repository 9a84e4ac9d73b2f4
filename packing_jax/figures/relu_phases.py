r"""The phase diagram of two-layer ReLU networks at infinite width: how far weights move decides the regime.

arXiv:2007.07497. f = sum_k a_k relu(w_k.x) with all weights of size m^(-gamma/2) at the start, m the width. The
relative displacement |theta - theta_0|/|theta_0| at the end of training is a power of m. Weights hardly move for
gamma < 1, the linear regime, whose power is gamma - 1 (-1/2 in the scaling of the tangent kernel, gamma = 1/2). At
gamma = 1 it is 0. Beyond, in the condensed regime, the start is forgotten, and as sum |a_k||w_k| ends at a size that
the data decide, the power is (gamma - 1)/2. (The powers derived; their signs published.)
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from packing_jax.figures.axes import MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.task import Task

if TYPE_CHECKING:
    import matplotlib.figure

_GAMMAS = {0.5: "linear, as the tangent kernel", 1.0: "critical", 1.5: "condensed"}
_WIDTHS = (256, 1024, 4096)
_INPUTS = np.stack([np.array([-1.0, -0.3, 0.4, 1.0]), np.ones(4)], axis=1)  # and a bias
_TARGETS = np.array([0.5, -0.4, 0.6, -0.2])
_RATE = 0.05  # over m^(1-gamma) where the kernel grows with the width


def _named(gamma: float) -> str:
    return f"power of the width in the relative displacement, gamma {gamma:g}, {_GAMMAS[gamma]}"


def power(gamma: float) -> float:
    """Of the width in the relative displacement: gamma - 1, or (gamma - 1)/2 beyond 1."""
    return gamma - 1 if gamma <= 1 else (gamma - 1) / 2


def _start(width: int, count: int, key: Array) -> dict[str, Array]:
    """So many networks at each gamma: inner (gammas, count, 2, m) and outer weights (gammas, count, m).

    Half of the units are the other half with the sign of a_k turned, so that outputs start at 0.
    """
    z = jax.random.normal(key, (len(_GAMMAS), count, 3, width // 2))
    z = jnp.concatenate([z, z * np.array([1, 1, -1], np.float32)[:, None]], axis=3)
    sizes = np.array([width ** (-gamma / 2) for gamma in _GAMMAS], np.float32)
    z = z * sizes[:, None, None, None]
    return {"inner": z[:, :, :2], "outer": z[:, :, 2]}


def _networks(weights: dict[str, Array], inputs: Array) -> Array:
    hidden = jax.nn.relu(jnp.einsum("pi,gcim->gcpm", inputs, weights["inner"]))
    outputs = jnp.einsum("gcpm,gcm->pgc", hidden, weights["outer"])
    return outputs.reshape(len(inputs), -1)


def _descent(learning_rate: Any, width: int) -> optax.GradientTransformation:
    """Descent whose rate is smaller where the kernel grows with the width."""
    shares = np.array([width ** -max(0.0, 1 - gamma) for gamma in _GAMMAS], np.float32)

    def update(gradient: Any, state: Any, weights: Any = None) -> Any:  # noqa: ARG001 - as optax calls it
        def moved(g: Array) -> Array:
            return -learning_rate * shares.reshape(-1, *[1] * (g.ndim - 1)) * g

        return jax.tree.map(moved, gradient), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _rule(width: int, learning_rate: Any) -> WeightRule:
    return sgd(jax.tree_util.Partial(partial(_descent, width=width), learning_rate))


def _moved(seen: Learner) -> Array:
    """Relative displacement and loss of each network, (2, gammas, count)."""

    def square(tree: Any) -> Array:
        inner, outer = tree["inner"], tree["outer"]
        return (inner * inner).sum(axis=(2, 3)) + (outer * outer).sum(axis=2)

    away = jax.tree.map(jnp.subtract, seen.weights, seen.start)
    off = _networks(seen.weights, jnp.asarray(seen.data.inputs)) - seen.data.targets
    loss = (off * off).mean(axis=0).reshape(len(_GAMMAS), -1) / 2
    return jnp.stack([jnp.sqrt(square(away) / square(seen.start)), loss])


def _measure(run: Run) -> Measured:
    count, steps = run.pick((2, 100), (8, 10_000), (128, 20_000))
    at = np.unique(np.concatenate([[0], np.geomspace(10, steps, 20).astype(int)]))
    specs = {
        f"width {width}": Descents(
            task=Task(
                partial(_start, width, count),
                _networks,
                Squared(),
                data=Data(_INPUTS, np.repeat(_TARGETS[:, None], len(_GAMMAS) * count, axis=1)),
            ),
            rule=partial(_rule, width),
            over={"learning_rate": (_RATE,)},
            observables={"moved": _moved},
            at=at,
            steps=steps,
            replicas=1,
            run_seed=run.seed,
            facts={"width": width, "count": count},
        )
        for width in _WIDTHS
    }
    seen = [found["moved"].values[0, 0] for found in run.sweeps(specs).values()]  # each (T, 2, gammas, count)
    logs = np.log([one[-1, 0] for one in seen])
    means, errors = mean_and_error(logs, 2)  # (width, gamma)
    x = np.log(_WIDTHS) - np.log(_WIDTHS).mean()
    powers, stderrs = x @ means / (x @ x), np.sqrt(((x[:, None] * errors) ** 2).sum(axis=0)) / (x @ x)
    rows = [
        # powers at infinite width, and 0.01 for widths that are finite
        Row(_named(gamma), power(gamma), 0.01, "derived", float(powers[n]), float(stderrs[n]))
        for n, gamma in enumerate(_GAMMAS)
    ]
    return Measured(rows, (at, np.stack(seen), np.exp(means), np.exp(means) * errors))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    at, seen, means, errors = curves
    left, right = panels(figure, 2)
    widths = np.array(_WIDTHS)
    for n, (gamma, colour, marker) in enumerate(zip(_GAMMAS, shades(len(_GAMMAS)), MARKERS, strict=False)):
        label = rf"$\gamma = {gamma:g}$, {_GAMMAS[gamma].split(',')[0]}"
        left.errorbar(widths, means[:, n], errors[:, n], color=colour, marker=marker, label=label, **POINTS)
        left.plot(widths, means[-1, n] * (widths / widths[-1]) ** power(gamma), color=colour, ls="--", lw=1)
        right.plot(at[1:], seen[-1, 1:, 1, n].mean(axis=1), color=colour, marker=marker, ms=3, lw=0.8)
    left.set(xscale="log", yscale="log", xlabel="Width (dashed: the power of each phase)")
    left.set(ylabel="Relative displacement of the weights")
    ticks(left, *_WIDTHS)
    legend(left)
    right.set(xscale="log", yscale="log", xlabel="Step", ylabel=f"Training loss at width {_WIDTHS[-1]}")


FIGURE = Figure(
    name="relu-phases",
    source="arXiv:2007.07497, the phase diagram of two-layer ReLU networks",
    claim="Whether weights of a wide network move is decided by the size of their start: not in the linear regime, "
    "more and more with width in the condensed one.",
    meaning="None directly: it says in which networks training moves through configurations, as packings do, and in "
    "which it stays next to its start.",
    minutes={"quick": 0.7, "full": 20},
    resolution={_named(gamma): 0.005 for gamma in _GAMMAS},
    measure=_measure,
    draw=_draw,
)
