"""A user's own rule, energy, optimizer or observable: imported when it is named, and known again when a sweep goes on.

A store keeps of such an object a name, a digest of the source of every module of the user's that it runs, and a digest
of the values it holds: what its functions close over, their defaults, the arguments of partials, fields, arrays
(:mod:`packing_jax.sweeps.fingerprint`). A sweep that goes on is given the object again, and refuses another version of
it.

Nothing here imports a module because a store names it. Only :func:`imported` imports, and it is called with words of
the present command line alone.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packing_jax.errors import PackingError
from packing_jax.sweeps.fingerprint import Described, described, file_digest

# --- by name, from this command line --------------------------------------------------------------------------


def imported(word: str, what: str) -> Any:
    """The object that ``module:object`` names, the present directory being on the path as for ``python -m``.

    Args:
        word: of the command line, never of a store.
        what: the option, as ``--rule``.

    Raises:
        PackingError: no such module or object, or the module does not import; in one sentence.
    """
    module_name, colon, path = word.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module_name.split("."), *path.split(".")))):
        raise PackingError(f"{what} is {word!r}; an object of your own is given as module:object, as my_rules:slow")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise PackingError(f"{what} {word}: the module does not import: {_sentence(error)}") from error
        hint = f"; the module of {module_name} is {module_name[:-3]}" if module_name.endswith(".py") else ""
        raise PackingError(
            f"{what} {word}: there is no module {module_name} in {here} or where Python looks for modules{hint}"
        ) from error
    except (Exception, SystemExit) as error:
        raise PackingError(f"{what} {word}: the module does not import: {_sentence(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise PackingError(f"{what} {word}: there is no {part} in {getattr(found, '__name__', found)}")
        found = getattr(found, part)
    return found


def _sentence(error: BaseException) -> str:
    """What an exception says, in one line, and where in the user's file."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [frame for frame in frames if "importlib" not in frame.filename]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if len(own) > 1 else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


# --- known again ----------------------------------------------------------------------------------------------


def given_again(stored: Any, given: Mapping[str, Any], trust: bool) -> tuple[str, ...]:
    """Check that the objects of a user's are those that a sweep was begun with.

    Args:
        stored: what the store says of them: {"rule": :meth:`Described.stored`, "record contacts": ...}.
        given: the objects themselves, as the present call or command names them.
        trust: take what has no source for the same.

    Returns:
        A sentence for each whose source was trusted and not compared.

    Raises:
        PackingError: one is missing, or another version; or there is one that the sweep was begun without.
    """
    if not isinstance(stored, Mapping):
        raise PackingError(f"the store describes objects of your own as {str(stored)[:80]}; that is not a description")
    before = {what: Described.read(value) for what, value in stored.items()}
    missing = [f"the {what} {one.name}" for what, one in before.items() if what not in given]
    if missing:
        options = dict.fromkeys(f"--{what.split(' ')[0]}" for what in before if what not in given)
        raise PackingError(
            f"this sweep was begun with {', '.join(missing)} of your own, and a store never imports anything: "
            f"name {'it' if len(missing) == 1 else 'them'} again, with {', '.join(options)}, in Python as in its Sweep"
        )
    if more := [what for what in given if what not in before]:
        raise PackingError(f"this sweep was begun without {', '.join(f'a {what} of your own' for what in more)}")
    checks = (check_same(what, one, described(given[what]), trust) for what, one in before.items())
    return tuple(sentence for sentence in checks if sentence is not None)


def changed_modules(stored: Mapping[str, Any]) -> list[str]:
    """Modules which this process has imported, and whose source is not that in a store."""
    sources = [source for value in stored.values() for source in Described.read(value).sources.items()]
    return sorted(
        {module for module, was in sources if module in sys.modules and was not in (None, file_digest(module))}
    )


def check_same(what: str, was: Described, now: Described, trust: bool) -> str | None:
    """Refuse an object that is not the one in a store.

    Args:
        what: of the sweep, as "rule".
        was: the description in the store.
        now: of the object given again.
        trust: take what has no source for the same.

    Returns:
        A sentence for the store where the source was trusted and not compared, else None.

    Raises:
        PackingError: the source of a module or a value differs, or there is no source and ``trust`` is False.
    """
    modules = sorted({*was.sources, *now.sources})
    unknown = [name for name in modules if None in (was.sources.get(name, ""), now.sources.get(name, ""))]
    changed = [name for name in modules if name not in unknown and was.sources.get(name) != now.sources.get(name)]
    another = f"the {what} {now.name} is not the one that this sweep was begun with"
    how = "give it as it was, or begin another sweep"
    if changed:
        one = len(changed) == 1
        raise PackingError(
            f"{another}: the source of module{'' if one else 's'} {', '.join(changed)} "
            f"{'differs' if one else 'differ'}; {how}"
        )
    if was.values != now.values:
        raise PackingError(f"{another}: the values that it holds differ (fields, arguments, closed-over values); {how}")
    if not unknown:
        return None
    if not trust:
        raise PackingError(
            f"the {what} {now.name} has no source that could be compared with what this sweep was begun with (it was "
            "typed in a session and is in no file); if it is the same, give --trust-rule, in Python trust_rule=True"
        )
    return f"the {what} {now.name} has no source and was trusted to be the one that this sweep was begun with"
