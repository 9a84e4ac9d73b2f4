"""Pair energies and their derivatives against sums over all pairs in float64."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair_oracle import (
    FAMILY,
    crowd,
    curvature_along,
    energy_of,
    finite_difference,
    gradient_of,
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
    LINEAR,
    PackingError,
    PairEnergy,
    System,
    overlap,
    stack,
    total_energy,
)
from packing_jax.spheres.energy import all_pairs_rows
from packing_jax.spheres.potential import Overlap

# --- pair energies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", FAMILY)
def test_values_are_the_power_law(a: float) -> None:
    named = {1.0: LINEAR, 2.0: HARMONIC, 2.5: HERTZIAN}[a]
    sigma, unit = 0.12, 0.1
    r = np.linspace(0, 0.2, 41)
    ours = named(jnp.asarray(r, jnp.float32), jnp.float32(sigma), jnp.float32(unit))
    depth = np.maximum(1 - r / sigma, 0)
    np.testing.assert_allclose(ours, 0.5 * unit / a * depth**a, rtol=1e-5, atol=1e-9)
    assert np.all(np.asarray(ours)[r >= sigma * 1.001] == 0)
    stronger = overlap(a, a0=3.0)(jnp.asarray(r, jnp.float32), jnp.float32(sigma), jnp.float32(unit))
    np.testing.assert_allclose(stronger, 6 * np.asarray(ours), rtol=1e-5)


def test_contact_itself_is_no_overlap() -> None:
    sigma = jnp.float32(0.3)
    for energy in (LINEAR, HARMONIC, HERTZIAN):
        value, slope = jax.value_and_grad(energy)(sigma, sigma, sigma)
        assert value == 0
        assert slope == 0


@pytest.mark.parametrize("side", [0.5, 1.0, 7.3, 250.0])
def test_slope_of_the_linear_energy_is_one_half_in_every_box(side: float) -> None:
    system = System.from_diameters(0.2 * side, 2, 3, box=side)
    x = side * np.array([[0.02, 0.5, 0.99], [0.95, 0.55, 0.04]])
    value, gradient = value_and_gradient(system, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(np.linalg.norm(gradient, axis=1), 0.5, rtol=1e-5)
    direction = x[0] - x[1] - side * np.round((x[0] - x[1]) / side)
    np.testing.assert_allclose(gradient[0], -0.5 * direction / np.linalg.norm(direction), atol=1e-5)
    np.testing.assert_array_equal(gradient[0], -gradient[1])
    # the linear energy is half a diameter less half the distance
    expected = 0.1 * side - 0.5 * np.linalg.norm(direction)
    assert value == pytest.approx(expected, rel=1e-5)


def test_largest_slope_bounds_every_pair() -> None:
    system, x, _ = overlapping_system(3, LINEAR, n=20, dtype=np.float32)
    coordinates = to_fixed(jnp.asarray(x, jnp.float32), system.box)
    pairs = pairs_along(system, coordinates, all_pairs_rows(20))
    for a in (1.0, 2.5):
        one = system.with_energy(overlap(a, a0=0.7))
        slopes = np.asarray(slopes_of(one, pairs))
        unit = one.unit / one.box
        assert np.max(np.abs(slopes)) <= float(one.energy.largest_slope(one.diameters / one.box, unit)) * (1 + 1e-6)
        assert np.all(slopes <= 0)


# --- total energy and its derivatives -------------------------------------------------------------------------


@pytest.mark.parametrize("a", [1.0, 2.5], ids=["linear", "hertzian"])
@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_energy_and_gradient_of_two_and_of_three_spheres(dim: int, a: float) -> None:
    with jax.enable_x64(True):
        side = 2.0
        x, diameters = crowd(dim, 3, side)
        system = System.from_diameters(diameters, 3, dim, energy=Overlap(a), box=side, dtype=np.float64)
        a0 = 0.5 * float(system.unit)
        three = x[0] + 0.3 * (x - x[0])  # close enough that each pair overlaps
        two = three.copy()
        two[2] += side / 2  # as far away as it gets
        for spheres, x in ((2, two), (3, three)):
            value, gradient = value_and_gradient(system, jnp.asarray(x))
            assert float(value) == pytest.approx(energy_of(x, diameters, side, a, a0), rel=1e-12)
            differences = finite_difference(lambda y: energy_of(y, diameters, side, a, a0), x)
            np.testing.assert_allclose(gradient, differences, atol=1e-8)
            np.testing.assert_allclose(gradient, gradient_of(x, diameters, side, a, a0), rtol=1e-10, atol=1e-13)
            np.testing.assert_allclose(np.sum(np.asarray(gradient), axis=0), 0, atol=1e-12)
            assert np.sum(np.any(np.asarray(gradient) != 0, axis=1)) == spheres


@pytest.mark.parametrize("a", FAMILY)
def test_float32_gradient_of_a_crowd(a: float) -> None:
    system, x, diameters = overlapping_system(3, Overlap(a), n=20, side=3.0, dtype=np.float32)
    a0 = 0.5 * diameters.mean()
    value, gradient = value_and_gradient(system, jnp.asarray(x, jnp.float32))
    assert value == pytest.approx(energy_of(x, diameters, 3.0, a, a0), rel=1e-5)
    np.testing.assert_allclose(gradient, gradient_of(x, diameters, 3.0, a, a0), atol=2e-5)


def test_every_periodic_image_has_the_same_energy() -> None:
    system, x, _ = overlapping_system(2, HARMONIC, n=12, dtype=np.float32)
    boxes = np.random.default_rng(1).integers(-3, 4, x.shape)
    value, gradient = value_and_gradient(system, jnp.asarray(x, jnp.float32))
    elsewhere, there = value_and_gradient(system, jnp.asarray(x + boxes, jnp.float32))
    assert elsewhere == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(there, gradient, atol=1e-5)


def test_neighbour_rows_with_padding_give_the_same_energy_as_all_pairs() -> None:
    system, x, diameters = overlapping_system(2, HERTZIAN, n=12, dtype=np.float32)
    _, r, contact = pairs_of(x, diameters, 1.0)
    near = (r < 1.1 * contact) & ~np.eye(12, dtype=bool)
    rows = np.tile(np.arange(12, dtype=np.int32)[:, None], (1, near.sum(1).max() + 3))
    for i, mask in enumerate(near):
        rows[i, : mask.sum()] = np.flatnonzero(mask)
    value, gradient = value_and_gradient(system, jnp.asarray(x, jnp.float32))
    listed, there = value_and_gradient(system, jnp.asarray(x, jnp.float32), jnp.asarray(rows))
    assert listed == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(there, gradient, atol=1e-6)


def operations(f: Callable[..., jax.Array], *arguments: jax.Array | None) -> str:
    """The operations of a function as traced and as compiled, without names and places in the source."""
    compiled = jax.jit(f).lower(*arguments).compile().as_text()
    return str(jax.make_jaxpr(f)(*arguments)) + "".join(re.findall(r" = \S+ ([\w-]+)\(", compiled))


def test_gradient_and_hessian_vector_product_never_scatter() -> None:
    system, x, _ = overlapping_system(3, HARMONIC, n=12, dtype=np.float32)
    x = jnp.asarray(x, jnp.float32)
    rows = all_pairs_rows(12)

    def gradient(x: jax.Array, rows: jax.Array | None) -> jax.Array:
        return jax.grad(total_energy, argnums=1)(system, x, rows)

    def curvature(x: jax.Array, rows: jax.Array | None) -> jax.Array:
        return jax.jvp(lambda y: gradient(y, rows), (x,), (x,))[1]

    for f in (gradient, curvature, jax.vmap(gradient, in_axes=(0, None))):
        batch = x if f in (gradient, curvature) else jnp.stack([x, x])
        assert "gather" in operations(f, batch, rows)
        assert "scatter" not in operations(f, batch, rows)
    assert "scatter" not in str(jax.make_jaxpr(gradient)(x, None))
    # the search does find a scatter where there is one
    naive = jax.grad(lambda x: jnp.sum((x[:, None] - x[rows]) ** 2))
    assert "scatter" in str(jax.make_jaxpr(naive)(x))


@pytest.mark.parametrize("a", [pytest.param(2.0, id="harmonic"), pytest.param(2.5, id="hertzian")])
def test_hessian_vector_product(a: float) -> None:
    with jax.enable_x64(True):
        system, x, diameters = overlapping_system(2, Overlap(a))
        a0 = 0.5 * float(system.unit)
        hessian = finite_difference(lambda y: gradient_of(y, diameters, 1.0, a, a0), x)
        for v in np.random.default_rng(2).standard_normal((3, *x.shape)):
            np.testing.assert_allclose(
                curvature_along(system, jnp.asarray(x), jnp.asarray(v)), np.tensordot(v, hessian, 2), atol=1e-6
            )


@pytest.mark.parametrize("a", FAMILY)
def test_derivatives_along_diameters_box_unit_and_amplitude(a: float) -> None:
    with jax.enable_x64(True):
        side = 1.5
        system, x, diameters = overlapping_system(3, Overlap(a), side=side)
        unit = float(system.unit)
        _, r, contact = pairs_of(x, diameters, side)
        assert np.abs(r - contact).min() > 1e-3  # finite differences stay on one side of the kink at contact
        along = jax.jit(jax.grad(total_energy))(system, jnp.asarray(x))
        by_diameters = finite_difference(lambda s: energy_of(x, s, side, a, 0.5 * unit), diameters)
        np.testing.assert_allclose(along.diameters, by_diameters, atol=1e-8)
        by_box = finite_difference(lambda b: energy_of(x, diameters, float(b), a, 0.5 * unit), np.array(side))
        assert along.box == pytest.approx(float(by_box), abs=1e-8)
        value = energy_of(x, diameters, side, a, 0.5 * unit)
        assert along.unit == pytest.approx(value / unit, rel=1e-10)
        assert along.energy.a0 == pytest.approx(value / 0.5, rel=1e-10)
        # swelling every sphere, amplitude included: the derivative along phi
        swollen = finite_difference(
            lambda s: energy_of(x, float(s) * diameters, side, a, 0.5 * float(s) * unit), np.array(1.0)
        )
        ours = np.sum(np.asarray(along.diameters) * diameters) + float(along.unit) * unit
        assert ours == pytest.approx(float(swollen), abs=1e-8)


def test_exponent_can_be_differentiated() -> None:
    with jax.enable_x64(True):
        system, x, diameters = overlapping_system(2, LINEAR)
        a0 = 0.5 * float(system.unit)

        def value(a: jax.Array) -> jax.Array:
            return total_energy(system.with_energy(overlap(a)), jnp.asarray(x))

        f = jax.jit(jax.vmap(jax.value_and_grad(value)))
        exponents = np.array([1.0, 1.5, 2.0, 3.0])
        values, slopes = f(jnp.asarray(exponents))
        for a, v, slope in zip(exponents, values, slopes, strict=True):
            assert v == pytest.approx(energy_of(x, diameters, 1.0, a, a0), rel=1e-10)
            by = finite_difference(lambda b: energy_of(x, diameters, 1.0, float(b), a0), np.array(a))
            assert slope == pytest.approx(float(by), abs=1e-8)


def test_exponent_as_a_leaf_survives_a_trip_to_the_host() -> None:
    batch = stack([System.create(0.3, 10, energy=overlap(jnp.float32(a))) for a in (1.5, 2.5)])
    host = jax.device_get(batch)
    assert jax.tree.structure(host) == jax.tree.structure(batch)
    np.testing.assert_array_equal(jax.tree.map(lambda leaf: leaf[1], host).energy.exponent, np.float32(2.5))


def test_systems_of_one_batch_have_their_own_energies() -> None:
    systems = [System.create(phi, 12, 2, energy=overlap(2.0, a0)) for phi, a0 in ((0.5, 0.5), (0.9, 0.2))]
    x = jnp.asarray(np.random.default_rng(3).random((2, 12, 2)), jnp.float32)
    batch = jax.jit(jax.vmap(total_energy))(stack(systems), x)
    for i, system in enumerate(systems):
        assert batch[i] == pytest.approx(float(value_and_gradient(system, x[i])[0]), rel=1e-6)


# --- coincident centres ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [1.0, 2.5], ids=["linear", "hertzian"])
def test_coincident_centres_are_finite(a: float) -> None:
    system = System.from_diameters(0.2, 4, 2, energy=Overlap(a))
    x = jnp.asarray([[0.5, 0.5], [0.5, 0.5], [0.55, 0.5], [0.1, 0.1]], jnp.float32)
    value, (along, gradient) = value_and_both(system, x)
    v = 0.1 / a * np.array([1.0, 0.75**a, 0.75**a])
    assert value == pytest.approx(v.sum(), rel=1e-5)
    slope = 0.5 * 0.75 ** (a - 1)
    np.testing.assert_allclose(gradient, [[slope, 0], [slope, 0], [-2 * slope, 0], [0, 0]], atol=1e-5)
    curvature = curvature_along(system, x, jnp.ones_like(x))
    np.testing.assert_allclose(curvature, 0, atol=1e-4)  # a translation of all costs nothing
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(along))


def test_coincident_pairs_get_opposite_directions_from_their_words() -> None:
    system = System.from_diameters(0.2, 3, 3)
    coordinates = to_fixed(jnp.full((3, 3), 0.25, jnp.float32), system.box)
    rows = all_pairs_rows(3)
    words = jnp.asarray([5, 4_000_000_000, 77], jnp.uint32)
    pairs = pairs_along(system, coordinates, rows, None, (words[:, None], words[rows]))
    assert np.all(np.asarray(pairs.overlapping()))
    direction = np.asarray(pairs.separation) / np.asarray(pairs.distance)
    np.testing.assert_array_equal(np.abs(direction[0]), 1)
    np.testing.assert_array_equal(direction[1:], 0)
    for k in range(2):
        for i in range(3):
            j = int(rows[i, k])
            back = int(np.flatnonzero(np.asarray(rows[j]) == i)[0])
            assert direction[0, i, k] == -direction[0, j, back]
    still = pairs_along(system, coordinates, rows)
    np.testing.assert_array_equal(still.separation, 0)
    assert np.all(np.isfinite(slopes_of(system, still)))


# --- pairs along rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_pairs_along_rows_match_the_oracle(dim: int) -> None:
    n, side = 16, 2.0
    system, x, diameters = overlapping_system(dim, HARMONIC, n=n, side=side, dtype=np.float32)
    rows = np.array(all_pairs_rows(n))
    rows[:, 3] = np.arange(n)  # padding
    pairs = pairs_along(system, to_fixed(jnp.asarray(x, jnp.float32), system.box), jnp.asarray(rows))
    delta, r, contact = pairs_of(x / side, diameters / side, 1.0)
    me = np.arange(n)[:, None]
    np.testing.assert_array_equal(pairs.listed, rows != me)
    keep = np.asarray(pairs.listed)
    gap = np.moveaxis(np.asarray(pairs.separation), 0, -1) - delta[me, rows]
    assert np.max(np.abs(gap - np.round(gap))) < 1e-6
    np.testing.assert_allclose(np.asarray(pairs.distance)[keep], r[me, rows][keep], rtol=1e-5)
    np.testing.assert_allclose(pairs.contact, contact[me, rows], rtol=1e-6)
    np.testing.assert_allclose((np.linalg.norm(pairs.separation, axis=0) / pairs.distance)[keep], 1, rtol=1e-6)
    inside = r[me, rows] < contact[me, rows]
    np.testing.assert_array_equal(pairs.overlapping(), inside & keep)
    np.testing.assert_array_equal(pairs.overlapping(0.2), (r[me, rows] < 0.8 * contact[me, rows]) & keep)
    unit = diameters.mean()
    expected = np.where(inside & keep, -(0.5 * unit / (side * contact) * (1 - r / contact))[me, rows], 0)
    np.testing.assert_allclose(slopes_of(system, pairs), expected, atol=1e-5)


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("energy", [None, "harmonic", lennard_jones])
def test_what_is_no_energy_is_refused(energy: Any) -> None:
    with pytest.raises(PackingError, match=r"the energy is .*; it must be LINEAR, HARMONIC"):
        inspect.unwrap(System.from_diameters.__func__)(System, 0.1, 10, 2, energy=energy)


@pytest.mark.parametrize("exponent", [0.99, 0.0, -2.0, np.nan, np.inf])
def test_exponents_below_one_are_refused(exponent: float) -> None:
    with pytest.raises(PackingError, match=r"exponent is .* must be at least 1"):
        overlap(exponent)


@pytest.mark.parametrize("a0", [0.0, -1.0, np.nan, np.inf])
def test_amplitudes_that_are_not_positive_are_refused(a0: float) -> None:
    with pytest.raises(PackingError, match=r"amplitude a0 is .* finite positive"):
        overlap(2.0, a0)


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
def test_slope_bounds_that_are_not_positive_are_refused(bound: float) -> None:
    with pytest.raises(PackingError, match=r"slope_bound is .* finite positive"):
        PairEnergy(lambda r, sigma: sigma - r, bound)
