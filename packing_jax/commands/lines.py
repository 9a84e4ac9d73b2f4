"""Sentences for a person: in lines as wide as the terminal, and in one line where a program or a log reads them."""

import shutil
import sys
import textwrap
from typing import TextIO

from packing_jax.errors import printable

_WIDEST = 100


def wrapped(text: str, stream: TextIO, indent: str = "") -> str:
    """A sentence as it is written to a stream; names of files are never broken.

    Args:
        text: in one line.
        stream: to which it will be written.
        indent: of all lines but the first, on a terminal.
    """
    text = printable(text)
    if not stream.isatty():
        return text
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def say(text: str) -> None:
    """Write a sentence to stderr."""
    print(wrapped(text, sys.stderr), file=sys.stderr)
