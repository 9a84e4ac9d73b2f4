"""The base class of rules of weights, and checks of their arguments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.minibatch import Minibatch, Sampling
from packing_jax.networks.objective import Objective
from packing_jax.random_words import normal, words_of

NOISE, CHOICE = 1, 2  # streams of a step's random words; minibatches take stream 0


class Moved(NamedTuple):
    """The result of a step."""

    weights: Any
    state: Any
    broken: Array  #: () bool, the step failed or the replica diverged
    quiet: Array | None = None  #: () bool, no sample of the step is violated; None: the loss has no absorbing state


class WeightRule:
    """A stochastic update of weights: what it carries, and one step. The base class of every rule of weights.

    A rule is a frozen dataclass and a pytree (:func:`packing_jax.trees.pytree`) whose leaves are its hyperparameters,
    and ``batch`` is one of its constants.
    """

    batch: Minibatch | None  #: what a step sees; None: all samples

    def init(self, weights: Any) -> Any:
        """What the rule carries from step to step, a pytree of arrays; nothing by default."""
        return ()

    def step(
        self, key: Array, objective: Objective, seen: tuple[Any, Any], samples: int, weights: Any, state: Any
    ) -> Moved:
        """One move of one replica.

        Args:
            key: (2,) uint32 key data of this replica at this step.
            objective: the model, the loss and its total.
            seen: inputs and targets of this step's samples.
            samples: P, the number of all samples.
            weights: before the step.
            state: what the last step carried.
        """
        raise NotImplementedError(f"{type(self).__name__} is a rule without a step")


def minibatch(size: int | None, sampling: Sampling) -> Minibatch | None:
    """The batch of a rule; without a size each step sees all samples."""
    return None if size is None else Minibatch(size, sampling)


def quiet_of(objective: Objective, weights: Any, seen: tuple[Any, Any]) -> Array | None:
    """Whether none of the step's samples is violated; None where the loss has no overlaps."""
    overlaps = objective.overlaps(weights, *seen)
    return None if overlaps is None else ~jnp.any(overlaps > 0)


def normals(key: Array, weights: Any, which: int = NOISE) -> Any:
    """Independent N(0, 1) numbers, a tree like the weights."""
    leaves, structure = jax.tree.flatten(weights)
    ends = np.cumsum([leaf.size for leaf in leaves])
    draws = normal(words_of(key, int(ends[-1]), which), np.dtype(leaves[0].dtype))
    parts = jnp.split(draws, ends[:-1])
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def check_number(
    name: str, value: Any, low: float = -np.inf, *, above: bool = False, high: float = np.inf, below: bool = False
) -> Any:
    """A finite number from ``low`` (or ``above`` it) to ``high``, or one per replica, in float64; a tracer unchanged.

    With ``below``, ``high`` itself is left out.

    Raises:
        PackingError: anything else.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.ndim > 1 or not np.all(np.isfinite(array)):
        raise PackingError(f"the {name} is {value}; it must be a finite number, or one per replica")
    out = array < low, array > high, above and array <= low, below and array >= high
    if any(map(np.any, out)):
        least = f"above {low:g}" if above else f"at least {low:g}"
        most = "" if high == np.inf else f" and {'below' if below else 'at most'} {high:g}"
        raise PackingError(f"the {name} is {value}; it must be {least}{most}")
    return array.astype(float)  # in numpy, so that a task in float64 gets all digits
