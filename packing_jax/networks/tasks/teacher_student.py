r"""A linear student of a linear teacher, whose singular values repel one another like the charges of a Coulomb gas.

    gradient of a sample: (W x - 2 x) x^T + A G,   x ~ N(0, 1),   G symmetric

The noise A G, of standard deviation A off the diagonal of W and sqrt(2) A on it, is no part of the loss
1/2 |W x - 2 x|^2 that is recorded; a batch divides it by the root of its size. :func:`linear_students` has the same
students without the noise, for a rule that adds it. Their laws: :mod:`packing_jax.networks.theory.linear_student`.
Source: arXiv:2407.16427, 2412.20496.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.ready import Ready


def teacher_student(dimension: int = 2, samples: int = 4096, noise: float = 0.1, scale: float = 0.1) -> Task:
    """A linear student that learns twice the unit matrix, with noise in its gradient.

    Args:
        dimension: number of inputs and of outputs.
        samples: P, the number of inputs and of noise matrices; each replica draws its own.
        noise: A, standard deviation of the noise of one sample.
        scale: standard deviation of the initial weights.
    """

    def drawn(key: Array) -> Data:
        inputs_key, noise_key = jax.random.split(key)
        half = jax.random.normal(noise_key, (samples, dimension, dimension))
        # entries of variance 1 off the diagonal and 2 on it
        symmetric = (half + half.transpose(0, 2, 1)) / jnp.sqrt(2.0)
        return Data(jax.random.normal(inputs_key, (samples, dimension)), noise * symmetric)

    def start(key: Array) -> Array:
        return scale * jax.random.normal(key, (dimension, dimension))

    return Task(start, _outputs, _loss, data_from=drawn, largest_loss=1e6)


def linear_students(inputs: Any, scale: float = 0.1) -> Task:
    """Linear students of twice the unit matrix, side by side and independent, each with inputs of its own.

    For :func:`packing_jax.networks.rules.sgd` with
    ``noise=symmetric_noise(A/sqrt(B))``; in batches by ``sampling="order"`` the inputs of a step are the same in every
    replica (frozen data), by ``"replacement"`` from many inputs they are fresh ones.

    Args:
        inputs: x, (P, students, n), shared by all replicas.
        scale: standard deviation of the initial weights (students, n, n).

    Raises:
        PackingError: inputs of another shape.
    """
    shape = np.shape(inputs)
    if len(shape) != 3:
        raise PackingError(f"inputs of shape {shape}; they must be (samples, students, dimension)")
    samples, students, dimension = shape

    def start(key: Array) -> Array:
        return scale * jax.random.normal(key, (students, dimension, dimension))

    return Task(start, _misses, _all_squares, data=Data(inputs, np.zeros(samples)), largest_loss=1e6)


def _misses(weights: Array, inputs: Array) -> Array:
    return jnp.einsum("cij,scj->sci", weights, inputs) - 2 * inputs


def _all_squares(misses: Array, targets: Array) -> Array:  # noqa: ARG001 - the teacher is in the outputs
    return 0.5 * (misses * misses).sum(axis=(1, 2))


def _outputs(weights: Array, inputs: Array) -> tuple[Array, Array]:
    return inputs @ weights.T - 2 * inputs, weights


def _loss(outputs: tuple[Array, Array], noise: Array) -> Array:
    misses, weights = outputs
    push = jnp.einsum("sij,ij->s", noise, weights)
    return 0.5 * (misses * misses).sum(axis=1) + push - jax.lax.stop_gradient(push)


READY = Ready(
    teacher_student,
    {"rule": "sgd", "learning_rate": 0.1, "batch_size": (4, 16, 64), "steps": 1000, "replicas": 64},
)
