r"""The spherical perceptron: the mean-field packing, whose capacity is known exactly.

    |w|^2 = N,   Delta_mu = kappa - xi_mu.w/sqrt(N),   xi_mu ~ N(0, I_N),   alpha = P/N

P patterns, labels taken in, each of one replica's own. A violated pattern, Delta > 0, is a contact, and weights that
violate none are absorbing; Gardner's capacity (:mod:`packing_jax.networks.theory.perceptron`) is where they cease to
exist. Source: E. Gardner, J. Phys. A 21, 257 (1988); for kappa < 0 arXiv:1501.03397.
"""

from math import sqrt

import jax
import jax.numpy as jnp
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.ready import Ready


def perceptron(dimension: int = 200, alpha: float = 0.5, kappa: float = 1.0, exponent: int = 1) -> Task:
    """A spherical perceptron that must classify random patterns with a margin.

    With one disorder key, the patterns of a larger alpha include those of a smaller one. In a sweep each alpha has its
    own key.

    Args:
        dimension: N, the number of weights, and of inputs of a pattern.
        alpha: patterns per weight, P/N; P is round(alpha N).
        kappa: margin that each pattern must have.
        exponent: exponent of the hinge loss, 1 linear or 2 quadratic.

    Raises:
        PackingError: fewer than one weight or pattern.
    """
    patterns = round(alpha * dimension)
    if dimension < 1 or patterns < 1:
        raise PackingError(
            f"a perceptron of {dimension} weights and {patterns} patterns; there must be at least 1 of both"
        )

    def drawn(key: Array) -> Data:
        return Data(jax.random.normal(key, (patterns, dimension)), jnp.ones(patterns))

    def start(key: Array) -> Array:
        return on_sphere(jax.random.normal(key, (dimension,)))

    return Task(start, stabilities, Hinge(kappa, exponent), data_from=drawn, total="sum", project=on_sphere)


def stabilities(weights: Array, patterns: Array) -> Array:
    """xi_mu.w/sqrt(N) of each pattern (P, N), (P,)."""
    return patterns @ weights / sqrt(weights.shape[0])


def on_sphere(weights: Array) -> Array:
    """The same direction with |w|^2 = N."""
    return weights * jnp.sqrt(weights.shape[0] / jnp.sum(weights * weights))


READY = Ready(
    perceptron,
    {
        "rule": "bro",
        "kick": (0.05, 0.1),
        "alpha": (0.4, 0.45, 0.48, 0.5, 0.52, 0.54, 0.57, 0.65),
        "steps": 4000,
        "replicas": 16,
    },
    control="alpha",
    size="dimension",
)
