"""Derivatives through runs against differences, against each other and against closed forms."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from results import keep
from small_runs import KEY, RULES, arguments, differentiable, ending_of, small_system

import packing_jax as pj
from packing_jax import System
from packing_jax.derivatives.averages import common_random_numbers
from packing_jax.derivatives.rollout import rollout
from packing_jax.spheres import noise
from packing_jax.spheres.neighbors import Plan, plan_for

# --- derivatives against differences --------------------------------------------------------------------------


@cache
def _value_and_slopes(name: str, dim: int, steps: int) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(ending_of(dim, RULES[name](), steps)))


ONCE = [("bro independent", 3), ("sgd", 2)]
LONG = [(name, dim) for name in RULES for dim in (2, 3) if (name, dim) not in ONCE]


@pytest.mark.parametrize(("name", "dim"), ONCE + [pytest.param(*one, marks=pytest.mark.validation) for one in LONG])
def test_derivatives_are_central_differences(name: str, dim: int, request: pytest.FixtureRequest) -> None:
    """Every argument, where no contact changes between the two ends; by hand, the differences go to gradients.json."""
    # where eight steps leave a slope near zero, which would test little, ten do not
    rule, steps = RULES[name](), 10 if (name, dim) == ("langevin independent", 3) else 8
    number = _value_and_slopes(name, dim, steps)
    at = arguments(dim, rule)
    slopes = number(at)[1]
    rng, found = np.random.default_rng(3), {}
    for argument, value in at.items():
        way = jnp.asarray(rng.normal(size=value.shape)) if value.ndim else jnp.ones(())
        by_h = []
        for h in (1e-6, 5e-7):
            ends = [float(number(at | {argument: value + sign * h * way})[0]) for sign in (1, -1)]
            by_h.append((ends[0] - ends[1]) / (2 * h))
        # to fourth order: some runs are so chaotic after 8 steps that the third derivative shows at h = 1e-6
        difference = (4 * by_h[1] - by_h[0]) / 3
        slope = float(jnp.sum(slopes[argument] * way))
        found[argument] = {
            "derivative": slope,
            "difference": difference,
            "relative": abs(slope - difference) / max(abs(difference), 1e-300),
        }
        np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=3e-9, err_msg=argument)
        if argument in ("start", "phi", "rule 0"):
            assert abs(slope) > 1e-3, argument
    if request.config.option.markexpr == "validation":
        keep("gradients.json", f"{name}, {dim}D", {"steps": steps, "arguments": found})


@pytest.mark.parametrize(
    "name", ["sgd", *(pytest.param(name, marks=pytest.mark.validation) for name in RULES if name != "sgd")]
)
def test_forward_mode_is_the_transpose(name: str) -> None:
    rule = RULES[name]()
    number, at = ending_of(2, rule, 8), arguments(2, rule)
    rng = np.random.default_rng(4)
    way = {argument: jnp.asarray(rng.normal(size=value.shape)) for argument, value in at.items()}
    along = jax.jit(lambda at: jax.jvp(number, (at,), (way,))[1])(at)
    slopes = _value_and_slopes(name, 2, 8)(at)[1]
    np.testing.assert_allclose(along, sum(jnp.sum(slopes[one] * way[one]) for one in at), rtol=1e-10)


def _interpolated(*rates: Any) -> optax.GradientTransformation:
    return optax.sgd(lambda step: jnp.interp(step.astype(jnp.float64), np.array([0.0, 4.0, 8.0]), jnp.stack(rates)))


def test_a_schedule_that_interpolates_and_one_of_two_tangents() -> None:
    """jax 0.12 has a new kind of primitive for jnp.interp; and not every tangent depends on what is differentiated."""
    system = small_system(2)
    plan = plan_for(system, 0.4)

    def spread(rates: Any, phi: Any) -> Any:
        rule = pj.sgd(Partial(_interpolated, *rates), 0.75)
        return jnp.mean(rollout(system.at_phi(phi), rule, 8, KEY, plan=plan).moved ** 2)

    rates = [jnp.asarray(0.3)] * 3
    number = jax.jit(jax.value_and_grad(spread, argnums=(0, 1)))
    slopes, of_phi = number(rates, 0.7)[1]
    for k, slope in enumerate(slopes):
        up, down = ([rate + h * (i == k) for i, rate in enumerate(rates)] for h in (1e-6, -1e-6))
        np.testing.assert_allclose(slope, (number(up, 0.7)[0] - number(down, 0.7)[0]) / 2e-6, rtol=1e-6)
    tangents = [jnp.ones(())] * 3
    through = jax.grad(lambda w: jax.jvp(spread, (rates, jnp.asarray(0.7)), (tangents, w))[1])(jnp.asarray(0.5))
    np.testing.assert_allclose(through, of_phi, rtol=1e-10)


@pytest.mark.validation
@pytest.mark.parametrize("name", ["sgd independent", "bro"])
def test_a_grid_whose_rows_are_made_again_gives_the_derivatives_of_all_pairs(name: str) -> None:
    system = System.create(0.75, 200, 2, sizes=pj.mixture_1_to_1_4(200), energy=pj.HARMONIC, dtype=np.float64)
    rule = RULES[name]()

    def slopes(plan: Plan, every: int) -> Any:
        def number(x: Any, phi: Any) -> Any:
            return jnp.sum(rollout(system.at_phi(phi), rule, 20, KEY, x, plan=plan, checkpoint_every=every).moved ** 2)

        return jax.jit(jax.grad(number, (0, 1)))(start, 0.75)

    start = jnp.asarray(np.random.default_rng(5).random((200, 2)))
    grid, pairs = plan_for(system, 0.1), Plan(cells=1, slots=224, capacity=199, skin=5.0)
    assert grid.cells > 3
    for one, other in zip(slopes(grid, 4), slopes(pairs, 20), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_checkpoints_change_memory_only() -> None:
    rule = RULES["sgd"]()
    at = arguments(2, rule)
    slopes, sizes = [], []
    for every in (7, 150):  # 7 leaves a remainder
        made = jax.jit(jax.grad(ending_of(2, rule, 150, checkpoint_every=every))).lower(at).compile()
        slopes.append(made(at))
        sizes.append(made.memory_analysis().temp_size_in_bytes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *slopes)
    assert sizes[0] < 0.4 * sizes[1]


@pytest.mark.parametrize("name", ["bro", pytest.param("adam", marks=pytest.mark.validation)])
def test_vmap_makes_one_run_after_another_and_jacobians_one_direction(name: str) -> None:
    """Several runs, several tangents and several cotangents, through two segments of which rows are listed anew."""
    system = System.create(0.7, 60, 2, energy=pj.HARMONIC, dtype=np.float64)
    plan, shape = plan_for(system, 0.1), jax.tree.structure(differentiable(RULES[name]()))
    kicks = jnp.asarray([0.05, 0.07])

    def ending(kick: Any, key: Any) -> Any:
        moving = jax.tree.unflatten(shape, [kick] * shape.num_leaves)
        rule = pj.sgd(moving) if name == "adam" else moving
        end = rollout(system, rule, 11, key, plan=plan, checkpoint_every=6)
        return jnp.stack([jnp.sum(end.moved**2), end.moved[0, 0]])

    keys = jax.random.split(KEY, 2)
    back = jax.jit(jax.vmap(jax.jacrev(ending)))(kicks, keys)
    forward = jax.jit(jax.jacfwd(ending))
    for k in range(2):
        np.testing.assert_allclose(forward(kicks[k], keys[k]), back[k], rtol=1e-9)
    if name == "adam":  # by hand: programs of their own take half a minute to compile
        np.testing.assert_array_equal(jax.lax.map(lambda both: jax.jacrev(ending)(*both), (kicks, keys)), back)
        both = jax.grad(lambda kicks: jnp.sum(jax.vmap(ending)(kicks, keys)[:, 0]))(kicks)
        np.testing.assert_allclose(both, back[:, 0], rtol=1e-12)
        alone = jnp.stack([ending(kick, key) for kick, key in zip(kicks, keys, strict=True)])
        np.testing.assert_array_equal(jax.vmap(ending)(kicks, keys), alone)


def test_float32_gives_the_derivative_of_float64_and_is_linear_in_the_cotangent() -> None:
    slopes = {}
    for dtype in (np.float32, np.float64):
        system = System.create(0.7, 60, 2, energy=pj.HARMONIC, dtype=dtype)
        start = jnp.asarray(np.random.default_rng(6).integers(0, 2**20, (60, 2)) / 2**20, dtype)  # the same in both
        plan, diameters = plan_for(system, 0.1), jnp.full(60, np.asarray(system.diameters), dtype)

        def moved(x: Any, sizes: Any, system: System = system, plan: Plan = plan) -> Any:
            return rollout(system.with_diameters(sizes), pj.langevin(0.1), 5, KEY, x, plan=plan).moved

        back = jax.jit(lambda x, sizes, ct, moved=moved: jax.vjp(moved, x, sizes)[1](ct))
        cotangents = jnp.asarray(np.random.default_rng(7).normal(size=(2, 60, 2)), dtype)
        first, second, both = (
            back(start, diameters, one) for one in (*cotangents, 2.0 * cotangents[0] - 0.5 * cotangents[1])
        )
        for a, b, c in zip(first, second, both, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(2.0 * a - 0.5 * b, c, rtol=0, atol=100 * np.finfo(dtype).eps * np.abs(c).max())
        slopes[dtype] = first
    for one, other in zip(slopes[np.float32], slopes[np.float64], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


# --- closed forms ---------------------------------------------------------------------------------------------

UNIT = 0.2  # diameter


def _line(gaps: list[float], energy: Any = pj.HARMONIC) -> tuple[System, np.ndarray]:
    """Spheres of diameter 0.2 on a line along x, centres ``gaps`` apart."""
    system = System.from_diameters(UNIT, len(gaps) + 1, 2, energy=energy, dtype=np.float64)
    x = np.concatenate([[0.0], np.cumsum(gaps)]) + 0.31
    return system, np.stack([x, np.full_like(x, 0.4)], axis=1)


def _gaps(system: System, rule: Any, steps: int, start: Any) -> Any:
    end = rollout(system, rule, steps, KEY, start, plan=plan_for(_line([0.1] * (system.particles - 1))[0], 0.4))
    return jnp.diff((end.moved + start)[:, 0])


def _draws(steps: int, kind: Callable[..., Any]) -> np.ndarray:
    """The numbers of the pair (0, 1) at each step."""
    noise_key = jax.random.fold_in(KEY, 1)
    tags = jnp.arange(2, dtype=jnp.int32)
    words = [noise.particle_words(jax.random.fold_in(noise_key, t), tags).pair for t in range(steps)]
    return np.array([kind(noise.pair_words(w[0], w[1]), np.dtype(np.float64)) for w in words])


@pytest.mark.validation
def test_two_spheres_that_kick_each_other_part_by_the_sum_of_the_kicks() -> None:
    """r_T = r_0 + 2 eps sigma sum_t u_t."""
    system, start = _line([0.1])
    u = _draws(5, noise.uniform)
    gap, slope = jax.value_and_grad(lambda kick: _gaps(system, pj.bro(kick), 5, jnp.asarray(start))[0])(0.02)
    np.testing.assert_allclose(gap, 0.1 + 2 * 0.02 * UNIT * u.sum(), rtol=1e-12)
    np.testing.assert_allclose(slope, 2 * UNIT * u.sum(), rtol=1e-12)


def test_two_langevin_spheres() -> None:
    """Overlap delta = 1 - r/sigma shrinks by 1 - eps (1 + z_t/sqrt 3) a step."""
    system, start = _line([0.1])
    steps, kick, first = 6, 0.1, 0.5
    pull = 1 + _draws(steps, noise.normal) / np.sqrt(3)
    factors = 1 - kick * pull
    assert np.all((factors > 0) & (np.cumprod(factors) < 2))
    gap, slope = jax.value_and_grad(lambda k: _gaps(system, pj.langevin(k), steps, jnp.asarray(start))[0])(kick)
    np.testing.assert_allclose(gap, UNIT * (1 - first * factors.prod()), rtol=1e-12)
    np.testing.assert_allclose(slope, UNIT * first * factors.prod() * np.sum(pull / factors), rtol=1e-12)


def test_three_spheres_relax_in_two_modes() -> None:
    """Overlaps of a chain: their sum shrinks by 1 - alpha/2 a step and their difference by 1 - 3 alpha/2."""
    system, start = _line([0.13, 0.17])
    rate, steps = 0.3, 9

    def overlap(rate: Any, start: Any) -> Any:
        return 1.0 - _gaps(system, pj.sgd(Partial(optax.sgd, learning_rate=rate)), steps, start)[0] / UNIT

    value, (by_rate, by_start) = jax.value_and_grad(overlap, (0, 1))(rate, jnp.asarray(start))
    total, difference = 0.35 + 0.15, 0.35 - 0.15
    slow, fast = 1 - rate / 2, 1 - 3 * rate / 2
    np.testing.assert_allclose(value, 0.5 * (total * slow**steps + difference * fast**steps), rtol=1e-12)
    expected = -0.5 * steps * (0.5 * total * slow ** (steps - 1) + 1.5 * difference * fast ** (steps - 1))
    np.testing.assert_allclose(by_rate, expected, rtol=1e-12)
    # the overlaps' derivatives in the three places are (1, -1, 0)/sigma and (0, 1, -1)/sigma
    first, second = 0.5 * (slow**steps + fast**steps), 0.5 * (slow**steps - fast**steps)
    along = np.array([first, second - first, -second]) / UNIT
    np.testing.assert_allclose(by_start, np.stack([along, 0 * along], axis=1), rtol=1e-12, atol=1e-14)


def test_common_random_numbers_find_the_derivative_in_the_batch_fraction() -> None:
    """Two spheres: <delta_T> = delta_0 (1 - b alpha)^T, since the pair is chosen or not at each step."""
    system, start = _line([0.1])
    steps, rate, fraction = 4, 0.4, 0.5

    def overlaps(fractions: Any, keys: Any) -> Any:
        rule = pj.sgd(Partial(optax.sgd, learning_rate=rate), fractions)
        end = pj.simulate(system, rule, steps, keys, start=start, record={}, times=np.array([steps]))
        return 1.0 - np.diff(end.positions[:, :, 0], axis=1)[:, 0] / UNIT

    slope, error = common_random_numbers(overlaps, fraction, 0.05, jax.random.split(KEY, 256))
    exact = -steps * rate * 0.5 * (1 - rate * fraction) ** (steps - 1)
    assert abs(slope - exact) < 4 * error
    assert error < 0.2 * abs(exact)
