r"""A Gaussian restricted Boltzmann machine in its stationary state: eigenvalues of W^T W and how pairs of them repel.

The machine learns the stiffness K of a ring of n sites from data that are exact and from B Markov chains, of k sweeps
between two steps (:mod:`packing_jax.networks.tasks.gaussian_rbm`):

    W' = W + alpha [K^-1 - (1/B) sum v v^T] W,   x_i = eigenvalue of W^T W -> mu^2 - kappa_i, kappa_i those of K.

Near the solution the X_ij of two modes of one kappa move as dX = -(2 alpha x/kappa^2) X + 2 alpha x N, with N the noise
of (1/B) sum v v^T, symmetric with variance 1/(kappa^2 B) off the diagonal and twice that on it: Var X_12 = alpha x/B.
The spacing of the pair follows Wigner's surmise with <S> = sqrt(2 pi) sqrt(alpha x/B). This supposes independent chains
at each step. Chains remember: the correlation of v v^T from step to step is r^2 with r = (x/mu^2)^k, and the noise that
a slow X feels, and so <S>^2, is larger by (1 + r^2)/(1 - r^2). Both hold for alpha/B -> 0 and alpha -> 0. Derived; the
first is that of arXiv:2407.16427, 2411.13512.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GaussianMachine:
    """The machine and its target.

    Raises:
        PackingError: fewer than 3 sites, or a mass of the machine too small for the target.
    """

    modes: int = 10  #: n, sites, visible and hidden units
    target_mass: float = 2.0  #: m
    mass: float = 3.0  #: mu, which is not learnt

    def __post_init__(self) -> None:
        if self.modes < 3 or self.target_mass <= 0:
            raise PackingError(f"{self}: there must be at least 3 modes, and a target mass above 0")
        if self.stiffnesses().max() >= self.mass**2:
            raise PackingError(
                f"{self}: mu^2 is {self.mass**2:g}, and must exceed the target's {self.stiffnesses().max():g}"
            )

    def stiffness(self) -> Array:
        """K, (n, n): 2 + m^2 on the diagonal, -1 beside it and in the corners."""
        one = np.eye(self.modes)
        return (2 + self.target_mass**2) * one - np.roll(one, 1, axis=0) - np.roll(one, -1, axis=0)

    def stiffnesses(self) -> Array:
        """kappa, (n,) ascending: m^2 + 2 - 2 cos(2 pi j/n)."""
        angles = 2 * np.pi * np.arange(self.modes) / self.modes
        found: Array = np.sort(self.target_mass**2 + 2 - 2 * np.cos(angles))
        return found

    def eigenvalues(self) -> Array:
        """x = mu^2 - kappa of the solution, (n,) descending."""
        return self.mass**2 - self.stiffnesses()

    def pairs(self) -> Array:
        """x of the modes that are degenerate in pairs, descending."""
        return self.eigenvalues()[1::2][: (self.modes - 1) // 2]

    def relaxation(self, x: Any) -> Any:
        """The rate of relaxation of X of a mode, in units of 1/alpha steps: 2 x/kappa^2."""
        x = np.asarray(x, float)
        return 2 * x / (self.mass**2 - x) ** 2

    def spacing(self, x: Any, learning_rate: Any, chains: Any, sweeps: int | None = None) -> Any:
        """The mean spacing of a pair: sqrt(2 pi) sqrt(alpha x/B), times the root of (1 + r^2)/(1 - r^2).

        Args:
            x: of the pair.
            learning_rate: alpha.
            chains: B.
            sweeps: k; None: chains that are independent at each step, r = 0.
        """
        x, alpha, B = (np.asarray(one, float) for one in (x, learning_rate, chains))
        square = 0.0 if sweeps is None else (x / self.mass**2) ** (2 * sweeps)
        return np.sqrt(2 * np.pi * alpha * x / B * (1 + square) / (1 - square))
