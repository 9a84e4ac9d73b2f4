"""Implicit derivatives against differentiation through a converged descent and re-minimised packings."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from packing_jax import HARMONIC, LINEAR, PackingError, System, mixture_1_to_1_4, overlap
from packing_jax.landscape.equilibrium import equilibrium
from packing_jax.landscape.forces import contact_forces, deformed_energy, force_network, pressure
from packing_jax.landscape.minima import Minimum, minimise, neighbour_rows

N = 16


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def packing(dim: int, phi: float, n: int = N, seed: int = 4, exponent: float = 2.0) -> Minimum:
    sizes = mixture_1_to_1_4(n) if dim == 2 else np.linspace(0.95, 1.05, n)
    energy = HARMONIC if exponent == 2.0 else overlap(jnp.asarray(exponent))
    system = System.create(phi, n, dim, sizes=sizes, energy=energy, dtype=np.float64)
    return minimise(system, np.random.default_rng(seed).random((n, dim)))


@pytest.fixture(scope="module", params=[2, 3])
def minimum(request: pytest.FixtureRequest) -> Minimum:
    return packing(request.param, 1.0 if request.param == 2 else 0.75)


#: 3D by hand: in CI, finite differences and the moduli in test_jamming.py check derivatives there.
by_hand_in_3d = pytest.mark.parametrize(
    "minimum", [2, pytest.param(3, marks=pytest.mark.validation)], indirect=True, scope="module"
)


def plain(parameters, x: jax.Array) -> dict[str, jax.Array]:
    """Energy, pressure and mean contact force over all pairs, written out again: the oracle."""
    diameters, box, deformation, unit = parameters
    i, j = np.triu_indices(len(x), 1)
    delta = x[i] - x[j]
    u = (delta - box * jnp.round(delta / box)) @ deformation.T
    r = jnp.sqrt(jnp.sum(u * u, axis=-1))
    sigma = 0.5 * (diameters[i] + diameters[j])
    depth = jnp.maximum(1 - r / sigma, 0.0)
    dim = x.shape[1]
    force = 0.5 * unit * depth / sigma
    vol = box**dim * jnp.linalg.det(deformation)
    return {
        "energy": 0.25 * unit * jnp.sum(depth**2),
        "pressure": jnp.sum(force * r) / (dim * vol) * unit ** (dim - 1),
        "square force": jnp.sum(force**2),
    }


plain_along = jax.jit(plain)


def parameters_of(system: System) -> tuple[jax.Array, ...]:
    return system.diameters, system.box, jnp.eye(system.dim), system.unit


def quantities(at, system: System, deformation: jax.Array) -> dict[str, jax.Array]:
    x = at(system, deformation)
    return {
        "energy": deformed_energy(system, x, at.rows, deformation),
        "pressure": pressure(system, x, at.rows, deformation),
        "square force": 0.5 * jnp.sum(contact_forces(system, x, at.rows, deformation) ** 2),
    }


def directions(dim: int) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Changes of (diameters, box, deformation): one diameter, all of them, the box, shear, and everything."""
    rng = np.random.default_rng(5)
    one, shear, none = np.zeros(N), np.zeros((dim, dim)), np.zeros((dim, dim))
    one[3], shear[0, 1] = 0.1, 1.0
    return [
        (one, 0.0, none),
        (0.1 * rng.standard_normal(N), 0.0, none),
        (0 * one, 1.0, none),
        (0 * one, 0.0, shear),
        (0.1 * rng.standard_normal(N), 0.3, rng.standard_normal((dim, dim))),
    ]


@jax.jit
def implicit(at, direction):
    system = at.system

    def along(diameters, box, deformation):
        return quantities(at, replace(system, diameters=diameters, box=box), deformation)

    return jax.jvp(along, (system.diameters, system.box, jnp.eye(system.dim)), direction)


@jax.jit
def relaxed(parameters, x):
    """A plain descent from x, long enough to converge and to carry its derivative along."""
    diameters, *_, unit = parameters
    rate = 0.4 * jnp.min(jax.lax.stop_gradient(diameters)) ** 2 / jax.lax.stop_gradient(unit)
    slope = jax.grad(lambda y, p: plain(p, y)["energy"])
    return jax.lax.fori_loop(0, 6000, lambda _, y: y - rate * slope(y, parameters), x)


@by_hand_in_3d
def test_values_and_derivatives_equal_those_through_a_converged_solve(minimum):
    at = equilibrium(minimum)
    parameters = parameters_of(minimum.system)

    @jax.jit
    def through(direction):
        tangents = (*direction, jnp.zeros(()))
        return jax.jvp(lambda p: plain(p, relaxed(p, minimum.positions)), (parameters,), (tangents,))

    for raw in directions(minimum.system.dim):
        direction = jax.tree.map(jnp.asarray, raw)
        value, slope = implicit(at, direction)
        oracle_value, oracle = through(direction)
        for name in oracle:
            np.testing.assert_allclose(value[name], oracle_value[name], rtol=1e-10, err_msg=name)
            np.testing.assert_allclose(slope[name], oracle[name], rtol=1e-6, err_msg=name)


@by_hand_in_3d
def test_reverse_mode_is_the_transpose(minimum):
    at = equilibrium(minimum)
    system = minimum.system

    @jax.jit
    def gradient(diameters, box, deformation):
        def p(diameters, box, deformation):
            return quantities(at, replace(system, diameters=diameters, box=box), deformation)["pressure"]

        return jax.grad(p, argnums=(0, 1, 2))(diameters, box, deformation)

    by_reverse = gradient(system.diameters, system.box, jnp.eye(system.dim))
    for raw in directions(system.dim):
        direction = jax.tree.map(jnp.asarray, raw)
        along = sum(float(jnp.sum(g * d)) for g, d in zip(by_reverse, direction, strict=True))
        np.testing.assert_allclose(along, implicit(at, direction)[1]["pressure"], rtol=1e-8)


def test_finite_differences_of_packings_minimised_again(minimum):
    at = equilibrium(minimum)
    system = minimum.system
    h = 1e-5  # forces of 1e-12 are then 1e-7 of a difference
    for diameters, box, _ in directions(system.dim)[:3]:
        direction = (jnp.asarray(diameters), jnp.asarray(box), jnp.zeros((system.dim, system.dim)))
        ends = []
        for sign in (1, -1):
            moved = replace(
                system, diameters=system.diameters + sign * h * direction[0], box=system.box + sign * h * direction[1]
            )
            again = minimise(moved, minimum.positions, force=1e-14)
            ends.append(plain_along(parameters_of(moved), again.positions))
        slope = implicit(at, direction)[1]
        for name in slope:
            difference = (float(ends[0][name]) - float(ends[1][name])) / (2 * h)
            np.testing.assert_allclose(slope[name], difference, rtol=1e-6, err_msg=name)


def test_energy_needs_no_solve(minimum):
    """At a minimum dE/dtheta is the explicit derivative at fixed positions."""
    system = minimum.system
    at = equilibrium(minimum)
    direction = jax.tree.map(jnp.asarray, directions(system.dim)[4])
    tangents = (*direction, jnp.zeros(()))
    _, explicit = jax.jit(lambda p, t: jax.jvp(lambda q: plain(q, minimum.positions), (p,), (t,)))(
        parameters_of(system), tangents
    )
    np.testing.assert_allclose(implicit(at, direction)[1]["energy"], explicit["energy"], rtol=1e-9)


def test_second_derivatives_see_the_minimum_move():
    minimum = packing(2, 1.0)
    at = equilibrium(minimum)
    system = minimum.system
    one = jnp.zeros(N).at[3].set(1.0)

    def p(t):
        moved = replace(system, diameters=system.diameters + t * one)
        return pressure(moved, at(moved), at.rows, jnp.eye(2))

    def slope_at(t):
        moved = replace(system, diameters=system.diameters + t * one)
        again = equilibrium(minimise(moved, minimum.positions))
        return implicit(again, (one, jnp.zeros(()), jnp.zeros((2, 2))))[1]["pressure"]

    second = jax.jit(lambda t: jax.jvp(jax.grad(p), (t,), (jnp.ones(()),))[1])(jnp.zeros(()))
    h = 1e-5
    np.testing.assert_allclose(second, (slope_at(h) - slope_at(-h)) / (2 * h), rtol=1e-5)


def test_a_traced_exponent_can_be_differentiated():
    minimum = packing(2, 1.0, exponent=2.5)
    at = equilibrium(minimum)
    system = minimum.system

    def p(a):
        moved = system.with_energy(replace(system.energy, exponent=a))
        return pressure(moved, at(moved), at.rows, jnp.eye(2))

    slope = jax.jit(jax.grad(p))(system.energy.exponent)
    ends = []
    for h in (1e-5, -1e-5):
        moved = system.with_energy(replace(system.energy, exponent=system.energy.exponent + h))
        again = minimise(moved, minimum.positions)
        ends.append(float(jax.jit(pressure)(moved, again.positions, again.rows, jnp.eye(2))))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_rattlers_stay_and_do_not_matter():
    minimum = next(
        m for m in (packing(2, 0.87, seed=seed) for seed in range(20)) if 0 < sum(force_network(m).rattlers) < 8
    )
    network = force_network(minimum)
    at = equilibrium(minimum)
    system = minimum.system

    @jax.jit
    def derivative(at):
        def p(d):
            moved = replace(system, diameters=d)
            return pressure(moved, at(moved), at.rows, jnp.eye(2))

        swell = jax.jvp(lambda d: at(replace(system, diameters=d)), (system.diameters,), (system.diameters,))[1]
        return jax.grad(p)(system.diameters), swell

    slope, moves = (np.asarray(x) for x in derivative(at))
    assert np.all(slope[network.rattlers] == 0)
    assert np.all(moves[network.rattlers] == 0)
    assert np.all(slope[~network.rattlers] != 0)
    np.testing.assert_allclose(np.mean(moves[~network.rattlers], axis=0), 0, atol=1e-12)
    ends = []
    for h in (1e-7, -1e-7):
        moved = replace(system, diameters=system.diameters * (1 + h))
        again = minimise(moved, minimum.positions)
        ends.append(float(jax.jit(pressure)(moved, again.positions, again.rows, jnp.eye(2))))
    np.testing.assert_allclose(np.sum(slope * np.asarray(system.diameters)), (ends[0] - ends[1]) / 2e-7, rtol=1e-5)


def test_bad_input(minimum):
    system = minimum.system
    at = equilibrium(minimum)
    for wrong, sentence in [
        (lambda: equilibrium(replace(minimum, force=1e-3)), "not a minimum"),
        (lambda: equilibrium(replace(minimum, system=system.with_energy(LINEAR))), "delta function"),
        (lambda: at(replace(system, diameters=1.01 * system.diameters)), "minimised again"),
        (lambda: at(system, 1.01 * jnp.eye(system.dim)), "undeformed"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            wrong()


@by_hand_in_3d
def test_a_minimum_of_loose_forces_and_a_saddle_are_refused(minimum):
    system = minimum.system
    loose = minimise(system, np.random.default_rng(4).random((N, system.dim)), force=1e-4)
    assert loose.converged
    with pytest.raises(PackingError, match="minimise with a smaller force"):
        equilibrium(loose)
    grid = np.stack(np.meshgrid(*[np.arange(4) / 4 + 0.01] * system.dim), axis=-1).reshape(-1, system.dim)
    lattice = System.from_diameters(0.27, len(grid), system.dim, energy=HARMONIC, dtype=np.float64)
    with pytest.raises(PackingError, match="a maximum or a saddle"):
        minimise(lattice, grid)
    balanced = Minimum(lattice, jnp.asarray(grid), neighbour_rows(lattice, grid), 0.0, 0.0, 0, 1e-12)
    assert balanced.converged
    with pytest.raises(PackingError, match="this is a saddle"):
        equilibrium(balanced)


@by_hand_in_3d
def test_a_traced_system_of_other_values_makes_nan(minimum):
    at = equilibrium(minimum)

    def size(diameters: jax.Array) -> jax.Array:
        return jnp.sum(at(replace(minimum.system, diameters=diameters)) ** 2)

    slopes = jax.jit(jax.value_and_grad(size))
    assert all(np.isfinite(one).all() for one in slopes(minimum.system.diameters))
    value, slope = slopes(1.01 * minimum.system.diameters)
    assert np.isnan(value)
    assert np.isnan(slope).any()


def test_absorbing_states_say_that_everything_is_zero_by_nature():
    absorbed = packing(3, 0.3)
    assert absorbed.energy == 0.0
    with pytest.raises(PackingError, match="absorbing state, whose energy and derivatives are zero"):
        equilibrium(absorbed)
