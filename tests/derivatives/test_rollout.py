"""Runs as differentiable functions: the driver's bits, and derivatives against differences and closed forms."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from results import keep

import packing_jax as pj
from packing_jax import PackingError, System
from packing_jax.derivatives import segment as replay
from packing_jax.derivatives.averages import common_random_numbers
from packing_jax.derivatives.rollout import rollout, rollout_plan
from packing_jax.spheres import noise
from packing_jax.spheres.neighbors import Plan, plan_for

KEY = jax.random.key(7)


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    # optax's Adam mixes dtypes
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _adam(rate: Any) -> Any:
    return Partial(optax.adam, learning_rate=rate, b1=0.8, eps_root=1e-3)


def _clipped(rate: Any, limit: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(limit), optax.sgd(rate))


MOMENTUM = Partial(optax.sgd, learning_rate=0.3, momentum=0.5)
RULES: dict[str, Any] = {
    "bro": lambda: pj.bro(0.05),
    "bro independent": lambda: pj.bro(0.05, correlation=0.0),
    "bro correlated": lambda: pj.bro(0.05, correlation=0.5),
    "bro particle": lambda: pj.bro(0.05, "particle"),
    "bro normalised": lambda: pj.bro(0.05, "particle-normalised"),
    "ro": lambda: pj.random_organization(0.05),
    "ro pair": lambda: pj.random_organization(0.05, "pair"),
    "ro correlated": lambda: pj.random_organization(0.05, "pair", 0.5),
    "langevin": lambda: pj.langevin(0.2),
    "langevin independent": lambda: pj.langevin(0.2, correlation=0.0),
    "langevin correlated": lambda: pj.langevin(0.2, correlation=0.5),
    "langevin particle": lambda: pj.langevin(0.2, "particle"),
    "sgd": lambda: pj.sgd(MOMENTUM, 0.5),
    "sgd independent": lambda: pj.sgd(MOMENTUM, 0.5, correlation=0.0),
    "sgd correlated": lambda: pj.sgd(MOMENTUM, 0.5, correlation=0.5),
    "sgd particle": lambda: pj.sgd(MOMENTUM, 0.5, "particle"),
    "sgd selective": lambda: pj.sgd(MOMENTUM, 0.5, selective=True),
    "adam": lambda: pj.sgd(_adam(0.02)),
    "clipped": lambda: pj.sgd(Partial(_clipped, rate=0.3, limit=0.4), 0.75),
    "scheduled": lambda: pj.sgd(Partial(_scheduled, rate=0.3, decay=0.9), 0.75),
}


def _scheduled(rate: Any, decay: Any) -> optax.GradientTransformation:
    # not optax.exponential_decay, which asks in Python whether the decay is zero
    return optax.sgd(lambda step: rate * decay**step)


def _system(dim: int, n: int = 16, box: float = 1.7) -> System:
    sizes = pj.mixture_1_to_1_4(n) if dim == 2 else np.linspace(0.9, 1.1, n)
    energy = pj.overlap(jnp.asarray(2.2), jnp.asarray(0.6))
    return System.create(0.7 if dim == 2 else 0.5, n, dim, sizes=sizes, energy=energy, box=box, dtype=np.float64)


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


# --- derivatives against differences --------------------------------------------------------------------------


def _arguments(dim: int, rule: Any) -> dict[str, Any]:
    system = _system(dim)
    numbers = {f"rule {i}": leaf for i, leaf in enumerate(jax.tree.leaves(_moving(rule)))}
    start = np.random.default_rng(dim).random((system.particles, dim)) * 1.7
    return {
        "start": jnp.asarray(start),
        "diameters": system.diameters,
        "phi": jnp.asarray(system.phi),
        "box": system.box,
        "unit": system.unit,
        "exponent": system.energy.exponent,
        "a0": system.energy.a0,
        **{name: jnp.asarray(value, jnp.float64) for name, value in numbers.items()},
    }


def _moving(rule: Any) -> Any:
    """What a rule has a derivative in."""
    return rule.optimizer if hasattr(rule, "optimizer") else rule


def _ending(dim: int, rule: Any, steps: int, plan: Plan | None = None, **options: Any) -> Callable[..., Any]:
    """A number that depends on where everything went, as a function of all that can be varied."""
    system = _system(dim)
    plan = plan or plan_for(system, 0.4)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(system.particles, dim)))
    shape = jax.tree.structure(_moving(rule))

    def number(a: dict[str, Any]) -> Any:
        energy = pj.overlap(a["exponent"], a["a0"])
        there = replace(system.at_phi(a["phi"]).with_energy(energy), box=a["box"])
        grown = a["diameters"] / system.diameters
        there = replace(there, diameters=there.diameters * grown, unit=there.unit * a["unit"] / system.unit)
        moving = jax.tree.unflatten(shape, [a[name] for name in a if name.startswith("rule")])
        made = replace(rule, optimizer=moving) if hasattr(rule, "optimizer") else moving
        end = rollout(there, made, steps, KEY, a["start"], plan=plan, **options)
        return jnp.sum(weights * end.moved) / there.box + jnp.mean(end.positions**2)

    return number


ONCE = [("bro independent", 3), ("sgd", 2)]
LONG = [(name, dim) for name in RULES for dim in (2, 3) if (name, dim) not in ONCE]


@pytest.mark.parametrize(("name", "dim"), ONCE + [pytest.param(*one, marks=pytest.mark.validation) for one in LONG])
def test_derivatives_are_central_differences(name: str, dim: int, request: pytest.FixtureRequest) -> None:
    """Every argument, where no contact changes between the two ends; by hand, the differences go to gradients.json."""
    # where eight steps leave a slope near zero, which would test little, ten do not
    rule, steps = RULES[name](), 10 if (name, dim) == ("langevin independent", 3) else 8
    number = jax.jit(jax.value_and_grad(_ending(dim, rule, steps)))
    at = _arguments(dim, rule)
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
    number, at = _ending(2, rule, 8), _arguments(2, rule)
    rng = np.random.default_rng(4)
    way = {argument: jnp.asarray(rng.normal(size=value.shape)) for argument, value in at.items()}
    along = jax.jit(lambda at: jax.jvp(number, (at,), (way,))[1])(at)
    slopes = jax.jit(jax.grad(number))(at)
    np.testing.assert_allclose(along, sum(jnp.sum(slopes[one] * way[one]) for one in at), rtol=1e-10)


def _interpolated(*rates: Any) -> optax.GradientTransformation:
    return optax.sgd(lambda step: jnp.interp(step.astype(jnp.float64), np.array([0.0, 4.0, 8.0]), jnp.stack(rates)))


def test_a_schedule_that_interpolates_and_one_of_two_tangents() -> None:
    """jax 0.12 has a new kind of primitive for jnp.interp; and not every tangent depends on what is differentiated."""
    system = _system(2)
    plan = plan_for(system, 0.4)

    def spread(rates: Any, phi: Any) -> Any:
        rule = pj.sgd(Partial(_interpolated, *rates), 0.75)
        return jnp.mean(rollout(system.at_phi(phi), rule, 8, KEY, plan=plan).moved ** 2)

    rates = [jnp.asarray(0.3)] * 3
    slopes, of_phi = jax.jit(jax.grad(spread, argnums=(0, 1)))(rates, 0.7)
    for k, slope in enumerate(slopes):
        up, down = ([rate + h * (i == k) for i, rate in enumerate(rates)] for h in (1e-6, -1e-6))
        np.testing.assert_allclose(slope, (spread(up, 0.7) - spread(down, 0.7)) / 2e-6, rtol=1e-6)
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
    at = _arguments(2, rule)
    slopes, sizes = [], []
    for every in (7, 150):  # 7 leaves a remainder
        made = jax.jit(jax.grad(_ending(2, rule, 150, checkpoint_every=every))).lower(at).compile()
        slopes.append(made(at))
        sizes.append(made.memory_analysis().temp_size_in_bytes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *slopes)
    assert sizes[0] < 0.4 * sizes[1]


@pytest.mark.parametrize("name", ["bro", pytest.param("adam", marks=pytest.mark.validation)])
def test_vmap_makes_one_run_after_another_and_jacobians_one_direction(name: str) -> None:
    """Several runs, several tangents and several cotangents, through two segments of which rows are listed anew."""
    system = System.create(0.7, 60, 2, energy=pj.HARMONIC, dtype=np.float64)
    plan, shape = plan_for(system, 0.1), jax.tree.structure(_moving(RULES[name]()))
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


# --- what has no derivative -----------------------------------------------------------------------------------


def test_absorbed_runs_say_that_nothing_moves_and_give_zeros_not_nans() -> None:
    """At the start, and on the way, with a gradient norm whose derivative is 0/0 once nothing overlaps."""
    system = System.create(0.1, 12, 2, energy=pj.LINEAR, dtype=np.float64)
    start = jnp.asarray(np.random.default_rng(2).random((12, 2)))
    rule = pj.sgd(Partial(_clipped, rate=0.9, limit=0.2))
    met = rollout(system, rule, 60, KEY, start)
    assert 0 < met.absorbed_at < 60
    assert "zero by nature" in met.check()

    @jax.jit
    def slopes(x: Any, limit: Any) -> Any:
        def number(x: Any, limit: Any) -> Any:
            made = pj.sgd(Partial(_clipped, rate=0.9, limit=limit))
            end = rollout(system, made, 60, KEY, x, plan=met.plan, checkpoint_every=20)
            return jnp.stack([pj.total_energy(system, end.positions), jnp.sum(end.moved**2)])

        back = jax.vjp(number, x, limit)[1]
        return back(jnp.array([1.0, 0.0])), back(jnp.array([0.0, 1.0]))

    energy, moved = slopes(start, 0.2)
    assert all(not np.any(one) for one in energy)
    assert all(np.all(np.isfinite(one)) for one in moved)
    assert np.any(moved[0] != 0)
    assert all(not np.any(one) for one in slopes(met.positions, 0.2)[1])


def test_an_empty_minibatch_passes_no_nan_back_through_a_norm() -> None:
    system = System.create(0.3, 32, 2, dtype=np.float64)
    plan = plan_for(system, 0.4)

    def spread(rate: Any) -> Any:
        rule = pj.sgd(Partial(_clipped, rate=rate, limit=0.5), 0.5)
        return jnp.mean(rollout(system, rule, 60, jax.random.key(3), plan=plan).moved ** 2)

    slope = jax.grad(spread)(0.5)
    np.testing.assert_allclose(slope, jax.jvp(spread, (0.5,), (1.0,))[1], rtol=1e-9)
    assert slope != 0


def test_derivatives_that_go_elsewhere_are_named() -> None:
    system = _system(2)
    with pytest.raises(PackingError, match="a derivative goes through"):
        jax.grad(lambda kick: jnp.sum(pj.simulate(system, pj.bro(kick), 3, KEY).positions))(0.1)
    with pytest.raises(PackingError, match="Partial"):
        jax.grad(lambda rate: jnp.sum(pj.sgd(optax.sgd(rate)).batch_fraction))(0.1)
    with pytest.raises(PackingError, match="holds a traced number"):
        jax.grad(lambda c: pj.PairEnergy(lambda r, sigma: c * (sigma - r), 1.0).slope_bound * c)(0.5)
    with pytest.raises(PackingError, match="holds a function"):
        pj.sgd(Partial(optax.sgd, learning_rate=optax.cosine_decay_schedule(0.1, 10)))
    with pytest.raises(PackingError, match="more than a gradient"):
        pj.sgd(optax.lbfgs())


def test_choices_and_constants_are_refused_in_a_sentence() -> None:
    system = _system(2)
    plan = plan_for(system, 0.4)

    def number(rate: Any, fraction: Any) -> Any:
        rule = pj.sgd(Partial(optax.sgd, learning_rate=rate), fraction)
        return jnp.sum(rollout(system, rule, 3, KEY, plan=plan).moved ** 2)

    assert jax.grad(number)(0.3, 0.5) != 0
    assert jax.grad(jax.jit(number))(0.3, 0.5) != 0
    for wrong in (jax.grad(number, 1), jax.grad(jax.jit(number), 1), lambda a, b: jax.jvp(number, (a, b), (0.0, 1.0))):
        with pytest.raises(PackingError, match=r"chooses which pairs move.*common_random_numbers"):
            wrong(0.3, 0.5)
    for twice in (jax.grad(jax.grad(number)), jax.hessian(number)):
        with pytest.raises(PackingError, match=r"first derivatives only"):
            twice(0.3, 0.5)
    with pytest.raises(PackingError, match=r"plan=rollout_plan"):
        jax.grad(lambda phi: jnp.sum(rollout(system.at_phi(phi), pj.bro(0.1), 3, KEY).moved))(0.7)


def test_bad_input() -> None:
    system, rule = _system(2), pj.bro(0.1)
    for wrong, sentence in [
        (lambda: rollout(system, rule, -1, KEY), "whole number"),
        (lambda: rollout(system, rule, 9, KEY, checkpoint_every=10), "from 1 to the steps, 9"),
        (lambda: rollout(system, rule, 9, jax.random.key_data(KEY)), "typed key"),
        (lambda: rollout(system, pj.bro(np.array([0.1, 0.2])), 9, KEY), "of one system"),
        (lambda: rollout(system, rule, 9, KEY, np.zeros((3, 2))), r"must be \(16, 2\)"),
        (lambda: rollout(system, rule, 9, KEY, np.full((16, 2), np.nan)), "finite"),
        (lambda: rollout(system, pj.sgd(Partial(optax.adam, learning_rate=0.1)), 9, KEY), "eps_root"),
        (lambda: common_random_numbers(lambda v, _: v, 0.5, 0.0, jax.random.split(KEY, 3)), "width"),
        (lambda: common_random_numbers(lambda v, _: v, 0.5, 0.1, KEY), "at least 2 runs"),
        (lambda: common_random_numbers(lambda v, _: v, 0.5, 0.1, jax.random.key_data(KEY)), "typed key"),
        (lambda: common_random_numbers(lambda v, _: v[0], 0.5, 0.1, jax.random.split(KEY, 3)), "one each"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            wrong()


def test_traced_numbers_out_of_range_make_nan_and_a_sentence() -> None:
    system = _system(2)
    plan, start = plan_for(system, 0.4), np.random.default_rng(0).random((16, 2))

    @partial(jax.jit, static_argnums=0)
    def run(rule: Any, number: Any, phi: Any, exponent: Any, first: Any) -> Any:
        there = system.at_phi(phi).with_energy(pj.overlap(exponent))
        return rollout(there, rule(number), 3, KEY, first + start, plan=plan)

    assert run(pj.langevin, 0.1, 0.7, 2.0, 0.0).check() == ""
    descent = partial(pj.sgd, optax.sgd(0.1))
    for numbers in [
        (pj.langevin, 0.0, 0.7, 2.0, 0.0),
        (pj.langevin, 0.1, -0.3, 2.0, 0.0),
        (pj.langevin, 0.1, 0.7, 0.5, 0.0),
        (pj.langevin, 0.1, 0.7, 2.0, np.nan),
        (descent, 1.5, 0.7, 2.0, 0.0),
    ]:
        end = run(*numbers)
        assert np.isnan(end.moved).all(), numbers
        with pytest.raises(PackingError, match="traced is out of range"):
            end.check()


def test_lost_neighbours_and_divergence_are_never_silent() -> None:
    system = _system(2)
    short = replace(plan_for(system, 0.4), capacity=4)
    value, slope = jax.value_and_grad(
        lambda kick: jnp.sum(rollout(system, pj.bro(kick), 5, KEY, plan=short).positions)
    )(0.1)
    assert np.isnan(value)
    assert np.isnan(slope)
    end = rollout(system, pj.bro(0.1), 5, KEY, plan=short)
    with pytest.raises(PackingError, match="more than the plan holds"):
        end.check()
    fit = rollout_plan(system, pj.bro(0.1), 5, KEY)
    assert fit.capacity >= int(end.needed_row)
    wide = rollout(System.create(0.8, 300, 2), pj.bro(0.1), 5, KEY, plan=plan_for(System.create(0.3, 300, 2), 0.4))
    assert np.isnan(wide.positions).all()
    with pytest.raises(PackingError, match="made for smaller ones"):
        wide.check()
    wild = pj.sgd(Partial(optax.sgd, learning_rate=1e6))
    with pytest.raises(PackingError, match="diverged"):
        rollout_plan(system, wild, 5, KEY)


@pytest.mark.validation
def test_a_list_that_does_not_fit_on_the_way_back_makes_the_derivative_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    system = _system(2)
    plan = plan_for(system, 0.4)
    monkeypatch.setattr(replay.nb, "overflowed", lambda *_: jnp.ones((), bool))
    value, slope = jax.value_and_grad(lambda kick: jnp.sum(rollout(system, pj.bro(kick), 3, KEY, plan=plan).moved))(0.1)
    assert np.isfinite(value)
    assert np.isnan(slope)


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
