r"""Gradient flow of a symmetric low-rank factorisation, solved: L = (1/4)|U U^T - M|^2, dU/dt = -(U U^T - M) U.

The product S = U U^T obeys the Riccati equation dS/dt = M S + S M - 2 S^2. From any start and at any rank,

    S(t) = e^(Mt) U_0 [1 + U_0^T M^-1 (e^(2Mt) - 1) U_0]^-1 U_0^T e^(Mt),

and a start along an eigenvector of M of eigenvalue m stays there: s(t) = m/[1 + (m/s_0 - 1) e^(-2mt)], modes being
learnt one after the other, at t = ln(m/s_0 - 1)/(2m). Source: arXiv:2411.15972 (one mode); the general form derived.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import expit, logit

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

Array = NDArray[np.float64]


def mode(strength: Numbers, start: Numbers, time: Numbers) -> Any:
    """s(t) = m/[1 + (m/s_0 - 1) e^(-2mt)] of a start along an eigenvector.

    Args:
        strength: m > 0, the eigenvalue of M; this and the others broadcast.
        start: s_0, between 0 and m.
        time: t = eta k.
    """
    m, s0, t = (np.asarray(one, float) for one in (strength, start, time))
    return m * expit(2 * m * t + logit(s0 / m))


def learning_time(strength: Numbers, start: Numbers) -> Any:
    """t at which s(t) = m/2: ln(m/s_0 - 1)/(2m)."""
    m, s0 = np.asarray(strength, float), np.asarray(start, float)
    return -logit(s0 / m) / (2 * m)


def product(target: Array, start: Array, times: Numbers) -> Array:
    """S(t) = U U^T at each of some times from any start, (T, d, d).

    Args:
        target: M (d, d), symmetric, of any signs.
        start: U_0 (d, r).
        times: (T,) t = eta k, from 0 on and not decreasing.

    Raises:
        PackingError: a target that is not symmetric, a start of another size, or times that go back.
    """
    if (np.diff(np.atleast_1d(np.asarray(times, float)), prepend=0.0) < 0).any():
        raise PackingError("times must be at least 0, and none before the one ahead of it")
    if target.ndim != 2 or not np.array_equal(target, target.T) or start.ndim != 2 or len(start) != len(target):
        raise PackingError(
            f"the target must be symmetric (d, d) and the start (d, r); their shapes are {target.shape}, {start.shape}"
        )
    values, vectors = np.linalg.eigh(target)
    rows, now, found = vectors.T @ start, 0.0, []
    fastest = float(np.abs(values).max())
    for t in np.atleast_1d(np.asarray(times, float)):
        # in pieces of a time constant, as e^(2Mt) at once would leave no digits of slow modes beside fast ones
        pieces = max(1, int(np.ceil((t - now) * fastest)))
        for _ in range(pieces):
            rows = _later(values, rows, (t - now) / pieces)
        now = t
        found.append(vectors @ rows @ rows.T @ vectors.T)
    return np.stack(found)


def _later(values: Array, rows: Array, time: float) -> Array:
    """U after a while, but for a rotation on its right, in the axes of the eigenvectors."""
    weights = np.where(values == 0, 2 * time, np.expm1(2 * values * time) / np.where(values == 0, 1, values))
    whole = np.concatenate([np.eye(rows.shape[1]), np.sqrt(weights)[:, None] * rows])
    triangle = np.linalg.qr(whole, mode="r")  # R^T R = 1 + U^T M^-1 (e^(2Mt) - 1) U
    grown = np.exp(values * time)[:, None] * rows
    return solve_triangular(triangle, grown.T, trans="T").T
