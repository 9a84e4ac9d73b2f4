r"""NAG-GS on a quadratic mode of curvature h, started at gamma = mu, which then stays. Source: arXiv:2209.14937.

With kappa = h/mu, (x', v') = M (x, v) and

    M = 1/(1+a) [[1, a], [a(1-kappa)/(1+a), 1 + a^2(1-kappa)/(1+a)]],
    det M = 1/(1+a)^2,   tr M = [2 - a^2(kappa-1)/(1+a)]/(1+a).

Every mode with 0 < a^2(kappa-1) < 4(1+a) is under-damped and contracts by 1/(1+a), whatever its curvature. Modes are
stable up to a^2(kappa-1) = (2+a)^2. The largest step at which all modes from mu to L contract alike is
a = 2/(sqrt(L/mu) - 1). (Derived from the equations of :mod:`packing_jax.networks.rules.nag_gs`.)
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

Array = NDArray[np.float64]


def step_matrix(step: Numbers, ratio: Numbers) -> Array:
    """M, (..., 2, 2): the map of (x, v), where the weights are x.

    Args:
        step: a > 0; the two broadcast.
        ratio: kappa = h/mu.
    """
    a, kappa = np.broadcast_arrays(np.asarray(step, float), np.asarray(ratio, float))
    below = a * (1 - kappa) / (1 + a)
    rows = np.stack([np.ones_like(a), a], -1), np.stack([below, 1 + a * below], -1)
    return np.stack(rows, -2) / (1 + a)[..., None, None]


def trace_and_determinant(step: Numbers, ratio: Numbers) -> tuple[Any, Any]:
    """tr M and det M, in closed form."""
    a, kappa = np.asarray(step, float), np.asarray(ratio, float)
    return (2 - a**2 * (kappa - 1) / (1 + a)) / (1 + a), 1 / (1 + a) ** 2 + 0 * kappa


def contraction(step: Numbers, ratio: Numbers) -> Any:
    """The spectral radius of M: the factor of a step at late times."""
    trace, determinant = trace_and_determinant(step, ratio)
    root = np.sqrt(np.asarray(trace**2 / 4 - determinant, complex))
    return np.maximum(np.abs(trace / 2 + root), np.abs(trace / 2 - root))


def largest_ratio(step: float) -> float:
    """kappa up to which modes are stable: 1 + [(2+a)/a]^2."""
    return 1 + ((2 + step) / step) ** 2


def best_step(condition: float) -> float:
    """The largest a at which every mode from mu to L contracts by 1/(1+a): 2/(sqrt(L/mu) - 1).

    Raises:
        PackingError: L/mu of at most 1.
    """
    if not condition > 1:
        raise PackingError(f"the ratio of the largest to the smallest curvature is {condition:g}; it must be above 1")
    return float(2 / (np.sqrt(condition) - 1))
