r"""Implicit SGD, theta' = theta - eta grad L_B(theta'), on quadratic losses, at any learning rate.

A mode of curvature rho contracts by 1/(1 + eta rho) a step. With single samples, loss (1/2)(a.theta - y)^2, the step is

    theta' = theta - [eta/(1 + eta |a|^2)] a (a.theta - y)

(Sherman and Morrison), the explicit step of a smaller learning rate. As eta goes to infinity it is Kaczmarz's method,
the projection onto the sample's solutions. (The last two derived.) Source: arXiv:2303.01767.
"""

from typing import Any

import numpy as np

from packing_jax.networks.theory import Numbers


def contraction(learning_rate: Numbers, curvature: Numbers) -> Any:
    """1/(1 + eta rho)."""
    return 1 / (1 + np.asarray(learning_rate, float) * np.asarray(curvature, float))


def explicit_learning_rate(learning_rate: Numbers, squared_norm: Numbers) -> Any:
    """eta/(1 + eta |a|^2): the learning rate of the explicit step that is the same.

    Args:
        learning_rate: eta > 0, infinity too.
        squared_norm: |a|^2 of the sample.
    """
    return 1 / (1 / np.asarray(learning_rate, float) + np.asarray(squared_norm, float))
