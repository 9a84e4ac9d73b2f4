"""Sentences for a person: in lines as wide as the terminal, and in one line where a program or a log reads them."""

import os
import sys
import textwrap
from typing import Protocol, runtime_checkable

from packing_jax.errors import printable

_USUAL, _WIDEST = 80, 100


@runtime_checkable
class Stream(Protocol):
    """What can be asked whether it is a terminal."""

    def isatty(self) -> bool:
        """Whether it is one."""
        ...

    def fileno(self) -> int:
        """The number under which the system knows it."""
        ...


def wrapped(text: str, stream: Stream, indent: str = "") -> str:
    """A sentence as it is written to a stream; names of files are never broken.

    Args:
        text: in one line.
        stream: to which it will be written.
        indent: of all lines but the first, on a terminal.
    """
    text = printable(text)
    if not stream.isatty():
        return text
    width = min(columns(stream), _WIDEST)
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def columns(stream: Stream) -> int:
    """Of the terminal that a stream writes to; 80 where it is none or does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL
    except (OSError, ValueError):
        return _USUAL


def say(text: str) -> None:
    """Write a sentence to stderr."""
    print(wrapped(text, sys.stderr), file=sys.stderr)
