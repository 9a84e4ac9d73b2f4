"""BRO, SGD at (4 eps/3, 3/4) and the Langevin map are the same dynamics: activity and displacement curves agree.

The long form, at kick 0.01 and N = 4000, is in test_validation.py.
"""

import itertools

import jax
import numpy as np
import optax
import pytest

from packing_jax import System, bro, langevin, sgd, simulate, stack

KICK = 0.05
REPLICAS = 24
TIMES = np.unique(np.rint(np.geomspace(1, 200, 12))).astype(int)


def curves(rule, seed):
    """Activity and MSD (replica, time) from independent starts."""
    system = stack([System.create(0.61, 300)] * REPLICAS)
    run = simulate(system, rule, 200, jax.random.key(seed), times=TIMES)
    return {name: run[name] for name in ("activity", "msd")}


def largest_z(one, two):
    """The root mean square over times of the difference in standard errors, the larger of the two observables."""
    found = []
    for name in one:
        error = np.sqrt((one[name].var(axis=0, ddof=1) + two[name].var(axis=0, ddof=1)) / REPLICAS)
        z = (one[name].mean(axis=0) - two[name].mean(axis=0)) / np.maximum(error, 1e-9)
        found.append(np.sqrt(np.mean(z**2)))
    return max(found)


@pytest.fixture(scope="module")
def three():
    return {
        "bro": curves(bro(KICK), 1),
        "sgd": curves(sgd(optax.sgd(4 * KICK / 3), 0.75), 2),
        "langevin": curves(langevin(KICK), 3),
    }


def test_the_three_dynamics_agree(three):
    # z of one time is nearly normal and the times are correlated, so at worst the rms is |z| of a single draw:
    # above 3.5 with probability 5e-4, times 6 comparisons: false-alarm rate below 0.3 %
    for a, b in itertools.combinations(three, 2):
        assert largest_z(three[a], three[b]) < 3.5, (a, b)


def test_other_step_sizes_do_not(three):
    # the negative control: a 10 % longer step is seen
    assert largest_z(three["bro"], curves(bro(1.1 * KICK), 4)) > 3.5
    assert largest_z(three["bro"], curves(sgd(optax.sgd(KICK), 0.75), 5)) > 3.5
