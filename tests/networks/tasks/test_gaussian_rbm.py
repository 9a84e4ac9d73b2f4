"""The Gaussian machine: its gradient, its chains and the spacing of a pair, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax import simulate
from packing_jax.errors import PackingError
from packing_jax.networks.rules import persistent_chains
from packing_jax.networks.tasks.gaussian_rbm import Gibbs, gaussian_rbm
from packing_jax.networks.theory.gaussian_rbm import GaussianMachine

PUBLISHED = GaussianMachine()
#: One pair, whose chains remember: r = 5/9 a sweep.
SMALL = GaussianMachine(3, 1.0, 3.0)


def test_published_spectrum():
    np.testing.assert_allclose(np.linalg.eigvalsh(PUBLISHED.stiffness()), PUBLISHED.stiffnesses(), atol=1e-12)
    x = PUBLISHED.eigenvalues()
    assert (x[0], x[-1]) == pytest.approx((5, 1))
    np.testing.assert_allclose(PUBLISHED.pairs(), x[2:-1:2])
    np.testing.assert_allclose(GaussianMachine(5).pairs(), GaussianMachine(5).eigenvalues()[2::2])


def test_gradient_of_the_data_is_exact():
    task = gaussian_rbm(PUBLISHED)
    weights = np.random.default_rng(0).standard_normal((10, 10))
    single = [jnp.asarray(one, jnp.float32) for one in (weights, task.data.inputs, task.data.targets)]
    found = jax.grad(task.objective.value)(*single)
    np.testing.assert_allclose(found, -np.linalg.inv(PUBLISHED.stiffness()) @ weights, rtol=1e-4, atol=1e-5)


def test_chains_have_the_law_of_the_machine():
    """Second moments of 40,000 chains within 5 standard errors: a false alarm in 1e5."""
    task, gibbs = gaussian_rbm(SMALL, scale=None), Gibbs(SMALL.mass)
    weights = task.start(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 30)
    visible, _ = jax.lax.scan(lambda v, key: (gibbs.sweep(key, weights, v), None), gibbs.begin(weights, 40_000), keys)
    visible = np.asarray(visible, float)
    products = visible[:, :, None] * visible[:, None]
    exact = np.linalg.inv(SMALL.stiffness())  # at the solution
    error = products.std(axis=0) / 200
    assert (np.abs(products.mean(axis=0) - exact) < 5 * error).all()
    assert (np.abs(products.mean(axis=0) - 1.1 * exact) > 5 * error).any()


def test_spacing_of_a_pair():
    """Within 2 %, the law's own error at alpha = 0.04, and 4 standard errors. One sweep shows the chains' memory."""
    task = gaussian_rbm(SMALL, scale=None)
    rule = persistent_chains(optax.sgd(0.04), Gibbs(SMALL.mass), 8)
    run = simulate(task, rule, 120, jax.random.split(jax.random.key(3), 1200))
    weights = np.asarray(task.tree(run.final["weights"]), float)
    x = np.linalg.eigvalsh(np.swapaxes(weights, 1, 2) @ weights)
    spacing, law = (x[:, 1] - x[:, 0]).mean(), SMALL.spacing(5.0, 0.04, 8, 1)
    near = 0.02 + 4 * 0.5227 / np.sqrt(1200)
    assert abs(spacing / law - 1) < near
    assert abs(spacing / (1.1 * law) - 1) > near
    assert law / SMALL.spacing(5.0, 0.04, 8) == pytest.approx(np.sqrt((1 + 25 / 81) / (1 - 25 / 81)))


def test_learns_from_small_weights():
    task = gaussian_rbm(SMALL)
    run = simulate(task, persistent_chains(optax.sgd(0.3), Gibbs(SMALL.mass), 256), 300, jax.random.key(4))
    weights = np.asarray(task.tree(run.final["weights"]), float)
    np.testing.assert_allclose(
        9 * np.eye(3) - weights @ weights.T, SMALL.stiffness(), atol=1.0
    )  # it was 9 on the diagonal


def test_out_of_range():
    for numbers in ((2,), (10, 0.0), (10, 2.0, 2.5)):
        with pytest.raises(PackingError):
            GaussianMachine(*numbers)
    for chains, sweeps in ((0, 1), (1, 0)):
        with pytest.raises(PackingError, match="number of"):
            persistent_chains(optax.sgd(0.1), Gibbs(), chains, sweeps)
