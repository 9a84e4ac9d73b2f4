r"""SGD with momentum near a minimum as a stochastic differential equation (SDE): mean and covariance of a mode.

With v' = beta v + grad L_B + lambda theta, theta' = theta - eta v', time tau = eta k and to leading order in eta rho,

    (eta/2)(1+beta) x'' + (1-beta) x' + (rho+lambda) x = noise,     x = theta - mu,
    x'' = -omega^2 x - 2 gamma x' + noise,   gamma = (1-beta)/(eta(1+beta)),   omega^2 = 2(rho+lambda)/(eta(1+beta)),

for a Hessian mode of curvature rho whose gradient noise has the variance q^2 = s^2 rho/S per step (arXiv:2107.09133).
For any learning rate see :mod:`packing_jax.networks.theory.discrete`.

Positions are in units of the weights, velocities dx/dtau in weights per unit of tau: minus the optimizer's v. Every
function takes arrays that broadcast against one another, such as rho (d, 1) and tau (T,).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import exprel

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_NODES, _WEIGHTS = (1 + _NODES) / 2, _WEIGHTS / 2  # on (0, 1)


@dataclass(frozen=True, kw_only=True)
class HeavyBall:
    """Settings of SGD with momentum on a quadratic loss.

    Raises:
        PackingError: a setting out of range.
    """

    learning_rate: float  #: eta > 0
    momentum: float = 0.0  #: beta, from 0 to below 1
    weight_decay: float = 0.0  #: lambda >= 0
    batch_size: int = 1  #: S
    samples: int | None = None  #: P of a finite data set, drawn without replacement inside a batch; None: fresh data
    residual: float = 1.0  #: s, the standard deviation of y - f(x) at the minimum

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not np.isfinite(self.learning_rate):
            raise PackingError(f"the learning rate is {self.learning_rate}; it must be above 0 and finite")
        if not 0 <= self.momentum < 1:
            raise PackingError(f"the momentum is {self.momentum}; it must be at least 0 and below 1")
        if not self.weight_decay >= 0:
            raise PackingError(f"the weight decay is {self.weight_decay}; it must be at least 0")
        if not self.residual >= 0:
            raise PackingError(f"the residual is {self.residual}; it must be at least 0")
        if self.batch_size < 1:
            raise PackingError(f"the batch size is {self.batch_size}; it must be at least 1")
        if self.samples is not None and self.samples < max(self.batch_size, 2):
            raise PackingError(
                f"a batch of {self.batch_size} is drawn from {self.samples} samples; there must be 2 or "
                "more, and no fewer than the batch"
            )

    @property
    def batch_noise(self) -> float:
        """The variance of a batch mean over that of a sample: 1/S, or (P-S)/[S(P-1)] without replacement."""
        if self.samples is None:
            return 1 / self.batch_size
        return (self.samples - self.batch_size) / (self.batch_size * (self.samples - 1))

    @property
    def damping(self) -> float:
        """gamma = (1-beta)/(eta(1+beta)), per unit of tau."""
        return (1 - self.momentum) / (self.learning_rate * (1 + self.momentum))

    def frequency(self, rho: Numbers) -> Any:
        """omega = sqrt(2(rho+lambda)/(eta(1+beta))) of modes of curvature rho, per unit of tau."""
        return np.sqrt(2 * self.curvature(rho) / (self.learning_rate * (1 + self.momentum)))

    def curvature(self, rho: Numbers) -> Any:
        """h = rho + lambda, the curvature of loss and weight decay together.

        Raises:
            PackingError: a negative curvature rho, whose gradient noise would have a negative variance.
        """
        rho = np.asarray(rho, float)
        if not (rho >= 0).all():
            raise PackingError("a curvature of the loss is below 0 or not a number; at a minimum they are at least 0")
        return rho + self.weight_decay

    def gradient_noise(self, rho: Numbers) -> Any:
        """q^2 = s^2 rho (1/S), the variance of a step's gradient along modes of curvature rho."""
        return self.residual**2 * self.batch_noise * np.asarray(rho, float)


class Covariance(NamedTuple):
    """Second central moments of a mode."""

    position: Any  #: Var x
    cross: Any  #: Cov(x, velocity)
    velocity: Any  #: Var of the velocity


#: The covariance of a start from one point.
AT_A_POINT = Covariance(0.0, 0.0, 0.0)


class Response(NamedTuple):
    """The motion of a mode without noise; every right-hand side below is multiplied by e^(-gamma tau)."""

    relaxation: Any  #: R = cos + (gamma/delta) sin: x after a displacement by 1; R' = -omega^2 S
    kick: Any  #: S = sin/delta: x after a velocity of 1
    velocity: Any  #: S' = cos - (gamma/delta) sin: the velocity after a velocity of 1


def response(ball: HeavyBall, rho: Numbers, tau: Numbers) -> Response:
    """The motion without noise, delta = sqrt(omega^2 - gamma^2), to full precision in all damping regimes.

    Overdamped modes have rates gamma -+ sqrt(gamma^2 - omega^2). The slow one is computed as omega^2/(the fast one),
    and sinh(x)/x without a division at small x, so that neither slow nor nearly critical modes lose digits.
    """
    gamma, omega, tau = ball.damping, ball.frequency(rho), np.asarray(tau, float)
    square = (omega - gamma) * (omega + gamma)
    delta = np.sqrt(np.abs(square))
    decay = np.exp(-gamma * tau)
    sine = decay * tau * np.sinc(delta * tau / np.pi)
    cosine = decay * np.cos(delta * tau)

    fast = gamma + delta
    slow = omega * (omega / fast)
    kick = np.exp(-slow * tau) * tau * exprel(-2 * delta * tau)
    fading = np.exp(-fast * tau)
    over = square < 0
    return Response(
        relaxation=np.where(over, fading + fast * kick, cosine + gamma * sine),
        kick=np.where(over, kick, sine),
        velocity=np.where(over, fading - slow * kick, cosine - gamma * sine),
    )


def mean(
    ball: HeavyBall, rho: Numbers, tau: Numbers, position: Numbers = 0.0, velocity: Numbers = 0.0
) -> tuple[Any, Any]:
    """Mean position a and velocity b of modes at time tau.

    a = R a0 + S b0,   b = -omega^2 S a0 + S' b0   (reference: section A, "Mean"; arXiv:2107.09133).

    Args:
        ball: the settings.
        rho: curvatures of the loss.
        tau: times eta k.
        position: a0 = theta0 - mu, with mu the minimum of loss and weight decay together.
        velocity: b0 = dtheta/dtau at the start.
    """
    move = response(ball, rho, tau)
    a0, b0 = np.asarray(position, float), np.asarray(velocity, float)
    square = ball.frequency(rho) ** 2
    return move.relaxation * a0 + move.kick * b0, move.velocity * b0 - square * move.kick * a0


def stationary(ball: HeavyBall, rho: Numbers) -> Covariance:
    """The stationary covariance s^2 D of the SDE, without a cross term.

    D = diag( eta rho/(2S(1-beta)(rho+lambda)), rho/(S(1-beta^2)) )   (arXiv:2107.09133). Without weight decay the
    positions have the same variance in all modes, and the velocities one proportional to the curvature.

    Raises:
        PackingError: a flat mode, rho + lambda = 0, which has no stationary variance.
    """
    h = ball.curvature(rho)
    if not (h > 0).all():
        raise PackingError("a mode without curvature and weight decay diffuses: it has no stationary variance")
    q2, eta, beta = ball.gradient_noise(rho), ball.learning_rate, ball.momentum
    return Covariance(eta * q2 / (2 * (1 - beta) * h), np.zeros_like(h), q2 / (1 - beta**2))


def covariance(ball: HeavyBall, rho: Numbers, tau: Numbers, start: Covariance = AT_A_POINT) -> Covariance:
    """The covariance of modes at time tau, from any covariance at the start to the stationary one.

    Sigma(tau) = s^2 [D - e^(A tau) D e^(A^T tau)] + e^(A tau) Sigma_0 e^(A^T tau), A = [[0, 1], [-omega^2, -2 gamma]],
    D as in :func:`stationary` (arXiv:2107.09133). Var x is integrated where the difference would cancel.

    Args:
        ball: the settings.
        rho: curvatures of the loss; flat modes (rho + lambda = 0) stay where they are, since their noise vanishes too.
        tau: times eta k.
        start: Sigma_0; 0 for a start from a point.
    """
    gamma, omega = ball.damping, ball.frequency(rho)
    move = response(ball, rho, tau)
    heat = _heat(ball, rho)
    cross = 2 * gamma * heat * move.kick**2
    position = spread_from_a_point(ball, rho, tau)
    velocity = heat * (-np.expm1(-2 * gamma * np.asarray(tau, float)) + 2 * gamma * move.kick * move.velocity)
    xx, xv, vv = (np.asarray(part, float) for part in start)
    pull = -(omega**2) * move.kick
    r, k, s = move.relaxation, move.kick, move.velocity
    return Covariance(
        position + r * r * xx + 2 * r * k * xv + k * k * vv,
        cross + r * pull * xx + (r * s + k * pull) * xv + k * s * vv,
        velocity + pull * pull * xx + 2 * pull * s * xv + s * s * vv,
    )


def lost_memory(ball: HeavyBall, rho: Numbers, tau: Numbers) -> Any:
    """1 - R = omega^2 Int_0^tau S: the share by which a displacement has decayed, without cancellation at any tau."""
    tau, omega = np.asarray(tau, float), ball.frequency(rho)
    slow, fast, apart = _rates(ball, rho)
    value = (slow * np.expm1(-fast * tau) - fast * np.expm1(-slow * tau)) / np.where(apart, fast - slow, 1.0)
    if not apart.all():
        value = np.where(apart, value, 1 - response(ball, rho, tau).relaxation)
    return _short_times(ball, rho, tau, value, lambda kick: kick, omega**2)


def _heat(ball: HeavyBall, rho: Numbers) -> Any:
    """The stationary variance of the velocities; that of the positions is 1/omega^2 of it."""
    return ball.gradient_noise(rho) / (1 - ball.momentum**2)


def spread_from_a_point(ball: HeavyBall, rho: Numbers, tau: Numbers) -> Any:
    """Var x at time tau after a start at rest from one point: 4 gamma Var(velocity) Int_0^tau S^2, at any tau."""
    tau, gamma, omega = np.asarray(tau, float), ball.damping, ball.frequency(rho)
    slow, fast, apart = _rates(ball, rho)
    # the integral of (e^(-slow t) - e^(-fast t))^2; its first term by exprel, which is right at slow = 0 too
    value = tau * exprel(-2 * slow * tau) + np.expm1(-2 * gamma * tau) / gamma - np.expm1(-2 * fast * tau) / (2 * fast)
    value = value / np.where(apart, fast - slow, 1.0) ** 2
    if not apart.all():
        move = response(ball, rho, tau)
        built_up = -np.expm1(-2 * gamma * tau) - 2 * gamma * move.kick * move.relaxation
        value = np.where(apart, value, built_up / (4 * gamma * np.where(apart, 1.0, omega) ** 2))
    value = _short_times(ball, rho, tau, value, np.square, np.ones_like(omega))
    return 4 * gamma * _heat(ball, rho) * value


def _rates(ball: HeavyBall, rho: Numbers) -> tuple[Any, Any, Any]:
    """The slow and the fast rate of overdamped modes, and where they are far apart."""
    gamma, omega = ball.damping, ball.frequency(rho)
    fast = gamma + np.sqrt(np.maximum((gamma - omega) * (gamma + omega), 0))
    slow = omega * (omega / fast)
    return slow, fast, slow < fast / 2


def _short_times(ball: HeavyBall, rho: Numbers, tau: Any, value: Any, of_kick: Any, factor: Any) -> Any:
    """``value``; where tau is short for both rates, ``factor`` times the integral of a function of S by quadrature."""
    short = np.maximum(ball.damping, ball.frequency(rho)) * tau < 1
    if not short.any():
        return value
    rho, tau, factor, value = (np.broadcast_to(one, short.shape) for one in (rho, tau, factor, value))
    integral = of_kick(response(ball, rho[short, None], tau[short, None] * _NODES).kick) @ _WEIGHTS
    result = np.array(value)
    result[short] = factor[short] * tau[short] * integral
    return result[()]
