"""phi_c of every rule against published values: `pytest -m validation -k phi_c`; rows go to results.json."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from results import judged, keep, kept
from validation_runs import SEED, Case, coarse, fine, searched, spent, swept

from packing_jax.criticality import KickEstimate, zero_kick_limit
from packing_jax.figures.published import Published, published
from packing_jax.observables import hexatic_order, steinhardt_order
from packing_jax.sweeps.spheres import Sweep

pytestmark = pytest.mark.validation

KICKS = (0.02, 0.05, 0.1, 0.2)
TOLERANCE = 0.006  # of each phi_c; most come out better, since three sizes are run in any case
SEARCHES: dict[str, dict[str, Any]] = {
    "3D BRO pair": {},
    "3D Langevin pair": {"rule": "langevin"},
    **{
        f"3D SGD {coupling}, b_f = {b:g}": {"rule": "sgd", "coupling": coupling, "batch_fraction": b}
        for coupling in ("pair", "particle")
        for b in (0.2, 0.6, 1.0)
        if (coupling, b) != ("particle", 1.0)  # the same moves as (pair, 1)
    },
    "4D BRO pair": {"dim": 4},
    "2D 1:1.4 BRO pair": {"dim": 2, "mixture": "1:1.4"},
}
BY_SWEEPS = {
    "3D Langevin pair": Case("langevin", Sweep(rule="langevin"), (0.01, *KICKS), (0.40, 0.67)),
}
#: What is known of a value.
_LOW = "phi_c where half are absorbed lies up to 0.006 below power laws of the activity (see the head of the table); "
NOTES = {
    "3D BRO pair": _LOW + "by power laws the limit is 0.637 +- 0.007 (the row by sweeps)",
    "3D SGD pair, b_f = 0.6": _LOW + "it is outside the target's range by 0.0001",
    "3D SGD pair, b_f = 1": "there is no other row for b_f = 1: all overlaps of all particles are the same moves",
    "2D 1:1.4 BRO pair": (
        "outside the target's range by 0.0002, and within their joint error; the target is phi_J of energy "
        "minimisation, as no limit of BRO is published; a line instead of a parabola gives 0.841 +- 0.002"
    ),
}
SGD_AT_0_01 = published("phi_c at learning rate 0.01, 3D SGD")
LIMITS = {
    dim: published(f"phi_c at zero kick, {name}") for dim, name in ((2, "2D 1:1.4"), (3, "3D"), (4, "4D"), (5, "5D"))
}


def told(one: KickEstimate, steps: int, centre: float) -> dict[str, Any]:
    """What is kept of one kick."""
    methods = {
        name: None if found is None else [found.value, found.stderr]
        for name in ("power_law", "half_absorbed", "threshold", "decay")
        for found in (getattr(one, name),)
    }
    refusals = {name: why for name, why in one.refusals if methods.get(name, 0) is None}
    return {"kick": one.kick, "steps": steps, "coarse": centre, **methods, "refusals": refusals}


def crystalline(results: Any) -> float:
    """The share of particles in a crystal (7 connections or more), in the densest 3D replicas of a sweep."""
    end = results.isel(phi=-1, kick=0, batch_fraction=0).positions.transpose("replica", "particle", "axis").values
    return float(np.mean([np.mean(steinhardt_order(x, 1.0).connections >= 7) for x in end]))


@pytest.mark.parametrize("name", SEARCHES)
def test_phi_c_at_zero_kick(name):
    """Target: the published limit, from a parabola through phi_c at four kicks."""
    what = SEARCHES[name]
    rows = []
    for kick in KICKS:
        found, seconds = searched(f"search {name}, {kick:g}".replace(" ", "-"), TOLERANCE, kick=kick, **what)
        sizes = {"particles": [one.particles for one in found.rounds], "steps": [one.steps for one in found.rounds]}
        cost = {"particle_steps": found.particle_steps, "seconds": seconds}
        rows.append({"kick": kick, "phi_c": found.value, "stderr": found.stderr, **sizes, **cost})
    limit = zero_kick_limit(*(np.array([row[key] for row in rows]) for key in ("kick", "phi_c", "stderr")))
    row = judged(limit.value, limit.stderr, LIMITS[what.get("dim", 3)])
    facts = {
        "particles": [n for one in rows for n in one["particles"]],
        "steps": [n for one in rows for n in one["steps"]],
        "seed": SEED,
        "seconds": sum(one["seconds"] for one in rows),
        "particle_steps": sum(one["particle_steps"] for one in rows),
        "forms": {form.name: [form.value, form.stderr, form.weight] for form in limit.forms},
        "note": NOTES.get(name),
    }
    keep("results.json", f"phi_c at zero kick, {name}", {**row, **facts, "phi_c": rows})
    assert abs(row["deviation"]) <= 2


@pytest.mark.parametrize("name", BY_SWEEPS)
def test_phi_c_at_zero_kick_by_sweeps(name):
    """The same by power laws of the activity, from sweeps of larger systems, with a measure of crystallinity."""
    case = BY_SWEEPS[name]
    centres, first = coarse(case)
    rows, results, points = [], [first], []
    for kick in case.kicks:
        one, data = fine(case, kick, centres[kick])
        results.append(data)
        rows.append(told(one, round(case.time / kick), centres[kick]))
        if one.power_law is not None:  # one method throughout: the others are off by more than their errors
            points.append((kick, one.power_law.value, one.power_law.stderr))
    assert len(points) >= 3, rows
    limit = zero_kick_limit(*np.array(points).T)
    row = judged(limit.value, limit.stderr, LIMITS[case.what.dim])
    facts = {
        "particles": case.particles,
        "replicas": 4,
        "seed": SEED,
        "steps": [one["steps"] for one in rows],
        "crystalline": crystalline(results[1]) if case.what.dim == 3 else None,
        "forms": {form.name: [form.value, form.stderr, form.weight] for form in limit.forms},
        **spent(results),
    }
    keep("results.json", f"phi_c at zero kick, by sweeps, {name}", {**row, **facts, "phi_c": rows})
    assert abs(row["deviation"]) <= 2


def larger_kicks(name):
    """kick, phi_c and its error of the rows above, those of the search where there are."""
    if name in BY_SWEEPS:
        rows = kept("results.json", f"phi_c at zero kick, by sweeps, {name}")["phi_c"]
        points = [(one["kick"], *one["power_law"]) for one in rows if one["kick"] in KICKS]
    else:
        rows = kept("results.json", f"phi_c at zero kick, {name}")["phi_c"]
        points = [(one["kick"], one["phi_c"], one["stderr"]) for one in rows]
    return np.array(points).T


def test_what_a_search_in_five_dimensions_would_take():
    """No phi_c: the speed of its first round at kick 0.2, and what four kicks would take at that speed."""
    size = Sweep(dim=5, particles=8192, phi=(0.25,), kick=(0.2,), steps=40, replicas=1, seed=SEED)
    for steps in (40, 80, 280):  # the first two compile
        began = time.process_time()
        data = swept("speed-5d-bro", replace(size, steps=steps))
        seconds = time.process_time() - began
    speed = 200 * 8192 / seconds
    # three sizes of a search, of 16 replicas each, half of which are active to the end
    whole = sum(8 * n * (200 / kick) * (n / 8192) ** 0.5 for kick in KICKS for n in (8192, 16384, 32768))
    keep(
        "results.json",
        "phi_c at zero kick, 5D BRO pair",
        {
            "reference": LIMITS[5].quantity,
            "value": None,
            "met": None,
            "note": (
                f"not run: 8192 spheres at phi = 0.25 make {speed / 1e6:.2f} million particle-steps per second of CPU "
                f"in 5D, and searches at kicks 0.02 to 0.2, 8192 to 32768 spheres, take {whole:.2g}: "
                f"{whole / speed / 3600:.0f} hours of a core"
            ),
            "particles": 8192,
            "replicas": 1,
            "steps": 200,
            "seed": SEED,
            **spent([data]),
        },
    )
    assert whole / speed > 24 * 3600, "a day of a core carries it: run it"


@pytest.mark.parametrize("name", [name for name, what in SEARCHES.items() if name.startswith("3D")])
def test_phi_c_at_0_01(name):
    """Target: for SGD what is published at learning rate 0.01; for others the parabola through larger kicks there."""
    what = SEARCHES[name]
    found, seconds = searched(f"search {name}, 0.01".replace(" ", "-"), 0.003, kick=0.01, **what)
    if what.get("rule") == "sgd":
        row = judged(found.value, found.stderr, SGD_AT_0_01)
        note = "the published value is read off the authors' scan ranges; " + _LOW + "see the row by a sweep"
    else:
        limit = zero_kick_limit(*larger_kicks(name))
        at = float(limit.form.at(np.array([0.01]))[0])
        parabola = "the parabola through phi_c at kicks 0.02 to 0.2 of this table"
        expected = Published("phi_c at kick 0.01", round(at, 4), round(limit.stderr, 4), "consistency", parabola)
        row = judged(found.value, found.stderr, expected)
        note = None
    facts = {
        "particles": [one.particles for one in found.rounds],
        "steps": [one.steps for one in found.rounds],
        "seed": SEED,
        "seconds": seconds,
        "particle_steps": found.particle_steps,
        "note": note,
    }
    keep("results.json", f"phi_c at kick 0.01, {name}", {**row, **facts})
    assert abs(row["deviation"]) <= 2


def test_phi_c_at_0_01_by_a_sweep():
    """The same target for SGD at b_f = 0.6, by the power law of larger and longer runs."""
    name = "3D SGD pair, b_f = 0.6"
    case = Case("sgd-pair-0.6", Sweep(rule="sgd", batch_fraction=(0.6,)), (0.01,), (0.6, 0.67))
    centre = kept("results.json", f"phi_c at kick 0.01, {name}")["value"]
    one, data = fine(case, 0.01, round(centre, 3))
    law = one.power_law
    assert law is not None, one.refusals
    row = judged(law.value, law.stderr, SGD_AT_0_01)
    facts = {
        **told(one, round(case.time / 0.01), round(centre, 3)),
        "chi2": [law.chi2, law.dof],
        "particles": case.particles,
        "replicas": 4,
        "seed": SEED,
        "crystalline": crystalline(data),
        **spent([data]),
    }
    half = one.half_absorbed
    facts["note"] = (
        f"crystalline at phi = {float(data.phi[-1]):g}: {100 * facts['crystalline']:.1f} % of the particles"
        + ("" if half is None else f"; half are absorbed at {half.value:.4f} +- {half.stderr:.4f} in the same runs")
    )
    keep("results.json", f"phi_c at kick 0.01, by a sweep, {name}", {**row, **facts})
    assert abs(row["deviation"]) <= 2


ORDERED = {  # a search, the kick of its longest runs, and phi there: the states that its phi_c stands on
    **dict.fromkeys(("3D BRO pair", "3D SGD pair, b_f = 0.2", "3D Langevin pair"), 0.01),
    "2D 1:1.4 BRO pair": 0.02,
}


@pytest.mark.parametrize("name", ORDERED)
def test_no_crystals_at_phi_c(name):
    """Target: less than 2 % of the particles in crystals where phi_c of small kicks is measured; in 2D |psi6| < 0.2.

    In 3D a particle counts with 7 or more solid-like bonds of degree 6. In 2D psi6 is averaged over the packing: 1 in
    a triangular lattice, of the order of N^(-1/2) for bonds at random angles; many small crystals would show in the
    mean modulus of each particle's psi6, which must stay below the 0.65 that equal discs have as they order.
    """
    kick, what = ORDERED[name], SEARCHES[name]
    if kick == 0.01:
        found = kept("results.json", f"phi_c at kick 0.01, {name}")
        phi = found["value"]
    else:
        rows = kept("results.json", f"phi_c at zero kick, {name}")["phi_c"]
        found = next(one for one in rows if one["kick"] == kick)
        phi = found["phi_c"]
    steps, replicas = found["steps"][found["particles"].index(1024)], 8  # of the search's largest systems
    options = {key: (value,) if key == "batch_fraction" else value for key, value in what.items()}
    spec = Sweep(
        particles=1024, phi=(round(phi, 4),), kick=(kick,), replicas=replicas, steps=steps, seed=SEED, **options
    )
    data = swept(f"crystals {name}".replace(" ", "-"), spec)
    if spec.dim == 3:
        value, bound, target, note = crystalline(data), 0.02, "< 0.02 of the particles in crystals", None
    else:
        x = data.positions.squeeze().transpose("replica", "particle", "axis").values
        psi = [hexatic_order(one, 1.0) for one in x]
        value, bound, target = float(np.mean([abs(one.mean()) for one in psi])), 0.2, "modulus of the mean psi6 < 0.2"
        local = float(np.mean([np.abs(one).mean() for one in psi]))
        note = f"the mean modulus of each particle's psi6 is {local:.2f}; of equal discs that order it is 0.65"
        assert local < 0.65
    keep(
        "results.json",
        f"crystallinity at phi_c, kick {kick:g}, {name}",
        {
            "target": target,
            "value": value,
            "met": value < bound,
            "note": note,
            "phi": round(phi, 4),
            "absorbed": int((data.absorbed_at >= 0).sum()),
            "particles": 1024,
            "replicas": replicas,
            "steps": steps,
            "seed": SEED,
            **spent([data]),
        },
    )
    assert value < bound
