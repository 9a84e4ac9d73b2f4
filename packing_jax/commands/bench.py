r"""How many steps per second this machine makes, beside the most that its memory would allow.

A rate is that of one long run as a user would start it. It includes list rebuilds and the host's work between chunks;
it leaves out what happens once, at the beginning: compiling, choosing skins and capacities. Starts are thermalised,
because a Poisson pattern has other neighbours and overlaps than a packing.

The memory floor is the rate of a perfect step, whose arithmetic takes no time and which reads everything from memory:
measured copy bandwidth over the bytes that one fused step must move, see :func:`step_bytes`. On a CPU arithmetic limits
the rate long before memory does, and small systems stay in its caches.

`benchmarks/compare.py` measures other codes beside this one with the same functions.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import Array

from packing_jax.devices import on_cpu
from packing_jax.drive.run import Progress
from packing_jax.drive.schedule import STEP_LIMIT
from packing_jax.errors import PackingError
from packing_jax.simulation import simulate
from packing_jax.spheres.geometry import mixture_1_to_1_4
from packing_jax.spheres.rules import Rule, bro, langevin, sgd
from packing_jax.spheres.system import System

PHI, KICK = 0.66, 0.02  # above the transition in 3D, where no run is absorbed
_REACH = 1.4  # mean diameters within which the floor counts neighbours
_SMALLEST_TILE = 500

#: The rules that are timed, by name. SGD at b_f = 3/4 and alpha = 4 eps/3 has BRO's first two moments.
RULES: dict[str, Callable[[float], Rule]] = {
    "BRO step": bro,
    "SGD step": lambda kick: sgd(optax.sgd(4.0 * kick / 3.0), batch_fraction=0.75),
    "Langevin step": langevin,
}


# --- the work -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A thermalised packing to step."""

    particles: int
    phi: float = PHI
    kick: float = KICK
    dim: int = 3
    mixture: bool = False  #: half of the particles 1.4 times as wide
    dtype: str = "float32"

    def system(self, sizes: np.ndarray | None) -> System:
        """Its system, of equal spheres when ``sizes`` is None."""
        return System.create(self.phi, self.particles, self.dim, sizes=sizes, dtype=np.dtype(self.dtype))


def tiling(particles: int, dim: int) -> tuple[int, int]:
    """(particles, copies per axis) of the smallest periodic tile of at least 500 particles that builds N of them."""
    sides = [k for k in range(1, particles + 1) if k**dim <= particles and particles % k**dim == 0]
    copies = max((k for k in sides if particles // k**dim >= _SMALLEST_TILE), default=1)
    return particles // copies**dim, copies


def thermalised(work: Work, seed: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions (N, dim) in box sides and sizes (N,) of a stationary BRO packing, in cell order.

    Large systems are periodic copies of a small one, which are stationary as well. The copies differ from the first
    step on, because every particle has random numbers of its own.

    Raises:
        PackingError: the packing was absorbed, because phi is below the transition.
    """
    n, copies = tiling(work.particles, work.dim)
    sizes = mixture_1_to_1_4(n) if work.mixture else None
    system = System.create(work.phi, n, work.dim, sizes=sizes)
    steps = round(200 / work.kick)
    ends = np.array([0, steps])
    run = simulate(system, bro(work.kick), steps, jax.random.key(seed), record={}, times=ends)
    if run.absorbed_at >= 0:
        raise PackingError(f"phi = {work.phi} in {work.dim}D is absorbed at kick {work.kick}; nothing is left to time")
    return tiled(run.positions, sizes, copies)


def tiled(positions: np.ndarray, sizes: np.ndarray | None, copies: int) -> tuple[np.ndarray, np.ndarray | None]:
    """``copies`` periodic copies along each axis of a packing in the unit box, in cell order."""
    dim = positions.shape[1]
    offsets = np.stack(np.meshgrid(*[np.arange(copies)] * dim, indexing="ij"), axis=-1).reshape(-1, 1, dim)
    points = ((positions[None] + offsets) / copies).reshape(-1, dim).astype(np.float32) % np.float32(1.0)
    cells = max(1, int(len(points) ** (1 / dim)))
    order = np.lexsort(np.minimum((points * cells).astype(int), cells - 1).T[::-1])
    return points[order], None if sizes is None else np.tile(sizes, len(offsets))[order]


# --- clocks ---------------------------------------------------------------------------------------------------


class _Compilations:
    """Counts what jax compiles."""

    count = 0

    def __call__(self, event: str, duration_secs: float, **_: str | int) -> None:
        self.count += "compile" in event


compilations = _Compilations()
jax.monitoring.register_event_duration_secs_listener(compilations)


class _Enough(Exception):  # noqa: N818  # nothing went wrong
    """Ends a run from its progress callback."""


def time_long_run(
    system: System,
    rule: Rule,
    key: Array,
    start: np.ndarray,
    order: Callable[[float | None], float | None],
    *,
    batch: int | None = None,
    warmup: float = 2.0,
) -> None:
    """Time rounds of one long run.

    The run pauses while ``order`` is called, and ends when it returns None. A round in which something was compiled is
    begun again: a long run compiles a few times and then no more.

    Args:
        system: what moves.
        rule: how.
        key: one key, or one for each replica.
        start: positions (N, dim) in box sides.
        order: called with None once the run is warm, and with particle-steps per second after each round; returns the
            seconds that the next round takes.
        batch: replicas that move at the same time.
        warmup: the run is warm so many seconds after the last compilation.

    Raises:
        PackingError: every replica was absorbed.
    """
    began, at_begin, compiled = 0.0, 0, -1
    seconds: float | None = None

    def ask(rate: float | None, progress: Progress) -> None:
        nonlocal seconds, began, at_begin
        seconds = order(rate)
        if seconds is None:
            raise _Enough
        began, at_begin = time.perf_counter(), progress.unit_steps

    def on_progress(progress: Progress) -> None:
        nonlocal began, at_begin, compiled
        now, made = time.perf_counter(), progress.unit_steps
        if progress.done == progress.total:
            raise PackingError("every replica was absorbed while its steps were timed; use a higher phi")
        if compiled != compilations.count:
            compiled, began, at_begin = compilations.count, now, made
        elif now - began >= (warmup if seconds is None else seconds):
            ask(None if seconds is None else (made - at_begin) / (now - began), progress)

    try:
        ends = np.array([0, STEP_LIMIT])
        simulate(
            system, rule, STEP_LIMIT, key, start=start, record={}, times=ends, batch=batch, on_progress=on_progress
        )
    except _Enough:
        return


def copy_bandwidth(megabytes: int | None = None) -> float:
    """Bytes per second, read and written, of copying an array larger than any cache; the best of seven."""
    if megabytes is None:
        megabytes = 256 if on_cpu() else 2048  # a GPU copies 256 in little more than the time that starting takes
    x = jnp.zeros(megabytes * 2**20 // 4, jnp.int32)
    copy = jax.jit(lambda a: a + 1)
    copy(x).block_until_ready()
    best = np.inf
    for _ in range(7):
        clock = time.perf_counter()
        copy(x).block_until_ready()
        best = min(best, time.perf_counter() - clock)
    return 2.0 * x.nbytes / best


def step_bytes(work: Work) -> float:
    """Bytes per particle that a fused step must move through memory.

    Coordinates in and out, those at the last rebuild (to see when the rows are out of date), a tag of 4 bytes, and a
    row of 4 bytes per neighbour within 1.4 diameters, see :func:`row_length`. A neighbour's coordinates are not read
    again, as if a cache held them. In 3D at phi = 0.66 and float32: 36 + 4 + 58.
    """
    return 3 * work.dim * np.dtype(work.dtype).itemsize + 4 + 4 * row_length(work)


def rebuild_bytes(work: Work) -> float:
    """Bytes per particle that a rebuild must move: coordinates and a tag in and out, and a row out."""
    return 2 * (work.dim * np.dtype(work.dtype).itemsize + 4) + 4 * row_length(work)


def row_length(work: Work) -> float:
    """Mean number of particles within 1.4 mean diameters of one, 2^d phi 1.4^d."""
    return (2 * _REACH) ** work.dim * work.phi


def device_name() -> str:
    """The device jax computes on."""
    device = jax.devices()[0]
    return cpu_name() if device.platform == "cpu" else str(device.device_kind)


def cpu_name() -> str:
    """The processor's own name, and how many of its cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = "CPU"
    return f"{model}, {usable_cores()} cores"


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- results --------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One line of the table."""

    code: str
    work: str
    device: str
    N: int
    replicas: int
    phi: float
    kick: float
    dim: int
    dtype: str
    particle_steps_per_s: float  #: median over rounds; particles per second for a rebuild
    ratio: float | None  #: to ``against``, median over rounds
    against: str | None
    fraction_of_floor: float | None
    floor: float | None  #: particle-steps per second at the memory floor
    rounds: list[float]
    seconds: float  #: measured in all
    threads: int | None = None
    peak_bytes_per_particle: float | None = None
    peak_resident_bytes: int | None = None  #: of the process, compiler included
    activity: float | None = None  #: mean over the run, near the transition only
    note: str = ""
    contest: str = ""  #: the rows of one contest were measured in turns


def format_rows(rows: list[Row]) -> str:
    """The table as text."""
    head = (
        "code",
        "work",
        "device",
        "threads",
        "N",
        "replicas",
        "phi",
        "kick",
        "dtype",
        "M/s",
        "ratio",
        "against",
        "floor M/s",
        "fraction",
    )
    body = [
        (
            row.code,
            row.work,
            row.device[:16].strip(),
            "" if row.threads is None else str(row.threads),
            f"{row.N:,}",
            f"{row.replicas:,}",
            f"{row.phi:g}",
            f"{row.kick:g}",
            row.dtype,
            f"{row.particle_steps_per_s / 1e6:.3g}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.against or "",
            "" if row.floor is None else f"{row.floor / 1e6:.3g}",
            "" if row.fraction_of_floor is None else f"{row.fraction_of_floor:.3f}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body]]
    return "\n".join(line.rstrip() for line in text)


@dataclass(frozen=True, kw_only=True)
class BenchCommand:
    """Measure steps per second on this machine, and the limit that its memory sets.

    - Three rules in 3D at phi 0.66 and kick 0.02, in stationary states; about
      ten seconds for each rule and size, most of them for compiling.
    """

    particles: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT ...")] = (1000, 10_000, 100_000)
    """System sizes N."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """File to write the rows to, as JSON. Default: none."""

    def execute(self, command: str) -> int:
        """Measure and print."""
        if min(self.particles) < 64:
            raise PackingError(f"{min(self.particles)} particles; at least 64 fit a box of phi {PHI} and stay active")
        bandwidth = copy_bandwidth()
        print(f"{device_name()}, jax {jax.__version__}, copies {bandwidth / 1e9:.1f} GB/s")
        rows = []
        for n in self.particles:
            work = Work(n)
            start, _ = thermalised(work)
            for name in RULES:
                rows.append(measured(work, name, start, bandwidth))
                print(f"N = {n:,}: {name} {rows[-1].particle_steps_per_s / 1e6:.3g} M/s")
        print(f"\n{format_rows(rows)}")
        if self.out is not None:
            content = {"command": command, "jax": jax.__version__, "rows": [asdict(row) for row in rows]}
            self.out.write_text(json.dumps(content, indent=1) + "\n")
        return 0


def measured(work: Work, name: str, start: np.ndarray, bandwidth: float, rounds: int = 3, seconds: float = 1.0) -> Row:
    """The row of one rule on this machine."""
    rates: list[float] = []

    def order(rate: float | None) -> float | None:
        if rate is not None:
            rates.append(rate)
        return seconds if len(rates) < rounds else None

    time_long_run(work.system(None), RULES[name](work.kick), jax.random.key(1), start, order)
    rate, floor = float(np.median(rates)), bandwidth / step_bytes(work)
    return Row(
        code="packing_jax",
        work=name,
        device=device_name(),
        N=work.particles,
        replicas=1,
        phi=work.phi,
        kick=work.kick,
        dim=work.dim,
        dtype=work.dtype,
        particle_steps_per_s=rate,
        ratio=None,
        against=None,
        fraction_of_floor=rate / floor,
        floor=floor,
        rounds=rates,
        seconds=rounds * seconds,
        threads=usable_cores(),
    )
