r"""Jamming of the spherical perceptron at kappa < 0, a mean-field packing problem that is not convex.

The energy 1/2 sum_mu max(0, kappa - h_mu)^2 with h_mu = xi_mu.w/|w| is that of harmonic spheres, and kappa plays the
part of the density. The sphere |w|^2 = N has N - 1 directions; at jamming there is one state of self-stress,
sum_mu f_mu (xi_mu - its radial part) = 0, so that there are N contacts: isostaticity. Source: arXiv:1501.03397,
arXiv:1702.06919; exponents of gaps and forces arXiv:1310.2549.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packing_jax.errors import PackingError

Array = NDArray[np.float64]

_STAGE = 0.3  # share of kappa - kappa_J left after a stage
_MOST_STAGES, _MOST_STEPS = 200, 400
_BALANCE = 1e-9  # largest gradient at a minimum, in units of the total force over sqrt(N)


@dataclass(frozen=True)
class JammedPerceptron:
    """A jammed state just above its kappa_J; contacts are the violated patterns."""

    kappa: float  #: the margin of this state
    jamming: float  #: kappa_J, extrapolated from the remaining overlaps
    weights: Array  #: (N,), |w|^2 = N
    forces: Array  #: (contacts,), of mean 1
    gaps: Array  #: (P - contacts,), h - kappa > 0


def jam_perceptron(patterns: Array, weights: Array, kappa: float, overlap: float = 1e-8) -> JammedPerceptron:
    """A jammed state: minimise at kappa, then follow the minimum down in kappa to where its energy vanishes.

    A minimum of energy E and total force F = dE/dkappa is about 2E/F above kappa_J. Each stage lowers kappa by a part
    of that; where the state unjams, kappa goes back halfway. Minimisation is by the Levenberg-Marquardt method, whose
    curvature is that of the violated patterns alone; the sphere adds nothing at jamming.

    Args:
        patterns: xi, (P, N).
        weights: where the first minimisation starts, (N,).
        kappa: the margin of the first minimisation, above kappa_J.
        overlap: mean overlap of contacts at which the state counts as jammed; below 1e-9 rounding loses weak contacts.

    Raises:
        PackingError: no pattern is violated at the first minimum, or the minimum could not be followed to jamming.
    """
    x = np.asarray(patterns, float)
    w = np.asarray(weights, float) * np.sqrt(x.shape[1] / np.sum(np.square(weights)))
    w = _minimum(x, w, kappa)
    above, below = (kappa, w), -np.inf
    if not (depth := _depth(x, w, kappa)).any():
        raise PackingError(f"the patterns can be satisfied at kappa = {kappa:g}: begin at a larger margin")
    for _ in range(_MOST_STAGES):
        if depth.sum() / np.count_nonzero(depth) < overlap:
            return _described(x, above[1], above[0])
        distance = (depth @ depth) / depth.sum()
        kappa = float(np.maximum(above[0] - (1 - _STAGE) * distance, 0.5 * (above[0] + below)))
        w = _minimum(x, above[1], kappa)
        found = _depth(x, w, kappa)
        if found.any() and found.sum() / np.count_nonzero(found) > 1e-3 * overlap:
            above, depth = (kappa, w), found
        else:
            below = kappa
    raise PackingError("the minimum could not be followed to jamming: begin at a margin nearer to it")


def _depth(x: Array, w: Array, kappa: float) -> Array:
    """Overlaps of all patterns, 0 where satisfied."""
    return np.maximum(kappa - x @ w / np.sqrt(len(w)), 0.0)


def _minimum(x: Array, w: Array, kappa: float) -> Array:
    """Weights of least energy near ``w``, on the sphere."""
    N, damping = len(w), 1e-2
    depth = _depth(x, w, kappa)
    for _ in range(_MOST_STEPS):
        touching = np.flatnonzero(depth)
        if not len(touching):
            return w
        # derivatives of h along the sphere
        slope = (x[touching] - np.outer(x[touching] @ w, w) / N) / np.sqrt(N)
        pull = depth[touching] @ slope
        if np.linalg.norm(pull) <= _BALANCE * depth.sum() / np.sqrt(N):
            return w
        curvature = slope.T @ slope
        for _ in range(40):
            tried = w + np.linalg.solve(curvature + damping * np.eye(N), pull)
            tried *= np.sqrt(N / (tried @ tried))
            after = _depth(x, tried, kappa)
            if after @ after < depth @ depth:
                w, depth, damping = tried, after, max(0.2 * damping, 1e-12)
                break
            damping *= 4.0
        else:
            return w  # no step lowers the energy by more than rounding
    return w


def _described(x: Array, w: Array, kappa: float) -> JammedPerceptron:
    h = x @ w / np.sqrt(len(w))
    depth = kappa - h
    touching = depth > 0
    forces = depth[touching]
    return JammedPerceptron(
        kappa, float(kappa - forces @ forces / forces.sum()), w, forces / forces.mean(), -depth[~touching]
    )
