"""FIRE, neighbour rows and minimisation against closed forms and float64 sums over all pairs in numpy."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax import HARMONIC, HERTZIAN, LINEAR, PackingError, PairEnergy, System, mixture_1_to_1_4, stack
from packing_jax.landscape.minima import Minimum, fire, minimise, neighbour_rows


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def jammed_system(dim: int, n: int = 32, energy=HARMONIC, box: float = 1.0) -> System:
    sizes = mixture_1_to_1_4(n) if dim == 2 else np.ones(n)
    return System.create(0.95 if dim == 2 else 0.75, n, dim, sizes=sizes, energy=energy, box=box, dtype=np.float64)


def start(system: System, seed: int = 0) -> np.ndarray:
    return float(system.box) * np.random.default_rng(seed).random((system.particles, system.dim))


def pairs(system: System, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimum-image separations, distances and contact distances of all ordered pairs."""
    delta = x[:, None] - x[None]
    delta -= float(system.box) * np.round(delta / float(system.box))
    sigma = np.broadcast_to(np.asarray(system.diameters), len(x))
    r = np.sqrt(np.sum(delta**2, axis=-1))
    np.fill_diagonal(r, np.inf)
    return delta, r, 0.5 * (sigma[:, None] + sigma[None])


def energy_and_forces(system: System, x: np.ndarray) -> tuple[float, np.ndarray]:
    """The harmonic energy (a0 = half the mean diameter) and net forces."""
    delta, r, contact = pairs(system, x)
    depth = np.maximum(1 - r / contact, 0)
    a0 = 0.5 * float(system.unit)
    forces = np.sum((a0 * depth / contact / r)[..., None] * delta, axis=1)
    return float(a0 / 2 * np.sum(np.triu(depth, 1) ** 2)), forces


def test_fire_finds_the_minimum_of_a_quadratic_of_a_pytree():
    rng = np.random.default_rng(1)
    root = rng.standard_normal((6, 6))
    matrix = jnp.asarray(root @ root.T / 6 + 0.1 * np.eye(6))
    wanted = {"a": jnp.asarray(rng.standard_normal(2)), "b": jnp.asarray(rng.standard_normal((2, 2)))}
    goal = jnp.concatenate([wanted["a"], wanted["b"].ravel()])

    def f(p):
        d = jnp.concatenate([p["a"], p["b"].ravel()]) - goal
        return 0.5 * d @ matrix @ d

    optimizer = fire()

    @jax.jit
    def run(p):
        def body(_, carry):
            p, state = carry
            updates, state = optimizer.update(jax.grad(f)(p), state, p)
            return optax.apply_updates(p, updates), state

        return jax.lax.fori_loop(0, 3000, body, (p, optimizer.init(p)))[0]

    found = run(jax.tree.map(jnp.zeros_like, wanted))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-12)


def test_fire_by_hand():
    """The first steps in one dimension, f = x^2/2 from x = 1: dt = 0.1, v = -dt x, and x undone when it climbs."""
    optimizer = fire(0.1, 0.5)
    x = jnp.asarray([1.0])
    update, state = optimizer.update(x, optimizer.init(x), x)
    # no velocity yet, hence no power: dt is halved, the velocity is parallel to the force, so mixing changes nothing
    np.testing.assert_allclose(state.velocity, [-0.05], rtol=1e-14)
    np.testing.assert_allclose(update, [-0.0025], rtol=1e-14)
    update, state = optimizer.update(x + update, state, x)
    np.testing.assert_allclose(state.velocity, [-0.05 - 0.05 * 0.9975], rtol=1e-14)
    assert int(state.downhill) == 1
    update, state = optimizer.update(jnp.asarray([-1.0]), state, x)  # the force turns round: uphill
    np.testing.assert_allclose(state.velocity, [0.025], rtol=1e-14)
    np.testing.assert_allclose(update, [0.5 * 0.025 * 0.099875 + 0.025 * 0.025], rtol=1e-12)
    assert int(state.downhill) == 0


@pytest.mark.parametrize(("dim", "box"), [(1, 1.0), (2, 1.0), (3, 2.5)])
def test_rows_hold_exactly_the_pairs_within_reach(dim, box):
    n = 60
    sizes = np.random.default_rng(2).uniform(0.5, 1.5, n)
    system = System.create(0.6, n, dim, sizes=sizes, energy=HARMONIC, box=box, dtype=np.float64)
    x = start(system) + box * np.random.default_rng(3).integers(-2, 3, (n, dim))  # any periodic image
    x[0], x[1] = -1e-18, 0.0
    rows = np.asarray(neighbour_rows(system, x, 0.3))
    _, r, contact = pairs(system, x)
    wanted = r < contact + 0.3 * float(system.unit)
    found = np.zeros_like(wanted)
    me = np.arange(n)[:, None]
    found[me, rows] = True
    np.fill_diagonal(found, False)
    np.testing.assert_array_equal(found, wanted)
    assert np.sum(rows != me) == np.sum(wanted)  # each once


@pytest.mark.parametrize("dim", [2, 3])
def test_minimum_balances_the_forces_of_all_pairs(dim):
    system = jammed_system(dim)
    minimum = minimise(system, start(system))
    x = np.asarray(minimum.positions)
    energy, forces = energy_and_forces(system, x)
    assert minimum.converged
    assert minimum.force <= 1e-12
    assert np.max(np.linalg.norm(forces, axis=1)) < 1.1e-12
    np.testing.assert_allclose(minimum.energy, energy, rtol=1e-12)
    assert energy > 1e-6
    # the rows still hold every contact
    _, r, contact = pairs(system, x)
    rows = np.asarray(minimum.rows)
    listed = np.zeros(r.shape, bool)
    listed[np.arange(len(x))[:, None], rows] = True
    assert np.all(listed[r < contact])


def test_lbfgs_and_fire_agree_on_the_nearest_minimum(usual_promotion):
    system = jammed_system(2)
    minimum = minimise(system, start(system))
    shaken = minimum.positions + 1e-4 * jax.random.normal(jax.random.key(0), minimum.positions.shape)
    quick = minimise(system, shaken, optax.lbfgs())
    slow = minimise(system, shaken)
    assert quick.converged
    np.testing.assert_allclose([quick.energy, slow.energy], minimum.energy, rtol=1e-9)
    assert quick.steps < slow.steps


def test_hertzian_energy_and_another_box_side():
    system = jammed_system(2, energy=HERTZIAN)
    minimum = minimise(system, start(system))
    assert minimum.converged
    # the same packing in a box of side 3 has three times the energy, a length
    larger = jammed_system(2, energy=HERTZIAN, box=3.0)
    same = minimise(larger, 3.0 * minimum.positions)
    assert same.steps <= 1
    np.testing.assert_allclose(same.energy, 3.0 * minimum.energy, rtol=1e-10)


def test_forces_beyond_contact_balance_too():
    wca = PairEnergy(lambda r, s: 4.0 * ((s / r) ** 12 - (s / r) ** 6) + 1.0, 100.0, 2 ** (1 / 6))
    system = System.create(0.75, 32, 2, sizes=mixture_1_to_1_4(32), energy=wca, dtype=np.float64)
    apart = minimise(system.with_energy(HARMONIC), start(system)).positions
    minimum = minimise(system, apart, fire(0.01, 0.05), force=1e-9)
    minimum.require_converged()
    delta, r, contact = pairs(system, np.asarray(minimum.positions))
    beyond = (r >= contact) & (r < wca.reach * contact)
    assert beyond.sum() > 32  # rows of contacts alone would miss these
    near = r < wca.reach * contact
    x = np.where(near, contact / r, 1.0)
    slope = np.where(near, -24 * (2 * x**12 - x**6) / r, 0.0)  # in units of energy over the box side
    forces = np.sum((slope / r)[..., None] * delta, axis=1) * float(system.unit)
    assert np.max(np.abs(forces)) < 1e-8
    assert np.max(np.abs(slope)) * float(system.unit) > 0.1


def test_below_jamming_nothing_is_left():
    system = System.create(0.3, 32, 3, energy=HARMONIC, dtype=np.float64)
    minimum = minimise(system, start(system))
    assert (minimum.energy, minimum.force) == (0.0, 0.0)


def test_a_minimisation_that_ran_out_says_so():
    system = jammed_system(2)
    minimum = minimise(system, start(system), steps=5)
    assert not minimum.converged
    assert minimum.steps == 5
    with pytest.raises(PackingError, match="not a minimum: the largest net force"):
        minimum.require_converged()


def test_floor_stops_early():
    system = jammed_system(2)
    minimum = minimise(system, start(system), floor=0.1)
    assert minimum.energy <= 0.1 * 32 * float(system.unit)
    assert minimum.force > 1e-3


def test_bad_input():
    system = jammed_system(2)
    x = start(system)
    for wrong, sentence in [
        (lambda: minimise(system.with_energy(LINEAR), x), "linear energy"),
        (lambda: minimise(stack([system, system]), x), "one at a time"),
        (lambda: minimise(system, x[:-1]), "must be"),
        (lambda: minimise(system, np.where(x == x[0], np.nan, x)), "finite"),
        (lambda: minimise(system, x, force=0.0), "positive"),
        (lambda: minimise(system, x, steps=0), "positive"),
        (lambda: minimise(System.create(0.9, 32, 2, energy=HARMONIC), x), "float64"),
        (lambda: fire(0.5, 0.1), "time step"),
        (lambda: fire(-0.1), "time step"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            wrong()


def test_a_minimum_that_is_nan_is_not_one():
    system = jammed_system(2)
    bad = Minimum(system, jnp.zeros((32, 2)), jnp.zeros((32, 8), jnp.int32), 0.0, float("nan"), 1, 1e-12)
    assert not bad.converged


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], "at the same point"),  # of two, and nothing pulls them apart
        (
            [[1 / 6, 0.5], [0.5, 0.5], [5 / 6, 0.5]],
            "the energy falls along some direction",
        ),  # in line, each pushed from both sides
    ],
)
def test_forces_that_balance_at_no_minimum_are_no_minimum(places: list[list[float]], words: str) -> None:
    system = System.from_diameters(0.42, len(places), 2, energy=HARMONIC, dtype=np.float64)
    with pytest.raises(PackingError, match=words):
        minimise(system, np.asarray(places))


def test_a_minimum_is_found_again_at_once() -> None:
    system = jammed_system(2)
    found = minimise(system, start(system))
    again = minimise(system, found.positions)
    assert found.steps > 0
    assert again.steps == 0
    assert again.converged


@pytest.mark.parametrize("change", [lambda g: -g[:1], lambda g: g.astype(complex), lambda g: -g[0, 0]])
def test_an_update_of_another_shape_or_type_is_refused(change) -> None:
    optimizer = optax.GradientTransformation(lambda _: (), lambda g, state, _=None: (change(g), state))
    system = jammed_system(2)
    with pytest.raises(PackingError, match="the optimizer's update has the shape"):
        minimise(system, start(system), optimizer)


def test_positions_that_are_complex_are_refused() -> None:
    system = jammed_system(2)
    with pytest.raises(PackingError, match="must be an array of real numbers"):
        minimise.__wrapped__(system, start(system) + 1j)
