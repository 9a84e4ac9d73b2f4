"""Large systems on both sides of phi_c, followed for 2e5 steps: which of them comes to rest, and which does not?

`python tests/validation/phi_c_brackets.py` runs those that are missing and writes phi_c_brackets.json. A system dies
where its activity over the last quarter of the run is below half of that over the quarter before, or it was absorbed;
it lives where the activity is stationary. phi_c lies between the two. After 1e5 steps 0.78 in 2D and 0.5985 in 3D were
still falling, which is why all were followed for twice as long, and 0.5965 and 0.5995 were added.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.criticality import open_results
from packing_jax.criticality.results import scan_of
from packing_jax.criticality.stationarity import Drift, drifts
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep
from packing_jax.versions import provenance

FOLDER = Path(__file__).parent
ROWS = FOLDER / "phi_c_brackets.json"
RUNS = Path(os.environ.get("PACKING_JAX_RUNS", FOLDER / "runs")) / "phi_c_brackets"
_LARGE = Sweep(particles=32_768, replicas=1, steps=200_000, seed=7)
BRACKETS = {
    "2D 1:1.4 BRO, kick 0.1": replace(_LARGE, dim=2, mixture="1:1.4", kick=(0.1,), phi=(0.7775, 0.78, 0.7805)),
    "3D BRO, kick 0.05": replace(_LARGE, kick=(0.05,), phi=(0.5955, 0.5965, 0.5985, 0.5995)),
}


def row(name: str, phi: float) -> dict[str, Any]:
    """One system, run or gone on with: its activity at the end, and what became of it."""
    directory = RUNS / f"{name.replace(' ', '_').replace(',', '').replace(':', '-')}_{phi:g}"
    spec = replace(BRACKETS[name], phi=(phi,))
    outcome = run_sweep(spec, directory, resume=(directory / "results.zarr").exists())
    assert not outcome.stopped, f"stopped by {outcome.stopped}; run it again and it goes on"
    cell = scan_of(open_results(directory), 0, 0)
    (activity,), (absorbed_at,), time = cell.activity[:, 0], cell.absorbed_at[:, 0], cell.time
    quarters = [float(np.mean(activity[(time > a) & (time <= b)])) for a, b in _quarters(time[-1])]
    still = Drift(cell.drift.change[0], cell.drift.stderr[0])
    lives = absorbed_at < 0 and not drifts(cell.final[0], still)
    dies = absorbed_at >= 0 or quarters[-1] < 0.5 * quarters[-2]
    fate = "lives" if lives else "dies" if dies else "open"
    return {
        "phi": phi,
        "fate": fate,
        "absorbed_at": int(absorbed_at),
        "activity": quarters,
        "particles": spec.particles,
    }


def _quarters(steps: float) -> list[tuple[float, float]]:
    return [(steps * k / 4, steps * (k + 1) / 4) for k in range(4)]


if __name__ == "__main__":
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {"versions": provenance(), "systems": {}}
    for name, spec in BRACKETS.items():
        for phi in spec.phi:
            if str(phi) not in rows["systems"].setdefault(name, {}):
                rows["systems"][name][str(phi)] = row(name, phi)
                ROWS.write_text(json.dumps(rows, indent=1) + "\n")
