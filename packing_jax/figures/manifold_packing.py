r"""One image of each digit: a network packs their manifolds, and biased random organization packs caps like them.

arXiv:2506.13717. Eight noisy views of each of ten images are drawn once. A network embeds them on a sphere, each image
is a cap, and descent on the energy of their overlaps goes on until none overlaps and the loss is ln 1e-6. Beside it
caps with the same first centres, whose radii are fixed, move by pairwise BRO and by pairwise SGD of equal mean and
variance (b = 3/4, alpha = 2 eps/3 for kicks of mean eps/2) on the surface of the sphere.

Ten points of a sphere in D < 5 dimensions cannot all be sqrt 2 or more apart, by Rankin's bound. The network's first
radii ask for 1.5, so that caps of these never rest.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from packing_jax.figures.axes import LINES, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.files import load
from packing_jax.networks.learner import Learner
from packing_jax.networks.manifold_packing import ABSORBED, Manifolds, manifolds
from packing_jax.networks.models import MLP
from packing_jax.networks.rules import WeightRule, bro, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.caps import caps
from packing_jax.networks.tasks.manifolds import Embedding, packed
from packing_jax.networks.views import Noise, Views
from packing_jax.observables import learning

if TYPE_CHECKING:
    import matplotlib.figure
    from matplotlib.axes import Axes

Float = NDArray[np.float64]

_RATE, _NOISE, _VIEWS = 0.01, 0.1, 8
_KICK = 0.02
_FIRST, _LAST = 0.0, 1.0  # which radii of the network the caps have
_SURFACE = {4: "3-sphere", 3: "2-sphere"}  # by the dimension in which it lies
_LOSS = "loss at rest over ln 1e-6"
_OVERLAPS = "pairs that overlap at rest, counted in float64"
_MOVE_RULES = "distance to rest of caps of the last radii, SGD over BRO"
_MOVE_NETWORK = "distance to rest of the network's centres over that of caps of the last radii"
_RADII = "radius at rest over that at the start"


def _rest(dimension: int) -> str:
    return f"share of networks that come to rest, {_SURFACE[dimension]}"


def _caps_rest(which: float, rule: str) -> str:
    return f"share of caps of the {'first' if which == _FIRST else 'last'} radii that come to rest, {rule}"


def digits_task(dimension: int, widths: tuple[int, ...] = (64, 64)) -> Task:
    """The first image of each digit, in eight noisy views that are drawn once, and an MLP with a projector.

    Args:
        dimension: D of the embedding.
        widths: of the encoder's layers, its outputs the last.
    """
    pool = load("digits")
    first = np.array([np.flatnonzero(pool.targets == digit)[0] for digit in range(10)])
    encoder = MLP((pool.inputs.shape[1], *widths), biases=True, drawn="he")
    embedding = Embedding(encoder, MLP((widths[-1], dimension), biases=True, drawn="he"))
    images = Data(pool.inputs[first] / np.max(pool.inputs), pool.targets[first])
    return packed(embedding, images, Views(_VIEWS, (Noise(_NOISE),)), anew=False)


def _spheres(seen: Learner) -> Manifolds:
    return manifolds(seen.objective.apply(seen.weights, seen.data.inputs))


def _centres(seen: Learner) -> Array:
    return _spheres(seen).centres


def _radii(seen: Learner) -> Array:
    return _spheres(seen).radii


def _places(seen: Learner) -> Array:
    found: Array = seen.weights["centres"]
    return found


class Motion(NamedTuple):
    """Of the networks and of caps of one dimension."""

    at: Any  #: (T,) steps
    loss: Float  #: (network, T)
    centres: Float  #: (network, T, image, D), on the surface
    inside: Float  #: (network, T, image, D), as they are
    radii: Float  #: (network, T, image)
    activity: Float  #: (network, T), the share of images
    caps: dict[tuple[str, float], Float]  #: (network, T, image, D) by rule and radii


def separations(centres: Float, radii: Float) -> Float:
    """d/s of all pairs, (..., pairs), in float64."""
    one, other = np.triu_indices(centres.shape[-2], 1)
    d = np.linalg.norm(centres[..., one, :] - centres[..., other, :], axis=-1)
    return np.asarray(d / np.minimum(radii[..., one] + radii[..., other] + 1e-6, 1.5))


def _rules() -> dict[str, WeightRule]:
    return {"BRO": bro(_KICK), "SGD": sgd(optax.sgd(2 * _KICK / 3), batch_fraction=0.75)}


def _moved(run: Run, dimension: int, begin: float, end: float, *, with_caps: bool) -> Motion:
    networks, steps = run.pick((3, 60), (48, 3000), (256, 10_000))
    at = np.unique([0, *np.geomspace(1, steps, run.pick(8, 40, 60)).astype(int)])
    label = f"networks-{dimension}"
    found = run.sweep(
        Descents(
            task=digits_task(dimension, run.pick((16,), (64, 64), (64, 64))),
            rule=lambda learning_rate: sgd(jax.tree_util.Partial(optax.sgd, learning_rate)),
            over={"learning_rate": (_RATE,)},
            observables={
                "loss": learning.loss,
                "activity": learning.activity,
                "centres": _centres,
                "radii": _radii,
            },
            at=at,
            steps=steps,
            replicas=networks,
            run_seed=run.seed,
            facts={"dimension": dimension},
        ),
        label,
        begin,
        (begin + end) / 2,
    )
    inside, radii = (np.asarray(found[name].values[0], float) for name in ("centres", "radii"))
    centres = inside / np.linalg.norm(inside, axis=-1, keepdims=True)

    def start(network: NDArray[np.float64], radii_of: NDArray[np.float64]) -> dict[str, Any]:
        number = network.astype(int)
        ends = np.where(radii_of[:, None] == _FIRST, radii[number, 0], radii[number, -1])
        return {"centres": centres[number, 0].astype(np.float32), "radii": ends.astype(np.float32)}

    moved: dict[tuple[str, float], Float] = {}
    rules = list(_rules().items())[: run.pick(1, None, None)] if with_caps else []
    for name, rule in rules:
        spec = Descents(
            task=caps(centres.shape[-2], dimension),
            rule=lambda network, radii_of, rule=rule: rule,  # noqa: ARG005 - axes that tell starts apart
            over={"network": tuple(map(float, range(networks))), "radii_of": (_FIRST, _LAST)},
            observables={"places": _places},
            at=at,
            begin=start,
            steps=steps,
            replicas=1,
            run_seed=run.seed,
            facts={"dimension": dimension, "moved_by": name},
        )
        places = run.sweep(spec, f"caps-{dimension}-{name}", (begin + end) / 2, end)["places"].values
        moved |= {(name, which): np.asarray(places[:, int(which), 0], float) for which in (_FIRST, _LAST)}
    loss, activity = (np.asarray(found[name].values[0], float) for name in ("loss", "activity"))
    return Motion(at, loss, centres, inside, radii, activity, moved)


def _share(yes: Any) -> tuple[float, float]:
    p = float(np.mean(yes))
    return p, float(np.sqrt(p * (1 - p) / np.size(yes)))


def _distance(path: Float) -> Float:
    """How far centres are from where they began, root mean square over images, (network,)."""
    return np.asarray(np.sqrt(((path[:, -1] - path[:, 0]) ** 2).sum(axis=-1).mean(axis=-1)))


def _ratio(one: Float, other: Float) -> tuple[float, float]:
    """Of two means over the same networks, with an error to first order."""
    ratio = one.mean() / other.mean()
    return float(ratio), float(np.std(one - ratio * other, ddof=1) / other.mean() / np.sqrt(len(one)))


def compared(motions: dict[int, Motion]) -> list[Row]:
    """Networks and caps beside what must come out, and beside one another."""
    rows = []
    for dimension, motion in motions.items():
        rows.append(Row(_rest(dimension), 1.0, 0.0, "published", *_share(motion.activity[:, -1] == 0)))
    first = motions[4]
    rest = first.activity[:, -1] == 0
    touching = (separations(first.inside[:, -1], first.radii[:, -1])[rest] < 1).sum()
    # the loss of float32 has rounding errors of 1e-7
    losses = first.loss[rest, -1] / ABSORBED
    rows.append(Row(_LOSS, 1.0, 1e-6, "exact", float(losses.mean()) if rest.any() else np.nan, 0.0))
    rows.append(Row(_OVERLAPS, 0.0, 0.0, "exact", float(touching) if rest.any() else np.nan, 0.0))
    for which, expected in ((_FIRST, 0.0), (_LAST, 1.0)):
        radii = first.radii[:, 0 if which == _FIRST else -1]
        for name in (name for name, radii_of in first.caps if radii_of == which):
            apart = separations(first.caps[name, which][:, -1], radii)
            rows.append(
                Row(_caps_rest(which, name), expected, 0.0, "derived", *_share((apart >= 1 - 1e-6).all(axis=-1)))
            )
    by_bro = _distance(first.caps["BRO", _LAST])
    if ("SGD", _LAST) in first.caps:
        rows.append(Row(_MOVE_RULES, 1.0, 0.0, "consistency", *_ratio(_distance(first.caps["SGD", _LAST]), by_bro)))
    rows.append(Row(_MOVE_NETWORK, 1.0, 0.0, "consistency", *_ratio(_distance(first.centres), by_bro)))
    shrunk = first.radii[:, -1].mean(axis=-1) / first.radii[:, 0].mean(axis=-1)
    rows.append(Row(_RADII, 1.0, 0.0, "consistency", *mean_and_error(shrunk, 0)))
    return rows


def _measure(run: Run) -> Measured:
    motions = {4: _moved(run, 4, 0.0, 0.7 if run.size != "smoke" else 1.0, with_caps=True)}
    if run.size != "smoke":
        motions[3] = _moved(run, 3, 0.7, 1.0, with_caps=False)
    return Measured(compared(motions), motions)


def _globe(axes: "Axes", centres: Float, radii: Float, title: str) -> None:
    """Caps on the sphere, seen from far away along the third axis; those on the other side are paler."""
    round_ = np.linspace(0, 2 * np.pi, 80)
    axes.plot(np.cos(round_), np.sin(round_), color="0.7", lw=0.8)
    for i in np.argsort(centres[:, 2]):
        c, angle = centres[i, :3] / np.linalg.norm(centres[i, :3]), 2 * np.arcsin(min(radii[i] / 2, 1.0))
        across = np.cross(c, [1.0, 0.0, 0.0] if abs(c[0]) < 0.9 else [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        rim = np.cos(angle) * c[:, None] + np.sin(angle) * (
            across[:, None] * np.cos(round_) + np.cross(c, across)[:, None] * np.sin(round_)
        )
        colour = shades(10)[i % 10]
        front = c[2] > 0
        axes.fill(rim[0], rim[1], color=colour, alpha=0.35 if front else 0.08, lw=0)
        axes.plot(rim[0], rim[1], color=colour, lw=1.2 if front else 0.5)
        axes.text(c[0], c[1], str(i), fontsize=8, ha="center", va="center", color="k" if front else "0.6")
    axes.set(xticks=[], yticks=[], xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", title=title, frame_on=False)


def _active(places: Float, radii: Float) -> Float:
    """The share of caps that overlap another, by time, mean over networks: places (network, T, n, D), radii (R, n)."""
    one, other = np.triu_indices(places.shape[-2], 1)
    hit = separations(places, radii[:, None]) < 1 - 1e-6
    found = np.zeros(places.shape[:-1], bool)
    for k in range(len(one)):
        found[..., one[k]] |= hit[..., k]
        found[..., other[k]] |= hit[..., k]
    return np.asarray(found.mean(axis=(0, 2)))


def _draw(figure: "matplotlib.figure.Figure", curves: dict[int, Motion]) -> None:
    axes = panels(figure, 3, 2)
    shown, first = curves[min(curves)], curves[4]
    which = int(np.argmax(shown.activity[:, -1] == 0))
    quiet = shown.activity[which] == 0
    end = int(quiet.argmax()) if quiet.any() else len(shown.at) - 1
    for one, k in zip(axes[:3], (0, int(end * 0.8), end), strict=True):
        _globe(one, shown.centres[which, k], shown.radii[which, k], f"network, step {shown.at[k]}")
    left, middle, right = axes[3:]
    x = np.maximum(first.at, 0.7)
    left.plot(x, first.activity.mean(axis=0), color="k", label="network")
    for colour, radii in zip(shades(3)[1:], (_FIRST, _LAST), strict=True):
        own = first.radii[:, 0 if radii == _FIRST else -1]
        for name, style in zip((name for name, radii_of in first.caps if radii_of == radii), LINES, strict=False):
            label = f"caps of the {'first' if radii == _FIRST else 'last'} radii, {name}"
            left.plot(x, _active(first.caps[name, radii], own), color=colour, ls=style, label=label)
    left.set(xscale="log", xlabel="steps", ylabel="share that overlaps another", ylim=(-0.03, 1.05))
    for row in first.loss[:12]:
        middle.plot(x, row, color=shades(3)[1], lw=0.7, alpha=0.7)
    middle.axhline(ABSORBED, color="k", ls=LINES[1], lw=1, label=r"$\ln 10^{-6}$")
    middle.set(xscale="log", xlabel="steps", ylabel="loss of twelve networks")
    for row in first.radii[:12].mean(axis=-1):
        right.plot(x, row, color=shades(3)[1], lw=0.7, alpha=0.7)
    right.axhline(0.75, color="k", ls=LINES[1], lw=1, label="half the largest $s$")
    right.set(xscale="log", xlabel="steps", ylabel="mean radius", ylim=(0, None))
    legend(left, loc="center right")
    for one in (middle, right):
        legend(one)


def _film(figure: "matplotlib.figure.Figure", curves: dict[int, Motion]) -> Iterator[int]:
    """The network on the smallest sphere that is the last to come to rest, until it does."""
    shown = curves[min(curves)]
    quiet = shown.activity == 0
    ends = np.where(quiet.any(axis=1), quiet.argmax(axis=1), 0)
    which = int(ends.argmax())
    end = int(ends[which]) or len(shown.at) - 1
    figure.set_size_inches(4.0, 4.2)
    axes = figure.add_subplot()
    for k in range(end + 1):
        axes.clear()
        name = f"step {shown.at[k]}, {shown.activity[which, k]:.0%} overlap another"
        _globe(axes, shown.centres[which, k], shown.radii[which, k], name)
        yield end - k


FIGURE = Figure(
    name="manifold-packing",
    source="arXiv:2506.13717, the dynamics of one image per digit in the embedding space",
    claim="A network that packs the manifolds of ten images ends without an overlap, like a packing below its "
    "transition; but it shrinks the manifolds, where a packing has to move spheres of given radii.",
    meaning="Overlaps, activity and the absorbing state of a packing are those of a network's loss. They part in the "
    "radii: caps of the first radii have no place on the sphere, and stay active for ever.",
    minutes={"quick": 1, "full": 10},
    resolution={
        **{_rest(dimension): 0.05 for dimension in _SURFACE},
        _LOSS: 1e-6,
        _OVERLAPS: 0.5,
        **{_caps_rest(which, name): 0.05 for which in (_FIRST, _LAST) for name in ("BRO", "SGD")},
        _MOVE_RULES: 0.05,
        _MOVE_NETWORK: 0.05,
        _RADII: 0.05,
    },
    measure=_measure,
    draw=_draw,
    film=_film,
)
