"""What makes a task one that can be run by its name: a function of keyword numbers, and what to sweep by default."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from packing_jax.networks.options import Option, options_of
from packing_jax.networks.task import Task


@dataclass(frozen=True)
class Ready:
    """A task of a name.

    Args:
        make: a function of keywords, all with defaults, that makes the :class:`Task`; see
            :mod:`packing_jax.networks.options`.
        sweep: what is swept when nothing else is said: values of its axes and of the rule's, tuples by their names, and
            ``rule``, ``steps``, ``replicas`` of :class:`packing_jax.sweeps.networks.Training`.
        control: the axis that plays the part of the packing fraction, if there is one: replicas are absorbed below a
            threshold of it and stay active above.
        size: the axis that is the number of weights N, where ``control`` is a number of samples over N: with both,
            `packing-jax critical --task` finds the threshold.
    """

    make: Callable[..., Task]
    sweep: Mapping[str, Any] = field(default_factory=dict)
    control: str | None = None
    size: str | None = None

    @property
    def options(self) -> dict[str, Option]:
        """The task's own options by their names."""
        return options_of(self.make, "task")

    @property
    def claim(self) -> str:
        """What the task is, the first line of its docstring."""
        return (inspect.getdoc(self.make) or "a task of your own").splitlines()[0]
