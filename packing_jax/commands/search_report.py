"""What is said of a search for phi_c: its progress, its result, and its directory afterwards."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packing_jax.commands.lines import wrapped
from packing_jax.commands.progress_bar import Bar, Log
from packing_jax.errors import PackingError, printable
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.progress import EveryTwoSeconds
from packing_jax.sweeps.schema import SEARCH_FILES

if TYPE_CHECKING:  # what they import takes as long as the rest of the command line
    from packing_jax.adaptive import SearchProgress
    from packing_jax.criticality.search import Round, SearchResult
    from packing_jax.search_folder import Standing

FIGURE = "critical.png"


class SearchReport:
    """What is said on stderr while a search runs: a bar, one JSON object a line, or the last line only."""

    def __init__(self, form: Log | None, tolerance: float, unit: str) -> None:
        self._unit = unit
        self._form = form or ("bar" if sys.stderr.isatty() else "quiet")
        self._tolerance = tolerance
        self._bar, self._share = Bar(), 0.0
        self._clock = EveryTwoSeconds()
        self._first: tuple[float, int] | None = None

    def progress(self, now: SearchProgress) -> None:
        """Where the search stands, after a chunk: the share of the particle-steps that it takes, by what is known."""
        if self._form == "json" and self._clock.due():
            facts = {**_numbers(now), "rounds": len(now.rounds), "particles": now.particles}
            print(self._json("progress", facts), file=sys.stderr, flush=True)
        if self._form != "bar":
            return
        clock = time.monotonic()
        if self._first is None and now.particle_steps:
            self._first = clock, now.particle_steps
        share = now.particle_steps / max(now.particle_steps + now.left, 1.0)
        self._share = max(self._share, min(share, 0.99))  # a forecast may grow; what is done stays done
        left = None
        if self._first is not None and (made := now.particle_steps - self._first[1]) > 0:
            left = (clock - self._first[0]) / made * now.left
        words = [f"error {now.stderr:.2g} of {self._tolerance:g}"] if math.isfinite(now.stderr) else []
        words += [f"N = {now.particles}", *(f"half absorbed at {one.phi_h:.5f}" for one in now.rounds[-1:])]
        self._bar.show(self._share, left, [*words, f"{now.particle_steps:.2g} {self._unit}-steps"])

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def last_words(self, out: Path, why: str) -> str:
        """The last line of a search that was stopped."""
        text = f"stopped by {why}; to continue: packing-jax critical --out {out}"
        return self._line(text, {"stopped": why, "reached": False})

    def end(self, out: Path, result: SearchResult) -> None:
        """The last line."""
        self.close()
        known = "known to" if result.reached else "not known to"
        text = f"{out}: {result.parameter}_c is {known} the tolerance {result.tolerance:g}"
        text += "" if result.reached else f"; to continue: packing-jax critical --out {out} with a larger --budget"
        print(self._line(text, {"stopped": None, "reached": result.reached}), file=sys.stderr)

    def _line(self, text: str, facts: dict[str, Any]) -> str:
        return self._json("end", {**facts, "text": text}) if self._form == "json" else wrapped(text, sys.stderr)

    def _json(self, event: str, facts: dict[str, Any]) -> str:
        return json.dumps({"event": event, "time": time.time(), **facts})


def _numbers(now: SearchProgress | Standing) -> dict[str, Any]:
    known = math.isfinite(now.stderr)
    return {"particle_steps": now.particle_steps, "left": now.left, "stderr": now.stderr if known else None}


# --- its result -----------------------------------------------------------------------------------------------


def format_rounds(rounds: tuple[Round, ...], parameter: str) -> list[str]:
    """A table of the rounds, in 80 columns."""
    return [
        f"{'N':>8} {'steps':>9} {'replicas':>9} {f'half absorbed at {parameter}':>24} {'width':>9} {'spent':>9}",
        *(
            f"{one.particles:8} {one.steps:9} {one.replicas:9} {f'{one.phi_h:.5f} +- {one.stderr:.5f}':>24} "
            f"{one.width:9.2g} {one.particle_steps:9.2g}"
            for one in rounds
        ),
    ]


def format_result(result: SearchResult) -> str:
    """The rounds as a table, and phi_c, in 80 columns."""
    lines, name = format_rounds(result.rounds, result.parameter), f"{result.parameter}_c"
    spent = f"{result.particle_steps:.3g} of {result.budget:.3g} {result.unit}-steps spent"
    if result.law is not None:
        low, high = result.interval
        lines += [
            f"{name} = {result.value:.5f} +- {result.stderr:.5f} (95 %: {low:.5f} to {high:.5f}) for infinite",
            f"time and size; its error is made of {result.law.statistical:.5f} from the replicas,",
            f"{result.law.run_length:.5f} from the length of the runs and {result.law.size:.5f} from the size",
        ]
    else:
        lines.append(f"{name} is not extrapolated, because that takes three sizes")
    verdict = "reached" if result.reached else "not reached"
    lines.append(f"tolerance {result.tolerance:g} {verdict}; {spent}")
    return "\n".join(lines)


def write_figure(out: Path, result: SearchResult) -> None:
    """Draw DIR/critical.png, and name the files.

    Raises:
        PackingError: the disk says no.
    """
    from packing_jax.commands.plots import phi_h_vs_size

    try:
        with Folder(out).replacing(FIGURE, flushed=False) as file:
            phi_h_vs_size(result).savefig(file, format="png")
    except OSError as error:
        raise PackingError(f"{out} cannot be written ({error.strerror or error})") from error
    print(f"\nfigure:  {out / FIGURE}\nsummary: {out / 'summary.json'}")


# --- its directory --------------------------------------------------------------------------------------------


def is_search(directory: Path) -> bool:
    """Whether a search wrote there."""
    try:
        folder = Folder(directory)
        return any(folder.stat(name) is not None for name in SEARCH_FILES)
    except OSError:
        return False


def report_search(directory: Path) -> None:
    """Print a search's result and write its figure and summary.json again; of an unfinished one print the rounds.

    Raises:
        PackingError: no round is finished.
    """
    from packing_jax.search_folder import standing, stored_search, write_summary

    now, stored = standing(directory), stored_search(directory)
    if now.result is not None and stored is not None:
        print(format_result(now.result))
        write_summary(directory, now.result, stored.what)
        write_figure(directory, now.result)
        return
    if not now.rounds:
        raise PackingError(
            f"there is nothing to report: no round of the search in {directory} is finished; to continue: "
            f"packing-jax critical --out {directory}"
        )
    parameter = stored.settings.parameter if stored else "phi"
    print("\n".join([*format_rounds(now.rounds, parameter), *_where(directory, now)]))


def search_status(directory: Path) -> dict[str, Any]:
    """Where a search stands, as plain JSON values.

    `running`, `done` (within the tolerance, or at the end of the budget), `reached`, the number of `rounds`, `value`
    and `stderr` of phi_c so far (null before there are three), `tolerance`, `particle_steps` spent and `left` by a
    forecast; `parameter`, what phi is called there, and `unit`, what the steps are of.
    """
    from packing_jax.search_folder import standing

    return _facts(standing(directory), directory)


def _facts(now: Standing, directory: Path) -> dict[str, Any]:
    from packing_jax.search_folder import stored_search

    stored = stored_search(directory)
    return {
        "kind": "search",
        "running": now.running,
        "done": now.result is not None,
        "reached": now.result is not None and now.result.reached,
        "rounds": len(now.rounds),
        "value": now.value if math.isfinite(now.stderr) else None,
        **_numbers(now),
        "tolerance": stored.settings.tolerance if stored else None,
        "budget": stored.settings.budget if stored else None,
        "parameter": stored.settings.parameter if stored else "phi",
        "unit": stored.settings.unit if stored else "particle",
    }


def format_search(directory: Path) -> str:
    """The same for a person."""
    from packing_jax.search_folder import standing

    return "\n".join(_where(directory, standing(directory)))


def _where(directory: Path, now: Standing) -> list[str]:
    facts = _facts(now, directory)
    state = "running" if now.running else "complete" if facts["done"] else "stopped"
    size = f", the last with N = {now.rounds[-1].particles}" if now.rounds else ""
    known = "is not known yet: that takes three rounds"
    if math.isfinite(now.stderr):
        known = f"{now.value:.5f} +- {now.stderr:.5f}{'' if facts['done'] else ' so far'}"
    left = "" if facts["done"] else f", about {now.left:.2g} left"
    lines = [
        f"{directory}: a search for {facts['parameter']}_c, {state}, {len(now.rounds)} rounds done{size}",
        f"{facts['parameter']}_c {known} (tolerance {facts['tolerance']:g})",
        f"{now.particle_steps:.3g} of {facts['budget']:.3g} {facts['unit']}-steps spent{left}",
    ]
    if state == "stopped":
        lines.append(f"to continue: packing-jax critical --out {directory}")
    elif state == "complete" and not facts["reached"]:
        lines.append(f"the budget is spent; to continue: packing-jax critical --out {directory} with a larger --budget")
    return [printable(line) for line in lines]
