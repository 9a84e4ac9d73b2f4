"""What is kept of forty sweeps and of two brackets: the error of the recommended phi_c holds, and so does its value."""

import json

import numpy as np
import phi_c_brackets
import phi_c_coverage
import pytest

pytestmark = pytest.mark.validation


def test_the_error_holds_what_longer_runs_do():
    """In 36 of 40 sweeps phi_c at 1e4 steps is within two errors of that at 1e5; half have an error below 0.5 %."""
    rows = json.loads(phi_c_coverage.ROWS.read_text())["sweeps"]
    assert set(rows) == set(phi_c_coverage.sweeps())
    assert len(rows) == 40
    short, long = ([one[str(steps)] for one in rows.values()] for steps in (phi_c_coverage.SHORT, phi_c_coverage.LONG))
    assert all(short)
    assert all(long)
    z = np.array([(a["value"] - b["value"]) / a["stderr"] for a, b in zip(short, long, strict=True)])
    assert np.sum(np.abs(z) <= 2) >= 36
    assert np.median([one["stderr"] / one["value"] for one in short]) <= 0.005
    assert 0.4 <= np.sqrt(np.mean(z**2)) <= 1.3


@pytest.mark.parametrize("name", phi_c_brackets.BRACKETS)
def test_recommended_values_agree_with_the_bracket_of_a_large_system(name):
    """The bracket is no wider than 0.003, and each sweep of this system at 1e5 steps is within two errors of it."""
    fates = json.loads(phi_c_brackets.ROWS.read_text())["systems"][name].values()
    low = max(one["phi"] for one in fates if one["fate"] == "dies")
    high = min(one["phi"] for one in fates if one["fate"] == "lives")
    assert 0 < round(high - low, 6) <= 0.003
    sweeps = json.loads(phi_c_coverage.ROWS.read_text())["sweeps"]
    values = [
        one[str(phi_c_coverage.LONG)] for label, one in sweeps.items() if label.startswith(name.replace(" 1:1.4", ""))
    ]
    assert len(values) >= 4
    for one in values:
        assert low - 2 * one["stderr"] <= one["value"] <= high + 2 * one["stderr"]
