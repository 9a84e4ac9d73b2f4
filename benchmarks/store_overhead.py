"""A sweep with its store beside the same replicas without one: `python benchmarks/store_overhead.py --out result.json`.

They take turns, A, B, B, A, ..., as whole runs that were compiled beforehand, and the ratio is the median over rounds
of neighbouring measurements. Both run in this process in the same batches; the sweep also checkpoints every few
seconds, as it does for a user.

Where a machine's speed varies by more than the store costs, the seconds that the sweep spends writing tell more,
because nothing else happens meanwhile.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tyro

from packing_jax.drive.run import run
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.store import Store
from packing_jax.versions import provenance

KICK = 0.05


@dataclass
class Arguments:
    """Time a sweep with and without its store."""

    out: Path
    phis: int = 25
    replicas: int = 40
    particles: int = 500
    steps: int = 1000
    rounds: int = 2


def without(spec: Sweep) -> float:
    """Seconds of the replicas alone."""
    names = sorted(spec.cells.places(), key=lambda name: -name[0])
    clock = time.perf_counter()
    kind, replicas = spec.build(names)
    ended = sum(1 for _ in run(kind, replicas, spec.times(), spec.record))
    assert ended == len(names)
    return time.perf_counter() - clock


WRITING = ((Store, "write"), (Checkpoints, "save"), (Checkpoints, "save_final"))


@contextlib.contextmanager
def watched() -> Iterator[list[float]]:
    """The seconds that each call to the store and the checkpoints takes."""
    taken: list[float] = []

    def timed(method: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            clock = time.perf_counter()
            method(*arguments)
            taken.append(time.perf_counter() - clock)

        return call

    with contextlib.ExitStack() as stack:
        for owner, name in WRITING:
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        yield taken


def with_store(spec: Sweep) -> tuple[float, float, int, int]:
    """Seconds of the sweep, those of them spent writing, and bytes and files of its directory afterwards."""
    with tempfile.TemporaryDirectory() as directory, watched() as taken:
        clock = time.perf_counter()
        outcome = run_sweep(spec, Path(directory) / "sweep")
        seconds = time.perf_counter() - clock
        assert outcome.done == outcome.total
        assert not outcome.failed
        files = [path for path in Path(directory).rglob("*") if path.is_file()]
        return seconds, sum(taken), sum(path.stat().st_size for path in files), len(files)


def main(arguments: Arguments) -> None:
    """Run the rounds and write the figures."""
    phi = tuple(float(value) for value in np.round(np.linspace(0.60, 0.70, arguments.phis), 4))
    spec = Sweep(
        phi=phi, kick=(KICK,), particles=arguments.particles, steps=arguments.steps, replicas=arguments.replicas
    ).checked()
    # what is compiled once, and the plans that a run goes through
    with_store(replace(spec, steps=50, replicas=2))
    print(f"{without(replace(spec, replicas=8)):.1f} s for the first cells, the first time", flush=True)
    pairs, writing = [], []
    for number in range(arguments.rounds):
        # the other way round in every second round, so that what drifts takes from both
        if number % 2:
            stored, wrote, size, files = with_store(spec)
            bare = without(spec)
        else:
            bare = without(spec)
            stored, wrote, size, files = with_store(spec)
        pairs.append((bare, stored))
        writing.append(wrote)
        print(
            f"round {number + 1}: {bare:.1f} s without, {stored:.1f} s with the store, {bare / stored:.3f}", flush=True
        )
        keep(arguments, phi, pairs, writing, size, files)


def keep(
    arguments: Arguments,
    phi: tuple[float, ...],
    pairs: list[tuple[float, float]],
    writing: list[float],
    size: int,
    files: int,
) -> None:
    """Write what the rounds have given so far."""
    result = {
        "cells": arguments.phis * arguments.replicas,
        "particles": arguments.particles,
        "steps": arguments.steps,
        "phi": phi,
        "kick": KICK,
        "dim": 3,
        "rule": "bro",
        "seconds_without_and_with": pairs,
        "of_them_writing": writing,
        "throughput_by_time_not_spent_writing": [
            1.0 - wrote / stored for wrote, (_, stored) in zip(writing, pairs, strict=True)
        ],
        "throughput_with_over_without": float(np.median([bare / stored for bare, stored in pairs])),
        "target": 0.95,
        "store_bytes": size,
        "store_files": files,
        "versions": provenance(),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
