r"""Caps on the surface of a sphere: a packing whose contacts are the samples of a task.

    |c_i| = 1,   Delta_ij = 1 - |c_i - c_j|/s_ij,   s_ij = min(r_i + r_j + 1e-6, 1.5)

The weights are the centres, which a projection keeps on the unit sphere in D dimensions, and the radii, which do not
move. Each pair is a sample, and the loss a hinge of its overlap, so that ``bro`` is pairwise biased random organization
and ``sgd`` with a batch fraction pairwise SGD. The overlaps are those of CLAMP (arXiv:2506.13717) for centres and radii
that no network makes. Source of the rules: arXiv:2411.11834.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge
from packing_jax.networks.manifold_packing import contact
from packing_jax.networks.task import Task


def caps(count: int = 10, dimension: int = 3, radius: float = 0.3, exponent: int = 1) -> Task:
    """Caps of one radius at random places of the unit sphere; other centres and radii are a start of one's own.

    Args:
        count: n, the number of caps.
        dimension: D, so that the surface has D - 1 dimensions.
        radius: of each cap, a distance through space and not along the surface.
        exponent: of the overlap energy, 1 linear or 2 harmonic.

    Raises:
        PackingError: fewer than two caps or dimensions.
    """
    if count < 2 or dimension < 2:
        raise PackingError(f"{count} caps in {dimension} dimensions; there must be at least two of both")
    one, other = np.triu_indices(count, 1)
    eye = np.eye(count)
    pairs = eye[one] - eye[other]  # +1 and -1 at the two caps of a pair: differences of centres without a gather

    def start(key: Array) -> dict[str, Array]:
        centres = jax.random.normal(key, (count, dimension))
        return on_surface({"centres": centres, "radii": jnp.full(count, radius)})

    return Task(
        jax.jit(start),
        separations,
        Hinge(1.0, exponent),
        data=Data(pairs, np.ones(len(pairs))),
        total="sum",
        project=on_surface,
    )


def separations(weights: dict[str, Any], pairs: Array) -> Array:
    """|c_i - c_j|/s_ij of each pair (P, n), (P,)."""
    apart = pairs @ weights["centres"]
    squared = (apart * apart).sum(axis=1)
    d = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    return d / contact(jnp.abs(pairs) @ jax.lax.stop_gradient(weights["radii"]))


def on_surface(weights: dict[str, Array]) -> dict[str, Array]:
    """The same directions of the centres, at length 1."""
    c = weights["centres"]
    return {**weights, "centres": c / jnp.sqrt((c * c).sum(axis=1, keepdims=True))}
