"""Figures of related systems: a law that is wrong by a factor of 1.1 is rejected by the gates of the figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from packing_jax.figures import low_rank_factorisation, nag_gs
from packing_jax.figures.catalogue import FIGURES
from packing_jax.figures.figure import Row, Run, verdict
from packing_jax.figures.linear import trace_and_determinant

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
RELATED = (
    "law-of-balance", "linear-fdt", "low-rank-factorisation", "modified-flows", "implicit-sgd", "nag-gs",
    "mean-field-langevin", "edge-of-stability", "spectral-bias", "disordered-dynamics", "epochs", "in-and-out",
    "kernel-and-rich", "dmft-error", "large-steps", "relu-phases",
)  # fmt: skip


@pytest.mark.parametrize("name", RELATED)
def test_a_wrong_law_is_rejected(name):
    """At the errors that the runs of the gallery had, and at the largest ones at which a row still decides.

    What a run left undecided is taken to be where its law is, with an error that decides. Rows whose reference is 0 are
    relative differences between a run and its law, or powers: a factor of 1.1 leaves 0.1 there.
    """
    rows = json.loads((GALLERY / f"{name}.json").read_text())["rows"]
    assert rows
    rejected = 0
    for row in rows:
        one, gate = Row(*(row[field] for field in Row._fields)), FIGURES[name].resolution[row["quantity"]]
        if one.quantity.startswith("share of") and one.reference == 0:
            continue  # nothing times 1.1
        wrong = one._replace(reference=1.1 * one.reference) if one.reference else one._replace(value=one.value + 0.1)
        decided = row["agrees"] != "undecided"
        wrong = wrong if decided else wrong._replace(value=one.reference + 0.1 * (one.reference == 0))
        for stderr in (one.stderr, gate) if decided else (gate,):
            assert verdict(wrong._replace(stderr=stderr), gate) == "no", one.quantity
        rejected += 1
    assert rejected >= 2


def test_a_wrong_law_in_the_place_of_the_right_one(tmp_path, monkeypatch):
    """The whole way once: the figure nag-gs at its smallest, with a law whose trace is 1.1 times the right one."""

    def rows_of(folder):
        return {row.quantity: row for row in nag_gs.FIGURE.measured(Run("smoke", 0, tmp_path / folder)).rows}

    right = rows_of("right")
    assert {verdict(row, nag_gs.FIGURE.resolution[name]) for name, row in right.items()} == {"yes"}
    law = nag_gs.theory.trace_and_determinant

    def wrong_law(step, ratio):
        trace, determinant = law(step, ratio)
        return 1.1 * trace, determinant

    monkeypatch.setattr(nag_gs.theory, "trace_and_determinant", wrong_law)
    wrong = rows_of("wrong")
    changed = {name for name, row in wrong.items() if verdict(row, nag_gs.FIGURE.resolution[name]) == "no"}
    assert changed == {name for name in right if name.startswith("trace")}


def test_trace_and_determinant_of_four_steps():
    matrix, state, seen = np.array([[0.3, -1.2], [0.8, 0.5]]), np.array([1.0, 0.4]), []
    for _ in range(4):
        seen.append(state[0])
        state = matrix @ state
    np.testing.assert_allclose(trace_and_determinant(seen), [np.trace(matrix), np.linalg.det(matrix)], rtol=1e-12)


def test_extrapolation():
    rates = np.array([0.4, 0.2, 0.1])
    np.testing.assert_allclose(low_rank_factorisation.extrapolated(2 + 3 * rates - rates**2), 2, rtol=1e-12)
