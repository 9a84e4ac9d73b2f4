r"""Eigenvalues of weight matrices as a Coulomb gas: they repel one another, and a temperature keeps them apart.

A square symmetric matrix X that moves as dX = -grad V(X) dt + sqrt(D) dG, G symmetric with variance dt off the diagonal
and 2 dt on it, has the eigenvalues

    dx_i = -V'(x_i) dt + sum_{j != i} D/(x_i - x_j) dt + sqrt(2 D) dB_i,

with the stationary law P ~ prod_{i<j} |x_i - x_j| exp(-sum_i V(x_i)/D). Where N modes have one minimum x0, it is that
of N charges in a harmonic trap of width w, exp(-sum (x_i - x0)^2/(2 w^2)). w^2 is D/V''(x0), and proportional to the
learning rate over the batch size in SGD. These are the stationary laws of
:mod:`packing_jax.networks.rules.eigenvalues`. Source: arXiv:2407.16427, 2411.13512, 2412.20496; derived where said.
"""

from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

Array = NDArray[np.float64]

#: Standard deviation over mean of the spacing of two degenerate modes, sqrt(4/pi - 1).
SPACING_VARIATION = float(np.sqrt(4 / np.pi - 1))


def two_mode_density(x: Numbers, center: Numbers = 0.0, width: Numbers = 1.0) -> Any:
    """The density of the eigenvalues of two degenerate modes, normalised to 1.

    e^(-u^2/2)/(4 sqrt(pi) w) [2 e^(-u^2/2) + sqrt(2 pi) u erf(u/sqrt(2))],   u = (x - x0)/w. Source: arXiv:2407.16427.

    Args:
        x: places.
        center: x0.
        width: w > 0.

    Raises:
        PackingError: a width that is not above 0.
    """
    w = _positive("width", width)
    u = (np.asarray(x, float) - np.asarray(center, float)) / w
    bell = np.exp(-(u**2) / 2)
    return bell / (4 * np.sqrt(np.pi) * w) * (2 * bell + np.sqrt(2 * np.pi) * u * erf(u / np.sqrt(2)))


def two_mode_moment(order: int, width: Numbers = 1.0) -> Any:
    """The central moment of that density: 3/2 w^2 for order 2, 23/4 w^4 for order 4, 0 for odd orders. Derived.

    An eigenvalue is a normal number of variance w^2/2, half the trace, plus or minus half the spacing, whose square is
    exponential with the mean w^2: the moment of order 2n is w^2n sum_k (2n)! (n-k)!/[(2n-2k)! 4^k k!] over k = 0..n.

    Raises:
        PackingError: an order that is negative or no whole number, or a width that is not above 0.
    """
    if type(order) is not int or order < 0:
        raise PackingError(f"the order of a moment is {order!r}; it must be a whole number from 0 on")
    w = _positive("width", width)
    if order % 2:
        return 0.0 * w
    n = order // 2
    terms = [
        factorial(2 * n) * factorial(n - k) / (factorial(2 * n - 2 * k) * 4**k * factorial(k)) for k in range(n + 1)
    ]
    return sum(terms) * w**order


def spacing_density(s: Numbers) -> Any:
    """Wigner's surmise for the spacing over its mean: (pi/2) s e^(-pi s^2/4); exact for two degenerate modes."""
    s = np.asarray(s, float)
    return np.where(s > 0, np.pi / 2 * s * np.exp(-np.pi * s**2 / 4), 0.0)[()]


def spacing_distribution(s: Numbers) -> Any:
    """The distribution function of Wigner's surmise: 1 - e^(-pi s^2/4)."""
    return -np.expm1(-np.pi * np.maximum(np.asarray(s, float), 0.0) ** 2 / 4)


def mean_spacing(width: Numbers) -> Any:
    """The mean spacing of two degenerate modes: sqrt(pi) w.

    Raises:
        PackingError: a width that is not above 0.
    """
    return np.sqrt(np.pi) * _positive("width", width)


def semicircle(x: Numbers, modes: int, center: Numbers = 0.0, width: Numbers = 1.0) -> Any:
    """The density of the eigenvalues of N degenerate modes, N large: a semicircle of radius sqrt(2 N) w.

    2/(pi R^2) sqrt(R^2 - (x - x0)^2). Its variance is N w^2/2, that of N modes is (N+1) w^2/2.

    Raises:
        PackingError: less than one mode, or a width that is not above 0.
    """
    if modes < 1:
        raise PackingError(f"the number of modes is {modes}; it must be at least 1")
    radius = np.sqrt(2 * modes) * _positive("width", width)
    off = np.asarray(x, float) - np.asarray(center, float)
    return 2 / (np.pi * radius**2) * np.sqrt(np.maximum(radius**2 - off**2, 0.0))


def free_trace(time: Numbers, diffusion: Numbers, rows: int, columns: int, start: Numbers = 0.0) -> Any:
    """The mean of Tr W W^T of a free K x L matrix, dW = sqrt(2 D) dB: Tr(0) + 2 D K L t. Source: arXiv:2412.20496."""
    return np.asarray(start, float) + 2 * np.asarray(diffusion, float) * rows * columns * np.asarray(time, float)


def _positive(name: str, value: Any) -> Any:
    array = np.asarray(value, float)
    if not (array > 0).all():
        raise PackingError(f"the {name} is {value}; it must be above 0")
    return array[()]
