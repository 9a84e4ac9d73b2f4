"""Curvature of a network's loss as it is recorded, against the matrix; and parts of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax import PackingError, simulate
from packing_jax.landscape.learning import hessian_density, hessian_trace, largest_eigenvalues, sharpness
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge, Squared
from packing_jax.networks.models import MLP
from packing_jax.networks.rules import langevin, sgd
from packing_jax.networks.task import Task
from packing_jax.observables import learning

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype(np.float32)


def test_curvature_of_a_regression_is_that_of_its_inputs():
    task = Task(lambda _: jnp.zeros(4), lambda w, x: x @ w, Squared(), Data(X, X[:, 0]))
    eigenvalues = np.linalg.eigvalsh(X.T @ X / 30)
    record = {
        "sharpness": sharpness,
        "two": largest_eigenvalues(2),
        "trace": hessian_trace,
        "density": hessian_density(np.linspace(-1, 4, 400), 0.1),
    }
    run = simulate(task, sgd(optax.sgd(0.1)), 2, jax.random.key(0), record=record)
    np.testing.assert_allclose(run["sharpness"], eigenvalues[-1], rtol=1e-5)
    np.testing.assert_allclose(run["two"], np.tile(eigenvalues[:-3:-1], (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(run["trace"], eigenvalues.sum(), rtol=0.15)  # five errors of 100 probes
    assert abs(run["density"][0].sum() * 5 / 399 - 1) < 0.01


def test_what_is_recorded_of_some_of_the_weights():
    model = MLP((4, 3, 1))
    task = Task(model.start, model.apply, Hinge(), Data(X, np.sign(X[:, 0])), waits=(0,))
    first = lambda layers: layers[:1]  # noqa: E731
    record = {
        "w": learning.weights,
        "norm": learning.of(first, learning.weight_norm),
        "msd": learning.of(first, learning.mean_squared_displacement),
        "local": learning.local_displacement,
        "global": learning.global_displacement,
        "values": learning.singular_values(lambda layers: layers[0]["w"]),
        "overlaps": learning.overlaps,
        "activity": learning.activity,
        "accuracy": learning.accuracy,
        "alpha_2": learning.non_gaussian,
    }
    run = simulate(task, langevin(0.1, 0.01), 6, jax.random.key(0), record=record, times=np.arange(7))
    w = run["w"].astype(float)
    kernel = w[:, :12].reshape(7, 4, 3)
    np.testing.assert_allclose(run["norm"], np.linalg.norm(kernel, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(run["msd"][:, 0], ((w - w[0])[:, :12] ** 2).mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(run["global"], ((w - w[0]) ** 2).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(run["local"][1:], (np.diff(w, axis=0) ** 2).sum(axis=1), rtol=1e-3)
    np.testing.assert_allclose(run["values"], np.linalg.svd(kernel, compute_uv=False), rtol=1e-4)
    np.testing.assert_allclose(run["activity"], (run["overlaps"] > 0).mean(axis=1))
    np.testing.assert_allclose(run["accuracy"], (run["overlaps"] < 1).mean(axis=1))
    moved = ((w - w[0]) ** 2)[1:]
    fourth = (moved**2).mean(axis=1) / (3 * moved.mean(axis=1) ** 2) - 1
    np.testing.assert_allclose(run["alpha_2"][1:, 0], fourth, rtol=1e-3)


@pytest.mark.parametrize(
    ("observable", "sentence"),
    [
        (learning.activity, "no overlaps"),
        (learning.accuracy, "does not classify"),
        (learning.test_loss, "no test samples"),
    ],
)
def test_what_a_task_has_not_is_refused(observable, sentence):
    task = Task(lambda _: jnp.zeros(4), lambda w, x: x @ w, Squared(), Data(X, X[:, 0]))
    with pytest.raises(PackingError, match=sentence):
        simulate(task, sgd(optax.sgd(0.1)), 1, jax.random.key(0), record={"one": observable})
