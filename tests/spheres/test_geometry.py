"""Fixed-point coordinates are exact periodic arithmetic; balls and packing fractions match closed forms."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packing_jax import PackingError, ball_volume, mixture_1_to_1_4, packing_fraction
from packing_jax.spheres import geometry
from packing_jax.spheres.geometry import scale_to_phi

# compiled once per shape: eager code would compile each operation alone
crossings = jax.jit(geometry.crossings)
minimum_image = jax.jit(geometry.minimum_image)
separation = jax.jit(geometry.separation)
to_fixed = jax.jit(geometry.to_fixed)
to_positions = jax.jit(geometry.to_positions)
to_quanta = jax.jit(geometry.to_quanta)
unwrapped = jax.jit(geometry.unwrapped)

PRECISIONS = [pytest.param(np.float32, id="float32"), pytest.param(np.float64, id="float64")]
few = settings(max_examples=15)


def in_precision(dtype: type, test: Callable[[], None]) -> None:
    """Run with 64-bit types where the dtype needs them."""
    with jax.enable_x64(dtype is np.float64):
        test()


def integer(dtype: type) -> np.dtype:
    return np.dtype(f"int{8 * np.dtype(dtype).itemsize}")


def all_integers(dtype: type, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random coordinates with the ends, the middle and their neighbours among them."""
    info = np.iinfo(integer(dtype))
    rng = np.random.default_rng(seed)
    values = rng.integers(info.min, info.max, size=shape, dtype=integer(dtype), endpoint=True).reshape(-1)
    edges = np.array([info.min, info.min + 1, -1, 0, 1, info.max - 1, info.max], dtype=integer(dtype))
    values[: len(edges)] = edges
    return values.reshape(shape)


def exact_image(difference: np.ndarray, bits: int) -> np.ndarray:
    """Minimum image of a difference of coordinates in Python's unbounded integers."""
    half = 1 << (bits - 1)
    return (difference.astype(object) + half) % (2 * half) - half


# --- fixed point ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_positions_on_the_float_grid_round_trip_bit_for_bit(dtype: type) -> None:
    # A float in [0, 1) resolves at least 2^-24 (2^-53), far coarser than a quantum, so nothing is rounded.
    def test() -> None:
        digits = 24 if dtype is np.float32 else 53
        whole = np.random.default_rng(0).integers(0, 2**digits, size=(200, 3))
        whole[:4, 0] = [0, 1, 2 ** (digits - 1), 2**digits - 1]
        positions = (whole.astype(np.float64) * 2.0**-digits).astype(dtype)
        for side in (0.5, 1.0, 4.0):
            box = jnp.asarray(side, dtype)
            fixed = to_fixed(jnp.asarray(positions * dtype(side)), box)
            assert fixed.dtype == integer(dtype)
            assert fixed.shape == (3, 200)
            np.testing.assert_array_equal(np.asarray(to_positions(fixed, box)), positions * dtype(side))
            exact = whole.T.astype(object) * 2 ** (np.iinfo(integer(dtype)).bits - digits)
            np.testing.assert_array_equal(exact_image(exact, np.iinfo(integer(dtype)).bits), np.asarray(fixed))

    in_precision(dtype, test)


@pytest.mark.parametrize("dtype", PRECISIONS)
@given(side=st.floats(1e-3, 1e3), seed=st.integers(0, 2**31))
@few
def test_every_coordinate_is_a_position_inside_the_box_and_returns(dtype: type, side: float, seed: int) -> None:
    def test() -> None:
        bits = np.iinfo(integer(dtype)).bits
        coordinates = all_integers(dtype, (3, 200), seed)
        box = jnp.asarray(side, dtype)
        positions = np.asarray(to_positions(jnp.asarray(coordinates), box))
        assert positions.dtype == dtype
        assert np.all(positions >= 0)
        assert np.all(positions < np.asarray(box))
        back = np.asarray(to_fixed(jnp.asarray(positions), box))
        error = exact_image(back.astype(object) - coordinates.astype(object), bits)
        # two roundings of a float below 1, one of the product with the box and one of the quotient
        assert np.max(np.abs(error)) <= 4 * 2.0**bits * np.finfo(dtype).eps

    in_precision(dtype, test)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_every_periodic_image_has_the_same_coordinates(dtype: type) -> None:
    def test() -> None:
        rng = np.random.default_rng(1)
        # 16 digits after the point leave room for whole boxes before it: adding them rounds nothing
        positions = (rng.integers(0, 2**16, size=(200, 3)) / 2**16).astype(dtype)
        positions[:3] = [[0, 0.5, 0.25], [0.5, 0, 0.75], [1 - 2.0**-16, 2.0**-16, 0.5]]
        for side in (1.0, 0.25, 8.0):
            box = jnp.asarray(side, dtype)
            here = to_fixed(jnp.asarray(positions * dtype(side)), box)
            for boxes in ([1, 0, 0], [0, -1, 2], [-3, 17, 0], [100, -100, 1]):
                image = positions + np.asarray(boxes, dtype)
                np.testing.assert_array_equal(np.asarray(to_fixed(jnp.asarray(image * dtype(side)), box)), here)

    in_precision(dtype, test)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_half_a_box_and_what_rounds_to_it_stay_in_range(dtype: type) -> None:
    def test() -> None:
        half = dtype(0.5)
        around = [
            half,
            -half,
            np.nextafter(half, dtype(1)),
            np.nextafter(half, dtype(0)),
            np.nextafter(-half, dtype(0)),
        ]
        fixed = np.asarray(to_fixed(jnp.asarray(np.array(around, dtype)[:, None]), jnp.ones((), dtype)))[0]
        lowest = np.iinfo(integer(dtype)).min
        assert fixed[0] == fixed[1] == lowest  # +1/2 is the same place as -1/2
        assert lowest < fixed[2] < 0.99 * lowest
        assert fixed[3] == -fixed[4] > 0

    in_precision(dtype, test)


def test_replicas_keep_their_own_boxes() -> None:
    positions = np.random.default_rng(2).random((3, 200, 3), dtype=np.float32)
    boxes = jnp.asarray([1.0, 2.0, 3.5], jnp.float32)
    batch = to_fixed(jnp.asarray(positions), boxes)
    back = to_positions(batch, boxes)
    for i, box in enumerate(boxes):
        np.testing.assert_array_equal(batch[i], to_fixed(jnp.asarray(positions[i]), box))
        np.testing.assert_array_equal(back[i], to_positions(batch[i], box))


# --- separations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_separation_is_the_minimum_image(dtype: type) -> None:
    def test() -> None:
        bits = np.iinfo(integer(dtype)).bits
        a, b = all_integers(dtype, (4000,), 3), all_integers(dtype, (4000,), 4)
        b[:7] = b[:7][::-1]
        exact = exact_image(a.astype(object) - b.astype(object), bits)
        ours = np.asarray(separation(jnp.asarray(a), jnp.asarray(b)))
        oracle = np.array([float(value) for value in exact]) / 2.0**bits
        np.testing.assert_allclose(ours, oracle, rtol=np.finfo(dtype).eps, atol=0)
        assert np.all((ours >= -0.5) & (ours <= 0.5))
        # Newton's third law to the last bit; exactly half a box away has no sign
        back = np.asarray(separation(jnp.asarray(b), jnp.asarray(a)))
        np.testing.assert_array_equal(back[oracle != -0.5], -ours[oracle != -0.5])

    in_precision(dtype, test)


def test_separation_agrees_with_float64_positions() -> None:
    rng = np.random.default_rng(5)
    side = 3.7
    x = (side * rng.random((1000, 3))).astype(np.float32)
    y = (side * rng.random((1000, 3))).astype(np.float32)
    box = jnp.asarray(side, jnp.float32)
    ours = separation(to_fixed(jnp.asarray(x), box), to_fixed(jnp.asarray(y), box)).T * box
    delta = x.astype(np.float64) - y.astype(np.float64)
    delta -= side * np.round(delta / side)
    gap = np.asarray(ours, np.float64) - delta
    gap -= side * np.round(gap / side)  # where delta is half a box either sign will do
    assert np.max(np.abs(gap)) < 4 * side * 2.0**-24


def test_minimum_image_is_the_shortest_of_all_images() -> None:
    rng = np.random.default_rng(6)
    side = 2.5
    delta = rng.uniform(-4 * side, 4 * side, size=(500, 2)).astype(np.float32)
    ours = np.asarray(minimum_image(jnp.asarray(delta), jnp.asarray(side, jnp.float32)), np.float64)
    images = delta.astype(np.float64)[..., None] + side * np.arange(-5, 6)
    np.testing.assert_allclose(np.abs(ours), np.abs(images).min(axis=-1), atol=1e-5)
    boxes = (delta - ours) / side
    np.testing.assert_allclose(boxes, np.round(boxes), atol=1e-5)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_quanta_are_odd_and_round_half_to_even(dtype: type) -> None:
    def test() -> None:
        bits = np.iinfo(integer(dtype)).bits
        quantum = 2.0**-bits
        values = np.array([0.0, 0.25, 0.5, 0.75, 1.5, 2.5, 1e3 + 0.5], dtype) * dtype(quantum)
        np.testing.assert_array_equal(to_quanta(jnp.asarray(values)), [0, 0, 0, 1, 2, 2, 1000])
        moves = np.random.default_rng(7).uniform(-0.49, 0.49, 1000).astype(dtype)
        there = np.asarray(to_quanta(jnp.asarray(moves)))
        np.testing.assert_array_equal(np.asarray(to_quanta(jnp.asarray(-moves))), -there)
        np.testing.assert_allclose(there / 2.0**bits, moves, rtol=2 * np.finfo(dtype).eps, atol=quantum)

    in_precision(dtype, test)


# --- unwrapped displacement -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("every", [1, 4])
def test_a_walk_over_many_boxes_is_unwrapped_exactly(dtype: type, every: int) -> None:
    """Crossings are counted from both ends of ``every`` steps, as the driver does between two list rebuilds."""

    def test() -> None:
        bits = np.iinfo(integer(dtype)).bits
        rng = np.random.default_rng(8)
        start = all_integers(dtype, (2, 60), 9)
        limit = 2 ** (bits - 1) // every - 1
        drift = np.where(np.arange(60) < 20, limit // 2, 0)  # a third goes steadily one way, many boxes far
        at, images, moved = start, np.zeros(start.shape, np.int32), np.zeros(start.shape, object)
        last = start
        for step in range(1, 41):
            move = rng.integers(-limit, limit, size=start.shape, dtype=integer(dtype), endpoint=True) // 2 + drift
            with np.errstate(over="ignore"):
                at = at + move.astype(integer(dtype))
            moved = moved + move.astype(object)
            if step % every == 0:
                crossed = crossings(jnp.asarray(last), jnp.asarray(at))
                images = images + np.asarray(crossed, np.int32)
                last = at
            else:
                crossed = crossings(jnp.asarray(last), jnp.asarray(at))  # between rebuilds: for observables only
            now = images if step % every == 0 else images + np.asarray(crossed, np.int32)
            ours = np.asarray(unwrapped(jnp.asarray(at), jnp.asarray(now), jnp.asarray(start)), np.float64)
            exact = np.array(moved / 2**bits, np.float64)
            np.testing.assert_allclose(ours, exact, rtol=2 * np.finfo(dtype).eps, atol=2 * np.finfo(dtype).eps)
        assert np.max(np.abs(exact)) > 2  # the walk did cross the box more than twice

    in_precision(dtype, test)


def test_half_a_box_in_one_step_has_one_answer() -> None:
    # -2^31 is its own negative, so the sign is a convention; crossings and unwrapped must share it
    start = jnp.asarray([[-(2**30), 2**30]], jnp.int32)
    end = jnp.asarray([[2**30, -(2**30)]], jnp.int32)
    images = crossings(start, end).astype(jnp.int32)
    np.testing.assert_array_equal(np.abs(unwrapped(end, images, start)), [[0.5, 0.5]])


# --- balls and packing fractions ------------------------------------------------------------------------------


def test_ball_volumes() -> None:
    pi = math.pi
    closed = [2, pi, 4 * pi / 3, pi**2 / 2, 8 * pi**2 / 15, pi**3 / 6]
    for dim, volume in enumerate(closed, start=1):
        assert ball_volume(dim) == pytest.approx(volume, rel=1e-14)


@pytest.mark.parametrize("dim", [-1, 0, 7])
def test_dimensions_outside_one_to_six_are_refused(dim: int) -> None:
    with pytest.raises(PackingError, match="whole number from 1 to 6"):
        ball_volume(dim)


def test_known_packing_fractions() -> None:
    # touching cubic lattice: pi/6; one sphere as wide as the box in each d; discs of both sizes
    assert packing_fraction(0.1, 1000, 3) == pytest.approx(math.pi / 6)
    assert packing_fraction(np.asarray(0.1), 1000, 3) == pytest.approx(math.pi / 6)
    for dim in range(1, 7):
        assert packing_fraction(np.asarray(3.0), 1, dim, 3.0) == pytest.approx(ball_volume(dim) / 2**dim)
    discs = np.array([0.2, 0.2, 0.4])
    assert packing_fraction(discs, 3, 2) == pytest.approx(math.pi / 4 * (0.04 + 0.04 + 0.16))


@pytest.mark.parametrize("dim", range(1, 7))
@given(phi=st.floats(1e-4, 2.0), box=st.floats(0.01, 100.0), seed=st.integers(0, 2**31))
@few
def test_diameters_fill_the_asked_fraction(dim: int, phi: float, box: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 200))
    for sizes in (1.0, mixture_1_to_1_4(n), rng.lognormal(sigma=0.4, size=n)):
        diameters = scale_to_phi(sizes, phi, n, dim, box)
        volume = ball_volume(dim) * np.sum(np.broadcast_to(diameters / 2, n) ** dim)
        assert volume / box**dim == pytest.approx(phi, rel=1e-12)
        assert packing_fraction(diameters, n, dim, box) == pytest.approx(phi, rel=1e-12)
        ratio = diameters / sizes
        np.testing.assert_allclose(ratio, ratio.flat[0] if ratio.ndim else ratio, rtol=1e-12)


def test_the_named_mixture_is_half_and_half() -> None:
    for n, small in ((10, 5), (11, 5)):
        sizes = mixture_1_to_1_4(n)
        assert sizes.shape == (n,)
        assert np.sum(sizes == 1.0) == small
        assert np.sum(sizes == 1.4) == n - small
