"""A look at a sweep from outside: where it stands, and whether a cell comes out again as it was stored."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.cells import Finished, Index, Layout, description, read_cell
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.manifest import Manifest, is_locked
from packing_jax.sweeps.progress import guess_phi_c, read_progress
from packing_jax.sweeps.run import finished_cell, run_cells
from packing_jax.sweeps.spheres import Sweep, layout_of, recorded


def _opened(directory: Path) -> tuple[Sweep, Layout, Manifest]:
    attributes = description(directory)
    spec = recorded(attributes)
    layout = layout_of(spec, "")._replace(attributes=attributes)
    return spec, layout, Manifest.read(directory / "manifest.jsonl")


def status(directory: Path) -> dict[str, Any]:
    """Where a running or stopped sweep stands; nothing is changed and no chunk is read.

    Returns:
        Plain JSON values: `running`, the numbers of `total`, `done`, `absorbed`, `active`, `failed` and `missing`
        cells, `under_way`, `speed` (particle-steps/s) and `seconds_left` of a running sweep, `phi_c` guesses, `reasons`
        why cells failed, `steps`, and the `sessions` that worked on it.

    Raises:
        PackingError: no sweep there.
    """
    spec, layout, manifest = _opened(directory)
    last = int(layout.coordinates["time"][-1])
    absorbed, active, failed = (np.zeros(layout.shape, bool) for _ in range(3))
    reasons = []
    for name, cell in layout.places().items():
        entry = manifest.entries.get(name)
        if entry is None or entry.state == "damaged":
            continue
        if entry.state in ("diverged", "failed"):
            failed[cell] = True
            reasons.append(entry.reason)
        elif entry.covers >= last:
            (absorbed if entry.state == "absorbed" else active)[cell] = True
    running = is_locked(directory / "manifest.jsonl")
    now = read_progress(directory) if running else None
    done = int((absorbed | active | failed).sum())
    return {
        "running": running,
        "total": absorbed.size,
        "done": done,
        "absorbed": int(absorbed.sum()),
        "active": int(active.sum()),
        "failed": int(failed.sum()),
        "missing": absorbed.size - done,
        "under_way": now["running"] if now else 0,
        "speed": now["speed"] if now else None,
        "seconds_left": max(0.0, now["seconds_left"] - (time.time() - now["time"]))
        if now and now["seconds_left"] is not None
        else None,
        "phi_c": [guess._asdict() for guess in guess_phi_c(dict(layout.coordinates), absorbed, active)],
        "reasons": list(dict.fromkeys(reasons)),
        "steps": spec.steps,
        "sessions": manifest.sessions,
    }


def format_status(directory: Path, facts: dict[str, Any]) -> str:
    """The same for a person."""
    state = "running" if facts["running"] else "stopped" if facts["missing"] else "complete"
    lines = [
        f"{directory}: {state}, {facts['done']} of {facts['total']} cells done "
        f"({facts['absorbed']} absorbed, {facts['active']} active, {facts['failed']} failed), "
        f"{facts['missing']} missing"
    ]
    if facts["speed"] is not None:
        left = "" if facts["seconds_left"] is None else f", about {duration(facts['seconds_left'])} left"
        lines.append(f"{facts['under_way']} under way, {facts['speed'] / 1e6:.3g} M particle-steps/s{left}")
    lines += [f"phi_c so far: {format_guess(guess)}" for guess in facts["phi_c"]]
    lines += [f"failed: {reason}" for reason in facts["reasons"]]
    if state == "stopped":
        lines.append(f"packing-jax sweep --resume {directory} goes on")
    return "\n".join(lines)


def format_guess(guess: dict[str, float]) -> str:
    """Where phi_c lies, as far as is known."""
    fraction = "" if guess["batch_fraction"] == 1.0 else f", batch fraction {guess['batch_fraction']:g}"
    return f"between {guess['low']:g} and {guess['high']:g} (kick {guess['kick']:g}{fraction})"


def duration(seconds: float) -> str:
    """D-HH:MM:SS, as queue systems write it."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hour}:{minute:02}:{second:02}"


def rerun(directory: Path, number: int) -> tuple[bool, str]:
    """Compute one cell again from its start and compare it with what is stored, bit for bit.

    Args:
        directory: of a sweep.
        number: of the cell, counted from 0 along (phi, kick, batch fraction, replica), the replica fastest.

    Returns:
        Whether every byte agrees, and a sentence that says so or where the first difference is.

    Raises:
        PackingError: no such cell, or one that is not finished.
    """
    spec, layout, manifest = _opened(directory)
    cells = int(np.prod(layout.shape))
    if not 0 <= number < cells:
        raise PackingError(f"there is no cell {number}; {directory} has cells 0 to {cells - 1}")
    i, j, k, r = (int(place) for place in np.unravel_index(number, layout.shape))
    cell: Index = (i, j, k, r)
    name = layout.name(cell)
    where = f"cell {number} (phi {name[0]:g}, kick {name[1]:g}, batch fraction {name[2]:g}, replica {name[3]})"
    entry = manifest.entries.get(name)
    if entry is None or not entry.complete or entry.covers < layout.coordinates["time"][-1]:
        raise PackingError(f"{where} is not finished, so there is nothing to compare with")
    unused = Checkpoints(directory, "", float("inf"), look=False)
    ((_, result),) = run_cells(spec, [name], unused, None, None, lambda _: None, lambda _: None)
    again = finished_cell(layout, cell, result)
    try:
        stored = read_cell(directory / "results.zarr", layout, cell, entry)
    except PackingError as error:
        return False, f"{where} is damaged: {error}"
    different = _differences(layout, stored, again)
    if different:
        return False, f"{where} comes out differently: {'; '.join(different)}"
    return True, f"{where} comes out again with the same bytes"


def _differences(layout: Layout, stored: Finished, again: Finished) -> list[str]:
    different = [
        f"{name} is {was} in the store and {now} now"
        for name, was, now in (
            ("its end", stored.state, again.state),
            ("the number of steps", stored.steps, again.steps),
            ("the step of absorption", stored.absorbed_at, again.absorbed_at),
        )
        if was != now
    ]
    for name, values in stored.records.items():
        apart = np.flatnonzero(values.view(np.int32) != np.asarray(again.records[name], np.float32).view(np.int32))
        if len(apart):
            different.append(f"{name} differs from step {layout.coordinates['time'][apart[0]]} on")
    if stored.positions.tobytes() != np.asarray(again.positions, "<f4").tobytes():
        different.append("the final positions differ")
    return different
