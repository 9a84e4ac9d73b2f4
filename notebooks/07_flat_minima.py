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
# # Does noisier gradient descent end in flatter minima?
#
# Above the critical packing fraction spheres cannot get out of each other's way, and stochastic gradient descent (SGD)
# on their overlap energy goes on for ever. [Zhang and Martiniani, arXiv:2411.11834](https://arxiv.org/abs/2411.11834)
# report that it ends in flatter places if the batch fraction $b_f$ is smaller, as is said of neural networks. How flat
# a place is, is measured by the mean rise of the energy per sphere when every coordinate is moved by a Gaussian number
# $\delta$ of standard deviation $s$, 0.03 of the radius $R$:
#
# $$\Delta V = \frac{\langle V(x + \delta) - V(x)\rangle}{N s^2}, \qquad s = 0.03\,R.$$
#
# Flat is small. For a smooth energy this is $\mathrm{Tr}\,H/2N$, with the Hessian $H$. A step has the mean
# $\alpha b_f \nabla V$ and a variance proportional to $\alpha^2 b_f (1 - b_f)$, so *noisier* can mean two things: a
# smaller $b_f$ at the same learning rate $\alpha$, which makes it slower too, or a smaller $b_f$ at the same mean step
# $\alpha b_f$. Both are tried. And as a place might be flat only because it is low, or high, the energy is always shown
# beside $\Delta V$.
#
# The spheres are three-dimensional, batches are of overlapping pairs, and lengths and energies are in sphere diameters.
# This takes some minutes.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.tree_util import Partial

from packing_jax import HARMONIC, LINEAR, System, sgd, simulate, stack
from packing_jax.drive.schedule import linear_times
from packing_jax.landscape.flatness import packing_curvature, packing_flatness
from packing_jax.landscape.minima import minimise

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"
PARTICLES = 100 if SMOKE else 500
REPLICAS = 2 if SMOKE else 4
PERTURBATIONS = 100 if SMOKE else 1000
SHORTER = 40 if SMOKE else 1
SKIN = 0.6 if SMOKE else None  # of the neighbour rows; a fixed one is compiled once, the chosen one runs faster
PHI = (0.66, 0.70)
BATCH = (0.2, 0.6, 1.0)
ENERGIES = {"harmonic": HARMONIC, "linear": LINEAR}
# of each three rates, one mean step is reached with every batch fraction: 0.3 and 0.06
RATES = {"harmonic": (0.3, 0.5, 1.5), "linear": (0.06, 0.1, 0.3)}
STEPS = {"harmonic": (2000, 2000, 2000), "linear": (3400, 2000, 700)}

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 80, "savefig.dpi": 80, "font.size": 9, "legend.frameon": False})
COLOURS = ("#30123b", "#1a9988", "#e06010")  # of the learning rates, from low to high
MARKERS = ("o", "s", "^")  # of the batch fractions
SCALES = {"harmonic": "log", "linear": "linear"}  # of the energy axis

# %% [markdown]
# ## One run for each learning rate
#
# All packing fractions, batch fractions and replicas of a learning rate run together, from random places.

# %%
cells = [(phi, fraction) for phi in PHI for fraction in BATCH for _ in range(REPLICAS)]
fractions = np.array([fraction for _, fraction in cells])
shape = len(PHI), len(BATCH), REPLICAS


def run(energy, rate, steps, seed):
    """Energies in time, and the flatness and positions at the end, by (phi, batch fraction, replica)."""
    systems = stack([System.create(phi, PARTICLES, energy=ENERGIES[energy]) for phi, _ in cells])
    rule = sgd(Partial(optax.sgd, learning_rate=np.full(len(cells), rate, np.float32)), fractions)
    key = jax.random.key(seed)
    found = simulate(systems, rule, steps, key, times=linear_times(steps, max(1, steps // 100)), skin=SKIN)
    flat = packing_flatness(systems, found.positions, jax.random.fold_in(key, 1), samples=PERTURBATIONS)
    return {
        "times": found.times,
        "curve": found["energy"].reshape(*shape, -1),
        "energy": found["energy"][:, -1].reshape(shape),
        "flatness": np.asarray(flat.value).reshape(shape),
        "positions": found.positions.reshape(*shape, PARTICLES, 3),
    }


runs = {
    name: [
        run(name, rate, steps // SHORTER, seed)
        for seed, (rate, steps) in enumerate(zip(RATES[name], STEPS[name], strict=True))
    ]
    for name in ENERGIES
}


def mean(name, what):
    """Mean over replicas and its standard error, by (learning rate, phi, batch fraction)."""
    values = np.stack([one[what] for one in runs[name]])
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) / REPLICAS**0.5


# %% [markdown]
# ## Is it stationary?

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
for axis, name in zip(axes, ENERGIES, strict=True):
    for rate, colour, one in zip(RATES[name], COLOURS, runs[name], strict=True):
        for b, style in zip((0, 2), ("--", "-"), strict=True):
            label = rf"$\alpha = {rate}$, $b_f = {BATCH[b]}$"
            axis.plot(one["times"][1:], one["curve"][-1, b].mean(axis=0)[1:], style, color=colour, lw=1.2, label=label)
    axis.set(xscale="log", yscale=SCALES[name], xlabel="steps", ylabel="energy per particle $E/N$")
    axis.set_title(name, fontsize=9)
    axis.legend(fontsize=7, loc="lower left" if name == "harmonic" else "upper right", ncols=1 + (name == "linear"))
axes[0].set_ylim(bottom=6e-5)
axes[1].set_ylim(0, 0.27)
_ = figure.suptitle(rf"$\phi = {PHI[-1]}$, N = {PARTICLES}, means of {REPLICAS} replicas", fontsize=9)

# %% [markdown]
# Right: with the linear energy the runs have become stationary, or nearly so for the smallest step. Even gradient
# descent ($b_f = 1$, no noise at all) never comes to rest, because the force does not vanish at contact: each sphere is
# thrown to and fro by about $\alpha/2$.
#
# Left: with the harmonic energy, gradient descent settles towards a minimum at $\alpha = 0.3$ and $0.5$. It does not at
# 1.5, which is too large to be stable: the limit is two over the largest curvature. The runs at $b_f = 0.2$ are still
# falling. Their mean step is five times shorter, so that at equal $\alpha$ they are at an earlier stage of the same
# descent. The comparison at equal $\alpha b_f$ does not have this flaw.

# %% [markdown]
# ## Flatness and energy against the batch fraction

# %%
figure, axes = plt.subplots(2, 4, figsize=(10.4, 5.2), layout="constrained", sharex=True)
for column, (name, p) in enumerate((name, p) for name in ENERGIES for p in range(len(PHI))):
    for row, (what, label) in enumerate((("flatness", r"$\Delta V$ (flat is small)"), ("energy", "energy $E/N$"))):
        axis = axes[row, column]
        value, error = mean(name, what)
        for a, rate in enumerate(RATES[name]):
            axis.errorbar(
                BATCH,
                value[a, p],
                error[a, p],
                color=COLOURS[a],
                marker="o",
                ms=4,
                capsize=2,
                lw=1.2,
                label=rf"$\alpha = {rate}$",
            )
        step = max(RATES[name]) * min(BATCH)
        same = [RATES[name].index(round(step / fraction, 6)) for fraction in BATCH]
        axis.plot(
            BATCH,
            [value[a, p, b] for b, a in enumerate(same)],
            ":",
            color="0.3",
            lw=1.6,
            zorder=5,
            label=rf"same $\alpha b_f = {step:.2g}$",
        )
        axis.set(yscale=SCALES[name] if row else "linear", xticks=BATCH)
        if column % 2 == 0:
            axis.set_ylabel(label)
        if row == 0:
            axis.set_title(rf"{name}, $\phi = {PHI[p]}$", fontsize=9)
            if column % 2:
                axis.legend(fontsize=7, loc="center right", bbox_to_anchor=(1.0, 0.33 if column == 3 else 0.5))
        else:
            axis.set_xlabel("batch fraction $b_f$")

for name in ENERGIES:
    flat, flat_error = mean(name, "flatness")
    high, high_error = mean(name, "energy")
    print(f"{name:9} {'phi':>5} {'alpha':>6} {'b_f':>4} {'dV':>16} {'energy':>22}")
    for p, phi in enumerate(PHI):
        for a, rate in enumerate(RATES[name]):
            for b, fraction in enumerate(BATCH):
                print(
                    f"{'':9} {phi:5} {rate:6} {fraction:4} {flat[a, p, b]:8.3f} +- {flat_error[a, p, b]:5.3f}"
                    f" {high[a, p, b]:11.3e} +- {high_error[a, p, b]:.0e}"
                )

# %% [markdown]
# **What it means.** At $\phi = 0.70$ and equal $\alpha$ the claim holds for the linear energy at all three rates, and
# for the harmonic energy at the two rates at which gradient descent settles: $\Delta V$ is smaller at $b_f = 0.2$ than
# at 1, by 5 to 25 percent. At equal $\alpha b_f$ (dotted) the difference is much larger, because a smaller batch then
# comes with a larger $\alpha$, which matters most. In all these cases the flatter states have the *higher* energy. They
# are no lower minima: the noise holds the spheres above the minima, with fewer and deeper overlaps.
#
# **Where it does not hold.** At $\phi = 0.66$ and equal $\alpha$ a smaller batch gains little or nothing, except for
# the linear energy at the largest rate. With the harmonic energy at $\alpha = 1.5$ the order is reversed: gradient
# descent that is unstable shakes the spheres harder than any batch noise, and its states, the highest of all, are the
# flattest.
#
# **What it does not.** For the linear energy $\Delta V$ is not a curvature. Its Hessian is zero but for contacts that
# just touch, so that $\Delta V$ counts the contacts which a perturbation of size $s$ makes or breaks. Only ratios at
# the same $s$ mean something.

# %% [markdown]
# ## At equal energy
#
# The same numbers once more, flatness against energy: colours are learning rates, symbols and lines batch fractions.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
p = len(PHI) - 1
for axis, name in zip(axes, ENERGIES, strict=True):
    flat, flat_error = mean(name, "flatness")
    high, high_error = mean(name, "energy")
    for b, (fraction, grey) in enumerate(zip(BATCH, ("0.65", "0.45", "0.1"), strict=True)):
        label = f"$b_f = {fraction}$"
        axis.plot(high[:, p, b], flat[:, p, b], "-", color=grey, marker=MARKERS[b], ms=0, lw=1.2, label=label)
        for a in range(len(RATES[name])):
            axis.errorbar(
                high[a, p, b],
                flat[a, p, b],
                flat_error[a, p, b],
                high_error[a, p, b],
                color=COLOURS[a],
                marker=MARKERS[b],
                ms=6,
                capsize=2,
            )
    for a, rate in enumerate(RATES[name]):
        axis.plot([], [], "o", color=COLOURS[a], label=rf"$\alpha = {rate}$")
    axis.set(xscale=SCALES[name], xlabel="energy per particle $E/N$", ylabel=r"$\Delta V$")
    axis.set_title(rf"{name}, $\phi = {PHI[p]}$", fontsize=9)
    handles, labels = axis.get_legend_handles_labels()
    for handle, marker in zip(handles[: len(BATCH)], MARKERS, strict=True):
        handle.set_marker(marker)
        handle.set_markersize(5)
    axis.legend(handles, labels, fontsize=7)

# %% [markdown]
# **What it means.** All batch fractions lie near one falling curve: states of higher energy are flatter, whatever made
# their energy high. These few points leave no effect of $b_f$ itself. A longer study
# (`tests/validation/test_validation_flatness.py`, $N = 1000$, $\phi \geq 0.68$) fits a quadratic in $\log E$ plus
# $k\,b_f$ to $\log \Delta V$. Smaller batches would be flatter at equal energy if $k > 0$. It finds $k = 0.02 \pm 0.02$
# for the linear energy, and $-0.17 \pm 0.06$ for the harmonic one, where the sign of $k$ depends on the form of the
# curve.
#
# **What it does not.** Each curve has three points, and those of the harmonic energy have a gap between the two rates
# that settle and the one that does not. There an effect of 5 to 10 percent at equal energy is not excluded.

# %% [markdown]
# ## The minima below
#
# SGD does not end in a minimum, since forces do not balance while it moves. So from every state of the harmonic energy
# at $\phi = 0.70$ we go straight down until they do, in float64, and measure $\mathrm{Tr}\,H/2N$ there. The linear
# energy is left out: it has no smooth minima.

# %%
probes = 10 if SMOKE else 100
low, trace = (np.zeros((len(RATES["harmonic"]), len(BATCH), REPLICAS)) for _ in range(2))
with jax.enable_x64(True):
    system = System.create(PHI[-1], PARTICLES, energy=HARMONIC, dtype=np.float64)
    for place in np.ndindex(low.shape):
        a, b, r = place
        start = runs["harmonic"][a]["positions"][-1, b, r]
        found = minimise(system, start, force=1e-8, steps=300 if SMOKE else 100_000)
        if not SMOKE:
            found.require_converged()
        low[place] = found.energy / PARTICLES / float(system.unit)
        key = jax.random.key(int(np.ravel_multi_index(place, low.shape)))
        trace[place] = packing_curvature(system, found.positions, key, probes=probes, iterations=10).half_trace.value

figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.3), layout="constrained")
for a, rate in enumerate(RATES["harmonic"]):
    label = {"color": COLOURS[a], "label": rf"$\alpha = {rate}$"}
    for axis, values in zip(axes, (trace, 1e4 * low), strict=False):
        error = values[a].std(axis=-1, ddof=1) / REPLICAS**0.5
        axis.errorbar(BATCH, values[a].mean(axis=-1), error, marker="o", ms=4, capsize=2, lw=1.2, **label)
    for b, marker in enumerate(MARKERS):
        axes[2].plot(1e4 * low[a, b], trace[a, b], marker, color=COLOURS[a], ms=5, mfc="none")
for b, marker in enumerate(MARKERS):
    axes[2].plot([], [], marker, color="0.4", mfc="none", label=f"$b_f = {BATCH[b]}$")
axes[0].set(xlabel="batch fraction $b_f$", ylabel=r"$\mathrm{Tr}\,H/2N$ at the minimum")
axes[1].set(xlabel="batch fraction $b_f$", ylabel="its energy $10^4 E/N$")
axes[2].set(xlabel="energy of the minimum $10^4 E/N$", ylabel=r"$\mathrm{Tr}\,H/2N$")
axes[0].legend(fontsize=7)
axes[2].legend(fontsize=7)
_ = figure.suptitle(rf"minima below the states of the harmonic energy, $\phi = {PHI[-1]}$", fontsize=9)

# %%
ratio = trace[:, 0].mean(axis=-1) / trace[:, -1].mean(axis=-1) - 1
spread = np.hypot(*(trace[:, b].std(axis=-1, ddof=1) / trace[:, b].mean(axis=-1) for b in (0, -1))) / REPLICAS**0.5
for rate, one, error in zip(RATES["harmonic"], ratio, spread, strict=True):
    print(f"alpha {rate}: Tr H at the minima of b_f {BATCH[0]} against those of {BATCH[-1]}: {one:+.1%} +- {error:.1%}")

# %% [markdown]
# **What it means.** For the minima the claim is not confirmed. At the two rates at which gradient descent settles, the
# minima below small and large batches have the same curvature and the same energy within about two standard errors. The
# noise of small batches holds SGD in a flat place; it does not lead to a flatter minimum. Only the largest rate,
# $\alpha = 1.5$, leads to other minima: flatter by about one percent, and lower, most of all with full batches, which
# are unstable there. At a minimum flat goes with low, in the states above it with high. The longer study finds the same
# at $\phi = 0.68$ and 0.70: minima of equal energy have the same curvature for all $b_f$, within 0.3 percent.
#
# **What it does not.** All runs start from random places, have one size, and end after the steps that are shown. With
# more patience the minima might come to differ. Equal spheres in three dimensions can also crystallise in long runs; in
# the longer study no packing had more than 8 percent of its spheres in crystals. And nothing is said about neural
# networks, in which most directions are flat.
