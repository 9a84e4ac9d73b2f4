"""Minibatches: the samples of a step, gathered by index from data that are never copied."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.random_words import words_of

#: ``replacement``: each sample is drawn from all; ``distinct``: no sample twice in a batch; ``epochs``: each epoch is a
#: newly shuffled pass through all samples; ``order``: every epoch is a pass in the order of the data.
Sampling = Literal["replacement", "distinct", "epochs", "order"]


@dataclass(frozen=True)
class Minibatch:
    """A number of samples per step, and how they are drawn."""

    size: int
    sampling: Sampling = "replacement"

    def __post_init__(self) -> None:
        if self.sampling not in get_args(Sampling):
            raise PackingError(f"the sampling is {self.sampling!r}; it must be one of {', '.join(get_args(Sampling))}")
        if type(self.size) is not int or self.size < 1:
            raise PackingError(f"a batch of {self.size!r} samples; it must be a whole number from 1 on")

    def check(self, samples: int) -> None:
        """Refuse a batch that the data do not fill.

        Raises:
            PackingError: more samples than there are.
        """
        if self.size > samples:
            raise PackingError(f"a batch of {self.size} samples is larger than the data, which have {samples}")

    def per_epoch(self, samples: int) -> int:
        """Batches per epoch; samples left over are not seen in this epoch."""
        return samples // self.size

    def indices(self, key: Array, step: Array, order: Array | None, samples: int) -> Array:
        """The samples (S,) of one step of one replica.

        Args:
            key: (2,) key data of the replica at this step.
            step: () int32.
            order: (P,) the samples in the order of the current epoch, for ``epochs``.
            samples: P.
        """
        if self.sampling == "replacement":
            # the remainder favours early samples by a relative P/2^32
            return (words_of(key, self.size) % np.uint32(samples)).astype(jnp.int32)
        if self.sampling == "distinct":
            return jax.lax.top_k(words_of(key, samples), self.size)[1]
        first = (step % self.per_epoch(samples)) * self.size
        places = first + jnp.arange(self.size, dtype=jnp.int32)
        return places if order is None else order[places]

    def order(self, key: Array, epoch: Array, samples: int) -> Array:
        """All samples (P,) in the order of an epoch; ``key`` is the replica's own, (2,)."""
        folded = jax.random.key_data(
            jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), ~epoch.astype(jnp.uint32))
        )
        return jnp.argsort(words_of(folded, samples)).astype(jnp.int32)
