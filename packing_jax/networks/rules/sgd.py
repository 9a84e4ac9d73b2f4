r"""Stochastic gradient descent on the loss of a minibatch, driven by any optax transformation.

    g = grad L_B(w) + noise,   w' = w + update(g)

L_B is the mean of the losses of the S samples of a step, or their sum if the task's ``total`` is "sum". With a batch
fraction b each sample is taken with probability b instead, theta_mu ~ Bernoulli(b): L_B = sum theta_mu l_mu / (b P), or
sum theta_mu l_mu, which for the linear hinge is pairwise SGD of a packing. Source: arXiv:2107.09133, arXiv:2411.11834.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from packing_jax.errors import PackingError
from packing_jax.networks.minibatch import Minibatch, Sampling
from packing_jax.networks.objective import Objective
from packing_jax.networks.rules.base import (
    CHOICE,
    Moved,
    WeightRule,
    check_number,
    minibatch,
    normals,
    quiet_of,
)
from packing_jax.optimizers import maker_of
from packing_jax.random_words import chosen, words_of
from packing_jax.trees import pytree


@pytree(meta=["batch"])
@dataclass(frozen=True)
class SGD(WeightRule):
    """Stochastic gradient descent; build with :func:`sgd`."""

    optimizer: Any  #: a pytree that makes an optax transformation when called
    batch_fraction: Any  #: None, or b_f
    noise: Any  #: None, a standard deviation, or a Partial
    batch: Minibatch | None

    def _transformation(self) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(self.optimizer())

    def init(self, weights: Any) -> optax.OptState:
        """The optimizer's own state."""
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return _kept(self._transformation().init(weights))

    def step(
        self, key: Array, objective: Objective, seen: tuple[Any, Any], samples: int, weights: Any, state: Any
    ) -> Moved:
        """One optax update with the minibatch gradient."""
        some, share = None, 1.0
        if self.batch_fraction is not None:
            share = self.batch_fraction
            some = chosen(words_of(key, samples, CHOICE), share)

        def value_of(weights: Any) -> Array:
            return objective.value(weights, *seen, some, share)

        value, gradient = jax.value_and_grad(value_of)(weights)
        if isinstance(self.noise, jax.tree_util.Partial):
            gradient = jax.tree.map(jnp.add, gradient, self.noise(jax.random.wrap_key_data(key), gradient))
        elif self.noise is not None:
            gradient = jax.tree.map(lambda g, xi: g + self.noise * xi, gradient, normals(key, gradient))
        # a user's optimizer may mix dtypes and ranks
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, new = self._transformation().update(
                gradient, state, weights, value=value, grad=gradient, value_fn=value_of
            )
        moved = jax.tree.map(lambda w, u: w + u.astype(w.dtype), weights, updates)
        new = jax.tree.map(lambda was, now: now.astype(was.dtype), state, _kept(new))
        return Moved(moved, new, ~(value <= objective.largest_loss), quiet_of(objective, weights, seen))


def _kept(state: Any) -> Any:
    return jax.tree.map(jnp.asarray, state)


def sgd(
    optimizer: optax.GradientTransformation | jax.tree_util.Partial,
    batch_size: int | None = None,
    *,
    sampling: Sampling = "replacement",
    batch_fraction: ArrayLike | None = None,
    noise: ArrayLike | Callable[..., Any] | None = None,
) -> SGD:
    """SGD over weights: one optax update a step with the gradient of a minibatch. Source: arXiv:2107.09133.

    Args:
        optimizer: an ``optax.GradientTransformation``, or a ``jax.tree_util.Partial`` of the function that makes it,
            whose leaves may have a replica axis. Its update is also given ``value``, ``grad`` and ``value_fn``.
        batch_size: S, samples of a step; all of them when None.
        sampling: how they are drawn, see :data:`packing_jax.networks.minibatch.Sampling`.
        batch_fraction: b in (0, 1], one number or one per replica, instead of a batch size: each sample is taken with
            this probability.
        noise: added to the gradient: the standard deviation of a normal number for each weight, one or one per replica,
            or a ``Partial`` of a function (key, gradient) that returns a tree like the gradient.

    Raises:
        PackingError: an argument out of range, or not an optax transformation.
    """
    if batch_fraction is not None:
        if batch_size is not None:
            raise PackingError("give a batch size, or a batch fraction of all samples, and not both")
        batch_fraction = check_number("batch fraction", batch_fraction, 0.0, above=True, high=1.0)
    if noise is not None and not isinstance(noise, jax.tree_util.Partial):
        if callable(noise):
            noise = jax.tree_util.Partial(noise)
        else:
            noise = check_number("standard deviation of the noise", noise, 0.0)
    return SGD(maker_of(optimizer), batch_fraction, noise, minibatch(batch_size, sampling))


def heavy_ball(learning_rate: Any, momentum: Any = 0.0, weight_decay: Any = 0.0) -> jax.tree_util.Partial:
    r"""Heavy ball with weight decay: v' = beta v + g + lambda w; w' = w - eta v'. Source: arXiv:2107.09133.

    Args:
        learning_rate: eta > 0; this and the others are one number, or one per replica.
        momentum: beta, at least 0 and below 1, where it would never come to rest.
        weight_decay: lambda.

    Returns:
        An optimizer for :func:`sgd`.

    Raises:
        PackingError: an argument out of range.
    """
    return jax.tree_util.Partial(
        _heavy_ball,
        learning_rate=check_number("learning rate", learning_rate, 0.0, above=True),
        momentum=check_number("momentum", momentum, 0.0, high=1.0, below=True),
        weight_decay=check_number("weight decay", weight_decay),
    )


def _heavy_ball(learning_rate: Any, momentum: Any, weight_decay: Any) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum), optax.scale(-learning_rate))


def symmetric_noise(deviation: Any) -> jax.tree_util.Partial:
    """Gradient noise that is a symmetric matrix: variance a^2 off the diagonal, 2 a^2 on it. Source: arXiv:2407.16427.

    For the ``noise`` of :func:`sgd`. Weights are square matrices (..., n, n), each with its own noise.

    Args:
        deviation: a >= 0, one number, or one per replica.

    Raises:
        PackingError: a deviation out of range.
    """
    return jax.tree_util.Partial(_symmetric, deviation=check_number("standard deviation of the noise", deviation, 0.0))


def _symmetric(key: Array, gradient: Any, deviation: Any) -> Any:
    drawn = normals(jax.random.key_data(key), gradient)
    return jax.tree.map(lambda xi: deviation * (xi + jnp.swapaxes(xi, -1, -2)) / np.sqrt(2).astype(xi.dtype), drawn)
