r"""Oscillations: a mode of the Hessian under SGD with momentum is a damped oscillator that noise drives.

arXiv:2107.09133 follows the top eigenvector of a linear regression (CIFAR-10 pixels, eta = 1e-5, S = 512): with
momentum 0.9, 0.99 and 0.999 it swings with periods of 75.6, 65.5 and 65.5 steps, for a top eigenvalue near 917. With
918, taken here, descents have all three to their digits (the SDE, whose periods are longer by 0.1 %, with 919). Mean
and covariance in all three regimes of damping are held against the exact recursion of the discrete steps, to which the
SDE converges as eta -> 0.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.modes import central_moments, exact_covariance, modes_task, moments
from packing_jax.networks.rules import WeightRule, heavy_ball, sgd
from packing_jax.networks.theory import discrete
from packing_jax.networks.theory import heavy_ball as sde
from packing_jax.networks.theory.heavy_ball import HeavyBall

if TYPE_CHECKING:
    import matplotlib.figure

_BALL = HeavyBall(learning_rate=0.1, momentum=0.9)
_CRITICAL = (1 - np.sqrt(_BALL.momentum)) ** 2  # eta h at which the discrete mode is critically damped
_REGIMES = {"overdamped": 0.2, "critically damped": 1.0, "underdamped": 30.0}
_CURVATURES = _CRITICAL * np.array(list(_REGIMES.values())) / _BALL.learning_rate
_START = 10.0  # in units of the noise of one gradient
_STEPS = 300
_TIMES = np.unique(np.geomspace(1, _STEPS, 34).astype(int))[-30:]

_TOP = 918.0
_SLOW_ETA = 1e-5
_PERIODS = {0.9: 75.6, 0.99: 65.5, 0.999: 65.5}
_ROUNDED = 0.03  # one standard deviation of a number given to a tenth

_MEAN = "largest deviation of the mean, in standard errors"
_SPREAD = "largest deviation of the covariance, in standard errors"
_ORDER = "order in eta of the SDE's error"


def _period(momentum: float) -> str:
    return f"period in steps, momentum {momentum:g}"


def _noisy(momentum: Any) -> WeightRule:
    return sgd(heavy_ball(_BALL.learning_rate, momentum), noise=1.0)


def _quiet(momentum: Any) -> WeightRule:
    return sgd(heavy_ball(_SLOW_ETA, momentum))


def _regimes(run: Run) -> tuple[list[Row], Any]:
    """Mean and covariance at 30 times from one place, against the exact recursion: 4 standard errors at most."""
    copies, replicas = run.pick((64, 2), (1024, 8), (4096, 64))
    count = copies * replicas
    spec = Descents(
        task=modes_task(_CURVATURES, copies, _START),
        rule=_noisy,
        over={"momentum": (_BALL.momentum,)},
        observables={"moments": central_moments(len(_REGIMES), _BALL.learning_rate)},
        at=np.array([0, *_TIMES]),
        steps=_STEPS,
        replicas=replicas,
        run_seed=run.seed,
        facts={"copies": copies},
    )
    seen = run.sweep(spec, "regimes", 0.0, 0.7)["moments"].values[0][:, 1:].astype(float).mean(axis=0)
    x, v, position, cross, velocity = np.moveaxis(seen, 1, 0)  # each (time, mode)
    exact_x, exact_v = discrete.mean(_BALL, _CURVATURES, _TIMES[:, None], _START)
    exact = exact_covariance(_BALL, _CURVATURES, _TIMES[:, None])
    off = np.abs([(x - exact_x) / np.sqrt(exact.position), (v - exact_v) / np.sqrt(exact.velocity)]) * np.sqrt(count)
    # errors of second moments of Gaussian numbers
    spread = np.abs(
        [
            (position - exact.position) / (np.sqrt(2) * exact.position),
            (velocity - exact.velocity) / (np.sqrt(2) * exact.velocity),
            (cross - exact.cross) / np.sqrt(exact.position * exact.velocity + exact.cross**2),
        ]
    ) * np.sqrt(count - replicas)
    rows = [
        Row(_MEAN, 0.0, 2.0, "exact", off.max(), 0.0),
        Row(_SPREAD, 0.0, 2.0, "exact", spread.max(), 0.0),
    ]
    return rows, (x, position)


def _order() -> Row:
    """How the difference between SDE and steps falls from eta = 1e-3 to 1e-4, at gamma = 1 and omega = 2."""
    errors = []
    for eta in (1e-3, 1e-4):
        ball = HeavyBall(learning_rate=eta, momentum=(1 - eta) / (1 + eta))
        rho = 2 * eta * (1 + ball.momentum)
        steps = np.round(np.linspace(0.25, 4, 16) / eta).astype(int)
        apart = discrete.mean(ball, rho, steps, 1.0)[0] - sde.mean(ball, rho, eta * steps, 1.0)[0]
        errors.append(np.sqrt(np.mean(apart**2)))
    return Row(_ORDER, 1.0, 0.01, "derived", float(np.log10(errors[0] / errors[1])), 0.0)


def _top_mode(run: Run) -> tuple[list[Row], Any]:
    """The published periods, of descents without noise that are seen at every step."""
    steps = 700
    spec = Descents(
        task=modes_task([_TOP], 1, 1.0),
        rule=_quiet,
        over={"momentum": tuple(_PERIODS)},
        observables={"moments": moments(1, _SLOW_ETA)},
        at=np.arange(steps + 1),
        steps=steps,
        replicas=1,
    )
    x = run.sweep(spec, "top-mode", 0.7, 1.0)["moments"].values[:, 0, :, 0, 0].astype(float)  # (momentum, time)
    rows = []
    for (momentum, published), path in zip(_PERIODS.items(), x, strict=True):
        at = np.flatnonzero((path[:-1] > 0) & (path[1:] <= 0))
        crossings = at + path[at] / (path[at] - path[at + 1])
        # of a cycle that is far above the rounding of float32
        late = crossings[: 4 if momentum == 0.9 else len(crossings)]
        rows.append(
            Row(_period(momentum), published, _ROUNDED, "published", (late[-1] - late[0]) / (len(late) - 1), 0.0)
        )
    return rows, x


def _measure(run: Run) -> Measured:
    first, regimes = _regimes(run)
    second, top = _top_mode(run)
    return Measured([*first, _order(), *second], (regimes, top))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    (x, position), top = curves
    left, middle, right = panels(figure, 3)
    fine = np.arange(1, _STEPS + 1)[:, None]
    smooth = discrete.mean(_BALL, _CURVATURES, fine, _START)[0], exact_covariance(_BALL, _CURVATURES, fine).position
    for i, (name, colour, line, marker) in enumerate(zip(_REGIMES, shades(3), LINES, MARKERS, strict=False)):
        left.plot(fine[:, 0], smooth[0][:, i] / _START, color=colour, ls=line)
        left.plot(_TIMES, x[:, i] / _START, color=colour, marker=marker, label=name, **POINTS)
        middle.plot(fine[:, 0], smooth[1][:, i] / smooth[1][-1, i], color=colour, ls=line)
        middle.plot(_TIMES, position[:, i] / smooth[1][-1, i], color=colour, marker=marker, **POINTS)
    left.set(xscale="log", xlabel="Step $k$", ylabel=r"$\langle x\rangle / x_0$")
    middle.set(xscale="log", yscale="log", ylim=(1e-5, 5), xlabel="Step $k$", ylabel="Var $x$ (its last value)")
    legend(left)
    for path, momentum, colour, line in zip(top, _PERIODS, shades(3), LINES, strict=False):
        right.plot(path[:300], color=colour, ls=line, label=rf"$\beta = {momentum:g}$")
    right.set(xlabel="Step $k$", ylabel="top eigenvector (its start)")
    legend(right)


FIGURE = Figure(
    name="oscillations",
    source="arXiv:2107.09133, figure 2, and the solution of the underdamped SDE",
    claim="Along each eigenvector of the Hessian SGD with momentum is a damped harmonic oscillator driven by noise.",
    meaning="The laws hold for any Hessian: a packing above phi_J moves about its minimum in such modes as well.",
    minutes={"quick": 0.5, "full": 2},
    resolution={_MEAN: 0.1, _SPREAD: 0.1, _ORDER: 0.01, **{_period(beta): 0.05 for beta in _PERIODS}},
    measure=_measure,
    draw=_draw,
)
