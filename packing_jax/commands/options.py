"""What the commands run and sweep share: their options, and what is done with them."""

import signal
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from packing_jax.commands import interrupts
from packing_jax.commands.own import OwnOptions
from packing_jax.commands.progress_bar import Log, ProgressReport
from packing_jax.commands.report import ReportCommand
from packing_jax.commands.search_report import is_search
from packing_jax.errors import PackingError
from packing_jax.sweeps.cluster import connected
from packing_jax.sweeps.field_types import Mixture
from packing_jax.sweeps.model import CouplingName
from packing_jax.sweeps.progress import Stop, seconds
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spec import Spec
from packing_jax.sweeps.spheres import Sweep

_MOST_VALUES = 100_000  # of a range
#: Packing fractions of the densest packings of equal spheres, known ones in 4 to 6 dimensions.
_DENSEST = {1: 1.0, 2: 0.9069, 3: 0.7405, 4: 0.6169, 5: 0.4653, 6: 0.3729}

Grid = Annotated[str, tyro.conf.arg(metavar="LIST|LO:HI:N")]
OptionalGrid = Annotated[str | None, tyro.conf.arg(metavar="LIST|LO:HI:N", help_behavior_hint="")]
RuleWord = Annotated[str, tyro.conf.arg(metavar="bro|sgd|ro|langevin|thermal|MODULE:OBJECT")]
MixtureWord = Annotated[Mixture, tyro.conf.arg(metavar="mono|1:1.4")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
OptionalDir = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TIME", help_behavior_hint="")]
OptionalFrames = Annotated[str | None, tyro.conf.arg(metavar="every:K|log", help_behavior_hint="")]
OptionalLog = Annotated[Log | None, tyro.conf.arg(metavar="bar|json|quiet", help_behavior_hint="")]
OptionalCoupling = Annotated[
    CouplingName | None,
    tyro.conf.arg(metavar="|".join(typing.get_args(CouplingName)), help_behavior_hint=""),
]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a sweep of anything is run."""

    out: OptionalDir = None
    """Directory for the results. Default: packing-run, packing-sweep or packing-TASK; if it exists, the first free
    packing-sweep-2, -3, ..."""
    max_walltime: OptionalText = None
    """Stop before this time limit of a queue system, counted from the start of the command: seconds, MM:SS, HH:MM:SS or
    D-HH:MM:SS."""
    log: OptionalLog = None
    """What to print on stderr during the run: a progress bar, one JSON object per line, or only the last line.
    Default: bar on a terminal, else quiet."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(RunOptions, OwnOptions):
    """What run and sweep have in common."""

    rule: RuleWord = "bro"
    """What moves the particles: biased random organization, stochastic gradient descent on the overlap energy, random
    organization, Langevin with the mean and variance of bro, or thermal: Langevin at a temperature, with noise on all
    particles. Or an object of your own, such as my_model:slow in ./my_model.py: a rule, an optax optimizer, or a
    function that makes one from the kick."""
    coupling: OptionalCoupling = None
    """What shares a random draw: both partners of an overlap (pair), nothing (pair-independent), or all overlaps of a
    particle (particle). particle-normalised, for bro only, makes one kick along the sum of their directions. Default:
    pair; particle for ro."""
    correlation: float = 1.0
    """Correlation p of the draws of the two partners, 0 to 1, for coupling pair."""
    dim: int = 3
    """Dimension, 1 to 6."""
    particles: int = 1000
    """Number of particles N."""
    mixture: MixtureWord = "mono"
    """Equal spheres (mono), or half of diameter 1 and half of 1.4."""
    exponent: float = 1.0
    """Exponent a >= 1 of the pair energy (1 - r/sigma)^a: 1 linear, 2 harmonic, 2.5 Hertzian."""
    steps: OptionalInt = None
    """Steps to make. Default: 3000 divided by the smallest kick."""
    record_every: OptionalInt = None
    """Steps between two records. Default: 40 logarithmic and 100 linear times."""
    trajectory: OptionalFrames = None
    """Write the positions to DIR/trajectories/*.gsd, for OVITO and freud: every K steps, or 20 times per decade.
    Default: no trajectories."""
    seed: int = 0
    """Seed of everything random; the same seed gives the same bits."""

    def specification(
        self,
        phi: tuple[float, ...],
        kick: tuple[float, ...],
        batch_fraction: tuple[float, ...] | None,
        temperature: tuple[float, ...] | None,
        replicas: int,
    ) -> Sweep:
        """The sweep that these words describe."""
        return Sweep(
            **self.objects(),
            coupling=self.coupling,
            correlation=self.correlation,
            dim=self.dim,
            particles=self.particles,
            phi=phi,
            kick=kick,
            batch_fraction=batch_fraction,
            temperature=temperature,
            exponent=self.exponent,
            mixture=self.mixture,
            steps=self.steps,
            record_every=self.record_every,
            trajectory=self.trajectory,
            replicas=replicas,
            seed=self.seed,
        )


def sweep_and_report(
    spec: Spec,
    out: Path,
    options: RunOptions,
    command: str,
    *,
    resume: bool = False,
    scheduler: str | None = None,
    local_workers: int | None = None,
) -> int:
    """Run a sweep, say where it stands, make its report; returns the exit code."""
    limit = None if options.max_walltime is None else seconds(options.max_walltime)
    log = ProgressReport(options.log or ("bar" if sys.stderr.isatty() else "quiet"))
    stop = Stop(limit, interrupts.BEGAN)
    if not resume and is_search(out):
        raise PackingError(f"{out} holds a search by packing-jax critical; choose another --out")
    if isinstance(spec, Sweep) and not resume:
        spec = spec.checked()
        if note := _never_absorbed(spec):
            log.note(note)
    with interrupts.stopped_by_flag(stop, lambda name: log.cut_off(out, name, spec)):
        try:
            with connected(scheduler, local_workers) as client:
                outcome = run_sweep(
                    spec,
                    out,
                    resume=resume,
                    on_progress=log.progress,
                    on_note=log.note,
                    command=command,
                    stop=stop,
                    client=client,
                )
        finally:
            log.close()
        if outcome.stopped is None and stop.signal is not None:  # it came when all cells were done
            outcome = outcome._replace(stopped=signal.Signals(stop.signal).name)
        usable = outcome.done - outcome.failed + (outcome.diverged if spec.diverges else 0)
        if outcome.stopped is None and usable:
            ReportCommand(out).execute(command)
            sys.stdout.flush()
        log.end(out, outcome, spec)
    if outcome.stopped is not None:
        return {"SIGINT": 130, "SIGTERM": 143}.get(outcome.stopped, 3)
    return 4 if outcome.failed > (outcome.diverged if spec.diverges else 0) else 0


def _never_absorbed(spec: Sweep) -> str:
    """A sentence where no packing without overlaps is so dense; empty where there may be one."""
    densest, phi = _DENSEST[spec.dim], max(spec.phi)
    if phi <= densest or spec.mixture != "mono" or spec.energy is not None:
        return ""
    return (
        f"phi = {phi:g} in {spec.dim}D: equal spheres without overlaps fill at most {densest:g} of space, so no "
        f"replica can be absorbed there; if that is not meant, stop with Ctrl-C and give --phi below {densest:g}"
    )


def numbers(name: str, text: str) -> tuple[float, ...]:
    """``a,b,c`` or ``lo:hi:n`` (both ends included) as numbers.

    Raises:
        PackingError: anything else; of a range what it lacks.
    """
    example = "a list such as 0.6,0.62 or a range lo:hi:n such as 0.58:0.62:9"
    parts = text.split(":")
    if len(parts) == 2 and all(map(is_number, parts)):
        raise PackingError(
            f"--{name} is {text!r}, a range that lacks its number of values: write {text}:9 for nine values"
        )
    try:
        if len(parts) == 1:
            return tuple(float(part) for part in text.split(","))
        low, high, count = parts
        first, last, n = float(low), float(high), int(count)
    except ValueError as error:
        raise PackingError(f"--{name} is {text!r}; it must be {example}") from error
    if n > _MOST_VALUES:
        raise PackingError(f"--{name} is {text!r}, a range of {n} values; at most {_MOST_VALUES} are possible")
    if n < 1 or (n == 1 and first != last):
        raise PackingError(
            f"--{name} is {text!r}; a range includes both ends, so it has at least two values: {low}:{high}:2"
        )
    # rounded, so that a range gives the numbers one would type: they name the cells of the store
    step = (last - first) / max(n - 1, 1)
    return (first, *(float(f"{first + i * step:.10g}") for i in range(1, n - 1)), last)[:n]


def is_number(word: str) -> bool:
    """Whether a word is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def free_directory(name: str) -> Path:
    """``name``, or the first of name-2, name-3, ... that does not exist."""
    path, number = Path(name), 1
    while path.exists():
        number += 1
        path = Path(f"{name}-{number}")
    return path
