"""Learned protocols and designed packings against their baselines: run by hand with ``pytest -m validation``.

The schedule and the shape are those that notebooks/05_gradients and 06_design_a_packing end with, so that their gains
can be confirmed without learning anything. Results go to tests/validation/design.json.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from results import keep

from packing_jax import HARMONIC, System, observables, sgd, simulate
from packing_jax.landscape.jamming import jam

pytestmark = pytest.mark.validation

# --- the schedule of notebooks/05_gradients --------------------------------------------------------------------

STEPS = 100
BEST_CONSTANT = 0.788  #: by a scan of 40 rates, on the seeds that the schedule was trained on
#: learning rates at evenly spaced steps
LEARNED = (0.981, 1.251, 1.247, 1.585, 1.464, 1.667, 1.540, 1.544, 1.352, 1.267, 0.632, 0.249)


def scheduled(*rates: Any) -> optax.GradientTransformation:
    """SGD whose learning rate is interpolated between knots; one knot is a constant."""
    at = np.linspace(0.0, STEPS - 1.0, len(rates), dtype=np.float32)
    return optax.sgd(lambda step: jnp.interp(step.astype(jnp.float32), at, jnp.stack(rates)))


def test_a_learned_schedule_leaves_less_energy_than_the_best_constant_rate() -> None:
    """On starts and draws that neither was chosen on; paired over seeds."""
    particles, seeds, fraction, phi = 256, 64, 0.5, 0.68
    clock = time.time()
    system = System.create(phi, particles, energy=HARMONIC)
    keys = jax.random.split(jax.random.key(3), seeds)  # 1 and 2 are the notebook's
    ends = {}
    for name, rates in (("constant", (BEST_CONSTANT,)), ("learned", LEARNED)):
        rule = sgd(Partial(scheduled, *(jnp.float32(one) for one in rates)), fraction)
        ends[name] = np.asarray(simulate(system, rule, STEPS, keys)["energy"][:, -1], np.float64)
    saved = (ends["constant"] - ends["learned"]) / ends["constant"].mean()
    gain, error = float(saved.mean()), float(saved.std(ddof=1) / seeds**0.5)
    keep(
        "design.json",
        "learned schedule: share of the best constant rate's final energy that is saved",
        {
            "target": "> 0",
            "value": gain,
            "stderr": error,
            "energy": {name: [float(one.mean()), float(one.std(ddof=1) / seeds**0.5)] for name, one in ends.items()},
            "lower_on": float(np.mean(ends["learned"] < ends["constant"])),
            "best_constant": BEST_CONSTANT,
            "learned_rates": list(LEARNED),
            "particles": particles,
            "dim": 3,
            "phi": phi,
            "batch_fraction": fraction,
            "steps": STEPS,
            "replicas": seeds,
            "seed": 3,
            "met": gain > 3 * error,
            "seconds": round(time.time() - clock),
        },
    )
    assert gain > 3 * error


# --- the size distribution of notebooks/06_design_a_packing ----------------------------------------------------

POLYDISPERSITY = 0.3
DESIGNED = (
    1.309,
    0.421,
    -1.187,
)  #: coefficients of P_1, P_2, ... in the log slope of the quantile function; all zero is uniform


def diameters(shape: tuple[float, ...], particles: int) -> np.ndarray:
    """Mean 1, standard deviation POLYDISPERSITY: written again in numpy."""
    u = (np.arange(8 * particles) + 0.5) / (8 * particles)
    rise = np.exp(np.polynomial.legendre.legval(2 * u - 1, (0.0, *shape)))
    q = (np.cumsum(rise) - 0.5 * rise).reshape(particles, 8).mean(axis=1)
    q -= q.mean()
    return 1.0 + POLYDISPERSITY * q / q.std()


def test_a_designed_size_distribution_jams_denser_at_the_same_polydispersity() -> None:
    """phi_J by compressions of new starts; the error is the larger of the paired and the independent one."""
    particles, packings = 128, 24
    clock = time.time()
    phi, order = {}, {}
    with jax.enable_x64(True):
        for name, shape in (("uniform", (0.0,) * len(DESIGNED)), ("designed", DESIGNED)):
            sizes = diameters(shape, particles)
            assert abs(sizes.std() / sizes.mean() - POLYDISPERSITY) < 1e-12
            system = System.create(0.64, particles, 3, sizes=sizes, energy=HARMONIC, dtype=np.float64)
            found = [jam(system, np.random.default_rng([2, seed]).random((particles, 3))) for seed in range(packings)]
            phi[name] = np.array([one.phi for one in found])
            bonds = [observables.steinhardt_order(one.minimum.positions, 1.0) for one in found]
            order[name] = [float(np.mean([np.mean(one.connections >= 7) for one in bonds]))]
            order[name].append(float(np.mean([one.whole for one in bonds])))
    apart = phi["designed"] - phi["uniform"]
    errors = {name: float(one.std(ddof=1) / packings**0.5) for name, one in phi.items()}
    gain = float(apart.mean())
    error = max(float(np.hypot(*errors.values())), float(apart.std(ddof=1) / packings**0.5))
    keep(
        "design.json",
        "designed size distribution: gain in phi_J over the uniform one of the same polydispersity, 3D",
        {
            "target": "> 0",
            "value": gain,
            "stderr": error,
            "phi_J": {name: [float(one.mean()), errors[name]] for name, one in phi.items()},
            "packings": {name: one.tolist() for name, one in phi.items()},
            "in_a_crystal_and_Q6_of_all_bonds": order,
            "polydispersity": POLYDISPERSITY,
            "shape": list(DESIGNED),
            "particles": particles,
            "dim": 3,
            "replicas": packings,
            "seed": 2,
            "start": "independent uniform positions quenched at phi = 0.64, compression and decompression",
            "met": gain > 3 * error,
            "seconds": round(time.time() - clock),
        },
    )
    assert gain > 3 * error
