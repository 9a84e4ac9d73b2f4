"""Ctrl-C and SIGTERM, from the first moment of `packing-jax` to its last.

Python's own answer to Ctrl-C is an exception at whatever line runs. In a callback of the garbage collector (jax has
one), in a destructor or in an import it is lost or becomes another error, and while XLA compiles it waits. So:

- while packages are imported a signal ends the process, see :mod:`packing_jax.commands.main`: nothing has been made;
- later it is a KeyboardInterrupt, which removes what is half written; a thread, which waits for no line of Python, ends
  the process where that took no effect within a second;
- a sweep ends after its present steps (:func:`packing_jax.sweeps.progress.stopping`). Where these do not end within a
  second and a half, a program is being compiled: then the thread ends the process, and cells go on from their last
  checkpoint;
- a second signal ends the process at once. The files of a sweep are whole at any moment.
"""

import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, Protocol, runtime_checkable

BEGAN = time.monotonic()
"""When the command began, but for Python's own start; --max-walltime counts from here."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNWINDING = 1.0  # seconds for a KeyboardInterrupt


@runtime_checkable
class Work(Protocol):
    """What is stopped by a flag and not by an exception."""

    answered: bool  #: it has seen the flag, and is putting on the disk what it has

    @property
    def patience(self) -> float:
        """Seconds within which it should have seen it."""


_asked: int | None = None  # the first signal
_work: tuple[Work, Callable[[str], str]] | None = None
_left = 0.0  # when the last work had said its last words


def unwind_on_signals() -> None:
    """The answer from here on: a KeyboardInterrupt, and the end of the process where that takes no effect."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    sys.unraisablehook = _silent(sys.unraisablehook)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextlib.contextmanager
def stopped_by_flag(work: Work, last_words: Callable[[str], str]) -> Iterator[None]:
    """For a sweep: wait for it as long as it needs, and say its last words where it cannot be waited for.

    Args:
        work: is told of a signal by somebody else.
        last_words: the last line, from the name of the signal.
    """
    global _work, _left  # noqa: PLW0603 - signals belong to the process
    _work = work, last_words
    try:
        yield
    finally:
        _work, _left = None, time.monotonic()


def asked() -> int | None:
    """The signal that came first, None as long as there was none."""
    return _asked


def end(number: int, text: str | None = "packing-jax: interrupted") -> NoReturn:
    """End the process here and now, with the exit code of a signal; None: all is said."""
    with contextlib.suppress(BaseException):
        if threading.current_thread() is threading.main_thread():
            sys.stdout.flush()
    with contextlib.suppress(OSError):
        if text is not None:
            os.write(2, f"{chr(10) if os.isatty(2) else ''}{text}\n".encode(errors="backslashreplace"))
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _asked  # noqa: PLW0603
    _asked = _asked or number
    hooks = {getattr(hook, "__code__", None) for hook in gc.callbacks}
    while frame is not None:
        if frame.f_code in hooks:
            return  # the exception would be lost here: the thread ends the process
        frame = frame.f_back
    raise KeyboardInterrupt


def _silent(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A hook for exceptions that nobody can catch, which says nothing of Ctrl-C."""

    def answer(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)

    return answer


def _watch(pipe: int) -> None:
    """Wait for signals, beside the main thread."""
    global _asked
    while (number := _next_signal(pipe, None)) is None:
        pass
    _asked, began, told = number, time.monotonic(), False
    while _next_signal(pipe, 0.05) is None:
        waited = time.monotonic() - began
        if _work is None:
            if _left > began and time.monotonic() - _left > _UNWINDING:
                end(number, None)
            if _left <= began and waited > _UNWINDING:
                end(number)
        elif not _work[0].answered and waited > _work[0].patience:
            end(number, _work[1](signal.Signals(number).name))
        elif not told and waited > _UNWINDING and os.isatty(2):
            told = True
            with contextlib.suppress(OSError):
                os.write(2, b"\npacking-jax: stopping after the current steps; a second Ctrl-C ends at once\n")
    end(number)


def _next_signal(pipe: int, seconds: float | None) -> int | None:
    """The next of the two signals, None if there is none in this time."""
    ready, _, _ = select.select([pipe], [], [], seconds)
    number = os.read(pipe, 1)[0] if ready else None
    return number if number in _SIGNALS else None
