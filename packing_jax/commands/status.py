"""The command `packing-jax status`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from packing_jax.commands.lines import wrapped
from packing_jax.commands.search_report import format_search, is_search, search_status


@dataclass(frozen=True)
class StatusCommand:
    """Show the state of a sweep or search, running or not, from any terminal.

    Exit code 0; 1 if files are damaged, which the output names.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run, sweep, train or critical writes with --out."""
    log: Annotated[Literal["text", "json"], tyro.conf.arg(metavar="text|json")] = "text"
    """Text for a person, or one JSON object."""
    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read all numbers and compare their checksums. Default: only the names and sizes of the files."""

    def execute(self, command: str) -> int:
        """Look and tell."""
        from packing_jax.sweeps.status import format_status, status

        if is_search(self.directory):
            print(json.dumps(search_status(self.directory)) if self.log == "json" else format_search(self.directory))
            return 0
        facts = status(self.directory, verify=self.verify)
        if self.log == "json":
            print(json.dumps(facts))
        else:
            lines = format_status(self.directory, facts).splitlines()
            print("\n".join(wrapped(line, sys.stdout, indent="  ") for line in lines))
        return 1 if facts["damage"] else 0
