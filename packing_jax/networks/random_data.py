r"""Random data sets, drawn from a key with a known distribution.

Each function works under ``jax.jit``, and ``jax.vmap`` over keys draws one set per replica. Draws are made in float32
whatever the precision, so that float32 and float64 runs with one key see the same set, to rounding. Samples 1 to P are
the first P of any larger set of the same key and features, so that a larger P adds to the same disorder (not with
``exact``, nor where jax's partitionable random numbers are switched off). Test samples have random numbers of their
own, and change no training sample.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from packing_jax.errors import PackingError, is_real
from packing_jax.networks.data import Data, float_dtype

# What a key draws, each from a stream of its own.
_INPUTS, _NOISE, _HIDDEN, _TEST_INPUTS, _TEST_NOISE = range(5)


def gaussian_inputs(
    key: Array,
    samples: int,
    features: int,
    *,
    exponent: float | Array = 0.0,
    exact: bool = False,
    dtype: DTypeLike = np.float32,
) -> Array:
    r"""Gaussian inputs (samples, features) of mean 0 whose covariance has the eigenvalues l^-a, l = 1, 2, ...

    The l-th input has variance l^-a and the inputs are independent: the eigenvectors are the axes. For a model that is
    invariant under rotations of the inputs this is no restriction.

    Args:
        key: a typed key, ``jax.random.key(seed)``.
        samples: P.
        features: the number of inputs.
        exponent: a of the spectrum; 0 is white.
        exact: whether (1/P) sum x x^T, the Hessian of linear regression on these samples, is diag(l^-a) to rounding
            instead of on average. The inputs are then random orthonormal columns times sqrt(P l^-a), and closed forms
            for the modes of the Hessian hold axis by axis.
        dtype: float32 or float64.

    Raises:
        PackingError: sizes below 1, ``exact`` with fewer samples than features, no typed key, or another dtype.
    """
    return _inputs(_stream(key, _INPUTS), samples, features, exponent, exact, float_dtype(dtype))


def linear_regression(
    key: Array,
    samples: int,
    features: int,
    *,
    exponent: float | Array = 0.0,
    noise: float | Array = 0.0,
    tests: int = 0,
    exact: bool = False,
    dtype: DTypeLike = np.float32,
) -> Data:
    r"""A linear teacher whose labels are noisy: y = w* . x + s xi, x of :func:`gaussian_inputs`, xi standard normal.

    The teacher w* is :func:`linear_teacher` of the same key.

    With ``exact`` the assumptions of closed forms for the dynamics hold without sampling error: every input comes
    twice, with noise +s and -s. For the loss (1/2P) sum (w . x - y)^2 of these samples, to rounding,

    - the minimum is w*, and the Hessian is H = diag(l^-a);
    - the gradients of the samples at the minimum have covariance s^2 H.

    The samples are ordered, those with +s first, so batches must be drawn at random.

    Args:
        key: a typed key.
        samples: P.
        features: the number of inputs.
        exponent: a of the covariance's eigenvalues l^-a.
        noise: s, the standard deviation of the labels' noise.
        tests: number of test samples, always independent draws, with the same noise.
        exact: see above.
        dtype: float32 or float64.

    Raises:
        PackingError: as :func:`gaussian_inputs`; a negative ``noise``; ``exact`` with an odd number of samples, or with
            fewer than two for each feature.
    """
    dtype = float_dtype(dtype)
    s = _scale("noise", noise, dtype)
    teacher = linear_teacher(key, features, dtype=dtype)

    def labelled(x: Array, xi: Array) -> tuple[Array, Array]:
        return x, x @ teacher + s * xi

    if exact:
        if samples % 2 or samples < 2 * features:
            raise PackingError(
                f"an exact regression on {features} features has {samples} samples; it takes an even number, "
                f"and at least {2 * features}, as every input comes with both signs of the noise"
            )
        half = _inputs(_stream(key, _INPUTS), samples // 2, features, exponent, True, dtype)
        ones = jnp.ones(samples // 2, dtype)
        train = labelled(jnp.concatenate([half, half]), jnp.concatenate([ones, -ones]))
    else:
        x = _inputs(_stream(key, _INPUTS), samples, features, exponent, False, dtype)
        train = labelled(x, _normal(_stream(key, _NOISE), (samples,), dtype))
    if not tests:
        return Data(*train)
    x = _inputs(_stream(key, _TEST_INPUTS), tests, features, exponent, False, dtype)
    return Data(*train, *labelled(x, _normal(_stream(key, _TEST_NOISE), (tests,), dtype)))


def linear_teacher(key: Array, features: int, *, dtype: DTypeLike = np.float32) -> Array:
    """The teacher w* (features,) of :func:`linear_regression` with this key: independent, N(0, 1/features)."""
    dtype = float_dtype(dtype)
    return _normal(_stream(key, _HIDDEN), (features,), dtype) / jnp.sqrt(jnp.asarray(features, dtype))


def random_labels(key: Array, samples: int, features: int, *, dtype: DTypeLike = np.float32) -> Data:
    """White Gaussian inputs (samples, features) with random labels +1 or -1: nothing to learn, only to store.

    Args:
        key: a typed key.
        samples: P.
        features: the number of inputs, each of variance 1.
        dtype: float32 or float64.

    Raises:
        PackingError: as :func:`gaussian_inputs`.
    """
    inputs = gaussian_inputs(key, samples, features, dtype=dtype)
    return Data(inputs, _signs(_stream(key, _NOISE), samples, inputs.dtype))


def perceptron_patterns(key: Array, samples: int, features: int, *, dtype: DTypeLike = np.float32) -> Data:
    """Patterns xi (samples, features) of the perceptron kappa - xi . w/sqrt(N): white, Gaussian, with all targets +1.

    Random labels would change nothing, as y xi has the law of xi (Gardner 1988).

    Args:
        key: a typed key.
        samples: P.
        features: N.
        dtype: float32 or float64.

    Raises:
        PackingError: as :func:`gaussian_inputs`.
    """
    inputs = gaussian_inputs(key, samples, features, dtype=dtype)
    return Data(inputs, jnp.ones(samples, inputs.dtype))


def gaussian_mixture(
    key: Array,
    samples: int,
    features: int,
    *,
    variance: float | Array = 1.0,
    tests: int = 0,
    dtype: DTypeLike = np.float32,
) -> Data:
    r"""Two clusters: x = y v/sqrt(d) + sqrt(Delta) z with random labels y = +1 or -1, z white and Gaussian.

    The centre v is :func:`mixture_centre` of the same key. The sign of w . x is wrong on fresh samples with probability
    (1/2) erfc(m/sqrt(2 Delta C)), m = w . v/d, C = |w|^2/d (arXiv:2006.06098).

    Args:
        key: a typed key.
        samples: P.
        features: d.
        variance: Delta, of a cluster in each direction.
        tests: number of test samples.
        dtype: float32 or float64.

    Raises:
        PackingError: as :func:`gaussian_inputs`; a negative ``variance``.
    """
    dtype = float_dtype(dtype)
    spread = jnp.sqrt(_scale("variance", variance, dtype))
    centre = mixture_centre(key, features, dtype=dtype) / jnp.sqrt(jnp.asarray(features, dtype))

    def drawn(count: int, inputs: int, labels: int) -> tuple[Array, Array]:
        z = _inputs(_stream(key, inputs), count, features, 0.0, False, dtype)
        y = _signs(_stream(key, labels), count, dtype)
        return y[:, None] * centre[None, :] + spread * z, y

    train = drawn(samples, _INPUTS, _NOISE)
    return Data(*train, *drawn(tests, _TEST_INPUTS, _TEST_NOISE)) if tests else Data(*train)


def mixture_centre(key: Array, features: int, *, dtype: DTypeLike = np.float32) -> Array:
    """The centre v (features,) of :func:`gaussian_mixture` with this key: independent, N(0, 1)."""
    return _normal(_stream(key, _HIDDEN), (features,), float_dtype(dtype))


def _inputs(stream: Array, samples: int, features: int, exponent: float | Array, exact: bool, dtype: np.dtype) -> Array:
    if samples < 1 or features < 1:
        raise PackingError(f"a set of {samples} samples of {features} features was asked for; both must be 1 or more")
    spectrum = jnp.arange(1, features + 1, dtype=dtype) ** -jnp.asarray(exponent, dtype)
    z = _normal(stream, (samples, features), dtype)
    if exact:
        if samples < features:
            raise PackingError(f"an exact spectrum of {features} features needs as many samples, not {samples}")
        q, r = jnp.linalg.qr(z)
        # The signs make the columns uniform over all orthonormal ones, and the set independent of the library.
        z = jnp.sqrt(jnp.asarray(samples, dtype)) * q * jnp.sign(jnp.diagonal(r))[None, :]
    return z * jnp.sqrt(spectrum)[None, :]


def _stream(key: Array, number: int) -> Array:
    if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and not key.ndim):
        raise PackingError("a set is drawn from one typed key, jax.random.key(seed); for several, jax.vmap over keys")
    return jax.random.fold_in(key, number)


def _normal(stream: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    return jax.random.normal(stream, shape, np.float32).astype(dtype)


def _signs(stream: Array, count: int, dtype: np.dtype) -> Array:
    return jax.random.rademacher(stream, (count,), np.int32).astype(dtype)


def _scale(name: str, value: float | Array, dtype: np.dtype) -> Array:
    if not isinstance(value, Array) and not (is_real(value) and 0 <= value < np.inf):
        raise PackingError(f"the {name} is {value!r}; it must be a number, 0 or more")
    return jnp.asarray(value, dtype)
