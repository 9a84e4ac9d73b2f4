"""What an object of a user's is made of: its name, the sources of its modules, and a digest of what it holds."""

import dataclasses
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.manifest import digest, digest_of

# What these hold is known by its name: a store records their versions, and Python's.
_VERSIONED = frozenset({"packing_jax", "jax", "jaxlib", "numpy", "optax", *sys.stdlib_module_names}) - {"__main__"}

_PLAIN = (type(None), bool, int, str, type(...), type(NotImplemented))


class Described(NamedTuple):
    """What a store keeps of a user's object."""

    name: str  #: module:object, to be read by people: nothing is imported by it
    sources: dict[str, str | None]  #: module -> digest of its source; None: it has none, as what is typed in a session
    values: str  #: digest of the values that the object holds

    @property
    def source(self) -> bool:
        """Whether all of its source is there to be compared."""
        return None not in self.sources.values()

    def stored(self) -> dict[str, Any]:
        """The same as JSON."""
        return {**self._asdict(), "source": self.source}

    @classmethod
    def read(cls, value: Any) -> "Described":
        """What a store, which may come from elsewhere, keeps of an object.

        Raises:
            PackingError: it is no description.
        """
        try:
            found = cls(value["name"], dict(value["sources"]), value["values"])
        except (TypeError, KeyError, ValueError):
            found = cls("", {}, "")
        texts = (found.name, found.values, *found.sources, *(one or "none" for one in found.sources.values()))
        if not all(isinstance(text, str) and text for text in texts):
            raise PackingError(
                f"the store describes an object of your own as {str(value)[:80]}; that is not a description"
            )
        return found


def described(thing: Any) -> Described:
    """Name, sources and values of a user's object.

    Two descriptions agree in sources and values where the modules say the same and the values are the same bits,
    whatever the session; so do numbers and arrays in the modules' own variables that the functions read. A module of
    the user's counts if the object's functions, classes or methods are in it or refer to something of it; installed
    packages count with the one module that holds the object, and those whose versions a store records (packing_jax,
    jax, numpy, optax, Python's own) not at all.

    Args:
        thing: a rule, an energy, an optimizer, an observable; or a function that makes one.

    Raises:
        PackingError: it holds a value that has no lasting content, such as an open file or a traced array.
    """
    walk = _Walk()
    try:
        values = digest_of(walk.content(thing))
    except PackingError as error:
        raise PackingError(f"{name_of(thing)} cannot be recorded in a store: {error}") from error
    return Described(_called(thing, walk.sources), dict(sorted(walk.sources.items())), values)


def name_of(thing: Any) -> str:
    """module:qualname of an object, or of its class; the script that runs is called by the name of its file."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if isinstance(thing, MethodType):
        thing = thing.__func__
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{_module_name(named.__module__)}:{named.__qualname__}"


def _called(thing: Any, modules: Iterable[str]) -> str:
    """As `name_of`; but what has no name of its own, as a lambda, by that which a module of the user's has for it."""
    if "<lambda>" not in getattr(thing, "__qualname__", "<lambda>"):
        return name_of(thing)
    for module in sorted(modules):
        loaded = sys.modules.get("__main__" if module == _module_name("__main__") else module)
        for name, value in vars(loaded).items() if loaded else ():
            if value is thing:
                return f"{module}:{name}"
    return name_of(thing)


# --- the way through an object ----------------------------------------------------------------------------------


class _Walk:
    """Goes through an object and all that it holds; content as JSON, sources by the way."""

    def __init__(self) -> None:
        self.sources: dict[str, str | None] = {}
        self._path: list[Any] = []  # from the object to where the walk is

    def content(self, thing: Any) -> Any:
        """What an object is, for `digest_of`."""
        if isinstance(thing, jax.core.Tracer):
            raise PackingError("it holds a traced array, which has no value; make it outside of jax.jit and jax.grad")
        if type(thing) in _PLAIN:
            return repr(thing)
        if isinstance(thing, (float, complex, bytes)):
            return [type(thing).__name__, repr(thing)]
        if isinstance(thing, (np.ndarray, np.generic, jax.Array)):
            return self._array(thing)
        for place, above in enumerate(self._path):
            if above is thing:
                return ["again", place]
        self._path.append(thing)
        try:
            return digest_of(self._parts(thing))
        finally:
            self._path.pop()

    def _array(self, thing: Any) -> Any:
        if isinstance(thing, jax.Array) and jax.numpy.issubdtype(thing.dtype, jax.dtypes.prng_key):
            return ["key", str(jax.random.key_impl(thing)), self._array(jax.random.key_data(thing))]
        values = np.asarray(thing)
        if values.dtype.hasobject:
            return ["objects", list(values.shape), [self.content(one) for one in values.ravel().tolist()]]
        return ["array", str(values.dtype), list(values.shape), digest(np.ascontiguousarray(values).tobytes())]

    def _parts(self, thing: Any) -> Any:
        if isinstance(thing, ModuleType):
            self._note(thing.__name__)
            return ["module", _module_name(thing.__name__)]
        if _named_and_versioned(thing):
            return ["name", name_of(thing) if hasattr(thing, "__qualname__") else thing.__name__]
        if isinstance(thing, FunctionType):
            return self._function(thing)
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, MethodType):
            return ["method", self.content(thing.__func__), self.content(thing.__self__)]
        if isinstance(thing, functools.partial):
            words = self._mapping(thing.keywords)
            return [type(thing).__name__, self.content(thing.func), [self.content(one) for one in thing.args], words]
        if isinstance(thing, (tuple, list)):
            return [self.content(type(thing)), [self.content(one) for one in thing]]
        if isinstance(thing, (set, frozenset)):
            return [self.content(type(thing)), sorted(digest_of(self.content(one)) for one in thing)]
        if isinstance(thing, dict):
            return [self.content(type(thing)), self._mapping(thing)]
        if hasattr(thing, "__wrapped__"):  # jax.jit, jax.custom_jvp and other wrappers
            parts = {name: one for name, one in vars(thing).items() if not name.startswith("_")}
            return [type(thing).__name__, self.content(thing.__wrapped__), self._mapping(parts)]
        if dataclasses.is_dataclass(thing):
            fields = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
            return [self.content(type(thing)), self._mapping(fields)]
        return self._reduced(thing)

    def _mapping(self, mapping: Mapping[Any, Any]) -> Any:
        return sorted([digest_of(self.content(key)), self.content(value)] for key, value in mapping.items())

    def _reduced(self, thing: Any) -> Any:
        """Any other object is what Python would copy of it."""
        if isinstance(thing, BuiltinFunctionType):
            return ["builtin", thing.__qualname__, self.content(thing.__self__)]
        try:
            parts = thing.__reduce_ex__(4)
        except Exception as error:
            raise PackingError(
                f"it holds {_article(type(thing).__name__)}, which has no content that could be compared later"
            ) from error
        if isinstance(parts, str):
            return ["name", self.content(type(thing)), parts]
        listed = [list(part) if isinstance(part, Iterator) else part for part in parts]
        return [self.content(type(thing)), [self.content(part) for part in listed]]

    def _function(self, function: FunctionType) -> Any:
        if function.__code__.co_filename.startswith("<") and hasattr(function, "__wrapped__"):
            return ["wrapper", self.content(function.__wrapped__)]  # generated around it, by a type checker
        parts: list[Any] = ["function", _module_name(function.__module__), function.__qualname__]
        known = self._note(function.__module__, function.__code__)
        if known and function.__name__ == "<lambda>":
            parts.append(_place(function.__code__))
        parts.append([self.content(value) for value in _closed_over(function)])
        parts.append([self.content(one) for one in function.__defaults__ or ()])
        parts.append(self._mapping(function.__kwdefaults__ or {}))
        parts.append(self._mapping({name: one for name, one in vars(function).items() if not name.startswith("__")}))
        if _is_users(function.__module__):
            for name in sorted(_names(function.__code__)):
                referred = function.__globals__.get(name)
                code = isinstance(referred, (FunctionType, type, ModuleType)) or hasattr(referred, "__wrapped__")
                # numbers too: what a module reads from the command line or a file is not in its source
                if name in function.__globals__ and (code or _is_data(referred)):
                    parts.append([name, self.content(referred)])
        return parts

    def _class(self, cls: type) -> Any:
        parts: list[Any] = ["class", _module_name(cls.__module__), cls.__qualname__]
        if _root(cls.__module__) in _VERSIONED:
            return parts
        self._note(cls.__module__)
        parts.append([self.content(base) for base in cls.__bases__])
        for name, member in vars(cls).items():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, FunctionType) and not _generated(function):
                parts.append([name, self.content(function)])
        return parts

    def _note(self, module: str, code: CodeType | None = None) -> bool:
        """Keep the digest of a module's source; whether the code is in it."""
        if _root(module) in _VERSIONED:
            return True
        name = _module_name(module)
        text = None
        if code is None or not code.co_filename.startswith("<"):
            text = _source(module)
        if name not in self.sources or text is None:
            self.sources[name] = None if text is None else digest(text.encode())
        return text is not None


def _named_and_versioned(thing: Any) -> bool:
    """Whether this is what a versioned package holds under its own name, such as jax.numpy.sin."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", getattr(thing, "__name__", None))
    if not (isinstance(module, str) and isinstance(name, str) and _root(module) in _VERSIONED):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is thing


def _is_data(value: Any) -> bool:
    """Whether this is a number, a text, an array, or a container of such."""
    if isinstance(value, dict):
        return all(map(_is_data, (*value, *value.values())))
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_data, value))
    return type(value) in _PLAIN or isinstance(value, (float, complex, bytes, np.ndarray, np.generic, jax.Array))


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not filled yet, or no longer
            continue
        yield value


def _generated(function: FunctionType) -> bool:
    """Whether `dataclass` or `NamedTuple` wrote this method."""
    name, file = function.__name__, function.__code__.co_filename
    by_them = file == "<string>" or "namedtuple" in file or file == dataclasses.__file__
    return name.startswith("__") and name.endswith("__") and by_them


def _place(code: CodeType) -> Any:
    """Where in its module a lambda is: it has no name that would tell it from another one."""
    places = [(line, column) for line, _, column, _ in code.co_positions() if line and column]
    return [code.co_firstlineno, list(min(places, default=(0, 0)))]


def _names(code: CodeType) -> set[str]:
    """The global names that a function and those inside it refer to."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return {*code.co_names}.union(*map(_names, inner))


def _root(module: str) -> str:
    return module.partition(".")[0]


def _is_users(module: str) -> bool:
    """Whether a module is the user's own and not of an installed package."""
    if _root(module) in _VERSIONED:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & {*Path(file).parts}


def _module_name(module: str) -> str:
    """The name of a module, that of the script that runs included: as another session would import it."""
    main = sys.modules.get("__main__")
    if module != "__main__" or main is None:
        return module
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return Path(file).stem if file and not file.startswith("<") else module


def _source(module: str) -> str | None:
    """The text of a module; None where there is none."""
    found = sys.modules.get(module)
    loader: Any = getattr(found, "__loader__", None)
    try:
        if loader is not None and hasattr(loader, "get_source"):
            text: str | None = loader.get_source(getattr(loader, "name", module))
            return text
        file = getattr(found, "__file__", None)
        return Path(file).read_text(encoding="utf-8") if file else None
    except (ImportError, OSError, SyntaxError, UnicodeDecodeError):
        return None


def file_digest(module: str) -> str | None:
    """The digest of the source of a module; None where there is none."""
    text = _source(module)
    return None if text is None else digest(text.encode())


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
