"""Spheres at a temperature, against exact averages: of diffusion, of a pair on a ring, of the modes of a crystal.

Bounds are 4.5 standard errors, a false alarm of 7e-6 for each of some forty comparisons if the seeds were to change.
The samples are so many that a temperature wrong by a factor of 1.1 is beyond them, which is asserted.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from placed import listed, step

import packing_jax as pj
from packing_jax.derivatives.rollout import rollout
from packing_jax.errors import PackingError
from packing_jax.spheres import noise
from packing_jax.spheres.energy import all_pairs_rows
from packing_jax.spheres.geometry import quanta, to_positions
from packing_jax.spheres.neighbors import Neighbors
from packing_jax.spheres.rules.base import first_state, stepped
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System

KEY = jax.random.key(11)
BOUND = 4.5


def test_free_diffusion() -> None:
    """No contacts: 2 dim kT mu t, at each of the temperatures of a batch; only the one at zero is absorbed."""
    heats, times, n = np.array([0.0, 1e-3, 4e-3], np.float32), np.array([0, 1, 20]), 3000
    system = System.create(1e-9, n, 3)
    run = pj.simulate(pj.stack([system] * 3), pj.thermal(0.5, heats), 20, KEY, times=times)
    assert not run["activity"].any()
    np.testing.assert_array_equal(run.absorbed_at, [0, -1, -1])
    assert not run["msd"][0].any()
    ratio = run["msd"][1:, 1:] / (2 * 3 * heats[1:, None] * 0.5 * times[1:])
    error = np.sqrt(2 / (3 * n))
    assert np.all(np.abs(ratio - 1) < BOUND * error)
    assert BOUND * error < 1 - 1 / 1.1


# --- a pair on a ring -----------------------------------------------------------------------------------------

RING, HEAT = 3.0, 0.05  # diameters; the harmonic energy of two spheres at one place is 1/4


def _pair_energy(y: np.ndarray) -> np.ndarray:
    return 0.25 * np.maximum(1 - np.abs(y), 0) ** 2


def _chain_average(kick: float, heat: float, points: int = 500) -> float:
    """<V> in the stationary state of the step itself: y' = y - 2 mu V'(y) + sqrt(4 kT mu) xi on the ring.

    The difference y of the coordinates moves twice as fast as each. The density is the left eigenvector of the matrix
    of transitions on a grid, whose midpoints carry a smooth periodic kernel to within rounding of its sums.
    """
    y = RING * ((np.arange(points) + 0.5) / points - 0.5)
    mean = y + 2 * kick * 0.5 * np.sign(y) * np.maximum(1 - np.abs(y), 0)
    gap = y[None, :] - mean[:, None]
    width = 4 * heat * kick
    kernel = sum(np.exp(-((gap + turn * RING) ** 2) / (2 * width)) for turn in (-2, -1, 0, 1, 2))
    kernel = kernel / kernel.sum(axis=1, keepdims=True)
    equations = np.vstack([(kernel.T - np.eye(points))[:-1], np.ones(points)])
    density = np.linalg.solve(equations, np.eye(points)[-1])
    return float(density @ _pair_energy(y))


def test_the_chain_tends_to_the_boltzmann_average() -> None:
    """Its distance from it is linear in the step."""
    exact = _boltzmann_average(HEAT)
    off = [_chain_average(kick, HEAT) / exact - 1 for kick in (0.05, 0.025)]
    assert 0 < off[1] < off[0] < 0.03
    assert abs(off[0] / off[1] - 2) < 0.1


def _boltzmann_average(heat: float) -> float:
    y = RING * ((np.arange(20_000) + 0.5) / 20_000 - 0.5)
    weight = np.exp(-_pair_energy(y) / heat)
    return float(weight @ _pair_energy(y) / weight.sum())


@pytest.mark.parametrize("kick", [0.6, pytest.param(0.05, marks=pytest.mark.validation)])
def test_a_pair_on_a_ring_has_its_boltzmann_average(kick: float) -> None:
    """At a small step, to 3 %; at any step the average of the step's own chain, which at 0.6 is another one."""
    exact, chain = _boltzmann_average(HEAT), _chain_average(kick, HEAT)
    assert abs(chain / exact - 1) < 0.03 if kick == 0.05 else abs(chain / exact - 1) > 0.05
    between = int(8 / kick)  # steps in which a pair forgets: the slowest mode of a free ring decays as e^(-0.44 mu t)
    times = np.arange(0, 65 * between, between)
    system = System.create(2 / RING, 2, 1, energy=pj.HARMONIC)
    run = pj.simulate(pj.stack([system] * 1000), pj.thermal(kick, HEAT), int(times[-1]), KEY, times=times)
    energy = 2 * run["energy"][:, 5:].mean(axis=1)
    error = energy.std(ddof=1) / np.sqrt(len(energy))
    assert abs(energy.mean() - chain) < BOUND * error
    assert abs(energy.mean() - _chain_average(kick, 1.1 * HEAT)) > BOUND * error


# --- a harmonic crystal ---------------------------------------------------------------------------------------


def test_the_modes_of_a_crystal_have_their_exact_variances() -> None:
    """Compressed spheres in 1D are equal springs of stiffness a0: each mode has kT / (rho (1 - mu rho/2))."""
    n, kick, heat, replicas = 16, 0.6, 1e-4, 300
    system = System.create(1.3, n, 1, energy=pj.HARMONIC)
    side = n / 1.3
    start = (np.arange(n)[:, None] + 0.5) / n * float(system.box)
    times = np.arange(0, 200 + 25 * 60, 60)
    run = pj.simulate(
        pj.stack([system] * replicas),
        pj.thermal(kick, heat),
        int(times[-1]),
        KEY,
        start=start,
        times=times,
        record={"x": lambda seen: seen.positions},
    )
    moved = run["x"][:, 4:, :, 0] - side * (np.arange(n) + 0.5) / n
    moved = moved - side * np.round(moved / side)
    modes = np.abs(np.fft.fft(moved, axis=-1)[..., 1 : n // 2]) ** 2 / n
    stiffness = 2 * 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, n // 2) / n))
    exact = heat / (stiffness * (1 - kick * stiffness / 2))
    assert exact[-1] * stiffness[-1] > 1.9 * heat  # the step is large, and the continuous value far off
    ratio = modes.mean(axis=1) / exact
    error = ratio.std(axis=0, ddof=1) / np.sqrt(replicas)
    assert np.all(np.abs(ratio.mean(axis=0) - 1) < BOUND * error)
    assert np.all(BOUND * error < 1 - 1 / 1.1)


# --- the trajectory -------------------------------------------------------------------------------------------


def _wca(r: jax.Array, sigma: jax.Array) -> jax.Array:
    return 4.0 * ((sigma / r) ** 12 - (sigma / r) ** 6) + 1.0


ENERGIES = {"hertzian": pj.HERTZIAN, "wca": pj.PairEnergy(_wca, slope_bound=40.0, reach=2 ** (1 / 6))}


@pytest.mark.parametrize("name", ["wca", pytest.param("hertzian", marks=pytest.mark.validation)])
def test_the_bits_are_those_of_all_pairs(name: str) -> None:
    """Rows of neighbours that are listed again and again, against rows of everybody else, in the original order."""
    n, steps = 150, 120
    system = System.create(0.55, n, 2, sizes=pj.mixture_1_to_1_4(n), energy=ENERGIES[name])
    rule = pj.thermal(0.003, 1.0)
    run = pj.simulate(system, rule, steps, KEY, times=np.array([0, steps]), skin=0.15)
    assert run["msd"][-1] > 10 * 0.15**2  # everything left its neighbours
    replicas, _ = gather_replicas(system, rule, KEY, None)
    key, tags = jax.random.wrap_key_data(replicas.key[0]), jnp.arange(n, dtype=jnp.int32)
    coordinates, none = replicas.start[0], jnp.zeros((), jnp.int32)

    @jax.jit
    def move(now: jax.Array, coordinates: jax.Array) -> tuple[jax.Array, jax.Array]:
        everybody = Neighbors(all_pairs_rows(n), tags, coordinates, needed_row=none, needed_slots=none)
        words = noise.particle_words(jax.random.fold_in(key, now), tags)
        state = first_state(rule, system, coordinates)
        moved, _, info = stepped(rule, words, system, coordinates, everybody, state)
        return coordinates + moved, info.active

    for now in range(steps):
        coordinates, active = move(jnp.asarray(now), coordinates)
        assert np.all(active)
    np.testing.assert_array_equal(run.positions, to_positions(coordinates, system.box))


def test_without_a_temperature_it_is_gradient_descent() -> None:
    """The same moves, to the rounding of one quantum or two, and what does not overlap is not active."""
    placed = listed(System.create(0.3, 100, 2, energy=pj.HARMONIC), np.random.default_rng(1).random((100, 2)))
    keys = jax.random.split(KEY, 2)
    cold, at_rest = step(keys, pj.thermal(0.1, 0.0), *placed)
    descent, info = step(keys, pj.sgd(optax.sgd(0.1)), *placed)
    assert np.max(np.abs(np.asarray(cold) - np.asarray(descent))) <= 64 < np.max(np.abs(np.asarray(cold))) / 1e4
    np.testing.assert_array_equal(at_rest.active, info.active)
    assert 0 < np.sum(info.active[0]) < 100
    warm = step(keys, pj.thermal(0.1, 1e-6), *placed)[1]
    assert np.all(warm.active)
    assert not np.any(warm.failed)


def test_each_axis_of_each_particle_has_its_own_draw() -> None:
    placed = listed(System.from_diameters(1e-3, 64, 3), np.random.default_rng(0).random((64, 3)))
    moves, _ = step(jax.random.split(KEY, 2000), pj.thermal(0.5, 1.0), *placed)
    z = np.asarray(moves, float).reshape(2000, -1)
    scale = quanta(np.dtype(np.float32)) * float(placed[0].unit)
    assert abs(z.var() / scale**2 - 1) < BOUND * np.sqrt(2 / z.size)
    correlation = np.corrcoef(z.T) - np.eye(192)
    assert np.max(np.abs(correlation)) < 6.5 / np.sqrt(2000)  # 18,000 pairs: 1e-6


# --- derivatives ----------------------------------------------------------------------------------------------


def test_the_derivatives_of_free_diffusion() -> None:
    """Each move is sqrt(2 kT mu) xi: its derivative in kT is half of it over kT, and in mu over mu."""
    system = System.create(1e-6, 30, 2)

    def moved(heat: jax.Array, kick: jax.Array) -> jax.Array:
        return rollout(system, pj.thermal(kick, heat), 5, KEY).moved

    at = jnp.asarray(0.02), jnp.asarray(0.5)
    slopes = jax.jit(lambda *at: (moved(*at), *jax.jacfwd(moved, (0, 1))(*at)))
    whole, by_heat, by_kick = slopes(*at)
    near = 0.01 * float(np.std(by_heat))  # float32 places, less than which they moved
    np.testing.assert_allclose(by_heat, whole / (2 * 0.02), rtol=1e-3, atol=near)
    np.testing.assert_allclose(by_kick, whole / (2 * 0.5), rtol=1e-3, atol=near * 0.02 / 0.5)
    assert np.all(slopes(jnp.asarray(0.0), jnp.asarray(0.5))[2] == 0)


@pytest.mark.parametrize(
    ("kick", "heat", "words"),
    [
        (0.1, -1e-9, "the temperature is -1e-09; it must be a finite number, at least 0"),
        (0.1, np.inf, "the temperature is inf"),
        (0.0, 1.0, "the kick is 0.0; it must be a finite positive number"),
    ],
)
def test_refused(kick: float, heat: float, words: str) -> None:
    with pytest.raises(PackingError, match=words):
        pj.thermal(kick, heat)


def test_a_move_beyond_half_the_box_is_a_failure() -> None:
    placed = listed(System.from_diameters(1e-3, 64, 3), np.random.default_rng(0).random((64, 3)))
    for heat, share in ((5e3, 0.0), (1e6, 1.0)):  # of standard deviation 0.07 and 1 sides
        assert np.mean(step(jax.random.split(KEY, 2000), pj.thermal(0.5, heat), *placed)[1].failed) == share
