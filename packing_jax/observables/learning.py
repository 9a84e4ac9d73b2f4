r"""What a simulation of networks records: losses, activity, displacements from waiting times, spectra of weights.

Each is a function of one :class:`packing_jax.networks.learner.Learner`. Those of weights take all of them;
``of(choose, observable)`` makes one of some leaves, such as all layers but the last.
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
        observable: of displacements, overlaps or norms: anything but losses.
    """

    def chosen(seen: Learner) -> Array:
        # trees with the axis of waiting times are trees of the same structure
        parts = {name: choose(getattr(seen, name)) for name in ("weights", "before", "start", "marked")}
        return observable(seen._replace(**parts))

    return chosen


def loss(seen: Learner) -> Array:
    """The loss of all samples."""
    return seen.objective.value(seen.weights, seen.data.inputs, seen.data.targets)


def test_loss(seen: Learner) -> Array:
    """The loss of the test samples."""
    return seen.objective.value(seen.weights, *_test(seen))


def accuracy(seen: Learner) -> Array:
    """The share of samples that are classified rightly."""
    return _accuracy(seen, seen.data.inputs, seen.data.targets)


def test_accuracy(seen: Learner) -> Array:
    """The share of test samples that are classified rightly."""
    return _accuracy(seen, *_test(seen))


def overlaps(seen: Learner) -> Array:
    """Delta of each sample, (P,).

    Above 0 it is the depth of a violation, and the force of a quadratic hinge; below 0 it is minus the gap of a
    satisfied sample.
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
    """|grad L| of all samples."""
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
    """w - w(t_w) of each weight since each waiting time, (K, W); NaN up to that time."""
    since = jnp.asarray(seen.waits, jnp.int32)
    rows = jax.vmap(lambda marked: flat(_difference(seen.weights, marked)))(seen.marked)
    return jnp.where((seen.step >= since)[:, None], jnp.where((seen.step == since)[:, None], 0.0, rows), jnp.nan)


def mean_squared_displacement(seen: Learner) -> Array:
    """<|w - w(t_w)|^2> over weights since each waiting time, (K,); NaN up to that time."""
    return jnp.mean(displacements(seen) ** 2, axis=1)


def non_gaussian(seen: Learner) -> Array:
    """alpha_2 = (<D^4> - 3 <D^2>^2)/(3 <D^2>^2) over weights since each waiting time, (K,)."""
    square = displacements(seen) ** 2
    second = jnp.mean(square, axis=1)
    return jnp.mean(square * square, axis=1) / (3 * second * second) - 1.0


def overlap(width: float) -> Observable:
    """Q = the share of weights with |w - w(t_w)| <= eps since each waiting time, (K,).

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
