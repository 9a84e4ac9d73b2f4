"""The runs behind the validation suite: kept, gone on with where they were stopped, and aimed at phi_c by themselves.

Most phi_c are those of the adaptive search, whose small systems a CPU carries in a minute. For some the same is found
from sweeps: a coarse one of small systems finds phi_c(kick) to about 0.01, a fine one of larger systems is centred
there. All have folders of their own, so that rows that need the same run share it.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from results import FOLDER

from packing_jax.adaptive import search
from packing_jax.criticality import KickEstimate, SearchResult, estimate_phi_c
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep

RUNS = Path(os.environ.get("PACKING_JAX_RUNS", FOLDER / "runs"))
TIME = 600.0  # kick times steps of a fine sweep: absorbing states are reached on the time scale 1/kick
COARSE_TIME = 200.0
PARTICLES, COARSE_PARTICLES = 4096, 1024
SEED = 1


@dataclass(frozen=True)
class Case:
    """A rule in a dimension, with the packing fractions between which phi_c lies at every one of its kicks."""

    name: str
    what: Sweep  #: rule, coupling, dimension, batch fraction, mixture
    kicks: tuple[float, ...]
    within: tuple[float, float]
    spacing: float = 0.004  #: of the fine sweep
    particles: int = PARTICLES
    time: float = TIME
    coarse_time: float = COARSE_TIME


@contextlib.contextmanager
def timed(name: str) -> Iterator[list[float]]:
    """Alone at the runs of this name; the seconds spent on them so far, when it ends, in the list."""
    RUNS.mkdir(parents=True, exist_ok=True)
    clock, seconds = RUNS / f"{name}.seconds", []
    with (RUNS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another row may be running it
        began = time.monotonic()
        try:
            yield seconds
        finally:
            before = json.loads(clock.read_text()) if clock.exists() else 0.0
            seconds.append(before + time.monotonic() - began)
            clock.write_text(json.dumps(seconds[0]))


def searched(name: str, tolerance: float, **what: object) -> tuple[SearchResult, float]:
    """phi_c by the adaptive search, made or gone on with in its folder, and the seconds spent."""
    with timed(name) as seconds:
        found = search(tolerance=tolerance, seed=SEED, out=RUNS / name, **what)
    return found, seconds[0]


def swept(name: str, spec: Sweep) -> xr.Dataset:
    """The results of a sweep, run or gone on with in its folder; the time spent is kept beside it."""
    directory = RUNS / name
    with timed(name) as seconds:
        outcome = run_sweep(spec, directory, resume=(directory / "results.zarr").exists())
    if outcome.stopped:
        pytest.exit(f"stopped by {outcome.stopped}; run it again and it goes on")
    assert not outcome.failed, outcome.reasons
    with xr.open_zarr(directory / "results.zarr", chunks=None) as results:
        # a folder may hold other packing fractions too, from when an estimate was another
        wanted = results.sel(phi=list(map(float, spec.phi)), kick=list(map(float, spec.kick)))
        return wanted.load().assign_attrs(seconds=seconds[0])


def spent(results: Sequence[xr.Dataset]) -> dict[str, object]:
    """Seconds and particle-steps behind a row, and the versions and device that made it."""
    moves = sum(int(one.steps_done.sum()) * one.sizes["particle"] for one in results)
    return {
        "seconds": sum(one.attrs["seconds"] for one in results),
        "particle_steps": moves,
        "versions": results[-1].attrs["versions"],
    }


def coarse(case: Case) -> tuple[dict[float, float], xr.Dataset]:
    """phi_c of each kick, to about 0.01: above it the activity of a small system stays above 0.1."""
    phis = tuple(np.round(np.arange(case.within[0], case.within[1] + 0.005, 0.01), 4))
    spec = replace(
        case.what,
        particles=COARSE_PARTICLES,
        phi=phis,
        kick=case.kicks,
        replicas=1,
        steps=round(case.coarse_time / min(case.kicks)),
        seed=SEED,
    )
    results = swept(f"{case.name}-coarse", spec)
    last = results.activity.squeeze(("batch_fraction", "replica")).isel(time=-1).transpose("kick", "phi").values
    found = {}
    for kick, activity in zip(results.kick.values, last, strict=True):
        quiet = np.flatnonzero(activity < 0.1)
        assert len(quiet), f"{case.name}: active down to phi = {phis[0]} at kick {kick}"
        assert quiet[-1] + 1 < len(phis), f"{case.name}: absorbed up to phi = {phis[-1]} at kick {kick}"
        found[float(kick)] = float(phis[quiet[-1]] + 0.005)
    return found, results


def fine(case: Case, kick: float, centre: float) -> tuple[KickEstimate, xr.Dataset]:
    """phi_c of one kick by every method, from four replicas at each of twelve packing fractions about it."""
    phis = tuple(np.round(centre + case.spacing * np.arange(-5, 7), 4))
    spec = replace(
        case.what,
        particles=case.particles,
        phi=phis,
        kick=(kick,),
        replicas=4,
        steps=round(case.time / kick),
        seed=SEED,
    )
    results = swept(f"{case.name}-{kick:g}", spec)
    return estimate_phi_c(results)[0], results
