r"""Activity and displacement in time of BRO, SGD and Langevin dynamics with the same first two moments of a step.

How far two rules are apart is said in standard errors: z(t) is the difference of their means over replicas in units of
its standard error, and sqrt(<z^2>) its root mean square over times that are equally spaced in log t. Times of a curve
are correlated, so no law of chi^2 says what two samples of one process give; dealing out the same replicas to two rules
at random does, exactly, where they start independently. The reference is the mean over such deals, and the error their
scatter.

Moments beyond the second differ (a push of SGD is skew). They matter less as the kick becomes small: at a kick of 0.01
the curves should agree, and at 0.1 they need not.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packing_jax.figures.axes import LINES, MARKERS, legend, panels, shades
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.phi_c import NAMES, RULES, seed_of
from packing_jax.sweeps.spheres import Sweep

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray as xr

Array = NDArray[np.float64]

#: phi at each kick, the lower one close to phi_c and the higher one well above it, and eps t at the end of a full run.
CASES: Mapping[float, tuple[tuple[float, float], float]] = {0.01: ((0.63, 0.65), 30.0), 0.1: ((0.545, 0.575), 200.0)}
OBSERVABLES = {"activity": "activity", "msd": "displacement"}
_TIMES = 25
_DEALS = 400


class Curves(NamedTuple):
    """One observable of one rule at one phi."""

    times: Array  #: (T,), steps
    values: Array  #: (R, T)


def spec(rule: str, kick: float, phi: tuple[float, ...], particles: int, replicas: int, steps: int, seed: int) -> Sweep:
    """The runs of one rule at one kick."""
    size = kick * RULES[rule]
    return Sweep(rule=rule, particles=particles, phi=phi, kick=(size,), replicas=replicas, steps=steps, seed=seed)


def curves_of(results: "xr.Dataset", observable: str, phi: float) -> Curves:
    """Replicas at 25 times, equally spaced in log t from step 10 on."""
    times = np.unique(np.rint(np.geomspace(10, float(results.time[-1]), _TIMES)))
    one = results[observable].sel(phi=phi).squeeze(("kick", "batch_fraction")).interp(time=times)
    return Curves(times, one.transpose("replica", "time").values.astype(float))


def differences(one: Array, other: Array) -> Array:
    """z(t) of two samples of curves, (R, T) each: the difference of means over its standard error; 0 where none."""
    error = np.sqrt(one.var(axis=0, ddof=1) / len(one) + other.var(axis=0, ddof=1) / len(other))
    apart = one.mean(axis=0) - other.mean(axis=0)
    return np.asarray(np.divide(apart, error, out=np.zeros_like(apart), where=error > 0))


def rms(z: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(z**2)))


def by_chance(one: Array, other: Array, random: np.random.Generator) -> tuple[float, float]:
    """Mean and standard deviation of the rms difference when the replicas are dealt out to both rules at random."""
    together = np.concatenate([one, other])
    found = []
    for _ in range(_DEALS):
        dealt = together[random.permutation(len(together))]
        found.append(rms(differences(dealt[: len(one)], dealt[len(one) :])))
    return float(np.mean(found)), float(np.std(found))


def _quantity(rule: str, what: str, kick: float) -> str:
    return f"{NAMES[rule]} and BRO, kick {kick:g}: rms difference of the {what} in standard errors"


def _ratio(rule: str, what: str, kick: float, phi: float) -> str:
    return f"{NAMES[rule]} over BRO, kick {kick:g}, phi = {phi:g}: {what} at the end"


def _measure(run: Run) -> Measured:
    kicks = run.pick((0.1,), tuple(CASES), tuple(CASES))
    particles, replicas = run.pick((64, 2), (1000, 8), (4000, 24))
    specs: dict[tuple[float, str], Sweep] = {}
    for kick in kicks:
        phis, time = CASES[kick]
        steps = round(run.pick(5.0, time, time) / kick)
        specs |= {
            (kick, rule): spec(rule, kick, phis, particles, replicas, steps, seed_of(rule, run.seed)) for rule in RULES
        }
    results = run.sweeps({f"{rule}-{kick:g}": one for (kick, rule), one in specs.items()})
    curves = {
        (kick, rule, observable, phi): curves_of(results[f"{rule}-{kick:g}"], observable, phi)
        for kick in kicks
        for rule in RULES
        for observable in OBSERVABLES
        for phi in CASES[kick][0]
    }
    random, rows = np.random.default_rng(run.seed), []
    for kick in kicks:
        for rule in ("sgd", "langevin"):
            for observable, what in OBSERVABLES.items():
                # both phi side by side: replicas of one number are dealt out together
                one, other = (
                    np.concatenate([curves[kick, r, observable, phi].values for phi in CASES[kick][0]], axis=1)
                    for r in (rule, "bro")
                )
                expected, scatter = by_chance(one, other, random)
                row = Row(_quantity(rule, what, kick), expected, 0.0, "derived", rms(differences(one, other)), scatter)
                rows.append(row)
                above = CASES[kick][0][1]
                pair = curves[kick, rule, observable, above].values, curves[kick, "bro", observable, above].values
                rows.append(Row(_ratio(rule, what, kick, above), 1.0, 0.0, "derived", *_over(*pair)))
    return Measured(rows, curves)


def _over(one: Array, other: Array) -> tuple[float, float]:
    """Ratio of the means over replicas of the last fifth of the times, and its standard error."""
    late = [sample[:, -5:].mean(axis=1) for sample in (one, other)]
    relative = [sample.std(ddof=1) / len(sample) ** 0.5 / sample.mean() for sample in late]
    ratio = float(late[0].mean() / late[1].mean())
    return ratio, ratio * float(np.hypot(*relative))


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    kicks = sorted({key[0] for key in curves})
    axes = panels(figure, 3, len(kicks))
    for row, kick in enumerate(kicks):
        activity, displacement, apart = axes[3 * row : 3 * row + 3]
        for axis, observable in ((activity, "activity"), (displacement, "msd")):
            for i, (rule, colour) in enumerate(zip(RULES, shades(len(RULES)), strict=True)):
                for phi, dashes in zip(CASES[kick][0], LINES, strict=False):
                    times, values = curves[kick, rule, observable, phi]
                    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / len(values) ** 0.5
                    x = kick * times
                    axis.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
                    axis.plot(
                        x,
                        mean,
                        color=colour,
                        ls=dashes,
                        lw=1,
                        marker=MARKERS[i],
                        ms=3,
                        markevery=(i, 3),
                        label=rf"{NAMES[rule]}, $\phi = {phi:g}$",
                    )
                    if rule != "bro":
                        z = differences(values, curves[kick, "bro", observable, phi].values)
                        label = f"{NAMES[rule]}, {OBSERVABLES[observable]}" if dashes == LINES[0] else None
                        own = {"color": colour, "ls": dashes, "marker": "o" if observable == "msd" else None}
                        apart.plot(kick * times, z, **own, lw=0.9, ms=2.5, label=label)
            axis.set(xscale="log", xlabel=r"$\epsilon t$")
        activity.set(ylabel="Activity $f_a$")
        activity.set_title(rf"kick $\epsilon = {kick:g}$", fontsize=9)
        displacement.set(ylabel=r"Mean squared displacement / $\sigma^2$", yscale="log")
        apart.axhspan(-2, 2, color="0.9", lw=0)
        apart.set(xscale="log", xlabel=r"$\epsilon t$", ylabel="Difference from BRO / standard error")
        legend(displacement)
        apart.set_ylim(top=apart.get_ylim()[1] + 0.3 * np.ptp(apart.get_ylim()))  # room for the legend
        legend(apart, loc="upper left")


FIGURE = Figure(
    name="bro-is-sgd",
    source="arXiv:2411.11834, BRO as SGD with b_f = 3/4 and alpha = 4 eps/3",
    claim="For small kicks activity and displacement of biased random organization, SGD and Langevin dynamics are the "
    "same curves in time.",
    meaning="Training by minibatches and packing by random kicks are one process as long as steps are small. Where they"
    " differ, at large kicks, more than the mean and variance of a step counts.",
    minutes={"quick": 2.0, "full": 30.0},
    resolution={
        **{_quantity(r, what, kick): 0.6 for r in RULES for what in OBSERVABLES.values() for kick in CASES},
        **{_ratio(r, what, k, CASES[k][0][1]): 0.03 for r in RULES for what in OBSERVABLES.values() for k in CASES},
    },
    measure=_measure,
    draw=_draw,
)
