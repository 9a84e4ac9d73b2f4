"""Draws of known models for each estimator: whether its 95 % intervals hold the truth."""

import numpy as np
from pretend import Pretend, settings
from synthetic import (
    AMPLITUDE,
    BETA,
    decays,
    final_activities,
    relaxations,
    scaled_activities,
)

from packing_jax.criticality import (
    collapse,
    exponent,
    half_absorbed_phi_c,
    power_law_phi_c,
    relaxation_phi_c,
    straightest_decay_phi_c,
    threshold_phi_c,
    time_collapse,
    zero_kick_limit,
)
from packing_jax.criticality.search import refine
from packing_jax.errors import PackingError

PHI = np.linspace(0.61, 0.67, 13)
KICK, KICK_ERROR = np.array([0.02, 0.05, 0.1, 0.2]), np.array([0.004, 0.003, 0.002, 0.002])


def _power_law(rng, replicas=4):
    phi_c = 0.628 + 0.005 * rng.random()
    fit = power_law_phi_c(PHI, final_activities(rng, PHI, replicas, phi_c), draws=50)
    return {"phi_c": (fit.interval, phi_c), "beta": (fit.beta_interval, BETA)}


def _threshold(rng):
    phi_c = 0.628 + 0.005 * rng.random()
    fit = threshold_phi_c(PHI, final_activities(rng, PHI, 4, phi_c), draws=100)
    return {"crossing": (fit.interval, phi_c + (0.1 / AMPLITUDE) ** (1 / BETA))}


def _decay(rng, replicas=8):
    phi_c = 0.638 + 0.005 * rng.random()
    time, f_a = decays(rng, PHI, replicas, phi_c)
    fit = straightest_decay_phi_c(time, PHI, f_a, draws=200)
    return {"phi_c": (fit.interval, phi_c), "alpha": (fit.alpha_interval, 0.7)}


def _relaxation(rng, replicas=6):
    phi, phi_c = np.linspace(0.60, 0.68, 17), 0.637 + 0.005 * rng.random()
    time, f_a, absorbed_at = relaxations(rng, phi, replicas, phi_c)
    fit = relaxation_phi_c(time, phi, f_a, absorbed_at, draws=50)
    return {"phi_c": (fit.interval, phi_c), "nu_par": (fit.nu_par_interval, 1.1)}


def _half_absorbed(rng, replicas=8):
    phi_c = 0.637 + 0.005 * rng.random()
    gone = rng.random((len(PHI), replicas)) < 1 / (1 + np.exp((PHI - phi_c) / 0.004))[:, None]
    return {"phi_c": (half_absorbed_phi_c(PHI, gone.astype(float)).interval, phi_c)}


def _exponent(rng):
    phi, known = np.linspace(0.64, 0.67, 8), 0.63 + 0.001 * rng.standard_normal()
    y = 2 * (phi - 0.63)[:, None] ** -0.4 * np.exp(0.15 * rng.standard_normal((8, 6)))
    return {"gamma_prime": (exponent(phi, y, known, 0.001, draws=200).interval, -0.4)}


def _collapse(rng):
    phi, sizes = np.linspace(0.60, 0.68, 13), [8, 12, 18]
    fit = collapse(sizes, [phi] * 3, scaled_activities(rng, phi, sizes, 6, 0.64))
    return {
        "phi_c": (fit.phi_c.interval, 0.64),
        "nu_perp": (fit.nu.interval, 0.8),
        "beta/nu_perp": (fit.prefactor.interval, 0.8),
    }


def _time_collapse(rng):
    """f_a = L^-0.4 u^-0.27 e^-u, u = t L^-1.5, each of 16 runs with a tilt and a random walk in ln t."""
    sizes, times, records = [32, 64, 128], [], []
    for size in sizes:
        time = np.unique(np.round(np.geomspace(4, 4 * size**1.5, 20)))
        u = time / size**1.5
        walk = rng.standard_normal((16, 1)) + 0.3 * np.cumsum(rng.standard_normal((16, len(time))), axis=1)
        times.append(time)
        records.append(size**-0.4 * u**-0.27 * np.exp(0.05 * walk - u))
    fit = time_collapse(sizes, times, records)
    return {"z": (fit.z.interval, 1.5), "beta/nu_perp": (fit.prefactor.interval, 0.4)}


def _search(rng):
    """phi_h = phi_c - 0.004 x + b x^2, x = (N/256)^-omega: the search fits it without b, until its budget ends."""
    phi_c, b = 0.55 + 0.01 * rng.random(), 0.002 * rng.integers(-1, 2)
    found = refine(settings(), Pretend(int(rng.integers(2**31)), phi_c, b=b), lambda *_: None)
    return {"phi_c": (found.interval, phi_c)}


def _zero_kick(rng, bend):
    """A line, or a parabola whose bend is about two of its standard errors."""
    phi_c = 0.64 - 0.8 * KICK + bend * KICK**2 + KICK_ERROR * rng.standard_normal(4)
    limit = zero_kick_limit(KICK, phi_c, KICK_ERROR)
    found = {"limit": (limit.interval, 0.64)}
    if not bend:
        found["line"] = next(form for form in limit.forms if form.name == "linear").interval, 0.64
    return found


CASES = {
    "power law, 4 replicas": _power_law,
    "power law, 8 replicas": lambda rng: _power_law(rng, 8),
    "threshold": _threshold,
    "straightest decay, 8 replicas": _decay,
    "straightest decay, 4 replicas": lambda rng: _decay(rng, 4),
    "relaxation, 6 replicas": _relaxation,
    "relaxation, 4 replicas": lambda rng: _relaxation(rng, 4),
    "half absorbed, 8 replicas": _half_absorbed,
    "half absorbed, 4 replicas": lambda rng: _half_absorbed(rng, 4),
    "exponent of fluctuations": _exponent,
    "collapse": _collapse,
    "time collapse": _time_collapse,
    "zero kick, straight": lambda rng: _zero_kick(rng, 0.0),
    "zero kick, bent": lambda rng: _zero_kick(rng, 0.8),
    "adaptive search": _search,
    "half absorbed, 1600 replicas": lambda rng: _half_absorbed(rng, 1600),
}

CONSERVATIVE = ("threshold",)  # a bracket of the scan: more than 97 times in 100, as its docstring says


def coverage(case, draws):
    """{quantity: times the interval held the truth}, and how often the estimator refused."""
    hits, refused = {}, 0
    for draw in range(draws):
        try:
            found = CASES[case](np.random.default_rng([draw, list(CASES).index(case)]))
        except PackingError:
            refused += 1
            continue
        for quantity, ((low, high), truth) in found.items():
            hits[quantity] = hits.get(quantity, 0) + (low <= truth <= high)
    return hits, refused
