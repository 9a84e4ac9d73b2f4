r"""SGD with momentum on a linear regression, exact, with gradient noise that depends on the weights.

The gradient of a batch at theta is mean_B a (a.theta - y) + lambda theta. Its noise grows with the distance from the
minimum, and its second moments are linear in those of theta, so that the recursion of means and second moments is
closed and exact at any learning rate, momentum and batch. (All derived. The recursion with the noise at the minimum
only, :mod:`packing_jax.networks.theory.discrete`, is its leading order in eta.)

- Fresh Gaussian features of covariance diag(rho): modes are coupled by one number, T = sum_l rho_l E x_l^2.
- A finite data set of any features, batches with or without replacement: the matrix of second moments.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers, discrete
from packing_jax.networks.theory.discrete import step_matrix
from packing_jax.networks.theory.heavy_ball import Covariance, HeavyBall

Array = NDArray[np.float64]

_ROUNDS = 10_000
_PRECISION = 1e-12
_UNTIL_ONE_FACTOR = 100


def stationary_on_fresh_data(ball: HeavyBall, rho: Numbers) -> Covariance:
    """Stationary second moments of modes (d,) where every batch has fresh Gaussian features and labels.

    A step's gradient noise has the variance (1/S)[rho_l^2 m_l + rho_l (T + s^2)], m_l = E x_l^2, T = sum rho_l m_l
    (Wick). With c_l = Var x_l/q_l^2 of the discrete mode and r_l = c_l rho_l^2/S:
    m_l = c_l rho_l (T + s^2)/(S (1 - r_l)),   T = s^2 G/(1 - G),   G = sum_l r_l/(1 - r_l).

    Raises:
        PackingError: weight decay or a finite data set; a learning rate at which the second moments diverge, G >= 1.
    """
    rho = _fresh(ball, rho)
    unit = discrete.stationary(ball, rho)
    q2 = ball.gradient_noise(rho)
    if ball.residual == 0:
        return Covariance(*(np.zeros_like(rho) for _ in range(3)))
    own = unit.position / q2 * rho**2 / ball.batch_size
    if not (own < 1).all() or not (own / (1 - own)).sum() < 1:
        raise PackingError(
            f"at a learning rate of {ball.learning_rate:g} and batches of {ball.batch_size} the second moments grow "
            "without end, though the mean settles: take a smaller learning rate or a larger batch"
        )
    shared = (own / (1 - own)).sum()
    # every moment of a mode is proportional to the variance of its noise
    larger = 1 / ((1 - own) * (1 - shared))
    return Covariance(*(part * larger for part in unit))


def moments_on_fresh_data(ball: HeavyBall, rho: Numbers, steps: Numbers, position: Numbers) -> Array:
    """E x_l^2, E x_l v_l, E v_l^2 at each of some steps from a start at rest: (T, 3, d).

    Args:
        ball: the settings, without weight decay and of fresh data.
        rho: (d,) variances of the features.
        steps: (T,) increasing whole numbers.
        position: () or (d,) x_0 = theta_0 - theta_true; v_0 = 0.
    """
    rho = _fresh(ball, rho)
    matrix = step_matrix(ball, rho)
    start = np.broadcast_to(np.asarray(position, float), rho.shape)
    moments = np.zeros((rho.size, 2, 2))
    moments[:, 0, 0] = start**2
    kick = np.array([-ball.learning_rate, 1.0])
    wanted = _whole(steps)
    seen = []
    for k in range(wanted[-1] + 1):
        if k in wanted:
            seen.append(np.stack([moments[:, 0, 0], moments[:, 0, 1], moments[:, 1, 1]]))
        second = moments[:, 0, 0]
        noise = (rho**2 * second + rho * (rho @ second + ball.residual**2)) / ball.batch_size
        moments = matrix @ moments @ np.swapaxes(matrix, 1, 2) + noise[:, None, None] * np.outer(kick, kick)
    return np.stack(seen)


@dataclass(frozen=True)
class FiniteData:
    """Linear regression on a data set of P samples, whose batches are drawn anew at each step.

    Attributes:
        ball: the settings; ``samples`` is P for batches without replacement, None for batches with replacement.
            ``residual`` is not used, as the data have their own residuals.
        features: (P, d).
        targets: (P,).
    """

    ball: HeavyBall
    features: Array = field(repr=False)
    targets: Array = field(repr=False)

    def __post_init__(self) -> None:
        a, y = self.features, self.targets
        if a.ndim != 2 or y.shape != a.shape[:1]:
            raise PackingError(f"features must be (P, d) and targets (P,); they are {a.shape} and {y.shape}")
        if self.ball.samples not in (None, len(y)):
            raise PackingError(f"batches are drawn from {self.ball.samples} samples, but the data have {len(y)}")

    @cached_property
    def hessian(self) -> Array:
        """H = <a a^T>, (d, d), without weight decay."""
        return self.features.T @ self.features / len(self.targets)

    @cached_property
    def minimum(self) -> Array:
        """theta*, (d,): the minimum of loss and weight decay together.

        Raises:
            PackingError: no unique minimum: fewer samples than weights or dependent features, without weight decay.
        """
        curved = self.hessian + self.ball.weight_decay * np.eye(len(self.hessian))
        if np.linalg.matrix_rank(curved, hermitian=True) < len(curved):
            raise PackingError("the loss is flat along some direction, so that it has no single minimum")
        return np.linalg.solve(curved, self.features.T @ self.targets / len(self.targets))

    def moments(self, steps: Numbers, start: Numbers) -> tuple[Array, Array]:
        """Mean (T, 2d) and covariance (T, 2d, 2d) of (theta - theta*, v) at some steps, from theta = start, v = 0.

        Args:
            steps: (T,) increasing whole numbers.
            start: (d,) theta_0.
        """
        matrix, kick = self._matrix, self._kick
        d = len(self.hessian)
        first = np.concatenate([np.asarray(start, float) - self.minimum, np.zeros(d)])
        second = np.outer(first, first)
        wanted = _whole(steps)
        means, covariances = [], []
        for k in range(wanted[-1] + 1):
            if k in wanted:
                means.append(first)
                covariances.append(second - np.outer(first, first))
            noise = self.gradient_noise(first[:d], second[:d, :d])
            second = matrix @ second @ matrix.T + kick @ noise @ kick.T
            first = matrix @ first
        return np.stack(means), np.stack(covariances)

    def stationary(self) -> Array:
        """The stationary covariance of (theta - theta*, v), (2d, 2d), by iteration: noise, then its covariance.

        Raises:
            PackingError: a learning rate at which the mean or the second moments diverge.
        """
        matrix, kick = self._matrix, self._kick
        d = len(self.hessian)
        if not (np.abs(np.linalg.eigvals(matrix)) < 1).all():
            raise PackingError(f"at a learning rate of {self.ball.learning_rate:g} the mean does not settle")
        zero = np.zeros(d)
        second, change = np.zeros((2 * d, 2 * d)), np.inf
        for done in range(_ROUNDS):
            noise = kick @ self.gradient_noise(zero, second[:d, :d]) @ kick.T
            after = solve_discrete_lyapunov(matrix, noise, method="bilinear")
            second, change, before = after, np.abs(after - second).max(), change
            if change <= _PRECISION * np.abs(second).max():
                return second
            # each round adds a positive matrix, in the end larger or smaller than the last by a constant factor
            if done > _UNTIL_ONE_FACTOR and change >= before:
                break
        raise PackingError(
            f"at a learning rate of {self.ball.learning_rate:g} and batches of {self.ball.batch_size} the second "
            "moments grow without end, or settle too slowly to be computed"
        )

    def gradient_noise(self, offset: Array, second: Array) -> Array:
        """Covariance of a batch's gradient, (d, d), given ``offset`` E[d] and ``second`` E[dd^T] of d = theta - theta*.

        f { <a a^T (a^T E[dd^T] a - 2 e a.E[d] + e^2)> - E[(H d - c)(H d - c)^T] },
        e = y - a.theta*,   c = lambda theta*,   f = 1/S or (P-S)/[S(P-1)].
        """
        a, h = self.features, self.hessian
        e = self.targets - a @ self.minimum
        squared = np.einsum("pi,ij,pj->p", a, second, a, optimize=True) - 2 * e * (a @ offset) + e**2
        pull = self.ball.weight_decay * self.minimum
        crossed = np.outer(h @ offset, pull)
        of_mean = h @ second @ h - crossed - crossed.T + np.outer(pull, pull)
        return self.ball.batch_noise * ((a * squared[:, None]).T @ a / len(a) - of_mean)

    @property
    def _matrix(self) -> Array:
        eta, beta, one = self.ball.learning_rate, self.ball.momentum, np.eye(len(self.hessian))
        curved = self.hessian + self.ball.weight_decay * one
        return np.block([[one - eta * curved, -eta * beta * one], [curved, beta * one]])

    @property
    def _kick(self) -> Array:
        one = np.eye(len(self.hessian))
        return np.concatenate([-self.ball.learning_rate * one, one])


def _whole(steps: Numbers) -> list[int]:
    wanted = np.atleast_1d(np.asarray(steps))
    if wanted.dtype.kind not in "iu" or wanted.size == 0 or wanted[0] < 0 or (np.diff(wanted) <= 0).any():
        raise PackingError("steps must be increasing whole numbers from 0 on")
    return [int(k) for k in wanted]


def _fresh(ball: HeavyBall, rho: Numbers) -> Array:
    if ball.samples is not None or ball.weight_decay:
        raise PackingError("these moments are of fresh data without weight decay; FiniteData has both")
    return np.atleast_1d(np.asarray(rho, float))
