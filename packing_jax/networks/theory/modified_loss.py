r"""The stationary state of SGD: a density given by a modified loss, and a probability current.

A linear process dx = -A x dt + sqrt(eta D) dW with A = (D + Q) U, Q antisymmetric, has the stationary density
p ~ exp(-x^T U x/eta) of covariance (eta/2) U^-1, and the probability current -Q U x p, which vanishes for Q = 0 only.
With momentum this holds for (theta, dtheta/dtau), where U gives the modified loss Psi. Source: arXiv:2107.09133.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers
from packing_jax.networks.theory.heavy_ball import HeavyBall

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearDrift:
    """The parts of A = (D + Q) U, each (n, n): see :func:`decomposed`."""

    drift: Array  #: A
    diffusion: Array  #: D
    rotation: Array  #: Q, antisymmetric
    stiffness: Array  #: U, symmetric: the density is exp(-x^T U x/eta)

    def covariance(self, temperature: float) -> Array:
        """The stationary covariance (eta/2) U^-1 of dx = -A x dt + sqrt(eta D) dW, (n, n)."""
        return temperature / 2 * np.linalg.inv(self.stiffness)

    def current(self, temperature: float, x: Numbers) -> Array:
        """The probability current -Q U x p(x) at points x (..., n), in 1/(unit of x^(n-1) times unit of t)."""
        x = np.asarray(x, float)
        sigma = self.covariance(temperature)
        exponent = np.einsum("...i,ij,...j->...", x, np.linalg.inv(sigma), x)
        density = np.exp(-exponent / 2) / np.sqrt(np.linalg.det(2 * np.pi * sigma))
        return -density[..., None] * (x @ (self.rotation @ self.stiffness).T)

    def area_per_time(self, temperature: float) -> Array:
        """(1/2)<x_i dx_j - x_j dx_i>/dt = (eta/2) Q_ij: the mean rate at which area is swept in each plane, (n, n)."""
        return temperature / 2 * self.rotation


def decomposed(drift: Numbers, diffusion: Numbers) -> LinearDrift:
    """D, Q and U of a drift A: with A X + X A^T = 2 D (Lyapunov), U = X^-1 and Q = A X - D.

    Args:
        drift: A (n, n), eigenvalues with positive real parts.
        diffusion: D (n, n), symmetric; it may be singular if the drift spreads the noise to all directions.

    Raises:
        PackingError: not square matrices of one size, an unstable drift, or a direction that the noise never reaches.
    """
    a, d = np.asarray(drift, float), np.asarray(diffusion, float)
    if a.ndim != 2 or a.shape != d.shape or a.shape[0] != a.shape[1] or not np.allclose(d, d.T):
        raise PackingError("drift and diffusion must be square matrices of one size, and the diffusion symmetric")
    if not (np.linalg.eigvals(a).real > 0).all():
        raise PackingError("the drift does not settle: all eigenvalues must have a positive real part")
    x = solve_continuous_lyapunov(a, 2 * d)
    x = (x + x.T) / 2
    if not (np.linalg.eigvalsh(x) > 0).all():
        raise PackingError("noise does not reach every direction, so that there is no stationary density")
    q = a @ x - d
    return LinearDrift(a, d, (q - q.T) / 2, np.linalg.inv(x))


def stationary_covariance_of_steps(drift: Numbers, diffusion: Numbers, learning_rate: float) -> Array:
    """The exact covariance (n, n) of x' = x - eta A x + noise of covariance eta^2 D, at any learning rate eta.

    Sigma = (1 - eta A) Sigma (1 - eta A)^T + eta^2 D.

    Raises:
        PackingError: a learning rate at which the steps are unstable.
    """
    a, d = np.asarray(drift, float), np.asarray(diffusion, float)
    step = np.eye(len(a)) - learning_rate * a
    if not (np.abs(np.linalg.eigvals(step)) < 1).all():
        raise PackingError(f"at a learning rate of {learning_rate:g} the steps do not settle: take a smaller one")
    return solve_discrete_lyapunov(step, learning_rate**2 * d)


def area_per_time_of_steps(drift: Numbers, diffusion: Numbers, learning_rate: float) -> Array:
    """(1/2)<x_i dx_j - x_j dx_i>/eta of x' = x - eta A x + noise: the antisymmetric part of A Sigma, (n, n); exact."""
    flow = np.asarray(drift, float) @ stationary_covariance_of_steps(drift, diffusion, learning_rate)
    return (flow - flow.T) / 2


def phase_space_drift(ball: HeavyBall, rho: float) -> LinearDrift:
    """A = [[0, -1], [omega^2, 2 gamma]], D, Q and U of (theta - mu, dtheta/dtau) of one mode, with eta as temperature.

    Q_12 = -(2/eta) Var(velocity) is never zero: in the plane of a position and its velocity a current always flows.
    """
    gamma, omega = ball.damping, float(ball.frequency(rho))
    heat = float(ball.gradient_noise(rho)) / (1 - ball.momentum**2)
    # noise of variance 4 gamma heat per unit of tau, which is eta D_22
    diffusion = np.diag([0.0, 4 * gamma * heat / ball.learning_rate])
    return decomposed(np.array([[0.0, -1.0], [omega**2, 2 * gamma]]), diffusion)


def modified_loss(ball: HeavyBall, rho: Numbers, position: Numbers, velocity: Numbers = 0.0) -> Any:
    """Psi = sum_l [ (1 + lambda/rho_l)(theta_l - mu_l)^2/(eta(1+beta)) + v_l^2/(2 rho_l) ], over the last axis.

    The stationary density of (theta, v = dtheta/dtau) is exp(-kappa Psi), kappa = S(1-beta^2)/s^2: :func:`sharpness`.
    Unlike the loss, Psi is isotropic where there is no weight decay (arXiv:2107.09133; the factor 1/2 of the velocity
    part is derived).

    Args:
        ball: the settings.
        rho: (..., d) curvatures of the loss, above 0.
        position: (..., d) theta - mu.
        velocity: (..., d) dtheta/dtau.

    Raises:
        PackingError: a curvature that is not above 0.
    """
    rho = np.asarray(rho, float)
    if not (rho > 0).all():
        raise PackingError("the modified loss needs curvatures above 0")
    x, v = np.asarray(position, float), np.asarray(velocity, float)
    eta, beta = ball.learning_rate, ball.momentum
    return np.sum((1 + ball.weight_decay / rho) * x**2 / (eta * (1 + beta)) + v**2 / (2 * rho), axis=-1)


def sharpness(ball: HeavyBall) -> float:
    """kappa = S(1-beta^2)/s^2 of the density exp(-kappa Psi); 1/S is (P-S)/[S(P-1)] for finite data."""
    return (1 - ball.momentum**2) / (ball.batch_noise * ball.residual**2)


def annealed(ball: HeavyBall, share: float) -> HeavyBall:
    """The settings with batch size S/q that have the same variances of position and velocity and the same omega.

    S -> S/q, beta -> beta' = sqrt(1 - q(1-beta^2)), eta -> eta(1+beta)/(1+beta'): a larger batch with more momentum
    (q < 1), or a smaller one with less. It holds for the SDE at any q (arXiv:2107.09133, checked); only the damping
    gamma changes.

    Args:
        ball: the settings.
        share: q, above 0 and at most 1/(1-beta^2); the new batch S/q must be a whole number.

    Raises:
        PackingError: a share out of range, a batch that is no whole number, or a finite data set, whose noise is not
            proportional to 1/S.
    """
    if ball.samples is not None:
        raise PackingError("the annealing rule is of fresh data: in a finite set the noise is not proportional to 1/S")
    most = 1 / (1 - ball.momentum**2)
    if not 0 < share <= most:
        raise PackingError(f"the share is {share:g}; at this momentum it must be above 0 and at most {most:g}")
    size = ball.batch_size / share
    if size < 1 or abs(size - round(size)) > 1e-9 * size:
        raise PackingError(f"a batch of {ball.batch_size} over {share:g} is {size:g}; it must be a whole number")
    beta = float(np.sqrt(max(0.0, 1 - share * (1 - ball.momentum**2))))
    eta = ball.learning_rate * (1 + ball.momentum) / (1 + beta)
    return dataclasses.replace(ball, batch_size=round(size), momentum=beta, learning_rate=eta)
