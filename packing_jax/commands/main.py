"""The command line: run, sweep, critical, status, rerun, report, doctor, movie, bench.

Exit codes: 0 done, every cell is in the store; 1 a check failed (doctor, rerun); 2 bad input or a full disk, in one
sentence; 3 stopped by --max-walltime with cells left; 4 done, but some cells failed; 130 Ctrl-C; 143 SIGTERM. The last
line says how many cells are done, failed and missing.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from packing_jax.commands.bench import BenchCommand
from packing_jax.commands.critical import CriticalCommand
from packing_jax.commands.movie import MovieCommand
from packing_jax.commands.progress_bar import Log, Said
from packing_jax.errors import PackingError
from packing_jax.sweeps.cluster import connected
from packing_jax.sweeps.progress import Stop, seconds
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spec import stored_spec
from packing_jax.sweeps.spheres import CouplingName, Mixture, RuleName, Sweep

_BEGAN = time.monotonic()  # what --max-walltime counts from

_MAIN_PHI = "0.59:0.6075:8"  # across the transition of the main job: 3D pairwise BRO at kick 0.05, phi_c near 0.597

Grid = Annotated[str, tyro.conf.arg(metavar="LIST|LO:HI:N")]
OptionalGrid = Annotated[str | None, tyro.conf.arg(metavar="LIST|LO:HI:N", help_behavior_hint="")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
OptionalDir = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TIME", help_behavior_hint="")]
OptionalFrames = Annotated[str | None, tyro.conf.arg(metavar="every:K|log", help_behavior_hint="")]
OptionalLog = Annotated[Log | None, tyro.conf.arg(help_behavior_hint="")]
OptionalCoupling = Annotated[CouplingName | None, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class _Words:
    """What run and sweep have in common."""

    rule: RuleName = "bro"
    """What moves the particles: biased random organization, stochastic gradient descent on the overlap energy, random
    organization, or the moment-matched Langevin map."""
    coupling: OptionalCoupling = None
    """Who shares a random draw: both partners of an overlap (pair), each its own (pair-independent), or all overlaps
    of a particle; particle-normalised is for bro. Default: pair; particle for ro."""
    correlation: float = 1.0
    """Correlation p of the two partners' draws, 0 to 1, for coupling pair."""
    dim: int = 3
    """Dimension, 1 to 6."""
    particles: int = 1000
    """Number of particles N."""
    mixture: Mixture = "mono"
    """Equal spheres, or half of diameter 1 and half of 1.4."""
    exponent: float = 1.0
    """Exponent a >= 1 of the pair energy (1 - r/sigma)^a: 1 linear, 2 harmonic, 2.5 Hertzian."""
    steps: OptionalInt = None
    """Steps to make. Default: 500 over the smallest kick."""
    record_every: OptionalInt = None
    """Steps between two records. Default: 40 logarithmic and 100 linear times."""
    trajectory: OptionalFrames = None
    """Write the particles to DIR/trajectories/*.gsd, for OVITO and freud: every K steps, or ten times a decade.
    Default: no trajectories."""
    seed: int = 0
    """Seed of everything random; the same seed gives the same bits."""
    out: OptionalDir = None
    """Directory for the results. Default: packing-run or packing-sweep, or the first free packing-sweep-2, -3, ..."""
    max_walltime: OptionalText = None
    """Stop in time for this limit of a queue system, counted from the start of the command: seconds, MM:SS, HH:MM:SS or
    D-HH:MM:SS."""
    log: OptionalLog = None
    """What is said on the way, on stderr: a progress bar, one JSON object a line, or nothing but the last line.
    Default: bar on a terminal, else quiet."""

    def specification(
        self, phi: tuple[float, ...], kick: tuple[float, ...], batch_fraction: tuple[float, ...] | None, replicas: int
    ) -> Sweep:
        """The sweep that these words describe."""
        return Sweep(
            rule=self.rule,
            coupling=self.coupling,
            correlation=self.correlation,
            dim=self.dim,
            particles=self.particles,
            phi=phi,
            kick=kick,
            batch_fraction=batch_fraction,
            exponent=self.exponent,
            mixture=self.mixture,
            steps=self.steps,
            record_every=self.record_every,
            trajectory=self.trajectory,
            replicas=replicas,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class SweepCommand(_Words):
    """Sweep a grid of packing fractions (and kicks) and estimate phi_c.

    - With no options: 3D pairwise BRO at kick 0.05 across its transition,
      half a minute on two CPU cores.
    - Ends with the report: phi_c with its error, and figures.
    - Ctrl-C and SIGTERM end it after the present steps; nothing is lost.
    - --resume DIR goes on from there, and adds what is asked for beyond:
      more --steps, more --replicas, further values of --phi or --kick.
    - Exit code 0: all cells done; 2: bad input or a full disk; 3: stopped
      by --max-walltime; 4: some cells failed; 130 or 143: stopped by a
      signal. The last line counts.
    """

    resume: OptionalDir = None
    """Go on with the sweep in DIR. Words that are not given are as they were; those that differ are refused, except for
    more steps, replicas and values of phi, kick and batch fraction."""

    phi: OptionalGrid = None
    """Packing fractions: a list 0.6,0.62 or a range 0.58:0.62:9 (both ends included)."""
    kick: Grid = "0.05"
    """Kick size eps for bro, ro and langevin, learning rate for sgd, in mean diameters. List or range."""
    batch_fraction: OptionalGrid = None
    """Batch fraction b_f of sgd, above 0 and at most 1. List or range. Default: 0.75."""
    replicas: int = 3
    """Independent runs of each point of the grid."""
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Run on the workers of a Dask scheduler, such as tcp://node1:8786; they share this file system."""
    local_workers: OptionalInt = None
    """Run on so many worker processes of this machine."""

    def execute(self, command: str) -> int:
        """Run the sweep, then the report."""
        if self.resume is not None:
            return self._go_on(self.resume, command)
        phi = self.phi
        if phi is None:
            asked = (self.rule, self.coupling or "pair", self.correlation, self.dim, self.mixture, self.kick)
            if asked != ("bro", "pair", 1.0, 3, "mono", "0.05"):
                raise PackingError("there is no default --phi for this system; give a list or a range, as 0.58:0.62:9")
            phi = _MAIN_PHI
        fractions = None if self.batch_fraction is None else numbers("batch-fraction", self.batch_fraction)
        spec = self.specification(numbers("phi", phi), numbers("kick", self.kick), fractions, self.replicas)
        return _simulate(spec, self.out or free_directory("packing-sweep"), self, command)

    def _go_on(self, directory: Path, command: str) -> int:
        """The sweep in a directory, with what else the command asks for."""
        stored = stored_spec(description(directory), Sweep())
        if self.out is not None:
            raise PackingError(f"--resume writes into {directory}; leave --out away")
        # The words once more, with the store's values in the place of the defaults.
        before = SweepCommand(
            rule=stored.rule,
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
            replicas=stored.replicas or 1,
        )
        asked = tyro.cli(SweepCommand, args=shlex.split(command)[2:], default=before, prog="packing-jax sweep")
        spec = asked.specification(
            numbers("phi", asked.phi or ""),
            numbers("kick", asked.kick),
            numbers("batch-fraction", asked.batch_fraction or ""),
            asked.replicas,
        )
        return _simulate(spec, directory, self, command, resume=True)


@dataclass(frozen=True, kw_only=True)
class RunCommand(_Words):
    """Run one packing fraction: activity, energy and displacement against time.

    The same words as sweep with one value each, the same store and figures.
    """

    phi: float
    """Packing fraction."""
    kick: float = 0.05
    """Kick size eps for bro, ro and langevin, learning rate for sgd, in mean diameters."""
    batch_fraction: OptionalFloat = None
    """Batch fraction b_f of sgd, above 0 and at most 1. Default: 0.75."""
    replicas: int = 1
    """Independent runs."""

    def execute(self, command: str) -> int:
        """Run it, then the report."""
        fractions = None if self.batch_fraction is None else (self.batch_fraction,)
        spec = self.specification((self.phi,), (self.kick,), fractions, self.replicas)
        return _simulate(spec, self.out or free_directory("packing-run"), self, command)


@dataclass(frozen=True)
class ReportCommand:
    """Estimate phi_c from a store; write summary.json and figures, print a table."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep wrote with --out."""

    def execute(self, command: str) -> int:
        """Make the report."""
        from packing_jax.commands.report import format_summary, report

        print(format_summary(report(self.directory)))
        print(f"\nfigures: {self.directory / 'figures'}\nsummary: {self.directory / 'summary.json'}")
        return 0


@dataclass(frozen=True)
class StatusCommand:
    """Where a running or stopped sweep stands; from any terminal, at any time."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep writes with --out."""
    log: Literal["text", "json"] = "text"
    """For a person, or one JSON object."""

    def execute(self, command: str) -> int:
        """Look and tell."""
        from packing_jax.sweeps.status import format_status, status

        facts = status(self.directory)
        print(json.dumps(facts) if self.log == "json" else format_status(self.directory, facts))
        return 0


@dataclass(frozen=True, kw_only=True)
class RerunCommand:
    """Compute one cell of a sweep again, and say whether the bytes agree.

    Exit code 0 if every byte does, 1 if not.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep wrote with --out."""
    cell: int
    """Number of the cell, from 0, along (phi, kick, batch fraction, replica), the replica fastest."""

    def execute(self, command: str) -> int:
        """Compute and compare."""
        from packing_jax.sweeps.rerun import rerun

        same, sentence = rerun(self.directory, self.cell)
        print(sentence)
        return 0 if same else 1


@dataclass(frozen=True)
class DoctorCommand:
    """Show versions and devices, and check that this jax computes right numbers."""

    def execute(self, command: str) -> int:
        """Examine this machine."""
        from packing_jax.commands import doctor, machine

        print("checking, up to a minute", file=sys.stderr)
        checks = doctor.examine(on_check=lambda check: print(f"{'ok' if check.passed else 'FAILED':6} {check.name}"))
        print(doctor.format_report(machine.environment(), checks))
        return 0 if all(check.passed for check in checks) else 1


def numbers(name: str, text: str) -> tuple[float, ...]:
    """``a,b,c`` or ``lo:hi:n`` (both ends included) as numbers.

    Raises:
        PackingError: anything else.
    """
    wrong = PackingError(
        f"--{name} is {text!r}; it must be a list such as 0.6,0.62 or a range lo:hi:n such as 0.58:0.62:9"
    )
    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        low, high, count = text.split(":")
        first, last, n = float(low), float(high), int(count)
        if not 1 <= n <= 100_000 or (n == 1 and first != last):
            raise wrong
        # rounded, so that a range gives the numbers one would type: they name the cells of the store
        step = (last - first) / max(n - 1, 1)
        return (first, *(float(f"{first + i * step:.10g}") for i in range(1, n - 1)), last)[:n]
    except ValueError as error:
        raise wrong from error


def free_directory(name: str) -> Path:
    """``name``, or the first of name-2, name-3, ... that does not exist."""
    path, number = Path(name), 1
    while path.exists():
        number += 1
        path = Path(f"{name}-{number}")
    return path


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(map(repr, values))


def _simulate(spec: Sweep, out: Path, words: _Words, command: str, resume: bool = False) -> int:
    limit = None if words.max_walltime is None else seconds(words.max_walltime)
    log = Said(words.log or ("bar" if sys.stderr.isatty() else "quiet"))
    there = (words.scheduler, words.local_workers) if isinstance(words, SweepCommand) else (None, None)
    try:
        with connected(*there) as client:
            outcome = run_sweep(
                spec,
                out,
                resume=resume,
                on_progress=log.progress,
                on_note=log.note,
                command=command,
                stop=Stop(limit, _BEGAN),
                client=client,
            )
    finally:
        log.close()
    if outcome.stopped is None:
        ReportCommand(out).execute(command)
        sys.stdout.flush()
    log.end(out, outcome)
    if outcome.stopped is not None:
        return {"SIGINT": 130, "SIGTERM": 143}.get(outcome.stopped, 3)
    return 4 if outcome.failed else 0


def _keep_compiled() -> None:
    """Keep compiled programs for the next process in the user's cache directory, unless jax was told of another."""
    # jax before 0.12 prints lines of errors from C++ whenever it reads what it kept for a CPU
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and jax.__version_info__ >= (0, 12):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "packing_jax"))


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    commands: dict[str, Callable[..., Any]] = {
        "run": RunCommand,
        "sweep": SweepCommand,
        "critical": CriticalCommand,
        "status": StatusCommand,
        "rerun": RerunCommand,
        "report": ReportCommand,
        "doctor": DoctorCommand,
        "movie": MovieCommand,
        "bench": BenchCommand,
    }
    try:
        command: Any = tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="packing-jax",
            description="Phase diagrams of packed spheres under random organization and SGD.",
            args=args,
        )
        words = sys.argv[1:] if args is None else args
        _keep_compiled()
        code = int(command.execute(shlex.join(["packing-jax", *words])))
        sys.stdout.flush()
        return code
    except PackingError as error:
        print(f"packing-jax: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader went away, as in `packing-jax report DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("packing-jax: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
