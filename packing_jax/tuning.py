"""The shape of the next chunk's neighbour search, chosen from what the last chunk met.

Rows as long as a Poisson pattern needs are twice as long as a relaxed packing needs, and the best skin depends on how
far particles move. Neither changes a trajectory, so both follow the run. Each new plan compiles, so there are few of
them: capacities in steps of 4, skins on a ladder, and a change must pay for its compilation.
"""

from dataclasses import replace

from packing_jax.chunk import Needs
from packing_jax.neighbors import Plan, plan_for
from packing_jax.system import System

#: Skins to choose from, in mean diameters.
LADDER = (0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1)

_REBUILD = 3.6  # cost of a rebuild in steps, measured on two CPU cores, 32 x 1000 particles, 3D
_COMPILE = 5.0  # seconds
_SPARE = 2  # entries beyond what was met, so that fluctuations seldom overflow


def first_skin(dim: int) -> float:
    """Where to start: rows lengthen as (1 + skin)^d, so high dimensions start lower."""
    return 0.4 if dim <= 3 else 0.2


def fitted(plan: Plan, row: int, slots: int) -> Plan:
    """The plan with capacities for what was met and a little more, never above the plan's own."""
    slots = slots + _SPARE
    slots = _up(slots, 4) if slots <= 32 else _up(slots, 32)
    if plan.cells == 1:
        slots = plan.slots
    return replace(plan, capacity=min(plan.capacity, _up(row + _SPARE, 4)), slots=min(plan.slots, slots))


def next_plan(plan: Plan, system: System, needs: Needs, steps: int, seconds_left: float) -> Plan:
    """The plan for the next chunk.

    Args:
        plan: of the chunk that ended.
        system: what it searched.
        needs: what it met.
        steps: that it made.
        seconds_left: of this run at its present speed.
    """
    row, slots, interval = int(needs.row), int(needs.slots), steps / int(needs.rebuilds)
    best, least = fitted(plan, row, slots), _cost(row, interval)
    now = _cost(plan.capacity, interval)
    for skin in LADDER:
        if not 0.6 * plan.skin < skin < 1.7 * plan.skin or skin == plan.skin:
            continue
        # Rows lengthen with the volume within reach. The time to leave half a skin grows faster than diffusively
        # (squared), because the first of many particles to leave makes a few large moves: 4 steps at skin 0.28 and 21
        # at 0.4 for kick 0.05. The cube is a cautious middle.
        longer = ((1.0 + skin) / (1.0 + plan.skin)) ** system.dim
        cost = _cost(row * longer, max(1.0, interval * (skin / plan.skin) ** 3))
        if cost < 0.85 * least:
            wanted = plan_for(system, skin)
            best, least = fitted(wanted, int(row * longer) + 1, int(slots * longer) + 1), cost
    saved = (1.0 - least / now) * seconds_left
    return best if best != plan and saved > 2.0 * _COMPILE else plan


def _cost(row: int | float, interval: float) -> float:
    """Relative time per step: the gather is proportional to the row, the rebuild is spread over the interval."""
    return row * (1.0 + _REBUILD / interval)


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
