"""The command `packing-jax sweep`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

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
from packing_jax.errors import PackingError
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spec import stored_spec
from packing_jax.sweeps.spheres import Sweep

_MAIN_PHI = "0.59:0.6075:8"  # across the transition of the main job: 3D pairwise BRO at kick 0.05, phi_c near 0.597


@dataclass(frozen=True, kw_only=True)
class SweepCommand(SweepOptions):
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
        return sweep_and_report(
            spec,
            self.out or free_directory("packing-sweep"),
            self,
            command,
            scheduler=self.scheduler,
            local_workers=self.local_workers,
        )

    def _go_on(self, directory: Path, command: str) -> int:
        """The sweep in a directory, with what else the command asks for."""
        stored = stored_spec(description(directory), Sweep(**self.objects()))
        if self.out is not None:
            raise PackingError(f"--resume writes into {directory}; leave --out away")
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
            replicas=stored.replicas or 1,
        )
        asked = tyro.cli(SweepCommand, args=shlex.split(command)[2:], default=before, prog="packing-jax sweep")
        spec = asked.specification(
            numbers("phi", asked.phi or ""),
            numbers("kick", asked.kick),
            numbers("batch-fraction", asked.batch_fraction or ""),
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


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(map(repr, values))
