"""A task of your own, from its model to a sweep and its weights. Run it: python own_task.py, half a minute."""

from pathlib import Path

import jax
import jax.numpy as jnp

from packing_jax import simulate
from packing_jax.commands.learning_summary import report
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge
from packing_jax.networks.rules import bro
from packing_jax.networks.task import Task
from packing_jax.observables import learning
from packing_jax.sweeps.networks import Training
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.trained import weights_of


def start(key):
    """First weights: any pytree of floats."""
    return {"slope": jax.random.normal(key, (2, 16)), "sum": jnp.full(16, 1 / 16, jnp.float32)}


def apply(weights, inputs):
    """The model: outputs (samples,) for inputs (samples, 2)."""
    return jnp.tanh(inputs @ weights["slope"]) @ weights["sum"]


def labels(key, samples):
    """Random points with random labels: the more of them, the harder they are to satisfy."""
    points, signs = jax.random.split(key)
    return Data(jax.random.normal(points, (samples, 2)), jax.random.rademacher(signs, (samples,), jnp.float32))


def task(samples=8, kappa=0.1):
    """The task: each replica draws samples of its own; without a violated one (margin below kappa) it is absorbed."""
    return Task(start, apply, Hinge(float(kappa), 1), data_from=lambda key: labels(key, int(samples)), total="sum")


if __name__ == "__main__":
    keys = jax.random.split(jax.random.key(0), 32)
    run = simulate(task(8), bro(kick=0.1), 2000, keys, record={"activity": learning.activity})
    print("absorbed:", (run.absorbed_at >= 0).mean(), "activity:", run["activity"][:, -1].mean())

    directory = Path("own-task")
    axes = {"samples": (4, 8, 16, 32), "kick": (0.05, 0.1)}
    run_sweep(Training(task=task, rule="bro", axes=axes, measure=("activity",), steps=2000, replicas=16), directory)
    for row in report(directory)["rows"]:
        print(row["samples"], row["kick"], row["absorbed"], row["activity"])
    print(jax.tree.map(jnp.shape, weights_of(directory, task, samples=8, kick=0.1)))
