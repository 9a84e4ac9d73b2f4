"""The command `packing-jax critical`: a search for phi_c, told as it goes and at its end."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tqdm import tqdm

from packing_jax.commands.options import OptionalCoupling
from packing_jax.errors import PackingError
from packing_jax.sweeps.field_types import Mixture
from packing_jax.sweeps.model import RuleName

if TYPE_CHECKING:  # what they import takes as long as the rest of the command line
    from packing_jax.adaptive import SearchProgress
    from packing_jax.criticality.search import SearchResult


@dataclass(frozen=True, kw_only=True)
class CriticalCommand:
    """Find phi_c to a tolerance, choosing phi, N, steps and replicas by itself.

    - Counts absorbed replicas in systems of growing size, where the
      transition is, and extrapolates to infinite size.
    - Ends when the standard error is within the tolerance, or the budget
      is spent; exit code 0 either way, and the last line says which.
    - With --out DIR, a search that was stopped goes on when it is begun
      again, and ends with the same numbers.
    """

    dim: int = 3
    """Dimension, 1 to 6."""
    rule: RuleName = "bro"
    """What moves the particles."""
    kick: float = 0.05
    """Kick size eps for bro, ro and langevin, learning rate for sgd, in mean diameters."""
    tolerance: float = 0.003
    """Standard error of phi_c to reach."""
    budget: Annotated[float, tyro.conf.arg(help_behavior_hint="(default: 1e10)")] = 1e10
    """Particle-steps to spend at most."""
    coupling: OptionalCoupling = None
    """Who shares a random draw, as for sweep. Default: pair; particle for ro."""
    batch_fraction: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Batch fraction b_f of sgd, above 0 and at most 1. Default: 0.75."""
    mixture: Mixture = "mono"
    """Equal spheres, or half of diameter 1 and half of 1.4."""
    seed: int = 0
    """Seed of everything random; the same seed gives the same numbers."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Write critical.json and critical.png there, and go on with what is there. Default: nothing is written."""

    def execute(self, command: str) -> int:
        """Search, and tell."""
        if not (math.isfinite(self.budget) and self.budget >= 1):
            raise PackingError(f"the budget is {self.budget:g} particle-steps; it must be a positive number")
        from packing_jax.adaptive import search

        bar = _Bar()
        try:
            result = search(
                dim=self.dim,
                rule=self.rule,
                kick=self.kick,
                tolerance=self.tolerance,
                budget=int(self.budget),
                seed=self.seed,
                coupling=self.coupling,
                batch_fraction=self.batch_fraction,
                mixture=self.mixture,
                out=self.out,
                on_progress=bar.show,
            )
        finally:
            bar.close()
        print(format_result(result))
        if self.out is not None:
            from packing_jax.commands.plots import phi_h_vs_size
            from packing_jax.sweeps.folder import Folder

            try:
                with Folder(self.out).replacing("critical.png", flushed=False) as file:
                    phi_h_vs_size(result).savefig(file, format="png")
            except OSError as error:
                raise PackingError(f"{self.out} cannot be written ({error.strerror or error})") from error
            print(f"figure: {self.out / 'critical.png'}\nsummary: {self.out / 'critical.json'}")
        return 0


class _Bar:
    """A progress bar on a terminal: the share of the budget that is spent, and what is known so far."""

    def __init__(self) -> None:
        self._bar: Any = None

    def show(self, now: SearchProgress) -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}{postfix}", file=sys.stderr)
        self._bar.update(min(now.particle_steps / now.budget, 1.0) - self._bar.n)
        known = [f"half absorbed at {one.phi_h:.5f} for N = {one.particles}" for one in now.rounds[-1:]]
        words = [f"{now.particle_steps:.2g} particle-steps", *known, f"N = {now.particles} under way"]
        self._bar.set_postfix_str(", ".join(words))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def format_result(result: SearchResult) -> str:
    """The rounds as a table, and phi_c, in 80 columns."""
    lines = [f"{'N':>8} {'steps':>9} {'replicas':>9} {'half absorbed at phi':>24} {'width':>9} {'spent':>9}"]
    lines += [
        f"{one.particles:8} {one.steps:9} {one.replicas:9} {f'{one.phi_h:.5f} +- {one.stderr:.5f}':>24} "
        f"{one.width:9.2g} {one.particle_steps:9.2g}"
        for one in result.rounds
    ]
    spent = f"{result.particle_steps:.3g} of {result.budget:.3g} particle-steps spent"
    if result.law is not None:
        low, high = result.interval
        lines += [
            f"phi_c = {result.value:.5f} +- {result.stderr:.5f} (95 %: {low:.5f} to {high:.5f}), N, t -> infinity",
            f"of its error {result.law.statistical:.5f} is of the replicas, {result.law.run_length:.5f} of the length",
            f"of the runs, and {result.law.size:.5f} of the size",
        ]
    else:
        lines.append("phi_c is not extrapolated: that takes three sizes")
    verdict = "within the tolerance" if result.reached else "the budget ended short of the tolerance"
    lines.append(f"{verdict} {result.tolerance:g}; {spent}")
    return "\n".join(lines)
