"""The command `packing-jax report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from packing_jax.commands.search_report import is_search, report_search
from packing_jax.errors import PackingError
from packing_jax.sweeps.schema import description, stored_kind
from packing_jax.sweeps.status import how_it_goes_on, status


@dataclass(frozen=True)
class ReportCommand:
    """Report on what is in DIR: summary.json, figures and a table.

    - For a sweep of spheres: phi_c. For a run: the result of each replica.
      For networks: losses, activity and displacements. For a search by
      critical: its table, figure and summary.json again.
    - Exit code 0; 2 if there is no sweep, or none of its cells is finished.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run, sweep, train or critical wrote with --out."""

    def execute(self, command: str) -> int:
        """Make the report."""
        if is_search(self.directory):
            report_search(self.directory)
            return 0
        try:
            kind = stored_kind(description(self.directory))
        except PackingError:  # estimates of phi_c take older and foreign stores too, and say what is wrong with others
            kind = "spheres"
        else:
            _refuse_unfinished(self.directory)
        if kind == "networks":
            from packing_jax.commands import learning_summary

            print(learning_summary.format_summary(learning_summary.report(self.directory)))
        else:
            from packing_jax.commands.run_report import run_report
            from packing_jax.commands.summary import format_summary, report

            summary = report(self.directory)
            print(run_report(self.directory) or format_summary(summary))
        print(f"\nfigures: {self.directory / 'figures'}\nsummary: {self.directory / 'summary.json'}")
        return 0


def _refuse_unfinished(directory: Path) -> None:
    """Refuse a sweep of which there is nothing to report.

    Raises:
        PackingError: no cell is finished; the command that goes on.
    """
    facts = status(directory)
    results = facts["absorbed"] + facts["active"] + (facts["diverged"] if facts["kind"] == "networks" else 0)
    if not results:
        failed = f", {facts['failed']} failed ({facts['reasons'][0]})" if facts["failed"] else ""
        raise PackingError(
            f"there is nothing to report: none of the {facts['total']} cells of {directory} is finished{failed}; "
            f"{how_it_goes_on(directory, facts['own'], facts['kind'])}"
        )
