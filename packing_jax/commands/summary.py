"""From a store to numbers and figures: phi_c of every kick, its limit at zero kick, summary.json."""

from __future__ import annotations

import itertools
import json
import math
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.commands import plots
from packing_jax.commands.drawing import write_figures
from packing_jax.criticality import (
    KickEstimate,
    ZeroKickLimit,
    by_other_axes,
    estimate_phi_c,
    open_results,
    verdict,
    was_run,
    zero_kick_limit,
)
from packing_jax.errors import PackingError, printable
from packing_jax.sweeps.folder import Folder

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

METHODS = ("power_law", "threshold")
"""Estimates of phi_c that carry a zero-kick limit and whose refusal earns a note, the preferred one first."""

OTHERS = ("decay", "relaxation", "half_absorbed")
"""Estimates of phi_c reported beside them; most sweeps are not made for these, so `refusals` says why one lacks."""

_POOR_FIT = 4.0  # chi^2 per degree of freedom that earns a note
_APART = 3.0  # joint errors between two methods that earn a note; relaxation times hold a logarithm of N
_COMPARED = ("power_law", "decay", "half_absorbed")
_WIDTH = 80

Limits = dict[tuple[str, float], ZeroKickLimit]


def report(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """phi_c of every kick and batch fraction in DIR/results.zarr, with figures and a summary.

    Writes DIR/figures/*.png and, last and in one move, DIR/summary.json: what this returns.

    Args:
        directory: what packing-jax run or sweep wrote. Runs not done yet are left out and counted.

    Returns:
        A dict of plain JSON values. `phi_c`: one entry for each kick, batch fraction and method that
        did not refuse, with kick, batch_fraction, method, value, stderr and the details of the
        method. `exponents`: (name, value, stderr) by kick and batch fraction. `verdicts`: the
        universality classes that these fit, in words. `refusals`: why a method or exponent lacks.
        `zero_kick_limit`: value, stderr and details, or None; the power law where it has three
        kicks, otherwise the threshold, the weighted mean over batch fractions where there are
        several. `zero_kick_limits`: each of them. `axes`: where a sweep has others, such as particles, their names,
        which every row then has a value of. `notes`: a sentence for each estimate or figure
        that was refused or is doubtful. `runs`, `missing`, `failed`: (phi, kick, batch fraction,
        replica) runs asked for, not done, and marked failed in the store.

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
        summary = found[0] if len(found) == 1 else _joined([where for where, _ in parts], found)
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
    limits, notes = _zero_kick_limits(estimates)
    notes = _doubts(estimates) + notes
    runs = sum(e.runs for e in estimates)
    dim = results.attrs.get("dim")
    failed = int(((results["steps_done"] > 0) & ~was_run(results)).sum())
    missing = sum(e.missing for e in estimates) - failed
    if failed:
        notes.insert(0, f"{failed} of {runs} runs failed: this report leaves them out.")
    if missing:
        notes.insert(0, f"{missing} of {runs} runs are not done: this report uses the others.")
    notes += _draw(folder, model, results, estimates, limits)
    cells = [(e, {"kick": e.kick, "batch_fraction": e.batch_fraction}) for e in estimates]
    summary: dict[str, Any] = {
        "phi_c": [
            where | {"method": method} | asdict(getattr(e, method))
            for e, where in cells
            for method in METHODS + OTHERS
            if getattr(e, method)
        ],
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


def _joined(wheres: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One summary of several models, whose rows and notes say of which they are."""
    rows = ("phi_c", "exponents", "refusals", "verdicts", "zero_kick_limits")
    pairs = list(zip(wheres, found, strict=True))
    return {
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
    """The summary of `report` as a plain text table for a terminal of 80 columns."""
    rate = summary.get("rule") == "sgd"
    lines = [
        f"{'rate' if rate else 'kick':>9} {'batch':>6}  {'method':<13} {'phi_c':>8} {'stderr':>8}  "
        f"{'beta':>15} {'chi2/dof':>12}"
    ]
    lines.append("-" * len(lines[0]))
    model: dict[str, Any] = {}
    for row in summary["phi_c"]:
        if (here := {name: row[name] for name in summary.get("axes", ())}) != model:
            model = here
            lines.append(_named(model))
        beta, quality = "", ""
        if "beta" in row:
            beta = f"{row['beta']:.3f} +- {row['beta_stderr']:.3f}"
        if "dof" in row:
            quality = f"{row['chi2']:.1f}/{row['dof']}"
        lines.append(
            f"{row['kick']:>9.5g} {row['batch_fraction']:>6.4g}  "
            f"{_words(row['method']):<13} {row['value']:>8.5f} {row['stderr']:>8.5f}  "
            f"{beta:>15} {quality:>12}".rstrip()
        )
    if not summary["phi_c"]:
        lines.append("no estimate of phi_c: the notes say why")
    limit = summary["zero_kick_limit"]
    if limit:
        lines += [
            "",
            f"phi_c at zero {'learning rate' if rate else 'kick'}: {limit['value']:.5f} +- "
            f"{limit['stderr']:.5f} ({limit['method'].replace('_', ' ')})",
        ]
    if summary["notes"]:
        lines.append("")
    for note in map(printable, summary["notes"]):
        lines += textwrap.wrap(note, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def _zero_kick_limits(estimates: Sequence[KickEstimate]) -> tuple[Limits, list[str]]:
    """Limits at zero kick by method and batch fraction; notes on what carries them, or why there is none."""
    limits: Limits = {}
    notes = []
    for fraction in sorted({e.batch_fraction for e in estimates}):
        cells = [e for e in estimates if e.batch_fraction == fraction]
        if len(cells) < 3:
            continue  # not asked for
        for method in METHODS:
            found = [(e.kick, getattr(e, method)) for e in cells if getattr(e, method)]
            kicks = [kick for kick, _ in found]
            try:
                limit = zero_kick_limit(
                    kicks, [phi_c.value for _, phi_c in found], [phi_c.stderr for _, phi_c in found]
                )
            except PackingError as error:
                notes.append(f"Batch fraction {fraction:g}, {_words(method)}: {error}.")
                continue
            limits[method, fraction] = limit
            form = limit.form
            where = f"Batch fraction {fraction:g}, {_words(method)}"
            if len(limit.forms) == 1:
                notes.append(
                    f"{where}: three kicks carry a straight line only, so that the zero-kick limit's error "
                    "does not contain a bend: sweep four kicks or more."
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


def _doubts(estimates: Sequence[KickEstimate]) -> list[str]:
    """A sentence for each method that refused, each power law that fits badly, and methods that disagree."""
    notes = []
    for e in estimates:
        where = f"Kick {e.kick:g}, batch fraction {e.batch_fraction:g}"
        notes += [f"{where}, no {_words(method)}: {why}." for method, why in e.refusals if method in METHODS]
        law = e.power_law
        if law and law.chi2 > _POOR_FIT * law.dof:
            notes.append(
                f"{where}: the power law fits badly (chi2/dof {law.chi2:.1f}/{law.dof}), and its "
                "error is stretched by that: scan closer to phi_c."
            )
        found = {method: one for method in _COMPARED if (one := getattr(e, method))}
        apart, pair = max(
            (
                (abs(found[a].value - found[b].value) / math.hypot(found[a].stderr, found[b].stderr), (a, b))
                for a, b in itertools.combinations(found, 2)
            ),
            default=(0.0, ("", "")),
        )
        if apart > _APART:
            one, other = (f"{_words(method)} ({found[method].value:.4f})" for method in pair)
            notes.append(
                f"{where}: phi_c by {one} and by {other} differ by {apart:.1f} joint errors; what finite N and "
                "corrections to scaling do is in neither: run larger systems, and scan closer to phi_c."
            )
    return notes


def _draw(
    folder: Folder, model: str, results: xr.Dataset, estimates: Sequence[KickEstimate], limits: Limits
) -> list[str]:
    """Draw every figure the results allow; returns a note for each that they do not."""
    rule = results.attrs.get("rule", "bro")
    jobs: dict[str, Callable[[], Figure]] = {
        "activity_vs_phi": partial(plots.activity_vs_phi, results, estimates),
        "packing": partial(_picture, results),
    }
    ran = [e for e in estimates if e.missing < e.runs]
    fractions = {e.batch_fraction for e in ran}
    for e in ran:
        name = "activity_vs_time"
        name += f"_kick_{e.kick:g}" if len(ran) > 1 else ""
        name += f"_batch_{e.batch_fraction:g}" if len(fractions) > 1 else ""
        jobs[name] = partial(plots.activity_vs_time, results, e.kick, e.batch_fraction)
    if len({e.kick for e in estimates if e.threshold or e.power_law}) > 1:
        jobs["phi_c_vs_kick"] = partial(plots.phi_c_vs_kick, estimates, limits, rule)

    place = f"figures/{model}".rstrip("/")
    for name in dict.fromkeys(("figures", place)):
        folder.make(name)
    return write_figures(folder, place, jobs)


def _picture(results: xr.Dataset) -> Figure:
    """The packing at the lowest phi that stays active, or the densest one if all are absorbed."""
    for name in ("positions", "diameters"):
        if name not in results:
            raise PackingError(f"these results lack the variable '{name}'")
    dims = ("kick", "batch_fraction", "phi", "replica")
    results = results.sortby(["phi", "kick", "batch_fraction"])
    run = was_run(results).transpose(*dims).values
    active = run & (results["absorbed_at"].transpose(*dims).values < 0)
    if not run.any():
        raise PackingError("no replica of this sweep has been run yet: there is nothing to draw")
    k, b = np.argwhere(run.any(axis=(2, 3)))[0]
    settled = active[k, b].sum(axis=1) > 0.5 * run[k, b].sum(axis=1)
    p = np.flatnonzero(settled)[0] if settled.any() else np.flatnonzero(run[k, b].any(axis=1))[-1]
    r = np.flatnonzero(active[k, b, p] if settled.any() else run[k, b, p])[0]
    at = {"phi": p, "kick": k, "batch_fraction": b, "replica": r}
    try:
        positions = results["positions"].isel(at).transpose("particle", "axis").values
        diameters = results["diameters"].isel(phi=p).values
    except PackingError as error:  # one damaged chunk must not cost the numbers
        raise PackingError(f"the positions cannot be read ({error})") from error
    phi = float(results["phi"].values[p])
    return plots.packing(positions, diameters, title=rf"$\phi = {phi:.4g}$")


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
