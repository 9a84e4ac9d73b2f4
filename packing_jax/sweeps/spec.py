"""What a sweep asks of a specification: whoever writes one gets the store, resume, workers, status and reports.

A specification is a frozen dataclass that says which cells there are and what a replica of each is; spheres have one
(:class:`packing_jax.sweeps.spheres.Sweep`), and a user can write one::

    @dataclass(frozen=True)
    class Descent(Spec):
        kind = "parabolas"
        rate: tuple[float, ...] = (0.1,)
        steps: int = 100
        replicas: int = 2
        seed: int = 0

        @property
        def axes(self):
            return {"rate": self.rate}

        @property
        def fixed(self):
            return {"seed": self.seed}

        @property
        def record(self):
            return {"loss": loss}

        @property
        def finals(self):
            return {"weights": Variable(("weight",), (3,))}

        def times(self):
            return linear_times(self.steps, 10)

        def build(self, names): ...  # the replicas of cells (rate, replica), of one shape
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import jax.numpy as jnp
import numpy as np

from packing_jax.drive.chunk import Observable
from packing_jax.drive.kind import Kind, Replicas
from packing_jax.drive.run import state_like
from packing_jax.errors import PackingError, calling, shown
from packing_jax.sweeps.manifest import Name, digest_of, digest_of_array
from packing_jax.sweeps.schema import Cells, Layout, Table, Variable, stored_kind
from packing_jax.sweeps.trajectory import Trajectories
from packing_jax.versions import jax_settings, provenance

S = TypeVar("S", bound="Spec")


@dataclass(frozen=True)
class Spec:
    """What to sweep. A subclass is a frozen dataclass; its axes are fields of the same names, tuples of numbers."""

    kind: ClassVar[str]  #: what is swept, the store's own word for it
    unit: ClassVar[str] = "unit"  #: what a replica has many of; costs are counted in moves of one
    control: ClassVar[str | None] = None  #: the axis along which absorbed replicas give way to active ones, if any
    diverges: ClassVar[bool] = False  #: whether a replica that diverges is an outcome, and no failure
    floats: ClassVar[str] = "float32"  #: in which floats are stored
    labels: ClassVar[Mapping[str, tuple[str, str]]] = {}  #: long name and units of axes and arrays

    steps: int | None = None  #: to make in each cell
    replicas: int | None = None  #: of each combination of the axes' values

    # --- what a subclass says ---------------------------------------------------------------------------------

    @property
    def axes(self) -> Mapping[str, tuple[float | int, ...]]:
        """Name -> values, in the order of the store's dimensions; the replica number is added at their end."""
        raise NotImplementedError

    @property
    def fixed(self) -> Mapping[str, Any]:
        """What else tells this sweep from another, as JSON keeps it. It cannot change when a sweep goes on."""
        raise NotImplementedError

    @property
    def record(self) -> Mapping[str, Observable]:
        """Name -> observable, measured at each of the times."""
        raise NotImplementedError

    @property
    def own(self) -> Mapping[str, Any]:
        """The user's objects among its fields, by what they are of the sweep."""
        return {}

    @property
    def finals(self) -> Mapping[str, Variable]:
        """What is kept of a replica's end: the arrays of its result. Where shapes differ, the largest."""
        return {}

    @property
    def tables(self) -> Mapping[str, Table]:
        """Arrays of the whole sweep that are known before the first step."""
        return {}

    def times(self) -> np.ndarray:
        """Steps to record at, increasing, the last one the last step. Those of a longer sweep begin with them."""
        raise NotImplementedError

    def build(self, names: Sequence[Name]) -> tuple[Kind, Replicas]:
        """The kind of some cells of one group, and their replicas in this order.

        A replica, its random key included, is a function of its own name and of what is fixed, and of nothing else:
        then the same cell is the same trajectory in any sweep that has it.

        Args:
            names: (values of the axes..., replica number) of each.
        """
        raise NotImplementedError

    def group(self, name: Name) -> Hashable:
        """What cells must share to run beside one another: everything that gives their arrays their shapes."""
        return ()

    def checked(self: S) -> S:
        """The specification with defaults filled in and in Python's own numbers, as JSON keeps them.

        Raises:
            PackingError: a field out of range, in one sentence.
        """
        return replace(self, **{one.name: plain(getattr(self, one.name)) for one in fields(self)})

    def described(self) -> Mapping[str, Any]:
        """Everything that the store says of the sweep, as JSON keeps it."""
        return {**self.fixed, **self.axes, "steps": self.steps, "replicas": self.replicas}

    def trusted(self, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """What the store is to say of this specification's objects that could not be compared with what it knows."""
        return ()

    def trajectories(self, directory: Path) -> Trajectories | None:
        """The files of frames in a sweep's directory, if cells have such."""
        return None

    # --- what follows -----------------------------------------------------------------------------------------

    @property
    def cells(self) -> Cells:
        """All cells."""
        return Cells(self.axes, self.replicas or 0)

    def layout(self, command: str) -> Layout:
        """What is known of a store before the first step; ``command`` is recorded in it."""
        names, times = list(self.cells.places()), self.times()
        kind, records = self._records(names[0])
        if any(one.shape for one in records.values()):  # of groups whose shapes differ, the largest
            for name in {self.group(name): name for name in names}.values():
                _, others = self._records(name)
                records = {key: one.widened(others[key]) for key, one in records.items()}
        known = {"time": times.astype("<i4"), **{name: one.values for name, one in self.tables.items()}}
        return Layout(
            cells=self.cells,
            times=times,
            records=records,
            finals=self.finals,
            tables=self.tables,
            labels=self.labels,
            attributes={
                **self.described(),
                "kind": self.kind,
                "axes": list(self.axes),
                "control": self.control,
                "command": command,
                "configuration": digest_of(dict(self.fixed)),
                "digests": {name: digest_of_array(values) for name, values in known.items()},
                "versions": provenance(exact=kind.exact),
                "jax_settings": jax_settings(),
            },
        )

    def _records(self, name: Name) -> tuple[Kind, dict[str, Variable]]:
        """The kind of a cell, and how its records are stored."""
        kind, replicas = built(self, [name])
        state = state_like(kind, replicas, self.times(), self.record)
        return kind, {key: _recorded(key, leaf, self.floats) for key, leaf in state.records.items()}

    def with_axes(self: S, values: Mapping[str, tuple[float | int, ...]]) -> S:
        """The same with other values of the axes."""
        changed: dict[str, Any] = {**values}
        return replace(self, **changed)

    def recorded(self: S, attributes: Mapping[str, Any]) -> S:
        """The specification in the attributes of a store, with this one's values for what they do not say.

        Raises:
            PackingError: a value of another type, or out of range.
        """
        values: dict[str, Any] = {}
        for field in fields(self):
            if field.name in attributes:
                value, own = plain(attributes[field.name]), getattr(self, field.name)
                if type(value) is not type(own) and not {type(value), type(own)} <= {int, float, type(None)}:
                    raise PackingError(f"the store says {field.name} = {str(value)[:80]}; no sweep has that")
                values[field.name] = value
        return replace(self, **values).checked()

    def differences(self: S, asked: S) -> list[str]:
        """Why another specification is not this one with more steps, replicas or values of its axes, in words."""
        here = {**asked.axes, **asked.fixed}  # what is fixed there may be an axis here
        found = [
            f"{name.replace('_', ' ')} is {str(was)[:80]} there and {str(here.get(name))[:80]} here"
            for name, was in self.fixed.items()
            if here.get(name) != was
        ]
        for name in ("steps", "replicas"):
            was, wanted = getattr(self, name), getattr(asked, name)
            if wanted is not None and wanted < was:
                found.append(f"there are {was} {name} there and {wanted} here, fewer")
        return found

    def extended(self: S, asked: S) -> S:
        """This sweep with more steps, more replicas or more values of its axes, as another specification asks.

        Raises:
            PackingError: anything else differs, or there would be less; each difference is named.
        """
        if differences := self.differences(asked):
            *others, last = (name.replace("_", " ") for name in self.axes)
            named = f"{', '.join(others)} and {last}" if others else last
            raise PackingError(
                f"this is another sweep than the one in the store: {'; '.join(differences)}. A resumed sweep may "
                f"have more steps, replicas and values of {named}, and nothing else may differ"
            )
        axes = {name: tuple(sorted({*values, *asked.axes.get(name, ())})) for name, values in self.axes.items()}
        wanted = {name: getattr(asked, name) for name in ("steps", "replicas")}
        more = {name: value for name, value in wanted.items() if value is not None}
        return replace(self.with_axes(axes), **more).checked()


def built(spec: Spec, names: Sequence[Name]) -> tuple[Kind, Replicas]:
    """What ``build`` of a specification, which may be a user's, makes of some cells.

    Raises:
        PackingError: it raises, or refuses.
    """
    with calling(f"build of the specification {type(spec).__name__}", "a method as Spec.build describes"):
        kind, replicas = spec.build(names)
    return kind, replicas


def check_settings(attributes: Mapping[str, Any]) -> None:
    """Refuse to go on with a sweep under settings of jax that give other bits.

    Raises:
        PackingError: which differ.
    """
    was, now = attributes.get("jax_settings"), jax_settings()
    if was is None or was == now:  # older stores do not say
        return
    old = was if isinstance(was, dict) else {}
    changed = [
        f"{name} was {shown(old.get(name, 'at its default'))} and is {shown(now.get(name, 'at its default'))}"
        for name in sorted({*old, *now})
        if old.get(name) != now.get(name)
    ]
    raise PackingError(
        f"other settings of jax would give other numbers than in the store: {'; '.join(changed)}; set it as it was, or "
        "begin another sweep"
    )


def plain(value: Any) -> Any:
    """A value in Python's own numbers and tuples: numpy's print and compare differently."""
    if type(value) in (tuple, list, np.ndarray):  # and no NamedTuple, such as an optimizer
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _recorded(name: str, leaf: Any, floats: str) -> Variable:
    """How a record is stored, whose values at all times have this shape and type."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise PackingError(f"the observable {name} is complex; a store holds real numbers: record its two parts")
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        dtype = floats
    elif leaf.dtype == bool:
        dtype = "int8"
    else:
        dtype = "int32" if np.can_cast(leaf.dtype, np.int32) else np.dtype(leaf.dtype).name
    return Variable(tuple(f"{name}_{axis}" for axis in range(len(leaf.shape) - 1)), tuple(leaf.shape[1:]), dtype)


def stored_spec(attributes: Mapping[str, Any], like: S) -> S:
    """The specification of a store.

    Args:
        attributes: of the store.
        like: one of the same kind, for what the attributes do not say.

    Raises:
        PackingError: another kind, attributes that are no sweep, or something fixed that ``like`` says otherwise.
    """
    kind = stored_kind(attributes)
    if like.kind != kind:
        raise PackingError(f"the store holds a sweep of {kind} and not of {like.kind}")
    spec = like.recorded(attributes)
    if digest_of(dict(spec.fixed)) != attributes.get("configuration"):
        raise PackingError(
            f"the store was made with another specification of {kind}: what is fixed in this one gives another checksum"
        )
    return spec
