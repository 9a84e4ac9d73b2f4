"""What a person wants to know of a sweep under way, and when it has to stop."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.schema import SCRATCH, Cells

_WRITE_EVERY = 2.0  # seconds
_PATIENCE = 1.5  # seconds; a chunk takes half of one, unless a program is compiled
_PATIENCE_TERM = 20.0  # after SIGTERM: queue systems give half a minute


class Transition(NamedTuple):
    """Where most replicas turn from absorbed to active: between ``low`` and ``high`` along an axis, such as phi."""

    axis: str
    at: dict[str, float | int]  #: values of the other axes
    low: float
    high: float


class SweepProgress(NamedTuple):
    """Where a sweep stands after a chunk."""

    done: int  #: replicas finished, those of earlier sessions included
    total: int
    failed: int  #: of them, diverged or beyond memory
    absorbed: int  #: of them
    active: int  #: of them, still active at their last step
    running: int  #: under way
    share: float  #: of the work, 0 to 1; absorbed replicas count as done
    unit: str  #: what a replica has many of: particle, weight
    unit_steps: int  #: moves times these, made in this session
    speed: float  #: of them per second of this session
    seconds_left: float | None  #: None as long as nothing has moved
    transitions: tuple[Transition, ...]  #: those in sight so far, one for each combination of the other axes

    def plain(self) -> dict[str, Any]:
        """The same as JSON keeps it."""
        return {**self._asdict(), "transitions": [one._asdict() for one in self.transitions]}


def find_transitions(
    cells: Cells, axis: str | None, absorbed: np.ndarray, active: np.ndarray
) -> tuple[Transition, ...]:
    """Neighbouring values of an axis between which half of the replicas known so far turn from absorbed to active.

    Args:
        cells: of the sweep.
        axis: along which to look; None: there is no such axis, and no transition.
        absorbed: for each cell, True where absorbed.
        active: for each cell, True where under way or still active at the last step.
    """
    if axis not in cells.axes:
        return ()
    along = cells.dims.index(axis)
    values = np.array(cells.axes[axis])
    others = {name: number for name, number in cells.axes.items() if name not in (axis, "replica")}
    order = np.argsort(values)
    gone, going = (np.moveaxis(flags, along, 0)[order].sum(axis=-1) for flags in (absorbed, active))
    found = []
    shape = gone.shape[1:]
    gone, going = gone.reshape(len(values), -1), going.reshape(len(values), -1)
    for number in np.flatnonzero(gone.any(axis=0) & going.any(axis=0)):
        here, there, place = gone[:, number], going[:, number], np.unravel_index(number, shape)
        seen = np.flatnonzero(here + there > 0)
        below = seen[here[seen] > there[seen]]
        above = seen[seen > below[-1]] if len(below) else []
        if len(above):
            at = {name: numbers[i] for (name, numbers), i in zip(others.items(), place, strict=True)}
            low, high = (float(values[order][i]) for i in (below[-1], above[0]))
            found.append(Transition(axis, at, low, high))
    return tuple(found)


def write_progress(folder: Folder, progress: SweepProgress) -> None:
    """Leave word for `packing-jax status` in DIR/progress.json."""
    value = {**progress.plain(), "time": time.time()}
    # worth nothing after a power cut, so not flushed
    text = json.dumps(value) + "\n"
    folder.write({"progress.json": text.encode()}, drafts=SCRATCH, flushed=False)


def read_progress(directory: Path) -> dict[str, Any] | None:
    """What the last or present session left there, None if nothing."""
    try:
        value = json.loads(Folder(directory).read("progress.json", 2**24))
        numbers = ("done", "total", "running", "share", "speed", "time")
        if not all(_is_finite(value[name]) for name in numbers):
            raise ValueError
        return {
            **{name: value[name] for name in numbers},
            "unit": str(value["unit"])[:40],
            "seconds_left": value["seconds_left"] if _is_finite(value["seconds_left"]) else None,
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and -1e15 < value < 1e15


class EveryTwoSeconds:
    """Says when it is time for something that is done at most every two seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time; if so, not again for two seconds."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _WRITE_EVERY
        return True


# --- stopping -------------------------------------------------------------------------------------------------


class Stop:
    """Why a sweep should end after the present chunk: a signal, or too little time left."""

    def __init__(self, max_seconds: float | None = None, since: float | None = None) -> None:
        self.signal: int | None = None
        self.answered = False  #: whether a reason to stop was given, and what is unfinished is being written
        self._began = time.monotonic() if since is None else since
        self._deadline = None if max_seconds is None else self._began + max_seconds
        self._last = time.monotonic()
        self._longest = 0.0
        self._chunks = (0.0,) * 4  # seconds that the last ones took; up to three in a row may have compiled

    def took(self, seconds: float) -> None:
        """Another process says how long its longest chunk was."""
        self._longest = max(self._longest, seconds)

    @property
    def patience(self) -> float:
        """Seconds after a signal within which the present chunk should have ended, if nothing is compiled."""
        least = _PATIENCE_TERM if self.signal == signal.SIGTERM else _PATIENCE
        return max(least, 2.0 * min(self._chunks))

    def reason(self) -> str | None:
        """``SIGINT``, ``SIGTERM``, ``walltime``, or None to go on; asked once after every chunk."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._chunks = (*self._chunks[1:], now - self._last)
        self._last = now
        why = self._reason(now)
        self.answered = why is not None
        return why

    def _reason(self, now: float) -> str | None:
        if self.signal is not None:
            return signal.Signals(self.signal).name
        # A chunk may be half as long again as the longest so far, compilation included, and its end has to be written.
        if self._deadline is not None and now + 1.5 * self._longest + 1.0 > self._deadline:
            return "walltime"
        return None


@contextlib.contextmanager
def stopping(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the sweep after the present chunk; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return

    before: dict[int, Any] = {}

    def remember(number: int, _: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_IGN, None):  # a shell's background jobs ignore Ctrl-C, and so do we
            before[number] = signal.signal(number, remember)
    try:
        yield
    finally:
        for ours, handler in before.items():
            signal.signal(ours, handler)


def seconds(text: str) -> float:
    """A time limit as queue systems write it: seconds, MM:SS, HH:MM:SS or D-HH:MM:SS.

    Raises:
        PackingError: anything else.
    """
    days, dash, clock = text.rpartition("-")
    try:
        parts = [float(part) for part in clock.split(":")]
        total = int(days if dash else 0) * 86400 + sum(part * 60.0**i for i, part in enumerate(reversed(parts)))
        if len(parts) > 3 or not (np.isfinite(total) and total > 0) or min(parts) < 0 or (dash and len(parts) < 3):
            raise ValueError
    except ValueError as error:
        raise PackingError(
            f"--max-walltime is {text!r}; it must be seconds, MM:SS, HH:MM:SS or D-HH:MM:SS, such as 23:30:00"
        ) from error
    return total
