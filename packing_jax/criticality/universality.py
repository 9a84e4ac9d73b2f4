"""Universality classes: published exponents with their sources, and how far a measurement is from each class.

Sources. Manna (conserved directed percolation): Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004), whose table this is;
mean field for d >= 4. Directed percolation, for contrast: d = 1 Jensen, J. Phys. A 32, 5233 (1999); d = 2 Voigt and
Ziff, Phys. Rev. E 56, R6241 (1997), with nu_perp and nu_par of Grassberger and Zhang, Physica A 224, 169 (1996); d = 3
Jensen, Phys. Rev. A 45, R563 (1992); as collected by Luebeck and by Hinrichsen, Adv. Phys. 49, 815 (2000). The
hyperuniformity exponents are Hexner and Levine, Phys. Rev. Lett. 114, 110602 (2015); they give no errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import chdtrc

from packing_jax.errors import PackingError

Measured = Mapping[str, tuple[float, float]]

NAMES = ("beta", "nu_perp", "nu_par", "z", "gamma_prime", "beta/nu_perp", "alpha", "hyperuniformity")
"""Names of exponents; alpha is that of the decay at phi_c, and beta/nu_perp comes from a data collapse."""

# compared, but not in chi^2: alpha depends on the initial correlations, the hyperuniformity exponent has no known error
_REPORTED = ("alpha", "hyperuniformity")
_SYMBOLS = {"gamma_prime": "gamma'"}


@dataclass(frozen=True)
class UniversalityClass:
    """Exponents of a class in d dimensions, (value, stderr) by name; a stderr of 0 where exact or not published."""

    name: str
    dim: int  #: for mean field the smallest dimension it holds in
    exponents: Mapping[str, tuple[float, float]]


def _class(name: str, dim: int, **exponents: tuple[float, float]) -> UniversalityClass:
    (beta, db), (nu, dn) = exponents["beta"], exponents["nu_perp"]
    ratio = beta / nu, beta / nu * float(np.hypot(db / beta, dn / nu))
    return UniversalityClass(name, dim, {**exponents, "beta/nu_perp": ratio})


_MEAN_FIELD = {
    "beta": (1.0, 0.0),
    "nu_perp": (0.5, 0.0),
    "nu_par": (1.0, 0.0),
    "z": (2.0, 0.0),
    "gamma_prime": (0.0, 0.0),
    "alpha": (1.0, 0.0),
}

CLASSES: tuple[UniversalityClass, ...] = (
    _class(
        "Manna",
        1,
        beta=(0.382, 0.019),
        nu_perp=(1.347, 0.091),
        nu_par=(1.876, 0.135),
        z=(1.393, 0.037),
        gamma_prime=(0.55, 0.04),
        alpha=(0.141, 0.024),
        hyperuniformity=(0.43, 0.0),
    ),
    _class(
        "Manna",
        2,
        beta=(0.639, 0.009),
        nu_perp=(0.799, 0.014),
        nu_par=(1.225, 0.029),
        z=(1.533, 0.024),
        gamma_prime=(0.367, 0.019),
        alpha=(0.419, 0.015),
        hyperuniformity=(0.45, 0.0),
    ),
    _class(
        "Manna",
        3,
        beta=(0.840, 0.012),
        nu_perp=(0.593, 0.013),
        nu_par=(1.081, 0.027),
        z=(1.823, 0.023),
        gamma_prime=(0.152, 0.017),
        alpha=(0.745, 0.017),
        hyperuniformity=(0.24, 0.0),
    ),
    _class(
        "directed percolation",
        1,
        beta=(0.276486, 8e-6),
        nu_perp=(1.096854, 4e-6),
        nu_par=(1.733847, 6e-6),
        z=(1.580745, 1e-5),
        gamma_prime=(0.543882, 1.6e-5),
        alpha=(0.159464, 6e-6),
    ),
    _class(
        "directed percolation",
        2,
        beta=(0.5834, 0.0030),
        nu_perp=(0.7333, 0.0075),
        nu_par=(1.2950, 0.0060),
        z=(1.7660, 0.0016),
        gamma_prime=(0.2998, 0.0162),
        alpha=(0.4505, 0.0010),
    ),
    _class(
        "directed percolation",
        3,
        beta=(0.813, 0.009),
        nu_perp=(0.584, 0.005),
        nu_par=(1.110, 0.010),
        z=(1.901, 0.005),
        gamma_prime=(0.126, 0.023),
        alpha=(0.732, 0.004),
    ),
    _class("mean field", 4, **_MEAN_FIELD),
)
"""All classes in all dimensions; `classes_in` selects those of one dimension."""


@dataclass(frozen=True)
class Comparison:
    """One exponent against one class; `deviation` in standard deviations of measurement and reference together."""

    name: str
    value: float
    stderr: float
    reference: float
    reference_stderr: float
    deviation: float


@dataclass(frozen=True)
class Match:
    """A class against all measured exponents; `chance` is the probability of a larger chi^2 if the class is right."""

    name: str
    comparisons: tuple[Comparison, ...]
    chi2: float
    dof: int
    chance: float


@dataclass(frozen=True)
class Verdict:
    """How far a measurement is from each class of its dimension, the nearest first, and the same as `text`."""

    dim: int
    matches: tuple[Match, ...]
    text: str


def classes_in(dim: int) -> tuple[UniversalityClass, ...]:
    """Manna and directed percolation for d < 4; mean field for d >= 4, where both have its exponents."""
    return tuple(one for one in CLASSES if one.dim == dim or (one.dim == 4 and dim > 4))


def verdict(measured: Measured, dim: int) -> Verdict:
    """Measured exponents against the classes of dimension d, in standard deviations and in words.

    deviation = (value - reference)/sqrt(stderr^2 + reference_stderr^2), and chi^2 is the sum of their squares, as if
    the exponents were measured independently: exponents from one data set count a little too much. alpha and the
    hyperuniformity exponent are compared, but are not in chi^2. Where three exponents are related, one must be left
    out: beta, nu_perp and beta/nu_perp; nu_par, nu_perp and z; and, up to d = 4, gamma' = d nu_perp - 2 beta with two
    of the first three.

    Args:
        measured: (value, stderr) by name, see `NAMES`.
        dim: dimension of the system.

    Raises:
        PackingError: an unknown name, an error that is not positive, related exponents, none that enters chi^2, or a
            dimension below 1.
    """
    if dim < 1 or dim % 1:
        raise PackingError(f"the dimension is {dim}; it must be a whole number, 1 or more")
    for name, (value, stderr) in measured.items():
        if name not in NAMES:
            raise PackingError(f"the exponent {name!r} is not known; they are {', '.join(NAMES)}")
        if not (np.isfinite([value, stderr]).all() and stderr > 0):
            raise PackingError(f"{name} is {value} +- {stderr}; both must be finite and the error positive")
    spatial = ("beta", "nu_perp", "beta/nu_perp")
    hyperscaling = [("gamma_prime", *two) for two in combinations(spatial, 2)] if dim <= 4 else []
    for three in (spatial, ("nu_par", "nu_perp", "z"), *hyperscaling):
        if measured.keys() >= set(three):
            raise PackingError(f"{three[0]}, {three[1]} and {three[2]} are two numbers: leave one of the three out")
    if not set(measured) - set(_REPORTED):
        raise PackingError(f"a verdict needs an exponent other than {' and '.join(_REPORTED)}: they tell no class")
    matches = sorted((_match(measured, one) for one in classes_in(dim)), key=lambda match: match.chi2)
    return Verdict(dim, tuple(matches), _sentences(matches, dim))


def _match(measured: Measured, against: UniversalityClass) -> Match:
    comparisons = []
    for name, (value, stderr) in measured.items():
        if name in against.exponents:
            reference, reference_stderr = against.exponents[name]
            deviation = (value - reference) / float(np.hypot(stderr, reference_stderr))
            comparisons.append(Comparison(name, value, stderr, reference, reference_stderr, deviation))
    judged = [one.deviation for one in comparisons if one.name not in _REPORTED]
    chi2, dof = float(np.sum(np.square(judged))), len(judged)
    return Match(against.name, tuple(comparisons), chi2, dof, float(chdtrc(dof, chi2)))


def _sentences(matches: list[Match], dim: int) -> str:
    lines = []
    for match in matches:
        worst = max((one for one in match.comparisons if one.name not in _REPORTED), key=lambda one: abs(one.deviation))
        side = "above" if worst.deviation > 0 else "below"
        symbol = _SYMBOLS.get(worst.name, worst.name)
        lines.append(
            f"{match.name} in {dim}D is {'compatible' if match.chance > 0.05 else 'unlikely'} "
            f"(chi2 {match.chi2:.1f} for {match.dof}, chance {match.chance:.2g}); the exponent farthest from it is "
            f"{symbol} = {worst.value:.3f} +- {worst.stderr:.3f}, {abs(worst.deviation):.1f} standard deviations "
            f"{side} {worst.reference:.3f}."
        )
    left = [match.name for match in matches if match.chance > 0.05]
    if not left:
        lines.append("None of these classes fits: look for corrections to scaling before claiming a new one.")
    elif len(left) > 1:
        lines.append(f"These data do not tell {' from '.join(left)}.")
    return " ".join(lines)
