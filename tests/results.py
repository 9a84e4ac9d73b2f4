"""What the validation tests keep: one file of rows for each area, under tests/validation."""

import json
from pathlib import Path

from packing_jax.layout import provenance

FOLDER = Path(__file__).parent / "validation"


def keep(file: str, name: str, row: dict) -> None:
    """Write one row of a file of results, leaving the others as they are."""
    path = FOLDER / file
    FOLDER.mkdir(exist_ok=True)
    rows = json.loads(path.read_text()) if path.exists() else {}
    rows[name] = {**row, "versions": provenance()}
    path.write_text(json.dumps(rows, indent=2) + "\n")
