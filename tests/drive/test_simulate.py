"""The driver against slow references: every step of a run, absorption, schedules, overflow, divergence, bad input."""

import inspect
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import packing_jax as pj
from packing_jax.drive.chunk import on_devices
from packing_jax.drive.run import Progress, begin, default_batch
from packing_jax.errors import PackingError
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres import noise, tuning
from packing_jax.spheres.geometry import quanta
from packing_jax.spheres.particles import device_width, particles_of
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System

simulate = inspect.unwrap(pj.simulate)  # without the annotation checks of the test suite: for bad input

N, STEPS = 200, 40
KEY = jax.random.key(7)
BOX = 3.0  # nothing may depend on the unit of length


def _overlaps(positions: np.ndarray, diameters: np.ndarray | float, box: float) -> np.ndarray:
    """Depth 1 - r/sigma of every pair (N, N), all pairs in float64, zero where apart."""
    n = len(positions)
    diameters = np.broadcast_to(np.asarray(diameters, np.float64), (n,))
    apart = positions[:, None].astype(np.float64) - positions[None]
    apart -= box * np.round(apart / box)
    r = np.sqrt((apart**2).sum(axis=-1))
    np.fill_diagonal(r, np.inf)
    return np.maximum(1 - r / (0.5 * (diameters[:, None] + diameters[None])), 0.0)


# --- a crowded run, step by step ------------------------------------------------------------------------------


@cache
def _crowd() -> System:
    return System.create(0.8, N, 2, sizes=pj.mixture_1_to_1_4(N), box=BOX)


RULE = pj.random_organization(3.0)  # moves of up to three diameters: particles cross the box and the list is always old


def _run(rule: Any = RULE, steps: int = STEPS, **options: Any) -> pj.Trajectory:
    return pj.simulate(_crowd(), rule, steps, KEY, **{"times": np.arange(steps + 1)} | options)


@cache
def _reference() -> tuple[np.ndarray, np.ndarray]:
    """The rule alone, with a list of all pairs at each step: wrapped and unwrapped, (T + 1, N, dim) in box sides."""
    system = _crowd()
    plan = nb.Plan(cells=1, slots=224, capacity=N - 1, skin=0.5)
    tags = jnp.arange(N, dtype=jnp.int32)

    @jax.jit
    def move(step: jax.Array, coordinates: jax.Array) -> jax.Array:
        neighbors = nb.build(plan, system, coordinates, tags)
        words = noise.particle_words(jax.random.fold_in(jax.random.fold_in(KEY, 1), step), tags)
        return RULE.step(words, system, coordinates, neighbors, ())[0]

    start = np.asarray(gather_replicas(system, RULE, KEY, None)[0].start[0])
    wrapped, unwrapped = [start], [start.astype(np.int64)]
    for step in range(STEPS):
        displacement = np.asarray(move(jnp.int32(step), jnp.asarray(wrapped[-1])))
        with np.errstate(over="ignore"):
            wrapped.append(wrapped[-1] + displacement)
        unwrapped.append(unwrapped[-1] + displacement)
    side = quanta(np.dtype(np.float32))
    inside, everywhere = (np.stack(x).transpose(0, 2, 1) / side for x in (wrapped, unwrapped))
    return inside % 1.0, everywhere


@cache
def _every_step() -> pj.Trajectory:
    return _run()


def test_final_positions_are_those_of_the_rule_alone() -> None:
    # kicks of up to 3 diameters (0.64) are added up 40 times; another rounding of their unit may show in the last bits
    np.testing.assert_allclose(_every_step().positions, _reference()[0][-1] * BOX, rtol=0, atol=3e-6)
    assert _every_step().absorbed_at == -1
    np.testing.assert_array_equal(_every_step().times, np.arange(STEPS + 1))


def test_displacement_is_followed_through_the_periodic_boundary() -> None:
    _, everywhere = _reference()
    moved = everywhere - everywhere[0]
    assert np.max(np.abs(moved)) > 1.5  # some went all round the box
    expected = (moved**2).sum(axis=-1).mean(axis=1) * (BOX / float(_crowd().unit)) ** 2
    np.testing.assert_allclose(_every_step()["msd"], expected, rtol=1e-5)
    assert _every_step()["msd"][0] == 0


def test_records_are_what_the_positions_say() -> None:
    inside, _ = _reference()
    diameters, unit = np.asarray(_crowd().diameters, np.float64), float(_crowd().unit)
    run = _every_step()
    for step in range(STEPS + 1):
        depth = _overlaps(inside[step] * BOX, diameters, BOX)
        assert run["activity"][step] == pytest.approx(np.any(depth > 0, axis=1).mean(), rel=2e-7)
        # V = a0 (1 - r/sigma), a0 = 1/2 of the mean diameter; per particle and in mean diameters
        assert run["energy"][step] == pytest.approx(0.5 * depth.sum() / 2 / N, rel=1e-5)
    assert unit == pytest.approx(diameters.mean(), rel=1e-6)


def test_records_at_other_times_are_the_same_numbers() -> None:
    """A schedule that starts late, with gaps; a measurement changes nothing."""
    times = np.array([3, 4, 25, STEPS])
    sparse = _run(times=times)
    for name, values in sparse.records.items():
        np.testing.assert_array_equal(values, _every_step()[name][times])
    np.testing.assert_array_equal(sparse.positions, _every_step().positions)


@pytest.mark.parametrize("small", [{"capacity": 2}, {"slots": 4}])
def test_overflow_is_repaired(small: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan with far too little room gives the same bits: the chunk that overflowed is void."""
    plans: list[nb.Plan] = []
    plan_for = nb.plan_for

    def first_tiny(system: System, skin: float) -> nb.Plan:
        plan = plan_for(system, skin)
        plans.append(plan if plans else replace(plan, **small))
        return plans[-1]

    monkeypatch.setattr(nb, "plan_for", first_tiny)
    run = _run(record={}, times=np.array([STEPS]), chunk_steps=7)
    assert plans[0].cells >= 3
    np.testing.assert_array_equal(run.positions, _every_step().positions)


def test_a_plan_that_changes_on_the_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver tunes skins and capacities while it runs."""
    skins = iter([0.2, 0.4] * 20)
    monkeypatch.setattr(tuning, "next_plan", lambda _, system, *__: (nb.plan_for(system, next(skins)), np.inf))
    run = _run(record={}, times=np.array([STEPS]), chunk_steps=5)
    assert next(skins, None) is not None
    np.testing.assert_array_equal(run.positions, _every_step().positions)


def test_progress_reaches_the_end() -> None:
    seen: list[Progress] = []
    _run(on_progress=seen.append, chunk_steps=15)
    assert [one.unit_steps for one in seen] == [15 * N, 30 * N, 40 * N]
    assert [one.done for one in seen] == [0, 0, 1]
    np.testing.assert_allclose([one.share for one in seen], [15 / 40, 30 / 40, 1])


# --- absorption -----------------------------------------------------------------------------------------------

DILUTE_STEPS = 60
KICKS = np.array([0.05, 0.1, 0.2, 0.4, 1e-3], np.float32)  # the last is too gentle to get anywhere


def _dilute(start: Any = None, **options: Any) -> pj.Trajectory:
    system = System.create(0.2, N, 2, box=BOX)
    rule = pj.bro(jnp.asarray(KICKS))
    return pj.simulate(
        system, rule, DILUTE_STEPS, KEY, start=start, times=np.arange(DILUTE_STEPS + 1), chunk_steps=7, **options
    )


@cache
def _absorbed() -> tuple[pj.Trajectory, list[Progress]]:
    seen: list[Progress] = []
    return _dilute(batch=2, on_progress=seen.append), seen


def test_absorption_is_the_first_step_without_an_overlap() -> None:
    run, seen = _absorbed()
    system = System.create(0.2, N, 2, box=BOX)
    assert run["activity"].shape == (5, DILUTE_STEPS + 1)
    assert run.absorbed_at[4] == -1
    assert len({int(step) for step in run.absorbed_at}) > 2
    for r, step in enumerate(run.absorbed_at):
        overlapping = np.any(_overlaps(run.positions[r], float(system.diameters), BOX) > 0)
        if step < 0:
            assert np.all(run["activity"][r] > 0)
            assert overlapping
            continue
        assert not overlapping
        assert np.all(run["activity"][r, :step] > 0)
        assert np.all(run["activity"][r, step:] == 0)
        assert np.all(run["energy"][r, step:] == 0)
        assert np.all(run["msd"][r, step:] == run["msd"][r, step])
        assert run["msd"][r, step] > 0
    # what is absorbed costs nothing more
    made = np.where(run.absorbed_at < 0, DILUTE_STEPS, run.absorbed_at)
    assert seen[-1] == Progress(5, 5, 1.0, int(made.sum()) * N)


def test_places_that_become_free_change_nothing() -> None:
    """All at once, where the batch narrows to the last replica, against two at a time, where others take the places.

    The side of the box is no power of two: 1/(sigma/box) rounds otherwise than box/sigma, and XLA may write either.
    """
    run, _ = _absorbed()
    wide = _dilute()
    np.testing.assert_array_equal(wide.positions, run.positions)
    np.testing.assert_array_equal(wide.absorbed_at, run.absorbed_at)
    for name in run.records:
        np.testing.assert_array_equal(wide[name], run[name])


def test_an_absorbed_start_stays() -> None:
    run, _ = _absorbed()
    again = _dilute(start=run.positions, batch=2)
    done = run.absorbed_at >= 0
    assert np.all(again.absorbed_at[done] == 0)
    np.testing.assert_allclose(again.positions[done], run.positions[done], rtol=0, atol=3e-7)
    for name in run.records:
        assert np.all(again[name][done] == 0)


# --- divergence -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1e9, np.nan])
def test_divergence_of_a_learning_rate(rate: float) -> None:
    rule = pj.sgd(jax.tree_util.Partial(optax.sgd, learning_rate=jnp.asarray([0.1, rate], np.float32)))
    with pytest.raises(PackingError, match=r"replica 1 diverged at step 0: .*use a smaller kick or learning rate"):
        _run(rule, 3, record={}, times=np.array([3]))


@pytest.mark.parametrize("make", [pj.bro, pj.random_organization])
def test_kicks_longer_than_a_quarter_of_the_box_are_refused(make: Any) -> None:
    with pytest.raises(PackingError, match="below a quarter of a side"):
        _run(make(1000.0), 3, record={}, times=np.array([3]))


# --- schedules and bad input ----------------------------------------------------------------------------------


def test_zero_steps_leave_everything_in_place() -> None:
    run = _run(steps=0, times=np.array([0]), record={})
    np.testing.assert_allclose(run.positions, _reference()[0][0] * BOX, rtol=0, atol=3e-7)
    assert run.absorbed_at == -1


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 5, 5, STEPS], "increasing"),
        ([0, 8, 3, STEPS], "increasing"),
        ([0.5, STEPS], "whole steps"),
        ([0, np.nan, STEPS], "whole steps"),
        ([], "whole steps"),
        ([[0, STEPS]], "whole steps"),
        ([0, STEPS - 1], f"end at step {STEPS}"),
        ([0, STEPS + 1], f"end at step {STEPS}"),
        ([-1, STEPS], f"end at step {STEPS}"),
    ],
)
def test_bad_times(times: Any, message: str) -> None:
    with pytest.raises(PackingError, match=message):
        simulate(_crowd(), RULE, STEPS, KEY, times=np.array(times))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (np.zeros((N, 3)), r"shape \(200, 3\); it must end in \(200, 2\)"),
        (np.zeros((N - 1, 2)), r"must end in \(200, 2\)"),
        (np.zeros(N), r"must end in \(200, 2\)"),
        (np.zeros((1, 1, N, 2)), r"must end in \(200, 2\)"),
        (np.full((N, 2), np.nan), "400 start coordinates are NaN or infinite"),
        (np.where(np.arange(2 * N).reshape(N, 2) == 3, np.inf, 0.1), "1 start coordinates"),
    ],
)
def test_bad_starts(start: Any, message: str) -> None:
    with pytest.raises(PackingError, match=message):
        simulate(_crowd(), RULE, STEPS, KEY, start=start)


def test_replica_axes_that_disagree() -> None:
    rule = pj.random_organization(jnp.asarray([0.1, 0.2]))
    with pytest.raises(PackingError, match=r"replica axes of lengths \[2, 3\]"):
        simulate(_crowd(), rule, STEPS, jax.random.split(KEY, 3))
    with pytest.raises(PackingError, match=r"replica axes of lengths \[2, 4\]"):
        simulate(_crowd(), rule, STEPS, KEY, start=np.zeros((4, N, 2)))
    with pytest.raises(PackingError, match=r"replica axes of lengths \[2, 3\]"):
        simulate(pj.stack([_crowd()] * 3), rule, STEPS, KEY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "at least 1"),
        ({"chunk_steps": 0}, "at least 1"),
        ({"skin": 0.0}, "must be positive"),
        ({"skin": -0.1}, "must be positive"),
        ({"skin": np.nan}, "must be positive"),
        ({"skin": np.inf}, "positive"),
        ({"steps": -1}, "whole number"),
        ({"steps": 2**31}, "whole number"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    steps = options.pop("steps", STEPS)
    with pytest.raises(PackingError, match=message):
        simulate(_crowd(), RULE, steps, KEY, **options)


def test_keys_are_typed_keys() -> None:
    """A key of the old kind looks like two replicas."""
    with pytest.raises(PackingError, match=r"jax\.random\.key"):
        simulate(_crowd(), RULE, STEPS, jax.random.PRNGKey(0))


@pytest.mark.parametrize(("key", "given"), [(0, "0"), (None, "None"), (np.zeros(2, np.uint32), "an array of numbers")])
def test_a_seed_is_no_key(key: Any, given: str) -> None:
    gather = inspect.unwrap(gather_replicas)  # annotations are checked first in the tests
    with pytest.raises(PackingError, match=rf"the key is {given}; it must be a typed key, jax\.random\.key\(seed\)"):
        gather(_crowd(), RULE, key, None)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("bro", r"it is the name 'bro'; give the rule itself, such as packing_jax\.bro"),
        (optax.adam(0.1), r"it is an optimizer; give packing_jax\.sgd\(optimizer\)"),
        (jax.tree_util.Partial(optax.sgd, learning_rate=0.1), r"it is an optimizer; give packing_jax\.sgd"),
        (pj.bro, r"it is bro itself; call it"),
        (0.1, r"it is of type float; give one of packing_jax\.spheres\.rules"),
    ],
)
def test_what_is_no_rule(rule: Any, sentence: str) -> None:
    with pytest.raises(PackingError, match=f"the rule is not a rule for spheres: {sentence}"):
        inspect.unwrap(gather_replicas)(_crowd(), rule, KEY, None)


def test_a_list_of_systems_is_to_be_stacked() -> None:
    with pytest.raises(PackingError, match=r"the system is of type list; it must be .*packing_jax\.stack"):
        inspect.unwrap(simulate)([_crowd(), _crowd()], RULE, STEPS, KEY)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (len, r"record is of type builtin_function_or_method; it must be a dict from names to functions"),
        (
            {"far": lambda seen: float(seen.positions[0, 0])},
            r"observable far fails: [^\n]*; it must be .* in jax\.numpy",
        ),
        ({"far": lambda _: None}, r"far returns an object of type NoneType; it must return a number or an array"),
    ],
)
def test_what_is_no_observable(record: Any, sentence: str) -> None:
    with pytest.raises(PackingError, match=sentence):
        simulate(_crowd(), RULE, STEPS, KEY, record=record)


def test_what_was_not_recorded_and_what_was() -> None:
    run = _run(pj.bro(0.2), 2, record={"x": lambda seen: seen.positions})
    with pytest.raises(PackingError, match=r"'activity' was not recorded, but x: the argument record of simulate"):
        run["activity"]
    assert repr(run) == f"Trajectory(particles {N}, dim 2, rule bro; 3 times up to step 2; records x; replicas ())"


def test_hyperparameters_have_one_axis() -> None:
    with pytest.raises(PackingError, match="one per replica"):
        simulate(_crowd(), pj.bro(jnp.full((2, 3), 0.1)), STEPS, KEY)


def test_the_batch_takes_at_most_half_of_the_free_memory(monkeypatch) -> None:
    devices = len(jax.local_devices())
    replicas, _ = gather_replicas(_crowd(), RULE, KEY, None)
    kind = particles_of(replicas)
    assert default_batch(kind, replicas) == device_width(N, _crowd().dim) * devices
    assert device_width(1000, 3) == 2**15 // 1000
    room = 2 * 5000 * devices * tuning.bytes_per_particle(3)  # half of it holds 5,000 particles a device
    monkeypatch.setattr(tuning, "free_bytes", lambda _: room)
    assert device_width(1000, 3) == 5
    assert device_width(10_000, 3) == 1


@pytest.mark.parametrize(("dim", "phi", "particles"), [(3, 0.66, 2000), (5, 0.2, 5000)])
def test_a_chunk_takes_no_more_memory_than_is_said(dim, phi, particles) -> None:
    """On the grid and where all pairs are searched, as the compiler counts it."""
    replicas, _ = gather_replicas(System.create(phi, particles, dim), pj.bro(0.05), jax.random.key(0), None)
    times = np.array([0, 10], np.int32)
    kind = particles_of(replicas)
    state = begin(kind, replicas, times, {})
    assert (kind.plan.cells == 1) == (dim == 5)
    arguments = (jax.device_put(replicas), state, jnp.asarray(times), jnp.int32(5))
    program = on_devices.lower(kind, (), None, *arguments).compile()
    memory = program.memory_analysis()
    taken = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert 0.25 < taken / (particles * tuning.bytes_per_particle(dim)) < 1
