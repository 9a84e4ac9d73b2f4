r"""The linear fluctuation-dissipation relation of SGD on a regression, and two runs on the same minibatches.

A step without momentum takes delta = theta - theta* to delta' = (1 - eta A_B) delta + eta c_B, where A_B = mean_B a a^T
and c_B is the batch's gradient at the optimum. Its stationary covariance Sigma is that at which dissipation and
fluctuation balance, at any learning rate:

    A Sigma + Sigma A - eta E[A_B Sigma A_B] = eta E[c_B c_B^T]                            (arXiv:2106.02220)

The difference d of two runs that see the same batches has no c_B: d' = (1 - eta A_B) d, so that

    E|d'|^2 = d^T E[(1 - eta A_B)^2] d,   E[d' d'^T] = D - eta (A D + D A - eta E[A_B D A_B]),   D = d d^T,

which is what the flow of a stochastic differential equation with one noise for all starts describes
(arXiv:2302.07125). Data and batches are those of :class:`packing_jax.networks.theory.regression.FiniteData`.
"""

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.networks.theory.regression import FiniteData

Array = NDArray[np.float64]


def dissipation(problem: FiniteData, second: Array) -> Array:
    """A Sigma + Sigma A - eta E[A_B Sigma A_B], (d, d).

    E[A_B Sigma A_B] = f <a a^T Sigma a a^T> + (1 - f) A Sigma A, with the noise factor f = 1/S, or (P-S)/[S(P-1)]
    without replacement.

    Args:
        problem: the data and the settings, without momentum and weight decay.
        second: Sigma (d, d), symmetric.

    Raises:
        PackingError: momentum or weight decay.
    """
    _plain(problem)
    a, mean, share = problem.features, problem.hessian, problem.ball.batch_noise
    squared = np.einsum("pi,ij,pj->p", a, second, a, optimize=True)
    of_batch = share * (a * squared[:, None]).T @ a / len(a) + (1 - share) * mean @ second @ mean
    return mean @ second + second @ mean - problem.ball.learning_rate * of_batch


def fluctuation(problem: FiniteData) -> Array:
    """eta E[c_B c_B^T], (d, d): the learning rate times the covariance of a batch's gradient at the optimum.

    Raises:
        PackingError: momentum or weight decay.
    """
    _plain(problem)
    zero = np.zeros(len(problem.hessian))
    return problem.ball.learning_rate * problem.gradient_noise(zero, np.zeros_like(problem.hessian))


def covariance(problem: FiniteData) -> Array:
    """The stationary Sigma, (d, d), by one linear solve of the relation.

    Raises:
        PackingError: momentum or weight decay, or second moments that grow without end.
    """
    d = len(problem.hessian)
    columns = [dissipation(problem, unit.reshape(d, d)).ravel() for unit in np.eye(d * d)]
    matrix = np.stack(columns, axis=1)
    # a step multiplies second moments by 1 - eta times this matrix
    if not (np.abs(np.linalg.eigvals(np.eye(d * d) - problem.ball.learning_rate * matrix)) < 1).all():
        raise PackingError(f"at a learning rate of {problem.ball.learning_rate:g} the second moments grow without end")
    return np.linalg.solve(matrix, fluctuation(problem).ravel()).reshape(d, d)


def shared_batches(problem: FiniteData, difference: Array, steps: int) -> Array:
    """E[d d^T] of two runs on the same batches after 0, 1, ..., ``steps`` steps, (steps + 1, d, d).

    Args:
        problem: the data and the settings, without momentum and weight decay.
        difference: (d,) of the two starts.
        steps: k.

    Raises:
        PackingError: momentum or weight decay.
    """
    found = [np.outer(difference, difference)]
    for _ in range(steps):
        found.append(found[-1] - problem.ball.learning_rate * dissipation(problem, found[-1]))
    return np.stack(found)


def _plain(problem: FiniteData) -> None:
    if problem.ball.momentum or problem.ball.weight_decay:
        raise PackingError("this relation is of SGD without momentum and weight decay; FiniteData has both")


def area_per_step(problem: FiniteData) -> Array:
    """The area that delta sweeps in a step of the stationary state, (1/2) E[d_i d'_j - d_j d'_i], (d, d).

    (1/2)(Sigma M^T - M Sigma), M = 1 - eta A: not 0 where noise and curvature have other axes, a current that no
    equilibrium has.

    Raises:
        PackingError: as for :func:`covariance`.
    """
    sigma = covariance(problem)
    after = sigma - problem.ball.learning_rate * problem.hessian @ sigma
    return (after.T - after) / 2
