"""One way to make a dataclass a pytree, and the names of what is in one."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def pytree(*, meta: Sequence[str] = ()) -> Callable[[type[T]], type[T]]:
    """Make a frozen dataclass a pytree: its fields are leaves or trees, but those of ``meta``.

    Example:
        >>> @pytree(meta=["coupling"])
        ... @dataclass(frozen=True)
        ... class MyRule(Rule):
        ...     kick: Any
        ...     coupling: str

    Args:
        meta: names of fields that are constants of a compiled program; their values need a hash and equality.

    Two classes are different programs even where all their fields are equal. With ``jax.tree_util.register_dataclass``
    (0.10.1, 0.12.0.1) their trees compare equal, and where hashes meet in a table a jitted function then runs the
    program of the other class. A tree is put together without ``__init__``, so that a class may check its arguments
    there: jax also puts shapes, shardings and other objects in the place of leaves.

    Raises:
        TypeError: not a dataclass, or ``meta`` names something that is not one of its fields.
    """

    def register(cls: type[T]) -> type[T]:
        fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if unknown := set(meta) - set(fields):
            raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}; its fields are {fields}")
        static = tuple(name for name in fields if name in meta)
        leaves = tuple(name for name in fields if name not in meta)
        keys = tuple(jax.tree_util.GetAttrKey(name) for name in leaves)

        def flatten(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
            return tuple(getattr(tree, name) for name in leaves), (cls, *(getattr(tree, name) for name in static))

        def flatten_with_keys(tree: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
            children, constants = flatten(tree)
            return tuple(zip(keys, children, strict=True)), constants

        def unflatten(constants: tuple[Any, ...], children: Iterable[Any]) -> T:
            tree = object.__new__(cls)
            for name, value in zip((*static, *leaves), (*constants[1:], *children), strict=True):
                object.__setattr__(tree, name, value)
            return tree

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return register


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree that are fields of a class or entries of a mapping, by these names."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = getattr(path[-1], "name", getattr(path[-1], "key", None)) if path else None
        if isinstance(name, str):
            found[name] = leaf
    return found
