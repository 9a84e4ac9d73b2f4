"""The command `packing-jax report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class ReportCommand:
    """Estimate phi_c from a store; write summary.json and figures, print a table."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep wrote with --out."""

    def execute(self, command: str) -> int:
        """Make the report."""
        from packing_jax.commands.summary import format_summary, report

        print(format_summary(report(self.directory)))
        print(f"\nfigures: {self.directory / 'figures'}\nsummary: {self.directory / 'summary.json'}")
        return 0
