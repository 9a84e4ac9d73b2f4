"""A task, which :func:`packing_jax.simulate` takes: initial weights, a model, a loss of each sample, and data.

Data are one set that all replicas share, never copied, or are drawn for each replica from its own disorder key
(patterns of a perceptron, random labels, teachers). Weights are any pytree of floats.
"""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.drive.kind import Kind, Replicas
from packing_jax.errors import PackingError, in_one_line, is_real
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Checking
from packing_jax.networks.objective import Objective, Total, samples_of, size_of
from packing_jax.networks.rules.base import WeightRule
from packing_jax.networks.weights import Weights
from packing_jax.trees import pytree

Precision = Literal["float32", "float64"]

_BLOCK = 2**18  # default size of a block in weights and replicas' own data, to stay in a processor's cache
_WIDEST = 1024
_START, _DATA = 0, 1  # what a disorder key is folded with


@pytree(meta=["start", "apply", "loss", "data_from", "total", "project", "views", "largest_loss", "waits", "precision"])
@dataclass(frozen=True)
class Task:
    """Initial weights, model, loss and data.

    Example:
        >>> model = MLP((10, 30, 1))
        >>> task = Task(model.start, model.apply, Hinge(), data=Data(inputs, labels))
        >>> simulate(task, sgd(optax.sgd(0.1), batch_size=16), steps=1000, key=jax.random.split(jax.random.key(0), 8))

    Args:
        start: key -> weights, a pytree of floats.
        apply: (weights, inputs (S, ...)) -> outputs (S,) or (S, k).
        loss: (outputs, targets) -> (S,) losses of the samples, see :mod:`packing_jax.networks.losses`; or, where the
            total is "whole", () of all of them together.
        data: the samples that all replicas share, sample axis first.
        data_from: instead of ``data``: key -> the :class:`Data` of one replica.
        total: "mean" or "sum" over the samples of a step; a packing's energy is a sum. "whole": the loss is one number
            of all samples of a step, such as an energy of their pairs.
        project: weights -> weights after each move, for example back to a sphere.
        views: (key, input of one sample) -> what the model sees of it, one array or several, drawn anew at each step;
            see :mod:`packing_jax.networks.views`. Observables see the training and the test samples in the views of
            the step to come. A run with views is never absorbed, as other views can be violated.
        largest_loss: a replica whose loss in a step is larger has diverged.
        disorder: key of the quenched disorder, the initial weights and own data of replicas: () for all or (R,); None:
            from each replica's key.
        waits: waiting times t_w, at which the weights are kept to measure displacements from them. They must be among
            the recorded times.
        precision: float32, or float64 where small differences matter.
    """

    start: Callable[[Array], Any]
    apply: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Array]
    data: Data | None = None
    data_from: Callable[[Array], Data] | None = None
    total: Total = "mean"
    project: Callable[[Any], Any] | None = None
    views: Callable[[Array, Any], Any] | None = None
    largest_loss: float = np.inf
    disorder: Array | None = None
    waits: tuple[int, ...] = ()
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if (self.data is None) == (self.data_from is None):
            raise PackingError("give a task either data, which all replicas share, or data_from, which draws them")
        if self.precision not in get_args(Precision):
            raise PackingError(f"the precision is {self.precision!r}; it must be float32 or float64")
        if self.total not in get_args(Total):
            raise PackingError(f"the total is {self.total!r}; it must be mean, sum or whole")
        if not (is_real(self.largest_loss) and self.largest_loss > 0):
            raise PackingError(f"the largest loss is {self.largest_loss!r}; it must be a number above 0")
        if not all(type(wait) is int and wait >= 0 for wait in self.waits):
            raise PackingError(f"the waiting times are {self.waits}; they must be whole steps from 0 on")

    @property
    def objective(self) -> Objective:
        """The functions of the task."""
        return Objective(self.apply, self.loss, self.total, self.project, self.largest_loss, self.views)

    def types(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which jax has the task's precision."""
        return jax.enable_x64(self.precision == "float64")

    def prepare(self, rule: Any, key: Array, start: Any) -> tuple[Kind, Replicas, bool]:
        """See :class:`packing_jax.drive.kind.Problem`; rule, key, start and disorder may have a leading replica axis.

        Raises:
            PackingError: arguments that do not fit together, or a model, loss or rule that fails on them.
        """
        _check_rule(rule)
        _check_key("key", key)
        if self.disorder is not None:
            _check_key("disorder key", self.disorder)
        with self.types():
            return self._prepared(rule, key, start)

    def _prepared(self, rule: WeightRule, key: Array, start: Any) -> tuple[Kind, Replicas, bool]:
        rule = jax.tree.map(_as_float, rule)
        shapes = self.shapes()
        given = None if start is None else _check_start(start, shapes)
        lengths = {len(leaf) for leaf in jax.tree.leaves(rule) if leaf.ndim}
        lengths |= {len(one) for one in (key, self.disorder) if one is not None and one.ndim}
        lengths |= {len(jax.tree.leaves(given)[0])} if given is not None and _has_axis(given, shapes) else set()
        if len(lengths) > 1:
            raise PackingError(f"replica axes of lengths {sorted(lengths)}; rule, keys and start must agree on one")
        if lengths == {0}:
            raise PackingError("there are no replicas: the replica axis has length 0, and at least 1 is needed")
        count, batched = (lengths.pop(), True) if lengths else (1, False)

        def spread(leaf: Any) -> Array:
            return jnp.broadcast_to(leaf, (count, *jnp.shape(leaf)))

        keys = key if key.ndim else _folded(key, jnp.arange(count)) if batched else key[None]
        disorder = self.disorder
        if disorder is None:
            disorder = _folded(keys, 2)
        elif not disorder.ndim:
            disorder = jnp.broadcast_to(disorder, (count,))
        own: Any = ()
        if self.data_from is not None:
            own = jax.vmap(lambda one: self._floats(self.data_from(one)))(_folded(disorder, _DATA))  # type: ignore[misc]
        if given is None:
            given = jax.vmap(self._start)(_folded(disorder, _START))
        elif not _has_axis(given, shapes):
            given = jax.tree.map(spread, given)
        shared = () if self.data is None else self._floats(self.data)
        noise = jax.vmap(jax.random.key_data)(_folded(keys, 1))
        rule = jax.tree.map(lambda leaf: leaf if leaf.ndim else spread(leaf), rule)
        replicas = Replicas(own, rule, noise[:, :2], given, shared)
        kind = self._checked(replicas)
        return kind, replicas, batched

    def shapes(self) -> Any:
        """Shapes and types of the weights, in a tree like them.

        Raises:
            PackingError: ``start`` raises, or returns something else than a pytree of floats.
        """
        try:
            with self.types():
                return jax.eval_shape(self._start, jax.random.key(0))
        except PackingError:
            raise
        except Exception as error:
            raise PackingError(f"the start of the task fails: {in_one_line(error)}") from error

    def _start(self, key: Array) -> Any:
        weights = self.start(key)
        for leaf in jax.tree.leaves(weights):
            if not (isinstance(leaf, Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)):
                raise PackingError(
                    f"the weights hold {type(leaf).__name__ if not hasattr(leaf, 'dtype') else leaf.dtype}; they must "
                    "be a pytree of floats; for a module with other fields use packing_jax.networks.models.from_module"
                )
        if not jax.tree.leaves(weights):
            raise PackingError("the start makes no weights; it must return a pytree with at least one array of floats")
        return jax.tree.map(_as_float, weights)

    def _floats(self, data: Data) -> Data:
        if not isinstance(data, Data):
            raise PackingError(f"the data are of type {type(data).__name__}; they must be packing_jax.networks.Data")
        return jax.tree.map(_as_float, data)

    def _checked(self, replicas: Replicas) -> Weights:
        """The kind, after a check that data, model and loss fit together."""
        one = jax.tree.map(lambda leaf: leaf[0], replicas._replace(shared=()))
        data: Data = replicas.shared if self.data is not None else one.system
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves((data.inputs, data.targets))}
        if len(lengths) != 1 or () in lengths or (0,) in lengths:
            raise PackingError(
                f"the samples' arrays have shapes {[np.shape(leaf) for leaf in jax.tree.leaves(data)]}; inputs and "
                "targets must have one sample axis, first, of the same length"
            )
        samples = samples_of(data.inputs)
        batch = replicas.rule.batch
        if batch is not None:
            batch.check(samples)
        objective = self.objective
        data = _seen(objective, data)
        try:
            shape = jax.eval_shape(objective.losses, one.start, data.inputs, data.targets)
        except PackingError:
            raise
        except Exception as error:
            outputs = _outputs(objective, one.start, data)
            raise PackingError(f"the model and the loss fail on the data: {outputs}{in_one_line(error)}") from error
        expected, what = ((), "for all") if self.total == "whole" else ((samples,), "for each")
        if getattr(shape, "shape", None) != expected or not jnp.issubdtype(shape.dtype, jnp.floating):
            raise PackingError(
                f"{_outputs(objective, one.start, data)}the loss has shape {getattr(shape, 'shape', None)} for "
                f"{samples} samples; it must be one number {what}"
            )
        _check_step(one.rule, objective, one.start, data, samples)
        loss: Any = self.loss
        if isinstance(loss, Checking):
            loss.check(jax.eval_shape(objective.apply, one.start, data.inputs).shape, data.targets)
        value = _value(objective, one.start, data.inputs, data.targets)
        if not np.isfinite(value):
            raise PackingError(f"the loss is {value} at the start; weights, inputs and targets must make a finite one")
        size = size_of((one.start, one.system))
        return Weights(
            objective,
            samples,
            batch,
            tuple(self.waits),
            self.precision == "float64",
            int(np.clip(_BLOCK // max(size, 1), 1, _WIDEST)),
        )

    def tree(self, flat: Any) -> Any:
        """Weights as a tree, from rows (..., W) as results hold them.

        Raises:
            PackingError: rows of another length.
        """
        leaves, structure = jax.tree.flatten(self.shapes())
        rows = np.asarray(flat)
        total = sum(leaf.size for leaf in leaves)
        if rows.shape[-1:] != (total,):
            raise PackingError(f"rows of shape {rows.shape} for {total} weights; the last axis must be as long")
        parts = np.split(rows, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=-1)
        return jax.tree.unflatten(
            structure, [part.reshape(*rows.shape[:-1], *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        )


@functools.partial(jax.jit, static_argnums=0)
def _value(objective: Objective, weights: Any, inputs: Any, targets: Any) -> Array:
    return objective.value(weights, inputs, targets)


def _seen(objective: Objective, data: Data) -> Data:
    """The data in views of some key.

    Raises:
        PackingError: the views fail on a sample.
    """
    if objective.views is None:
        return data
    try:
        key, which = jnp.zeros(2, jnp.uint32), jnp.arange(samples_of(data.inputs))
        inputs = jax.jit(objective.viewed)(key, data.inputs, which)
        return replace(data, inputs=inputs, test_inputs=None, test_targets=None)
    except PackingError:
        raise
    except Exception as error:
        raise PackingError(f"the views fail on a sample of the data: {in_one_line(error)}") from error


def _as_float(leaf: Any) -> Array:
    """Floats in jax's current precision; other numbers unchanged."""
    array = jnp.asarray(leaf)
    return array.astype(float) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _folded(keys: Array, number: Any) -> Array:
    """Each key folded with a number; or one key with each of several."""
    if keys.ndim:
        return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
    return jax.vmap(jax.random.fold_in, (None, 0))(keys, number)


def _has_axis(given: Any, shapes: Any) -> bool:
    return jax.tree.leaves(given)[0].ndim > len(jax.tree.leaves(shapes)[0].shape)


def _check_start(start: Any, shapes: Any) -> Any:
    found: Any = jax.tree.structure(start)
    wanted: Any = jax.tree.structure(shapes)
    if found != wanted:
        raise PackingError(f"the start is {found}; it must be a tree as the task starts from, {wanted}")
    given = jax.tree.map(_as_float, start)
    extra = {
        leaf.shape[: leaf.ndim - len(like.shape)]
        for leaf, like in zip(jax.tree.leaves(given), jax.tree.leaves(shapes), strict=True)
        if leaf.shape[max(leaf.ndim - len(like.shape), 0) :] == like.shape
    }
    ends = [
        leaf.shape[max(leaf.ndim - len(like.shape), 0) :] == like.shape
        for leaf, like in zip(jax.tree.leaves(given), jax.tree.leaves(shapes), strict=True)
    ]
    if not all(ends) or len(extra) != 1 or len(next(iter(extra))) > 1:
        raise PackingError(
            f"the start has arrays of shapes {[leaf.shape for leaf in jax.tree.leaves(given)]}; they must be "
            f"{[leaf.shape for leaf in jax.tree.leaves(shapes)]}, or with one replica axis before that"
        )
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(given)):
        raise PackingError("a weight of the start is NaN or infinite; all must be finite")
    return given


def _outputs(objective: Objective, weights: Any, data: Data) -> str:
    """The shapes of a model's outputs, for an error message."""
    try:
        made = jax.eval_shape(objective.apply, weights, data.inputs)
        shapes = [leaf.shape for leaf in jax.tree.leaves(made)]
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything; the sentence says what
        return f"the model raises {in_one_line(error)}; "
    targets = [np.shape(leaf) for leaf in jax.tree.leaves(data.targets)]
    return f"outputs have shape {', '.join(map(str, shapes))} and targets {', '.join(map(str, targets)) or 'none'}; "


def _check_rule(rule: Any) -> None:
    if isinstance(rule, WeightRule):
        return
    if isinstance(rule, str):
        meant = f"it is the name {rule!r}; give the rule itself, such as packing_jax.networks.bro(0.1)"
    elif callable(rule) and hasattr(rule, "__name__"):
        meant = f"it is {rule.__name__} itself; call it"
    else:
        meant = f"it is of type {type(rule).__name__}; give one of packing_jax.networks.rules, or an object of a class "
        meant += "of WeightRule"
    raise PackingError(f"the rule is not a rule for weights: {meant}")


def _check_step(rule: WeightRule, objective: Objective, weights: Any, data: Data, samples: int) -> None:
    """Refuse a rule whose step fails on the task, before anything is compiled."""

    def step(weights: Any, inputs: Any, targets: Any) -> Any:
        if rule.batch is not None:
            some = jnp.zeros(rule.batch.size, jnp.int32)
            inputs, targets = jax.tree.map(lambda leaf: leaf[some], (inputs, targets))
        key = jnp.zeros(2, jnp.uint32)
        return rule.step(key, objective, (inputs, targets), samples, weights, rule.init(weights))

    try:
        jax.eval_shape(step, weights, data.inputs, data.targets)
    except PackingError:
        raise
    except Exception as error:
        raise PackingError(f"the rule {type(rule).__name__} fails on the task: {in_one_line(error)}") from error


def _check_key(name: str, key: Any) -> None:
    if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim < 2):
        raise PackingError(f"the {name} is {key!r}; it must be a typed key, jax.random.key(seed), or one per replica")
