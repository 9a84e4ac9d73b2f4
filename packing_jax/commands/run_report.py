"""What came out of one packing fraction: a table for the terminal, and a figure against time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.commands.drawing import LINES, new_figure, shades_of
from packing_jax.criticality import open_results, was_run
from packing_jax.sweeps.folder import Folder

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = 10  # replicas with a line of their own, in the table and in the legend
_LABELS = {
    "activity": r"Activity $f_a$",
    "energy": r"Energy per particle ($\bar\sigma$)",
    "displacement": r"Displacement ($\bar\sigma$)",
}
_UNITS = {"activity": "fraction", "energy": "per particle", "displacement": "diameters"}


def run_report(directory: str | os.PathLike[str]) -> str | None:
    """What came out of a run of one packing fraction, kick and batch fraction.

    Draws DIR/figures/run.png.

    Args:
        directory: what packing-jax run wrote.

    Returns:
        A table for a terminal of 80 columns: of each replica when it was absorbed, and its activity, energy, root mean
        squared displacement and scalar observables of the user's own at the last step. None for a sweep of several
        values of an axis, and where nothing is finished yet.

    Raises:
        PackingError: no store there, a damaged one, or a directory that cannot be written.
    """
    results = open_results(directory)
    axes = [dim for dim in was_run(results).dims if dim != "replica"]
    if any(results.sizes[dim] > 1 for dim in axes):
        return None
    results = results.squeeze(axes)
    done = was_run(results).values
    if not done.any():
        return None
    times, records = results["time"].values, _records(results, done)
    absorbed_at = results["absorbed_at"].values[done]
    replicas = results["replica"].values[done]
    folder = Folder(Path(directory))
    folder.make("figures")
    with folder.replacing("figures/run.png", flushed=False) as file:
        against_time(times, records, absorbed_at, _title(results)).savefig(file, format="png")
    return _table(results, replicas, absorbed_at, {name: values[:, -1] for name, values in records.items()})


def against_time(times: np.ndarray, records: dict[str, np.ndarray], absorbed_at: np.ndarray, title: str) -> Figure:
    """Records against time on a logarithmic axis, a panel each; a dotted line where a replica was absorbed.

    Args:
        times: steps, (time,).
        records: name -> values, (replica, time).
        absorbed_at: step, -1 where still active, (replica,).
        title: above the panels.
    """
    figure, first = new_figure(5.4, 1.0 + 1.9 * len(records))
    figure.delaxes(first)
    panels = figure.subplots(len(records), sharex=True, squeeze=False)[:, 0]
    shades = shades_of(len(absorbed_at))
    few = len(absorbed_at) <= _ROWS
    for panel, (name, values) in zip(panels, records.items(), strict=True):
        panel.tick_params(which="both", direction="in", top=True, right=True, labelsize=9)
        for replica, (curve, end) in enumerate(zip(values, absorbed_at, strict=True)):
            before = (times > 0) & ((times <= end) | (end < 0))
            shown = before & (curve > 0) if _logarithmic(name, values) else before
            panel.plot(times[shown], curve[shown], color=shades[replica], lw=1.3 if few else 0.7)
            if end >= 0:
                panel.axvline(end, color=shades[replica], lw=0.9, ls=LINES[2])
        if _logarithmic(name, values):
            panel.set_yscale("log")
        panel.set_ylabel(_LABELS.get(name, name.replace("_", " ")))
    panels[0].set(xscale="log", xlim=(1, max(int(times[-1]), 2)))
    panels[-1].set_xlabel(r"Time $t$ (steps)")
    _say_when(panels[0], absorbed_at, shades, few)
    figure.suptitle(title, fontsize=9)
    return figure


def _say_when(panel: Axes, absorbed_at: np.ndarray, shades: list[Any], few: bool) -> None:
    """A legend of what became of each replica, or of how many were absorbed."""
    if not few:
        panel.plot([], [], color="0.3", ls=LINES[2], lw=0.9, label=f"{np.sum(absorbed_at >= 0)} replicas absorbed")
        panel.plot([], [], color="0.3", lw=0.7, label=f"{np.sum(absorbed_at < 0)} active at the end")
    for shade, end in zip(shades if few else [], absorbed_at, strict=False):
        label = f"absorbed at step {end:,}" if end >= 0 else "active at the end"
        panel.plot([], [], color=shade, lw=1.3, label=label)
    panel.legend(frameon=False, fontsize=7.5, loc="lower left")


def _logarithmic(name: str, values: np.ndarray) -> bool:
    """Whether a record spans decades."""
    finite = values[np.isfinite(values)]
    return name in _LABELS and bool((finite > 0).any())


def _records(results: xr.Dataset, done: np.ndarray) -> dict[str, np.ndarray]:
    """The scalar records of the replicas that were run, (replica, time); the displacement in place of its square."""
    found = {}
    for name, values in results.data_vars.items():
        if set(values.dims) == {"replica", "time"}:
            found[str(name)] = values.transpose("replica", "time").values[done].astype(float)
    if "msd" in found:
        found["displacement"] = np.sqrt(found.pop("msd"))
    order = [*_LABELS, *(name for name in found if name not in _LABELS)]
    return {name: found[name] for name in order if name in found}


def _title(results: xr.Dataset) -> str:
    symbol = r"\alpha" if results.attrs.get("rule") == "sgd" else r"\epsilon"
    return rf"$\phi = {float(results['phi']):g}$, ${symbol} = {float(results['kick']):g}\,\bar\sigma$"


def _table(results: xr.Dataset, replicas: np.ndarray, absorbed_at: np.ndarray, ends: dict[str, np.ndarray]) -> str:
    """Replicas below one another; a last line is their mean."""
    known = results.attrs
    rate = "learning rate" if known.get("rule") == "sgd" else "kick"
    words = [f"phi {float(results['phi']):g}", f"{rate} {float(results['kick']):g}"]
    words += [f"{known['particles']:,} spheres in {known['dim']}D"] if {"particles", "dim"} <= set(known) else []
    words += [f"{int(results['time'][-1]):,} steps"]
    widths = {name: max(12, len(name)) for name in ends}
    while sum(2 + width for width in widths.values()) > 80 - 21:  # the others are in the store and the figure
        widths.popitem()
    head = f"{'replica':>7}{'absorbed at':>14}" + "".join(f"  {name:>{widths[name]}}" for name in widths)
    units = f"{'':>7}{'step':>14}" + "".join(f"  {_UNITS.get(name, ''):>{widths[name]}}" for name in widths)
    lines = [", ".join(words), "", head, units.rstrip(), "-" * len(head)]

    def line(first: str, second: str, values: list[float]) -> str:
        return f"{first:>7}{second:>14}" + "".join(
            f"  {value:>{width}.4g}" for value, width in zip(values, widths.values(), strict=True)
        )

    for row, (replica, end) in enumerate(zip(replicas, absorbed_at, strict=True)):
        if row < _ROWS:
            when = f"{end:,}" if end >= 0 else "still active"
            lines.append(line(str(replica), when, [float(ends[name][row]) for name in widths]))
    if len(replicas) > _ROWS:
        lines.append(f"{'...':>7}")
    if len(replicas) > 1:
        gone = f"{np.sum(absorbed_at >= 0)} of {len(replicas)}"
        lines.append(line("mean", gone, [float(np.mean(ends[name])) for name in widths]))
    return "\n".join(lines)
