r"""A Gaussian restricted Boltzmann machine that learns the stiffness of a scalar field on a ring.

    energy(v, h) = mu^2 |v|^2/2 + |h|^2/2 - v^T W h,   F(v) = mu^2 |v|^2/2 - |W^T v|^2/2

so that v is normal with the stiffness mu^2 - W W^T; h given v is W^T v + N(0, 1), v given h is W h/mu^2 + N(0, 1)/mu.
The target K is circulant, with 2 + m^2 on its diagonal and -1 beside it: its modes are degenerate in pairs. The data
are n points whose second moments are those of the target, K^-1, exactly. Source: arXiv:2407.16427, 2411.13512.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from packing_jax.networks.data import Data
from packing_jax.networks.task import Task
from packing_jax.networks.theory.gaussian_rbm import GaussianMachine


@dataclass(frozen=True)
class Gibbs:
    """Gibbs sampling of h given v, then v given h; a sampler of :mod:`packing_jax.networks.rules.contrastive`."""

    mass: float = 3.0  #: mu

    def begin(self, weights: Array, chains: int) -> Array:
        """All chains (B, n) at 0, which they forget within a few sweeps."""
        return jnp.zeros((chains, len(weights)), weights.dtype)

    def sweep(self, key: Array, weights: Array, visible: Array) -> Array:
        """The chains (B, n) after both halves of a sweep."""
        above, below = jax.random.split(key)
        shape = (len(visible), weights.shape[1])
        hidden = visible @ weights + jax.random.normal(above, shape, weights.dtype)
        return hidden @ weights.T / self.mass**2 + jax.random.normal(below, visible.shape, weights.dtype) / self.mass


def gaussian_rbm(machine: GaussianMachine | None = None, scale: float | None = 0.1) -> Task:
    """A Gaussian machine with as many hidden units as visible ones.

    For :func:`packing_jax.networks.rules.persistent_chains` with :class:`Gibbs` as the sampler.

    Args:
        machine: its size and masses; None: those of the papers.
        scale: standard deviation of the initial weights (n, n); None: they start at the solution.
    """
    machine = GaussianMachine() if machine is None else machine
    modes = machine.modes
    values, vectors = np.linalg.eigh(machine.stiffness())
    data = np.sqrt(modes) * (vectors / np.sqrt(values)) @ vectors.T

    def start(key: Array) -> Array:
        if scale is None:
            return jnp.asarray((vectors * np.sqrt(machine.mass**2 - values)) @ vectors.T)
        return scale * jax.random.normal(key, (modes, modes))

    def free_energy(weights: Array, visible: Array) -> Array:
        hidden = visible @ weights
        return (machine.mass**2 * (visible * visible).sum(axis=1) - (hidden * hidden).sum(axis=1)) / 2

    return Task(start, free_energy, _itself, data=Data(data, np.zeros(modes)), largest_loss=1e6)


def _itself(energy: Any, targets: NDArray[np.float64] | Array) -> Any:  # noqa: ARG001 - there are none to learn
    return energy
