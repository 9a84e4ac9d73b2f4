"""Made-up sweeps whose phi_c is known: what the analysis is tested on."""

import numpy as np
import xarray as xr

from packing_jax.sweeps.cells import Finished
from packing_jax.sweeps.schema import MARKS, Cells, Layout, Table, Variable
from packing_jax.sweeps.store import Store
from packing_jax.versions import provenance

AMPLITUDE, BETA = 4.0, 0.84


def true_phi_c(kick):
    return 0.64 - 0.8 * kick


def final_activities(rng, phi, replicas, phi_c, beta=BETA, noise=0.008):
    """Final activity (phi, replica) of replicas that follow the law, and are absorbed near phi_c."""
    law = AMPLITUDE * np.maximum(phi - phi_c, 0.0) ** beta
    values = np.clip(law[:, None] + noise * rng.standard_normal((len(phi), replicas)), 0.002, 1.0)
    absorbed = rng.random(values.shape) < np.exp(-law / 0.01)[:, None]
    return np.where(absorbed, 0.0, values)


def sweep(kicks=(0.05,), fractions=(1.0,), replicas=6, particles=60, dim=2, rule="bro", seed=0, phi=None):
    """Results as a finished sweep stores them, with f_a(t) decaying from 1 on a logarithmic record."""
    rng = np.random.default_rng(seed)
    phi = np.linspace(0.585, 0.645, 13) if phi is None else np.asarray(phi, float)
    time = np.unique(np.r_[0, np.round(np.geomspace(1, 20000, 50))]).astype(int)
    shape = (len(phi), len(kicks), len(fractions), replicas)
    activity = np.zeros((*shape, len(time)), np.float32)
    for k, kick in enumerate(kicks):
        for b in range(len(fractions)):
            final = final_activities(rng, phi, replicas, true_phi_c(kick))
            decay = np.exp(-time / (30 + 3000 * final[..., None]))
            end = np.where(final > 0, 2**31, np.exp(rng.normal(6.5, 0.4, final.shape)))
            f_a = np.clip(final[..., None] + (1 - final[..., None]) * decay, 0, 1)
            activity[:, k, b] = np.where((time < end[..., None]) & (f_a > 0.001), f_a, 0.0)
    gone = activity[..., -1] == 0
    first = np.where(gone, np.argmax(activity == 0, axis=-1), 0)
    dims = ("phi", "kick", "batch_fraction", "replica")
    volume = {1: 1.0, 2: np.pi / 4, 3: np.pi / 6, 4: np.pi**2 / 32}[dim]
    diameters = (phi / particles / volume)[:, None] ** (1 / dim) * np.ones((1, particles))
    return xr.Dataset(
        {
            "activity": ((*dims, "time"), activity),
            "absorbed_at": (dims, np.where(gone, time[first], -1).astype(np.int32)),
            "steps_done": (dims, np.full(shape, time[-1], np.int32)),
            "positions": ((*dims, "particle", "axis"), rng.random((*shape, particles, dim), np.float32)),
            "diameters": (("phi", "particle"), diameters.astype(np.float32)),
        },
        {
            "phi": phi,
            "kick": np.array(kicks, float),
            "batch_fraction": np.array(fractions, float),
            "replica": np.arange(replicas),
            "time": time,
        },
        {"rule": rule, "dim": dim, "particles": particles, "steps": int(time[-1])},
    )


def without(results, phi=slice(None), replica=slice(None)):
    """The same sweep as a store holds it before those runs are done."""
    results = results.copy(deep=True)
    where = {"phi": phi, "replica": replica}
    results["steps_done"][where] = 0
    results["absorbed_at"][where] = -1
    results["activity"][where] = np.nan
    results["positions"][where] = np.nan
    return results


def mean_field(rng, phi, replicas, phi_c, particles=4096, steps=20_000, noise=0.01):
    """Records of df_a/dt = d f_a - f_a^2, d = 5 (phi - phi_c), absorbed below 1/N: beta = nu_par = alpha = 1."""
    time = np.unique(np.r_[0, np.round(np.geomspace(1, steps, 120))])
    d = 5.0 * (np.asarray(phi) - phi_c)[:, None, None]
    f_a = 0.9 * d / (0.9 + (d - 0.9) * np.exp(np.clip(-d * time, -700, 700)))
    f_a = np.clip(f_a * np.exp(noise * rng.standard_normal((len(phi), replicas, 1))), 0, 1)
    dead = f_a < 1 / particles
    first = np.where(dead.any(axis=-1), dead.argmax(axis=-1), len(time))
    f_a = np.where(np.arange(len(time)) < first[..., None], f_a, 0.0)
    return time, f_a, np.where(first < len(time), time[np.minimum(first, len(time) - 1)], -1).astype(int)


def decays(rng, phi, replicas, phi_c, steps=10_000, alpha=0.7, nu_par=1.1, noise=0.03):
    """Records (time, f_a (phi, replica, time)) of f_a = 0.5 t^-alpha exp(60 (phi - phi_c) (t/steps)^(1/nu_par)).

    ln f_a is curved in ln t except at phi_c. Each replica carries noise that is correlated over a decade.
    """
    time = np.unique(np.r_[0, np.round(np.geomspace(1, steps, 60))]).astype(int)
    log_t = np.log(np.maximum(time, 1))
    bend = 60 * (np.asarray(phi) - phi_c)[:, None, None] * (time / steps) ** (1 / nu_par)
    walk = np.cumsum(rng.standard_normal((len(phi), replicas, len(time))) * np.sqrt(np.gradient(log_t)), axis=2)
    tilt = rng.standard_normal((len(phi), replicas, 1))
    f_a = 0.5 * np.exp(-alpha * log_t + bend + noise * (walk + tilt))
    return time, np.minimum(f_a, 1.0)


def relaxations(rng, phi, replicas, phi_c, nu_par=1.1, noise=0.15):
    """Records (time, f_a, absorbed_at) whose relaxation times are |phi - phi_c|^-nu_par with log-normal scatter."""
    phi = np.asarray(phi, float)
    amplitude = np.where(phi < phi_c, 2.0, 0.8)
    tau = amplitude[:, None] * np.abs(phi - phi_c)[:, None] ** -nu_par
    tau = tau * np.exp(noise * rng.standard_normal((len(phi), replicas)))
    time = np.unique(np.r_[0, np.round(np.geomspace(1, 20_000, 400))]).astype(int)
    below = (phi < phi_c)[:, None] & (tau < time[-1])
    level = 0.05 + 3 * np.maximum(phi - phi_c, 0)[:, None, None]
    # |f_a/f_inf - 1| = e^(-t/theta), which is 0.1 at t = tau for theta = tau/ln 10
    f_a = level * (1 + np.exp(-time * np.log(10) / tau[..., None]))
    f_a = np.where(below[..., None] & (time >= tau[..., None]), 0.0, f_a)
    return time, f_a, np.where(below, np.round(tau), -1).astype(int)


def scaled_activities(rng, phi, sizes, replicas, phi_c, nu=0.8, prefactor=0.8, noise=0.04):
    """Steady activities (phi, replica) of each size on one master curve, L^-k F(Delta L^(1/nu)), F = ln(1 + e^x)."""
    out = []
    for size in sizes:
        x = (phi - phi_c) / phi_c * size ** (1 / nu)
        law = size**-prefactor * np.log1p(np.exp(0.8 * x))
        out.append(law[:, None] * np.exp(noise * rng.standard_normal((len(phi), replicas))))
    return out


def store(directory, results):
    """Write results as a sweep does, those of replicas that were run; returns the directory."""
    axes = results.attrs.get("axes", ["phi", "kick", "batch_fraction"])
    cells = Cells({name: results[name].values.tolist() for name in axes}, results.sizes["replica"])
    records, finals, tables = {}, {}, {}
    for name, one in results.data_vars.items():
        if set(one.dims) >= {*cells.dims} and name not in MARKS:
            own = one.transpose(*cells.dims, ...).isel(dict.fromkeys(cells.dims, 0))
            held = records if "time" in own.dims else finals
            dims = tuple(dim for dim in own.dims if dim != "time")
            held[name] = Variable(dims, tuple(own.sizes[dim] for dim in dims), str(one.dtype))
        elif name not in MARKS:
            tables[name] = Table(one.dims, one.values)
    attributes = {
        **results.attrs, **cells.axes, "axes": axes, "replicas": len(results["replica"]), "configuration": "made up",
        "steps": int(results["time"][-1]), "versions": provenance(),
    }  # fmt: skip
    layout = Layout(cells, results["time"].values.astype(np.int32), records, finals, tables, {}, attributes)
    made = Store.create(directory, layout)
    numbers = {name: one.transpose(*cells.dims, ...).values for name, one in results.items() if name not in tables}
    finished = []
    for place in np.ndindex(*cells.shape):
        here = {name: values[place] for name, values in numbers.items()}
        steps, gone = int(here["steps_done"]), int(here["absorbed_at"])
        state = "diverged" if here.get("failed", 0) else "absorbed" if gone >= 0 else "active"
        arrays = [{name: here[name] for name in held} for held in (records, finals)]
        finished += [Finished(place, *arrays, state, steps, gone)] if steps else []
    made.write(finished)
    made.close()
    return directory
