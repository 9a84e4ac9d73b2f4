r"""The phase diagram of SGD on one matrix of a network: learning, noisy and frozen.

arXiv:2509.01349. A student W between fixed ends (:mod:`packing_jax.networks.tasks.fixed_ends`) starts with size sigma_W
and learns in batches of four, always in the same order, at temperature T = eta/4. Where sigma_W is large, units are
saturated from the start and nothing moves (frozen); where T is large, noise drives W to saturation (noisy); in the
corner that is left, it learns. The published map is of 1e8 steps; losses still fall at 1e6, which is drawn.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.learner import Learner
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.tasks.fixed_ends import fixed_ends, frozen_overlap, network, noise_limit, teacher_overlap
from packing_jax.observables import learning

if TYPE_CHECKING:
    import matplotlib.figure

_BATCH = 4
_SCALES = tuple(2.0**k for k in range(-3, 9))
_RATES = tuple(2.0**k for k in range(-1, 9))
_LEARNT, _FROZEN = 0, len(_SCALES) - 1  # 1/sigma_W = 8 and 1/256
#: Median losses at 1/sigma_W = 8 after 1e8 steps by T, read off a figure to a tenth of a decade; those from 4 on alike.
_PUBLISHED = {0.125: 3e-8, 0.25: 8e-8, 0.5: 1e-6, 1.0: 3e-5, 2.0: 1e-3, 4.0: 3e-3}
_DRAWN, _DERIVED = np.sqrt(2.0), 0.829  # 1/sigma_W where the published line lies, and where units become bimodal
_UNMOVED = "frozen (sigma_W 256, T 0.125): largest relative change of a singular value"
_LARGEST = "frozen (sigma_W 256, T 0.125): relative change of the largest singular value"
_KEPT = "frozen (sigma_W 256, T 0.125): overlap q of the units with their start"
_LEARNS = "learning (1/sigma_W 8, T 0.125): share of networks with singular values^2 of at most 3.1"
_NOISY = "noisy (1/sigma_W 8, T 4): share of networks with a singular value^2 above 1e4"
_JUMP = "1/sigma_W 8: log10 of the loss at T 0.5 over that at T 0.25, 1e8 steps"


def _loss(temperature: float) -> str:
    return f"1/sigma_W 8, T {temperature:g}: log10 of the median loss, 1e8 steps"


def _rule(learning_rate: Any, **_: Any) -> WeightRule:
    return sgd(jax.tree_util.Partial(optax.sgd, learning_rate), _BATCH, sampling="order")


def _key(run_seed: int, seed: Any) -> Array:
    return jax.random.fold_in(jax.random.key(run_seed), seed)


def _begin(run_seed: int, scale: NDArray[Any], seed: NDArray[Any], **_: Any) -> Any:
    """One network a seed, whatever the temperature; its student a multiple of one matrix."""
    scales, seeds = jnp.asarray(scale, jnp.float32), jnp.asarray(seed, jnp.int32)
    return jax.vmap(lambda one, size: network(_key(run_seed, one), size))(seeds, scales)


def _seen(seen: Learner) -> Array:
    """Test loss, q, teacher overlap, gradient norm; then the singular values of the student and of the teacher."""
    numbers = [learning.test_loss(seen), frozen_overlap(seen), teacher_overlap(seen), learning.gradient_norm(seen)]
    values = [jnp.linalg.svd(seen.weights[whose], compute_uv=False) for whose in ("student", "teacher")]
    return jnp.concatenate([jnp.stack(numbers), *values])


def _limits(run: Run, scales: tuple[float, ...], count: int) -> NDArray[np.float64]:
    """The noise line at the start, before anything is run: its median over the seeds, (scales,)."""
    inputs = jax.random.normal(jax.random.key(run.seed), (512, 3))
    found = [
        [noise_limit(network(_key(run.seed, seed), jnp.float32(scale)), inputs, scale) for seed in range(count)]
        for scale in scales
    ]
    return np.median(found, axis=1)


def _measure(run: Run) -> Measured:
    scales = run.pick((_SCALES[0], _SCALES[-1]), _SCALES, _SCALES)
    count, steps = run.pick((2, 100), (8, 50_000), (8, 1_000_000))
    at = np.unique(np.concatenate([[0], np.geomspace(10, steps, 25).astype(int)]))
    spec = Descents(
        task=fixed_ends(tests=512),
        rule=_rule,
        over={"scale": scales, "learning_rate": _RATES, "seed": tuple(map(float, range(count)))},
        observables={"seen": _seen},
        at=at,
        steps=int(at[-1]),
        begin=partial(_begin, run.seed),
        replicas=1,
        run_seed=run.seed,
    )
    # (scale, T, seed, time, number); a network that diverged has no numbers
    x = run.sweep(spec, "networks").seen.values[:, :, :, 0]
    loss, kept, student = x[..., 0], x[..., 1], x[..., 4:20]
    cold, hot = _RATES.index(0.5), _RATES.index(16.0)
    moved = np.abs(student[-1, cold, :, -1] / student[-1, cold, :, 0] - 1)
    largest = student[_LEARNT, :, :, -1, 0] ** 2
    final = np.log10(loss[_LEARNT, :, :, -1])  # (T, seed)
    rows = [
        Row(_UNMOVED, 0.0, 0.005, "published", *mean_and_error(moved.max(axis=1), 0)),
        Row(_LARGEST, 0.0, 0.005, "published", *mean_and_error(moved[:, 0], 0)),
        Row(_KEPT, 1.0, 0.05, "derived", *mean_and_error(kept[-1, cold, :, -1], 0)),
        Row(_LEARNS, 1.0, 0.0, "published", *mean_and_error(largest[cold] <= 3.1, 0)),
        Row(_NOISY, 1.0, 0.0, "published", *mean_and_error(largest[hot] > 1e4, 0)),
        Row(_JUMP, np.log10(1e-6 / 8e-8), 0.15, "published", *mean_and_error(final[cold + 2] - final[cold + 1], 0)),
    ]
    for temperature, published in _PUBLISHED.items():
        values = final[_RATES.index(_BATCH * temperature)]
        rows.append(Row(_loss(temperature), np.log10(published), 0.25, "published", *_median(values)))
    maps = [np.median(one[..., -1], axis=2) for one in (loss, kept)]
    return Measured(rows, (np.array(scales), *maps, _limits(run, scales, count), at, np.median(loss[_LEARNT], axis=1)))


def _median(values: Any) -> tuple[float, float]:
    """The median, and its standard error were they normal."""
    return float(np.median(values)), float(np.sqrt(np.pi / 2) * mean_and_error(values, 0)[1])


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    scales, loss, kept, limits, at, falling = curves
    temperatures = np.array(_RATES) / _BATCH
    left, middle, right = panels(figure, 3)
    maps = ((left, np.log10(loss), r"$\log_{10}$ median loss"), (middle, kept, r"overlap with the start, $q$"))
    for axes, values, name in maps:
        mesh = axes.pcolormesh(1 / scales, temperatures, values.T, cmap="viridis", shading="nearest")
        figure.colorbar(mesh, ax=axes, label=name)
        axes.axvline(_DRAWN, color="white", ls="--", lw=1, label=r"disorder line, drawn $\sqrt{2}$")
        axes.axvline(_DERIVED, color="white", ls=":", lw=1.2, label="and derived 0.829")
        axes.plot(1 / scales, limits, color="crimson", lw=1.2, label="noise line, from the start")
        axes.set(xscale="log", yscale="log", ylim=(temperatures[0] / 1.41, temperatures[-1] * 1.41))
        axes.set(xlabel=r"$1/\sigma_W$", ylabel=r"Temperature $T = \eta/|B|$")
    for x, y, name in ((0.009, 0.17, "frozen"), (0.15, 25, "noisy"), (4.0, 0.25, "learning")):
        middle.text(x, y, name, ha="center", color="white", fontsize=10)
    left.legend(fontsize=7, loc="upper right", facecolor="0.25", labelcolor="white", framealpha=0.8)
    for n, (one, colour) in enumerate(zip(falling[::2], shades(len(falling[::2])), strict=True)):
        label = f"$T = {temperatures[2 * n]:g}$"
        right.plot(at[1:], one[1:], color=colour, ls=LINES[n % 4], marker=MARKERS[n % 8], ms=3, lw=1, label=label)
    for temperature, published in _PUBLISHED.items():
        colour = shades(len(falling))[_RATES.index(_BATCH * temperature)]
        right.plot(1e8, published, color=colour, marker="*", **(POINTS | {"ms": 8}))
    right.set(xscale="log", yscale="log", xlabel="Step (stars: published)", ylabel=r"Median loss, $1/\sigma_W = 8$")
    legend(right)


FIGURE = Figure(
    name="phase-diagram",
    source="arXiv:2509.01349, phases of a teacher and a student",
    claim="SGD on a matrix learns only where both the disorder of its start and the noise of its steps are small; it "
    "is frozen where the first is large, and noisy where the second is.",
    meaning="As for spheres, noise that vanishes with the error lets a system come to rest; here a start that is too "
    "large stops it elsewhere, as a quench into a glass does.",
    minutes={"quick": 4, "full": 85},
    resolution={_UNMOVED: 0.005, _LARGEST: 0.005, _KEPT: 0.03, _LEARNS: 0.13, _NOISY: 0.13, _JUMP: 0.15}
    | {_loss(temperature): 0.2 for temperature in _PUBLISHED},
    measure=_measure,
    draw=_draw,
)
