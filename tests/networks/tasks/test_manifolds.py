"""Manifold packing through the driver: activity against a count in numpy, absorption, resumed sweeps, own encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_sweep import After, tree

from packing_jax import PackingError, simulate
from packing_jax.networks.data import Data
from packing_jax.networks.manifold_packing import ABSORBED
from packing_jax.networks.models import MLP, Model
from packing_jax.networks.rules import sgd
from packing_jax.networks.tasks.manifolds import Embedding, manifolds, packed
from packing_jax.networks.views import Noise, Views
from packing_jax.observables import learning
from packing_jax.sweeps.networks import Training
from packing_jax.sweeps.run import run_sweep

KEYS = jax.random.split(jax.random.key(2), 3)
TIMES = np.arange(0, 101)


def embedded(seen):
    return seen.objective.apply(seen.weights, seen.data.inputs)


def overlapping(raw, size=7.0, touching=1.0):
    """The share of manifolds that overlap another, one pair at a time, of embeddings (n, m, D)."""
    raw = raw.astype(float)
    samples, views, dim = raw.shape
    z = raw - raw.mean(axis=(0, 1))
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    c = z.mean(axis=1)
    r = size * np.sqrt(((z - c[:, None]) ** 2).sum(axis=(1, 2)) / (views - 1) / min(dim, views))
    hit = [
        any(np.linalg.norm(c[i] - c[j]) < touching * min(r[i] + r[j], 1.5) for j in range(samples) if j != i)
        for i in range(samples)
    ]
    return np.mean(hit)


@pytest.fixture(scope="module")
def once():
    record = {"loss": learning.loss, "activity": learning.activity, "z": embedded}
    task = manifolds(samples=8, outputs=4, width=16, noise=0.05)
    return simulate(task, sgd(optax.sgd(0.02)), 100, jax.random.split(KEYS[0], 6), record=record, times=TIMES)


def test_activity_is_a_count_and_absorption_its_end(once):
    """Absorbed at the first step at which none of the eight overlaps."""
    count = np.array([[overlapping(z) for z in one] for one in once["z"]])
    np.testing.assert_allclose(once["activity"], count, atol=1e-6)
    assert 0 < count.mean() < 1
    wrong = np.array([[overlapping(z, touching=1.1) for z in one] for one in once["z"]])
    assert (wrong > once["activity"] + 0.05).any()  # spheres a tenth larger touch others
    assert (once.absorbed_at > 0).any()
    for at, active, loss in zip(once.absorbed_at, count, once["loss"], strict=True):
        if at >= 0:
            assert at == (active == 0).argmax()
            np.testing.assert_allclose(loss[at:], ABSORBED, rtol=1e-6)
        else:
            assert (active > 0).all()


def test_own_encoder_and_data_in_views_drawn_anew():
    """Any two functions are an encoder; there are steps without an overlap, and none absorbs."""
    encoder = Model(lambda w, x: jnp.tanh(x.reshape(len(x), -1) @ w), lambda key: jax.random.normal(key, (6, 5)))
    embedding = Embedding(encoder, MLP((5, 4)))
    images = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    task = packed(embedding, Data(images, np.zeros(3)), Views(3, (Noise(0.05),)))
    record = {"activity": learning.activity, "z": embedded}
    run = simulate(task, sgd(optax.sgd(0.01)), 100, KEYS, record=record, times=TIMES)
    assert (run["activity"] == 0).any()
    assert (run["activity"] > 0).any()
    assert (run.absorbed_at == -1).all()
    count = np.array([[overlapping(z) for z in one] for one in run["z"]])
    np.testing.assert_allclose(run["activity"], count, atol=1e-6)
    weights = jax.tree.map(jnp.asarray, task.tree(run.final["weights"][0]))
    inner = np.tanh(images.reshape(3, 6) @ weights["encoder"])
    np.testing.assert_allclose(embedding.features(weights, jnp.asarray(images)), inner, atol=1e-5)
    both = inner @ weights["projector"][0]["w"]
    np.testing.assert_allclose(embedding.outputs(weights, jnp.asarray(images)), both, atol=1e-5)


def test_a_resumed_sweep_has_the_same_bytes(tmp_path):
    spec = Training(
        task="manifolds",
        rule="bro",
        axes={"samples": 6, "outputs": 3, "width": 8, "number": 3, "batch_size": 4, "kick": 0.05},
        settings={"views": "anew"},
        steps=30,
        replicas=2,
        measure=("activity",),
        record_every=10,
    )
    options = {"batch": 2, "checkpoint_seconds": 0.0, "chunk_steps": 7}
    run_sweep(spec, tmp_path / "whole", **options)
    assert run_sweep(spec, tmp_path / "parts", **options, stop=After(3)).stopped == "SIGTERM"
    run_sweep(spec, tmp_path / "parts", **options, resume=True)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_refused():
    with pytest.raises(PackingError, match="once or anew"):
        manifolds(views="often")
