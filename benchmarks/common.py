"""Each contender is a process of its own, and they take turns.

So a crash of one does not touch the others, each has the environment it needs (threads, 64-bit types), and peak memory
is measured for each alone. While one is timed, all others wait for a message.
"""

import importlib
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

#: Every contender's environment: do not take a GPU's whole memory, several processes share it.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Start(NamedTuple):
    """The configuration that every contender starts from."""

    positions: np.ndarray  #: (N, dim) float32, in box sides, in cell order
    sizes: np.ndarray | None  #: (N,) relative diameters, None for equal spheres
    diameter: float  #: mean, in box sides, as packing_jax rounds it to float32


class Failed(Exception):  # noqa: N818  # reads as what happened
    """A contender did not do what it was asked; the message says why."""


class Absent(Failed):
    """A contender's package is not installed."""


# --- in the child ---------------------------------------------------------------------------------------------


class Channel:
    """A contender's end of the line."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ready(self, meta: dict[str, Any]) -> None:
        """Say that everything is warm."""
        self._connection.send(("ready", meta))

    def order(self, rate: float | None) -> float | None:
        """Give the answer to the last order, if there was one, and wait for the next: seconds, or None to end."""
        if rate is not None:
            self._connection.send(("answer", rate))
        return self._connection.recv()

    def serve(self, advance: Callable[[int], Any], particles: int, meta: dict[str, Any]) -> None:
        """Time ``advance(steps)`` until told to end."""
        rate = pilot(advance, particles, 0.2)
        self.ready(meta)
        seconds = self.order(None)
        while seconds is not None:
            rate = timed(advance, particles, max(1, round(rate * seconds / particles)))
            seconds = self.order(rate)


def timed(advance: Callable[[int], Any], particles: int, steps: int) -> float:
    """Particle-steps per second of so many steps."""
    clock = time.perf_counter()
    advance(steps)
    return particles * steps / (time.perf_counter() - clock)


def pilot(advance: Callable[[int], Any], particles: int, seconds: float) -> float:
    """Rate of about so many seconds, after a first step that may compile."""
    advance(1)
    steps = 1
    while True:
        rate = timed(advance, particles, steps)
        if particles * steps / rate > 0.5 * seconds:
            return rate
        steps = max(2 * steps, min(8 * steps, round(rate * seconds / particles)))


def _child(connection: Connection, module: str, function: str, arguments: tuple[Any, ...]) -> None:
    try:
        result = getattr(importlib.import_module(module), function)(Channel(connection), *arguments)
    except ModuleNotFoundError as error:
        connection.send(("absent", f"{error.name} is not installed"))
    except Exception as error:  # noqa: BLE001  # whatever it is, the others go on
        traceback.print_exc(file=sys.stderr)
        first_line = str(error).partition("\n")[0]
        connection.send(("failed", f"{type(error).__name__}: {first_line}"))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        connection.send(("ended", (result, peak)))


# --- in the parent --------------------------------------------------------------------------------------------


class Worker:
    """The parent's end of a contender."""

    def __init__(self, module: str, function: str, *arguments: Any, env: dict[str, str] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        kept = dict(os.environ)
        os.environ.update({**ENVIRONMENT, **(env or {})})
        try:
            self._process = context.Process(target=_child, args=(theirs, module, function, arguments), daemon=True)
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(kept)
        theirs.close()

    def _receive(self, wanted: str, patience: float) -> Any:
        if not self._connection.poll(patience):
            self.kill()
            raise Failed(f"no answer within {patience:.0f} s")
        try:
            kind, content = self._connection.recv()
        except EOFError:
            self._process.join()
            raise Failed(f"its process died with exit code {self._process.exitcode}") from None
        if kind == "absent":
            raise Absent(content)
        if kind != wanted:
            raise Failed(str(content))
        return content

    def ready(self, patience: float = 600.0) -> dict[str, Any]:
        """Wait until it is warm."""
        return self._receive("ready", patience)

    def measure(self, seconds: float, patience: float = 300.0) -> float:
        """One timed round."""
        self._connection.send(seconds)
        return self._receive("answer", patience)

    def end(self, patience: float = 600.0) -> tuple[Any, int]:
        """Its function's result and its peak resident memory in bytes."""
        outcome = self._receive("ended", patience)
        self._process.join()
        return outcome

    def stop(self) -> tuple[Any, int]:
        """End its rounds; as :meth:`end`."""
        self._connection.send(None)
        return self.end()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.join()


def call(module: str, function: str, *arguments: Any, env: dict[str, str] | None = None) -> Any:
    """The result of one function call in a process of its own."""
    worker = Worker(module, function, *arguments, env=env)
    try:
        return worker.end()[0]
    finally:
        worker.kill()


def rounds(workers: dict[Any, Worker], count: int, seconds: float) -> Iterator[tuple[Any, float | Failed]]:
    """So many rounds of all workers in turn, A, B, ..., A, B, ...; a worker that fails is left out from there on."""
    alive = dict(workers)
    for _ in range(count):
        for name, worker in list(alive.items()):
            try:
                yield name, worker.measure(seconds)
            except (Failed, OSError) as error:
                del alive[name]
                yield name, error if isinstance(error, Failed) else Failed(str(error))
