"""ContactNetwork, rattlers, isostaticity, forces and gaps against brute force, lattices and a jammed packing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from packing_jax import (
    HARMONIC,
    HERTZIAN,
    LINEAR,
    PackingError,
    PairEnergy,
    System,
    mixture_1_to_1_4,
    stack,
    total_energy,
)
from packing_jax.observables import ContactNetwork, find_contacts, force_distribution, gap_distribution
from packing_jax.spheres.potential import Overlap


def matrices(system: System, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All distances and contact distances, (N, N), in float64."""
    side = float(system.box)
    delta = x[:, None] - x[None]
    sigma = np.broadcast_to(np.asarray(system.diameters, dtype=float), len(x))
    return np.linalg.norm(delta - side * np.round(delta / side), axis=-1), (sigma[:, None] + sigma[None]) / 2


def peeled(touching: np.ndarray, dim: int) -> np.ndarray:
    """Rattlers, one at a time."""
    touching, loose = touching.copy(), np.zeros(len(touching), bool)
    while True:
        weak = ~loose & (touching.sum(axis=1) < dim + 1)
        if not weak.any():
            return loose
        one = np.flatnonzero(weak)[-1]
        loose[one] = True
        touching[one] = touching[:, one] = False


@pytest.mark.parametrize("energy", [LINEAR, HARMONIC, HERTZIAN])
@pytest.mark.parametrize("dim", [2, 3])
def test_contacts_equal_brute_force(dim: int, energy: Overlap) -> None:
    n, side = 120, 2.0
    system = System.create(0.7, n, dim, sizes=mixture_1_to_1_4(n), energy=energy, box=side)
    x = np.random.default_rng(dim).random((n, dim)) * side
    r, sigma = matrices(system, x)
    upper = np.triu(np.ones((n, n), bool), 1)
    touching = (r <= 1.1 * sigma) & ~np.eye(n, dtype=bool)
    found = find_contacts(system, x - side, tolerance=0.1, reach=0.25)
    i, j = found.pairs.T
    assert np.array_equal(found.pairs, np.argwhere(upper & (r <= 1.25 * sigma)))
    assert found.gap == pytest.approx((r / sigma - 1)[i, j], abs=1e-12)
    assert np.array_equal(found.touching, touching[i, j])
    loose = peeled(touching, dim)
    assert np.array_equal(found.rattlers, loose)
    assert 0 < loose.sum() < n
    backbone = upper & touching & ~loose[:, None] & ~loose[None]
    assert found.contact_number == pytest.approx(2 * backbone.sum() / (~loose).sum())
    assert found.excess_contacts == backbone.sum() - (dim * ((~loose).sum() - 1) + 1)
    a = float(energy.exponent)
    depth = np.maximum(1 - r / sigma, 0)[i, j]
    force = np.where(depth > 0, float(system.unit) / 2 / sigma[i, j] * depth ** (a - 1), 0)
    assert found.force == pytest.approx(force, rel=1e-6, abs=1e-12)
    # and they are the derivative of the energy
    net = np.zeros((n, dim))
    np.add.at(net, i, found.force[:, None] * found.direction)
    np.add.at(net, j, -found.force[:, None] * found.direction)
    gradient = jax.grad(lambda y: total_energy(system, y))(jnp.asarray(x, jnp.float32))
    assert net == pytest.approx(-np.asarray(gradient), abs=2e-5)


def test_forces_of_a_users_energy_and_of_coincident_centres() -> None:
    soft = PairEnergy(lambda r, sigma: 0.5 * (sigma - r) ** 2, slope_bound=2.0)
    system = System.create(0.3, 4, 2, energy=soft, box=3.0)
    sigma = float(system.diameters)
    x = np.array([[0.1, 0.0], [3.1 - 0.8 * sigma, 0.0], [1.5, 1.5], [1.5, 1.5]])
    found = find_contacts(system, x)
    assert found.pairs.tolist() == [[0, 1], [2, 3]]
    # lengths in mean diameters: the overlap is 0.2, and so is the force
    assert found.force == pytest.approx([0.2, 1.0], rel=1e-6)
    assert found.direction == pytest.approx(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert found.gap == pytest.approx([-0.2, -1.0])


def test_small_overlaps_keep_their_force() -> None:
    # 1 - r/sigma = 1e-9 is nothing to float32
    system = System.create(0.1, 2, 3, energy=HARMONIC)
    sigma = float(system.diameters)
    x = np.array([[0.2, 0.2, 0.2], [0.2 + sigma * (1 - 1e-9), 0.2, 0.2]])
    assert find_contacts(system, x).force == pytest.approx([0.5e-9], rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "dim", "number"), [("square", 2, 4), ("triangular", 2, 6), ("cubic", 3, 6), ("fcc", 3, 12)]
)
def test_crystals(kind: str, dim: int, number: int) -> None:
    if kind == "triangular":
        i, j = np.meshgrid(np.arange(26), np.arange(30), indexing="ij")
        x, bond, side = np.stack([(i + 0.5 * (j % 2)).ravel(), j.ravel() * 26 / 30], axis=1), 1.0, 26.0
    else:
        x = np.stack(np.meshgrid(*[np.arange(6.0)] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
        bond, side = 1.0, 6.0
        if kind == "fcc":
            x, bond = x[x.sum(axis=1) % 2 == 0], np.sqrt(2)
    n = len(x)
    system = System.from_diameters(bond, n, dim, box=side)
    found = find_contacts(system, x, tolerance=0.01)
    assert found.contact_number == number
    assert not found.rattlers.any()
    assert found.excess_contacts == n * number // 2 - (dim * (n - 1) + 1)
    # the particles next to a vacancy hold with one contact less; a small one inside it does not
    smaller = np.full(n, bond)
    smaller[0] *= 0.8
    found = find_contacts(System.from_diameters(smaller, n, dim, box=side), x, tolerance=0.01)
    assert np.flatnonzero(found.rattlers).tolist() == [0]
    assert found.contact_number == pytest.approx((n * number - 2 * number) / (n - 1))


def test_a_ring_is_isostatic_and_falls_apart_without_one_link() -> None:
    system = System.from_diameters(1.0, 20, 1, box=20.0)
    ring = find_contacts(system, np.arange(20.0)[:, None], tolerance=1e-6)
    assert (ring.contact_number, ring.excess_contacts) == (2.0, 0)
    open_chain = np.arange(20.0)[:, None] * (1 - 1e-4)
    chain = find_contacts(system, open_chain, tolerance=1e-6)
    assert chain.touching.sum() == 19
    assert chain.rattlers.all()  # peeled from both ends
    assert np.isnan(chain.contact_number)
    with pytest.raises(PackingError, match="every particle is a rattler"):
        _ = chain.excess_contacts


@pytest.fixture(scope="module")
def jammed() -> tuple[System, list[ContactNetwork]]:
    """Harmonic disks 1:1.4 at phi = 0.9, quenched to a minimum in float64."""
    n = 64
    system = System.create(0.9, n, 2, sizes=mixture_1_to_1_4(n), energy=HARMONIC)
    _, sigma = matrices(system, np.zeros((n, 2)))

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = flat.reshape(n, 2)
        delta = x[:, None] - x[None]
        delta -= np.round(delta)
        r = np.linalg.norm(delta, axis=-1) + np.eye(n)
        depth = np.maximum(1 - r / sigma, 0) * ~np.eye(n, dtype=bool)
        slope = depth / sigma / r
        return 0.25 * np.sum(depth**2), -np.sum(slope[..., None] * delta, axis=1).ravel()

    packings = []
    for seed in range(3):
        start = np.random.default_rng(seed).random(2 * n)
        found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 0, "gtol": 1e-12})
        packings.append(find_contacts(system, found.x.reshape(n, 2), reach=0.3))
    return system, packings


def test_a_jammed_packing_is_rigid_and_in_balance(jammed: tuple[System, list[ContactNetwork]]) -> None:
    system, packings = jammed
    for packing in packings:
        net = np.zeros((system.particles, 2))
        pushes = packing.force[:, None] * packing.direction
        np.add.at(net, packing.pairs[:, 0], pushes)
        np.add.at(net, packing.pairs[:, 1], -pushes)
        assert np.abs(net[~packing.rattlers]).max() < 1e-6 * packing.force[packing.backbone].mean()
        # fewer contacts than isostaticity cannot balance at a pressure; 0.06 above phi_J makes Z of about 4.8
        assert packing.excess_contacts >= 0
        assert 4.2 < packing.contact_number < 5.6
        assert packing.rattlers.mean() < 0.2


def test_force_and_gap_distributions(jammed: tuple[System, list[ContactNetwork]]) -> None:
    _, packings = jammed
    edges = np.linspace(0, 6, 13)
    forces = force_distribution(packings, edges)
    widths = np.diff(edges)
    assert np.sum(forces.density * widths) == pytest.approx(1)
    assert np.sum(forces.density * widths * forces.middle) == pytest.approx(1, abs=0.05)
    expected = np.concatenate([p.force[p.backbone] / p.force[p.backbone].mean() for p in packings])
    count = np.histogram(expected, edges)[0]
    assert forces.density == pytest.approx(count / len(expected) / widths)
    assert forces.stderr[count > 0] == pytest.approx((forces.density / np.sqrt(np.maximum(count, 1)))[count > 0])
    # twice the pairs over the particles: neighbours per particle, up to Z at a gap of 0
    gaps = gap_distribution(packings, np.array([-1.0, 0.0, 0.1, 0.3]))
    z = sum(p.contact_number * np.sum(~p.rattlers) for p in packings) / sum(np.sum(~p.rattlers) for p in packings)
    assert gaps.density[0] == pytest.approx(z)
    with pytest.raises(PackingError, match=r"listed up to 0\.3: call find_contacts with reach=0\.5"):
        gap_distribution(packings, np.array([0.0, 0.5]))
    assert len(gap_distribution(packings, np.arange(0, 0.31, 0.1)).density) == 3  # its end rounds to above 0.3
    with pytest.raises(PackingError, match="edges"):
        gap_distribution(packings, np.zeros(0))
    near = sum(2 * np.sum((p.gap > 0) & (p.gap <= 0.1) & ~p.rattlers[p.pairs].any(axis=1)) for p in packings)
    assert gaps.density[1] * 0.1 == pytest.approx(near / sum(np.sum(~p.rattlers) for p in packings))


def test_bad_input_is_refused() -> None:
    system = System.create(0.3, 4, 2)
    x = np.random.default_rng(0).random((4, 2))
    with pytest.raises(PackingError, match="stack"):
        find_contacts(stack([system, system]), x)
    with pytest.raises(PackingError, match=r"\(4, 2\)"):
        find_contacts(system, x[:3])
    for tolerance, reach in ((-1.0, 0.0), (0.0, 5.0), (0.0, np.nan)):
        with pytest.raises(PackingError, match="tolerance"):
            find_contacts(system, x, tolerance, reach)
    apart = find_contacts(System.create(1e-4, 4, 2), x)
    with pytest.raises(PackingError, match="bears a force"):
        force_distribution([apart], np.array([0.0, 1.0]))
    with pytest.raises(PackingError, match="rattler"):
        gap_distribution([apart], np.array([0.0, 1.0]))
    with pytest.raises(PackingError, match="at least one"):
        force_distribution([], np.array([0.0, 1.0]))
    with pytest.raises(PackingError, match="edges"):
        force_distribution([], np.array([1.0, 0.0]))
