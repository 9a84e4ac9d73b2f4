"""The command `packing-jax rerun`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from packing_jax.commands.own import OwnOptions
from packing_jax.errors import printable


@dataclass(frozen=True, kw_only=True)
class RerunCommand(OwnOptions):
    """Compute one cell of a sweep again, and say whether the bytes agree.

    Exit code 0 if every byte does, 1 if not.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep wrote with --out."""
    cell: int
    """Number of the cell, from 0, along the axes of the store (phi, kick, batch fraction, replica), the replica
    fastest."""

    def execute(self, command: str) -> int:
        """Compute and compare."""
        from packing_jax.sweeps.rerun import rerun
        from packing_jax.sweeps.spheres import Sweep

        same, sentence = rerun(self.directory, self.cell, Sweep(**self.objects()))
        print(printable(sentence))
        return 0 if same else 1
