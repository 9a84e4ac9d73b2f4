"""Options of tasks and rules, read from the signature and the docstring of the function that makes one.

A keyword with a number as default is an axis, which may have several values in a sweep; one with a text or None as
default is a setting, which has one. The section Args describes each.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from packing_jax.errors import PackingError, in_one_line


class Option(NamedTuple):
    """A keyword argument of a function that makes a task, a rule or an optimizer."""

    default: Any
    help: str  #: from the docstring, or empty
    number: type | None  #: int or float: an axis; None: a setting, a text or None


def options_of(make: Callable[..., Any], what: str) -> dict[str, Option]:
    """The keyword arguments of a function, with their defaults, and help from its docstring.

    Args:
        make: the function.
        what: what it makes, for error messages.

    Raises:
        PackingError: not a function, or an argument that cannot be an option.
    """
    name = getattr(make, "__name__", type(make).__name__)
    if not callable(make):
        raise PackingError(f"the {what} is of type {name}; it must be a function of keyword numbers that makes one")
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError) as error:
        raise PackingError(f"the arguments of the {what} {name} cannot be read: {in_one_line(error)}") from error
    helps = _helps(inspect.getdoc(make) or "")
    found = {}
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY) or one.default is one.empty:
            raise PackingError(
                f"the {what} {name} has the argument {one.name} without a default; each must be a keyword with one, "
                f"as in def {name}({one.name}: float = 1.0)"
            )
        number = type(one.default) if type(one.default) in (int, float) else None
        if number is None and not (one.default is None or isinstance(one.default, str)):
            raise PackingError(
                f"the {what} {name} has the default {one.name} = {one.default!r}; it must be a number, a text or None"
            )
        found[one.name] = Option(one.default, helps.get(one.name, ""), number)
    return found


def _helps(docstring: str) -> dict[str, str]:
    """Texts of the section Args by name."""
    found: dict[str, str] = {}
    lines = iter(docstring.splitlines())
    if not any(line.strip() == "Args:" for line in lines):
        return found
    indent, name = 0, ""
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if not line.strip() or depth == 0:
            break
        indent = indent or depth
        begins = re.match(r"(\w+)(?: \(.*?\))?: (.*)", line.strip()) if depth == indent else None
        if begins:
            name, text = begins.groups()
            found[name] = _capital(text)
        elif name:
            found[name] += " " + line.strip()
    return found


def _capital(text: str) -> str:
    """A sentence; but a symbol (N, eta, P/N) stays as it is."""
    first = text.split(" ", maxsplit=1)[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() and len(first) > 2 else text
