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
# # When does a network come to rest?
#
# Give a network a margin to keep on every sample. A sample whose margin is missed is *violated*, as two spheres that
# overlap are in contact, and random organization works on both: each violated sample kicks the weights along its own
# gradient, by a random length. As long as all samples can be satisfied, the network finds weights where nothing is
# violated, and never moves again: an absorbing state. With too many samples it stays active for ever.
#
# For the spherical perceptron, $|w|^2 = N$ with $P = \alpha N$ random patterns of margin $\kappa$, the last $\alpha$
# at which all can be satisfied is known exactly ([E. Gardner,
# 1988](https://doi.org/10.1088/0305-4470/21/1/030)): $\alpha_c(\kappa)^{-1} = \int_{-\kappa}^\infty
# Dz\,(z + \kappa)^2$. There is no such number for spheres. So here one can ask whether random organization finds
# what there is to find, and what it does above. All takes a minute and a half of one core.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from packing_jax import simulate
from packing_jax.networks.rules import bro
from packing_jax.networks.tasks.perceptron import perceptron
from packing_jax.networks.theory.perceptron import capacity, margin_spent, separable_share, violated_share
from packing_jax.observables import learning
from packing_jax.sweeps.networks import Training
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.run import run_sweep

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 100, "font.size": 9, "legend.frameon": False})
COLOURS = plt.get_cmap("viridis")(np.linspace(0.05, 0.8, 4))

# %% [markdown]
# ## Rest, or none
#
# A hundred weights at margin $\kappa = 1$, where the capacity is $\alpha_c = 0.5196$. Six replicas at each of three
# $\alpha$: each has patterns of its own.

# %%
KAPPA, KICK, N = 1.0, 0.05, 30 if SMOKE else 100
STEPS = 100 if SMOKE else 4000
times = np.unique(np.concatenate([[0], np.geomspace(1, STEPS, 80).astype(int)]))
figure, axis = plt.subplots(figsize=(5.2, 3.5), layout="constrained")
for alpha, colour in zip((0.35, 0.5, 0.8), COLOURS, strict=False):
    task = perceptron(dimension=N, alpha=alpha, kappa=KAPPA)
    keys = jax.random.split(jax.random.key(1), 6)
    run = simulate(task, bro(KICK), STEPS, keys, record={"activity": learning.activity}, times=times)
    rest = run.absorbed_at
    axis.plot(times, run["activity"].T, color=colour, lw=0.8)
    axis.plot([], [], color=colour, label=f"$\\alpha$ = {alpha:g}")
    at = ", ".join("never" if one < 0 else str(int(one)) for one in rest)
    print(f"alpha = {alpha:g}: {round(alpha * N)} patterns; absorbed at {at}")
axis.set(xscale="symlog", xlabel="step", ylabel="share of violated patterns", ylim=(-0.01, None))
_ = axis.legend()

# %% [markdown]
# Far below capacity all come to rest soon, far above none does. In between it depends on the patterns, and on how long
# one waits.
#
# ## Does it find all that there is?
#
# At $\kappa = 0$ theory says more: of $P$ random patterns, the share of instances that can be satisfied is Cover's
# count $2^{1-P}\sum_{k<N}\binom{P-1}{k}$, exact at every size. A sweep over $\alpha$ at two sizes shows the share
# that was absorbed, beside it. Each replica draws its own patterns.

# %%
SIZES = (20,) if SMOKE else (25, 75)
ALPHAS = (1.5, 2.5) if SMOKE else (1.3, 1.6, 1.8, 2.0, 2.2, 2.5)
REPLICAS = 4 if SMOKE else 48


def absorbed(alphas, sizes, steps, **numbers):
    """Results of a sweep of perceptrons under BRO, and the share of replicas at rest, (sizes, alphas)."""
    spec = Training(
        task="perceptron",
        rule="bro",
        axes={"dimension": sizes, "alpha": alphas, "exponent": 1, **numbers},
        steps=steps,
        replicas=REPLICAS,
        measure=("activity",),
        record_every=max(steps // 100, 1),
    )
    with tempfile.TemporaryDirectory() as folder:
        run_sweep(spec, Path(folder, "sweep"))
        found = Reader(Path(folder, "sweep")).results().load()
    return found, (found.absorbed_at.values.reshape(len(sizes), len(alphas), -1) >= 0).mean(axis=-1)


_, share = absorbed(ALPHAS, SIZES, 200 if SMOKE else 4000, kappa=0.0, kick=0.05)

# %%
figure, axis = plt.subplots(figsize=(5.2, 3.5), layout="constrained")
for n, (size, colour) in enumerate(zip(SIZES, COLOURS, strict=False)):
    patterns = np.arange(round(1.1 * size), round(2.7 * size))
    axis.plot(patterns / size, [separable_share(int(p), size) for p in patterns], color=colour, lw=1)
    error = np.sqrt(share[n] * (1 - share[n]) / REPLICAS)
    axis.errorbar(ALPHAS, share[n], error, color=colour, fmt="o", ms=4, label=f"N = {size}")
axis.axvline(2.0, color="0.6", lw=0.8, ls=":")
axis.set(xlabel="$\\alpha = P/N$", ylabel="share of instances at rest")
_ = axis.legend(title="points: BRO\nlines: Cover")
exact = np.array([[separable_share(round(alpha * size), size) for alpha in ALPHAS] for size in SIZES])
easy = np.array(ALPHAS) <= 1.6
print(f"alpha up to 1.6: {share[:, easy].sum() / exact[:, easy].sum():.1%} of the satisfiable instances are at rest")
print(f"all: {share.sum() / exact.sum():.1%}")

# %% [markdown]
# **What it means.** BRO knows nothing but which patterns are violated, and finds nearly every solution that exists. No
# point lies above its line by more than chance (a share above 100 % is chance too): what cannot be satisfied is never
# at rest.
#
# **What it does not.** Near $\alpha = 2$ points lie below their lines. These instances can be satisfied, but the room
# that is left is small: they need longer, and a smaller kick helps. A run that is active after 4000 steps is not one
# that has no solution; this is why estimates of a transition depend on how long one waits, for spheres as well.
#
# ## How much room does a kick take?
#
# A kick of mean $\epsilon/2$ shakes each margin. A solution whose margins exceed $\kappa$ by $\epsilon/3$ is found
# surely; so at a kick $\epsilon$ and $N \to \infty$ rest is guaranteed up to the capacity of $\kappa + \epsilon/3$.
# Above capacity, small kicks leave a share of violated patterns that can be derived too.

# %%
print("kick   guaranteed alpha, kappa = 1")
for kick in (0.0, 0.025, 0.05, 0.1, 0.2):
    print(f"{kick:<6g} {float(capacity(KAPPA + margin_spent(kick))):.4f}")
above = np.array([1.5]) if SMOKE else np.array([0.8, 1.1, 1.25, 1.5, 2.0])
alphas = tuple((above * float(capacity(KAPPA))).tolist())
size = 30 if SMOKE else 200
REPLICAS = 2 if SMOKE else 8
found, _ = absorbed(alphas, (size,), 200 if SMOKE else 3000, kappa=KAPPA, kick=0.02)
late = found.activity.values.reshape(len(alphas), REPLICAS, -1)[..., -25:].mean(axis=-1)

# %%
figure, axis = plt.subplots(figsize=(5.2, 3.5), layout="constrained")
grid = np.linspace(0.75, 2.1, 300)
axis.plot(grid, [violated_share(one * float(capacity(KAPPA)), KAPPA) for one in grid], "k-", lw=1, label="exact")
error = late.std(axis=1, ddof=1) / np.sqrt(REPLICAS)
axis.errorbar(above, late.mean(axis=1), error, color=COLOURS[1], fmt="o", ms=4, label=f"BRO, N = {size}, kick 0.02")
axis.set(xlabel="$\\alpha/\\alpha_c$", ylabel="activity at late times", ylim=(-0.01, None))
axis.legend()
exact = [violated_share(one, KAPPA) for one in alphas]
for one, value, stderr, known in zip(above, late.mean(axis=1), error, exact, strict=True):
    print(f"{one:4g} alpha_c: {value:.4f} +- {stderr:.4f}, exact {known:.4f}")

# %% [markdown]
# **What it means.** The transition of this packing is where geometry says, and the rule finds it. At $N = 200$ some
# instances just above $\alpha_c$ can still be satisfied, and lower the mean there. For $N \to \infty$ the
# activity is not a power of the distance: it starts more steeply than any power, as $1/\sqrt{2\ln 1/(\alpha -
# \alpha_c)}$. The perceptron is no member of the class of spheres.
#
# `packing-jax reproduce capacity` goes on from here: to infinite time, zero kick and infinite $N$, with errors. For a
# network of your own, a hinge loss is all it takes: `packing-jax train random-labels --rule bro --kick 0.1`.
