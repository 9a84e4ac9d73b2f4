"""Every rule's moves: their moments against derived ones, and what they leave alone."""

import math
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from placed import Placed, listed, step

import packing_jax as pj
from packing_jax.spheres import noise
from packing_jax.spheres.geometry import quanta
from packing_jax.spheres.system import System

# Moments. The tolerance is 1 % of the largest entry. At 1e5 draws one standard error of a variance is 0.5 % for
# Bernoulli(0.2) draws, 0.45 % for normal and 0.28 % for uniform ones. With 4e5 draws 1 % is at least 4.2 standard
# errors of every entry: were the seeds to change, a false alarm of at most 3e-5 in each of the 70 comparisons.
DRAWS = 100_000
REPEATS = 4
EPS = 2.0  # kick in absolute units, as in the reference: two mean diameters are 2 / unit


class Scene(NamedTuple):
    """Three spheres in a box of side 50."""

    positions: np.ndarray
    diameters: np.ndarray

    @property
    def unit(self) -> float:
        return float(np.mean(self.diameters))

    def edges(self) -> dict[tuple[int, int], tuple[np.ndarray, float]]:
        """rhat_ij and sigma_ij of every overlap, both ways."""
        found = {}
        for i in range(3):
            for j in range(3):
                apart = self.positions[i] - self.positions[j]
                apart = apart - 50 * np.round(apart / 50)
                sigma = 0.5 * (self.diameters[i] + self.diameters[j])
                if i != j and np.linalg.norm(apart) < sigma:
                    found[i, j] = apart / np.linalg.norm(apart), sigma
        return found


# two overlapping spheres (those of the reference sheet) and one out of reach; three that all overlap, across a wall
TWO = Scene(np.array([[0, 0, 0], [3, 4, 5], [25, 25, 25]], float), np.sqrt(2) * np.array([12.0, 8.0, 10.0]))
THREE = Scene(np.array([[-1, 0, 1], [6, 4, -1], [1, 7, 5]], float), np.array([14.0, 18.0, 12.0]))
APART = Scene(np.array([[-20, 0, 1], [1, 20, -1], [15, -15, -20]], float), np.array([14.0, 18.0, 12.0]))
COINCIDENT = Scene(np.array([[3, 4, 5], [3, 4, 5], [-20, -20, -20]], float), np.array([14.0, 18.0, 12.0]))
SCENES = {"two": TWO, "three": THREE, "apart": APART, "coincident": COINCIDENT}

RULES: dict[str, Any] = {
    "bro": lambda scene: pj.bro(EPS / scene.unit),
    "bro independent": lambda scene: pj.bro(EPS / scene.unit, correlation=0.0),
    "bro correlated": lambda scene: pj.bro(EPS / scene.unit, correlation=0.5),
    "bro particle": lambda scene: pj.bro(EPS / scene.unit, "particle"),
    "bro normalised": lambda scene: pj.bro(EPS / scene.unit, "particle-normalised"),
    "ro particle": lambda scene: pj.random_organization(EPS / scene.unit),
    "ro pair": lambda scene: pj.random_organization(EPS / scene.unit, "pair"),
    "ro correlated": lambda scene: pj.random_organization(EPS / scene.unit, "pair", 0.5),
    "langevin": lambda scene: pj.langevin(EPS / scene.unit),
    "langevin correlated": lambda scene: pj.langevin(EPS / scene.unit, correlation=0.5),
    "langevin particle": lambda scene: pj.langevin(EPS / scene.unit, "particle"),
}
# SGD at alpha = 4 eps/3, so that b_f = 3/4 has the moments of BRO. One program serves every batch fraction.
SAMPLINGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd independent": {"correlation": 0.0},
    "sgd correlated": {"correlation": 0.5},
    "sgd particle": {"coupling": "particle"},
    "sgd selective": {"selective": True},
    "sgd selective particle": {"coupling": "particle", "selective": True},
}
FRACTIONS = (0.2, 0.75, 1.0)
ALPHA = 4 * EPS / 3


def _sgd(scene: Scene, fraction: float, sampling: dict[str, Any]) -> Any:
    return pj.sgd(Partial(optax.sgd, learning_rate=jnp.float32(ALPHA / scene.unit)), fraction, **sampling)


for _name, _sampling in SAMPLINGS.items():
    for _fraction in FRACTIONS:
        RULES[f"{_name} {_fraction}"] = partial(_sgd, fraction=_fraction, sampling=_sampling)


@cache
def _place(name: str) -> Placed:
    scene = SCENES[name]
    return listed(System.from_diameters(scene.diameters, 3, 3, box=50.0), scene.positions)


class Moves(NamedTuple):
    first: np.ndarray  #: (DRAWS, particle, axis) in the units of the box
    mean: np.ndarray  #: (9,) of all draws
    covariance: np.ndarray  #: (9, 9)


@cache
def _moves(rule: str, scene: str, repeats: int = 1) -> Moves:
    system, coordinates, neighbors = _place(scene)
    made = RULES[rule](SCENES[scene])
    sums, products, parts = np.zeros(9), np.zeros((9, 9)), []
    for repeat in range(repeats):
        keys = jax.random.split(jax.random.key(repeat + 1), DRAWS)
        moves = np.asarray(step(keys, made, system, coordinates, neighbors)[0]).transpose(0, 2, 1)
        parts.append(moves * np.float32(50.0 / quanta(np.dtype(np.float32))))
        flat = parts[-1].reshape(DRAWS, 9).astype(np.float64)
        sums, products = sums + flat.sum(axis=0), products + flat.T @ flat
    mean = sums / (repeats * DRAWS)
    return Moves(parts[0], mean, products / (repeats * DRAWS) - np.outer(mean, mean))


# --- derived moments ------------------------------------------------------------------------------------------


def _pairwise(scene: Scene, amplitude: Any, mean: float, covariance: Any) -> tuple[np.ndarray, np.ndarray]:
    """dx_i = sum_j a_ij w_ij rhat_ij with <w> = ``mean`` and cov(w_e, w_f) = ``covariance(e, f)``: linear in w."""
    edges = scene.edges()
    matrix = np.zeros((9, len(edges)))
    for column, ((i, _), (direction, sigma)) in enumerate(edges.items()):
        matrix[3 * i : 3 * i + 3, column] = amplitude(sigma) * direction
    between = np.array([[covariance(e, f) for f in edges] for e in edges])
    return matrix @ np.full(len(edges), mean), matrix @ between @ matrix.T


def _particlewise(vectors: np.ndarray, mean: float, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dx_i = w_i G_i with cov(w_i, w_j) = ``between``."""
    matrix = np.zeros((9, 3))
    for i in range(3):
        matrix[3 * i : 3 * i + 3, i] = vectors[i]
    return matrix @ np.full(3, mean), matrix @ between @ matrix.T


def _partners(variance: float, p: float) -> Any:
    """Draws of a pair: the same variance for both directions and correlation p between them, none between pairs."""
    return lambda e, f: variance if e == f else p * variance if e == f[::-1] else 0.0


def _sum(scene: Scene, amplitude: Any) -> np.ndarray:
    total = np.zeros((3, 3))
    for (i, _), (direction, sigma) in scene.edges().items():
        total[i] += amplitude(sigma) * direction
    return total


def _constant(value: float) -> Any:
    return lambda _: value


def _of_bro(words: list[str], scene: Scene, p: float) -> tuple[np.ndarray, np.ndarray]:
    if "particle" in words:
        return _particlewise(EPS * _sum(scene, _constant(1.0)), 1 / 2, np.eye(3) / 12)
    if "normalised" in words:
        push = _sum(scene, _constant(1.0))
        size = np.linalg.norm(push, axis=1, keepdims=True)
        return _particlewise(EPS * push / np.where(size > 0, size, 1.0), 1 / 2, np.eye(3) / 12)
    return _pairwise(scene, _constant(EPS), 1 / 2, _partners(1 / 12, p))


def _of_random_organization(words: list[str], scene: Scene, p: float) -> tuple[np.ndarray, np.ndarray]:
    # <u^2> = 1/3, <u_ij u_ji> = 1/4 + p/12; <n n^T> = 1/3 in three dimensions, and n_ji = -n_ij
    blocks = np.zeros((3, 3))
    for i, j in scene.edges():
        if "particle" in words:
            blocks[i, i] = 1 / 3
        else:
            blocks[i, i] += 1 / 3
            blocks[i, j] -= 1 / 4 + p / 12
    return np.zeros(9), EPS**2 / 3 * np.kron(blocks, np.eye(3))


def _of_sgd(words: list[str], scene: Scene, p: float, slope: Any) -> tuple[np.ndarray, np.ndarray]:
    b = float(words[-1])
    forces = ALPHA * _sum(scene, slope)
    if "selective" not in words:
        if "particle" in words:
            return _particlewise(forces, b, b * (1 - b) * np.eye(3))
        return _pairwise(scene, lambda sigma: ALPHA * slope(sigma), b, _partners(b * (1 - b), p))
    # drawn without replacement, so that the draws of different candidates are anticorrelated
    n = len({i for i, _ in scene.edges()}) if "particle" in words else len(scene.edges()) // 2
    q = min(math.floor(b * n) + 1, n) / n
    other = -q * (1 - q) / (n - 1) if n > 1 else 0.0
    if "particle" in words:
        return _particlewise(forces, q, np.where(np.eye(3) > 0, q * (1 - q), other))
    return _pairwise(
        scene, lambda sigma: ALPHA * slope(sigma), q, lambda e, f: q * (1 - q) if set(e) == set(f) else other
    )


def _derived(rule: str, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Mean (9,) and covariance (9, 9) of the three moves."""

    def slope(sigma: float) -> float:  # |dV/dr| = a0/sigma_ij for the linear energy, a0 half the mean diameter
        return 0.5 * scene.unit / sigma

    kind, *words = rule.split()
    p = 0.0 if "independent" in words else 0.5 if "correlated" in words else 1.0
    if kind == "bro":
        return _of_bro(words, scene, p)
    if kind == "ro":
        return _of_random_organization(words, scene, p)
    if kind == "sgd":
        return _of_sgd(words, scene, p, slope)
    if "particle" in words:
        return _particlewise(EPS * _sum(scene, slope), 1.0, np.eye(3) / 3)
    return _pairwise(scene, lambda sigma: EPS * slope(sigma), 1.0, _partners(1 / 3, p))


@pytest.mark.parametrize("scene", ["two", "three"])
@pytest.mark.parametrize("rule", RULES)
def test_moments_are_the_derived_ones(rule: str, scene: str) -> None:
    expected_mean, expected = _derived(rule, SCENES[scene])
    deterministic = not np.any(np.abs(expected) > 1e-12)
    moves, mean, covariance = _moves(rule, scene, REPEATS)
    # RO moves have no mean: theirs is measured against the kick
    scale = np.max(np.abs(expected_mean)) or EPS
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=0.01 * scale)
    if deterministic:
        # fixed point and float32 leave 1e-6 of a move, and the same move each time
        assert np.all(moves == moves[0])
        np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=2e-6 * scale)
    else:
        np.testing.assert_allclose(covariance, expected, rtol=0, atol=0.01 * np.max(np.abs(expected)))


def test_two_sphere_kick_of_the_reference_sheet() -> None:
    _, mean, covariance = _moves("bro", "two", REPEATS)
    direction = np.array([3.0, 4.0, 5.0])
    own = np.array([[9, 12, 15], [12, 16, 20], [15, 20, 25]]) / 150
    np.testing.assert_allclose(mean[:3], -direction / np.sqrt(50), rtol=0.01)
    np.testing.assert_allclose(mean[3:6], direction / np.sqrt(50), rtol=0.01)
    np.testing.assert_allclose(covariance[:6, :6], np.block([[own, -own], [-own, own]]), rtol=0.01)


@pytest.mark.parametrize("rules", [("bro", "sgd 0.75", "langevin"), ("bro particle", "sgd particle 0.75")])
def test_bro_sgd_and_langevin_have_the_same_two_moments(rules: tuple[str, ...]) -> None:
    # estimates good to 0.22 % (one standard error) or better: 1 % is at least 3.8 of the largest difference
    _, means, covariances = zip(*(_moves(rule, "two", REPEATS) for rule in rules), strict=True)
    for mean, covariance in zip(means[1:], covariances[1:], strict=True):
        np.testing.assert_allclose(mean, means[0], rtol=0, atol=0.01 * np.max(np.abs(means[0])))
        np.testing.assert_allclose(covariance, covariances[0], rtol=0, atol=0.01 * np.max(np.abs(covariances[0])))


@pytest.mark.parametrize(
    ("rule", "p"),
    [
        ("bro", 1.0),
        ("bro independent", 0.0),
        ("bro correlated", 0.5),
        ("langevin correlated", 0.5),
        ("sgd independent 0.75", 0.0),
        ("sgd correlated 0.75", 0.5),
        ("sgd correlated 0.2", 0.5),
    ],
)
def test_partners_kicks_have_correlation_minus_p(rule: str, p: float) -> None:
    moves, _, covariance = _moves(rule, "two", REPEATS)
    # one standard error is 0.0025 at most (b_f = 0.2, p = 1/2) with 4e5 draws
    correlation = covariance[1, 4] / np.sqrt(covariance[1, 1] * covariance[4, 4])
    assert correlation == pytest.approx(-p, abs=0.0125)
    if p == 1.0:
        assert np.all(moves[:, 0] == -moves[:, 1])


@pytest.mark.parametrize("b", [0.2, 0.75])
@pytest.mark.parametrize(("sampling", "p"), [("sgd", 1.0), ("sgd independent", 0.0), ("sgd correlated", 0.5)])
def test_joint_law_of_the_partners_selection(sampling: str, p: float, b: float) -> None:
    moved = np.any(_moves(f"{sampling} {b}", "two", REPEATS).first != 0, axis=2)
    draws = len(moved)
    neither = (1 - b) ** 2 + p * b * (1 - b)
    both = b**2 + p * b * (1 - b)
    for seen, expected in [
        (~moved[:, 0] & ~moved[:, 1], neither),
        (moved[:, 0] & moved[:, 1], both),
        (moved[:, 0], b),
        (moved[:, 1], b),
    ]:
        # five standard errors: a false alarm of 6e-7 in each of 24 comparisons
        assert np.mean(seen) == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / draws))


@pytest.mark.parametrize("rule", RULES)
def test_what_does_not_overlap_does_not_move(rule: str) -> None:
    assert not np.any(_moves(rule, "two", REPEATS).first[:, 2])
    assert not np.any(_moves(rule, "apart").first)


@pytest.mark.parametrize("rule", RULES)
def test_coincident_centres_move_apart_by_at_most_a_kick_or_so(rule: str) -> None:
    moves = _moves(rule, "coincident").first
    assert np.all(np.isfinite(moves))
    # the normal draws of Langevin stay below 5.5, and 1 + 5.5/sqrt(3) is 4.2 of a mean kick eps/2
    assert np.max(np.abs(moves)) <= 2.2 * EPS
    assert not np.any(moves[:, 2])
    moved = np.any(moves[:, :2] != 0, axis=(1, 2))
    assert np.mean(moved) > 0.15  # b_f = 0.2 at the least
    if "ro" not in rule.split():
        # along the first axis, either way with equal chance, partners in opposite senses: 5 standard errors
        assert not np.any(moves[:, :, 1:])
        if "langevin" not in rule:  # its draws may pull together
            assert np.all(moves[:, 0, 0] * moves[:, 1, 0] <= 0)
        up = np.mean(moves[moved, 0, 0] - moves[moved, 1, 0] > 0)
        assert up == pytest.approx(0.5, abs=2.5 / np.sqrt(np.sum(moved)))


@pytest.mark.parametrize("coupling", ["pair", "particle", "particle-normalised"])
def test_a_coincident_pair_on_a_line_separates(coupling: Any) -> None:
    system, coordinates, neighbors = listed(System.from_diameters(0.2, 2, 1), np.full((2, 1), 0.123))
    keys = jax.random.split(jax.random.key(3), 100)
    moves, info = step(keys, pj.bro(0.5, coupling), system, coordinates, neighbors)
    moves = np.asarray(moves, np.int64)[:, 0]
    assert np.all(np.sum(info.active, axis=1) == 2)
    assert np.all(moves[:, 0] * moves[:, 1] < 0)
    # u is below 1e-6 once in 1e6 draws, and a quantum is 2e-9 of this kick
    assert np.all(np.abs(moves[:, 0] - moves[:, 1]) > 100)


@pytest.mark.parametrize(
    "rule",
    [
        "bro correlated",
        "bro normalised",
        "ro pair",
        "ro particle",
        "langevin",
        "langevin particle",
        "sgd correlated 0.75",
        "sgd particle 0.75",
        "sgd selective 0.2",
        "sgd selective particle 0.2",
    ],
)
def test_eager_agrees_with_jit(rule: str) -> None:
    system, coordinates, neighbors = _place("three")
    made = RULES[rule](THREE)
    for draw, key in enumerate(jax.random.split(jax.random.key(1), DRAWS)[:2]):
        state = made.init(system, coordinates)
        with jax.disable_jit():
            words = noise.particle_words(key, neighbors.tags)
            moves, _, info = made.step(words, system, coordinates, neighbors, state)
        eager = np.asarray(moves).T * (50.0 / quanta(np.dtype(np.float32)))
        # eager code fuses no multiply-adds: a few units in the last place of float32
        np.testing.assert_allclose(eager, _moves(rule, "three", REPEATS).first[draw], rtol=0, atol=2e-6 * EPS)
        assert int(jnp.sum(info.active)) == 3
        assert not bool(info.failed)
