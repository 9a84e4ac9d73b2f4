"""A user's own rules: of one function (BRO, and another), of a class with a state, and what is refused."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import packing_jax as pj
from packing_jax.derivatives.rollout import rollout, rollout_plan
from packing_jax.exact import rounded_alone
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres import noise
from packing_jax.spheres.geometry import to_fixed
from packing_jax.spheres.rules import Info, Pair, Rule
from packing_jax.spheres.rules.base import as_move, exact_row_sum, look
from packing_jax.spheres.system import System
from packing_jax.trees import pytree

pair_rule = inspect.unwrap(pj.pair_rule)  # annotations are checked first in the tests


def push_of_bro(pair: Pair, u: jax.Array, kick: jax.Array) -> jax.Array:
    return kick * u * pair.direction


def deep_push(pair: Pair, u: jax.Array, kick: jax.Array, tail: jax.Array) -> jax.Array:
    """Longer kicks for deeper overlaps; sums of products, which a compiler likes to contract."""
    return kick * (tail + (1.0 - tail) * u) * (pair.overlap / pair.contact) ** 2 * pair.direction


@jax.jit
def moves_of(rule: Any, keys: jax.Array, system: System, coordinates: jax.Array, rows: nb.Neighbors) -> Any:
    words = jax.vmap(noise.particle_words, (0, None))(keys, rows.tags)
    moves, _, info = jax.vmap(lambda one: rule.step(one, system, coordinates, rows, ()))(words)
    return moves, info.active, info.failed


def crowd(dtype: type = np.float32, sizes: Any = None) -> tuple[System, jax.Array, nb.Neighbors]:
    system = System.create(0.9, 100, 2, sizes=sizes, dtype=dtype)
    coordinates = to_fixed(jnp.asarray(np.random.default_rng(2).random((100, 2)), dtype), system.box)
    plan = nb.plan_for(system, 0.3)
    order = nb.cell_order(plan, coordinates)
    if sizes is not None:
        system = replace(system, diameters=system.diameters[order])
    return system, coordinates[:, order], nb.build(plan, system, coordinates[:, order], order)


@pytest.mark.parametrize("correlation", [1.0, 0.5, 0.0])
def test_bro_in_one_line_makes_the_moves_of_bro(correlation: float) -> None:
    place = crowd(sizes=pj.mixture_1_to_1_4(100))
    keys = jax.random.split(jax.random.key(1), 20)
    theirs, active, _ = moves_of(pj.bro(0.3, correlation=correlation), keys, *place)
    ours, seen, failed = moves_of(pj.pair_rule(push_of_bro, kick=0.3, correlation=correlation), keys, *place)
    # the same draws for the same pairs; rounded in another order, a few units in the last place of float32
    kick = 0.3 * float(place[0].unit) * 2.0**32
    assert np.max(np.abs(np.asarray(ours, float) - np.asarray(theirs, float))) < 1e-6 * kick
    assert np.max(np.abs(np.asarray(theirs, float))) > 0.5 * kick
    np.testing.assert_array_equal(seen, active)
    assert not np.any(failed)
    if correlation == 1.0:
        assert not np.any(np.sum(np.asarray(ours, np.int64), axis=2))  # partners are opposite to the quantum


def _run(rule: Rule, system: System, **options: Any) -> pj.Trajectory:
    keys = jax.vmap(jax.random.key)(np.arange(3))
    return pj.simulate(system, rule, 120, keys, record={}, times=np.array([120]), **options)


def test_a_rule_of_the_users_own_does_not_depend_on_the_batch() -> None:
    systems = [System.create(phi, 80, 2, sizes=pj.mixture_1_to_1_4(80)) for phi in (0.6, 0.9, 0.95)]
    together = _run(pj.pair_rule(deep_push, kick=np.array([0.2, 0.3, 0.4]), tail=0.1), pj.stack(systems), skin=0.2)
    for i, kick in enumerate((0.2, 0.3, 0.4)):
        rule = pj.pair_rule(deep_push, kick=kick, tail=0.1)
        key = jax.random.key(i)
        alone = pj.simulate(
            systems[i], rule, 120, key, record={}, times=np.array([120]), skin=0.45, batch=1, chunk_steps=17
        )
        np.testing.assert_array_equal(together.positions[i], alone.positions)
    assert np.all(together.positions[1] != together.positions[2])


def test_a_run_has_a_derivative_in_the_numbers_of_a_push() -> None:
    with jax.enable_x64(True):
        system, key = System.create(0.9, 30, 2, dtype=np.float64), jax.random.key(3)
        rule = pj.pair_rule(deep_push, kick=0.3, tail=0.1)
        plan = rollout_plan(system, rule, 6, key)

        def spread(kick: jax.Array) -> jax.Array:
            end = rollout(system, pj.pair_rule(deep_push, kick=kick, tail=0.1), 6, key, plan=plan)
            return jnp.sum(end.moved**2)

        value, slope = jax.jit(jax.value_and_grad(spread))(jnp.asarray(0.3))
        # no contact is made or broken within so small a change
        by = [float(spread(jnp.asarray(0.3 + h))) for h in (-1e-6, 1e-6)]
        assert float(slope) == pytest.approx((by[1] - by[0]) / 2e-6, rel=1e-5)
        assert float(value) > 0


@pytree()
@dataclass(frozen=True)
class Tiring(Rule):
    """Each particle's kicks shrink with the number of its own: a state of one number per particle."""

    kick: Any

    def init(self, system: System, coordinates: Any) -> jax.Array:
        return jnp.zeros(coordinates.shape[1], jnp.int32)

    def by_particle(self, state: jax.Array) -> bool:
        return True

    def step(self, words: Any, system: System, coordinates: Any, neighbors: Any, state: jax.Array) -> Any:
        scene = look(words, system, coordinates, neighbors)
        weight = jnp.where(scene.hit, 1.0 / scene.pairs.distance, 0.0)
        push, active = exact_row_sum([weight * part for part in scene.pairs.separation], 1.0, scene)
        size = self.kick * system.unit / (1.0 + state.astype(push.dtype)) * noise.uniform(scene.particle, push.dtype)
        return (
            as_move(size[None] * push, coordinates),
            state + active.astype(jnp.int32),
            Info(active, jnp.zeros((), bool), push),
        )


class Forgetful(Tiring):
    """The same, but for saying that its state belongs to particles."""

    by_particle = Rule.by_particle


pytree()(Forgetful)


def test_a_state_of_the_users_own_follows_the_particles_where_the_rule_says_so() -> None:
    system = System.create(0.9, 120, 2)

    def end(make: Any, skin: float) -> np.ndarray:  # thin skins sort the particles more often
        run = pj.simulate(
            system, make(np.float32(0.3)), 40, jax.random.key(2), record={}, times=np.array([40]), skin=skin
        )
        return run.positions

    np.testing.assert_array_equal(end(Tiring, 0.1), end(Tiring, 0.4))
    assert np.any(end(Forgetful, 0.1) != end(Forgetful, 0.4))


@pytest.mark.parametrize("length", [np.nan, 30.0])
def test_a_push_that_is_not_finite_or_too_long_ends_the_run(length: float) -> None:
    rule = pj.pair_rule(lambda pair, u: length * u * pair.direction)
    with pytest.raises(pj.PackingError, match="diverged at step 0"):
        pj.simulate(System.create(0.9, 50, 2), rule, 5, jax.random.key(0))


def test_a_product_and_a_sum_round_twice_in_whatever_program() -> None:
    a, b, c = np.random.default_rng(0).standard_normal((3, 4001)).astype(np.float32)
    twice = jax.jit(rounded_alone(lambda a, b, c, s: jnp.where(a > 0, a * b + c, a / s - c)))
    inverse = np.float32(1.0) / np.float32(0.3)
    expected = np.where(a > 0, a * b + c, a * inverse - c)
    np.testing.assert_array_equal(twice(a, b, c, jnp.float32(0.3)), expected)
    once = jax.jit(lambda a, b, c: a * b + c)(a, b, c)
    if jax.default_backend() == "cpu":  # where left alone it does not, there is nothing to test
        assert np.any(np.asarray(once) != a * b + c)


# --- arguments out of range -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("push", "sentence"),
    [
        (lambda pair: pair.direction, r"must be a function push\(pair, u, kick\)"),
        ("push", r"must be a function push\(pair, u, kick\)"),
        (lambda _, u, kick: kick * u, r"the push has shape \(1, 5, 4\) .* a vector for each pair"),
        (lambda *_, **__: None, r"the push has shape \(\)"),
        (
            lambda pair, u, kick: jax.lax.complex(kick * u * pair.direction, pair.direction),
            "a vector for each pair, of real numbers",
        ),
        (lambda pair, u, kick: kick * u * pair.depth, "the push cannot be called with arrays .* no attribute 'depth'"),
        (lambda pair, u, kick: u * pair.direction if kick > 0 else u, r"arrays of pairs: .*jnp\.where"),
        (
            lambda pair, u, kick: kick * u * (pair.direction if pair.overlap > 0.1 else 0),
            r"arrays of pairs: .*jnp\.where",
        ),
    ],
)
def test_pushes_that_are_none(push: Any, sentence: str) -> None:
    with pytest.raises(pj.PackingError, match=sentence):
        pair_rule(push, kick=0.1)


def test_a_push_of_three_components_in_two_dimensions() -> None:
    rule = pair_rule(lambda *_, kick: kick * jnp.ones((3, 1, 1)), kick=0.1)
    with pytest.raises(pj.PackingError, match=r"the push has shape \(3, 1, 1\) for pairs of shape \(2, 16, "):
        pj.simulate(pj.System.create(0.3, 16, 2), rule, 2, jax.random.key(0))


def test_numbers_out_of_range() -> None:
    with pytest.raises(pj.PackingError, match=r"kick is nan; it must be a finite number"):
        pair_rule(push_of_bro, kick=np.nan)
    with pytest.raises(pj.PackingError, match=r"the draw is 'gauss'; it must be 'uniform' or 'normal'"):
        pair_rule(push_of_bro, draw="gauss", kick=0.1)
    with pytest.raises(pj.PackingError, match=r"the correlation is 2; it must be between 0"):
        pair_rule(push_of_bro, correlation=2, kick=0.1)
