"""From a store of networks to a table, summary.json and figures."""

from __future__ import annotations

import itertools
import json
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.commands import learning_plots as plots
from packing_jax.commands.drawing import write_figures
from packing_jax.commands.learning_plots import Curve
from packing_jax.commands.summary import strict
from packing_jax.criticality.recommended import SCHEMA, Recommended, of_task
from packing_jax.criticality.stationarity import final_activity
from packing_jax.errors import PackingError
from packing_jax.networks.tasks import TASKS
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.schema import stored_control

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 80
_MOST_ROWS = 60  # that are printed


def report(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What a sweep of networks came to; writes DIR/figures/*.png and DIR/summary.json, which is what this returns.

    Args:
        directory: what packing-jax train wrote. Runs not done yet are left out and counted.

    Returns:
        Plain JSON values. `schema` and `recommended`: as of spheres, see :func:`packing_jax.commands.summary.report`;
        of a task that has a control such as the number of samples, its critical value for each combination of the
        other axes. `rows`: one for each combination of the axes' values, with these, the numbers of `runs`,
        `absorbed`, `active`, `diverged` and `missing` replicas, the steps at which they diverged, `samples_per_weight`,
        and of each record the median over replicas of its last value and their quartiles; of the activity also the mean
        over the last quarter of the run and its standard error, absorbed replicas counting 0. `axes`: those that have
        several values. `task`, `rule`, `steps`, `notes`, and the totals.

    Raises:
        PackingError: no store there, a damaged one, or a directory that cannot be written.
    """
    root = Path(directory)
    reader = Reader(root)
    attributes, cells = reader.attributes, reader.cells
    curves = _curves(reader)
    several = [name for name, values in cells.axes.items() if len(values) > 1 and name != "replica"]
    rows = [_row(curve, len(cells.axes["replica"]), cells.axes) for curve in curves]
    notes = []
    totals = {name: sum(row[name] for row in rows) for name in ("runs", "absorbed", "active", "diverged", "missing")}
    if totals["missing"]:
        notes.append(
            f"{totals['missing']} of {totals['runs']} runs are not done or failed: this report uses the others."
        )
    try:
        folder = Folder(root)
        best, refused = _recommended(curves, attributes, cells.axes)
        notes += refused
        notes += _draw(folder, curves, attributes, several, best)
        summary: dict[str, Any] = strict(
            {
                "schema": SCHEMA,
                "kind": "networks",
                "recommended": [asdict(one) for one in best],
                **{name: attributes.get(name) for name in ("task", "rule", "steps", "precision")},
                "axes": several,
                "rows": rows,
                **totals,
                "notes": notes,
            }
        )
        folder.write({"summary.json": (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode()})
    except OSError as error:
        raise PackingError(
            f"{root} cannot be written ({error.strerror or error}): it must be a writable directory"
        ) from error
    return summary


def _curves(reader: Reader) -> list[Curve]:
    """The replicas at each combination of the axes' values."""
    attributes, axes, entries = reader.attributes, reader.cells.axes, reader.manifest.entries
    names = [name for name in axes if name != "replica"]
    times = reader.layout.times.astype(float)
    records = [name for name in reader.layout.records if name != "snapshots"]
    results = reader.results((*records, "samples_per_weight"))
    arrays = {name: results[name].transpose(*names, "replica", "time", ...).values.astype(float) for name in records}
    loads = results.get("samples_per_weight")
    size = _size(attributes)
    found = []
    for place in np.ndindex(*(len(axes[name]) for name in names)):
        values = tuple(axes[name][i] for name, i in zip(names, place, strict=True))
        ended = [entries.get((*values, replica)) for replica in axes["replica"]]
        done = np.array([one is not None and (one.state == "diverged" or _whole(one, attributes)) for one in ended])
        some = {name: array[place].copy() for name, array in arrays.items()}
        for array in some.values():
            array[~done] = np.nan
        diverged = [one.steps if one is not None and one.state == "diverged" else -1 for one in ended]
        load = np.nan
        if loads is not None:
            load = float(loads.isel({n: i for n, i in zip(names, place, strict=True) if n in loads.dims}))
        found.append(
            Curve(
                {name: value for name, value in zip(names, values, strict=True) if len(axes[name]) > 1},
                times,
                some,
                np.array([-1 if one is None else one.absorbed_at for one in ended])[done],
                np.array(diverged)[done],
                load,
                int(values[names.index(size)]) if size else results.sizes["weight"],
            )
        )
        found[-1] = found[-1]._replace(records={name: array[done] for name, array in some.items()})
    if not any(len(next(iter(one.records.values()), ())) for one in found):
        raise PackingError("no replica of this sweep has been run yet: there is nothing to report")
    return found


def _whole(entry: Any, attributes: dict[str, Any]) -> bool:
    return entry.state in ("active", "absorbed") and entry.covers >= int(attributes["steps"])


def _row(curve: Curve, replicas: int, axes: dict[str, Any]) -> dict[str, Any]:
    """What the summary says of the replicas at one value of each axis."""
    diverged_at = curve.diverged_at[curve.diverged]
    diverged = len(diverged_at)
    ran = len(curve.absorbed)
    row: dict[str, Any] = {
        **{name: curve.at.get(name, axes[name][0]) for name in axes if name != "replica"},
        "runs": replicas,
        "absorbed": int(curve.absorbed.sum()),
        "active": ran - diverged - int(curve.absorbed.sum()),
        "diverged": diverged,
        "missing": replicas - ran,
        "diverged_at": diverged_at.tolist(),
        "samples_per_weight": curve.load,
    }
    for name, values in curve.records.items():
        if values.ndim > 2:
            continue
        last = values[:, -1][np.isfinite(values[:, -1])] if len(values) else values[:0, 0]
        low, middle, high = np.quantile(last, (0.25, 0.5, 0.75)) if len(last) else (np.nan,) * 3
        row |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    if "activity" in curve.records and ran:
        end = final_activity(curve.times, curve.records["activity"], curve.absorbed)
        end = end[np.isfinite(end)]
        row["activity_mean"] = end.mean() if len(end) else np.nan
        row["activity_stderr"] = end.std(ddof=1) / np.sqrt(len(end)) if len(end) > 1 else None
    return row


def _recommended(
    curves: Sequence[Curve], attributes: dict[str, Any], axes: Mapping[str, Any]
) -> tuple[list[Recommended], list[str]]:
    """The critical value of the control for each combination of the other axes, and why there is none."""
    control, size = stored_control(attributes), _size(attributes)
    if control is None or len(axes[control]) < 2:
        return [], []
    found, notes = [], []
    groups: dict[tuple[tuple[str, float], ...], list[Curve]] = {}
    for curve in curves:
        groups.setdefault(tuple(one for one in curve.at.items() if one[0] not in (control, size)), []).append(curve)
    for where, members in groups.items():
        stayed = [one.absorbed_at[~one.diverged] for one in members]  # what diverged is neither absorbed nor active
        counts = [len(one) for one in stayed]
        samples = np.repeat([float(one.at[control]) for one in members], counts)
        weights = np.repeat([one.weights for one in members], counts).astype(float)
        gone = np.concatenate(stayed)
        fixed = {name: values[0] for name, values in axes.items() if len(values) == 1 and name not in (size, "replica")}
        try:
            found.append(of_task(control, samples, weights, int(attributes["steps"]), gone, {**fixed, **dict(where)}))
        except PackingError as refusal:
            at = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in where)
            notes.append(f"{at + ': ' if at else ''}no critical {control}: {refusal}")
    return found, notes


def _size(attributes: dict[str, Any]) -> str | None:
    """The axis that is the number of weights, if the task has one."""
    if "size_axis" in attributes:
        return None if attributes["size_axis"] is None else str(attributes["size_axis"])
    task = TASKS.get(str(attributes.get("task")))  # stores of earlier versions do not say it
    return task.size if task else None


def _draw(
    folder: Folder,
    curves: Sequence[Curve],
    attributes: dict[str, Any],
    several: list[str],
    recommended: Sequence[Recommended],
) -> list[str]:
    """Draw every figure the results allow; a note for each that they do not."""
    jobs: dict[str, Callable[[], Figure]] = {}
    for name, values in curves[0].records.items():
        if values.ndim == 2:
            jobs[f"{name}_vs_steps"] = partial(plots.against_steps, curves, name)
        elif name in ("msd", "overlap", "non_gaussian"):
            jobs[f"{name}_vs_steps"] = partial(plots.since_waiting, curves, name, attributes["waits"])
    along = [name for name in several if _loads_differ(curves, name)]
    if "activity" in curves[0].records and along:
        jobs["activity_vs_load"] = partial(plots.against_load, curves, along[0], recommended)
    folder.make("figures")
    return write_figures(folder, "figures", jobs)


def _loads_differ(curves: Sequence[Curve], axis: str) -> bool:
    """Whether samples per weight vary with an axis alone."""
    groups: dict[Any, set[float]] = {}
    for curve in curves:
        groups.setdefault(tuple(one for one in curve.at.items() if one[0] != axis), set()).add(curve.load)
    return any(len(loads) > 1 for loads in groups.values())


def format_summary(summary: dict[str, Any]) -> str:
    """The summary of `report` as a plain text table for a terminal of 80 columns."""
    rows, axes = summary["rows"], summary["axes"]
    shown = [("loss", "loss"), ("activity_mean", "activity"), ("test_loss", "test loss"), ("accuracy", "accuracy")]
    shown += [("test_accuracy", "test acc.")]
    shown = [(key, title) for key, title in shown if any(key in row for row in rows)][:4]
    states = [name for name in ("absorbed", "diverged", "missing") if any(row[name] for row in rows)]
    room = (_WIDTH - 6 - 10 * len(states) - 11 * len(shown)) // 11
    heads, columns = axes[: max(0, len(axes) - room)], axes[max(0, len(axes) - room) :]
    title = "".join(f"{_short(name):>11}" for name in columns) + f"{'runs':>6}" + "".join(f"{n:>10}" for n in states)
    title += "".join(f"{name:>11}" for _, name in shown)
    lines = [line for one in summary["recommended"] for line in _recommendation(one, axes)]
    lines += [f"{summary['task']}, rule {summary['rule']}, {summary['steps']} steps", "", title, "-" * len(title)]
    for head, some in itertools.groupby(rows[:_MOST_ROWS], key=lambda row: tuple(row[name] for name in heads)):
        if heads:
            lines.append(", ".join(f"{n} {v:g}" for n, v in zip(heads, head, strict=True)).replace("_", " "))
        for row in some:
            text = "".join(f"{row[name]:>11.5g}" for name in columns) + f"{row['runs']:>6}"
            text += "".join(f"{row[name]:>10}" for name in states)
            lines.append(text + "".join(f"{_number(row.get(key)):>11}" for key, _ in shown))
    if len(rows) > _MOST_ROWS:
        lines.append(f"and {len(rows) - _MOST_ROWS} more in summary.json")
    what = "medians over replicas at the last step"
    if any(key == "activity_mean" for key, _ in shown):
        what += "; activity: mean over the last quarter, absorbed ones counting 0"
    lines += ["", *textwrap.wrap(f"({what})", _WIDTH)]
    for note in summary["notes"]:
        lines += textwrap.wrap(note, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def _recommendation(one: dict[str, Any], axes: Sequence[str]) -> list[str]:
    """The value to quote, where it comes from, and what its error is made of."""
    at = ", ".join(f"{name.replace('_', ' ')} {one['axes'][name]:g}" for name in axes if name in one["axes"])
    text = (
        f"{one['parameter']}_c = {one['value']:.4f} +- {one['stderr']:.4f}{f' at {at}' if at else ''}: {one['why']}. "
        f"Its error is made of {one['statistical']:.4f} from the replicas, {one['run_length']:.4f} from the length of "
        f"the runs, and {one['size']:.4f} from the size."
    )
    return [*textwrap.wrap(text, _WIDTH), ""]


def _short(name: str) -> str:
    return {"learning_rate": "rate", "weight_decay": "decay", "temperature": "temp."}.get(name, name.replace("_", " "))[
        :10
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
