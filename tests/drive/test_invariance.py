"""One replica is one trajectory: in any batch, chunk, list, row order or place, bit for bit; and the right trajectory.

Each comparison changes several of these at once. What differs then is found by changing them one at a time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import packing_jax as pj
from packing_jax.spheres import noise
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System

R, STEPS = 16, 40
TIMES = np.array([0, 1, 2, 5, 13, 27, STEPS])
KEY = jax.random.key(2024)

KICKS = np.linspace(0.03, 0.3, R).astype(np.float32)
FRACTIONS = np.linspace(0.25, 1.0, R).astype(np.float32)
PICKED = (3, 11)  # the same phi, so that alone they share a program


def _spheres(r: int) -> System:
    return System.create(0.5 + 0.02 * (r % 8), 600, 3, box=3.3)  # no power of two: dividing by the side rounds


def _mixture(r: int) -> System:
    return System.create(0.7 + 0.02 * (r % 8), 500, 2, sizes=pj.mixture_1_to_1_4(500), box=0.7)


def _with_momentum(kick: Any, fraction: Any) -> Any:
    return pj.sgd(Partial(optax.sgd, learning_rate=kick, momentum=0.5), fraction)


Make = Callable[[Any, Any], Any]
CASES: dict[str, tuple[Callable[[int], System], Make]] = {
    "bro": (_spheres, lambda kick, _: pj.bro(kick)),
    "ro": (_spheres, lambda kick, _: pj.random_organization(kick, "pair")),
    "ro particle": (_spheres, lambda kick, _: pj.random_organization(kick)),
    "langevin": (_spheres, lambda kick, _: pj.langevin(kick)),
    "thermal": (_spheres, lambda kick, fraction: pj.thermal(kick, 0.01 * fraction)),
    "sgd": (_spheres, _with_momentum),
    "sgd selective": (_spheres, lambda kick, f: pj.sgd(Partial(optax.sgd, learning_rate=kick), f, selective=True)),
    "mixture, bro normalised": (_mixture, lambda kick, _: pj.bro(kick, "particle-normalised")),
    "mixture, sgd particle": (_mixture, lambda kick, f: pj.sgd(Partial(optax.sgd, learning_rate=kick), f, "particle")),
}


def _together(case: str, **options: Any) -> pj.Trajectory:
    of, make = CASES[case]
    system = pj.stack([of(r) for r in range(R)])
    return pj.simulate(system, make(jnp.asarray(KICKS), jnp.asarray(FRACTIONS)), STEPS, KEY, times=TIMES, **options)


def _alone(case: str, r: int, **options: Any) -> pj.Trajectory:
    of, make = CASES[case]
    rule = make(jnp.asarray(KICKS[r]), jnp.asarray(FRACTIONS[r]))
    return pj.simulate(of(r), rule, STEPS, jax.random.fold_in(KEY, r), times=TIMES, **options)


def _same(one: pj.Trajectory, other: pj.Trajectory, r: Any = ...) -> None:
    assert set(one.records) == {"activity", "energy", "msd"}
    for name, values in one.records.items():  # first, because they tell at which step
        np.testing.assert_array_equal(values[r], other[name])
    np.testing.assert_array_equal(one.positions[r], other.positions)
    np.testing.assert_array_equal(one.absorbed_at[r], other.absorbed_at)


@pytest.mark.parametrize("case", CASES)
def test_alone_is_as_in_a_batch(case: str) -> None:
    """Sixteen at a time with thick skins in short chunks, or alone with thin skins in one chunk on another device."""
    together = _together(case, skin=0.5, chunk_steps=10)
    with jax.default_device(jax.devices()[-1]):
        for r in PICKED:
            _same(together, _alone(case, r, skin=0.1, chunk_steps=1000), r)
    # replicas are different runs
    assert len(np.unique(together["msd"][:, -1])) == R


def test_the_width_of_the_batch_changes_nothing() -> None:
    """All together, three at a time (the last one alone beside two that are done), or one after the other."""
    together = _together("bro", skin=0.5, chunk_steps=1000)
    _same(together, _together("bro", skin=0.2, chunk_steps=10, batch=3))
    _same(together, _together("bro", skin=0.2, batch=1))


@pytest.mark.parametrize("case", [pytest.param("langevin", marks=pytest.mark.validation), "mixture, sgd particle"])
def test_rows_that_lie_across_as_on_a_gpu_change_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = _alone(case, 3, skin=0.3)
    monkeypatch.setattr("packing_jax.spheres.particles.on_cpu", lambda: False)
    # with another skin, because a program that is compiled already is not made again
    _same(_together(case, skin=0.21), usual, 3)


def test_the_same_key_is_the_same_run_and_another_is_not() -> None:
    replicas, _ = gather_replicas(_spheres(0), pj.bro(jnp.asarray(KICKS)), KEY, None)
    again, _ = gather_replicas(_spheres(0), pj.bro(jnp.asarray(KICKS[:5])), KEY, None)
    np.testing.assert_array_equal(again.key, replicas.key[:5])
    np.testing.assert_array_equal(again.start, replicas.start[:5])
    assert len(np.unique(np.asarray(replicas.key), axis=0)) == R
    assert len(np.unique(np.asarray(replicas.start)[:, 0, 0])) == R
    single, _ = gather_replicas(_spheres(0), pj.bro(0.1), jax.random.fold_in(KEY, 4), None)
    np.testing.assert_array_equal(single.key[0], replicas.key[4])
    other, _ = gather_replicas(_spheres(0), pj.bro(jnp.asarray(KICKS)), jax.random.key(2025), None)
    assert not np.any(np.all(np.asarray(other.key) == np.asarray(replicas.key), axis=1))


# --- the right trajectory: float64 numpy, all pairs -----------------------------------------------------------

SMALL = 200


def _small(dtype: type) -> System:
    return System.create(0.75, SMALL, 2, sizes=pj.mixture_1_to_1_4(SMALL), dtype=dtype)


def _geometry(x: np.ndarray, diameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """rhat_ij (N, N, dim) and the overlap mask."""
    apart = x[:, None] - x[None]
    apart -= np.round(apart)
    r = np.sqrt((apart**2).sum(axis=-1))
    np.fill_diagonal(r, np.inf)
    sigma = 0.5 * (diameters[:, None] + diameters[None])
    return apart / r[..., None], np.where(r < sigma, sigma, 0.0)


def _numpy_bro(x: np.ndarray, system: System, kick: float, noise_key: jax.Array, steps: int) -> np.ndarray:
    """Reciprocal pairwise BRO with the draws of the noise module."""
    diameters = np.asarray(system.diameters, np.float64)
    tags = jnp.arange(SMALL, dtype=jnp.int32)
    for step in range(steps):
        words = noise.particle_words(jax.random.fold_in(noise_key, step), tags).pair
        u = np.asarray(noise.uniform(noise.pair_words(words[:, None], words[None, :]), np.dtype(np.float64)))
        direction, sigma = _geometry(x, diameters)
        x = x + kick * diameters.mean() * (np.where(sigma > 0, u, 0.0)[..., None] * direction).sum(axis=1)
    return x


def _numpy_descent(x: np.ndarray, system: System, rate: float, steps: int) -> np.ndarray:
    """Gradient descent on V = R (1 - r/sigma_ij), R half the mean diameter: each overlap pushes by alpha R/sigma_ij."""
    diameters = np.asarray(system.diameters, np.float64)
    for _ in range(steps):
        direction, sigma = _geometry(x, diameters)
        push = np.where(sigma > 0, 0.5 * diameters.mean() / np.where(sigma > 0, sigma, 1.0), 0.0)
        x = x + rate * diameters.mean() * (push[..., None] * direction).sum(axis=1)
    return x


def _start_and_key(system: System) -> tuple[np.ndarray, jax.Array]:
    """The default start in box sides (N, dim), float64, and the key of the draws."""
    replicas, _ = gather_replicas(system, pj.bro(0.1), KEY, None)
    start = np.asarray(replicas.start[0])
    return start.T / 2.0 ** (8 * start.dtype.itemsize), jax.random.wrap_key_data(replicas.key[0])


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b - np.round(a - b))))


@pytest.mark.parametrize("name", ["bro", "descent"])
def test_twenty_steps_are_those_of_numpy(name: str) -> None:
    with jax.enable_x64(True):
        system = _small(np.float64)
        start, noise_key = _start_and_key(system)
        rule = pj.bro(0.2) if name == "bro" else pj.sgd(optax.sgd(0.2))
        run = pj.simulate(system, rule, 20, KEY, record={}, times=np.array([20]), skin=0.1)
        if name == "bro":
            expected = _numpy_bro(start, system, 0.2, noise_key, 20)
        else:
            expected = _numpy_descent(start, system, 0.2, 20)
    assert run.positions.dtype == np.float64
    assert _difference(expected, start) > 0.005
    assert _difference(run.positions, expected) < 1e-12


def test_float32_starts_from_the_same_place_and_stays_close() -> None:
    with jax.enable_x64(True):
        wide = _small(np.float64)
        start, noise_key = _start_and_key(wide)
    system = _small(np.float32)
    np.testing.assert_array_equal(_start_and_key(system)[0], start)
    run = pj.simulate(system, pj.bro(0.2), 5, KEY, record={}, times=np.array([5]), skin=0.1)
    with jax.enable_x64(True):
        expected = _numpy_bro(start, wide, 0.2, noise_key, 5)
    assert _difference(run.positions, expected) < 1e-6
