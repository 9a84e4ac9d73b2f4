"""What the driver asks of a configuration: the protocol of a Kind.

Spheres are one kind (:class:`packing_jax.spheres.particles.Particles`), network weights another. A kind is frozen and
hashable, since it is a static argument of the compiled program: two kinds that compare equal run the same program.
Whoever writes one gets batches, devices, refill, absorption, checkpoints, sweeps and records with it.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array


class Replicas(NamedTuple):
    """What a replica is and never changes; every leaf but those of ``shared`` has a leading replica axis."""

    system: Any  #: what it is made of
    rule: Any  #: what moves it
    key: Any  #: (B, 2) key data
    start: Any  #: first configuration
    shared: Any = ()  #: what all replicas have in common, such as a data set: one copy


#: Where :class:`Replicas` have the replica axis, for ``jax.vmap``.
AXES: Any = Replicas(0, 0, 0, 0, None)


class Clock(NamedTuple):
    """The driver's part of what changes at each step; of a batch, or of one replica without the axis."""

    step: Array  #: (B,) int32, moves made
    alive: Array  #: (B,) bool; absorbed replicas count until they are noted
    failed: Array  #: (B,) bool
    absorbed_at: Array  #: (B,) int32
    made: Array  #: () int32, iterations of this chunk
    event: Array  #: () bool, a replica has something to be noted


#: (clock, still (B,), broken (B,)) -> who moves (B,), the clock after the step
Settle = Callable[[Clock, Array, Array], tuple[Array, Clock]]


class Pace(NamedTuple):
    """How a run goes, for a kind that may change its shape between two chunks."""

    steps: int  #: that the last chunk made
    seconds_left: float  #: of the run at its present speed
    batch: int  #: replicas that a device moves at a time


@runtime_checkable
class Kind(Protocol):
    """What a configuration is, to the driver.

    ``place`` is the configuration, a pytree; ``work`` is what a kind keeps beside it between two steps and can make
    anew (neighbour rows, an epoch's order of samples); ``met`` is what a chunk found out, numbers without a replica
    axis, of which the host sees the largest over the devices. The first group is compiled and sees a whole batch: every
    leaf but those of ``met`` and ``replicas.shared`` has a leading replica axis.
    """

    #: Whether a replica's bits are the same at every width of a batch. Where they are not (floats summed in an order
    #: that the compiler chooses), the driver keeps the width of a device's block fixed: :mod:`packing_jax.drive.batch`.
    exact: bool
    #: What a replica met whose move the rule calls broken, and what would help: the end of a sentence.
    divergence: str

    @property
    def double(self) -> bool | None:
        """Whether it has jax's 64-bit types, in whatever process; None: those of the process."""
        ...

    # --- compiled, for a whole batch --------------------------------------------------------------------------

    def begin(self, replicas: Replicas) -> tuple[Any, Any]:
        """The configuration before the first step, and the rule's state."""
        ...

    def blank(self, place: Any) -> tuple[Any, Any]:
        """Work that :meth:`ready` will replace, and what is met before anything is."""
        ...

    def ready(self, replicas: Replicas, place: Any, rule: Any, work: Any, met: Any) -> tuple[Any, Any, Any, Any]:
        """(place, rule's state, work, met) with work made anew; taken by the batch together when some is stale."""
        ...

    def advance(
        self,
        replicas: Replicas,
        place: Any,
        rule: Any,
        work: Any,
        clock: Clock,
        settle: Settle,
        going: Callable[[Clock], Array],
        met: Any,
    ) -> tuple[Any, Any, Any, Clock, Array, Any]:
        """Steps while ``going(clock)`` and work is not stale; (place, rule's state, work, clock, stale (), met).

        Each step calls ``settle(clock, still, broken)`` once, with (B,) masks of the replicas that are absorbed and of
        those whose move is no good, moves only those that it returns, and hands on its clock.
        """
        ...

    def seen(self, replica: Replicas, place: Any, work: Any) -> Any:
        """What observables are called with; of one replica, without the replica axis."""
        ...

    def close(self, place: Any, work: Any) -> Any:
        """The configuration at the end of a chunk, complete without the work."""
        ...

    def void(self, met: Any) -> Array | np.bool_:
        """Whether the chunk has to be thrown away, because the program's shapes were too small for what it met."""
        ...

    # --- on the host ------------------------------------------------------------------------------------------

    def canonical(self, replica: Replicas, place: Any, rule: Any) -> tuple[Any, Any]:
        """One replica's configuration and rule's state in the form that any batch leads to."""
        ...

    def grown(self, met: Any, replicas: Replicas) -> "Kind | str":
        """A kind that holds what made a chunk void; a sentence where there is none."""
        ...

    def tuned(self, met: Any, pace: Pace, replicas: Replicas) -> "tuple[Kind, float]":
        """The best kind for the next chunk, and the seconds that it would save."""
        ...

    def size(self, replicas: Replicas) -> int:
        """Units of a replica that a step moves: particles, weights. Costs and progress are counted in them."""
        ...

    def width(self, replicas: Replicas) -> int:
        """How many replicas a device should move at a time."""
        ...

    def final(self, replica: Replicas, place: Any) -> Mapping[str, np.ndarray]:
        """What is kept of the last configuration of a replica: arrays by name."""
        ...


def types_of(kind: Kind) -> contextlib.AbstractContextManager[Any]:
    """Where this is entered, jax has the numbers of a kind; elsewhere in the process nothing changes."""
    return contextlib.nullcontext() if kind.double is None else jax.enable_x64(kind.double)


@runtime_checkable
class Problem(Protocol):
    """What :func:`packing_jax.simulate` takes as its system, beside spheres: it knows its kind."""

    def prepare(self, rule: Any, key: Array, start: Any) -> tuple[Kind, Replicas, bool]:
        """The kind, replicas with one leading axis on everything, and whether the caller gave such an axis.

        Raises:
            PackingError: what is wrong with the arguments, in a sentence.
        """
        ...
