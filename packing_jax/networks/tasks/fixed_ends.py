r"""A network of which only the middle is trained, by a teacher with the same ends: three phases of SGD.

    y = Z tanh(W tanh(M x)),   3-32-16-1,   x ~ N(0, 1),   loss 1/2 (y - y_teacher)^2

M, Z and the teacher's W are normal with variances 1/3, 1/16 and 1/32, the student's W with sigma_W^2/32. Each replica
draws its own inputs; a replica whose batch has a loss above 100 has diverged. Source: arXiv:2509.01349.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from packing_jax.networks.data import Data
from packing_jax.networks.learner import Learner
from packing_jax.networks.losses import Squared
from packing_jax.networks.task import Task

_INPUTS, _WIDE, _NARROW = 3, 32, 16
SAMPLES = 4000  #: a thousand batches of four


def network(key: Array, scale: Any = 1.0) -> dict[str, Array]:
    """Ends, teacher and student of one replica.

    Args:
        key: of all four; a student of another scale is a multiple of the same one.
        scale: sigma_W.

    Returns:
        "first" M (32, 3), "last" Z (16,), "teacher" and "student" W (16, 32).
    """
    first, last, teacher, student = jax.random.split(key, 4)

    def normal(key: Array, *shape: int) -> Array:
        return jax.random.normal(key, shape) / np.float32(np.sqrt(shape[-1]))

    return {
        "first": normal(first, _WIDE, _INPUTS),
        "last": normal(last, _NARROW),
        "teacher": normal(teacher, _NARROW, _WIDE),
        "student": scale * normal(student, _NARROW, _WIDE),
    }


def hidden(weights: dict[str, Array], inputs: Array, whose: str = "student") -> Array:
    """The narrow layer tanh(W tanh(M x)), (S, 16)."""
    return jnp.tanh(jnp.tanh(inputs @ weights["first"].T) @ weights[whose].T)


def _miss(weights: dict[str, Array], inputs: Array) -> Array:
    """Student's output less teacher's; all but the student's weights are fixed."""
    fixed = jax.tree.map(jax.lax.stop_gradient, weights) | {"student": weights["student"]}
    return (hidden(fixed, inputs) - hidden(fixed, inputs, "teacher")) @ fixed["last"]


def fixed_ends(scale: float = 1.0, tests: int = 128) -> Task:
    """The student between fixed ends.

    Args:
        scale: sigma_W.
        tests: number of test points.
    """

    def drawn(key: Array) -> Data:
        x = jax.random.normal(key, (SAMPLES + tests, _INPUTS))
        return Data(x[:SAMPLES], jnp.zeros(SAMPLES), x[SAMPLES:], jnp.zeros(tests))

    return Task(lambda key: network(key, scale), _miss, Squared(), data_from=drawn, largest_loss=100.0)


def frozen_overlap(seen: Learner) -> Array:
    """q = <s s_start> over test points and the narrow layer s: 1 where saturated units keep their signs."""
    inputs = jnp.asarray(seen.data.test_inputs)
    return jnp.mean(hidden(seen.weights, inputs) * hidden(seen.start, inputs))


def teacher_overlap(seen: Learner) -> Array:
    """The cosine of the narrow layer with Z^T y_teacher, over test points and units."""
    inputs = jnp.asarray(seen.data.test_inputs)
    s, last = hidden(seen.weights, inputs), seen.weights["last"]
    told = jnp.outer(hidden(seen.weights, inputs, "teacher") @ last, last)
    return jnp.sum(s * told) / jnp.sqrt(jnp.sum(s * s) * jnp.sum(told * told))


def noise_limit(weights: dict[str, Array], inputs: Array, scale: float) -> float:
    r"""The temperature T = eta/B above which gradient noise outweighs the drift of the eigenvalues of W W^T.

    (|K_11| - |K_KK|)/(sqrt(r) (K - 1)) = T V/(4 sigma_W^2),  V = 2 V_1K/(K-1) + sum_{k=1}^{K-2} (V_1,k+1 + V_K,K-k)/k,

    where K_ij and V_ij are mean and variance over samples of -(G W^T + W G^T) in the eigenvectors of W W^T, from the
    largest eigenvalue down, G the gradient of a sample, and r = 2. (V_K,K-k, of the k-th neighbour of the smallest, is
    derived: V_1,k+1 from the other end.) Source: arXiv:2509.01349.

    Args:
        weights: of :func:`network`.
        inputs: (S, 3).
        scale: sigma_W.
    """

    def gradient(x: Array) -> Array:
        def loss(student: Array) -> Array:
            return 0.5 * _miss(weights | {"student": student}, x[None])[0] ** 2

        return jax.grad(loss)(weights["student"])

    student: NDArray[np.float64] = np.asarray(weights["student"], float)
    gradients = np.asarray(jax.vmap(gradient)(inputs), float)
    vectors = np.linalg.eigh(student @ student.T)[1][:, ::-1]
    pushes = -np.einsum("sij,kj->sik", gradients, student)
    pushes = vectors.T @ (pushes + pushes.transpose(0, 2, 1)) @ vectors
    mean, variance = pushes.mean(axis=0), pushes.var(axis=0)
    size = len(student)
    k = np.arange(1, size - 1)
    noise = 2 * variance[0, -1] / (size - 1) + ((variance[0, k] + variance[-1, size - 1 - k]) / k).sum()
    drift = (abs(mean[0, 0]) - abs(mean[-1, -1])) / (np.sqrt(2) * (size - 1))
    return float(max(drift, 0.0) * 4 * scale**2 / noise)
