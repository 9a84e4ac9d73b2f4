"""Dataclasses as pytrees: leaves, constants, and classes that are told apart."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from packing_jax.trees import pytree


@pytree(meta=["kind"])
@dataclass(frozen=True)
class One:
    kick: Any
    kind: str = "pair"

    def __post_init__(self) -> None:
        if not isinstance(self.kick, float):
            raise ValueError("the kick is no number")


@pytree(meta=["kind"])
@dataclass(frozen=True)
class Other:
    kick: Any
    kind: str = "pair"


def test_two_classes_with_equal_fields_have_unequal_trees() -> None:
    one, same, other = (jax.tree.structure(tree) for tree in (One(0.1), One(0.2), Other(0.1)))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != jax.tree.structure(One(0.1, "particle"))


def test_leaves_are_put_in_without_the_checks_of_a_new_object() -> None:
    shapes = jax.eval_shape(jax.jit(lambda tree: jax.tree.map(lambda x: 2 * jnp.asarray(x), tree)), One(0.1))
    assert isinstance(shapes, One)
    assert shapes.kick.shape == ()
    assert shapes.kind == "pair"
    assert jax.tree_util.tree_leaves_with_path(One(0.1))[0][0] == (jax.tree_util.GetAttrKey("kick"),)


def test_a_constant_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match=r"One has no field couplng; its fields are \['kick', 'kind'\]"):
        pytree(meta=["couplng"])(One)
