"""Jamming: long checks, run by hand with ``pytest -m validation``; results go to tests/validation/jamming.json."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
import pytest
from results import keep

from packing_jax.figures.jamming import LAWS, at_infinite_size, decompressed, exponent, laws, phi_j, start
from packing_jax.landscape.forces import force_network
from packing_jax.landscape.jamming import Jamming, bisect, jam, mechanics
from packing_jax.observables import force_distribution

PARTICLES = 512

#: What is known of the misses.
NOTES = {
    "phi_J, 3D, compression and decompression": (
        "outside by 0.0004, where the move to infinite N is known to 0.0016; bisection, the protocol of the target's "
        "source, meets it"
    ),
    "scaling above phi_J, 2D harmonic": (
        "the misses are those of the range, 0.0005 to 0.02, where powers hold for dphi -> 0 alone: the local slope of "
        "the pressure falls from 1.09 and 1.08 at its upper end to 1.02 and 1.01 at the lower one"
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


def keep_points(name: str, dim: int, points: list[Jamming], clock: float, how: str) -> float:
    """Write phi_J of some packings, and return their mean for N to infinity."""
    phi, target = np.array([point.phi for point in points]), phi_j(dim)
    at_infinity, _ = at_infinite_size(phi.tolist(), PARTICLES, dim)
    keep(
        "jamming.json",
        name,
        {
            "reference": target.quantity,
            "value": float(phi.mean()),
            "stderr": float(phi.std(ddof=1) / phi.size**0.5),
            "value_at_infinite_N": at_infinity,
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
    points = [jam(*start(dim, PARTICLES, seed)) for seed in range(packings)]
    target = phi_j(dim)
    how = f"independent uniform positions quenched at phi = {target.value}, FIRE to 1e-12"
    value = keep_points(f"phi_J, {dim}D, compression and decompression", dim, points, clock, how)
    assert abs(value - target.value) < target.error


@pytest.mark.parametrize(("dim", "packings", "between"), [(2, 2, (0.82, 0.86)), (3, 4, (0.60, 0.67))])
def test_phi_j_by_bisection(dim, packings, between):
    """Every phi quenched afresh from the start, as the source did: the same band.

    It is 1.9 standard errors wide in 2D, false alarm 1 in 18, and 2.1 in 3D, 1 in 27.
    """
    clock = time.time()
    points = [bisect(*start(dim, PARTICLES, seed), *between) for seed in range(packings)]
    target = phi_j(dim)
    how = "independent uniform positions quenched at every phi, FIRE to 1e-12"
    value = keep_points(f"phi_J, {dim}D, bisection", dim, points, clock, how)
    assert abs(value - target.value) < target.error


def scaling(columns: list[dict[str, Any]]) -> dict[str, Any]:
    """The exponents of some packings beside the published ones."""
    found = {name: exponent(columns, name) for name in LAWS}
    away = {
        name: (value - LAWS[name].value) / float(np.hypot(stderr, LAWS[name].error))
        for name, (value, stderr) in found.items()
    }
    return {
        "reference": {name: law.quantity for name, law in LAWS.items()},
        "value": {name: value for name, (value, _) in found.items()},
        "stderr": {name: stderr for name, (_, stderr) in found.items()},
        "met": max(map(abs, away.values())) <= 2,
        "deviations": away,
        "slopes": {name: [exponent([one], name)[0] for one in columns] for name in LAWS},
        "local_slopes": [
            {name: (np.diff(np.log(one[name])) / np.diff(np.log(one["dphi"]))).round(3).tolist() for name in LAWS}
            for one in columns
        ],
    }


@pytest.mark.parametrize("dim", [2, 3])
def test_scaling_above_phi_j(dim):
    """Exponents of E, p and dZ over dphi from 5e-4 to 2e-2, of two packings: 2, 1 and 1/2 within two errors.

    Those of the figure ``jamming``, straight lines on logarithmic axes. The kept runs miss that of the pressure, 1.037
    in 2D and 1.059 in 3D, and in 2D that of the energy: between neighbouring dphi the slope falls towards 1 (the notes,
    `local_slopes`), as the bulk modulus, constant at phi_J, stiffens with dphi, and p = phi^2 dE/dphi carries phi^2.
    """
    clock = time.time()
    dphi = np.geomspace(2e-2, 5e-4, 6)
    series, columns, networks = [], [], []
    for seed in range(2):
        phi, minima = decompressed(dim, PARTICLES, seed, dphi)
        numbers = [asdict(mechanics(minimum)) for minimum in minima]
        networks.append(force_network(minima[-1]))
        columns.append(laws(phi, numbers, PARTICLES))
        series.append({"phi_J": phi, "packings": numbers})
    row = scaling(columns)
    edges = np.linspace(0, 5, 21)
    forces = force_distribution(networks, edges)
    keep(
        "jamming.json",
        f"scaling above phi_J, {dim}D harmonic",
        {
            **row,
            "note": NOTES.get(f"scaling above phi_J, {dim}D harmonic"),
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
    assert row["met"], row
