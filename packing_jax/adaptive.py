"""phi_c of a system by the adaptive search: `packing-jax critical`, and the same in Python.

:mod:`packing_jax.criticality.search` decides what to run; here it is run, by the one driver
:func:`packing_jax.drive.run.run`, recorded, and told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from packing_jax.criticality.search import Answer, Ask, Round, SearchResult, SearchSettings, check_settings, refine
from packing_jax.drive.run import Progress, run
from packing_jax.errors import PackingError
from packing_jax.spheres.geometry import ball_volume, check_dim
from packing_jax.sweeps.field_types import Mixture
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import digest_of
from packing_jax.sweeps.model import CouplingName, RuleName
from packing_jax.sweeps.spheres import Sweep
from packing_jax.versions import jax_settings, provenance

BUDGET = 10**10
"""Particle-steps of a search: a quarter of an hour at 10 million a second."""

_DENSEST = {1: 1.0, 2: 0.9, 3: 0.7, 4: 0.5, 5: 0.34, 6: 0.22}  # above random close packing, where nothing is absorbed
_DILUTEST = 1 / 8  # of that, where a search begins: it goes lower if all is active there
_SMALLEST, _SIDE = 256, 5  # particles, and mean diameters along a side, of the first round
_LARGEST_FILE = 2**28  # bytes of critical.json
_STEPS = 200.0  # kick times steps of the first round


class SearchProgress(NamedTuple):
    """Where a search stands, after a chunk."""

    rounds: tuple[Round, ...]  #: finished
    particles: int  #: of the round under way
    particle_steps: int  #: spent
    budget: int


def search(
    *,
    dim: int = 3,
    rule: RuleName = "bro",
    kick: float = 0.05,
    tolerance: float = 0.003,
    budget: int = BUDGET,
    seed: int = 0,
    coupling: CouplingName | None = None,
    batch_fraction: float | None = None,
    mixture: Mixture = "mono",
    out: Path | str | None = None,
    on_progress: Callable[[SearchProgress], None] = lambda _: None,
) -> SearchResult:
    """phi_c to a tolerance: brackets and refines by itself, choosing phi, N, steps and replicas.

    phi_c = lim phi_h(N) for N -> infinity, phi_h the packing fraction at which half of the replicas are absorbed within
    T ~ N^(z/d) steps; how, and how the error is found, is in :mod:`packing_jax.criticality.search`. The transition is
    that of quenches from independent uniform positions. The energy is the linear one, where an overlap can end.

    Args:
        dim: dimension, 1 to 6.
        rule: bro, sgd, ro or langevin.
        kick: kick size, for sgd the learning rate, in mean diameters.
        tolerance: standard error of phi_c to reach.
        budget: particle-steps (moves times particles) to spend at most; no batch is begun that could go beyond.
        seed: of everything random; the same seed gives the same result.
        coupling: see :class:`packing_jax.sweeps.spheres.Sweep`.
        batch_fraction: of sgd.
        mixture: equal spheres, or 1:1.4.
        out: directory for critical.json, from which a search that was cut goes on with the same result.
        on_progress: called after every chunk.

    Returns:
        phi_c, its error, the rounds, and what was spent. `reached` is False if the budget ended first.

    Raises:
        PackingError: arguments out of range, a search of another kind in ``out``, no transition in reach.
    """
    check_dim(dim)
    if not (math.isfinite(kick) and kick > 0):
        raise PackingError(f"the kick is {kick:g}; it must be a positive number")
    densest = _DENSEST[dim]
    dense_box = densest * _SIDE**dim / (ball_volume(dim) / 2**dim)  # particles in a box of five diameters
    first = _SMALLEST * 2 ** max(0, math.ceil(math.log2(dense_box / _SMALLEST)))
    steps = math.ceil(min(_STEPS / kick, 2**30))
    settings = SearchSettings(dim, (densest * _DILUTEST, densest), first, max(steps, 100), tolerance, budget)
    spec = Sweep(
        rule=rule,
        coupling=coupling,
        dim=dim,
        particles=first,
        phi=settings.bracket,
        kick=(kick,),
        batch_fraction=None if batch_fraction is None else (batch_fraction,),
        mixture=mixture,
        steps=settings.steps,
        replicas=2,
        seed=seed,
    ).checked()
    check_settings(settings)
    simulator = _Recorded(spec, settings, None if out is None else Path(out), on_progress)
    result = refine(settings, simulator, simulator.round_ended)
    simulator.save(result)
    return result


class _Recorded:
    """A simulator that remembers, in DIR/critical.json, what it has been asked, and answers that at once."""

    def __init__(
        self,
        spec: Sweep,
        settings: SearchSettings,
        directory: Path | None,
        on_progress: Callable[[SearchProgress], None],
    ) -> None:
        self._spec, self._settings, self._directory, self._on_progress = spec, settings, directory, on_progress
        self._spent, self._rounds = 0, tuple[Round, ...]()
        # what a result depends on: the budget only cuts it, and a finer tolerance asks for more of the same
        self._what = {name: value for name, value in spec.settings().items() if name not in ("phi", "replicas")}
        self._known = (
            {} if directory is None else _read(directory, digest_of([self._what, provenance() | jax_settings()]))
        )

    def __call__(self, ask: Ask) -> Answer:
        answer = self._known.get(ask)
        if answer is None:
            answer = self._run(ask)
        self._spent += answer.particle_steps
        if ask not in self._known:
            self._known[ask] = answer
            self.save(None)
        return answer

    def _run(self, ask: Ask) -> Answer:
        spec = self._spec
        kick, fraction = spec.kick[0], (spec.batch_fraction or (1.0,))[0]
        phis = tuple(sorted({phi for phi, _ in ask.replicas}))
        size = replace(spec, particles=ask.particles, steps=ask.steps, phi=phis).checked()
        kind, replicas = size.build([(phi, kick, fraction, number) for phi, number in ask.replicas])
        absorbed_at, moves = [-1] * len(ask.replicas), 0

        def progress(now: Progress) -> None:
            spent = self._spent + now.unit_steps
            self._on_progress(SearchProgress(self._rounds, ask.particles, spent, self._settings.budget))

        for index, one in run(kind, replicas, np.array([ask.steps], np.int32), {}, on_progress=progress):
            if one.failed:
                raise PackingError(f"a replica at phi = {ask.replicas[index][0]:g} {one.reason}")
            absorbed_at[index] = one.absorbed_at
            moves += one.steps
        return Answer(tuple(absorbed_at), moves * ask.particles)

    def round_ended(self, rounds: tuple[Round, ...]) -> None:
        """Tell of a finished round."""
        self._rounds = rounds
        self._on_progress(SearchProgress(rounds, rounds[-1].particles, self._spent, self._settings.budget))

    def save(self, result: SearchResult | None) -> None:
        """Write what is known; with a result, what came of it as well."""
        if self._directory is None:
            return
        facts: dict[str, Any] = {
            "search": self._what,
            "versions": provenance(),
            "digest": digest_of([self._what, provenance() | jax_settings()]),
            "result": None if result is None else summary(result),
            "batches": [{**ask._asdict(), **answer._asdict()} for ask, answer in self._known.items()],
        }
        text = json.dumps(facts, indent=1, allow_nan=False) + "\n"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            Folder(self._directory).write({"critical.json": text.encode()})
        except OSError as error:
            raise PackingError(f"{self._directory} cannot be written ({error.strerror or error})") from error


def summary(result: SearchResult) -> dict[str, Any]:
    """A result as plain JSON values, without the outcomes; an error that is not known is None."""
    facts = asdict(result)
    del facts["outcomes"]
    facts["stderr"] = result.stderr if math.isfinite(result.stderr) else None
    return facts


def _read(directory: Path, digest: str) -> dict[Ask, Answer]:
    path = directory / "critical.json"
    try:
        facts = json.loads(Folder(directory).read("critical.json", _LARGEST_FILE))
        same = facts["digest"] == digest
        batches = {
            Ask(
                int(one["particles"]), int(one["steps"]), tuple((float(p), int(r)) for p, r in one["replicas"])
            ): Answer(tuple(int(at) for at in one["absorbed_at"]), int(one["particle_steps"]))
            for one in facts["batches"]
        }
        if not all(len(ask.replicas) == len(answer.absorbed_at) for ask, answer in batches.items()):
            raise ValueError
    except FileNotFoundError:
        return {}
    except PackingError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise PackingError(f"{path} is damaged or no search of packing_jax; give another --out") from error
    if not same:
        raise PackingError(
            f"{path} is a search of another system, seed or version of packing_jax and jax; give another --out"
        )
    return batches
