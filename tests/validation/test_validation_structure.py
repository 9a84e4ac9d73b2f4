"""S(q) above phi_c, at it and below, order of discs, contacts at phi_c; rows go to results.json."""

from dataclasses import replace

import numpy as np
import pytest
from results import judged, keep, kept
from test_validation_manna import CASES, NAMES
from test_validation_phi_c import SEARCHES, larger_kicks
from validation_runs import SEED, spent, swept

from packing_jax.criticality import zero_kick_limit
from packing_jax.criticality.fits import averaged, misfit, straight_line
from packing_jax.figures import correlated_noise, hyperuniformity
from packing_jax.figures.published import published
from packing_jax.observables import (
    find_contacts,
    hexatic_order,
)
from packing_jax.spheres.potential import LINEAR
from packing_jax.spheres.system import System
from packing_jax.sweeps.spheres import Sweep

pytestmark = pytest.mark.validation


def test_structure_factor_of_correlated_kicks():
    """Targets: the published S(q)/(q sigma)^2 of correlation 1 and S(q -> 0) of correlation 0.

    In between the share of the noise that moves the centre of mass falls as 1 - p, and S(q -> 0) with it (derived: the
    kicks of a pair add up to u - u', of variance 2 (1 - p) Var u). Spectra and fits are those of the figure
    `correlated-noise`, at its full size.
    """
    particles, replicas, steps = correlated_noise.SIZES["full"]
    results = {
        p: swept(f"structure-2d-{p:g}", correlated_noise.spec(p, particles, replicas, steps, SEED))
        for p in correlated_noise.CORRELATIONS
    }
    spectra = {p: correlated_noise.spectrum(data, p) for p, data in results.items()}
    kept_rows = {
        p: {
            "correlation": p,
            "zero": [one.zero.value, one.zero.value_stderr],
            "slope": [one.zero.slope, one.zero.slope_stderr],
            "p_value": one.zero.p_value,
            "spectrum": [one.shells.q.tolist(), one.shells.value.tolist(), one.shells.stderr.tolist()],
        }
        for p, one in spectra.items()
    }
    facts = {"particles": particles, "replicas": replicas, "steps": steps, "seed": SEED}
    slope, error = correlated_noise.parabola(spectra[1.0].shells)
    zero, zero_error = kept_rows[0.0]["zero"]
    law, plateau = published(correlated_noise.LAW), published(correlated_noise.PLATEAU)
    keep(
        "results.json",
        correlated_noise.LAW,
        {
            **judged(slope, error, law),  # the assertion below allows for its error
            "note": (
                "of the law without a constant, as that of the target; with one, {:.4f} +- {:.4f}, it is {:.3f} +- "
                "{:.3f}".format(*kept_rows[1.0]["zero"], *kept_rows[1.0]["slope"])
            ),
            "rows": [kept_rows[1.0]],
            **facts,
            **spent([results[1.0]]),
        },
    )
    keep(
        "results.json",
        correlated_noise.PLATEAU,
        {**judged(zero, zero_error, plateau), "rows": [kept_rows[0.0]], **facts, **spent([results[0.0]])},
    )
    line = correlated_noise.line_of(spectra)
    keep(
        "results.json",
        correlated_noise.LINE,
        {
            "target": "0",
            "value": line.intercept,
            "stderr": line.intercept_stderr,
            "deviation": line.intercept / line.intercept_stderr,
            "met": abs(line.intercept) <= 3 * line.intercept_stderr,
            "note": f"the line through five correlations has chi2 {line.chi2:.1f} for {len(spectra) - 2}",
            "slope": [line.slope, line.slope_stderr],
            "chi2": line.chi2,
            "dof": len(spectra) - 2,
            "rows": [*kept_rows.values()],
            **facts,
            **spent([*results.values()]),
        },
    )
    assert abs(slope - law.value) <= law.error + 2 * error
    assert abs(zero - plateau.value) <= plateau.error
    assert abs(line.intercept) <= 3 * line.intercept_stderr


def test_equal_discs_order_where_they_come_to_rest():
    """2D BRO at kick 1/2 of equal discs is no case for the Manna class: activity jumps, and psi6 with it.

    The mean |psi6| of replicas that came to rest at phi = 0.565 and 0.57 is higher than that of those which stay active
    at 0.57 and 0.60, by four joint standard errors (Welch's t, 4 to 10 degrees of freedom: a false alarm in one of a
    hundred at most). A first version compared the two middle phi, and failed, since some replicas at 0.57 came to rest.
    """
    phis, replicas = (0.55, 0.565, 0.57, 0.60), 4
    spec = Sweep(dim=2, particles=1024, phi=phis, kick=(0.5,), replicas=replicas, steps=20_000, seed=SEED)
    data = swept("ordering-2d-bro", spec)
    x = data.positions.squeeze().transpose("phi", "replica", "particle", "axis").values
    psi = [[hexatic_order(one, 1.0) for one in row] for row in x]
    local = np.array([[np.abs(one).mean() for one in row] for row in psi])
    whole = np.array([[abs(one.mean()) for one in row] for row in psi])
    activity = data.activity.squeeze().isel(time=-1).transpose("phi", "replica").values
    rests = (data.absorbed_at >= 0).squeeze().transpose("phi", "replica").values
    ordered, active = local[1:3][rests[1:3]], local[2:][~rests[2:]]
    value = float(ordered.mean() - active.mean())
    error = float(np.hypot(ordered.std(ddof=1) / len(ordered) ** 0.5, active.std(ddof=1) / len(active) ** 0.5))
    keep(
        "results.json",
        "local psi6 of equal discs, 2D BRO, kick 1/2: at rest less active, beside the jump",
        {
            "target": "> 0 by 4 standard errors",
            "value": value,
            "stderr": error,
            "met": value > 4 * error,
            "rows": [
                {
                    "phi": phi,
                    "activity": activity[i].tolist(),
                    "local": local[i].tolist(),
                    "whole": whole[i].tolist(),
                }
                for i, phi in enumerate(phis)
            ],
            "note": (
                f"{rests[2].sum()} of {replicas} replicas at phi = 0.57 are at rest: mean |psi6| "
                f"{local[2][rests[2]].mean():.2f}, |mean psi6| {whole[2][rests[2]].mean():.2f}, beside "
                f"{local[2][~rests[2]].mean():.2f} and {whole[2][~rests[2]].mean():.2f} of the active ones, whose "
                f"activity ends at {activity[2][~rests[2]].mean():.2f}: what comes to rest there is on its way to a "
                "crystal, and the jump is not the Manna transition"
            ),
            "particles": 1024,
            "replicas": replicas,
            "steps": 20_000,
            "seed": SEED,
            **spent([data]),
        },
    )
    assert value > 4 * error


@pytest.mark.parametrize(
    ("name", "kicks"),
    [("3D BRO pair", (0.005, 0.01, 0.02, 0.05)), ("4D BRO pair", (0.01, 0.02, 0.05))],
)
def test_contacts_at_phi_c(name, kicks):
    """Target: Z = 2d as the kick goes to 0, rattlers removed.

    A pair counts as a contact up to a gap of two kicks, which is how far its own kick can carry it, as each partner
    moves by one at most; a first version stopped at one kick, and lost contacts. In a jammed packing the
    number of neighbours nearer than h grows as h^(1 - 0.413) beyond the contacts (Charbonneau et al., Phys. Rev. Lett.
    114, 125504 (2015)), so Z is carried to kick 0 by a line in kick^0.587. States absorbed nearest to phi_c(kick),
    which is that of the parabola behind the zero-kick limit, or up to 0.006 above it, since half-absorbed systems of
    N = 256 to 1024 put phi_c low: a first scan, which ended there, found nearly all absorbed, and fewer contacts.
    """
    what = Sweep(dim=SEARCHES[name].get("dim", 3))
    limit = zero_kick_limit(*larger_kicks(name))
    rows, results = [], []
    for kick, centre in zip(kicks, limit.form.at(np.array(kicks)).tolist(), strict=True):
        phis = tuple(np.round(centre + np.array([-0.006, -0.003, 0.0, 0.003, 0.006]), 5))
        spec = replace(what, particles=1024, phi=phis, kick=(kick,), replicas=8, steps=round(1000 / kick), seed=SEED)
        data = swept(f"contacts {name}, {kick:g}".replace(" ", "-"), spec)
        results.append(data)
        numbers = {}
        for phi in data.phi.values:
            at = data.sel(phi=phi).squeeze()
            system = System.create(float(phi), 1024, what.dim, energy=LINEAR)
            gone = at.absorbed_at.values >= 0
            x = at.positions.transpose("replica", "particle", "axis").values[gone]
            if len(x) >= 3:
                found = [find_contacts(system, one, 2 * kick) for one in x]
                held = [one for one in found if not one.rattlers.all()]  # in others nothing holds at this reach
                each = np.array([one.contact_number for one in held])
                if len(each) < 3:
                    continue
                loose = float(np.mean([one.rattlers.mean() for one in held]))
                numbers[float(phi)] = [each.mean(), each.std(ddof=1) / len(each) ** 0.5, len(each), loose]
        assert numbers, f"no three replicas were absorbed at kick {kick}"
        phi = max(numbers)
        z, error, count, loose = numbers[phi]
        rows.append(
            {
                "kick": kick,
                "phi": phi,
                "Z": z,
                "stderr": error,
                "packings": count,
                "rattlers": loose,
                "all": {f"{one:g}": value for one, value in numbers.items()},
            }
        )
    value, stderr, note = carried_to_zero(rows)
    target = published(f"contacts at phi_c, kick -> 0, {what.dim}D")
    keep(
        "results.json",
        f"contacts at phi_c, kick -> 0, {name}",
        {
            **judged(value, stderr, target),
            "note": note,
            "rows": rows,
            "particles": 1024,
            "replicas": 8,
            "steps": [round(1000 / kick) for kick in kicks],
            "seed": SEED,
            **spent(results),
        },
    )
    assert abs(value - target.value) <= target.error


def carried_to_zero(rows):
    """Z at kick 0, its error, and what is behind them: lines in kick^0.587, averaged over windows without large kicks.

    A window counts exp(-(chi^2 + 2 dropped)/2), down to two kicks. The variance is the mean of the lines' own, times
    chi^2/dof where chance gives such a chi^2 less than 1 time in 20, the scatter between them, and the square of what
    the next lower phi would change. A first version took the line through all kicks and its own error alone, 5.96 +-
    0.02 in 3D, where that line bends.
    """

    def average(points):
        kick, z, error = np.array(points).T
        lines = [straight_line(kick[:n] ** 0.587, z[:n], np.maximum(error[:n], 0.01)) for n in range(2, len(kick) + 1)]
        cost = np.array([line.chi2 + 2 * (len(kick) - 2 - i) for i, line in enumerate(lines)])
        own = [[line.intercept, line.intercept_stderr * misfit(line.chi2, i)] for i, line in enumerate(lines)]
        return *averaged(*np.array(own).T, cost), lines

    ranked = [(row["kick"], sorted(row["all"].items(), key=lambda one: float(one[0]))) for row in rows]
    value, stderr, lines = average([(kick, *every[-1][1][:2]) for kick, every in ranked])
    lower = average([(kick, *every[-2][1][:2]) for kick, every in ranked])[0]
    said = ", ".join(f"{line.intercept:.2f} of {n} (chi2 {line.chi2:.1f})" for n, line in enumerate(lines, start=2))
    note = (
        f"lines through the smallest kicks alone give {said}; the next lower phi gives {lower:.2f}; "
        f"{min(row['packings'] for row in rows)} or more absorbed packings at each kick; contacts are gaps up to two "
        "kicks; why Z falls short of 2d is not known"
    )
    return value, float(np.hypot(stderr, value - lower)), note


@pytest.mark.parametrize("name", NAMES)
def test_hyperuniformity_exponent_at_phi_c(name):
    """Target: the published exponents in 2D and 3D, q sigma < 1, of all replicas at the phi_c of the row of beta."""
    phi_c = kept("results.json", f"beta, {name}")["phi_c"][0]
    target = published(f"hyperuniformity exponent at phi_c, {CASES[name].case.what.dim}D")
    [(fits, facts)] = spectra(name, (round(phi_c, 5),), "at-phi_c")
    fit = fits[1.0]
    keep(
        "results.json",
        f"hyperuniformity exponent at phi_c, {name}",
        {
            **judged(fit.exponent, fit.exponent_stderr, target),
            **facts,
            "note": told(facts),
        },
    )
    assert abs(fit.exponent - target.value) <= target.error


def told(facts):
    """What a spectrum at phi_c stands on."""
    active = [one for one in facts["activity"] if one > 0]
    rest = f"{facts['absorbed']} of {facts['replicas']} replicas are at rest at phi = {facts['phi']:g}"
    if active:
        rest += f", the activity of the others ends at {np.mean(active):.2f}"
    others = [
        f"{fit[0]:.2f} +- {fit[1]:.2f} up to {q_max}" for q_max, fit in facts["windows"].items() if float(q_max) < 1
    ]
    below = f"; fits end at q sigma = 1, and give {', '.join(others)}" if others else ""
    return f"{rest}; {len(facts['spectrum'][0])} shells from q sigma = {facts['spectrum'][0][0]:.2f} to 1{below}"


def test_hyperuniformity_of_quenches_below_phi_c():
    """2D states at rest, 0.5 to 2 % below phi_c: S(q) stops falling at the correlation length, and rises beyond.

    Of the packing fractions where all replicas are absorbed; the row is that nearest to phi_c.
    """
    name, quenches = "2D RO, kick 1", (0.02, 0.01, 0.005)
    phi_c = kept("results.json", f"beta, {name}")["phi_c"][0]
    every = spectra(name, tuple(np.round(phi_c * (1 - np.array(quenches)), 5)), "quenched")
    at_rest = [one for one in every if one[1]["absorbed"] == one[1]["replicas"]]
    assert at_rest, "at no phi were all replicas absorbed"
    fits, facts = at_rest[-1]
    target = published("hyperuniformity exponent at phi_c, 2D")
    keep(
        "results.json",
        f"hyperuniformity exponent of absorbed states below phi_c, {name}",
        {
            **judged(fits[1.0].exponent, fits[1.0].exponent_stderr, target),
            **facts,
            "others": [{key: one[key] for key in ("phi", "absorbed", "windows")} for _, one in every],
            "note": (
                "where all has come to rest, S(q) falls towards small q to its lowest at q sigma = 0.16 and rises "
                "again below: fits up to q sigma = 0.3 give "
                + ", ".join(f"{one['windows'][0.3][0]:.2f} +- {one['windows'][0.3][1]:.2f}" for _, one in every)
                + " at phi = "
                + ", ".join(f"{one['phi']:g} ({one['absorbed']} of {one['replicas']} at rest)" for _, one in every)
            ),
        },
    )
    assert abs(fits[1.0].exponent - target.value) <= target.error


def spectra(name, phis, folder):
    """(fits of the exponent by the end of their window, facts) of all replicas of a case at each of some phi."""
    one, what = CASES[name], CASES[name].case.what
    spec = replace(
        what, particles=one.quenched, phi=phis, kick=one.case.kicks, replicas=4, steps=one.quench_steps, seed=SEED
    )
    data = swept(f"{one.case.name}-{folder}", spec)
    found = []
    for phi in phis:
        at = data.sel(phi=phi).squeeze()
        x = at.positions.transpose("replica", "particle", "axis").values
        spectrum = hyperuniformity.shells(x, phi)
        fits = hyperuniformity.fits(spectrum)
        facts = {
            "windows": {q: [fit.exponent, fit.exponent_stderr, fit.p_value] for q, fit in fits.items()},  # by q_max
            "phi": phi,
            "absorbed": int((at.absorbed_at >= 0).sum()),
            "activity": at.activity.isel(time=-1).values.tolist(),
            "spectrum": [spectrum.q.tolist(), spectrum.value.tolist(), spectrum.stderr.tolist()],
            "particles": one.quenched,
            "replicas": len(x),
            "steps": one.quench_steps,
            "seed": SEED,
            **spent([data]),
        }
        found.append((fits, facts))
    return found
