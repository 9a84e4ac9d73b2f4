"""Runs as differentiable functions have the bits of the driver."""

import jax
import numpy as np
import pytest
from small_runs import KEY, RULES

import packing_jax as pj
from packing_jax import System
from packing_jax.derivatives.rollout import rollout
from packing_jax.spheres.neighbors import plan_for

# --- the same trajectory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "sgd",
        *(pytest.param(name, marks=pytest.mark.validation) for name in RULES if name not in ("sgd", "clipped")),
        pytest.param(
            "clipped",
            marks=[
                pytest.mark.validation,
                pytest.mark.xfail(reason="a global norm sums floats over the particles, here in another order"),
            ],
        ),
    ],
)
def test_positions_are_those_of_the_driver_to_the_bit(name: str) -> None:
    """On a cell grid, in float32 and in a box whose side is no power of two; the lists are others than the driver's."""
    system = System.create(0.6, 300, 2, sizes=pj.mixture_1_to_1_4(300), energy=pj.HARMONIC, box=3.3)
    rule, steps = RULES[name](), 40
    run = pj.simulate(system, rule, steps, KEY, record={}, times=np.array([steps]))
    plan = plan_for(system, 0.1)
    end = jax.jit(lambda s, r: rollout(s, r, steps, KEY, plan=plan))(system, rule)
    np.testing.assert_array_equal(end.positions, run.positions)
    assert end.absorbed_at == run.absorbed_at
    assert end.check() == ""
    assert end.plan.cells > 3


def test_a_start_is_taken_as_the_driver_takes_it_and_absorption_is_noted_alike() -> None:
    system = System.create(0.3, 60, 2, box=1.7, dtype=np.float64)
    start = np.random.default_rng(0).random((60, 2)) * 5 - 2
    run = pj.simulate(system, pj.bro(0.2), 400, KEY, start=start, record={}, times=np.array([400]))
    end = rollout(system, pj.bro(0.2), 400, KEY, start)
    np.testing.assert_array_equal(end.positions, run.positions)
    assert end.absorbed_at == run.absorbed_at
    apart = np.asarray(end.positions) - start - np.asarray(end.moved)
    np.testing.assert_allclose(apart / 1.7, np.rint(apart / 1.7), atol=1e-12)
    assert run.absorbed_at > 3
