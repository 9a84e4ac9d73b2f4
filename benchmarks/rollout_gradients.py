"""Time and memory of a gradient through a run, beside the run itself.

    python benchmarks/rollout_gradients.py            # the committed results, about ten minutes on two cores
    python benchmarks/rollout_gradients.py --quick    # short runs

Thermalised 3D spheres at phi = 0.66, gradient of the mean squared displacement in the kick (learning rate) and in all
starting coordinates. Forward and gradient take turns, each time is the least of its rounds. Temporary bytes are those
that XLA reserves for the compiled gradient, where it says so; the resident peak is the process's.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import packing_jax as pj
from packing_jax.commands.bench import cpu_name, device_name, usable_cores
from packing_jax.derivatives.rollout import rollout, rollout_plan, segment_length

PHI, KEY = 0.66, jax.random.key(3)
RULES: dict[str, tuple[Any, float, Callable[[Any], Any]]] = {
    "bro": (pj.LINEAR, 0.02, pj.bro),
    "bro, independent draws": (pj.LINEAR, 0.02, lambda kick: pj.bro(kick, correlation=0.0)),
    "sgd": (pj.HARMONIC, 0.3, lambda rate: pj.sgd(Partial(optax.sgd, learning_rate=rate), 0.5)),
    # settles in a minimum, so that its derivative stays finite however many steps are made
    "descent": (pj.HARMONIC, 0.3, lambda rate: pj.sgd(Partial(optax.sgd, learning_rate=rate))),
}


class Case:
    """One rule on a thermalised configuration."""

    def __init__(self, name: str, particles: int) -> None:
        energy, self.kick, self.make = RULES[name]
        self.system = pj.System.create(PHI, particles, 3, energy=energy)
        warm = pj.simulate(self.system, self.make(self.kick), 500, KEY, record={}, times=np.array([500]))
        self.start = jnp.asarray(warm.positions)
        self.plan = rollout_plan(self.system, self.make(self.kick), 50, KEY, self.start)

    def programs(self, steps: int, every: int | None) -> tuple[Any, Any]:
        """Forward and gradient, compiled."""

        def spread(kick: Any, start: Any) -> Any:
            end = rollout(self.system, self.make(kick), steps, KEY, start, plan=self.plan, checkpoint_every=every)
            return jnp.mean(end.moved**2)

        both = jax.jit(spread), jax.jit(jax.value_and_grad(spread, (0, 1)))
        forward, gradient = (one.lower(self.kick, self.start).compile() for one in both)
        return forward, gradient

    def measure(self, steps: int, every: int | None, rounds: int) -> dict[str, Any]:
        """One row; ``rounds`` = 0 compiles only."""
        forward, gradient = self.programs(steps, every)
        row: dict[str, Any] = {
            "steps": steps,
            "checkpoint_every": every or segment_length(steps, self.system, self.make(self.kick)),
        }
        row["temporary_mb"] = round(gradient.memory_analysis().temp_size_in_bytes / 1e6, 1)
        times: dict[str, list[float]] = {"forward": [], "gradient": []}
        for _ in range(rounds):
            for name, program in (("forward", forward), ("gradient", gradient)):
                clock = time.perf_counter()
                out = jax.block_until_ready(program(self.kick, self.start))
                times[name].append(time.perf_counter() - clock)
        if rounds:
            value, slopes = out
            assert np.isfinite(value), "the run lost neighbours or diverged"
            # above phi_c a derivative grows exponentially with the steps, and leaves float32's range
            row["gradient_finite"] = all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(slopes))
            row |= {f"{name}_ms_per_step": round(1e3 * min(taken) / steps, 3) for name, taken in times.items()}
            row["ratio"] = round(min(times["gradient"]) / min(times["forward"]), 2)
            row["resident_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rollout_gradients.json")
    options = parser.parse_args()
    particles = 1000 if options.quick else 10_000
    long = 1000 if options.quick else 10_000
    results: dict[str, Any] = {
        "particles": particles,
        "phi": PHI,
        "dim": 3,
        "dtype": "float32",
        "jax": jax.__version__,
        "device": device_name(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "rows": [],
    }
    case = Case("bro", particles)
    results["row_capacity"] = case.plan.capacity
    plan: list[tuple[str, int, int | None, int]] = [("bro", 100, None, 5)]
    plan += [("bro", 100, every, 3) for every in (10, 34)]
    plan += [("sgd", 100, None, 5), ("bro, independent draws", 100, None, 2)]
    plan += [("bro", 1000, None, 2), ("bro", 1000, 64, 2), ("descent", long, 100, 1), ("descent", long, None, 1)]
    cases = {"bro": case}
    for name, steps, every, rounds in plan:
        if name not in cases:
            cases[name] = Case(name, particles)
        results["rows"].append({"rule": name} | cases[name].measure(steps, every, rounds))
        print(results["rows"][-1], flush=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
