"""The command `packing-jax report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from packing_jax.commands.search_report import is_search, report_search
from packing_jax.errors import PackingError
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.schema import description, stored_kind
from packing_jax.sweeps.status import how_it_goes_on, resuming, status

_LONGER = 3  # times the steps, where a report asks for more
_ADDED = 4  # packing fractions, where it asks for further ones: over the width of the scan once more


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
            kind, facts = "spheres", {}
        else:
            facts = status(self.directory)
            _refuse_unfinished(self.directory, facts)
        if kind == "networks":
            from packing_jax.commands import learning_summary

            print(learning_summary.format_summary(learning_summary.report(self.directory)))
        else:
            from packing_jax.commands.run_report import run_report
            from packing_jax.commands.summary import format_summary, report

            summary = report(self.directory)
            table = run_report(self.directory)
            print(table or format_summary(summary))
            if facts and table is None:
                for line in _commands_for(summary["notes"], self.directory, facts):
                    print(line)
        print(f"\nfigures: {self.directory / 'figures'}\nsummary: {self.directory / 'summary.json'}")
        return 0


def _refuse_unfinished(directory: Path, facts: dict[str, Any]) -> None:
    """Refuse a sweep of which there is nothing to report.

    Raises:
        PackingError: no cell is finished; the command that goes on.
    """
    results = facts["absorbed"] + facts["active"] + (facts["diverged"] if facts["kind"] == "networks" else 0)
    if not results:
        failed = f", {facts['failed']} failed ({facts['reasons'][0]})" if facts["failed"] else ""
        raise PackingError(
            f"there is nothing to report: none of the {facts['total']} cells of {directory} is finished{failed}; "
            f"{how_it_goes_on(directory, facts['own'], facts['kind'])}"
        )


def _commands_for(notes: Sequence[str], directory: Path, facts: dict[str, Any]) -> list[str]:
    """What the notes of a report ask for, as commands: packing fractions beyond the scan, more steps."""
    sweep, said = Reader(directory), " ".join(notes)
    phi = sorted(sweep.cells.axes["phi"])
    low, high = phi[0], phi[-1]
    spacing = (high - low) / _ADDED
    more = {
        "run more steps": f"--steps {_LONGER * facts['steps']}",
        "scan higher phi": f"--phi {high + spacing:.4g}:{2 * high - low:.4g}:{_ADDED}",
        "scan lower phi": f"--phi {max(2 * low - high, low / _ADDED):.4g}:{max(low - spacing, low / 2):.4g}:{_ADDED}",
    }
    lines = [
        f"to {what}: {resuming(directory, facts['own'], facts['kind'], options)}"
        for what, options in more.items()
        if what in said and (spacing > 0 or "phi" not in what)
    ]
    exponent = sweep.attributes.get("exponent")
    slow = "energy" in facts["own"] or (isinstance(exponent, int | float) and exponent > 1)
    if slow and "no replica was absorbed" in said:
        lines.append("more steps first: where the force vanishes at contact, overlaps end slowly")
    return ["", *lines] if lines else []
