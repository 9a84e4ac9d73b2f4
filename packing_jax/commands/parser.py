"""From the words of a command line to a command: the table of commands, their help, and what is said of wrong words."""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import os
import textwrap
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tyro

from packing_jax.commands.bench import BenchCommand
from packing_jax.commands.critical import CriticalCommand
from packing_jax.commands.critical_task import task_search
from packing_jax.commands.doctor import DoctorCommand
from packing_jax.commands.movie import MovieCommand
from packing_jax.commands.options import is_number
from packing_jax.commands.report import ReportCommand
from packing_jax.commands.reproduce import ReproduceCommand
from packing_jax.commands.rerun import RerunCommand
from packing_jax.commands.run import RunCommand
from packing_jax.commands.status import StatusCommand
from packing_jax.commands.sweep import SweepCommand
from packing_jax.commands.train import Asked, TrainCommand, train_command
from packing_jax.errors import PackingError, did_you_mean

#: Each is a dataclass of its options, with a method ``execute`` that returns the exit code.
COMMANDS: dict[str, Any] = {
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

_WIDTH = 79
_ONE_VALUE = ("phi", "kick", "batch-fraction")  # of run; sweep takes several


def parsed(words: Sequence[str]) -> Any:
    """The command that the words name, with its options.

    Raises:
        PackingError: words that are wrong; where they are those of another command or misspelt, what was meant.
        SystemExit: help was asked for, or tyro refuses a value.
    """
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        raise SystemExit(0)
    name, *rest = words
    if name not in COMMANDS:
        near = did_you_mean(name, [*COMMANDS, "--help", "--version"])
        raise PackingError(f"there is no command {name!r}: {near or f'there are {_listed(COMMANDS)}'}")
    if name == "train":
        asked = train_command(rest)
    else:
        asked = Asked(COMMANDS[name], f"packing-jax {name}", rest, inspect.cleandoc(COMMANDS[name].__doc__))
        if name == "critical":
            asked = task_search(rest) or asked
    _check(asked, name)
    # tyro puts an empty line before each item, and so would this
    return tyro.cli(
        _with_help(asked.kind), prog=asked.prog, args=asked.words, description=asked.text.replace("\n\n-", "\n-")
    )


def overview() -> str:
    """What `packing-jax --help` says: the commands."""
    width = max(map(len, COMMANDS))
    lines = ["usage: packing-jax COMMAND ...", ""]
    lines += ["Simulate spheres and networks under random organization and SGD.", ""]
    for name, kind in COMMANDS.items():
        first = f"  {name:<{width}}  "
        claim = inspect.cleandoc(kind.__doc__).partition("\n\n")[0]
        lines += textwrap.wrap(claim, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
    last = (
        "packing-jax COMMAND --help lists the options of a command. packing-jax --version prints the version.",
        "Compiled programs are kept in ~/.cache/packing_jax, so that the next run of the same kind begins at once. "
        "You can delete them at any time. JAX_COMPILATION_CACHE_DIR chooses another folder. packing-jax doctor shows "
        "the folder and its size.",
    )
    for text in last:
        lines += ["", *textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]
    return "\n".join(lines)


# --- options --------------------------------------------------------------------------------------------------


class _Option(NamedTuple):
    """What of an option's words can be checked before tyro looks at them."""

    takes: int  #: words, -1: any number of them
    path: bool  #: whether it names a file or directory
    metavar: str
    place: bool  #: whether it has no name and is known by its place
    number: type | None  #: int or float, if it takes one
    choices: tuple[str, ...]  #: what it may be, if there is a list
    repeats: bool  #: whether it may be given several times


def _options(kind: type[Any]) -> dict[str, _Option]:
    """The options of a command by their names."""
    found = {}
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        bare, *marks = typing.get_args(hints[field.name]) if _is_annotated(hints[field.name]) else (hints[field.name],)
        if tyro.conf.Fixed in marks:
            continue
        names = [one.name for one in marks if getattr(one, "name", None)]
        metavars = [one.metavar for one in marks if getattr(one, "metavar", None)]
        several, repeats = typing.get_origin(bare) is tuple, tyro.conf.UseAppendAction in marks
        many = several and not repeats
        kinds = [bare, *(() if several else typing.get_args(bare))]
        listed = [one for one in kinds if typing.get_origin(one) is typing.Literal]
        found[names[0] if names else field.name.replace("_", "-")] = _Option(
            takes=0 if bare is bool else -1 if many else 1,
            path=Path in (bare, *typing.get_args(bare)),
            metavar=metavars[0] if metavars else "",
            place=tyro.conf.Positional in marks,
            number=next((one for one in (float, int) if one in kinds), None),
            choices=tuple(map(str, typing.get_args(listed[0]))) if listed and str not in kinds else (),
            repeats=repeats,
        )
    return found


def _is_annotated(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Annotated


def _with_help(kind: type[Any]) -> type[Any]:
    """The same command, each option of which has its docstring as one line: tyro breaks lines where the source does."""
    texts: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        with contextlib.suppress(OSError, TypeError):  # made at run time, with help of its own
            texts |= _docstrings(textwrap.dedent(inspect.getsource(one)))
    for field in dataclasses.fields(kind):
        if field.name in texts:
            field.metadata = MappingProxyType({"help": texts[field.name]})
    return kind


def _docstrings(source: str) -> dict[str, str]:
    """The strings behind the fields of a class."""
    (made,) = ast.parse(source).body
    body = made.body if isinstance(made, ast.ClassDef) else []
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


# --- wrong words ----------------------------------------------------------------------------------------------


def _check(asked: Asked, command: str) -> None:
    """Refuse words that are no options, those that stand alone, and options that are given twice.

    Raises:
        PackingError: the first of them, and what was meant.
    """
    options, words, at, last = _options(asked.kind), asked.words, 0, ""
    given_once: set[str] = set()
    free = sum(one.place for one in options.values())
    while at < len(words):
        word, at = words[at], at + 1
        if word in ("-h", "--help"):
            return
        if not word.startswith("-"):
            if not free:
                raise PackingError(_alone(asked, words[: at - 1], [word, *_until_option(words[at:])], last, options))
            free -= 1
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("_", "-")
        if not word.startswith("--") or name not in options or options[name].place:
            raise PackingError(_unknown(asked, command, word.partition("=")[0], options))
        option, last = options[name], name
        if option.takes and not equals:
            given = _until_option(words[at:]) if option.takes < 0 else words[at : at + 1]
            if not given or given[0].startswith("--"):
                raise PackingError(f"--{name} needs a value: --{name} {option.metavar or 'VALUE'}")
            value, at = given[0], at + len(given)
        if name in given_once and not option.repeats:
            raise PackingError(_twice(command, name, option))
        given_once.add(name)
        if option.takes:
            _check_value(command, name, option, value)


def _until_option(words: Sequence[str]) -> list[str]:
    return list(itertools.takewhile(lambda word: not word.startswith("-"), words))


def _check_value(command: str, name: str, option: _Option, value: str) -> None:
    if option.path and not value:
        raise PackingError(f"--{name} is empty; it must be the name of a file or directory")
    if name == "out" and option.metavar == "DIR" and os.path.isfile(value):  # noqa: PTH113  # False, never an OSError
        raise PackingError(f"cannot write {value}: it is a file, and --out must name a directory, old or new")
    if command == "run" and name in _ONE_VALUE and ({",", ":"} & {*value}):
        raise PackingError(
            f"--{name} is {value!r}; run takes one value: packing-jax sweep --{name} {value} takes a list or a range"
        )
    if option.number is float and not is_number(value):
        raise PackingError(f"--{name} is {value!r}; it must be a number")
    if option.number is int and not value.strip().lstrip("+-").isdecimal():
        raise PackingError(f"--{name} is {value!r}; it must be a whole number")
    if option.choices and value not in option.choices:
        near = did_you_mean(value, option.choices)
        raise PackingError(f"--{name} is {value!r}; it must be {' or '.join(option.choices)}{near and f': {near}'}")


def _unknown(asked: Asked, command: str, word: str, options: Mapping[str, _Option]) -> str:
    name = word.lstrip("-").replace("_", "-")
    if command == "run" and name == "resume":
        return "run has no --resume: packing-jax sweep --resume DIR continues a run"
    near = did_you_mean(name, ["help", *(one for one, option in options.items() if not option.place)], "--")
    others = [other for other, kind in COMMANDS.items() if name in _options(kind) and other != command]
    elsewhere = f"it is an option of {_listed(others)}" if others else ""
    more = near or elsewhere or f"{asked.prog} --help lists them all"
    return f"{asked.prog.partition(' ')[2]} has no option {word}: {more}"


def _twice(command: str, name: str, option: _Option) -> str:
    """A sentence about an option that is given again."""
    if not option.takes:
        return f"--{name} is given twice; once is enough"
    instead = "give it once"
    if "LIST" in option.metavar:
        instead = f"give all values at once: --{name} {option.metavar}"
    elif command == "run" and name in _ONE_VALUE:
        instead = f"run takes one value of it: packing-jax sweep --{name} LIST takes several"
    return f"--{name} is given twice; {instead}"


def _alone(asked: Asked, before: Sequence[str], words: Sequence[str], last: str, options: Mapping[str, _Option]) -> str:
    """A sentence about a word that belongs to no option, as in ``--phi 0.5 0.6``."""
    if last and options[last].takes == 1 and before[-1] != f"--{last}":
        values = [before[-1].rpartition("=")[2], *words]
        listed = ",".join(one.strip(",") for one in values)
        if all(map(is_number, listed.split(","))):
            if asked.kind is RunCommand:
                return f"run takes one value of --{last}: packing-jax sweep --{last} {listed} takes several"
            return f"--{last} takes one word: write --{last} {listed}, with commas and without spaces"
        return f"what is {words[0]!r}? --{last} takes one word, here {before[-1]!r}"
    return f"what is {words[0]!r}? {asked.prog} --help lists the options"


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
