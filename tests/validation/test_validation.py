"""Long physics checks, run by hand with ``pytest -m validation``; results go to tests/validation/results.json."""

import numpy as np
import pytest
from results import judged, keep
from validation_runs import spent, swept

from packing_jax.criticality import estimate_phi_c, zero_kick_limit
from packing_jax.figures import bro_is_sgd
from packing_jax.figures.published import published
from packing_jax.sweeps.spheres import Sweep

TARGET = published("phi_c at zero kick, 3D")

pytestmark = pytest.mark.validation


# phi from where every replica is absorbed within 400/eps steps to well above the transition, 0.005 apart
WINDOWS = {0.05: (0.585, 0.615, 7), 0.1: (0.540, 0.575, 8), 0.2: (0.475, 0.510, 8), 0.02: (0.610, 0.640, 7)}


def test_zero_kick_limit_of_3d_bro():
    """Target: the published limit, from kicks 0.02, 0.05, 0.1, 0.2 at N = 4000; the test fails beyond 0.01."""
    estimates, kept = [], []
    for kick, window in WINDOWS.items():
        spec = Sweep(
            particles=4000,
            phi=tuple(np.round(np.linspace(*window), 6)),
            kick=(kick,),
            replicas=2,
            steps=round(400 / kick),
            seed=1,
        )
        results = swept(f"limit-3d-bro-{kick:g}", spec)
        kept.append(results)
        estimates.append((kick, int(results.time[-1]), estimate_phi_c(results)[0]))
    power = [(kick, one.power_law) for kick, _, one in estimates if one.power_law is not None]
    limit = zero_kick_limit(
        np.array([kick for kick, _ in power]),
        np.array([p.value for _, p in power]),
        np.array([p.stderr for _, p in power]),
    )
    keep(
        "results.json",
        "phi_c at zero kick, by sweeps, 3D BRO pair",
        {
            **judged(limit.value, limit.stderr, TARGET),
            "steps": [steps for _, steps, _ in estimates],
            "particles": 4000,
            "replicas": 2,
            "seed": 1,
            **spent(kept),
            "forms": {form.name: [form.value, form.stderr, form.weight] for form in limit.forms},
            "phi_c": [
                {
                    "kick": kick,
                    "steps": steps,
                    "power_law": one.power_law and [one.power_law.value, one.power_law.stderr],
                    "threshold": one.threshold and [one.threshold.value, one.threshold.stderr],
                }
                for kick, steps, one in estimates
            ],
        },
    )
    assert len(power) >= 3
    assert abs(limit.value - TARGET.value) < 0.01


def test_bro_sgd_and_langevin_give_the_same_curves():
    """Target: activity and MSD of the three dynamics agree within two standard errors, kick 0.01, N = 4000.

    At each of 25 logarithmic times from 10 on, z is the difference of two dynamics' means over 6 replicas in units of
    its standard error, which follows Student's t with 10 degrees of freedom if the dynamics are equal and is strongly
    correlated in time. The root mean square of z over everything must be below 2, and that of each of the 12 curves
    below 3 (a single t exceeds 3 once in 75 draws): a false alarm in about one run of ten. BRO and Langevin start alike
    here, of one seed and kick, and so are closer than that; the figure gives them seeds of their own.
    """
    kick, replicas, steps = 0.01, 6, 3000
    phis = bro_is_sgd.CASES[kick][0]
    data = {
        rule: swept(f"curves-3d-{rule}", bro_is_sgd.spec(rule, kick, phis, 4000, replicas, steps, 2))
        for rule in bro_is_sgd.RULES
    }
    results = list(data.values())
    rows, worst = [], 0.0
    for name in ("activity", "msd"):
        for phi in phis:
            for a, b in (("bro", "sgd"), ("bro", "langevin"), ("sgd", "langevin")):
                one, two = (bro_is_sgd.curves_of(data[rule], name, phi).values for rule in (a, b))
                z = bro_is_sgd.differences(one, two)
                last = [float(one[:, -1].mean()), float(two[:, -1].mean())]
                rms = bro_is_sgd.rms(z)
                worst = max(worst, rms)
                rows.append({"observable": name, "phi": phi, "pair": [a, b], "rms_z": rms, "last": last})
    pooled = float(np.sqrt(np.mean([row["rms_z"] ** 2 for row in rows])))
    keep(
        "results.json",
        "BRO = SGD(4 eps/3, 3/4) = Langevin, 3D, kick 0.01",
        {
            "target": "rms z < 2 over all curves, < 3 for each pair, observable and phi",
            "value": pooled,
            "worst": worst,
            "met": pooled < 2.0 and worst < 3.0,
            "particles": 4000,
            "replicas": replicas,
            "steps": steps,
            "seed": 2,
            **spent(results),
            "rows": rows,
        },
    )
    assert pooled < 2.0
    assert worst < 3.0
