"""Does the error of the recommended phi_c hold what running ten times longer does to it? Forty sweeps, listed here.

`python tests/validation/phi_c_coverage.py` runs those that are missing, 10,000 steps and then on to 100,000, and writes
phi_c_coverage.json: the recommended phi_c of each at both lengths. The list was committed before any of them was run;
what the estimate was made with are sweeps of other seeds. After the first five were run, those in 3D that were not
begun gave way to smaller ones in 2D, since they took three times as long as foreseen.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from packing_jax.criticality import estimate_phi_c
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep
from packing_jax.versions import provenance

FOLDER = Path(__file__).parent
ROWS = FOLDER / "phi_c_coverage.json"
RUNS = Path(os.environ.get("PACKING_JAX_RUNS", FOLDER / "runs")) / "phi_c_coverage"
SHORT, LONG = 10_000, 100_000


class System(NamedTuple):
    """A system, the middle of its scan, and the seeds of its sweeps."""

    what: Sweep
    centre: float
    seeds: range
    spacing: float = 0.004  #: of the scan, over the centre
    points: int = 7


_3D = Sweep(particles=1000, replicas=3)
_2D = Sweep(dim=2, mixture="1:1.4", particles=400, replicas=3)
SYSTEMS = {
    "3D BRO, kick 0.05": System(replace(_3D, kick=(0.05,)), 0.597, range(1, 5), 0.005),
    "3D BRO, kick 0.1": System(replace(_3D, kick=(0.1,)), 0.557, range(1, 4)),
    "2D BRO, kick 0.1": System(replace(_2D, kick=(0.1,)), 0.777, range(1, 11)),
    "2D BRO, kick 0.3": System(replace(_2D, kick=(0.3,)), 0.672, range(1, 10)),
    "2D SGD, learning rate 0.133": System(
        replace(_2D, rule="sgd", kick=(0.133,), batch_fraction=(0.75,)), 0.777, range(1, 8), 0.005
    ),
    "2D Langevin, kick 0.1": System(replace(_2D, rule="langevin", kick=(0.1,)), 0.777, range(1, 8), 0.005),
}


def sweeps() -> dict[str, Sweep]:
    """The forty, by name."""
    found = {}
    for name, (what, centre, seeds, spacing, points) in SYSTEMS.items():
        place = np.arange(points) - (points - 1) / 2
        phi = tuple(np.round(centre * (1 + spacing * place), 5).tolist())
        found |= {f"{name}, seed {seed}": replace(what, phi=phi, seed=seed, steps=SHORT) for seed in seeds}
    return found


def recommended(directory: Path) -> dict[str, Any] | None:
    """What the sweep's estimates recommend; None where they recommend nothing."""
    best = estimate_phi_c(directory)[0].recommended()
    return None if best is None else asdict(best)


def row(name: str, spec: Sweep) -> dict[str, Any]:
    """Run one, or go on with it, and estimate at both lengths."""
    found: dict[str, Any] = {}
    for steps in (SHORT, LONG):
        directory = RUNS / str(steps) / name.replace(" ", "_").replace(",", "")
        if steps == LONG and not directory.exists():
            short = RUNS / str(SHORT) / directory.name
            directory.parent.mkdir(parents=True, exist_ok=True)
            short.rename(directory)
        outcome = run_sweep(replace(spec, steps=steps), directory, resume=(directory / "results.zarr").exists())
        assert not outcome.stopped, f"stopped by {outcome.stopped}; run it again and it goes on"
        assert not outcome.failed, outcome.reasons
        found[str(steps)] = recommended(directory)
    return found


if __name__ == "__main__":
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {"versions": provenance(), "sweeps": {}}
    for name, spec in sweeps().items():
        if name not in rows["sweeps"]:
            rows["sweeps"][name] = row(name, spec)
            ROWS.write_text(json.dumps(rows, indent=1) + "\n")
