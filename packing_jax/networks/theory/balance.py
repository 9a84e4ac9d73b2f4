r"""The law of balance: what SGD does to two factors whose product alone is seen, f(x) = u w x.

With the loss (u w x - y)^2, its mean over a batch L_B and g = dL_B/d(uw), a step u' = u - eta w g, w' = w - eta u g has

    u'^2 - w'^2 = (u^2 - w^2) (1 - eta^2 g^2)

exactly, at any learning rate: noise alone balances the factors, which gradient flow never does. Near u = w = 0 a step
multiplies u + w by 1 + 2 eta m and u - w by 1 - 2 eta m, m the batch's mean of x y, so that the factors collapse to
zero where both E ln |1 +- 2 eta m| are negative. Source: arXiv:2308.06671; signs and the second factor derived.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

Array = NDArray[np.float64]


def balance_factor(learning_rate: Numbers, slope: Numbers) -> Any:
    """(u^2 - w^2) after a step over that before: 1 - eta^2 g^2.

    Args:
        learning_rate: eta.
        slope: g = dL_B/d(uw).
    """
    return 1 - (np.asarray(learning_rate, float) * np.asarray(slope, float)) ** 2


def growth_near_zero(learning_rate: float, products: Numbers, batch_size: int) -> tuple[float, float]:
    """E ln |1 + 2 eta m| and E ln |1 - 2 eta m|: growth rates per step of |u + w| and |u - w| near zero.

    Over all batches, drawn with replacement from a finite set.

    Args:
        learning_rate: eta.
        products: (P,) x y of each sample.
        batch_size: S.
    """
    means, chances = _batch_means(np.asarray(products, float), batch_size)
    return tuple(float(chances @ np.log(np.abs(1 + sign * 2 * learning_rate * means))) for sign in (1, -1))  # type: ignore[return-value]


def collapse_learning_rate(products: Numbers, batch_size: int) -> float:
    """The learning rate above which |u + w| shrinks near zero: the first root of E ln |1 + 2 eta m|.

    To leading order S E[xy]/Var[xy].

    Raises:
        PackingError: no positive mean of x y, or no such rate below that at which a batch can send u + w to zero.
    """
    xy = np.asarray(products, float)
    if not xy.mean() > 0 or not (xy < 0).any():
        raise PackingError("the mean of x y must be above 0, and some x y below 0, for a collapse at a learning rate")
    pole = 1 / (2 * -xy.min())  # E ln |..| falls to -infinity there
    low, high = 1e-9 * pole, pole * (1 - 1e-12)
    if growth_near_zero(high, xy, batch_size)[0] > 0:
        raise PackingError("the factors do not collapse at learning rates below that which sends one batch to zero")
    return float(brentq(lambda eta: growth_near_zero(eta, xy, batch_size)[0], low, high))


def _batch_means(values: Array, size: int) -> tuple[Array, Array]:
    """The means of all batches with replacement, and their probabilities: multisets with multinomial weights."""
    chosen = np.array(list(itertools.combinations_with_replacement(range(len(values)), size)))
    counts = (chosen[:, :, None] == np.arange(len(values))).sum(axis=1)
    log = gammaln(size + 1) - gammaln(counts + 1).sum(axis=1) - size * np.log(len(values))
    return values[chosen].mean(axis=1), np.exp(log)
