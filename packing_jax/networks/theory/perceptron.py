r"""The spherical perceptron: Gardner's capacity, Cover's count, and where absorption is guaranteed at a finite kick.

The weights, |w|^2 = N, must satisfy xi_mu.w/sqrt(N) >= kappa for P patterns xi_mu (labels included); alpha = P/N.
"""

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, erfcx, logsumexp, ndtr

from packing_jax.errors import PackingError
from packing_jax.networks.theory import Numbers

_SMALLEST = -37.0  # below, the capacity overflows
_TAIL = 8.0  # standard deviations beyond which a Gaussian tail is below rounding


def capacity(kappa: Numbers) -> Any:
    """Gardner's alpha_c(kappa): 1/alpha_c = Int_{-kappa}^inf (z + kappa)^2 Dz.

    The integral is (1 + kappa^2) Phi(kappa) + kappa phi(kappa): alpha_c(0) = 2, alpha_c(1) = 0.5196 (reference:
    section 0; E. Gardner, J. Phys. A 21, 257, 1988). Exact for kappa >= 0. Below 0 the problem is not convex, and this
    is the replica-symmetric value: an upper bound. Relative rounding is 1e-16 kappa^4 far below 0.

    Args:
        kappa: margins, at least -37 (below, alpha_c overflows).

    Raises:
        PackingError: a margin below -37, or not finite.
    """
    kappa = np.asarray(kappa, float)
    if not (np.isfinite(kappa) & (kappa >= _SMALLEST)).all():
        raise PackingError(f"a margin must be finite and at least {_SMALLEST:g}")
    density = np.exp(-(kappa**2) / 2) / np.sqrt(2 * np.pi)
    plain = (1 + kappa**2) * ndtr(kappa) + kappa * density
    # the same with the density factored out, which keeps its digits far below 0
    below = np.minimum(kappa, 0)
    tail = density * ((1 + below**2) * np.sqrt(np.pi / 2) * erfcx(-below / np.sqrt(2)) + below)
    return 1 / np.where(kappa < 0, tail, plain)


def margin_at(alpha: float) -> float:
    """The margin kappa whose capacity is alpha: the largest one at which P = alpha N random patterns can be satisfied.

    Raises:
        PackingError: alpha not above 0 and finite.
    """
    if not (0 < alpha < float(capacity(_SMALLEST))):
        raise PackingError(f"alpha is {alpha:g}; it must be above 0 and finite")
    highest = 1 + 1 / np.sqrt(alpha)  # 1/alpha_c > kappa^2 for kappa > 0
    return float(brentq(lambda kappa: np.log(capacity(kappa) / alpha), _SMALLEST, highest, xtol=1e-14))


def violated_share(alpha: float, kappa: float) -> float:
    """Activity in the limit of small kicks: the share of patterns that are violated.

    BRO descends the linear hinge sum max(0, Delta) on average. At its minimum above capacity, a pattern z ~ N(0, 1)
    exerts a mean force min(1, max(0, kappa - z)/x), which is the share of time in which it is violated; x follows from

        alpha E min(x, max(0, kappa - z))^2 = 1,   f = E min(1, max(0, kappa - z)/x).

    At and below capacity x is infinite and f = 0. Just above, alpha/alpha_c - 1 is a Gaussian tail beyond x, so that f
    vanishes as 1/sqrt(2 ln 1/(alpha - alpha_c)): more slowly than any power. Derived in replica symmetry, which is
    exact where the problem is convex, kappa >= 0.

    Args:
        alpha: patterns per weight.
        kappa: the margin, at least 0.

    Raises:
        PackingError: alpha or the margin out of range.
    """
    if not (0 < alpha < np.inf and 0 <= kappa < np.inf):
        raise PackingError(
            f"alpha is {alpha:g} and the margin {kappa:g}; the first must be above 0, the second at least 0"
        )

    def moments(x: float) -> tuple[float, float]:
        """E min(x, max(0, kappa - z)) and of its square."""
        first, second = _positive_part(kappa)
        beyond, square = _positive_part(kappa - x)
        return first - beyond, second - square - 2 * x * beyond

    if alpha <= float(capacity(kappa)):
        return 0.0
    highest = kappa + _TAIL
    if alpha * moments(highest)[1] <= 1:
        x = highest  # closer to capacity than floats resolve
    else:
        x = float(brentq(lambda x: alpha * moments(x)[1] - 1, 0.0, highest, xtol=1e-13))
    return moments(x)[0] / x


def _positive_part(shift: float) -> tuple[float, float]:
    """E max(0, shift - z) and E max(0, shift - z)^2, z ~ N(0, 1)."""
    density, below = np.exp(-(shift**2) / 2) / np.sqrt(2 * np.pi), ndtr(shift)
    return float(shift * below + density), float((1 + shift**2) * below + shift * density)


def separable_share(patterns: Numbers, weights: Numbers) -> Any:
    """Cover's share of satisfiable instances at kappa = 0: 2^(1-P) sum_{k<N} C(P-1, k), exact at every N and P.

    For patterns in general position and random labels, such as Gaussian ones (T. M. Cover, IEEE Trans. EC-14, 326,
    1965). One half at P = 2N. Where it underflows, use :func:`log_separable_share`.

    Args:
        patterns: P >= 1.
        weights: N >= 1.
    """
    return np.exp(log_separable_share(patterns, weights))


def log_separable_share(patterns: Numbers, weights: Numbers) -> Any:
    """The natural logarithm of Cover's share, with a rounding error of about 1e-15 P.

    Raises:
        PackingError: numbers that are not whole and at least 1.
    """
    P, N = np.asarray(patterns), np.asarray(weights)
    if not all(one.dtype.kind in "iu" and (one >= 1).all() for one in (P, N)):
        raise PackingError("numbers of patterns and of weights must be whole numbers from 1 on")
    return np.vectorize(_log_share, otypes=[float])(P, N)[()]


def _log_share(P: int, N: int) -> float:
    """log P(X < N) for X binomial(P - 1, 1/2), from the smaller tail."""
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
    """The margin that a finite kick costs: absorption is guaranteed where kappa + eps <u^2>/(2<u>) can be satisfied.

    A violated pattern moves the weights by eps u xi/sqrt(N), then back to the sphere. Let w* satisfy all patterns at
    the margin kappa + m. To first order in 1/N, the product D = w.w* changes at a step by

        dD = eps sum_mu [ u_mu xi_mu.w*/sqrt(N) - (D/N)( u_mu xi_mu.w/sqrt(N) + (eps/2) u_mu^2 ) ]
           >= eps sum_mu [ u_mu (kappa + m) - (D/N)( kappa u_mu + (eps/2) u_mu^2 ) ],

    which is positive on average for every D <= N as soon as m > eps <u^2>/(2<u>). D cannot exceed N, so that only a
    finite number of violations can occur. For u uniform on [0, 1] (BRO) that is eps/3; for u = 0 or 1 (the linear hinge
    on a minibatch) eps/2, whatever the batch fraction. Neglected is the correlation between the kicks of a step,
    |sum u g|^2 - sum u^2, of relative order (number of violated patterns)/N, which vanishes as activity does. Derived
    (reference: section 0, whose eps/3 is right). This is a bound from one side: absorption may also occur beyond.

    Args:
        kick: eps, the largest step of the weights by one violated pattern, at |w|^2 = N.
        first: <u>.
        second: <u^2>.

    Returns:
        m: alpha_c(eps) >= capacity(kappa + m).

    Raises:
        PackingError: a kick that is negative or not finite.
    """
    if not kick >= 0 or not np.isfinite(kick):
        raise PackingError(f"the kick is {kick}; it must be at least 0 and finite")
    return kick * second / (2 * first)
