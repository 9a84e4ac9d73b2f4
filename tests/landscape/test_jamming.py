"""Contacts, pressure, moduli and jamming points against lattices and packings deformed and relaxed again."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from packing_jax import HARMONIC, PackingError, System, mixture_1_to_1_4
from packing_jax.landscape.equilibrium import equilibrium
from packing_jax.landscape.forces import force_network, net_forces, pressure, stress
from packing_jax.landscape.jamming import (
    bisect,
    elastic_moduli,
    follow,
    is_jammed,
    jam,
    mechanics,
)
from packing_jax.landscape.minima import Minimum, minimise, neighbour_rows
from packing_jax.observables import find_contacts, force_distribution


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def packing(dim: int, phi: float, n: int = 24, seed: int = 4) -> Minimum:
    sizes = mixture_1_to_1_4(n) if dim == 2 else np.linspace(0.95, 1.05, n)
    system = System.create(phi, n, dim, sizes=sizes, energy=HARMONIC, dtype=np.float64)
    return minimise(system, np.random.default_rng(seed).random((n, dim)))


def lattice(dim: int, side: int, sigma: float) -> tuple[System, np.ndarray]:
    """A simple cubic lattice of spheres ``sigma`` wide, spacing 1/side."""
    system = System.from_diameters(sigma, side**dim, dim, energy=HARMONIC, dtype=np.float64)
    grid = np.stack(np.meshgrid(*[np.arange(side) / side + 0.01] * dim), axis=-1)
    return system, grid.reshape(-1, dim)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_cubic_lattice_has_2d_contacts_and_a_known_pressure(dim):
    """f = (1/2)(1 - a/sigma) on each of d N bonds of length a: p = f/a^(d-1), with lengths in sigma."""
    system, x = lattice(dim, 4, 0.26)
    # forces balance, but for d > 1 at a saddle, which minimise refuses
    minimum = Minimum(system, jnp.asarray(x), neighbour_rows(system, x), 0.0, 0.0, 0, 1e-12)
    network = force_network(minimum)
    assert network.contact_number == 2 * dim
    assert network.excess_contacts == dim * 4**dim - (dim * (4**dim - 1) + 1)
    f = 0.5 * (1 - 0.25 / 0.26)
    np.testing.assert_allclose(network.force[network.backbone], f, rtol=1e-12)
    a = 0.25 / 0.26
    s, p = jax.jit(lambda *of: (stress(*of), pressure(*of)))(system, minimum.positions, minimum.rows, jnp.eye(dim))
    np.testing.assert_allclose(s, -f / a ** (dim - 1) * np.eye(dim), atol=1e-14)
    np.testing.assert_allclose(p, f / a ** (dim - 1), rtol=1e-12)


def test_a_chain_with_a_gap_is_all_rattlers():
    """Rattlers are found recursively: taking out one particle of a lattice loosens its neighbours, and theirs."""
    system, x = lattice(1, 6, 1 / 6 + 0.01)
    kept = System.from_diameters(1 / 6 + 0.01, 5, 1, energy=HARMONIC, dtype=np.float64)
    rows = neighbour_rows(kept, x[:5])
    cut = Minimum(kept, jnp.asarray(x[:5]), rows, 0.0, 0.0, 0, 1e-12)  # not a minimum, but a contact network
    assert system.particles == 6
    network = force_network(cut)
    assert not network.backbone.any()
    assert np.isnan(network.contact_number)
    assert np.all(network.rattlers)


def test_net_forces_are_the_gradient_under_deformation():
    minimum = packing(2, 1.0)
    system, f = minimum.system, jnp.asarray([[1.02, 0.05], [-0.03, 0.97]])
    i, j = np.triu_indices(24, 1)

    def plain(x):
        delta = x[i] - x[j]
        u = (delta - jnp.round(delta)) @ f.T
        r = jnp.sqrt(jnp.sum(u * u, axis=-1))
        return (
            0.25
            * system.unit
            * jnp.sum(jnp.maximum(1 - r / (0.5 * (system.diameters[i] + system.diameters[j])), 0) ** 2)
        )

    forces = jax.jit(net_forces)(system, minimum.positions, minimum.rows, f)
    np.testing.assert_allclose(forces, -jax.jit(jax.grad(plain))(minimum.positions), atol=1e-14)


# --- moduli ---------------------------------------------------------------------------------------------------


@jax.jit
@partial(jax.vmap, in_axes=(None, None, None, 0, 0))
def relaxed_slopes(diameters, unit, x, f, df):
    """dE/dt along each dF of the plain all-pairs energy after a plain descent at its F."""
    i, j = np.triu_indices(len(x), 1)

    def energy(x, f):
        delta = x[i] - x[j]
        u = (delta - jnp.round(delta)) @ f.T
        depth = jnp.maximum(1 - jnp.sqrt(jnp.sum(u * u, axis=-1)) / (0.5 * (diameters[i] + diameters[j])), 0)
        return 0.25 * unit * jnp.sum(depth**2)

    rate = 0.4 * jnp.min(diameters) ** 2 / unit
    x = jax.lax.fori_loop(0, 4000, lambda _, y: y - rate * jax.grad(energy)(y, f), x)
    return jax.jvp(lambda g: energy(x, g), (f,), (df,))[1]


@pytest.mark.parametrize("dim", [2, 3])
def test_moduli_against_packings_deformed_and_relaxed(dim):
    minimum = packing(dim, 1.0 if dim == 2 else 0.75)
    system = minimum.system
    bulk, shear = jax.jit(elastic_moduli)(equilibrium(minimum))
    vol = float(system.unit) ** (1 - dim)

    shears = []
    for a in range(dim):
        for b in range(a):
            e = np.zeros((dim, dim))
            e[a, b] = e[b, a] = 0.5**0.5
            shears.append(e)
    for a in range(1, dim):
        e = np.diag([1.0] * a + [-float(a)] + [0.0] * (dim - a - 1))
        shears.append(e / np.linalg.norm(e))
    # U'' along F = exp(t e), by central differences of relaxed slopes
    h = 1e-5
    f = np.stack([expm(t * e) for t in (h, -h) for e in shears])
    df = f @ np.concatenate([shears, shears])
    slopes = relaxed_slopes(system.diameters, system.unit, minimum.positions, jnp.asarray(f), jnp.asarray(df))
    up, down = np.asarray(slopes).reshape(2, -1)
    second = (up - down) / (2 * h) / vol
    np.testing.assert_allclose(shear, 0.5 * np.mean(second), rtol=1e-5)

    # B = -vol dp/dvol of packings in boxes of other sides; p in the units of the original
    ends = []
    for sign in (1, -1):
        again = minimise(replace(system, box=system.box * (1 + sign * h)), minimum.positions * (1 + sign * h))
        ends.append(float(jax.jit(pressure)(again.system, again.positions, again.rows, jnp.eye(dim))))
    np.testing.assert_allclose(bulk, -(ends[0] - ends[1]) / (2 * h * dim), rtol=1e-5)


# --- jamming points -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jammed():
    system = System.create(0.8, 24, 2, sizes=mixture_1_to_1_4(24), energy=HARMONIC, dtype=np.float64)
    return jam(system, np.random.default_rng(1).random((24, 2)))


def test_jamming_point_is_isostatic_and_marginal(jammed):
    assert 0.76 < jammed.phi < 0.88
    assert jammed.width <= 1e-6
    assert is_jammed(jammed.minimum)
    assert 0 <= float(jammed.minimum.system.phi) - jammed.phi <= 1e-6
    # one state of self stress: N_c = d (N_0 - 1) + 1
    assert force_network(jammed.minimum).excess_contacts == 0
    below = minimise(
        jammed.minimum.system.at_phi(jammed.phi - 1e-5), jammed.minimum.positions, floor=1e-16, steps=2_000_000
    )
    assert not is_jammed(below)


def test_above_jamming_pressure_is_linear_and_energy_quadratic(jammed):
    """Within contacts that stay, p ~ dphi and E ~ dphi^2: exponents over a factor 4 are within 2 % of these."""
    dphi = np.array([1e-4, 4e-4])
    one, two = (mechanics(m) for m in follow(jammed.minimum, jammed.phi + dphi))
    np.testing.assert_allclose(np.log(two.pressure / one.pressure) / np.log(4), 1, atol=0.03)
    np.testing.assert_allclose(np.log(two.energy / one.energy) / np.log(4), 2, atol=0.06)
    # p = -dE/dvol = (phi^2/N v) dE/dphi at fixed size: E/N = p dphi vol/(2 N phi)
    volume = 1 / float(jammed.minimum.system.unit) ** 2 / 24
    np.testing.assert_allclose(one.energy, 0.5 * one.pressure * dphi[0] / one.phi * volume, rtol=0.02)
    np.testing.assert_allclose(one.bulk_modulus, one.phi * one.pressure / dphi[0], rtol=0.05)
    assert 0 <= one.rattler_fraction < 0.3


def test_bisection_brackets_the_quenches(jammed):
    system = jammed.minimum.system
    start = np.random.default_rng(1).random((24, 2))
    found = bisect(system, start, 0.7, 0.95)
    assert found.width <= 1e-6
    assert is_jammed(minimise(system.at_phi(found.phi + 0.5 * found.width), start, steps=2_000_000))
    assert not is_jammed(minimise(system.at_phi(found.phi - 0.5 * found.width), start, steps=2_000_000, floor=1e-16))
    assert 0.76 < found.phi < 0.9


def test_moduli_have_derivatives_of_packings_minimised_again():
    minimum = packing(2, 1.0, 16)
    system, at = minimum.system, equilibrium(minimum)
    way = jnp.zeros(16).at[3].set(1.0)

    def moduli(t, at=at):
        grown = replace(at.system, diameters=at.system.diameters + t * way)
        return jnp.stack(elastic_moduli(replace(at, system=grown)))

    slope = jax.jit(jax.jacfwd(moduli))(0.0)
    h, ends = 1e-5, []
    for sign in (1, -1):
        grown = replace(system, diameters=system.diameters + sign * h * way)
        again = minimise(grown, minimum.positions, force=1e-14)
        ends.append(jnp.stack(jax.jit(elastic_moduli)(equilibrium(again))))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6)


def test_at_phi_scales_every_length():
    system = System.create(0.8, 24, 2, sizes=mixture_1_to_1_4(24), energy=HARMONIC, dtype=np.float64)
    other = system.at_phi(0.9)
    fresh = System.create(0.9, 24, 2, sizes=mixture_1_to_1_4(24), energy=HARMONIC, dtype=np.float64)
    np.testing.assert_allclose(other.diameters, fresh.diameters, rtol=1e-14)
    np.testing.assert_allclose(other.unit, fresh.unit, rtol=1e-14)


def test_force_network_is_the_one_found_by_distances():
    minima = [packing(2, phi) for phi in (0.95, 1.0)]
    networks = [force_network(minimum) for minimum in minima]
    found = [find_contacts(minimum.system, np.asarray(minimum.positions)) for minimum in minima]
    for network, other in zip(networks, found, strict=True):
        np.testing.assert_array_equal(network.rattlers, other.rattlers)
        assert (network.excess_contacts, network.contact_number) == (other.excess_contacts, other.contact_number)
        np.testing.assert_allclose(
            np.sort(network.force[network.backbone]), np.sort(other.force[other.backbone]), rtol=1e-9
        )
    edges = np.linspace(0, 6, 61)
    distribution = force_distribution(networks, edges)
    np.testing.assert_allclose(np.sum(distribution.density * np.diff(edges)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.sum(distribution.density * np.diff(edges) * distribution.middle), 1.0, atol=0.05)


def test_bad_input(jammed):
    system = jammed.minimum.system
    start = np.random.default_rng(1).random((24, 2))
    empty = force_network(minimise(system.at_phi(0.3), start))
    for wrong, sentence in [
        (lambda: system.at_phi(-0.1), "positive number"),
        (lambda: jam(system, start, step=0.5), "step in phi"),
        (lambda: bisect(system, start, 0.9, 0.8), "must be the smaller"),
        (lambda: bisect(system, start, 0.95, 1.0), "begin the bracket lower"),
        (lambda: bisect(system, start, 0.3, 0.4), "end the bracket higher"),
        (lambda: bisect(system, start, 0.3, 2.0), "out of"),
        (lambda: force_distribution([empty], np.array([0.0, 1.0])), "bears a force"),
        (lambda: mechanics(minimise(system.at_phi(0.3), start)), "absorbing state"),
        (lambda: elastic_moduli(equilibrium(minimise(*lattice(1, 6, 0.18)))), "no shear"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            wrong()
