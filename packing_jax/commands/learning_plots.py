"""Figures of a sweep of networks: what was recorded against steps, activity against samples per weight, displacements.

As in :mod:`packing_jax.commands.plots`, each function returns a new figure. A curve is the median over replicas, in a
band from their first to their third quartile; a cross on the upper edge marks where a replica diverged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from packing_jax.commands.drawing import LINES, MARKERS, POINTS, colour_bar, colour_scale, legend, new_figure, shades_of
from packing_jax.criticality.stationarity import final_activity
from packing_jax.errors import PackingError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from packing_jax.criticality.recommended import Recommended

Array = NDArray[np.float64]

_NAMES = {
    "loss": "Loss",
    "test_loss": "Test loss",
    "accuracy": "Accuracy",
    "test_accuracy": "Test accuracy",
    "activity": "Activity (violated samples)",
    "gradient_norm": r"$|\nabla L|$",
    "weight_norm": r"$|w|$",
    "local_displacement": r"$|w_k - w_{k-1}|^2$",
    "global_displacement": r"$|w_k - w_0|^2$",
    "msd": r"Mean squared displacement per weight",
    "non_gaussian": r"$\alpha_2$",
    "overlap": r"Overlap $Q$",
}
_SYMBOLS = {
    "learning_rate": r"$\eta$",
    "batch_size": r"$S$",
    "momentum": r"$\beta$",
    "weight_decay": r"$\lambda$",
    "temperature": r"$k_B T$",
    "kick": r"$\epsilon$",
    "alpha": r"$\alpha$",
    "kappa": r"$\kappa$",
}
_LINEAR = ("accuracy", "test_accuracy", "overlap", "non_gaussian")  # not on a logarithmic axis
_MOST_LEGEND = 8  # curves that a legend names; of more, colours say which they are


class Curve(NamedTuple):
    """The replicas at one value of each axis."""

    at: Mapping[str, float | int]  #: values of those axes that have several
    times: Array  #: (time,) steps
    records: Mapping[str, Array]  #: name -> (replica, time), or with waiting times behind; NaN from a divergence on
    absorbed_at: NDArray[np.int64]  #: (replica,), -1 where not absorbed
    diverged_at: NDArray[np.int64]  #: (replica,), step of the divergence, -1 where there was none
    load: float  #: samples per weight
    weights: int  #: of the largest network where the task does not say which number of its own they are

    @property
    def absorbed(self) -> NDArray[np.bool_]:
        """Which replicas are at rest, (replica,)."""
        return self.absorbed_at >= 0

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Which replicas diverged, (replica,)."""
        return self.diverged_at >= 0

    @property
    def label(self) -> str:
        """Its values, for a legend."""
        return ", ".join(f"{symbol(name)} = {value:g}" for name, value in self.at.items())


def symbol(axis: str) -> str:
    """What an axis is called in a figure."""
    return _SYMBOLS.get(axis, axis.replace("_", " "))


def against_steps(curves: Sequence[Curve], name: str) -> Figure:
    """A record against steps on logarithmic axes (linear ones for shares): median and quartiles over replicas.

    Args:
        curves: of one sweep.
        name: of a record without axes of its own.

    Raises:
        PackingError: there is nothing above zero to draw.
    """
    figure, axes = new_figure(5.4, 3.8)
    drawn = False
    for curve, style in _styled(figure, axes, curves):
        low, middle, high = _quartiles(curve.records[name])
        shown = (curve.times > 0) & np.isfinite(middle) & ((middle > 0) | (name in _LINEAR))
        drawn |= bool(shown.any())
        axes.plot(curve.times[shown], middle[shown], **style)
        axes.fill_between(curve.times[shown], low[shown], high[shown], color=style["color"], alpha=0.2, lw=0)
        _cross(axes, curve, style["color"])
    _name_band(axes, "first to third quartile of replicas", [curve.absorbed.size for curve in curves])
    if not drawn:
        raise PackingError(f"{name} is zero at all recorded steps but the first")
    axes.set(xscale="log", yscale="linear" if name in _LINEAR else "log")
    if name not in _LINEAR and any(curve.diverged.any() for curve in curves):  # the others are to be seen
        first = max(float(np.nanmax(curve.records[name][:, 0], initial=0.0)) for curve in curves)
        axes.set(ylim=(None, min(axes.get_ylim()[1], 1e3 * first or np.inf)))
    axes.set(xlabel="Steps", ylabel=_NAMES.get(name, name.replace("_", " ")))
    _end(figure, axes, curves)
    return figure


def against_load(curves: Sequence[Curve], axis: str, recommended: Sequence[Recommended] = ()) -> Figure:
    """Activity at the end of the runs against samples per weight, and below it the share of replicas at rest.

    Points are means over replicas, in which those that were absorbed count 0, with standard errors as bands. A vertical
    line and a band are the critical value and its error.

    Args:
        curves: of one sweep.
        axis: the task's number that samples per weight vary with; the curves are of the others.
        recommended: critical values of that number.
    """
    from matplotlib.figure import Figure

    groups: dict[tuple[tuple[str, float | int], ...], list[Curve]] = {}
    for curve in curves:
        groups.setdefault(tuple(one for one in curve.at.items() if one[0] != axis), []).append(curve)
    figure = Figure(figsize=(5.4, 5.0), dpi=200, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(1.6, 1))
    for i, (colour, (where, members)) in enumerate(zip(shades_of(len(groups)), groups.items(), strict=True)):
        some = sorted(members, key=lambda curve: curve.load)
        load = np.array([curve.load for curve in some])
        ends = [final_activity(one.times, one.records["activity"], one.absorbed) for one in some]
        ends = [one[np.isfinite(one)] for one in ends]
        mean = np.array([one.mean() if len(one) else np.nan for one in ends])
        error = np.array([one.std(ddof=1) / np.sqrt(len(one)) if len(one) > 1 else 0.0 for one in ends])
        style = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "ls": LINES[i % len(LINES)], **POINTS}
        upper.fill_between(load, mean - error, mean + error, color=colour, alpha=0.3, lw=0)
        label = ", ".join(f"{symbol(name)} = {value:g}" for name, value in where)
        upper.plot(load, mean, label=label, **style)
        lower.plot(load, [one.absorbed.mean() for one in some], **style)
        for best in recommended:
            if best.parameter == axis and all(best.axes.get(name) == value for name, value in where):
                loads = np.interp([best.value - best.stderr, best.value, best.value + best.stderr], *_along(some, axis))
                for one in (upper, lower):
                    one.axvspan(loads[0], loads[2], color=colour, alpha=0.12, lw=0)
                    one.axvline(loads[1], color=colour, lw=0.9)
                critical = rf"critical {symbol(axis)} = {best.value:.4g} $\pm$ {best.stderr:.2g}"
                upper.plot([], [], color=colour, lw=0.9, label=critical)
    upper.set(ylabel=_NAMES["activity"], ylim=(-0.02 * max(1e-3, upper.get_ylim()[1]), None))
    lower.set(xlabel="Samples per weight", ylabel="Absorbed share", ylim=(-0.05, 1.05))
    for one in (upper, lower):
        one.tick_params(which="both", direction="in", top=True, right=True, labelsize=9)
    _name_band(upper, "standard error of the activity", [curve.absorbed.size for curve in curves])
    if upper.get_legend_handles_labels()[1]:
        legend(figure, upper)
    return figure


def _along(curves: Sequence[Curve], axis: str) -> tuple[list[float], list[float]]:
    """Values of an axis, and samples per weight there."""
    return [float(one.at[axis]) for one in curves], [one.load for one in curves]


def since_waiting(curves: Sequence[Curve], name: str, waits: Sequence[int]) -> Figure:
    """A record since each waiting time against the steps since then: displacements and overlaps.

    Args:
        curves: of one sweep.
        name: of a record with one value for each waiting time.
        waits: these.
    """
    figure, axes = new_figure(5.4, 3.8)
    for curve, style in _styled(figure, axes, curves):
        for k, wait in enumerate(waits):
            since = curve.times - wait
            _, middle, _ = _quartiles(curve.records[name][..., k])
            shown = (since > 0) & np.isfinite(middle) & ((middle > 0) | (name in _LINEAR))
            label = {"label": None} if k else {}
            axes.plot(since[shown], middle[shown], **{**style, "ls": LINES[k % len(LINES)], **label})
        _cross(axes, curve, style["color"])
    axes.set(xscale="log", yscale="linear" if name in _LINEAR else "log")
    if len(waits) > 1:
        for k, wait in enumerate(waits):
            axes.plot([], [], color="0.3", ls=LINES[k % len(LINES)], label=f"$t_w$ = {wait}")
    axes.set(xlabel="Steps since the waiting time" if list(waits) != [0] else "Steps", ylabel=_NAMES.get(name, name))
    _end(figure, axes, curves)
    return figure


def _styled(figure: Figure, axes: Axes, curves: Sequence[Curve]) -> list[tuple[Curve, dict[str, Any]]]:
    """Each curve with its colour and line; of many, colours are a scale of the axis with the most values."""
    if len(curves) <= _MOST_LEGEND:
        colours = shades_of(len(curves))
        return [
            (curve, {"color": colours[i], "ls": LINES[i % len(LINES)], "lw": 1.3, "label": curve.label or None})
            for i, curve in enumerate(curves)
        ]
    values = {name: sorted({curve.at[name] for curve in curves}) for name in curves[0].at}
    along = max(values, key=lambda name: len(values[name]))
    others = list(dict.fromkeys(tuple(v for n, v in curve.at.items() if n != along) for curve in curves))
    low, high = values[along][0], values[along][-1]
    logarithmic = low > 0 and high > 20 * low
    shade = colour_scale(
        np.log10(low) if logarithmic else low, np.log10(high) if logarithmic else high, "viridis", 0, 0.9
    )
    colour_bar(figure, axes, shade, rf"$\log_{{10}}$ {symbol(along)}" if logarithmic else symbol(along))
    for i, other in enumerate(others if 1 < len(others) <= len(LINES) else ()):
        names = [name for name in curves[0].at if name != along]
        label = ", ".join(f"{symbol(name)} = {value:g}" for name, value in zip(names, other, strict=True))
        axes.plot([], [], color="0.3", ls=LINES[i], lw=1.3, label=label)
    found = []
    for curve in curves:
        at = curve.at[along]
        line = LINES[others.index(tuple(v for n, v in curve.at.items() if n != along)) % len(LINES)]
        colour: Any = shade.to_rgba(np.asarray(np.log10(at) if logarithmic else at))
        found.append((curve, {"color": colour, "ls": line, "lw": 1.1}))
    return found


def _quartiles(values: Array) -> tuple[Array, Array, Array]:
    """First quartile, median and third over replicas (time,), of those that are numbers."""
    there = np.isfinite(values).any(axis=0)
    made = np.full((3, values.shape[1]), np.nan)
    made[:, there] = np.nanquantile(values[:, there], (0.25, 0.5, 0.75), axis=0)
    return made[0], made[1], made[2]


def _name_band(axes: Axes, name: str, replicas: Sequence[int]) -> None:
    """What the shaded band is, for the legend; one replica has none."""
    if max(replicas) > 1:
        axes.fill_between([], [], color="0.3", alpha=0.3, lw=0, label=name)


def _cross(axes: Axes, curve: Curve, colour: Any) -> None:
    """Where replicas diverged, on the upper edge."""
    if curve.diverged.any():
        at = np.maximum(curve.diverged_at[curve.diverged], 1)
        height = np.full(len(at), 0.97)
        axes.plot(at, height, "x", color=colour, ms=5, transform=axes.get_xaxis_transform())


def _end(figure: Figure, axes: Axes, curves: Sequence[Curve]) -> None:
    if any(curve.diverged.any() for curve in curves):
        axes.plot([], [], "x", color="0.3", ms=5, label="a replica diverged")
    if axes.get_legend_handles_labels()[1]:
        legend(figure, axes)
