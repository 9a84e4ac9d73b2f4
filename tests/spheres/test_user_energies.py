"""A user's own pair energies, some of which reach beyond contact."""

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pair_oracle import (
    finite_difference,
    lennard_jones,
    overlapping_system,
    pairs_along,
    pairs_of,
    slopes_of,
    to_fixed,
    value_and_both,
    value_and_gradient,
)

from packing_jax import (
    HARMONIC,
    HERTZIAN,
    PackingError,
    PairEnergy,
    System,
    mixture_1_to_1_4,
    sgd,
    simulate,
)
from packing_jax.spheres import geometry
from packing_jax.spheres.energy import all_pairs_rows

# --- energies of the user's own -------------------------------------------------------------------------------


def test_a_user_energy_gives_what_the_family_gives() -> None:
    def harmonic(r: jax.Array, sigma: jax.Array) -> jax.Array:
        return 0.25 * (1.0 - r / sigma) ** 2

    system, x, _ = overlapping_system(3, HARMONIC, n=12, side=4.0, dtype=np.float32)
    own = system.with_energy(PairEnergy(harmonic, 2.0))
    value, gradient = value_and_gradient(system, jnp.asarray(x, jnp.float32))
    mine, there = value_and_gradient(own, jnp.asarray(x, jnp.float32))
    assert mine == pytest.approx(float(value), rel=1e-6)
    assert value > 0
    np.testing.assert_allclose(there, gradient, atol=1e-6)


def test_a_jax_md_potential_gives_what_the_family_gives(jax_md: ModuleType) -> None:
    # jax-md: (epsilon/alpha) (1 - r/sigma)^alpha. Lengths are in mean diameters there, so epsilon is a0 = 1/2.
    def soft_sphere(r: jax.Array, sigma: jax.Array) -> jax.Array:
        return jax_md.energy.soft_sphere(r, sigma, epsilon=0.5, alpha=2)

    system, x, _ = overlapping_system(3, HARMONIC, n=12, side=4.0, dtype=np.float32)
    theirs = system.with_energy(PairEnergy(soft_sphere, 2.0))
    value, gradient = value_and_gradient(system, jnp.asarray(x, jnp.float32))
    lent, there = value_and_gradient(theirs, jnp.asarray(x, jnp.float32))
    assert lent == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(there, gradient, atol=1e-6)


def test_a_user_energy_may_be_undefined_beyond_contact() -> None:
    # (1 - r/sigma)^(5/2) is NaN there; neither the values nor any derivative may see it
    hertzian = PairEnergy(lambda r, sigma: 0.2 * (1.0 - r / sigma) ** 2.5, 2.0)
    system, x, diameters = overlapping_system(3, hertzian, n=12, dtype=np.float32)
    _, r, contact = pairs_of(x, diameters, 1.0)
    assert np.any(r > contact)
    value, (along, gradient) = value_and_both(system, jnp.asarray(x, jnp.float32))
    family = system.with_energy(HERTZIAN)
    expected = value_and_both(family, jnp.asarray(x, jnp.float32))
    assert value == pytest.approx(float(expected[0]), rel=1e-5)
    np.testing.assert_allclose(gradient, expected[1][1], atol=1e-5)
    np.testing.assert_allclose(along.diameters, expected[1][0].diameters, atol=1e-5)
    assert along.box == pytest.approx(float(expected[1][0].box), abs=1e-5)


# --- energies that reach beyond contact -----------------------------------------------------------------------


def wca(r: jax.Array, sigma: jax.Array) -> jax.Array:
    return lennard_jones(r, sigma) + 1.0


def inverse_power(r: jax.Array, sigma: jax.Array) -> jax.Array:
    return (sigma / r) ** 12 - 1.5**-12


LONGER = {"wca": PairEnergy(wca, 50.0, 2 ** (1 / 6)), "inverse power": PairEnergy(inverse_power, 100.0, 1.5)}


@pytest.mark.parametrize("name", LONGER)
def test_an_energy_with_a_reach_counts_every_pair_within_it(name: str) -> None:
    with jax.enable_x64(True):
        energy, n = LONGER[name], 12
        side = 5.0
        x = side * np.stack(np.meshgrid(np.arange(4) / 4, np.arange(3) / 3), axis=-1).reshape(-1, 2)
        x = x + 0.1 * np.random.default_rng(5).standard_normal(x.shape)
        diameters = np.where(np.arange(n) < 6, 1.2, 1.5)
        system = System.from_diameters(diameters, n, 2, energy=energy, box=side, dtype=np.float64)
        unit = diameters.mean()

        def oracle(x: np.ndarray) -> float:
            _, r, contact = pairs_of(x, diameters, side)
            near = np.triu(r < energy.reach * contact, 1)
            return unit * float(np.sum(energy.function(r[near] / unit, contact[near] / unit)))

        _, r, contact = pairs_of(x, diameters, side)
        beyond = (r >= contact) & (r < energy.reach * contact)
        assert np.any(beyond)
        assert np.any((r > 0) & (r < contact))
        value, gradient = value_and_gradient(system, jnp.asarray(x))
        assert float(value) == pytest.approx(oracle(x), rel=1e-9)
        np.testing.assert_allclose(gradient, finite_difference(oracle, x), atol=1e-5 * np.max(np.abs(gradient)))


def test_a_hard_core_is_clipped_to_the_bound() -> None:
    system = System.from_diameters(0.1, 4, 2, energy=LONGER["wca"])
    x = jnp.asarray([[0.5, 0.5], [0.5, 0.5], [0.8, 0.5], [0.801, 0.5]], jnp.float32)
    slopes = slopes_of(system, pairs_along(system, to_fixed(x, system.box), all_pairs_rows(4)))
    # coincident, a hundredth of a diameter apart, and out of reach
    np.testing.assert_array_equal(np.sort(slopes, axis=1)[:, 0], [-50.0] * 4)
    assert np.sum(np.asarray(slopes) != 0) == 4


def test_a_jax_md_potential_with_a_cutoff_of_its_own(jax_md: ModuleType) -> None:
    cut = jax_md.energy.multiplicative_isotropic_cutoff(jax_md.energy.lennard_jones, 1.5, 1.8)
    with jax.enable_x64(True):
        energy = PairEnergy(lambda r, sigma: cut(r, sigma, 1.0), slope_bound=200.0, reach=1.8)
        side = 6.0
        x = side * np.stack(np.meshgrid(np.arange(5) / 5, np.arange(5) / 5), axis=-1).reshape(-1, 2)
        x = x + 0.05 * np.random.default_rng(6).standard_normal(x.shape)
        system = System.from_diameters(1.0, 25, 2, energy=energy, box=side, dtype=np.float64)
        _, r, _ = pairs_of(x, np.asarray(1.0), side)
        theirs = cut(jnp.asarray(r[np.triu_indices(25, 1)]), 1.0, 1.0).sum()
        assert float(value_and_gradient(system, jnp.asarray(x))[0]) == pytest.approx(float(theirs), rel=1e-9)
        assert theirs < 0
        run = simulate(system, sgd(optax.sgd(0.01)), 20, jax.random.key(0), start=x, record={}, times=np.array([20]))
        assert _apart(run.positions, _descended(system, x, 0.01, 20), side) < 1e-8


def _descended(system: System, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """Gradient descent on the energy of all pairs, by hand; lengths in diameters."""
    for _ in range(steps):
        x = x - rate * np.asarray(value_and_gradient(system, jnp.asarray(x))[1])
    return x


def _apart(one: np.ndarray, other: np.ndarray, side: float) -> float:
    """The largest distance between two configurations, along an axis."""
    return float(np.max(np.abs(geometry.minimum_image(one - other, side))))


def test_an_inverse_power_with_a_cutoff_is_descended() -> None:
    """The driver's rows reach as far as the energy: the run is that of all pairs, most of them beyond contact."""
    with jax.enable_x64(True):
        side, x = 6.0, 6.0 * np.stack(np.meshgrid(np.arange(5) / 5, np.arange(5) / 5), axis=-1).reshape(-1, 2)
        x = x + 0.04 * np.random.default_rng(8).standard_normal(x.shape)
        system = System.from_diameters(1.0, 25, 2, energy=LONGER["inverse power"], box=side, dtype=np.float64)
        run = simulate(system, sgd(optax.sgd(0.002)), 20, jax.random.key(0), start=x, record={}, times=np.array([20]))
        by_hand = _descended(system, x, 0.002, 20)
        assert _apart(run.positions, by_hand, side) < 1e-8
        assert _apart(by_hand, x, side) > 1e-3


def test_no_list_of_active_particles_where_forces_reach_beyond_contact() -> None:
    # tuning takes active-only steps where the cut is zero: such a list holds contacts, and here more than these move
    assert System.create(0.4, 50, 2, energy=LONGER["wca"]).cut > 0


SHIFT = 4.0 * (2.5**-12 - 2.5**-6)


@pytest.mark.parametrize(
    ("function", "reach", "sentence"),
    [
        (lennard_jones, 2.5, r"is -0\.0163 at its end, 2\.5 sigma, and must be 0 there"),
        # zero at contact, and cut off before its well
        (lennard_jones, 1.0, r"goes on beyond its reach of 1 sigma: it is -0\.758 at 1\.05 sigma"),
        (lambda r, s: jnp.where(r < 1.5 * s, (1.5 - r / s) ** 2, 0.0), 1.0, r"is 0\.25 at its end, 1 sigma"),
        (lambda r, s: (s / r) ** 12, 1.5, r"is 0\.0077\d at its end"),
        (lambda r, _: 1.0 - 0.0 * r, 1.0, r"is 1 at its end"),
        (lambda r, s: (s - r) * jnp.sqrt(r - 0.5 * s), 1.0, r"slope is .* at r = 0\.5 sigma; it must be finite"),
        (lambda r, s: s - r, 0.9, r"the energy's reach is 0\.9 contact distances; it must be from 1"),
        (lambda r, s: s - r, np.inf, r"the energy's reach is inf"),
        (lambda r: 1.0 - r, 1.0, r"the pair energy fails: TypeError: .* 2 were given; it must be a function of arrays"),
        (lambda r, s: s - r if r < s else 0.0, 1.0, r"fails: .*; it must be .* elementwise and in jax\.numpy"),
    ],
)
def test_energies_that_do_not_end_at_their_reach_are_refused(function: Any, reach: float, sentence: str) -> None:
    with pytest.raises(PackingError, match=sentence):
        PairEnergy(function, 60.0, reach)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda r: r, "fails: TypeError.*elementwise"),
        (lambda r, s: 1 - r / s if r < s else 0.0, "fails: "),
        (lambda r, s: jnp.sum(1 - r / s), r"has the shape \(\) for distances of shape .*; it must be elementwise"),
        (lambda r, s: 0.0, r"has the shape \(\) for distances"),  # noqa: ARG005
    ],
)
def test_functions_that_are_not_elementwise_are_refused(function: Any, sentence: str) -> None:
    with pytest.raises(PackingError, match=f"the pair energy {sentence}"):
        PairEnergy(function, 1.0)


@pytest.mark.parametrize(
    ("bound", "reach", "sentence"),
    [
        ("50", 1.0, "slope_bound is '50'; it must be a finite positive number"),
        (np.array([1.0, 2.0]), 1.0, "slope_bound is .*; it must be a finite positive number"),
        (1.0, "2", "reach is '2' contact distances; it must be from 1"),
    ],
)
def test_bounds_that_are_no_numbers_are_refused(bound: Any, reach: Any, sentence: str) -> None:
    with pytest.raises(PackingError, match=sentence):
        inspect.unwrap(PairEnergy.__post_init__)(SimpleNamespace(slope_bound=bound, reach=reach))


def test_an_energy_must_end_for_every_pair_of_a_mixture() -> None:
    # a cutoff in mean diameters and not in contact distances
    shifted = PairEnergy(lambda r, s: jnp.where(r < 2.5, lennard_jones(r, s) - SHIFT, 0.0), 50.0, 2.5)
    System.create(0.5, 100, 2, energy=shifted)
    with pytest.raises(PackingError, match=r"the pair energy goes on beyond its reach|is .* at its end"):
        System.create(0.5, 100, 2, energy=shifted, sizes=mixture_1_to_1_4(100))


def test_a_reach_of_half_the_box_is_refused() -> None:
    far = PairEnergy(lambda r, s: (4.0 - r / s) ** 2, 10.0, 4.0)
    with pytest.raises(PackingError, match=r"the energy reaches 0\.8\d+ box sides"):
        System.create(0.5, 14, 2, energy=far)
    with pytest.raises(PackingError, match=r"the energy reaches 0\.8\d+ box sides"):
        System.create(0.5, 14, 2).with_energy(far)
