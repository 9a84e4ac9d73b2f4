"""phi_c of a system, or the capacity of a task, by the adaptive search: `packing-jax critical`, and in Python.

:mod:`packing_jax.criticality.search` decides what to run. This module runs it (:func:`packing_jax.drive.run.run`),
records it (:mod:`packing_jax.search_folder`) and reports progress.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from packing_jax.criticality.absorption import AbsorptionTimes
from packing_jax.criticality.search import Answer, Ask, Round, SearchResult, SearchSettings, refine
from packing_jax.drive.kind import Kind, Replicas
from packing_jax.drive.run import Progress, run
from packing_jax.errors import PackingError
from packing_jax.search_folder import (
    BUDGET,
    SEARCH,
    TASK_TOLERANCE,
    TOLERANCE,
    cannot_write,
    forecast,
    locked,
    settings_of,
    stored_search,
    task_settings,
    whole_bracket,
    write_summary,
)
from packing_jax.spheres.geometry import check_dim
from packing_jax.sweeps.field_types import Mixture
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest, digest_of
from packing_jax.sweeps.model import CouplingName, RuleName
from packing_jax.sweeps.network_parts import ready_task
from packing_jax.sweeps.networks import Training
from packing_jax.sweeps.spheres import Sweep
from packing_jax.versions import jax_settings, provenance


class SearchProgress(NamedTuple):
    """Where a search stands, after a chunk."""

    rounds: tuple[Round, ...]  #: finished
    particles: int  #: of the round under way
    particle_steps: int  #: spent
    left: float  #: particle-steps that it may still take to reach the tolerance, or up to the budget
    stderr: float  #: of phi_c after the last round; infinite before there are three


def search(
    *,
    dim: int = 3,
    rule: RuleName = "bro",
    kick: float = 0.05,
    tolerance: float = TOLERANCE,
    budget: int = BUDGET,
    seed: int = 0,
    coupling: CouplingName | None = None,
    batch_fraction: float | None = None,
    mixture: Mixture = "mono",
    bracket: tuple[float, float] | None = None,
    out: Path | str | None = None,
    command: str = "",
    on_progress: Callable[[SearchProgress], None] = lambda _: None,
) -> SearchResult:
    """phi_c to a tolerance, by a search that chooses phi, N, steps and replicas itself.

    phi_c = lim phi_h(N) for N -> infinity, where phi_h is the packing fraction at which half of the replicas are
    absorbed within T ~ N^(z/d) steps; for the method and its error see :mod:`packing_jax.criticality.search`. Replicas
    start from independent uniform positions. The energy is the linear one, with which an overlap ends in finite time.

    Args:
        dim: dimension, 1 to 6.
        rule: bro, sgd, ro or langevin.
        kick: kick size, for sgd the learning rate, in mean diameters.
        tolerance: standard error of phi_c to reach.
        budget: particle-steps (moves times particles) to spend at most; no batch is begun that could go beyond.
        seed: of all random numbers; the same seed gives the same result.
        coupling: see :class:`packing_jax.sweeps.spheres.Sweep`.
        batch_fraction: of sgd.
        mixture: equal spheres, or 1:1.4.
        bracket: the packing fractions between which to begin; phi_c must lie well below the upper one. None: from
            dilute to denser than random close packing. A resumed search keeps its own.
        out: directory for summary.json and for search.json, from which an interrupted search resumes, with the same
            result.
        command: recorded there.
        on_progress: called after every chunk; an exception that it raises ends the search, which can be resumed.

    Returns:
        phi_c, its error, the rounds, and the particle-steps spent. `reached` is False if the budget ended first.

    Raises:
        PackingError: arguments out of range, a search of another kind or a sweep in ``out``, another process at work
            there, no transition in reach.
    """
    check_dim(dim)
    if not (math.isfinite(kick) and kick > 0):
        raise PackingError(f"the kick is {kick:g}; it must be a positive number")
    directory = None if out is None else Path(out)
    known = None if directory is None else stored_search(directory)
    if known is not None:
        bracket = known.settings.bracket
    settings = settings_of(dim, kick, bracket or whole_bracket(dim), tolerance, budget)
    spec = Sweep(
        rule=rule,
        coupling=coupling,
        dim=dim,
        particles=settings.particles,
        phi=whole_bracket(dim),
        kick=(kick,),
        batch_fraction=None if batch_fraction is None else (batch_fraction,),
        mixture=mixture,
        steps=settings.steps,
        replicas=2,
        seed=seed,
    ).checked()
    return _search(_Spheres(spec), settings, directory, command, on_progress)


def search_task(
    task: Any = "perceptron",
    *,
    rule: Any = None,
    axes: Mapping[str, float | int] | None = None,
    settings: Mapping[str, str] | None = None,
    tolerance: float = TASK_TOLERANCE,
    budget: int = BUDGET,
    seed: int = 0,
    disorder_seed: int = 0,
    precision: str = "float32",
    out: Path | str | None = None,
    command: str = "",
    on_progress: Callable[[SearchProgress], None] = lambda _: None,
) -> SearchResult:
    """The number of samples per weight that a task's networks can satisfy: :func:`search`, of networks.

    alpha_c = lim alpha_h(N) for N -> infinity, alpha_h the number of samples per weight at which half of the replicas
    come to rest within T ~ N^(1/2) steps. Each replica has samples and a start of its own. The size exponent is fitted,
    see `packing_jax.criticality.absorption.OF_TASKS`.

    Args:
        task: a name of `packing_jax.networks.tasks` with a control and a size, or a `Ready` of your own.
        rule: what moves the weights, as for :class:`packing_jax.sweeps.networks.Training`; None: the task's own.
        axes: name -> value of the task's numbers and the rule's, but for the control and the size.
        settings: name -> text of their options that are no numbers.
        tolerance: standard error of alpha_c to reach.
        budget: weight-steps (moves times weights) to spend at most.
        seed: of the noise.
        disorder_seed: of samples and starts.
        precision: float32 or float64.
        out: directory, as for `search`.
        command: recorded there.
        on_progress: called after every chunk; what it raises ends the search, which can go on.

    Raises:
        PackingError: a task without a control or a size, axes out of range, or what `search` refuses.
    """
    model = _Task(
        Training(
            task=task,
            rule=ready_task(task).sweep.get("rule") if rule is None else rule,
            axes=axes or {},
            settings=settings,
            steps=None,
            replicas=1,
            seed=seed,
            disorder_seed=disorder_seed,
            precision=precision,
            measure=(),
        )
    )
    directory = None if out is None else Path(out)
    known = None if directory is None else stored_search(directory)
    usual = np.atleast_1d(model.ready.sweep[model.what["control"]])
    bracket = (float(usual.min()) / 2, float(usual.max())) if known is None else known.settings.bracket
    begun = task_settings(model.what, bracket, tolerance, budget)
    next(model.parts(Ask(begun.particles, begun.steps, ((bracket[1], 0),))))  # before anything is written
    return _search(model, begun, directory, command, on_progress)


class _Spheres:
    """Packings of one kick and batch fraction; ``what`` is their description in search.json."""

    def __init__(self, spec: Sweep) -> None:
        self._spec = spec
        self.what: dict[str, Any] = {
            name: value for name, value in spec.settings().items() if name not in ("phi", "replicas")
        }

    def parts(self, ask: Ask) -> Iterator[tuple[list[int], Kind, Replicas]]:
        """The replicas asked for, in parts that run beside one another, and which of them these are: all at once."""
        spec = self._spec
        kick, fraction = spec.kick[0], (spec.batch_fraction or (1.0,))[0]
        phis = tuple(sorted({phi for phi, _ in ask.replicas}))
        size = replace(spec, particles=ask.particles, steps=ask.steps, phi=phis).checked()
        yield [*range(len(ask.replicas))], *size.build([(phi, kick, fraction, number) for phi, number in ask.replicas])


class _Task:
    """Networks of one value of each axis but the control and the size."""

    def __init__(self, spec: Training) -> None:
        self.ready = ready_task(spec.task)
        control, size = self.ready.control, self.ready.size
        if control is None or size is None:
            raise PackingError(
                "critical needs a task with a number of samples per weight and a number of weights to choose, such as "
                f"perceptron; {spec.task if isinstance(spec.task, str) else 'this task'} has none"
            )
        if taken := [name for name in (control, size) if name in (spec.axes or {})]:
            raise PackingError(f"critical chooses {taken[0]} by itself; omit it")
        self._spec = spec.checked()
        axes = dict(self._spec.axes or {})
        if several := [name for name, values in axes.items() if len(values) > 1 and name not in (control, size)]:
            raise PackingError(f"{several[0]} has several values; a search is of one")
        fixed = self._spec.fixed
        names = ("task", "rule", "settings", "precision", "seed", "disorder_seed", "own")
        self.what: dict[str, Any] = {name: fixed[name] for name in names if name in fixed} | {
            "control": control,
            "size": size,
            "axes": {name: values[0] for name, values in axes.items() if name not in (control, size)},
            "steps": self._spec.steps,
        }

    def parts(self, ask: Ask) -> Iterator[tuple[list[int], Kind, Replicas]]:
        """One for each number of samples: networks of one part have arrays of the same shapes."""
        what, alphas = self.what, tuple(sorted({alpha for alpha, _ in ask.replicas}))
        axes = {**what["axes"], what["control"]: alphas, what["size"]: ask.particles}
        spec = replace(self._spec, axes=axes, steps=ask.steps).checked()
        groups: dict[Hashable, list[int]] = {}
        names = []
        for place, (alpha, number) in enumerate(ask.replicas):
            values = {**what["axes"], what["control"]: alpha, what["size"]: ask.particles}
            names.append((*(values[name] for name in spec.axes or ()), number))
            groups.setdefault(spec.group(names[-1]), []).append(place)
        for places in groups.values():
            yield places, *spec.build([names[place] for place in places])


_Model = _Spheres | _Task


def _search(
    model: _Model,
    settings: SearchSettings,
    directory: Path | None,
    command: str,
    on_progress: Callable[[SearchProgress], None],
) -> SearchResult:
    """What is known, and then what is asked for."""
    settings.check()
    with contextlib.ExitStack() as opened:
        file = None if directory is None else opened.enter_context(locked(directory, command))
        simulator = _Recorded(model, settings, file, on_progress)
        result = refine(settings, simulator, simulator.round_ended)
        simulator.save()
        if directory is not None:
            write_summary(directory, result, model.what)
    return result


class _Recorded:
    """A simulator that keeps its answers in DIR/search.json, and does not run again what is there."""

    def __init__(
        self,
        model: _Model,
        settings: SearchSettings,
        file: Manifest | None,
        on_progress: Callable[[SearchProgress], None],
    ) -> None:
        self._model, self._settings, self._file, self._on_progress = model, settings, file, on_progress
        self._spent, self._rounds = 0, tuple[Round, ...]()
        self._law: AbsorptionTimes | None = None
        # what a result depends on; budget and tolerance only decide where the search ends
        self._digest = digest_of([model.what, provenance() | jax_settings()])
        stored = None if file is None else stored_search(file.path.parent)
        if stored is not None and stored.digest != self._digest:
            raise PackingError(
                f"{file.path.parent if file else ''} has a search of another system, seed or version of packing_jax "
                "and jax; give another --out"
            )
        self._known = {} if stored is None else stored.answers

    def __call__(self, ask: Ask) -> Answer:
        answer = self._known.get(ask)
        if answer is None:
            answer = self._run(ask)
        self._spent += answer.particle_steps
        if ask not in self._known:
            self._known[ask] = answer
            self.save()
        return answer

    def _run(self, ask: Ask) -> Answer:
        absorbed_at, moves, name = [-1] * len(ask.replicas), 0, self._settings.parameter
        self._tell(ask.particles, 0)
        for places, kind, replicas in self._model.parts(ask):
            before = moves * ask.particles

            def told(now: Progress, before: int = before) -> None:
                self._tell(ask.particles, before + now.unit_steps)

            for index, one in run(kind, replicas, np.array([ask.steps], np.int32), {}, on_progress=told):
                if one.failed:
                    raise PackingError(f"a replica at {name} = {ask.replicas[places[index]][0]:g} {one.reason}")
                absorbed_at[places[index]] = one.absorbed_at
                moves += one.steps
        return Answer(tuple(absorbed_at), moves * ask.particles)

    def round_ended(self, rounds: tuple[Round, ...], law: AbsorptionTimes | None) -> None:
        """Report a finished round."""
        self._rounds, self._law = rounds, law
        self._tell(rounds[-1].particles, 0)

    def _tell(self, particles: int, more: int) -> None:
        spent, stderr = self._spent + more, self._law.stderr if self._law else math.inf
        left = forecast(self._settings, self._rounds, self._law, spent)
        self._on_progress(SearchProgress(self._rounds, particles, spent, left, stderr))

    def save(self) -> None:
        """Write search.json."""
        if self._file is None:
            return
        if not self._file.is_held():
            raise PackingError(f"{self._file.path} was removed or replaced: the search ends, and writes nothing more")
        settings, directory = self._settings, self._file.path.parent
        facts: dict[str, Any] = {
            "search": self._model.what,
            "bracket": settings.bracket,
            "tolerance": settings.tolerance,
            "budget": settings.budget,
            "versions": provenance(),
            "digest": self._digest,
            "batches": [{**ask._asdict(), **answer._asdict()} for ask, answer in self._known.items()],
        }
        text = json.dumps(facts, indent=1, allow_nan=False) + "\n"
        try:
            Folder(directory).write({SEARCH: text.encode()})
        except OSError as error:
            raise cannot_write(directory, error) from error
