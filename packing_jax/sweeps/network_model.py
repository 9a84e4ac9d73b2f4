"""The model of a sweep of networks: task, rule and observables, of the package by their names, or a user's own."""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Classifying, Overlapping
from packing_jax.networks.objective import samples_of
from packing_jax.networks.options import Option
from packing_jax.networks.rules import WeightRule
from packing_jax.networks.task import Task
from packing_jax.sweeps.network_parts import MEASURED, Tasks, data_shapes, rule_of

_SINCE = ("msd", "non_gaussian", "overlap")  # waiting times
_STEPS, _REPLICAS = 1000, 3

# names that a store has for other things
_TAKEN = {"kind", "axes", "control", "command", "configuration", "versions", "block_width", "digests", "seal", "own"}
_TAKEN |= {"size_axis"}
_TAKEN |= {"task", "rule", "settings", "steps", "replicas", "seed", "disorder_seed", "precision", "waits", "measure"}
_TAKEN |= {"record_every", "start_from", "extended_from", "parent", "replica", "time", "weight", "weights", "failed"}
_TAKEN |= {"data_digest", "absorbed_at", "steps_done", "samples_per_weight", *MEASURED}


@runtime_checkable
class Words(Protocol):
    """What of a sweep says what is trained, by what, and what is recorded; see the fields of its name."""

    @property
    def task(self) -> Any: ...  # noqa: D102
    @property
    def rule(self) -> Any: ...  # noqa: D102
    @property
    def axes(self) -> Mapping[str, Any] | None: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, str] | None: ...  # noqa: D102
    @property
    def steps(self) -> int | None: ...  # noqa: D102
    @property
    def replicas(self) -> int | None: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def waits(self) -> tuple[int, ...] | None: ...  # noqa: D102
    @property
    def measure(self) -> tuple[str, ...] | None: ...  # noqa: D102
    @property
    def record(self) -> Mapping[str, Any] | None: ...  # noqa: D102


class Point(NamedTuple):
    """A task and a rule at one value of each axis."""

    task: Task
    rule: WeightRule
    own: tuple[float | int, ...]  #: the values of the task's axes
    signature: Hashable  #: what replicas must share to run beside one another
    samples: int
    weights: int


class Model:
    """A task and a rule, whose numbers are the axes of a sweep."""

    def __init__(self, words: Words) -> None:
        """Look at the functions that make them.

        Raises:
            PackingError: an unknown name, or a function that takes anything but numbers and texts.
        """
        self.tasks = Tasks(words.task, words.settings or {}, words.precision, tuple(words.waits or ()))
        sweep = self.tasks.ready.sweep
        self._rule = words.rule if words.rule is not None else sweep.get("rule", "sgd")
        self._words = words
        self._make_rule, self.rule_options = rule_of(self._rule)
        clash = sorted(self.tasks.options.keys() & self.rule_options.keys())
        clash += sorted(_TAKEN & {*self.tasks.options, *self.rule_options})
        if clash:
            raise PackingError(
                f"an option of a task or rule of your own cannot be called {clash[0]}; choose another name"
            )
        self._points: dict[Hashable, Point] = {}
        self._shared: list[Data] = []

    @property
    def options(self) -> dict[str, Option]:
        """Those of the task and those of the rule."""
        return {**self.tasks.options, **self.rule_options}

    # --- defaults ---------------------------------------------------------------------------------------------

    def filled(self) -> dict[str, Any]:
        """The fields of the sweep with defaults in the place of what is None, and checked values of its axes."""
        words, sweep = self._words, self.tasks.ready.sweep
        axes = self._axes()
        measure = words.measure
        if measure is None:
            measure = self._measure(self.point({name: values[0] for name, values in axes.items()}))
        waits = words.waits
        if waits is None:
            waits = (0,) if {word.partition("=")[0] for word in measure} & {*_SINCE} else ()
        self._check_record()
        return {
            "rule": self._rule,
            "axes": axes,
            "settings": self._settings(),
            "steps": sweep.get("steps", _STEPS) if words.steps is None else words.steps,
            "replicas": sweep.get("replicas", _REPLICAS) if words.replicas is None else words.replicas,
            "measure": tuple(measure),
            "waits": tuple(sorted(set(waits))),
        }

    def _axes(self) -> dict[str, tuple[float | int, ...]]:
        given, options = self._words.axes or {}, {k: one for k, one in self.options.items() if one.number is not None}
        if not isinstance(given, Mapping):
            raise PackingError(
                f"the axes are {given!r}; they must be a dict from names to values, such as {{'kick': 0.1}}"
            )
        for name in given:
            if name not in options:
                raise PackingError(
                    f"{name} is not a number of this task or rule; those are {', '.join(options) or 'none'}"
                )
        # what a task sweeps when nothing is said; beside what is said, each number has one value
        alone = not given and self._words.rule is None
        usual = {
            name: values
            for name, values in self.tasks.ready.sweep.items()
            if name in options and (alone or len(np.atleast_1d(values)) == 1)
        }
        if self._rule != self.tasks.ready.sweep.get("rule", "sgd"):
            usual = {name: values for name, values in usual.items() if name in self.tasks.options}
        return {
            name: _values(name, given.get(name, usual.get(name, option.default)), option)
            for name, option in options.items()
        }

    def _settings(self) -> dict[str, str]:
        given, options = self._words.settings or {}, {k: one for k, one in self.options.items() if one.number is None}
        for name, text in given.items():
            if name not in options:
                raise PackingError(
                    f"{name} is not a setting of this task or rule; those are {', '.join(options) or 'none'}"
                )
            if not isinstance(text, str):
                raise PackingError(f"{name} is {text!r}; it must be a text")
        usual = {name: self.tasks.ready.sweep.get(name, option.default) for name, option in options.items()}
        return {name: text for name, text in {**usual, **given}.items() if text is not None}

    def _measure(self, point: Point) -> tuple[str, ...]:
        loss, data = point.task.loss, data_shapes(point.task)
        tests = data.test_inputs is not None
        classes = isinstance(loss, Classifying)
        words = {
            "loss": True,
            "activity": isinstance(loss, Overlapping),
            "accuracy": classes,
            "test_loss": tests,
            "test_accuracy": tests and classes,
        }
        return tuple(word for word, there in words.items() if there)

    def _check_record(self) -> None:
        for name, one in (self._words.record or {}).items():
            if not callable(one):
                raise PackingError(f"the observable {name} is of type {type(one).__name__}; it must be a function")
            if name not in MEASURED and (name in _TAKEN or name in self.options or not name.isidentifier()):
                raise PackingError(f"an observable cannot be called {name!r}; choose a plain word that the store lacks")

    # --- at one value of each axis ----------------------------------------------------------------------------

    def points(self, axes: Mapping[str, Sequence[float | int]]) -> list[Point]:
        """Every combination of these values; of axes that are left out, the default."""
        first = {name: option.default for name, option in self.options.items() if option.number is not None}
        return [
            self.point({**first, **dict(zip(axes, values, strict=True))})
            for values in itertools.product(*axes.values())
        ]

    def point(self, values: Mapping[str, float | int]) -> Point:
        """The task and the rule there."""
        key = tuple(values[name] for name, option in self.options.items() if option.number is not None)
        if key not in self._points:
            self._points[key] = self._made(values)
        return self._points[key]

    def _made(self, values: Mapping[str, float | int]) -> Point:
        task, settings = self.tasks.at(values), self._settings()
        of_rule = {
            name: values[name] if option.number is not None else settings.get(name)
            for name, option in self.rule_options.items()
        }
        rule = self._make_rule(of_rule)
        weights, data = task.shapes(), data_shapes(task)
        leaves = jax.tree.leaves(weights)
        signature = (
            jax.tree.structure(rule),
            tuple(np.shape(leaf) for leaf in jax.tree.leaves(rule)),
            task.objective,
            *((jax.tree.structure(tree), *map(_shape, jax.tree.leaves(tree))) for tree in (weights, data)),
            None if task.data is None else self._number_of(task.data),
        )
        key = tuple(values[name] for name in self.tasks.axes)
        return Point(task, rule, key, signature, samples_of(data.inputs), sum(math.prod(leaf.shape) for leaf in leaves))

    def _number_of(self, data: Data) -> int:
        """The same for data that are the same: replicas of one program share one copy."""
        for number, other in enumerate(self._shared):
            pairs = zip(jax.tree.leaves(data), jax.tree.leaves(other), strict=False)
            trees: list[Any] = [jax.tree.structure(one) for one in (data, other)]
            if trees[0] == trees[1] and all(
                one is two or np.array_equal(one, two, equal_nan=True) for one, two in pairs
            ):
                return number
        self._shared.append(data)
        return len(self._shared) - 1


def _values(name: str, given: Any, option: Option) -> tuple[float | int, ...]:
    """The values of an axis, in increasing order and of its type."""
    array = np.atleast_1d(np.asarray(given))
    if array.ndim != 1 or array.dtype.kind not in "fiu" or not np.all(np.isfinite(array)) or not len(array):
        raise PackingError(f"{name} is {given!r}; it must be a finite number, or a tuple of them")
    if option.number is int and np.any(array != np.rint(array)):
        raise PackingError(f"{name} is {given!r}; it must be a whole number, or a tuple of them")
    made = tuple(sorted(map(option.number or float, array.tolist())))
    if len(set(made)) < len(made):
        raise PackingError(f"{name} is {given!r}; no value may be listed twice")
    return made


def _shape(leaf: Any) -> Hashable:
    return tuple(np.shape(leaf)), str(leaf.dtype)
