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
# Throw discs into a box at random, and many of them overlap. Now let every overlapping pair kick itself apart, by a
# random length up to $\epsilon$, again and again. Do the discs find a configuration in which no two overlap, where
# nothing moves any more, or do they kick for ever?
#
# The answer depends on the packing fraction $\phi$, the share of the box that the discs cover, and it changes at a
# sharp value $\phi_c$. This notebook shows the model, what happens on both sides of $\phi_c$, the phase diagram, a
# value of $\phi_c$ with its error, and what all this has to do with stochastic gradient descent. It takes less than
# three minutes on two cores.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import EllipseCollection

from packing_jax import PairEnergy, System, bro, observables, simulate, stack
from packing_jax.commands import phi_c_plots, plots
from packing_jax.commands.summary import format_summary, report
from packing_jax.criticality import estimate_phi_c, open_results
from packing_jax.criticality.stationarity import final_activity
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"
QUICK = {"batch": 16, "chunk_steps": 100} if SMOKE else {}  # one program for several sweeps

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 90, "savefig.dpi": 90, "font.size": 9, "legend.frameon": False})
QUIET, RED, DARK, GREEN, ORANGE = "#dfe3e8", "#d1495bb0", "#30123b", "#1a9988", "#e06010"

# %% [markdown]
# ## The model
#
# This is biased random organization (BRO). Half of the discs have diameter 1 and half 1.4, so that they do not
# crystallise; lengths are in mean diameters $\bar\sigma$, and the box is periodic. In every step, each pair that
# overlaps draws one random length, uniform between 0 and $\epsilon$; both discs move by it, away from each other.
# Nothing else moves. A disc that is kicked by several others makes the sum of its moves, and may well land on the next
# disc.

# %%
DISCS = 60 if SMOKE else 200
KICK = 0.1
FRACTIONS = (0.76, 0.8)  # below phi_c, and above it
STEPS = 100 if SMOKE else 3000

sizes = np.repeat([1.0, 1.4], DISCS // 2)
systems = stack([System.create(phi, DISCS, dim=2, sizes=sizes) for phi in FRACTIONS])
run = simulate(
    systems,
    bro(KICK),
    STEPS,
    jax.random.key(1),
    record={
        "activity": observables.activity,
        "energy": observables.energy,
        "x": lambda seen: seen.positions,
        "overlaps": lambda seen: 1.0 * seen.neighbours.overlapping.any(axis=1),
    },
    times=np.unique(np.append(0, np.rint(STEPS ** (np.arange(61) / 60)))).astype(int),
)
mean_diameters = np.asarray(systems.diameters) / np.asarray(systems.unit)[:, None]
sides = 1 / np.asarray(systems.unit)


def draw(axis, which, at):
    """The discs of one of the two runs at one of its times; those that overlap another are red."""
    x, d, side = run["x"][which, at], mean_diameters[which], sides[which]
    red = run["overlaps"][which, at].astype(bool)
    shifts = side * np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    centres = (x[None] + shifts[:, None]).reshape(-1, 2)
    many, reds = np.tile(d, 9), np.tile(red, 9)
    order = np.argsort(reds, kind="stable")  # red ones on top
    discs = EllipseCollection(
        many[order],
        many[order],
        np.zeros(len(many)),
        units="xy",
        offsets=centres[order],
        offset_transform=axis.transData,
        facecolors=np.where(reds[order], RED, QUIET),
        edgecolors="#4a5058",
        linewidths=0.5,
    )
    axis.add_collection(discs)
    axis.set(xlim=(0, side), ylim=(0, side), aspect="equal", xticks=[], yticks=[])


figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.0), layout="constrained")
for place, size, name in (((-0.42, -0.1), 1.0, "i"), ((0.38, 0.16), 1.4, "j")):
    axes[0].add_patch(plt.Circle(place, size / 2, facecolor=RED, edgecolor="#4a5058"))
    axes[0].text(*(1.35 * np.array(place)), f"${name}$", ha="center", va="center", fontsize=13)
away = np.array([0.8, 0.26]) / np.hypot(0.8, 0.26)
for place, sign in (((-0.42, -0.1), -1), ((0.38, 0.16), 1)):
    axes[0].annotate(
        "",
        np.array(place) + sign * 0.75 * away,
        place,
        arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.6, "shrinkA": 0},
    )
axes[0].text(0, -1.05, r"both move by the same $u\,\epsilon$, $u$ uniform on $(0, 1)$", ha="center", fontsize=10)
axes[0].set(xlim=(-1.45, 1.6), ylim=(-1.3, 1.2), aspect="equal", title="an overlap and its kick")
axes[0].axis("off")
draw(axes[1], 1, 0)
_ = axes[1].set_title(rf"the start: {DISCS} discs anywhere, $\phi = {FRACTIONS[1]}$; red ones overlap")

# %% [markdown]
# ## Below and above
#
# Two runs from such a start, one at $\phi = 0.76$ and one at $\phi = 0.80$. Time goes from left to right and is
# logarithmic: most happens early.

# %%
ends = [STEPS if end < 0 else int(end) for end in run.absorbed_at]
figure, axes = plt.subplots(2, 5, figsize=(10.4, 4.7), layout="constrained")
for row, end in enumerate(ends):
    for axis, share in zip(axes[row], (0, 0.25, 0.55, 0.8, 1), strict=True):
        wanted = 0 if share == 0 else end**share
        at = int(np.searchsorted(run.times, min(wanted, run.times[-1])))
        draw(axis, row, at)
        f_a = run["activity"][row, at]
        step = run.times[at] if f_a else end
        axis.set_title(f"step {step:,}: " + (f"{100 * f_a:.0f} % overlap" if f_a else "at rest"), fontsize=9)
    axes[row, 0].set_ylabel(rf"$\phi = {FRACTIONS[row]}$", fontsize=11)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.2), layout="constrained")
for row, colour in enumerate((GREEN, ORANGE)):
    shown = (run.times > 0) & (run["activity"][row] > 0)
    for axis, what in zip(axes, ("activity", "energy"), strict=True):
        axis.plot(run.times[shown], run[what][row, shown], color=colour, lw=1.5, label=rf"$\phi = {FRACTIONS[row]}$")
        if (end := run.absorbed_at[row]) >= 0:
            label = f"no overlap left at step {end:,}" if axis is axes[0] else None
            axis.axvline(end, color=colour, lw=1, ls=":", label=label)
for axis, what in zip(axes, ("activity $f_a$", r"overlap energy per disc ($\bar\sigma$)"), strict=True):
    axis.set(xscale="log", yscale="log", xlabel="time (steps)", ylabel=what)
axes[0].set_ylim(0.09, 1.2)
_ = axes[0].legend(loc="lower left")

# %% [markdown]
# Both runs begin alike. The looser packing goes on to find a place for every disc; with the last overlap its dynamics
# ends, and this *absorbing state* is never left again. The denser one settles at a constant *activity*, the share of
# discs that overlap, and kicks for ever: an *active state*. As films, each in a minute, with
# `pip install "packing_jax[trajectory]"`:
#
# ```
# packing-jax run --dim 2 --mixture 1:1.4 --kick 0.1 --phi 0.77 --particles 500 --trajectory log --out discs
# packing-jax movie discs
# ```

# %% [markdown]
# ## The phase diagram
#
# One call runs a grid of packing fractions and replicas for each kick, every replica from a start of its own. A replica
# that is absorbed stops and costs nothing more.

# %%
KICKS = (0.1, 0.3) if SMOKE else (0.05, 0.1, 0.2, 0.3, 0.5)
PHI = np.round(np.arange(0.5, 0.88, 0.12 if SMOKE else 0.02), 3).tolist()
discs = {"dim": 2, "mixture": "1:1.4"}

with tempfile.TemporaryDirectory() as folder:
    grid = Sweep(**discs, kick=KICKS, phi=tuple(PHI), particles=DISCS, steps=100 if SMOKE else 1000, replicas=2)
    run_sweep(grid, Path(folder, "grid"), **QUICK)
    results = open_results(Path(folder, "grid")).load()

absorbed = (results["absorbed_at"] >= 0).values
final = final_activity(results["time"].values, results["activity"].values, absorbed)[:, :, 0].mean(axis=2)
print(f"{absorbed.size} runs, {absorbed.sum()} absorbed")

figure, axis = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
step, rows = PHI[1] - PHI[0], np.arange(len(KICKS))
edges = np.append(np.array(PHI) - step / 2, PHI[-1] + step / 2)
picture = axis.pcolormesh(edges, np.append(rows - 0.5, rows[-1] + 0.5), final.T, cmap="viridis", vmin=0, vmax=1)
figure.colorbar(picture, label="activity at the end $f_a$", pad=0.02)
resting = [max([i for i in range(len(PHI)) if final[i, row] < 0.1], default=0) for row in rows]
axis.step(edges[np.array([resting[0], *resting]) + 1], np.append(-0.5, rows + 0.5), where="post", color="white", lw=2)
axis.set(yticks=rows, yticklabels=[f"{one:g}" for one in KICKS])
axis.set(xlabel=r"packing fraction $\phi$", ylabel=r"largest kick $\epsilon/\bar\sigma$")
axis.text(0.04, 0.5, "absorbing\n(all come to rest)", transform=axis.transAxes, color="white", va="center")
_ = axis.text(0.97, 0.5, "active\n(for ever)", transform=axis.transAxes, color="black", va="center", ha="right")

# %% [markdown]
# Dark: the discs came to rest. Bright: they did not. Larger kicks keep sparser packings active. For smaller and smaller
# kicks the border moves to about 0.84, where these discs jam: a kick that is small enough finds a place for everybody
# as long as there is one.
#
# ## $\phi_c$ with its error
#
# How sharp is the border? Packing fractions closer together about it, larger systems and longer runs, at one kick. This
# is what `packing-jax sweep --dim 2 --mixture 1:1.4 --kick 0.1 --phi ... --out DIR` does, and the text below is what it
# prints.

# %%
SCAN = (0.5, 0.62, 0.74, 0.86) if SMOKE else (0.75, 0.76, 0.765, 0.77, 0.775, 0.78, 0.785, 0.79, 0.795, 0.8)
fine = {
    **discs,
    "phi": SCAN,
    "particles": DISCS if SMOKE else 500,
    "steps": 100 if SMOKE else 12000,
    "replicas": 4 if SMOKE else 3,
}

with tempfile.TemporaryDirectory() as folder:
    run_sweep(Sweep(**fine, kick=(KICK,)), Path(folder, "bro"), **QUICK)
    print(format_summary(report(Path(folder, "bro"))))
    by_bro = open_results(Path(folder, "bro")).load()

# %%
(of_bro,) = estimate_phi_c(by_bro)
figure = phi_c_plots.activity_vs_phi(by_bro, [of_bro])
figure.set_dpi(110)
figure

# %%
figure = plots.activity_vs_time(by_bro)
figure.set_dpi(110)
figure

# %% [markdown]
# **What it means.** The recommended value comes first: it is the one to quote, and its error holds what a finite run
# and a finite system leave out. The other rows read the same replicas in other ways, and are checks. Below
# $\phi_c$ the activity ends, above it levels off, and the nearer to $\phi_c$, the longer both take: that is what makes
# the last digits of $\phi_c$ expensive. Where a method finds the data too thin, it refuses and says why.
#
# **What it does not.** This $\phi_c$ belongs to the kick, and to quenches from independent random positions. With
# a few replicas of a few hundred discs nothing is said about exponents; `03_universality` asks for them.
#
# ## What it has to do with stochastic gradient descent
#
# An overlap is a loss that two discs share: its depth $(\sigma_{ij} - r)/2$. Stochastic gradient descent (SGD) takes a
# random share $b_f$ of the overlaps, the minibatch, and makes one step down their sum with learning rate $\alpha$. So
# in one step an overlap kicks with probability $b_f$, always by the same length $\alpha/2$, where BRO kicks always, by
# a random length. For $b_f = 3/4$ and $\alpha = 4\epsilon/3$ the mean and the variance of the two kicks are equal
# ([Zhang and Martiniani, arXiv:2411.11834](https://arxiv.org/abs/2411.11834)). Are the transitions?

# %%
depth = PairEnergy(lambda r, sigma: (sigma - r) / 2, slope_bound=0.5)  # the slope of any overlap is 1/2

with tempfile.TemporaryDirectory() as folder:
    sgd = Sweep(**fine, rule="sgd", energy=depth, kick=(4 * KICK / 3,), batch_fraction=(0.75,))
    run_sweep(sgd, Path(folder, "sgd"), **QUICK)
    by_sgd = open_results(Path(folder, "sgd")).load()
(of_sgd,) = estimate_phi_c(by_sgd)

figure, axis = plt.subplots(figsize=(6.4, 3.9), layout="constrained")
for name, one, estimate, colour, marker in (("BRO", by_bro, of_bro, DARK, "o"), ("SGD", by_sgd, of_sgd, ORANGE, "s")):
    cell = one[["activity", "absorbed_at"]].isel(kick=0, batch_fraction=0)
    ends = final_activity(cell["time"].values, cell["activity"].values, cell["absorbed_at"].values >= 0)
    label, best = name, estimate.recommended()
    if best is not None:
        label += rf": $\phi_c = {best.value:.4f} \pm {best.stderr:.4f}$"
        axis.axvspan(best.value - best.stderr, best.value + best.stderr, color=colour, alpha=0.2, lw=0)
        print(f"{name}: phi_c = {best.value:.4f} +- {best.stderr:.4f}")
    axis.plot(cell["phi"], ends.mean(axis=1), color=colour, marker=marker, mfc="white", lw=1.3, label=label)
axis.set(xlabel=r"packing fraction $\phi$", ylabel="activity at the end $f_a$")
_ = axis.legend(loc="upper left")

# %% [markdown]
# Two algorithms, one transition: the curves have the same shape, and the two values of $\phi_c$ differ by less than a
# per cent. SGD always moves by the same length and BRO by a random one, so that only two moments of a step agree; the
# rest matters less the smaller the steps are, and `02_bro_is_sgd` measures it. Read the other way round: SGD on a loss
# that can be brought to zero is a system of particles that either finds such a place or wanders for ever, and the noise
# of its minibatches decides between the two.
#
# ## Where to go on
#
# | question | |
# |---|---|
# | Is it really SGD? | `02_bro_is_sgd`: moments, curves in time and $\phi_c$ of BRO, SGD and Langevin |
# | Which universality class? | `03_universality` |
# | What does the noise do to the structure? | `04_hyperuniformity` |
# | Can a protocol be learned, a packing designed? | `05_gradients`, `06_design_a_packing` |
# | Does noisy SGD prefer flat minima? | `07_flat_minima` |
# | $\phi_c$ in three dimensions, now | `packing-jax sweep` |
# | $\phi_c$ to a tolerance, by itself | `packing-jax critical --help` |
# | a rule of your own | `docs/examples/own_rule.py` |
# | networks in place of discs | `packing-jax train perceptron` |
