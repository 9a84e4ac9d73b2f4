"""phi_c of every rule against published values: `pytest -m validation -k phi_c`; rows go to results.json."""

from typing import Any

import numpy as np
import pytest
from results import keep
from validation_runs import SEED, TIME, Case, coarse, fine, spent

from packing_jax.criticality import KickEstimate, ZeroKickLimit, zero_kick_limit
from packing_jax.grid import Sweep
from packing_jax.observables import hexatic_order, steinhardt_order

pytestmark = pytest.mark.validation

KICKS_3D = (0.01, 0.02, 0.05, 0.1, 0.2)
IN_3D = (0.40, 0.67)
CASES = {
    "3D BRO pair": Case("bro", Sweep(rule="bro"), KICKS_3D, IN_3D),
    "3D Langevin pair": Case("langevin", Sweep(rule="langevin"), KICKS_3D, IN_3D),
    **{
        f"3D SGD {coupling}, b_f = {b:g}": Case(
            f"sgd-{coupling}-{b:g}",
            Sweep(rule="sgd", coupling=coupling, batch_fraction=(b,)),
            KICKS_3D,
            IN_3D,
        )
        for coupling in ("pair", "particle")
        for b in (0.2, 0.6, 1.0)
        if (coupling, b) != ("particle", 1.0)  # the same moves as (pair, 1)
    },
    "4D BRO pair": Case("bro-4d", Sweep(rule="bro", dim=4), (0.02, 0.05, 0.1, 0.2), (0.25, 0.50)),
    "5D BRO pair": Case(
        "bro-5d",
        Sweep(rule="bro", dim=5),
        (0.02, 0.05, 0.1, 0.2),
        (0.12, 0.34),
        spacing=0.003,
        coarse_particles=8192,
        particles=8192,
    ),
    "2D 1:1.4 BRO pair": Case(
        "bro-2d-mixture", Sweep(rule="bro", dim=2, mixture="1:1.4"), (0.01, 0.02, 0.05, 0.1), (0.68, 0.88)
    ),
}
#: Reported by arXiv:2411.11834 and Wilken et al. (2021, 2023); the 2D mixture's is phi_J of energy minimisation.
LIMITS = {3: (0.640, 0.005), 4: (0.455, 0.01), 5: (0.30, 0.01), 2: (0.842, 0.003)}


def best(one: KickEstimate) -> tuple[float, float] | None:
    """phi_c by the power law, or by half absorbed where that is refused."""
    found = one.power_law or one.half_absorbed
    return None if found is None else (found.value, found.stderr)


def told(one: KickEstimate, steps: int, centre: float) -> dict[str, Any]:
    """What is kept of one kick."""
    methods = {
        name: None if found is None else [found.value, found.stderr]
        for name in ("power_law", "half_absorbed", "threshold", "decay")
        for found in (getattr(one, name),)
    }
    refusals = {name: why for name, why in one.refusals if methods.get(name, 0) is None}
    return {"kick": one.kick, "steps": steps, "coarse": centre, **methods, "refusals": refusals}


def crystallinity(results: Any) -> dict[str, float]:
    """Of the densest replicas at the smallest kick: the share of particles in a crystal (3D), or mean |psi_6| (2D)."""
    end = results.isel(phi=-1, kick=0, batch_fraction=0).positions.transpose("replica", "particle", "axis").values
    if end.shape[-1] == 3:
        return {"crystalline": float(np.mean([np.mean(steinhardt_order(x, 1.0).connections >= 7) for x in end]))}
    if end.shape[-1] == 2:
        return {"psi6": float(np.mean([np.mean(np.abs(hexatic_order(x, 1.0))) for x in end]))}
    return {}


def limit_of(case: Case) -> tuple[ZeroKickLimit | None, list[dict[str, Any]], list[Any]]:
    """phi_c at zero kick, what it comes from, and the results."""
    centres, first = coarse(case)
    rows, results, points = [], [first], []
    for kick in case.kicks:
        one, data = fine(case, kick, centres[kick])
        results.append(data)
        rows.append(told(one, round(TIME / kick), centres[kick]))
        if best(one):
            points.append((kick, *best(one)))
    limit = zero_kick_limit(*np.array(points).T) if len(points) >= 3 else None
    return limit, rows, results


def judged(value: float, stderr: float, target: float, error: float) -> dict[str, Any]:
    """A value against a target's own range."""
    deviation = (value - target) / float(np.hypot(stderr, error))
    within = abs(value - target) <= error
    return {"target": f"{target} +- {error}", "value": value, "stderr": stderr, "deviation": deviation, "met": within}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in CASES])
def test_phi_c_at_zero_kick(name):
    """Target: the published limit within its own range, from a parabola through phi_c at four or five kicks."""
    case = CASES[name]
    limit, rows, results = limit_of(case)
    assert limit is not None, rows
    target, error = LIMITS[case.what.dim]
    facts = {
        "particles": case.particles,
        "replicas": 4,
        "seed": SEED,
        "steps": [row["steps"] for row in rows],
        **crystallinity(results[1]),
        **spent(results),
    }
    forms = {form.name: [form.value, form.stderr, form.weight] for form in limit.forms}
    row = judged(limit.value, limit.stderr, target, error)
    keep("results.json", f"phi_c at zero kick, {name}", {**row, **facts, "forms": forms, "phi_c": rows})
    if case.what.dim == 3:
        first = next((one for one in rows if one["kick"] == 0.01), None)
        found = first and (first["power_law"] or first["half_absorbed"])
        if found:
            row = judged(*found, 0.635, 0.003)
            keep("results.json", f"phi_c at 0.01, {name}", {**row, **facts, "steps": first["steps"]})
    assert row is not None
    assert abs(limit.value - target) <= error


def test_phi_c_of_2d_random_organization_at_kick_1():
    """Target: 0.3375 +- 0.005."""
    case = Case("ro-2d", Sweep(rule="ro", dim=2), (1.0,), (0.25, 0.45), spacing=0.002, particles=16384)
    centres, first = coarse(case)
    one, data = fine(case, 1.0, centres[1.0])
    found = best(one)
    assert found is not None, one.refusals
    row = judged(*found, 0.3375, 0.005)
    facts = {"particles": 16384, "replicas": 4, "seed": SEED, "steps": round(TIME), **spent([first, data])}
    keep("results.json", "phi_c of 2D RO, kick 1", {**row, **facts, "phi_c": [told(one, round(TIME), centres[1.0])]})
    assert row["met"]
