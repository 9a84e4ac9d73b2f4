"""What a published figure is here: what it claims, how finely that is decided, what is measured, how it is drawn.

A file of this folder has one :class:`Figure`. Its numbers come from closed forms and from sweeps that the package's own
driver runs, and every row of its table is held against a reference: an exact value, a published one, a derived one, or
another number of the same run (consistency).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.progress import Stop, SweepProgress
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spec import Spec

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray as xr

Size = Literal["smoke", "quick", "full"]  #: seconds, to see that it runs; minutes; as long as it takes
Kind = Literal["exact", "published", "derived", "consistency"]
Agrees = Literal["yes", "no", "undecided"]


class Row(NamedTuple):
    """One line of a figure's table."""

    quantity: str
    reference: float
    reference_error: float  #: one standard deviation of the reference, 0 where it is exact
    kind: Kind  #: where the reference is from
    value: float  #: ours; NaN where it could not be measured
    stderr: float  #: its standard error, 0 where nothing was drawn


class Measured(NamedTuple):
    """What a figure found."""

    rows: list[Row]
    curves: Any  #: what :attr:`Figure.draw` draws, in the figure's own form


class Interrupted(Exception):  # noqa: N818
    """A signal came, and what is done is on the disk."""


@dataclass(frozen=True)
class Run:
    """How large, where, and who is told: what a figure is measured with."""

    size: Size
    seed: int
    directory: Path
    command: str = ""
    on_progress: Callable[[float, str], None] = lambda *_: None  #: share of the work from 0 to 1, what is under way
    stop: Stop = field(default_factory=Stop)

    def pick(self, smoke: Any, quick: Any, full: Any) -> Any:
        """The one of three values that goes with the size."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.size]

    def reached(self, share: float, what: str) -> None:
        """Say how far the figure is.

        Raises:
            Interrupted: a signal asks for the end.
        """
        self.on_progress(share, what)
        if (reason := self.stop.reason()) is not None:
            raise Interrupted(reason)

    def sweep(self, spec: Spec, label: str, begin: float = 0.0, end: float = 1.0) -> "xr.Dataset":
        """The results of a sweep, run or gone on with in the folder ``label``; its share of the work is [begin, end].

        Raises:
            Interrupted: a signal asked for the end.
        """

        def told(now: SweepProgress) -> None:
            self.on_progress(begin + (end - begin) * now.share, f"{label}: {now.done}/{now.total} done")

        store = self.directory / label / "results.zarr"
        outcome = run_sweep(
            spec, store.parent, resume=store.exists(), on_progress=told, command=self.command, stop=self.stop
        )
        if outcome.stopped is not None:
            raise Interrupted(outcome.stopped)
        return Reader(store.parent).results().load()

    def sweeps(self, specs: Mapping[str, Spec], begin: float = 0.0, end: float = 1.0) -> "dict[str, xr.Dataset]":
        """The results of several sweeps by their labels, one after the other, of equal shares of the work.

        Raises:
            Interrupted: a signal asked for the end.
        """
        edges = np.linspace(begin, end, len(specs) + 1).tolist()
        return {
            label: self.sweep(spec, label, *between)
            for (label, spec), between in zip(specs.items(), pairwise(edges), strict=True)
        }

    def kept(self, label: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Numbers that are computed once and lie in ``label``.json: a part of a figure that is no sweep.

        Args:
            label: of the file.
            compute: the numbers by name, as JSON keeps them.

        Raises:
            PackingError: the file is damaged.
        """
        folder, name = Folder(self.directory), f"{label}.json"
        if not (self.directory / name).exists():
            folder.write({name: json.dumps(compute()).encode()})
        try:
            found = json.loads(folder.read(name, 2**20))
        except ValueError as error:
            raise PackingError(f"{self.directory / name} is damaged: remove it and go on with --resume") from error
        if not isinstance(found, dict):
            raise PackingError(f"{self.directory / name} is damaged: remove it and go on with --resume")
        return found


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A published figure.

    Raises:
        PackingError: two rows of one name, or one without a resolution, when measured.
    """

    name: str  #: as `packing-jax reproduce` has it
    source: str  #: arXiv number, and which figure or claim of it
    claim: str  #: what it shows, in one sentence
    meaning: str  #: what it means for packing, in one or two
    minutes: Mapping[Size, float | int]  #: at quick and full, on two CPU cores
    #: quantity -> the largest standard error at which agreement is decided, stated before anything is measured
    resolution: Mapping[str, float]
    measure: Callable[[Run], Measured]
    draw: Callable[["matplotlib.figure.Figure", Any], None]  #: onto an empty figure, from the curves
    #: frames of movie.gif one after the other, onto one figure: yields after each how many are left
    film: Callable[["matplotlib.figure.Figure", Any], Iterator[int]] | None = None

    def measured(self, run: Run) -> Measured:
        """The figure's rows and curves."""
        found = self.measure(run)
        names = [row.quantity for row in found.rows]
        if len(set(names)) < len(names) or not set(names) <= set(self.resolution):
            raise PackingError(f"the figure {self.name} measures {names}, but decides {list(self.resolution)}")
        return found

    def agrees(self, row: Row, size: Size) -> Agrees | None:
        """The verdict on a row; None at smoke size, which is too small to say anything."""
        return None if size == "smoke" else verdict(row, self.resolution[row.quantity])


def verdict(row: Row, resolution: float) -> Agrees:
    """Whether a value agrees with its reference.

    yes where |value - reference| <= 2 sqrt(stderr^2 + reference_error^2) and stderr <= resolution; within but coarser:
    undecided; otherwise no. What could not be measured is undecided.
    """
    if not np.isfinite([row.value, row.stderr]).all():
        return "undecided"
    if abs(row.value - row.reference) > 2 * np.hypot(row.stderr, row.reference_error):
        return "no"
    return "yes" if row.stderr <= resolution else "undecided"
