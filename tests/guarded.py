"""The command line in a process of its own, with a limit on memory and time: what a store from elsewhere is tried with.

A server imports everything once and forks for each trial, so that a trial costs what the commands cost. Drawing is left
out: what is tried is what is read and what is written.
"""

import contextlib
import functools
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path


class Guarded:
    """The server, seen from a test."""

    def __init__(self):
        source = Path(__file__).parents[1]
        path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        )

    def __call__(self, *commands, memory=2**29, seconds=20):
        """Run commands one after the other; for each its exit code, what it printed, bytes taken and seconds.

        The code is a text where it did not end by itself: traceback, signal 9, signal 14.
        """
        self._process.stdin.write(json.dumps([commands, memory, seconds]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of trials ended with {self._process.wait(30)}")
        return [Ran(**one) for one in json.loads(answer)]

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Ran:
    def __init__(self, code, out, err, taken):
        self.code, self.out, self.err, self.taken = code, out, err, taken

    def __repr__(self):
        return f"code {self.code}, {self.taken / 2**20:.0f} MiB\n{self.out[-2000:]}\n{self.err[-3000:]}"


# --- the server -----------------------------------------------------------------------------------------------


def _prepare():
    warnings.filterwarnings("ignore", "os.fork")
    import xarray  # noqa: F401

    from packing_jax.commands import main, movie, parser, phi_c_plots, plots, run_report, summary  # noqa: F401
    from packing_jax.sweeps import kinds, lazy, rerun, run  # noqa: F401

    class Undrawn:
        def __init__(self, *_, **__):
            pass

        def savefig(self, file, **_):
            file.write(b"a figure")

    plots.activity_vs_time = phi_c_plots.activity_vs_phi = phi_c_plots.phi_c_vs_kick = Undrawn

    def packing(positions, diameters, title=""):
        plots._configuration(positions, diameters)
        return Undrawn()

    def gif(out, canvas, frames, fps):
        out.write(repr([frame.particles.position.sum() for frame in frames]).encode())

    summary.estimate_phi_c = functools.partial(summary.estimate_phi_c, draws=20)
    plots.packing, movie._write_gif, movie.FramePicture = packing, gif, Undrawn
    run_report.against_time = Undrawn
    return main.main


def _fields():
    with Path("/proc/self/status").open() as file:
        return {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}


def _try(main, commands, memory, seconds, tell):
    """In the child: limits, and one line for each command."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    before = _fields()
    if memory:
        limit = before["VmData"] * 1024 + memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for words in commands:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            try:
                code = main(words)
            except SystemExit as error:
                code = error.code
            except BaseException:  # noqa: BLE001 - whatever comes out of the command line is what is looked for
                code = "traceback"
                traceback.print_exc(file=streams[1])
        texts = []
        for stream in streams:
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8", "replace"))
        taken = (_fields()["VmHWM"] - before["VmRSS"]) * 1024
        os.write(tell, json.dumps([code, *texts, taken]).encode() + b"\n")


def _serve():
    answer, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    main = _prepare()
    for line in sys.stdin:
        commands, memory, seconds = json.loads(line)
        listen, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(listen)
            try:
                _try(main, commands, memory, seconds, tell)
            except BaseException:  # noqa: BLE001 - a child must not go on as the server
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(tell)
        data = b""
        while True:
            if not select.select([listen], [], [], seconds + 10)[0]:
                os.kill(child, signal.SIGKILL)
            if not (part := os.read(listen, 2**16)):
                break
            data += part
        os.close(listen)
        _, status = os.waitpid(child, 0)
        found = [dict(zip(("code", "out", "err", "taken"), json.loads(one), strict=True)) for one in data.splitlines()]
        if len(found) < len(commands):
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "gone"
            found.append({"code": how, "out": "", "err": "", "taken": 0})
        answer.write(json.dumps(found) + "\n")
        answer.flush()


if __name__ == "__main__":
    _serve()
