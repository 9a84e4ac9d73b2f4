"""What makes a task one that can be run by its name: a function of keyword numbers, and what to sweep by default.

The function's signature and docstring are its options: a whole number or a float as default is an axis, which a sweep
takes several values of; a text, or None, is a setting, which a sweep has one of; the section Args says what each is.
Users' own tasks are such functions too.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from packing_jax.errors import PackingError, in_one_line
from packing_jax.networks.task import Task


class Option(NamedTuple):
    """A keyword argument of a function that makes a task, a rule or an optimizer."""

    default: Any
    help: str  #: of the docstring, empty if it says nothing
    number: type | None  #: int or float: an axis; None: a setting, a text or None


@dataclass(frozen=True)
class Ready:
    """A task of a name.

    Args:
        make: a function of keywords, all with defaults, that makes the :class:`Task`; see the module.
        sweep: what is swept when nothing else is said: values of its axes and of the rule's, tuples by their names, and
            ``rule``, ``steps``, ``replicas`` of :class:`packing_jax.sweeps.networks.Training`.
        control: the axis that plays the part of the packing fraction, if there is one: replicas are absorbed below a
            threshold of it and stay active above.
    """

    make: Callable[..., Task]
    sweep: Mapping[str, Any] = field(default_factory=dict)
    control: str | None = None

    @property
    def options(self) -> dict[str, Option]:
        """The task's own options by their names."""
        return options_of(self.make, "task")

    @property
    def claim(self) -> str:
        """What the task is, the first line of its docstring."""
        return (inspect.getdoc(self.make) or "a task of your own").splitlines()[0]


def options_of(make: Callable[..., Any], what: str) -> dict[str, Option]:
    """The keyword arguments of a function, with their defaults, and help from its docstring.

    Args:
        make: the function.
        what: what it makes, for a sentence.

    Raises:
        PackingError: no function, or an argument that could not be an option.
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
    """Name -> text of the section Args."""
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
    """A sentence; but a symbol (N, kappa, P/N) stays as it is."""
    first = text.split(" ", maxsplit=1)[0].rstrip(",:;")
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() and len(first) > 2 else text
