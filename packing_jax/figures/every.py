"""All figures, each in a process of its own, as many at a time as there are cores."""

import contextlib
import importlib
import json
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from packing_jax.figures.catalogue import FIGURES
from packing_jax.sweeps.progress import Stop

_COMMAND = ("packing_jax.commands.main", "main")
# Imported once, for all: they take as long as a figure at smoke. None starts a backend of jax, so the processes that
# are copies of this state begin as if they had imported them.
_IMPORTED = [
    "packing_jax.commands.main",
    "packing_jax.commands.reproduce",
    "packing_jax.figures.session",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "xarray",
]
_LOOK = 0.2  # seconds between two looks at whether to stop


def reproduce_every(
    directory: Path, words: list[str], resume: bool, on_progress: Callable[[float, str], None], stop: Stop
) -> Iterator[tuple[str, int, str]]:
    """Run `packing-jax reproduce NAME` for every figure, as many at a time as there are cores, each on one of them.

    Args:
        directory: each figure has a folder of its name in it.
        words: of the command line, for size and seed.
        resume: go on with the figures whose folder is there.
        on_progress: called with the share of the work done and what is under way.
        stop: ends all after their present chunks.

    Yields:
        name, exit code and what was printed, as they finish: stdout where the code is 0, otherwise stderr.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
    # the longest first, so that no core is left with it at the end
    minutes = {name: figure.minutes["full" if "--size=full" in words else "quick"] for name, figure in FIGURES.items()}
    waiting = queue.SimpleQueue[str]()
    for name in sorted(FIGURES, key=lambda name: -minutes[name]):
        waiting.put(name)
    shares = dict.fromkeys(FIGURES, 0.0)
    running: dict[str, ForkServerProcess] = {}
    ended = queue.SimpleQueue[tuple[str, int, str]]()

    def work(core: int) -> None:
        while stop.signal is None:
            with contextlib.suppress(queue.Empty):
                name = waiting.get_nowait()
                out = directory / name
                asked = ["reproduce", name, *words, "--out", str(out), "--log", "json"]
                asked += ["--resume"] if resume and out.exists() else []
                ended.put((name, *_followed(name, core, asked, shares, running)))
                continue
            return

    threads = [threading.Thread(target=work, args=(core,), daemon=True) for core in cores[: len(FIGURES)]]
    for thread in threads:
        thread.start()
    told = set[str]()
    while any(thread.is_alive() for thread in threads) or not ended.empty():
        asked = stop.signal
        for name, process in list(running.items()):
            if asked is not None and name not in told and process.pid is not None:
                told.add(name)
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(process.pid, asked)
        stop.answered = asked is not None  # from here on it is for them to end
        with contextlib.suppress(queue.Empty):
            yield ended.get(timeout=_LOOK)
        done = sum(shares[name] * minutes[name] for name in FIGURES) / sum(minutes.values())
        on_progress(done, ", ".join(list(running)))


def _followed(
    name: str, core: int, words: list[str], shares: dict[str, float], running: dict[str, ForkServerProcess]
) -> tuple[int, str]:
    """One figure in a process of its own, whose progress lines are followed: its exit code and what it printed."""
    context = multiprocessing.get_context("forkserver")
    (printed, out), (lines, err) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(_COMMAND, words, core, out, err), daemon=True)
    process.start()
    running[name] = process
    out.close()
    err.close()
    said = []
    with os.fdopen(os.dup(lines.fileno()), errors="replace") as stream:
        for line in stream:
            try:
                shares[name] = float(json.loads(line)["share"])
            except (ValueError, KeyError, TypeError):
                said.append(line)
    with os.fdopen(os.dup(printed.fileno()), errors="replace") as stream:
        text = stream.read()
    process.join()
    del running[name]
    shares[name] = 1.0
    code = process.exitcode or 0
    return code, (text if code == 0 else "".join(said)).strip()


def _child(command: tuple[str, str], words: list[str], core: int, out: Connection, err: Connection) -> None:
    """What such a process does: it is the command line, with these words."""
    os.setsid()  # Ctrl-C reaches the process above, which ends this one as it ends itself
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several share a GPU
    for end, number in ((out, 1), (err, 2)):
        os.dup2(end.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["packing-jax", *words]
    module, function = command
    sys.exit(getattr(importlib.import_module(module), function)())
