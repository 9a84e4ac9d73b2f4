"""What observables of spheres are called with: one configuration, at one time."""

from typing import NamedTuple

from jax import Array


class Configuration(NamedTuple):
    """One system at one time, particles in the order of the neighbour rows."""

    coordinates: Array  #: (dim, N) fixed point
    images: Array  #: (dim, N) int32, boxes crossed since the start
    start: Array  #: (dim, N) fixed point, where each particle started
    rows: Array  #: (N, K) neighbour slots
    tags: Array  #: (N,) int32, which particle each is; the order changes whenever rows are rebuilt
