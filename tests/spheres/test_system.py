"""Systems: packing fractions, batches, one clear sentence for each bad input, and the bridge to jax-md."""

import inspect
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from packing_jax import (
    HARMONIC,
    LINEAR,
    PackingError,
    PairEnergy,
    System,
    ball_volume,
    box_of_jax_md,
    langevin,
    mixture_1_to_1_4,
    overlap,
    simulate,
    stack,
    total_energy,
)
from packing_jax.spheres.system import _check_box

# --- creation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", range(1, 7))
def test_phi_comes_back(dim: int) -> None:
    n = 100 if dim < 5 else 3000  # fewer are wider than half the box
    polydisperse = np.random.default_rng(dim).uniform(0.8, 1.2, n)
    for sizes in (None, mixture_1_to_1_4(n), polydisperse):
        for phi, box in ((0.1, 1.0), (0.3, 25.0)):
            system = System.create(phi, n, dim, sizes=sizes, box=box)
            assert system.phi == pytest.approx(phi, rel=1e-5)
            diameters = np.broadcast_to(np.asarray(system.diameters, np.float64), n)
            assert ball_volume(dim) * np.sum((diameters / 2) ** dim) / box**dim == pytest.approx(phi, rel=1e-5)
            assert system.unit == pytest.approx(diameters.mean(), rel=1e-6)
            assert (system.particles, system.dim, float(system.box)) == (n, dim, box)
            shape = () if sizes is None else (n,)
            assert system.diameters.shape == shape
            if sizes is not None:
                np.testing.assert_allclose(diameters / diameters[0], sizes / sizes[0], rtol=1e-6)
            assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(system))


def test_only_the_proportions_of_sizes_count() -> None:
    sizes = np.random.default_rng(0).uniform(1, 2, 50)
    one, other = System.create(0.4, 50, 3, sizes=sizes), System.create(0.4, 50, 3, sizes=1e3 * sizes)
    np.testing.assert_allclose(one.diameters, other.diameters, rtol=1e-6)


def test_given_diameters_are_kept() -> None:
    diameters = np.linspace(0.1, 0.3, 8)
    system = System.from_diameters(2.0 * diameters, 8, 2, box=2.0)
    np.testing.assert_allclose(system.diameters, 2.0 * diameters, rtol=1e-6)
    assert system.phi == pytest.approx(np.pi / 4 * np.sum(diameters**2), rel=1e-6)
    equal = System.from_diameters(0.2, 8, 2)
    assert equal.diameters.shape == ()
    assert equal.phi == pytest.approx(8 * np.pi / 4 * 0.04, rel=1e-6)


def test_float64_systems() -> None:
    with jax.enable_x64(True):
        system = System.create(0.6, 100, 3, sizes=mixture_1_to_1_4(100), energy=HARMONIC, dtype=np.float64)
        assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(system))
        assert float(system.phi) == pytest.approx(0.6, rel=1e-13)


def test_the_cut_follows_the_energy_and_the_precision() -> None:
    # linear forces end an overlap in finite time; smoother ones never do, and float32 resolves 6e-8 of a diameter
    assert System.create(0.3, 10, energy=LINEAR).cut == 0
    own = PairEnergy(lambda r, sigma: 0.5 * (sigma - r), 1.0)
    for energy in (HARMONIC, overlap(1.5), own, overlap(jnp.float32(1.0))):
        assert 1e-7 < System.create(0.3, 10, energy=energy).cut < 1e-3
    with jax.enable_x64(True):
        assert System.create(0.3, 10, energy=HARMONIC, dtype=np.float64).cut == 1e-8
        assert System.create(0.3, 10, energy=LINEAR, dtype=np.float64).cut == 0


def test_an_energy_and_diameters_of_another_precision_take_that_of_the_system() -> None:
    with jax.enable_x64(True):
        system = System.create(0.4, 20, 2, dtype=np.float32)
        made = system.with_diameters(np.full(20, 0.1)).with_energy(overlap(jnp.asarray(2.2), np.float64(0.3)))
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(made))
        assert made.cut == System.create(0.4, 20, 2, energy=HARMONIC).cut > system.cut
        created = System.create(0.4, 20, 2, energy=HARMONIC)
        made, created = (
            simulate(one, langevin(0.1), 5, jax.random.key(0)).positions
            for one in (stack([system, system]).with_energy(HARMONIC), stack([created, created]))
        )
        np.testing.assert_array_equal(made, created)


def test_a_system_is_a_pytree() -> None:
    system = System.create(0.4, 20, 2, sizes=mixture_1_to_1_4(20), energy=HARMONIC)
    assert len(jax.tree.leaves(system)) == 4  # box, diameters, unit, amplitude
    doubled = jax.tree.map(lambda leaf: 2 * leaf, system)
    assert (doubled.particles, doubled.dim, doubled.cut) == (20, 2, system.cut)
    np.testing.assert_array_equal(doubled.diameters, 2 * system.diameters)


# --- batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [None, mixture_1_to_1_4(30)], ids=["equal", "mixture"])
def test_systems_of_different_phi_stack(sizes: np.ndarray | None) -> None:
    fractions = [0.2, 0.5, 0.7]
    systems = [System.create(phi, 30, 2, sizes=sizes, box=float(i + 1)) for i, phi in enumerate(fractions)]
    batch = stack(systems)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(batch))
    assert (batch.particles, batch.dim) == (30, 2)
    np.testing.assert_allclose(batch.phi, fractions, rtol=1e-5)
    for i, system in enumerate(systems):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        for ours, original in zip(jax.tree.leaves(one), jax.tree.leaves(system), strict=True):
            np.testing.assert_array_equal(ours, original)
    np.testing.assert_allclose(jax.vmap(lambda s: s.phi)(batch), fractions, rtol=1e-5)


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", [-0.1, 0.0, np.nan, np.inf, -np.inf])
def test_phi_must_be_positive(phi: float) -> None:
    with pytest.raises(PackingError, match=r"packing fraction phi is .*; it must be a positive number"):
        System.create(phi, 100)


@pytest.mark.parametrize("particles", [1, 0, -5])
def test_a_pair_needs_two(particles: int) -> None:
    with pytest.raises(PackingError, match=r"particles; at least 2 are needed"):
        System.create(0.3, particles)


@pytest.mark.parametrize("phi", ["a", np.array([0.1, 0.2])])
def test_phi_is_one_number(phi: object) -> None:
    create = inspect.unwrap(System.create.__func__)  # annotations are checked first in the tests
    with pytest.raises(PackingError, match=r"the packing fraction phi is .*; it must be a positive number") as raised:
        create(System, phi, 100)
    assert ("stack(" in str(raised.value)) == (np.ndim(phi) == 1)


@pytest.mark.parametrize("particles", [16.5, "16"])
def test_particles_are_counted(particles: object) -> None:
    with pytest.raises(PackingError, match=r"the number of particles is .*16.*; it must be a whole number"):
        inspect.unwrap(_check_box)(particles, 3, 1.0)


@pytest.mark.parametrize("dim", [0, 7, -3])
def test_dimension_out_of_range(dim: int) -> None:
    with pytest.raises(PackingError, match="whole number from 1 to 6"):
        System.create(0.3, 100, dim)


@pytest.mark.parametrize("box", [0.0, -1.0, np.nan, np.inf])
def test_box_must_be_positive(box: float) -> None:
    with pytest.raises(PackingError, match=r"box side is .*; it must be a positive number"):
        System.create(0.3, 100, box=box)


@pytest.mark.parametrize("shape", [(99,), (101,), (100, 1), (1,), (0,)])
def test_sizes_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(PackingError, match=r"sizes has shape .*; it must be \(100,\), one per particle"):
        System.create(0.3, 100, sizes=np.ones(shape))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_sizes_that_are_not_positive(bad: float) -> None:
    sizes = np.ones(100)
    sizes[17] = bad
    with pytest.raises(PackingError, match="entries that are not positive"):
        System.create(0.3, 100, sizes=sizes)


def test_spheres_wider_than_half_the_box() -> None:
    with pytest.raises(PackingError, match=r"2 particles at phi = 0\.6 in 3D are .* box sides wide; below half a side"):
        System.create(0.6, 2)
    sizes = np.ones(100)
    sizes[0] = 20.0
    with pytest.raises(PackingError, match="use more particles or a lower phi"):
        System.create(0.6, 100, 2, sizes=sizes)
    with pytest.raises(PackingError, match="box sides wide"):
        System.from_diameters(1.0, 2, 3, box=2.0)
    System.from_diameters(0.99, 2, 3, box=2.0)


def test_too_many_overlaps_per_sphere() -> None:
    with pytest.raises(PackingError, match=r"phi = 10 in 3D means about 80 overlaps .* up to phi = 8; .* a fraction"):
        System.create(10.0, 10_000)
    with pytest.raises(PackingError, match=r"in 6D means about 76.8 overlaps per sphere.* up to phi = 1; "):
        System.create(1.2, 10_000, 6)


def test_float64_without_x64() -> None:
    assert not jax.config.jax_enable_x64
    with pytest.raises(PackingError, match=r"jax\.config\.update\('jax_enable_x64', True\)"):
        System.create(0.3, 100, dtype=np.float64)


@pytest.mark.parametrize("exponent", [0.5, 0.0, -1.0, np.nan])
def test_exponents_below_one(exponent: float) -> None:
    with pytest.raises(PackingError, match="must be at least 1"):
        System.create(0.3, 100, energy=overlap(exponent))


@pytest.mark.parametrize(
    ("diameters", "particles", "box"),
    [
        pytest.param(np.nan, 10, 1.0, id="not a number"),
        pytest.param(-0.1, 10, 1.0, id="negative"),
        pytest.param(0.0, 10, 1.0, id="zero"),
        pytest.param(np.array([0.1, np.nan, 0.1]), 3, 1.0, id="one not a number"),
        pytest.param(np.array([0.1, 0.1, 0.1]), 10, 1.0, id="three for ten particles"),
        pytest.param(np.full((10, 1), 0.1), 10, 1.0, id="a column"),
        pytest.param(0.1, 1, 1.0, id="one particle"),
        pytest.param(0.1, 10, np.nan, id="box not a number"),
        pytest.param(0.1, 10, -1.0, id="box negative"),
    ],
)
def test_diameters_that_make_no_system(diameters: np.ndarray | float, particles: int, box: float) -> None:
    with pytest.raises(PackingError):
        System.from_diameters(diameters, particles, box=box)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_precisions_without_fixed_point_coordinates(dtype: type) -> None:
    with pytest.raises(PackingError):
        System.create(0.3, 100, dtype=dtype)


# --- jax-md ---------------------------------------------------------------------------------------------------


def test_the_displacement_and_shift_of_jax_md(jax_md: ModuleType) -> None:
    system = System.create(0.3, 20, 3, box=2.5)
    displacement, shift = system.to_jax_md()
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 2.5, (2, 50, 3)).astype(np.float32)
    delta = x.astype(np.float64) - y
    delta -= 2.5 * np.round(delta / 2.5)
    np.testing.assert_allclose(jax.vmap(displacement)(x, y), delta, atol=1e-5)
    moved = np.asarray(shift(jnp.asarray(x), jnp.asarray(y)))
    assert np.all((moved >= 0) & (moved <= 2.5))
    np.testing.assert_allclose(np.cos(2 * np.pi * moved / 2.5), np.cos(2 * np.pi * (x + y) / 2.5), atol=1e-4)


@pytest.mark.parametrize(("side", "dim"), [(1.0, 3), (0.013, 2), (777.7, 1)])
def test_the_box_goes_to_jax_md_and_back(jax_md: ModuleType, side: float, dim: int) -> None:
    displacement, _ = System.create(0.1, 20, dim, box=side).to_jax_md()
    assert box_of_jax_md(displacement, dim) == pytest.approx(side, rel=1e-6)


def test_spaces_that_are_no_periodic_cube_are_refused(jax_md: ModuleType) -> None:
    free, _ = jax_md.space.free()
    with pytest.raises(PackingError, match="not periodic"):
        box_of_jax_md(free, 2)
    oblong, _ = jax_md.space.periodic(jnp.asarray([1.0, 2.0], jnp.float32))
    with pytest.raises(PackingError, match="cubic box"):
        box_of_jax_md(oblong, 2)


@pytest.mark.parametrize("side", [2.0, 0.3])
def test_the_box_behind_fractional_coordinates_is_found_or_refused(jax_md: ModuleType, side: float) -> None:
    # there a displacement grows with slope `side`, not 1: a wrong side must not come back silently
    displacement, _ = jax_md.space.periodic_general(jnp.asarray(side, jnp.float32), fractional_coordinates=True)
    try:
        found = box_of_jax_md(displacement, 2)
    except PackingError:
        return
    assert found == pytest.approx(side, rel=1e-6)


@pytest.mark.parametrize("mixed", [False, True], ids=["equal", "mixture"])
def test_the_energy_of_jax_md_is_ours(jax_md: ModuleType, mixed: bool) -> None:
    n = 24
    system = System.create(0.8, n, 2, sizes=mixture_1_to_1_4(n) if mixed else None, energy=HARMONIC, box=3.0)
    x = jnp.asarray(np.random.default_rng(1).uniform(0, 3, (n, 2)), jnp.float32)
    displacement, _ = system.to_jax_md()
    # theirs: (epsilon/alpha) (1 - r/sigma)^alpha; ours has a0 = R, half the mean diameter, in its place
    contact = system.diameters
    if mixed:
        contact = 0.5 * (contact[:, None] + contact[None])
    theirs = jax_md.energy.soft_sphere_pair(displacement, sigma=contact, epsilon=0.5 * system.unit, alpha=2)
    value, gradient = jax.jit(jax.value_and_grad(theirs))(x)
    ours, there = jax.jit(jax.value_and_grad(total_energy, argnums=1))(system, x)
    assert ours == pytest.approx(float(value), rel=1e-5)
    assert ours > 0
    np.testing.assert_allclose(there, gradient, atol=1e-5)
