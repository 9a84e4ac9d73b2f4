"""Weights through the driver: exact first steps, absorption, epochs, precision, and bits that depend on nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax import PackingError, simulate
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge, Softmax, Squared
from packing_jax.networks.models import MLP
from packing_jax.networks.rules import bro, heavy_ball, langevin, sgd
from packing_jax.networks.task import Task
from packing_jax.observables import learning

KEYS = jax.random.split(jax.random.key(1), 3)
INPUTS = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
LABELS = np.sign(INPUTS[:, 0] * INPUTS[:, 1]).astype(np.float32)


def task(**more):
    model = MLP((5, 6, 1), "tanh")
    return Task(model.start, model.apply, Hinge(), data=Data(INPUTS, LABELS), **more)


def linear(loss, **more):
    model = MLP((5, 1))
    return Task(model.start, model.apply, loss, data=Data(INPUTS, INPUTS[:, 0] + 1), **more)


RULES = {
    "sgd": sgd(heavy_ball(0.1, 0.9, 0.01), 4),
    "epochs": sgd(optax.sgd(0.1), 5, sampling="epochs"),
    "langevin": langevin(0.1, 1e-2),
    "bro": bro(0.02),
}


def test_full_batch_heavy_ball_is_that_of_numpy():
    one = linear(Squared(), precision="float64")
    run = simulate(one, sgd(heavy_ball(0.1, 0.5, 0.01)), 7, KEYS[0], record={"w": learning.weights}, times=np.arange(8))
    x, y = INPUTS.astype(float), (INPUTS[:, 0] + 1).astype(float)
    w, v = run["w"][0].copy(), np.zeros(5)
    for k in range(8):
        np.testing.assert_allclose(run["w"][k], w, rtol=1e-12)
        v = 0.5 * v + x.T @ (x @ w - y) / 24 + 0.01 * w
        w = w - 0.1 * v
    assert run["w"].dtype == np.float64


def test_absorbed_at_the_first_step_without_a_violated_sample_of_all():
    record = {"activity": learning.activity}
    model = MLP((5, 6, 1), "tanh")
    easy = Task(model.start, model.apply, Hinge(0.1, 1), data=Data(INPUTS, np.sign(INPUTS[:, 0])))
    for rule in (sgd(optax.sgd(0.1), 4), bro(0.1)):
        run = simulate(easy, rule, 400, KEYS, record=record, times=np.arange(401))
        first = (run["activity"] == 0).argmax(axis=1)
        assert (run.absorbed_at > 0).any()
        for r, at in enumerate(run.absorbed_at):
            assert at == first[r] if at >= 0 else not (run["activity"][r] == 0).any()


def test_langevin_is_absorbed_at_zero_temperature_alone():
    """Without a violated sample the loss is flat: noise goes on, gradients do not."""
    satisfied = Task(lambda _: jnp.ones(5), lambda w, x: x @ w, Hinge(0.1), data=Data(np.eye(5), np.ones(5)))
    run = simulate(satisfied, langevin(0.1, np.array([0.0, 1e-6])), 50, KEYS[:2], record={"w": learning.weights})
    np.testing.assert_array_equal(run.absorbed_at, [0, -1])
    moved = run["w"][:, -1] != 1
    assert not moved[0].any()
    assert moved[1].all()


@pytest.mark.parametrize("name", RULES)
def test_the_same_bits_in_a_refilled_batch_in_chunks_and_alone_at_one_width(name):
    rule, record = RULES[name], {"w": learning.weights}
    times = np.array([0, 3, 50])
    whole = simulate(task(), rule, 50, KEYS, record=record, times=times, batch=2)
    again = simulate(task(), rule, 50, KEYS, record=record, times=times, batch=2, chunk_steps=7)
    np.testing.assert_array_equal(whole["w"], again["w"])
    for r, key in enumerate(KEYS):
        alone = simulate(task(), rule, 50, key[None], record=record, times=times, batch=2)
        np.testing.assert_array_equal(alone["w"][0], whole["w"][r])


def test_float64_beside_float32_changes_no_bit():
    record = {"w": learning.weights}
    before = simulate(task(), RULES["langevin"], 20, KEYS, record=record)
    start = task().tree(before["w"][:, 0])
    wide = simulate(task(precision="float64"), RULES["langevin"], 20, KEYS, record=record, start=start)
    after = simulate(task(), RULES["langevin"], 20, KEYS, record=record)
    np.testing.assert_array_equal(before["w"], after["w"])
    assert (before["w"].dtype, wide["w"].dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(before["w"], wide["w"], atol=2e-4)
    assert jnp.zeros(1).dtype == np.float32


def test_an_epoch_sees_every_sample_once():
    seen = jnp.arange(24.0, dtype=jnp.float32)[:, None]
    one = Task(
        lambda _: jnp.zeros(24),
        lambda w, x: w[x[:, 0].astype(jnp.int32)],
        lambda out, _: out,
        data=Data(seen, seen[:, 0]),
        total="sum",
    )
    for sampling in ("epochs", "order"):
        rule = sgd(optax.sgd(1.0), 5, sampling=sampling)
        run = simulate(
            one, rule, 12, KEYS, record={"w": learning.weights}, times=np.array([0, 1, 4, 12]), chunk_steps=3
        )
        counts = -run["w"]
        assert set(np.unique(counts[:, 2])) == {0, 1}
        assert (counts[:, 1:].sum(axis=2) == [5, 20, 60]).all()
        assert counts[:, 3].max() <= 3
        if sampling == "order":
            np.testing.assert_array_equal(counts[:, 1, :5], 1)
        else:
            assert len({tuple(row) for row in counts[:, 1].tolist()}) == 3


def test_waiting_times():
    record = {"d": learning.displacements, "w": learning.weights, "q": learning.overlap(0.01)}
    run = simulate(task(waits=(0, 4)), RULES["langevin"], 8, KEYS, record=record, times=np.arange(9))
    w = run["w"]
    np.testing.assert_allclose(run["d"][:, :, 0], w - w[:, :1], rtol=0, atol=1e-7)
    assert np.isnan(run["d"][:, :4, 1]).all()
    np.testing.assert_allclose(run["d"][:, 4:, 1], w[:, 4:] - w[:, 4:5], rtol=0, atol=1e-7)
    np.testing.assert_allclose(run["q"][:, 8, 1], (np.abs(w[:, 8] - w[:, 4]) <= 0.01).mean(axis=1))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (lambda: simulate(task(), sgd(optax.sgd(0.1), 25), 1, KEYS), "larger than the data"),
        (lambda: simulate(task(), optax.sgd(0.1), 1, KEYS), "not a rule for weights"),
        (lambda: simulate(linear(Squared()), bro(0.1), 1, KEYS), "no overlaps"),
        (lambda: langevin(0.1, -1.0), "temperature is -1.0"),
        (lambda: simulate(linear(lambda f, _: f.sum()), sgd(optax.sgd(1.0)), 1, KEYS), "one number for each"),
        (lambda: simulate(task(), sgd(optax.sgd(1.0)), 1, KEYS, start=np.zeros(3)), "the start is"),
        (lambda: Task(MLP((5, 1)).start, MLP((5, 1)).apply, Hinge()), "either data"),
        (lambda: simulate(linear(Hinge()), sgd(optax.sgd(1.0)), 1, KEYS), r"takes a label \+1 or -1 for each"),
        (lambda: Softmax().check((24, 3), LABELS), "the number of the right output"),
    ],
)
def test_refused_in_a_sentence(what, sentence):
    with pytest.raises(PackingError, match=sentence) as caught:
        what()
    assert "\n" not in str(caught.value)


def test_divergence_is_named_with_its_step():
    with pytest.raises(PackingError, match=r"diverged at step \d+: a loss or a weight"):
        simulate(linear(Squared()), sgd(optax.sgd(1e6)), 100, KEYS)


def test_weights_come_out_as_they_went_in():
    one = task()
    run = simulate(one, RULES["sgd"], 5, KEYS)
    tree = one.tree(run.final["weights"])
    assert tree[0]["w"].shape == (3, 5, 6)
    on = simulate(one, RULES["sgd"], 0, KEYS, start=tree)
    np.testing.assert_array_equal(on.final["weights"], run.final["weights"])
