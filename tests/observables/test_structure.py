"""S(q), spectral density and g(r) against brute force, lattices, Poisson patterns and freud."""

import itertools

import freud
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import jv

from packing_jax import PackingError, System, bro, simulate
from packing_jax.observables import (
    Configuration,
    isotropic_average,
    pair_correlation,
    recorded_structure_factor,
    spectral_density,
    structure,
    structure_factor,
    wave_vectors,
)

SIDE = 3.0


def amplitudes(x: np.ndarray, n: np.ndarray, side: float, weights: np.ndarray | None = None) -> np.ndarray:
    """sum_j w_j exp(-i q.x_j) as written, in float64."""
    w = np.ones(len(x)) if weights is None else weights
    return w @ np.exp(-2j * np.pi / side * (x @ n.T))


def lattice(cells: int, dim: int) -> np.ndarray:
    """Cells per side, lattice constant 1."""
    return np.stack(np.meshgrid(*[np.arange(cells)] * dim, indexing="ij"), axis=-1).reshape(-1, dim).astype(float)


# --- wave vectors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "largest"), [(1, 5.0), (2, 4.5), (3, 3.0), (4, 2.0), (5, 1.5), (6, 1.5)])
def test_wave_vectors_are_half_of_all(dim: int, largest: float) -> None:
    n = wave_vectors(dim, largest)
    reach = range(-int(largest), int(largest) + 1)
    expected = {v for v in itertools.product(reach, repeat=dim) if 0 < sum(c * c for c in v) <= largest**2}
    found = {tuple(map(int, v)) for v in n}
    assert len(found) == len(n)
    assert found | {tuple(-c for c in v) for v in found} == expected
    assert 2 * len(found) == len(expected)
    assert (np.diff(np.sum(n**2, axis=1)) >= 0).all()


def test_wave_vectors_whose_squares_pass_32_bits_are_sorted() -> None:
    assert (np.diff(wave_vectors(1, 50_000.0)[:, 0]) == 1).all()


@pytest.mark.parametrize(
    ("dim", "largest", "sentence"), [(0, 2.0, "dimension"), (2, 0.5, r"\|n\| = 1"), (6, 50.0, "2\\^26")]
)
def test_wave_vectors_out_of_range(dim: int, largest: float, sentence: str) -> None:
    with pytest.raises(PackingError, match=sentence):
        wave_vectors(dim, largest)


# --- structure factor -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "largest"), [(1, 30.0), (2, 6.0), (3, 3.0), (6, 1.0)])
def test_sums_equal_brute_force(dim: int, largest: float) -> None:
    rng = np.random.default_rng(dim)
    x, n, w = rng.random((300, dim)) * SIDE, wave_vectors(dim, largest), rng.standard_normal(300)
    expected = np.abs(amplitudes(x, n, SIDE)) ** 2 / 300
    tolerance = 2e-6 * np.sqrt(expected) + 1e-11
    images = x + SIDE * rng.integers(-5, 5, x.shape)
    assert (np.abs(structure_factor(images, n, SIDE) - expected) < tolerance).all()
    weighted = np.abs(amplitudes(x, n, SIDE, w)) ** 2 / np.sum(w**2)
    assert structure_factor(x, n, SIDE, w) == pytest.approx(weighted, rel=1e-4, abs=1e-5)
    # the wave vectors need not be few, nor short: the phase is exact modulo a turn
    far = np.array([[10**6 + k] + [0] * (dim - 1) for k in range(len(n))], np.int32)
    assert structure_factor(x, far, SIDE) == pytest.approx(np.abs(amplitudes(x, far, SIDE)) ** 2 / 300, abs=0.05)
    if dim <= 3:
        fast = structure._fast_means(x / SIDE, n, w)
        assert np.abs(fast - amplitudes(x, n, SIDE, w) / 300).max() < 1e-8


def test_samples_stay_apart() -> None:
    x = np.random.default_rng(0).random((2, 3, 300, 2)) * SIDE
    n = wave_vectors(2, 6.0)
    s = structure_factor(x, n, SIDE)
    assert s.shape == (2, 3, len(n))
    assert np.array_equal(s[1, 2], structure_factor(x[1, 2], n, SIDE))


def test_long_sums_are_transformed_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2e5 particles, where float32 sums in a row would be off by 0.01 and more
    x, n = np.random.default_rng(1).random((200_000, 2)), wave_vectors(2, 4.0)
    calls = []
    fast = structure._fast_means
    monkeypatch.setattr(structure, "_EXACT_TERMS", 10**6)
    monkeypatch.setattr(structure, "_fast_means", lambda *given: calls.append(1) or fast(*given))
    transformed = structure_factor(x, n, 1.0)
    assert calls == [1]
    monkeypatch.setattr(structure, "_EXACT_TERMS", 10**9)
    exact = structure_factor(x, n, 1.0)
    assert calls == [1]
    assert (np.abs(exact - transformed) < 2e-6 * np.sqrt(transformed) + 1e-11).all()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_lattice_has_bragg_peaks_and_nothing_else(dim: int) -> None:
    cells = {1: 64, 2: 8, 3: 4}[dim]
    n = wave_vectors(dim, cells * 1.5)
    s = structure_factor(lattice(cells, dim) + 0.3, n, float(cells))
    peaks = (n % cells == 0).all(axis=1)
    assert peaks.sum() >= dim
    assert s[peaks] == pytest.approx(cells**dim, rel=1e-5)
    assert np.abs(s[~peaks]).max() < 1e-9


def test_poisson_pattern_is_flat() -> None:
    # S is exponential with mean 1: the mean of m of them is 1 +- m^-1/2. 5 deviations, three tests: 2e-6 false alarms
    rng = np.random.default_rng(2)
    x, n = rng.random((40, 300, 2)) * SIDE, wave_vectors(2, 6.0)
    for w in (None, np.ones(300), rng.random(300)):
        s = structure_factor(x, n, SIDE, w)
        assert abs(s.mean() - 1) < 5 / np.sqrt(s.size)


@pytest.mark.parametrize("bad", ["float modes", "zero", "dimension", "weights", "nan", "box", "no weight"])
def test_bad_input_is_refused(bad: str) -> None:
    x, n, side = np.zeros((4, 2)), wave_vectors(2, 2.0), 1.0
    w: np.ndarray | None = None
    sentence = {
        "float modes": "whole numbers",
        "zero": "wave vector 0",
        "dimension": r"must be \(number, 2\)",
        "weights": "4 finite numbers",
        "nan": "NaN",
        "box": "box side",
        "no weight": "not all zero",
    }[bad]
    if bad == "float modes":
        n = n * 1.0
    elif bad == "zero":
        n = n * 0
    elif bad == "dimension":
        n = n[:, :1]
    elif bad == "weights":
        w = np.ones(3)
    elif bad == "nan":
        x = x * np.nan
    elif bad == "box":
        side = -1.0
    else:
        w = np.zeros(4)
    with pytest.raises(PackingError, match=sentence):
        structure_factor(x, n, side, w)


def test_recorded_while_a_simulation_runs() -> None:
    system = System.create(0.5, 257, dim=2)
    n = wave_vectors(2, 3.0)
    run = simulate(
        system,
        bro(kick=0.5),
        steps=20,
        key=jax.random.key(0),
        times=np.array([0, 10, 20]),
        record={"s": recorded_structure_factor(n)},
    )
    assert run["s"].shape == (3, len(n))
    expected = np.abs(amplitudes(run.positions.astype(float), n, 1.0)) ** 2 / 257
    assert run["s"][-1] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert run["s"][0] != pytest.approx(expected, rel=0.1)


def test_recorded_bits_do_not_depend_on_the_order() -> None:
    system = System.create(0.5, 257, dim=2)
    rng = np.random.default_rng(3)
    x = rng.integers(-(2**31), 2**31, (2, 257)).astype(np.int32)
    observe = jax.jit(recorded_structure_factor(wave_vectors(2, 3.0)))

    def seen(order: np.ndarray) -> np.ndarray:
        c = jnp.asarray(x[:, order])
        return np.asarray(
            observe(Configuration(system, c, jnp.zeros_like(c), c, jnp.zeros((1, 257), jnp.int32), jnp.arange(257)))
        )

    first = seen(np.arange(257))
    for _ in range(3):
        assert np.array_equal(seen(rng.permutation(257)), first)


# --- spectral density -----------------------------------------------------------------------------------------


def ball(q: np.ndarray, r: np.ndarray, dim: int) -> np.ndarray:
    return (2 * np.pi * r / q) ** (dim / 2) * jv(dim / 2, q * r)


def test_ball_transform_closed_forms() -> None:
    q, r = np.geomspace(1e-6, 30, 50), np.full(50, 0.7)
    x = q * r
    wide = x > 0.05  # below, the closed form of three dimensions cancels
    assert structure._ball_transform(q, r, 1) == pytest.approx(2 * np.sin(x) / q, rel=1e-10)
    three = 4 * np.pi * (np.sin(x) - x * np.cos(x)) / q**3
    assert structure._ball_transform(q, r, 3)[wide] == pytest.approx(three[wide], rel=1e-8, abs=1e-12)
    for dim, volume in ((2, np.pi), (4, np.pi**2 / 2), (6, np.pi**3 / 6)):
        assert structure._ball_transform(q[:1], r[:1], dim) == pytest.approx(volume * 0.7**dim, rel=1e-9)


@pytest.mark.parametrize("sizes", ["equal", "two", "continuous"])
def test_spectral_density_equals_brute_force(sizes: str) -> None:
    rng = np.random.default_rng(4)
    x, n = rng.random((300, 2)) * SIDE, wave_vectors(2, 6.0)
    diameters = {
        "equal": np.asarray(0.3),
        "two": np.repeat([0.2, 0.28], 150),
        "continuous": rng.uniform(0.05, 0.6, 300),
    }[sizes]
    q = 2 * np.pi / SIDE * np.linalg.norm(n, axis=1)
    radii = np.broadcast_to(diameters / 2, (300,))
    waves = np.exp(-2j * np.pi / SIDE * (x @ n.T))
    expected = np.abs(np.sum(ball(q[None], radii[:, None], 2) * waves, axis=0)) ** 2 / SIDE**2
    assert spectral_density(x, diameters, n, SIDE) == pytest.approx(expected, rel=1e-3, abs=1e-6 * expected.max())


def test_size_nodes_reproduce_every_particle() -> None:
    radii = np.random.default_rng(5).uniform(0.1, 2.0, 1000)
    nodes, shares = structure._size_nodes(radii, 40.0)
    assert len(nodes) < 100
    q = np.linspace(0.1, 40.0, 80)[:, None]
    for dim in (1, 3, 6):
        rebuilt = sum(
            structure._ball_transform(q, np.full(1, node), dim) * w for node, w in zip(nodes, shares, strict=True)
        )
        exact = structure._ball_transform(q, radii, dim)
        assert np.abs(rebuilt - exact).max() < 1e-7 * np.abs(exact).max()


def test_spectral_density_of_poisson_balls() -> None:
    # chi = rho <m^2> for independent places; exponential values, so 5 deviations are 6e-7
    rng = np.random.default_rng(6)
    x, n, diameters = rng.random((40, 300, 2)) * SIDE, wave_vectors(2, 6.0), rng.uniform(0.05, 0.6, 300)
    q = 2 * np.pi / SIDE * np.linalg.norm(n, axis=1)
    expected = 300 / SIDE**2 * np.mean(ball(q[:, None], diameters / 2, 2) ** 2, axis=1)
    ratio = spectral_density(x, diameters, n, SIDE) / expected
    assert abs(ratio.mean() - 1) < 5 / np.sqrt(ratio.size)


def test_spectral_density_refuses_bad_diameters() -> None:
    with pytest.raises(PackingError, match="positive"):
        spectral_density(np.zeros((4, 2)), np.array([1.0, 1.0, -1.0, 1.0]), wave_vectors(2, 2.0), SIDE)


# --- isotropic average ----------------------------------------------------------------------------------------


def test_isotropic_average_equals_freud() -> None:
    rng = np.random.default_rng(7)
    x, unit = rng.random((300, 3)) * SIDE, 2 * np.pi / SIDE
    theirs = freud.diffraction.StaticStructureFactorDirect(bins=5, k_max=5.5 * unit, k_min=0.5 * unit)
    theirs.compute((freud.box.Box.cube(SIDE), x - SIDE / 2))
    n = np.array(list(itertools.product(range(6), repeat=3)), np.int32)  # it takes those of one octant only
    n = n[(np.sum(n**2, axis=1) > 0) & (np.sum(n**2, axis=1) < 5.5**2)]
    ours = isotropic_average(n, structure_factor(x, n, SIDE), SIDE, width=1.0)
    assert ours.value == pytest.approx(theirs.S_k, rel=1e-3)
    assert ours.waves.sum() == len(n) > 100


def test_shells_and_their_errors() -> None:
    n = wave_vectors(2, 6.0)
    exact = isotropic_average(n, np.ones(len(n)), 2.0, width=0.0)
    assert exact.q == pytest.approx(np.pi * np.unique(np.linalg.norm(n, axis=1).round(9)), rel=1e-6)
    # Exponential waves of mean 3: the squared error is stderr^2 on average, shell by shell. 2000 draws of a square
    # that is itself known to at most (6 + 2)^(1/2) times its mean: 6 %, and 25 % are four deviations.
    rng = np.random.default_rng(8)
    for samples in (1, 5):
        draws = [isotropic_average(n, rng.exponential(3.0, (samples, len(n))), 2.0) for _ in range(2000)]
        squares = np.mean([(one.value - 3.0) ** 2 for one in draws], axis=0)
        assert np.mean([one.stderr**2 for one in draws], axis=0) == pytest.approx(squares, rel=0.25)
    # and it is the scatter, not the law, where there is enough of it: 1000 samples with a tenth of the deviation
    calm = isotropic_average(n, 3.0 + 0.3 * rng.standard_normal((1000, len(n))), 2.0)
    assert calm.stderr * np.sqrt(calm.waves) == pytest.approx(0.3, rel=0.2)


def test_isotropic_average_refuses_bad_input() -> None:
    n = wave_vectors(2, 2.0)
    for values, width, sentence in [
        (np.ones(3), 0.5, "last axis"),
        (np.full(len(n), np.nan), 0.5, "finite"),
        (np.ones(len(n)), -1.0, "width"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            isotropic_average(n, values, 1.0, width)


# --- pair correlation -----------------------------------------------------------------------------------------


def pair_distances(x: np.ndarray, y: np.ndarray, side: float) -> np.ndarray:
    delta = x[:, None] - y[None]
    return np.linalg.norm(delta - side * np.round(delta / side), axis=-1)


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_pair_correlation_equals_brute_force(dim: int) -> None:
    rng = np.random.default_rng(dim)
    x, edges = rng.random((200, dim)) * SIDE, np.linspace(0, SIDE / 2, 8)
    shell = np.diff(edges**dim) * {1: 2.0, 2: np.pi, 3: 4 * np.pi / 3, 6: np.pi**3 / 6}[dim] / SIDE**dim
    r = pair_distances(x, x, SIDE)[~np.eye(200, dtype=bool)]
    found = pair_correlation(x, edges, SIDE)
    assert found.g == pytest.approx(np.histogram(r, edges)[0] / (200 * 199 * shell), rel=1e-12)
    partial = pair_correlation(x[:80], edges, SIDE, others=x[80:])
    counts = np.histogram(pair_distances(x[:80], x[80:], SIDE), edges)[0]
    assert partial.g == pytest.approx(counts / (80 * 120 * shell), rel=1e-12)


def test_pair_correlation_equals_freud() -> None:
    x = np.random.default_rng(9).random((300, 3)) * SIDE
    theirs = freud.density.RDF(bins=10, r_max=1.4, normalization_mode="finite_size")
    theirs.compute((freud.box.Box.cube(SIDE), x - SIDE / 2))
    ours = pair_correlation(x, np.linspace(0, 1.4, 11), SIDE)
    assert ours.r == pytest.approx(theirs.bin_centers, rel=1e-5)
    assert ours.g == pytest.approx(theirs.rdf, rel=0.02)  # float32 distances put a few pairs in the next bin


def test_pair_correlation_of_poisson_patterns_is_one() -> None:
    # 40 z values at a time; rms 1 +- 0.11 if the errors are right: 0.55 to 1.45 are four deviations
    rng = np.random.default_rng(10)
    edges = np.linspace(0, SIDE / 2, 21)
    for samples in (1, 20):
        z = []
        for _ in range(2):
            found = pair_correlation(rng.random((samples, 150, 2)) * SIDE, edges, SIDE)
            z.append((found.g - 1) / found.stderr)
        assert 0.55 < np.sqrt(np.mean(np.concatenate(z) ** 2)) < 1.45


def test_pair_correlation_refuses_bad_input() -> None:
    x = np.zeros((4, 2))
    for edges in (np.array([0.0]), np.array([0.0, 2.0]), np.array([0.3, 0.2]), np.array([-0.1, 0.2])):
        with pytest.raises(PackingError, match="edges"):
            pair_correlation(x, edges, 1.0)
    edges = np.array([0.0, 0.5])
    with pytest.raises(PackingError, match="only one"):
        pair_correlation(x[:1], edges, 1.0)
    with pytest.raises(PackingError, match="differ in particles only"):
        pair_correlation(x, edges, 1.0, others=np.zeros((4, 3)))
