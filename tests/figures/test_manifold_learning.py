"""Read-outs and rows of manifold-learning, on numbers whose answers are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from packing_jax.figures import manifold_learning as figure
from packing_jax.networks.data import Data


def sets_of(random, separation):
    """Ten Gaussian clouds in twenty dimensions at a mutual distance of so many standard deviations."""

    def drawn(count):
        classes = np.arange(count) % 10
        places = separation / 2**0.5 * np.eye(10, 20)[classes]
        return Data(places + random.normal(size=(count, 20)), classes)

    return figure.Images(drawn(1500), drawn(500), drawn(4000), 4)


@pytest.mark.parametrize("separation", [2.0, 3.0])
def test_read_out_is_as_good_as_it_can_be(separation):
    """Against the best classifier there is, the nearest centre, on the same images.

    A linear read-out of 1500 samples cannot be better by more than chance, and loses little. With clouds a tenth
    nearer it is found out.
    """
    sets = sets_of(np.random.default_rng(0), separation)
    found = figure.read_out([one.inputs for one in (sets.train, sets.validation, sets.test)], sets)[1]
    best = np.mean(sets.test.inputs[:, :10].argmax(axis=1) == sets.test.targets)
    assert best - 0.025 < found < best + 0.01
    nearer = sets_of(np.random.default_rng(0), separation / 1.1)
    wrong = figure.read_out([one.inputs for one in (nearer.train, nearer.validation, nearer.test)], nearer)[1]
    assert wrong < best - 0.03


def test_read_out_learns_nothing_from_labels_that_mean_nothing():
    """Ten classes: one in ten, within four standard errors of 4000 tests; the seed is fixed."""
    random = np.random.default_rng(1)
    sets = sets_of(random, 0.0)
    found = figure.read_out([one.inputs for one in (sets.train, sets.validation, sets.test)], sets)[1]
    assert abs(found - 0.1) < 4 * (0.09 / 4000) ** 0.5


def test_images_are_in_one_set_only():
    sets = figure.images("digits", 600, 300)
    rows = np.concatenate([one.inputs for one in (sets.train, sets.validation, sets.test)])
    assert rows.shape == (1200, 64)
    assert len(np.unique(rows, axis=0)) == 1200
    assert rows.max() == 1


def learnt(ends, start=0.8):
    ends = np.asarray(ends)
    encoder = np.stack([np.full_like(ends, start), ends], axis=1)
    return figure.Learnt(np.array([0, 10]), encoder, ends, "shifts", 0.001, {}, {})


def test_a_gain_is_one_of_four_standard_errors():
    rows = {row.quantity: row for row in figure.compared({"CLAMP": learnt([0.9, 0.91, 0.89])}, 0.85)}
    assert rows[figure._GAIN].value == 1
    assert rows[figure._UNTRAINED].value == pytest.approx(0.9)
    assert figure.FIGURE.agrees(rows[figure._UNTRAINED], "quick") == "no"
    few = {row.quantity: row for row in figure.compared({"CLAMP": learnt([0.82, 0.80, 0.81])}, 0.85)}
    assert few[figure._GAIN].value == 0  # 0.01 with an error of 0.0058


def test_labelled_views_share_a_digit():
    outputs = np.random.default_rng(2).normal(size=(3, 2, 10)).astype(np.float32)
    digits = np.array([4, 0, 9])
    chances = np.exp(outputs) / np.exp(outputs).sum(axis=2, keepdims=True)
    expected = -np.log(chances[np.arange(3), :, digits]).mean(axis=1)
    np.testing.assert_allclose(figure.Labelled()(jnp.asarray(outputs), jnp.asarray(digits)), expected, rtol=1e-5)
