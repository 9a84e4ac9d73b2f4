r"""Manifold packing (CLAMP): the overlap energy of spheres whose centres and radii a network learns.

The views of a sample, under noise or crops, are a cloud of points on a sphere, its manifold. Manifolds that overlap
repel one another like the spheres of a packing, and a batch in which none does is absorbing: the loss is then ln 1e-6.

    c_i = mean_k z_ik,   Tr_i = sum_k |z_ik - c_i|^2/(m - 1),   r_i = r_s sqrt(Tr_i/min(D, m) + 1e-12),
    d_ij = |c_i - c_j|,   s_ij = min(r_i + r_j + 1e-6, 1.5),
    L = ln [ 1/2 sum_{i != j} (1 - d_ij/s_ij)^p 1(1e-3 < d_ij < s_ij) + w_0 sum_i r_i + 1e-6 ],

with z the embeddings less their mean over all, at length 1. (1 - d/s)^p/p is the overlap energy, here the hinge of
:mod:`packing_jax.networks.losses` at the overlap 1 - d/s. Source: arXiv:2506.13717.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.losses import Hinge

ABSORBED = float(np.log(1e-6))  #: the loss of a batch without an overlap, at w_0 = 0

_TOUCHING = 1e-6  # added to r_i + r_j
_LARGEST = 1.5  # of s_ij
_NEAREST = 1e-3  # closer centres do not repel
_SMALLEST = 1e-12  # under the root of the radius
_FLOOR = 1e-6  # under the logarithm


class Manifolds(NamedTuple):
    """Clouds of views as spheres."""

    centres: Array  #: (n, D)
    radii: Array  #: (n,)


def manifolds(embeddings: Array, size: float = 7.0) -> Manifolds:
    """Centres and radii of the views' clouds.

    Args:
        embeddings: (n, m, D) outputs of a network for the m >= 2 views of each of n samples.
        size: r_s, the radius in units of the cloud's standard deviation.

    Raises:
        PackingError: embeddings of another shape, or a single view.
    """
    if embeddings.ndim != 3 or embeddings.shape[1] < 2:
        raise PackingError(
            f"the embeddings have shape {embeddings.shape}; it must be (samples, views, outputs), with two views "
            "or more"
        )
    _, views, dim = embeddings.shape
    centred = embeddings - embeddings.mean(axis=(0, 1), keepdims=True)
    z = centred / jnp.sqrt((centred * centred).sum(axis=2, keepdims=True))
    centres = z.mean(axis=1)
    away = z - centres[:, None]
    spread = (away * away).sum(axis=(1, 2)) / (views - 1)
    return Manifolds(centres, size * jnp.sqrt(spread / min(dim, views) + _SMALLEST))


def contact(radii: Array) -> Array:
    """s, the distance of centres at which spheres touch, for the sum of their radii."""
    return jnp.minimum(radii + _TOUCHING, _LARGEST)


def overlaps(spheres: Manifolds) -> Array:
    """1 - d_ij/s_ij of all pairs, (n, n): above 0 where i and j repel, 0 for i = j and for coincident centres."""
    c, r = spheres
    apart = c[:, None] - c[None, :]
    squared = (apart * apart).sum(axis=2)
    counts = squared > _NEAREST**2
    d = jnp.sqrt(jnp.where(counts, squared, 1.0))  # a root whose derivative is finite for i = j too
    s = contact(r[:, None] + r[None, :])
    return jnp.where(counts, 1 - d / s, 0.0)


def clamp_loss(embeddings: Array, size: float = 7.0, exponent: int = 2, radius_weight: float = 0.0) -> Array:
    """The CLAMP loss of a batch, (); see the equations of this module. Source: arXiv:2506.13717.

    Args:
        embeddings: (n, m, D) outputs of a network for the m >= 2 views of each of n samples.
        size: r_s; the defaults are those of the source for CIFAR-10.
        exponent: p, 1 or 2.
        radius_weight: w_0.

    Raises:
        PackingError: embeddings of another shape, a single view, or another exponent.
    """
    spheres = manifolds(embeddings, size)
    energy = Hinge(kappa=0.0, exponent=exponent)
    pairs = energy(overlaps(spheres), -jnp.ones((), embeddings.dtype))  # of the overlap 0 - (-1)(1 - d/s)
    return jnp.log(exponent * pairs.sum() / 2 + radius_weight * spheres.radii.sum() + _FLOOR)


@dataclass(frozen=True)
class Clamp:
    """The loss of a task whose outputs are the embeddings (n, m, D) of the views of n samples, its total "whole".

    A sample is violated if its manifold overlaps that of another: the activity is the share of these.

    Args:
        size: r_s; the defaults are those of the source for CIFAR-10.
        exponent: p, 1 or 2.
        radius_weight: w_0.
    """

    size: float = 7.0
    exponent: int = 2
    radius_weight: float = 0.0

    def __post_init__(self) -> None:
        Hinge(0.0, self.exponent)  # refuses another exponent

    def __call__(self, outputs: Array, targets: Any) -> Array:  # noqa: D102
        return clamp_loss(outputs, self.size, self.exponent, self.radius_weight)

    def overlaps(self, outputs: Array, targets: Any) -> Array:
        """The largest overlap of each manifold with another, (n,): 0 where there is none."""
        return jnp.maximum(overlaps(manifolds(outputs, self.size)).max(axis=1), 0.0)
