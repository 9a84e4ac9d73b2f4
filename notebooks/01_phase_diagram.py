# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # When do kicked spheres come to rest?
#
# Spheres that overlap kick each other apart by random lengths up to $\epsilon$ (biased random organization, BRO). Do
# they find a configuration without an overlap, where nothing moves any more, or do they kick for ever? The answer
# depends on the packing fraction $\phi$ and the kick, with a sharp line $\phi_c(\epsilon)$ between:
# the phase diagram of an absorbing transition. Three dimensions, equal spheres, pairwise kicks, lengths in sphere
# diameters $\sigma$.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from packing_jax import System
from packing_jax.commands import phi_c_plots, plots
from packing_jax.criticality import ACTIVITY_CUT, estimate_phi_c, open_results
from packing_jax.criticality.stationarity import final_activity
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"
PARTICLES = 60 if SMOKE else 200
REPLICAS = 2 if SMOKE else 3
STEPS = 300 if SMOKE else 1000
KICKS = (0.1, 0.2, 0.3)
PHI = np.round(np.arange(0.38, 0.66, 0.06 if SMOKE else 0.025), 3).tolist()

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 100, "font.size": 9, "legend.frameon": False})

# %% [markdown]
# ## The sweep
#
# One call runs the whole grid of packing fractions, kicks and replicas, each from independent uniform positions; a
# replica that is absorbed stops and costs nothing more.

# %%
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder, "sweep")
    run_sweep(Sweep(kick=KICKS, phi=tuple(PHI), particles=PARTICLES, steps=STEPS, replicas=REPLICAS), place)
    results = open_results(place).load()
estimates = estimate_phi_c(results)

absorbed = (results["absorbed_at"] >= 0).values
final = final_activity(results["time"].values, results["activity"].values, absorbed)[:, :, 0].mean(axis=2)
print(f"{absorbed.size} runs of {PARTICLES} spheres and {STEPS} steps, {absorbed.sum()} absorbed")

# %%
figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
rows = np.arange(len(KICKS))
half = (PHI[1] - PHI[0]) / 2
picture = axis.pcolormesh(
    np.append(np.array(PHI) - half, PHI[-1] + half),
    np.append(rows - 0.5, rows[-1] + 0.5),
    final.T,
    cmap="viridis",
    vmin=0,
    vmax=1,
    edgecolors="white",
    lw=0.3,
)
figure.colorbar(picture, label="final activity $f_a$", pad=0.02)
crossings = [(row, one.threshold) for row, one in zip(rows, estimates, strict=True) if one.threshold]
axis.errorbar(
    [np.mean(one.bracket) for _, one in crossings],
    [row for row, _ in crossings],
    xerr=[np.ptp(one.bracket) / 2 for _, one in crossings],
    color="white",
    mec="black",
    ecolor="white",
    marker="o",
    ls="-",
    lw=1,
    capsize=3,
    label=f"$f_a$ crosses {ACTIVITY_CUT:g} in this bracket",
)
axis.set(yticks=rows, yticklabels=[f"{one:g}" for one in KICKS])
axis.set(xlabel="packing fraction $\\phi$", ylabel="kick $\\epsilon / \\sigma$")
axis.text(0.03, 0.95, "absorbing", transform=axis.transAxes, color="white", va="top")
axis.text(0.97, 0.95, "active", transform=axis.transAxes, color="black", va="top", ha="right")
_ = axis.legend(loc="lower left", labelcolor="white", fontsize=8)

# %% [markdown]
# **What it means.** Dark cells came to rest, bright ones did not. Larger kicks keep sparser packings active. The white
# points are where the final activity, averaged over replicas, passes 0.1 (the criterion of arXiv:2411.11834), as wide
# as the spacing of the grid.
#
# ## Is the line sharp?

# %%
figure = phi_c_plots.activity_vs_phi(results, estimates)
figure.set_dpi(100)
figure

# %%
print(f"{'kick':>6} {'threshold':>18} {'power law':>18}  beta")
for one in estimates:
    cells = [
        f"{e.value:.4f} +- {e.stderr:.4f}" if (e := getattr(one, how)) else "-" for how in ("threshold", "power_law")
    ]
    beta = f"{one.power_law.beta:.2f} +- {one.power_law.beta_stderr:.2f}" if one.power_law else ""
    print(f"{one.kick:6g} {cells[0]:>18} {cells[1]:>18}  {beta}")
for one in estimates:
    for method, why in one.refusals:
        if method in ("threshold", "power_law"):
            print(f"kick {one.kick:g}, {method} refused: {why}")

# %% [markdown]
# The activity rises steeply from zero, and this grid cannot tell whether it jumps. It is too coarse for a power law:
# the fits start at activities of 1/2 (kick 0.3) to 4/5 (kick 0.1), their $\phi_c$ can lie above packing fractions that
# were still active, and their $\beta$, far below that of any universality class, is an effective exponent of a
# saturating curve. Trust the brackets, not these fits; a scan ten times finer, as in `03_universality`, is made for
# them. Where the estimators find the data too thin or not stationary, they refuse and say why, and then the line above
# has no point.
#
# ## The approach to it

# %%
figure = plots.activity_vs_time(results, kick=KICKS[1])
figure.set_dpi(100)
figure

# %% [markdown]
# One kick, all packing fractions. Near $\phi_c$ both coming to rest and becoming stationary take long: the time
# diverges there, so that any phase diagram of finite time has an uncertain strip. A dashed curve ends where its last
# replica came to rest.
#
# ## What a packing at rest looks like

# %%
near = estimates[1].threshold
index = PHI.index(near.value) if near else 1
below = results.isel(phi=index, kick=1, batch_fraction=0, replica=0)
side = System.create(float(below["phi"]), PARTICLES).unit
diameter = np.full(PARTICLES, float(side))
figure = plots.packing(below["positions"].values, diameter, f"$\\phi = {PHI[index]:g}$, kick {KICKS[1]:g}")
figure.set_dpi(100)
figure

# %%
above = results.isel(phi=-1, kick=1, batch_fraction=0, replica=0)
diameter = np.full(PARTICLES, float(System.create(PHI[-1], PARTICLES).unit))
figure = plots.packing(above["positions"].values, diameter, f"$\\phi = {PHI[-1]:g}$, kick {KICKS[1]:g}")
figure.set_dpi(100)
figure

# %% [markdown]
# Slices of two boxes at the end of the run: grey spheres touch nothing, coloured ones overlap. Below the line the
# packing is at rest (or nearly, at the last packing fraction before it); above, most of the spheres are being kicked.
#
# **What it does not mean.** The line is that of this size, number of steps and start. A finite system near $\phi_c$ is
# absorbed by chance sooner or later, a short run looks active below $\phi_c$, and both blur the line by about
# one cell. Replicas are few: the bands of the curves are standard errors of so few runs. And
# $\epsilon \to 0$ is not on this picture: `02_bro_is_sgd` extrapolates to it, where the line approaches random close
# packing.
