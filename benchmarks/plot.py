"""Figures of results.json: throughput against N, and time per step against activity.

`python benchmarks/plot.py results.json --out DIR`
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import tyro

# Told apart by marker and dash as well as by grey, so that no colour is needed.
STYLES: dict[str, dict[str, Any]] = {
    "packing_jax, BRO step": {"color": "0.0", "marker": "o", "linestyle": "-", "linewidth": 2.2},
    "packing_jax, SGD step": {"color": "0.0", "marker": "s", "linestyle": "--"},
    "packing_jax, Langevin step": {"color": "0.0", "marker": "^", "linestyle": ":"},
    "Numba, BRO step": {"color": "0.35", "marker": "D", "linestyle": "-"},
    "Numba, plain, BRO step": {"color": "0.35", "marker": "D", "linestyle": "--", "markerfacecolor": "white"},
    "LAMMPS, Brownian step, 2 threads": {"color": "0.55", "marker": "v", "linestyle": "-"},
    "LAMMPS, Brownian step, 1 thread": {"color": "0.55", "marker": "v", "linestyle": "--", "markerfacecolor": "white"},
    "jax-md, gradient step": {"color": "0.55", "marker": "x", "linestyle": "-."},
}


def name_of(row: dict[str, Any]) -> str:
    """What a row's line is called."""
    name = f"{row['code']}, {row['work']}"
    if row["code"] != "LAMMPS":
        return name
    return f"{name}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}"


def by_line(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of single systems at the standard work, by line, in order of N."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        standard = row["contest"] == "BRO" or row["contest"].startswith("gradients")
        if standard and row["replicas"] == 1:
            lines.setdefault(name_of(row), []).append(row)
    return {name: sorted(line, key=lambda row: row["N"]) for name, line in lines.items() if name in STYLES}


def throughput(rows: list[dict[str, Any]], device: str, path: Path) -> bool:
    """Particle-steps per second against N, with the memory floor; False without such rows."""
    if not by_line(rows):
        return False
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, line in sorted(by_line(rows).items(), key=lambda item: list(STYLES).index(item[0])):
        rates = [row["particle_steps_per_s"] / 1e6 for row in line]
        axes.plot([row["N"] for row in line], rates, label=name, **STYLES[name])
    floors = [row["floor"] for row in rows if row["contest"] == "BRO" and row["code"] == "packing_jax"]
    if floors:
        axes.axhline(floors[0] / 1e6, color="0.7", linewidth=4, zorder=0, label="memory floor")
    axes.set(xscale="log", yscale="log", xlabel="particles N", ylabel="million particle-steps per second")
    axes.set_title(f"3D, phi = 0.66, kick 0.02, thermalised; {device}", fontsize="small")
    axes.legend(fontsize="x-small", ncols=2)
    figure.savefig(path, dpi=160)
    return True


def cost_of_activity(rows: list[dict[str, Any]], path: Path) -> bool:
    """Time per step against activity, with and without the active-only step; False without such rows."""
    near = [row for row in rows if row["contest"].startswith("near the transition") and row["activity"] is not None]
    if not near:
        return False
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    kinds = {"dense": {"color": "0.5", "marker": "s", "linestyle": "--"}, "automatic": {"color": "0.0", "marker": "o"}}
    for kind, style in kinds.items():
        line = sorted((row for row in near if row["work"].endswith(kind)), key=lambda row: row["activity"])
        times = [1e3 * row["N"] / row["particle_steps_per_s"] for row in line]
        axes.plot([row["activity"] for row in line], times, label=f"{kind} step", **style)
    axes.set(xscale="log", yscale="log", xlabel="activity (mean over the run)", ylabel="milliseconds per step")
    axes.set_title(f"BRO, 3D, N = {near[0]['N']:,}, phi = {near[0]['phi']:g}; {near[0]['device']}", fontsize="small")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=160)
    return True


def main(results: tyro.conf.Positional[Path], out: Path = Path()) -> int:
    """Draw the figures of a results file.

    Args:
        results: what compare.py wrote.
        out: directory of the figures.
    """
    content = json.loads(results.read_text())
    out.mkdir(parents=True, exist_ok=True)
    if throughput(content["rows"], content["environment"]["device"], out / "throughput.png"):
        print(out / "throughput.png")
    if cost_of_activity(content["rows"], out / "activity_cost.png"):
        print(out / "activity_cost.png")
    return 0


if __name__ == "__main__":
    plt.switch_backend("agg")
    sys.exit(tyro.cli(main))
