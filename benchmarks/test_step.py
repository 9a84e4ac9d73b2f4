"""Steps and rebuilds under pytest-benchmark: `pytest benchmarks`, with --benchmark-compare against an earlier run."""

import jax
import numpy as np
import optax
import pytest
from ours import REBUILD_SKIN, rebuild_function

from packing_jax import bro, langevin, sgd, simulate
from packing_jax.commands.bench import Work, thermalised

STEPS = 200


@pytest.fixture(scope="module", params=[1_000, 10_000], ids="N={}".format)
def packing(request):
    work = Work(request.param)
    return work, thermalised(work)[0]


@pytest.mark.parametrize(
    "rule",
    [bro(0.02), sgd(optax.sgd(0.0267), batch_fraction=0.75), langevin(0.02)],
    ids=["bro", "sgd", "langevin"],
)
def test_steps(benchmark, packing, rule):
    work, start = packing
    system, key, ends = work.system(None), jax.random.key(0), np.array([0, STEPS])

    def run():
        return simulate(system, rule, STEPS, key, start=start, record={}, times=ends)

    run()  # compile
    benchmark.extra_info["particle_steps"] = STEPS * work.particles
    outcome = benchmark.pedantic(run, rounds=3)
    assert outcome.absorbed_at == -1


def test_rebuild(benchmark, packing):
    work, start = packing
    rebuild, coordinates = rebuild_function(work.system(None), start, REBUILD_SKIN)
    jax.block_until_ready(rebuild(coordinates))
    benchmark.extra_info["particles"] = work.particles
    _, listed = benchmark.pedantic(lambda: jax.block_until_ready(rebuild(coordinates)), rounds=10)
    assert listed.needed_row > 0
