"""Jamming points and scaling above them, by hand with ``pytest -m validation``, into tests/validation/jamming.json."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pytest

from packing_jax import HARMONIC, System, mixture_1_to_1_4
from packing_jax.landscape.contacts import contacts
from packing_jax.landscape.jamming import bisect, follow, force_distribution, jam, mechanics
from packing_jax.store import provenance

RESULTS = Path(__file__).parent / "validation" / "jamming.json"
PARTICLES = 1000

pytestmark = pytest.mark.validation


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def keep(name: str, row: dict) -> None:
    """Write one row of the results, leaving the others as they are."""
    RESULTS.parent.mkdir(exist_ok=True)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows[name] = {**row, "versions": provenance()}
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")


def start(dim: int, phi: float, seed: int) -> tuple[System, np.ndarray]:
    sizes = mixture_1_to_1_4(PARTICLES) if dim == 2 else None
    system = System.create(phi, PARTICLES, dim, sizes=sizes, energy=HARMONIC, dtype=np.float64)
    return system, np.random.default_rng(seed).random((PARTICLES, dim))


@pytest.mark.parametrize(("dim", "target", "within", "packings"), [(2, 0.842, 0.003, 6), (3, 0.639, 0.004, 3)])
def test_phi_j_and_the_scaling_above_it(dim, target, within, packings):
    """phi_J of fast quenches within the reported band; exponents of E, p and dZ 2, 1 and 1/2 within 0.05.

    The reported phi_J are for N to infinity; at N = 1000 phi_J is lower by about 0.12 N^(-1/(0.71 d)): 0.0009 in 2D and
    0.0047 in 3D (O'Hern et al. 2003). Exponents are slopes over 5e-4 <= dphi <= 2e-2, the mean of two packings.
    """
    clock = time.time()
    points = []
    for seed in range(packings):
        system, positions = start(dim, target, seed)
        points.append(jam(system, positions))
    phi = np.array([point.phi for point in points])

    dphi = np.geomspace(5e-4, 2e-2, 6)
    rows, slopes, networks = [], [], []
    for point in points[:2]:
        minima = list(follow(point.minimum, point.phi + dphi))
        numbers = [mechanics(minimum) for minimum in minima]
        networks.append(contacts(minima[0]))
        n0 = PARTICLES * (1 - np.array([one.rattlers for one in numbers]))
        columns = {
            "energy": [one.energy for one in numbers],
            "pressure": [one.pressure for one in numbers],
            "dZ": 2 * np.array([one.excess_contacts for one in numbers]) / n0,
            "shear_modulus": [one.shear_modulus for one in numbers],
        }
        slopes.append({k: float(np.polyfit(np.log(dphi), np.log(v), 1)[0]) for k, v in columns.items()})
        rows.append([asdict(one) for one in numbers])
    forces = force_distribution(networks, np.linspace(0, 5, 21))
    mean = {name: float(np.mean([one[name] for one in slopes])) for name in slopes[0]}
    keep(
        f"phi_J, {dim}D, compression and decompression",
        {
            "target": f"{target} +- {within}",
            "value": float(phi.mean()),
            "stderr": float(phi.std(ddof=1) / packings**0.5),
            "packings": phi.tolist(),
            "start": f"independent uniform positions quenched at phi = {target}, FIRE to 1e-12",
            "particles": PARTICLES,
            "quenches": [point.quenches for point in points],
            "seconds": round(time.time() - clock),
        },
    )
    keep(
        f"scaling above phi_J, {dim}D harmonic",
        {
            "target": "exponents: energy 2, pressure 1, dZ 0.50 +- 0.05",
            "value": mean,
            "dphi": dphi.tolist(),
            "slopes": slopes,
            "rows": rows,
            "force_distribution": {
                "dphi": float(dphi[0]),
                "edges": forces.edges.tolist(),
                "density": forces.density.tolist(),
                "stderr": forces.stderr.tolist(),
            },
        },
    )
    assert abs(phi.mean() - target) < within
    assert abs(mean["energy"] - 2) < 0.05
    assert abs(mean["pressure"] - 1) < 0.05
    assert abs(mean["dZ"] - 0.5) < 0.05


@pytest.mark.parametrize(("dim", "low", "high", "target", "within"), [(2, 0.82, 0.86, 0.842, 0.003)])
def test_phi_j_by_bisection(dim, low, high, target, within):
    """Independent quenches of the same start find the same phi_J."""
    clock = time.time()
    points = []
    for seed in range(3):
        system, positions = start(dim, target, seed)
        points.append(bisect(system, positions, low, high))
    phi = np.array([point.phi for point in points])
    keep(
        f"phi_J, {dim}D, bisection",
        {
            "target": f"{target} +- {within}",
            "value": float(phi.mean()),
            "stderr": float(phi.std(ddof=1) / phi.size**0.5),
            "packings": phi.tolist(),
            "particles": PARTICLES,
            "seconds": round(time.time() - clock),
        },
    )
    assert abs(phi.mean() - target) < within
