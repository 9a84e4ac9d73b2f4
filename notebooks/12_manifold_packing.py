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
# # Can a packing learn?
#
# Look at an image through noise, or moved by a pixel: the outputs of a network for these *views* are a cloud. Draw a
# sphere around each cloud. If the spheres of two images overlap, the network cannot tell these images apart. CLAMP
# ([arXiv:2506.13717](https://arxiv.org/abs/2506.13717)) takes the overlap energy of a packing as the loss of the
# network,
#
# $$L = \ln\Big[\tfrac12 \sum_{i \ne j} \Big(1 - \frac{d_{ij}}{s_{ij}}\Big)^2 1(d_{ij} < s_{ij}) + 10^{-6}\Big],
# \qquad s_{ij} = \min(r_i + r_j,\, 1.5),$$
#
# with the distance $d_{ij}$ of two clouds and radii $r_i$ in proportion to their spread. No label is needed. A network
# without an overlap is absorbed, at $L = \ln 10^{-6} = -13.8$.
#
# One sees ten manifolds push one another apart on a sphere, what caps of fixed radii do from the same start, and how
# well digits can be read from a convolutional network that was trained in this way. This takes a minute or two of one
# core.
#
# With `PACKING_JAX_SMOKE=1` everything is so small that only the code is tested, not the physics.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from packing_jax import simulate
from packing_jax.networks.data import Data, split
from packing_jax.networks.files import load
from packing_jax.networks.losses import NTXent
from packing_jax.networks.manifold_packing import ABSORBED, manifolds
from packing_jax.networks.models import MLP, Model
from packing_jax.networks.rules import bro, sgd
from packing_jax.networks.tasks.caps import caps
from packing_jax.networks.tasks.manifolds import Embedding, packed
from packing_jax.networks.views import Noise, Shift, Views
from packing_jax.observables import learning

SMOKE = os.environ.get("PACKING_JAX_SMOKE") == "1"
SEEDS = 2 if SMOKE else 16

# %matplotlib inline
plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 100, "font.size": 9, "legend.frameon": False})
COLOURS = plt.get_cmap("viridis")(np.linspace(0.0, 0.85, 10))

# %% [markdown]
# ## Ten digits on a sphere
#
# One image of each digit, eight noisy views of each that are drawn once, and a network with three outputs.

# %%
digits = load("digits")
first = [np.flatnonzero(digits.targets == digit)[0] for digit in range(10)]
one_each = Data(digits.inputs[first] / 16, digits.targets[first])
embedding = Embedding(MLP((64, 64, 64), biases=True, drawn="he"), MLP((64, 3), biases=True, drawn="he"))
task = packed(embedding, one_each, Views(8, (Noise(0.1),)), anew=False)


def spheres(seen):
    """Centres (10, 3), and radii in a fourth column."""
    found = manifolds(seen.objective.apply(seen.weights, seen.data.inputs))
    return jnp.column_stack([found.centres, found.radii])


STEPS = 40 if SMOKE else 2000
TIMES = np.unique(np.r_[0, np.geomspace(1, STEPS, 40).astype(int)])
keys = jax.random.split(jax.random.key(0), SEEDS)
record = {"loss": learning.loss, "activity": learning.activity, "spheres": spheres}
run = simulate(task, sgd(optax.sgd(0.01)), STEPS, keys, record=record, times=TIMES)
print("absorbed at step", *run.absorbed_at)
print(f"largest loss at the end, less ln 1e-6: {run['loss'][:, -1].max() - ABSORBED:.1g}")


# %%
def globe(axis, centres, radii, title):
    """Caps on the unit sphere from far away; those behind it are pale."""
    t = np.linspace(0, 2 * np.pi, 80)
    axis.plot(np.cos(t), np.sin(t), color="0.7", lw=0.8)
    for i, (c, r) in enumerate(zip(centres / np.linalg.norm(centres, axis=1, keepdims=True), radii, strict=True)):
        angle = 2 * np.arcsin(min(r / 2, 1))
        across = np.cross(c, [1.0, 0.0, 0.0] if abs(c[0]) < 0.9 else [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        rim = np.cos(angle) * c[:, None] + np.sin(angle) * (
            across[:, None] * np.cos(t) + np.cross(c, across)[:, None] * np.sin(t)
        )
        axis.fill(rim[0], rim[1], color=COLOURS[i], alpha=0.35 if c[2] > 0 else 0.08, lw=0)
        axis.plot(rim[0], rim[1], color=COLOURS[i], lw=1.2 if c[2] > 0 else 0.5)
        axis.text(c[0], c[1], str(i), ha="center", va="center", fontsize=8, color="k" if c[2] > 0 else "0.6")
    axis.set(xticks=[], yticks=[], aspect="equal", frame_on=False, title=title)


one = int(np.argmax(run["activity"][:, -1] == 0))
end = int((run["activity"][one] == 0).argmax()) or len(TIMES) - 1
figure, axes = plt.subplots(1, 4, figsize=(9.8, 2.7), layout="constrained")
for axis, k in zip(axes, (0, int(0.6 * end), int(0.85 * end), end), strict=True):
    seen = run["spheres"][one, k]
    globe(axis, seen[:, :3], seen[:, 3], f"step {TIMES[k]}, loss {run['loss'][one, k]:.1f}")

# %% [markdown]
# ## Caps that cannot shrink
#
# Biased random organization of caps on the surface of the sphere, from the same centres: with the radii that the
# network had at its start, and with those that it has at its end. Each overlapping pair is a sample of the task
# `caps`, and a kick a random step along the line of centres.

# %%
centres = run["spheres"][:, 0, :, :3] / np.linalg.norm(run["spheres"][:, 0, :, :3], axis=2, keepdims=True)
packings = {}
for name, k in (("first", 0), ("last", -1)):
    start = {"centres": centres, "radii": run["spheres"][:, k, :, 3]}
    record = {"activity": lambda seen: (learning.overlaps(seen) > 0).mean(dtype=jnp.float32)}
    packings[name] = simulate(caps(10, 3), bro(0.02), STEPS, keys, start=start, record=record, times=TIMES)
    print(f"caps of the {name} radii: {np.sum(packings[name].absorbed_at >= 0)} of {SEEDS} come to rest")

figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2), layout="constrained")


def pairs(spheres):
    """The share of pairs that overlap, at each time."""
    i, j = np.triu_indices(10, 1)
    d = np.linalg.norm(spheres[..., i, :3] - spheres[..., j, :3], axis=-1)
    return (d < np.minimum(spheres[..., i, 3] + spheres[..., j, 3], 1.5)).mean(axis=-1)


x = np.maximum(TIMES, 0.7)
left.plot(x, pairs(run["spheres"]).mean(axis=0), "k", label="network")
for name, colour in (("first", COLOURS[3]), ("last", COLOURS[8])):
    left.plot(x, packings[name]["activity"].mean(axis=0), color=colour, label=f"caps of the {name} radii, BRO")
left.set(xscale="log", xlabel="steps", ylabel="share of pairs that overlap", ylim=(-0.02, 0.8))
left.legend(loc="upper right")
for row in run["spheres"][..., 3].mean(axis=2):
    right.plot(x, row, color=COLOURS[5], lw=0.8)
_ = right.set(xscale="log", xlabel="steps", ylabel="mean radius of a network's manifolds", ylim=(0, None))

# %% [markdown]
# **What it means.** All sixteen networks come to rest, at the absorbing value of the loss, like a packing below its
# transition. But they do not get there as a packing does. The first radii are so large that ten such caps have no place
# on a sphere, and random organization of them stays active for ever. The network shrinks its manifolds to about a
# fifth. Caps of these last radii come to rest from the first centres within a hundred steps.
#
# **What it does not.** Radii that shrink are no part of a packing: the network changes the packing fraction while it
# packs. The centres of clouds lie inside the sphere, and those of the caps on it, so that the first overlaps of the two
# differ. And the loss of a network is not a monotonic function of its steps: close to rest the logarithm makes
# steps large, and some networks are thrown back.
#
# ## Your own network and data
#
# Any two functions, one that draws weights and one that applies them, are an encoder; modules of equinox and flax work
# as well. Here it is a convolutional network of two layers, written out, on digits of 8 by 8 pixels. Views are moved by
# one pixel and noisy, and drawn anew at each step. SimCLR's loss on two views of twice as many images costs the same.


# %%
def patches(x):
    """The 3 by 3 neighbourhoods of each pixel (S, h, w, c), as (S, h - 2, w - 2, 9 c)."""
    h, w = x.shape[1:3]
    return jnp.concatenate([x[:, i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3)], axis=3)


def draw(key):
    """Weights of two layers of 3 by 3 filters, and of a dense one."""
    shapes = ((9, 8), (72, 16), (64, 64))
    return tuple(
        jax.random.normal(jax.random.fold_in(key, k), shape) * (2 / shape[0]) ** 0.5 for k, shape in enumerate(shapes)
    )


def convolve(weights, images):
    """64 features of each image (S, 64)."""
    x = images.reshape(-1, 8, 8, 1)
    x = jax.nn.relu(patches(x) @ weights[0])
    x = jax.nn.relu(patches(x) @ weights[1])
    x = x.reshape(-1, 2, 2, 2, 2, 16).mean(axis=(2, 4)).reshape(len(x), -1)  # means of 2 by 2 places
    return jax.nn.relu(x @ weights[2])


pool = split(Data(digits.inputs / 16, digits.targets), samples=400 if SMOKE else 1197, tests=600, seed=0)
train, test = Data(pool.inputs, pool.targets), Data(pool.test_inputs, pool.test_targets)
net = Embedding(Model(convolve, draw), MLP((64, 64, 16), biases=True, drawn="he"))
changes = (Shift(1, (8, 8)), Noise(0.1))
losses = {"CLAMP": (None, 4), "SimCLR": (NTXent(), 2)}
trained = {}
keys = jax.random.split(jax.random.key(1), 2 if SMOKE else 5)
for name, (loss, views) in losses.items():
    one = packed(net, train, Views(views, changes), loss=loss)
    rule = sgd(optax.adam(1e-3), 128 // views, sampling="epochs")
    done = simulate(one, rule, 10 if SMOKE else 800, keys, record={"w": learning.weights})
    trained[name] = [one.tree(row) for row in done.final["weights"]]
    start = [one.tree(row) for row in done["w"][:, 0]]


# %%
def read_out(features, tests):
    """The share of test images whose digit a ridge regression on the features of the others finds."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    x, z = (np.column_stack([(rows - mean) / spread, np.ones(len(rows))]) for rows in (features, tests))
    found = np.linalg.solve(x.T @ x / len(x) + 1e-2 * np.eye(x.shape[1]), x.T @ np.eye(10)[train.targets] / len(x))
    return np.mean((z @ found).argmax(axis=1) == test.targets)


def scores(networks, outputs):
    """Of each network."""
    many = [
        [np.asarray(outputs(w, jnp.asarray(x, jnp.float32))) for x in (train.inputs, test.inputs)] for w in networks
    ]
    return np.array([read_out(*both) for both in many])


encoder, both = jax.jit(net.features), jax.jit(net.outputs)
networks = {"untrained": start, **trained}
networks = {name: [jax.tree.map(jnp.asarray, w) for w in rows] for name, rows in networks.items()}
print(f"raw pixels   {read_out(train.inputs, test.inputs):.3f}")
table = {}
for name, rows in networks.items():
    table[name] = scores(rows, encoder), scores(rows, both)
    inner, outer = (f"{one.mean():.3f} +- {one.std(ddof=1) / len(one) ** 0.5:.3f}" for one in table[name])
    print(f"{name:12} encoder {inner}, embedding {outer}")
gain = table["CLAMP"][0] - table["untrained"][0]
print(f"gain of CLAMP: {gain.mean():.3f}, {gain.mean() / (gain.std(ddof=1) / len(gain) ** 0.5):.1f} standard errors")

# %% [markdown]
# **What it means.** A loss that only packs manifolds makes digits readable that it was never told: the read-out of
# 1197 labelled images gains 0.036(7) over the same network without training, five standard errors, and does better than
# one of the raw pixels. SimCLR is as good at the same cost. The embedding, on which the loss acts, is read worse than
# the layer before the projector. `packing-jax reproduce manifold-learning` does this on MNIST, with views and learning
# rates that are chosen on validation images, and beside a network that is told the labels.
#
# **What it does not.** The learning rate and the views were not chosen with care, and there are only 600 test images,
# the same for all: differences below 0.01 mean nothing. As views are drawn anew at each step, no network is absorbed.
