"""SGD moved by the driver against optax driven by hand on float64 gradients, and hyperparameters per replica."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import packing_jax as pj
from packing_jax.observables import activity
from packing_jax.spheres.neighbors import plan_for
from packing_jax.spheres.system import System

pytestmark = pytest.mark.usefixtures("usual_promotion")  # optax mixes dtypes

# A two-dimensional mixture with smooth forces (a linear force jumps at contact), on a cell grid. With so thin a skin
# the particles are sorted again every few steps, so momentum that did not follow them would show at once.
N = 200
STEPS = 30
SKIN = 0.05


def _system(dtype: type, energy: Any = pj.HARMONIC) -> System:
    return System.create(0.8, N, 2, sizes=pj.mixture_1_to_1_4(N), energy=energy, dtype=dtype)


def _start() -> np.ndarray:
    return np.random.default_rng(11).random((N, 2), np.float32).astype(np.float64)


def _by_hand(optimizer: optax.GradientTransformation, steps: int, energy: Any = pj.HARMONIC) -> np.ndarray:
    """Positions in box sides after ``steps`` optax updates of x in mean diameters; all pairs, float64, no wrapping."""
    system = _system(np.float64, energy)
    unit = system.unit

    @jax.jit
    def update(x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        gradient = jax.grad(lambda y: pj.total_energy(system, y * unit) / unit)(x)
        updates, state = optimizer.update(gradient, state, x)
        return optax.apply_updates(x, updates), state

    x = jnp.asarray(_start()) / unit
    state = optimizer.init(x)
    for _ in range(steps):
        x, state = update(x, state)
    return np.asarray(x * unit)


def _driven(optimizer: Any, dtype: type, steps: int, energy: Any = pj.HARMONIC, **options: Any) -> pj.Trajectory:
    return pj.simulate(
        _system(dtype, energy),
        pj.sgd(optimizer),
        steps,
        jax.random.key(0),
        start=_start(),
        record={},
        times=np.array([steps]),
        skin=SKIN,
        **options,
    )


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance along an axis, in box sides."""
    return float(np.max(np.abs(a - b - np.round(a - b))))


OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "momentum": lambda: optax.sgd(0.1, momentum=0.8),
    "nesterov": lambda: optax.sgd(0.1, momentum=0.8, nesterov=True),
    "adam": lambda: optax.adam(0.02),
    "schedule": lambda: optax.sgd(optax.exponential_decay(0.3, transition_steps=5, decay_rate=0.7)),
    "clipped": lambda: optax.chain(optax.clip(0.1), optax.clip_by_global_norm(0.8), optax.sgd(0.2)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_driver_moves_as_optax_by_hand(name: str) -> None:
    with jax.enable_x64(True):
        assert plan_for(_system(np.float64), SKIN).cells >= 3
        by_hand = _by_hand(OPTIMIZERS[name](), STEPS)
        driven = _driven(OPTIMIZERS[name](), np.float64, STEPS).positions
    assert driven.dtype == np.float64
    assert _difference(by_hand, driven) < 1e-9
    assert np.max(np.abs(by_hand - _start())) > 0.01


def test_float32_stays_close_to_optax_by_hand() -> None:
    with jax.enable_x64(True):
        by_hand = _by_hand(OPTIMIZERS["adam"](), STEPS)
    assert _difference(by_hand, _driven(OPTIMIZERS["adam"](), np.float32, STEPS).positions) < 2e-5


def test_plain_descent_on_the_linear_energy() -> None:
    """The default energy, whose force jumps at contact: equal as long as rounding flips no contact."""
    with jax.enable_x64(True):
        by_hand = _by_hand(optax.sgd(0.1), STEPS, pj.LINEAR)
        assert _difference(by_hand, _driven(optax.sgd(0.1), np.float64, STEPS, pj.LINEAR).positions) < 1e-9


def test_descent_on_an_energy_beyond_contact() -> None:
    """Rows must follow the reach: with contacts alone, most forces would be missed."""
    soft = pj.PairEnergy(lambda r, sigma: 0.2 * (1.4 - r / sigma) ** 2.5, slope_bound=2.0, reach=1.4)
    with jax.enable_x64(True):
        by_hand = _by_hand(optax.sgd(0.1), STEPS, soft)
        driven = _driven(optax.sgd(0.1), np.float64, STEPS, soft)
        contacts = _by_hand(optax.sgd(0.1), STEPS, pj.PairEnergy(lambda r, sigma: 0.2 * (1 - r / sigma) ** 2.5, 2.0))
    assert _difference(by_hand, driven.positions) < 1e-9
    assert _difference(by_hand, contacts) > 0.01


def test_a_run_is_absorbed_where_no_force_is_left_and_not_where_no_contact_is() -> None:
    wca = pj.PairEnergy(lambda r, s: 4.0 * ((s / r) ** 12 - (s / r) ** 6) + 1.0, 50.0, 2 ** (1 / 6))
    system = System.create(0.25, 50, 2, energy=wca)
    run = pj.simulate(
        system,
        pj.sgd(optax.sgd(0.005)),
        400,
        jax.random.key(1),
        record={"activity": activity},
        times=np.arange(401),
    )
    apart = run.positions[:, None] - run.positions[None]
    r = np.linalg.norm(apart - np.round(apart), axis=-1) / float(system.unit)
    np.fill_diagonal(r, np.inf)
    without_contact = int(np.flatnonzero(run["activity"] == 0)[0])
    assert 0 < without_contact < run.absorbed_at
    assert np.min(r) >= 2 ** (1 / 6) * (1 - 2e-5)


def _mean_of_three(rate: float) -> optax.GradientTransformation:
    """Descent along the mean of the last three gradients, which are kept in one array (3, ...), as L-BFGS keeps its."""

    def init(x: jax.Array) -> jax.Array:
        return jnp.zeros((3, *x.shape), x.dtype)

    def update(gradient: jax.Array, memory: jax.Array, x: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        memory = jnp.concatenate([memory[1:], gradient[None]])
        return -rate * jnp.mean(memory, axis=0), memory

    return optax.GradientTransformation(init, update)


def test_state_with_more_axes_follows_the_particles() -> None:
    with jax.enable_x64(True):
        by_hand = _by_hand(_mean_of_three(0.2), STEPS)
        driven = _driven(_mean_of_three(0.2), np.float64, STEPS).positions
    assert _difference(by_hand, driven) < 1e-9


OF_PARTICLES: dict[str, tuple[optax.GradientTransformation, list[tuple[int, ...]]]] = {
    # the shapes of the leaves that belong to particles, for parameters (2, 7)
    "plain": (optax.sgd(0.1), []),
    "momentum": (optax.sgd(0.1, momentum=0.9), [(2, 7)]),
    "adam": (optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)), [(2, 7), (2, 7)]),
    "memory": (_mean_of_three(0.1), [(3, 2, 7)]),
    "lbfgs": (optax.lbfgs(0.1, memory_size=3, linesearch=None), [(2, 7), (2, 7), (3, 2, 7), (3, 2, 7)]),
    # second moments of rows and of columns: the columns are the particles
    "factored": (optax.scale_by_factored_rms(min_dim_size_to_factor=2), [(7,)]),
}


@pytest.mark.parametrize("name", OF_PARTICLES)
def test_an_optimizer_says_what_travels_with_the_particles(name: str) -> None:
    optimizer, expected = OF_PARTICLES[name]
    state = optimizer.init(jnp.ones((2, 7)))
    marks = pj.sgd(optimizer).by_particle(state)
    assert jax.tree.structure(marks) == jax.tree.structure(state)
    leaves = [leaf for leaf, mark in zip(jax.tree.leaves(state), jax.tree.leaves(marks), strict=True) if mark]
    assert sorted(leaf.shape for leaf in leaves) == sorted(expected)


def test_marks_of_an_optimizer_with_a_number_per_replica() -> None:
    rates = jnp.asarray([0.1, 0.2], jnp.float32)
    rule = pj.sgd(Partial(optax.inject_hyperparams(optax.sgd), learning_rate=rates, momentum=rates), np.ones(2))
    state = optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9).init(jnp.ones((2, 7)))
    assert sum(jax.tree.leaves(rule.by_particle(state))) == 1

    def marks(one: Any) -> jax.Array:
        return jnp.asarray(jax.tree.leaves(one.by_particle(state)))

    # also where the driver asks, for each replica of a batch
    np.testing.assert_array_equal(np.sum(jax.vmap(marks)(rule), axis=1), [1, 1])


def test_a_state_that_has_the_particles_on_another_axis_is_refused() -> None:
    turned = optax.GradientTransformation(lambda x: jnp.zeros_like(x.T), lambda g, state, _=None: (g, state))
    with pytest.raises(pj.PackingError, match=r"shape \(3, 2\) for parameters of shape \(2, 3\); .* last axis"):
        pj.sgd(turned).by_particle(jnp.zeros((7, 2)))


def test_switches_in_a_partial() -> None:
    """``nesterov`` is a Python bool that optax tests: it must not become a traced array."""
    rule = Partial(optax.sgd, learning_rate=0.1, momentum=0.8, nesterov=True)
    with jax.enable_x64(True):
        by_hand = _by_hand(OPTIMIZERS["nesterov"](), STEPS)
    assert _difference(by_hand, _driven(rule, np.float32, STEPS).positions) < 2e-5


def test_learning_rates_per_replica_are_separate_runs() -> None:
    rates = np.array([0.02, 0.05, 0.1], np.float32)
    rule = Partial(optax.sgd, learning_rate=jnp.asarray(rates), momentum=0.7)
    together = _driven(rule, np.float32, STEPS)
    assert together.positions.shape == (3, N, 2)
    for rate, positions in zip(rates, together.positions, strict=True):
        alone = _driven(Partial(optax.sgd, learning_rate=jnp.asarray(rate), momentum=0.7), np.float32, STEPS)
        np.testing.assert_array_equal(positions, alone.positions)
    assert _difference(together.positions[0], together.positions[2]) > 0.01
