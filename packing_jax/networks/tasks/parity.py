"""The parity of handwritten digits: the network whose glassy dynamics were studied.

Each pixel standardised, the first principal components not whitened; an MLP of ReLUs without biases whose weights start
uniform in +-1/sqrt(inputs of a layer); a quadratic hinge. Source: arXiv:2405.13098, 1803.06969.
"""

import functools

from packing_jax.networks.data import Data, principal_components, split, standardised
from packing_jax.networks.data import parity as by_parity
from packing_jax.networks.files import load
from packing_jax.networks.losses import Hinge
from packing_jax.networks.models import MLP
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.ready import Ready


def parity(
    samples: int = 500,
    tests: int = 500,
    components: int = 10,
    width: int = 30,
    depth: int = 6,
    kappa: float = 1.0,
    exponent: int = 2,
    scale: float = 1.0,
    data: str = "digits",
) -> Task:
    """Parity of handwritten digits: even or odd, from their first principal components.

    Args:
        samples: P, the number of training samples; all replicas share them.
        tests: number of test samples.
        components: number of principal components, which are the inputs.
        width: units of each hidden layer.
        depth: number of hidden layers.
        kappa: margin of the hinge loss.
        exponent: exponent of the hinge loss, 1 linear or 2 quadratic.
        scale: scale of the initial weights.
        data: digits, mnist-5k, or a file or folder of your own, as packing_jax.networks.files.load reads it.
    """
    model = MLP((components, *(width,) * depth, 1), "relu")
    start = MLP(model.widths, "relu", scale=scale).start
    samples_of = _prepared(data, samples, tests, components)
    return Task(start, model.apply, Hinge(kappa, exponent), data=samples_of, largest_loss=1e6)


@functools.lru_cache(maxsize=64)
def _prepared(source: str, samples: int, tests: int, components: int) -> Data:
    """One object for one set: replicas of one program share it."""
    return split(_components(source, components), samples, tests)


@functools.lru_cache(maxsize=8)
def _components(source: str, count: int) -> Data:
    return principal_components(standardised(by_parity(load(source))), count)


READY = Ready(
    parity,
    {"rule": "sgd", "learning_rate": (0.03, 0.1, 0.3), "batch_size": 16, "steps": 3000, "replicas": 8},
)
