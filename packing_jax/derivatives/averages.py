"""Derivatives of averages over runs, for hyperparameters along which a single run has none."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError, calling, is_real, real_numbers, shown
from packing_jax.estimate import Estimate
from packing_jax.spheres.start import check_key


def common_random_numbers(measure: Callable[[Array, Array], Any], at: float, width: float, keys: Array) -> Estimate:
    """d<f>/dtheta = <f(theta + h) - f(theta - h)>/2h, both with the draws of the same key, for any hyperparameter.

    For hyperparameters without a path derivative (the batch fraction), and for those whose path derivative misses the
    change of contacts. With the same draws the two runs differ only where a draw falls between the two values of theta:
    at small h the variance of one difference is of order 1/h, against 1/h^2 for independent runs; in long runs chaos
    makes it as large. The bias is h^2/6 times the third derivative; ``stderr`` comes from the scatter between runs.

    Example:
        >>> def final(fractions, keys):
        ...     run = simulate(system, sgd(optax.sgd(0.5), fractions), 100, keys)
        ...     return run["energy"][:, -1]
        >>> slope, stderr = common_random_numbers(final, at=0.5, width=0.05, keys=jax.random.split(key, 64))

    Args:
        measure: (values (R,), keys (R,)) -> (R,): one number for each of R runs.
        at: theta.
        width: h > 0.
        keys: (R,) typed keys, R >= 2.

    Raises:
        PackingError: arguments out of range, or a measure that does not return one real number for each run.
    """
    if not (is_real(width) and np.isfinite(width) and width > 0):
        raise PackingError(f"the width is {shown(width)}; it must be a finite positive number")
    if not (is_real(at) and np.isfinite(at)):
        raise PackingError(f"the value is {shown(at)}; it must be a finite number")
    check_key(keys)
    if keys.ndim != 1 or len(keys) < 2:
        raise PackingError(f"keys of shape {keys.shape}; at least 2 runs are needed for an error")
    ends = []
    for sign in (1.0, -1.0):
        with calling("the measure", "a function of values and keys that returns one number for each"):
            values = real_numbers(measure(jnp.full(len(keys), at + sign * width), keys))
        if values is None:
            raise PackingError("the measure returned no array of real numbers; it must return one number for each run")
        if values.shape != keys.shape:
            raise PackingError(
                f"the measure returned shape {values.shape} for {len(keys)} runs; it must be one number for each"
            )
        ends.append(values.astype(np.float64))
    slopes = (ends[0] - ends[1]) / (2.0 * width)
    return Estimate(float(np.mean(slopes)), float(np.std(slopes, ddof=1) / np.sqrt(len(keys))))
