"""The command `packing-jax rerun`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from packing_jax.commands.own import OwnOptions
from packing_jax.errors import printable
from packing_jax.sweeps.own import imported
from packing_jax.sweeps.schema import description, stored_kind


@dataclass(frozen=True, kw_only=True)
class RerunCommand(OwnOptions):
    """Compute one cell of a sweep again, and say whether the bytes agree.

    Exit code 0 if all bytes agree, 1 if not.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run, sweep or train wrote with --out."""
    cell: int
    """Number of the cell. Cells are counted from 0 along the axes of the store (for spheres: phi, kick, batch fraction,
    replica), the last axis fastest."""
    task: Annotated[str | None, tyro.conf.arg(metavar="MODULE:OBJECT", help_behavior_hint="")] = None
    """For networks: the task of your own with which the sweep was made."""

    def execute(self, command: str) -> int:
        """Compute and compare."""
        from packing_jax.sweeps.kinds import known_spec
        from packing_jax.sweeps.networks import Training
        from packing_jax.sweeps.rerun import rerun
        from packing_jax.sweeps.spheres import Sweep

        attributes, objects = description(self.directory), self.objects()
        if stored_kind(attributes) == Training.kind:
            del objects["energy"]
            task = known_spec(attributes).fixed["task"] if self.task is None else imported(self.task, "--task")
            same, sentence = rerun(self.directory, self.cell, Training(task=task, **objects))
        else:
            same, sentence = rerun(self.directory, self.cell, Sweep(**objects))
        print(printable(sentence))
        return 0 if same else 1
