"""95 % intervals hold the truth 93 to 97 times in 100, for every estimate of phi_c and of an exponent.

coverage.json keeps how often they did in many draws, which are made by hand. In CI the first of these draws are made
again, with the same seeds: an estimator that changes for the worse leaves what is committed.
"""

import json

import pytest
from known_models import CASES, CONSERVATIVE, coverage
from results import FOLDER, keep
from scipy.stats import binom

COMMITTED = FOLDER / "coverage.json"
MANY = dict.fromkeys(CASES, 1000) | {"adaptive search": 60}
SOME = {case: 150 for case in CASES if case != "adaptive search"}  # of which one takes seconds


def check_honest(case, row):
    """93 to 97 in 100, give or take three standard errors of the draws."""
    for share in row["coverage"].values():
        assert 0.93 - 3 * row["stderr"] <= share
        assert share <= 0.97 + 3 * row["stderr"] or case in CONSERVATIVE


@pytest.mark.parametrize("case", SOME)
def test_intervals_hold_the_truth(case):
    # A count is out of these bounds for 2 seeds in 1000; the seeds are fixed. Intervals that hold the truth in 80 cases
    # of 100 pass with a probability of 0.004 to 0.03.
    row = json.loads(COMMITTED.read_text())[case]
    check_honest(case, row)
    hits, refused = coverage(case, SOME[case])
    assert refused <= 0.03 * SOME[case]
    assert set(hits) == set(row["coverage"])
    for name, count in hits.items():
        low, high = binom.ppf([0.001, 0.999], SOME[case] - refused, row["coverage"][name])
        assert low <= count <= high, name


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
    check_honest(case, row)
