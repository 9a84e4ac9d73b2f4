"""The active-only step is the dense step: the same bits over whole runs that cross the threshold both ways."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import packing_jax as pj
from packing_jax.drive.chunk import chunk
from packing_jax.drive.run import begin
from packing_jax.simulation import DEFAULT_RECORD
from packing_jax.spheres import active, tuning
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres.particles import Particles
from packing_jax.spheres.rules.sgd import _is_local
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System
from packing_jax.spheres.tuning import Needs

N = 300
KEY = jax.random.key(7)

RULES: dict[str, tuple[Any, tuple[float, ...], int]] = {
    # rule, packing fractions of the batch, dimension: all freeze, the last of them slowly
    "bro": (pj.bro(0.1), (0.46, 0.5, 0.51), 3),
    "random organization": (pj.random_organization(0.5), (0.27, 0.3), 2),
    "langevin particle": (pj.langevin(0.1, "particle"), (0.45, 0.5), 3),
    "sgd particle": (pj.sgd(Partial(optax.sgd, learning_rate=jnp.float32(0.13)), 0.5, "particle"), (0.48, 0.5), 3),
    "sgd selective": (pj.sgd(optax.sgd(0.13), 0.5, selective=True), (0.45, 0.48), 3),
    "own": (pj.pair_rule(lambda pair, u, kick: kick * (u + pair.overlap) * pair.direction, kick=0.1), (0.46, 0.5), 3),
}


def _followed(rule: Any, system: System, capacity: int, steps: int, most: int) -> Any:
    """A run in chunks of ``most`` steps."""
    replicas, _ = gather_replicas(system, rule, KEY, None)
    times = np.unique(np.rint(np.geomspace(1, steps, 25))).astype(np.int32)
    kind = Particles(replace(nb.plan_for(system, 0.5), active=capacity))
    state = begin(kind, replicas, times, DEFAULT_RECORD)
    while np.any(state.alive):
        state, needs = chunk(kind, tuple(DEFAULT_RECORD.items()), replicas, state, jnp.asarray(times), jnp.int32(most))
        assert not kind.void(needs)
    return state


def _by_tag(state: Any) -> np.ndarray:
    order = np.argsort(state.place.tags, axis=1)
    return np.take_along_axis(np.asarray(state.place.coordinates), order[:, None], axis=2)


# as the others, and each takes a quarter of a minute to compile
LONG = ("langevin particle", "sgd particle", "random organization")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.validation) if name in LONG else name for name in RULES]
)
def test_the_trajectory_is_that_of_the_dense_step(name: str) -> None:
    rule, phis, dim = RULES[name]
    assert rule.local
    sizes = pj.mixture_1_to_1_4(N) if dim == 2 else None
    system = pj.stack([System.create(phi, N, dim, sizes=sizes) for phi in phis])
    dense = _followed(rule, system, 0, 300, 300)
    sparse = _followed(rule, system, 64, 300, 37)
    np.testing.assert_array_equal(_by_tag(dense), _by_tag(sparse))
    np.testing.assert_array_equal(dense.absorbed_at, sparse.absorbed_at)
    for record, values in dense.records.items():
        np.testing.assert_array_equal(values, sparse.records[record])
    # lists were in use, and at first they were not
    most = np.max(np.asarray(dense.records["activity"]) * N, axis=0)
    assert most[0] > 64
    assert np.any((most > 0) & (most < 48))


def test_a_list_that_overflows_gives_way_to_the_dense_step() -> None:
    """Near phi_c activity wanders up and down, across the length of the list and across the three quarters to enter."""
    system, rule = System.create(0.33, N, 2), pj.random_organization(1.0)
    dense = _followed(rule, system, 0, 400, 400)
    sparse = _followed(rule, system, 64, 400, 400)
    activity = np.asarray(_trace(rule, system, 400))[60:] * N
    for length in (48.5, 64.5):
        assert np.sum(np.diff(np.sign(activity - length)) != 0) > 6
    np.testing.assert_array_equal(_by_tag(dense), _by_tag(sparse))


def _trace(rule: Any, system: System, steps: int) -> np.ndarray:
    record = {"activity": DEFAULT_RECORD["activity"]}
    return pj.simulate(system, rule, steps, KEY, record=record, times=np.arange(steps + 1))["activity"]


def test_lists_hold_every_set_flag() -> None:
    rng = np.random.default_rng(3)
    listed = jax.jit(active._listed, static_argnums=1)
    for n in (5, 32, 100):
        for share in (0.0, 0.1, 0.5, 1.0):
            flags = rng.random(n) < share
            slots, number = listed(jnp.asarray(flags), 64)
            expected = np.flatnonzero(flags)
            assert number == len(expected)
            np.testing.assert_array_equal(slots[: min(number, 64)], expected[:64])
            assert np.all((np.asarray(slots) >= 0) & (np.asarray(slots) < n))


def test_the_driver_takes_up_lists_when_activity_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    choose = tuning.next_plan

    def always_worth_it(plan: nb.Plan, *arguments: Any) -> tuple[nb.Plan, float]:
        # with lists or without; other rows would only be other programs to compile
        plan = replace(plan, active=min(64, choose(plan, *arguments)[0].active))
        plans.append(plan)
        return plan, np.inf

    monkeypatch.setattr(tuning, "next_plan", always_worth_it)
    monkeypatch.setattr(tuning, "_OVERHEAD", 0.0)
    monkeypatch.setattr(tuning, "LADDER", ())
    system, rule = System.create(0.52, 1000), pj.bro(0.1)
    tuned = pj.simulate(system, rule, 400, KEY, chunk_steps=20)
    assert {plan.active for plan in plans} >= {0, 64}
    np.testing.assert_array_equal(tuned.positions, pj.simulate(system, rule, 400, KEY, skin=0.5).positions)


def test_lists_are_for_rules_and_energies_whose_activity_falls() -> None:
    needs = Needs(*(jnp.int32(value) for value in (15, 14, 10, 20)))
    for energy, local, expected in ((pj.LINEAR, True, 64), (pj.LINEAR, False, 0), (pj.HARMONIC, True, 0)):
        system = System.create(0.6, 100_000, energy=energy)
        plan, gain = tuning.next_plan(nb.plan_for(system, 0.4), system, needs, 1000, 1e6, local)
        assert gain > 0
        assert plan.active == expected


@pytest.mark.parametrize(
    ("optimizer", "local"),
    [
        (optax.sgd(0.1), True),
        (optax.sgd(optax.exponential_decay(0.1, 100, 0.5)), True),
        (optax.chain(optax.clip(0.1), optax.sgd(0.1)), True),
        (optax.sgd(0.1, momentum=0.9), False),
        (optax.adam(0.1), False),
        (optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)), False),
        (optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)), False),
        (optax.chain(optax.add_noise(0.1, 0.5, key=0), optax.sgd(0.1)), False),
    ],
)
def test_which_optimizers_are_local(optimizer: optax.GradientTransformation, local: bool) -> None:
    assert pj.sgd(optimizer).local == local


def test_the_trial_of_an_optimizer_takes_rates_of_replicas() -> None:
    assert pj.sgd(Partial(optax.sgd, learning_rate=jnp.linspace(0.1, 0.2, 5, dtype=jnp.float32))).local
    assert not jax.jit(lambda rate: jnp.asarray(_is_local(Partial(optax.sgd, learning_rate=rate))))(0.1)
