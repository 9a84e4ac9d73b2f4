"""The student between fixed ends, beside a transcription in float64 with gradients by hand. Seeds are fixed."""

import jax
import numpy as np
import optax
import pytest

from packing_jax import simulate
from packing_jax.networks.rules import sgd
from packing_jax.networks.tasks import fixed_ends as module
from packing_jax.networks.tasks.fixed_ends import SAMPLES, fixed_ends, frozen_overlap, network, teacher_overlap

RATE, STEPS = 0.5, 12


def gradients(w, x):
    """Of the loss of each sample with respect to the student, (S, 16, 32)."""
    wide = np.tanh(x @ w["first"].T)
    student, teacher = np.tanh(wide @ w["student"].T), np.tanh(wide @ w["teacher"].T)
    back = ((student - teacher) @ w["last"])[:, None] * w["last"] * (1 - student**2)
    return back[:, :, None] * wide[:, None, :]


@pytest.fixture(scope="module")
def trained():
    task = fixed_ends(scale=2.0, tests=64)
    record = {"kept": frozen_overlap, "told": teacher_overlap}
    keys = jax.random.split(jax.random.key(3), 2)
    run = simulate(task, sgd(optax.sgd(RATE), 4, sampling="order"), STEPS, keys, record=record)
    kind, replicas, _ = task.prepare(sgd(optax.sgd(RATE), 4, sampling="order"), keys, None)
    starts = jax.tree.map(lambda leaf: np.asarray(leaf, float), replicas.start)
    data = jax.tree.map(lambda leaf: np.asarray(leaf, float), replicas.system)
    assert kind is not None
    return run, task.tree(run.final["weights"]), starts, data


def by_hand(starts, data, n, rate):
    w = {name: leaf[n].copy() for name, leaf in starts.items()}
    for step in range(STEPS):
        w["student"] -= rate * gradients(w, data.inputs[n, 4 * step : 4 * step + 4]).mean(axis=0)
    return w


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_steps_are_those_of_the_transcription(trained, factor):
    _, final, starts, data = trained
    assert data.inputs.shape == (2, SAMPLES, 3)
    for n in range(2):
        off = np.abs(by_hand(starts, data, n, factor * RATE)["student"] - final["student"][n]).max()
        assert (off < 2e-6) == (factor == 1.0)
        for name in ("first", "last", "teacher"):
            np.testing.assert_array_equal(final[name][n], starts[name][n].astype(np.float32))


def test_overlaps(trained):
    run, _, starts, data = trained
    for n in range(2):
        w, x = by_hand(starts, data, n, RATE), data.test_inputs[n]
        wide = np.tanh(x @ w["first"].T)
        before, after = np.tanh(wide @ starts["student"][n].T), np.tanh(wide @ w["student"].T)
        told = np.outer(np.tanh(wide @ w["teacher"].T) @ w["last"], w["last"])
        cosine = (after * told).sum() / np.linalg.norm(after) / np.linalg.norm(told)
        assert run["kept"][n, -1] == pytest.approx((before * after).mean(), rel=1e-4)
        assert run["told"][n, -1] == pytest.approx(cosine, rel=1e-4, abs=1e-5)


def test_what_units_are_given():
    """Inputs of the narrow units have variance sigma_W^2 E tanh^2(Mx) = 0.344 sigma_W^2 (derived)."""
    weights = jax.vmap(lambda key: network(key, 3.0))(jax.random.split(jax.random.key(0), 400))
    x = jax.random.normal(jax.random.key(1), (400, 20, 3))
    arguments = np.arctanh(np.clip(jax.vmap(module.hidden)(weights, x), -1 + 1e-7, 1 - 1e-7).astype(float))
    wide = np.tanh(np.einsum("rsi,rji->rsj", x, weights["first"]))
    assert (wide**2).mean() == pytest.approx(0.344, rel=0.01)  # over 400 matrices M: 0.3 %
    assert (arguments**2).mean() == pytest.approx(9 * 0.344, rel=0.05)  # of 6400 units, 2 %


def test_the_noise_limit_is_that_of_a_transcription():
    key = jax.random.key(8)
    w = {name: np.asarray(leaf, float) for name, leaf in network(key, 0.5).items()}
    x = np.asarray(jax.random.normal(jax.random.key(9), (300, 3)), float)
    values, vectors = np.linalg.eigh(w["student"] @ w["student"].T)
    order = np.argsort(-values)
    rotated = []
    for g in gradients(w, x):
        a = -(g @ w["student"].T + w["student"] @ g.T)
        rotated.append([[vectors[:, i] @ a @ vectors[:, j] for j in order] for i in order])
    mean, variance = np.mean(rotated, axis=0), np.var(rotated, axis=0)
    total = 2 * variance[0][15] / 15
    for k in range(1, 15):
        total += (variance[0][k] + variance[15][15 - k]) / k
    limit = max(abs(mean[0][0]) - abs(mean[15][15]), 0) / (np.sqrt(2) * 15) * 4 * 0.25 / total
    assert limit > 0
    assert module.noise_limit(network(key, 0.5), jax.numpy.asarray(x, "float32"), 0.5) == pytest.approx(limit, rel=1e-3)
