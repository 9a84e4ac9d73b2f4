"""Positions on the host for structural analysis: checks, wrapping into the box, and scipy's k-d tree."""

import numpy as np
import scipy
from jax import Array
from numpy.typing import NDArray

from packing_jax.errors import PackingError, real_numbers, shown
from packing_jax.spheres.geometry import check_dim, check_side, minimum_image

Float = NDArray[np.float64]


def wrapped(positions: np.ndarray | Array, box: float) -> Float:
    """Positions (..., N, dim) as float64 in [0, box).

    Raises:
        PackingError: not an array of finite positions, or a box side that is not positive.
    """
    array = real_numbers(positions)
    if array is None:
        raise PackingError(f"the positions are {shown(positions)}; they must be an array of real numbers")
    array = array.astype(np.float64)
    if array.ndim < 2 or array.shape[-2] < 1:
        raise PackingError(f"positions have shape {array.shape}; they must end in particles by dimension")
    check_dim(array.shape[-1])
    check_side(box)
    if not np.all(np.isfinite(array)):
        raise PackingError(f"{int(np.sum(~np.isfinite(array)))} coordinates are NaN or infinite; all must be finite")
    array = np.mod(array, box)
    return np.where(array >= box, 0.0, array)  # a tiny negative coordinate rounds up to a full side


def one_configuration(positions: np.ndarray | Array, box: float) -> Float:
    """:func:`wrapped` for exactly one configuration, (N, dim)."""
    array = wrapped(positions, box)
    if array.ndim != 2:
        raise PackingError(f"positions have shape {array.shape}; this takes one configuration, (particles, dimension)")
    return array


def nearest(positions: Float, box: float, count: int) -> tuple[NDArray[np.intp], Float]:
    """Indices (N, count) of each particle's nearest others, and the vectors (N, count, dim) to them."""
    if not 1 <= count < len(positions):
        raise PackingError(f"{count} neighbours of each of {len(positions)} particles; there must be 1 to N - 1")
    _, found = scipy.spatial.KDTree(positions, boxsize=box).query(positions, k=count + 1)
    found = np.asarray(found)
    # drop the particle itself; among coincident ones it may be missing, and then drop the farthest
    other = found != np.arange(len(positions))[:, None]
    other[other.all(axis=1), -1] = False
    index = found[other].reshape(len(positions), count)
    return index, minimum_image(positions[index] - positions[:, None], box)
