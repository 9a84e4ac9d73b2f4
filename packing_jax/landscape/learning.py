"""Curvature of a network's loss as a simulation records it: largest eigenvalues, trace, density.

Each is a function of one :class:`packing_jax.networks.learner.Learner`; the Hessian H is that of the loss of all
training samples. Random probes are the same at every step and for every replica, so that any change is due to the
weights.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from packing_jax.landscape import curvature
from packing_jax.networks.learner import Learner

_PROBES = 0  # seed of the random probes


def sharpness(seen: Learner) -> Array:
    """The largest eigenvalue of the Hessian; gradient descent with learning rate eta is unstable above 2/eta."""
    return largest_eigenvalues(1)(seen)[0]


def largest_eigenvalues(count: int, iterations: int = 30) -> Callable[[Learner], Array]:
    """The largest eigenvalues of the Hessian, (count,), from so many iterations of Lanczos."""
    return lambda seen: curvature.largest_eigenvalues(_loss(seen), seen.weights, _key(), count, iterations).values


def hessian_trace(seen: Learner) -> Array:
    """Tr H, by Hutchinson's estimator with 100 probes."""
    return curvature.hessian_trace(_loss(seen), seen.weights, _key()).value


def hessian_density(at: Any, width: float, probes: int = 10, iterations: int = 50) -> Callable[[Learner], Array]:
    """The density of the Hessian's eigenvalues, (points,) at ``at``, each broadened to a Gaussian of this width."""

    def measured(seen: Learner) -> Array:
        found = curvature.density_of_states(_loss(seen), seen.weights, _key(), probes, iterations)
        return found.broadened(jnp.asarray(at, found.nodes.dtype), width).value

    return measured


def _loss(seen: Learner) -> Callable[[Any], Array]:
    return lambda weights: seen.objective.value(weights, seen.data.inputs, seen.data.targets)


def _key() -> Array:
    return jax.random.key(_PROBES)
