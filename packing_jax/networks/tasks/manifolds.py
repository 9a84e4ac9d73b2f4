r"""Manifold packing: a network whose views of images are spheres that repel one another until none overlaps.

The views of an image go through an encoder and a projector, and the loss is that of CLAMP
(:mod:`packing_jax.networks.manifold_packing`) of all images of a step together. The activity is the share of images
whose manifold overlaps another. With views that are drawn once a network without an overlap is at rest; with views
that are drawn anew at each step there is no absorbing state. Source: arXiv:2506.13717.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import jax
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data, split
from packing_jax.networks.files import load
from packing_jax.networks.manifold_packing import Clamp
from packing_jax.networks.models import MLP
from packing_jax.networks.task import Task
from packing_jax.networks.tasks.ready import Ready
from packing_jax.networks.views import Noise, Shift, Views, drawn_once


@dataclass(frozen=True)
class Embedding:
    """An encoder and, on top of it, a projector: the loss sees the projector's outputs, a read-out the encoder's.

    Args:
        encoder: anything with ``start(key)`` and ``apply(weights, inputs)``, such as
            :class:`packing_jax.networks.models.MLP` or a :class:`~packing_jax.networks.models.Model` of functions.
        projector: the same, whose inputs are the encoder's outputs; None: the encoder alone.
    """

    encoder: Any
    projector: Any = None

    def start(self, key: Array) -> dict[str, Any]:
        """Weights of the encoder and of the projector."""
        if self.projector is None:
            return {"encoder": self.encoder.start(key)}
        first, second = jax.random.split(key)
        return {"encoder": self.encoder.start(first), "projector": self.projector.start(second)}

    def features(self, weights: dict[str, Any], inputs: Array) -> Array:
        """Outputs (S, k) of the encoder for samples (S, ...): what a read-out takes."""
        found: Array = self.encoder.apply(weights["encoder"], inputs)
        return found

    def outputs(self, weights: dict[str, Any], inputs: Array) -> Array:
        """Embeddings (S, D) of samples (S, ...)."""
        inner = self.features(weights, inputs)
        return inner if self.projector is None else self.projector.apply(weights["projector"], inner)

    def apply(self, weights: dict[str, Any], views: Array) -> Array:
        """Embeddings (S, m, D) of m views (S, m, ...) of each sample."""
        found = self.outputs(weights, views.reshape(-1, *views.shape[2:]))
        return found.reshape(*views.shape[:2], -1)


def packed(
    embedding: Embedding,
    data: Data,
    views: Callable[[Array, Any], Any],
    *,
    anew: bool = True,
    loss: Callable[[Any, Any], Array] | None = None,
    **more: Any,
) -> Task:
    """The task of an encoder and data of one's own.

    Args:
        embedding: the encoder and its projector.
        data: the samples; their targets are not used by the loss.
        views: (key, sample) -> (m, ...) views of it, such as :class:`packing_jax.networks.views.Views`.
        anew: whether views are drawn anew at each step, or once, for each replica its own.
        loss: of the embeddings (S, m, D) of all samples together; None: :class:`Clamp`.
        **more: further fields of the :class:`Task`.
    """
    given: dict[str, Any] = {"data": data, "views": views} if anew else {"data_from": drawn_once(views, data)}
    start = jax.jit(embedding.start)  # one small program in the place of one for each layer's draws
    given |= {"total": "whole", **more}
    return Task(start, embedding.apply, Clamp() if loss is None else loss, **given)


def manifolds(
    samples: int = 20,
    outputs: int = 8,
    width: int = 64,
    number: int = 8,
    noise: float = 0.1,
    shift: int = 0,
    radius: float = 7.0,
    exponent: int = 2,
    views: str = "once",
    data: str = "digits",
) -> Task:
    """Manifold packing (CLAMP): views of images as spheres that a network shrinks and moves apart.

    Args:
        samples: P, the number of images, each of which is one manifold.
        outputs: D, the dimension of the embedding.
        width: units of the encoder's hidden layer and of its outputs.
        number: m, views of each image.
        noise: standard deviation of the noise of a view; pixels are from 0 to 1.
        shift: pixels by which a view is moved at most.
        radius: r_s, the radius of a manifold in standard deviations of its views.
        exponent: exponent of the overlap energy, 1 linear or 2 harmonic.
        views: once, for which a network without overlaps is at rest, or anew, at each step.
        data: digits, mnist-5k, or a file or folder of your own, as packing_jax.networks.files.load reads it.

    Raises:
        PackingError: another word for the views, or images that are not squares.
    """
    if views not in ("once", "anew"):
        raise PackingError(f"the views are {views!r}; they must be once or anew")
    images = _images(data, samples)
    features = images.inputs.shape[1]
    side = isqrt(features)
    if side * side != features:
        raise PackingError(f"images of {features} pixels; they must be squares, to be shifted")
    embedding = Embedding(
        MLP((features, width, width), biases=True, drawn="he"), MLP((width, outputs), biases=True, drawn="he")
    )
    several = Views(number, (Shift(shift, (side, side)), Noise(noise)))
    return packed(embedding, images, several, anew=views == "anew", loss=Clamp(radius, exponent))


@functools.lru_cache(maxsize=64)
def _images(source: str, samples: int) -> Data:
    """Images with pixels from 0 to 1; of more samples the first are the same."""
    pool = load(source)
    return split(Data(pool.inputs / np.max(pool.inputs), pool.targets), samples)


READY = Ready(
    manifolds,
    {"rule": "sgd", "learning_rate": 0.1, "samples": (10, 20, 40, 80), "steps": 1000, "replicas": 4},
    control="samples",
)
