"""The command `packing-jax run`."""

from dataclasses import dataclass

from packing_jax.commands.options import OptionalFloat, SweepOptions, free_directory, sweep_and_report


@dataclass(frozen=True, kw_only=True)
class RunCommand(SweepOptions):
    """Run one packing fraction: activity, energy and displacement against time.

    Takes the options of sweep, with one value each, and writes the same files.
    """

    phi: float
    """Packing fraction."""
    kick: float = 0.05
    """Kick size eps of bro, ro and langevin, or learning rate of sgd and thermal, in mean diameters."""
    batch_fraction: OptionalFloat = None
    """Batch fraction b_f of sgd, above 0 and at most 1. Default: 0.75."""
    temperature: OptionalFloat = None
    """Temperature kT of thermal, in the units of the energy, at least 0."""
    replicas: int = 1
    """Independent runs."""

    def execute(self, command: str) -> int:
        """Run it, then the report."""
        fractions = None if self.batch_fraction is None else (self.batch_fraction,)
        heats = None if self.temperature is None else (self.temperature,)
        spec = self.specification((self.phi,), (self.kick,), fractions, heats, self.replicas)
        return sweep_and_report(spec, self.out or free_directory("packing-run"), self, command)
