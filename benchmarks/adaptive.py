"""The adaptive search for phi_c beside uniform grids of equal error, in particle-steps.

`python benchmarks/adaptive.py DIR --out benchmarks/results/adaptive_0.001.json`, after
`packing-jax critical --dim 3 --rule bro --kick 0.05 --tolerance 0.001 --seed 1 --out DIR`

Both sides have the same sizes, steps, estimator of phi_h and extrapolation; they differ in where replicas are. A grid
has two replicas at each of M equally spaced phi. Its replicas are drawn from the law that the search measured,
P(absorbed) = 1/(1 + exp((phi - phi_h)/w)) with phi_h and w of each size, because grids of these sizes take hours of
this machine. Errors are medians over draws, M the smallest with the error of the search. Absorbed replicas of a grid
cost nothing here, so its cost is a lower bound; those of the search cost what they cost.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from packing_jax.criticality import half_absorbed_phi_c
from packing_jax.criticality.search import Round, intercept, size_exponents, with_least_stderrs
from packing_jax.errors import PackingError

RANGES = {"phi_c known to 0.02 beforehand": 0.02, "to 0.05": 0.05}
POINTS = np.unique(np.geomspace(5, 800, 40).astype(int)).tolist()
DRAWS = 12
FAR = 40  # widths from phi_h, beyond which every replica does the same and the estimate does not feel it


def estimated(size, phis, gone, spent):
    """A round from the replicas of a grid, (phi, replica)."""
    found = half_absorbed_phi_c(phis, gone.astype(float))
    stderr = max(found.stderr, 1e-6)
    width = max(found.width, stderr)
    return Round(size["particles"], size["steps"], found.value, stderr, width, gone.size, spent)


def drawn_grid(rng, sizes, reach, count, omega):
    """Error and particle-steps of one uniform grid, the range not centred on the transition."""
    rounds, outcomes = [], []
    centre = sizes[-1]["phi_h"] + reach * rng.uniform(-0.5, 0.5)
    phis = np.linspace(centre - reach, centre + reach, count)
    for size in sizes:
        away = np.clip((phis - size["phi_h"]) / size["width"], -500, 500)
        gone = rng.random((count, 2)) < (1 / (1 + np.exp(away)))[:, None]
        spent = int((~gone).sum()) * size["particles"] * size["steps"]
        telling = np.abs(away) <= max(FAR, 2.1 * (phis[1] - phis[0]) / size["width"])
        rounds.append(estimated(size, phis[telling], gone[telling], spent))
        outcomes += [(size["particles"], p, bool(f)) for p, row in zip(phis, gone, strict=True) for f in row]
    rounds = with_least_stderrs(rounds, outcomes, omega)
    fit = intercept(*zip(*[(r.particles, r.phi_h, r.stderr) for r in rounds], strict=True), omega)
    return fit.stderr, sum(one.particle_steps for one in rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    facts = json.loads((words.directory / "critical.json").read_text())
    result, search = facts["result"], facts["search"]
    omega = size_exponents(search["dim"])[0]
    # widths as the search finds them are minimal where few replicas disagree: one law for all sizes
    base = result["rounds"][0]["particles"]
    smear = [(one["particles"] / base) ** -omega for one in result["rounds"]]
    u = float(np.mean([one["width"] / x for one, x in zip(result["rounds"], smear, strict=True)]))
    line = [result["value"] + result["amplitude"] * x for x in smear]
    sizes = [
        {"particles": one["particles"], "steps": one["steps"], "phi_h": half, "width": u * x}
        for one, x, half in zip(result["rounds"], smear, line, strict=True)
    ]
    grids = []
    for name, reach in RANGES.items():
        for count in tqdm(POINTS, name):
            rng, draws, refused = np.random.default_rng([count, int(1e4 * reach)]), [], 0
            for _ in range(DRAWS):
                try:
                    draws.append(drawn_grid(rng, sizes, reach, count, omega))
                except PackingError:
                    refused += 1
            if refused > DRAWS // 2:
                continue
            stderr, spent = np.median(draws, axis=0)
            if stderr <= result["stderr"] or count == POINTS[-1]:
                grids.append(
                    {
                        "range": name,
                        "half_range": reach,
                        "points": count,
                        "replicas": 2,
                        "stderr": float(error),
                        "as_good": bool(error <= result["stderr"]),
                        "particle_steps": int(spent),
                        "ratio": float(spent / result["particle_steps"]),
                    }
                )
                print(grids[-1], flush=True)
                break
    answer = {
        "adaptive": {**result, "search": search, "versions": facts["versions"]},
        "grids, drawn": grids,
        "machine": f"{os.cpu_count()} CPU cores",
        "draws": DRAWS,
    }
    words.out.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
