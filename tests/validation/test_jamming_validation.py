"""Jamming: long checks, run by hand with ``pytest -m validation``; results go to tests/validation/jamming.json."""

import time
from collections.abc import Iterator
from dataclasses import asdict

import jax
import numpy as np
import pytest
from results import keep

from packing_jax import HARMONIC, System, mixture_1_to_1_4
from packing_jax.landscape.forces import force_network
from packing_jax.landscape.jamming import Jamming, bisect, follow, jam, mechanics
from packing_jax.landscape.minima import minimise
from packing_jax.observables import force_distribution

PARTICLES = 512

#: phi_J for N to infinity and what is accepted around it (O'Hern et al., Phys. Rev. E 68, 011306, 2003).
TARGET = {2: (0.842, 0.003), 3: (0.639, 0.004)}

#: What is known of the misses.
NOTES = {
    "phi_J, 3D, compression and decompression": (
        "outside by 0.0004, where the move to infinite N is known to 0.0016; bisection, the protocol of the target's "
        "source, meets it"
    ),
    "scaling above phi_J, 3D harmonic": (
        "the misses are those of the range, 0.0005 to 0.02: the local slope of the pressure falls from 1.11 and 1.14 "
        "at its upper end to 1.00 and 1.03 at the lower one, that of dZ to 0.48 and 0.49"
    ),
}

pytestmark = pytest.mark.validation


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def start(dim: int, seed: int) -> tuple[System, np.ndarray]:
    sizes = mixture_1_to_1_4(PARTICLES) if dim == 2 else None
    system = System.create(TARGET[dim][0], PARTICLES, dim, sizes=sizes, energy=HARMONIC, dtype=np.float64)
    return system, np.random.default_rng(seed).random((PARTICLES, dim))


def shift(dim: int) -> float:
    """How much lower phi_J is at N than at infinity: (0.12 +- 0.03) N^(-1/(0.71 d)), measured by O'Hern et al."""
    return 0.12 * PARTICLES ** (-1 / (0.71 * dim))


def keep_points(name: str, dim: int, points: list[Jamming], clock: float, how: str) -> float:
    """Write phi_J of some packings, and return their mean for N to infinity."""
    phi = np.array([point.phi for point in points])
    at_infinity = float(phi.mean()) + shift(dim)
    keep(
        "jamming.json",
        name,
        {
            "target": "{} +- {}".format(*TARGET[dim]),
            "value": float(phi.mean()),
            "stderr": float(phi.std(ddof=1) / phi.size**0.5),
            "value_at_infinite_N": at_infinity,
            "met": abs(at_infinity - TARGET[dim][0]) < TARGET[dim][1],
            "note": NOTES.get(name),
            "packings": phi.tolist(),
            "start": how,
            "particles": PARTICLES,
            "quenches": [point.quenches for point in points],
            "seconds": round(time.time() - clock),
        },
    )
    return at_infinity


@pytest.mark.parametrize(("dim", "packings"), [(2, 6), (3, 4)])
def test_phi_j_by_compression_and_decompression(dim, packings):
    """The mean over fast quenches, moved to infinite N, is within the reported band.

    A packing's phi_J has a standard deviation of 0.0022 at N = 512 (O'Hern et al.: a full width of 0.16 N^-0.55), and
    the move to infinite N is itself known to 0.0004 in 2D and 0.0016 in 3D. With both, the band is 3.1 standard errors
    in 2D and 2.1 in 3D: false alarms 1 in 500 and 1 in 27.
    The kept run misses the 3D band by 0.0004: 0.6434; bisection, which is the source's protocol, meets it: 0.6424.
    """
    clock = time.time()
    points = [jam(*start(dim, seed)) for seed in range(packings)]
    target, within = TARGET[dim]
    how = f"independent uniform positions quenched at phi = {target}, FIRE to 1e-12"
    value = keep_points(f"phi_J, {dim}D, compression and decompression", dim, points, clock, how)
    assert abs(value - target) < within


@pytest.mark.parametrize(("dim", "packings", "between"), [(2, 2, (0.82, 0.86)), (3, 4, (0.60, 0.67))])
def test_phi_j_by_bisection(dim, packings, between):
    """Every phi quenched afresh from the start, as the source did: the same band.

    It is 1.9 standard errors wide in 2D, false alarm 1 in 18, and 2.1 in 3D, 1 in 27.
    """
    clock = time.time()
    points = [bisect(*start(dim, seed), *between) for seed in range(packings)]
    target, within = TARGET[dim]
    how = "independent uniform positions quenched at every phi, FIRE to 1e-12"
    value = keep_points(f"phi_J, {dim}D, bisection", dim, points, clock, how)
    assert abs(value - target) < within


@pytest.mark.parametrize("dim", [2, 3])
def test_scaling_above_phi_j(dim):
    """Slopes of log E, p and dZ over dphi from 5e-4 to 2e-2, the mean of two packings: 2, 1 and 1/2 within 0.05.

    A quench at phi_J + 0.025 is decompressed, because compression rearranges a packing more and moves its phi_J.
    The energy, an integral of the pressure, may be off by twice as much.
    The kept run misses in 3D: pressure 1.067, dZ 0.5505; 2D is within. The misses are those of the range: between
    neighbouring dphi the slope of the pressure falls from 1.11 and 1.14 at 2e-2 to 1.00 and 1.03 at the smallest dphi,
    as the bulk modulus, constant at phi_J, stiffens with dphi, and p = phi^2 dE/dphi carries phi^2; that of dZ is 0.48
    and 0.49 there (`local_slopes`).
    """
    clock = time.time()
    dphi = np.geomspace(2e-2, 5e-4, 6)
    series, slopes, local, networks = [], [], [], []
    for seed in range(2):
        system, positions = start(dim, seed)
        top = minimise(system.at_phi(TARGET[dim][0] + 0.025), positions)
        rough = jam(top.system, top.positions, step=0.005).phi
        minima = list(follow(top, rough + dphi))
        phi_j = jam(minima[-1].system, minima[-1].positions, step=2e-4).phi
        numbers = [mechanics(minimum) for minimum in minima]
        networks.append(force_network(minima[-1]))
        above = np.log(np.array([one.phi for one in numbers]) - phi_j)
        n0 = PARTICLES * (1 - np.array([one.rattler_fraction for one in numbers]))
        columns = {
            "energy": np.array([one.energy for one in numbers]),
            "pressure": np.array([one.pressure for one in numbers]),
            "dZ": 2 * np.array([one.excess_contacts for one in numbers]) / n0,
        }
        slopes.append({name: float(np.polyfit(above, np.log(column), 1)[0]) for name, column in columns.items()})
        local.append(
            {name: (np.diff(np.log(column)) / np.diff(above)).round(3).tolist() for name, column in columns.items()}
        )
        series.append({"phi_J": phi_j, "packings": [asdict(one) for one in numbers]})
    edges = np.linspace(0, 5, 21)
    forces = force_distribution(networks, edges)
    mean = {name: float(np.mean([one[name] for one in slopes])) for name in slopes[0]}
    met = abs(mean["energy"] - 2) < 0.1 and abs(mean["pressure"] - 1) < 0.05 and abs(mean["dZ"] - 0.5) < 0.05
    keep(
        "jamming.json",
        f"scaling above phi_J, {dim}D harmonic",
        {
            "target": "exponents: energy 2 +- 0.1, pressure 1 +- 0.05, dZ 0.50 +- 0.05",
            "value": mean,
            "met": met,
            "note": NOTES.get(f"scaling above phi_J, {dim}D harmonic"),
            "slopes": slopes,
            "local_slopes": local,
            "series": series,
            "force_distribution": {
                "dphi": float(dphi[-1]),
                "edges": edges.tolist(),
                "density": forces.density.tolist(),
                "stderr": forces.stderr.tolist(),
            },
            "particles": PARTICLES,
            "seconds": round(time.time() - clock),
        },
    )
    assert met, mean
