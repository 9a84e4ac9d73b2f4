"""Where a sweep stands, seen from outside: from its description, its manifest and the names and sizes of its files."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.errors import printable
from packing_jax.sweeps import checks
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import is_locked
from packing_jax.sweeps.progress import find_transitions, read_progress
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.schema import command_of, stored_control, stored_kind

_MOST_LINES = 20  # of one sort


def status(directory: Path, *, verify: bool = False) -> dict[str, Any]:
    """Where a running or stopped sweep stands; nothing is changed.

    Args:
        directory: of the sweep.
        verify: read every array, and not only the names and sizes of the files.

    Returns:
        Plain JSON values: `running`, the numbers of `total`, `done`, `absorbed`, `active`, `failed` and `missing`
        cells, `under_way`, `speed` (moves of a `unit` per second) and `seconds_left` of a running sweep, the
        `transitions` in sight from absorbed to active, `reasons` why cells failed, a sentence of `damage` for
        everything that is not as it was written, what of it is a user's `own`, `kind`, `steps`, and the `sessions`
        that worked on it.

    Raises:
        PackingError: no sweep there.
    """
    sweep = Reader(directory)
    attributes, cells, manifest = sweep.attributes, sweep.cells, sweep.manifest
    running = is_locked(Folder(directory))
    absorbed, active, failed = (np.zeros(cells.shape, bool) for _ in range(3))
    reasons, diverged = [], 0
    for cell, entry in sweep.entries.items():
        if entry.state in ("diverged", "failed"):
            failed[cell] = True
            diverged += entry.state == "diverged"
            reasons.append(entry.reason)
        elif entry.covers >= sweep.last:
            (absorbed if entry.state == "absorbed" else active)[cell] = True
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
        "damage": [*_damaged_lines(sweep, running), *(checks.damaged if verify else checks.misplaced)(sweep)],
        "own": [*own] if isinstance(own := attributes.get("own"), Mapping) else [],
        "kind": stored_kind(attributes),
        "steps": sweep.last,
        "sessions": manifest.sessions,
    }


def _damaged_lines(sweep: Reader, running: bool) -> list[str]:
    count = sweep.manifest.damaged_lines
    if running and sweep.manifest.cut_off:  # a line that is being written
        count -= 1
    if not count:
        return []
    return [f"{count} lines of {sweep.manifest.path} are cut off or changed; {sweep.mended} computes their cells again"]


def format_status(directory: Path, facts: dict[str, Any]) -> str:
    """The same for a person, without control characters that a store's words may have."""
    state = "running" if facts["running"] else "stopped" if facts["missing"] else "complete"
    lines = [
        f"{directory}: {state}, {facts['done']} of {facts['total']} cells done "
        f"({facts['absorbed']} absorbed, {facts['active']} active, {_failures(facts)}), "
        f"{facts['missing']} missing"
    ]
    if facts["speed"] is not None:
        left = facts["seconds_left"]
        words = "no estimate yet of the time left" if left is None else f"about {duration(left)} left"
        lines.append(f"{facts['under_way']} under way, {facts['speed'] / 1e6:.3g} M {facts['unit']}-steps/s, {words}")
    elif facts["running"]:
        lines.append("no estimate yet of the time left: the first steps are not done, and their program is compiled")
    lines += _at_most([f"{one['axis']}_c so far: {format_transition(one)}" for one in facts["transitions"]])
    lines += _at_most([f"{'' if reason.startswith('diverged') else 'failed: '}{reason}" for reason in facts["reasons"]])
    lines += _at_most(facts["damage"])
    if state == "stopped":
        here = command_of(facts) is not None
        elsewhere = "to continue: run_sweep with its specification and resume=True"
        lines.append(how_it_goes_on(directory, facts["own"], facts["kind"]) if here else elsewhere)
    return "\n".join(map(printable, lines))


def _at_most(lines: list[str]) -> list[str]:
    beyond = len(lines) - _MOST_LINES
    return lines if beyond <= 0 else [*lines[:_MOST_LINES], f"and {beyond} more like this"]


def _failures(facts: Mapping[str, Any]) -> str:
    failed, diverged = facts["failed"], facts["diverged"]
    return f"{failed} failed" if not diverged else f"{diverged} diverged, {failed - diverged} failed"


def how_it_goes_on(directory: Path, own: Iterable[str], kind: str) -> str:
    """The command for it."""
    return f"to continue: {resuming(directory, own, kind)}"


def resuming(directory: Path, own: Iterable[str], kind: str, more: str = "") -> str:
    """The command that continues, with more options; a user's own objects, by what they are, are to be named again."""
    named = {one.split(" ")[0] for one in own}
    command = (command_of({"kind": kind}) or "sweep") + (" TASK" if "task" in named else "")
    options = [f"--{what}" for what in ("rule", "energy", "record") if what in named]
    again = f" with the same {', '.join(options)}" if options else ""
    return f"packing-jax {command} --resume {directory}{more and f' {more}'}{again}"


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
