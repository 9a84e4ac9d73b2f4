"""Sweeps of networks: a task, a rule, and the numbers of both as axes.

Every number that the task's function or the rule's takes is an axis of the store, one value or several. What is random
comes from two seeds. The disorder of a replica (its data, its teacher, its first weights) is a function of the disorder
seed, the task's own numbers and the replica number: all learning rates, batches and temperatures see the same. Its
noise is a function of the seed and of every number.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.drive.kind import Kind, Replicas
from packing_jax.errors import PackingError
from packing_jax.networks.task import Precision
from packing_jax.sweeps.fingerprint import described
from packing_jax.sweeps.manifest import Name
from packing_jax.sweeps.network_model import Model, Point
from packing_jax.sweeps.network_parts import MEASURED, measured
from packing_jax.sweeps.own import given_again
from packing_jax.sweeps.schema import Table, Variable
from packing_jax.sweeps.spec import Spec, plain
from packing_jax.sweeps.times import check_extended, extended_times
from packing_jax.sweeps.trained import Trained

_TEXT, _WHOLE, _TEXTS, _WHOLES = "a text", "a whole number", "a list of texts", "a list of whole numbers"
#: Fields that a store keeps as they are, and their types; of the user's objects it keeps a description.
_STORED = {
    "steps": _WHOLE,
    "replicas": _WHOLE,
    "seed": _WHOLE,
    "disorder_seed": _WHOLE,
    "precision": _TEXT,
    "waits": _WHOLES,
    "measure": _TEXTS,
    "record_every": _WHOLE,
    "extended_from": _WHOLES,
    "start_from": _TEXT,
}


@dataclass(frozen=True)
class Training(Spec):
    """What to sweep.

    Example:
        >>> spec = Training(task="perceptron", rule="bro", axes={"alpha": (0.4, 0.5, 0.6), "kick": 0.1}, steps=10_000)
        >>> run_sweep(spec, "there")
        >>> weights = weights_of("there", alpha=0.4)

    A task, rule, observable or start of a user's is never made from a store: who goes on with the sweep gives it again,
    and another version is refused, see :mod:`packing_jax.sweeps.own`.
    """

    kind: ClassVar[str] = "networks"
    unit: ClassVar[str] = "weight"
    diverges: ClassVar[bool] = True
    labels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "loss": ("loss of all samples", "1"),
        "test_loss": ("loss of the test samples", "1"),
        "accuracy": ("share of samples classified rightly", "1"),
        "activity": ("fraction of samples that are violated", "1"),
        "msd": ("mean squared displacement of weights since each waiting time", "squared weights"),
        "overlap": ("share of weights that are near where they were at each waiting time", "1"),
        "absorbed_at": ("first step without a violated sample, -1 if still active", "steps"),
        "samples_per_weight": ("samples per weight", "1"),
        "weights": ("final weights, leaf after leaf", "1"),
    }

    #: a name of packing_jax.networks.tasks, or a function of keyword numbers that makes a Task
    task: Any = "regression"
    #: a name of packing_jax.networks.rules.named, a rule, an optax optimizer, or a function of keywords that makes one
    rule: Any = None
    #: name -> values of the task's numbers and the rule's; of those that are left out, their defaults
    axes: Mapping[str, Any] | None = None  # type: ignore[assignment]
    settings: Mapping[str, str] | None = None  #: name -> text: the task's and the rule's options that are no numbers
    steps: int | None = None  #: None: 1000, or what the task says
    replicas: int | None = None  #: None: 3, or what the task says
    seed: int = 0
    disorder_seed: int = 0
    precision: str = "float32"  #: or float64: of the dynamics, the records and the final weights
    waits: tuple[int, ...] | None = None  #: waiting times, for msd and overlap; None: (0,) where these are measured
    measure: tuple[str, ...] | None = None  #: words of MEASURED, such as "loss" or "overlap=0.1"; None: by the task
    record: Mapping[str, Any] | None = None  # type: ignore[assignment] #: name -> observable of one's own, beside them
    record_every: int | None = None  #: None: 40 logarithmic and 100 linear times
    #: a sweep's directory, whose final weights these runs start from: those of the same values and replica number
    start_from: Path | str | None = None
    start: Any = None  #: weights that all runs start from, as the task makes them; None: the task's own start
    extended_from: tuple[int, ...] = ()  #: steps before each extension; what was recorded then is kept
    trust_rule: bool = False  #: go on with objects that have no source to be compared, typed in a session

    def __post_init__(self) -> None:
        own = {name: one for name, one in (self.record or {}).items() if name not in MEASURED}
        object.__setattr__(self, "record", {**measured(self.measure or ()), **own})
        object.__setattr__(self, "start_from", None if self.start_from is None else str(self.start_from))

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what is made of them, a worker makes for itself."""
        state = {one.name: getattr(self, one.name) for one in fields(self)}
        return state | {"record": {name: one for name, one in (self.record or {}).items() if name not in MEASURED}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """As after ``__init__``."""
        self.__dict__.update(state)
        self.__post_init__()

    # --- the protocol of a specification ----------------------------------------------------------------------

    @functools.cached_property
    def model(self) -> Model:
        """The task and the rule, of any values."""
        return Model(self)

    @property
    def control(self) -> str | None:  # type: ignore[override]
        """The task's own."""
        return self.model.tasks.ready.control

    @property
    def floats(self) -> str:  # type: ignore[override]
        """The precision."""
        return self.precision

    @property
    def fixed(self) -> Mapping[str, Any]:
        """All but the axes, steps and replicas."""
        known: dict[str, Any] = {
            "task": self.task if isinstance(self.task, str) else "own",
            "rule": self.rule if isinstance(self.rule, str) else "own",
            "settings": dict(sorted((self.settings or {}).items())),
            "seed": self.seed,
            "disorder_seed": self.disorder_seed,
            "precision": self.precision,
            "waits": self.waits,
            "measure": self.measure,
            "record_every": self.record_every,
        }
        if self.model.tasks.data is not None:
            known["data_digest"] = self.model.tasks.data
        if self.start_from is not None:
            known["parent"] = self.parent.digest
        if self.own:
            known["own"] = {what: [*described(one)[1:]] for what, one in self.own.items()}
        return known

    @property
    def own(self) -> Mapping[str, Any]:
        """The user's objects, by what they are of the sweep."""
        return {
            **({} if isinstance(self.task, str) else {"task": self.task}),
            **({} if self.rule is None or isinstance(self.rule, str) else {"rule": self.rule}),
            **({} if self.start is None else {"start": self.start}),
            **{f"record {name}": one for name, one in (self.record or {}).items() if name not in MEASURED},
        }

    @functools.cached_property
    def parent(self) -> Trained:
        """The sweep that these runs start from."""
        return Trained(str(self.start_from))

    @property
    def finals(self) -> Mapping[str, Variable]:
        """All weights in one row; of a smaller network, NaN at their end."""
        largest = max(point.weights for point in self.model.points(self.axes or {}))
        return {"weights": Variable(("weight",), (largest,), self.precision)}

    @property
    def tables(self) -> Mapping[str, Table]:
        """Samples per weight of each task: what a packing fraction is to spheres."""
        names = tuple(name for name in self.axes or {} if name in self.model.tasks.axes)
        if not names:
            return {}
        axes = {name: (self.axes or {})[name] for name in names}
        values = [point.samples / point.weights for point in self.model.points(axes)]
        shape = tuple(map(len, axes.values()))
        return {"samples_per_weight": Table(names, np.reshape(values, shape))}

    def times(self) -> np.ndarray:
        """When a sweep records: every so many steps, or logarithmic early and linear late; and at the waiting times."""
        return np.union1d(
            extended_times(self.steps, self.extended_from, self.record_every), np.array(self.waits or (), int)
        ).astype(np.int32)

    def group(self, name: Name) -> Hashable:
        """What is compiled: the functions, the rule's kind, and all shapes."""
        return self._point(name).signature

    def build(self, names: Sequence[Name]) -> tuple[Kind, Replicas]:
        """The replicas of some cells of one group, in this order."""
        points = [self._point(name) for name in names]
        tasks: dict[int, list[int]] = {}
        for i, point in enumerate(points):
            tasks.setdefault(id(point.task), []).append(i)
        with points[0].task.types():
            parts = [self._built([names[i] for i in some], [points[i] for i in some]) for some in tasks.values()]
            order = np.argsort(np.concatenate(list(tasks.values())), kind="stable")
            own = [replicas._replace(shared=()) for _, replicas in parts]
            together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *own)
        (kind, first), *_ = parts
        return kind, together._replace(shared=first.shared)

    def _built(self, names: Sequence[Name], points: Sequence[Point]) -> tuple[Kind, Replicas]:
        """Cells that have one task."""
        task, start = points[0].task, self.start
        if self.start_from is not None:
            start = task.tree(np.stack([self.parent.weights(self.values_of(name)) for name in names]))
        disorder = [disorder_key(self.disorder_seed, points[0].own, int(name[-1])) for name in names]
        noise = jnp.stack([replica_key(self.seed, name) for name in names])
        rule = jax.tree.map(lambda *leaves: np.stack(leaves), *(point.rule for point in points))
        kind, replicas, _ = replace(task, disorder=jnp.stack(disorder)).prepare(rule, noise, start)
        return kind, replicas

    def values_of(self, name: Name) -> dict[str, float | int]:
        """The values of a cell by their axes."""
        return dict(zip((*(self.axes or {}), "replica"), name, strict=True))

    def _point(self, name: Name) -> Point:
        values = self.values_of(name)
        del values["replica"]
        return self.model.point(values)

    def described(self) -> Mapping[str, Any]:
        """Every field, and what the model is beyond them."""
        stored = {name: getattr(self, name) for name in _STORED}
        made = {**self.fixed, **stored, **(self.axes or {}), "size_axis": self.model.tasks.ready.size}
        if self.own:
            made["own"] = {what: described(one).stored() for what, one in self.own.items()}
        return made

    def checked(self) -> "Training":
        """The specification with its defaults filled in.

        Raises:
            PackingError: a field of another type or out of range, in one sentence.
        """
        spec = replace(self, **{name: plain(getattr(self, name)) for name in _STORED})
        if spec.precision not in get_args(Precision):
            raise PackingError(f"the precision is {spec.precision!r}; it must be float32 or float64")
        spec = replace(spec, **spec.model.filled())
        check_extended(spec.steps, spec.extended_from)
        for what, seed in (("seed", spec.seed), ("disorder seed", spec.disorder_seed)):
            if type(seed) is not int or not 0 <= seed < 2**32:
                raise PackingError(f"the {what} is {seed!r}; it must be a whole number from 0 to {2**32 - 1}")
        if type(spec.replicas) is not int or spec.replicas < 1:
            raise PackingError(f"{spec.replicas} replicas; it must be a whole number from 1 on")
        if not all(type(wait) is int for wait in spec.waits or ()):
            raise PackingError(f"the waiting times are {spec.waits}; they must be whole steps from 0 on")
        if late := [wait for wait in spec.waits or () if wait > (spec.extended_from or (spec.steps or 0,))[0]]:
            raise PackingError(f"the waiting time {late[0]} is after the last step, {spec.steps}")
        if spec.start is not None and spec.start_from is not None:
            raise PackingError("give weights to start from, or a sweep that they are in, and not both")
        if spec.start_from is not None:
            for name in spec.cells.places():
                spec.parent.entry(spec.values_of(name))
        spec.times()
        return spec

    def with_axes(self, values: Mapping[str, tuple[float | int, ...]]) -> "Training":
        """The same with other values of the axes."""
        return replace(self, axes=values)

    def recorded(self, attributes: Mapping[str, Any]) -> "Training":
        """The specification in the attributes of a store, which may come from elsewhere.

        Raises:
            PackingError: a field is missing, of another type or out of range; or a user's object is not given again, or
                is another version.
        """
        given_again(attributes.get("own", {}), self.own, self.trust_rule)
        values = {name: _stored(name, attributes.get(name)) for name in _STORED}
        if self.start_from is not None:
            values["start_from"] = self.start_from  # it may have been moved
        for name in ("task", "rule"):
            if name not in self.own:
                values[name] = _is(name, attributes.get(name), _TEXT)
        settings, names = attributes.get("settings"), attributes.get("axes")
        if not isinstance(settings, dict) or not all(isinstance(one, str) for one in settings.values()):
            raise PackingError(f"the store says settings = {str(settings)[:80]}; no sweep has that")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise PackingError(f"the store says axes = {str(names)[:80]}; no sweep has that")
        axes = {name: attributes.get(name) for name in names}
        found = replace(self, **values, settings=settings, axes=axes).checked()
        if found.start_from is not None and found.parent.digest != attributes.get("parent"):
            raise PackingError(
                f"{found.start_from} does not hold the weights from which this sweep began: give the directory as it "
                "was"
            )
        return found

    def trusted(self, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """A sentence for each object that has no source and was taken for the one in the store."""
        return given_again(attributes.get("own", {}), self.own, self.trust_rule)

    def differences(self, asked: "Training") -> list[str]:
        """Why another specification is not this one with more of it; what is None there is as it was."""
        same = ("rule", "settings", "waits", "measure", "record_every", "start_from")
        asked = replace(asked, **{name: getattr(self, name) for name in same if getattr(asked, name) is None})
        asked = replace(asked, settings={**(self.settings or {}), **(asked.settings or {})})
        return super().differences(replace(asked, axes={**(self.axes or {}), **(asked.axes or {})}))

    def extended(self, asked: "Training") -> "Training":
        """This sweep with more steps, replicas or values of its axes; the times of its records are kept."""
        axes = {name: plain(np.ravel(values)) for name, values in (asked.axes or {}).items()}
        if unknown := [name for name in axes if name not in (self.axes or {})]:
            raise PackingError(f"this sweep has no axis {unknown[0]}; it has {', '.join(self.axes or {})}")
        grown = super().extended(replace(asked, axes=axes))
        if grown.steps == self.steps:
            return grown
        return replace(grown, extended_from=(*self.extended_from, self.steps or 0)).checked()


def _is(name: str, value: Any, what: str) -> Any:
    types: dict[str, type] = {_TEXT: str, _WHOLE: int, _TEXTS: str, _WHOLES: int}
    several = what in (_TEXTS, _WHOLES)
    value = tuple(value) if isinstance(value, (list, tuple)) and several else value
    if (several and not isinstance(value, tuple)) or not all(
        type(one) is types[what] for one in (value if several else (value,))
    ):
        raise PackingError(f"the store says {name} = {str(value)[:80]}; no sweep has that")
    return value


def _stored(name: str, value: Any) -> Any:
    return None if value is None and name in ("record_every", "start_from") else _is(name, value, _STORED[name])


def _folded(key: Array, values: Sequence[float | int]) -> Array:
    for value in values:
        bits = int(np.float64(value).view(np.uint64))
        key = jax.random.fold_in(jax.random.fold_in(key, bits & 0xFFFFFFFF), bits >> 32)
    return key


def replica_key(seed: int, name: Name) -> Array:
    """The key of one replica's noise: the seed folded with everything that the replica is."""
    return jax.random.fold_in(_folded(jax.random.key(seed), name[:-1]), int(name[-1]))


def disorder_key(seed: int, own: Sequence[float | int], replica: int) -> Array:
    """The key of one replica's data and start: the disorder seed folded with the task's own numbers."""
    return jax.random.fold_in(_folded(jax.random.key(seed), own), replica)
