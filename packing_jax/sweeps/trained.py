"""Weights that a sweep of networks ended with: what later runs start from, and what a user gets back as a pytree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.manifest import Entry, Name, digest_of
from packing_jax.sweeps.network_parts import Tasks
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.schema import stored_kind


class Trained:
    """A store of networks, read only."""

    def __init__(self, directory: Path | str) -> None:
        """Look at what it says of itself.

        Raises:
            PackingError: no store there, or one of something else.
        """
        self.directory = Path(directory)
        self._reader = Reader(self.directory)
        self.attributes, self.cells = self._reader.attributes, self._reader.cells
        if (kind := stored_kind(self.attributes)) != "networks":
            raise PackingError(f"{self.directory} holds a sweep of {kind}; only one of networks has weights")
        self._entries = self._reader.manifest.entries

    @property
    def digest(self) -> str:
        """What changes with any of its finished cells."""
        ended = sorted((list(name), entry.checksum) for name, entry in self._entries.items() if entry.complete)
        return digest_of([self.attributes["configuration"], ended])

    def name(self, values: Mapping[str, float | int]) -> Name:
        """The cell of the same values; an axis that has one value here has this for all.

        Raises:
            PackingError: there is none.
        """
        found = []
        for axis, known in self.cells.axes.items():
            if len(known) == 1 and axis != "replica":
                found.append(known[0])
            elif axis in values and values[axis] in known:
                found.append(values[axis])
            else:
                asked = f"no {axis} {values[axis]:g}" if axis in values else f"several values of {axis}"
                shown = ", ".join(f"{value:g}" for value in known[:6]) + (", ..." if len(known) > 6 else "")
                raise PackingError(f"{self.directory} has {asked}; it has {shown}".replace("_", " "))
        return tuple(found)

    def entry(self, values: Mapping[str, float | int]) -> Entry:
        """How the cell of the same values ended.

        Raises:
            PackingError: there is none, it is not finished, or it has no weights to go on from.
        """
        name = self.name(values)
        entry = self._entries.get(name)
        if entry is None or entry.state not in ("active", "absorbed"):
            state = "not finished" if entry is None or not entry.complete else entry.state
            raise PackingError(
                f"the cell at {self.cells.described(name)} of {self.directory} is {state}: it has no weights"
            )
        return entry

    def weights(self, values: Mapping[str, float | int], step: int | None = None) -> np.ndarray:
        """The weights (W,) of the cell of the same values, at its end or at a step that was recorded.

        Raises:
            PackingError: there are none.
        """
        self.entry(values)
        place = self.cells.places()[self.name(values)]
        if step is None:
            row = self._reader.read("weights", place)
        else:
            times = self._reader.layout.times
            if "snapshots" not in self._reader.arrays:
                raise PackingError(f"{self.directory} has no weights of steps before the last: record snapshots")
            if step not in times:
                near = times[np.argmin(np.abs(times - step))]
                raise PackingError(f"{self.directory} has no record of step {step}; the nearest is of step {near}")
            rows = self._reader.read("snapshots", place)
            row = None if rows is None else rows[int(np.searchsorted(times, step))]
        if row is None:
            raise PackingError(
                f"the cell at {self.cells.described(self.name(values))} of {self.directory} has no arrays"
            )
        return row[: len(row) - int(np.argmax(np.isfinite(row[::-1])))]  # blank beyond a smaller network


def weights_of(directory: Path | str, task: Any = None, step: int | None = None, **cell: Any) -> Any:
    """Weights of a sweep of networks as the pytree that its task starts from.

    Example:
        >>> layers = weights_of("there", learning_rate=0.1, replica=0)

    Args:
        directory: of the sweep.
        task: the function that makes it, of a sweep of a task of your own.
        step: a recorded step, where snapshots were recorded; None: the last.
        cell: values of its axes; those that have one value may be left out. Without ``replica``, the leaves have an
            axis of all replicas before their own.

    Raises:
        PackingError: no such cell, or one without weights.
    """
    there = Trained(directory)
    attributes = there.attributes
    if unknown := [name for name in cell if name not in there.cells.axes]:
        raise PackingError(f"{directory} has no axis {unknown[0]}; it has {', '.join(there.cells.axes)}")
    name = there.name({"replica": 0, **cell})
    for axis, value in zip(there.cells.axes, name, strict=True):
        if axis in cell and cell[axis] != value:
            raise PackingError(f"{directory} has no {axis} {cell[axis]:g}; it has {value:g}")
    values = dict(zip(there.cells.axes, name, strict=True))
    if task is None and attributes["task"] == "own":
        raise PackingError(
            f"{directory} holds a sweep of a task of your own: give the function that makes it, task=..."
        )
    tasks = Tasks(attributes["task"] if task is None else task, attributes["settings"], attributes["precision"])
    made = tasks.at(values)
    if "replica" in cell:
        return made.tree(there.weights(values, step))
    rows = [there.weights({**values, "replica": replica}, step) for replica in there.cells.axes["replica"]]
    return made.tree(np.stack(rows))
