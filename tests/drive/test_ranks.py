"""A batch closes its ranks where that saves more than another program costs, and no bit depends on it."""

import jax
import numpy as np
import pytest

import packing_jax as pj
from packing_jax.drive import batch as batches
from packing_jax.drive.batch import Batch

STEPS = 400


@pytest.fixture(scope="module")
def systems():
    """Eight dilute ones that come to rest, and eight dense ones that never do."""
    return pj.stack([pj.System.create(phi, 64, dim=2) for phi in [0.1] * 8 + [1.0] * 8])


def traced(systems, monkeypatch, compile_seconds):
    """The run, and the widths of its batch."""
    widths, refill = [], Batch.refill

    def watched(self, seconds, seconds_left):
        refill(self, seconds, seconds_left)
        widths.append(self.places)

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "refill", watched)
        patch.setattr(batches, "COMPILE", compile_seconds)
        run = pj.simulate(systems, pj.bro(0.3), STEPS, jax.random.key(0), chunk_steps=20)
    return run, widths


def test_half_a_batch_goes_on_alone(systems, monkeypatch):
    run, widths = traced(systems, monkeypatch, 0.0)
    wide, all_the_time = traced(systems, monkeypatch, np.inf)
    assert (run.absorbed_at[:8] >= 0).all()
    assert (run.absorbed_at[8:] < 0).all()
    assert widths[-1] == 8
    assert set(all_the_time) == {16}
    np.testing.assert_array_equal(run.positions, wide.positions)
    np.testing.assert_array_equal(run.absorbed_at, wide.absorbed_at)
    for name, values in wide.records.items():
        np.testing.assert_array_equal(run.records[name], values)


def test_a_program_that_would_save_little_is_not_made(systems, monkeypatch):
    _, widths = traced(systems, monkeypatch, batches.COMPILE)
    assert set(widths) == {16}
