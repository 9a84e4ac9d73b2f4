"""Published systems that run by their names, one a file: functions of numbers that make a task."""

from collections.abc import Mapping

from packing_jax.networks.tasks import manifolds, parity, perceptron, random_labels, regression, teacher_student
from packing_jax.networks.tasks.ready import Ready

#: What `packing-jax train NAME` and ``Training(task="NAME")`` run.
TASKS: Mapping[str, Ready] = {
    "perceptron": perceptron.READY,
    "random-labels": random_labels.READY,
    "parity": parity.READY,
    "teacher-student": teacher_student.READY,
    "regression": regression.READY,
    "manifolds": manifolds.READY,
}

__all__ = ["TASKS", "Ready"]
