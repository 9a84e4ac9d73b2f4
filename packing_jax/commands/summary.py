"""From a store to numbers and figures: phi_c of every kick, its limit at zero kick, summary.json."""

from __future__ import annotations

import itertools
import json
import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.commands.summary_figures import Limits, draw
from packing_jax.criticality import (
    KickEstimate,
    by_other_axes,
    estimate_phi_c,
    open_results,
    verdict,
    was_run,
    zero_kick_limit,
)
from packing_jax.criticality.recommended import SCHEMA, of_infinite_systems
from packing_jax.errors import PackingError, printable
from packing_jax.sweeps.folder import Folder

if TYPE_CHECKING:
    import xarray as xr

METHODS = ("absorption", "power_law", "threshold")
"""Estimates of phi_c that carry a zero-kick limit and whose refusal earns a note, the preferred one first."""

OTHERS = ("decay", "relaxation", "half_absorbed")
"""Estimates of phi_c reported beside them; most sweeps are not made for these, and the table says why one lacks."""

_POOR_FIT = 4.0  # chi^2 per degree of freedom that earns a note
_APART = 3.0  # joint errors from the recommended value that earn a note
_NO_SCATTER = 0.1  # chi^2 per degree of freedom below which a fit had nothing to be tested by
_WIDTH = 80


def report(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """phi_c of every kick and batch fraction in DIR/results.zarr, with figures and a summary.

    Writes DIR/figures/*.png and, last and in one move, DIR/summary.json: what this returns.

    Args:
        directory: what packing-jax run or sweep wrote. Runs not done yet are left out and counted.

    Returns:
        A dict of plain JSON values. `schema`: the version of this form. `recommended`: for each kick and batch fraction
        the value to quote, {parameter, axes, value, stderr, statistical, run_length, size, method, why}; where a sweep
        has several sizes, that of infinite systems first. `phi_c`: one entry for each kick, batch fraction and method
        that did not refuse, with kick, batch_fraction, method, value, its errors as in `recommended` (null where a part
        is not known), and the details of the method. `exponents`: (name, value, stderr) by kick and batch fraction.
        `verdicts`: the universality classes that these fit, in words. `refusals`: why a method or exponent lacks.
        `zero_kick_limit`: value, stderr and details, or None; of the first of `METHODS` that has three kicks, the
        weighted mean over batch fractions where there are several. `zero_kick_limits`: each of them.
        `axes`: where a sweep has others, such as particles, their names, which every row then has a value of. `notes`:
        a sentence for each estimate or figure that was refused or is doubtful. `runs`, `missing`, `failed`: (phi, kick,
        batch fraction, replica) runs asked for, not done, and marked failed in the store.

    Raises:
        PackingError: no store there, a damaged one, or a directory that cannot be written.
    """
    root = Path(directory)
    parts = by_other_axes(open_results(root))
    try:
        folder = Folder(root)
        found = [
            _summary(part, folder, "_".join(f"{name}_{value:g}" for name, value in where.items()))
            for where, part in parts
        ]
        wheres = [where for where, _ in parts]
        summary = found[0] if len(found) == 1 else _joined(wheres, found, _infinite(parts))
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        folder.write({"summary.json": text.encode()})
    except OSError as error:
        raise PackingError(
            f"{root} cannot be written ({error.strerror or error}): it must be a writable directory"
        ) from error
    return summary


def _summary(results: xr.Dataset, folder: Folder, model: str) -> dict[str, Any]:
    """What a report says of one model, whose figures are drawn into figures/, or figures/MODEL/ where it has a name."""
    estimates = estimate_phi_c(results)
    rule = results.attrs.get("rule")
    temperature = results.attrs.get("temperature")
    warm = isinstance(temperature, (int, float)) and temperature > 0
    judged = [] if warm else estimates
    limits, notes = _zero_kick_limits(judged, rule)
    notes = _doubts(judged, rule) + notes
    if warm:
        notes.append("With a temperature no run is ever absorbed, and there is no phi_c.")
    runs = sum(e.runs for e in estimates)
    dim = results.attrs.get("dim")
    failed = int(((results["steps_done"] > 0) & ~was_run(results)).sum())
    missing = sum(e.missing for e in estimates) - failed
    if failed:
        notes.insert(0, f"{failed} of {runs} runs failed: this report leaves them out.")
    if missing:
        notes.insert(0, f"{missing} of {runs} runs are not done: this report uses the others.")
    notes += draw(folder, model, results, estimates, limits)
    cells = [(e, {"kick": e.kick, "batch_fraction": e.batch_fraction}) for e in judged]
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "recommended": [asdict(best) for e in judged if (best := e.recommended())],
        "phi_c": [where | row for e, where in cells for row in _rows(e)],
        "exponents": [
            where | {"name": name, "value": value, "stderr": error}
            for e, where in cells
            for name, (value, error) in e.exponents().items()
        ],
        "refusals": [where | {"method": method, "why": why} for e, where in cells for method, why in e.refusals],
        "verdicts": [
            where | {"text": verdict(e.exponents(), dim).text}
            for e, where in cells
            if dim and set(e.exponents()) - {"alpha"}
        ],
        "zero_kick_limit": _best_limit(limits),
        "zero_kick_limits": [
            {"method": method, "batch_fraction": fraction} | asdict(limit)
            for (method, fraction), limit in limits.items()
        ],
        "notes": notes,
        "runs": runs,
        "missing": missing,
        "failed": failed,
    }
    plain: dict[str, Any] = strict(
        summary | {key: results.attrs.get(key) for key in ("rule", "dim", "particles", "steps")}
    )
    return plain


def _rows(e: KickEstimate) -> list[dict[str, Any]]:
    """What each method found, with the parts of its error in the place of the error of the replicas alone."""
    parts = dict(e.errors)
    return [
        {"method": method} | asdict(getattr(e, method)) | {"stderr": parts[method].total} | asdict(parts[method])
        for method in METHODS + OTHERS
        if method in parts
    ]


def _infinite(parts: Sequence[tuple[dict[str, Any], xr.Dataset]]) -> list[dict[str, Any]]:
    """The values to quote of infinite systems, where sizes alone set the parts of a sweep apart."""
    if any(set(where) != {"particles"} for where, _ in parts):
        return []
    return [asdict(one) for one in of_infinite_systems([part for _, part in parts])]


def _joined(
    wheres: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], infinite: list[dict[str, Any]]
) -> dict[str, Any]:
    """One summary of several models; rows and notes say of which they are. Values for infinite systems come first."""
    rows = ("phi_c", "exponents", "refusals", "verdicts", "zero_kick_limits")
    pairs = list(zip(wheres, found, strict=True))
    recommended = [one | {"axes": where | one["axes"]} for where, part in pairs for one in part["recommended"]]
    return {
        "schema": SCHEMA,
        "recommended": infinite + recommended,
        **{name: [where | row for where, one in pairs for row in one[name]] for name in rows},
        "zero_kick_limit": None,
        "notes": [f"{_named(where)}: {note}" for where, one in pairs for note in one["notes"]],
        **{name: sum(one[name] for one in found) for name in ("runs", "missing", "failed")},
        **{name: found[0][name] for name in ("rule", "dim", "steps")},
        **{name: [where[name] for where in wheres] for name in wheres[0]},
        "axes": list(wheres[0]),
    }


def _named(where: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in where.items()).replace("_", " ")


def format_summary(summary: dict[str, Any]) -> str:
    """The summary of `report` for a terminal of 80 columns: the value to quote first, then every method's."""
    axes = summary.get("axes", ())
    lines = [line for one in summary["recommended"] for line in _recommendation(one, summary)]
    if not lines:
        lines = ["no phi_c can be recommended: the notes say why"]
    head = f"{'':13} {'phi_c':>9} {'error':>9} {'replicas':>9} {'length':>9} {'size':>9} {'chi2/dof':>12}"
    names = (*axes, "kick", "batch_fraction")
    for at, rows in itertools.groupby(summary["phi_c"], key=lambda row: {name: row[name] for name in names}):
        lines += ["", _cell(at, summary), head, "-" * len(head)]
        for row in rows:
            cells = [f"{_number(row[name]):>9}" for name in ("value", "stderr", "statistical", "run_length", "size")]
            lines.append(f"{_words(row['method']):13} {' '.join(cells)} {_quality(row):>12}".rstrip())
            if "beta" in row:
                lines.append(f"{'':13} beta = {row['beta']:.3f} +- {row['beta_stderr']:.3f}")
        lines += _lacking(at, summary)
    if any(row["stderr"] is None for row in summary["phi_c"]):
        lines.append("- : unknown, since half of the run is too short for this method")
    limit = summary["zero_kick_limit"]
    if limit:
        lines += [
            "",
            f"phi_c at zero {_kick_word(summary)}: {limit['value']:.5f} +- "
            f"{limit['stderr']:.5f} ({limit['method'].replace('_', ' ')})",
        ]
    if summary["notes"]:
        lines.append("")
    for note in map(printable, summary["notes"]):
        lines += textwrap.wrap(note, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def _lacking(at: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """A row for each of `OTHERS` that gave no value, with the reason; the notes say those of `METHODS`."""
    lines = []
    for one in summary["refusals"]:
        if one["method"] in OTHERS and all(one[name] == value for name, value in at.items()):
            first = f"{_words(one['method']):13} "
            text = f"no value: {one['why']}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
    return lines


def _recommendation(one: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """The value to quote, where it comes from, and what its error is made of."""
    parts = f"{one['statistical']:.5f} from the replicas, {one['run_length']:.5f} from the length of the runs"
    text = (
        f"phi_c = {one['value']:.5f} +- {one['stderr']:.5f} at {_cell(one['axes'], summary)}: {one['why']}. Its error "
        f"is made of {parts}, and {one['size']:.5f} from the size."
    )
    return textwrap.wrap(text, _WIDTH)


def _cell(at: dict[str, Any], summary: dict[str, Any]) -> str:
    """The values of the axes, in words; the batch fraction is that of SGD alone."""
    words = {"kick": _kick_word(summary)}
    shown = {words.get(name, name): value for name, value in at.items()}
    if summary.get("rule") != "sgd":
        shown.pop("batch_fraction", None)
    return _named(shown)


def _kick_word(summary: dict[str, Any]) -> str:
    return "learning rate" if summary.get("rule") == "sgd" else "kick"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _quality(row: dict[str, Any]) -> str:
    """chi^2 of a fit and its degrees of freedom; nothing where replicas that agree leave nothing to fit."""
    if not row.get("dof") or row["chi2"] < _NO_SCATTER * row["dof"]:
        return ""
    return f"{row['chi2']:.1f}/{row['dof']}"


def _zero_kick_limits(estimates: Sequence[KickEstimate], rule: str | None) -> tuple[Limits, list[str]]:
    """Limits at zero kick by method and batch fraction; notes on what carries them, or why there is none."""
    limits: Limits = {}
    notes = []
    for fraction in sorted({e.batch_fraction for e in estimates}):
        cells = [e for e in estimates if e.batch_fraction == fraction]
        if len(cells) < 3:
            continue  # not asked for
        for method in METHODS:
            where = (f"batch fraction {fraction:g}, " if rule == "sgd" else "") + _words(method)
            where = where.capitalize()
            totals = [(e, dict(e.errors)[method].total) for e in cells if getattr(e, method)]
            found = [(e.kick, getattr(e, method).value, total) for e, total in totals if total is not None]
            try:
                kicks, values, stderrs = np.array(found).reshape(-1, 3).T
                limit = zero_kick_limit(kicks, values, stderrs)
            except PackingError as error:
                notes.append(f"{where}: {error}.")
                continue
            limits[method, fraction] = limit
            form = limit.form
            if len(limit.forms) == 1:
                notes.append(
                    f"{where}: three kicks allow only a straight line, so the error of the zero-kick limit "
                    "does not include a curvature: sweep four kicks or more."
                )
            if form.chi2 > _POOR_FIT * form.dof:
                notes.append(
                    f"{where}: phi_c is not {form.name} in the kick (chi2/dof {form.chi2:.1f}/{form.dof}), so its "
                    "zero-kick limit is rough: sweep smaller kicks."
                )
    return limits, notes


def _best_limit(limits: Limits) -> dict[str, Any] | None:
    for method in METHODS:
        chosen = {fraction: limit for (m, fraction), limit in limits.items() if m == method}
        if len(chosen) == 1:
            fraction, limit = chosen.popitem()
            return {"method": method, "batch_fraction": fraction} | asdict(limit)
        if chosen:
            value, stderr = np.array([(limit.value, limit.stderr) for limit in chosen.values()]).T
            weight = stderr**-2
            mean = weight @ value / weight.sum()
            chi2, dof = weight @ (value - mean) ** 2, len(value) - 1
            error = math.sqrt(max(1.0, chi2 / dof) / weight.sum())
            combined = {"value": mean, "stderr": error, "chi2": chi2, "dof": dof}
            return {"method": method, "batch_fraction": None} | combined
    return None


def _doubts(estimates: Sequence[KickEstimate], rule: str | None) -> list[str]:
    """A sentence for each method that refused, each power law that fits badly, and methods that disagree."""
    notes = []
    for e in estimates:
        where = _cell({"kick": e.kick, "batch_fraction": e.batch_fraction}, {"rule": rule}).capitalize()
        notes += [f"{where}: no phi_c by {_words(method)}: {why}." for method, why in e.refusals if method in METHODS]
        for method in dict(e.errors):
            one = getattr(e, method)
            if getattr(one, "dof", 0) and one.chi2 > _POOR_FIT * one.dof:
                notes.append(
                    f"{where}: {_words(method)} fits badly (chi2/dof {one.chi2:.1f}/{one.dof}), and its error "
                    "is enlarged for that: scan closer to phi_c."
                )
        notes += _apart(e, where)
    return notes


def _apart(e: KickEstimate, where: str) -> list[str]:
    """A sentence for each method that is further from the recommended value than their errors explain."""
    best = e.recommended()
    found = []
    for method, part in e.errors:
        if best is None or method == best.method or part.total is None:
            continue
        value = getattr(e, method).value
        apart = abs(value - best.value) / math.hypot(part.total, best.stderr)
        if apart > _APART:
            found.append(
                f"{where}: {_words(method)} gives phi_c = {value:.4f}, {apart:.1f} joint errors from the recommended "
                f"{best.value:.4f}: run longer and larger systems, and scan closer to phi_c."
            )
    return found


def strict(value: Any) -> Any:
    """The same data as plain JSON: no NumPy scalars, tuples, NaN or infinity."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, np.generic):
        return strict(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _words(method: str) -> str:
    return method.replace("_", " ")
