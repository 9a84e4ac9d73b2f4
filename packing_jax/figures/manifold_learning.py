r"""Does packing of manifolds learn? Linear read-outs of a network that has seen no label.

arXiv:2506.13717. An MLP, an encoder with a projector on top, sees views of images of digits: shifted or cropped, with
noise. It descends the loss of CLAMP (4 views of each of 64 images a step) or that of SimCLR (2 views of 128), so that
both pass the same number of images. A ridge regression then reads the digit from the encoder's outputs, or from the
embedding. Views and learning rate are chosen for each loss in shorter runs on validation images, which are a part of
the training images; errors are those of five seeds on the same test images.

With views that are drawn once a network can come to rest. Whether there is a number of manifolds per dimension beyond
which it cannot is asked of the task ``manifolds``. There is no sharp one up to twelve: as a network can shrink its
manifolds, more of them need more steps, and the share at rest falls slowly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from packing_jax.figures.axes import LINES, MARKERS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data, split
from packing_jax.networks.files import load
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import NTXent, Softmax
from packing_jax.networks.manifold_packing import Clamp, manifolds, overlaps
from packing_jax.networks.models import MLP
from packing_jax.networks.objective import Total
from packing_jax.networks.rules import sgd
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.manifolds import Embedding, packed
from packing_jax.networks.views import Crop, Noise, Shift, Views
from packing_jax.observables import learning
from packing_jax.sweeps.networks import Training

if TYPE_CHECKING:
    import matplotlib.figure

Float = NDArray[np.float64]

_PASSES = 256  # of images through the network in a step
_RATES = (0.001, 0.003, 0.01)  # of Adam
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, in units of the number of samples
_SEEN = 128  # images whose manifolds are counted
_FEW = 16  # images of a small batch
_DIMENSIONS, _MANIFOLDS = (4, 8), (8, 16, 24, 32, 48)

_GAIN = "a gain of more than four standard errors over the untrained network, encoder, CLAMP"
_UNTRAINED = "accuracy from the encoder: CLAMP beside the untrained network"
_PIXELS = "accuracy from the encoder: CLAMP beside raw pixels"
_SIMCLR = "accuracy from the encoder: CLAMP beside SimCLR"
_SUPERVISED = "accuracy from the encoder: CLAMP beside supervised"
_EMBEDDING = "accuracy of CLAMP: from the embedding beside the encoder"
_NUMBER = f"share of networks at rest with views that never change: {_MANIFOLDS[-1]} manifolds beside {_MANIFOLDS[0]}"


class Images(NamedTuple):
    """Images for training, for choices, and for the last test."""

    train: Data
    validation: Data
    test: Data
    side: int


def images(source: str, samples: int, others: int) -> Images:
    """Three sets that share no image; pixels from 0 to 1, those of MNIST two by two taken together.

    Args:
        source: digits or mnist-5k.
        samples: for training.
        others: for validation, and as many for the test.
    """
    pool = load(source)
    pixels = pool.inputs / np.max(pool.inputs)
    side = int(np.sqrt(pixels.shape[1]))
    if side == 28:
        side = 14
        pixels = pixels.reshape(-1, side, 2, side, 2).mean(axis=(2, 4)).reshape(len(pixels), -1)
    both = split(Data(pixels, pool.targets), samples + others, others)
    train = Data(both.inputs[:samples], both.targets[:samples])
    validation = Data(both.inputs[samples:], both.targets[samples:])
    return Images(train, validation, Data(both.test_inputs, both.test_targets), side)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Labelled:
    """Cross-entropy of the views (S, m, k) of each sample, for a network that is told the digit."""

    def __call__(self, outputs: Array, targets: Array) -> Array:  # noqa: D102
        samples, views, classes = outputs.shape
        each = Softmax()(outputs.reshape(-1, classes), jnp.repeat(targets, views))
        return each.reshape(samples, views).mean(axis=1)


class Method(NamedTuple):
    """What is descended, and how many views of how many images a step sees."""

    loss: Any
    views: int
    outputs: int
    total: Total = "whole"

    @property
    def batch(self) -> int:
        """Images of a step."""
        return _PASSES // self.views


_METHODS = {
    "CLAMP": Method(Clamp(), 4, 32),
    "SimCLR": Method(NTXent(), 2, 32),
    "supervised": Method(Labelled(), 2, 10, "mean"),
}


def changes(side: int) -> dict[str, tuple[Any, ...]]:
    """The kinds of views that are tried."""
    shape = (side, side)
    return {"shifts": (Shift(2, shape), Noise(0.1)), "crops": (Crop(0.6, shape), Noise(0.1))}


def _embedding(side: int, method: Method) -> Embedding:
    small = side < 14  # images of the size smoke; each layer takes a second to compile
    encoder = MLP((side * side, 64) if small else (side * side, 128, 64), biases=True, drawn="he")
    last = (64, method.outputs) if small or method.total == "mean" else (64, 64, method.outputs)
    return Embedding(encoder, MLP(last, biases=True, drawn="he"))


def _task(found: Images, method: Method, kind: str) -> Task:
    return packed(
        _embedding(found.side, method),
        found.train,
        Views(method.views, changes(found.side)[kind]),
        loss=method.loss,
        total=method.total,
        largest_loss=1e6,
    )


def _pairs(seen: Learner) -> Array:
    """The share of pairs of the first images whose manifolds overlap, in views of this step."""
    hit = overlaps(manifolds(seen.objective.apply(seen.weights, seen.data.inputs[:_SEEN]))) > 0
    return hit.astype(jnp.result_type(float)).sum() / (_SEEN * (_SEEN - 1))


def read_out(features: Sequence[Float], sets: Images) -> tuple[float, float]:
    """Accuracies on validation and test images of a ridge regression on one-hot targets.

    Args:
        features: of the training, validation and test images.
        sets: their digits. The penalty is the best on the validation images.
    """
    x = np.asarray(features[0], float)
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6

    def scaled(rows: Float) -> Float:
        return np.column_stack([(np.asarray(rows, float) - mean) / deviation, np.ones(len(rows))])

    x, y = scaled(x), np.eye(10)[np.asarray(sets.train.targets)]
    gram, cross = x.T @ x / len(x), x.T @ y / len(x)
    scores = []
    for penalty in _PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross)
        right = [
            float(np.mean((scaled(rows) @ weights).argmax(axis=1) == np.asarray(one.targets)))
            for rows, one in zip(features[1:], (sets.validation, sets.test), strict=True)
        ]
        scores.append((right[0], right[1]))
    return max(scores, key=lambda score: score[0])


def _scores(task: Task, embedding: Embedding, rows: Float, sets: Images, layer: str) -> Float:
    """Validation and test accuracies, (..., 2), of networks whose weights are ``rows`` (..., W)."""
    outputs: Callable[..., Array] = jax.jit(embedding.features if layer == "encoder" else embedding.outputs)
    flat = rows.reshape(-1, rows.shape[-1])
    inputs = [jnp.asarray(one.inputs, jnp.float32) for one in (sets.train, sets.validation, sets.test)]
    found = []
    for row in flat:
        weights = jax.tree.map(jnp.asarray, task.tree(row))
        found.append(read_out([np.asarray(outputs(weights, x)) for x in inputs], sets))
    return np.reshape(found, (*rows.shape[:-1], 2))


class Learnt(NamedTuple):
    """What a method learnt: accuracies on test images."""

    at: Any  #: (T,) steps
    encoder: Float  #: (seed, T)
    embedding: Float  #: (seed,) at the end
    kind: str  #: the views that were chosen
    rate: float  #: the learning rate that was chosen
    tried: Mapping[str, Float]  #: validation accuracies by kind, (rate,)
    active: Mapping[str, Float]  #: share of overlapping pairs at the end, by kind and batch, (rate,)


def _learnt(run: Run, sets: Images, name: str, begin: float, end: float) -> Learnt:
    method = _METHODS[name]
    seeds, steps = run.pick((2, 20), (5, 1500), (5, 10_000))
    embedding = _embedding(sets.side, method)
    observables = {"w": learning.weights, **({"pairs": _pairs} if name == "CLAMP" else {})}

    def trained(
        kind: str, rates: tuple[float, ...], count: int, at: Any, label: str, share: Any, batch: int = method.batch
    ) -> Any:
        spec = Descents(
            task=_task(sets, method, kind),
            rule=lambda learning_rate: sgd(jax.tree_util.Partial(optax.adam, learning_rate), batch, sampling="epochs"),
            over={"learning_rate": rates},
            observables=observables,
            at=at,
            steps=int(at[-1]),
            replicas=count,
            run_seed=run.seed,
            facts={"loss": name, "views": kind, "batch": batch},
        )
        return run.sweep(spec, f"{name}-{label}", *share)

    middle = begin + 0.4 * (end - begin)
    kinds = list(changes(sets.side))[: run.pick(1, None, None)]
    tried, active = {}, {}
    if run.size == "smoke":
        kind, rate = kinds[0], _RATES[1]
    else:
        edges, last = np.linspace(begin, middle, len(kinds) + 1), np.array([0, steps // 3])
        for number, one in enumerate(kinds):
            share = (float(edges[number]), float(edges[number + 1]))
            short = trained(one, _RATES, 1, last, one, share)
            scores = _scores(_task(sets, method, one), embedding, short["w"].values[:, 0, -1], sets, "encoder")
            tried[one] = scores[:, 0]
            if "pairs" in short:
                active[f"{one}, {method.batch}"] = np.asarray(short["pairs"].values[:, 0, -1], float)
                few = trained(one, _RATES, 1, last, f"{one}-{_FEW}", share, _FEW)
                active[f"{one}, {_FEW}"] = np.asarray(few["pairs"].values[:, 0, -1], float)
        kind = max(kinds, key=lambda one: tried[one].max())
        rate = _RATES[int(tried[kind].argmax())]
    at = np.unique([0, *np.geomspace(max(steps // 100, 1), steps, run.pick(2, 5, 8)).astype(int)])
    rows = trained(kind, (rate,), seeds, at, "chosen", (middle, end))["w"].values[0]
    task = _task(sets, method, kind)
    encoder = _scores(task, embedding, rows, sets, "encoder")[..., 1]
    outer = _scores(task, embedding, rows[:, -1], sets, "embedding")[..., 1]
    return Learnt(at, encoder, outer, kind, rate, tried, active)


class Rest(NamedTuple):
    """Which networks separated so many manifolds in so many dimensions."""

    count: Any  #: (P,)
    dimension: Any  #: (D,)
    rest: Float  #: (P, D, replica) 1 where the network came to rest
    activity: Float  #: (P, D, replica) at the end


def _rest(run: Run) -> Rest:
    spec = Training(
        task="manifolds",
        rule="sgd",
        axes={"samples": _MANIFOLDS, "outputs": _DIMENSIONS, "learning_rate": 0.05},
        steps=run.pick(20, 1000, 10_000),
        replicas=run.pick(2, 8, 32),
        measure=("activity",),
        record_every=run.pick(10, 500, 1000),
        seed=run.seed,
    )
    found = run.sweep(spec, "rest", 0.85, 1.0)
    names = [name for name in found["absorbed_at"].dims if name not in ("samples", "outputs", "replica")]
    first = dict.fromkeys(names, 0)
    at = found["absorbed_at"].isel(first).transpose("samples", "outputs", "replica").values
    active = found["activity"].isel({**first, "time": -1}).transpose("samples", "outputs", "replica").values
    return Rest(np.array(_MANIFOLDS), np.array(_DIMENSIONS), (at >= 0).astype(float), np.asarray(active, float))


def compared(learnt: Mapping[str, Learnt], pixels: float) -> list[Row]:
    """CLAMP's accuracies beside the others'."""
    clamp = learnt["CLAMP"]
    last, first = clamp.encoder[:, -1], clamp.encoder[:, 0]
    gain, error = mean_and_error(last - first, 0)
    value = mean_and_error(last, 0)
    rows = [
        Row(_GAIN, 1.0, 0.0, "published", float(gain > 4 * error), 0.0),
        Row(_UNTRAINED, *mean_and_error(first, 0), "consistency", *value),
        Row(_PIXELS, pixels, 0.0, "consistency", *value),
        Row(_EMBEDDING, *value, "consistency", *mean_and_error(clamp.embedding, 0)),
    ]
    for name, quantity in (("SimCLR", _SIMCLR), ("supervised", _SUPERVISED)):
        if name in learnt:
            rows.append(Row(quantity, *mean_and_error(learnt[name].encoder[:, -1], 0), "consistency", *value))
    return rows


def _measure(run: Run) -> Measured:
    sets = images(*run.pick(("digits", 300, 200), ("mnist-5k", 3000, 1000), ("mnist-5k", 3000, 1000)))
    names = list(_METHODS)[: run.pick(1, None, None)]
    edges = np.linspace(0, 0.85, len(names) + 1)
    learnt = {name: _learnt(run, sets, name, float(edges[k]), float(edges[k + 1])) for k, name in enumerate(names)}
    raw = [np.asarray(one.inputs) for one in (sets.train, sets.validation, sets.test)]
    pixels = read_out(raw, sets)[1]
    rows, rest = compared(learnt, pixels), None
    if run.size != "smoke":
        rest = _rest(run)
        few, many = (rest.rest[k].ravel() for k in (0, -1))
        rows.append(Row(_NUMBER, *mean_and_error(few, 0), "consistency", *mean_and_error(many, 0)))
    return Measured(rows, (learnt, pixels, rest))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    learnt, pixels, rest = curves
    left, middle, right = panels(figure, 3)
    for (name, one), colour, marker in zip(learnt.items(), shades(len(learnt)), MARKERS, strict=False):
        mean, error = mean_and_error(one.encoder, 0)
        x = np.maximum(one.at, one.at[1] / 2)
        left.errorbar(x, mean, error, color=colour, marker=marker, label=f"{name}, {one.kind}", lw=1, ms=4.5)
        outer, spread = mean_and_error(one.embedding, 0)
        left.errorbar(x[-1] * 1.25, outer, spread, color=colour, marker=marker, mfc="white", ms=4.5)
    left.axhline(pixels, color="k", ls=LINES[1], lw=1, label="raw pixels")
    left.plot([], [], "o", color="0.4", mfc="white", label="from the embedding")
    left.set(xscale="log", xlabel="steps (leftmost: untrained)", ylabel="accuracy on test images, linear read-out")
    legend(left)
    clamp = learnt["CLAMP"]
    for (name, active), colour, marker in zip(clamp.active.items(), shades(4), MARKERS, strict=False):
        middle.plot(_RATES, active, color=colour, marker=marker, label=f"pairs that overlap, {name} images")
    for kind, colour in zip(clamp.tried, shades(4)[::2], strict=False):
        accuracy = clamp.tried[kind]
        middle.plot(_RATES, accuracy, color=colour, ls=LINES[1], lw=1, label=f"accuracy, {kind}")
    middle.set(xscale="log", xlabel="learning rate, CLAMP", ylabel="share after a third of the steps", ylim=(0, 1.05))
    if rest is not None:
        legend(middle)
        for d, (dimension, colour, marker) in enumerate(zip(rest.dimension, shades(2), MARKERS, strict=False)):
            share, error = mean_and_error(rest.rest[:, d], 1)
            x = rest.count / dimension
            right.errorbar(x, share, error, color=colour, marker=marker, lw=1, label=f"at rest, D = {dimension}")
            right.plot(
                x, rest.activity[:, d].mean(axis=1), color=colour, ls=LINES[1], label=f"activity, D = {dimension}"
            )
        legend(right, ncols=2, loc="upper center")
    right.set(xlabel="manifolds per dimension", ylabel="share", ylim=(-0.03, 1.3))


FIGURE = Figure(
    name="manifold-learning",
    source="arXiv:2506.13717, linear read-outs after packing of manifolds, here of small networks and few images",
    claim="A network that packs the manifolds of images without a label is read better by a linear read-out than an "
    "untrained one. With views that never change it can come to rest, without a sharp threshold in their number.",
    meaning="The energy of a packing is a loss that learns: what pushes spheres apart makes images of different digits "
    "linearly separable. The number of manifolds is no packing fraction, because the radii are learnt too.",
    minutes={"quick": 3, "full": 60},
    resolution={
        _GAIN: 0.5,
        _UNTRAINED: 0.01,
        _PIXELS: 0.01,
        _SIMCLR: 0.01,
        _SUPERVISED: 0.01,
        _EMBEDDING: 0.01,
        _NUMBER: 0.15,
    },
    measure=_measure,
    draw=_draw,
)
