r"""A linear student of a linear teacher at a finite learning rate: how its singular values fluctuate and repel.

W' = W - alpha [(1/B) sum (W - T) x x^T + A G/sqrt(B)],   x ~ N(0, 1) in n dimensions, B of them at each step,

G symmetric with variance 1 off the diagonal and 2 on it. E = W - T has a stationary covariance that is invariant under
rotations if the inputs are fresh at each step:

    <E_ia E_jb> = p d_ij d_ab + q d_ib d_aj + r d_ia d_jb,

and with w^2 = alpha A^2/B, b = alpha/B, d = 2 - alpha (derived, from <x x^T M x x^T> = M + M^T + Tr M)

    p = w^2 d/[(d - b)(d - (n+1) b)],   q = w^2 d/(d^2 - b^2),   r = w^2 b/(d^2 - b^2).

b -> 0 and alpha -> 0 is the Coulomb gas of :mod:`packing_jax.networks.theory.coulomb_gas` with the width w. Beside it
is the covariance for inputs that are given, the same ones in every run. Source: arXiv:2407.16427, 2412.20496.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearStudent:
    """The numbers of the recursion.

    Raises:
        PackingError: a number out of range, or a second moment that grows without bound.
    """

    learning_rate: float  #: alpha > 0
    batch_size: int  #: B
    noise: float  #: A > 0
    dimension: int = 2  #: n

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and self.batch_size >= 1 and self.noise > 0 and self.dimension >= 1):
            raise PackingError(f"{self}: the learning rate and the noise must be above 0, the other numbers at least 1")
        if self.learning_rate + (self.dimension + 1) * self.kick >= 2:
            raise PackingError(
                f"there is no stationary state: alpha + (n + 1) alpha/B is "
                f"{self.learning_rate + (self.dimension + 1) * self.kick:g}, and must be below 2"
            )

    @property
    def kick(self) -> float:
        """b = alpha/B."""
        return self.learning_rate / self.batch_size

    @property
    def width(self) -> float:
        """w = sqrt(alpha A^2/B)."""
        return float(np.sqrt(self.kick)) * self.noise

    def moments(self) -> tuple[float, float, float]:
        """(p, q, r) of the stationary covariance, exact at any learning rate."""
        b, d, w2 = self.kick, 2 - self.learning_rate, self.width**2
        p = w2 * d / ((d - b) * (d - (self.dimension + 1) * b))
        return p, w2 * d / (d**2 - b**2), w2 * b / (d**2 - b**2)

    def spacing(self) -> float:
        """The mean spacing of two singular values near the teacher's: sqrt(pi (p + q)).

        With n = 2 that is w sqrt(2 pi (2-alpha)/[(2-alpha+b)(2-alpha-3b)]). The variances are exact, E is taken as
        normal, which it is for b -> 0, and as small against the teacher.
        """
        p, q, _ = self.moments()
        return float(np.sqrt(np.pi * (p + q)))

    def asymmetry(self) -> float:
        """The standard deviation of E_12 - E_21, exact: sqrt(2 (p - q)).

        The noise is symmetric; only the fluctuating inputs make W other than that. With n = 2 it is
        w sqrt(8 b (2-alpha)/[(2-alpha-b)(2-alpha-3b)(2-alpha+b)]).
        """
        p, q, _ = self.moments()
        return float(np.sqrt(2 * (p - q)))

    def given_inputs(self, inputs: Any) -> Array:
        """The covariance of E after steps with given inputs, the same in every run, from E = 0.

        E is normal then, exactly: C' = T C T^T + (alpha A)^2/B <G G>, T = 1 - alpha (1/B) sum x x^T on E's rows.

        Args:
            inputs: (steps, B, n).

        Returns:
            <E_ia E_jb>, (n, n, n, n).

        Raises:
            PackingError: inputs of another shape.
        """
        x, n = np.asarray(inputs, float), self.dimension
        if x.ndim != 3 or x.shape[1:] != (self.batch_size, n):
            raise PackingError(f"inputs of shape {x.shape}; they must be (steps, {self.batch_size}, {n})")
        one = np.eye(n)
        shake = np.einsum("ij,ab->iajb", one, one) + np.einsum("ib,aj->iajb", one, one)
        covariance = np.zeros((n,) * 4)
        for step in x:
            turned = one - self.learning_rate * step.T @ step / self.batch_size
            covariance = np.einsum("ab,ibjc,dc->iajd", turned, covariance, turned)
            covariance = covariance + (self.learning_rate * self.noise) ** 2 / self.batch_size * shake
        return covariance


def spacing_of(covariance: Any, angles: int = 512) -> float:
    """The mean spacing of the eigenvalues of the symmetric part of a normal 2 x 2 matrix of this covariance.

    The spacing is |(E_11 - E_22, E_12 + E_21)|, a normal vector with variances s_1^2, s_2^2 along its axes: its mean is
    sqrt(pi/2) times the mean over angles of sqrt(s_1^2 cos^2 + s_2^2 sin^2).

    Args:
        covariance: <E_ia E_jb>, (2, 2, 2, 2).
        angles: of the average.
    """
    both = np.array([[1.0, 0, 0, -1], [0, 1, 1, 0]])
    spread = np.linalg.eigvalsh(both @ np.asarray(covariance, float).reshape(4, 4) @ both.T)
    angle = (np.arange(angles) + 0.5) * 2 * np.pi / angles
    return float(np.sqrt(np.pi / 2) * np.sqrt(spread[0] * np.cos(angle) ** 2 + spread[1] * np.sin(angle) ** 2).mean())
