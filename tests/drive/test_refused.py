"""What simulate and a run refuse: observables, replicas and options that cannot be, each in a sentence."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from floats import Descent, Perceptron

import packing_jax as pj
from packing_jax import PackingError, System
from packing_jax.drive import run
from packing_jax.simulation import check_record
from packing_jax.spheres.neighbors import plan_for

KEY = jax.random.key(5)
SYSTEM = System.create(0.3, 16, 2)
SEVERAL = pj.bro(jnp.asarray([0.1, 0.2], jnp.float32))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            {"x": lambda seen: (seen.side, seen.side)},
            "x returns an object of type tuple",
        ),
        ({"x": lambda seen: [seen.side]}, "x returns an object of type list"),
        ({"x": lambda _: None}, "x returns an object of type NoneType"),
        ({"x": lambda _: "many"}, "x returns an object of type str"),
        ({"x": lambda _: jax.random.key(0)}, "returns an array of key<fry>; it must return an array of numbers"),
        ({"x": lambda seen: seen.nothing}, "the observable x fails: AttributeError: .* 'nothing'"),
        ({"x": lambda *, seen: seen}, "the observable x fails: TypeError"),
    ],
)
def test_what_is_no_observable(record: Any, words: str) -> None:
    with pytest.raises(PackingError, match=words) as caught:
        pj.simulate(SYSTEM, pj.bro(0.1), 2, KEY, record=record)
    assert "\n" not in str(caught.value)


def test_what_is_no_record() -> None:
    with pytest.raises(PackingError, match="record is of type list; it must be a dict"):
        inspect.unwrap(check_record)(["activity"])
    with pytest.raises(PackingError, match="the observable x is of type str; it must be a function"):
        inspect.unwrap(check_record)({"x": "activity"})


@pytest.mark.parametrize("name", ["positions", "absorbed_at", "time", "replica", "particle", "axis"])
def test_a_record_that_would_hide_another_array(name: str) -> None:
    made = pj.simulate(SYSTEM, SEVERAL, 2, KEY, record={name: lambda seen: seen.side})
    assert made[name].shape == (2, 3)
    with pytest.raises(PackingError, match=f"{name} would be in the dataset twice"):
        made.to_xarray()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((2.5, None), "batch is 2.5; it must be a whole number"),
        (("2", None), "batch is '2'; it must be a whole number"),
        ((None, 1.5), "chunk_steps is 1.5; it must be a whole number"),
    ],
)
def test_options_that_are_no_whole_numbers(options: Any, words: str) -> None:
    with pytest.raises(PackingError, match=words):
        inspect.unwrap(run._check_pace)(*options)


def test_a_skin_that_is_no_number() -> None:
    with pytest.raises(PackingError, match="the neighbour skin is 'wide' mean diameters; it must be positive"):
        inspect.unwrap(plan_for)(SYSTEM, "wide")


def test_no_replicas() -> None:
    words = "there are no replicas: the replica axis has length 0"
    with pytest.raises(PackingError, match=words):
        pj.simulate(SYSTEM, pj.bro(0.1), 2, jax.random.split(KEY, 0))
    with pytest.raises(PackingError, match=words):
        pj.simulate(Perceptron(np.ones((3, 2), np.float32), 0), Descent(0.1, 0.5, 2), 2, KEY)


def test_a_list_of_systems_is_what_is_stacked() -> None:
    with pytest.raises(PackingError, match="stack takes a list of systems"):
        inspect.unwrap(pj.stack)(SYSTEM)
