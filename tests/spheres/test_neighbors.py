"""Neighbour rows against all pairs in float64, SciPy's periodic k-d tree and freud, for d = 1..6."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from packing_jax import PackingError, System, mixture_1_to_1_4, stack
from packing_jax.spheres.geometry import to_fixed
from packing_jax.spheres.neighbors import Neighbors, Plan, _cells, build, cell_order, outdated, overflowed, plan_for

few = settings(max_examples=12)

#: float32 distances and cutoffs are good to a few 6e-8: closer to the cutoff than this a pair may be listed or not.
MARGIN = 2e-6

order_of = jax.jit(cell_order, static_argnums=0)
is_outdated = jax.jit(outdated, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def search(plan: Plan, system: System, coordinates: jax.Array) -> tuple[System, Neighbors, jax.Array]:
    """Sort by cell and build, as the driver does; system and cells come back in the order of the slots."""
    order = cell_order(plan, coordinates)
    cells = jnp.stack(_cells(plan, coordinates)[0]) if plan.cells > 1 else jnp.zeros_like(coordinates)
    if system.diameters.ndim:
        system = replace(system, diameters=system.diameters[order])
    return system, build(plan, system, coordinates[:, order], order), cells[:, order]


def fixed(x: np.ndarray) -> np.ndarray:
    """Coordinates (dim, N) of positions (N, dim) in box sides; numpy, to compile less."""
    return np.ascontiguousarray(np.floor(x % 1.0 * 2.0**32).astype(np.int64).astype(np.uint32).view(np.int32).T)


def grown_until_complete(plan: Plan, system: System, coordinates: np.ndarray) -> tuple[Plan, System, Neighbors, int]:
    """Grow and repeat, as the driver does."""
    for growths in range(5):
        sorted_system, neighbors, _ = search(plan, system, jnp.asarray(coordinates))
        if not overflowed(plan, neighbors):
            return plan, sorted_system, neighbors, growths
        plan = plan.grown(int(neighbors.needed_row), int(neighbors.needed_slots))
    raise AssertionError("five growths were not enough")


def all_pairs(system: System, coordinates: np.ndarray, skin: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances and list cutoffs of all pairs in float64, in box sides, from exact integer differences."""
    bits = 8 * coordinates.dtype.itemsize
    difference = coordinates[:, :, None] - coordinates[:, None, :]  # wraps around where the box does
    r = np.sqrt(np.sum((difference.astype(np.float64) / 2.0**bits) ** 2, axis=0))
    np.fill_diagonal(r, np.inf)
    sigma = np.broadcast_to(np.asarray(system.diameters, np.float64), coordinates.shape[1]) / float(system.box)
    return r, 0.5 * (sigma[:, None] + sigma[None]) + skin * float(system.unit) / float(system.box)


def listed_pairs(neighbors: Neighbors) -> np.ndarray:
    """The rows as a matrix of booleans; no neighbour is listed twice."""
    rows = np.asarray(neighbors.rows)
    n = rows.shape[0]
    assert rows.dtype == np.int32
    assert np.all((rows >= 0) & (rows < n))
    slot = np.broadcast_to(np.arange(n)[:, None], rows.shape)
    matrix = np.zeros((n, n), dtype=int)
    np.add.at(matrix, (slot[rows != slot], rows[rows != slot]), 1)
    assert matrix.max(initial=0) <= 1
    return matrix.astype(bool)


def check_rows(plan: Plan, system: System, neighbors: Neighbors) -> None:
    """Complete, symmetric, without duplicates or strangers."""
    listed = listed_pairs(neighbors)
    r, cutoff = all_pairs(system, np.asarray(neighbors.reference), plan.skin)
    assert not np.any((r < cutoff * (1 - MARGIN)) & ~listed)
    assert not np.any((r > cutoff * (1 + MARGIN)) & listed)
    np.testing.assert_array_equal(listed, listed.T)
    assert int(neighbors.needed_row) == listed.sum(axis=1).max(initial=0)


def longest_run(plan: Plan, cells: jax.Array) -> int:
    """Candidates in the fullest run: three cells along the last axis, beside or in line with a particle's own."""
    cell = np.asarray(cells)
    if plan.cells == 1:
        return cell.shape[1]
    apart = (cell[:, :, None] - cell[:, None, :]) % plan.cells
    near = (apart[-1] <= 1) | (apart[-1] == plan.cells - 1)
    most = 0
    for offsets in itertools.product((-1, 0, 1), repeat=len(cell) - 1):
        there = near.copy()
        for axis, offset in enumerate(offsets):
            there &= apart[axis] == offset % plan.cells
        most = max(most, int(there.sum(axis=1).max()))
    return most


def scene(
    rng: np.random.Generator, kind: str, dim: int, n: int, reach: float, skin: float, cells: int
) -> tuple[System, np.ndarray]:
    """Unequal spheres whose widest pair is listed up to ``reach``, and coordinates of the given kind."""
    sizes = rng.lognormal(sigma=rng.choice([0.0, 0.1, 0.4]), size=n)
    diameters = sizes * reach / (sizes.max() + skin * sizes.mean())
    system = System.from_diameters(diameters, n, dim)
    if kind == "uniform":
        x = rng.random((n, dim))
    elif kind == "clusters":
        x = rng.random((3, dim))[rng.integers(0, 3, n)] + rng.choice([1e-4, 0.03, 0.1]) * rng.standard_normal((n, dim))
    elif kind == "one point":
        x = np.broadcast_to(rng.random(dim), (n, dim))
    else:  # on the faces of the cells, a few quanta to either side
        face = rng.integers(0, 2 * cells, (n, dim)) * 2**32 // (2 * cells) + rng.integers(-2, 3, (n, dim))
        return system, np.ascontiguousarray(face.astype(np.uint32).view(np.int32).T)
    return system, fixed(x)


KINDS = ["uniform", "clusters", "one point", "cell faces"]


# --- rows equal all pairs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["grid", "single run"])
@pytest.mark.parametrize("dim", range(1, 7))
@given(kind=st.sampled_from(KINDS), fill=st.floats(0.05, 1.0), seed=st.integers(0, 2**31))
@few
def test_rows_equal_all_pairs(path: str, dim: int, kind: str, fill: float, seed: int) -> None:
    n = 90
    skin = {1: 1.0, 2: 0.4, 3: 0.3}.get(dim, 0.15)
    cells = {1: 8, 2: 5, 3: 4}.get(dim, 3) if path == "grid" else 1
    widest = 1 / (cells * 1.0001) if path == "grid" else 0.33
    # one static shape for every example; 96 slots are three words of bits
    plan = Plan(cells=cells, slots=96, capacity=n, skin=skin)
    system, coordinates = scene(np.random.default_rng(seed), kind, dim, n, fill * widest, skin, cells)
    sorted_system, neighbors, cell = search(plan, system, jnp.asarray(coordinates))
    assert not overflowed(plan, neighbors)
    check_rows(plan, sorted_system, neighbors)
    np.testing.assert_array_equal(neighbors.reference, coordinates[:, np.asarray(neighbors.tags)])
    assert neighbors.needed_slots == longest_run(plan, cell)


@pytest.mark.parametrize(
    ("dim", "phi", "n", "mixed"),
    [(1, 0.9, 9, True), (2, 0.84, 300, True), (3, 0.64, 400, False)],
)
def test_planned_rows_of_a_poisson_start(dim: int, phi: float, n: int, mixed: bool) -> None:
    system = System.create(phi, n, dim, sizes=mixture_1_to_1_4(n) if mixed else None)
    plan = plan_for(system, 0.3)
    coordinates = fixed(np.random.default_rng(0).random((n, dim)))
    plan, sorted_system, neighbors, growths = grown_until_complete(plan, system, coordinates)
    assert growths == 0  # plans are sized to be exceeded about once in 1e5 draws
    check_rows(plan, sorted_system, neighbors)


def test_float64_coordinates() -> None:
    with jax.enable_x64(True):
        n = 60
        system = System.create(0.4, n, 3, sizes=mixture_1_to_1_4(n), dtype=np.float64)
        x = np.random.default_rng(1).random((n, 3))
        coordinates = np.asarray(to_fixed(jnp.asarray(x), system.box))
        assert coordinates.dtype == np.int64
        plan = Plan(3, 64, n, 0.3)
        sorted_system, neighbors, _ = search(plan, system, jnp.asarray(coordinates))
        check_rows(plan, sorted_system, neighbors)


def test_a_batch_has_the_rows_of_each_replica() -> None:
    n, plan = 90, Plan(5, 96, 90, 0.4)
    systems = [System.create(phi, n, 2, sizes=np.linspace(1, 1.2, n)) for phi in (0.5, 1.5)]
    coordinates = jnp.asarray(np.random.default_rng(2).integers(-(2**31), 2**31, (2, 2, n)), jnp.int32)
    batch = jax.jit(jax.vmap(partial(search, plan)))(stack(systems), coordinates)
    for i, system in enumerate(systems):
        alone = search(plan, system, coordinates[i])
        for ours, original in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(ours[i], original)


# --- large systems against k-d trees --------------------------------------------------------------------------


def pair_codes(i: np.ndarray, j: np.ndarray, n: int) -> np.ndarray:
    return np.sort(i.astype(np.int64) * n + j)


def check_against_tree(plan: Plan, system: System, neighbors: Neighbors) -> int:
    """Rows against SciPy's periodic tree, by the code i N + j of each ordered pair; returns how many there are."""
    rows, n = np.asarray(neighbors.rows), system.particles
    slot = np.broadcast_to(np.arange(n, dtype=np.int32)[:, None], rows.shape)
    ours = pair_codes(slot[rows != slot], rows[rows != slot], n)
    assert np.all(np.diff(ours) > 0)
    x = np.asarray(neighbors.reference).T.astype(np.float64) / 2.0**32 % 1.0
    sigma = np.broadcast_to(np.asarray(system.diameters, np.float64), n)
    skin = plan.skin * float(system.unit)
    near = cKDTree(x, boxsize=1.0).query_pairs((sigma.max() + skin) * (1 + MARGIN), output_type="ndarray")
    delta = x[near[:, 0]] - x[near[:, 1]]
    r = np.linalg.norm(delta - np.round(delta), axis=1)
    cutoff = 0.5 * (sigma[near[:, 0]] + sigma[near[:, 1]]) + skin
    for inside, missing in ((r < cutoff * (1 - MARGIN), True), (r < cutoff * (1 + MARGIN), False)):
        i, j = near[inside].T
        theirs = pair_codes(np.concatenate([i, j]), np.concatenate([j, i]), n)
        assert not len(np.setdiff1d(theirs, ours) if missing else np.setdiff1d(ours, theirs))
    return len(ours)


def large(dim: int, phi: float, n: int, mixed: bool) -> tuple[Plan, System, Neighbors]:
    """The rows of a Poisson pattern of many particles."""
    system = System.create(phi, n, dim, sizes=mixture_1_to_1_4(n) if mixed else None)
    plan = plan_for(system, 0.3)
    assert plan.cells > 3
    return grown_until_complete(plan, system, fixed(np.random.default_rng(3).random((n, dim))))[:3]


@pytest.fixture(scope="module")
def large_3d() -> tuple[Plan, System, Neighbors]:
    return large(3, 0.64, 40_000, mixed=False)


def test_a_large_system_agrees_with_a_tree(large_3d: tuple[Plan, System, Neighbors]) -> None:
    assert check_against_tree(*large_3d) > 5 * 40_000


def test_a_large_mixture_agrees_with_a_tree() -> None:
    assert check_against_tree(*large(2, 0.84, 33_000, mixed=True)) > 5 * 33_000


def test_many_cells_a_side_leave_no_seam() -> None:
    # 85,000 cells a side: what their widths round off adds up, and the last cell must not pay for it
    n = 33_000
    system = System.create(0.3, n, 1)
    plan = plan_for(system, 0.3)
    sigma = float(system.diameters)
    x = np.random.default_rng(4).random((n, 1))
    x[:6, 0] = np.array([0.05, 0.4, 0.9, -0.05, -0.4, -0.8]) * sigma % 1.0
    plan, sorted_system, neighbors, _ = grown_until_complete(plan, system, fixed(x))
    check_against_tree(plan, sorted_system, neighbors)


def test_rows_agree_with_freud(large_3d: tuple[Plan, System, Neighbors]) -> None:
    freud = pytest.importorskip("freud")
    plan, system, neighbors = large_3d
    n = system.particles
    reach = float(system.diameters) + plan.skin * float(system.unit)
    x = np.asarray(neighbors.reference).T.astype(np.float64) / 2.0**32
    query = {"r_max": reach, "exclude_ii": True}
    theirs = freud.locality.AABBQuery(freud.box.Box.cube(1.0), x).query(x, query).toNeighborList()
    rows = np.asarray(neighbors.rows)
    slot = np.broadcast_to(np.arange(n, dtype=np.int32)[:, None], rows.shape)
    ours = pair_codes(slot[rows != slot], rows[rows != slot], n)
    # freud works in float32 positions, good to 6e-8 of the box: within that of the reach a pair may be listed or not
    clear = theirs.distances < reach - 1e-6
    assert not len(np.setdiff1d(pair_codes(theirs.query_point_indices[clear], theirs.point_indices[clear], n), ours))
    delta = x[ours // n] - x[ours % n]
    certain = np.linalg.norm(delta - np.round(delta), axis=1) < reach - 1e-6
    assert not len(np.setdiff1d(ours[certain], pair_codes(theirs.query_point_indices, theirs.point_indices, n)))
    assert certain.sum() > 5 * n


# --- plans that are too small ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "slots", "capacity"), [(4, 12, 6), (4, 36, 4), (1, 40, 6)])
@given(kind=st.sampled_from(KINDS), fill=st.floats(0.02, 1.0), seed=st.integers(0, 2**31))
@few
def test_a_plan_that_is_too_small_is_always_reported(
    cells: int, slots: int, capacity: int, kind: str, fill: float, seed: int
) -> None:
    plan = Plan(cells=cells, slots=slots, capacity=capacity, skin=0.3)
    system, coordinates = scene(np.random.default_rng(seed), kind, 2, 40, fill / 4.001, 0.3, 4)
    sorted_system, neighbors, cell = search(plan, system, jnp.asarray(coordinates))
    run = longest_run(plan, cell)
    assert neighbors.needed_slots == run
    r, cutoff = all_pairs(system, coordinates, plan.skin)
    fewest, most = ((r < cutoff * (1 + side * MARGIN)).sum(axis=1).max() for side in (-1, 1))
    if run <= slots:
        assert fewest <= neighbors.needed_row <= most
    assert bool(overflowed(plan, neighbors)) == (run > slots or int(neighbors.needed_row) > capacity)
    if overflowed(plan, neighbors):
        grown = plan.grown(int(neighbors.needed_row), int(neighbors.needed_slots))
        assert grown.slots >= run
        assert grown.capacity >= int(neighbors.needed_row)
    else:
        check_rows(plan, sorted_system, neighbors)


@pytest.mark.parametrize(("cells", "kind"), [(1, "uniform"), (3, "clusters")])
def test_growing_a_tiny_plan_completes_the_rows(cells: int, kind: str) -> None:
    system, coordinates = scene(np.random.default_rng(6), kind, 2, 90, 0.33, 0.3, 3)
    tiny = Plan(cells=cells, slots=4, capacity=4, skin=0.3)
    plan, sorted_system, neighbors, growths = grown_until_complete(tiny, system, coordinates)
    assert 1 <= growths <= 2  # slots first; the rows are counted once the runs are complete
    assert plan.slots > 4
    assert plan.capacity > 4
    check_rows(plan, sorted_system, neighbors)


def test_growth_keeps_what_was_enough() -> None:
    plan = Plan(cells=5, slots=64, capacity=20, skin=0.3)
    assert plan.grown(21, 10) == replace(plan, capacity=24)
    assert plan.grown(3, 65) == replace(plan, slots=96)
    assert plan.grown(20, 64) == plan


# --- plans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skin", [0.0, -0.1, np.nan])
def test_a_skin_must_be_positive(skin: float) -> None:
    with pytest.raises(PackingError, match=r"neighbour skin is .*; it must be positive"):
        plan_for(System.create(0.3, 100), skin)


def test_a_cell_is_at_least_as_wide_as_the_reach() -> None:
    for dim, phi, n in (
        (1, 0.3, 100), (2, 0.8, 2000), (3, 0.64, 4000), (4, 0.2, 3000), (5, 0.02, 4000), (6, 0.01, 100),
        (1, 0.3, 1_000_000),
    ):  # fmt: skip
        for sizes in (None, mixture_1_to_1_4(n)):
            system = System.create(phi, n, dim, sizes=sizes, box=3.0)
            plan = plan_for(system, 0.3)
            reach = (float(np.max(system.diameters)) + 0.3 * float(system.unit)) / 3.0
            assert plan.cells == 1 or plan.cells >= 3
            assert plan.cells == 1 or 2**32 // plan.cells > reach * 2.0**32  # in whole quanta, the narrowest counts
            assert 0 < plan.capacity < n


def test_a_batch_is_planned_for_its_widest_spheres() -> None:
    systems = [System.create(phi, 4000, 3) for phi in (0.1, 0.64, 0.3)]
    alone = plan_for(systems[1], 0.3)
    batch = plan_for(stack(systems), 0.3)
    assert batch.cells == alone.cells
    assert batch.capacity >= alone.capacity


@pytest.mark.parametrize("phi", [1e-3, 1e-6, 1e-12])
def test_dilute_systems_do_not_ask_for_more_cells_than_memory(phi: float) -> None:
    # a cell as small as a sphere would be right and useless: 1e6 N of them at phi = 1e-6
    for dim, n in ((2, 1000), (3, 1000), (6, 3000)):
        plan = plan_for(System.create(phi, n, dim), 0.3)
        assert plan.cells**dim <= 1000 * n


def test_particles_are_sorted_by_cell_last_axis_fastest() -> None:
    plan = Plan(cells=5, slots=8, capacity=8, skin=0.3)
    x = np.random.default_rng(7).random((400, 3))
    order = order_of(plan, jnp.asarray(fixed(x)))
    along = np.asarray(_cells(plan, jnp.asarray(fixed(x)))[0])
    np.testing.assert_array_equal(along, np.floor(5 * x).astype(int).T)
    np.testing.assert_array_equal(np.sort(order), np.arange(400))
    index = (np.asarray(along) * [[25], [5], [1]]).sum(axis=0)[np.asarray(order)]
    assert np.all(np.diff(index) >= 0)
    single = order_of(replace(plan, cells=1), jnp.asarray(fixed(x)))
    np.testing.assert_array_equal(single, np.arange(400))


# --- how long rows stay complete ------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), box=st.sampled_from([1.0, 40.0]))
@few
def test_rows_are_complete_until_they_are_outdated(seed: int, box: float) -> None:
    n, dim, plan = 200, 3, Plan(cells=1, slots=224, capacity=160, skin=0.3)
    rng = np.random.default_rng(seed)
    system = System.create(rng.uniform(0.1, 0.6), n, dim, sizes=rng.uniform(1, 1.4, n), box=box)
    x = rng.random((n, dim))
    sorted_system, neighbors, _ = search(plan, system, jnp.asarray(fixed(x)))
    assert not overflowed(plan, neighbors)
    # the worst that can happen: the nearest stranger comes straight on, both as far as allowed
    reference = np.asarray(neighbors.reference)
    r, _ = all_pairs(sorted_system, reference, plan.skin)
    _, contact = all_pairs(sorted_system, reference, 0.0)
    gap = np.where(listed_pairs(neighbors), np.inf, r - contact)
    nearest = gap.argmin(axis=1)
    towards = (reference[:, nearest] - reference).astype(np.float64) / 2.0**32
    towards /= np.linalg.norm(towards, axis=0)
    limit = 0.5 * plan.skin * float(system.unit) / box

    def moved(lengths: np.ndarray | float, directions: np.ndarray) -> np.ndarray:
        step = np.round(lengths * directions * 2.0**32).astype(np.int64)
        return (reference.astype(np.int64) + step).astype(np.uint32).view(np.int32)

    anywhere = rng.standard_normal((dim, n))
    anywhere /= np.linalg.norm(anywhere, axis=0)
    for directions in (towards, anywhere):
        for lengths in (0.9998 * limit, limit * rng.uniform(0, 0.9998, n)):
            after = moved(lengths, directions)
            assert not is_outdated(plan, sorted_system, jnp.asarray(after), neighbors)
            distance, touch = all_pairs(sorted_system, after, 0.0)
            assert not np.any((distance < touch) & ~listed_pairs(neighbors))
    # one particle a little too far is enough
    one = np.where(np.arange(n) == rng.integers(n), 1.0001 * limit, 0.0)
    assert is_outdated(plan, sorted_system, jnp.asarray(moved(one, anywhere)), neighbors)
    assert not is_outdated(plan, sorted_system, neighbors.reference, neighbors)
