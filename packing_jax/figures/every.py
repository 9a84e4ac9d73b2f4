"""All figures, one process per core."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from packing_jax.figures.catalogue import FIGURES
from packing_jax.sweeps.progress import Stop

_COMMAND = (sys.executable, "-m", "packing_jax.commands.main")
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
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
    # the longest first, so that no core is left with it at the end
    minutes = {name: figure.minutes["full" if "--size=full" in words else "quick"] for name, figure in FIGURES.items()}
    waiting = queue.SimpleQueue[str]()
    for name in sorted(FIGURES, key=lambda name: -minutes[name]):
        waiting.put(name)
    shares = dict.fromkeys(FIGURES, 0.0)
    running: dict[str, subprocess.Popen[str]] = {}
    ended = queue.SimpleQueue[tuple[str, int, str]]()

    def work(core: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})  # of this thread, and so of the processes that it starts
        while stop.signal is None:
            with contextlib.suppress(queue.Empty):
                name = waiting.get_nowait()
                ended.put(_child(name, directory, words, resume, shares, running))
                continue
            return

    threads = [threading.Thread(target=work, args=(core,), daemon=True) for core in cores[: len(FIGURES)]]
    for thread in threads:
        thread.start()
    told = set[str]()
    while any(thread.is_alive() for thread in threads) or not ended.empty():
        for name, process in list(running.items()) if stop.signal is not None else ():
            if name not in told:
                told.add(name)
                process.terminate()
        with contextlib.suppress(queue.Empty):
            yield ended.get(timeout=_LOOK)
        done = sum(shares[name] * minutes[name] for name in FIGURES) / sum(minutes.values())
        on_progress(done, ", ".join(list(running)))


def _child(
    name: str,
    directory: Path,
    words: list[str],
    resume: bool,
    shares: dict[str, float],
    running: dict[str, subprocess.Popen[str]],
) -> tuple[str, int, str]:
    """One figure in a process of its own, whose progress lines are followed."""
    out = directory / name
    arguments = ["reproduce", name, *words, "--out", str(out), "--log", "json"]
    arguments += ["--resume"] if resume and out.exists() else []
    process = subprocess.Popen(
        [*_COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process, which ends them as it ends itself
        # several processes share a GPU, of which each would take three quarters
        env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
    )
    running[name] = process
    said = []
    with process:
        for line in process.stderr or ():
            try:
                shares[name] = float(json.loads(line)["share"])
            except (ValueError, KeyError, TypeError):
                said.append(line)
        printed = process.stdout.read() if process.stdout else ""
    del running[name]
    shares[name] = 1.0
    return name, process.returncode, (printed if process.returncode == 0 else "".join(said)).strip()
