r"""Derivatives through the dynamics: a run as a differentiable function of its inputs.

:func:`rollout` makes the moves of :func:`packing_jax.simulate`, the same bits for the same key (to rounding for
optimizers that sum floats over particles, as a global norm does, or add products, as ``optax.ema`` does), and
``jax.grad`` and ``jax.jvp`` go through it: along the start, the diameters, phi (:meth:`System.at_phi`), the box, the
leaves of the rule (the kick, or an optax optimizer's hyperparameters in a ``jax.tree_util.Partial``), and the exponent
and amplitude of the pair energy, where they are arrays.

The derivative is that of the path at fixed draws, dx_T/dtheta with x_{t+1} = x_t + step(x_t, theta, draws_t): draws are
keyed by (key, step, tag) and do not depend on theta. Neighbour rows and the set of overlapping pairs are constants of a
step. If the force is finite at contact (every rule but SGD and Langevin with a > 1), the path jumps at each theta where
a pair makes or breaks a contact: there it has no derivative, and between two such values this one is exact. It is
therefore not the derivative of an average over draws, which changes with the contacts too; and above phi_c chaos makes
it grow exponentially with the steps. Both are properties of the dynamics. :mod:`packing_jax.derivatives.averages`
estimates the derivative of an average, also in hyperparameters that only select (the batch fraction), along which a
path has no derivative at all.

Memory: reverse mode needs every configuration again, the row sums of its move, and the optimizer's state. Of T steps
only each S-th is kept; the steps between are repeated when their derivatives are due, and kept meanwhile: about
8 dim N (T/S + S) bytes in float32 without an optimizer's state. S = T keeps everything and repeats no step, which saves
the time of a run. By default S = ``checkpoint_every`` is T if keeping every step takes up to 3 GiB, else sqrt(T) but at
least 64. Forward mode keeps S steps. All this is for each run: of many, ``jax.lax.map`` of the gradient keeps one at a
time, ``jax.vmap`` all.

Resolution: neighbour rows are rebuilt on the way back, and a derivative is NaN if one does not fit the plan there. The
derivative in a kick has the resolution of the moves, which are rounded to 2^-32 box sides for each pair in float32: at
N = 1e4 about 1e-7 of a kick of 0.01, and a kick of 1e-9 is lost.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.derivatives.segment import Carry, Run, refusing
from packing_jax.drive.schedule import check_steps
from packing_jax.errors import PackingError, is_whole, shown
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres import tuning
from packing_jax.spheres.fixed_point import Followed, reals, with_derivative
from packing_jax.spheres.geometry import to_fixed, to_positions
from packing_jax.spheres.neighbors import Plan, plan_for
from packing_jax.spheres.potential import Overlap
from packing_jax.spheres.rules import Rule
from packing_jax.spheres.rules.base import check_kick_of, check_rule, first_state
from packing_jax.spheres.start import check_key, check_start, gather_replicas, random_start, threefry
from packing_jax.spheres.system import Leaf, System, check_system
from packing_jax.trees import pytree


@pytree(meta=["plan"])
@dataclass(frozen=True)
class Rollout:
    """Where a run ended. Positions and derivatives are NaN where it lost neighbours, failed or was out of range."""

    positions: Leaf  #: (N, dim) in [0, box), particles in their original order; the same bits as the driver's
    moved: Leaf  #: (N, dim) unwrapped displacement from the start, in the unit of the box
    absorbed_at: Leaf  #: () int32, first step without an overlap, -1 if still active
    failed: Leaf  #: () bool, a move was not finite or longer than half the box
    unsound: Leaf  #: () bool, something traced is out of range
    too_wide: Leaf  #: () bool, spheres reach further than the neighbour search, which was planned for smaller ones
    needed_row: Leaf  #: () int32, longest neighbour row met
    needed_slots: Leaf  #: () int32, longest run of cells met
    plan: Plan  #: of the neighbour search

    @property
    def overflowed(self) -> Array:
        """() bool, whether neighbours were lost because the plan is too small."""
        return self.too_wide | (self.needed_row > self.plan.capacity) | (self.needed_slots > self.plan.slots)

    def check(self) -> str:
        """A remark on a finished run, empty if there is none. Not inside jit or grad.

        Raises:
            PackingError: the run lost neighbours or diverged.
        """
        if self.unsound:
            raise PackingError(
                "a traced value is out of range: starting coordinates must be finite, diameters, phi and "
                "the kick positive, a batch fraction above 0 and at most 1, the energy's exponent 1 or more and its "
                "amplitude positive"
            )
        if self.too_wide:
            raise PackingError(
                "the spheres reach beyond the cells of the plan, which was made for smaller ones; "
                "make the plan with rollout_plan for the largest diameters or phi"
            )
        if self.overflowed:
            raise PackingError(
                f"a particle had {int(self.needed_row)} neighbours in reach and a row of cells "
                f"{int(self.needed_slots)} particles, more than the plan holds ({self.plan.capacity}, "
                f"{self.plan.slots}); make the plan with rollout_plan for these arguments"
            )
        if self.failed:
            raise PackingError(
                "the run diverged: a move was not finite or longer than half the box; "
                "use a smaller kick or learning rate"
            )
        if self.absorbed_at >= 0:
            return (
                f"absorbed at step {int(self.absorbed_at)}: nothing moves afterwards, so later steps add nothing to a "
                "derivative; the derivative of the energy is zero, because no overlap is left"
            )
        return ""


_ROOM = 3 * 2**30  # bytes of kept steps up to which reverse mode makes no step twice
_SHORTEST = 64  # steps of a segment: rows are rebuilt where one begins, so it should outlast a list


def rollout(
    system: System,
    rule: Rule,
    steps: int,
    key: Array,
    start: Array | np.ndarray | None = None,
    *,
    checkpoint_every: int | None = None,
    plan: Plan | None = None,
) -> Rollout:
    """``steps`` moves of one system, x_{t+1} = x_t + step(x_t, theta, draws_t), differentiable; see the module.

    Example:
        >>> plan = rollout_plan(system, bro(0.1), 100, key)
        >>> def spread(kick, phi):
        ...     end = rollout(system.at_phi(phi), bro(kick), 100, key, plan=plan)
        ...     return jnp.mean(end.moved**2)
        >>> jax.grad(spread, argnums=(0, 1))(0.1, 0.6)

    Args:
        system: one system. Its leaves may be traced; :meth:`System.at_phi`, :meth:`System.with_diameters` and
            :meth:`System.with_energy` make one from a traced phi, diameters or pair energy.
        rule: one of :mod:`packing_jax.spheres.rules`, one hyperparameter each. Adam and its relatives need ``eps_root``
            > 0: their square root has no derivative at the zero gradient of a particle without overlap.
        steps: T, moves to make.
        key: ``jax.random.key(seed)``; draws and start are those of ``simulate`` with this key.
        start: (N, dim) positions in the unit of the box; independent uniform ones when None.
        checkpoint_every: S, steps between two kept configurations in reverse mode, 1 to T; by memory when None.
        plan: the neighbour search, static; needed where the system is traced, see :func:`rollout_plan`. Make it for the
            largest diameters or phi to come: beyond them the run is NaN.

    There are first derivatives only. Under ``jax.vmap`` (``jax.jacfwd``, ``jax.jacrev``) runs and directions are made
    one after another; for many runs at once use ``simulate``, which has no derivative.

    Raises:
        PackingError: an argument out of range, an optimizer without a derivative at a zero gradient, a derivative in
            the batch fraction, or a second derivative.
    """
    check_steps(steps)
    steps = int(steps)
    _check_one(system, rule, key, start)
    every = segment_length(steps, system, rule) if checkpoint_every is None else checkpoint_every
    if not (is_whole(every) and 1 <= every <= max(steps, 1)):
        raise PackingError(
            f"a checkpoint every {shown(every)} steps; it must be a whole number from 1 to the number of steps, {steps}"
        )
    if plan is None:
        if any(map(_traced, (system.box, system.diameters, system.unit))):
            raise PackingError(
                "the system is traced, so its neighbour search cannot be planned here; "
                "give plan=rollout_plan(...) of a system with such values"
            )
        with jax.ensure_compile_time_eval():  # inside jit too
            plan = plan_for(system, tuning.first_skin(system.dim))
    rule.check_derivative()
    rule = _without_choices(rule)
    return _roll(plan, int(every), steps, system, rule, threefry(key), None if start is None else jnp.asarray(start))


def rollout_plan(system: System, rule: Rule, steps: int, key: Array, start: Array | np.ndarray | None = None) -> Plan:
    """The neighbour search that a rollout needs, found by one run without derivatives.

    Rows have the length that was needed and a little more: unused entries cost time and memory.

    Raises:
        PackingError: bad input, or a run that diverges.
    """
    gather_replicas(system, rule, key, start)  # for what it refuses
    plan = plan_for(system, tuning.first_skin(system.dim))
    while True:
        met = rollout(system, rule, steps, key, start, plan=plan)
        row, slots = int(met.needed_row), int(met.needed_slots)
        if not met.overflowed:
            met.check()
            return tuning.fitted(plan, row + row // 8, slots + slots // 8)
        plan = plan.grown(row, slots)


def segment_length(steps: int, system: System, rule: Rule) -> int:
    """The default ``checkpoint_every`` of a rollout: all steps where keeping them takes up to 3 GiB."""
    fixed = jax.ShapeDtypeStruct((system.dim, system.particles), np.dtype(f"int{8 * system.box.dtype.itemsize}"))
    state = jax.tree.leaves(jax.eval_shape(lambda x: first_state(rule, system, x), fixed))
    step = 2 * fixed.size * fixed.dtype.itemsize + sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    return max(1, steps if steps * step <= _ROOM else min(steps, max(_SHORTEST, math.isqrt(steps))))


# --- checks at the edge ---------------------------------------------------------------------------------------


def _traced(leaf: Any) -> bool:
    return isinstance(leaf, jax.core.Tracer)


def _check_one(system: System, rule: Rule, key: Array, start: Any) -> None:
    check_system(system)
    check_rule(rule)
    check_key(key)
    shapes = [np.shape(system.box), np.shape(key)] + [np.shape(leaf) for leaf in jax.tree.leaves(rule)]
    if any(shapes):
        raise PackingError("a rollout takes one system, one key and one number for each hyperparameter")
    check_kick_of(rule, system)
    if start is None:
        return
    if not _traced(start):
        check_start(start, system)
    if np.shape(start) != (system.particles, system.dim):
        raise PackingError(f"the start has shape {np.shape(start)}; it must be {(system.particles, system.dim)}")


def _without_choices(rule: Any) -> Any:
    """The rule, with derivatives refused in hyperparameters that only select."""
    for name, sentence in rule.pathless.items():
        rule = replace(rule, **{name: refusing(sentence)(jnp.asarray(getattr(rule, name)))})
    return rule


# --- the run --------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1, 2))
def _roll(plan: Plan, every: int, steps: int, system: System, rule: Any, key: Array, start: Array | None) -> Rollout:
    dtype = system.box.dtype
    rule = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        jax.tree.map(jnp.asarray, rule),
    )
    box = system.box
    sound = _in_range(system, rule, start)
    # in box sides, as the driver has them
    system = replace(system, box=jnp.ones_like(box), diameters=system.diameters / box, unit=system.unit / box)
    if start is None:
        fixed = random_start(key, system, dtype)
        real = reals(fixed)
    else:
        start = start.astype(dtype)
        fixed = to_fixed(*jax.lax.stop_gradient((start, box)))
        real = (start / box).T
    noise_key = jax.random.key_data(jax.random.fold_in(key, 1))

    tags = nb.cell_order(plan, fixed)
    places = jnp.zeros_like(tags).at[tags].set(jnp.arange(len(tags), dtype=tags.dtype), unique_indices=True)
    if system.diameters.ndim:
        system = replace(system, diameters=system.diameters[tags])
    run = Run(plan, steps, tags, noise_key)
    zero, yes = jnp.zeros((), jnp.int32), jnp.ones((), bool)
    followed = Followed(fixed[:, tags], real[:, tags], reciprocal=False)
    first = Carry(
        fixed=fixed[:, tags],
        real=real[:, tags],
        state=first_state(rule, system, followed),
        going=yes,
        failed=~yes,
        absorbed_at=zero - 1,
        row=zero,
        slots=zero,
    )
    last = run.steps(rule, system, first, every)
    reach = system.energy.reach * jnp.max(system.diameters) + np.asarray(plan.skin, dtype) * system.unit
    met = Rollout(
        positions=with_derivative(to_positions(last.fixed[:, places], jnp.ones_like(box)), last.real[:, places].T),
        moved=(last.real[:, places] - real).T,
        absorbed_at=last.absorbed_at,
        failed=last.failed,
        unsound=~sound,
        too_wide=(reach * np.asarray(plan.cells, dtype) > 1.0) & (plan.cells > 1),
        needed_row=last.row,
        needed_slots=last.slots,
        plan=plan,
    )
    # a product, so that derivatives are NaN as well
    whole = box * jnp.where(met.overflowed | met.failed | met.unsound, jnp.nan, 1.0).astype(dtype)
    return replace(met, positions=met.positions * whole, moved=met.moved * whole)


def _in_range(system: System, rule: Any, start: Array | None) -> Array:
    """() bool, whether traced numbers are in range; rules make theirs NaN where they are not."""
    positive = [system.box, system.diameters, system.unit]
    if isinstance(system.energy, Overlap):
        positive += [system.energy.a0, jnp.where(jnp.asarray(system.energy.exponent) >= 1.0, 1.0, jnp.nan)]
    numbers = [leaf for leaf in jax.tree.leaves(rule) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    checks = [jnp.all(jnp.isfinite(leaf) & (leaf > 0)) for leaf in map(jnp.asarray, positive)]
    checks += [~jnp.any(jnp.isnan(leaf)) for leaf in numbers]
    checks += [] if start is None else [jnp.all(jnp.isfinite(start))]
    return jnp.all(jnp.stack(checks))
