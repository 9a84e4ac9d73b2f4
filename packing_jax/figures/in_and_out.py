r"""In and out of equilibrium: the currents of SGD, and the theorem that its entropy production obeys.

arXiv:2306.03521. Where the noise of minibatches and the curvature have other axes, SGD sweeps area in its stationary
state, in proportion to 1/S. Paths of such a process are not as likely as their reverses: their log ratio, the entropy
production ds, is positive on average, but <e^(-ds)> = 1 exactly at any length (the integral fluctuation theorem).
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.figures.axes import MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.currents import DRIFT, NOISE, ROOT
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.linear import linear_task
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory import entropy
from packing_jax.networks.theory.fluctuation_dissipation import area_per_step
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.modified_loss import stationary_covariance_of_steps
from packing_jax.networks.theory.regression import FiniteData

if TYPE_CHECKING:
    import matplotlib.figure

_ETA = 0.05
_LENGTHS = (2, 6, 12)  # steps of a path; <ds> is 0.053 a step
_BATCHES = (1, 2, 4)
_POWER = "power of the batch size in the area swept"


def _theorem(length: int) -> str:
    return f"<e^-ds> of paths of {length} steps"


def _produced(length: int) -> str:
    return f"<ds> of paths of {length} steps over its exact value"


def _area(batch: int) -> str:
    return f"area swept a step over its exact value, S {batch}"


# --- paths of the process with currents -------------------------------------------------------------------------

_STEP = np.eye(2) - _ETA * DRIFT
_KICK = _ETA**2 * NOISE


def _start(copies: int, key: Array) -> Array:
    root = np.linalg.cholesky(stationary_covariance_of_steps(DRIFT, NOISE, _ETA))
    return jax.random.normal(key, (copies, 2)) @ jnp.asarray(root.T)


def _stretched(weights: Array, inputs: Array) -> Array:
    return (weights @ inputs[0]).reshape(1, -1)


def _noise(key: Array, gradient: Array) -> Array:
    scale = jnp.asarray(np.sqrt(np.diag(NOISE)), gradient.dtype)
    return jax.random.normal(key, gradient.shape, gradient.dtype) * scale[None]


def _noisy(learning_rate: Any) -> WeightRule:
    return sgd(heavy_ball(learning_rate), noise=jax.tree_util.Partial(_noise))


def _weights(seen: Learner) -> Array:
    return seen.weights


def _paths(run: Run) -> np.ndarray:
    """Stationary paths, (replica, copy, K + 1, 2)."""
    copies, replicas = run.pick((64, 4), (4096, 64), (16_384, 128))
    spec = Descents(
        task=Task(
            partial(_start, copies),
            _stretched,
            Squared(),
            data=Data(ROOT[None], np.zeros((1, 2 * copies))),
            total="sum",
            precision="float64",
        ),
        rule=_noisy,
        over={"learning_rate": (_ETA,)},
        observables={"place": _weights},
        at=np.arange(max(_LENGTHS) + 1),
        steps=max(_LENGTHS),
        replicas=replicas,
        run_seed=run.seed,
        facts={"copies": copies},
    )
    return np.swapaxes(run.sweep(spec, "paths", 0.0, 0.4)["place"].values[0], 1, 2)


# --- minibatches whose noise is not along the curvature ---------------------------------------------------------


def problem(batch: int) -> FiniteData:
    """Eight samples at which the residual is larger where both features have one sign."""
    features = np.repeat([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.5], [-1.0, -0.5]], 2, axis=0)
    residual = np.where(features.prod(axis=1) > 0, 1.5, 0.3) * np.tile([1.0, -1.0], 4)
    ball = HeavyBall(learning_rate=_ETA, batch_size=batch)
    return FiniteData(ball, features, features @ np.array([1.0, -1.0]) + residual)


def _swept(seen: Learner) -> Array:
    """The area of the last step about the minimum."""
    minimum = jnp.asarray(problem(1).minimum)
    before, after = seen.before - minimum, seen.weights - minimum
    return (before[0] * after[1] - before[1] * after[0]) / 2


def _batched(batch: int) -> Any:
    def made(learning_rate: Any) -> WeightRule:
        return sgd(heavy_ball(learning_rate), batch)

    return made


def _regression(run: Run, batch: int) -> Descents:
    replicas, burn, steps = run.pick((8, 100, 200), (1024, 500, 3000), (8192, 500, 5000))
    here = problem(batch)
    return Descents(
        task=linear_task(here.features, here.targets, here.minimum),
        rule=_batched(batch),
        over={"learning_rate": (_ETA,)},
        observables={"swept": _swept},
        at=np.array([0, *range(burn, steps + 1)]),
        steps=steps,
        replicas=replicas,
        run_seed=run.seed,
        facts={"batch": batch},
    )


def _measure(run: Run) -> Measured:
    paths = _paths(run)
    rows, curves = [], {}
    for length in _LENGTHS:
        produced = entropy.of_paths(paths[:, :, : length + 1], _STEP, _KICK)
        rows.append(Row(_theorem(length), 1.0, 0.0, "exact", *mean_and_error(np.exp(-produced).mean(axis=1), 0)))
        exact = length * entropy.mean_per_step(_STEP, _KICK)
        rows.append(Row(_produced(length), 1.0, 0.0, "exact", *mean_and_error(produced.mean(axis=1) / exact, 0)))
        curves[str(length)] = np.histogram(produced, bins=np.linspace(-8, 10, 73), density=True)
    areas = []
    found = run.sweeps({f"S={batch}": _regression(run, batch) for batch in _BATCHES}, 0.4, 1.0)
    for batch, dataset in zip(_BATCHES, found.values(), strict=True):
        areas.append(mean_and_error(dataset["swept"].values[0][:, 1:].mean(axis=1), 0))
        mean, error = np.array(areas[-1]) / area_per_step(problem(batch))[0, 1]
        rows.append(Row(_area(batch), 1.0, 0.0, "exact", mean, error))
    means, errors = np.array(areas).T
    x = np.log(_BATCHES) - np.log(_BATCHES).mean()
    power = x @ np.log(np.abs(means)) / (x @ x)
    stderr = np.sqrt(((x * errors / means) ** 2).sum()) / (x @ x)
    # the law is one of small learning rates
    rows.append(Row(_POWER, -1.0, 0.01, "published", float(power), float(stderr)))
    curves["areas"] = means, errors
    return Measured(rows, curves)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    left, right = panels(figure, 2)
    for length, colour, marker in zip(_LENGTHS, shades(len(_LENGTHS)), MARKERS, strict=False):
        density, edges = curves[str(length)]
        middle = (edges[1:] + edges[:-1]) / 2
        seen = density > 0
        left.plot(middle[seen], density[seen], color=colour, marker=marker, ms=3, lw=0.8, label=f"{length} steps")
        # the theorem in detail: p(-s) = p(s) e^-s
        often = density > 3e-4
        left.plot(-middle[often], (density * np.exp(-middle))[often], color="black", lw=0.8, ls="--", zorder=3)
    left.set(
        yscale="log",
        ylim=(1e-5, 10),
        xlim=(-7, 10),
        xlabel=r"Entropy production $\Delta s$",
        ylabel="Probability density",
    )
    left.set_title(r"dashed: $p(\Delta s)\,e^{-\Delta s}$ at $-\Delta s$", fontsize=9)
    legend(left)
    means, errors = curves["areas"]
    fine = np.array([1, 2, 3, 4, 6, 8])
    right.plot(fine, [area_per_step(problem(int(batch)))[0, 1] for batch in fine], color="black", label="exact")
    right.errorbar(_BATCHES, means, errors, color="black", marker="o", label="SGD", **POINTS)
    right.plot(fine, means[0] / fine, color="0.6", ls="--", label="1/S")
    right.set(xscale="log", yscale="log", xlabel="Batch size $S$", ylabel="Area swept a step", ylim=(3e-5, 1e-3))
    ticks(right, 1, 2, 4, 8)
    legend(right)


FIGURE = Figure(
    name="in-and-out",
    source="arXiv:2306.03521, currents and the integral fluctuation theorem",
    claim="SGD carries currents in proportion to 1/S, and its entropy production obeys the integral fluctuation "
    "theorem.",
    meaning="No energy alone describes the stationary state of an active packing. The entropy that it produces "
    "says how far from equilibrium it is.",
    minutes={"quick": 1, "full": 8},
    resolution={
        **{_theorem(length): 0.01 for length in _LENGTHS},
        **{_produced(length): 0.01 for length in _LENGTHS},
        **{_area(batch): 0.01 for batch in _BATCHES},
        _POWER: 0.01,
    },
    measure=_measure,
    draw=_draw,
)
