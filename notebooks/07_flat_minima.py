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
# report that the smaller the batch fraction $b_f$, the flatter the place where it ends, as is said of neural networks.
# Flatness is measured by the mean rise of the energy per particle under Gaussian perturbations of every coordinate,
#
# $$\Delta V = \frac{\langle V(x + \delta) - V(x)\rangle}{N s^2}, \qquad s = 0.03\,R,$$
#
# which for a smooth energy is $\mathrm{Tr}\,H/2N$: flat is small. A step has the mean $\alpha b_f \nabla V$ and a
# variance that grows as $\alpha^2 b_f (1 - b_f)$, so that *noisier* can mean two things: a smaller $b_f$ at the same
# learning rate $\alpha$, which is slower as well, or at the same mean step $\alpha b_f$. And a flat state may be
# nothing but a low one: the energy is shown beside $\Delta V$ throughout.
#
# 3D, pairs chosen at random, lengths and energies in sphere diameters. With `PACKING_JAX_SMOKE=1` everything is so
# small that only the code is tested, not the physics.

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
# Packing fractions, batch fractions and replicas are one batch, from independent uniform positions.

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
# The linear energy is stationary, or nearly so at the smallest step. Its force does not vanish at contact, so that
# even gradient descent ($b_f = 1$, no noise at all) never comes to rest: each sphere is thrown to and fro by about
# $\alpha/2$. Gradient descent on the harmonic energy settles towards a minimum at $\alpha = 0.3$ and $0.5$, and does
# not at 1.5, which is beyond the stability limit of two over the largest curvature. The harmonic runs at $b_f = 0.2$
# still come down: their mean step is five times shorter, so that at equal $\alpha$ a smaller batch is also merely
# *later*. That is why the comparison at equal $\alpha b_f$, in as many steps, is needed.

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
# **What it means.** At $\phi = 0.70$ and equal $\alpha$ the claim holds for the linear energy at all three rates and
# for the harmonic one at the two at which gradient descent settles: $\Delta V$ is smaller at $b_f = 0.2$ than at 1, by
# 5 to 25 percent. At equal $\alpha b_f$ (dotted) it holds by much more, because a smaller batch then has a larger
# $\alpha$, which matters most. In each of these cases the flatter states have the *higher* energy. Flatter does not
# mean lower here; it means that the noise holds the spheres above the minima, with fewer overlaps that are deeper.
#
# **Where it does not hold.** At $\phi = 0.66$ little or nothing is gained at equal $\alpha$, except for the linear
# energy at the largest. And at $\alpha = 1.5$ the harmonic energy turns it round: gradient descent that does not
# settle shakes harder than any batch noise, and its states, the highest of all, are the flattest.
#
# **What it does not.** $\Delta V$ of the linear energy is not a curvature: its Hessian is a delta function at contact,
# and the number is that of contacts within reach of the perturbation, so that it grows when the spheres are shaken
# less than $s$. Only ratios at one $s$ say something.

# %% [markdown]
# ## At equal energy
#
# Each point is one cell; lines join the three learning rates of one batch fraction.

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
# **What it means.** All batch fractions lie about one falling curve: higher is flatter, for whatever reason it is
# higher. Nothing is left for $b_f$ that a few points could show. `tests/validation/test_validation_flatness.py` fits
# $\log \Delta V = \mathrm{quadratic}(\log E) + k\,b_f$ at $N = 1000$ and $\phi \geq 0.68$; the claim at equal energy
# would be $k > 0$. It finds $k = 0.02 \pm 0.02$ for the linear energy, and $-0.17 \pm 0.06$ for the harmonic one, where
# $k$ changes its sign with the form of the curve.
#
# **What it does not.** The curves have three points each, and the harmonic ones have a gap between the rates that
# settle and the one that does not: an effect of 5 to 10 percent at equal energy is not excluded there.

# %% [markdown]
# ## The minima below
#
# What SGD reaches is not a minimum: forces do not balance while it moves. From every state of the harmonic energy at
# the larger packing fraction we go straight down until they do, in float64, and measure $\mathrm{Tr}\,H/2N$ there. (The
# linear energy has no such minima, and its Hessian is a delta function at contact.)

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
# **What it means.** Of the minima the claim is not confirmed. Where gradient descent settles, those below the states
# of small and large batches have the same curvature and energy within their errors: the noise keeps SGD in a flat
# place, not above a flat basin. Only the strongest shaking, $\alpha = 1.5$, leads to other minima, which are flatter
# by about one percent; they are lower too, and most so where full batches do not settle. At a minimum, unlike in the
# states above it, flat is low: fewer and shallower contacts. The long check finds the same at $N = 1000$ and $\phi =
# 0.68$ and 0.70, where nothing of $b_f$ is left at equal energy of the minimum, within 0.3 percent.
#
# **What it does not.** These are quenches from independent uniform positions, of one size, in as many steps as are
# shown. Equal spheres in three dimensions can crystallise in long runs (in the long check no packing had more than 8
# percent of its particles in crystals), and the difference between basins might grow with patience. And it says
# nothing of neural networks, in which flat directions outnumber the others.
