r"""phi_c against the size of a step, for three rules that share the first two moments of a step.

BRO of kick eps, SGD of batch fraction 3/4 and learning rate 4 eps/3, and the Langevin map of kick eps. Each kick is
scanned about where a coarser scan had its transition, in runs that end at the same eps t, for 1/eps is their unit of
time. phi_c(eps) is carried to eps = 0, where it is held against the published limit.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from packing_jax.criticality import KickEstimate, ZeroKickLimit, estimate_phi_c, zero_kick_limit
from packing_jax.errors import PackingError
from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.published import published
from packing_jax.figures.result import with_error
from packing_jax.sweeps.spheres import Sweep

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray as xr

#: What kick 1 is in each rule's own words.
RULES: Mapping[str, float] = {"bro": 1.0, "sgd": 4 / 3, "langevin": 1.0}
NAMES = {"bro": "BRO", "sgd": "SGD", "langevin": "Langevin"}
#: Where a coarse scan of small systems had the transition of each kick.
ABOUT = {0.01: 0.630, 0.02: 0.622, 0.05: 0.597, 0.1: 0.556, 0.2: 0.480, 0.3: 0.415}
#: From there: most below, where the steps at which replicas are absorbed say how the transition moves in time.
_OFFSETS = np.array([-0.030, -0.020, -0.012, -0.006, 0.0, 0.006, 0.014])
_TIME = {"smoke": 2.0, "quick": 300.0, "full": 1500.0}  # eps t
_APART = "phi_c, {} less BRO, mean over kicks"


class Point(NamedTuple):
    """phi_c at one kick, as recommended."""

    kick: float
    value: float
    stderr: float  #: of everything
    own: float  #: without what the size of the system may shift, which is the same for all rules
    method: str  #: by which it is recommended, see packing_jax.criticality.estimates


def spec(rule: str, kick: float, time: float, particles: int, replicas: int, seed: int) -> Sweep:
    """The scan of one rule at one kick."""
    steps = 100 * round(max(100.0, time / kick) / 100)
    return Sweep(
        rule=rule,
        particles=particles,
        phi=tuple(np.round(ABOUT[kick] + _OFFSETS, 4).tolist()),
        kick=(kick * RULES[rule],),
        replicas=replicas,
        steps=steps,
        record_every=steps // 100,
        seed=seed,
    )


def seed_of(rule: str, seed: int) -> int:
    """A seed of its own for Langevin dynamics: of one seed and kick, it would start where BRO does.

    What they share would make them seem closer than two samples of one process are. Learning rates of SGD are no kicks
    of BRO, so that it starts elsewhere anyway.
    """
    return (seed + 2**31 * (rule == "langevin")) % 2**32


def point(kick: float, found: KickEstimate) -> Point | None:
    """The recommended phi_c; None where all methods refuse."""
    if (one := found.recommended()) is None:
        return None
    return Point(kick, one.value, one.stderr, float(np.hypot(one.statistical, one.run_length)), one.method)


def limit(points: list[Point]) -> ZeroKickLimit | None:
    """At zero kick; None of fewer than three kicks."""
    try:
        return zero_kick_limit(*np.array([one[:3] for one in points], float).T) if points else None
    except PackingError:
        return None


def apart(some: list[Point], others: list[Point]) -> tuple[float, float]:
    """The weighted mean of phi_c less others' over the kicks that both have, and its error.

    The errors are stretched where the kicks scatter by more than these, as those of a law that is missed are.
    """
    known = {one.kick: one for one in others}
    pairs = [(one, known[one.kick]) for one in some if one.kick in known]
    if not pairs:
        return np.nan, np.nan
    values = np.array([one.value - other.value for one, other in pairs])
    stderrs = np.array([np.hypot(one.own, other.own) for one, other in pairs])
    weights = stderrs**-2
    mean = float(weights @ values / weights.sum())
    chi2 = float(weights @ (values - mean) ** 2)
    stretch = max(1.0, chi2 / max(len(values) - 1, 1)) ** 0.5
    return mean, stretch * float(weights.sum() ** -0.5)


def _measure(run: Run) -> Measured:
    kicks: tuple[float, ...] = run.pick((0.2,), (0.05, 0.1, 0.2), tuple(ABOUT))
    particles, replicas = run.pick((64, 2), (1000, 4), (4000, 8))
    specs = {
        f"{rule}-{kick:g}": spec(rule, kick, _TIME[run.size], particles, replicas, seed_of(rule, run.seed))
        for rule in RULES
        for kick in kicks
    }
    results = run.sweeps(specs)
    points: dict[str, list[Point]] = {}
    for rule in RULES:
        found = [point(kick, estimate_phi_c(results[f"{rule}-{kick:g}"])[0]) for kick in kicks]
        points[rule] = [one for one in found if one is not None]
    limits = {rule: limit(some) for rule, some in points.items()}
    reference, rows = published("phi_c at zero kick, 3D"), []
    for rule, name in NAMES.items():
        one = limits[rule]
        value, stderr = (one.value, one.stderr) if one is not None else (np.nan, np.nan)
        rows.append(reference.row(value, stderr, _zero(name)))
    for at in points["bro"]:
        if at.kick == 0.05:
            bracket = published("phi_c at kick 0.05, 3D BRO pair")
            rows.append(bracket.row(at.value, at.stderr))
    rows += [
        Row(_APART.format(NAMES[r]), 0.0, 0.0, "derived", *apart(points[r], points["bro"])) for r in NAMES if r != "bro"
    ]
    activities = {rule: {kick: _final(results[f"{rule}-{kick:g}"]) for kick in kicks} for rule in RULES}
    return Measured(rows, (points, limits, activities))


def _zero(name: str) -> str:
    return f"phi_c at zero kick, 3D, {name}"


def _final(results: "xr.Dataset") -> tuple[Any, Any]:
    """phi, and the mean activity in the last quarter of the records."""
    activity = results.activity.isel(time=slice(-25, None)).mean(("time", "replica"))
    return results.phi.values, activity.squeeze(("kick", "batch_fraction")).values


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    points, limits, activities = curves
    left, right = panels(figure, 2)
    reference = published("phi_c at zero kick, 3D")
    low, high = reference.value - reference.error, reference.value + reference.error
    largest = max((one.kick for some in points.values() for one in some), default=0.2)
    left.axhspan(low, high, color="0.85", lw=0, label=f"published limit: {with_error(*reference[1:3])}")
    for i, (rule, colour) in enumerate(zip(RULES, shades(len(RULES)), strict=True)):
        shift = (i - 1) * 0.008 * largest  # of points that would hide one another
        label = NAMES[rule] if rule != "sgd" else r"SGD, $b_f = 3/4$, $\alpha = 4\epsilon/3$"
        found, style = limits[rule], {**POINTS, "color": colour, "marker": MARKERS[i], "capsize": 2}
        for first in (True, False):
            some = [one[:3] for one in points[rule] if (one.method == "absorption") is first]
            if some:
                kick, value, stderr = np.array(some).T
                face = {} if first else {"mfc": "white", "mec": colour, "mew": 1.0}
                told = label if first else f"{NAMES[rule]}, not by absorption times"
                left.errorbar(kick + shift, value, stderr, **{**style, **face}, label=told)
        if found is not None:
            grid = np.linspace(0, largest, 60)
            left.plot(grid, found.form.at(grid), color=colour, ls=LINES[i], lw=0.9)
            left.errorbar(shift, found.value, found.stderr, **{**style, "ms": 7})
        for (phi, activity), dashes in zip(activities[rule].values(), LINES * 2, strict=False):
            right.plot(phi, activity, color=colour, ls=dashes, lw=0.9, marker=MARKERS[i], ms=3)
    bracket = published("phi_c at kick 0.05, 3D BRO pair")
    large: dict[str, Any] = {"color": "black", "marker": "_", "capsize": 4, "lw": 0.8, "ls": "none", "zorder": 5}
    left.errorbar(0.05, bracket.value, bracket.error, **large, label="N = 32,768: at rest below, active above")
    left.set(xlabel=r"Kick $\epsilon/\sigma$", ylabel=r"$\phi_c$", xlim=(-0.03 * largest, None))
    legend(left, loc="lower left")
    for kick, (phi, activity) in activities["bro"].items():
        right.annotate(
            rf"$\epsilon = {kick:g}$",
            (phi[-1], activity[-1]),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
        )
    right.margins(x=0.08)
    right.set(xlabel=r"$\phi$", ylabel="Activity $f_a$ at the end", ylim=(0, 1.1 * right.get_ylim()[1]))


FIGURE = Figure(
    name="phi-c",
    source="arXiv:2411.11834, phi_c against step size",
    claim="Biased random organization, SGD and Langevin dynamics with the same mean and variance of a step have the "
    "same phi_c, which goes to 0.64 as steps become small.",
    meaning="Random close packing can be approached by rules that only push overlaps apart. What the rule is matters "
    "little; how small its steps are decides.",
    minutes={"quick": 5.0, "full": 1000.0},
    resolution={
        **{_zero(name): 0.005 for name in NAMES.values()},
        "phi_c at kick 0.05, 3D BRO pair": 0.003,
        **{_APART.format(NAMES[rule]): 0.002 for rule in NAMES if rule != "bro"},
    },
    measure=_measure,
    draw=_draw,
)
