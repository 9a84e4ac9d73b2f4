"""The CLAMP loss against its equations written out in plain Python, finite differences, and the energy of spheres."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.manifold_packing import ABSORBED, clamp_loss, manifolds, overlaps
from packing_jax.spheres.potential import overlap

LOSS, SLOPE = jax.jit(clamp_loss), jax.jit(jax.grad(clamp_loss))  # at the settings of the source


def embeddings(samples=6, views=4, dim=3, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, 1, dim)) + noise * rng.standard_normal((samples, views, dim))


def written_out(raw, size=7.0, p=2, weight=0.0):
    """Equation by equation, one number at a time, in float64."""
    samples, views, dim = raw.shape
    mean = raw.reshape(-1, dim).mean(0)
    z = [[(view - mean) / np.sqrt(sum((view - mean) ** 2)) for view in one] for one in raw]
    centres = [sum(one) / views for one in z]
    radii = []
    for one, c in zip(z, centres, strict=True):
        trace = sum(sum((view - c) ** 2) for view in one) / (views - 1)
        radii.append(size * np.sqrt(trace / min(dim, views) + 1e-12))
    total, touching = 0.0, 0
    for i in range(samples):
        for j in range(samples):
            d = np.sqrt(sum((centres[i] - centres[j]) ** 2))
            s = min(radii[i] + radii[j] + 1e-6, 1.5)
            if i != j and 1e-3 < d < s:
                total += (1 - d / s) ** p
                touching += 1
    return np.log(total / 2 + weight * sum(radii) + 1e-6), touching


@pytest.mark.parametrize("more", [{}, {"size": 3.0, "exponent": 1}, {"radius_weight": 0.2}])
@pytest.mark.parametrize("shape", [(6, 4, 3), (5, 2, 8)])
def test_equations(shape, more):
    with jax.enable_x64(True):
        raw = embeddings(*shape)
        found = float(jax.jit(partial(clamp_loss, **more))(jnp.asarray(raw)))
    expected, touching = written_out(
        raw, more.get("size", 7.0), more.get("exponent", 2), more.get("radius_weight", 0.0)
    )
    assert touching > 0
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gradient():
    """Central differences of the plain transcription, whose error is about 1e-9 here."""
    with jax.enable_x64(True):
        raw = embeddings()
        found = np.asarray(SLOPE(jnp.asarray(raw)))
    h, rng = 1e-5, np.random.default_rng(1)
    for _ in range(5):
        way = rng.standard_normal(raw.shape)
        slope = (written_out(raw + h * way)[0] - written_out(raw - h * way)[0]) / (2 * h)
        np.testing.assert_allclose((found * way).sum(), slope, rtol=1e-6)


def test_it_is_the_energy_of_spheres():
    """The harmonic overlap energy of a packing, at a0 = p, summed over pairs of these centres and radii."""
    with jax.enable_x64(True):
        raw = jnp.asarray(embeddings())
        c, r = manifolds(raw)
        d = jnp.linalg.norm(c[:, None] - c[None, :] + jnp.eye(6)[..., None], axis=2)
        s = jnp.minimum(r[:, None] + r[None, :] + 1e-6, 1.5)
        energy = jnp.where(jnp.eye(6) > 0, 0.0, overlap(2.0, a0=2.0)(d, s, jnp.asarray(1.0)))
        np.testing.assert_allclose(float(LOSS(raw)), np.log(float(energy.sum()) / 2 + 1e-6), rtol=1e-12)


def test_absorbing_and_coincident():
    """Apart: the floor, without a force. Coincident centres do not repel, and nothing is NaN."""
    corners = np.concatenate([np.eye(3), -np.eye(3)])[:, None]
    apart = jnp.asarray(corners + 1e-3 * embeddings(noise=1.0) / 10, jnp.float32)
    np.testing.assert_allclose(float(LOSS(apart)), ABSORBED, rtol=1e-6)
    assert not (np.asarray(jax.jit(lambda z: overlaps(manifolds(z)))(apart)) > 0).any()
    assert not np.asarray(SLOPE(apart)).any()
    twice = jnp.asarray(np.repeat(embeddings(3), 2, axis=0), jnp.float32)
    assert np.isfinite(float(LOSS(twice)))
    assert np.isfinite(np.asarray(SLOPE(twice))).all()


def test_descent_takes_manifolds_apart():
    """Overlapping clouds of twelve points on a sphere, moved by descent on their loss until it is absorbed."""
    moved = jnp.asarray(embeddings(4, 3, 3, noise=0.05), jnp.float32)
    step = jax.jit(lambda z: z - 0.01 * SLOPE(z))
    first = float(LOSS(moved))
    for _ in range(300):
        moved = step(moved)
    assert first > ABSORBED + 5
    assert float(LOSS(moved)) < ABSORBED + 1e-3


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3)])
def test_bad_input(shape):
    with pytest.raises(PackingError, match="two views or more"):
        clamp_loss(jnp.ones(shape))
    with pytest.raises(PackingError, match="exponent must be 1 or 2"):
        clamp_loss(jnp.asarray(embeddings(), jnp.float32), exponent=3)
