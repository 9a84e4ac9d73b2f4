"""The adaptive search for phi_c beside uniform grids of equal error, in particle-steps.

`python benchmarks/adaptive.py DIR --out benchmarks/results/adaptive_0.001.json`, after
`packing-jax critical --dim 3 --rule bro --kick 0.05 --tolerance 0.001 --seed 1 --out DIR`

Both sides have the same sizes, steps and fit; they differ in where replicas are. A grid has two replicas at each of M
equally spaced phi. Its replicas are drawn from the law that the search fitted (`packing_jax.criticality.absorption`),
because grids of these sizes take hours of this machine. Errors are medians over draws, M the smallest with the error of
the search. Absorbed replicas of a grid cost nothing here, so its cost is a lower bound; those of the search cost what
they cost. (The rows in benchmarks/results are of the search of version 0.1.0, a line through phi_h of each size.)
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from packing_jax.criticality.absorption import fit, outcomes_of, scaling_in
from packing_jax.errors import PackingError

RANGES = {"phi_c known to 0.02 beforehand": 0.02, "to 0.05": 0.05}
POINTS = np.unique(np.geomspace(5, 800, 40).astype(int)).tolist()
DRAWS = 12


def drawn_grid(rng, result, dim, reach, count):
    """Error and particle-steps of one uniform grid, the range not centred on the transition."""
    law, columns, spent = result["law"], [], 0
    smallest, longest = result["rounds"][0]["particles"], max(one["steps"] for one in result["rounds"])
    omega, decay = law["scaling"]["omega"], law["scaling"]["decay"]
    centre = result["value"] + reach * rng.uniform(-0.5, 0.5)
    phi = np.repeat(np.linspace(centre - reach, centre + reach, count), 2)
    for one in result["rounds"]:
        n = (one["particles"] / smallest) ** -omega
        room = result["value"] + law["amplitude"] * n - phi + one["width"] * np.log(1 / rng.random(len(phi)) - 1)
        at = longest * (law["remaining"] / np.where(room > 0, room, 1.0)) ** (1 / decay)
        gone = (room > 0) & (at <= one["steps"])
        same = np.ones(len(phi))
        columns.append([phi, same * one["particles"], same * one["steps"], np.where(gone, np.maximum(at, 1.0), -1.0)])
        spent += int((~gone).sum()) * one["particles"] * one["steps"]
    return fit(outcomes_of(*np.concatenate(columns, axis=1)), scaling_in(dim)).stderr, spent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    facts = json.loads((words.directory / "summary.json").read_text())
    result, dim = facts["search"], facts["dim"]
    grids = []
    for name, reach in RANGES.items():
        for count in tqdm(POINTS, name):
            rng, draws, refused = np.random.default_rng([count, int(1e4 * reach)]), [], 0
            for _ in range(DRAWS):
                try:
                    draws.append(drawn_grid(rng, result, dim, reach, count))
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
                        "stderr": float(stderr),
                        "as_good": bool(stderr <= result["stderr"]),
                        "particle_steps": int(spent),
                        "ratio": float(spent / result["particle_steps"]),
                    }
                )
                print(grids[-1], flush=True)
                break
    answer = {
        "adaptive": {**result, **{name: facts[name] for name in ("rule", "dim", "seed", "recommended")}},
        "grids, drawn": grids,
        "machine": f"{os.cpu_count()} CPU cores",
        "draws": DRAWS,
    }
    words.out.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
