"""Sweeps of a task for a figure: what is descended, by which rule, over which axes."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import jax
import numpy as np

from packing_jax.drive.chunk import Observable
from packing_jax.drive.kind import Kind, Replicas
from packing_jax.errors import PackingError
from packing_jax.networks.rules import WeightRule
from packing_jax.networks.task import Task
from packing_jax.sweeps.manifest import Name
from packing_jax.sweeps.spec import Spec


@dataclass(frozen=True, eq=False, kw_only=True)
class Descents(Spec):
    """Replicas of one task at each combination of the axes' values; all have the same data."""

    kind: ClassVar[str] = "descents"
    unit: ClassVar[str] = "weight"

    task: Task
    rule: Callable[..., WeightRule]  #: of the axes' values by name, each (replicas,)
    over: Mapping[str, tuple[float, ...]]  #: the axes
    observables: Mapping[str, Observable]
    at: Sequence[int] | np.ndarray  #: steps to record at, from 0 on
    #: weights to start from, or a function of the axes' values as the rule is; None: as the task starts
    begin: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)  #: what else tells this sweep from others
    run_seed: int = 0

    def __post_init__(self) -> None:
        if own := {*self.facts, *self.over} & {one.name for one in fields(self)}:
            raise PackingError(f"{', '.join(sorted(own))}: a fact or an axis needs a name that is no field of a sweep")

    @property
    def floats(self) -> str:  # type: ignore[override]
        """In which floats are stored: those of the task."""
        return self.task.precision

    @property
    def axes(self) -> Mapping[str, tuple[float | int, ...]]:
        """The axes, in their order."""
        return self.over

    @property
    def fixed(self) -> Mapping[str, Any]:
        """The facts, and the times."""
        return {**self.facts, "seed": self.run_seed, "record_times": [int(k) for k in self.at]}

    @property
    def record(self) -> Mapping[str, Observable]:
        """What is measured."""
        return self.observables

    def times(self) -> np.ndarray:
        """Steps that are recorded."""
        return np.asarray(self.at, np.int32)

    def build(self, names: Sequence[Name]) -> tuple[Kind, Replicas]:
        """Replicas whose keys are functions of the seed and their own name."""
        *columns, _ = zip(*names, strict=True)
        values = {name: np.array(column) for name, column in zip(self.over, columns, strict=True)}
        words = np.array([zlib.crc32(repr(tuple(map(float, name))).encode()) for name in names], np.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.run_seed), words)
        begin = self.begin(**values) if callable(self.begin) else self.begin
        kind, replicas, _ = self.task.prepare(self.rule(**values), keys, begin)
        return kind, replicas

    def extended(self, asked: "Descents") -> "Descents":
        """The same again: a figure asks for what it asked for before.

        Raises:
            PackingError: the store is of another run.
        """
        if differences := self.differences(asked):
            raise PackingError(f"the store is of another run: {'; '.join(differences)}")
        return asked
