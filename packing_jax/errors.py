"""The one exception a user meets, a sentence that says what was wrong and what would be right; and its parts."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_LONGEST = 80  # characters of a value in a sentence


class PackingError(ValueError):
    """Bad input, or a run that cannot go on; the message is written for the person who reads it."""


def shown(value: Any) -> str:
    """A value for a sentence, in one line and not at length."""
    try:
        text = " ".join((repr(value) if isinstance(value, str) else str(value)).split())
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, a deep nest, an object of somebody's
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def real_numbers(value: Any) -> np.ndarray | None:
    """The value as an array; None where it is no array of real numbers, but text, truth values, complex, traced."""
    try:
        array = np.asarray(value)
    except Exception:  # noqa: BLE001 - rows of different lengths, a deep nest, a traced value
        return None
    return array if array.dtype.kind in "fiu" else None


def is_real(value: Any) -> bool:
    """Whether this is one real number, and no text, truth value or array."""
    array = real_numbers(value)
    return array is not None and array.ndim == 0


def is_whole(value: Any) -> bool:
    """Whether this is one whole number of Python's or numpy's, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def fits(values: Any, dtype: Any) -> bool:
    """Whether positive numbers stay finite and positive in a precision, in which devices take the smallest for 0."""
    limits = np.finfo(dtype)
    return bool(np.all((np.asarray(values) >= limits.tiny) & (np.asarray(values) <= limits.max)))


def did_you_mean(word: str, known: Iterable[str], before: str = "") -> str:
    """The end of a sentence about a misspelt name, ``did you mean ...?``; empty where no known name is near."""
    near = difflib.get_close_matches(word, [*known], 1)
    return f"did you mean {before}{near[0]}?" if near else ""


def in_one_line(error: BaseException) -> str:
    """An exception of a user's function, for a sentence: its type and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextmanager
def calling(what: str, right: str) -> Iterator[None]:
    """Call something of a user's: what it raises becomes a sentence that names it, with the original behind it.

    Args:
        what: the user's object, such as "the observable far".
        right: what it must be, the end of the sentence.
    """
    try:
        yield
    except PackingError:
        raise
    except Exception as error:
        raise PackingError(f"{what} fails: {in_one_line(error)}; it must be {right}") from error


def printable(text: str) -> str:
    """A text in one line that no terminal obeys: escapes, control and half characters are shown as what they are.

    A store may come from elsewhere, and its words are printed.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
