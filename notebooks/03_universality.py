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
# # Which universality class?
#
# Near its critical packing fraction $\phi_c$ the activity of biased random organization (BRO) vanishes as
# $f_a \sim (\phi - \phi_c)^\beta$. The exponent $\beta$ does not depend on details such as the kick, but on the
# symmetries and the dimension only, which sort transitions into classes. BRO conserves the number of particles, has
# many absorbing states and a local rule, so it should belong to the class of the Manna model, and
# [arXiv:2411.11834](https://arxiv.org/abs/2411.11834) finds this class for BRO and SGD. The rival is directed
# percolation (DP), whose exponents are close; mean-field theory is far away.
#
# Here two-dimensional BRO is run at two sizes on both sides of $\phi_c$, with a largest kick of one diameter $\sigma$:
# far from jamming, where the scaling is clean. One sees $\phi_c$ with its error, $\beta$ with its error, and which
# classes that leaves. This takes two to three minutes of one core, which is enough to exclude mean-field theory
# and not enough to tell Manna from DP.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

from packing_jax.commands import plots
from packing_jax.criticality import classes_in, estimate_phi_c, open_results, verdict
from packing_jax.criticality.estimates import stationary
from packing_jax.criticality.recommended import of_infinite_systems
from packing_jax.criticality.results import by_other_axes, scan_of
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"
SIZES = (64, 100) if SMOKE else (400, 2000)
REPLICAS = 2 if SMOKE else 3
STEPS = 100 if SMOKE else 2500
PHI = (0.36, 0.39, 0.42, 0.45, 0.5) if SMOKE else (
    0.364, 0.368, 0.371, 0.374, 0.377, 0.38, 0.382, 0.385, 0.389, 0.394, 0.4
)  # fmt: skip
QUICK = {"batch": 10, "chunk_steps": STEPS} if SMOKE else {}  # one program for each size
DIM, KICK = 2, 1.0

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 90, "savefig.dpi": 90, "font.size": 9, "legend.frameon": False})

# %% [markdown]
# ## The classes
#
# Published exponents; their sources are in `packing_jax.criticality.universality`. Below, $\beta$ and $\gamma'$ are
# measured: the growth $\gamma'$ of the fluctuations, $N\,\mathrm{Var} f_a \sim (\phi - \phi_c)^{-\gamma'}$.

# %%
NAMES = ("beta", "nu_perp", "nu_par", "z", "gamma_prime")
print(f"{'':26}" + "".join(f"{name:>15}" for name in NAMES))
for dim in (1, 2, 3, 4):
    for one in classes_in(dim):
        cells = "".join(f"{one.exponents[n][0]:8.3f} +-{one.exponents[n][1]:5.3f}" for n in NAMES)
        print(f"{one.name + (f', {dim}D' if dim < 4 else ', 4D and above'):26}{cells}")

# %% [markdown]
# In two dimensions the $\beta$ of the two classes differ by 0.056. To tell them apart by three standard deviations
# takes an error below 0.02.
#
# ## Two sizes, one scan

# %%
with tempfile.TemporaryDirectory() as folder:
    scan = Sweep(dim=DIM, kick=(KICK,), particles=SIZES, phi=PHI, steps=STEPS, replicas=REPLICAS)
    run_sweep(scan, Path(folder, "sizes"), **QUICK)
    results = [one.drop_vars("positions").load() for _, one in by_other_axes(open_results(Path(folder, "sizes")))]
estimates = [estimate_phi_c(one)[0] for one in results]
big, found = results[-1], estimates[-1]

for particles, one in zip(SIZES, estimates, strict=True):
    best = one.recommended()
    print(f"N = {particles}: " + (f"phi_c = {best.value:.4f} +- {best.stderr:.4f}" if best else "no phi_c"))
    for method, part in one.errors:
        value, error = getattr(one, method).value, part.total or part.statistical
        print(f"  {method.replace('_', ' '):14}{value:.4f} +- {error:.4f}")
infinite = of_infinite_systems(results)
for best in infinite:
    print(f"both sizes, extrapolated to infinite systems: phi_c = {best.value:.4f} +- {best.stderr:.4f}")

# %%
figure = plots.activity_vs_time(big)
figure.set_dpi(100)
figure

# %% [markdown]
# Activity against time at the larger size. At $\phi_c$ it would be a straight line, a power law. Below $\phi_c$ the
# curves bend down and end; above it they level off.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.9), layout="constrained")
for particles, one, estimate, colour, marker in zip(
    SIZES, results, estimates, ("#1a9988", "#30123b"), "so", strict=True
):
    scan = scan_of(one, 0, 0)
    mean, error = scan.final.mean(axis=1), scan.final.std(axis=1, ddof=1) / REPLICAS**0.5
    settled = np.isin(np.arange(len(mean)), stationary(scan))
    style = {"color": colour, "marker": marker, "ls": "", "ms": 4.5, "capsize": 2}
    axes[0].errorbar(scan.phi[settled], mean[settled], error[settled], label=f"N = {particles}", **style)
    axes[0].errorbar(scan.phi[~settled], mean[~settled], error[~settled], mfc="white", **style)
    if best := estimate.recommended():
        axes[0].axvspan(best.value - best.stderr, best.value + best.stderr, color=colour, alpha=0.15, lw=0)
    if law := estimate.power_law:
        fine = law.value + np.linspace(0, 1, 200)[1:] ** 2 * (PHI[-1] - law.value)
        axes[0].plot(fine, law.activity(fine), color=colour, lw=0.8)
    if law and particles == SIZES[-1]:
        used = settled & (scan.phi > law.value + law.stderr) & (mean > 0)  # nearer, the distance is not known
        away = scan.phi[used] - law.value
        axes[1].errorbar(away, mean[used], error[used], label=f"N = {particles}", **style)
        for known, dash in zip((*classes_in(DIM), *classes_in(4)), ("--", ":", "-."), strict=True):
            beta = known.exponents["beta"][0]
            line = 0.7 * mean[used][-1] * (away / away[-1]) ** beta
            axes[1].plot(away, line, color="0.4", ls=dash, lw=1, label=rf"{known.name}: $\beta = {beta:.3f}$")
        fine = np.geomspace(away[0], away[-1], 50)
        fit = rf"fit: $\beta = {law.beta:.3f} \pm {law.beta_stderr:.3f}$, of the fit alone"
        axes[1].plot(fine, law.activity(law.value + fine), color=colour, lw=0.8, label=fit)
axes[0].plot([], [], "o", color="0.4", mfc="white", label="still falling, not fitted")
axes[0].set(xlabel=r"packing fraction $\phi$", ylabel="activity at the end $f_a$")
axes[1].set(xscale="log", yscale="log", xlabel=r"$\phi - \phi_c$", ylabel="activity at the end $f_a$")
axes[1].xaxis.set_minor_formatter(NullFormatter())
_ = axes[0].legend(loc="upper left"), axes[1].legend(loc="lower right", fontsize=8)

# %% [markdown]
# Left: means over replicas, the fits of $f_a = A(\phi-\phi_c)^\beta$ to the replicas that survive, and the recommended
# $\phi_c$ as bands. Right: the same at the larger size about the fitted $\phi_c$, beside the slopes of the classes.
# That $\phi_c$ was fitted makes any such figure look straighter than it is.
#
# ## The verdict

# %%
measured = {name: one for name, one in found.exponents().items() if name != "alpha"}  # that of the decay is not judged
if measured:
    judged = verdict(measured, DIM)
    print(f"{'':24}" + "".join(f"{name:>22}" for name in measured))
    print(f"{'measured':24}" + "".join(f"{value:13.3f} +- {error:.3f}" for value, error in measured.values()))
    for match in judged.matches:
        print(f"{match.name:24}" + "".join(f"{one.deviation:+19.1f} sd" for one in match.comparisons))
    (theory,) = classes_in(4)
    off = [(value - theory.exponents[name][0]) / error for name, (value, error) in measured.items()]
    print(f"{theory.name:24}" + "".join(f"{one:+19.1f} sd" for one in off))
    print("\n" + judged.text.replace(". ", ".\n"))
else:
    print(f"no exponent to judge by: {dict(found.refusals)}")

# %%
figure, axis = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
symbols = {"beta": r"$\beta$", "gamma_prime": r"$\gamma'$"}
colours, markers = ("#1a9988", "#e06010", "#9a9a9a"), "sD^"
for row, (name, (value, error)) in enumerate(measured.items()):
    axis.errorbar(value, -row, xerr=error, color="black", marker="o", capsize=3, label=None if row else "measured")
    for k, known in enumerate((*classes_in(DIM), *classes_in(4))):
        centre, width = known.exponents[name]
        style = {"color": colours[k], "marker": markers[k], "ms": 4, "capsize": 2, "ls": ""}
        axis.errorbar(centre, -row + 0.2 * (1 - k), xerr=width, label=None if row else known.name, **style)
axis.set(yticks=[-row for row in range(len(measured))], yticklabels=[symbols[name] for name in measured])
axis.set_xlabel("exponent")
if measured:
    axis.set_ylim(-len(measured) + 0.5, 0.5)
    figure.legend(loc="outside upper center", ncols=4)

# %% [markdown]
# **What it means.** The recommended values of the two sizes, 0.3826(16) and 0.3809(29), and that of both together,
# 0.3786(15), agree. The last one is extrapolated: a small system is absorbed by chance where a large one lives on, so
# that its points near $\phi_c$ lie lower. Five other methods at the larger size lie within 0.002 of it. The exponents
# exclude mean-field theory: its $\beta = 1$ is 3.4 standard deviations away from $\beta = 0.55 \pm 0.13$. They agree
# with both two-dimensional classes.
#
# **What it does not.** BRO is not shown to be in the Manna class, nor in that of directed percolation. The fit alone
# would give $\beta$ an error of 0.066. But it covers activities from 0.1 to 0.4, where $\beta$ is only an effective
# exponent: corrections to the power law are of the order of the activity there, and make up the rest of the error.
#
# **What would decide.** Activities of a hundredth. Close enough to $\phi_c$ for that, the correlation length is so
# large that it takes $10^5$ to $10^6$ particles, and the time to become stationary grows as $(\phi-\phi_c)^{-1.2}$. On
# a larger machine, raise `SIZES`, `STEPS` and `REPLICAS` above; `packing-jax reproduce universality` also collapses the
# decay at three sizes.
