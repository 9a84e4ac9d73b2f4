"""One replica of a network as an observable sees it."""

from typing import Any, NamedTuple

from jax import Array

from packing_jax.networks.data import Data
from packing_jax.networks.objective import Objective


class Learner(NamedTuple):
    """Weights, those that they are compared with, and the data; trees have the structure of the weights."""

    objective: Objective
    weights: Any
    before: Any  #: the weights of the step before
    start: Any  #: those of step 0
    marked: Any  #: (K, ...) those of the waiting times
    waits: tuple[int, ...]  #: the K waiting times
    step: Array  #: () int32
    data: Data
