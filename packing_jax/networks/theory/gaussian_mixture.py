r"""Two Gaussian clusters: how often a linear classifier errs on fresh data, exactly. Source: arXiv:2006.06098.

For x = y v/sqrt(d) + sqrt(Delta) z (:func:`packing_jax.networks.random_data.gaussian_mixture`) the sign of w.x is wrong
with probability (1/2) erfc(m/sqrt(2 Delta C)), m = w.v/d, C = |w|^2/d. Training enters through these two numbers alone,
which dynamical mean-field theory follows in time; that theory's own equations are not here.
"""

from typing import Any

import numpy as np
from scipy.special import erfc

from packing_jax.networks.theory import Numbers


def fresh_error(overlap: Numbers, square: Numbers, variance: Numbers) -> Any:
    """(1/2) erfc(m/sqrt(2 Delta C)).

    Args:
        overlap: m = w.v/d; the three broadcast.
        square: C = |w|^2/d > 0.
        variance: Delta > 0.
    """
    m, c, delta = (np.asarray(one, float) for one in (overlap, square, variance))
    return erfc(m / np.sqrt(2 * delta * c)) / 2


def least_error(centre: Numbers, variance: Numbers) -> Any:
    """The error of w = v, which no other w undercuts: (1/2) erfc(|v|/sqrt(2 Delta d)).

    Args:
        centre: v (..., d).
        variance: Delta > 0.
    """
    square = np.mean(np.asarray(centre, float) ** 2, axis=-1)
    return fresh_error(square, square, variance)
