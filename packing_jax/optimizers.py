"""An optax optimizer as a pytree that makes it: its numbers may differ between replicas and compile nothing anew."""

from dataclasses import dataclass
from typing import Any

import jax
import optax

from packing_jax.errors import PackingError


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Given:
    """An optax transformation as it was passed, part of the compiled program."""

    transformation: optax.GradientTransformation

    def __call__(self) -> optax.GradientTransformation:
        return self.transformation


@dataclass(frozen=True)
class _Switched:
    """A maker of optax transformations with its Python switches (``nesterov``), which must not be traced."""

    make: Any
    switches: tuple[tuple[str, bool], ...]

    def __call__(self, *args: Any, **keywords: Any) -> optax.GradientTransformation:
        return self.make(*args, **dict(self.switches), **keywords)


def maker_of(optimizer: Any) -> Any:
    """A pytree that makes the optimizer when it is called, and whose leaves are the optimizer's numbers.

    Args:
        optimizer: an ``optax.GradientTransformation``, which has no leaves, or a ``jax.tree_util.Partial`` of the
            function that makes it, such as ``Partial(optax.adam, learning_rate=rates)``.

    Raises:
        PackingError: neither, or a Partial that holds a function.
    """
    if isinstance(optimizer, optax.GradientTransformation):
        return _Given(optimizer)
    if not isinstance(optimizer, jax.tree_util.Partial):
        raise PackingError(
            f"the optimizer is of type {type(optimizer).__name__}; it must be an optax.GradientTransformation such as "
            "optax.sgd(0.1), or a jax.tree_util.Partial that makes one"
        )
    functions = [str(leaf) for leaf in jax.tree.leaves(optimizer) if callable(leaf)]
    if functions:
        raise PackingError(
            f"the Partial of the optimizer holds a function, {functions[0]}; give a function of numbers that makes "
            "the optimizer, schedules within it"
        )
    switches = tuple((name, value) for name, value in optimizer.keywords.items() if isinstance(value, bool))
    numbers = {name: value for name, value in optimizer.keywords.items() if not isinstance(value, bool)}
    if switches:
        return jax.tree_util.Partial(_Switched(optimizer.func, switches), *optimizer.args, **numbers)
    return optimizer
