"""Long physics checks, run by hand with ``pytest -m validation``; results go to tests/validation/results.json."""

import time

import numpy as np
import pytest
import xarray as xr
from results import keep

from packing_jax.sweep import Sweep, run_sweep

pytestmark = pytest.mark.validation


def test_bro_sgd_and_langevin_give_the_same_curves(tmp_path):
    """Target: activity and MSD of the three dynamics agree within two standard errors, kick 0.01, N = 4000.

    At each of 25 logarithmic times from 10 on, z is the difference of two dynamics' means over 6 replicas in units of
    its standard error, which follows Student's t with 10 degrees of freedom if the dynamics are equal and is strongly
    correlated in time. The root mean square of z over everything must be below 2, and that of each of the 12 curves
    below 3 (a single t exceeds 3 once in 75 draws): a false alarm in about one run of ten.
    """
    clock = time.time()
    kick, phis, replicas, steps = 0.01, (0.63, 0.65), 6, 3000
    rules = {"bro": kick, "sgd": 4 * kick / 3, "langevin": kick}
    data = {}
    for rule, size in rules.items():
        spec = Sweep(rule=rule, particles=4000, phi=phis, kick=(size,), replicas=replicas, steps=steps, seed=2)
        run_sweep(spec, tmp_path / rule)
        data[rule] = xr.open_zarr(tmp_path / rule / "results.zarr", chunks=None).squeeze().load()
    wanted = np.unique(np.rint(np.geomspace(10, steps, 25)))
    rows, worst = [], 0.0
    for name in ("activity", "msd"):
        for phi in phis:
            for a, b in (("bro", "sgd"), ("bro", "langevin"), ("sgd", "langevin")):
                one, two = (data[r][name].sel(phi=phi).interp(time=wanted).values for r in (a, b))
                error = np.sqrt((one.var(axis=0, ddof=1) + two.var(axis=0, ddof=1)) / replicas)
                z = (one.mean(axis=0) - two.mean(axis=0)) / error
                last = [float(one[:, -1].mean()), float(two[:, -1].mean()), float(error[-1])]
                rms = float(np.sqrt(np.mean(z**2)))
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
            "particles": 4000,
            "replicas": replicas,
            "steps": steps,
            "seed": 2,
            "seconds": round(time.time() - clock),
            "rows": rows,
        },
    )
    assert pooled < 2.0
    assert worst < 3.0
