"""Which contenders meet in which contest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common import Failed, Start, call

from packing_jax.commands.bench import Work

SIZES = (1_000, 10_000, 100_000, 1_000_000)
NEAR = Work(100_000, phi=0.55, kick=0.1)  # 0.4 to 1 % below phi_c: activity passes every level, slowly
LEVELS = (0.3, 0.1, 0.03, 0.01, 0.003)
OTHER_WORK = {
    "BRO step": Work(10_000),
    "BRO step, float64": Work(10_000, dtype="float64"),
    "BRO step, 2D 1:1.4": Work(10_000, phi=0.86, dim=2, mixture=True),
    "BRO step, 4D": Work(10_000, phi=0.48, dim=4),
}


@dataclass(frozen=True, eq=False)
class Entry:
    """A contender of a contest."""

    module: str
    function: str
    work: Work
    arguments: tuple[Any, ...]
    title: str  #: what the table calls the work
    against: "Entry | None" = None
    replicas: int = 1
    env: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Short name, as what a ratio is against."""
        last = self.arguments[-1] if self.arguments else None
        return {
            "ours": "its dense step" if self.function == "near_transition" else f"itself, N = {self.work.particles}",
            "peer_numba": f"Numba, {last}",
            "peer_lammps": f"LAMMPS, {self.arguments[2]} threads",
            "peer_jax_md": "jax-md",
        }[self.module]


@dataclass(frozen=True)
class Contest:
    """Contenders that are timed in turn."""

    name: str
    entries: list[Entry]
    seconds: float  #: of a round
    rounds: int
    same_bits: bool = False  #: its two contenders must give the same trajectory


class EntryMaker:
    """Makes entries; there are none for sizes without a starting configuration."""

    def __init__(self, quick: bool, starts: dict[Work, Start | str]) -> None:
        self.quick = quick
        self.starts = {work: start for work, start in starts.items() if not isinstance(start, str)}

    def has(self, *sizes: int) -> list[int]:
        """Those of the sizes that there is a start for."""
        return [n for n in sizes if Work(n) in self.starts]

    def ours(
        self, work: Work, rule: str, replicas: int = 1, against: Entry | None = None, title: str | None = None
    ) -> Entry:
        """packing_jax's step."""
        env = (("JAX_ENABLE_X64", "1"),) if work.dtype == "float64" else ()
        arguments = (self.starts[start_of(work)], work, rule, replicas, 1.0 if self.quick else 8.0)
        return Entry("ours", "step", work, arguments, title or rule, against, replicas, env)

    def numba(self, n: int, style: str, against: Entry | None = None) -> Entry:
        """The hand-written BRO step."""
        work = Work(n)
        return Entry("peer_numba", "step", work, (self.starts[work], work.kick, style), "BRO step", against)

    def jax_md(self, n: int) -> Entry:
        """jax-md's gradient step."""
        formats = ("OrderedSparse", "Dense") if self.quick else ("OrderedSparse", "Sparse", "Dense")
        skins = (0.4,) if self.quick else (0.2, 0.3, 0.4, 0.5)
        work = Work(n)
        arguments = (self.starts[work], work.kick, formats, skins)
        return Entry("peer_jax_md", "step", work, arguments, "gradient step")

    def lammps(self, n: int, threads: int) -> Entry:
        """LAMMPS's Brownian step."""
        pairs = ("table",) if self.quick else ("table", "harmonic/cut", "soft")
        skins = (0.2, 0.3, 0.4) if self.quick else (0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
        env = (("OMP_NUM_THREADS", str(threads)),)
        work = Work(n)
        arguments = (self.starts[work], work.kick, threads, pairs, skins)
        return Entry("peer_lammps", "step", work, arguments, "Brownian step", env=env)


def start_of(work: Work) -> Work:
    """The work whose start this one takes: thermalised in float32."""
    return Work(work.particles, work.phi, work.kick, work.dim, work.mixture)


def works_to_start(quick: bool, gpu: bool) -> list[Work]:
    """Every thermalised configuration that the contests need."""
    works = [Work(n) for n in (SIZES[:3] if quick else SIZES)] + [Work(64_000)]
    if not quick:
        works += [Work(64), *map(start_of, OTHER_WORK.values())]
    if gpu:
        works += [Work(4096), Work(1_000_000)]
    return list(dict.fromkeys(works))


def contests(quick: bool, gpu: bool, starts: dict[Work, Start | str]) -> Iterator[Contest]:
    """The contests, the most telling first."""
    seconds, rounds = (0.4, 3) if quick else (2.0, 5)
    make = EntryMaker(quick, starts)
    if gpu:
        big = [make.ours(Work(n), "BRO step", replicas) for n, replicas in ((4096, 1024), (1_000_000, 1))]
        yield Contest("a full GPU", big, seconds, rounds)
    yield Contest("BRO", list(bro_entries(make, quick, gpu)), seconds, rounds)
    for n in make.has(*((10_000,) if quick else SIZES[:3])):
        yield Contest(f"gradients, N = {n}", list(gradient_entries(make, n, gpu)), seconds, rounds)
    for n in make.has(*((10_000,) if quick else SIZES[:3])):
        yield Contest(f"rebuild, N = {n}", rebuild_entries(make, n), seconds, rounds)
    if make.has(64_000):
        yield Contest("batches", list(batch_entries(make)), seconds, rounds)
    yield from near_contests(quick, rounds)
    if not quick:
        works = {title: work for title, work in OTHER_WORK.items() if start_of(work) in make.starts}
        first = make.ours(Work(10_000), "BRO step")
        others = [
            make.ours(work, "BRO step", against=first, title=title)
            for title, work in works.items()
            if work != first.work
        ]
        yield Contest("other dimensions and float64", [first, *others], seconds, rounds)


def bro_entries(make: EntryMaker, quick: bool, gpu: bool) -> Iterator[Entry]:
    """BRO at all sizes, beside the hand-written code."""
    for n in make.has(*SIZES):
        tuned = None
        if not gpu and (n > 1000 or not quick):
            tuned = make.numba(n, "tuned")
            yield tuned
        if not gpu and (n == 10_000 or not quick):
            yield make.numba(n, "plain", tuned)
        yield make.ours(Work(n), "BRO step", against=tuned)


def gradient_entries(make: EntryMaker, n: int, gpu: bool) -> Iterator[Entry]:
    """SGD and Langevin beside jax-md and LAMMPS."""
    jax_md = make.jax_md(n)
    yield from (jax_md, make.ours(Work(n), "SGD step", against=jax_md))
    if gpu:
        yield make.ours(Work(n), "Langevin step")
        return
    one, two = make.lammps(n, 1), make.lammps(n, 2)
    yield from (one, two, make.ours(Work(n), "Langevin step", against=two))


def rebuild_entries(make: EntryMaker, n: int) -> list[Entry]:
    """The list rebuild of both."""
    work, start = Work(n), make.starts[Work(n)]
    formats = ("OrderedSparse", "Dense") if make.quick else ("OrderedSparse", "Sparse", "Dense")
    theirs = Entry("peer_jax_md", "rebuild", work, (start, formats, 0.4), "rebuild")
    return [theirs, Entry("ours", "rebuild", work, (start, work), "rebuild", theirs)]


def batch_entries(make: EntryMaker) -> Iterator[Entry]:
    """The same number of particles in one system and in many."""
    whole = make.ours(Work(64_000), "BRO step")
    yield whole
    for n in make.has(1000, 64):
        yield make.ours(Work(n), "BRO step", 64_000 // n, whole)


def near_contests(quick: bool, rounds: int) -> Iterator[Contest]:
    """Whole runs at falling activity, with and without the active-only step."""
    levels = (0.01,) if quick else LEVELS
    try:
        found = call("ours", "approach", NEAR, levels, 2, 20_000)
    except Failed as failed:
        yield Contest(f"near the transition: no start, {failed}", [], 0.0, 0)
        return
    for level in levels:
        arguments = (NEAR, found[level], 300)
        dense = Entry("ours", "near_transition", NEAR, (*arguments, True), f"BRO step, {level:.1%} active, dense")
        ours = Entry(
            "ours", "near_transition", NEAR, (*arguments, False), f"BRO step, {level:.1%} active, automatic", dense
        )
        yield Contest(f"near the transition, {level:.1%} active", [dense, ours], 0.0, min(rounds, 3), same_bits=True)
