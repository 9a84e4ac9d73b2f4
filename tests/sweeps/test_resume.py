"""Sweeps survive everything: stopped, killed, refused by the disk, damaged or extended, the bytes are the same."""

import contextlib
import dataclasses
import errno
import json
import os
import random
import shutil
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

import packing_jax
from packing_jax.commands.summary import report
from packing_jax.drive import run as driver
from packing_jax.drive.run import run, state_like
from packing_jax.errors import PackingError
from packing_jax.simulation import DEFAULT_RECORD
from packing_jax.spheres.particles import particles_of
from packing_jax.spheres.start import gather_replicas
from packing_jax.sweeps import files, store
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.compute import Stopped
from packing_jax.sweeps.manifest import Manifest
from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.rerun import rerun
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.status import status

TINY = Sweep(dim=2, particles=64, phi=(0.1, 0.3, 0.9), kick=(0.3,), steps=300, record_every=10, replicas=2, seed=5)


def like(**changes):
    return dataclasses.replace(TINY, **changes)


def go(directory, spec=TINY, **options):
    """Three replicas at a time in chunks of 50 steps, so that all sweeps here share their compiled programs."""
    return run_sweep(spec, directory, **{"batch": 3, "chunk_steps": 50, "checkpoint_seconds": 0.0} | options)


def resume(directory, spec=None, **options):
    return go(directory, spec, resume=True, **options)


def tree(directory):
    """Every file of the dataset."""
    root = directory / "results.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that nothing ever happened to."""
    directory = tmp_path_factory.mktemp("whole")
    outcome = go(directory)
    assert (outcome.done, outcome.total, outcome.failed, outcome.stopped, outcome.notes) == (6, 6, 0, None, ())
    return directory


@pytest.fixture
def copy(whole, tmp_path):
    """A sweep of one's own, finished."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


class After(Stop):
    """Stops after so many chunks."""

    def __init__(self, chunks):
        super().__init__()
        self.left = chunks

    def reason(self):
        self.left -= 1
        return "SIGTERM" if self.left <= 0 else None


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
    assert len(Manifest.read(tmp_path / "a" / "manifest.jsonl").sessions) == sessions


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
    with contextlib.closing(Manifest.lock(copy / "manifest.jsonl")):
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
        patch.setattr(files, "_exchange_in_one_call", lambda *_: False)
        rename = Path.rename
        calls = []

        def cut(self, target):
            calls.append(target)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return rename(self, target)

        patch.setattr(Path, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            resume(copy, like(replicas=3))
        assert not (copy / "results.zarr").exists()
    assert resume(copy).total == 6
    with monkeypatch.context() as patch:
        patch.setattr(files, "_exchange_in_one_call", lambda *_: False)
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


# --- cut and refused at any write -------------------------------------------------------------------------------


class Killed(BaseException):
    """What no handler catches, as a power cut between two system calls."""


def cut_at(monkeypatch, number, error, half=False):
    """Let the ``number``-th write to the disk fail, with half of it done."""
    replace, write, calls = files._replace, os.write, [0]

    def counted(act, partly):
        calls[0] += 1
        if calls[0] == number:
            if half:
                partly()
            raise error
        return act()

    monkeypatch.setattr(
        files,
        "_replace",
        lambda scratch, path, data, flushed: counted(
            lambda: replace(scratch, path, data, flushed),
            lambda: (scratch / "draft").write_bytes(data[: len(data) // 2]),
        ),
    )
    monkeypatch.setattr(
        "packing_jax.sweeps.manifest.os.write",
        lambda handle, data: counted(lambda: write(handle, data), lambda: write(handle, data[: len(data) // 2])),
    )
    return calls


def test_a_power_cut_at_any_write(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        calls = cut_at(patch, -1, Killed())
        go(tmp_path / "count", chunk_steps=300)
    assert tree(tmp_path / "count") == tree(whole)
    random.seed(1)
    moments = sorted(random.sample(range(1, calls[0] + 1), 6))
    for moment in moments:
        directory = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            cut_at(patch, moment, Killed(), half=True)
            with pytest.raises(Killed):
                go(directory, chunk_steps=300)
        marked = opened(directory)["steps_done"] > 0  # what a reader sees in between is whole
        xr.testing.assert_equal(opened(directory).where(marked), opened(whole).where(marked))
        outcome = resume(directory, chunk_steps=300)
        assert outcome.done == 6
        assert tree(directory) == tree(whole)
        assert not (directory / ".tmp").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_disk_that_says_no(whole, tmp_path, monkeypatch, number):
    for moment in (1, 5, 30):
        directory = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            cut_at(patch, moment, OSError(number, os.strerror(number)))
            with pytest.raises(PackingError, match=os.strerror(number)):
                go(directory, chunk_steps=300)
        resume(directory, chunk_steps=300)
        assert tree(directory) == tree(whole)


# --- damage -----------------------------------------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def swap(path):
    """Another cell's chunk: whole, and wrong."""
    other = path.with_name(path.name.replace("2.0.0.1", "2.0.0.0"))
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    ("name", "damage"),
    [("positions/2.0.0.1.0.0", flip), ("energy/2.0.0.1.0", truncate), ("msd/2.0.0.1.0", swap),
     ("activity/2.0.0.1.0", remove), ("positions/2.0.0.1.0.0", empty)],
)  # fmt: skip
def test_a_damaged_chunk_is_told_and_computed_again(copy, whole, name, damage):
    damage(copy / "results.zarr" / name)
    same, sentence = rerun(copy, 5)
    assert not same
    assert "cell 5 (phi 0.9, kick 0.3, batch fraction 1, replica 1) is damaged" in sentence
    said, seen = [], []
    outcome = resume(copy, on_note=said.append, on_progress=seen.append)
    assert len(said) == 1
    assert "phi 0.9, kick 0.3, batch fraction 1, replica 1 is damaged and is computed again: " in said[0]
    assert outcome.notes == tuple(said)
    assert tree(copy) == tree(whole)
    assert seen[-1].unit_steps in (0, 300 * 64)  # that cell alone
    assert rerun(copy, 5)[0]


@pytest.mark.parametrize("name", ["phi/0", "diameters/1.0", ".zattrs", "activity/.zarray", "energy/.zattrs", "time/0"])
@pytest.mark.parametrize("damage", [flip, empty])
def test_damaged_descriptions_are_written_again(copy, whole, name, damage, monkeypatch):
    monkeypatch.setattr("packing_jax.sweeps.compute.run", None)
    damage(copy / "results.zarr" / name)
    outcome = resume(copy)
    if tree(copy)[name] != tree(whole)[name]:  # a flipped bit in the space of a JSON file
        assert json.loads(tree(copy)[name]) == json.loads(tree(whole)[name])
    else:
        assert any("was damaged and has been written again" in note for note in outcome.notes)
    assert opened(copy).identical(opened(whole))


def test_both_copies_of_the_attributes_damaged(copy):
    for name in (".zattrs", ".zmetadata"):
        path = copy / "results.zarr" / name
        path.write_text(path.read_text().replace('"seed": 5', '"seed": 6'))
    with pytest.raises(PackingError, match="damaged or from an earlier version"):
        resume(copy)


@pytest.mark.parametrize("mark", ["steps_done", "absorbed_at", "failed"])
def test_damaged_marks_are_written_again(copy, whole, mark):
    flip(copy / "results.zarr" / mark / "1.0.0.0")
    resume(copy)
    assert tree(copy) == tree(whole)


def test_a_damaged_line_of_the_manifest_costs_its_cell(copy, whole):
    lines = (copy / "manifest.jsonl").read_text().splitlines()
    lines[3] = lines[3].replace('"steps": 300', '"steps": 301')
    lines[-1] = lines[-1][:60]
    (copy / "manifest.jsonl").write_text("\n".join(lines))  # no end of line either: cut off
    outcome = resume(copy)
    assert "2 lines of" in outcome.notes[0]
    assert tree(copy) == tree(whole)
    assert Manifest.read(copy / "manifest.jsonl").damaged_lines == 2


def test_a_damaged_checkpoint_costs_what_it_held(whole, tmp_path):
    go(tmp_path, stop=After(1))
    (checkpoint,) = (tmp_path / "checkpoints").glob("running-*")
    size = checkpoint.stat().st_size
    data = checkpoint.read_bytes()
    for place in (10, 400, size - 10):  # the first line, the header, a state
        checkpoint.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        outcome = resume(tmp_path, stop=After(1))
        assert any("damaged" in note for note in outcome.notes)
        for other in (tmp_path / "checkpoints").glob("running-*"):
            other.unlink()
        shutil.rmtree(tmp_path / "results.zarr")
        go(tmp_path, stop=After(1))
        (checkpoint,) = (tmp_path / "checkpoints").glob("running-*")
        data = checkpoint.read_bytes()
    resume(tmp_path)
    assert tree(tmp_path) == tree(whole)


def test_other_versions_do_not_continue_a_trajectory(whole, tmp_path, monkeypatch):
    go(tmp_path, stop=After(2))
    now = store.provenance()
    monkeypatch.setattr(store, "provenance", lambda **_: now | {"jax": "0.0.1"})
    outcome = resume(tmp_path)
    assert any(f"jax {now['jax']} -> 0.0.1" in note for note in outcome.notes)
    assert any("was made by another version" in note for note in outcome.notes)
    assert opened(tmp_path).identical(opened(whole))


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


# --- what comes from elsewhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "more than numbers"),
        ({"filters": [{"id": "pickle"}]}, "more than numbers"),
        ({"compressor": {"id": "pickle"}}, "more than numbers"),
        ({"shape": [3, 1, 1, 2, 10**15]}, "claims"),
        ({"chunks": [1, 1, 1, 1, 10**15]}, "claims"),
        ({"shape": [3, 1, 1, 2, 10**10]}, "damaged"),
    ],
)
def test_a_store_that_would_run_code_or_take_all_memory_is_refused(copy, change, words):
    path = copy / "results.zarr" / "activity" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    clock = time.monotonic()
    with pytest.raises(PackingError, match=words):
        report(copy)
    assert time.monotonic() - clock < 5
    resume(copy)  # writes the description again
    report(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"particles": 10**12}, "particles"),
        ({"replicas": 10**9}, "replicas"),
        ({"steps": 2 * 10**9, "record_every": 1}, "records"),
        ({"phi": "0.5"}, "phi"),
        ({"phi": [[0.5]]}, "phi"),
        ({"rule": ["bro"]}, "rule"),
        ({"mixture": "__import__('os')"}, "mixture"),
        ({"extended_from": [5, 4]}, "extended"),
        ({"steps": None}, "steps"),
    ],
)
def test_a_description_from_elsewhere(whole, change, words):
    attributes = description(whole)
    with pytest.raises(PackingError, match=words):
        Sweep().recorded({**attributes, **change})


def test_a_checkpoint_from_elsewhere(tmp_path):
    """States of absurd sizes, and bytes that are no checkpoint."""
    spec = TINY.checked()
    like_this = state_like(*spec.build([(0.9, 0.3, 1.0, 0)]), np.array([0, 5]), spec.record)
    name = (0.9, 0.3, 1.0, 0)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like_this)
    Checkpoints(tmp_path, "me", 0.0).save({name: state})
    assert jax.tree.all(jax.tree.map(np.array_equal, Checkpoints(tmp_path, "me", 0.0).restore(name, like_this), state))
    larger = state._replace(place=state.place._replace(coordinates=np.zeros((2, 65), np.int32)))
    Checkpoints(tmp_path, "me", 0.0).save({name: larger._replace(step=np.int32(7))})
    reader = Checkpoints(tmp_path, "me", 0.0)
    assert reader.restore(name, like_this) is None
    assert "another form" in reader.notes[0]
    for content in (b"", b"garbage", b"packing_jax checkpoint 1 99999999999999 0\n", b"\x80\x04\x95 pickle"):
        for path in (tmp_path / "checkpoints").iterdir():
            path.write_bytes(content)
        assert Checkpoints(tmp_path, "me", 0.0).restore(name, like_this) is None


# --- killed -----------------------------------------------------------------------------------------------------

KILLABLE = like(steps=6000, record_every=200, phi=(0.3, 0.9, 1.0), replicas=3)
SCRIPT = """
import sys
import jax
from packing_jax.sweeps.spheres import Sweep
from packing_jax.spheres.start import gather_replicas
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
    words = [sys.executable, "-c", SCRIPT, str(directory), repr(dataclasses.asdict(KILLABLE))]
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
