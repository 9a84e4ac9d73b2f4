"""The directory of an adaptive search: what it goes on from, where it stands, and what came of it.

``search.json`` has every replica that was run, ``summary.json`` the result, and ``manifest.jsonl`` the sessions that
worked on it; who holds the lock of the latter writes. Nothing is run here: a search is a function of its answers, so
where it stands is found by asking it again.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from packing_jax.criticality.absorption import OF_TASKS, AbsorptionTimes, scaling_in
from packing_jax.criticality.recommended import SCHEMA, Recommended, of_absorption
from packing_jax.criticality.search import (
    FEWEST_ROUNDS,
    Answer,
    Ask,
    Round,
    SearchResult,
    SearchSettings,
    refine,
)
from packing_jax.errors import PackingError
from packing_jax.phi_range import DENSEST, Range, rounded
from packing_jax.spheres.geometry import ball_volume
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest, is_locked
from packing_jax.sweeps.schema import RESULTS, SEARCH_FILES
from packing_jax.versions import provenance

TOLERANCE = 0.003
"""Standard error of phi_c at which a search ends."""

TASK_TOLERANCE = 0.01
"""Of a task's number of samples per weight."""

BUDGET = 10**10
"""Particle-steps of a search: a quarter of an hour at 10 million a second."""

SEARCH = SEARCH_FILES[0]
"""What a search goes on from."""

_DILUTEST = 1 / 8  # of the densest phi, where a search begins: it goes lower if all is active there
_SMALLEST, _SIDE = 256, 5  # particles, and mean diameters along a side, of the first round
_FEWEST_WEIGHTS, _INSTANCES = 64, 8  # of a task's first round, and at each of the four places of a batch
_MOST_SAMPLES = 1000.0  # per weight
_LARGEST_FILE = 2**28  # bytes of search.json
_STEPS = 200.0  # kick times steps of the first round


def whole_bracket(dim: int) -> tuple[float, float]:
    """From dilute to denser than random close packing."""
    return DENSEST[dim] * _DILUTEST, DENSEST[dim]


def around(low: float, high: float) -> tuple[float, float]:
    """Where to begin, if smaller or larger systems turn from absorbed to active between these packing fractions.

    phi_h moves with size and time; a search goes below its bracket by itself, and never above it.
    """
    margin = max(2 * (high - low), 0.05 * high)
    return max(low - margin, 0.5 * low), high + margin


def settings_of(dim: int, kick: float, bracket: tuple[float, float], tolerance: float, budget: int) -> SearchSettings:
    """Where a search begins, and when it ends."""
    dense_box = DENSEST[dim] * _SIDE**dim / (ball_volume(dim) / 2**dim)  # particles in a box of five diameters
    first = _SMALLEST * 2 ** max(0, math.ceil(math.log2(dense_box / _SMALLEST)))
    steps = math.ceil(min(_STEPS / kick, 2**30))
    return SearchSettings(scaling_in(dim), bracket, first, max(steps, 100), tolerance, budget, highest=bracket[1])


def task_settings(what: dict[str, Any], bracket: tuple[float, float], tolerance: float, budget: int) -> SearchSettings:
    """The same for a task: small networks, and more samples where they are too few."""
    steps = math.ceil(_STEPS / what["axes"]["kick"]) if "kick" in what["axes"] else what["steps"]
    return SearchSettings(
        OF_TASKS,
        bracket,
        _FEWEST_WEIGHTS,
        max(steps, 100),
        tolerance,
        budget,
        highest=_MOST_SAMPLES,
        replicas=_INSTANCES,
        samples=True,
        parameter=what["control"],
        unit="weight",
    )


class Stored(NamedTuple):
    """What the directory of a search says."""

    what: dict[str, Any]  #: the system and the seed, as a sweep names them
    digest: str  #: of these, and of the versions and settings that made the answers
    settings: SearchSettings
    answers: dict[Ask, Answer]


class Standing(NamedTuple):
    """Where a search stands."""

    rounds: tuple[Round, ...]  #: finished
    result: SearchResult | None  #: None as long as it is not finished
    particle_steps: int  #: spent
    left: float  #: particle-steps that it may still take
    value: float  #: phi_c so far; NaN before there are three rounds
    stderr: float
    running: bool  #: a process is at work on it


def stored_search(directory: Path) -> Stored | None:
    """What a search left in a directory, of version 0.1.0 too; None where there is none.

    Raises:
        PackingError: a damaged file, or one that no search wrote.
    """
    for name in SEARCH_FILES:
        try:
            facts = json.loads(Folder(directory).read(name, _LARGEST_FILE))
            return _checked(facts)
        except FileNotFoundError:
            continue
        except PackingError:
            raise
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
            AttributeError,
            ZeroDivisionError,
        ) as error:
            raise PackingError(
                f"{directory / name} is damaged or no search of packing_jax; give another --out"
            ) from error
    return None


def _checked(facts: dict[str, Any]) -> Stored:
    what = facts["search"]
    result = facts.get("result") or {}  # of version 0.1.0
    tolerance = float(facts.get("tolerance", result.get("tolerance", TOLERANCE)))
    budget = int(facts.get("budget", BUDGET))
    if "task" in what:
        low, high = map(float, facts["bracket"])
        settings = task_settings(what, (low, high), tolerance, budget)
    else:
        dim, (kick,) = what["dim"], what["kick"]
        low, high = map(float, facts.get("bracket") or whole_bracket(dim))
        settings = settings_of(dim, float(kick), (low, high), tolerance, budget)
    answers = {
        Ask(int(one["particles"]), int(one["steps"]), tuple((float(p), int(r)) for p, r in one["replicas"])): Answer(
            tuple(int(at) for at in one["absorbed_at"]), int(one["particle_steps"])
        )
        for one in facts["batches"]
    }
    if not all(len(ask.replicas) == len(answer.absorbed_at) for ask, answer in answers.items()):
        raise ValueError
    return Stored(what, str(facts["digest"]), settings, answers)


def standing(directory: Path) -> Standing:
    """Where a search stands; nothing is run.

    Raises:
        PackingError: no search there, or a damaged one.
    """
    stored = stored_search(directory)
    if stored is None:
        raise PackingError(f"{directory} has no {SEARCH}: give the directory that packing-jax critical wrote")
    seen: list[tuple[tuple[Round, ...], AbsorptionTimes | None]] = [((), None)]
    running = is_locked(Folder(directory))
    with contextlib.suppress(KeyError):  # what was not run yet
        result = refine(stored.settings, lambda ask: stored.answers[ask], lambda *now: seen.append(now))
        return Standing(result.rounds, result, result.particle_steps, 0.0, result.value, result.stderr, running)
    rounds, law = seen[-1]
    spent = sum(answer.particle_steps for answer in stored.answers.values())
    left = forecast(stored.settings, rounds, law, spent)
    value, stderr = (math.nan, math.inf) if law is None else (law.value, law.stderr)
    return Standing(rounds, None, spent, left, value, stderr, running)


def range_around(directory: Path, particles: int) -> Range:
    """Packing fractions for a sweep around the phi_c of a search: 12 widths below it and 16 above.

    The width at N is u N^-omega, with one u for all rounds, and two errors of phi_c are added to either side. It suits
    the estimates of a sweep: for the system of `packing-jax sweep` without options it gives its range.

    Raises:
        PackingError: no search there, or no round of it is finished.
    """
    now, stored = standing(directory), stored_search(directory)
    if stored is None or not now.rounds:
        raise PackingError(
            f"no round of the search in {directory} is finished; to continue: packing-jax critical --out {directory}"
        )
    spread = stored.settings.scaling.spread
    widths = [one.width * (one.particles / particles) ** spread for one in now.rounds]
    replicas = [one.replicas for one in now.rounds]
    width = sum(map(operator.mul, widths, replicas)) / sum(replicas)
    last = now.rounds[-1]
    value, stderr = (now.value, now.stderr) if math.isfinite(now.stderr) else (last.phi_h, last.stderr + last.width)
    return rounded(max(value - 12 * width - 2 * stderr, 0.1 * value), value + 16 * width + 2 * stderr)


def forecast(settings: SearchSettings, rounds: tuple[Round, ...], law: AbsorptionTimes | None, spent: int) -> float:
    """Particle-steps that are left, if each round costs as much more as its size, and the error falls as the width."""
    factor = 2.0 ** (1.0 + settings.scaling.growth)
    number = max(1, FEWEST_ROUNDS - len(rounds))
    if law is not None:
        number = max(1, math.ceil(math.log(law.stderr / settings.tolerance, 2.0**settings.scaling.spread)))
    # half of the first round's replicas are absorbed, and six batches are usual
    first = settings.cost(settings.particles, settings.steps, 3) / factor
    last = rounds[-1].particle_steps if rounds else first
    paid = spent - sum(one.particle_steps for one in rounds)  # for the round under way
    wanted = sum(last * factor**k for k in range(1, number + 1)) - paid
    return float(max(min(wanted, settings.budget - spent), 0.0))


@contextlib.contextmanager
def locked(directory: Path, command: str) -> Iterator[Manifest]:
    """The directory of a search, for the one process that writes there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        folder = Folder(directory)
        if folder.stat(RESULTS) is not None:
            raise PackingError(
                f"{directory} holds a sweep; give another --out, and --from {directory} to search where it saw its "
                "transition"
            )
        manifest = Manifest.lock(folder, 0)
    except OSError as error:
        raise cannot_write(directory, error) from error
    with contextlib.closing(manifest):
        manifest.begin_session({"command": command, "began": time.time(), "versions": provenance()})
        yield manifest


def write_summary(directory: Path, result: SearchResult, what: dict[str, Any]) -> None:
    """DIR/summary.json: phi_c to quote, and the search behind it.

    Raises:
        PackingError: the disk says no.
    """
    text = json.dumps(summary(result, what), indent=2, allow_nan=False) + "\n"
    try:
        Folder(directory).write({"summary.json": text.encode()})
    except OSError as error:
        raise cannot_write(directory, error) from error


def summary(result: SearchResult, what: dict[str, Any]) -> dict[str, Any]:
    """A result as plain JSON values, in the form of every summary.json; an error that is not known is None."""
    facts = asdict(result)
    del facts["outcomes"]
    facts["stderr"] = result.stderr if math.isfinite(result.stderr) else None
    system: tuple[str, ...] = ("rule", "coupling", "dim", "mixture", "seed")
    if "task" in what:
        axes, system = what["axes"], ("task", "rule", "settings", "precision", "seed", "disorder_seed")
    else:
        axes = {"kick": what["kick"][0], "batch_fraction": (what["batch_fraction"] or (1.0,))[0]}
    notes = [] if result.reached else ["The budget ended short of the tolerance: allow more, or a larger tolerance."]
    return {
        "schema": SCHEMA,
        "recommended": [asdict(one) for one in recommended(result, axes)],
        "search": facts,
        "notes": notes,
        **{name: what[name] for name in system},
    }


def recommended(result: SearchResult, axes: dict[str, float]) -> list[Recommended]:
    """The value to quote; none where three sizes were not reached."""
    return [] if result.law is None else [of_absorption(result.law, axes, result.parameter)]


def cannot_write(directory: Path, error: OSError) -> PackingError:
    """What is said where the disk says no."""
    return PackingError(f"{directory} cannot be written ({error.strerror or error}): it must be a writable directory")
