"""The spherical perceptron: first steps as numpy makes them, rest that is rest, and patterns that nest."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax import PackingError, simulate
from packing_jax.drive.chunk import step_keys
from packing_jax.networks.rules import bro, langevin, sgd
from packing_jax.networks.rules.base import CHOICE, NOISE
from packing_jax.networks.tasks.perceptron import perceptron
from packing_jax.observables import learning
from packing_jax.random_words import normal, uniform, words_of

KEY = jax.random.key(3)
N, P = 20, 30


def instance(task, key=KEY):
    """The patterns of one replica (P, N) in float64, and its noise key."""
    _, replicas, _ = task.prepare(bro(0.1), key, None)
    return np.asarray(replicas.system.inputs[0], float), replicas.key


def words(noise, step, count, which):
    key = jax.vmap(jax.random.key_data)(step_keys(noise, jnp.array([step])))[0]
    return words_of(key, count, which)


def drawn(noise, step):
    return np.asarray(uniform(words(noise, step, P, CHOICE), np.dtype(np.float32)), float)


def kick_of_bro(x, w, step, noise):
    delta = 1.0 - x @ w / np.sqrt(N)
    return 0.1 * ((delta > 0) * drawn(noise, step)) @ x / np.sqrt(N)


def kick_of_sgd(x, w, step, noise):
    delta = 1.0 - x @ w / np.sqrt(N)
    return 0.1 * (np.maximum(delta, 0) * (drawn(noise, step) < 0.5)) @ x / np.sqrt(N)


def kick_of_langevin(x, w, step, noise):
    delta = 1.0 - x @ w / np.sqrt(N)
    xi = np.asarray(normal(words(noise, step, N, NOISE), np.dtype(np.float32)), float)
    return 0.1 * (delta > 0) @ x / np.sqrt(N) + np.sqrt(2 * 0.01 * 0.1) * xi


@pytest.mark.parametrize(
    ("rule", "hinge", "kick"),
    [
        (bro(0.1), 1, kick_of_bro),
        (sgd(optax.sgd(0.1), batch_fraction=0.5), 2, kick_of_sgd),
        (langevin(0.1, 0.01, per_sample=False), 1, kick_of_langevin),
    ],
    ids=["bro", "sgd", "langevin"],
)
def test_first_steps_are_those_of_numpy_in_float64(rule, hinge, kick):
    task = perceptron(N, P / N, 1.0, hinge)
    run = simulate(task, rule, 6, KEY, record={"w": learning.weights}, times=np.arange(7))
    x, noise = instance(task)
    w = np.asarray(run["w"][0], float)
    np.testing.assert_allclose(w @ w, N, rtol=1e-6)
    for step in range(7):
        np.testing.assert_allclose(run["w"][step], w, atol=3e-5)
        w = w + kick(x, w, step, noise)
        w *= np.sqrt(N / (w @ w))


def test_one_pattern_is_at_rest_as_soon_as_it_has_its_margin():
    """N = 1 has two configurations, w = +-1: half of the patterns can be given the margin, at once or never."""
    run = simulate(perceptron(1, 1.0, 0.0), bro(0.1), 5, jax.random.split(KEY, 40), times=np.array([0, 5]))
    assert set(run.absorbed_at) == {0, -1}


@pytest.mark.parametrize("rule", [bro(0.05), sgd(optax.sgd(0.3), 8), sgd(optax.sgd(0.05), batch_fraction=0.3)])
def test_what_is_absorbed_violates_nothing_in_float64_and_stays_on_the_sphere(rule):
    keys = jax.random.split(KEY, 4)
    task = perceptron(40, 0.6, 0.5)
    run = simulate(task, rule, 3000, keys, record={"activity": learning.activity}, times=np.array([0, 3000]))
    assert (run.absorbed_at > 0).all()
    assert (run["activity"][:, 1] == 0).all()
    for key, w in zip(keys, run.final["weights"].astype(float), strict=True):
        x, _ = instance(task, key)
        np.testing.assert_allclose(w @ w, 40, rtol=1e-6)
        assert (x @ w / np.sqrt(40)).min() > 0.5 - 1e-5


def test_more_patterns_hold_those_of_fewer():
    fewer, more = (instance(replace(perceptron(10, alpha), disorder=KEY))[0] for alpha in (1.0, 1.7))
    np.testing.assert_array_equal(fewer, more[:10])
    assert more.shape == (17, 10)


def test_large_data_of_their_own_make_narrow_blocks():
    wide, narrow = (perceptron(n, 2.0).prepare(bro(0.1), jax.random.split(KEY, 2), None)[0].wide for n in (20, 400))
    assert wide > 100
    assert narrow == 1


@pytest.mark.parametrize("bad", [{"dimension": 0}, {"alpha": 0.0}])
def test_no_weights_or_no_patterns_are_refused(bad):
    with pytest.raises(PackingError, match="at least 1 of both"):
        perceptron(**bad)
