r"""Level repulsion in the simplest network: two singular values of a linear student that learns a linear teacher.

arXiv:2407.16427, 2412.20496: W is 2 x 2, the teacher 2 times the unit matrix, inputs x ~ N(0, 1), initial weights of
standard deviation 0.1, and a symmetric noise of standard deviation A/sqrt(B) off the diagonal, sqrt(2) times that on
it, is added to the gradient of a batch of B. In the stationary state the spacing S of the singular values follows
Wigner's surmise with <S> = sqrt(pi) w, w = sqrt(alpha A^2/B), where alpha and alpha/B are small; the law at finite
steps is :mod:`packing_jax.networks.theory.linear_student`.

Fresh data: each step of each replica draws its inputs from 2^18, whose covariance is exactly 1. Frozen data: all
replicas see the same inputs at the same step, as in the published runs. Then <S> depends on these inputs and scatters
from draw to draw, as the last 1/alpha batches do: ten draws are shown, each held against the exact law for its inputs.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial
from scipy import stats

from packing_jax.figures.axes import POINTS, legend, panels, shades, ticks
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.learner import Learner
from packing_jax.networks.minibatch import Sampling
from packing_jax.networks.rules import WeightRule, sgd, symmetric_noise
from packing_jax.networks.tasks.teacher_student import linear_students
from packing_jax.networks.theory.coulomb_gas import (
    SPACING_VARIATION,
    spacing_density,
    spacing_distribution,
    two_mode_density,
)
from packing_jax.networks.theory.linear_student import LinearStudent, spacing_of

if TYPE_CHECKING:
    import matplotlib.figure

Point = tuple[float, float, int]  # alpha, A, B

_A = 0.1
_BASE: Point = (0.1, _A, 16)
#: alpha/B <= 0.03, where the law holds to 2 %.
_SMALL: tuple[Point, ...] = ((0.05, _A, 4), (0.1, _A, 4), _BASE, (0.2, _A, 16), (0.4, _A, 16), (0.1, _A, 64))
#: alpha/B >= 0.125, where E is no longer normal.
_LARGE: tuple[Point, ...] = ((0.5, _A, 4), (0.8, _A, 4))
_PUBLISHED: Mapping[Point, float] = {(0.1, _A, 4): 2.035, _BASE: 1.813, (0.1, _A, 64): 1.835, (0.4, _A, 16): 1.935}
_BURN, _APART, _TIMES = 15, 4, 5  # in 1/alpha: until the start is forgotten, between records; number of records
_OPEN = 0.01  # of the law and the surmise, which hold for alpha/B -> 0: two of these are 2 %
_JOINT = 0.01  # false alarms of the tests of the spacing law, together

_REJECTED = f"spacing laws rejected at a joint p of {_JOINT:g}, of six"
_SLOPE = "slope of log <S> over its finite-step factor, against log w"
_CROOKED = "std(E_12 - E_21) over its law, mean of the six"
_DRAWS = "<S> of frozen draws over the exact law of each, mean of all"
_INSIDE = "published values inside the range of the frozen draws, of four"


def _at(point: Point) -> str:
    return f"alpha {point[0]:g}, B {point[2]}"


def _law(point: Point) -> LinearStudent:
    return LinearStudent(point[0], point[2], point[1])


def _ratio(point: Point) -> str:
    return f"<S> over the finite-step law, {_at(point)}"


def _variation(point: Point) -> str:
    return f"std S/<S>, {_at(point)}"


def _off(point: Point) -> str:
    return f"std S/<S> minus the surmise's, {_at(point)}: not small"


def _frozen_at(point: Point) -> str:
    return f"<S>/w of one frozen draw, {_at(point)}"


# --- simulations ----------------------------------------------------------------------------------------------


def _seen(seen: Learner) -> Array:
    """Spacing and centre of the singular values, and E_12 - E_21: (3, students)."""
    a, b, c, d = (seen.weights[:, i, j] for i in (0, 1) for j in (0, 1))
    spacing = jnp.sqrt((a - d) ** 2 + (b + c) ** 2)  # of a positive determinant
    return jnp.stack([spacing, jnp.sqrt((a + d) ** 2 + (b - c) ** 2) / 2, b - c])


def _sweep(
    run: Run, inputs: Any, batch: int, rates: tuple[float, ...], noises: tuple[float, ...], sampling: Sampling
) -> Descents:
    def rule(learning_rate: Any, noise: Any) -> WeightRule:
        shake = symmetric_noise(noise / np.sqrt(batch))
        return sgd(Partial(optax.sgd, learning_rate=learning_rate), batch, sampling=sampling, noise=shake)

    records = np.array([round((_BURN + _APART * i) / rate) for rate in rates for i in range(_TIMES)])
    return Descents(
        task=linear_students(inputs),
        rule=rule,
        over={"learning_rate": rates, "noise": noises},
        observables={"seen": _seen},
        at=np.unique(np.append(records, 0)),
        steps=int(records.max()),
        replicas=run.pick(40, 3000, 30_000),
        run_seed=run.seed,
        facts={"batch": batch, "students": inputs.shape[1]},
    )


class Spacings(NamedTuple):
    """Records of one point in its stationary state, (replicas, times, students) each."""

    spacing: Any
    center: Any
    crooked: Any  #: E_12 - E_21


def _stationary(found: Any, rates: tuple[float, ...], noises: tuple[float, ...], batch: int) -> dict[Point, Spacings]:
    """The records of a sweep at the times that suit each learning rate."""
    times = found["time"].values
    points: dict[Point, Spacings] = {}
    for i, rate in enumerate(rates):
        at = np.searchsorted(times, [round((_BURN + _APART * k) / rate) for k in range(_TIMES)])
        for j, noise in enumerate(noises):
            seen = found["seen"].values[i, j][:, at].astype(float)  # (replica, time, 3, students)
            points[rate, noise, batch] = Spacings(*np.moveaxis(seen, 2, 0))
    return points


def _fresh(run: Run) -> dict[Point, Spacings]:
    drawn = np.random.default_rng([run.seed, 0]).standard_normal((run.pick(2**12, 2**18, 2**18), 2))
    inputs = drawn @ np.linalg.inv(np.linalg.cholesky(drawn.T @ drawn / len(drawn))).T
    cells: dict[str, tuple[int, tuple[float, ...], tuple[float, ...]]] = {
        "fresh-4": (4, (0.05, 0.1, 0.5, 0.8), (_A,)),
        "fresh-16": (16, (0.1, 0.2, 0.4), (_A,)),
        "fresh-64": (64, (0.1,), (_A,)),
        "noise-16": (16, (0.1,), (0.05, 0.2)),
    }
    if run.size == "smoke":
        cells = {"fresh-4": cells["fresh-4"]}
    specs = {
        label: _sweep(run, inputs[:, None], batch, rates, noises, "replacement")
        for label, (batch, rates, noises) in cells.items()
    }
    found = run.sweeps(specs, 0.0, 0.5)
    points: dict[Point, Spacings] = {}
    for label, (batch, rates, noises) in cells.items():
        points |= _stationary(found[label], rates, noises, batch)
    return points


def _frozen(run: Run) -> dict[Point, tuple[Any, Any, Any]]:
    """Mean spacing of each frozen draw, in w, its standard error, and the exact one."""
    draws = run.pick(2, 10, 10)
    points = {}
    for n, point in enumerate(run.pick(list(_PUBLISHED)[:1], _PUBLISHED, _PUBLISHED)):
        rate, noise, batch = point
        steps = round((_BURN + _APART * (_TIMES - 1)) / rate)
        inputs = np.random.default_rng([run.seed, 1 + n]).standard_normal((steps * batch, draws, 2))
        label, share = f"frozen-{batch}-{rate:g}", 0.5 + 0.125 * n
        found = run.sweep(_sweep(run, inputs, batch, (rate,), (noise,), "order"), label, share, share + 0.125)
        law = _law(point)
        last = _stationary(found, (rate,), (noise,), batch)[point].spacing[:, -1]  # all of them see one past
        exact = [spacing_of(law.given_inputs(inputs[:, k].reshape(steps, batch, 2))) for k in range(draws)]
        mean, error = mean_and_error(last, 0)
        points[point] = mean / law.width, error / law.width, np.array(exact) / law.width
    return points


# --- rows -----------------------------------------------------------------------------------------------------


def variation_of(spacing: Any) -> tuple[float, float]:
    """Standard deviation over mean, and its standard error from independent rows (replicas, records)."""
    spacing = np.asarray(spacing, float)
    mean, deviation = spacing.mean(), spacing.std()
    off = spacing - mean
    each = (off**2 - deviation**2) / (2 * deviation * mean) - deviation * off / mean**2  # to first order
    return float(deviation / mean), float(mean_and_error(each.mean(axis=1), 0)[1])


def rejected(spacings: list[Any], joint: float = _JOINT) -> int:
    """How many sets of independent spacings over their expected mean are not of Wigner's law.

    Kolmogorov's test, at a false-alarm rate that is ``joint`` for all sets together.
    """
    each = 1 - (1 - joint) ** (1 / len(spacings))
    return sum(bool(stats.kstest(one, spacing_distribution).pvalue < each) for one in spacings)


def _fresh_rows(points: Mapping[Point, Spacings]) -> list[Row]:
    rows, crooked, ends = [], [], []
    for point in [one for one in (*_SMALL, *_LARGE) if one in points]:
        seen, law = points[point], _law(point)
        mean, error = mean_and_error(seen.spacing.mean(axis=(1, 2)) / law.spacing(), 0)
        rows.append(Row(_ratio(point), 1.0, _OPEN, "derived", mean, error))
        variation, error = variation_of(seen.spacing[..., 0])
        if point in _LARGE:
            rows.append(Row(_off(point), 0.0, 0.0, "exact", variation - SPACING_VARIATION, error))
            continue
        rows.append(Row(_variation(point), SPACING_VARIATION, _OPEN, "exact", variation, error))
        crooked.append((seen.crooked**2).mean(axis=(1, 2)) / law.asymmetry() ** 2)
        ends.append(seen.spacing[:, -1, 0] / law.spacing())
    rows.append(Row(_REJECTED, 0.0, 0.0, "exact", rejected(ends), 0.0))
    squares = [mean_and_error(one, 0) for one in crooked]
    ratio = float(np.mean([np.sqrt(mean) for mean, _ in squares]))
    error = float(np.sqrt(sum((error / (2 * np.sqrt(mean))) ** 2 for mean, error in squares))) / len(squares)
    rows.append(Row(_CROOKED, 1.0, 0.0, "exact", ratio, error))
    scaled = [one for one in points if one not in _LARGE]
    x = np.log([_law(one).width for one in scaled])
    means = [mean_and_error(points[one].spacing.mean(axis=(1, 2)), 0) for one in scaled]
    y = np.log([mean * _law(one).width / _law(one).spacing() for one, (mean, _) in zip(scaled, means, strict=True)])
    # without weights: the relative errors of all points are alike
    off = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    error = float(np.sqrt(sum((o * error / mean) ** 2 for o, (mean, error) in zip(off, means, strict=True))))
    rows.append(Row(_SLOPE, 1.0, 0.0, "derived", float(off @ y), error))
    return rows


def _frozen_rows(points: Mapping[Point, tuple[Any, Any, Any]]) -> list[Row]:
    rows, ratios, inside = [], [], 0
    for point, (mean, error, exact) in points.items():
        published = _PUBLISHED[point]
        # a published value is one more draw: it scatters as these do
        rows.append(Row(_frozen_at(point), published, 0.0005, "published", mean.mean(), mean.std(ddof=1)))
        ratios.append((mean / exact, error / exact))
        inside += bool(mean.min() <= published <= mean.max())
    values, errors = (np.concatenate(part) for part in zip(*ratios, strict=True))
    rows.append(Row(_DRAWS, 1.0, 0.0, "exact", values.mean(), float(np.sqrt((errors**2).sum())) / len(errors)))
    # one more draw is the smallest or the largest of n + 1 with a chance of 2/(n + 1)
    chance = 1 - 2 / (len(mean) + 1)
    many = len(points)
    scatter = float(np.sqrt(many * chance * (1 - chance)))
    rows.append(Row(_INSIDE, many * chance, scatter, "derived", inside, 0.0))
    return rows


def _measure(run: Run) -> Measured:
    fresh, frozen = _fresh(run), _frozen(run)
    return Measured(_fresh_rows(fresh) + _frozen_rows(frozen), (fresh, frozen))


# --- picture --------------------------------------------------------------------------------------------------


def _draw_scaling(axes: Any, fresh: Mapping[Point, Spacings]) -> None:
    widths = np.array([_law(point).width for point in fresh])
    line = np.array([widths.min() * 0.8, widths.max() * 1.2])
    axes.plot(line, np.sqrt(np.pi) * line, color="0.6", label=r"$\sqrt{\pi}\,w$, small steps")
    for point, seen in fresh.items():
        large = point in _LARGE
        mean, error = mean_and_error(seen.spacing.mean(axis=(1, 2)), 0)
        axes.errorbar(
            _law(point).width, mean, error, color="tab:red" if large else "black", marker="s" if large else "o",
            label={_LARGE[0]: r"$\alpha/B\geq 0.125$", _SMALL[1]: r"$\alpha/B\leq 0.03$"}.get(point), **POINTS,
        )  # fmt: skip
    laws = [_law(point).spacing() for point in fresh]
    axes.plot(widths, laws, "_", ms=11, color="tab:blue", label="law at finite steps", zorder=3)
    axes.set(xscale="log", yscale="log", xlabel=r"$w=\sqrt{\alpha A^2/B}$", ylabel=r"Mean spacing $\langle S\rangle$")
    ticks(axes, 0.005, 0.01, 0.02, 0.05)
    legend(axes)


def _draw_spacings(axes: Any, fresh: Mapping[Point, Spacings]) -> None:
    edges = np.linspace(0, 4, 33)
    shown = [point for point in _SMALL if point in fresh]
    for colour, point in zip(shades(len(shown)), shown, strict=True):
        s = fresh[point].spacing.ravel() / _law(point).spacing()
        axes.stairs(np.histogram(s, edges)[0] / len(s) / np.diff(edges), edges, color=colour, lw=0.9, label=_at(point))
    line = np.linspace(0, 4, 200)
    axes.plot(line, spacing_density(line), color="black", lw=1.6, label="Wigner's surmise")
    axes.set(xlabel=r"$S/\langle S\rangle$ of the law", ylabel="Density", xlim=(0, 4), ylim=(0, None))
    legend(axes)


def _draw_density(axes: Any, fresh: Mapping[Point, Spacings]) -> None:
    edges = np.linspace(-4, 4, 41)
    for point, colour in ((_SMALL[0], "black"), (_LARGE[1], "tab:red")):
        seen, law = fresh[point], _law(point)
        width = law.spacing() / np.sqrt(np.pi)
        values = np.concatenate([seen.center + side * seen.spacing / 2 for side in (-1, 1)]).ravel()
        u = (values - values.mean()) / width
        label = f"simulated, {_at(point)}"
        axes.stairs(np.histogram(u, edges)[0] / len(u) / np.diff(edges), edges, color=colour, lw=0.9, label=label)
    line = np.linspace(-4, 4, 201)
    axes.plot(line, two_mode_density(line), color="tab:blue", ls="--", label="Coulomb gas")
    axes.set(
        xlabel=r"Singular value $(s-\langle s\rangle)\sqrt{\pi}/\langle S\rangle$", ylabel="Density", ylim=(0, 0.42)
    )
    legend(axes)


def _draw_frozen(axes: Any, frozen: Mapping[Point, tuple[Any, Any, Any]]) -> None:
    for i, (point, (mean, error, exact)) in enumerate(frozen.items()):
        places = i + np.linspace(-0.3, 0.3, len(mean))
        axes.plot(places, exact, "_", ms=7, color="tab:blue", label="exact for the draw's inputs" if i == 0 else None)
        axes.errorbar(places, mean, error, color="0.35", marker="o", label="frozen draws" if i == 0 else None, **POINTS)
        fresh = _law(point).spacing() / _law(point).width
        axes.plot([i - 0.38, i + 0.38], [fresh] * 2, color="black", lw=0.9, label="law, fresh data" if i == 0 else None)
        axes.plot(i, _PUBLISHED[point], "*", ms=11, color="tab:red", label="published" if i == 0 else None, zorder=4)
    axes.set_xticks(range(len(frozen)), [_at(point).replace(", ", "\n") for point in frozen])
    low, high = axes.get_ylim()
    axes.set(ylabel=r"$\langle S\rangle/w$", ylim=(low, high + 0.3 * (high - low)))
    legend(axes, ncols=2, loc="upper center")


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    fresh, frozen = curves
    scaling, spacings, density, draws = panels(figure, 2, 2)
    _draw_scaling(scaling, fresh)
    _draw_spacings(spacings, fresh)
    _draw_density(density, fresh)
    _draw_frozen(draws, frozen)


FIGURE = Figure(
    name="spacing",
    source="arXiv:2407.16427 and 2412.20496, spacing of the singular values of a linear student",
    claim="The singular values of a trained matrix repel one another: their spacing follows Wigner's surmise and grows "
    "as the root of learning rate over batch size, as long as that is small.",
    meaning="Noise alone makes modes repel, with a force that is in no energy. Learning rate over batch size is its "
    "temperature, as the size of the kicks is that of an active packing.",
    minutes={"quick": 3, "full": 25},
    resolution={
        **{_ratio(point): 0.01 for point in (*_SMALL, *_LARGE)},
        **{_variation(point): 0.01 for point in _SMALL},
        **{_off(point): 0.01 for point in _LARGE},
        **{_frozen_at(point): 0.2 for point in _PUBLISHED},
        _REJECTED: 0.0,
        _CROOKED: 0.005,
        _SLOPE: 0.005,
        _DRAWS: 0.005,
        _INSIDE: 0.0,
    },
    measure=_measure,
    draw=_draw,
)
