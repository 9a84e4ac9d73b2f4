"""Sweeps cut at any write, damaged, or from elsewhere: what is not right is told, and computed again."""

import errno
import json
import os
import random
import shutil
import time
from typing import NamedTuple

import jax
import numpy as np
import pytest
import xarray as xr
from tiny_sweep import TINY, After, go, opened, resume, tree

from packing_jax.commands.summary import report
from packing_jax.drive.run import state_like
from packing_jax.errors import PackingError
from packing_jax.sweeps import store
from packing_jax.sweeps.checkpoint import Checkpoints
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest
from packing_jax.sweeps.rerun import rerun
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spheres import Sweep

# --- cut and refused at any write -------------------------------------------------------------------------------


class Killed(BaseException):
    """What no handler catches, as a power cut between two system calls."""


def cut_at(monkeypatch, number, error, half=False):
    """Let the ``number``-th write to the disk fail, with half of it done."""
    replace, write, calls = Folder._write, os.write, [0]

    def counted(act, partly):
        calls[0] += 1
        if calls[0] == number:
            if half:
                partly()
            raise error
        return act()

    def put(folder, name, data, drafts, flushed):
        if name.startswith(".tmp/"):  # of a store that is not there yet
            return replace(folder, name, data, drafts, flushed)
        return counted(
            lambda: replace(folder, name, data, drafts, flushed),
            lambda: (folder.path / drafts / "draft").write_bytes(data[: len(data) // 2]),
        )

    monkeypatch.setattr(Folder, "_write", put)
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
    assert Manifest.read(Folder(copy), 6).damaged_lines == 2


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


# --- what comes from elsewhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "more than numbers"),
        ({"filters": [{"id": "pickle"}]}, "more than numbers"),
        ({"compressor": {"id": "pickle"}}, "more than numbers"),
        ({"shape": [3, 1, 1, 2, 10**15]}, "no array of this sweep"),
        ({"chunks": [1, 1, 1, 1, 10**15]}, "no array of this sweep"),
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


def test_any_changed_bit_of_a_state_is_noticed(tmp_path):
    """Bytes that do not compress are kept as they are: what reads them sees a state as whole as the one before."""

    class Standing(NamedTuple):
        place: np.ndarray
        step: np.ndarray

    state = Standing(np.random.default_rng(1).integers(-(2**31), 2**31, 500, dtype=np.int32), np.int32(7))
    name, size = (0.9, 0.3, 1.0, 0), state.place.nbytes
    Checkpoints(tmp_path, "me", 0.0).save({name: state})
    (path,) = (tmp_path / "checkpoints").iterdir()
    data = path.read_bytes()
    np.testing.assert_array_equal(Checkpoints(tmp_path, "me", 0.0).restore(name, state).place, state.place)
    for place in range(len(data) - size, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        reader = Checkpoints(tmp_path, "me", 0.0)
        assert reader.restore(name, state) is None
        assert "is damaged" in reader.notes[0]


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
