r"""The spherical perceptron: Gardner's capacity, Cover's count, and where rest is guaranteed at a finite kick.

P patterns xi_mu (labels taken in) ask of weights on the sphere |w|^2 = N that xi_mu.w/sqrt(N) >= kappa; alpha = P/N.
"""

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, erfcx, logsumexp, ndtr

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

_SMALLEST = -37.0  # below, the capacity is no float


def capacity(kappa: Numbers) -> Any:
    """Gardner's alpha_c(kappa): 1/alpha_c = Int_{-kappa}^inf (z + kappa)^2 Dz.

    The integral is (1 + kappa^2) Phi(kappa) + kappa phi(kappa): alpha_c(0) = 2, alpha_c(1) = 0.5196 (reference:
    section 0; E. Gardner, J. Phys. A 21, 257, 1988). Exact for kappa >= 0. Below 0 the problem is not convex, and this
    is the replica-symmetric value: an upper bound. Relative rounding is 1e-16 kappa^4 far below 0.

    Args:
        kappa: margins, from -37 on (below, alpha_c exceeds the floats).

    Raises:
        PackingError: a margin below that, or not finite.
    """
    kappa = np.asarray(kappa, float)
    if not (np.isfinite(kappa) & (kappa >= _SMALLEST)).all():
        raise PackingError(f"a margin must be finite and at least {_SMALLEST:g}")
    density = np.exp(-(kappa**2) / 2) / np.sqrt(2 * np.pi)
    plain = (1 + kappa**2) * ndtr(kappa) + kappa * density
    # the same with the density taken out, which alone keeps its digits far below 0
    below = np.minimum(kappa, 0)
    tail = density * ((1 + below**2) * np.sqrt(np.pi / 2) * erfcx(-below / np.sqrt(2)) + below)
    return 1 / np.where(kappa < 0, tail, plain)


def margin_at(alpha: float) -> float:
    """The margin kappa whose capacity is alpha: the largest that P = alpha N random patterns can be given.

    Raises:
        PackingError: alpha not above 0 and finite.
    """
    if not (0 < alpha < float(capacity(_SMALLEST))):
        raise PackingError(f"alpha is {alpha:g}; it must be above 0 and finite")
    highest = 1 + 1 / np.sqrt(alpha)  # 1/alpha_c > kappa^2 for kappa > 0
    return float(brentq(lambda kappa: np.log(capacity(kappa) / alpha), _SMALLEST, highest, xtol=1e-14))


def separable_share(patterns: Numbers, weights: Numbers) -> Any:
    """Cover's share of satisfiable instances at kappa = 0: 2^(1-P) sum_{k<N} C(P-1, k), exact at every N and P.

    For patterns in general position and random labels, such as Gaussian ones (T. M. Cover, IEEE Trans. EC-14, 326,
    1965). One half at P = 2N. Where it is below the floats, :func:`log_separable_share`.

    Args:
        patterns: P >= 1.
        weights: N >= 1.
    """
    return np.exp(log_separable_share(patterns, weights))


def log_separable_share(patterns: Numbers, weights: Numbers) -> Any:
    """The natural logarithm of Cover's share, rounded by about 1e-15 P.

    Raises:
        PackingError: numbers that are not whole and at least 1.
    """
    P, N = np.asarray(patterns), np.asarray(weights)
    if not all(one.dtype.kind in "iu" and (one >= 1).all() for one in (P, N)):
        raise PackingError("numbers of patterns and of weights must be whole numbers from 1 on")
    return np.vectorize(_log_share, otypes=[float])(P, N)[()]


def _log_share(P: int, N: int) -> float:
    """log P(X < N) of a binomial of P - 1 fair coins, from the tail that is the smaller."""
    tosses = int(P) - 1
    if tosses < N:
        return 0.0
    if tosses >= 2 * N - 1:
        return _log_lower_tail(tosses, int(N) - 1)
    return float(np.log1p(-np.exp(_log_lower_tail(tosses, tosses - int(N)))))


def _log_lower_tail(n: int, most: int) -> float:
    """log [2^-n sum_{k <= most} C(n, k)], most <= n/2: the last term, and the others as ratios to it."""
    last = -np.log(n + 1) - betaln(most + 1, n - most + 1) - n * np.log(2)
    k = np.arange(most, 0, -1, dtype=float)
    ratios = np.cumsum(np.log(k / (n - k + 1)))
    return float(last + logsumexp(np.append(ratios, 0.0)))


def margin_spent(kick: float, first: float = 0.5, second: float = 1 / 3) -> float:
    """The margin that a finite kick costs: rest is guaranteed where kappa + eps <u^2>/(2<u>) can be satisfied.

    A violated pattern moves the weights by eps u xi/sqrt(N), then back to the sphere. Let w* satisfy all patterns at
    the margin kappa + m. To first order in 1/N, the overlap D = w.w* changes at a step by

        dD = eps sum_mu [ u_mu xi_mu.w*/sqrt(N) - (D/N)( u_mu xi_mu.w/sqrt(N) + (eps/2) u_mu^2 ) ]
           >= eps sum_mu [ u_mu (kappa + m) - (D/N)( kappa u_mu + (eps/2) u_mu^2 ) ],

    which is positive on average for every D <= N as soon as m > eps <u^2>/(2<u>). D cannot exceed N, so that only a
    finite number of violations can come. For u uniform on [0, 1] (BRO) that is eps/3; for u = 0 or 1 (the linear hinge
    on a minibatch) eps/2, whatever the batch fraction. Left out: kicks of one step along one another,
    |sum u g|^2 - sum u^2, of relative order (number of violated patterns)/N, which vanish as the system comes to rest.
    Derived (reference: section 0, whose eps/3 is right). This bounds the shift from one side: rest may come beyond.

    Args:
        kick: eps, the largest step of the weights per violated pattern, |w|^2 = N.
        first: <u>.
        second: <u^2>.

    Returns:
        m: alpha_c(eps) >= capacity(kappa + m).
    """
    if not kick >= 0 or not np.isfinite(kick):
        raise PackingError(f"the kick is {kick}; it must be at least 0 and finite")
    return kick * second / (2 * first)
