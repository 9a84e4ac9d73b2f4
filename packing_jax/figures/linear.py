r"""Linear models that several figures train, and what is read off their runs without fits.

All are in float64, for closed forms hold to rounding.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.networks.data import Data
from packing_jax.networks.losses import Squared
from packing_jax.networks.task import Task

#: What rounding of some thousand steps in float64 may add to a number of size 1.
ROUNDING = 1e-11


def linear(weights: Array, inputs: Array) -> Array:
    """The model a.theta of rows of weights (n, d), (S, n); or of one, (S,)."""
    return inputs @ jnp.swapaxes(weights, 0, -1)


def linear_task(features: Any, targets: Any, start: Any, waits: tuple[int, ...] = ()) -> Task:
    """Linear regression, loss (1/2)(a.theta - y)^2, from weights ``start``.

    Rows of weights, (n, d), see the same batches; each has a column of the targets, (P, n).
    """
    first = np.asarray(start, float)
    data = Data(np.asarray(features, float), np.asarray(targets, float))
    return Task(lambda _: jnp.asarray(first), linear, Squared(), data=data, waits=waits, precision="float64")


def trace_and_determinant(x: Any) -> tuple[Any, Any]:
    """Those of the 2 x 2 matrix M of a linear recursion, from its first component at four successive steps.

    By Cayley and Hamilton x_2 = tr M x_1 - det M x_0, and the same one step later.

    Args:
        x: (4, ...).
    """
    x0, x1, x2, x3 = np.asarray(x, float)
    below = x1 * x1 - x0 * x2
    return (x1 * x2 - x0 * x3) / below, (x2 * x2 - x1 * x3) / below
