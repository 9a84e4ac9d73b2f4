"""The command line: the table of commands, and the entry point.

Exit codes: 0 done, every cell is in the store; 1 a check failed (doctor, rerun); 2 bad input or a full disk, in one
sentence; 3 stopped by --max-walltime with cells left; 4 done, but some cells failed; 130 Ctrl-C; 143 SIGTERM. The last
line says how many cells are done, failed and missing.
"""

import io
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

from packing_jax import __version__
from packing_jax.commands.bench import BenchCommand
from packing_jax.commands.critical import CriticalCommand
from packing_jax.commands.doctor import DoctorCommand
from packing_jax.commands.movie import MovieCommand
from packing_jax.commands.report import ReportCommand
from packing_jax.commands.reproduce import ReproduceCommand
from packing_jax.commands.rerun import RerunCommand
from packing_jax.commands.run import RunCommand
from packing_jax.commands.status import StatusCommand
from packing_jax.commands.sweep import SweepCommand
from packing_jax.commands.train import TrainCommand, train_command
from packing_jax.errors import PackingError, printable

#: Each is a dataclass of its options, with a method ``execute`` that returns the exit code.
COMMANDS: dict[str, Callable[..., Any]] = {
    "run": RunCommand,
    "sweep": SweepCommand,
    "train": TrainCommand,
    "critical": CriticalCommand,
    "reproduce": ReproduceCommand,
    "status": StatusCommand,
    "rerun": RerunCommand,
    "report": ReportCommand,
    "doctor": DoctorCommand,
    "movie": MovieCommand,
    "bench": BenchCommand,
}


def _keep_compiled() -> None:
    """Keep compiled programs for the next process in the user's cache directory, unless jax was told of another."""
    # jax before 0.12 prints lines of errors from C++ whenever it reads what it kept for a CPU
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and jax.__version_info__ >= (0, 12):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "packing_jax"))


def _parsed(words: list[str]) -> Any:
    if words[:1] == ["train"]:
        return train_command(words[1:])
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="packing-jax",
        description="Packed spheres and networks under random organization and SGD.\n\n"
        "packing-jax --version says which version this is.",
        args=words,
    )


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = sys.argv[1:] if args is None else args
    for stream in (sys.stdout, sys.stderr):  # a name on the disk, or a letter, that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if words == ["--version"]:
        print(f"packing-jax {__version__}")
        return 0
    try:
        command = _parsed(words)
        _keep_compiled()
        code = int(command.execute(shlex.join(["packing-jax", *words])))
        sys.stdout.flush()
        return code
    except PackingError as error:
        print(f"packing-jax: {printable(str(error))}", file=sys.stderr)
        return 2
    except MemoryError:
        print("packing-jax: there is not enough memory for this", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader went away, as in `packing-jax report DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("packing-jax: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
