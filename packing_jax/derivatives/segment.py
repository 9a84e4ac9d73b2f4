r"""The steps of a rollout, and its derivative along the configurations that it kept.

The derivative of a run, x_{t+1} = x_t + step(x_t, theta, draws_t), is a linear map: the product of those of its steps.
Each of them, and its transpose on the way back, needs x_t, the row sums of the move, and the neighbour rows. The first
two are kept, 8 dim bytes per particle and step in float32. Rows of length K would be 4 K bytes more: they are rebuilt
on the way back, no more often than on the way there. Any complete list has the same contacts, and gives the same
derivative to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import sequential_vmap
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from packing_jax.drive.chunk import settle
from packing_jax.drive.kind import Clock
from packing_jax.errors import PackingError
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres import noise
from packing_jax.spheres.fixed_point import Followed, reals
from packing_jax.spheres.geometry import take
from packing_jax.spheres.neighbors import Plan
from packing_jax.spheres.rules.base import Info, stepped
from packing_jax.spheres.system import Leaf, System
from packing_jax.trees import pytree


class Carry(NamedTuple):
    """The carry from step to step; particles in the cell order of the start."""

    fixed: Array  #: (dim, N) coordinates
    real: Any  #: (dim, N) what carries their derivative
    state: Any  #: the rule's
    going: Array  #: () bool, neither absorbed nor failed
    failed: Array  #: () bool, a move was not finite or too long
    absorbed_at: Array  #: () int32, -1 while active
    row: Array  #: () int32, longest row met
    slots: Array  #: () int32, longest run of cells met


class Varied(NamedTuple):
    """The variables in which a run has derivatives."""

    rule: Any
    system: System  #: in box sides, particles in the cell order of the start
    real: Array  #: (dim, N) coordinates
    state: Any  #: the rule's


class _Kept(NamedTuple):
    """What is kept of a step for its derivative."""

    number: Array  #: () int32, moves made before
    moves: Array  #: () bool, neither absorbed nor failed nor over
    fixed: Array  #: (dim, N) coordinates before the move
    sums: Any  #: the row sums of the move, as the rule reported them
    state: Any  #: the rule's, before the move


@pytree(meta=["plan", "count"])
@dataclass(frozen=True)
class Run:
    """The constants of a run, which have no derivative, and the loop over its steps."""

    plan: Plan
    count: int  #: steps to make
    tags: Leaf  #: (N,) particles in the cell order of the start, which they keep
    key: Leaf  #: (2,) key data of the draws

    def words(self, step: Array) -> noise.Words:
        """The draws of a step."""
        key = jax.random.fold_in(jax.random.wrap_key_data(self.key, impl="threefry2x32"), step)
        return noise.particle_words(key, self.tags)

    def list_rows(self, system: System, fixed: Array) -> nb.Neighbors:
        """Neighbour rows, found in cell order but given in the order of the start, which the particles keep."""
        _, found = nb.sort_and_build(self.plan, system, fixed)
        order = found.tags
        back = jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype), unique_indices=True)
        return replace(found, rows=take(order, found.rows)[back], tags=self.tags, reference=fixed)

    def unlisted(self, fixed: Array) -> nb.Neighbors:
        """Placeholder rows, which :meth:`listed` replaces."""
        none = jnp.zeros((), jnp.int32)
        return nb.Neighbors(jnp.zeros((len(self.tags), self.plan.capacity), jnp.int32), self.tags, fixed, none, none)

    def listed(self, system: System, fixed: Array, rows: nb.Neighbors, unmade: Array, wanted: Array) -> nb.Neighbors:
        """Rows of this configuration: the old ones, or new ones where they are out of date."""
        stale = unmade | nb.outdated(self.plan, system, fixed, rows)
        made: nb.Neighbors = jax.lax.cond(stale & wanted, lambda: self.list_rows(system, fixed), lambda: rows)
        return made

    def steps(self, rule: Any, system: System, carry: Carry, every: int) -> Carry:
        """All steps, of which reverse mode keeps about one in ``every``, and the overlaps of the last configuration."""

        def segment(carry: Carry, numbers: Array) -> tuple[Carry, None]:
            real, state, others = _segment(
                Varied(rule, system, carry.real, carry.state), (self, carry._replace(real=None, state=None), numbers)
            )
            return others._replace(real=real, state=state), None

        # one program for all segments: in the last one, steps beyond the end do nothing
        segments = 1 if every >= self.count else max(1, round((self.count + 1) / every))
        length = -(-(self.count + 1) // segments)
        numbers = jnp.arange(segments * length, dtype=jnp.int32).reshape(segments, length)
        if segments == 1:  # every step is kept
            return segment(carry, numbers[0])[0]
        carry, _ = jax.lax.scan(jax.checkpoint(segment, prevent_cse=False), carry, numbers)
        return carry


#: The constants of a segment: the run, the parts of the first carry without a derivative, and the step numbers.
_Constant = tuple[Run, Carry, Array]


# In a batch, the loops of a segment run one replica after another: vmap would take both branches of each condition, and
# rebuild rows at each step.


@jax.custom_jvp
def _segment(varied: Varied, constant: _Constant) -> tuple[Array, Any, Carry]:
    """Some steps: real coordinates and the rule's state after them, and the rest of the carry."""
    return sequential_vmap(_forward)(varied, constant)[0]


def _forward(varied: Varied, constant: _Constant) -> tuple[tuple[Array, Any, Carry], _Kept]:
    """The steps as the driver makes them, and what is kept for their derivatives."""
    run, first, numbers = constant
    rule, system = varied.rule, varied.system

    def step(
        both: tuple[Carry, noise.Words, nb.Neighbors], this: tuple[Array, Array]
    ) -> tuple[tuple[Carry, noise.Words, nb.Neighbors], _Kept]:
        (carry, words, listed), (number, unmade) = both, this
        going = carry.going & (number <= run.count)
        listed = run.listed(system, carry.fixed, listed, unmade, going)

        def move_all() -> tuple[Array, Any, Info]:
            return stepped(rule, words, system, carry.fixed, listed, carry.state)

        nothing, _, idle = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(move_all))
        move, state, info = jax.lax.cond(going, move_all, lambda: (nothing, carry.state, idle))
        clock = Clock(number, going, carry.failed, carry.absorbed_at, made=number, event=going)
        moves, clock = settle(clock, ~jnp.any(info.active), info.failed, last=run.count, due_at=-1)
        after = Carry(
            fixed=jnp.where(moves, carry.fixed + move, carry.fixed),
            real=jnp.where(moves, carry.real + reals(move), carry.real),
            state=jax.tree.map(lambda new, old: jnp.where(moves, new, old), state, carry.state),
            going=moves,
            failed=clock.failed,
            absorbed_at=clock.absorbed_at,
            row=jnp.maximum(carry.row, listed.needed_row),
            slots=jnp.maximum(carry.slots, listed.needed_slots),
        )
        # words are carried, so that the cipher runs once per particle, see noise.py
        return (after, run.words(number + 1), listed), _Kept(number, moves, carry.fixed, info.sums, carry.state)

    carry = first._replace(real=varied.real, state=varied.state)
    unmade = jnp.zeros(len(numbers), bool).at[0].set(True)
    start = carry, run.words(numbers[0]), run.unlisted(carry.fixed)
    (carry, _, _), kept = jax.lax.scan(step, start, (numbers, unmade))
    return (carry.real, carry.state, carry._replace(real=None, state=None)), kept


# --- the derivative -------------------------------------------------------------------------------------------


def refusing(sentence: str) -> Callable[[Array], Array]:
    """An identity that raises this sentence where a derivative through it is asked for."""

    @jax.custom_jvp
    def same(value: Array) -> Array:
        return value

    def jvp(primals: tuple[Array], tangents: tuple[Any]) -> tuple[Array, Array]:
        if not isinstance(tangents[0], SymbolicZero):
            raise PackingError(sentence)
        return primals[0], jnp.zeros_like(primals[0])

    same.defjvp(jvp, symbolic_zeros=True)
    return same


_first_only = refusing("a derivative of a derivative through a run was asked for; a rollout has first derivatives only")


class _Path(NamedTuple):
    """The path along which the derivative of a segment is taken."""

    varied: Varied  #: at its start
    run: Run
    kept: _Kept


#: Tangents (or cotangents) of the chosen parameters, and of what a step hands on: real coordinates, rule's state.
_Tangents = tuple[list[Array], list[Array]]


def _segment_jvp(primals: tuple[Varied, _Constant], tangents: tuple[Varied, Any]) -> tuple[Any, Any]:
    varied, constant = primals
    varied = jax.tree.map(lambda leaf: _first_only(leaf) if _is_float(leaf) else leaf, varied)
    after, kept = sequential_vmap(_forward)(varied, constant)
    # leaves without a tangent cost nothing, so they are told apart
    params, handed = ([_tangent(dot) for dot in jax.tree.leaves(part)] for part in (tangents[0][:2], tangents[0][2:]))
    asked = tuple(i for i, dot in enumerate(params) if dot is not None)
    floats = [(leaf, dot) for leaf, dot in zip(jax.tree.leaves(varied[2:]), handed, strict=True) if _is_float(leaf)]
    path = _Path(varied, constant[0], kept)
    # in one line, since jax asks that all of a right-hand side depends on tangents where some of it does
    line, apart = ravel_pytree(
        ([params[i] for i in asked], [jnp.zeros_like(leaf) if dot is None else dot for leaf, dot in floats])
    )
    along, back = (sequential_vmap(partial(steps, asked)) for steps in (_along, _back))
    # A linear map with a given transpose: linear_call cannot lower some new primitives of jax 0.12, such as that of
    # jnp.interp. The steps are a linear equation too, solved forwards, its transpose backwards. The identity below is
    # not its matrix, which matters to second derivatives only, and these are refused above.
    solution = jax.lax.custom_linear_solve(
        lambda same: same,
        line,
        solve=lambda _, dots: ravel_pytree(along(path, apart(dots)))[0],
        transpose_solve=lambda _, cotangents: ravel_pytree(back(path, apart(cotangents)))[0],
    )
    moved = apart(solution)[1]
    none = jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0), after)
    return after, (*_with_floats(after[:2], moved, none[:2]), none[2])


_segment.defjvp(_segment_jvp, symbolic_zeros=True)


def _tangent(dot: Any) -> Any:
    return None if isinstance(dot, SymbolicZero) or not _is_float(dot) else dot


def _step(
    asked: tuple[int, ...], path: _Path, kept: _Kept, words: noise.Words, rows: nb.Neighbors
) -> tuple[Any, _Tangents]:
    """One step as a function of what has tangents, and where it is taken."""
    leaves, tree = jax.tree.flatten(path.varied[:2])
    before = reals(kept.fixed), kept.state  # the value of the real coordinates is not used

    def move(params: list[Array], handed: list[Array]) -> list[Array]:
        there = list(leaves)
        for place, leaf in zip(asked, params, strict=True):
            there[place] = leaf
        rule, system = jax.tree.unflatten(tree, there)
        real, state = _with_floats(before, handed, before)
        at = Followed(kept.fixed, real, rule.reciprocal, kept.sums)
        displacement, state, _ = stepped(rule, words, system, at, rows, state)
        return _floats((real + displacement, jax.tree.map(jnp.asarray, state)))

    return move, ([leaves[place] for place in asked], _floats(before))


def _along(asked: tuple[int, ...], path: _Path, dots: _Tangents) -> _Tangents:
    """The tangents of what is handed on, after all steps, from those before; those of the parameters stay."""
    params, start = dots

    def step(carry: Any, kept: _Kept) -> tuple[Any, None]:
        handed, words, rows, unmade = carry
        rows = path.run.listed(path.varied.system, kept.fixed, rows, unmade, kept.moves)

        def move() -> list[Array]:
            function, at = _step(asked, path, kept, words, rows)
            after: list[Array] = jax.jvp(function, at, (params, handed))[1]
            return after

        # a branch, so that nothing is differentiated where nothing moves: a gradient norm would give 0/0 there
        handed = jax.lax.cond(kept.moves, move, lambda: handed)
        return (handed, path.run.words(kept.number + 1), rows, unmade & ~kept.moves), None

    return params, _through(path, start, step, reverse=False)


def _back(asked: tuple[int, ...], path: _Path, cotangents: _Tangents) -> _Tangents:
    """The transpose of :func:`_along`: the steps from the last to the first."""

    def step(carry: Any, kept: _Kept) -> tuple[Any, None]:
        (sums, handed), words, rows, unmade = carry
        rows = path.run.listed(path.varied.system, kept.fixed, rows, unmade, kept.moves)

        def move() -> _Tangents:
            function, at = _step(asked, path, kept, words, rows)
            # these lists are of other configurations than the run's, so they may overflow: the derivative is then NaN
            torn = jnp.where(nb.overflowed(path.run.plan, rows), jnp.nan, 1.0)
            whole = [one * torn.astype(one.dtype) for one in handed]
            more, before = jax.linear_transpose(lambda *dots: jax.jvp(function, at, dots)[1], *at)(whole)
            return [total + one for total, one in zip(sums, more, strict=True)], before

        after = jax.lax.cond(kept.moves, move, lambda: (sums, handed))
        return (after, path.run.words(kept.number - 1), rows, unmade & ~kept.moves), None

    before: _Tangents = _through(path, cotangents, step, reverse=True)
    return before


def _through(path: _Path, first: Any, step: Any, *, reverse: bool) -> Any:
    """The carry at the end of a loop over the steps of a segment; each step is given its words and rows."""
    begin = -1 if reverse else 0
    yes = jnp.ones((), bool)
    start = first, path.run.words(path.kept.number[begin]), path.run.unlisted(path.kept.fixed[begin]), yes
    return jax.lax.scan(step, start, path.kept, reverse=reverse)[0][0]


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _floats(tree: Any) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if _is_float(leaf)]


def _with_floats(like: Any, floats: list[Array], others: Any) -> Any:
    """A tree of ``floats`` where ``like`` has float leaves, and of the leaves of ``others`` elsewhere."""
    left = iter(floats)
    return jax.tree.map(lambda leaf, other: next(left) if _is_float(leaf) else other, like, others)
