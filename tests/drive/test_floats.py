"""A second kind goes through everything the driver has: chunks, refill, absorption, checkpoints, resume, devices.

Its sums are floats, so that all of this holds at a fixed width, and is asserted there to the bit.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from floats import Descent, Floats, Perceptron, activity, loss

import packing_jax
from packing_jax import PackingError, simulate
from packing_jax.drive import run as driver
from packing_jax.drive.run import run, state_like
from packing_jax.sweeps.checkpoint import Checkpoints

KEY = jax.random.key(11)
RECORD = {"activity": activity, "loss": loss}
TIMES = np.array([0, 1, 5, 20, 60, 150], np.int32)
RULE = Descent(0.1, 0.5, batch=8)


def patterns(count, seed=0, dim=10):
    """Random patterns whose labels a teacher gives: a rule that learns them comes to rest."""
    rng = np.random.default_rng(seed)
    x, teacher = rng.normal(size=(count, dim)), rng.normal(size=dim)
    return (x * np.sign(x @ teacher)[:, None]).astype(np.float32)


SYSTEM = Perceptron(patterns(24), replicas=11)


def prepared():
    kind, replicas, _ = SYSTEM.prepare(RULE, KEY, None)
    return kind, replicas


def results(batch=4, chunk_steps=None, chosen=None, **more):
    """name -> (bytes of everything, absorbed_at, steps) of each replica."""
    kind, replicas = prepared()
    if chosen is not None:
        own = jax.tree.map(lambda leaf: leaf[chosen], replicas._replace(shared=()))
        replicas = own._replace(shared=replicas.shared)
    found = {}
    for index, one in run(kind, replicas, TIMES, RECORD, batch, chunk_steps, **more):
        assert not one.failed
        arrays = [*one.final.values(), *one.records.values()]
        number = index if chosen is None else int(np.arange(11)[chosen][index])
        found[number] = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays), one.absorbed_at, one.steps
    return found


@pytest.fixture(scope="module")
def usual():
    return results()


def test_it_learns_and_comes_to_rest(usual):
    """Replicas end at different steps, so that places are taken by others."""
    absorbed = [at for _, at, _ in usual.values()]
    assert sum(at >= 0 for at in absorbed) >= 5
    assert len(set(absorbed)) > 3
    trajectory = simulate(SYSTEM, RULE, 150, KEY, record=RECORD, times=TIMES)
    assert trajectory.final["w"].shape == (11, 10)
    with pytest.raises(PackingError, match=r"only spheres have positions; .* is in final: b, w"):
        _ = trajectory.positions
    assert trajectory.attributes["width"] == 4
    assert np.all(trajectory["loss"][:, 0] > 0.5)
    at_rest = trajectory.absorbed_at >= 0
    np.testing.assert_array_equal(trajectory["activity"][at_rest, -1], 0.0)
    assert np.all(trajectory["activity"][~at_rest, -1] > 0)


def test_a_step_is_the_heavy_ball_of_numpy():
    """v' = beta v + grad; w' = w - eta v', ten steps in float64 with the driver's draws."""
    kind, replicas = prepared()
    ((_, one), *_) = sorted(run(kind, replicas, np.array([10], np.int32), {}, 4), key=lambda pair: pair[0])
    data = np.asarray(replicas.shared, np.float64)
    w, b = np.asarray(replicas.start["w"][0], np.float64), 0.0
    velocity = np.zeros(11)
    for step in range(10):
        key = jax.random.fold_in(jax.random.wrap_key_data(replicas.key[0], impl="threefry2x32"), step)
        some = data[np.asarray(jax.random.randint(key, (8,), 0, len(data)))]
        hinge = np.maximum(1.0 - some @ w - b, 0.0)
        gradient = -2.0 * np.append((hinge[:, None] * some).mean(axis=0), hinge.mean())
        velocity = 0.5 * velocity + gradient
        w, b = w - 0.1 * velocity[:-1], b - 0.1 * velocity[-1]
    assert one.steps == 10
    np.testing.assert_allclose(one.final["w"], w, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(one.final["b"], b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("chunk_steps", [1, 7, 1000])
def test_chunks_of_any_length_are_the_same(usual, chunk_steps):
    assert results(chunk_steps=chunk_steps) == usual


def test_a_replica_is_the_same_alone_and_among_others_of_the_same_width(usual):
    """One in a block of four dead copies, and in another order of refilling."""
    for chosen in (slice(3, 4), slice(None, None, 2)):
        some = results(chosen=chosen)
        assert some == {number: usual[number] for number in some}


def test_it_goes_on_from_a_checkpoint(usual, tmp_path):
    kind, replicas = prepared()

    def save(snapshot):
        states = {(float(index), 0.0, 0.0, 0): state for index, state in snapshot().items()}
        if min(int(state.step) for state in states.values()) >= 30:
            Checkpoints(tmp_path, "me", 0.0).save(states)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        list(run(kind, replicas, TIMES, RECORD, 11, 10, on_chunk=save))
    states, like = Checkpoints(tmp_path, "me", 0.0), state_like(kind, replicas, TIMES, RECORD)
    begun = []

    def restore(index):
        state = states.restore((float(index), 0.0, 0.0, 0), like)
        begun.append(0 if state is None else int(state.step))
        return state

    wide = results(batch=11)
    assert results(batch=11, restore=restore) == wide
    assert max(begun) >= 30
    assert len(wide) == len(usual)


def test_the_width_of_a_block_is_fixed(monkeypatch):
    """Blocks are filled up and never shrink, on each device as many."""
    widths, kind = [], Floats(wide=4)
    _, replicas = prepared()
    whole = driver.chunk

    def spying(kind, record, here, state, schedule, most):
        widths.append(len(state.step))
        return whole(kind, record, here, state, schedule, most)

    monkeypatch.setattr(driver, "chunk", spying)
    list(run(kind, replicas, TIMES, {}, chunk_steps=20))
    assert {width % 4 for width in widths} == {0}
    assert max(widths) == 4 * min(len(jax.local_devices()), 3)


def test_what_diverges_says_so():
    with pytest.raises(PackingError, match=r"diverged at step \d+: a weight was not finite"):
        simulate(SYSTEM, Descent(1e30, 0.5, batch=8), 20, KEY)


SCRIPT = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
import test_floats
found = test_floats.results()
print(json.dumps({"devices": len(jax.local_devices()),
                  "found": {str(k): [hashlib.sha256(v[0]).hexdigest(), *v[1:]] for k, v in found.items()}}))
"""


@pytest.mark.parametrize("devices", [1, 8])
def test_the_same_bits_on_many_devices(usual, devices):
    environment = os.environ | {"PYTHONPATH": str(Path(packing_jax.__file__).parents[1])}
    environment = {name: value for name, value in environment.items() if name != "XLA_FLAGS"}
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(devices)]
    done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["devices"] == devices
    expected = {str(k): [hashlib.sha256(v[0]).hexdigest(), *v[1:]] for k, v in usual.items()}
    assert facts["found"] == expected


def test_an_object_that_is_no_system_is_refused():
    with pytest.raises(PackingError, match="method prepare"):
        simulate([SYSTEM], RULE, 10, KEY)
    with pytest.raises(PackingError, match="a skin belongs to spheres"):
        simulate(SYSTEM, RULE, 10, KEY, skin=0.1)
