"""What the validation tests keep: files of rows under tests/validation, and the table of them.

`python tests/validation/results.py` writes tests/validation/README.md again from the rows.
"""

import fcntl
import json
import math
from pathlib import Path
from typing import Any

from packing_jax.figures.published import MANNA, PUBLISHED, Published, published

FOLDER = Path(__file__).parent
TABLE = FOLDER / "README.md"
FILES = ("results.json", "jamming.json", "spectrum.json", "flatness.json", "design.json")
_HEAD = """# Validation

Written by `pytest -m validation` from [results.json](results.json), [jamming.json](jamming.json),
[spectrum.json](spectrum.json), [flatness.json](flatness.json) and [design.json](design.json), which hold more of each
row: every phi_c behind a limit, the seeds, the versions. [coverage.json](coverage.json) says how often 95 % intervals
hold the truth, [gradients.json](gradients.json) how far derivatives through runs are from central differences. Sweeps
are kept under `runs/`, so that a suite that was stopped goes on where it was; delete that folder to begin anew. Rows at
phi_c (contacts, S(q), collapse, decay) take it from the rows of phi_c and beta in these files, which are made first.
"Time" is that of all runs behind a row; others ran on the same device meanwhile. For SGD "kick" is the learning rate
alpha; where kick sizes are to match, alpha = 4/3 of the kick at b_f = 3/4.

Published numbers are those of [published.py](../../packing_jax/figures/published.py), which the figures of
`packing-jax reproduce` take too. The deviation is (value - target)/sqrt(stderr^2 + target's own error^2). Met means
within the target's own range for phi_c, contacts and S(q), and within twice the joint error for exponents; the tests of
phi_c fail beyond twice the joint error only. phi_c by the search is where half of the replicas are absorbed, carried to
infinite N; power laws of the activity, whose points nearest to phi_c are left out while they still fall, lie 0.003 to
0.006 higher at kicks up to 0.1, in the same runs too (Langevin, and SGD at 0.01), and within 0.003 at 0.2: 0.006 is
what the methods differ by, and more than some errors. "Met" is empty where the error of an exponent of a universality
class is more than a tenth of it, so that another class would meet it too.

| quantity | value | target | deviation | met | N | replicas | steps | seed | device | time, s |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def keep(file: str, name: str, row: dict[str, Any]) -> None:
    """Write one row of a file of results, leaving the others as they are; several processes may do so."""
    from packing_jax.versions import provenance

    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = FOLDER / file
        rows = json.loads(path.read_text()) if path.exists() else {}
        rows[name] = {"versions": provenance(), **row}
        path.write_text(json.dumps(rows, indent=1) + "\n")
        if file in FILES:
            TABLE.write_text(table())


def kept(file: str, name: str) -> Any:
    """A row as it was kept, which other rows stand on: phi_c of hours of sweeps is not found anew for each."""
    rows = json.loads((FOLDER / file).read_text())
    assert name in rows, f"{file} has no row {name!r} yet: run the test that keeps it first"
    return rows[name]


def judged(value: float, stderr: float, one: Published) -> dict[str, Any]:
    """A value against a number; the deviation is in joint errors. What is published is kept by its quantity alone.

    Met within the number's own range; an exponent of a universality class, whose error says nothing of that, within two
    joint errors, unless its own error is more than a tenth of it and other classes would be met too.
    """
    deviation = (value - one.value) / math.hypot(stderr, one.error)
    met: bool | None = abs(value - one.value) <= one.error
    if one in MANNA.values():
        met = abs(deviation) <= 2
        if met and stderr > 0.1 * one.value:
            met = None
    known = PUBLISHED.get(one.quantity) == one
    target = {"reference": one.quantity} if known else {"target": f"{shown(one)} ({one.kind}: {one.source})"}
    return {**target, "value": value, "stderr": stderr, "deviation": deviation, "met": met}


def shown(one: Published) -> str:
    """A number with its error."""
    return f"{one.value:.4g} +- {one.error:.2g}" if one.error else f"{one.value:g}"


def _renewed(row: dict[str, Any]) -> dict[str, Any]:
    """A row beside the published number as it is today, which is never copied into the files."""
    if "reference" not in row:
        return row
    if isinstance(row["reference"], dict):  # of several values, by their names
        parts = ", ".join(f"{name} {shown(published(quantity))}" for name, quantity in row["reference"].items())
        return {**row, "target": f"exponents: {parts}"}
    one = published(row["reference"])
    again = {} if row.get("value") is None else judged(at_infinity(row), row["stderr"], one)
    return {**row, **again, "value": row.get("value"), "target": f"{shown(one)} ({one.source})"}


def at_infinity(row: dict[str, Any]) -> float:
    """What is judged: the value, or where there is one its limit for large N."""
    return float(row.get("value_at_infinite_N", row["value"]))


def table() -> str:
    """The rows of all files, as a Markdown table."""
    lines, notes = [], []
    rows: dict[str, Any] = {}
    for file in FILES:
        rows |= dict(sorted(json.loads((FOLDER / file).read_text()).items())) if (FOLDER / file).exists() else {}
    for name, row in ((name, _renewed(row)) for name, row in rows.items()):
        met = {True: "yes", False: "**no**", None: ""}[row.get("met")]
        deviation = "" if row.get("deviation") is None else f"{row['deviation']:+.1f}"
        cells = (
            name,
            _with_error(row),
            row["target"],
            deviation,
            met,
            *(_listed(row.get(key)) for key in ("particles", "replicas", "steps", "seed")),
            row["versions"]["device"].split(": ")[-1],
            f"{row['seconds']:.0f}",
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        if row.get("note"):
            notes.append(f"- **{name}**: {row['note']}")
    return _HEAD + "\n".join(lines) + ("\n\n" + "\n".join(notes) if notes else "") + "\n"


def _with_error(row: dict[str, Any]) -> str:
    value, error, infinite = row.get("value"), row.get("stderr"), row.get("value_at_infinite_N")
    if value is None:
        return "see below" if row.get("note") else "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:.3f} +- {error[name]:.3f}" for name, number in value.items())
    alone = f"{value:.4g}" if error is None else f"{value:.4f} +- {error:.4f}"
    return alone if infinite is None else f"{alone}; {infinite:.4f} at infinite N"


def _listed(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return f"{min(value)} to {max(value)}" if len(set(value)) > 1 else str(value[0])
    return str(value)


if __name__ == "__main__":
    TABLE.write_text(table())
