r"""Structure factor, spectral density and pair correlation of periodic configurations.

A periodic box of side L has density waves at q = 2 pi n / L only, n integer. With fixed-point coordinates X (the box is
2^32 quanta) the phase q.x is the integer n.X modulo 2^32, which integer wrap-around computes exactly, at any |n|. The
exact sum runs on the device. Where it would be long and finufft is installed (the extra ``structure``), its non-uniform
fast Fourier transform gives the same amplitudes to 1e-9 on the host.
"""

import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from numpy.typing import NDArray

from packing_jax.devices import on_cpu
from packing_jax.errors import PackingError
from packing_jax.exact import exact_mean
from packing_jax.observables.periodic import Float, wrapped
from packing_jax.spheres.configuration import Configuration, Observable
from packing_jax.spheres.geometry import ball_volume, check_dim, float_of, quanta

_PRIOR_MODES = 4  # weight of the exponential law in a variance, in waves
_EXACT_TERMS = 2**24  # modes times particles, 0.2 s on one CPU core: above this the transform is faster
_EXACT_TERMS_DEVICE = 2**32  # the same on an accelerator, estimated from its peak rate and not measured
_LARGEST_TABLE = 2**26  # wave vectors in one table
_TOLERANCE = 1e-9  # of the fast transform, relative to the largest amplitude


class ShellAverage(NamedTuple):
    """S(q), or a spectral density, averaged over shells of |q| and over samples; each (shells,)."""

    q: Float  #: mean |q| of the shell, in inverse units of the box side
    value: Float  #: the average
    stderr: Float  #: standard error of ``value``
    waves: NDArray[np.int64]  #: independent waves averaged: pairs +-q times samples


class PairCorrelation(NamedTuple):
    """g(r) in bins of r, each (bins,)."""

    r: Float  #: middle of the bin, in the unit of the box side
    g: Float
    stderr: Float  #: from the scatter of samples, or of Poisson counts with only one


# --- wave vectors ---------------------------------------------------------------------------------------------


def wave_vectors(dim: int, largest: float) -> NDArray[np.int32]:
    """The box's wave vectors q = 2 pi n / L with 0 < |n| <= ``largest``: integers n (M, dim), one of each pair +-n.

    Sorted by |n|. The other of a pair has the same S(q).

    Raises:
        PackingError: a dimension outside 1 to 6, ``largest`` below 1, or a table of more than 2^26 vectors.
    """
    check_dim(dim)
    if not (np.isfinite(largest) and largest >= 1):
        raise PackingError(f"the largest |n| is {largest}; the shortest wave vector of a box has |n| = 1")
    reach = int(largest)
    if (2 * reach + 1.0) ** dim > _LARGEST_TABLE:
        raise PackingError(f"|n| up to {largest} in {dim}D are more than 2^26 wave vectors; ask for a smaller |n|")
    side = 2 * reach + 1
    upper = np.arange(side**dim // 2 + 1, side**dim)  # after n = 0: the first component that is not zero is positive
    n = np.stack(np.unravel_index(upper, (side,) * dim), axis=-1).astype(np.int32) - np.int32(reach)
    square = np.sum(n.astype(np.int64) ** 2, axis=-1)
    inside = square <= largest**2
    order = np.argsort(square[inside], kind="stable")
    return n[inside][order]


def _check_modes(modes: np.ndarray | Array, dim: int) -> NDArray[np.int32]:
    array = np.asarray(modes)
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        raise PackingError(f"wave vectors have shape {array.shape}; they must be (number, {dim}), see wave_vectors")
    if not np.issubdtype(array.dtype, np.integer):
        raise PackingError("wave vectors must be whole numbers n; the wave vector of a box of side L is 2 pi n / L")
    if not np.all(array.any(axis=1)):
        raise PackingError("the wave vector 0 is among those asked for; its amplitude is N and says nothing")
    return array.astype(np.int32)


# --- amplitudes -----------------------------------------------------------------------------------------------


def _turn(phase: Array) -> tuple[Array, Array]:
    """Cosine and sine of a fixed-point phase, whose full range is one turn.

    Over a full turn, 2 pi rounded to float32 would shift the mean of every cosine by 3e-8, a spurious wave of amplitude
    0.03 at N = 1e6. Here angles are at most an eighth of a turn, and the remaining error cancels between the quadrants.
    """
    dtype, integer = float_of(phase), phase.dtype
    bits = 8 * integer.itemsize
    quadrant = (phase + np.asarray(2 ** (bits - 3), integer)) >> np.asarray(bits - 2, integer)
    rest = (phase - (quadrant << np.asarray(bits - 2, integer))).astype(dtype)
    angle = rest * np.asarray(2.0 * np.pi / quanta(dtype), dtype)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    odd = (quadrant & 1) != 0
    first, second = jnp.where(odd, sine, cosine), jnp.where(odd, cosine, sine)
    return jnp.where(((quadrant + 1) & 2) != 0, -first, first), jnp.where((quadrant & 2) != 0, -second, second)


def _wave_means(coordinates: Array, modes: Array, weights: Array) -> Array:
    """Mean over particles of w exp(-i q.x), as (2, M) real and imaginary parts, the same bits in any order."""

    def one(n: Array) -> tuple[Array, Array]:
        phase = jnp.sum(n.astype(coordinates.dtype)[:, None] * coordinates, axis=0, dtype=coordinates.dtype)
        cosine, sine = _turn(phase)
        return exact_mean(weights * cosine), -exact_mean(weights * sine)

    # so many waves at once that they fill the vector units and stay in the cache
    batch = max(1, 2**16 // coordinates.shape[1])
    return jnp.stack(jax.lax.map(one, modes, batch_size=min(batch, len(modes))))


_compiled_wave_means = jax.jit(_wave_means)


def _exact_means(fraction: Float, modes: NDArray[np.int32], weights: Float) -> NDArray[np.complex128]:
    """Mean of w exp(-i q.x) by the sum itself, on the device; positions (N, dim) in box sides."""
    fixed = np.rint((fraction - np.round(fraction)) * 2.0**32).astype(np.int64).astype(np.int32)
    real, imaginary = np.asarray(
        _compiled_wave_means(jnp.asarray(fixed.T), jnp.asarray(modes), jnp.asarray(weights, np.float32)), np.float64
    )
    return np.asarray(real + 1j * imaginary)


def _fast_means(fraction: Float, modes: NDArray[np.int32], weights: Float) -> NDArray[np.complex128]:
    """:func:`_exact_means` by a non-uniform fast Fourier transform, on the host in float64."""
    import finufft

    dim = fraction.shape[1]
    reach = int(np.abs(modes).max())
    transform = {1: finufft.nufft1d1, 2: finufft.nufft2d1, 3: finufft.nufft3d1}[dim]
    table = transform(
        *np.ascontiguousarray(2.0 * np.pi * fraction.T),
        weights.astype(np.complex128),
        (2 * reach + 1,) * dim,
        eps=_TOLERANCE,
        isign=-1,
    )
    return np.asarray(table[tuple(modes.T + reach)] / len(fraction))


def _means(fraction: Float, modes: NDArray[np.int32], weights: Float) -> NDArray[np.complex128]:
    particles, dim = fraction.shape
    table = (2.0 * np.abs(modes).max() + 1) ** dim
    terms = particles * len(modes)
    most = _EXACT_TERMS if on_cpu() else _EXACT_TERMS_DEVICE
    worth_it = terms > most and table <= _LARGEST_TABLE and 32 * table < terms
    if dim <= 3 and worth_it and importlib.util.find_spec("finufft"):
        return _fast_means(fraction, modes, weights)
    return _exact_means(fraction, modes, weights)


# --- structure factor -----------------------------------------------------------------------------------------


def structure_factor(
    positions: np.ndarray | Array,
    modes: np.ndarray | Array,
    box: float,
    weights: np.ndarray | Array | None = None,
) -> Float:
    r"""S(q) = |sum_j w_j exp(-i q.x_j)|^2 / sum_j w_j^2 at the box's wave vectors q = 2 pi n / box.

    Args:
        positions: (..., N, dim), any periodic image, in the unit of ``box``; leading axes are samples.
        modes: (M, dim) integers n, see :func:`wave_vectors`.
        box: side of the box.
        weights: w, (N,); 1 when None. Independent uniform positions have S = 1 on average for any weights.

    Returns:
        S, (..., M), with a rounding error of 2e-6 sqrt(S): an amplitude is summed to 1e-6 sqrt(N).

    Long sums, in up to three dimensions, use finufft where it is installed (``pip install packing_jax[structure]``).

    Raises:
        PackingError: shapes that do not fit, or wave vectors that are not whole numbers or are zero.
    """
    fraction = wrapped(positions, box) / box
    modes = _check_modes(modes, fraction.shape[-1])
    w = _check_weights(weights, fraction.shape[-2])
    if not fraction.size:
        raise PackingError(f"positions have shape {fraction.shape}: there is nothing to average over")
    flat = fraction.reshape(-1, *fraction.shape[-2:])
    square = np.stack([np.abs(_means(one, modes, w)) ** 2 for one in flat])
    return square.reshape(*fraction.shape[:-2], len(modes)) * (len(w) / np.mean(w**2))


def _check_weights(weights: np.ndarray | Array | None, particles: int) -> Float:
    if weights is None:
        return np.ones(particles)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (particles,) or not np.all(np.isfinite(array)) or not array.any():
        raise PackingError(f"weights have shape {array.shape}; they must be {particles} finite numbers, not all zero")
    return array


def recorded_structure_factor(modes: np.ndarray | Array) -> Observable:
    """An observable that records S(q), (M,), at the wave vectors 2 pi n / L while a simulation runs.

    ``record={"s": recorded_structure_factor(wave_vectors(2, 10))}``. It is the exact sum on the device, in any
    dimension and at the precision of the run; its bits do not depend on the order of the particles.
    """
    modes = _check_modes(modes, np.shape(modes)[-1])

    def observable(seen: Configuration) -> Array:
        _check_modes(modes, seen.system.dim)
        particles, dtype = seen.system.particles, float_of(seen.coordinates)
        means = _wave_means(seen.coordinates, jnp.asarray(modes), jnp.ones(particles, dtype))
        return (means[0] * means[0] + means[1] * means[1]) * np.asarray(particles, dtype)

    return observable


def spectral_density(
    positions: np.ndarray | Array, diameters: np.ndarray | Array | float, modes: np.ndarray | Array, box: float
) -> Float:
    r"""chi(q) = |sum_j m(q, R_j) exp(-i q.x_j)|^2 / V, the power spectrum of the volume the particles fill.

    m(q, R) = (2 pi R / q)^(d/2) J_{d/2}(q R) is the Fourier transform of a ball. In a polydisperse packing this, and
    not S(q), vanishes as q -> 0 when it is hyperuniform. Volume where two particles overlap counts twice.

    Args:
        positions: (..., N, dim), in the unit of ``box``.
        diameters: () or (N,), in the same unit.
        modes: (M, dim) integers, see :func:`wave_vectors`.
        box: side of the box.

    Returns:
        (..., M), in the unit of ``box`` to the power dim.

    Raises:
        PackingError: as :func:`structure_factor`; diameters that are not positive.

    Source: Zachary, Jiao and Torquato, Phys. Rev. Lett. 106, 178001 (2011).
    """
    fraction = wrapped(positions, box) / box
    particles, dim = fraction.shape[-2:]
    modes = _check_modes(modes, dim)
    radii = 0.5 * np.broadcast_to(np.asarray(diameters, dtype=np.float64), (particles,))
    if not np.all(np.isfinite(radii) & (radii > 0)):
        raise PackingError("diameters have entries that are not positive numbers; every diameter must be")
    q = 2.0 * np.pi / box * np.sqrt(np.sum(modes.astype(float) ** 2, axis=1))
    nodes, share = _size_nodes(radii, float(q.max()))
    form = _ball_transform(q[:, None], nodes, dim)
    flat = fraction.reshape(-1, particles, dim)
    amplitude = np.stack([sum(form[:, k] * _means(one, modes, w) for k, w in enumerate(share)) for one in flat])
    return (np.abs(amplitude) ** 2).reshape(*fraction.shape[:-2], len(modes)) * (particles**2 / box**dim)


def _size_nodes(radii: Float, q_max: float) -> tuple[Float, list[Float]]:
    """Radii R_k and weights w_k(j) with m(q, R_j) = sum_k w_k(j) m(q, R_k) for all q up to ``q_max``.

    One sum for each radius would be one per particle in a continuous mixture. But m is smooth in R: interpolation
    between Chebyshev nodes converges faster than exponentially once there are more than q (R_max - R_min) / 2 of them.
    """
    distinct, which = np.unique(radii, return_inverse=True)
    half = 0.5 * (distinct[-1] - distinct[0])
    count = 20 + int(np.ceil(q_max * half))
    if len(distinct) <= count:
        return distinct, [(which == k).astype(float) for k in range(len(distinct))]
    nodes = distinct[0] + half * (1.0 + np.cos(np.pi * (np.arange(count) + 0.5) / count))
    shares = scipy.interpolate.BarycentricInterpolator(nodes, np.eye(count))(distinct)
    return nodes, list(np.asarray(shares)[which].T)


def _ball_transform(q: Float, radius: Float, dim: int) -> Float:
    """m(q, R) = v_d R^d 0F1(; d/2 + 1; -(q R)^2 / 4): the Bessel form would be 0/0 at q = 0."""
    return np.asarray(
        ball_volume(dim) * radius**dim * scipy.special.hyp0f1(0.5 * dim + 1.0, -((0.5 * q * radius) ** 2))
    )


def isotropic_average(
    modes: np.ndarray | Array, values: np.ndarray | Array, box: float, width: float = 0.5
) -> ShellAverage:
    """Average of S(q) over shells of |q| and over independent samples, with standard errors.

    |amplitude|^2 of each wave is an independent number of mean S(q), with an exponential distribution when density
    fluctuations are Gaussian. The variance of a wave is (sum of squares + 4 S^2 n / (n + 1)) / (n - 1 + 4): the scatter
    within the shell of n waves, with four waves of the exponential law as a prior, because few waves alone estimate a
    variance badly. The standard error is right on average, but too small where a shell of few waves came out low: do
    not weight a fit by it, see :func:`packing_jax.observables.fit_hyperuniformity`.

    Args:
        modes: (M, dim) integers.
        values: (..., M), from :func:`structure_factor` or :func:`spectral_density`; leading axes are independent
            samples (replicas; successive times are not independent).
        box: side of the box, in the unit of 1/q; in mean diameters, q comes out as q sigma.
        width: of a shell in |n|, centred on multiples of it; 0 keeps every |n| apart.

    Raises:
        PackingError: shapes that do not match, or values that are not finite.
    """
    n = _check_modes(modes, np.shape(modes)[-1])
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim < 1 or samples.shape[-1] != len(n):
        raise PackingError(f"values have shape {samples.shape}; their last axis must be the {len(n)} wave vectors")
    if not (samples.size and np.all(np.isfinite(samples))):
        raise PackingError("values have entries that are not finite, or none; average over samples that ran")
    if not (np.isfinite(width) and width >= 0 and np.isfinite(box) and box > 0):
        raise PackingError(f"a shell width of {width} in a box of side {box}; both must be finite, the side positive")
    samples = samples.reshape(-1, len(n))
    square = np.sum(n.astype(np.int64) ** 2, axis=1)
    label = square if width == 0 else np.rint(np.sqrt(square) / width).astype(np.int64)
    _, shell, size = np.unique(label, return_inverse=True, return_counts=True)
    count = size * len(samples)
    mean = np.bincount(shell, samples.sum(axis=0)) / count
    squares = np.bincount(shell, np.sum((samples - mean[shell]) ** 2, axis=0))
    law = mean**2 * count / (count + 1)  # the square of a mean of exponentials is too large by (n + 1)/n
    variance = (squares + _PRIOR_MODES * law) / (count - 1 + _PRIOR_MODES)
    q = 2.0 * np.pi / box * np.bincount(shell, np.sqrt(square)) / size
    return ShellAverage(q, mean, np.sqrt(variance / count), count.astype(np.int64))


# --- pair correlation -----------------------------------------------------------------------------------------


def pair_correlation(
    positions: np.ndarray | Array, edges: np.ndarray, box: float, others: np.ndarray | Array | None = None
) -> PairCorrelation:
    """g(r): pairs at distance r over those of independent uniform positions, which have g = 1 at any N.

    Args:
        positions: (..., N, dim), in the unit of ``box``; leading axes are samples.
        edges: (bins + 1,) increasing distances from 0 to at most half the box.
        box: side of the box.
        others: (..., N', dim) for the partial g between two kinds of particles; all pairs of ``positions`` when None.

    Returns:
        Bin middles, g and its standard error, (bins,) each.

    Raises:
        PackingError: shapes that do not fit, or edges that do not increase or exceed half the box.
    """
    first = wrapped(positions, box)
    second = first if others is None else wrapped(others, box)
    if first.shape[:-2] != second.shape[:-2] or first.shape[-1] != second.shape[-1]:
        raise PackingError(f"positions {first.shape} and others {second.shape} must differ in particles only")
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0) or edges[0] < 0 or edges[-1] > box / 2:
        raise PackingError(f"the edges of the bins must increase from 0 or more to half the box, {box / 2:g}, or less")
    particles, dim = first.shape[-2:]
    pairs = particles * (particles - 1) if others is None else particles * second.shape[-2]
    if not pairs:
        raise PackingError("there is only one particle; a pair correlation needs two")

    def counts(a: Float, b: Float) -> Float:
        tree = scipy.spatial.KDTree(a, boxsize=box)
        other = tree if others is None else scipy.spatial.KDTree(b, boxsize=box)
        # a particle is at distance 0 from itself: within every edge, so that it cancels in the difference
        return np.diff(np.asarray(tree.count_neighbors(other, edges), dtype=np.float64))

    found = np.stack(list(map(counts, first.reshape(-1, particles, dim), second.reshape(-1, *second.shape[-2:]))))
    expected = pairs * ball_volume(dim) * np.diff(edges**dim) / box**dim
    g = found.mean(axis=0) / expected
    if len(found) > 1:
        stderr = np.std(found, axis=0, ddof=1) / np.sqrt(len(found)) / expected
    else:
        each = 2.0 if others is None else 1.0  # each pair was counted twice
        stderr = np.sqrt(each * np.maximum(found[0], each)) / expected
    return PairCorrelation(0.5 * (edges[1:] + edges[:-1]), g, stderr)
