"""Decay, relaxation, absorbed share, exponents, collapse and universality: closed forms and refusals."""

import numpy as np
import pytest
from scipy.optimize import minimize
from synthetic import decays, mean_field, relaxations, scaled_activities, sweep

from packing_jax.criticality import (
    CLASSES,
    classes_in,
    collapse,
    estimate_phi_c,
    exponent,
    finite_size_collapse,
    fluctuations,
    half_absorbed_phi_c,
    relaxation_phi_c,
    relaxation_times,
    straightest_decay_phi_c,
    time_collapse,
    verdict,
)
from packing_jax.errors import PackingError

PHI = np.linspace(0.61, 0.67, 13)
RNG = np.random.default_rng


def _scan(phi, seed):
    time, f_a, _ = mean_field(RNG(seed), phi, 4, 0.6293)
    return time, phi, f_a


class TestStraightestDecay:
    def test_recovers_phi_c_and_alpha_without_noise(self):
        time, f_a = decays(RNG(0), PHI, 4, 0.6412, alpha=0.6, noise=1e-6)
        fit = straightest_decay_phi_c(time, PHI, f_a)
        # the curvature is linear in phi exactly, alpha up to records between which f_a is interpolated
        assert fit.value == pytest.approx(0.6412, abs=2e-4)
        assert fit.alpha == pytest.approx(0.6, abs=5e-3)
        assert fit.stderr < 2e-4
        assert fit.window[1] == time[-1]

    def test_what_bends_down_is_judged_while_it_is_active(self):
        """In mean-field dynamics phi below phi_c are absorbed long before the end; phi_c is known to be 0.0003 high."""
        phi = np.linspace(0.60, 0.66, 25)
        fits = [straightest_decay_phi_c(*_scan(phi, seed), draws=50) for seed in range(8)]
        assert all(fit.window[1] < 20_000 for fit in fits)
        assert abs(np.mean([fit.value for fit in fits]) - 0.6293) < 0.0006
        assert abs(np.mean([fit.alpha for fit in fits]) - 1.0) < 0.1
        assert all(abs(fit.value - 0.6293) < 4 * fit.stderr + 0.0003 for fit in fits)

    def test_replicas_that_agree_better_than_the_grid(self):
        for seed in range(8):
            time, f_a = decays(RNG(seed), PHI, 4, 0.6412 + 1e-4 * RNG(seed).random(), noise=1e-9)
            fit = straightest_decay_phi_c(time, PHI, f_a, draws=50)
            assert fit.interval[0] <= fit.value <= fit.interval[1]

    def test_seed_order_and_missing_replicas(self):
        time, f_a = decays(RNG(1), PHI, 5, 0.64)
        fit = straightest_decay_phi_c(time, PHI, f_a, seed=4)
        assert fit == straightest_decay_phi_c(time, PHI[::-1], f_a[::-1], seed=4)
        holes = np.concatenate([f_a, np.full_like(f_a[:, :1], np.nan)], axis=1)
        assert fit == straightest_decay_phi_c(time, PHI, holes, seed=4)

    def test_refusals(self):
        time, f_a = decays(RNG(2), PHI, 4, 0.64)
        with pytest.raises(PackingError, match="every replica was absorbed: scan higher phi"):
            straightest_decay_phi_c(time, PHI, np.where(time > 5000, 0.0, f_a))
        with pytest.raises(PackingError, match="run two or more"):
            straightest_decay_phi_c(time, PHI, f_a[:, :1])
        with pytest.raises(PackingError, match=r"no decay bends down .* scan lower phi"):
            straightest_decay_phi_c(time, PHI[8:], f_a[8:])
        with pytest.raises(PackingError, match=r"no decay levels off .* scan higher phi"):
            straightest_decay_phi_c(time, PHI[:5], f_a[:5])
        with pytest.raises(PackingError, match=r"has halved at t = .* run more steps"):
            straightest_decay_phi_c(time, PHI, np.full_like(f_a, 0.5))
        with pytest.raises(PackingError, match="eight or more"):
            straightest_decay_phi_c(time[:5], PHI, f_a[..., :5])


class TestRelaxation:
    def test_times_of_an_exponential(self):
        # f_a/f_inf - 1 = e^(-t/theta) falls below 0.1 at theta ln 10
        time = np.unique(np.r_[0, np.round(np.geomspace(1, 10_000, 800))])
        f_a = 0.2 * (1 + np.exp(-time / np.array([50.0, 200.0])[:, None]))
        np.testing.assert_allclose(relaxation_times(time, f_a, [-1, -1]), np.log(10) * np.array([50, 200]), rtol=0.01)

    def test_nu_par_is_that_of_mean_field_but_for_the_logarithm_of_the_size(self):
        """nu_par = 1. Absorption takes ln(N |phi - phi_c|) relaxation times, so that a small system has a smaller
        nu_par and a higher phi_c; both errors go away as N grows.
        """
        phi, known, found = np.linspace(0.60, 0.66, 25), 0.6293, []
        for particles in (2**10, 2**12, 2**16, 2**24):
            fits = []
            for seed in range(4):
                time, f_a, gone = mean_field(RNG(seed), phi, 4, known, particles, noise=0.03)
                fits.append(relaxation_phi_c(time, phi, f_a, gone, draws=50))
            found.append(np.mean([(fit.nu_par, fit.value) for fit in fits], axis=0))
        nu_par, phi_c = np.transpose(found)
        assert np.all(np.diff(nu_par) > 0)
        assert np.all(np.diff(phi_c) < 0)
        assert nu_par[-1] == pytest.approx(1.0, abs=0.04)
        assert phi_c[-1] == pytest.approx(known, abs=1e-4)

    def test_times_of_absorption_and_of_what_was_not_run(self):
        time = np.arange(10.0)
        f_a = np.array([np.where(time < 4, 0.3, 0.0), np.full(10, np.nan)])
        np.testing.assert_array_equal(relaxation_times(time, f_a, [4, -1]), [4.0, np.nan])

    def test_recovers_phi_c_and_nu_without_noise(self):
        phi = np.linspace(0.60, 0.68, 17)
        fit = relaxation_phi_c(*_relaxed(phi, 0.6412, nu_par=0.9))
        assert fit.value == pytest.approx(0.6412, abs=2e-4)
        assert fit.nu_par == pytest.approx(0.9, abs=0.02)
        assert fit.tau_below / fit.tau_above == pytest.approx(2.0 / 0.8, rel=0.05)

    def test_replicas_that_agree_better_than_the_grid(self):
        """Power laws within 1 %: the error is not 0 where all draws are next to one grid point, and is right."""
        phi, away = np.linspace(0.60, 0.68, 17), []
        for seed in range(12):
            phi_c = 0.6412 + 0.001 * RNG(seed).random()
            time, f_a, gone = relaxations(RNG(seed), phi, 4, phi_c, nu_par=0.9, noise=0.01)
            fit = relaxation_phi_c(time, phi, f_a, gone, draws=50)
            away.append((fit.value - phi_c) / fit.stderr)
        assert np.abs(away).max() < 5
        for seed in range(8):
            fit = relaxation_phi_c(*_relaxed(phi, 0.6412 + 1e-4 * RNG(seed).random()), draws=50)
            assert fit.interval[0] <= fit.value <= fit.interval[1]

    def test_times_that_diverge_at_a_phi_that_was_run_are_refused(self):
        # just above phi_c a small system is absorbed at last, after a time that belongs to no divergence
        phi, tau = np.array([0.60, 0.61, 0.62, 0.63, 0.64, 0.65, 0.66, 0.67]), [100, 100, 100, 4000, 60, 50, 40, 30]
        time = np.unique(np.r_[0, np.round(np.geomspace(1, 20_000, 400))]).astype(int)
        each = np.array(tau)[:, None] * np.exp(0.01 * RNG(0).standard_normal((8, 4)))
        f_a = 0.3 * (1 + np.exp(-time * np.log(10) / each[..., None]))
        gone = np.where(np.arange(8)[:, None] < 4, np.round(each), -1).astype(int)
        f_a = np.where((gone >= 0)[..., None] & (time >= each[..., None]), 0.0, f_a)
        with pytest.raises(PackingError, match=r"do not diverge inside the gap from phi = 0\.63 to 0\.64"):
            relaxation_phi_c(time, phi, f_a, gone)

    def test_refusals(self):
        time, phi, f_a, gone = _relaxed(np.linspace(0.60, 0.68, 17), 0.6412)
        below = int(np.sum(phi < 0.6412))
        with pytest.raises(PackingError, match=r"0 phi below the transition, .* scan lower phi"):
            relaxation_phi_c(time, phi[below:], f_a[below:], gone[below:])
        with pytest.raises(PackingError, match=r"0 phi above the transition, .* scan higher phi"):
            relaxation_phi_c(time, phi[:below], f_a[:below], gone[:below])
        with pytest.raises(PackingError, match="scan more finely"):
            relaxation_phi_c(
                *(part[below - 2 : below + 2] if part is not time else time for part in (time, phi, f_a, gone))
            )
        with pytest.raises(PackingError, match="absorbed_at has shape"):
            relaxation_phi_c(time, phi, f_a, gone[:, :1])


def _relaxed(phi, phi_c, nu_par=1.1):
    time, f_a, gone = relaxations(RNG(0), phi, 4, phi_c, nu_par=nu_par, noise=1e-4)
    return time, phi, f_a, gone


class TestHalfAbsorbed:
    def test_is_the_maximum_of_the_likelihood(self):
        rng = RNG(3)
        gone = (rng.random((13, 40)) < 1 / (1 + np.exp((PHI - 0.6412) / 0.006))[:, None]).astype(float)

        def minus_log_likelihood(x):
            s = (PHI - x[0]) / np.exp(x[1])
            return np.sum(gone * np.logaddexp(0, s)[:, None] + (1 - gone) * np.logaddexp(0, -s)[:, None])

        best = minimize(minus_log_likelihood, [0.64, np.log(0.005)], method="Nelder-Mead", options={"xatol": 1e-7})
        fit = half_absorbed_phi_c(PHI, gone)
        assert fit.value == pytest.approx(best.x[0], abs=0.1 * fit.stderr)
        assert fit.width == pytest.approx(np.exp(best.x[1]), rel=0.15)  # of the grid of widths
        assert fit.interval[0] < fit.value < fit.interval[1]
        assert fit.dof == 11

    def test_replicas_that_agree_leave_the_spacing(self):
        gone = np.repeat((PHI < 0.641).astype(float)[:, None], 8, axis=1)
        fit = half_absorbed_phi_c(PHI, gone)
        assert fit.value == pytest.approx(0.6425, abs=1e-4)  # between 0.640 and 0.645
        assert fit.interval == pytest.approx((0.640, 0.645), abs=2e-4)
        assert fit.stderr == pytest.approx(0.005 / 3.92, rel=0.1)
        assert fit.chi2 == pytest.approx(0.0, abs=0.01)

    def test_refusals(self):
        with pytest.raises(PackingError, match="scan higher phi"):
            half_absorbed_phi_c(PHI, np.ones((13, 4)))
        with pytest.raises(PackingError, match="scan lower phi"):
            half_absorbed_phi_c(PHI, np.zeros((13, 4)))
        with pytest.raises(PackingError, match="1 where a replica was absorbed"):
            half_absorbed_phi_c(PHI, np.full((13, 4), 0.4))
        with pytest.raises(PackingError, match="does not fall with phi"):
            half_absorbed_phi_c(PHI, np.tile([0.0, 1.0], (13, 2)))
        few = np.zeros((13, 8))
        few[0, :3] = 1.0  # the curve's middle is below the scan
        with pytest.raises(PackingError, match="scan lower phi"):
            half_absorbed_phi_c(PHI, few)
        with pytest.raises(PackingError, match="scan higher phi"):
            half_absorbed_phi_c(PHI, 1.0 - few[::-1])


class TestExponent:
    def test_recovers_a_law_without_noise(self):
        phi = np.linspace(0.64, 0.67, 8)
        y = 2.5 * (phi - 0.63)[:, None] ** -0.37 * (1 + 1e-7 * RNG(0).standard_normal((8, 4)))
        fit = exponent(phi, y, 0.63, 1e-9)
        assert fit.value == pytest.approx(-0.37, abs=1e-5)
        assert (fit.points, fit.dof) == (8, 6)

    def test_the_error_of_phi_c_is_carried(self):
        # d ln y/d ln x of y = x^-0.4 at an origin wrong by d changes by about -0.4 d <1/x>: most of the error here
        phi = np.linspace(0.64, 0.67, 8)
        y = (phi - 0.63)[:, None] ** -0.4 * (1 + 1e-3 * RNG(0).standard_normal((8, 6)))
        sharp, blunt = (exponent(phi, y, 0.63, error, draws=2000).stderr for error in (1e-6, 2e-3))
        shifted = exponent(phi, y, 0.628, 1e-6).value - exponent(phi, y, 0.632, 1e-6).value
        assert blunt > 5 * sharp
        # 2000 draws know a standard deviation to 1.6 %, and the law is straight to 2 %
        assert blunt == pytest.approx(abs(shifted) / 2, rel=0.08)

    def test_refusals(self):
        phi, y = np.linspace(0.64, 0.67, 8), np.ones((8, 4))
        with pytest.raises(PackingError, match=r"known at 2 phi above phi_c .* scan more finely"):
            exponent(phi, y, 0.664, 1e-5)
        with pytest.raises(PackingError, match="within two errors"):
            exponent(phi, y, 0.639, 1e-3)
        with pytest.raises(PackingError, match="shape"):
            exponent(phi, y[:3], 0.63, 1e-3)

    def test_fluctuations_of_noise_of_known_variance(self):
        # N Var of 4000 independent normals: relative standard error sqrt(2/1000) of the last quarter of 8 replicas
        f_a = 0.3 + 0.01 * RNG(5).standard_normal((2, 8, 4000))
        f_a[1] = 0.5 + 2 * (f_a[1] - 0.3)
        found = fluctuations(np.arange(4000.0), f_a, 500).mean(axis=1)
        np.testing.assert_allclose(found, [500 * 1e-4, 500 * 4e-4], rtol=5 * np.sqrt(2 / 8000))

    def test_fluctuations_slower_than_the_record(self):
        # levels that do not move: the variance between three replicas is that of all, 4000 times; 5 standard errors
        f_a = 0.3 + 0.01 * RNG(6).standard_normal((4000, 3, 1)) * np.ones(100)
        found = fluctuations(np.arange(100.0), f_a, 500)
        assert found.mean() == pytest.approx(500 * 1e-4, rel=5 * np.sqrt(2 / 2 / 4000))


class TestCollapse:
    SIZES = (8, 12, 18)

    def test_recovers_phi_c_and_both_exponents(self):
        phi = np.linspace(0.60, 0.68, 13)
        y = scaled_activities(RNG(0), phi, self.SIZES, 4, 0.64, nu=0.7, prefactor=0.9, noise=1e-5)
        fit = collapse(list(self.SIZES), [phi] * 3, y)
        # as good as ten splines follow ln(1 + e^x)
        assert fit.phi_c.value == pytest.approx(0.64, abs=2e-4)
        assert fit.nu.value == pytest.approx(0.7, abs=0.01)
        assert fit.prefactor.value == pytest.approx(0.9, abs=0.01)

    def test_time_collapse_recovers_z(self):
        times, records = [], []
        for size in (32, 64, 128):
            time = np.unique(np.round(np.geomspace(4, 4 * size**1.6, 20)))
            u = time / size**1.6
            wobble = 1 + 1e-5 * RNG(size).standard_normal((4, len(time)))
            times.append(time)
            records.append(size**-0.4 * u**-0.27 * np.exp(-u) * wobble)
        fit = time_collapse([32, 64, 128], times, records)
        assert fit.z.value == pytest.approx(1.6, abs=0.01)
        assert fit.prefactor.value == pytest.approx(0.4, abs=0.01)
        assert fit.phi_c is None

    def test_a_sweep_at_three_sizes(self):
        phi, sweeps = np.linspace(0.60, 0.68, 13), []
        for size, y in zip(self.SIZES, scaled_activities(RNG(1), phi, self.SIZES, 6, 0.64), strict=True):
            one = sweep(phi=phi, particles=60)
            one.attrs["particles"] = size**2
            one["absorbed_at"][:] = -1
            one["activity"][:] = y[:, None, None, :, None]
            sweeps.append(one)
        fit = finite_size_collapse(sweeps)
        assert abs(fit.phi_c.value - 0.64) < 3 * fit.phi_c.stderr
        assert abs(fit.nu.value - 0.8) < 3 * fit.nu.stderr
        sweeps[1]["activity"][12] *= (2 - sweeps[1]["time"] / sweeps[1].attrs["steps"]).astype(np.float32)
        assert finite_size_collapse(sweeps).points == fit.points - 1  # it drifts
        with pytest.raises(PackingError, match="attributes particles and dim"):
            finite_size_collapse([sweep(kicks=(0.02, 0.05)), sweeps[0]])

    def test_refusals(self):
        phi = np.linspace(0.60, 0.68, 13)
        y = scaled_activities(RNG(2), phi, self.SIZES, 4, 0.64)
        with pytest.raises(PackingError, match="two or more different"):
            collapse([8, 8, 18], [phi] * 3, y)
        with pytest.raises(PackingError, match="as many sets"):
            collapse([8, 12], [phi] * 3, y)
        with pytest.raises(PackingError, match="12 or more points"):
            collapse([8, 12], [phi[:5]] * 2, [y[0][:5], y[1][:5]])
        with pytest.raises(PackingError, match="outside what was scanned"):
            collapse(list(self.SIZES), [phi] * 3, scaled_activities(RNG(2), phi, self.SIZES, 4, 0.75))
        with pytest.raises(PackingError, match=r"no collapse|outside what was scanned"):
            collapse(list(self.SIZES), [phi] * 3, [0.3 + 0.1 * RNG(k).random((13, 4)) for k in range(3)])
        with pytest.raises(PackingError, match="negative or NaN"):
            time_collapse([8, 12], [[1.0, 2.0]] * 2, [np.full((2, 2), np.nan)] * 2)
        with pytest.raises(PackingError, match="positive t"):
            time_collapse([8, 12], [[0.0, 1.0]] * 2, [np.ones((2, 2))] * 2)
        with pytest.raises(PackingError, match="two or more that survive"):
            time_collapse([8, 12], [[1.0, 2.0]] * 2, [np.ones((1, 2))] * 2)
        # records that end before they know of the size
        time = np.geomspace(2, 200, 20)
        for seed in range(6):
            early = [time**-0.4 * np.exp(0.05 * RNG([seed, k]).standard_normal((8, 20))) for k in range(3)]
            with pytest.raises(PackingError, match="no collapse: z would be"):
                time_collapse([8, 16, 32], [time] * 3, early)
        with pytest.raises(PackingError, match="1 bootstrap draws"):
            time_collapse([8, 16, 32], [time] * 3, early, draws=1)


class TestUniversality:
    @pytest.mark.parametrize("one", CLASSES, ids=lambda one: f"{one.name} {one.dim}")
    def test_the_table_obeys_the_scaling_relations(self, one):
        # Measured one by one, so the table is held to them within three standard deviations: z = nu_par/nu_perp,
        # alpha = beta/nu_par (directed percolation and mean field, where it is exact) and gamma' = d nu_perp - 2 beta.
        value, error = ({name: pair[i] for name, pair in one.exponents.items()} for i in (0, 1))
        z = value["nu_par"] / value["nu_perp"]
        slack = z * np.hypot(error["nu_par"] / value["nu_par"], error["nu_perp"] / value["nu_perp"])
        assert abs(z - value["z"]) <= 3 * np.hypot(slack, error["z"]) + 1e-9
        gamma = one.dim * value["nu_perp"] - 2 * value["beta"]
        slack = np.hypot(one.dim * error["nu_perp"], 2 * error["beta"])
        assert abs(gamma - value["gamma_prime"]) <= 3 * np.hypot(slack, error["gamma_prime"]) + 1e-9
        if one.name != "Manna":
            alpha = value["beta"] / value["nu_par"]
            slack = alpha * np.hypot(error["beta"] / value["beta"], error["nu_par"] / value["nu_par"])
            assert abs(alpha - value["alpha"]) <= 3 * np.hypot(slack, error["alpha"]) + 1e-9

    def test_a_verdict_by_hand(self):
        found = verdict({"beta": (0.600, 0.020), "alpha": (0.40, 0.01)}, 2)
        assert [match.name for match in found.matches] == ["directed percolation", "Manna"]
        manna = found.matches[1]
        deviation = (0.600 - 0.639) / np.hypot(0.020, 0.009)
        assert manna.comparisons[0].deviation == pytest.approx(deviation)
        assert (manna.chi2, manna.dof) == (pytest.approx(deviation**2), 1)
        assert len(manna.comparisons) == 2  # alpha is compared, and counts for nothing
        assert "1.8 standard deviations below 0.639" in found.text
        assert "do not tell directed percolation from Manna" in found.text

    def test_exponents_of_a_class_are_told_from_the_other(self):
        found = verdict({"beta": (0.639, 0.008), "nu_par": (1.225, 0.01), "z": (1.533, 0.01)}, 2)
        assert found.matches[0].name == "Manna"
        assert found.matches[0].chance > 0.99
        assert found.matches[1].chance < 1e-6
        assert "do not tell" not in found.text
        assert "None of these" in verdict({"beta": (2.0, 0.01)}, 3).text

    def test_mean_field_from_four_dimensions_on(self):
        assert [one.name for one in classes_in(3)] == ["Manna", "directed percolation"]
        assert [one.name for one in classes_in(4)] == [one.name for one in classes_in(7)] == ["mean field"]

    @pytest.mark.parametrize(
        ("measured", "dim", "sentence"),
        [
            ({"eta": (0.1, 0.1)}, 2, "not known; they are beta"),
            ({"beta": (0.6, 0.0)}, 2, "the error positive"),
            ({"beta": (0.6, 0.1), "nu_perp": (0.8, 0.1), "beta/nu_perp": (0.8, 0.1)}, 2, "leave one of the three"),
            (
                {"beta": (0.6, 0.1), "nu_perp": (0.8, 0.1), "gamma_prime": (0.4, 0.1)},
                2,
                "gamma_prime, beta and nu_perp",
            ),
            ({"beta": (0.6, 0.1), "beta/nu_perp": (0.8, 0.1), "gamma_prime": (0.4, 0.1)}, 2, "leave one of the three"),
            ({"nu_par": (1.2, 0.1), "nu_perp": (0.8, 0.1), "z": (1.5, 0.1)}, 2, "leave one of the three"),
            ({"alpha": (0.4, 0.1)}, 2, "an exponent other than"),
            ({"beta": (0.6, 0.1)}, 0, "the dimension is 0"),
        ],
    )
    def test_refusals(self, measured, dim, sentence):
        with pytest.raises(PackingError, match=sentence):
            verdict(measured, dim)


def test_a_sweep_gives_its_exponents():
    (estimate,) = estimate_phi_c(sweep(phi=np.linspace(0.585, 0.66, 16)))
    found = estimate.exponents()
    law = estimate.power_law
    corrections = np.sqrt(np.prod(law.activity(list(law.window)))) * law.beta
    assert found["beta"] == pytest.approx((law.beta, np.hypot(law.beta_stderr, corrections)))
    assert verdict(found, 3).matches[0].dof == len(set(found) - {"alpha"})


def test_a_fit_far_from_phi_c_tells_no_class():
    # the lowest active phi, 0.62, has f_a = 4 (0.02)^0.84 = 0.15 for phi_c = 0.6, and 0.27 at 0.64
    for lowest, known in ((0.62, True), (0.64, False)):
        (estimate,) = estimate_phi_c(sweep(phi=np.r_[0.58, 0.59, np.linspace(lowest, lowest + 0.05, 8)]))
        assert estimate.power_law is not None
        assert ("beta" in estimate.exponents()) is known
        assert ("exponents" in dict(estimate.refusals)) is not known
