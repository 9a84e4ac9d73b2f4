"""The command line: run, sweep, report, doctor, bench.

Bad input and full disks end with one sentence and exit code 2, Ctrl-C with 130 after saying what was kept, and a
failed self-check with 1.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from tqdm import tqdm

from packing_jax.bench import BenchCommand
from packing_jax.errors import PackingError
from packing_jax.simulate import Progress
from packing_jax.sweep import CouplingName, Mixture, RuleName, Sweep, run_sweep

_MAIN_PHI = "0.59:0.6075:8"  # across the transition of the main job: 3D pairwise BRO at kick 0.05, phi_c near 0.597

Grid = Annotated[str, tyro.conf.arg(metavar="LIST|LO:HI:N")]
OptionalGrid = Annotated[str | None, tyro.conf.arg(metavar="LIST|LO:HI:N", help_behavior_hint="")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
OptionalDir = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
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
    seed: int = 0
    """Seed of everything random; the same seed gives the same bits."""
    out: OptionalDir = None
    """Directory for the results. Default: packing-run or packing-sweep, or the first free packing-sweep-2, -3, ..."""

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
            replicas=replicas,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class SweepCommand(_Words):
    """Sweep a grid of packing fractions (and kicks) and estimate phi_c.

    - With no options: 3D pairwise BRO at kick 0.05 across its transition,
      a minute or two on two CPU cores.
    - Ends with the report: phi_c with its error, and figures.
    - Ctrl-C keeps every finished replica.
    """

    phi: OptionalGrid = None
    """Packing fractions: a list 0.6,0.62 or a range 0.58:0.62:9 (both ends included)."""
    kick: Grid = "0.05"
    """Kick size eps for bro, ro and langevin, learning rate for sgd, in mean diameters. List or range."""
    batch_fraction: OptionalGrid = None
    """Batch fraction b_f of sgd, above 0 and at most 1. List or range. Default: 0.75."""
    replicas: int = 3
    """Independent runs of each point of the grid."""

    def execute(self, command: str) -> int:
        """Run the sweep, then the report."""
        phi = self.phi
        if phi is None:
            asked = (self.rule, self.coupling or "pair", self.correlation, self.dim, self.mixture, self.kick)
            if asked != ("bro", "pair", 1.0, 3, "mono", "0.05"):
                raise PackingError("there is no default --phi for this system; give a list or a range, as 0.58:0.62:9")
            phi = _MAIN_PHI
        fractions = None if self.batch_fraction is None else numbers("batch-fraction", self.batch_fraction)
        spec = self.specification(numbers("phi", phi), numbers("kick", self.kick), fractions, self.replicas)
        return _simulate(spec, self.out or free_directory("packing-sweep"), command)


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
        return _simulate(spec, self.out or free_directory("packing-run"), command)


@dataclass(frozen=True)
class ReportCommand:
    """Estimate phi_c from a store; write summary.json and figures, print a table."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep wrote with --out."""

    def execute(self, command: str) -> int:
        """Make the report."""
        from packing_jax.report import format_summary, report

        print(format_summary(report(self.directory)))
        print(f"\nfigures: {self.directory / 'figures'}\nsummary: {self.directory / 'summary.json'}")
        return 0


@dataclass(frozen=True)
class DoctorCommand:
    """Show versions and devices, and check that this jax computes right numbers."""

    def execute(self, command: str) -> int:
        """Examine this machine."""
        from packing_jax import doctor

        print("checking, up to a minute", file=sys.stderr)
        checks = doctor.examine(on_check=lambda check: print(f"{'ok' if check.passed else 'FAILED':6} {check.name}"))
        print(doctor.format_report(doctor.environment(), checks))
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


def _simulate(spec: Sweep, out: Path, command: str) -> int:
    with _progress_bar() as show:
        outcome = run_sweep(spec, out, on_progress=show, command=command)
    if outcome.interrupted:
        print(
            f"interrupted: {outcome.done} of {outcome.total} replicas are finished and kept in {out}; "
            f"packing-jax report {out} reads them",
            file=sys.stderr,
        )
        return 130
    if outcome.failed:
        print(
            f"{outcome.failed} of {outcome.total} replicas diverged and are marked failed in {out}; use a smaller kick",
            file=sys.stderr,
        )
    return ReportCommand(out).execute(command)


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], None]]:
    with contextlib.ExitStack() as stack:
        bar: Any = None

        def show(progress: Progress) -> None:
            nonlocal bar
            if bar is None:  # not sooner: bad input gets a sentence and no bar
                bar = stack.enter_context(
                    tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}", file=sys.stderr)
                )
                bar.set_postfix_str("compiling")
                return
            bar.update(progress.share - bar.n)
            speed = progress.particle_steps / max(bar.format_dict["elapsed"], 1e-9)
            bar.set_postfix_str(f"{progress.done}/{progress.total} done, {speed / 1e6:.2g} M particle-steps/s")

        yield show


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
        "report": ReportCommand,
        "doctor": DoctorCommand,
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
