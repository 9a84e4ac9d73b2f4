r"""The implicit bias of a diagonal linear network, beta = u^2 - v^2 from u = v = alpha: kernel, rich, and between.

Gradient flow on (1/2P) |X beta - y|^2 with more weights than samples ends at the interpolating beta of least

    Q(beta) = sum_i q(beta_i/alpha^2),   q(z) = 2 - sqrt(4 + z^2) + z asinh(z/2),

the l2 norm for large alpha (the kernel regime), the l1 norm for small ones (the rich regime). As q'(z) = asinh(z/2),
the minimum is beta = 2 alpha^2 sinh(X^T nu) with one nu for each sample. Source: arXiv:2002.09277.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

Array = NDArray[np.float64]

_MOST = 200  # steps of Newton's method


def potential(beta: Numbers, scale: Numbers) -> Any:
    """Q(beta), the sum of q(beta_i/alpha^2) over the last axis.

    Args:
        beta: (..., d).
        scale: alpha > 0.
    """
    z = np.asarray(beta, float) / np.asarray(scale, float) ** 2
    return (2 - np.sqrt(4 + z**2) + z * np.arcsinh(z / 2)).sum(axis=-1)


def interpolator(features: Array, targets: Array, scale: float) -> Array:
    """The beta (d,) of least Q among those with X beta = y, by Newton's method on its dual.

    The dual is convex: minimise 2 alpha^2 sum_i cosh((X^T nu)_i) - y.nu, whose gradient is X beta - y.

    Args:
        features: X (P, d), P < d, of full rank.
        targets: y (P,).
        scale: alpha > 0.

    Raises:
        PackingError: a scale that is not above 0, or dependent rows, or numbers that floats do not hold.
    """
    if not scale > 0 or np.linalg.matrix_rank(features) < len(features):
        raise PackingError("the scale must be above 0 and the rows of the features independent")
    width = 2 * scale**2
    # the start of the kernel regime, cut where sinh is large: exp(20) is far from overflow
    nu = np.linalg.lstsq(features @ features.T, targets / width, rcond=None)[0]
    nu = nu * min(1.0, 20 / max(np.abs(features.T @ nu).max(), 1e-300))

    def value(nu: Array) -> float:
        with np.errstate(over="ignore"):  # a step too far is halved
            return float(width * np.cosh(features.T @ nu).sum() - targets @ nu)

    for _ in range(_MOST):
        hidden = features.T @ nu
        slope = features @ (width * np.sinh(hidden)) - targets
        if np.abs(slope).max() <= 1e-13 * np.abs(targets).max():
            break
        way = -np.linalg.solve((features * (width * np.cosh(hidden))) @ features.T, slope)
        step = 1.0
        now = value(nu)
        while step > 1e-10 and not value(nu + step * way) <= now + 1e-4 * step * slope @ way + 1e-14 * abs(now):
            step /= 2
        nu = nu + step * way
    else:
        raise PackingError(f"no solution of least Q was found at the scale {scale:g}; it may be too small for floats")
    return np.asarray(width * np.sinh(features.T @ nu))
