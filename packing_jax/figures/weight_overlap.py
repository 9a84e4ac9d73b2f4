r"""Are weights at a temperature a glass, or do they diffuse freely? The overlap Q(t) beside its two baselines.

arXiv:2405.13098 trains networks on the parity of MNIST digits to a minimum, and goes on by Langevin dynamics. Reported
for Q(t), the share of weights within eps of where they were at t_w: no relaxation time that diverges at kT > 0, no
caging, time-temperature superposition, Q ~ t^-0.5, heterogeneity and ageing at low kT.

On a flat loss Q = erf(eps/sqrt(4 kT mu t/P)) has the first four by itself
(:mod:`packing_jax.networks.theory.diffusion`), so each number of the network is held against that: a "no" is what a
landscape adds to free diffusion. All weights but those of the last layer are seen, and eps is a small share of their
standard deviation. The network is 10-[w]x6-1. At size full w = 30, P = 5000 and the share is 1/500, as in the source;
at quick w = 10, P = 600, as many samples per weight, and 1/1000. Of the six networks there, three end at a loss of 0,
two below 0.005, and one stays at 0.26; all have stopped. (A first run at quick, with a larger
learning rate and a shorter descent, had networks that still drifted, and an MSD that grew faster than diffusion.)
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import mean_and_error
from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import WeightRule, langevin, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.parity import parity
from packing_jax.networks.theory import diffusion
from packing_jax.observables import learning
from packing_jax.observables.correlators import mean_squared_move, self_overlap

if TYPE_CHECKING:
    import matplotlib.figure

Float = NDArray[np.float64]

# free diffusion: eps^2 P/(kT mu) is 200 and 100, so that tau_90 is many steps
_FLAT_SAMPLES, _FLAT_RATE, _FLAT_KT, _FLAT_WIDTH = 100, 1e-2, (0.5, 1.0), 0.1
_FLAT_STEPS = 600
# with weight decay: mu lambda = 0.01, followed for three relaxation times
_DECAY, _DECAY_KT, _DECAY_STEPS = 1.0, 1.0, (20, 50, 100, 300)

_DESCENT = 0.03  # learning rate to the minima; at 0.1 the loss of some networks rises again
_RATE = 1e-3
_TEMPERATURES = (3e-5, 1e-4, 3e-4, 1e-3)
_LEVELS = (0.9, np.exp(-1))
_COLLAPSED = np.geomspace(0.05, 1.5, 20)  # t/tau_e at which curves are compared

_FREE_90, _FREE_E = "flat loss: tau_90 kT mu/(eps^2 P)", "flat loss: tau_e kT mu/(eps^2 P)"
_FREE_RATIO = "flat loss: tau_e/tau_90"
_DECAY_EXACT = "weight decay alone: variance from a fixed start over its exact value"
_DECAY_SMOOTH = "weight decay alone: the same over (kT/(P lambda))(1 - e^(-2 lambda mu t))"
_IN_KT = "network: exponent of tau_e in kT"
_SUPERPOSED = "network: tau_e/tau_90 at the lowest over that at the highest kT"
_SPREAD = "network: largest difference of Q(t/tau_e) between temperatures"
_LATE = "network: exponent of Q at t > 10 tau_e, highest kT, over free diffusion's"
_CAGING = "network: exponent of the MSD up to tau_e, lowest kT"
_HETEROGENEITY = "network: alpha_2 at tau_e, lowest kT"
_AGEING = "network: tau_e after the longest over that after the shortest t_w, lowest kT"


def _tau(name: str, kt: float) -> str:
    return f"network, kT = {kt:g}: {name} over free diffusion's"


class Motion(NamedTuple):
    """Motion of the weights since the waiting times, arrays (kT, minimum, waiting time, lag)."""

    lags: NDArray[np.int64]  #: steps
    overlap: Float
    msd: Float  #: per weight
    non_gaussian: Float
    width: float  #: eps
    samples: int  #: P


def crossing(lags: Any, overlap: Any, level: float) -> Float:
    """The time at which Q first falls below a level, linear in log t between two lags; NaN where it does not.

    Args:
        lags: (T,) increasing, above 0.
        overlap: (..., T).
        level: of Q.

    Returns:
        (...)
    """
    log_t, q = np.log(np.asarray(lags, float)), np.asarray(overlap, float)
    below = q < level
    at = np.clip(below.argmax(axis=-1), 1, None)[..., None]
    before, after = (np.take_along_axis(q, at - shift, -1)[..., 0] for shift in (1, 0))
    share = (before - level) / np.where(before == after, 1.0, before - after)
    found = np.exp(log_t[at[..., 0] - 1] + share * (log_t[at[..., 0]] - log_t[at[..., 0] - 1]))
    return np.where(below.any(axis=-1) & ~below[..., 0], found, np.nan)


# --- free diffusion -------------------------------------------------------------------------------------------


def _nothing(weights: Array, inputs: Array) -> Array:
    return inputs * jnp.sum(weights)


def _flat(weights: int, start: float) -> Task:
    """A loss that is 0 everywhere: the inputs are."""
    zeros = np.zeros(_FLAT_SAMPLES)
    return Task(lambda _: jnp.full(weights, start), _nothing, Squared(), data=Data(zeros, zeros), waits=(0,))


def _about_the_mean(seen: Learner) -> Array:
    """<(theta - theta_0 (1 - lambda mu)^t)^2> over weights."""
    kept = (1 - _DECAY * _FLAT_RATE) ** seen.step.astype(seen.weights.dtype)
    off = seen.weights - kept * seen.start
    return jnp.mean(off * off)


def _free(run: Run) -> tuple[list[Row], Any]:
    weights, replicas = run.pick((2000, 8), (10_000, 32), (10_000, 256))
    at = np.array([0, *range(5, 60), *np.unique(np.geomspace(60, _FLAT_STEPS, 60).astype(int))])
    spec = Descents(
        task=_flat(weights, 0.0),
        rule=lambda temperature: langevin(_FLAT_RATE, temperature),
        over={"temperature": _FLAT_KT},
        observables={"overlap": learning.overlap(_FLAT_WIDTH)},
        at=at,
        steps=_FLAT_STEPS,
        replicas=replicas,
        run_seed=run.seed,
        facts={"flat_weights": weights},
    )
    q = run.sweep(spec, "flat", 0.0, 0.15)["overlap"].values[..., 1:, 0]  # (kT, replica, time)
    unit = _FLAT_WIDTH**2 * _FLAT_SAMPLES / (np.array(_FLAT_KT) * _FLAT_RATE)
    tau = np.stack([crossing(at[1:], q, level) for level in _LEVELS])  # (level, kT, replica)
    exact = [diffusion.relaxation_time(level, 1.0, 1.0, 1.0, 1) for level in _LEVELS]
    reduced = (tau / unit[:, None]).mean(axis=1)
    ratio = (tau[1] / tau[0]).mean(axis=0)
    rows = [
        Row(name, float(reference), 0.0, "exact", *mean_and_error(values, 0))
        for name, reference, values in (
            (_FREE_90, exact[0], reduced[0]),
            (_FREE_E, exact[1], reduced[1]),
            (_FREE_RATIO, exact[1] / exact[0], ratio),
        )
    ]
    spec = Descents(
        task=_flat(weights, 1.0),
        rule=lambda temperature: langevin(_FLAT_RATE, temperature, _DECAY),
        over={"temperature": (_DECAY_KT,)},
        observables={"variance": _about_the_mean},
        at=np.array([0, *_DECAY_STEPS]),
        steps=_DECAY_STEPS[-1],
        replicas=replicas,
        run_seed=run.seed,
        facts={"flat_weights": weights},
    )
    variance = run.sweep(spec, "decay", 0.15, 0.2)["variance"].values[0][:, 1:]
    t = np.array(_DECAY_STEPS)
    exact = diffusion.variance_from_a_point(_DECAY_KT, _FLAT_RATE, _FLAT_SAMPLES, t, _DECAY)
    smooth = _DECAY_KT / (_FLAT_SAMPLES * _DECAY) * -np.expm1(-2 * _DECAY * _FLAT_RATE * t)
    rows.append(Row(_DECAY_EXACT, 1.0, 0.0, "exact", *mean_and_error((variance / exact).mean(axis=1), 0)))
    # steps of finite size add mu lambda/2 = 0.5 %; 1 % is what two standard errors leave
    rows.append(Row(_DECAY_SMOOTH, 1.0, 0.005, "derived", *mean_and_error((variance / smooth).mean(axis=1), 0)))
    return rows, (at[1:] / unit[0], q[0].mean(axis=0))


# --- networks -------------------------------------------------------------------------------------------------


def _minima(run: Run, task: Task, count: int) -> Float:
    """So many minima (count, W): SGD in batches of 100, then all samples at a time."""
    early, late = run.pick((20, 20), (10_000, 30_000), (20_000, 100_000))
    batch = min(100, len(task.data.inputs))  # type: ignore[union-attr]

    def trained(rule: WeightRule, steps: int, begin: Any, label: str, share: tuple[float, float]) -> Float:
        spec = Descents(
            task=task,
            rule=lambda minimum: rule,  # noqa: ARG005 - an axis that tells starts apart
            over={"minimum": tuple(map(float, range(count)))},
            observables={"loss": learning.loss, "reached": learning.weights},
            at=np.array([0, steps]),
            begin=begin,
            steps=steps,
            replicas=1,
            run_seed=run.seed,
        )
        return np.asarray(run.sweep(spec, label, *share)["reached"].values[:, 0, -1])

    noisy = trained(sgd(optax.sgd(_DESCENT), batch), early, None, "trained", (0.2, 0.25))

    def begin(minimum: NDArray[np.float64]) -> Any:
        return task.tree(noisy[minimum.astype(int)])

    return trained(sgd(optax.sgd(_DESCENT)), late, begin, "descended", (0.25, 0.35))


def _network(run: Run) -> Motion:
    width, samples, count, data = run.pick((3, 60, 2, "digits"), (10, 600, 6, "mnist-5k"), (30, 5000, 8, "mnist-5k"))
    waits = run.pick((20, 40), (500, 4000), (5000, 20_000, 80_000))
    longest = run.pick(3000, 10_000, 100_000)
    task = parity(samples=samples, tests=0, width=width, data=data)
    minima = _minima(run, task, count)
    # of the smaller network's wider weights a smaller share, so that all relax within the run
    eps = float(minima[:, :-width].std() / run.pick(1000, 1000, 500))
    lags = np.unique(np.geomspace(1, longest, run.pick(12, 60, 80)).astype(int))
    at = np.unique([0, *(wait + lag for wait in waits for lag in (0, *lags))])

    def but_the_last(seen: Learner) -> Array:
        return learning.weights(seen)[:-width]

    def begin(minimum: NDArray[np.float64], **_: Any) -> Any:
        return task.tree(minima[minimum.astype(int)])

    spec = Descents(
        task=task,
        rule=lambda temperature, minimum: langevin(_RATE, temperature),  # noqa: ARG005
        over={"temperature": _TEMPERATURES, "minimum": tuple(map(float, range(count)))},
        observables={"path": but_the_last},
        at=at,
        begin=begin,
        steps=int(at[-1]),
        replicas=1,
        run_seed=run.seed,
        facts={"width": width, "samples": samples, "data": data},
    )
    path = run.sweep(spec, "langevin", 0.35, 1.0)["path"].values[:, :, 0]  # (kT, minimum, time, weight)
    x = np.moveaxis(path, 2, 0)[..., None]
    start = np.searchsorted(at, waits)[:, None]
    end = np.searchsorted(at, np.array(waits)[:, None] + lags)
    overlap, msd = self_overlap(x, eps, start, end), mean_squared_move(x, start, end)
    fourth = np.stack([np.mean((x[e] - x[s]) ** 4, axis=(-2, -1)) for s, e in zip(start, end, strict=True)])
    kurtosis = fourth / (3 * np.asarray(msd, float) ** 2) - 1
    ordered = [np.moveaxis(np.asarray(one, float), (0, 1), (2, 3)) for one in (overlap, msd, kurtosis)]
    return Motion(lags, ordered[0], ordered[1], ordered[2], eps, samples)


def slope(x: Any, y: Any) -> Float:
    """Of log y (..., T) against log x (T,), by least squares; NaN where there are fewer than two points."""
    if len(x) < 2:
        return np.full(np.shape(y)[:-1], np.nan)
    log_x = np.log(np.asarray(x, float))
    log_x = log_x - log_x.mean()
    return np.asarray(np.log(y) @ log_x / (log_x @ log_x))


def collapse(lags: Any, overlap: Any, tau: Any) -> Float:
    """Q(x tau_e) at the times x at which curves are compared: (..., T) and (...) to (..., X)."""
    q, unit = np.asarray(overlap), np.asarray(tau)
    found = [np.interp(np.log(_COLLAPSED * one), np.log(lags), row) for one, row in zip(
        unit.ravel(), q.reshape(-1, q.shape[-1]), strict=True
    )]  # fmt: skip
    return np.reshape(found, (*unit.shape, len(_COLLAPSED)))


def compared(motion: Motion) -> list[Row]:
    """The network's numbers beside those of free diffusion; errors are those of independent minima."""
    lags, q, eps, samples = motion.lags, motion.overlap, motion.width, motion.samples
    late = q[:, :, -1]  # after the longest waiting time: (kT, minimum, lag)
    tau_90, tau_e = (crossing(lags, late, level) for level in _LEVELS)
    rows = []
    for i, kt in enumerate(_TEMPERATURES):
        for name, seen, level in zip(("tau_90", "tau_e"), (tau_90[i], tau_e[i]), _LEVELS, strict=True):
            free = diffusion.relaxation_time(level, eps, kt, _RATE, samples)
            rows.append(Row(_tau(name, kt), 1.0, 0.0, "derived", *mean_and_error(seen / free, 0)))
    rows.append(Row(_IN_KT, -1.0, 0.0, "derived", *mean_and_error(slope(_TEMPERATURES, tau_e.T), 0)))
    ratio = tau_e / tau_90
    rows.append(Row(_SUPERPOSED, 1.0, 0.0, "derived", *mean_and_error(ratio[0] / ratio[-1], 0)))
    curves = collapse(lags, late, tau_e)  # (kT, minimum, X)
    mean, error = mean_and_error(curves, 1)
    apart = mean.max(axis=0) - mean.min(axis=0)
    worst = apart.argmax()
    # the width of a line in print
    rows.append(Row(_SPREAD, 0.0, 0.02, "published", apart[worst], np.hypot(*np.sort(error[:, worst])[-2:])))
    hot = lags > 10 * tau_e[-1].mean()
    free = diffusion.overlap(eps, diffusion.mean_squared_displacement(_TEMPERATURES[-1], _RATE, samples, lags[hot]))
    fall = slope(lags[hot], np.maximum(late[-1][:, hot], 1e-9)) / slope(lags[hot], free)
    rows.append(Row(_LATE, 1.0, 0.0, "derived", *mean_and_error(fall, 0)))
    cold = lags <= tau_e[0].mean()
    rows.append(Row(_CAGING, 1.0, 0.0, "derived", *mean_and_error(slope(lags[cold], motion.msd[0, :, -1][:, cold]), 0)))
    near = max(int(np.count_nonzero(cold)) - 1, 0)
    rows.append(Row(_HETEROGENEITY, 0.0, 0.0, "derived", *mean_and_error(motion.non_gaussian[0, :, -1, near], 0)))
    by_wait = crossing(lags, q[0], _LEVELS[1])  # (minimum, waiting time)
    rows.append(Row(_AGEING, 1.0, 0.0, "derived", *mean_and_error(by_wait[:, -1] / by_wait[:, 0], 0)))
    return rows


def _measure(run: Run) -> Measured:
    first, flat = _free(run)
    motion = _network(run)
    return Measured(first + compared(motion), (flat, motion))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    (reduced, flat), motion = curves
    left, middle, right = panels(figure, 3)
    late = motion.overlap[:, :, -1].mean(axis=1)
    msd = motion.msd[:, :, -1].mean(axis=1)
    fine = np.geomspace(1, motion.lags[-1], 200)
    for i, (kt, colour, marker) in enumerate(zip(_TEMPERATURES, shades(len(_TEMPERATURES)), MARKERS, strict=False)):
        free = diffusion.mean_squared_displacement(kt, _RATE, motion.samples, fine)
        label = f"kT = {kt:g}"
        few = slice(i % 3, None, 3)
        left.plot(fine, diffusion.overlap(motion.width, free), color=colour, ls=LINES[1], lw=1)
        left.plot(motion.lags[few], late[i][few], color=colour, marker=marker, label=label, **POINTS)
        right.plot(fine, free / motion.width**2, color=colour, ls=LINES[1], lw=1)
        right.plot(motion.lags[few], msd[i][few] / motion.width**2, color=colour, marker=marker, label=label, **POINTS)
        scaled = motion.lags / crossing(motion.lags, late[i], _LEVELS[1])
        middle.plot(scaled[few], late[i][few], color=colour, marker=marker, label=label, **POINTS)
    unit = diffusion.relaxation_time(_LEVELS[1], 1.0, 1.0, 1.0, 1)
    x = np.geomspace(2e-3, 60, 200)
    middle.plot(x, diffusion.overlap(1.0, 2 * x * unit), color="0.3", ls=LINES[1], lw=1, label="free diffusion")
    middle.plot(reduced[::12] / unit, flat[::12], color="0.3", marker="x", ls="none", ms=4, label="flat loss")
    left.set(xscale="log", xlabel="Steps $t$ since $t_w$", ylabel="$Q(t)$", ylim=(0, 1.03))
    middle.set(xscale="log", xlabel=r"$t/\tau_e$", ylabel="$Q$", xlim=(2e-3, 60), ylim=(0, 1.03))
    right.set(xscale="log", yscale="log", xlabel="Steps $t$ since $t_w$", ylabel=r"MSD$/\epsilon^2$")
    for axes in (left, middle, right):
        legend(axes)


FIGURE = Figure(
    name="weight-overlap",
    source="arXiv:2405.13098, overlap of weights under Langevin dynamics",
    claim="Weights of a trained network at a temperature relax without a plateau and with a time-temperature "
    "superposition, as free diffusion does: only what is beyond free diffusion is a property of the landscape.",
    meaning="Networks are compared with glasses by the overlap that is used for packings. Only what differs from free "
    "diffusion is a likeness: here it is little.",
    minutes={"quick": 2, "full": 600},
    resolution={
        _FREE_90: 0.001,
        _FREE_E: 0.01,
        _FREE_RATIO: 0.06,
        _DECAY_EXACT: 0.005,
        _DECAY_SMOOTH: 0.005,
        **{_tau(name, kt): 0.04 for kt in _TEMPERATURES for name in ("tau_90", "tau_e")},
        _IN_KT: 0.02,
        _SUPERPOSED: 0.1,
        _SPREAD: 0.02,
        _LATE: 0.1,
        _CAGING: 0.02,
        _HETEROGENEITY: 0.05,
        _AGEING: 0.1,
    },
    measure=_measure,
    draw=_draw,
)
