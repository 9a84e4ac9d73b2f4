"""Arrays of a store that stay on the disk until xarray asks for a part of them."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core.indexing import IndexingSupport, explicit_indexing_adapter

from packing_jax.sweeps.schema import Index
from packing_jax.untrusted import check_memory


class OnDisk(BackendArray):
    """An array whose chunks are one place along its first axes and all of the others."""

    def __init__(
        self,
        read: Callable[[Index], np.ndarray | None],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        axes: int,
    ) -> None:
        """Say what it is.

        Args:
            read: the chunk at a place; None where nothing was measured.
            shape: of the array.
            dtype: of its numbers.
            axes: how many there are of which a chunk has one place.
        """
        self.shape, self.dtype = shape, dtype
        self._read, self._axes = read, axes

    def __getitem__(self, key: Any) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self._part)

    def _part(self, key: tuple[Any, ...]) -> np.ndarray:
        """Whole numbers, slices and lists of numbers, each along its own axis."""
        places = [np.arange(n)[one] for n, one in zip(self.shape, key[: self._axes], strict=False)]
        rest = key[self._axes :]
        inside = _outer(np.broadcast_to(np.empty((), self.dtype), self.shape[self._axes :]), rest).shape
        shape = (*(np.size(one) for one in places), *inside)
        check_memory(int(np.prod(shape, dtype=float)) * self.dtype.itemsize)
        part = np.full(shape, np.nan if self.dtype.kind == "f" else 0, self.dtype)
        everywhere = (enumerate(np.atleast_1d(one).tolist()) for one in places)
        for found in itertools.product(*everywhere):
            values = self._read(tuple(place for _, place in found))
            if values is not None:
                part[tuple(at for at, _ in found)] = _outer(values, rest)
        return np.asarray(part[tuple(slice(None) if np.ndim(one) else 0 for one in places)])


def _outer(values: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
    for axis in reversed(range(len(key))):  # the last first: a whole number takes its axis away
        values = values[(slice(None),) * axis + (key[axis],)]
    return values
