"""Vibrations of a jammed packing of 2000 particles: `pytest -m validation -k spectrum`; a row goes to spectrum.json."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import keep

from packing_jax import HARMONIC, System, mixture_1_to_1_4
from packing_jax.landscape.curvature import density_of_states, exact_spectrum, participation_ratio
from packing_jax.landscape.forces import force_network
from packing_jax.landscape.minima import energy_function, minimise

pytestmark = pytest.mark.validation

PARTICLES, PHI, PROBES, ITERATIONS = 2000, 0.90, 20, 300


def test_spectrum_of_a_packing_of_2000():
    """Target: stochastic Lanczos counts the eigenvalues below ten quantiles as diagonalisation does.

    Each of ten counts is within 4 standard errors and 0.002 of the exact one: a false alarm in 1 of 1500 runs. All
    but the zero modes of rattlers and translations are positive.
    """
    clock = time.time()
    with jax.enable_x64(True):
        system = System.create(PHI, PARTICLES, 2, sizes=mixture_1_to_1_4(PARTICLES), energy=HARMONIC, dtype=np.float64)
        minimum = minimise(system, np.random.default_rng(1).random((PARTICLES, 2)))
        minimum.require_converged()
        energy, y = energy_function(system, minimum.rows), minimum.positions / system.unit
        began = time.time()
        exact = exact_spectrum(energy, y)
        values = np.asarray(exact.eigenvalues)
        exact_took = time.time() - began
        began = time.time()
        states = jax.jit(lambda y: density_of_states(energy, y, jax.random.key(2), PROBES, ITERATIONS))(y)
        at = np.quantile(values, np.linspace(0.05, 0.95, 10))
        count = states.cumulative(jnp.asarray(at))
        lanczos_took = time.time() - began
        wanted = np.mean(values[None] <= at[:, None], axis=1)
        difference = np.asarray(count.value) - wanted
        shares = np.asarray(participation_ratio(exact.modes, 2))
        rattlers = int(force_network(minimum).rattlers.sum())
    frequency = np.sqrt(np.maximum(values, 0.0))
    moving = values > 1e-9
    edges = np.linspace(0.0, frequency.max() * (1 + 1e-9), 31)
    place = np.digitize(frequency[moving], edges) - 1
    met = bool(np.all(np.abs(difference) < 4 * np.asarray(count.stderr) + 0.002))
    keep(
        "spectrum.json",
        "density of states of a 2D packing by stochastic Lanczos: largest difference to the exact counts",
        {
            "target": "within 4 standard errors and 0.002 at ten quantiles",
            "value": float(np.abs(difference).max()),
            "stderr": float(np.asarray(count.stderr)[np.abs(difference).argmax()]),
            "met": met,
            "counts": [wanted.tolist(), np.asarray(count.value).tolist(), np.asarray(count.stderr).tolist()],
            "lowest": float(values[0]),
            "zero_modes": int((~moving).sum()),
            "rattlers": rattlers,
            "frequencies": {
                "edges": edges.tolist(),
                "modes": np.bincount(place, minlength=30).tolist(),
                "participation": [
                    float(shares[moving][place == k].mean()) if (place == k).any() else None for k in range(30)
                ],
            },
            "exact_seconds": exact_took,
            "lanczos_seconds": lanczos_took,
            "particles": PARTICLES,
            "phi": PHI,
            "seed": 1,
            "seconds": time.time() - clock,
        },
    )
    assert met
    assert values[0] > -1e-9
    assert (~moving).sum() == 2 * rattlers + 2
