"""The replicas of a run on the host's side: which of them move now, and who comes next.

A kind whose arithmetic is exact may move in a batch of any width, which shrinks as replicas end. A kind of floats may
not: the compiler rounds a batched product differently for different widths. There every device computes blocks of one
width, filled up with dead copies, from the first chunk to the last: the same width gives the same bits alone, in a
refilled batch, resumed, and on any number of devices.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from packing_jax.devices import local_devices
from packing_jax.drive.chunk import State
from packing_jax.drive.kind import Kind, Replicas
from packing_jax.drive.spread import Spread

#: Seconds that another program takes to compile, on one core for which others wait.
COMPILE = 4.0


class Batch:
    """What moves, what waits and what has ended, of a fixed set of replicas."""

    def __init__(
        self,
        kind: Kind,
        replicas: Replicas,
        width: int,
        begin: Callable[[Replicas], State],
        restore: Callable[[int], State | None],
    ) -> None:
        """Put the first of them on the devices.

        Args:
            kind: what they are.
            replicas: all of them.
            width: how many move at a time; of a kind that is not exact, on each device, no more and no fewer.
            begin: their states before the first step.
            restore: the state that one goes on from, None to begin at its start.
        """
        self._kind = kind
        self._all = jax.device_get(replicas._replace(shared=()))
        self._begin, self._restore = begin, restore
        self._spread = Spread(replicas.shared, block=None if kind.exact else width)
        self.total = len(self._all.key)
        self.ended = np.zeros(self.total, bool)
        self.made = np.zeros(self.total, np.int64)  #: moves
        self.found = np.zeros(self.total, np.int64)  #: of them, made before this run
        self._width = min(width if kind.exact else width * len(local_devices()), self.total)
        self._waiting = list(range(self._width, self.total))
        self._parked: dict[int, State] = {}  # taken out of a batch that does not fit in memory
        self._failing: tuple[set[int], str] | None = None
        self._left = False  # somebody, since the last refill
        self._wasted = 0.0  # seconds on places of the dead, since the last program
        first = np.arange(self._width)
        self._load(first, self._enter(first))

    def _load(self, slots: np.ndarray, state: State) -> None:
        self.slots = slots  # which replica each place of the batch holds
        width = self._spread.places(len(slots))
        if width > len(slots):  # dead copies of the last one, which nobody but the devices sees
            slots = np.append(slots, np.repeat(slots[-1:], width - len(slots)))
            state = pick(state, np.minimum(np.arange(width), len(self.slots) - 1))
            state = state._replace(alive=jnp.asarray(state.alive & (np.arange(width) < len(self.slots))))
        self.here, self.state = self._spread(pick(self._all, slots), state)

    def _host(self) -> State:
        """The state of every place."""
        return pick(jax.device_get(self.state), slice(len(self.slots)))

    def _alive(self) -> np.ndarray:
        return np.asarray(self.state.alive)[: len(self.slots)]

    @property
    def places(self) -> int:
        """Width of the arrays on the devices."""
        return len(self.state.step)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of all arrays on the devices: what else a program depends on."""
        return tuple(leaf.shape for leaf in jax.tree.leaves((self.here, self.state)))

    def _enter(self, who: np.ndarray) -> State:
        old = {row: self._parked.pop(int(index)) for row, index in enumerate(who) if int(index) in self._parked}
        for row in set(range(len(who))) - set(old):
            if (one := self._restore(int(who[row]))) is not None:
                old[row] = one._replace(alive=jnp.ones_like(one.alive))
                self.found[who[row]] = one.step
        state = jax.device_get(self._begin(self._spread.with_shared(pick(self._all, who))))
        if old:
            state = put(state, np.array(list(old)), jax.tree.map(lambda *leaves: np.stack(leaves), *old.values()))
        self.made[who] = state.step
        return state

    def one(self, index: int) -> Replicas:
        """A replica, without the replica axis and without what is shared."""
        return pick(self._all, index)

    def _canonical(self, host: State, place: int | np.integer) -> State:
        """One replica of a batch, in the form that any batch leads to."""
        one = pick(host, place)
        where, rule = self._kind.canonical(self.one(int(self.slots[place])), one.place, one.rule)
        return one._replace(place=where, rule=rule)

    def accept(self, after: State) -> np.ndarray:
        """Take over the end of a chunk; the moves that each place made in it."""
        self.state = after
        step = np.asarray(after.step)[: len(self.slots)].astype(np.int64)
        moved = step - self.made[self.slots]
        self.made[self.slots] = step
        return moved

    def give_up(self, reason: str) -> bool:
        """A chunk cannot run: halve the batch, or fail the one replica that is left; whether it was the last one.

        Which of the replicas it is, and whether each of them fits in memory, shows with half of them. Blocks of fixed
        width cannot be halved: all of them fail.
        """
        going = np.flatnonzero(~self.ended[self.slots])
        host = self._host()
        if len(going) == 1 or not self._kind.exact:
            self._failing = (set(map(int, self.slots[going])), reason)
            self.state = host._replace(alive=jnp.zeros_like(host.alive))
            return True
        stay, leave = np.array_split(going, 2)
        self._parked |= {int(self.slots[place]): self._canonical(host, place) for place in leave}
        self._waiting = [*map(int, self.slots[leave]), *self._waiting]
        self._load(self.slots[stay], pick(host, stay))
        return False

    def visit(self, stops: np.ndarray, on_stop: Callable[[int, State], None]) -> None:
        """Show the replicas under way that stand at one of these steps."""
        places = np.flatnonzero(np.isin(self.made[self.slots], stops) & ~self.ended[self.slots])
        if len(places):
            host = self._host()
            for place in places:
                on_stop(int(self.slots[place]), self._canonical(host, place))

    def until(self, stops: np.ndarray) -> int:
        """Moves that all replicas under way can make before one of them reaches one of these steps."""
        made = self.made[self.slots[~self.ended[self.slots]]]
        ahead = np.append(stops, np.iinfo(np.int64).max)[np.searchsorted(stops, made, side="right")]
        return int((ahead - made).min())

    def leave(self) -> Iterator[tuple[int, State, str]]:
        """Those that ended in this chunk: index, state, and why it failed if it did for want of memory."""
        leaving = np.flatnonzero(~self._alive() & ~self.ended[self.slots])
        if not len(leaving):
            return
        host = self._host()
        failing, reason = self._failing or (set(), "")
        for place in leaving:
            index = int(self.slots[place])
            self.ended[index] = True
            yield index, self._canonical(host, place), reason if index in failing else ""
        self._left = True

    def refill(self, seconds: float, seconds_left: float) -> None:
        """Put waiting replicas in the places of those that left, or close the ranks when none waits.

        Args:
            seconds: that the last chunk took; 0 where not known.
            seconds_left: until the last of those under way ends, at the pace of the last chunk; 0 where not known.
        """
        if not self._left:
            return
        alive = self._alive()
        free, slots = np.flatnonzero(~alive), self.slots
        if not self._waiting:
            self._failing = None
            number = self._narrower(int(alive.sum()), seconds, seconds_left)
            if self._spread.places(number) < self.places:
                stay = np.concatenate([np.flatnonzero(alive), free])[:number]
                self._load(slots[stay], pick(self._host(), stay))
                self._left, self._wasted = False, 0.0
            return
        host = self._host()
        if self._failing is not None and len(slots) < self._width:
            # a batch that was halved to find one that does not fit is whole again without it
            more = np.concatenate([np.arange(len(slots)), np.full(self._width - len(slots), free[0])])
            host, slots = pick(host, more), slots[more]
            free = np.concatenate([free, np.arange(len(alive), self._width)])
        places = free[: len(self._waiting)]
        slots = slots.copy()
        slots[places] = [self._waiting.pop(0) for _ in places]
        self._failing, self._left = None, False
        self._load(slots, put(host, places, self._enter(slots[places])))

    def _narrower(self, number: int, seconds: float, seconds_left: float) -> int:
        """Places for so many replicas that end so late, fewer than now where that is worth another program.

        More may leave soon, and each program takes a while to compile. So the places of the dead may first
        cost as much as a program does: all the waiting then costs about as much as the programs.
        """
        quarter = max(1, len(self.slots) // 4)
        if number <= quarter:
            return quarter
        dead = 1.0 - self._spread.on_each(number) / self._spread.on_each(len(self.slots))
        self._wasted += dead * seconds
        return number if self._wasted > COMPILE and dead * seconds_left > 2 * COMPILE else len(self.slots)

    def snapshot(self) -> dict[int, State]:
        """The state of every replica under way, by its index."""
        host = self._host()
        going = np.flatnonzero(np.asarray(host.alive))
        return self._parked | {int(self.slots[place]): self._canonical(host, place) for place in going}


def pick(tree: Any, index: Any) -> Any:
    """Some replicas, or one, of a tree with a leading replica axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def put(tree: Any, index: np.ndarray, new: Any) -> Any:
    """The tree with some of its replicas replaced."""

    def replaced(old: np.ndarray, values: np.ndarray) -> np.ndarray:
        old = np.array(old)
        old[index] = values
        return old

    return jax.tree.map(replaced, tree, new)
