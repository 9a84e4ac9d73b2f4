"""Replicas over many devices: the same bits on 1, 2 and 8 of them, and no device waits for another in a step."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import packing_jax

# 65 replicas in batches of 9 and 36, which 8 does not divide. Most are absorbed at different steps, and a batch of 36
# with few left becomes one of 9, so that both share a program.
PROGRAM = """
import hashlib, json, sys
import jax, jax.numpy as jnp, numpy as np
import packing_jax as pj
from packing_jax.drive.batch import Batch
from packing_jax.drive.chunk import on_devices
from packing_jax.drive.spread import mesh_of
from packing_jax.spheres.neighbors import plan_for
from packing_jax.drive.run import begin
from packing_jax.simulation import DEFAULT_RECORD
from packing_jax.spheres.particles import Particles
from packing_jax.spheres.start import gather_replicas

systems = pj.stack([pj.System.create(phi, 32, 2) for phi in np.linspace(0.1, 0.95, 65)])
rule, times = pj.bro(0.2), np.array([0, 1, 10, 60, 100], np.int32)
digests, absorbed = [], 0
for batch, chunk_steps in json.loads(sys.argv[1]):
    some = jax.tree.map(lambda leaf: leaf[::5] if batch == 1 else leaf, systems)
    key = jax.random.key(jnp.int32(3))
    run = pj.simulate(some, rule, 100, key, times=times, batch=batch, chunk_steps=chunk_steps)
    rows = [
        hashlib.sha256(b"".join(np.ascontiguousarray(one[i]).tobytes() for one in
                                (run.positions, run.absorbed_at, *run.records.values()))).hexdigest()
        for i in range(len(run.absorbed_at))
    ]
    digests.append(rows)
    absorbed = absorbed or int((run.absorbed_at >= 0).sum())
replicas, _ = gather_replicas(systems, rule, jax.random.key(3), None)
kind = Particles(plan_for(systems, 0.4))
group = Batch(kind, replicas, 9, lambda who: begin(kind, who, times, DEFAULT_RECORD), lambda _: None)
mesh = mesh_of(group.here.key)
args = (kind, tuple(DEFAULT_RECORD.items()), mesh, group.here, group.state, jnp.asarray(times), jnp.int32(10))
print(json.dumps({
    "devices": jax.local_device_count(), "mesh": 1 if mesh is None else mesh.size, "places": group.places,
    "digests": digests, "absorbed": absorbed, "program": on_devices.lower(*args).compile().as_text(),
}))
"""

CASES = [(9, 10), (36, 1000), (1, 1000)]


def on(devices, cases):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(packing_jax.__file__).parents[1]),
    }
    words = [sys.executable, "-c", PROGRAM, json.dumps(cases)]
    done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["devices"] == devices
    return facts


@pytest.fixture(scope="module")
def alone():
    """One device; two batch sizes and chunk lengths."""
    facts = on(1, CASES[:2])
    # a replica's key is that of its number, so the same first replica of a smaller run is the same
    assert facts["digests"][0] == facts["digests"][1]
    assert 10 < facts["absorbed"] < 60
    assert (facts["mesh"], facts["places"]) == (1, 9)
    return facts


@pytest.mark.parametrize(
    ("devices", "cases"), [(2, CASES[:1]), (8, CASES[:1]), pytest.param(8, CASES, marks=pytest.mark.validation)]
)
def test_the_same_bits_on_many_devices(alone, devices, cases):
    many = on(devices, cases)
    if len(cases) > len(alone["digests"]):
        alone = on(1, cases)
    assert many["digests"] == alone["digests"][: len(cases)]
    # every device has as many places, and the program is one for each of them with nothing between them
    assert (many["mesh"], many["places"]) == (devices, 10 if devices == 2 else 16)
    assert f"num_partitions={devices}" in many["program"]
    assert re.search(r"\bwhile\(", many["program"])
    words = r"all-reduce|all-gather|all-to-all|reduce-scatter|collective|partition-id|\bsend\(|\brecv\("
    assert not re.findall(words, many["program"])


def test_one_device_has_a_program_without_partitions(alone):
    assert "num_partitions" not in alone["program"]
    assert "shard_map" not in alone["program"]
