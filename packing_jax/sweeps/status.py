"""Where a sweep stands, seen from outside, from its description and its manifest alone."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.sweeps.manifest import Manifest, is_locked
from packing_jax.sweeps.progress import find_transitions, read_progress
from packing_jax.sweeps.schema import description, stored_cells, stored_control, stored_kind, stored_steps

_COMMANDS = {"spheres": "sweep", "networks": "train"}  #: by the kinds that a command of its own runs


def status(directory: Path) -> dict[str, Any]:
    """Where a running or stopped sweep stands; nothing is changed and no chunk is read.

    Returns:
        Plain JSON values: `running`, the numbers of `total`, `done`, `absorbed`, `active`, `failed` and `missing`
        cells, `under_way`, `speed` (moves of a `unit` per second) and `seconds_left` of a running sweep, the
        `transitions` in sight from absorbed to active, `reasons` why cells failed, what of it is a user's `own`,
        `kind`, `steps`, and the `sessions` that worked on it.

    Raises:
        PackingError: no sweep there.
    """
    attributes = description(directory)
    cells, last = stored_cells(attributes), stored_steps(attributes)
    manifest = Manifest.read(directory / "manifest.jsonl")
    absorbed, active, failed = (np.zeros(cells.shape, bool) for _ in range(3))
    reasons, diverged = [], 0
    for name, cell in cells.places().items():
        entry = manifest.entries.get(name)
        if entry is None or entry.state == "damaged":
            continue
        if entry.state in ("diverged", "failed"):
            failed[cell] = True
            diverged += entry.state == "diverged"
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
        "diverged": diverged,
        "missing": absorbed.size - done,
        "under_way": now["running"] if now else 0,
        "unit": now["unit"] if now else None,
        "speed": now["speed"] if now else None,
        "seconds_left": max(0.0, now["seconds_left"] - (time.time() - now["time"]))
        if now and now["seconds_left"] is not None
        else None,
        "transitions": [one._asdict() for one in find_transitions(cells, stored_control(attributes), absorbed, active)],
        "reasons": list(dict.fromkeys(reasons)),
        "own": [*own] if isinstance(own := attributes.get("own"), Mapping) else [],
        "kind": stored_kind(attributes),
        "steps": last,
        "sessions": manifest.sessions,
    }


def format_status(directory: Path, facts: dict[str, Any]) -> str:
    """The same for a person."""
    state = "running" if facts["running"] else "stopped" if facts["missing"] else "complete"
    lines = [
        f"{directory}: {state}, {facts['done']} of {facts['total']} cells done "
        f"({facts['absorbed']} absorbed, {facts['active']} active, {_failures(facts)}), "
        f"{facts['missing']} missing"
    ]
    if facts["speed"] is not None:
        left = "" if facts["seconds_left"] is None else f", about {duration(facts['seconds_left'])} left"
        lines.append(f"{facts['under_way']} under way, {facts['speed'] / 1e6:.3g} M {facts['unit']}-steps/s{left}")
    lines += [f"{one['axis']}_c so far: {format_transition(one)}" for one in facts["transitions"]]
    lines += [f"{'' if reason.startswith('diverged') else 'failed: '}{reason}" for reason in facts["reasons"]]
    if state == "stopped":
        here = facts["kind"] in _COMMANDS
        elsewhere = "run_sweep with its specification and resume=True goes on"
        lines.append(how_it_goes_on(directory, facts["own"], facts["kind"]) if here else elsewhere)
    return "\n".join(lines)


def _failures(facts: Mapping[str, Any]) -> str:
    failed, diverged = facts["failed"], facts["diverged"]
    return f"{failed} failed" if not diverged else f"{diverged} diverged, {failed - diverged} failed"


def how_it_goes_on(directory: Path, own: Iterable[str], kind: str) -> str:
    """The command for it; a user's own objects, by what they are of the sweep, have to be named again."""
    named = {one.split(" ")[0] for one in own}
    command = _COMMANDS.get(kind, "sweep") + (" TASK" if "task" in named else "")
    options = [f"--{what}" for what in ("rule", "energy", "record") if what in named]
    again = f" with the same {', '.join(options)}" if options else ""
    return f"packing-jax {command} --resume {directory}{again} goes on"


def format_transition(transition: dict[str, Any]) -> str:
    """Where it lies, as far as is known."""
    at = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in transition["at"].items())
    return f"between {transition['low']:g} and {transition['high']:g}" + (f" ({at})" if at else "")


def duration(seconds: float) -> str:
    """D-HH:MM:SS, as queue systems write it."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hour}:{minute:02}:{second:02}"
