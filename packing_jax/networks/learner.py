"""One replica of a network as an observable sees it."""

from typing import Any, NamedTuple

from jax import Array

from packing_jax.networks.data import Data
from packing_jax.networks.objective import Objective


class Learner(NamedTuple):
    """The weights, the earlier weights that they are compared with, and the data; all trees are like the weights."""

    objective: Objective
    weights: Any
    before: Any  #: weights one step earlier
    start: Any  #: weights at step 0
    marked: Any  #: (K, ...) weights at the waiting times
    waits: tuple[int, ...]  #: the K waiting times
    step: Array  #: () int32
    data: Data
