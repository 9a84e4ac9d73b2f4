"""The command `packing-jax critical`: a search for phi_c, told as it goes and at its end."""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from packing_jax.commands import interrupts
from packing_jax.commands.options import (
    MixtureWord,
    OptionalCoupling,
    OptionalDir,
    OptionalFloat,
    RunOptions,
    free_directory,
)
from packing_jax.commands.search_report import SearchReport, format_result, is_search, write_figure
from packing_jax.errors import PackingError
from packing_jax.sweeps.compute import Stopped
from packing_jax.sweeps.model import RuleName
from packing_jax.sweeps.progress import Stop, seconds, stopping

if TYPE_CHECKING:  # what it imports takes as long as the rest of the command line
    from collections.abc import Callable

    from packing_jax.adaptive import SearchProgress
    from packing_jax.criticality.search import SearchResult

_SYSTEM = ("dim", "rule", "coupling", "mixture")


@dataclass(frozen=True, kw_only=True)
class CriticalCommand(RunOptions):
    """Find phi_c to a tolerance, choosing phi, N, steps and replicas by itself.

    - Counts absorbed replicas at the transition, in systems of growing size
      and runs of growing length, and extrapolates both.
    - Ends when the standard error is within the tolerance, or the budget
      is spent. status DIR and report DIR show the state.
    - --out DIR of a stopped search continues it, and ends with the same
      numbers. Options that are not given keep their values.
    - Exit code 0: within the tolerance; 2: bad input or a full disk; 3:
      stopped by --max-walltime; 5: the budget was spent before the tolerance
      was reached; 130 or 143: stopped by a signal.
    """

    task: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Find the number of samples per weight that a task's networks can satisfy, in the place of phi_c.
    --task perceptron --help lists its options."""
    dim: int = 3
    """Dimension, 1 to 6."""
    rule: RuleName = "bro"
    """What moves the particles."""
    kick: float = 0.05
    """Kick size eps of bro, ro and langevin, or learning rate of sgd, in mean diameters."""
    tolerance: float = 0.003
    """Standard error that phi_c is to reach."""
    budget: Annotated[float, tyro.conf.arg(help_behavior_hint="(default: 1e10)")] = 1e10
    """Particle-steps to spend at most; one is one step of one particle."""
    coupling: OptionalCoupling = None
    """What shares a random draw, as for sweep. Default: pair; particle for ro."""
    batch_fraction: OptionalFloat = None
    """Batch fraction b_f of sgd, above 0 and at most 1. Default: 0.75."""
    mixture: MixtureWord = "mono"
    """Equal spheres (mono), or half of diameter 1 and half of 1.4."""
    seed: int = 0
    """Seed of everything random; the same seed gives the same numbers."""
    start_from: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR", help_behavior_hint="")] = None
    """Search in the system of the sweep in DIR, starting at its transition. If it has several kicks, give one."""
    out: OptionalDir = None
    """Directory for search.json, from which a stopped search continues, summary.json and critical.png. Default:
    packing-critical; if it exists, the first free packing-critical-2, -3, ..."""

    def execute(self, command: str) -> int:
        """Search, and tell."""
        from packing_jax.adaptive import search

        out, bracket, asked = self.out or free_directory("packing-critical"), None, self
        if is_search(out):
            if self.start_from is not None:
                raise PackingError(f"the search in {out} has begun already; omit --from, or give another --out")
            asked = _parsed(command, _as_it_was(out, self))
        elif self.start_from is not None:
            asked, bracket = _beginning(self.start_from, command, self)

        def found(on_progress: Callable[[SearchProgress], None]) -> SearchResult:
            return search(
                dim=asked.dim,
                rule=asked.rule,
                kick=asked.kick,
                tolerance=asked.tolerance,
                budget=checked_budget(asked.budget, "particle"),
                seed=asked.seed,
                coupling=asked.coupling,
                batch_fraction=asked.batch_fraction,
                mixture=asked.mixture,
                bracket=bracket,
                out=out,
                command=command,
                on_progress=on_progress,
            )

        return searched(found, out, asked, asked.tolerance)


def checked_budget(budget: float, unit: str) -> int:
    """A budget in whole steps.

    Raises:
        PackingError: no positive number.
    """
    if not (math.isfinite(budget) and budget >= 1):
        raise PackingError(f"the budget is {budget:g} {unit}-steps; it must be a positive number")
    return int(budget)


def searched(
    search: Callable[[Callable[[SearchProgress], None]], SearchResult],
    out: Path,
    options: RunOptions,
    tolerance: float,
    unit: str = "particle",
) -> int:
    """Run a search that tells of its progress, say what came of it, and draw it; the exit code.

    Args:
        search: called with what it tells.
        out: its directory.
        options: how it is run.
        tolerance: of it.
        unit: what its steps are of.
    """
    stop = Stop(None if options.max_walltime is None else seconds(options.max_walltime), interrupts.BEGAN)
    told = SearchReport(options.log, tolerance, unit)

    def progress(now: SearchProgress) -> None:
        told.progress(now)
        if reason := stop.reason():
            raise Stopped(reason)

    try:
        with interrupts.stopped_by_flag(stop, lambda why: told.last_words(out, why)), stopping(stop):
            result = search(progress)
    except Stopped as why:
        told.close()
        print(told.last_words(out, str(why)), file=sys.stderr)
        return {"SIGINT": 130, "SIGTERM": 143}.get(str(why), 3)
    finally:
        told.close()
    print(format_result(result))
    write_figure(out, result)
    sys.stdout.flush()
    told.end(out, result)
    return 0 if result.reached else 5


def _parsed(command: str, before: CriticalCommand) -> CriticalCommand:
    """The words once more, with other values in the place of the defaults."""
    return tyro.cli(CriticalCommand, args=shlex.split(command)[2:], default=before, prog="packing-jax critical")


def _as_it_was(out: Path, words: CriticalCommand) -> CriticalCommand:
    """The words of a search that goes on."""
    from packing_jax.search_folder import stored_search

    stored = stored_search(out)
    if stored is None:
        return words
    tolerance, budget = stored.settings.tolerance, float(stored.settings.budget)
    return replace(words, **_words_of(stored.what), tolerance=tolerance, budget=budget)


def _words_of(what: dict[str, Any]) -> dict[str, Any]:
    fraction = what["batch_fraction"][0] if what["rule"] == "sgd" else None
    return {name: what[name] for name in (*_SYSTEM, "seed")} | {"kick": what["kick"][0], "batch_fraction": fraction}


def _beginning(directory: Path, command: str, words: CriticalCommand) -> tuple[CriticalCommand, tuple[float, float]]:
    """The system of a sweep, one of its kicks, and packing fractions around its transition.

    Raises:
        PackingError: no sweep of spheres there, one of a system that a search has no words for, or of another one than
            the words; no transition in it.
    """
    from packing_jax.sweeps.reader import Reader
    from packing_jax.sweeps.schema import stored_kind

    sweep = Reader(directory)
    what = sweep.attributes
    strange = [
        name
        for name, usual in (
            ("exponent", 1.0),
            ("correlation", 0.0 if what.get("coupling") == "pair-independent" else 1.0),
        )
        if what.get(name) != usual
    ]
    strange += [f"{one} of your own" for one in what.get("own", {})] + ["sizes"] * ("sizes" in what)
    if stored_kind(what) != "spheres" or strange:
        raise PackingError(
            f"{directory} is a sweep of {', '.join([stored_kind(what), *strange])}; critical searches for phi_c of "
            "spheres by the package's rules and the linear overlap energy only"
        )
    axes = sweep.cells.axes
    before = replace(words, **{name: what[name] for name in _SYSTEM})
    asked = _parsed(command, replace(before, kick=math.nan, batch_fraction=math.nan))
    chosen = {}
    for name, given in (("kick", asked.kick), ("batch_fraction", asked.batch_fraction)):
        values = axes[name]
        one = values[0] if len(values) == 1 and math.isnan(given or math.nan) else given
        if one not in values:
            option = f"--{name.replace('_', '-')}"
            raise PackingError(f"{directory} has {name.replace('_', ' ')} {_listed(values)}: give one by {option}")
        chosen[name] = float(one or 0)
    if different := [name for name in _SYSTEM if getattr(asked, name) != getattr(before, name)]:
        raise PackingError(
            f"{different[0]} is {what[different[0]]} in {directory} and {getattr(asked, different[0])} here; with "
            "--from they must be the same"
        )
    fraction = chosen["batch_fraction"] if what["rule"] == "sgd" else None
    return replace(asked, kick=chosen["kick"], batch_fraction=fraction), _bracket(directory, chosen)


def _bracket(directory: Path, chosen: dict[str, float]) -> tuple[float, float]:
    """Around the packing fractions between which the replicas of a sweep turn from absorbed to active."""
    from packing_jax.search_folder import around
    from packing_jax.sweeps.reader import Reader

    sweep = Reader(directory)
    dims = sweep.cells.dims
    seen: dict[float, list[bool]] = {}
    for place, entry in sweep.entries.items():
        name = dict(zip(dims, sweep.cells.name(place), strict=True))
        if entry.state in ("absorbed", "active") and all(name[axis] == value for axis, value in chosen.items()):
            seen.setdefault(float(name["phi"]), []).append(entry.state == "absorbed")
    active = [phi for phi, gone in seen.items() if not all(gone)]
    absorbed = [phi for phi, gone in seen.items() if any(gone)]
    low = max((phi for phi in seen if phi < min(active, default=0.0)), default=None)
    high = min((phi for phi in seen if phi > max(absorbed, default=math.inf)), default=None)
    if low is None or high is None:
        raise PackingError(
            f"{directory} shows no transition: all finished replicas must be absorbed at one phi or more below it, and "
            "active at one or more above it; omit --from"
        )
    return around(low, high)


def _listed(values: tuple[float | int, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
