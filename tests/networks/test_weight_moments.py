"""First and second moments of one step of every rule against closed forms, from 1e5 replicas of one configuration.

A step is linear in the weights' gradient, w' - w = sum_mu c_mu g_mu + noise, of a small linear regression or perceptron
with random draws c; its mean and covariance are known. Each entry is compared within five of its standard errors (false
alarm 6e-7 an entry, about 1e-4 for this file, whose seeds are fixed), and the total variance within 1 %.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax.drive.chunk import chunk
from packing_jax.drive.run import begin
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge, Squared
from packing_jax.networks.rules import bro, heavy_ball, langevin, sgd
from packing_jax.networks.task import Task

REPLICAS, P = 100_000, 6
RNG = np.random.default_rng(3)
X = RNG.normal(size=(P, 3)).astype(np.float32)
Y = np.sign(RNG.normal(size=P)).astype(np.float32)
W = np.array([0.3, -0.2, 0.5], np.float32)

MISSES = X.astype(float) @ W - Y
GRADIENTS = MISSES[:, None] * X  # of each sample's squared loss
MEAN = GRADIENTS.mean(axis=0)
SPREAD = np.cov(GRADIENTS.T, bias=True)
VIOLATED = (1 - Y * (X @ W)) > 0
PULLS = (-Y[:, None] * X.astype(float))[VIOLATED]  # of the linear hinge


def dyads(vectors):
    return np.einsum("mi,mj->ij", vectors, vectors)


def task(loss, total="mean"):
    return Task(lambda _: jnp.asarray(W), lambda w, x: x @ w, loss, data=Data(X, Y), total=total)


SQUARED, PACKING = task(Squared()), task(Hinge(1.0, 1), "sum")
ETA, S, B = 0.1, 2, 0.25
NOISE = jax.tree_util.Partial(lambda key, gradient: jnp.ones_like(gradient) * jax.random.normal(key, ()))

CASES = {
    "full batch": (SQUARED, sgd(optax.sgd(ETA)), -ETA * MEAN, np.zeros((3, 3))),
    "replacement": (SQUARED, sgd(optax.sgd(ETA), S), -ETA * MEAN, ETA**2 * SPREAD / S),
    "distinct": (
        SQUARED,
        sgd(optax.sgd(ETA), S, sampling="distinct"),
        -ETA * MEAN,
        ETA**2 * SPREAD * (P - S) / (S * (P - 1)),
    ),
    "epochs": (
        SQUARED,
        sgd(optax.sgd(ETA), S, sampling="epochs"),
        -ETA * MEAN,
        ETA**2 * SPREAD * (P - S) / (S * (P - 1)),
    ),
    "batch fraction": (
        SQUARED,
        sgd(optax.sgd(ETA), batch_fraction=B),
        -ETA * MEAN,
        ETA**2 * (1 - B) / (B * P**2) * dyads(GRADIENTS),
    ),
    "weight decay": (SQUARED, sgd(heavy_ball(ETA, 0.9, 0.3), S), -ETA * (MEAN + 0.3 * W), ETA**2 * SPREAD / S),
    "noise": (SQUARED, sgd(optax.sgd(ETA), noise=0.7), -ETA * MEAN, (0.7 * ETA) ** 2 * np.eye(3)),
    "noise of a function": (SQUARED, sgd(optax.sgd(ETA), noise=NOISE), -ETA * MEAN, ETA**2 * np.ones((3, 3))),
    "langevin": (
        SQUARED,
        langevin(ETA, 0.2, 0.3),
        -ETA * (MEAN + 0.3 * W),
        2 * 0.2 * ETA / P * np.eye(3),
    ),
    "langevin, plain, in batches": (
        SQUARED,
        langevin(ETA, 0.2, batch_size=S, per_sample=False),
        -ETA * MEAN,
        2 * 0.2 * ETA * np.eye(3) + ETA**2 * SPREAD / S,
    ),
    "bro": (PACKING, bro(ETA), -ETA / 2 * PULLS.sum(axis=0), ETA**2 / 12 * dyads(PULLS)),
    "hinge sgd": (
        PACKING,
        sgd(optax.sgd(ETA), batch_fraction=B),
        -ETA * B * PULLS.sum(axis=0),
        ETA**2 * B * (1 - B) * dyads(PULLS),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_moments_are_the_derived_ones(name):
    one, rule, mean, covariance = CASES[name]
    kind, replicas, _ = one.prepare(rule, jax.random.split(jax.random.key(11), REPLICAS), None)
    first = begin(kind, replicas, np.array([1]), {})
    state, _ = chunk(kind, (), replicas, first, jnp.array([1]), jnp.asarray(1))
    moves = np.asarray(state.place.weights, float) - W
    rounding = 1e-7
    error = np.sqrt(np.diag(covariance) / REPLICAS)
    assert (np.abs(moves.mean(axis=0) - mean) <= 5 * error + rounding).all()
    found = np.cov(moves.T, bias=True)
    product = (moves - mean)[:, :, None] * (moves - mean)[:, None, :]
    assert (np.abs(found - covariance) <= 5 * product.std(axis=0) / np.sqrt(REPLICAS) + rounding**2).all()
    if covariance.any():
        assert abs(np.trace(found) / np.trace(covariance) - 1) < 0.01
