"""Rules whose steps have a closed form, and modules of other libraries."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as flax

from packing_jax import PackingError, simulate
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge, Softmax, Squared
from packing_jax.networks.models import MLP, from_module
from packing_jax.networks.rules import bro, heavy_ball, implicit_sgd, nag_gs, sgd
from packing_jax.networks.task import Task
from packing_jax.observables import learning

RHO = np.array([3.0, 0.5, 0.01])
KEY = jax.random.key(0)


def quadratic(start, precision="float64"):
    """1/2 sum rho_i w_i^2, as a regression on three orthogonal inputs."""
    inputs = np.diag(np.sqrt(3 * RHO))
    return Task(
        lambda _: jnp.asarray(start), lambda w, x: x @ w, Squared(), Data(inputs, np.zeros(3)), precision=precision
    )


@pytest.mark.parametrize("eta", [0.1, 10.0, 1e4])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_implicit_sgd_contracts_each_mode_by_one_over_one_plus_eta_rho(eta, precision, tolerance):
    start = np.array([1.0, -2.0, 0.5])
    run = simulate(
        quadratic(start, precision), implicit_sgd(eta), 3, KEY, record={"w": learning.weights}, times=np.arange(4)
    )
    for k in range(4):
        np.testing.assert_allclose(run["w"][k], start / (1 + eta * RHO) ** k, atol=tolerance * np.abs(start).max())


def test_implicit_sgd_solves_where_the_loss_is_no_parabola():
    model = MLP((4, 5, 1), "tanh")
    rng = np.random.default_rng(0)
    data = Data(rng.normal(size=(20, 4)), rng.normal(size=20))
    task = Task(model.start, model.apply, Squared(), data, precision="float64")
    run = simulate(task, implicit_sgd(0.5), 1, KEY, record={"w": learning.weights}, times=np.arange(2))
    with task.types():
        before, after = (task.tree(run["w"][k]) for k in (0, 1))
        gradient = jax.grad(task.objective.value)(
            jax.tree.map(jnp.asarray, after), jnp.asarray(data.inputs), jnp.asarray(data.targets)
        )
    for w, e, g in zip(*map(jax.tree.leaves, (before, after, gradient)), strict=True):
        np.testing.assert_allclose(e, w - 0.5 * np.asarray(g), atol=1e-12)


def test_nag_gs_is_the_published_iteration():
    a, mu, gamma, start = 0.3, 0.05, 1.0, np.array([1.0, -2.0, 0.5])
    rule = sgd(jax.tree_util.Partial(nag_gs, learning_rate=a, mu=mu, gamma=gamma))
    run = simulate(quadratic(start), rule, 20, KEY, record={"w": learning.weights}, times=np.arange(21))
    x, v = start.copy(), start.copy()
    for k in range(21):
        x = (x + a * v) / (1 + a)
        np.testing.assert_allclose(run["w"][k], x, rtol=1e-6, atol=1e-12)
        gamma = (gamma + a * mu) / (1 + a)
        v = (gamma * v + a * mu * x - a * RHO * x) / (gamma + a * mu)


def test_optimizers_that_ask_for_values_get_them():
    start = np.array([1.0, -2.0, 0.5])
    for optimizer in (optax.lbfgs(), optax.polyak_sgd()):
        run = simulate(
            quadratic(start), sgd(optimizer), 40, KEY, record={"loss": learning.loss}, times=np.array([0, 40])
        )
        assert run["loss"][1] < 0.01 * run["loss"][0]
    schedule = optax.sgd(optax.exponential_decay(0.1, 1, 0.5))
    run = simulate(quadratic(start), sgd(schedule), 2, KEY, record={"w": learning.weights}, times=np.arange(3))
    np.testing.assert_allclose(run["w"][2], start * (1 - 0.1 * RHO) * (1 - 0.05 * RHO), rtol=1e-6)


@pytest.mark.parametrize("momentum", [1.0, -0.1, np.array([0.5, 1.0]), np.nan])
def test_a_momentum_that_never_comes_to_rest_is_refused(momentum):
    with pytest.raises(PackingError, match="the momentum is"):
        heavy_ball(0.1, momentum)
    heavy_ball(0.1, np.array([0.0, 0.999]))


def test_modules_of_equinox_and_flax_are_models():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(0, 3, 30)
    record = {"loss": learning.loss, "accuracy": learning.accuracy}
    made = from_module(lambda key: equinox.nn.MLP(4, 3, 8, 1, key=key))
    module = flax.Sequential([flax.Dense(8), jax.nn.relu, flax.Dense(3)])
    for start, apply in (
        (made.start, made.apply),
        (lambda key: module.init(key, x[:1]), module.apply),
    ):
        task = Task(start, apply, Softmax(), Data(x, y))
        run = simulate(task, sgd(optax.adam(0.05), 10), 200, jax.random.split(KEY, 2), record=record)
        assert (run["loss"][:, -1] < 0.5 * run["loss"][:, 0]).all()
        assert (run["accuracy"][:, -1] > 0.6).all()
        assert jax.tree.structure(task.tree(run.final["weights"])) == jax.tree.structure(start(KEY))


def test_modules_with_state_or_dropout_are_refused_in_a_sentence():
    x, y = np.ones((30, 4), np.float32), np.ones(30, np.float32)
    with pytest.raises(PackingError, match="arrays of floats and no others"):
        from_module(lambda _: equinox.nn.BatchNorm(4, "batch", mode="ema"))
    dropout = from_module(
        lambda key: equinox.nn.Sequential([equinox.nn.Linear(4, "scalar", key=key), equinox.nn.Dropout(0.5)])
    )
    norm = flax.BatchNorm(use_running_average=False)
    for task in (
        Task(dropout.start, dropout.apply, Squared(), Data(x, y)),
        Task(lambda key: norm.init(key, x[:1]), norm.apply, Squared(), Data(x, y)),
    ):
        with pytest.raises(PackingError, match=r"the model raises \w+Error: ") as caught:
            simulate(task, sgd(optax.sgd(0.1)), 1, KEY)
        assert "\n" not in str(caught.value)


def test_shared_data_are_one_array_and_own_data_one_each():
    rng = np.random.default_rng(0)
    model = MLP((4, 1))
    shared = Task(model.start, model.apply, Hinge(), Data(rng.normal(size=(9, 4)), np.ones(9)))
    own = Task(
        model.start, model.apply, Hinge(), data_from=lambda key: Data(jax.random.normal(key, (9, 4)), jnp.ones(9))
    )
    keys = jax.random.split(KEY, 5)
    _, replicas, _ = shared.prepare(bro(0.1), keys, None)
    assert replicas.system == ()
    assert replicas.shared.inputs.shape == (9, 4)
    _, replicas, _ = own.prepare(bro(0.1), keys, None)
    assert replicas.shared == ()
    assert replicas.system.inputs.shape == (5, 9, 4)
    assert len(np.unique(replicas.system.inputs[:, 0, 0])) == 5
