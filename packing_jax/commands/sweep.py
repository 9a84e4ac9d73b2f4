"""The command `packing-jax sweep`."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from packing_jax.commands import interrupts
from packing_jax.commands.lines import say
from packing_jax.commands.options import (
    Grid,
    OptionalDir,
    OptionalGrid,
    OptionalInt,
    SweepOptions,
    free_directory,
    numbers,
    sweep_and_report,
)
from packing_jax.commands.progress_bar import Bar, ProgressReport
from packing_jax.errors import PackingError
from packing_jax.sweeps.compute import Stopped
from packing_jax.sweeps.progress import Stop, seconds
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spec import stored_spec
from packing_jax.sweeps.spheres import Sweep

_MAIN_PHI = "0.59:0.6075:8"  # of the main job: 3D pairwise BRO at kick 0.05, phi_c near 0.597
_LENGTH = ("particles", "steps")
_AXES = ("kick", "batch_fraction", "temperature")
_SYSTEM = ("rule", "coupling", "correlation", "dim", "mixture", "exponent", "energy", *_AXES)


@dataclass(frozen=True, kw_only=True)
class SweepCommand(SweepOptions):
    """Sweep a grid of packing fractions (and kicks) and estimate phi_c.

    - With no options: 3D pairwise BRO at kick 0.05 across its transition,
      two minutes on two CPU cores.
    - With other options but without --phi, a short search in small systems
      finds a range across the transition of each kick, in 2D and 3D in
      less than a minute.
    - Ends with the report: phi_c with its error, and figures.
    - Ctrl-C and SIGTERM stop it after the current steps; nothing is lost.
    - --resume DIR continues, and can add more --steps, more --replicas, and
      further values of --phi, --kick, --batch-fraction or
      --temperature.
    - Exit code 0: all cells done; 2: bad input or a full disk; 3: stopped
      by --max-walltime; 4: some cells failed; 130 or 143: stopped by a
      signal. A cell is one replica at one point of the grid.
    """

    resume: OptionalDir = None
    """Continue the sweep in DIR. Options that are not given keep their values. Only more steps, replicas and values of
    phi, kick, batch fraction and temperature may be added; other changes are refused."""

    start_from: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR", help_behavior_hint="")] = None
    """Sweep around the phi_c that critical found, with the system of its search in DIR."""

    phi: OptionalGrid = None
    """Packing fractions: a list 0.6,0.62 or a range 0.58:0.62:9 (both ends included). Default: found by a short
    search."""
    kick: Grid = "0.05"
    """Kick size eps of bro, ro and langevin, or learning rate of sgd and thermal, in mean diameters. List or
    range."""
    batch_fraction: OptionalGrid = None
    """Batch fraction b_f of sgd, above 0 and at most 1. List or range. Default: 0.75."""
    temperature: OptionalGrid = None
    """Temperature kT of thermal, in the units of the energy, at least 0. List or range. With thermal give --phi too."""
    replicas: int = 3
    """Independent runs of each point of the grid."""
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Run on the workers of a Dask scheduler, such as tcp://node1:8786. They must see the same file system."""
    local_workers: OptionalInt = None
    """Number of worker processes to run on, on this machine."""

    def execute(self, command: str) -> int:
        """Run the sweep, then the report."""
        if self.resume is not None:
            return self._go_on(self.resume, command)
        asked, phi = self, None if self.phi is None else numbers("phi", self.phi)
        if self.start_from is not None:
            asked, phi = self._around(self.start_from, command)
        fractions = None if asked.batch_fraction is None else numbers("batch-fraction", asked.batch_fraction)
        spec = asked.specification(
            phi or numbers("phi", _MAIN_PHI), numbers("kick", asked.kick), fractions, _heats(asked), asked.replicas
        )
        if phi is None and any(getattr(self, name) != getattr(SweepCommand(), name) for name in (*_SYSTEM, *_LENGTH)):
            try:
                spec = _with_phi(spec, self)
            except Stopped:
                say(
                    f"packing-jax: stopped by --max-walltime {self.max_walltime} in the search for packing fractions; "
                    "nothing is stored: allow more time, or give --phi"
                )
                return 3
        return sweep_and_report(
            spec,
            self.out or free_directory("packing-sweep"),
            self,
            command,
            scheduler=self.scheduler,
            local_workers=self.local_workers,
        )

    def _around(self, directory: Path, command: str) -> tuple["SweepCommand", tuple[float, ...]]:
        """The words for the system of a search, and packing fractions around its phi_c."""
        from packing_jax.search_folder import range_around, stored_search

        stored = stored_search(directory)
        if stored is None or self.phi is not None:
            raise PackingError(
                f"{directory} has no search.json: --from takes the directory that packing-jax critical wrote"
                if stored is None
                else "--from finds the packing fractions; omit --phi"
            )
        what = stored.what
        if "task" in what:
            raise PackingError(f"the search in {directory} is of a task; sweep takes --from a search of spheres")
        before = SweepCommand(
            rule=what["rule"],
            coupling=what["coupling"],
            correlation=what["correlation"],
            dim=what["dim"],
            mixture=what["mixture"],
            kick=_listed(what["kick"]),
            batch_fraction=_listed(what["batch_fraction"]) if what["rule"] == "sgd" else None,
        )
        asked = _parsed(command, before)
        for name in _SYSTEM:
            there, here = getattr(before, name), getattr(asked, name)
            if _meant(name, there) != _meant(name, here):
                raise PackingError(
                    f"{name.replace('_', ' ')} is {there} in {directory} and {here} here; the phi_c found there is of "
                    "another system"
                )
        return asked, range_around(directory, asked.particles).values

    def _go_on(self, directory: Path, command: str) -> int:
        """The sweep in a directory, with what else the command asks for."""
        stored = stored_spec(description(directory), Sweep(**self.objects()))
        for option, given in (("out", self.out), ("from", self.start_from)):
            if given is not None:
                raise PackingError(f"--resume continues what is in {directory}; omit --{option}")
        # The words once more, with the store's values in the place of the defaults.
        before = SweepCommand(
            rule=stored.rule if isinstance(stored.rule, str) else self.rule,
            coupling=stored.coupling,
            correlation=stored.correlation,
            dim=stored.dim,
            particles=stored.particles if isinstance(stored.particles, int) else stored.particles[0],
            mixture=stored.mixture,
            exponent=stored.exponent,
            steps=stored.steps,
            record_every=stored.record_every,
            trajectory=stored.trajectory,
            seed=stored.seed,
            phi=_listed(stored.phi),
            kick=_listed(stored.kick),
            batch_fraction=_listed(stored.batch_fraction or (1.0,)),
            temperature=None if stored.temperature is None else _listed(stored.temperature),
            replicas=stored.replicas or 1,
        )
        asked = _parsed(command, before)
        spec = asked.specification(
            numbers("phi", asked.phi or ""),
            numbers("kick", asked.kick),
            numbers("batch-fraction", asked.batch_fraction or ""),
            _heats(asked),
            asked.replicas,
        )
        return sweep_and_report(
            spec,
            directory,
            self,
            command,
            resume=True,
            scheduler=self.scheduler,
            local_workers=self.local_workers,
        )


def _heats(asked: SweepCommand) -> tuple[float, ...] | None:
    return None if asked.temperature is None else numbers("temperature", asked.temperature)


def _meant(name: str, value: object) -> object:
    """What the value of an option says, so that 0.10 is 0.1."""
    return numbers(name, value) if name in _AXES and isinstance(value, str) else value


def _parsed(command: str, before: SweepCommand) -> SweepCommand:
    """The words of a command once more, with other values in the place of the defaults."""
    return tyro.cli(SweepCommand, args=shlex.split(command)[2:], default=before, prog="packing-jax sweep")


def _with_phi(spec: Sweep, options: SweepCommand) -> Sweep:
    """The sweep with packing fractions from a short search, told in one line."""
    from packing_jax.phi_range import DENSEST, find_ranges, joined

    replace(spec, phi=(DENSEST.get(spec.dim, 0.6),)).checked()  # bad input gets a sentence before anything is run
    log = ProgressReport(options.log or ("bar" if sys.stderr.isatty() else "quiet"))
    bar, began = Bar(), time.monotonic()

    stop = None if options.max_walltime is None else Stop(seconds(options.max_walltime), interrupts.BEGAN)

    def show(share: float) -> None:
        if stop is not None and (reason := stop.reason()):
            raise Stopped(reason)
        if log.form == "bar":
            bar.show(share, None, ["looking for the transition, as there is no --phi"])

    try:
        ranges = find_ranges(spec, show)
    finally:
        bar.close()
    phi = joined(ranges)
    found = "; ".join(f"{_cell(pair, spec)}{one}" for pair, one in ranges.items())
    together = f", together {len(phi)} values" if len(ranges) > 1 else ""
    log.note(f"no --phi: a search of {time.monotonic() - began:.0f} s found {found}{together}")
    return replace(spec, phi=phi)


def _cell(pair: tuple[float, float], spec: Sweep) -> str:
    """Which of several kicks and batch fractions, in words."""
    several = (len(spec.kick) > 1, len(spec.batch_fraction or ()) > 1)
    words = [
        f"{name} {value:g}" for name, value, many in zip(("kick", "batch fraction"), pair, several, strict=True) if many
    ]
    return f"{', '.join(words)}: " if words else ""


def _listed(values: Sequence[float]) -> str:
    return ",".join(map(repr, values))
