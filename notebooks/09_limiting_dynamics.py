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
# # What does SGD do when the loss no longer falls?
#
# Training has converged, the loss is flat, and the weights go on moving. Near a minimum each eigendirection of the
# Hessian, of curvature $\rho$, is an oscillator with friction that minibatches kick: with the learning rate $\eta$,
# the momentum $\beta$ and batches of $S$ samples
#
# $$v' = \beta v + g_B, \qquad \theta' = \theta - \eta v', \qquad \mathrm{Var}\,g_B = s^2\rho/S$$
#
# ([arXiv:2107.09133](https://arxiv.org/abs/2107.09133)). As $\eta \to 0$ this is a stochastic differential equation
# in the time $\tau = \eta k$, which can be solved. At a finite learning rate the moments still have closed forms. Here
# simulations stand beside both: how a mode gets to the minimum, how it fluctuates there, and how far it wanders.
# All takes a minute of one core.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from packing_jax import simulate
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Squared
from packing_jax.networks.rules import heavy_ball, sgd
from packing_jax.networks.task import Task
from packing_jax.networks.theory import discrete, displacement
from packing_jax.networks.theory import heavy_ball as sde
from packing_jax.networks.theory.heavy_ball import HeavyBall
from packing_jax.networks.theory.regression import FiniteData

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"
COPIES = 50 if SMOKE else 4000

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 100, "font.size": 9, "legend.frameon": False})
COLOURS = ["#30123b", "#1f9e89", "#e06010"]

# %% [markdown]
# ## Three ways to a minimum
#
# Three modes start one unit away from the minimum. A sample has the loss $\frac12\rho\,x^2$, and the rule adds normal
# noise of variance $q^2$ to the gradient: `sgd(..., noise=q)`. The copies of a mode are weights of one network, which
# do not feel one another. With $\beta = 0.9$ a mode oscillates where $\eta\rho > (1-\sqrt\beta)^2 = 0.0026$.

# %%
ETA, BETA, NOISE = 0.1, 0.9, 0.1
CURVATURES = np.array([0.005, (1 - np.sqrt(BETA)) ** 2 / ETA, 0.5])
NAMES = ("overdamped", "critical", "oscillating")
STEPS = 40 if SMOKE else 800
TIMES = np.unique(np.concatenate([[0], np.geomspace(1, STEPS, 60).astype(int)]))


def oscillators(curvatures, copies, start):
    """Loss (1/2) sum rho x^2 of independent weights, so many copies of each curvature."""
    rho = np.repeat(curvatures, copies)
    one_sample = Data(np.sqrt(rho)[None], np.zeros((1, len(rho))))
    return Task(
        lambda _: jnp.full(len(rho), start),
        lambda weights, inputs: weights * inputs,
        lambda outputs, targets: 0.5 * ((outputs - targets) ** 2).sum(axis=1),
        data=one_sample,
    )


def mean_and_variance(seen):
    """Of the copies of each mode, (2, modes)."""
    x = seen.weights.reshape(len(CURVATURES), COPIES)
    return jnp.stack([x.mean(axis=1), x.var(axis=1)])


task, rule = oscillators(CURVATURES, COPIES, 1.0), sgd(heavy_ball(ETA, BETA), noise=NOISE)
run = simulate(task, rule, STEPS, jax.random.key(1), record={"moments": mean_and_variance}, times=TIMES)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5), layout="constrained")
fine = np.arange(STEPS + 1)
worst = 0.0
for i, (rho, name, colour) in enumerate(zip(CURVATURES, NAMES, COLOURS, strict=True)):
    ball = HeavyBall(learning_rate=ETA, momentum=BETA, residual=NOISE / np.sqrt(rho))
    exact_mean = discrete.mean(ball, rho, TIMES, 1.0)[0]
    exact = discrete.covariance(ball, rho, TIMES).position
    measured = run["moments"][:, :, i]
    left.plot(fine, sde.mean(ball, rho, ETA * fine, 1.0)[0], color=colour, lw=1)
    left.plot(TIMES, measured[:, 0], "o", color=colour, ms=3, label=f"{name}, $\\rho$ = {rho:.3g}")
    right.plot(fine[1:], sde.covariance(ball, rho, ETA * fine[1:]).position, color=colour, lw=1)
    right.plot(TIMES[1:], measured[1:, 1], "o", color=colour, ms=3)
    errors = exact[1:] * np.sqrt(2 / COPIES)
    worst = max(worst, np.abs((measured[1:, 1] - exact[1:]) / errors).max())
    worst = max(worst, np.abs((measured[1:, 0] - exact_mean[1:]) / np.sqrt(exact[1:] / COPIES)).max())
left.set(xscale="symlog", xlabel="step", ylabel="mean of $\\theta$", xlim=(0, STEPS))
right.set(xscale="log", yscale="log", xlabel="step", ylabel="variance of $\\theta$")
left.legend(fontsize=8)
print(f"largest deviation from the exact moments of {6 * (len(TIMES) - 1)}: {worst:.1f} standard errors")

# %% [markdown]
# Points are the simulation, lines the differential equation. Against the closed form at this very learning rate
# (`theory.discrete`) no moment is off by more than chance allows.
#
# **What it means.** The three regimes are those of a damped spring, and the noise does not change how the mean moves.
# The variance passes through the same regimes on its way up, and ends at a value that knows nothing of the start.
#
# ## Equipartition
#
# Now a linear regression with minibatches, where the noise comes from the data alone. It has eight directions, whose
# curvatures go from 1 down to 0.05. In a thermal bath the stiff directions would fluctuate less. Gradient noise is
# larger where the loss is stiffer, by just as much: positions fluctuate alike in all directions, and velocities as the
# curvature.

# %%
SAMPLES, BATCH, FEATURES = 128, 16, 8
rng = np.random.default_rng(2107)
whitened = np.linalg.qr(rng.standard_normal((SAMPLES, FEATURES)))[0] * np.sqrt(SAMPLES)
curvatures = np.geomspace(1.0, 0.05, FEATURES)
features = whitened * np.sqrt(curvatures)
ball = HeavyBall(learning_rate=0.1, momentum=0.9, batch_size=BATCH, samples=SAMPLES)
problem = FiniteData(ball, features, features @ np.ones(FEATURES) + rng.standard_normal(SAMPLES))
minimum = jnp.asarray(problem.minimum, jnp.float32)


def squares(seen):
    """Squares of theta - theta* and of v, (2, d)."""
    off, v = seen.weights - minimum, (seen.before - seen.weights) / 0.1
    return jnp.stack([off * off, v * v])


regression = Task(
    lambda _: minimum,
    lambda weights, inputs: inputs @ weights,
    Squared(),
    data=Data(problem.features, problem.targets),
)
last = 600 if SMOKE else 4000
run = simulate(
    regression,
    sgd(heavy_ball(0.1, 0.9), BATCH, sampling="distinct"),
    last,
    jax.random.split(jax.random.key(2), 8 if SMOKE else 512),
    record={"squares": squares},
    times=np.arange(500, last + 1, 10),
)
seen = run["squares"].mean(axis=1)  # of each replica, late times
exact = np.diag(problem.stationary()).reshape(2, FEATURES)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5), layout="constrained")
for axis, which, name in ((left, 0, "positions"), (right, 1, "velocities")):
    errors = seen[:, which].std(axis=0) / np.sqrt(len(seen))
    axis.errorbar(curvatures, seen[:, which].mean(axis=0), errors, color=COLOURS[0], fmt="o", ms=4, label="minibatches")
    axis.plot(curvatures, exact[which], "k--", lw=1, label="exact at this learning rate")
    axis.set(xscale="log", xlabel="curvature $\\rho$", ylabel=f"variance of {name}")
    print(f"variance of {name} over the exact one: {(seen[:, which] / exact[which]).mean():.4f}")
thermal = exact[0, 0] * curvatures[0] / curvatures
left.plot(curvatures, thermal, color=COLOURS[2], lw=1, label="a thermal bath, $1/\\rho$")
left.set(yscale="log")
right.set(yscale="log")
left.legend(fontsize=8)
_ = right.legend(fontsize=8)

# %% [markdown]
# **What it means.** Twenty-fold softer directions fluctuate hardly more: not like a thermal bath, in which they would
# twenty times as much. What little they differ is the finite learning rate and the batch's own noise, and the dashed
# line has both.
#
# ## Anomalous diffusion
#
# Each mode comes to rest after a time $1/\rho$. A network has modes of all curvatures, and soft ones go on wandering
# when stiff ones have long settled. For curvatures $\rho_l = l^{-a}$ and regression noise the displacement from where
# it was grows as a power of time, $\langle|\theta_k - \theta_0|^2\rangle \sim k^{1/a}$.

# %%
MODES, RATE = 1000, 0.5
steps = 400 if SMOKE else 10_000
at = np.unique(np.geomspace(1, steps, 40).astype(int))
figure, axis = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
for exponent, colour in ((2.0, COLOURS[0]), (3.0, COLOURS[2])):
    rho = displacement.power_law_spectrum(MODES, exponent)
    scale = jnp.asarray(rho, jnp.float32)

    def moved(seen, scale=scale):
        """|theta_k - theta_0|^2; weights are theta over sqrt(rho), so that all have the same noise."""
        return jnp.sum((seen.weights - seen.start) ** 2 * scale)

    keys = jax.random.split(jax.random.key(3), 4 if SMOKE else 64)
    task = oscillators(rho, 1, 0.0)
    run = simulate(task, sgd(heavy_ball(RATE), noise=1.0), steps, keys, record={"moved": moved}, times=at)
    path = run["moved"].mean(axis=0)
    exact = displacement.from_fixed_point_exactly(HeavyBall(learning_rate=RATE), rho, at)
    axis.loglog(at, exact, color=colour, lw=1)
    axis.loglog(at, path, "o", color=colour, ms=3, label=f"curvatures $l^{{-{exponent:g}}}$")
    late = at >= steps // 100
    slope = displacement.fitted_exponent(at[late], path[late])
    known = displacement.fitted_exponent(at[late], exact[late])
    print(f"a = {exponent:g}: exponent {slope:.3f}; of the closed form {known:.3f}; 1/a = {1 / exponent:.3f}")
axis.set(xlabel="step $k$", ylabel="$\\langle|\\theta_k - \\theta_0|^2\\rangle$")
_ = axis.legend(fontsize=8)

# %% [markdown]
# **What it means.** Weights that wander ever more slowly after convergence need no glassy landscape: a quadratic bowl
# with a broad spectrum does it, and the exponent tells the spectrum. In a packing soft modes do the same.
#
# **What it does not.** The bowl is fixed here. In a network the Hessian changes as the weights wander, and the loss is
# quadratic only so far. `packing-jax reproduce anomalous-diffusion` goes to 200,000 modes;
# `packing-jax reproduce currents` shows that this motion also has a direction.
