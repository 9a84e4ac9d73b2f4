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
# # Can a packing protocol be learned by descending through the dynamics?
#
# Stochastic gradient descent (SGD) moves overlapping spheres down their overlap energy. Above jamming some overlap
# always remains, and the question is how low the energy is after a given number of steps. A constant learning rate
# $\alpha$ is a compromise: a large one moves fast, a small one leaves less noise at the end. A schedule $\alpha(t)$ can
# do both, one after the other.
#
# Here the schedule is learned. `rollout` makes a run a differentiable function of the schedule, `jax.grad` gives the
# derivative of the energy after the last step, and Adam follows it downhill. The result is held against the best
# *constant* learning rate and against the best straight line to zero. Both are found by fine scans over the same random
# starts and batches that the schedule is trained on, and all three are compared on starts and batches that none of them
# has seen. A *seed* below is one random start with the random batches of its run. This takes some minutes.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.tree_util import Partial

from packing_jax import HARMONIC, System, sgd, simulate, total_energy
from packing_jax.derivatives.averages import common_random_numbers
from packing_jax.derivatives.rollout import rollout
from packing_jax.spheres.neighbors import plan_for

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"
PARTICLES = 60 if SMOKE else 256
PHI = 0.68  # above jamming, which is near 0.64
STEPS = 10 if SMOKE else 100
BATCH_FRACTION = 0.5
TRAIN = 4 if SMOKE else 32  # starts and draws for the scan and for training
TEST = 6 if SMOKE else 64  # others, held out
KNOTS = 4 if SMOKE else 12
RATES = np.geomspace(0.25, 1.5, 4 if SMOKE else 40)  # of the scan
UPDATES = 3 if SMOKE else 100  # of the schedule
SEEDS_AN_UPDATE = 2 if SMOKE else 8
ADAM_RATE = 0.03
CLIP = 3.0  # of a seed's gradient of log E

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 100, "font.size": 9, "legend.frameon": False})
COLOURS = {"constant": "#30123b", "linear": "#1a9988", "learned": "#e06010"}

system = System.create(PHI, PARTICLES, energy=HARMONIC)
train, test = (jax.random.split(jax.random.key(seed), count) for seed, count in ((1, TRAIN), (2, TEST)))

# %% [markdown]
# ## A schedule is a few numbers
#
# The learning rate is given at twelve evenly spaced steps, the knots, and interpolated between them. Constant rates and
# straight lines to zero are such schedules too. A `Partial` of the function that makes the optimizer holds the rates at
# the knots as its leaves. So they can differ between the replicas of a batch, and one can differentiate by them.


# %%
def scheduled(*rates):
    """SGD whose learning rate is interpolated between knots."""
    at = np.linspace(0.0, STEPS - 1.0, KNOTS, dtype=np.float32)
    return optax.sgd(lambda step: jnp.interp(step.astype(jnp.float32), at, jnp.stack(rates)))


def constant(rate):
    """The knots of a constant rate."""
    return np.full(KNOTS, rate, np.float32)


def line(rate):
    """The knots of a straight line that reaches zero after the last step."""
    return np.float32(rate * (1.0 - np.linspace(0.0, STEPS - 1.0, KNOTS) / STEPS))


def mean(values, axis=-1):
    """Mean and standard error."""
    return values.mean(axis), values.std(axis, ddof=1) / values.shape[axis] ** 0.5


# the rows of a Poisson pattern, with room for the crowded places of many starts
plan = plan_for(system, skin=0.4)
plan = plan.grown(plan.capacity + 8, plan.slots)


def final_energy(rates, key):
    """Energy per particle after the last step, differentiable."""
    rule = sgd(Partial(scheduled, *rates), BATCH_FRACTION)
    end = rollout(system, rule, STEPS, key, plan=plan, checkpoint_every=STEPS)
    return total_energy(system, end.positions) / (system.particles * system.unit)


@jax.jit
def energies(rates, keys):
    """Energy per particle at the end, for each key."""
    return jax.lax.map(lambda key: final_energy(rates, key), keys)


@jax.jit
def slopes(rates, keys):
    """The derivative of log E in the logarithms of the rates, for each key."""

    def log_energy(logs, key):
        return jnp.log(final_energy(jnp.exp(logs), key))

    return jax.lax.map(lambda key: jax.grad(log_energy)(jnp.log(rates), key), keys)


# %% [markdown]
# ## The best constant learning rate
#
# On the left the scan. On the right the derivative of the final energy by the learning rate, found in two ways: by
# differentiating each run and averaging over the seeds (`rollout`), and by differences of the mean energy at two nearby
# rates with the same seeds. The two must agree: the force of the harmonic energy is continuous at contact, so that a
# run does not jump where contacts change.

# %%
scanned, scan_error = mean(np.array([energies(constant(rate), train) for rate in RATES]))
best = RATES[np.argmin(scanned)]
print(f"best constant rate {best:.3f}, energy per particle {scanned.min():.4e} +- {scan_error[scanned.argmin()]:.1e}")
assert 0 < np.argmin(scanned) < len(RATES) - 1 or SMOKE, "the best rate is at an end of the scan"

some = RATES[:: max(1, len(RATES) // 8)]
few = train.reshape(-1, SEEDS_AN_UPDATE)


def slope(rate):
    """d log E / d log alpha of each training seed: all knots move together."""
    return np.concatenate([slopes(constant(rate), keys) for keys in few]).sum(axis=1)


by_path, by_path_error = np.transpose([mean(slope(rate)) for rate in some])


def log_energy(log_rates, keys):
    """log E of each run, as the estimator wants it."""
    return jnp.log(energies(constant(np.exp(log_rates[0])), keys))


by_difference = [common_random_numbers(log_energy, float(np.log(rate)), 0.03, train) for rate in some]

figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), layout="constrained")
axes[0].errorbar(RATES, scanned, scan_error, color=COLOURS["constant"], marker="o", ms=3, lw=0.8)
axes[0].axvline(best, color="0.6", lw=0.8, ls=":")
axes[0].set(xscale="log", yscale="log", xlabel=r"constant learning rate $\alpha$")
axes[0].set_ylabel(f"energy per particle after {STEPS} steps")
axes[1].axhline(0, color="0.6", lw=0.8)
axes[1].errorbar(
    some * 1.01, by_path, by_path_error, color=COLOURS["learned"], marker="s", ms=4, ls="", capsize=2, label="rollout"
)
axes[1].errorbar(
    some / 1.01,
    [one.value for one in by_difference],
    [one.stderr for one in by_difference],
    color=COLOURS["constant"],
    marker="o",
    ms=4,
    ls="",
    mfc="white",
    capsize=2,
    label="differences, same draws",
)
axes[1].set(xscale="log", xlabel=r"constant learning rate $\alpha$", ylabel=r"$d \log E / d \log \alpha$")
for axis in axes:
    axis.minorticks_off()
    axis.set_xticks([0.3, 0.5, 0.8, 1.2], labels=["0.3", "0.5", "0.8", "1.2"])
axes[0].set_yticks([0.002, 0.003, 0.004], labels=["0.002", "0.003", "0.004"])
_ = axes[1].legend()

# %% [markdown]
# **What it means.** Up to the best rate the two derivatives agree. Beyond it, two runs that begin almost alike part
# exponentially, and derivatives of single runs become huge and of either sign. Their mean is still right, but its error
# soon exceeds the value. So the best constant rate lies at the edge of where gradients are of use.
#
# ## Learning
#
# Learning begins at the best constant rate. Each update averages the gradients of eight seeds; a gradient longer than 3
# is shortened to that length first, so that one chaotic run does not outvote the others. Every new schedule is judged
# on all training seeds. If its energy is a fifth above the best one so far, learning goes back to the best schedule
# with half the step.


# %%
def clipped(gradients):
    """Each seed's gradient, no longer than CLIP."""
    gradients = np.asarray(gradients, np.float64)
    return gradients * np.minimum(1.0, CLIP / np.linalg.norm(gradients, axis=1, keepdims=True))


adam = optax.scale_by_adam()
logs = best_logs = np.log(constant(best))
lowest, rate, state = scanned.min(), ADAM_RATE, adam.init(logs)
shuffle = np.random.default_rng(0)
learning, lengths, history = [lowest], [], [logs]
for _ in range(UPDATES):
    chosen = train[shuffle.choice(TRAIN, SEEDS_AN_UPDATE, replace=False)]
    gradients = slopes(np.exp(logs), chosen)
    assert np.all(np.isfinite(gradients))
    lengths.append(np.linalg.norm(np.float64(gradients), axis=1))
    direction, state = adam.update(np.float32(clipped(gradients).mean(axis=0)), state)
    logs = logs - np.float32(rate) * np.asarray(direction)
    energy = float(np.mean(energies(np.exp(logs), train)))
    learning.append(energy)
    if energy < lowest:
        lowest, best_logs = energy, logs
    elif energy > 1.2 * lowest:
        logs, rate, state = best_logs, 0.5 * rate, adam.init(logs)
    history.append(best_logs)
learned = np.exp(best_logs).round(3)
learning, lengths = np.array(learning), np.array(lengths)
print("learned rates:", ", ".join(f"{one:.3f}" for one in learned))
print(f"{100 * np.mean(lengths > CLIP):.0f} % of the gradients were clipped; the step was halved to {rate:g}")

figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.3), layout="constrained")
axes[0].plot(learning, color=COLOURS["learned"], marker=".", ms=3, lw=0.6, label="this schedule")
axes[0].plot(np.minimum.accumulate(learning), color="black", lw=1, label="the best so far")
axes[0].axhline(learning[0], color=COLOURS["constant"], ls="--", lw=1, label="best constant")
axes[0].set(xlabel="update", ylabel="energy per particle, all training seeds", yscale="log")
axes[0].legend()
axes[1].plot(lengths, color=COLOURS["learned"], ls="", marker=".", ms=2, alpha=0.6)
axes[1].axhline(CLIP, color="0.4", lw=0.8, ls=":")
axes[1].set(xlabel="update", ylabel=r"$|\partial \log E\,/\,\partial \log \alpha|$ of each seed", yscale="log")
step_axis = np.arange(STEPS)
places = np.linspace(0, STEPS - 1, KNOTS)
for when in np.unique(np.linspace(0, UPDATES, 5).astype(int)):
    axes[2].plot(
        step_axis,
        np.interp(step_axis, places, np.exp(history[when])),
        color=plt.get_cmap("inferno")(0.85 * (1 - when / UPDATES)),
        lw=1.2,
        label=f"after {when} updates",
    )
axes[2].set(xlabel="step", ylabel=r"best learning rate so far $\alpha(t)$", yscale="log")
_ = axes[2].legend(fontsize=8)

# %% [markdown]
# ## On seeds that it has not seen
#
# Each protocol runs from the same new starts with the same new batches, so that the gain can be measured seed by seed.
# The straight line from some rate down to zero shows how much of the gain any decay would have given.

# %%
lines = np.array([energies(line(2 * rate), train) for rate in RATES])
best_line = 2 * RATES[np.argmin(lines.mean(axis=1))]
times = np.arange(0, STEPS + 1, 2)
protocols = {"constant": constant(best), "linear": line(best_line), "learned": learned}
# the driver makes all runs in one batch, the same bits as the rollouts
rates_at = np.repeat(np.stack(list(protocols.values())), TEST, axis=0)
rule = sgd(Partial(scheduled, *np.float32(rates_at.T)), BATCH_FRACTION)
run = simulate(system, rule, STEPS, jnp.tile(test, len(protocols)), times=times)
held_out = dict(zip(protocols, np.split(run["energy"], len(protocols)), strict=True))
NAMES = {"constant": f"constant {best:.2f}", "linear": f"line from {best_line:.2f} to 0", "learned": "learned"}
for name, one in held_out.items():
    value, error = mean(one[:, -1])
    print(f"{NAMES[name]:20} energy per particle {value:.4e} +- {error:.1e}")


def gain(worse, better):
    """By how much the energy is lower, as a share of the worse mean, with its paired standard error."""
    difference, error = mean(held_out[worse][:, -1] - held_out[better][:, -1])
    whole = held_out[worse][:, -1].mean()
    return 100 * difference / whole, 100 * error / whole


# where plain gradient descent ends from the same starts, if given time
floor = simulate(system, sgd(optax.sgd(0.5)), 10 * STEPS, test[:16], times=np.array([10 * STEPS]))["energy"].mean()
print(f"{'long descent':20} energy per particle {floor:.4e}: gradient descent at 0.5 for {10 * STEPS} steps, 16 starts")
for worse in ("constant", "linear"):
    share, error = gain(worse, "learned")
    wins = np.mean(held_out["learned"][:, -1] < held_out[worse][:, -1])
    print(
        f"learned against {NAMES[worse]}: energy lower by {share:.2f} +- {error:.2f} % "
        f"({share / error:.0f} standard errors, {TEST} held-out seeds, lower on {100 * wins:.0f} % of them)"
    )

# %%
figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.3), layout="constrained")
for name, one in held_out.items():
    middle, error = mean(one, axis=0)
    axes[0].plot(times, middle, color=COLOURS[name], lw=1.3, label=NAMES[name])
    axes[0].fill_between(times, middle - error, middle + error, color=COLOURS[name], alpha=0.3, lw=0)
axes[0].axhline(floor, color="0.5", lw=0.8, ls=":", label="long gradient descent")
axes[0].set(yscale="log", xlabel="step", ylabel="energy per particle", title=f"mean of {TEST} held-out seeds")
axes[0].legend()
ends = {name: 1e3 * one[:, -1] for name, one in held_out.items()}
for name in ("constant", "linear"):
    axes[1].plot(
        ends[name],
        ends["learned"],
        ls="",
        marker="o",
        ms=3,
        alpha=0.7,
        color=COLOURS[name],
        label=f"against {NAMES[name]}",
    )
span = [min(map(np.min, ends.values())), max(map(np.max, ends.values()))]
axes[1].plot(span, span, color="0.6", lw=0.8)
axes[1].set(
    xlabel="energy at the end, other protocol ($10^{-3}$)",
    ylabel="energy at the end, learned ($10^{-3}$)",
    title="one point a seed",
)
axes[1].legend(loc="upper left")
gains = {name: 100 * (1 - ends["learned"] / ends[name]) for name in ("constant", "linear")}
bins = np.linspace(min(0.0, *map(np.min, gains.values())), max(map(np.max, gains.values())), 25)
for name, one in gains.items():
    axes[2].hist(one, bins=bins, histtype="stepfilled", alpha=0.6, color=COLOURS[name], label=f"against {NAMES[name]}")
axes[2].axvline(0, color="0.6", lw=0.8)
axes[2].set(xlabel="energy saved on a held-out seed (%)", ylabel="seeds", title="gains")
axes[2].set_ylim(top=1.35 * axes[2].get_ylim()[1])
_ = axes[2].legend()

# %% [markdown]
# **What it means.** On seeds that it has never seen, the learned schedule ends with half the energy of the best
# constant rate, and with 29 % less than the best straight line to zero. So it gains more than any simple decay. Nobody
# told it what to do: it raises the rate to twice the best constant one and keeps the packing moving, at an energy that
# stays high. In the last twenty steps it lowers the rate to a fifth, and the noise dies away. Gradients have found
# shaking followed by a quench.
#
# **What it does not.** The schedule is the answer for this $N$, $\phi$, batch fraction and number of steps; other
# numbers have other schedules. Only the energy after the last step counted: half-way the learned schedule is the worst
# of the three. Gradient descent without noise for ten times as many steps (dotted) ends lower still, below half of its
# energy. A better schedule than this one may exist: the search was local, and had twelve knots. And gradients only did
# the first part of the work. After 20 of the 100 updates the schedule reaches the edge beyond which runs are chaotic
# (middle of the learning figure) and nearly every gradient is shortened; from there on the gains come from keeping the
# schedules that happen to be better on the training seeds.
