"""What :mod:`test_settings` does in processes that have settings of their own: the word says what."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import packing_jax as pj
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep

SWEEP = Sweep(phi=(0.3, 0.9), kick=(0.3,), dim=2, particles=16, steps=20, replicas=1)


def digest() -> str:
    """Of a run that draws a start, kicks and directions."""
    run = pj.simulate(pj.System.create(0.6, 16, 2), pj.random_organization(0.3), 20, jax.random.key(3))
    parts = (run.positions, run.absorbed_at, *run.records.values())
    return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in parts)).hexdigest()


def everything(directory: Path) -> str:
    """A run, a sweep with its report, a rollout with its gradient, a minimum: none makes a NaN on the device."""
    from packing_jax.commands.main import main
    from packing_jax.derivatives.rollout import rollout, rollout_plan
    from packing_jax.landscape.minima import minimise

    run_sweep(SWEEP, directory)
    assert main(["report", str(directory)]) == 0
    system, rule, key = pj.System.create(0.6, 16, 2), pj.bro(0.1), jax.random.key(3)
    plan = rollout_plan(system, rule, 3, key)
    slope = jax.grad(lambda kick: rollout(system, pj.bro(kick), 3, key, plan=plan).moved.sum())(0.1)
    assert np.isfinite(slope)
    first = digest()
    jax.config.update("jax_enable_x64", True)
    soft = pj.System.create(0.3, 16, 2, energy=pj.HARMONIC, dtype=np.float64)
    assert minimise(soft, np.random.default_rng(0).random((16, 2))).converged
    return first


def switched_off() -> str:
    """A run of a float64 system that was made while jax had 64-bit types."""
    jax.config.update("jax_enable_x64", True)
    system = pj.System.create(0.3, 16, 2, energy=pj.HARMONIC, dtype=np.float64)
    jax.config.update("jax_enable_x64", False)
    return _refusal(lambda: pj.simulate(system, pj.bro(0.1), 2, jax.random.key(0)))


def _refusal(call: Callable[[], Any]) -> str:
    try:
        return f"no refusal: {call()}"
    except pj.PackingError as error:
        return str(error)


def main() -> None:
    word, *paths = sys.argv[1:]
    done = {
        "digest": digest,
        "everything": lambda: everything(Path(paths[0])),
        "switched off": switched_off,
        "create": lambda: _refusal(lambda: pj.System.create(0.3, 16, 2)),
        "resume": lambda: _refusal(lambda: run_sweep(SWEEP, Path(paths[0]), resume=True)),
    }[word]()
    sys.stdout.write("\n" + json.dumps(done))


if __name__ == "__main__":
    main()
