"""A guess of a better neighbour search that is too small is taken back, and no bit depends on it."""

from dataclasses import replace

import jax
import numpy as np

import packing_jax as pj
from packing_jax.drive import run as driver
from packing_jax.spheres import tuning

STEPS, CHUNK = 400, 20


def traced(monkeypatch, **patches):
    """The run, and the longest row that each attempt at a chunk had room for."""
    rooms, attempt = [], driver._attempt

    def watched(kind, *args):
        rooms.append(kind.plan.capacity)
        return attempt(kind, *args)

    systems = pj.stack([pj.System.create(1.0, 64, dim=2) for _ in range(4)])
    with monkeypatch.context() as patch:
        patch.setattr(driver, "_attempt", watched)
        for name, function in patches.items():
            patch.setattr(tuning, name, function)
        run = pj.simulate(systems, pj.bro(0.3), STEPS, jax.random.key(0), chunk_steps=CHUNK)
    return run, rooms


def test_it_goes_back_and_tries_again_ever_later(monkeypatch):
    right, usual = traced(monkeypatch, next_plan=lambda plan, *_: (plan, 0.0))
    run, rooms = traced(monkeypatch, next_plan=lambda plan, *_: (replace(plan, capacity=1), 1e9))
    assert set(rooms) == {usual[-1], 1}  # never a third: the one before is known to fit
    tries = rooms.count(1)
    assert 2 <= tries <= 1 + np.log2(STEPS / CHUNK)
    assert len(rooms) == len(usual) + tries
    np.testing.assert_array_equal(run.positions, right.positions)
    for name, values in right.records.items():
        np.testing.assert_array_equal(run.records[name], values)
