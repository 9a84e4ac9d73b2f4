"""Published systems that run by their names, one a file: functions of numbers that make a task."""

from collections.abc import Mapping

from packing_jax.networks.tasks import perceptron, regression
from packing_jax.networks.tasks.ready import Ready

#: What `packing-jax train NAME` and ``Training("NAME")`` run.
TASKS: Mapping[str, Ready] = {
    "perceptron": perceptron.READY,
    "regression": regression.READY,
}

__all__ = ["TASKS", "Ready"]
