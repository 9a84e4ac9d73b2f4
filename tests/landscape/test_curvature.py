"""Spectra and flatness against dense matrices and numpy, for particles, networks and quadratic forms."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from packing_jax import HARMONIC, LINEAR, PackingError, System, mixture_1_to_1_4, stack
from packing_jax.landscape.curvature import (
    density_of_states,
    exact_spectrum,
    hessian_trace,
    hessian_vector_product,
    largest_eigenvalues,
    participation_ratio,
)
from packing_jax.landscape.flatness import flatness, packing_curvature, packing_flatness
from packing_jax.landscape.minima import energy_function, minimise, neighbour_rows

SIZE = 40


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def matrix() -> np.ndarray:
    """A symmetric matrix with a negative and some small eigenvalues."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))
    return q @ np.diag(np.concatenate([[-1.0], np.geomspace(1e-3, 5, SIZE - 1)])) @ q.T


def form(x: dict[str, jax.Array]) -> jax.Array:
    """x.A.x/2 of a pytree of two leaves."""
    flat = jnp.concatenate([x["a"], x["b"].ravel()])
    return 0.5 * flat @ jnp.asarray(matrix()) @ flat


def zeros() -> dict[str, jax.Array]:
    return {"a": jnp.zeros(10), "b": jnp.zeros((5, 6))}


def network(weights: dict[str, jax.Array]) -> jax.Array:
    """Squared error of a small network on fixed data."""
    rng = np.random.default_rng(1)
    data, wanted = jnp.asarray(rng.standard_normal((20, 3))), jnp.asarray(rng.standard_normal(20))
    hidden = jnp.tanh(data @ weights["in"] + weights["bias"][None])
    return jnp.mean((hidden @ weights["out"] - wanted) ** 2)


def weights() -> dict[str, jax.Array]:
    rng = np.random.default_rng(2)
    return {
        name: jnp.asarray(rng.standard_normal(shape))
        for name, shape in {"in": (3, 4), "bias": (4,), "out": (4,)}.items()
    }


def dense_network_hessian() -> jax.Array:
    flat, unravel = jax.flatten_util.ravel_pytree(weights())
    return jax.jit(jax.hessian(lambda x: network(unravel(x))))(flat)


# --- curvature of any function --------------------------------------------------------------------------------


def test_hessian_vector_product_is_the_matrix():
    v = jax.tree.map(jnp.ones_like, zeros())
    product = jax.jit(lambda x, v: hessian_vector_product(form, x, v))(zeros(), v)
    flat = np.concatenate([product["a"], product["b"].ravel()])
    np.testing.assert_allclose(flat, matrix().sum(axis=1), rtol=1e-12, atol=1e-13)


def test_exact_spectrum_of_a_form_and_of_a_network():
    found = jax.jit(lambda x: exact_spectrum(form, x))(zeros())
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(matrix()), atol=1e-12)
    np.testing.assert_allclose(found.modes @ matrix() @ found.modes.T, np.diag(found.eigenvalues), atol=1e-12)

    dense = dense_network_hessian()
    of_network = jax.jit(lambda x: exact_spectrum(network, x))(weights())
    np.testing.assert_allclose(of_network.eigenvalues, np.linalg.eigvalsh(dense), atol=1e-12)


def test_trace_is_unbiased_with_its_error():
    """z < 4 for a form and a network: false alarm 1 in 8000."""
    for function, x, exact in [
        (form, zeros(), np.trace(matrix())),
        (network, weights(), float(jnp.trace(dense_network_hessian()))),
    ]:
        estimate = jax.jit(lambda x, k, f=function: hessian_trace(f, x, k, 400))(x, jax.random.key(3))
        assert abs(float(estimate.value) - exact) < 4 * float(estimate.stderr)
        assert float(estimate.stderr) < 0.2 * abs(exact)
    # the error itself: the variance of z.Az over signs is twice the sum of squares off the diagonal
    off = matrix() - np.diag(np.diag(matrix()))
    estimate = jax.jit(lambda x, k: hessian_trace(form, x, k, 400))(zeros(), jax.random.key(3))
    np.testing.assert_allclose(estimate.stderr, np.sqrt(2 * np.sum(off**2) / 400), rtol=0.2)


def test_largest_eigenvalues_lie_within_their_bounds():
    wanted = np.linalg.eigvalsh(matrix())[::-1]
    run = jax.jit(lambda x, k, m: largest_eigenvalues(form, x, k, 3, m), static_argnums=2)
    for iterations in (8, 25):
        found = run(zeros(), jax.random.key(0), iterations)
        distance = np.min(np.abs(np.asarray(found.values)[:, None] - wanted[None]), axis=1)
        assert np.all(distance <= np.asarray(found.bounds) + 1e-12)
    np.testing.assert_allclose(found.values, wanted[:3], rtol=1e-6)
    # the whole space: bounds vanish
    full = run(zeros(), jax.random.key(0), SIZE)
    np.testing.assert_allclose(full.values, wanted[:3], rtol=1e-12)
    assert np.all(full.bounds < 1e-6)


def test_lanczos_stops_where_its_space_is_exhausted():
    """Two distinct eigenvalues span a Krylov space of two; the zero function one of one."""
    scale = jnp.where(jnp.arange(30) < 10, 3.0, -7.0)
    run = jax.jit(lambda x, k: largest_eigenvalues(lambda y: 0.5 * jnp.sum(scale * y * y), x, k, 3, 20))
    found = run(jnp.zeros(30), jax.random.key(0))
    np.testing.assert_allclose(found.values[:2], [3.0, -7.0], rtol=1e-12)
    assert np.isnan(found.values[2])
    assert np.all(found.bounds < 1e-10)
    states = jax.jit(lambda x, k: density_of_states(lambda y: 0.5 * jnp.sum(scale * y * y), x, k, 200, 20))(
        jnp.zeros(30), jax.random.key(0)
    )
    below = states.cumulative(jnp.asarray([0.0]))
    np.testing.assert_allclose(np.sum(states.weights, axis=1), 1.0, rtol=1e-12)
    assert abs(float(below.value[0]) - 2 / 3) < 4 * float(below.stderr[0])
    nothing = jax.jit(lambda x, k: largest_eigenvalues(lambda y: jnp.sum(0.0 * y), x, k, 1, 5))(
        jnp.zeros(6), jax.random.key(0)
    )
    assert (float(nothing.values[0]), float(nothing.bounds[0])) == (0.0, 0.0)


def test_a_function_that_is_not_finite_is_not_hidden():
    run = jax.jit(lambda y, k: largest_eigenvalues(lambda y: jnp.sum(jnp.sqrt(y)), y, k, 1, 4))
    found = run(jnp.zeros(6) - 1.0, jax.random.key(0))
    assert np.isnan(found.values[0])


def test_density_of_states():
    """Moments are exact for each probe; the cumulative count is within 4 errors at five places (1 in 3000)."""
    states = jax.jit(lambda x, k: density_of_states(form, x, k, 200, 20))(zeros(), jax.random.key(5))
    starts = np.asarray(jax.random.normal(jax.random.key(5), (200, SIZE)))
    for power in (0, 1, 2, 5):
        by_nodes = np.sum(states.weights * states.nodes**power, axis=1)
        direct = np.einsum("pi,ij,pj->p", starts, np.linalg.matrix_power(matrix(), power), starts)
        np.testing.assert_allclose(by_nodes, direct / np.sum(starts**2, axis=1), rtol=1e-9, atol=1e-11)
    exact = np.linalg.eigvalsh(matrix())
    at = jnp.asarray([-0.5, 0.3, 1.0, 2.0, 4.0])
    count = states.cumulative(at)
    wanted = np.mean(exact[None] <= np.asarray(at)[:, None], axis=1)
    assert np.all(np.abs(count.value - wanted) < 4 * np.asarray(count.stderr) + 0.01)
    grid = jnp.linspace(-4.0, 8.0, 400)
    smooth = states.broadened(grid, 0.4)
    np.testing.assert_allclose(np.trapezoid(smooth.value, grid), 1.0, atol=1e-3)
    broad = np.mean(np.exp(-0.5 * ((np.asarray(grid)[:, None] - exact) / 0.4) ** 2), axis=1) / (
        0.4 * np.sqrt(2 * np.pi)
    )
    assert np.all(np.abs(smooth.value - broad) < 5 * np.asarray(smooth.stderr) + 1e-3)


def test_replicas_batch():
    """Trace and largest eigenvalue in batches are compared with dense matrices below."""
    keys = jax.random.split(jax.random.key(7), 3)
    x = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1, leaf - 0.2]), weights())

    def states(x, k):
        return density_of_states(network, x, k, 2, 8)

    batch = jax.jit(jax.vmap(states))(x, keys)
    alone = jax.jit(states)
    for r in range(3):
        single = alone(jax.tree.map(lambda leaf, r=r: leaf[r], x), keys[r])
        for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(batch), strict=True):
            np.testing.assert_allclose(a, b[r], rtol=1e-6, atol=1e-9)


def test_participation_ratio_of_known_modes():
    one, all_, two = np.zeros((5, 3)), np.full((5, 3), 0.3), np.zeros((5, 3))
    one[2] = [1.0, -2.0, 0.5]
    two[[0, 4]] = [[1.0, 0, 0], [0, 0, -1.0]]
    modes = jnp.asarray(np.stack([one, all_, two]).reshape(3, 15))
    np.testing.assert_allclose(participation_ratio(modes, 3), [1 / 5, 1.0, 2 / 5], rtol=1e-14)
    np.testing.assert_allclose(participation_ratio(jnp.eye(15)), 1 / 15, rtol=1e-14)


# --- packings -------------------------------------------------------------------------------------------------


def dense_hessian(system: System, x: np.ndarray) -> np.ndarray:
    """Blocks k rr + (V'/r)(1 - rr) of every harmonic contact, in mean diameters."""
    unit, n, dim = float(system.unit), system.particles, system.dim
    y, sigma = x / unit, np.broadcast_to(np.asarray(system.diameters), n) / unit
    side = float(system.box) / unit
    full = np.zeros((n, dim, n, dim))
    for i in range(n):
        for j in range(n):
            delta = y[i] - y[j]
            delta -= side * np.round(delta / side)
            r, contact = np.linalg.norm(delta), 0.5 * (sigma[i] + sigma[j])
            if i == j or r >= contact:
                continue
            outer = np.outer(delta, delta) / r**2
            slope = -0.5 / contact * (1 - r / contact)
            block = 0.5 / contact**2 * outer + slope / r * (np.eye(dim) - outer)
            full[i, :, i] += block
            full[i, :, j] -= block
    return full.reshape(n * dim, n * dim)


@pytest.fixture(scope="module")
def packings() -> tuple[System, jax.Array]:
    """An absorbed, a marginal and a compressed packing of 24 discs."""
    systems = [
        System.create(phi, 24, 2, sizes=mixture_1_to_1_4(24), energy=HARMONIC, dtype=np.float64)
        for phi in (0.5, 0.9, 1.1)
    ]
    start = np.random.default_rng(8).random((24, 2))
    return stack(systems), jnp.stack([minimise(system, start).positions for system in systems])


def test_exact_spectrum_of_a_packing(packings):
    systems, x = packings
    system = jax.tree.map(lambda leaf: leaf[2], systems)
    energy = energy_function(system, neighbour_rows(system, x[2]))
    found = jax.jit(lambda y: exact_spectrum(energy, y))(x[2] / system.unit)
    wanted = np.linalg.eigvalsh(dense_hessian(system, np.asarray(x[2])))
    np.testing.assert_allclose(found.eigenvalues, wanted, atol=1e-12)
    assert np.all(wanted[:2] < 1e-12)  # translations
    assert wanted[2] > 1e-3
    assert np.all(participation_ratio(found.modes, 2) <= 1 + 1e-12)


def test_packing_curvature_of_all_replicas(packings):
    systems, x = packings
    found = packing_curvature(systems, x, jax.random.key(1), probes=400, iterations=48)
    assert float(found.half_trace.value[0]) == float(found.largest[0]) == 0.0  # absorbed: flat all around
    for r in (1, 2):
        dense = dense_hessian(jax.tree.map(lambda leaf, r=r: leaf[r], systems), np.asarray(x[r]))
        z = (float(found.half_trace.value[r]) - np.trace(dense) / 48) / float(found.half_trace.stderr[r])
        assert abs(z) < 4  # false alarm 1 in 16,000
        np.testing.assert_allclose(found.largest[r], np.linalg.eigvalsh(dense)[-1], rtol=1e-6)


def test_flatness_becomes_the_trace_for_small_perturbations(packings):
    """z < 4 for two packings (1 in 8000); absorbed packings with gaps are flat at this scale."""
    systems, x = packings
    found = packing_flatness(systems, x, jax.random.key(2), scale=1e-6, samples=2000)
    for r in (1, 2):
        dense = dense_hessian(jax.tree.map(lambda leaf, r=r: leaf[r], systems), np.asarray(x[r]))
        z = (float(found.value[r]) - np.trace(dense) / 48) / float(found.stderr[r])
        assert abs(z) < 4
        assert float(found.stderr[r]) < 0.02 * float(found.value[r])


@pytest.mark.parametrize("energy", [HARMONIC, LINEAR], ids=["harmonic", "linear"])
def test_flatness_at_the_paper_scale_against_numpy(energy):
    """The difference of two independent estimates is below 4 of its errors: false alarm 1 in 16,000."""
    system = System.create(0.68, 32, 3, energy=energy, dtype=np.float64)
    x = np.random.default_rng(9).random((32, 3))
    found = packing_flatness(system, x, jax.random.key(4))
    unit, side = float(system.unit), 1.0 / float(system.unit)
    i, j = np.triu_indices(32, 1)

    def energy_of(y: np.ndarray) -> np.ndarray:
        delta = y[..., i, :] - y[..., j, :]
        delta -= side * np.round(delta / side)
        depth = np.maximum(1 - np.sqrt(np.sum(delta**2, axis=-1)), 0)
        a = 1 if energy is LINEAR else 2
        return np.sum(0.5 / a * depth**a, axis=-1)

    y = x / unit
    rises = energy_of(y + 0.015 * np.random.default_rng(10).standard_normal((4000, 32, 3))) - energy_of(y)
    rises /= 32 * 0.015**2
    error = np.hypot(float(found.stderr), rises.std() / 4000**0.5)
    assert abs(float(found.value) - rises.mean()) < 4 * error
    np.testing.assert_allclose(found.stderr, rises.std() / 4000**0.5, rtol=0.1)


def test_a_replica_is_the_same_alone(packings):
    systems, x = packings
    together = packing_flatness(systems, x, jax.random.key(2), scale=1e-3, samples=2000)
    system = jax.tree.map(lambda leaf: leaf[2], systems)
    keys = jax.random.fold_in(jax.random.key(2), 2)[None]
    alone = packing_flatness(system, x[2], keys, scale=1e-3, samples=2000)
    np.testing.assert_allclose(alone.value, together.value[2], rtol=1e-10)


def test_single_precision_positions_do():
    system = System.create(0.68, 32, 3, energy=HARMONIC)
    x = np.random.default_rng(9).random((32, 3)).astype(np.float32)
    low = packing_flatness(system, x, jax.random.key(4), samples=200)
    assert low.value.dtype == np.float32
    high = packing_flatness(
        System.create(0.68, 32, 3, energy=HARMONIC, dtype=np.float64), x.astype(np.float64), jax.random.key(4)
    )
    assert abs(float(low.value) - float(high.value)) < 4 * float(low.stderr)


def test_bad_input(packings):
    systems, x = packings
    key = jax.random.key(0)
    linear = System.create(0.5, 24, 2, energy=LINEAR, dtype=np.float64)
    for wrong, sentence in [
        (lambda: packing_curvature(linear, x[0], key), "delta function"),
        (lambda: packing_flatness(systems, x[:2], key), "positions of shape"),
        (lambda: packing_flatness(systems, x * np.nan, key), "finite"),
        (lambda: packing_flatness(systems, x, jax.random.split(key, 2)), "one for each replica"),
        (lambda: packing_flatness(systems, x, key, scale=0.5), "scale"),
        (lambda: flatness(form, zeros(), key, scale=0.0, per=1), "scale"),
        (lambda: flatness(form, zeros(), key, scale=0.1, per=0), "per"),
        (lambda: hessian_trace(form, zeros(), key, 1), "at least 2"),
        (lambda: density_of_states(form, zeros(), key, 1), "at least 2"),
        (lambda: largest_eigenvalues(form, zeros(), key, 1, 1), "at least 2"),
        (lambda: largest_eigenvalues(form, zeros(), key, 9, 5), "9 eigenvalues from 5"),
        (lambda: exact_spectrum(lambda y: jnp.sum(y * y), jnp.zeros(6001)), "at most of 6000"),
        (lambda: hessian_trace(lambda y: 1.0 * jnp.sum(y), jnp.zeros(3, jnp.int32), key), "floating"),
        (lambda: participation_ratio(jnp.zeros(7), 2), "whole particles"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            wrong()
