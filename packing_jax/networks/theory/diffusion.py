r"""Free diffusion of weights: the baseline of every claim about glassy dynamics.

theta' = theta - mu lambda theta + sqrt(2 kT mu/P) xi, the Langevin rule on a flat loss (the 1/P convention of
arXiv:2405.13098; reference: section C). For lambda = 0 the displacement of a weight in t steps is Gaussian with
variance 2 kT mu t/P.
"""

from typing import Any

import numpy as np
from scipy.special import erf, erfinv

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers


def mean_squared_displacement(
    temperature: Numbers, rate: float, samples: int, steps: Numbers, weight_decay: float = 0.0
) -> Any:
    """MSD of a weight in t steps, from the stationary state (without weight decay, from any start); exact.

    MSD = 2 Var [1 - (1 - lambda mu)^t], with the stationary variance Var = 2 kT/(P lambda (2 - lambda mu)); for
    lambda mu -> 0 it is (2 kT/(P lambda))(1 - e^(-lambda mu t)), and without weight decay 2 kT mu t/P.

    Args:
        temperature: kT, in units of the sum of the samples' losses (kT/P in units of their mean).
        rate: mu, the learning rate.
        samples: P; 1 for the plain convention.
        steps: t.
        weight_decay: lambda, with lambda mu < 1.
    """
    step = _variance_of_step(temperature, rate, samples, weight_decay)
    pull = weight_decay * rate
    # (1 - (1-pull)^t)/pull, to full precision as pull goes to 0
    summed = _one_minus_power(pull, steps) / pull if pull else np.asarray(steps, float)
    return 2 * step * summed / (2 - pull) if pull else step * summed


def variance_from_a_point(
    temperature: Numbers, rate: float, samples: int, steps: Numbers, weight_decay: float = 0.0
) -> Any:
    """Variance of a weight t steps after a fixed start, exact; (kT/(P lambda))(1 - e^(-2 lambda mu t)) at small mu.

    The arguments are those of :func:`mean_squared_displacement`.
    """
    step = _variance_of_step(temperature, rate, samples, weight_decay)
    pull = weight_decay * rate
    if not pull:
        return step * np.asarray(steps, float)
    return step * _one_minus_power(pull, 2 * np.asarray(steps)) / (pull * (2 - pull))


def overlap(width: float, displacement: Numbers) -> Any:
    """Q = erf(eps/sqrt(2 MSD)): the share of weights that moved by eps at most, for Gaussian displacements.

    For free diffusion Q = erf(eps/sqrt(4 kT mu t/P)): it falls as t^(-1/2) at long times, and the relaxation time is
    proportional to 1/T.

    Args:
        width: eps, in units of the weights.
        displacement: mean squared displacement per weight.

    Raises:
        PackingError: a width that is not above 0.
    """
    if not width > 0:
        raise PackingError(f"the width of the overlap is {width}; it must be above 0")
    with np.errstate(divide="ignore"):
        return erf(width / np.sqrt(2 * np.asarray(displacement, float)))


def relaxation_time(level: float, width: float, temperature: Numbers, rate: float, samples: int) -> Any:
    """Steps until Q of free diffusion falls to a level: eps^2 P/(4 kT mu erfinv(level)^2).

    tau_90 = .1848 eps^2 P/(kT mu) at 0.9 and tau_e = 2.1815 eps^2 P/(kT mu) at 1/e: their ratio is 11.80.

    Args:
        level: value of Q, between 0 and 1.
        width: eps.
        temperature: kT, above 0.
        rate: mu.
        samples: P.

    Raises:
        PackingError: an argument out of range.
    """
    if not 0 < level < 1:
        raise PackingError(f"the level is {level}; it must lie between 0 and 1")
    if not width > 0:
        raise PackingError(f"the width of the overlap is {width}; it must be above 0")
    step = _variance_of_step(temperature, rate, samples, 0.0)
    with np.errstate(divide="ignore"):
        return width**2 / (2 * step * erfinv(level) ** 2)


def _variance_of_step(temperature: Numbers, rate: float, samples: int, weight_decay: float) -> Any:
    kT = np.asarray(temperature, float)
    if not (kT >= 0).all():
        raise PackingError("a temperature is below 0 or not a number; it must be at least 0")
    if not rate > 0 or samples < 1 or not 0 <= weight_decay * rate < 1:
        raise PackingError(
            f"learning rate {rate}, {samples} samples and weight decay {weight_decay} give no such walk: the rate must "
            "be above 0, samples at least 1, and rate times weight decay at least 0 and below 1"
        )
    return 2 * kT * rate / samples


def _one_minus_power(pull: float, steps: Numbers) -> Any:
    return -np.expm1(np.asarray(steps, float) * np.log1p(-pull))
