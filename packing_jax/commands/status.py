"""The command `packing-jax status`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class StatusCommand:
    """Where a running or stopped sweep stands; from any terminal, at any time.

    Exit code 0; 1 if something is not as it was written, which the output names.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep writes with --out."""
    log: Literal["text", "json"] = "text"
    """For a person, or one JSON object."""
    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read all numbers and compare their checksums, and not only the names and sizes of the files."""

    def execute(self, command: str) -> int:
        """Look and tell."""
        from packing_jax.sweeps.status import format_status, status

        facts = status(self.directory, verify=self.verify)
        print(json.dumps(facts) if self.log == "json" else format_status(self.directory, facts))
        return 1 if facts["damage"] else 0
