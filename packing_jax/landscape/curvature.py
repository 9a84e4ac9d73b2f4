r"""Hessian spectra of any function of any pytree: particles, network weights, or a user's own.

Everything starts from the Hessian-vector product, the derivative of the gradient, linearised once. Exact spectra
assemble the matrix. Without it, Hutchinson's estimator gives the trace, and Lanczos the largest eigenvalues and the
density of states (both by matfree). All are pure functions of (function, configuration, key), and ``jax.vmap`` batches
them over replicas. For a packing of unit masses, an eigenvalue is a squared frequency.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from matfree import decomp, stochtrace

from packing_jax.errors import PackingError
from packing_jax.estimate import Estimate

#: Anything that turns a configuration, a pytree of real arrays, into a scalar.
Function = Callable[[Any], Array]

#: Coordinates up to which the matrix is assembled: N = 2000 in three dimensions.
LARGEST_EXACT = 6000


class Spectrum(NamedTuple):
    """All eigenvalues, in increasing order, and their orthonormal modes."""

    eigenvalues: Float[Array, "n"]
    modes: Float[Array, "n n"]  #: one mode a row, over the flattened configuration


class Largest(NamedTuple):
    """The largest eigenvalues, in decreasing order."""

    values: Float[Array, "k"]  #: NaN where the spectrum has fewer distinct eigenvalues than asked for
    bounds: Float[Array, "k"]  #: an eigenvalue of the Hessian lies within this distance


class DensityOfStates(NamedTuple):
    """D(l) = (1/n) sum_k delta(l - l_k), as nodes and weights for each probe; the weights of a probe sum to one."""

    nodes: Float[Array, "probes m"]
    weights: Float[Array, "probes m"]

    def broadened(self, at: Float[Array, "g"], width: float | Array) -> Estimate:
        """D at the eigenvalues ``at`` with each delta a Gaussian of standard deviation ``width``."""
        z = (at[:, None, None] - self.nodes[None]) / width
        density = jnp.exp(-0.5 * z * z) / (width * (2 * np.pi) ** 0.5)
        return _mean(jnp.sum(density * self.weights[None], axis=-1))

    def cumulative(self, at: Float[Array, "g"]) -> Estimate:
        """Fraction of the eigenvalues at or below ``at``."""
        below = self.nodes[None] <= at[:, None, None]
        return _mean(jnp.sum(jnp.where(below, self.weights[None], 0.0), axis=-1))


def _mean(samples: Array) -> Estimate:
    count = samples.shape[-1]
    return Estimate(jnp.mean(samples, axis=-1), jnp.std(samples, axis=-1, ddof=1) / count**0.5)


def hessian_vector_product(function: Function, configuration: Any, vector: Any) -> Any:
    """H v, a pytree like ``configuration``, without the matrix H."""
    return jax.jvp(jax.grad(function), (configuration,), (vector,))[1]


def _operator(function: Function, configuration: Any) -> tuple[Array, Callable[[Array], Array]]:
    """The flat configuration and v -> H v on flat vectors."""
    flat, unravel = ravel_pytree(configuration)
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise PackingError(f"the configuration's entries are {flat.dtype}; curvature needs real floating-point ones")
    _, product = jax.linearize(jax.grad(lambda x: function(unravel(x))), flat)
    return flat, product


def exact_spectrum(function: Function, configuration: Any) -> Spectrum:
    """All eigenvalues and modes of the Hessian, from the assembled matrix.

    Raises:
        PackingError: more than 6000 coordinates (N = 2000 in three dimensions), or a configuration that is not real.
    """
    flat, product = _operator(function, configuration)
    if flat.size > LARGEST_EXACT:
        raise PackingError(
            f"{flat.size} coordinates; the exact spectrum needs the whole matrix, at most of {LARGEST_EXACT}: "
            "use density_of_states and largest_eigenvalues"
        )
    hessian = jax.lax.map(product, jnp.eye(flat.size, dtype=flat.dtype), batch_size=16)
    eigenvalues, modes = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
    return Spectrum(eigenvalues, modes.T)


def hessian_trace(function: Function, configuration: Any, key: Array, probes: int = 100) -> Estimate:
    """Tr H by Hutchinson's estimator: the mean of z.Hz over ``probes`` vectors z of random signs.

    Raises:
        PackingError: fewer than 2 probes, or a configuration that is not real.

    Source: Hutchinson, Commun. Stat. Simul. Comput. 18, 1059 (1989).
    """
    if probes < 2:
        raise PackingError(f"{probes} probes; a standard error needs at least 2")
    flat, product = _operator(function, configuration)
    sampler = stochtrace.sampler_signs(flat, num=probes)
    estimator = stochtrace.estimator_monte_carlo_mean_and_sem(stochtrace.monte_carlo_trace(), sampler)
    value, stderr = estimator(product, key)
    return Estimate(value, stderr * (probes / (probes - 1)) ** 0.5)


def _lanczos(product: Callable[[Array], Array], start: Array, iterations: int) -> tuple[Array, Array, Array]:
    """Ritz values, squared first components (weights) and residual bounds.

    Where fewer than ``iterations`` are found, the rest have the value NaN and the weight 0.
    """
    result = decomp.tridiag_sym(iterations, materialize=False, reortho="full", custom_vjp=False)(product, start)
    diagonal, beside = result.J_small
    last = jnp.linalg.norm(result.residual)
    scale = jnp.max(jnp.abs(jnp.where(jnp.isfinite(diagonal), diagonal, 0.0)))
    noise = 10.0 * start.size**0.5 * float(np.finfo(start.dtype).eps) * scale
    # A start in an invariant subspace finds only its eigenvalues; what follows is 0/0 or rounding, and is cut off.
    linked = jnp.cumprod(jnp.where(jnp.isfinite(beside) & (beside > noise), 1.0, 0.0)).astype(start.dtype)
    live = jnp.concatenate([jnp.ones(1, start.dtype), linked]) > 0
    beside = jnp.where(live[1:], beside, 0.0)
    diagonal = jnp.where(live, diagonal, -4.0 * scale - 1.0)
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    weights = vectors[0] ** 2
    cut = jnp.sum(~live)  # what is cut off was given the lowest values above
    real = jnp.arange(iterations) >= cut
    bounds = jnp.where(jnp.all(live), last * jnp.abs(vectors[-1]), noise)
    # a Hessian that is not finite makes the first entry not finite
    real = real & jnp.isfinite(result.J_small[0][0])
    return jnp.where(real, values, jnp.nan), jnp.where(real, weights, 0.0), bounds


def largest_eigenvalues(
    function: Function, configuration: Any, key: Array, count: int = 1, iterations: int = 100
) -> Largest:
    """The ``count`` largest distinct eigenvalues of the Hessian, by Lanczos with full reorthogonalisation.

    More iterations tighten the bounds. A degenerate eigenvalue is found once. The smallest eigenvalues are minus the
    largest ones of minus the function.

    Args:
        function: configuration -> scalar.
        configuration: a pytree of real arrays.
        key: of the random start.
        count: eigenvalues, at most ``iterations``.
        iterations: of Lanczos, at least 2; at most the number of coordinates is used.

    Raises:
        PackingError: a count or number of iterations out of range, or a configuration that is not real.
    """
    flat, product = _operator(function, configuration)
    iterations = _check_iterations(iterations, flat.size)
    if not 1 <= count <= iterations:
        raise PackingError(f"{count} eigenvalues from {iterations} iterations; there can be 1 to {iterations}")
    values, _, bounds = _lanczos(product, jax.random.normal(key, flat.shape, flat.dtype), iterations)
    return Largest(values[::-1][:count], bounds[::-1][:count])


def density_of_states(
    function: Function, configuration: Any, key: Array, probes: int = 20, iterations: int = 100
) -> DensityOfStates:
    """Density of Hessian eigenvalues by stochastic Lanczos quadrature.

    Each random start v of unit length gives ``iterations`` nodes l_k and weights w_k. For every polynomial p up to
    degree 2 iterations - 1, sum_k w_k p(l_k) = v.p(H)v, and its mean over starts is (1/n) Tr p(H).

    Args:
        function: configuration -> scalar.
        configuration: a pytree of real arrays.
        key: of the random starts.
        probes: random starts, at least 2.
        iterations: of Lanczos, at least 2; at most the number of coordinates is used.

    Raises:
        PackingError: numbers out of range, or a configuration that is not real.

    Source: Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 1075 (2017).
    """
    flat, product = _operator(function, configuration)
    iterations = _check_iterations(iterations, flat.size)
    if probes < 2:
        raise PackingError(f"{probes} probes; a standard error needs at least 2")
    starts = jax.random.normal(key, (probes, flat.size), flat.dtype)
    nodes, weights, _ = jax.lax.map(lambda start: _lanczos(product, start, iterations), starts)
    # a node without weight is NaN, which would spread; it may lie anywhere
    return DensityOfStates(jnp.where(weights > 0, nodes, jnp.max(nodes, axis=1, keepdims=True)), weights)


def _check_iterations(iterations: int, size: int) -> int:
    if iterations < 2:
        raise PackingError(f"{iterations} Lanczos iterations; at least 2 are needed")
    return min(iterations, size)


def participation_ratio(modes: Float[Array, "*k n"], dim: int = 1) -> Float[Array, "*k"]:
    """P = (sum_i |e_i|^2)^2 / (N sum_i |e_i|^4): 1 for a mode spread over all N particles, 1/N for one particle.

    Args:
        modes: flattened modes, (..., N dim).
        dim: coordinates per particle; 1 for weights.

    Raises:
        PackingError: the length is not a multiple of ``dim``.
    """
    n = modes.shape[-1]
    if dim < 1 or n % dim:
        raise PackingError(f"modes of length {n} are not whole particles of {dim} coordinates")
    power = jnp.sum(modes.reshape(*modes.shape[:-1], n // dim, dim) ** 2, axis=-1)
    return jnp.sum(power, axis=-1) ** 2 / (power.shape[-1] * jnp.sum(power**2, axis=-1))
