"""95 % intervals hold the truth 93 to 97 times in 100, for every estimate of phi_c and of an exponent."""

import json

import pytest
from known_models import CASES, CONSERVATIVE, coverage
from results import FOLDER, keep
from scipy.stats import binom

COMMITTED = FOLDER / "coverage.json"
MANY = dict.fromkeys(CASES, 1000) | {"adaptive search": 400}
FEW = dict.fromkeys(CASES, 100) | {"collapse": 40, "time collapse": 60, "adaptive search": 15}


@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth(case):
    # A reduced number: an interval whose coverage is 93 % or more fails for less than one seed in 1000, one of 80 %
    # in four cases of five with 100 draws. Seeds are fixed. The full number is below.
    hits, refused = coverage(case, FEW[case])
    made = FEW[case] - refused
    assert refused <= 0.03 * FEW[case]
    for count in hits.values():
        assert count >= binom.ppf(1 / 300 if case == "adaptive search" else 0.001, made, 0.93)


def test_the_committed_coverages_are_honest():
    rows = json.loads(COMMITTED.read_text())
    assert set(rows) == set(CASES)
    for case, row in rows.items():
        for share in row["coverage"].values():
            # 93 to 97 in 100 give or take the three standard errors of the draws
            assert 0.93 - 3 * row["stderr"] <= share
            assert share <= 0.97 + 3 * row["stderr"] or case in CONSERVATIVE


@pytest.mark.validation
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth_over_many_draws(case):
    hits, refused = coverage(case, MANY[case])
    made = MANY[case] - refused
    row = {
        "coverage": {name: round(count / made, 4) for name, count in hits.items()},
        "draws": MANY[case],
        "refused": refused,
        "stderr": round((0.95 * 0.05 / made) ** 0.5, 4),
    }
    assert refused <= 0.03 * MANY[case]
    keep("coverage.json", case, row)
    test_the_committed_coverages_are_honest()
