"""Runs of SGD whose flatness is compared, longer and more closely looked at than those of the figure flat-minima."""

import os
import time
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.tree_util import Partial
from results import FOLDER

from packing_jax import HARMONIC, LINEAR, System, sgd, simulate, stack
from packing_jax.drive.schedule import linear_times
from packing_jax.figures.flat_minima import BATCH, PHI, RATES, STEPS, distances, exact_flatness
from packing_jax.landscape.minima import minimise
from packing_jax.observables import displacement, energy, steinhardt_order

ENERGIES = {"harmonic": HARMONIC, "linear": LINEAR}
PARTICLES = 1000
REPLICAS = 4
SNAPSHOTS = 10  # of the last quarter of a run, over which energy and flatness are averaged
QUARTERS = slice(-SNAPSHOTS, None), slice(-2 * SNAPSHOTS, -SNAPSHOTS)  # the last, and the one before
SEED = 11
RUNS = Path(os.environ.get("PACKING_JAX_RUNS", FOLDER / "runs")) / "flatness"


class States(NamedTuple):
    """What SGD reached, by (learning rate, phi, batch fraction, replica)."""

    energy: np.ndarray  #: per particle in mean diameters
    flatness: np.ndarray
    drift: np.ndarray  #: log of the energy over that of the quarter before
    crystalline: np.ndarray  #: share of particles in a crystal at the end
    absorbed: np.ndarray
    last: np.ndarray  #: positions at the end, in box sides
    seconds: np.ndarray  #: by learning rate


def half_trace(x: np.ndarray, phi: float) -> float:
    """Tr H/2N of the harmonic energy: each pair's Laplacian V'' + 2 V'/r."""
    r = distances(x, phi, 1.0)
    return float(np.sum(0.5 - (1.0 - r) / r) / len(x))


# --- the runs -------------------------------------------------------------------------------------------------


def cells() -> list[tuple[float, float, int]]:
    return list(product(PHI, BATCH, range(REPLICAS)))


def systems(name: str) -> System:
    return stack([System.create(phi, PARTICLES, energy=ENERGIES[name]) for phi, _, _ in cells()])


def runs_at(name: str, index: int) -> dict[str, np.ndarray]:
    """All runs at one learning rate, which make as many steps as it needs."""
    clock, rate, steps = time.time(), RATES[name][index], STEPS[name][index]
    fractions = np.array([fraction for _, fraction, _ in cells()], np.float32)
    rule = sgd(Partial(optax.sgd, learning_rate=np.full(len(fractions), rate, np.float32)), fractions)
    start = np.random.default_rng([SEED, index]).random((len(fractions), PARTICLES, 3), np.float32)
    key = jax.random.fold_in(jax.random.key(SEED), index)
    batch = systems(name)
    run = simulate(
        batch,
        rule,
        steps,
        key,
        start=start,
        times=linear_times(steps, steps // (4 * SNAPSHOTS)),
        record={"energy": energy, "moved": displacement},
    )
    units = np.asarray(batch.unit)
    snapshots = start[:, None] + run["moved"][:, -SNAPSHOTS:] * units[:, None, None, None]
    exponent = float(ENERGIES[name].exponent)
    dv = [[exact_flatness(x, phi, exponent) for x in xs] for xs, (phi, _, _) in zip(snapshots, cells(), strict=True)]
    late, before = (run["energy"][:, part].mean(axis=1) for part in QUARTERS)
    with np.errstate(divide="ignore", invalid="ignore"):
        drift = np.log(late / before)
    order = [np.mean(steinhardt_order(x, 1.0).connections >= 7) for x in run.positions]
    one = {"energy": late, "flatness": np.mean(dv, axis=1), "drift": drift, "crystalline": np.array(order)}
    shape = len(PHI), len(BATCH), REPLICAS
    one = {what: values.reshape(shape) for what, values in one.items()}
    one |= {"absorbed": (run.absorbed_at >= 0).reshape(shape), "seconds": np.array(time.time() - clock)}
    return one | {"last": run.positions.reshape(*shape, PARTICLES, 3)}


@cache
def states(name: str) -> States:
    """All runs of one energy, kept on disk beside those of the other validation tests."""
    found = []
    for index, rate in enumerate(RATES[name]):
        path = RUNS / f"{name}-{rate:g}-{STEPS[name][index]}-{PARTICLES}-{SEED}.npz"
        if not path.exists():
            RUNS.mkdir(parents=True, exist_ok=True)
            np.savez(path, **runs_at(name, index))
        with np.load(path) as kept:
            found.append(dict(kept))
    return States(*[np.stack([one[field] for one in found]) for field in States._fields])


@cache
def minima(phi: float) -> dict[str, np.ndarray]:
    """Energy per particle and curvature of the minima below the states of the harmonic energy, kept like the runs."""
    ends = states("harmonic").last[:, PHI.index(phi)]
    path = RUNS / f"minima-{phi:g}-{STEPS['harmonic'][0]}-{PARTICLES}-{SEED}.npz"
    if not path.exists():
        clock = time.time()
        found = {what: np.zeros(ends.shape[:3]) for what in ("energy", "half_trace", "flatness")}
        with jax.enable_x64(True):
            system = System.create(phi, PARTICLES, energy=HARMONIC, dtype=np.float64)
            for place in np.ndindex(ends.shape[:3]):
                one = minimise(system, ends[place], force=1e-9)
                one.require_converged()
                x = np.asarray(one.positions)
                found["energy"][place] = one.energy / PARTICLES / float(system.unit)
                found["half_trace"][place] = half_trace(x, phi)
                found["flatness"][place] = exact_flatness(x, phi, 2.0)
        np.savez(path, **found, seconds=np.array(time.time() - clock))
    with np.load(path) as kept:
        return dict(kept)
