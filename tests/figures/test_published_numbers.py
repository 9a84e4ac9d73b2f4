"""One place for published numbers: the table of the validation and the rows of figures take them from there."""

import json

import numpy as np
import pytest
from results import FILES, FOLDER, TABLE, judged, table

from packing_jax.criticality import classes_in
from packing_jax.errors import PackingError
from packing_jax.figures import published as numbers
from packing_jax.figures.catalogue import FIGURES
from packing_jax.figures.published import DIRECTED_PERCOLATION, MANNA, PUBLISHED, Published, published


def test_each_number_has_one_name_and_a_source():
    assert len(PUBLISHED) == len(numbers._NUMBERS) + len(MANNA) + len(DIRECTED_PERCOLATION)
    for one in PUBLISHED.values():
        assert np.isfinite(one.value)
        assert one.error >= 0
        assert one.source
    assert MANNA["beta", 2][1:3] == classes_in(2)[0].exponents["beta"]
    with pytest.raises(PackingError, match="no published number is called 'phi_c'"):
        published("phi_c")


def test_the_table_of_the_validation_is_that_of_the_kept_rows():
    """So a number that changes here changes there, verdicts included."""
    assert TABLE.read_text() == table()
    rows = {name: row for file in FILES for name, row in json.loads((FOLDER / file).read_text()).items()}
    held = [row["reference"] for row in rows.values() if "reference" in row]
    assert len(held) > 30
    for one in held:
        for quantity in one.values() if isinstance(one, dict) else [one]:
            assert quantity in PUBLISHED


def test_a_changed_number_changes_the_table(monkeypatch):
    moved = published("phi_J, 2D")._replace(value=0.9)
    monkeypatch.setitem(PUBLISHED, "phi_J, 2D", moved)
    line = next(one for one in table().splitlines() if one.startswith("| phi_J, 2D, bisection"))
    assert "| 0.9 +- 0.003 (O'Hern" in line
    assert "| **no** |" in line


def test_verdicts_of_the_validation():
    limit = published("phi_c at zero kick, 3D")
    assert judged(0.644, 0.1, limit)["met"] is True
    assert judged(0.646, 0.1, limit)["met"] is False  # within its range, whatever our own error
    beta = MANNA["beta", 2]
    assert judged(0.65, 0.01, beta)["met"] is True
    assert judged(0.65, 0.1, beta)["met"] is None  # other classes would be met too
    assert judged(0.9, 0.1, beta)["met"] is False
    assert judged(0.65, 0.01, beta)["reference"] == "beta, Manna class, 2D"
    other = judged(1.0, 0.1, Published("length", 1.0, 0.1, "consistency", "a ruler"))
    assert other["target"] == "1 +- 0.1 (consistency: a ruler)"


def test_rows_of_figures_have_them():
    row = published("phi_J, 3D").row(0.64, 0.01)
    assert row[:4] == ("phi_J, 3D", 0.639, 0.004, "published")
    assert published("phi_J, 3D").row(0.64, 0.01, "another").quantity == "another"
    for name, quantities in {
        "hyperuniformity": ("hyperuniformity exponent at phi_c, 2D", "hyperuniformity exponent at phi_c, 3D"),
        "jamming": ("phi_J, 2D", "phi_J, 3D"),
    }.items():
        assert set(quantities) <= set(FIGURES[name].resolution)
