r"""Exponents of the absorbing transition against those of the Manna class and of directed percolation.

Two-dimensional random organization at kick 1, far from jamming and from order. The stationary activity of a large
system gives phi_c and beta, and its fluctuations gamma'; the decay at phi_c of three sizes gives z and beta/nu_perp by
a collapse. beta is fitted at activities of a tenth and more, where corrections to scaling are of the order of the
activity itself: they are in its error, and the two classes differ by less than that until activities of a hundredth are
reached. Resolutions are a third of what the classes
differ by.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packing_jax.criticality import Collapse, KickEstimate, PowerLaw, estimate_phi_c, time_collapse
from packing_jax.errors import PackingError
from packing_jax.figures.axes import LINES, MARKERS, POINTS, legend, panels, shades, ticks
from packing_jax.figures.figure import Figure, Measured, Row, Run
from packing_jax.figures.published import DIRECTED_PERCOLATION, MANNA
from packing_jax.sweeps.spheres import Sweep

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray as xr
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

DIM = 2
#: Where the scan is centred, from smaller systems; and decays are run where no power law could be fitted.
ABOUT = 0.3257
DELTAS = np.geomspace(0.004, 0.12, 10)  #: (phi - phi_c)/phi_c of the scan
BELOW = (-0.02, -0.01)  #: where it must be absorbed
FIRST = 10  #: step from which a decay counts: independent uniform positions relax before
CLASSES = {"Manna": MANNA, "DP": DIRECTED_PERCOLATION}
_SYMBOLS = {"beta": r"$\beta$", "gamma_prime": r"$\gamma'$", "z": "$z$", "beta/nu_perp": r"$\beta/\nu_\perp$"}


class Decay(NamedTuple):
    """f_a(t) of one size at phi_c."""

    particles: int
    times: Array
    activity: Array  #: (R, T)


def scan(particles: int, replicas: int, steps: int, seed: int) -> Sweep:
    """The stationary activity below and above the transition."""
    phi = np.round(ABOUT * (1.0 + np.concatenate([BELOW, DELTAS])), 5)
    return Sweep(
        rule="ro",
        dim=DIM,
        particles=particles,
        phi=tuple(phi.tolist()),
        kick=(1.0,),
        replicas=replicas,
        steps=steps,
        seed=seed,
    )


def decay_spec(phi: float, particles: int, replicas: int, steps: int, seed: int) -> Sweep:
    """The decay of one size at one phi."""
    return Sweep(
        rule="ro",
        dim=DIM,
        particles=particles,
        phi=(round(phi, 5),),
        kick=(1.0,),
        replicas=replicas,
        steps=steps,
        seed=seed,
    )


def decay_of(results: "xr.Dataset") -> Decay:
    """The activity of all replicas from step 10 on."""
    late = results.activity.isel(time=results.time >= FIRST).squeeze(("phi", "kick", "batch_fraction"))
    return Decay(results.sizes["particle"], late.time.values, late.transpose("replica", "time").values)


def collapsed(decays: Sequence[Decay]) -> Collapse:
    """z and beta/nu_perp of the collapse of several sizes.

    Raises:
        PackingError: no collapse.
    """
    return time_collapse(
        [one.particles ** (1 / DIM) for one in decays],
        [one.times for one in decays],
        [one.activity for one in decays],
    )


def _measure(run: Run) -> Measured:
    particles, replicas, steps = run.pick((64, 2, 60), (2048, 3, 2500), (65536, 4, 20_000))
    sizes: Mapping[int, int] = run.pick(
        {64: 2}, {256: 32, 1024: 12, 4096: 4}, {256: 256, 1024: 128, 4096: 48, 16384: 16}
    )
    share = run.pick(0.5, 0.8, 0.8)
    large = run.sweep(scan(particles, replicas, steps, run.seed), f"scan-N{particles}", 0.0, share)
    one = estimate_phi_c(large)[0]
    phi_c = ABOUT if one.power_law is None else one.power_law.value
    after = run.pick(60, 1500, 10_000)
    specs = {f"decay-N{n}": decay_spec(phi_c, n, count, after, run.seed) for n, count in sizes.items()}
    decays = [decay_of(found) for found in run.sweeps(specs, share, 1.0).values()]
    try:
        collapse = collapsed(decays)
    except PackingError:
        collapse = None
    measured = _exponents(one, collapse)
    return Measured(rows_of(measured), (large, one.power_law, decays, collapse, measured))


def _exponents(one: KickEstimate, collapse: Collapse | None) -> dict[str, tuple[float, float]]:
    """Value and error by name; NaN where a method refused."""
    known = one.exponents()
    none = (np.nan, np.nan)
    return {
        "beta": known.get("beta", none),
        "gamma_prime": known.get("gamma_prime", none),
        "z": none if collapse is None or collapse.z is None else (collapse.z.value, collapse.z.stderr),
        "beta/nu_perp": none if collapse is None else (collapse.prefactor.value, collapse.prefactor.stderr),
    }


def _quantity(name: str, against: str) -> str:
    return f"{name}, 2D RO, kick 1, against {against}"


def rows_of(measured: Mapping[str, tuple[float, float]]) -> list[Row]:
    """Each exponent beside that of each class."""
    return [
        numbers[name, DIM].row(*found, _quantity(name, against))
        for against, numbers in CLASSES.items()
        for name, found in measured.items()
    ]


def _resolution(name: str) -> float:
    """A third of what the classes differ by; of a ratio that is the same in both, a sixteenth of it."""
    one, other = (numbers[name, DIM].value for numbers in CLASSES.values())
    return max(abs(one - other) / 3, one / 16 if name == "beta/nu_perp" else 0.0)


def _draw(figure: "matplotlib.figure.Figure", curves: Any) -> None:
    large, law, decays, collapse, measured = curves
    left, middle, right = panels(figure, 3)
    _draw_activity(left, large, law)
    for one, colour, marker in zip(decays, shades(len(decays)), MARKERS, strict=False):
        scale = one.particles ** (1 / DIM)
        x, y = one.times.astype(float), one.activity.mean(axis=0)
        if collapse is not None:
            x, y = x * scale**-collapse.z.value, y * scale**collapse.prefactor.value
        shown = y > 0
        middle.plot(
            x[shown], y[shown], color=colour, marker=marker, ms=3, lw=0.8, markevery=6, label=f"N = {one.particles}"
        )
    middle.set(xscale="log", yscale="log")
    if collapse is None:
        middle.set(xlabel="$t$ / steps", ylabel="$f_a$ at $\\phi_c$, mean of all replicas")
    else:
        middle.set(
            xlabel=rf"$t\,L^{{-z}}$, $z = {collapse.z.value:.2f}$",
            ylabel=rf"$f_a\,L^{{\beta/\nu_\perp}}$, $\beta/\nu_\perp = {collapse.prefactor.value:.2f}$",
        )
    legend(middle)
    for row, (name, (value, stderr)) in enumerate(measured.items()):
        right.errorbar(
            value,
            -row,
            xerr=stderr,
            color="black",
            marker="o",
            capsize=3,
            label=None if row else "2D RO, kick 1",
            **POINTS,
        )
        for (against, known), colour, marker, up in zip(
            CLASSES.items(), ("C0", "C1"), "sD", (0.17, -0.17), strict=True
        ):
            centre, width = known[name, DIM][1:3]
            right.errorbar(
                centre,
                up - row,
                xerr=width,
                color=colour,
                marker=marker,
                capsize=2,
                label=None if row else against,
                **POINTS,
            )
    right.set(
        yticks=[-row for row in range(len(measured))],
        yticklabels=[_SYMBOLS[name] for name in measured],
        xlabel="Exponent",
    )
    right.set_ylim(0.9 - len(measured) - 0.4, 0.9)
    legend(right, loc="upper right")


def _draw_activity(axes: "Axes", large: "xr.Dataset", law: PowerLaw | None) -> None:
    """Final activity against the distance from phi_c: fitted points filled, others open."""
    ends = (
        large.activity.squeeze(("kick", "batch_fraction"))
        .isel(time=slice(-25, None))
        .mean("time")
        .transpose("phi", "replica")
    )
    phi, rows = large.phi.values, ends.values
    phi_c = ABOUT if law is None else law.value
    mean, error = rows.mean(axis=1), rows.std(axis=1, ddof=1) / rows.shape[1] ** 0.5
    fitted = np.zeros(len(phi), bool) if law is None else (phi >= law.window[0]) & (phi <= law.window[1])
    for some, label, face in ((fitted, "fitted", "black"), (~fitted, "not fitted", "white")):
        shown = some & (phi > phi_c) & (mean > 0)
        style = {**POINTS, "mec": "black", "mfc": face, "mew": 0.8}
        axes.errorbar(phi[shown] - phi_c, mean[shown], error[shown], color="black", marker="o", **style, label=label)
    if law is not None:
        grid = np.geomspace(min(phi[phi > phi_c]) - phi_c, phi[-1] - phi_c, 50)
        axes.plot(grid, law.activity(phi_c + grid), color="black", lw=0.9, label=rf"$\beta = {law.beta:.3f}$")
        for (against, known), colour, dashes in zip(CLASSES.items(), ("C0", "C1"), LINES[1:], strict=False):
            beta = known["beta", DIM].value
            line = 0.6 * law.activity([phi[-1]])[0] * (grid / grid[-1]) ** beta
            axes.plot(grid, line, color=colour, ls=dashes, lw=1, label=f"{against}, {beta:.3f}")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=r"$\phi - \phi_c$",
        ylabel="Final activity $f_a$",
        title=rf"$\phi_c = {phi_c:.4f}$",
    )
    ticks(axes, 0.001, 0.003, 0.01, 0.03)
    legend(axes)


FIGURE = Figure(
    name="universality",
    source="arXiv:2411.11834; classes as in S. Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004)",
    claim="The absorbing transition of random organization has exponents of the Manna class, which are close to those "
    "of directed percolation.",
    meaning="If the class is Manna's, a packing near phi_c forgets what it is made of: exponents of discs hold for "
    "every system that comes to rest and conserves what it moves.",
    minutes={"quick": 4.0, "full": 600.0},
    resolution={_quantity(name, against): _resolution(name) for name in _SYMBOLS for against in CLASSES},
    measure=_measure,
    draw=_draw,
)
