"""Gardner's capacity, Cover's count and the margin that a kick costs."""

from math import comb

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq, linprog

from packing_jax.errors import PackingError
from packing_jax.networks.theory.perceptron import (
    capacity,
    log_separable_share,
    margin_at,
    margin_spent,
    separable_share,
    violated_share,
)


def test_published_capacities():
    np.testing.assert_allclose(capacity([0.0, 1.0]), [2.0, 0.5196], atol=5e-5)
    np.testing.assert_allclose(capacity(margin_spent(0.1)), 1.897, atol=5e-4)
    np.testing.assert_allclose(capacity(1 + margin_spent(0.1)), 0.5005, atol=5e-5)


@pytest.mark.parametrize("kappa", [-30.0, -5.0, -2.0001, -1.9999, -0.5, 0.3, 4.0, 50.0])
def test_capacity_is_the_integral(kappa):
    with mpmath.workdps(30):
        most = kappa + 15 if kappa > 0 else 75 / (5 - kappa)
        integral = mpmath.quad(lambda t: t**2 * mpmath.npdf(t - kappa), mpmath.linspace(0, most, 40))
    np.testing.assert_allclose(capacity(kappa), float(1 / integral), rtol=1e-9)


def test_margin_at_is_the_inverse():
    for kappa in (-20.0, -1.0, 0.0, 1.0, 30.0):
        assert margin_at(float(capacity(kappa))) == pytest.approx(kappa, abs=1e-10)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(PackingError, match="alpha"):
            margin_at(wrong)


@pytest.mark.parametrize(("P", "N"), [(1, 1), (5, 2), (7, 7), (8, 7), (40, 20), (60, 20), (300, 290), (1000, 100)])
def test_share_is_covers_sum(P, N):
    exact = sum(comb(P - 1, k) for k in range(N))
    np.testing.assert_allclose(
        float(log_separable_share(P, N)), float(mpmath.log(exact) - (P - 1) * mpmath.log(2)), rtol=1e-11, atol=1e-15
    )
    assert float(separable_share(P, N)) == pytest.approx(float(mpmath.mpf(exact) / 2 ** (P - 1)), rel=1e-10)


def test_share_at_any_size():
    assert separable_share(2 * 10**6, 10**6) == pytest.approx(0.5, abs=1e-8)
    assert separable_share(10, 10) == 1
    few = log_separable_share([10**7, 10**4], [10**6, 10])
    assert np.isfinite(few).all()
    assert (few < -1000).all()
    # entropy of a share x of ones: log2 = h(x) - 1, to leading order
    assert few[0] / 1e7 == pytest.approx(-(0.1 * np.log(0.1) + 0.9 * np.log(0.9)) - np.log(2), rel=1e-4)


def test_share_by_linear_programming():
    """Random instances of 14 patterns on 8 weights; 5 binomial errors, a false alarm in 1e6."""
    rng, P, N, draws = np.random.default_rng(1), 14, 8, 400
    found = 0
    for _ in range(draws):
        found += linprog(np.zeros(N), -rng.standard_normal((P, N)), -np.ones(P), bounds=(None, None)).status == 0
    share = float(separable_share(P, N))
    assert abs(found / draws - share) < 5 * np.sqrt(share * (1 - share) / draws)


def test_overlap_with_a_solution_grows_at_the_margin_spent():
    """The step that the argument adds up, at N = 1e4, drawn 4000 times: w gains on w* above eps/3, and not below."""
    rng, N, kick, kappa = np.random.default_rng(0), 10**4, 0.3, 0.5
    # w = w*, and a violated pattern whose overlap is kappa with w and kappa + m with w*: the worst case of the bound
    gains = []
    for excess in (-0.02, 0.02):
        m = margin_spent(kick) + excess
        u = rng.random(4000)
        w = np.array([np.sqrt(N), 0.0])
        grown = w @ w + kick * u * (kappa + m)
        length = np.sqrt(N + 2 * kick * u * kappa + (kick * u) ** 2)
        gains.append(np.mean(grown / length * np.sqrt(N)) - N)
    assert gains[0] < 0 < gains[1]
    assert margin_spent(0.2, first=0.25, second=0.25) == pytest.approx(0.1)  # eps/2 at any batch fraction


def test_bad_input():
    with pytest.raises(PackingError, match="-37"):
        capacity(-40.0)
    with pytest.raises(PackingError, match="margin"):
        capacity([0.0, np.nan])
    with pytest.raises(PackingError, match="whole numbers"):
        separable_share(10.0, 5)
    with pytest.raises(PackingError, match="from 1 on"):
        separable_share([5, 0], 3)
    with pytest.raises(PackingError, match="kick"):
        margin_spent(-0.1)


@pytest.mark.parametrize(("alpha", "kappa"), [(0.56, 1.0), (0.7, 1.0), (2.05, 0.0), (3.0, 0.0), (50.0, 0.5)])
def test_violated_share_by_quadrature(alpha, kappa):
    z = np.linspace(-12, 12, 400_001)
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])

    def mean(values):
        return float(np.sum(values * weight))

    x = brentq(lambda x: alpha * mean(np.minimum(x, np.maximum(0, kappa - z)) ** 2) - 1, 1e-6, 12)
    assert violated_share(alpha, kappa) == pytest.approx(mean(np.minimum(1, np.maximum(0, kappa - z) / x)), rel=1e-6)


def test_violated_share_begins_at_capacity_with_a_logarithm():
    """f sqrt(2 ln 1/d) tends to E max(0, kappa - z), slowly; and there is none below capacity."""
    assert violated_share(0.99 * float(capacity(1.0)), 1.0) == 0
    shares = [violated_share((1 + d) * float(capacity(1.0)), 1.0) for d in (1e-2, 1e-4, 1e-8)]
    assert shares[0] > shares[1] > shares[2] > 0.15
    with pytest.raises(PackingError, match="alpha is -1"):
        violated_share(-1.0, 0.0)
