r"""Views of a sample: noisy, shifted or cropped copies, drawn inside the program as functions of a key alone.

A change is a function (key, image) -> image; :class:`Views` makes several views of one sample, each by all of its
changes in turn. A task draws them anew at each step (``Task(views=...)``), with a key of the replica, the step and the
sample, or once (:func:`drawn_once`), as data of each replica. Any function (key, sample) can stand in their place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError, is_real
from packing_jax.networks.data import Data
from packing_jax.random_words import normal, uniform, words_of

Change = Callable[[Array, Array], Array]  #: (key, image) -> image of the same shape


@dataclass(frozen=True)
class Views:
    """Several views of one sample: (key, sample (...)) -> (count, ...).

    Args:
        count: m, the number of views.
        changes: made to each view one after the other, with keys of their own.

    Raises:
        PackingError: less than one view.
    """

    count: int
    changes: tuple[Change, ...]

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 1:
            raise PackingError(f"{self.count!r} views of a sample; there must be a whole number of them, from 1 on")

    def __call__(self, key: Array, sample: Array) -> Array:  # noqa: D102
        def one(key: Array) -> Array:
            seen = sample
            for number, change in enumerate(self.changes):
                seen = change(jax.random.fold_in(key, number), seen)
            return seen

        return jax.vmap(one)(jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(self.count)))


@dataclass(frozen=True)
class Noise:
    """x + s xi, xi ~ N(0, 1) for each pixel.

    Args:
        deviation: s >= 0, in the unit of the pixels.

    Raises:
        PackingError: a deviation that is no number from 0 on.
    """

    deviation: float

    def __post_init__(self) -> None:
        if not (is_real(self.deviation) and 0 <= self.deviation < np.inf):
            raise PackingError(f"noise of standard deviation {self.deviation!r}; it must be a number from 0 on")

    def __call__(self, key: Array, image: Array) -> Array:  # noqa: D102
        words = words_of(jax.random.key_data(key), image.size)
        return image + self.deviation * normal(words, np.dtype(image.dtype)).reshape(image.shape)


@dataclass(frozen=True)
class Shift:
    """The image moved by whole pixels, from -most to most along each of two axes, each as likely; what comes in is 0.

    Args:
        most: the largest move.
        shape: (rows, columns) of an image, which may be given flattened.

    Raises:
        PackingError: a move that is not a whole number from 0 to the size of the image.
    """

    most: int
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if type(self.most) is not int or not 0 <= self.most < min(self.shape):
            raise PackingError(
                f"a shift by up to {self.most!r} pixels of an image of {self.shape}; it must be a whole number from 0 "
                "on, smaller than the image"
            )

    def __call__(self, key: Array, image: Array) -> Array:  # noqa: D102
        draws = words_of(jax.random.key_data(key), 2) % np.uint32(2 * self.most + 1)
        move = draws.astype(jnp.int32) - self.most
        rows, columns = (
            (jnp.arange(n)[:, None] - by == jnp.arange(n)[None]).astype(image.dtype)
            for n, by in zip(self.shape, move, strict=True)
        )
        return (rows @ image.reshape(self.shape) @ columns.T).reshape(image.shape)


@dataclass(frozen=True)
class Crop:
    """A part of the image at a random place, enlarged to the whole by linear interpolation.

    Args:
        least: the smallest side of a part, as a share of the image's; sides are uniform from it to 1.
        shape: (rows, columns) of an image, which may be given flattened.

    Raises:
        PackingError: a side that is not above 0 and at most 1.
    """

    least: float
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if not (is_real(self.least) and 0 < self.least <= 1):
            raise PackingError(f"a crop to {self.least!r} of an image's side; it must be above 0 and at most 1")

    def __call__(self, key: Array, image: Array) -> Array:  # noqa: D102
        side, *corner = uniform(words_of(jax.random.key_data(key), 3), np.dtype(image.dtype))
        side = self.least + (1 - self.least) * side
        rows, columns = (
            _interpolating(n, (1 - side) * place * (n - 1), side) for n, place in zip(self.shape, corner, strict=True)
        )
        return (rows @ image.reshape(self.shape) @ columns.T).reshape(image.shape)


def _interpolating(count: int, first: Array, step: Array) -> Array:
    """The matrix (count, count) whose row i reads at first + i step between two pixels."""
    pixels = jnp.arange(count, dtype=first.dtype)
    at = first + step * pixels
    return jnp.maximum(1 - jnp.abs(at[:, None] - pixels[None]), 0)


def drawn_once(views: Callable[[Array, Any], Any], data: Data) -> Callable[[Array], Data]:
    """For ``data_from`` of a task: views of all samples that never change, of each replica its own.

    Args:
        views: (key, sample) -> views of it.
        data: the samples; test samples are left out.

    Returns:
        key -> :class:`Data` whose inputs are the views (P, ...).
    """

    def drawn(key: Array) -> Data:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(data.targets)))
        inputs = jnp.asarray(data.inputs, jnp.result_type(float))
        return Data(jax.vmap(views)(keys, inputs), jnp.asarray(data.targets))

    return jax.jit(drawn)
