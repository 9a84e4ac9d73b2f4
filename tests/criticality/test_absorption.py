"""phi_c from times of absorption, on replicas drawn from the very law, and the parts of errors."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from synthetic import sweep

from packing_jax.criticality import estimate_phi_c
from packing_jax.criticality.absorption import SIZE_SHIFT, absorption_phi_c, fit, outcomes_of, scaling_in
from packing_jax.criticality.recommended import (
    absorption_of,
    error_parts,
    halfway,
    of_infinite_systems,
    of_task,
    shortened,
    with_run_length,
)
from packing_jax.criticality.results import scan_of
from packing_jax.errors import PackingError

PHI_C, STEPS = 0.6, 10_000
MANNA = scaling_in(3)


def drawn(rng, phi, particles, steps=STEPS, *, phi_c=PHI_C, a=0.1, b=0.004, u=0.03, v=0.0008, scaling=MANNA):
    """Steps of absorption of one replica at each phi, -1 where active after `steps`, from the law of the module.

    b and v are shift and width after 10,000 steps, a and u those of one particle.
    """
    times = np.unique(np.round(np.geomspace(1, steps, 400)))
    t, n = (times / STEPS) ** -scaling.decay, particles**-scaling.omega
    half, width = phi_c + a * n - b * t, u * n + v * t
    share = np.maximum.accumulate(expit((half - np.asarray(phi)[:, None]) / width), axis=1)
    first = (share < rng.uniform(size=(len(phi), 1))).sum(axis=1)
    return np.append(times, -1)[first]


def scanned(seed, replicas=3, **law):
    """(phi, absorbed_at) of a scan of thirteen phi."""
    rng, phi = np.random.default_rng(seed), np.linspace(0.585, 0.621, 13)
    return phi, np.stack([drawn(rng, phi, 1000, **law) for _ in range(replicas)], axis=1)


def test_the_error_holds_the_truth():
    """|z| < 3 in each of twelve scans, and rms z below 1.6: false alarms rarer than 1 in 30."""
    z = []
    for seed in range(12):
        phi, gone = scanned(seed)
        found = absorption_phi_c(phi, gone, STEPS, 1000, 3)
        z.append((found.value - PHI_C) / found.stderr)
    assert max(map(abs, z)) < 3
    assert np.sqrt(np.mean(np.square(z))) < 1.6


@pytest.mark.validation
def test_intervals_hold_the_truth():
    """Of 200 scans, 95 % intervals hold the truth in 180 to 200; 180 is 3.2 sigma below 190."""
    held = 0
    for seed in range(200):
        phi, gone = scanned(1000 + seed)
        found = absorption_phi_c(phi, gone, STEPS, 1000, 3)
        held += found.interval[0] < PHI_C < found.interval[1]
    assert 180 <= held <= 200


def test_several_sizes_give_the_endless_system():
    rng, columns = np.random.default_rng(5), []
    for particles in (250, 1000, 4000):
        phi = np.repeat(np.linspace(0.588, 0.612, 9), 6)
        gone = drawn(rng, phi, particles)
        columns.append(np.stack([phi, np.full(len(phi), particles), np.full(len(phi), STEPS), gone]))
    found = fit(outcomes_of(*np.concatenate(columns, axis=1).astype(float)), MANNA)
    assert abs(found.value - PHI_C) < 3 * found.stderr
    assert found.stderr < 0.003
    assert 0 < found.size < found.stderr
    assert abs(found.amplitude - 0.1 * 250**-MANNA.omega) < 0.003


def test_more_replicas_and_longer_runs_make_errors_smaller():
    short = absorption_phi_c(*scanned(3), STEPS, 1000, 3)
    more = absorption_phi_c(*scanned(3, replicas=24), STEPS, 1000, 3)
    phi, gone = scanned(3, steps=10 * STEPS)
    longer = absorption_phi_c(phi, gone, 10 * STEPS, 1000, 3)
    assert more.statistical < 0.6 * short.statistical
    assert longer.run_length < 0.5 * short.run_length
    assert longer.remaining < 0.5 * short.remaining
    assert longer.size == pytest.approx(short.size, rel=0.05)


def test_the_seed_gives_the_same_numbers_and_another_nearly_so():
    phi, gone = scanned(1)
    first, again, other = (absorption_phi_c(phi, gone, STEPS, 1000, 3, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert abs(first.value - other.value) < 0.25 * first.statistical


def test_replicas_are_counted_once_each():
    phi = np.array([0.5, 0.5, 0.5, 0.6, 0.6])
    one = outcomes_of(phi, 100, 1600, np.array([3.0, 100.0, 1600.0, -1.0, 1601.0]))
    assert one.counts.sum() == 5
    np.testing.assert_allclose(one.times[0, [0, -1]], [100, 1600])
    assert one.counts[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert one.counts[1, -1] == 2


def test_exponents_of_dimensions():
    assert scaling_in(4) == scaling_in(6)
    assert (scaling_in(4).omega, scaling_in(4).decay) == (0.5, 1.0)
    assert scaling_in(2).decay == pytest.approx(1 / 1.225)


@pytest.mark.parametrize(
    ("phi", "gone", "particles", "sentence"),
    [
        ([0.5, 0.6], [[1.0], [-1.0]], 100, "needs three: scan more phi"),
        ([0.5, 0.6, 0.7], [[1.0], [2.0], [3.0]], 100, "every replica was absorbed, up to phi = 0.7"),
        ([0.5, 0.6, 0.7], [[-1.0], [-1.0], [-1.0]], 100, r"no replica was absorbed, .* phi = 0\.5: .* run more steps"),
        ([0.5, 0.6, 0.7], [[1.0], [2.0], [-1.0]], None, "size is not known"),
        ([0.5, 0.6], [[1.0], [2.0], [-1.0]], 100, r"shape \(3, 1\)"),
    ],
)
def test_refusals(phi, gone, particles, sentence):
    with pytest.raises(PackingError, match=sentence):
        absorption_phi_c(phi, np.asarray(gone), 1000, particles, 3)


def test_a_transition_beyond_the_scan_is_refused():
    phi, gone = scanned(0)
    with pytest.raises(PackingError, match=r"may lie beyond phi = 0\.6, where the scan ends: scan higher phi"):
        absorption_phi_c(phi[:6], gone[:6], STEPS, 1000, 3)


class TestErrorParts:
    def test_a_run_that_is_cut_is_the_shorter_run(self):
        cell = scan_of(sweep(), 0, 0)
        half = shortened(cell, 10_000.0)
        assert half.time[-1] <= 10_000 < cell.time[-1]
        assert half.activity.shape[-1] == half.time.size
        assert ((half.absorbed_at < 0) | (half.absorbed_at <= 10_000)).all()
        assert np.isnan(half.final).sum() == np.isnan(cell.final).sum()

    def test_what_moves_from_half_the_run_to_its_end_is_in_the_error(self):
        cell = scan_of(sweep(dim=3), 0, 0)

        class Fake:
            def __init__(self, value):
                self.value, self.stderr = value, 0.001

        half = halfway(cell)
        parts = error_parts(cell, half, Fake(0.6), lambda one: Fake(0.59 if one.time[-1] < cell.time[-1] else 0.6))
        left, size = 1 / (2**MANNA.decay - 1), SIZE_SHIFT * 0.6 * cell.particles**-MANNA.omega
        assert parts.run_length == pytest.approx(0.01 * left)
        assert parts.size == pytest.approx(size)
        assert parts.total == pytest.approx(np.linalg.norm([0.001, 0.01 * left, size]))

        def refused(one):
            raise PackingError("no")

        assert error_parts(cell, half, Fake(0.6), refused).total is None

    def test_an_extrapolation_that_moves_beyond_its_error_has_a_larger_one(self):
        cell = scan_of(sweep(dim=3), 0, 0)
        found = absorption_phi_c(cell.phi, cell.absorption, cell.steps, cell.particles, cell.dim)
        still = absorption_of(cell, halfway(cell), 0)
        assert still.stderr == pytest.approx(found.stderr, rel=0.2)  # this synthetic transition does not move
        moved = with_run_length(found, replace(found, value=found.value + 0.05), MANNA)
        assert moved.run_length > 0.03


def test_a_fallback_says_why():
    results = sweep()
    results["absorbed_at"][...] = -1
    (estimate,) = estimate_phi_c(results)
    best = estimate.recommended()
    assert best is None or (best.method != "absorption" and "times of absorption do not give it" in best.why)


def test_sizes_of_a_sweep_are_joined():
    results = [sweep(particles=n, dim=3, phi=np.linspace(0.58, 0.62, 9)) for n in (64, 128)]
    (best,) = of_infinite_systems(results)
    assert best.axes == {"kick": 0.05, "batch_fraction": 1.0}
    assert "of several sizes" in best.why
    assert abs(best.value - 0.6) < 0.02


def test_the_capacity_of_a_task_with_what_one_size_leaves_open():
    # instances scattered by N^-1/2, absorbed after 20/(room) steps; 200 replicas at each of 8 alpha
    rng, weights, steps = np.random.default_rng(3), 400, 4000
    alpha = np.repeat(np.linspace(0.4, 0.65, 8), 200)
    room = 0.52 - alpha + 0.25 * rng.logistic(size=alpha.size) / np.sqrt(weights)
    at = np.maximum(1, 20 / np.where(room > 0, room, np.inf))
    absorbed_at = np.where((room > 0) & (at <= steps), at.round(), -1)
    many = np.full(alpha.size, weights)
    best = of_task("alpha", alpha, many, steps, absorbed_at, {"kick": 0.1})
    assert (best.parameter, best.axes, best.method) == ("alpha", {"kick": 0.1}, "absorption")
    assert best.size == pytest.approx(0.5 * best.value / weights)
    assert best.stderr == pytest.approx(np.linalg.norm([best.statistical, best.run_length, best.size]))
    assert abs(best.value - 0.52) < 3 * best.stderr < 0.03
    with pytest.raises(PackingError, match=r"every replica was absorbed, up to alpha = 0\.65"):
        of_task("alpha", alpha, many, steps, np.ones(alpha.size), {})
