"""Rules by the names that a sweep uses: functions of keywords, see :mod:`packing_jax.networks.options`.

A batch size of 0 stands for all samples: axes hold numbers.
"""

from collections.abc import Callable, Mapping
from typing import get_args

import optax
from jax.tree_util import Partial

from packing_jax.errors import PackingError
from packing_jax.networks.minibatch import Sampling
from packing_jax.networks.rules.base import WeightRule, check_number
from packing_jax.networks.rules.bro import bro
from packing_jax.networks.rules.implicit import implicit_sgd
from packing_jax.networks.rules.langevin import langevin
from packing_jax.networks.rules.nag_gs import nag_gs
from packing_jax.networks.rules.sgd import heavy_ball, sgd


def _sgd(
    learning_rate: float = 0.1,
    batch_size: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    sampling: str = "replacement",
) -> WeightRule:
    """Stochastic gradient descent: heavy ball with weight decay.

    Args:
        learning_rate: learning rate eta.
        batch_size: samples per step, S; 0 means all.
        momentum: momentum beta of the heavy ball, at least 0 and below 1.
        weight_decay: lambda in the term lambda |w|^2/2.
        sampling: how a batch is drawn: replacement, distinct (no sample twice in a batch), epochs (shuffled passes) or
            order (the same pass again and again).
    """
    return sgd(heavy_ball(learning_rate, momentum, weight_decay), size_of(batch_size), sampling=sampling_of(sampling))


def _adam(
    learning_rate: float = 0.001, batch_size: int = 0, weight_decay: float = 0.0, sampling: str = "replacement"
) -> WeightRule:
    """Adam with decoupled weight decay.

    Args:
        learning_rate: learning rate eta.
        batch_size: samples per step, S; 0 means all.
        weight_decay: lambda, decoupled as in AdamW.
        sampling: how a batch is drawn: replacement, distinct (no sample twice in a batch), epochs (shuffled passes) or
            order (the same pass again and again).
    """
    rate = check_number("learning rate", learning_rate, 0.0, above=True)
    decay = check_number("weight decay", weight_decay)
    optimizer = Partial(optax.adamw, learning_rate=rate, weight_decay=decay)
    return sgd(optimizer, size_of(batch_size), sampling=sampling_of(sampling))


def _langevin(
    learning_rate: float = 0.001,
    temperature: float = 0.01,
    batch_size: int = 0,
    weight_decay: float = 0.0,
    sampling: str = "replacement",
) -> WeightRule:
    """Langevin dynamics at a temperature, whose noise is divided by the number of samples.

    Args:
        learning_rate: mu, the time step.
        temperature: temperature kT, at least 0.
        batch_size: samples per step, S; 0 means all.
        weight_decay: lambda in the term lambda |w|^2/2.
        sampling: how a batch is drawn: replacement, distinct (no sample twice in a batch), epochs (shuffled passes) or
            order (the same pass again and again).
    """
    return langevin(learning_rate, temperature, weight_decay, size_of(batch_size), sampling=sampling_of(sampling))


def _bro(kick: float = 0.1, batch_size: int = 0, sampling: str = "replacement") -> WeightRule:
    """Biased random organization: random kicks along the gradients of violated samples.

    Args:
        kick: largest kick eps by one sample.
        batch_size: samples per step, S; 0 means all.
        sampling: how a batch is drawn: replacement, distinct (no sample twice in a batch), epochs (shuffled passes) or
            order (the same pass again and again).
    """
    return bro(kick, size_of(batch_size), sampling=sampling_of(sampling))


def _implicit(learning_rate: float = 0.1, batch_size: int = 0, sampling: str = "replacement") -> WeightRule:
    """Implicit SGD: the gradient is taken at the end of the step.

    Args:
        learning_rate: learning rate eta.
        batch_size: samples per step, S; 0 means all.
        sampling: how a batch is drawn: replacement, distinct (no sample twice in a batch), epochs (shuffled passes) or
            order (the same pass again and again).
    """
    return implicit_sgd(learning_rate, size_of(batch_size), sampling=sampling_of(sampling))


def _nag_gs(
    learning_rate: float = 0.1, mu: float = 1.0, gamma: float = 1.0, batch_size: int = 0, sampling: str = "replacement"
) -> WeightRule:
    """NAG-GS: Nesterov's accelerated flow by Gauss-Seidel splitting.

    Args:
        learning_rate: step size a.
        mu: assumed strong convexity, at least 0.
        gamma: initial value of gamma, above 0.
        batch_size: samples per step, S; 0 means all.
        sampling: how a batch is drawn: replacement, distinct (no sample twice in a batch), epochs (shuffled passes) or
            order (the same pass again and again).
    """
    optimizer = Partial(
        nag_gs,
        learning_rate=check_number("learning rate", learning_rate, 0.0, above=True),
        mu=check_number("mu", mu, 0.0),
        gamma=check_number("gamma", gamma, 0.0, above=True),
    )
    return sgd(optimizer, size_of(batch_size), sampling=sampling_of(sampling))


def _noisy(
    learning_rate: float = 0.1,
    noise: float = 0.1,
    batch_size: int = 0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    sampling: str = "replacement",
) -> WeightRule:
    """SGD with injected noise: a normal number for each weight is added to the gradient.

    Args:
        learning_rate: learning rate eta.
        noise: standard deviation of the noise.
        batch_size: samples per step, S; 0 means all.
        momentum: momentum beta of the heavy ball, at least 0 and below 1.
        weight_decay: lambda in the term lambda |w|^2/2.
        sampling: how a batch is drawn: replacement, distinct (no sample twice in a batch), epochs (shuffled passes) or
            order (the same pass again and again).
    """
    descent = heavy_ball(learning_rate, momentum, weight_decay)
    return sgd(descent, size_of(batch_size), sampling=sampling_of(sampling), noise=noise)


def sampling_of(word: str) -> Sampling:
    """The sampling of this name.

    Raises:
        PackingError: not a name of :data:`packing_jax.networks.minibatch.Sampling`.
    """
    if word not in get_args(Sampling):
        raise PackingError(f"the sampling is {word!r}; it must be one of {', '.join(get_args(Sampling))}")
    found: Sampling = word  # type: ignore[assignment]
    return found


#: The rules of a sweep by name.
RULES: Mapping[str, Callable[..., WeightRule]] = {
    "sgd": _sgd,
    "noisy-sgd": _noisy,
    "implicit-sgd": _implicit,
    "nag-gs": _nag_gs,
    "adam": _adam,
    "langevin": _langevin,
    "bro": _bro,
}


def size_of(batch_size: int) -> int | None:
    """The batch size as rules take it: None for 0, which means all samples.

    Raises:
        PackingError: a negative size.
    """
    if batch_size < 0:
        raise PackingError(f"a batch of {batch_size} samples; it must be at least 1, or 0 for all samples")
    return batch_size or None
