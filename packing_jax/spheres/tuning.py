"""Tuning of the neighbour search: the plan of the next chunk, chosen from what the last chunk needed.

A Poisson pattern needs rows twice as long as a relaxed packing, the best skin depends on how far particles move, and
below some activity it is faster to step only the active particles. None of these changes a trajectory, so all are tuned
during the run. Each new plan must be compiled, so there are few: capacities in steps, skins from a list, and a change
must pay for its compilation.
"""

import os
from dataclasses import replace
from typing import NamedTuple

import jax
from jax import Array

from packing_jax.devices import on_cpu
from packing_jax.spheres.neighbors import Plan, plan_for
from packing_jax.spheres.system import System

#: Skins to choose from, in mean diameters.
LADDER = (0.1, 0.14, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.1)

# Measured on two CPU cores in 3D at N = 1e4 and 1e5, phi 0.61 to 0.66, in units of the dense step's time per row entry.
# On an H200 a rebuild takes 11 dense steps at 1024 x 4096 and 16 at N = 1e6; active-only steps gain nothing at N = 1e5.
_REBUILD = 9.0  # dense steps that a rebuild takes
_ACTIVE = 3.0  # an entry of a listed particle's row: two passes, gathered
_OVERHEAD = 5e4  # fixed cost of an active-only step, in row entries
_TRUST = 0.85  # the predicted cost of a skin that was not tried is divided by this
_SPARE = 1  # entries beyond what was needed, so that fluctuations seldom overflow


class Needs(NamedTuple):
    """What the neighbour search of a chunk needed; above the plan's capacity the chunk is void.

    For a batch on several devices, each field has one entry a device.
    """

    row: Array  #: () int32, longest row
    slots: Array  #: () int32, longest run of cells
    rebuilds: Array  #: () int32
    active: (
        Array  #: () int32, the most active particles of a replica: at any step if lists are in use, else at the last
    )


def first_skin(dim: int) -> float:
    """The skin to start with: rows lengthen as (1 + skin)^d, so high dimensions start lower."""
    return 0.4 if dim <= 3 else 0.2


def bytes_per_particle(dim: int) -> int:
    """Upper bound on the memory of a chunk, in bytes per particle, in float32.

    The state, twice; rows as long as a Poisson pattern at phi = 0.7 needs, twice, and their mask; and while rows are
    built, eight numbers for each word of candidates, two words for each run of cells.
    """
    near = 0.7 * (2.0 * (1.0 + first_skin(dim))) ** dim
    return round(56 * dim + 9 * (near + 4.5 * near**0.5 + 2) + 64 * 3 ** (dim - 1))


def free_bytes(device: jax.Device) -> int:
    """Free memory of a device: what its allocator reports, or the machine's free memory where it reports none."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return 2**32


def fitted(plan: Plan, row: int, slots: int) -> Plan:
    """The plan with capacities a little above what was needed, never above the plan's own.

    On a CPU in multiples of 8, the width of a vector: a row of 20 takes longer than one of 24.
    """
    slots = _up(slots + _SPARE, 8 if slots < 32 else 32)
    if plan.cells == 1:
        slots = plan.slots
    row = _up(row + _SPARE, 8 if on_cpu() else 2)
    return replace(plan, capacity=min(plan.capacity, row), slots=min(plan.slots, slots))


def next_plan(
    plan: Plan, system: System, needs: Needs, steps: int, seconds_left: float, local: bool = False, batch: int = 1
) -> tuple[Plan, float]:
    """The best plan for the next chunk, and the seconds that it would save.

    Args:
        plan: the plan of the last chunk.
        system: the system.
        needs: what the last chunk needed.
        steps: moves that the last chunk made.
        seconds_left: time that the run still takes at its present speed.
        local: the rule moves only particles with an overlap, so that steps may be active-only.
        batch: replicas that move at a time.
    """
    row, slots = int(needs.row), int(needs.slots)
    # a chunk begins with a rebuild, needed or not; at its end the rows are taken as half used up
    rebuilds = int(needs.rebuilds)
    interval = steps / max(rebuilds - 0.5, 0.5)
    # Smooth energies never quite end an overlap, so that the cut calls few active while all of them still move.
    lists = {0, _list_for(int(needs.active), system.particles)} if local and system.cut == 0 else {0}

    def cost(wanted: Plan, interval: float) -> float:
        """Relative time per step: a gather proportional to the row, and a rebuild spread over the interval."""
        step = float(wanted.capacity)
        if wanted.active:
            step = _ACTIVE * wanted.active / system.particles * wanted.capacity + _OVERHEAD / (system.particles * batch)
        return step + wanted.capacity * _REBUILD / interval

    now = cost(plan, interval)
    plans = {replace(fitted(plan, row, slots), active=some): interval for some in lists}
    # without a rebuild on the way there is only a lower bound on how long rows last: enough to try shorter skins
    widest = 1.7 * plan.skin if rebuilds > 1 else plan.skin
    for skin in LADDER:
        if not 0.6 * plan.skin < skin < widest or skin == plan.skin:
            continue
        # Rows lengthen with the volume within reach, the longest of them less: 15, 17, 19 at skins 0.3, 0.4, 0.5 in 3D.
        # The time to leave half a skin grows faster than its square (diffusion), because the first of many particles to
        # leave makes a few large moves: 4 steps at skin 0.28 and 21 at 0.4 for kick 0.05. The cube is a compromise.
        longer = ((1.0 + skin) / (1.0 + plan.skin)) ** (system.dim if skin > plan.skin else system.dim / 2)
        wanted = fitted(plan_for(system, skin), round(row * longer), round(slots * longer))
        plans |= {replace(wanted, active=some): max(1.0, interval * (skin / plan.skin) ** 3) for some in lists}

    def promised(wanted: Plan) -> float:
        """The plan's cost; that of another skin is a prediction, and is taken as higher."""
        return cost(wanted, plans[wanted]) / (1.0 if wanted.skin == plan.skin else _TRUST)

    best = min(plans, key=promised)
    return best, (1.0 - promised(best) / now) * seconds_left


def _list_for(active: int, particles: int) -> int:
    """The length of a list of active particles: 2^k or 3 2^k with room to spare, or 0 where they are too many.

    Near the transition their number varies by half within a few hundred steps: ``active`` is the largest of a chunk.
    """
    room = 4 * active // 3
    upper = 1 << room.bit_length()
    wanted = max(64, upper * 3 // 4 if room < upper * 3 // 4 else upper)
    return wanted if 4 * wanted <= particles else 0


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
