"""Views: what each change does, and that a view depends on the replica's key, the step and the sample alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax import PackingError, simulate
from packing_jax.networks.data import Data
from packing_jax.networks.losses import NTXent, Squared
from packing_jax.networks.objective import Objective
from packing_jax.networks.rules import sgd
from packing_jax.networks.task import Task
from packing_jax.networks.views import Crop, Noise, Shift, Views, drawn_once

KEY = jax.random.key(5)
IMAGE = jnp.arange(1.0, 21.0, dtype=jnp.float32)
SHAPE = (4, 5)
INPUTS = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)


def several(change, count=400):
    return np.asarray(jax.jit(Views(count, (change,)))(KEY, IMAGE))


def test_noise_is_normal():
    """Mean and variance of 8000 numbers within four standard errors: the seed is fixed."""
    off = several(Noise(0.5)) - np.asarray(IMAGE)
    assert abs(off.mean()) < 4 * 0.5 / 8000**0.5
    assert abs(off.var() / 0.25 - 1) < 4 * (2 / 8000) ** 0.5
    assert not (several(Noise(0.0), 2) - np.asarray(IMAGE)).any()


def test_shifts_are_those_of_numpy_each_as_often():
    """A chi-squared of 9 moves in 400 views; above 26.1 with probability 0.001, and the seed is fixed."""
    image = np.asarray(IMAGE).reshape(SHAPE)
    padded = np.pad(image, 1)
    moved = {padded[1 - i : 5 - i, 1 - j : 6 - j].tobytes(): (i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    found = [moved[one.tobytes()] for one in several(Shift(1, SHAPE))]
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 9
    assert ((counts - 400 / 9) ** 2 / (400 / 9)).sum() < 26.1


def test_crops_read_between_pixels():
    np.testing.assert_array_equal(several(Crop(1.0, SHAPE), 3), np.tile(IMAGE, (3, 1)))
    for one in several(Crop(0.5, SHAPE), 50):
        part = one.reshape(SHAPE)  # the image is linear in row and column, and so is each part of it
        down, right = np.diff(part, axis=0), np.diff(part, axis=1)
        np.testing.assert_allclose(down, down[0, 0], atol=1e-4)
        np.testing.assert_allclose(right, down[0, 0] / 5, atol=1e-4)
        assert 2.5 - 1e-4 <= down[0, 0] <= 5 + 1e-4
        assert part.min() >= 1 - 1e-4
        assert part.max() <= 20 + 1e-4


def test_a_view_is_a_function_of_key_and_sample():
    objective = Objective(lambda _, x: x, Squared(), views=Views(2, (Noise(1.0),)))
    see = jax.jit(objective.viewed)
    key, other = jnp.array([1, 2], jnp.uint32), jnp.array([1, 3], jnp.uint32)
    every = np.asarray(see(key, INPUTS, jnp.arange(12)))
    some = jnp.array([7, 2, 7])
    np.testing.assert_array_equal(see(key, INPUTS[np.asarray(some)], some), every[np.asarray(some)])
    off = every - INPUTS[:, None]
    assert len(np.unique(off)) == off.size  # each sample, view and pixel has a number of its own
    assert (np.asarray(see(other, INPUTS, jnp.arange(12))) != every).all()


def task(**more):
    """The mean output, so that a step moves each weight by the mean of what was seen."""
    return Task(
        lambda _: jnp.zeros(6),
        lambda weights, views: views @ weights,
        lambda outputs, _: outputs.mean(axis=1),
        **{"data": Data(INPUTS, np.zeros(12), INPUTS[:3], np.zeros(3)), "views": Views(3, (Noise(1.0),)), **more},
    )


def test_steps_and_observables_see_the_same_views():
    """What an observable sees at step k is what the rule sees in the step after it, here one sample."""
    record = {"x": lambda seen: seen.data.inputs, "t": lambda seen: seen.data.test_inputs, "w": lambda s: s.weights}
    keys = jax.random.split(KEY, 2)
    run = simulate(task(), sgd(optax.sgd(1.0), 1), 3, keys, record=record, times=np.arange(4))
    move = run["w"][:, :-1] - run["w"][:, 1:]
    seen = run["x"][:, :-1].mean(axis=3)  # (replica, step, sample, feature)
    assert (np.abs(move[:, :, None] - seen).max(axis=3).min(axis=2) < 1e-6).all()
    for name in "xt":
        assert len(np.unique(run[name])) == run[name].size


def test_views_drawn_once_are_data():
    data = Data(INPUTS, np.arange(12))
    draw = jax.jit(drawn_once(Views(3, (Noise(1.0),)), data))
    one, two = draw(KEY), draw(jax.random.key(6))
    assert one.inputs.shape == (12, 3, 6)
    np.testing.assert_array_equal(one.inputs, draw(KEY).inputs)
    assert (one.inputs != two.inputs).all()
    np.testing.assert_array_equal(one.targets, np.arange(12))


def test_ntxent_is_its_equation():
    z = np.random.default_rng(1).normal(size=(4, 3, 5))
    unit = (z / np.linalg.norm(z, axis=2, keepdims=True)).reshape(12, 5)
    near, terms = unit @ unit.T / 0.3, []
    for a in range(12):
        others = sum(np.exp(near[a, c]) for c in range(12) if c != a)
        terms += [-np.log(np.exp(near[a, b]) / others) for b in range(12) if b != a and a // 3 == b // 3]
    with jax.enable_x64(True):
        np.testing.assert_allclose(NTXent(0.3)(jnp.asarray(z), None), np.mean(terms), rtol=1e-10)
        assert abs(float(NTXent(0.33)(jnp.asarray(z), None)) / np.mean(terms) - 1) > 1e-3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Views(0, ()), "0 views"),
        (lambda: Noise(-1.0), "must be a number from 0 on"),
        (lambda: Shift(4, SHAPE), "smaller than the image"),
        (lambda: Crop(0.0, SHAPE), "above 0 and at most 1"),
        (lambda: NTXent(0.0), "above 0"),
        (lambda: NTXent()(jnp.ones((3, 1, 2)), None), "two views or more"),
        (lambda: simulate(task(views=lambda _, x: x[9:] @ x), sgd(optax.sgd(1.0)), 1, KEY), "views fail on a sample"),
        (lambda: simulate(task(total="whole"), sgd(optax.sgd(1.0)), 1, KEY), "must be one number for all"),
        (lambda: simulate(whole(), sgd(optax.sgd(1.0), batch_fraction=0.5), 1, KEY), "no batch fraction"),
    ],
)
def test_refused(call, says):
    with pytest.raises(PackingError, match=says):
        call()


def whole():
    return replace(task(), loss=lambda outputs, _: outputs.mean(), total="whole")
