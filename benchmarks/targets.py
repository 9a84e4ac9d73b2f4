"""The targets of the table, from its rows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from packing_jax.commands.bench import Row

_BRO = "BRO step"


def targets_of(rows: list[Row], platform: str) -> list[dict[str, Any]]:
    """{name, measured, target, sense, met} of every target; measured and met are None where rows are missing."""
    build = _gpu_targets if platform != "cpu" else _cpu_targets
    return [*build(rows), *_own_targets(rows)]


def _cpu_targets(rows: list[Row]) -> list[dict[str, Any]]:
    targets = []
    for n in (10_000, 100_000):
        ours = _pick(rows, code="packing_jax", work=_BRO, N=n, contest="BRO")
        for style, code in (("tuned", "Numba"), ("plain", "Numba, plain")):
            theirs = _pick(rows, code=code, N=n, contest="BRO")
            targets.append(_target(f"pairwise BRO step / Numba ({style}) step, N = {n}", _ratio(ours, theirs), 3.0))
    for n in (10_000, 100_000):
        contest = f"gradients, N = {n}"
        sgd = _pick(rows, code="packing_jax", work="SGD step", contest=contest)
        langevin = _pick(rows, code="packing_jax", work="Langevin step", contest=contest)
        two = _pick(rows, code="LAMMPS", threads=2, contest=contest)
        jax_md = _pick(rows, code="jax-md", contest=contest)
        targets.append(_target(f"SGD step through optax / jax-md gradient step, N = {n}", _ratio(sgd, jax_md), 4.0))
        best = [ratio for ratio in (_ratio(sgd, two), _ratio(langevin, two)) if ratio is not None]
        name = f"SGD or Langevin step / LAMMPS Brownian step, 2 threads, N = {n}"
        targets.append(_target(name, max(best, default=None), 2.0))
    return targets


def _gpu_targets(rows: list[Row]) -> list[dict[str, Any]]:
    def rate(**wanted: Any) -> float | None:
        row = _pick(rows, code="packing_jax", work=_BRO, **wanted)
        return None if row is None else row.particle_steps_per_s

    return [
        _target("particle-steps/s, 1024 x 4096", rate(N=4096, replicas=1024), 2e9),
        _target("particle-steps/s, one system of 1e6", rate(N=1_000_000, contest="a full GPU"), 2e9),
        _target("particle-steps/s, N = 64,000 (HOOMD on an A100: 5.9e8)", rate(N=64_000), 5.9e8),
    ]


def _own_targets(rows: list[Row]) -> list[dict[str, Any]]:
    targets = []
    for n in (10_000, 100_000):
        pair = [_pick(rows, code=code, contest=f"rebuild, N = {n}") for code in ("packing_jax", "jax-md")]
        targets.append(_target(f"neighbour rebuild / jax-md rebuild, N = {n}", _ratio(*pair), 20.0))
    ours = [_pick(rows, code="packing_jax", work=_BRO, N=10**k, contest="BRO") for k in (3, 4, 5, 6)]
    name = "largest / smallest cost per particle-step, N = 1e3 to 1e6"
    found = [row.particle_steps_per_s for row in ours if row is not None]
    if len(found) < 4:
        name += f" (only {len(found)} sizes measured)"
    spread = max(found) / min(found) if len(found) > 1 else None
    targets.append(_target(name, spread, 1.5, sense="<="))
    whole = _pick(rows, N=64_000, contest="batches")
    for replicas, n in ((64, 1000), (1000, 64)):
        batch = _pick(rows, N=n, replicas=replicas, contest="batches")
        targets.append(_target(f"{replicas} x {n} in one batch / one system of 64,000", _ratio(batch, whole), 0.8))
    near = "near the transition, 1.0% active"
    pair = [_pick(rows, work=f"BRO step, 1.0% active, {kind}", contest=near) for kind in ("automatic", "dense")]
    targets.append(_target("1 % active, N = 1e5: automatic / dense step", _ratio(*pair), 10.0))
    for title in ("BRO step, 2D 1:1.4", "BRO step, 4D", "BRO step, float64"):
        row = _pick(rows, work=title)
        targets.append(_target(f"{title} / 3D float32 step, N = 10000", None if row is None else row.ratio, None))
    targets.append(_target("peak bytes per particle between N = 1e5 and 1e6", _peak(ours), None))
    return targets


def _peak(ours: list[Row | None]) -> float | None:
    """The slope of a process's peak resident memory, so that the compiler's share cancels."""
    few, many = ours[-2:]
    if few is None or many is None or few.peak_resident_bytes is None or many.peak_resident_bytes is None:
        return None
    if many.peak_bytes_per_particle is not None:  # the device's own count
        return many.peak_bytes_per_particle
    return (many.peak_resident_bytes - few.peak_resident_bytes) / (many.N - few.N)


def _pick(rows: list[Row], **wanted: Any) -> Row | None:
    return next((row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())), None)


def _ratio(row: Row | None, base: Row | None) -> float | None:
    if row is None or base is None:
        return None
    return float(np.median(np.divide(row.rounds, base.rounds)))


def _target(name: str, measured: float | None, target: float | None, sense: str = ">=") -> dict[str, Any]:
    reach: dict[str, Callable[[float, float], bool]] = {">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b}
    met = None if measured is None or target is None else reach[sense](measured, target)
    return {"name": name, "measured": measured, "target": target, "sense": sense, "met": met}
