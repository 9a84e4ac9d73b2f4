r"""The edge of stability: which curvatures gradient descent with momentum can stand.

A mode of curvature h is stable where eta h < 2(1+beta) (see :mod:`packing_jax.networks.theory.discrete`). Training
raises the sharpness of a network up to that value, where it stays (arXiv:2103.00065). Descent on the heat equation's
energy (1/2) sum |grad u|^2 on a grid is its explicit scheme, stable up to eta = dx^2/(2d): the grid's fastest mode, the
checkerboard, has the curvature 4d/dx^2 (arXiv:2206.02001).
"""

from typing import Any

import numpy as np

from packing_jax.networks.theory import Numbers


def largest_curvature(learning_rate: Numbers, momentum: Numbers = 0.0) -> Any:
    """2(1+beta)/eta: the largest stable curvature.

    Args:
        learning_rate: eta; the two broadcast.
        momentum: beta of the heavy ball.
    """
    return 2 * (1 + np.asarray(momentum, float)) / np.asarray(learning_rate, float)


def heat_learning_rate(spacing: Numbers, dim: Numbers, momentum: Numbers = 0.0) -> Any:
    """(1+beta) dx^2/(2d): the largest stable learning rate on a periodic grid of even length.

    Args:
        spacing: dx; these broadcast.
        dim: d.
        momentum: beta of the heavy ball.
    """
    curvature = 4 * np.asarray(dim, float) / np.asarray(spacing, float) ** 2
    return 2 * (1 + np.asarray(momentum, float)) / curvature
