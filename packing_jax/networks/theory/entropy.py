r"""Entropy production of a linear process with Gaussian noise, step by step: the integral fluctuation theorem.

x' = M x + xi, xi ~ N(0, C), in its stationary state p = N(0, Sigma). A path x_0, ..., x_K produces

    ds = ln [p(x_0) P(x_1|x_0) ... P(x_K|x_(K-1))] - ln [p(x_K) P(x_(K-1)|x_K) ... P(x_0|x_1)],

the log ratio of its probability to that of its reverse, so that <e^(-ds)> = 1 at any length, step size and distance
from equilibrium, while <ds> >= 0 is 0 only without currents. Source: arXiv:2306.03521 (the theorem for SGD); the mean
derived.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov

from packing_jax.errors import PackingError

Array = NDArray[np.float64]


def of_paths(paths: Array, step: Array, noise: Array) -> Array:
    """ds of each path.

    Args:
        paths: (..., K + 1, d).
        step: M (d, d).
        noise: C (d, d), of full rank.

    Raises:
        PackingError: a step that does not settle.
    """
    sigma = _stationary(step, noise)
    forward = paths[..., 1:, :] - paths[..., :-1, :] @ step.T
    backward = paths[..., :-1, :] - paths[..., 1:, :] @ step.T
    produced = (_squared(backward, noise) - _squared(forward, noise)).sum(axis=-1)
    ends = _squared(paths[..., -1, :], sigma) - _squared(paths[..., 0, :], sigma)
    return np.asarray((produced + ends) / 2)


def mean_per_step(step: Array, noise: Array) -> float:
    """<ds> of a step: (1/2) Tr C^-1 [Sigma - M^2 Sigma - Sigma M^T2 + M Sigma M^T] - d/2.

    Raises:
        PackingError: a step that does not settle.
    """
    sigma = _stationary(step, noise)
    twice = step @ step @ sigma
    backward = sigma - twice - twice.T + step @ sigma @ step.T
    return float(np.trace(np.linalg.solve(noise, backward)) - len(step)) / 2


def _squared(rows: Array, covariance: Array) -> Any:
    """x^T C^-1 x of the last axis."""
    return np.einsum("...i,...i->...", rows, rows @ np.linalg.inv(covariance))


def _stationary(step: Array, noise: Array) -> Array:
    if not (np.abs(np.linalg.eigvals(step)) < 1).all():
        raise PackingError("the step does not settle: an eigenvalue of its matrix is not below 1 in size")
    return np.asarray(solve_discrete_lyapunov(step, noise))
