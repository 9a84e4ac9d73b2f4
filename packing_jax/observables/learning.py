r"""What a simulation of networks records: losses, activity, displacements from waiting times, spectra of weights.

Each is a function of one :class:`packing_jax.networks.learner.Learner`. Those of weights take all weights;
``of(choose, observable)`` takes some leaves only, such as all layers but the last.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.learner import Learner
from packing_jax.networks.objective import flat

Observable = Callable[[Learner], Array]


def of(choose: Callable[[Any], Any], observable: Observable) -> Observable:
    """An observable of some of the weights.

    Args:
        choose: tree of weights -> the part that counts, such as ``lambda layers: layers[:-1]``.
        observable: of displacements, overlaps Q or norms; not of losses, which need all weights.
    """

    def chosen(seen: Learner) -> Array:
        # ``marked`` has an axis of waiting times, but the same tree structure
        parts = {name: choose(getattr(seen, name)) for name in ("weights", "before", "start", "marked")}
        return observable(seen._replace(**parts))

    return chosen


def loss(seen: Learner) -> Array:
    """The loss L of all training samples."""
    return seen.objective.value(seen.weights, seen.data.inputs, seen.data.targets)


def test_loss(seen: Learner) -> Array:
    """The loss of all test samples."""
    return seen.objective.value(seen.weights, *_test(seen))


def accuracy(seen: Learner) -> Array:
    """The share of training samples that are classified correctly."""
    return _accuracy(seen, seen.data.inputs, seen.data.targets)


def test_accuracy(seen: Learner) -> Array:
    """The share of test samples that are classified correctly."""
    return _accuracy(seen, *_test(seen))


def overlaps(seen: Learner) -> Array:
    """The overlap Delta of each sample with its constraint, (P,).

    Above 0 the sample is violated, and Delta is the force of a quadratic hinge; below 0 it is satisfied, with the gap
    -Delta.

    Raises:
        PackingError: a loss without overlaps.
    """
    found = seen.objective.overlaps(seen.weights, seen.data.inputs, seen.data.targets)
    if found is None:
        raise PackingError(
            f"the loss {seen.objective.loss} has no overlaps, so that no sample is violated: use a hinge, or a loss "
            "with the method overlaps"
        )
    return found


def activity(seen: Learner) -> Array:
    """The share of violated samples, Delta > 0. A configuration without any is absorbing."""
    found = overlaps(seen)
    return jnp.mean((found > 0).astype(found.dtype))


def gradient_norm(seen: Learner) -> Array:
    """|grad L| of the loss of all training samples."""
    gradient = jax.grad(seen.objective.value)(seen.weights, seen.data.inputs, seen.data.targets)
    return jnp.sqrt(_squares(gradient))


def weight_norm(seen: Learner) -> Array:
    """|w|."""
    return jnp.sqrt(_squares(seen.weights))


def weights(seen: Learner) -> Array:
    """All weights in one row (W,), leaf after leaf."""
    return flat(seen.weights)


def local_displacement(seen: Learner) -> Array:
    """|w_k - w_(k-1)|^2 of the last step, summed over weights; 0 before the first."""
    return _squares(_difference(seen.weights, seen.before))


def global_displacement(seen: Learner) -> Array:
    """|w_k - w_0|^2, summed over weights."""
    return _squares(_difference(seen.weights, seen.start))


def displacements(seen: Learner) -> Array:
    """w - w(t_w) of each weight since each of the K waiting times, (K, W); NaN before it."""
    since = jnp.asarray(seen.waits, jnp.int32)
    rows = jax.vmap(lambda marked: flat(_difference(seen.weights, marked)))(seen.marked)
    return jnp.where((seen.step >= since)[:, None], jnp.where((seen.step == since)[:, None], 0.0, rows), jnp.nan)


def mean_squared_displacement(seen: Learner) -> Array:
    """<|w - w(t_w)|^2> over weights since each waiting time, (K,); NaN before it."""
    return jnp.mean(displacements(seen) ** 2, axis=1)


def non_gaussian(seen: Learner) -> Array:
    """alpha_2 = (<D^4> - 3 <D^2>^2)/(3 <D^2>^2), D = w - w(t_w), over weights, (K,); NaN up to the waiting time."""
    square = displacements(seen) ** 2
    second = jnp.mean(square, axis=1)
    return jnp.mean(square * square, axis=1) / (3 * second * second) - 1.0


def overlap(width: float) -> Observable:
    """The overlap Q(t_w, t): the share of weights with |w - w(t_w)| <= eps, (K,); NaN before the waiting time.

    Args:
        width: eps, in the unit of the weights.
    """

    def measured(seen: Learner) -> Array:
        near = jnp.abs(displacements(seen))
        return jnp.where(jnp.isnan(near[:, 0]), jnp.nan, jnp.mean((near <= width).astype(near.dtype), axis=1))

    return measured


def singular_values(matrix: Callable[[Any], Array]) -> Observable:
    """The singular values of one matrix of the weights, largest first.

    Args:
        matrix: tree of weights -> (n, m), such as ``lambda layers: layers[1]["w"]``.
    """
    return lambda seen: jnp.linalg.svd(matrix(seen.weights), compute_uv=False)


def _accuracy(seen: Learner, inputs: Any, targets: Any) -> Array:
    correct = seen.objective.correct(seen.weights, inputs, targets)
    if correct is None:
        raise PackingError(f"the loss {seen.objective.loss} does not classify: there is no accuracy to record")
    return jnp.mean(correct.astype(jnp.result_type(float)))


def _test(seen: Learner) -> tuple[Any, Any]:
    if seen.data.test_inputs is None:
        raise PackingError("the data have no test samples; give Data test_inputs and test_targets")
    return seen.data.test_inputs, seen.data.test_targets


def _difference(one: Any, other: Any) -> Any:
    return jax.tree.map(jnp.subtract, one, other)


def _squares(tree: Any) -> Array:
    return jnp.sum(jnp.stack([jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)]))
