"""The one exception a user meets: a sentence that says what was wrong and what would be right."""

from typing import Any

import numpy as np


class PackingError(ValueError):
    """Bad input, or a run that cannot go on; the message is written for the person who reads it."""


def is_real(value: Any) -> bool:
    """Whether this is one real number, and no text, truth value or array."""
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in "fiu"


def in_one_line(error: BaseException) -> str:
    """An exception of a user's function, for a sentence: its type and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def printable(text: str) -> str:
    """A text in one line that no terminal obeys: escapes, control and half characters are shown as what they are.

    A store may come from elsewhere, and its words are printed.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
