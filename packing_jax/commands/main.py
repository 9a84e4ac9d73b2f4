"""The command line's entry point.

Exit codes: 0 done, every cell is in the store; 1 a check failed (doctor, rerun, status); 2 bad input, nothing to report
or a full disk, in one sentence; 3 stopped by --max-walltime with cells left; 4 done, but some cells failed; 5 a
search spent its budget before it reached its tolerance; 130 Ctrl-C; 143 SIGTERM. The last line
says how many cells are done, failed and missing.

Signals have an answer before anything that takes time is imported, even the standard library's `signal`, see
:mod:`packing_jax.commands.interrupts`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # no stubs
import io
import os
import sys

from packing_jax.versions import __version__

_INTERRUPTED = "packing-jax: interrupted"


def main(args: list[str] | None = None) -> int:
    """Entry point; returns the exit code.

    Args:
        args: the words after `packing-jax`. None: those of this process, whose signals are then answered here as well.
    """
    alone = args is None
    if alone:
        for number in (_signal.SIGINT, _signal.SIGTERM):
            if _signal.getsignal(number) != _signal.SIG_IGN:  # as in a shell's background
                _signal.signal(number, _end)
    code = _run(sys.argv[1:] if args is None else args, alone)
    if alone:
        for number in (_signal.SIGINT, _signal.SIGTERM):
            _signal.signal(number, _signal.SIG_IGN)  # all is done, and Python has a moment left to go
    return code


def _end(number: int, _: object) -> None:
    """The answer to a signal while packages are imported, when nothing has been made."""
    os.write(2, f"{_INTERRUPTED}\n".encode())
    os._exit(128 + number)


def _run(words: list[str], alone: bool) -> int:
    """Do what the words say."""
    for stream in (sys.stdout, sys.stderr):  # a name on the disk, or a letter, that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if words == ["--version"]:
        print(f"packing-jax {__version__}")
        return 0
    import shlex

    from packing_jax.commands import interrupts
    from packing_jax.commands.lines import say
    from packing_jax.commands.machine import keep_compiled
    from packing_jax.commands.parser import parsed
    from packing_jax.errors import PackingError

    if alone:
        interrupts.unwind_on_signals()
    try:
        command = parsed(words)
        keep_compiled()
        code = int(command.execute(shlex.join(["packing-jax", *words])))
        sys.stdout.flush()
        return code
    except BaseException as error:  # what an interrupted import or callback raises may be anything
        if (number := interrupts.asked()) is not None:
            interrupts.end(number)
        if isinstance(error, PackingError):
            say(f"packing-jax: {error}")
            return 2
        if isinstance(error, MemoryError):
            say("packing-jax: there is not enough memory for this")
            return 2
        if isinstance(error, BrokenPipeError):  # the reader went away, as in `packing-jax report DIR | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        if isinstance(error, KeyboardInterrupt):
            say(_INTERRUPTED)
            return 130
        raise


if __name__ == "__main__":
    sys.exit(main())
