r"""A linear student of a linear teacher, whose singular values repel one another like the charges of a Coulomb gas.

    loss of a sample: 1/2 |W x - 2 x|^2 + A sum_ij G_ij W_ij,   x ~ N(0, 1),   G symmetric

The second term adds noise to the gradient: of standard deviation A off the diagonal of W and sqrt(2) A on it, divided
by the root of the batch size. Source: arXiv:2407.16427, 2412.20496.
"""

import jax
import jax.numpy as jnp
from jax import Array

from packing_jax.networks.data import Data
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.ready import Ready


def teacher_student(dimension: int = 2, samples: int = 4096, noise: float = 0.1, scale: float = 0.1) -> Task:
    """Teacher and student: a matrix that learns twice the unit matrix, with symmetric noise in its gradient.

    Args:
        dimension: of the inputs and the outputs.
        samples: P, of inputs and of noise, which each replica draws for itself.
        noise: A, standard deviation of the noise of one sample.
        scale: standard deviation of each weight at the start.
    """

    def drawn(key: Array) -> Data:
        inputs_key, noise_key = jax.random.split(key)
        half = jax.random.normal(noise_key, (samples, dimension, dimension))
        # entries of variance 1 off the diagonal and 2 on it
        symmetric = (half + half.transpose(0, 2, 1)) / jnp.sqrt(2.0)
        return Data(jax.random.normal(inputs_key, (samples, dimension)), noise * symmetric)

    return Task(lambda key: scale * jax.random.normal(key, (dimension, dimension)), _outputs, _loss, data_from=drawn)


def _outputs(weights: Array, inputs: Array) -> tuple[Array, Array]:
    return inputs @ weights.T - 2 * inputs, weights


def _loss(outputs: tuple[Array, Array], noise: Array) -> Array:
    misses, weights = outputs
    return 0.5 * (misses * misses).sum(axis=1) + jnp.einsum("sij,ij->s", noise, weights)


READY = Ready(
    teacher_student,
    {"rule": "sgd", "learning_rate": 0.1, "batch_size": (4, 16, 64), "steps": 1000, "replicas": 64},
)
