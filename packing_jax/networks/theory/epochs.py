r"""Epochs without replacement on a linear regression: every order of the batches, and what they minimise.

A step on the batch B is theta' = theta - eta (A_B theta - b_B), A_B = mean_B a a^T, b_B = mean_B y a. Batches drawn
anew at each step fluctuate about the minimum of the loss L with a variance proportional to eta. In an epoch each
sample is used once, so that first orders of the noise cancel between its batches: at the ends of epochs the variance is
proportional to eta^3, and the mean is, up to eta^2, the minimum of

    L + (eta/4) <|g_B|^2>,   (H + (eta/2) <A_B^2>) theta = b + (eta/2) <A_B b_B>,

with averages over batches. Source: arXiv:2306.03521. Averages over all orders of a small data set are exact at any
learning rate (derived).
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError

Array = NDArray[np.float64]

_MOST = 20_000  # orders


def shifted_minimum(features: Array, targets: Array, batch_size: int, learning_rate: float) -> Array:
    """The minimum (d,) of L + (eta/4) <|g_B|^2>, by a linear solve.

    Args:
        features: (P, d).
        targets: (P,).
        batch_size: S, samples drawn without replacement.
        learning_rate: eta.
    """
    pairs = [_pull(features, targets, one) for one in itertools.combinations(range(len(targets)), batch_size)]
    curvatures, pulls = (np.array(part) for part in zip(*pairs, strict=True))
    matrix = curvatures.mean(0) + learning_rate / 2 * (curvatures @ curvatures).mean(0)
    side = pulls.mean(0) + learning_rate / 2 * (curvatures @ pulls[:, :, None]).mean(0)[:, 0]
    return np.linalg.solve(matrix, side)


def ends_of_epochs(features: Array, targets: Array, batch_size: int, learning_rate: float) -> tuple[Array, Array]:
    """Stationary mean (d,) and covariance (d, d) of the weights at the ends of epochs, over all orders of the batches.

    Args:
        features: (P, d).
        targets: (P,).
        batch_size: S, a divisor of P.
        learning_rate: eta.

    Raises:
        PackingError: batches that do not share out the samples, more orders than are enumerated, or a learning rate at
            which second moments grow.
    """
    samples, d = features.shape
    if samples % batch_size:
        raise PackingError(f"{samples} samples do not make batches of {batch_size}; it must be a divisor")
    count = math.factorial(samples) // math.factorial(batch_size) ** (samples // batch_size)
    if count > _MOST:
        raise PackingError(
            f"{count} orders of {samples} samples in batches of {batch_size}; at most {_MOST} are averaged"
        )
    orders = np.array(list(_orders(tuple(range(samples)), batch_size)))  # (orders, batches, S)
    turn = np.broadcast_to(np.eye(d), (count, d, d))
    push = np.zeros((count, d))
    for chosen in np.moveaxis(orders, 1, 0):
        rows = features[chosen]
        step = np.eye(d) - learning_rate * np.swapaxes(rows, 1, 2) @ rows / batch_size
        pull = (rows * targets[chosen][..., None]).mean(axis=1)
        turn = step @ turn
        push = (step @ push[:, :, None])[..., 0] + learning_rate * pull
    mean = np.linalg.solve(np.eye(d) - turn.mean(0), push.mean(0))
    # about the mean, an epoch adds noise of this covariance, and turns what there is
    kick = (turn @ mean) + push - mean
    noise = kick.T @ kick / count
    grown = np.einsum("nij,nkl->ikjl", turn, turn).reshape(d * d, d * d) / count
    if not (np.abs(np.linalg.eigvals(grown)) < 1).all():
        raise PackingError(f"at a learning rate of {learning_rate:g} the second moments grow from epoch to epoch")
    return mean, np.linalg.solve(np.eye(d * d) - grown, noise.ravel()).reshape(d, d)


def _pull(features: Array, targets: Array, chosen: tuple[int, ...]) -> tuple[Array, Array]:
    rows = features[list(chosen)]
    return rows.T @ rows / len(chosen), rows.T @ targets[list(chosen)] / len(chosen)


def _orders(left: tuple[int, ...], size: int) -> list[tuple[tuple[int, ...], ...]]:
    """All ways to use samples in batches of this size, one after the other."""
    if not left:
        return [()]
    found = []
    for batch in itertools.combinations(left, size):
        rest = tuple(one for one in left if one not in batch)
        found += [(batch, *others) for others in _orders(rest, size)]
    return found
