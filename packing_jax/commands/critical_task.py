"""The command `packing-jax critical --task`, whose options are those of the task and of its rule as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from packing_jax.commands.critical import checked_budget, searched
from packing_jax.commands.options import OptionalDir, OptionalFloat, OptionalInt, RunOptions, free_directory
from packing_jax.commands.train import Asked, given, with_numbers, word_after
from packing_jax.errors import PackingError
from packing_jax.networks.options import Option
from packing_jax.networks.tasks import TASKS
from packing_jax.sweeps.network_parts import ready_task

if TYPE_CHECKING:
    from packing_jax.adaptive import SearchProgress
    from packing_jax.criticality.search import SearchResult

_TEXT = """Find the number of samples per weight that a task's networks can satisfy.

- Counts replicas that come to rest at the transition, in networks of
  growing size and runs of growing length, and extrapolates both.
- Ends when the standard error is within the tolerance, or the budget
  is spent. status DIR and report DIR show the state.
- --out DIR of a stopped search continues it, and ends with the same
  numbers. Options that are not given keep their values.
- Exit codes as of packing-jax critical."""

_OptionalBudget = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 1e10)")]
_OptionalWhole = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 0)")]


@dataclass(frozen=True, kw_only=True)
class TaskSearchCommand(RunOptions):
    """What critical does for a task; see `_TEXT`."""

    task: tyro.conf.SuppressFixed[tyro.conf.Fixed[str]] = ""
    rule: Annotated[str | None, tyro.conf.arg(metavar="NAME|MODULE:OBJECT", help_behavior_hint="")] = None
    """What moves the weights, as for train. Default: the task's own."""
    tolerance: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 0.01)")] = None
    """Standard error that the number of samples per weight is to reach."""
    budget: _OptionalBudget = None
    """Weight-steps to spend at most; one is one step of one weight."""
    precision: Annotated[
        Literal["float32", "float64"] | None,
        tyro.conf.arg(metavar="float32|float64", help_behavior_hint="(default: float32)"),
    ] = None
    """Floating-point type of the dynamics."""
    seed: _OptionalWhole = None
    """Seed of everything random but samples and starts; the same seed gives the same numbers."""
    disorder_seed: _OptionalWhole = None
    """Seed of samples and starts."""
    out: OptionalDir = None
    """Directory for search.json, from which a stopped search continues, summary.json and critical.png. Default:
    packing-critical; if it exists, the first free packing-critical-2, -3, ..."""

    def execute(self, command: str) -> int:
        """Search, and tell."""
        from packing_jax.adaptive import search_task
        from packing_jax.search_folder import BUDGET, TASK_TOLERANCE

        out = self.out or free_directory("packing-critical")
        asked = self._as_it_was(out)
        tolerance = TASK_TOLERANCE if asked.tolerance is None else asked.tolerance
        budget = checked_budget(float(BUDGET if asked.budget is None else asked.budget), "weight")
        axes: dict[str, float] = {}
        settings: dict[str, str] = {}
        for name, option in self.options().items():
            value = getattr(asked, name)
            if value is not None and option.number is None:
                settings[name] = value
            elif value is not None:
                axes[name] = value

        def search(on_progress: Callable[[SearchProgress], None]) -> SearchResult:
            return search_task(
                given(asked.task, "--task"),
                rule=None if asked.rule is None else given(asked.rule, "--rule"),
                axes=axes,
                settings=settings,
                tolerance=tolerance,
                budget=budget,
                seed=asked.seed or 0,
                disorder_seed=asked.disorder_seed or 0,
                precision=asked.precision or "float32",
                out=out,
                command=command,
                on_progress=on_progress,
            )

        return searched(search, out, self, tolerance, "weight")

    def _as_it_was(self, out: Path) -> TaskSearchCommand:
        """The words, with those of a search that goes on in the place of what is not given."""
        what, settings = stored_task(out)
        if settings is None:
            return self
        before = {**what["axes"], **what["settings"], **settings}
        before |= {name: what[name] for name in ("rule", "precision", "seed", "disorder_seed") if what[name] != "own"}
        return replace(self, **{name: one for name, one in before.items() if getattr(self, name, 0) is None})

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Those of the task and the rule, which a subclass has as fields."""
        return {}


def stored_task(out: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What a search of a task in a directory is of, and its tolerance and budget; nothing where there is none.

    Raises:
        PackingError: a damaged search.
    """
    from packing_jax.search_folder import stored_search

    stored = stored_search(out)
    if stored is None or "task" not in stored.what:
        return {}, None
    return stored.what, {"tolerance": stored.settings.tolerance, "budget": float(stored.settings.budget)}


def task_search(words: Sequence[str]) -> Asked | None:
    """The command of some words, if they or the search in their --out are of a task.

    Raises:
        PackingError: an unknown task, or one without a number of samples to choose.
    """
    out = word_after(words, "--out")
    what: Mapping[str, Any] = stored_task(Path(out))[0] if out and Path(out).is_dir() else {}
    task = word_after(words, "--task") or what.get("task")
    if not task:
        return None
    if task == "own":
        raise PackingError(f"the search in {out} is of a task of your own: name it again, with --task")
    rest, skip = [], False
    for word in words:
        if not skip and word != "--task" and not word.startswith("--task="):
            rest.append(word)
        skip = word == "--task" and not skip
    ready = ready_task(given(task, "--task"))
    if ready.control is None or ready.size is None:
        able = ", ".join(name for name, one in TASKS.items() if one.control and one.size)
        raise PackingError(f"critical cannot search {task}, which has no number of samples per weight; it can {able}")
    rule = word_after(words, "--rule") or (what["rule"] if what.get("rule") not in (None, "own") else None)
    kinds = {int: OptionalInt, float: OptionalFloat}
    kind = with_numbers(TaskSearchCommand, task, rule, kinds, _TEXT, but=(ready.control, ready.size))
    return Asked(kind, "packing-jax critical", rest, _TEXT)
