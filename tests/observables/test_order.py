"""psi6 and Q6 against lattices, closed forms, rotations and freud."""

import freud
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from packing_jax import PackingError
from packing_jax.observables import hexatic_order, steinhardt_order
from packing_jax.observables.periodic import nearest, wrapped

CELLS = {
    "sc": [[0, 0, 0]],
    "fcc": [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    "bcc": [[0, 0, 0], [0.5, 0.5, 0.5]],
}


def crystal(kind: str, cells: int) -> np.ndarray:
    """Cubic crystals with lattice constant 1."""
    corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    return np.asarray((corner + np.array(CELLS[kind])).reshape(-1, 3), dtype=float)


def cluster(bonds: np.ndarray) -> np.ndarray:
    """One particle in the middle of a wide box and its neighbours, nearest to it only."""
    return np.concatenate([np.zeros((1, 3)), bonds]) + 50.0


def freud_neighbours(
    x: np.ndarray, side: float, count: int
) -> tuple[freud.box.Box, np.ndarray, freud.locality.NeighborList]:
    box = freud.box.Box.cube(side) if x.shape[1] == 3 else freud.box.Box.square(side)
    points = np.zeros((len(x), 3))
    points[:, : x.shape[1]] = x - side / 2
    points = box.wrap(points)
    query = freud.locality.AABBQuery(box, points)
    return box, points, query.query(points, {"num_neighbors": count, "exclude_ii": True}).toNeighborList()


# --- neighbours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_nearest_equals_brute_force(dim: int) -> None:
    x = np.random.default_rng(dim).random((100, dim)) * 3
    index, bond = nearest(x, 3.0, 5)
    delta = x[None] - x[:, None]
    delta -= 3 * np.round(delta / 3)
    r = np.linalg.norm(delta, axis=-1)
    np.fill_diagonal(r, np.inf)
    assert np.array_equal(index, np.argsort(r, axis=1)[:, :5])
    assert bond == pytest.approx(np.take_along_axis(delta, index[..., None], axis=1))


def test_nearest_of_coincident_particles_leaves_out_oneself() -> None:
    x = np.concatenate([np.zeros((6, 2)), np.random.default_rng(0).random((10, 2))])
    index, _ = nearest(x, 1.0, 3)
    assert index.shape == (16, 3)
    assert (index != np.arange(16)[:, None]).all()
    assert (index[:6] < 6).all()


def test_wrapped_is_inside() -> None:
    assert np.array_equal(wrapped(np.array([[-1e-20, 1.0, 2.5]]), 1.0), [[0.0, 0.0, 0.5]])
    for bad, sentence in [
        (np.zeros(3), "shape"),
        (np.zeros((3, 7)), "dimension"),
        (np.full((3, 2), np.inf), "infinite"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            wrapped(bad, 1.0)


# --- psi6 -----------------------------------------------------------------------------------------------------


def triangular() -> np.ndarray:
    """A triangular lattice in a square box of side 1: 26 columns by 30 rows, for rows 26 * 2/3^(1/2) = 30.02 apart."""
    i, j = np.meshgrid(np.arange(26), np.arange(30), indexing="ij")
    return np.stack([(i + 0.5 * (j % 2)).ravel() / 26, j.ravel() / 30], axis=1)


def test_psi6_of_a_triangular_lattice() -> None:
    # strained by 7e-4, which |psi_6| sees in second order
    psi = hexatic_order(triangular(), 1.0)
    assert psi.shape == (780,)
    assert np.abs(psi) == pytest.approx(1, abs=1e-4)
    assert psi.real.mean() == pytest.approx(1, abs=1e-4)  # a lattice axis lies along x
    turned = triangular()[:, ::-1]
    assert hexatic_order(turned, 1.0).real.mean() == pytest.approx(-1, abs=1e-4)


def test_psi_of_a_square_lattice() -> None:
    x = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
    # four bonds: exp(6 i theta) is 1, -1, 1, -1
    assert np.abs(hexatic_order(x, 6.0, neighbours=4)) == pytest.approx(0, abs=1e-12)


def test_psi6_equals_freud() -> None:
    x = np.random.default_rng(1).random((300, 2)) * 7
    box, points, neighbours = freud_neighbours(x, 7.0, 6)
    theirs = freud.order.Hexatic(k=6).compute((box, points), neighbors=neighbours).particle_order
    assert hexatic_order(x, 7.0) == pytest.approx(theirs, abs=2e-4)  # float32 angles, times six


# --- Q6 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "neighbours", "degree", "expected"),
    [
        ("sc", 6, 6, np.sqrt(2) / 4),
        ("sc", 6, 4, np.sqrt(21) / 6),
        ("fcc", 12, 6, 13 * np.sqrt(2) / 32),
        ("fcc", 12, 4, np.sqrt(21) / 24),
        ("bcc", 8, 6, 4 * np.sqrt(2) / 9),
        ("bcc", 14, 6, 0.510688),
    ],
)
def test_cubic_crystals(kind: str, neighbours: int, degree: int, expected: float) -> None:
    x = crystal(kind, 4)
    order = steinhardt_order(x, 4.0, neighbours, degree)
    assert order.local == pytest.approx(expected, abs=2e-6)
    assert order.whole == pytest.approx(expected, abs=2e-6)
    assert (order.connections == neighbours).all()


HCP = np.array(
    [[np.cos(a), np.sin(a), 0] for a in np.arange(6) * np.pi / 3]
    + [[np.cos(a) / np.sqrt(3), np.sin(a) / np.sqrt(3), z] for a in np.pi / 6 + np.arange(3) * 2 * np.pi / 3
       for z in (np.sqrt(2 / 3), -np.sqrt(2 / 3))]
)  # fmt: skip
GOLDEN = (1 + np.sqrt(5)) / 2
ICOSAHEDRON = np.array(
    [np.roll([0, a, b * GOLDEN], k) for k in range(3) for a in (-1, 1) for b in (-1, 1)]
) / np.sqrt(1 + GOLDEN**2)  # fmt: skip


@pytest.mark.parametrize(("bonds", "expected"), [(HCP, 0.484762), (ICOSAHEDRON, 0.663325)])
def test_clusters_whichever_way_they_are_turned(bonds: np.ndarray, expected: float) -> None:
    for seed in range(3):
        turned = Rotation.random(rng=np.random.default_rng(seed)).apply(bonds)
        assert steinhardt_order(cluster(turned), 100.0).local[0] == pytest.approx(expected, abs=2e-6)


def test_q6_and_connections_equal_freud() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([crystal("fcc", 4) / 4 * 5 + 0.08 * rng.standard_normal((256, 3)), rng.random((50, 3)) * 5])
    box, points, neighbours = freud_neighbours(x, 5.0, 12)
    theirs = freud.order.Steinhardt(l=6).compute((box, points), neighbors=neighbours)
    ours = steinhardt_order(x, 5.0)
    assert ours.local == pytest.approx(theirs.particle_order, abs=1e-4)
    assert ours.whole == pytest.approx(theirs.order, abs=1e-4)
    solid = freud.order.SolidLiquid(l=6, q_threshold=0.7, solid_threshold=7)
    solid.compute((box, points), neighbors=neighbours)
    assert np.mean(ours.connections == solid.num_connections) > 0.99  # float32 puts a few on the other side
    assert 0 < np.mean(ours.connections == 12) < 1


def test_random_points_have_no_order() -> None:
    # 3000 x 12 bonds, each counted about twice: |<Y_6m>|^2 averages 2/36000 for each m, Q6 is about 0.008;
    # four times as much does not happen
    order = steinhardt_order(np.random.default_rng(3).random((3000, 3)), 1.0)
    assert order.whole < 0.03
    assert np.mean(order.connections >= 7) < 0.01
    psi = hexatic_order(np.random.default_rng(4).random((3000, 2)), 1.0)
    assert np.abs(psi.mean()) < 0.04


def test_bad_input_is_refused() -> None:
    flat, solid = np.random.default_rng(5).random((20, 2)), np.random.default_rng(6).random((20, 3))
    with pytest.raises(PackingError, match="3 dimensions"):
        hexatic_order(solid, 1.0)
    with pytest.raises(PackingError, match="2 dimensions"):
        steinhardt_order(flat, 1.0)
    with pytest.raises(PackingError, match="neighbours"):
        hexatic_order(flat[:6], 1.0)
    with pytest.raises(PackingError, match="degree"):
        steinhardt_order(solid, 1.0, degree=0)
    with pytest.raises(PackingError, match="one configuration"):
        hexatic_order(flat[None], 1.0)
