"""Instances at kappa = 0, each decided by linear programming and run by BRO."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import linprog

from packing_jax import simulate
from packing_jax.networks.rules import bro
from packing_jax.networks.tasks.perceptron import perceptron

_AT_ONCE = 250  # instances whose patterns are in memory


class Decided(NamedTuple):
    """Of each instance."""

    separable: np.ndarray  #: (R,) bool, by linear programming
    absorbed_at: np.ndarray  #: (R,) -1 where never


def separable(patterns: np.ndarray) -> bool:
    """Whether some w has xi.w >= 1 for all patterns (P, N): that is xi.w > 0, on the sphere too."""
    count, size = patterns.shape
    found = linprog(np.zeros(size), A_ub=-patterns, b_ub=-np.ones(count), bounds=(None, None), method="highs")
    if found.status not in (0, 2):
        raise RuntimeError(found.message)
    return found.status == 0


def decided(weights: int, patterns: int, instances: Sequence[int], kick: float, steps: int) -> Decided:
    """The instances of these seeds."""
    task = perceptron(weights, patterns / weights, 0.0)
    parts = []
    for first in range(0, len(instances), _AT_ONCE):
        seeds = np.asarray(instances[first : first + _AT_ONCE])
        keys = jax.vmap(jax.random.key)(seeds)
        drawn = replace(task, disorder=keys)
        inputs = np.asarray(drawn.prepare(bro(kick), keys, None)[1].system.inputs, float)
        run = simulate(drawn, bro(kick), steps, keys, times=np.array([0, steps]))
        parts.append((np.array([separable(one) for one in inputs]), run.absorbed_at))
    return Decided(*(np.concatenate(part) for part in zip(*parts, strict=True)))
