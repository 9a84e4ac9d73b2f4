"""CIFAR-10's python batches, which are pickles, read without executing them.

A pickle is a program for a small stack machine, and that of Python calls whatever function the program names. The
machine here knows only what a batch is made of: dictionaries, lists, text, integers and arrays of bytes. Anything else
is refused by name. ``pickletools.genops`` takes the program apart, runs nothing and trusts no length beyond the end of
the file; Python's own machine would also allocate memory for any index that a program claims. Nothing is copied before
the end, so that a small program cannot fill the memory.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.errors import PackingError

_LARGEST_FILE = 2**28  # a batch has 31 MB
_MOST_STEPS = 2 * 10**5  # a batch takes 30,000, and each can take a hundred bytes of memory


@dataclass
class _Bytes:
    """An array of bytes while it is put together."""

    shape: Any = None
    content: Any = None
    kind: Any = None


@dataclass(frozen=True)
class _Kind:
    """A placeholder for numpy's dtype."""

    code: str


@dataclass(frozen=True)
class _Name:
    """A function or class that a program names; it is never looked up."""

    name: str


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (samples, 3072) as bytes, by colour, row and column, and classes (samples,) of one batch.

    Raises:
        PackingError: a file that is not such a batch, is damaged, or names functions that no batch needs.
    """
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise PackingError(f"it has {size} bytes, and a batch of CIFAR-10 about 31 million")
    try:
        found = _run(path.read_bytes())
        batch = {_text(key): value for key, value in found.items()}
        images = _array(batch["data"])
        labels = batch["labels"]
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 2**31 for label in labels):
            raise TypeError("labels")
    except PackingError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise PackingError("it is not a batch of CIFAR-10 in the python version, or is damaged") from error
    return images, np.array(labels, dtype=np.int64)


def _run(program: bytes) -> Any:
    """What a program leaves on the stack."""
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: dict[Any, Any] = {}
    for step, (code, argument, _) in enumerate(pickletools.genops(program)):
        name = code.name
        if step > _MOST_STEPS:
            raise PackingError("it is a pickle of more steps than a batch of CIFAR-10 takes")
        if name == "STOP":
            return stack.pop()
        if name in ("PROTO", "FRAME"):
            continue
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name](argument))
        elif name in _MEMO:
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _RECALL:
            stack.append(memo[argument])
        elif name == "MARK":
            marked.append(stack)
            stack = []
        elif name in _MARKED:
            above, stack = stack, marked.pop()
            _MARKED[name](stack, above)
        elif name in _STACK:
            _STACK[name](stack)
        else:
            raise PackingError(
                f"it is a pickle that asks for {name}, which no batch of CIFAR-10 needs, and is not read"
            )
    raise IndexError("no end")


def _text(value: Any) -> str:
    """The name of an entry, a function or a kind of number."""
    if not isinstance(value, str | bytes) or len(value) > 100:
        raise TypeError("a name that is no short text")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _raw(value: Any) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else bytes(memoryview(value))


def _array(array: Any) -> np.ndarray:
    if not isinstance(array, _Bytes) or array.kind != _Kind("u1"):
        raise TypeError("no array of bytes")
    content = _raw(array.content)
    samples, pixels = array.shape
    if math.prod((samples, pixels)) != len(content) or samples < 1 or pixels != 3072:
        raise ValueError("another shape")
    return np.frombuffer(content, np.uint8).reshape(samples, pixels)


def _setitems(stack: list[Any], above: list[Any]) -> None:
    for key, value in zip(above[::2], above[1::2], strict=True):
        stack[-1][_text(key)] = value  # text only: the hash of nested tuples can take for ever


def _reduce(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    name = function.name
    if name in ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"):
        stack.append(_Bytes())
    elif name in ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"):
        content, kind, shape, order = arguments
        if order != "C":
            raise ValueError("columns first")
        stack.append(_Bytes(shape, content, kind))
    elif name == "numpy dtype":
        stack.append(_Kind(_text(arguments[0])))
    elif name == "_codecs encode":
        stack.append(arguments[0])  # bytes, as Python 2 kept them: text
    else:
        raise PackingError(
            f"it is a pickle that asks for {name[:100]!r}, which no batch of CIFAR-10 needs, and is not read"
        )


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    if isinstance(stack[-1], _Bytes):
        _, shape, kind, by_columns, content = state
        if by_columns:
            raise ValueError("columns first")
        stack[-1].shape, stack[-1].content, stack[-1].kind = shape, content, kind
    elif not isinstance(stack[-1], _Kind):  # the order of bytes, of which bytes have none
        raise TypeError("a state of something else")


def _stack_global(stack: list[Any]) -> None:
    function, module = _text(stack.pop()), _text(stack.pop())
    stack.append(_Name(f"{module} {function}"))


def _tuple(count: int) -> Callable[[list[Any]], None]:
    def put(stack: list[Any]) -> None:
        if len(stack) < count:
            raise IndexError("too few")
        stack[-count:] = [tuple(stack[-count:])]

    return put


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "GLOBAL": _Name,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), lambda value: value),
    **dict.fromkeys(
        ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"), lambda text: text
    ),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), lambda content: content),
}
_MEMO = ("BINPUT", "LONG_BINPUT", "MEMOIZE")
_RECALL = ("BINGET", "LONG_BINGET")
_MARKED: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "TUPLE": lambda stack, above: stack.append(tuple(above)),
    "APPENDS": lambda stack, above: stack[-1].extend(above),
    "SETITEMS": _setitems,
}
_STACK: dict[str, Callable[[list[Any]], None]] = {
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": lambda stack: stack[-2].append(stack.pop()),
    "SETITEM": lambda stack: _setitems(stack, [stack.pop(-2), stack.pop()]),
    "REDUCE": _reduce,
    "BUILD": _build,
    "STACK_GLOBAL": _stack_global,
}
