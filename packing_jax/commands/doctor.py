"""Does this jax compute correctly on this machine?

Six checks. Each compares the code that makes data with something that cannot share its mistake: the same operations
one at a time, the other precision, NumPy, published test vectors, another batch. They run at N > 33,000, because a
compiler cuts large arrays into blocks: one release was wrong from 32,769 rows on and right below.
"""

import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from packing_jax.commands import machine
from packing_jax.simulation import simulate
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres import noise
from packing_jax.spheres.geometry import mixture_1_to_1_4
from packing_jax.spheres.potential import HARMONIC
from packing_jax.spheres.rules import bro, langevin, random_organization, sgd
from packing_jax.spheres.rules.base import look
from packing_jax.spheres.rules.sgd import minibatch_gradient
from packing_jax.spheres.system import System
from packing_jax.spheres.tuning import first_skin

_EDGE = 1e-6  # mean diameters: closer than this to contact, the last bit of a float32 distance decides
_PHI = 0.6

#: Test vectors of Threefry-2x32 with 20 rounds from Random123: key, counter, result.
_THREEFRY = (
    (0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x6B200159, 0x99BA4EFE),
    (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x1CB996FC, 0xBB002BE7),
    (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3, 0xC4923A9C, 0x483DF7A0),
)


@dataclass(frozen=True)
class DoctorCommand:
    """Show versions and devices, and check that this jax computes correctly."""

    def execute(self, command: str) -> int:
        """Examine this machine."""
        print("checking, up to a minute", file=sys.stderr)
        checks = examine(on_check=lambda check: print(f"{'ok' if check.passed else 'FAILED':6} {check.name}"))
        print(format_report(machine.environment(), checks))
        return 0 if all(check.passed for check in checks) else 1


class Check(NamedTuple):
    """What one check found."""

    name: str
    passed: bool
    detail: str  #: one sentence with the figures
    seconds: float


Finding = tuple[bool, str]


def examine(particles: int = 33_500, on_check: Callable[[Check], None] | None = None) -> list[Check]:
    """Run all checks, about half a minute on two CPU cores; one that raises counts as failed.

    Args:
        particles: N of the configuration that most checks use, in 3D at phi = 0.6.
        on_check: called with each check as it ends.
    """
    sample = _Sample(particles)
    every: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("eager against jit", lambda: _eager_against_jit(sample)),
        ("float32 against float64", lambda: _float32_against_float64(sample)),
        ("neighbour rows against all pairs", lambda: _rows_against_all_pairs(sample)),
        ("random words", lambda: _random_words(particles)),
        ("alone and in a batch", _alone_and_in_a_batch),
        ("row sums", lambda: _row_sums(sample)),
    )
    checks = []
    for name, check in every:
        clock = time.perf_counter()
        try:
            passed, detail = check()
        except Exception as error:  # noqa: BLE001 - whatever a broken build raises is a finding
            reason = (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
            passed, detail = False, f"It stopped with {type(error).__name__}: {reason}."
        checks.append(Check(name, passed, detail, time.perf_counter() - clock))
        if on_check is not None:
            on_check(checks[-1])
    return checks


# --- what the checks share ------------------------------------------------------------------------------------


class _ListedPacking(NamedTuple):
    """A packing in cell order with its neighbour rows."""

    system: System
    plan: nb.Plan
    coordinates: Array
    neighbors: nb.Neighbors


class _Pairs(NamedTuple):
    """Pairs of slots i < j within reach, in float64 on the host, lengths in box sides."""

    i: np.ndarray
    j: np.ndarray
    separation: np.ndarray  #: (dim, P), x_i - x_j
    distance: np.ndarray


class _Sample:
    """A random mixture of spheres, its neighbours found once by the package and once by :func:`all_pairs`."""

    def __init__(self, particles: int) -> None:
        self.particles = particles

    @cached_property
    def listed(self) -> _ListedPacking:
        return self.build(np.dtype(np.float32))

    def build(self, dtype: np.dtype) -> _ListedPacking:
        """Sort and list as the driver does; both precisions start from the same numbers."""
        n = self.particles
        system = System.create(_PHI, n, 3, sizes=mixture_1_to_1_4(n), energy=HARMONIC, dtype=dtype)
        start = np.random.default_rng(1).integers(-(2**31), 2**31, (3, n), dtype=np.int32)
        coordinates = jnp.asarray(start if dtype == np.float32 else start.astype(np.int64) << 32)
        plan = nb.plan_for(system, first_skin(3))
        while True:
            ordered, neighbors = jax.jit(partial(nb.sort_and_build, plan))(system, coordinates)
            if not nb.overflowed(plan, neighbors):
                return _ListedPacking(ordered, plan, neighbors.reference, neighbors)
            plan = plan.grown(int(neighbors.needed_row), int(neighbors.needed_slots))

    @cached_property
    def cutoff(self) -> tuple[np.ndarray, float]:
        """Diameters (N,) and the skin, in box sides: a pair is listed within their mean diameter and the skin."""
        system, plan, _, _ = self.listed
        box, unit = float(system.box), float(system.unit)
        return np.asarray(system.diameters, np.float64) / box, plan.skin * unit / box

    @cached_property
    def pairs(self) -> _Pairs:
        diameters, skin = self.cutoff
        return all_pairs(np.asarray(self.listed.coordinates), float(diameters.max()) + 1.01 * skin)


def all_pairs(coordinates: np.ndarray, reach: float) -> _Pairs:
    """Every pair closer than ``reach`` box sides, without cells and without jax.

    All N(N-1)/2 differences of (dim, N) int32 coordinates are taken along the first axis, where the wrap-around of
    integers is the periodic box; those within reach there go on to the next axis, and so to a float64 distance.
    """
    n = coordinates.shape[1]
    window = np.uint32(min(int(reach * 2.0**32) + 1, 2**31 - 1))
    width = np.uint32(2 * int(window))
    unsigned = coordinates.astype(np.int32).view(np.uint32)
    block = max(1, 2**20 // n)  # stays in a CPU's cache
    found = []
    for first in range(0, n, block):
        shifted = unsigned[0, first : first + block, None] + window
        i, j = np.nonzero(shifted - unsigned[0, None, first:] <= width)
        i, j = i[j > i] + first, j[j > i] + first
        for x in unsigned[1:]:
            near = x[i] + window - x[j] <= width
            i, j = i[near], j[near]
        found.append((i, j))
    i, j = (np.concatenate(part) for part in zip(*found, strict=True))
    separation = (unsigned[:, i] - unsigned[:, j]).view(np.int32) * 2.0**-32
    distance = np.sqrt(np.sum(separation**2, axis=0))
    inside = distance < reach
    return _Pairs(i[inside], j[inside], separation[:, inside], distance[inside])


def _unit(system: System) -> float:
    """The mean diameter in box sides."""
    return float(system.unit / system.box)


# --- the checks -----------------------------------------------------------------------------------------------


def _eager_against_jit(sample: _Sample) -> Finding:
    """One step of each rule, and the expression of jax issue 39103."""
    system, _, coordinates, neighbors = sample.listed
    kick = 0.05
    rules: dict[str, Any] = {
        "bro": bro(kick),
        "sgd": sgd(optax.sgd(kick), 0.75),
        "langevin": langevin(kick),
        "random organization": random_organization(kick),
    }

    def step(key: Array, system: System, x: Array, rows: nb.Neighbors) -> dict[str, Array]:
        words = noise.particle_words(key, rows.tags)
        return {name: x + rule.step(words, system, x, rows, rule.init(system, x))[0] for name, rule in rules.items()}

    # everything is an argument: the compiler would evaluate constants beforehand instead of compiling the operations
    arguments = (jax.random.key(2, impl="threefry2x32"), system, coordinates, neighbors)
    with jax.disable_jit():
        eager = jax.device_get(step(*arguments))
    compiled = jax.device_get(jax.jit(step)(*arguments))
    sure = ~_at_the_edge(sample)
    apart = {
        name: float(np.max(np.abs((eager[name] - compiled[name])[:, sure] * 2.0**-32))) / _unit(system)
        for name in rules
    }
    products = _products(jnp.asarray(np.asarray(coordinates).T, np.float32))
    worst = max(apart, key=lambda name: apart[name])
    return apart[worst] < 1e-6 and products < 1e-6, (
        f"After one step of {', '.join(apart)}, positions of {sample.particles:,} particles computed operation by "
        f"operation and compiled differ by at most {apart[worst]:.1e} diameters ({worst}), and row-wise matrix "
        f"products by {products:.1e} of the largest; below 1e-6 is right."
    )


def _at_the_edge(sample: _Sample) -> np.ndarray:
    """Particles (N,) with a listed neighbour so close to contact that rounding decides about the overlap."""
    rows, x = np.asarray(sample.listed.neighbors.rows), np.asarray(sample.listed.coordinates)
    diameters, _ = sample.cutoff
    distance = np.sqrt(sum(((part[rows] - part[:, None]) * 2.0**-32) ** 2 for part in x))
    gap = np.abs(distance - 0.5 * (diameters[rows] + diameters[:, None]))
    return np.asarray(np.any(gap < _EDGE * _unit(sample.listed.system), axis=1))


def _products(vectors: Array) -> float:
    """Largest relative difference of |A x|^2 over many rows, eager and compiled."""
    matrix = jnp.eye(vectors.shape[1], dtype=vectors.dtype)

    def norms(x: Array) -> Array:
        # full precision: a GPU may shorten products, and then the two ways differ without being wrong
        return jax.vmap(lambda row: jnp.sum(jnp.matmul(matrix, row, precision="highest") ** 2))(x)

    eager = np.asarray(norms(vectors), np.float64)
    return float(np.max(np.abs(eager - np.asarray(jax.jit(norms)(vectors)))) / np.max(eager))


def _float32_against_float64(sample: _Sample) -> Finding:
    """Descent on the harmonic energy: its force vanishes at contact, so rounding can switch nothing on."""
    steps = 5

    def moved_by_tag(dtype: np.dtype) -> np.ndarray:
        system, _, coordinates, neighbors = sample.listed if dtype == np.float32 else sample.build(dtype)
        # 3/4 is exact in the random numbers of both precisions: they choose the same pairs
        rule = sgd(jax.tree_util.Partial(optax.sgd, learning_rate=jnp.asarray(0.1, dtype)), 0.75)
        key = jax.random.key(3, impl="threefry2x32")

        def run(system: System, x: Array, rows: nb.Neighbors) -> Array:
            state = rule.init(system, x)

            def step(t: Array, x: Array) -> Array:
                words = noise.particle_words(jax.random.fold_in(key, t), rows.tags)
                return x + rule.step(words, system, x, rows, state)[0]

            return jax.lax.fori_loop(0, steps, step, x)

        moved = np.asarray(jax.jit(run)(system, coordinates, neighbors))
        by_tag = np.empty_like(moved)
        by_tag[:, np.asarray(neighbors.tags)] = moved
        return by_tag

    single = moved_by_tag(np.dtype(np.float32))
    with jax.enable_x64(True):
        double = moved_by_tag(np.dtype(np.float64))
    apart = (double - (single.astype(np.int64) << 32)) * 2.0**-64 / _unit(sample.listed.system)
    worst = float(np.max(np.abs(apart)))
    return worst < 1e-5, (
        f"After {steps} steps of sgd from one start with the same draws, positions of {sample.particles:,} particles "
        f"in float32 and float64 differ by at most {worst:.1e} diameters; below 1e-5 is right."
    )


def _rows_against_all_pairs(sample: _Sample) -> Finding:
    """The pairs in the rows, as a set, against those of :func:`all_pairs`."""
    n = sample.particles
    rows = np.asarray(sample.listed.neighbors.rows).astype(np.int64)
    me = np.arange(n)[:, None]
    listed = (me * n + rows)[rows != me]
    unique = np.unique(listed)
    i, j, _, distance = sample.pairs
    diameters, skin = sample.cutoff
    beyond = distance - (0.5 * (diameters[i] + diameters[j]) + skin)
    edge = _EDGE * _unit(sample.listed.system)

    def both_ways(keep: np.ndarray) -> np.ndarray:
        return np.concatenate([i[keep] * n + j[keep], j[keep] * n + i[keep]])

    must = both_ways(beyond < -edge)
    missing = len(must) - len(np.intersect1d(must, unique, assume_unique=True))
    false = len(np.setdiff1d(unique, both_ways(beyond < edge), assume_unique=True))
    twice = len(listed) - len(unique)
    return missing == false == twice == 0, (
        f"Of the {len(must):,} neighbours that NumPy finds in float64 among all {n * (n - 1) // 2:,} pairs of {n:,} "
        f"particles in 3D, the rows built on the {jax.default_backend()} miss {missing:,}, list {twice:,} twice and "
        f"add {false:,} false ones."
    )


def _random_words(count: int) -> Finding:
    """Threefry-2x32 against jax's own and against its authors' test vectors."""
    key = jax.random.key(4, impl="threefry2x32")
    tags = jnp.arange(count, dtype=jnp.int32)
    ours = np.stack([np.asarray(words) for words in jax.jit(lambda t: noise.particle_words(key, t))(tags)], axis=-1)
    theirs = np.asarray(jax.random.key_data(jax.vmap(lambda tag: jax.random.fold_in(key, tag))(tags)))
    k0, k1, c0, c1, *published = np.array(_THREEFRY, np.uint32).T
    vectors = np.stack(noise.threefry2x32((jnp.asarray(k0), jnp.asarray(k1)), (jnp.asarray(c0), jnp.asarray(c1))))
    wrong = int(np.sum(np.any(ours != theirs, axis=-1)))
    known = int(np.sum(np.all(vectors == published, axis=0)))
    return wrong == 0 and known == 3, (
        f"Of {count:,} pairs of random words, {wrong:,} differ from those of jax.random.fold_in, and {known} of 3 "
        "published Threefry test vectors come out right."
    )


def _alone_and_in_a_batch() -> Finding:
    """A replica has the same bits in any batch, over enough steps for one wrong bit to spread to every particle."""
    steps, which = 50, 2
    system = System.create(0.9, 200, 2)  # few particles in 2D compile twice as fast as more in 3D
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5, impl="threefry2x32"), i))(jnp.arange(4))

    def positions(keys: Array) -> np.ndarray:
        times = np.array([steps])
        result = simulate(system, bro(0.05), steps, keys, record={}, times=times, chunk_steps=steps + 1, skin=0.4)
        return result.positions

    alone, batch = positions(keys[which]), positions(keys)
    apart = np.abs(alone - batch[which])
    different = int(np.sum(apart != 0))
    worst = float(np.max(np.minimum(apart, 1.0 - apart))) / _unit(system)
    return different == 0, (
        f"After {steps} steps of bro, {different:,} of the {alone.size:,} coordinates of a replica that ran alone "
        f"differ from those of the same replica in a batch of {len(batch)} (by up to {worst:.1e} diameters); none may."
    )


def _row_sums(sample: _Sample) -> Finding:
    """The gradient of the energy, summed in integers, against NumPy's sum over all pairs in float64."""
    system, _, coordinates, neighbors = sample.listed
    rule = sgd(optax.sgd(1.0), 1.0)
    key = jax.random.key(6, impl="threefry2x32")
    words = noise.particle_words(key, neighbors.tags)
    gradient = jax.jit(lambda system, x, rows: minibatch_gradient(rule, system, look(words, system, x, rows))[0])
    summed = np.asarray(gradient(system, coordinates, neighbors))
    backwards = np.asarray(gradient(system, coordinates, replace(neighbors, rows=neighbors.rows[:, ::-1])))

    i, j, separation, distance = sample.pairs
    diameters, _ = sample.cutoff
    contact = 0.5 * (diameters[i] + diameters[j])
    # V = (R/2) (1 - r/sigma)^2 with R half the mean diameter
    slope = -0.5 * _unit(system) / contact * np.maximum(1.0 - distance / contact, 0.0)
    forces = slope * separation / distance
    expected = np.stack([np.bincount(i, f, sample.particles) - np.bincount(j, f, sample.particles) for f in forces])
    worst = float(np.max(np.abs(summed - expected)))
    moved = int(np.sum(summed != backwards))
    return worst < 2e-6 and moved == 0, (
        f"Gradients of {sample.particles:,} particles, up to {np.max(np.abs(expected)):.2g}, differ from NumPy's in "
        f"float64 by at most {worst:.1e} (below 2e-6 is right), and {moved:,} of them change when the rows are read "
        "backwards (none may)."
    )


# --- the report -----------------------------------------------------------------------------------------------


def format_report(environment: list[tuple[str, str]], checks: list[Check]) -> str:
    """Environment and checks as text of at most 80 columns."""
    width = max((len(name) for name, _ in environment), default=0) + 2
    lines = [_wrapped(f"{name:{width}}", value) for name, value in environment]
    for check in checks:
        lines += ["", f"{'ok' if check.passed else 'FAILED':8}{check.name} ({check.seconds:.1f} s)"]
        lines.append(_wrapped(" " * 8, check.detail))
    failed = sum(not check.passed for check in checks)
    verdict = (
        f"{failed} of {len(checks)} checks failed: do not trust data made with this installation on this machine; "
        "try another release of jax and jaxlib."
        if failed
        else f"All {len(checks)} checks passed."
    )
    return "\n".join([*lines, "", _wrapped("", verdict)])


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(text, 80, initial_indent=label, subsequent_indent=" " * len(label))
