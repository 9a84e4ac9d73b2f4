r"""Linear regression with a spectrum that is a power law: the minimum around which SGD is solved exactly.

    y = w*.x + s xi,   x_l ~ N(0, l^-a),   loss 1/2 (w.x - y)^2

The Hessian's eigenvalues are l^-a up to the sample's own fluctuations. Source: arXiv:2107.09133.
"""

import jax
import jax.numpy as jnp
from jax import Array

from packing_jax.networks.data import Data
from packing_jax.networks.losses import Squared
from packing_jax.networks.random_data import linear_regression
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.ready import Ready


def regression(
    dimension: int = 20, samples: int = 200, decay: float = 1.0, noise: float = 0.5, scale: float = 1.0
) -> Task:
    """Linear regression on inputs with a power-law spectrum, with noisy targets.

    Args:
        dimension: d, the number of inputs and of weights.
        samples: P, the number of samples.
        decay: exponent a of the spectrum; the variance of input l = 1, 2, ... is l^-a.
        noise: standard deviation of the noise on the targets.
        scale: standard deviation of the initial weights.
    """

    def drawn(key: Array) -> Data:
        dtype = jnp.result_type(float)
        return linear_regression(key, samples, dimension, exponent=decay, noise=noise, dtype=dtype)

    def start(key: Array) -> Array:
        return scale * jax.random.normal(key, (dimension,))

    return Task(start, _outputs, Squared(), data_from=drawn, largest_loss=1e6)


def _outputs(weights: Array, inputs: Array) -> Array:
    return inputs @ weights


READY = Ready(
    regression,
    {
        "rule": "sgd",
        "learning_rate": (0.01, 0.1, 0.3),
        "batch_size": (4, 16),
        "momentum": (0.0, 0.9),
        "steps": 2000,
        "replicas": 8,
    },
)
