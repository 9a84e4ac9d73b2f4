"""Sweeps that were stopped, killed, refused memory or extended: the bytes are the same."""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from jax.tree_util import Partial
from tiny_sweep import After, go, like, opened, resume, tree

import packing_jax
from packing_jax.commands.summary import report
from packing_jax.drive import run as driver
from packing_jax.drive.run import run, state_like
from packing_jax.errors import PackingError
from packing_jax.simulation import DEFAULT_RECORD
from packing_jax.spheres.particles import particles_of
from packing_jax.spheres.start import gather_replicas
from packing_jax.sweeps import folder
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.compute import Stopped
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest
from packing_jax.sweeps.status import status

# --- stopped and gone on with -----------------------------------------------------------------------------------


def test_stopped_again_and_again(whole, tmp_path):
    """After every chunk; what was moved is not moved again."""
    outcome = go(tmp_path / "a", stop=After(1))
    sessions, moved = 1, []
    while outcome.stopped:
        assert outcome.stopped == "SIGTERM"
        seen = []
        outcome = resume(tmp_path / "a", stop=After(1), on_progress=seen.append)
        moved.append(seen[-1].unit_steps)
        sessions += 1
    assert sessions > 5
    assert max(moved) <= 3 * 50 * 64  # one chunk in each session
    assert tree(tmp_path / "a") == tree(whole)
    assert not list((tmp_path / "a" / "checkpoints").glob("running-*"))
    assert len(Manifest.read(Folder(tmp_path / "a"), 6).sessions) == sessions


def test_a_finished_sweep_has_nothing_left_to_do(copy, whole, monkeypatch):
    monkeypatch.setattr("packing_jax.sweeps.compute.run", None)
    assert resume(copy).done == 6
    assert tree(copy) == tree(whole)


def test_momentum_goes_on(tmp_path):
    """A rule with a state of its own, one value per particle and axis, through a checkpoint."""
    rule = packing_jax.sgd(Partial(optax.sgd, learning_rate=0.2, momentum=0.5), 0.75)
    replicas, _ = gather_replicas(packing_jax.System.create(0.9, 64, 2), rule, jax.random.key(1), None)
    times, name = np.array([0, 100, 150], np.int32), (0.9, 0.2, 0.75, 0)
    kind = particles_of(replicas)
    ((_, whole),) = run(kind, replicas, times, DEFAULT_RECORD, chunk_steps=50)

    def save(snapshot):
        Checkpoints(tmp_path, "me", 0.0).save({name: snapshot()[0]})
        raise Stopped

    with pytest.raises(Stopped):
        list(run(kind, replicas, times, DEFAULT_RECORD, chunk_steps=50, on_chunk=save))
    states = Checkpoints(tmp_path, "me", 0.0)
    like_this = state_like(kind, replicas, times, DEFAULT_RECORD)
    assert any(leaf.shape == (2, 64) and leaf.dtype == np.float32 for leaf in jax.tree.leaves(like_this.rule))
    seen = []
    ((_, again),) = run(
        kind,
        replicas,
        times,
        DEFAULT_RECORD,
        chunk_steps=50,
        on_progress=seen.append,
        restore=lambda _: states.restore(name, like_this),
    )
    assert seen[-1].unit_steps == 100 * 64
    np.testing.assert_array_equal(again.final["positions"], whole.final["positions"])
    for record in whole.records:
        np.testing.assert_array_equal(again.records[record], whole.records[record])


def test_one_writer_at_a_time(copy):
    with contextlib.closing(Manifest.lock(Folder(copy), 6)):
        assert status(copy)["running"]
        with pytest.raises(PackingError, match="another process is writing"):
            resume(copy)
    assert not status(copy)["running"]


# --- extended ---------------------------------------------------------------------------------------------------


def test_more_steps(copy, tmp_path):
    """Absorbed cells are carried on, active ones moved on from where they stood, and nothing else is computed."""
    seen = []
    outcome = resume(copy, like(steps=600), on_progress=seen.append)
    assert (outcome.done, outcome.notes) == (6, ())
    active = int((opened(copy)["absorbed_at"].sel(phi=0.9) == -1).sum())
    assert seen[-1].unit_steps == 2 * 300 * 64
    assert active == 2
    go(tmp_path / "fresh", like(steps=600))
    longer, fresh = opened(copy), opened(tmp_path / "fresh")
    assert longer.attrs["extended_from"] == [300]
    longer.attrs = fresh.attrs
    assert longer.identical(fresh)


def test_more_steps_in_the_middle(whole, tmp_path):
    go(tmp_path / "a", stop=After(2))
    resume(tmp_path / "a", like(steps=600))
    go(tmp_path / "fresh", like(steps=600))
    xr.testing.assert_equal(opened(tmp_path / "a"), opened(tmp_path / "fresh"))


def test_more_replicas_and_phi(copy, tmp_path, whole):
    wanted = like(phi=(0.2,), replicas=3)
    outcome = resume(copy, wanted)
    assert (outcome.done, outcome.total) == (12, 12)
    go(tmp_path / "fresh", like(phi=(0.1, 0.2, 0.3, 0.9), replicas=3))
    assert opened(copy).identical(opened(tmp_path / "fresh"))
    lines = (copy / "manifest.jsonl").read_text().splitlines()
    assert sum('["cell"' in line for line in lines) == 12  # none was written twice


def test_an_extension_that_was_cut_short(copy, tmp_path, monkeypatch):
    """Between the two renames of a file system that cannot exchange folders in one call."""
    with monkeypatch.context() as patch:
        patch.setattr(folder, "_exchange_in_one_call", lambda *_: False)
        rename = Folder.rename

        def cut(self, old, new):
            if old == ".tmp/results.zarr":
                raise KeyboardInterrupt
            return rename(self, old, new)

        patch.setattr(Folder, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            resume(copy, like(replicas=3))
        assert not (copy / "results.zarr").exists()
    assert resume(copy).total == 6
    with monkeypatch.context() as patch:
        patch.setattr(folder, "_exchange_in_one_call", lambda *_: False)
        assert resume(copy, like(replicas=3)).done == 9
    go(tmp_path / "fresh", like(replicas=3))
    assert opened(copy).identical(opened(tmp_path / "fresh"))


def test_a_report_of_a_half_extended_sweep(copy):
    resume(copy, like(steps=600), stop=After(1))
    summary = report(copy)
    assert (summary["runs"], summary["missing"]) == (6, 2)


def test_other_sweeps_are_refused_with_every_difference(copy, whole):
    with pytest.raises(PackingError) as refusal:
        resume(copy, like(seed=6, steps=200, particles=65, record_every=20, replicas=1))
    for words in (
        "particles is 64 there and 65 here", "record every is 10 there and 20 here", "seed is 5 there and 6 here",
        "there are 300 steps there and 200 here", "there are 2 replicas there and 1 here",
    ):  # fmt: skip
        assert words in str(refusal.value)
    assert tree(copy) == tree(whole)


def test_record_times_of_an_extension_keep_those_before():
    spec = like(record_every=None, steps=1000).checked()
    longer = spec.extended(dataclasses.replace(spec, steps=5000))
    longest = longer.extended(dataclasses.replace(longer, steps=20000))
    for short, long in ((spec, longer), (longer, longest)):
        before = short.times()
        np.testing.assert_array_equal(long.times()[: len(before)], before)
    assert longest.extended_from == (1000, 5000)


# --- cells that fail --------------------------------------------------------------------------------------------


def test_a_cell_beyond_memory_is_recorded_and_the_rest_goes_on(whole, tmp_path, monkeypatch):
    chunk = driver.chunk
    culprit = jax.random.key_data(
        jax.random.fold_in(packing_jax.sweeps.spheres.replica_key(5, 0.9, 0.3, 1.0, 1), 1)
    )  # the noise key of one replica

    def small_memory(kind, record, here, state, schedule, most):
        there = np.asarray(state.alive) & np.all(np.asarray(here.key) == np.asarray(culprit), axis=1)
        if there.any():
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
        return chunk(kind, record, here, state, schedule, most)

    with monkeypatch.context() as patch:
        patch.setattr(driver, "chunk", small_memory)
        outcome = go(tmp_path)
    assert (outcome.done, outcome.failed, outcome.stopped) == (6, 1, None)
    assert "does not fit in memory" in outcome.reasons[0]
    results = opened(tmp_path)
    assert results["failed"].sel(phi=0.9, kick=0.3, batch_fraction=1.0).values.tolist() == [0, 1]
    fine = results["failed"] == 0
    xr.testing.assert_equal(results.where(fine), opened(whole).where(fine))
    assert "does not fit in memory" in status(tmp_path)["reasons"][0]
    assert report(tmp_path)["failed"] == 1
    # with more memory
    assert resume(tmp_path).failed == 0
    assert tree(tmp_path) == tree(whole)


# --- killed -----------------------------------------------------------------------------------------------------

KILLABLE = {
    "dim": 2, "particles": 64, "phi": (0.3, 0.9, 1.0), "kick": (0.3,), "steps": 6000, "record_every": 200, "replicas": 3
}  # fmt: skip
SCRIPT = """
import sys
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.run import run_sweep
spec = Sweep(**eval(sys.argv[2]))
print("running", flush=True)
run_sweep(None if sys.argv[3] == "resume" else spec, sys.argv[1], resume=sys.argv[3] == "resume", batch=3,
          chunk_steps=100, checkpoint_seconds=0.0, on_progress=lambda now: print(now.done, flush=True))
"""


def kill_and_resume(directory, cache, moments):
    """One sweep, killed after each of so many seconds of work; how often it was, and its final bytes."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(packing_jax.__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    words = [sys.executable, "-c", SCRIPT, str(directory), repr(KILLABLE)]
    killed = 0
    for moment in [*moments, None]:
        mode = "resume" if (directory / "results.zarr").exists() else "new"
        with subprocess.Popen([*words, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
            if moment is not None:
                child.stdout.readline()
                time.sleep(moment)
                child.send_signal(signal.SIGKILL)
            _, err = child.communicate(timeout=300)
            killed += child.returncode == -signal.SIGKILL
            assert child.returncode in (0, -signal.SIGKILL), err.decode()
        if (directory / "results.zarr").exists():
            with contextlib.suppress(FileNotFoundError):
                opened(directory)  # at any moment a reader can
    return killed


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    directory = tmp_path_factory.mktemp("unkilled") / "sweep"
    kill_and_resume(directory, cache, [])
    return directory, cache


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.validation)])
def test_killed_at_random_moments(unkilled, tmp_path, kills):
    """Each sweep is killed up to three times and then left alone; one that was faster is followed by another."""
    whole, cache = unkilled
    random.seed(kills)
    killed = sweeps = 0
    while killed < kills:
        directory = tmp_path / str(sweeps)
        killed += kill_and_resume(directory, cache, [random.uniform(0.2, 2.0) for _ in range(min(kills, 3))])
        assert tree(directory) == tree(whole)
        sweeps += 1
