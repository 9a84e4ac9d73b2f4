r"""The capacity of the spherical perceptron by biased random organization: an absorbing transition at a known place.

Half of the replicas are absorbed at alpha(N, eps, T). It is taken to infinite time, to zero kick and to infinite N, in
this order, and held against Gardner's capacity. In this order every limit is smooth: at finite N all that can be
satisfied is absorbed in the end, whatever the kick, and half of the instances can be at alpha_c + O(1/N). At a finite
kick and infinite N rest is guaranteed only up to the capacity at kappa + eps/3
(:func:`packing_jax.networks.theory.perceptron.margin_spent`): that is the shift that the figure shows. Above capacity
the activity of small kicks is known too (:func:`packing_jax.networks.theory.perceptron.violated_share`).
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packing_jax.criticality.half_absorbed import HalfAbsorbed, half_absorbed_phi_c, logistic
from packing_jax.errors import PackingError
from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.networks.theory.perceptron import capacity, margin_spent, violated_share
from packing_jax.sweeps.networks import Training

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray as xr

Array = NDArray[np.float64]

KICKS = (0.025, 0.05, 0.1)
#: alpha in the middle of the scan, instances' scatter in alpha times sqrt(N), and steps times kick.
SCANS: Mapping[float, tuple[float, float, float]] = {0.0: (1.93, 2**0.5, 300.0), 1.0: (0.512, 0.5, 200.0)}
_GROUPS = 8  # of instances, for their scatter
_SCATTERS = np.array([-1.6, -0.8, 0.0, 0.8, 1.6])
#: Above capacity, in units of it, where the activity is held against its closed form, and how it is run there.
_ABOVE, _KICK, _RUN = (1.1, 1.25, 1.5), 0.01, 30.0


class Half(NamedTuple):
    """Where half of the replicas are absorbed after infinite time."""

    value: float
    stderr: float  #: of the sample, and of what time would still change


class Limit(NamedTuple):
    """The value for infinite N, and those at each N that it is made of."""

    value: float
    stderr: float
    sizes: dict[int, Half]  #: at zero kick


class Scan(NamedTuple):
    """What one size did at one kick."""

    absorbed_at: NDArray[np.int64]  #: (A, R), -1 where active; a replica has the same patterns at all kicks
    steps: int  #: T

    def half(self, alpha: Array, some: Any = slice(None)) -> tuple[float, float]:
        """alpha of half absorbed (of ``some`` replicas) after T, and what infinite time adds.

        alpha(T) approaches its limit like 1/T, so that it has as far to go as it came since T/2.
        """
        at = self.absorbed_at[:, some]
        before, now = (_half(alpha, (at >= 0) & (at <= time)).value for time in (self.steps // 2, self.steps))
        return now, now - before


def _half(alpha: Array, absorbed: NDArray[np.bool_]) -> HalfAbsorbed:
    """Closely, or to a 32nd of the scan's spacing where so few replicas leave open whether it lies inside."""
    try:
        return half_absorbed_phi_c(alpha, absorbed)
    except PackingError:
        return logistic(alpha, absorbed)


def after_infinite_time(alpha: Array, scan: Scan) -> Half:
    """At one kick; all of what time adds enters the error.

    Raises:
        PackingError: too few replicas to tell.
    """
    now, more = scan.half(alpha)
    stderr = _half(alpha, scan.absorbed_at >= 0).stderr
    return Half(now + more, float(np.hypot(stderr, more)))


def at_zero_kick(alpha: Array, scans: Mapping[float, Scan]) -> Half:
    """After infinite time, the straight line through all kicks at kick 0.

    The error holds the scatter of instances (jackknife over eight groups of them, each left out at all kicks), all that
    infinite time added, and how far the line through the two smallest kicks alone is away.

    Raises:
        PackingError: too few replicas to tell.
    """
    kicks = sorted(scans)

    def halves(some: Any = slice(None)) -> Array:
        """Of each kick, and what infinite time adds, (2, kicks)."""
        return np.array([scans[kick].half(alpha, some) for kick in kicks]).T

    def line(values: Array) -> float:
        return float(np.polyfit(kicks[: len(values)], values, 1)[1])

    now, more = halves()
    value = line(now + more)
    groups = np.arange(scans[kicks[0]].absorbed_at.shape[1]) % _GROUPS
    left_out = [line(halves(groups != one).sum(axis=0)) for one in np.unique(groups)]
    scatter = np.sqrt(len(left_out) - 1) * np.std(left_out)
    return Half(value, float(np.linalg.norm([scatter, line(more), line((now + more)[:2]) - value])))


def at_infinite_size(found: Mapping[int, Half]) -> Limit:
    """The constant of alpha_c + a/N; half of what a/sqrt(N) would change enters the error.

    The median of a smooth convex problem moves by 1/N. The size exponent is not that of any absorbing transition.
    """
    sizes = np.array(sorted(found), float)
    values, stderrs = (np.array([found[int(N)][i] for N in sizes]) for i in (0, 1))

    def constant(power: float) -> tuple[float, float]:
        design = np.stack([np.ones_like(sizes), sizes**-power], axis=1) / stderrs[:, None]
        inverse = np.linalg.pinv(design)
        chi2 = float(np.sum((values / stderrs - design @ (inverse @ (values / stderrs))) ** 2))
        stretch = max(1.0, chi2 / max(len(sizes) - 2, 1)) ** 0.5
        return float(inverse[0] @ (values / stderrs)), stretch * float(np.linalg.norm(inverse[0]))

    (value, stderr), (other, _) = constant(1.0), constant(0.5)
    return Limit(value, float(np.hypot(stderr, 0.5 * (value - other))), dict(found))


def _capacity(kappa: float) -> str:
    return f"alpha_c at kappa = {kappa:g}, in the limits of time, kick and size"


def _activity(kappa: float, above: float) -> str:
    return f"activity at kappa = {kappa:g}, {above:g} alpha_c, kick {_KICK:g}"


def _measure(run: Run) -> Measured:
    smoke = run.size == "smoke"  # a program more for each size and alpha would be more than its five seconds
    sizes: Mapping[int, int] = run.pick({}, {50: 48, 100: 24, 200: 12}, {100: 160, 200: 80, 400: 40, 800: 16, 1600: 6})
    ranges = {1.0: SCANS[1.0]} if smoke else SCANS
    shorter = run.pick(0.01, 0.5, 1.0)
    rows, curves = [], {}
    sweeps = _Sweeps(run, len(ranges) * (len(sizes) * len(KICKS) + 1))
    for kappa, (middle, scatter, time) in ranges.items():
        halves: dict[int, dict[float, Half]] = {}
        limits: dict[int, Half] = {}
        active: dict[tuple[int, float], tuple[Array, Array]] = {}
        for N, replicas in sizes.items():
            alphas = np.round(N * middle + np.sqrt(N) * scatter * _SCATTERS) / N
            scans = {}
            for kick in KICKS:
                # one number of records, and so one program, for all kicks
                steps = 100 * round(max(100.0, time * shorter / kick) / 100)
                found = sweeps.run(kappa, N, alphas, kick, steps, replicas)
                scans[kick] = Scan(found.absorbed_at.values.reshape(len(alphas), replicas), steps)
                active[N, kick] = alphas / float(capacity(kappa)), _final(found, len(alphas)).mean(axis=1)
            with contextlib.suppress(PackingError):  # all absorbed, or none: this size can say nothing
                halves[N] = {kick: after_infinite_time(alphas, scan) for kick, scan in scans.items()}
                limits[N] = at_zero_kick(alphas, scans)
        limit = at_infinite_size(limits) if len(limits) > 1 else Limit(np.nan, np.nan, limits)
        rows.append(Row(_capacity(kappa), float(capacity(kappa)), 0.0, "exact", limit.value, limit.stderr))
        above = np.array(_ABOVE[:1] if smoke else _ABOVE)
        alphas = above * float(capacity(kappa))
        N, replicas = run.pick((20, 1), (400, 12), (1600, 8))  # of few, the error is no error
        found = sweeps.run(kappa, N, alphas, _KICK, 100 * round(max(100.0, _RUN * shorter / _KICK) / 100), replicas)
        activity = _final(found, len(alphas))
        for times, alpha, ours in zip(above, alphas, activity, strict=True):
            error = float(ours.std(ddof=1) / np.sqrt(replicas)) if replicas > 1 else np.nan
            reference = violated_share(float(alpha), kappa)
            rows.append(Row(_activity(kappa, times), reference, 0.005, "derived", float(ours.mean()), error))
        curves[kappa] = halves, limit, active, above, activity
    return Measured(rows, curves)


def _final(found: "xr.Dataset", alphas: int) -> Array:
    """Activity in the last quarter of the records, (alpha, replica)."""
    activity: Array = found.activity.values
    return activity.reshape(alphas, -1, activity.shape[-1])[..., -25:].mean(axis=-1)


class _Sweeps:
    """So many sweeps, one after the other."""

    def __init__(self, run: Run, parts: int) -> None:
        self._run, self._parts, self._done = run, parts, 0

    def run(self, kappa: float, N: int, alphas: Array, kick: float, steps: int, replicas: int) -> "xr.Dataset":
        """One size and kick; all kicks see the same patterns and starts."""
        spec = Training(
            task="perceptron",
            rule="bro",
            axes={"dimension": N, "alpha": tuple(alphas.tolist()), "kappa": kappa, "exponent": 1, "kick": kick},
            steps=steps,
            replicas=replicas,
            seed=self._run.seed,
            disorder_seed=self._run.seed,
            measure=("activity",),
            record_every=steps // 100,
        )
        begin, self._done = self._done, self._done + 1
        label = f"kappa{kappa:g}-N{N}-kick{kick:g}"
        return self._run.sweep(spec, label, begin / self._parts, self._done / self._parts)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    axes = panels(figure, len(curves), 2)
    for column, (kappa, (halves, limit, active, above, activity)) in enumerate(curves.items()):
        top, bottom = axes[column], axes[column + len(curves)]
        exact = float(capacity(kappa))
        for (N, found), colour, marker in zip(halves.items(), shades(len(halves)), MARKERS, strict=False):
            points = {**found, 0.0: limit.sizes[N]}
            kicks, values = np.array([*points]), np.array([*points.values()])
            top.errorbar(kicks, values[:, 0], values[:, 1], color=colour, marker=marker, label=f"N = {N}", **POINTS)
        line = np.linspace(0, max(KICKS), 50)
        top.axhline(exact, color="black", lw=0.8, label="Gardner")
        bound = [float(capacity(kappa + margin_spent(kick))) for kick in line]
        top.plot(line, bound, color="black", ls=LINES[1], lw=0.8, label=r"guaranteed: $\kappa + \epsilon/3$")
        top.set(xlabel=r"Kick $\epsilon$", ylabel=r"$\alpha$ of half absorbed, $T \to \infty$")
        top.set_title(rf"$\kappa = {kappa:g}$", fontsize=9)
        legend(top)
        grid = np.linspace(1 + 1e-6, 1.6, 200)
        bottom.plot(
            grid, [violated_share(one * exact, kappa) for one in grid], "k-", lw=0.8, label="small kicks, exact"
        )
        for N, colour in zip(sorted({N for N, _ in active}), shades(len(halves)), strict=False):
            for kick, dashes in zip(KICKS, LINES, strict=False):
                x, f = active[N, kick]
                bottom.plot(x, f, color=colour, ls=dashes, lw=0.8, label=f"N = {N}, kick {kick:g}")
        bottom.errorbar(
            above,
            activity.mean(axis=1),
            activity.std(axis=1),
            marker="o",
            color="C3",
            label=f"kick {_KICK:g}",
            **POINTS,
        )
        bottom.set(xlabel=r"$\alpha/\alpha_c$", ylabel="Activity $f$ at the end", ylim=(0, None))
        legend(bottom)


FIGURE = Figure(
    name="capacity",
    source="E. Gardner, J. Phys. A 21, 257 (1988); rule of arXiv:2411.11834 on patterns",
    claim="Biased random organization of a perceptron's weights is absorbed up to Gardner's exact capacity, in the "
    "limit of zero kick.",
    meaning="A perceptron is a packing whose threshold is known exactly. It tests driver, rule and estimator of phi_c "
    "together.",
    minutes={"quick": 3.0, "full": 40.0},
    resolution={
        _capacity(0.0): 0.03,
        _capacity(1.0): 0.005,
        **{_activity(kappa, above): 0.01 for kappa in SCANS for above in _ABOVE},
    },
    measure=_measure,
    draw=_draw,
)
