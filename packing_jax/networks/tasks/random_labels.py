"""Random labels: how many samples a network can store, a transition like jamming.

An MLP without biases, f(x), and a hinge (1/a) max(0, kappa - y f)^a on Gaussian inputs with labels y = +-1 by fair
coins. Without a violated sample the network is at rest; near P/N = 2.5 to 3 samples per weight it no longer gets there.
Source: arXiv:1809.09349.
"""

from jax import Array
from jax import numpy as jnp

from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge
from packing_jax.networks.models import MLP
from packing_jax.networks.random_data import random_labels as labelled
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.ready import Ready


def random_labels(
    inputs: int = 10,
    width: int = 10,
    depth: int = 2,
    samples: int = 200,
    kappa: float = 1.0,
    exponent: int = 2,
    scale: float = 1.0,
) -> Task:
    """Random labels: a ReLU network that must store them with a margin.

    Args:
        inputs: number of inputs of a sample.
        width: units of each hidden layer.
        depth: number of hidden layers.
        samples: P, the number of samples.
        kappa: margin of the hinge loss.
        exponent: exponent of the hinge loss, 1 linear or 2 quadratic.
        scale: scale of the initial weights, which are orthogonal.
    """
    model = MLP((inputs, *(width,) * depth, 1), "relu")
    start = MLP(model.widths, "relu", drawn="orthogonal", scale=scale).start

    def drawn(key: Array) -> Data:
        return labelled(key, samples, inputs, dtype=jnp.result_type(float))

    return Task(start, model.apply, Hinge(kappa, exponent), data_from=drawn, largest_loss=1e6)


READY = Ready(
    random_labels,
    {
        "rule": "adam",
        "samples": (100, 200, 300, 400, 500, 600),
        "learning_rate": 0.005,
        "steps": 2500,
        "replicas": 8,
    },
    control="samples",
)
