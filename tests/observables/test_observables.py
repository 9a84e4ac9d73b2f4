"""Activity, energy and mean squared displacement against numpy, and means that do not depend on the order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packing_jax import HARMONIC, HERTZIAN, LINEAR, System, bro, mixture_1_to_1_4, overlap, simulate, stack
from packing_jax.observables import (
    Configuration,
    activity,
    displacement,
    energy,
    exact_mean,
    mean_squared_displacement,
    mean_squared_move,
)
from packing_jax.spheres import geometry
from packing_jax.spheres.energy import all_pairs_rows
from packing_jax.spheres.potential import Overlap

mean = jax.jit(exact_mean)
to_fixed = jax.jit(geometry.to_fixed)
msd = jax.jit(mean_squared_displacement)


def _tags(coordinates: jax.Array) -> jax.Array:
    return jnp.arange(coordinates.shape[-1], dtype=jnp.int32)


@jax.jit
def measure(seen: Configuration) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Activity, energy and mean squared displacement, compiled together."""
    return activity(seen), energy(seen), mean_squared_displacement(seen)


def at_rest(system: System, x: np.ndarray, rows: np.ndarray | jax.Array | None = None) -> Configuration:
    """A configuration that has not moved; positions (N, dim) in the unit of the box side."""
    coordinates = to_fixed(jnp.asarray(x, system.box.dtype), system.box)
    rows = all_pairs_rows(len(x)) if rows is None else jnp.asarray(rows)
    images = jnp.zeros(coordinates.shape, jnp.int32)
    return Configuration(system, coordinates, images, coordinates, rows, _tags(coordinates))


def distances(x: np.ndarray, side: float) -> np.ndarray:
    delta = x[:, None] - x[None]
    r = np.linalg.norm(delta - side * np.round(delta / side), axis=-1)
    np.fill_diagonal(r, np.inf)
    return r


# --- the mean -------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), scale=st.floats(-25, 25), kind=st.sampled_from(["positive", "signed", "wide"]))
@settings(max_examples=30)
def test_exact_mean_is_the_mean_in_any_order(seed: int, scale: float, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "positive": rng.random(1000),
        "signed": rng.standard_normal(1000),
        "wide": rng.choice([-1, 1], 1000) * 10.0 ** rng.uniform(-9, 0, 1000),
    }[kind]
    values = (values * 10.0**scale).astype(np.float32)
    ours = mean(jnp.asarray(values))
    assert ours.dtype == np.float32
    assert abs(float(ours) - values.mean(dtype=np.float64)) <= 2.0**-23 * np.abs(values).max()
    for order in (rng.permutation(1000), np.argsort(values), np.argsort(-np.abs(values))):
        assert mean(jnp.asarray(values[order])) == ours


def test_exact_mean_of_many_values() -> None:
    # the sum of three million ones is beyond what float32 counts
    n = 3 * 2**20
    values = np.full(n, 0.7, np.float32)
    assert mean(jnp.asarray(values)) == pytest.approx(0.7, rel=1e-7)
    values = np.random.default_rng(0).random((2, n // 2), dtype=np.float32)
    assert mean(jnp.asarray(values)) == pytest.approx(values.mean(dtype=np.float64), rel=2e-7)
    assert mean(jnp.asarray(values[::-1, ::-1])) == mean(jnp.asarray(values))


def test_exact_mean_in_float64() -> None:
    with jax.enable_x64(True):
        values = np.random.default_rng(1).standard_normal(1000) * 1e-7
        ours = mean(jnp.asarray(values))
        assert ours.dtype == np.float64
        assert float(ours) == pytest.approx(values.mean(), abs=2.0**-47 * 1e-6)
        assert mean(jnp.asarray(np.sort(values))) == ours


def test_exact_mean_of_special_values() -> None:
    def of(*values: float) -> float:
        return float(mean(jnp.asarray(values, jnp.float32)))

    assert of(0.0, 0.0, 0.0) == 0
    assert of(1.0, 1.0, 1.0) == 1
    assert of(-1.0, -1.0, -1.0) == -1
    assert of(5.0, -5.0, 0.0) == 0
    assert of(1.0, 0.0, 0.0) == pytest.approx(1 / 3, rel=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_exact_mean_does_not_hide_what_is_not_finite(bad: float) -> None:
    # an energy of the user's own may overflow: the record must say so
    assert not np.isfinite(mean(jnp.asarray([1.0, bad, 0.0], jnp.float32)))


# --- activity -------------------------------------------------------------------------------------------------


LATTICE = np.stack(np.meshgrid(np.arange(4) / 4, np.arange(4) / 4), axis=-1).reshape(-1, 2)


def test_activity_counts_particles_that_overlap() -> None:
    system = System.from_diameters(0.1, 16, 2)
    x = LATTICE.copy()
    x[1] = [0.02, 0.97]  # overlaps the first through both boundaries
    x[2:4] = [[0.5, 0.1], [0.5, 0.20001]]  # apart by a hair
    x[4:7] = [[0.3, 0.37], [0.38, 0.37], [0.46, 0.37]]  # the one in the middle overlaps both others
    r = distances(x, 1.0)
    assert set(np.flatnonzero(np.any(r < 0.1, axis=1))) == {0, 1, 4, 5, 6}
    assert measure(at_rest(system, x))[0] == pytest.approx(5 / 16)
    x[5] = [0.62, 0.37]  # without it they are free
    assert measure(at_rest(system, x))[0] == pytest.approx(2 / 16)


def test_an_absorbed_configuration_has_no_activity_and_no_energy() -> None:
    system = System.from_diameters(0.249, 16, 2)
    assert [float(value) for value in measure(at_rest(system, LATTICE))] == [0, 0, 0]


def test_overlaps_shallower_than_the_cut_do_not_count() -> None:
    x = LATTICE.copy()
    x[1] = [0.0, 0.1 * (1 - 4e-6)]
    for pair_energy, active in ((LINEAR, 2 / 16), (HARMONIC, 0.0)):
        system = System.from_diameters(0.1, 16, 2, energy=pair_energy)
        share, mean_energy, _ = measure(at_rest(system, x))
        assert share == active
        assert mean_energy > 0


def test_padding_counts_for_nothing() -> None:
    system = System.from_diameters(0.2, 16, 2, energy=HARMONIC)
    x = LATTICE.copy()
    x[1] = [0.1, 0.0]
    rows = np.tile(np.arange(16, dtype=np.int32)[:, None], (1, 15))
    rows[:2, 4] = [1, 0]
    for listed in (rows, rows[:, ::-1]):
        share, mean_energy, _ = measure(at_rest(system, x, listed))
        assert share == pytest.approx(2 / 16)
        assert mean_energy == pytest.approx(0.25 * 0.5**2 / 16, rel=1e-5)
    assert measure(at_rest(system, x, np.tile(rows[:, :1], (1, 15))))[0] == 0


@pytest.mark.parametrize(
    ("pair_energy", "mixed"),
    [(LINEAR, False), (HARMONIC, True), (HERTZIAN, True)],
    ids=["linear", "harmonic", "hertzian"],
)
def test_activity_and_energy_of_a_poisson_pattern(pair_energy: Overlap, mixed: bool) -> None:
    n, side = 60, 4.0
    system = System.create(0.5, n, 3, sizes=mixture_1_to_1_4(n) if mixed else None, energy=pair_energy, box=side)
    x = side * np.random.default_rng(2).random((n, 3))
    share, mean_energy, _ = measure(at_rest(system, x))
    sigma = np.broadcast_to(np.asarray(system.diameters, np.float64), n)
    contact = 0.5 * (sigma[:, None] + sigma[None])
    depth = np.maximum(1 - distances(x, side) / contact, 0)
    assert share == pytest.approx(np.mean(np.any(depth > 0, axis=1)), rel=1e-6)
    a = pair_energy.exponent
    # in mean diameters a0 = R is 1/2
    expected = 0.5 * np.sum((0.5 / a) * depth**a) / n
    assert mean_energy == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_observables_do_not_depend_on_the_order_of_particles_or_rows() -> None:
    n = 60
    rng = np.random.default_rng(3)
    sizes = mixture_1_to_1_4(n)
    x = rng.random((n, 3)).astype(np.float32)
    rows = np.array(all_pairs_rows(n))
    images = rng.integers(-2, 3, (3, n)).astype(np.int32)
    start = rng.integers(-(2**31), 2**31, (3, n)).astype(np.int32)

    def reordered(order: np.ndarray, shuffle: bool) -> list[float]:
        system = System.create(0.9, n, 3, sizes=sizes[order], energy=HERTZIAN)
        slot_of = np.argsort(order)
        listed = slot_of[rows[order]].astype(np.int32)
        if shuffle:
            listed = rng.permuted(listed, axis=1)
        here = at_rest(system, x[order], listed)
        here = here._replace(images=jnp.asarray(images[:, order]), start=jnp.asarray(start[:, order]))
        return [float(value) for value in measure(here)]

    first = reordered(np.arange(n), shuffle=False)
    for _ in range(5):
        assert reordered(rng.permutation(n), shuffle=True) == first
    assert all(value > 0 for value in first)


def test_energy_of_a_heap() -> None:
    # every pair at full overlap: V = a0 with each of n - 1 partners, shared by two
    n = 300
    system = System.from_diameters(0.01, n, 2, energy=overlap(1.0, 0.99))
    share, mean_energy, _ = measure(at_rest(system, np.full((n, 2), 0.3)))
    assert share == 1
    assert mean_energy == pytest.approx(0.5 * 0.99 * (n - 1), rel=1e-4)


# --- displacement ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1.0, 6.0])
def test_msd_of_known_displacements(side: float) -> None:
    n = 200
    rng = np.random.default_rng(4)
    system = System.create(0.4, n, 2, sizes=mixture_1_to_1_4(n), box=side)
    start = rng.random((n, 2))
    moved = rng.normal(scale=1.5, size=(n, 2))  # in box sides: many cross several times
    end = start + moved
    # a coordinate is counted from the middle of the box: it crosses where x/side + 1/2 is whole
    images = (np.floor(end + 0.5) - np.floor(start + 0.5)).astype(np.int32)
    first, last = (to_fixed(jnp.asarray(side * x, jnp.float32), system.box) for x in (start, end % 1.0))
    configuration = Configuration(system, last, jnp.asarray(images.T), first, all_pairs_rows(n), _tags(first))
    expected = np.mean(np.sum((moved * side) ** 2, axis=1)) / float(system.unit) ** 2
    assert msd(configuration) == pytest.approx(expected, rel=1e-5)


def test_a_step_across_the_boundary_is_a_short_one() -> None:
    system = System.from_diameters(0.1, 2, 1)
    quantum = 2.0**-32
    start = jnp.asarray([[2**31 - 1, -(2**31)]], jnp.int32)
    end = jnp.asarray([[-(2**31) + 99, 2**31 - 100]], jnp.int32)  # 100 quanta up, 100 down
    images = jnp.asarray([[1, -1]], jnp.int32)
    configuration = Configuration(system, end, images, start, all_pairs_rows(2), _tags(start))
    assert msd(configuration) == pytest.approx((100 * quantum / 0.1) ** 2, rel=1e-5)
    full = configuration._replace(images=images + 3)
    assert msd(full) == pytest.approx((3 / 0.1) ** 2, rel=1e-5)


def test_displacements_keep_the_particles_order_and_their_turns_round_the_box() -> None:
    # 60 discs that are kicked around a box of seven diameters; cells put them in other orders
    system, times = stack([System.create(phi, 60, 2) for phi in (0.5, 0.9)]), np.array([0, 7, 150])
    record = {"x": displacement, "msd": mean_squared_displacement}
    run = simulate(system, bro(0.4), 150, jax.random.key(5), record=record, times=times)
    moved = np.moveaxis(run["x"], -3, 0)  # (time, replica, particle, axis)
    assert moved.shape == (3, 2, 60, 2)
    side = 1.0 / np.asarray(system.unit)[:, None, None]
    np.testing.assert_allclose(mean_squared_move(moved, 0, np.arange(3)).T, run["msd"], rtol=1e-5)
    # where a particle is, less where it started, is how far it went, up to whole boxes
    first = simulate(system, bro(0.4), 0, jax.random.key(5))
    turns = (run.positions - first.positions) - moved[-1] / side
    assert np.any(np.abs(turns) > 0.5)  # some left the box
    np.testing.assert_allclose(turns, np.rint(turns), atol=1e-5)


# --- an observable of the user's own --------------------------------------------------------------------------


def close_pairs(seen: Configuration) -> jax.Array:
    """Pairs closer than 1.1 contact distances, an exact count."""
    near = seen.neighbours
    return jnp.sum(near.distance < 1.1 * near.contact, dtype=jnp.int32) // 2


def everything(seen: Configuration) -> dict[str, jax.Array]:
    near = seen.neighbours
    return {"positions": seen.positions, "diameters": seen.diameters, "moved": seen.displacements, **near._asdict()}


def test_a_configuration_shows_positions_and_neighbours_in_the_order_of_the_particles() -> None:
    n, side = 40, 6.0
    rng = np.random.default_rng(8)
    system = System.create(0.9, n, 2, sizes=mixture_1_to_1_4(n), box=side)
    x, order = side * rng.random((n, 2)), rng.permutation(n)
    sorted_system = System.create(0.9, n, 2, sizes=mixture_1_to_1_4(n)[order], box=side)
    start = to_fixed(jnp.asarray(x[order] - [0.3, 0.0], jnp.float32), system.box)
    seen = at_rest(sorted_system, x[order])._replace(tags=jnp.asarray(order, jnp.int32), start=start)
    seen = seen._replace(images=geometry.crossings(start, seen.coordinates).astype(jnp.int32))
    found = jax.device_get(jax.jit(everything)(seen))
    unit = float(system.unit)
    sigma = np.asarray(system.diameters, np.float64) / unit
    np.testing.assert_allclose(found["positions"], x / unit, atol=1e-5)
    np.testing.assert_allclose(found["diameters"], sigma, rtol=1e-6)
    np.testing.assert_allclose(found["moved"], np.tile([0.3 / unit, 0.0], (n, 1)), atol=1e-5)
    index = found["particle"]
    np.testing.assert_array_equal(np.sort(index, axis=1), np.sort(np.asarray(all_pairs_rows(n)), axis=1))
    r, contact = distances(x, side) / unit, 0.5 * (sigma[:, None] + sigma[None])
    me = np.arange(n)[:, None]
    np.testing.assert_allclose(found["distance"], r[me, index], rtol=1e-4)
    np.testing.assert_allclose(found["contact"], contact[me, index], rtol=1e-5)
    np.testing.assert_array_equal(found["overlapping"], (r < contact)[me, index])
    apart = x[:, None] - x[index]
    np.testing.assert_allclose(found["separation"], (apart - side * np.round(apart / side)) / unit, atol=1e-4)


def test_padding_is_infinitely_far_away() -> None:
    system = System.from_diameters(0.2, 16, 2)
    rows = np.tile(np.arange(16, dtype=np.int32)[:, None], (1, 3))
    rows[:2, 1] = [1, 0]
    near = jax.jit(lambda seen: seen.neighbours)(at_rest(system, LATTICE, rows))
    assert np.sum(np.isfinite(near.distance)) == 2
    np.testing.assert_allclose(near.distance[:2, 1], 1.25, rtol=1e-5)


def test_a_run_records_an_observable_of_the_users_own() -> None:
    system, times = System.create(0.9, 60, 2, sizes=mixture_1_to_1_4(60)), np.array([0, 5, 40])
    record = {"close": close_pairs, "x": lambda seen: seen.positions}
    run = simulate(system, bro(0.3), 40, jax.random.key(5), record=record, times=times)
    side = 1.0 / float(system.unit)
    np.testing.assert_allclose(run["x"][-1], run.positions * side, atol=1e-5)
    sigma = np.asarray(system.diameters, np.float64) * side
    for close, x in zip(run["close"], run["x"].astype(float), strict=True):
        assert close == np.sum(distances(x, side) < 1.1 * 0.5 * (sigma[:, None] + sigma[None])) // 2
    assert run["close"][0] != run["close"][-1]
