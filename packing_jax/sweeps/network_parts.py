"""What a sweep of networks is put together from: tasks, rules and observables, by their names or a user's own."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any

import jax
import numpy as np
import optax

from packing_jax.drive.chunk import Observable
from packing_jax.errors import PackingError, did_you_mean, in_one_line
from packing_jax.networks.data import Data
from packing_jax.networks.options import Option, options_of
from packing_jax.networks.rules import WeightRule, sgd
from packing_jax.networks.rules.named import RULES, sampling_of, size_of
from packing_jax.networks.task import Task
from packing_jax.networks.tasks import TASKS, Ready
from packing_jax.observables import learning
from packing_jax.sweeps.fingerprint import name_of
from packing_jax.sweeps.manifest import digest

#: What a sweep records by its word; ``overlap=WIDTH`` is the share of weights within WIDTH of where they were.
MEASURED: Mapping[str, Any] = {
    "loss": learning.loss,
    "test_loss": learning.test_loss,
    "accuracy": learning.accuracy,
    "test_accuracy": learning.test_accuracy,
    "activity": learning.activity,
    "gradient_norm": learning.gradient_norm,
    "weight_norm": learning.weight_norm,
    "local_displacement": learning.local_displacement,
    "global_displacement": learning.global_displacement,
    "msd": learning.mean_squared_displacement,
    "non_gaussian": learning.non_gaussian,
    "overlap": functools.cache(learning.overlap),  # one function for one width: it is part of the program
    "snapshots": learning.weights,
}


class Tasks:
    """The tasks that a function makes, of a user's or of a name."""

    def __init__(self, task: Any, settings: Mapping[str, str], precision: Any, waits: tuple[int, ...] = ()) -> None:
        """Look at the function.

        Args:
            task: a name, or the function.
            settings: its options that are no numbers; those of others may stand beside them.
            precision: of all tasks.
            waits: waiting times of all tasks.

        Raises:
            PackingError: an unknown name, a function that takes anything but numbers and texts, or a control or size
            that is none of its numbers.
        """
        self.ready = ready_task(task)
        self.options = self.ready.options
        self.axes = tuple(name for name, option in self.options.items() if option.number is not None)
        for what, axis in (("control", self.ready.control), ("size", self.ready.size)):
            if axis is not None and axis not in self.axes:
                numbers = ", ".join(self.axes) or "of which it has none"
                raise PackingError(f"the {what} of the task is {axis!r}; it must be one of its numbers, {numbers}")
        self._texts = {name: settings.get(name, self.options[name].default) for name in self.options.keys() - self.axes}
        self._more: dict[str, Any] = {"precision": precision, "waits": waits}
        self._made: dict[tuple[float | int, ...], Task] = {}

    @functools.cached_property
    def data(self) -> str | None:
        """A digest of the data that all replicas share, at the default values; None where each draws its own."""
        shared = self.at({name: self.options[name].default for name in self.axes}).data
        if shared is None:
            return None
        return digest(*(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(shared)))

    def at(self, values: Mapping[str, float | int]) -> Task:
        """The task of these values of its axes, among others.

        Raises:
            PackingError: the function fails, or makes no task.
        """
        key = tuple(values[name] for name in self.axes)
        if key not in self._made:
            task = called(self.ready.make, {**dict(zip(self.axes, key, strict=True)), **self._texts}, "task")
            if not isinstance(task, Task):
                raise PackingError(
                    f"the task {name_of(self.ready.make)} makes an object of type {type(task).__name__}; it must "
                    "make a packing_jax.networks.task.Task"
                )
            same = {name: interned(getattr(task, name)) for name in ("apply", "loss", "project", "views")}
            self._made[key] = replace(task, **same, **self._more)
        return self._made[key]


def measured(words: Sequence[str]) -> dict[str, Observable]:
    """The observables of some words of :data:`MEASURED`.

    Raises:
        PackingError: another word.
    """
    found: dict[str, Observable] = {}
    for word in words:
        name, _, width = word.partition("=")
        if name not in MEASURED or bool(width) != (name == "overlap") or name in found:
            what = "it is given twice" if name in found else f"it must be one of {', '.join(MEASURED)}"
            raise PackingError(f"what is recorded is {word!r}; {what}, overlap with a width, as overlap=0.01")
        try:
            found[name] = MEASURED[name](float(width)) if width else MEASURED[name]
        except ValueError as error:
            raise PackingError(f"{word} has no number as width; give overlap=0.01, for instance") from error
    return found


def ready_task(task: Any) -> Ready:
    """A task by its name, or of a function of a user's.

    Raises:
        PackingError: an unknown name, or no function.
    """
    if not isinstance(task, str):
        return task if isinstance(task, Ready) else Ready(task)
    if task not in TASKS:
        known = f"it must be one of {', '.join(TASKS)}, or a function of your own, which the command line takes as "
        raise PackingError(f"there is no task {task!r}: {did_you_mean(task, TASKS) or f'{known}module:object'}")
    return TASKS[task]


def rule_of(rule: Any) -> tuple[Callable[[Mapping[str, Any]], WeightRule], dict[str, Option]]:
    """A function that makes a rule of the values of its options, and these.

    Raises:
        PackingError: an unknown name, or nothing that makes a rule.
    """
    if isinstance(rule, str) and rule not in RULES:
        raise PackingError(
            f"the rule is {rule!r}; it must be {', '.join(RULES)}, or an object of your own, which the command line "
            "takes as module:object"
        )
    if isinstance(rule, WeightRule):
        return lambda _: rule, {}
    batches = {
        name: one for name, one in options_of(RULES["sgd"], "rule").items() if name in ("batch_size", "sampling")
    }
    if isinstance(rule, optax.GradientTransformation):
        return lambda values: _descent(rule, values), batches
    make = RULES[rule] if isinstance(rule, str) else rule
    options = options_of(make, "rule")
    usual = called(make, {name: option.default for name, option in options.items()}, "rule")
    if isinstance(usual, WeightRule):
        return lambda values: called(make, values, "rule"), options
    if not isinstance(usual, optax.GradientTransformation):
        raise PackingError(
            f"the rule {name_of(make)} makes an object of type {type(usual).__name__}; it must make a rule of "
            "packing_jax.networks.rules, or an optax optimizer"
        )

    def descent(values: Mapping[str, Any]) -> WeightRule:
        return _descent(called(make, {name: values[name] for name in options}, "rule"), values)

    return descent, {**options, **batches}


def _descent(optimizer: optax.GradientTransformation, values: Mapping[str, Any]) -> WeightRule:
    return sgd(optimizer, size_of(values["batch_size"]), sampling=sampling_of(values["sampling"]))


def called(make: Callable[..., Any], values: Mapping[str, Any], what: str) -> Any:
    """What a user's function makes of these.

    Raises:
        PackingError: it fails; how.
    """
    try:
        return make(**values)
    except PackingError:
        raise
    except Exception as error:
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        raise PackingError(f"the {what} {name_of(make)} fails with {shown}: {in_one_line(error)}") from error


def data_shapes(task: Task) -> Data:
    """The data of a replica, as shapes where they are drawn.

    Raises:
        PackingError: the function that draws them fails.
    """
    if task.data is not None:
        return task.data
    try:
        with task.types():
            return jax.eval_shape(task.data_from, jax.random.key(0))  # type: ignore[arg-type]
    except PackingError:
        raise
    except Exception as error:
        raise PackingError(f"data_from of the task fails: {in_one_line(error)}") from error


_INTERNED: dict[Hashable, Any] = {}


def interned(function: Any) -> Any:
    """The first function that was seen which does the same: it is part of the program, and compiles nothing anew."""
    key = _content(function)
    try:
        return _INTERNED.setdefault(key, function)
    except TypeError:  # it holds an array, or something else without a hash
        return function


def _content(thing: Any) -> Hashable:
    """What two functions have in common that do the same: code and the values they hold, of methods their object's."""
    if isinstance(thing, MethodType):
        return thing.__func__, _content(thing.__self__)
    if isinstance(thing, FunctionType):
        held = [cell.cell_contents for cell in thing.__closure__ or ()]
        held += [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        return thing.__code__, id(thing.__globals__), tuple(map(_content, held))
    if isinstance(thing, functools.partial):
        return _content(thing.func), tuple(map(_content, thing.args)), tuple(map(_content, thing.keywords.items()))
    if isinstance(thing, tuple):
        return type(thing), tuple(map(_content, thing))
    return type(thing), thing
