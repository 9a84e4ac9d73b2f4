r"""The law of Marchenko and Pastur, and training losses of a linear model with random inputs as integrals over it.

P inputs of N independent normal numbers, loss (1/2P) sum (w.x - y)^2, descent from w = 0. The eigenvalues of
H = X^T X/P have, for P and N going to infinity at N/P = c, the density

    rho(l) = sqrt[(b - l)(l - a)]/(2 pi c l),   a, b = (1 -+ sqrt c)^2,   and 1 - 1/c at l = 0 for c > 1.

After k steps, t = eta k, the training loss is

    random labels of variance 1:   1/2 [1 - c + c Int rho (1 - eta l)^(2k)],
    a teacher of |w*|^2 = 1:       1/2 Int rho l (1 - eta l)^(2k),

with (1 - eta l)^(2k) -> e^(-2 l t) for small learning rates. Source: arXiv:2601.01010 (the exponential form); the part
of the labels that no weights fit, and steps of any size, derived.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

Array = NDArray[np.float64]

_NODES = 400


def density(x: Numbers, ratio: float, variance: float = 1.0) -> Any:
    """The density of the eigenvalues of W W^T/L for a K x L matrix of independent entries, K <= L large.

    sqrt((x_+ - x)(x - x_-))/(2 pi s^2 c x),   x_+- = s^2 (1 +- sqrt(c))^2,   c = K/L.

    Args:
        x: places.
        ratio: c, above 0 and at most 1.
        variance: s^2 > 0, of an entry.

    Raises:
        PackingError: a ratio or a variance out of range.
    """
    if not 0 < ratio <= 1:
        raise PackingError(f"the ratio K/L is {ratio}; it must be above 0 and at most 1")
    if not variance > 0:
        raise PackingError(f"the variance is {variance}; it must be above 0")
    x = np.asarray(x, float)
    low, high = variance * (1 - np.sqrt(ratio)) ** 2, variance * (1 + np.sqrt(ratio)) ** 2
    inside = (x > low) & (x < high)
    safe = np.where(inside, x, high)
    root = np.sqrt(np.maximum((high - safe) * (safe - low), 0))
    return np.where(inside, root / (2 * np.pi * variance * ratio * safe), 0.0)


def quadrature(ratio: float, nodes: int = _NODES) -> tuple[Array, Array]:
    """Places (n,) and weights (n,) of integrals over the continuous part of rho, whose mass is min(1, 1/c).

    Args:
        ratio: c = N/P > 0, weights per sample.
        nodes: n.

    Raises:
        PackingError: a ratio that is not above 0.
    """
    if not 0 < ratio < np.inf:
        raise PackingError(f"the ratio N/P is {ratio}; it must be above 0 and finite")
    angle = np.pi * (np.arange(nodes) + 0.5) / nodes
    # l = 1 + c + 2 sqrt(c) cos(angle), so that (b - l)(l - a) = 4 c sin^2(angle)
    place = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angle)
    return place, 2 * np.sin(angle) ** 2 / (nodes * place)


def loss_on_random_labels(ratio: float, learning_rate: float, steps: int) -> float:
    """1/2 [1 - c + c Int rho (1 - eta l)^(2k)]: the training loss after k steps on labels of variance 1.

    Args:
        ratio: c = N/P.
        learning_rate: eta.
        steps: k.
    """
    place, weight = quadrature(ratio)
    fitted = min(1.0, ratio)  # the share of the labels' directions that weights reach
    return float(1 - fitted + ratio * weight @ (1 - learning_rate * place) ** (2 * steps)) / 2


def loss_on_a_teacher(ratio: float, learning_rate: float, steps: int) -> float:
    """1/2 Int rho l (1 - eta l)^(2k): the training loss after k steps on the labels of a teacher of |w*|^2 = 1."""
    place, weight = quadrature(ratio)
    return float(weight @ (place * (1 - learning_rate * place) ** (2 * steps))) / 2
