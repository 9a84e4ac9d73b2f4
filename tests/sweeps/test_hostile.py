"""Stores that somebody made to do harm, and valid files in the wrong place: each is told, within bounds."""

import json
import os
import shutil
import struct
import time
from pathlib import Path

import hostile
import numpy as np
import pytest
import xarray as xr
from guarded import Guarded
from tiny_sweep import go, like, opened, resume, tree

from packing_jax.commands.main import main
from packing_jax.criticality import open_results
from packing_jax.errors import PackingError, printable
from packing_jax.sweeps.manifest import digest
from packing_jax.sweeps.schema import CODEC, description

MEMORY = 2**30  # beyond what a command has when it begins
LAST_CELL = r"phi 0\.9, kick 0\.3, batch fraction 1, replica 1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    assert go(directory, like(trajectory="every:100")).done == 6
    return directory


@pytest.fixture(scope="module")
def guarded():
    server = Guarded()
    yield server
    server.close()


def refused(ran, *words, code=2):
    """A sentence, and little memory."""
    assert ran.code == code, ran
    assert ran.taken < MEMORY, ran
    said = ran.err if code == 2 else ran.out
    for word in words:
        assert word in said, ran
    if code == 2:
        assert said.startswith("packing-jax: "), ran
        assert said.count("\n") == 1, ran


def rewritten(path, act):
    """A JSON file after something was done to it."""
    value = json.loads(path.read_bytes())
    act(value)
    path.write_bytes(hostile.spelled(value))


# --- nothing without a bound ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2**31, 2**33])
def test_a_chunk_that_decompresses_to_gigabytes(copy, guarded, size):
    hostile.put(copy / "results.zarr/activity/2.0.0.1.0", hostile.bomb(size))
    for command, code in ((["report"], 2), (["status", "--verify"], 1)):
        (ran,) = guarded([command[0], str(copy), *command[1:]], memory=MEMORY)
        refused(ran, "phi 0.9, kick 0.3, batch fraction 1, replica 1", code=code)


@pytest.mark.parametrize("name", ["time", "phi", "positions", "diameters"])
def test_an_array_of_two_billion_entries(copy, guarded, name):
    array = copy / "results.zarr" / name

    def larger(value):
        value["shape"][-1] = value["chunks"][-1] = 2**31

    rewritten(array / ".zarray", larger)
    for chunk in array.glob("[0-9]*"):
        hostile.put(chunk, hostile.bomb(2**33))
    for ran in guarded(["report", str(copy)], ["status", str(copy), "--verify"], memory=MEMORY):
        refused(ran, name, "packing-jax sweep --resume", code=ran.code)
        assert ran.code in (1, 2)


def test_attributes_and_arrays_that_agree_about_too_much(copy, guarded):
    """A hundred million particles, and files of a few kB that hold them."""
    hostile.describe(copy / "results.zarr", description(copy) | {"particles": 10**8, "digests": None})
    _forget(copy, "trajectory")
    for name in ("positions", "diameters"):

        def larger(value, axis={"positions": -2, "diameters": -1}[name]):
            value["shape"][axis] = value["chunks"][axis] = 10**8

        rewritten(copy / "results.zarr" / name / ".zarray", larger)
        for chunk in (copy / "results.zarr" / name).glob("[0-9]*"):
            hostile.put(chunk, hostile.bomb(10**8 * (8 if name == "positions" else 4)))
    status, verified, report = guarded(
        ["status", str(copy)], ["status", str(copy), "--verify"], ["report", str(copy)], memory=MEMORY
    )
    assert status.code in (0, 1)
    refused(verified, "which no measured data do", code=1)
    assert report.code in (0, 2)
    assert max(one.taken for one in (status, verified, report)) < MEMORY


@pytest.mark.parametrize("make", [hostile.fifo, lambda path: hostile.link(path, "/dev/zero"), hostile.sparse])
@pytest.mark.parametrize(
    "name",
    ["results.zarr/.zattrs", "results.zarr/activity/.zarray", "results.zarr/activity/2.0.0.1.0", "results.zarr/time/0",
     "results.zarr/positions/2.0.0.1.0.0", "manifest.jsonl", "trajectories/phi0.9_kick0.3_bf1.0_replica1.gsd"],
)  # fmt: skip
def test_what_is_no_file_makes_nobody_wait(copy, guarded, name, make):
    if name.endswith(".zattrs"):  # the attributes have another copy
        make(copy / "results.zarr/.zmetadata")
    make(copy / name)
    commands = [["status", str(copy)], ["report", str(copy)], ["movie", str(copy), "--cell", "5"]]
    ran = guarded(*commands, ["status", str(copy), "--verify"], memory=MEMORY, seconds=15)
    assert {one.code for one in ran} <= {0, 1, 2}, ran
    assert ran[-1].code in (1, 2), ran
    assert max(one.taken for one in ran) < MEMORY, ran
    assert any(word in ran[-1].out + ran[-1].err for word in (Path(name).name, ".zmetadata"))


def test_what_is_no_file_among_those_of_a_session(copy, guarded):
    """Where a sweep that runs says how it goes, and where its replicas stand."""
    hostile.fifo(copy / "progress.json")
    handle = os.open(copy / "manifest.jsonl", os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
        (ran,) = guarded(["status", str(copy)], memory=MEMORY, seconds=10)
        assert (ran.code, "running" in ran.out) == (0, True)
    finally:
        os.close(handle)
    hostile.fifo(copy / "checkpoints" / "running-1.ckpt")
    hostile.link(copy / "checkpoints" / "running-2.ckpt", "/dev/zero")
    assert resume(copy).done == 6


@pytest.mark.parametrize("name", ["phi", "kick"])
def test_status_of_very_many_values(copy, guarded, name):
    values = np.linspace(0.01, 0.2, 200_000).tolist()
    hostile.describe(copy / "results.zarr", description(copy) | {name: values, "replicas": 1})
    clock = time.monotonic()
    (ran,) = guarded(["status", str(copy)], memory=2**30, seconds=15)
    assert ran.code in (0, 1, 2), ran
    assert time.monotonic() - clock < 10


def test_status_of_very_many_sessions(copy, guarded):
    line = hostile.line(["session", {"command": "packing-jax sweep " * 5, "started": "", "versions": {}, "id": ""}])
    with (copy / "manifest.jsonl").open("ab") as file:
        file.write(line * 150_000)
    (ran,) = guarded(["status", str(copy)], memory=MEMORY, seconds=5)
    refused(ran, "manifest.jsonl has", "at most", "for a sweep of 6 cells")


def test_a_sweep_that_was_extended_very_often(copy, capsys):
    attributes = description(copy) | {"steps": 10**6, "extended_from": list(range(1, 150_001))}
    hostile.describe(copy / "results.zarr", attributes)
    clock = time.monotonic()
    assert main(["rerun", str(copy), "--cell", "0"]) == 2
    assert "extended 150000 times; the limit is 1000" in capsys.readouterr().err
    assert time.monotonic() - clock < 10


@pytest.mark.parametrize(("place", "number"), [(16, 2**40), (32, 2**40), (16, 2**63), (8, 2**50)])
def test_a_trajectory_that_claims_a_large_index(copy, guarded, place, number):
    file = copy / "trajectories/phi0.9_kick0.3_bf1.0_replica1.gsd"
    data = bytearray(file.read_bytes())
    struct.pack_into("<Q", data, place, number)
    file.write_bytes(data)
    _forget(copy, "trajectory")
    (ran,) = guarded(["movie", str(copy), "--cell", "5"], memory=MEMORY)
    refused(ran, "replica1.gsd is damaged")


def _forget(copy, what):
    """Rewrite the manifest as somebody would who knows how its lines are made."""
    path = copy / "manifest.jsonl"
    lines = [json.loads(line[33:]) for line in path.read_bytes().splitlines()]
    for kind, value in lines:
        if kind == "cell":
            value[what] = ""
    path.write_bytes(b"".join(map(hostile.line, lines)))


@pytest.mark.parametrize("size", [1, 200, 300, 70_000, 2**20])
def test_what_a_frame_says_of_its_size_is_its_size(size):
    from packing_jax.sweeps.cells import _decoded_size

    assert _decoded_size(CODEC.encode(np.zeros(size, np.uint8))) == size
    assert _decoded_size(CODEC.encode(np.random.default_rng(1).bytes(size))) == size
    assert len(CODEC.decode(hostile.bomb(size))) == size
    for cut in range(5):
        assert _decoded_size(hostile.bomb(size)[:cut]) is None


# --- what is read is checked ----------------------------------------------------------------------------------


def test_a_chunk_of_another_cell(copy, capsys):
    """Whole and wrong; where nothing of it is read, --verify alone sees it."""
    for name, sees in (("activity", True), ("msd", False)):
        place = copy / "results.zarr" / name
        (place / "2.0.0.1.0").write_bytes((place / "2.0.0.0.0").read_bytes())
        if sees:
            where = f"the finished cell at {LAST_CELL} is damaged: .*activity/2.0.0.1.0 is not what was written there"
            with pytest.raises(PackingError, match=f"{where}; packing-jax sweep --resume .* computes it again"):
                open_results(copy)
            assert main(["report", str(copy)]) == 2
        else:
            assert main(["report", str(copy)]) == 0
        assert main(["status", str(copy)]) == 0
        capsys.readouterr()
        assert main(["status", str(copy), "--verify"]) == 1
        assert "replica 1 is damaged: " in capsys.readouterr().out
        assert resume(copy).done == 6
        assert main(["status", str(copy), "--verify"]) == 0


def test_other_arrays_in_the_place_of_a_table(copy, capsys):
    for name, other in (("diameters/2.0", "diameters/0.0"), ("time/0", None), ("phi/0", None)):
        path = copy / "results.zarr" / name
        before = path.read_bytes()
        if other:
            path.write_bytes((copy / "results.zarr" / other).read_bytes())
        else:
            values = opened(copy)[name.split("/")[0]].values.copy()
            values[1] += 1 if values.dtype.kind == "i" else 0.001
            path.write_bytes(CODEC.encode(values))
        assert main(["status", str(copy), "--verify"]) == 1
        assert f"{path.parent} is not what was written there" in capsys.readouterr().out
        path.write_bytes(before)


def test_numbers_of_another_type_and_axes_of_another_order(copy):
    """The bytes are those that were written, and the numbers are not."""
    for name, file, change in (
        ("activity", ".zarray", {"dtype": "<i4"}),
        ("diameters", ".zarray", {"dtype": "<i4"}),
        ("activity", ".zattrs", {"_ARRAY_DIMENSIONS": ["phi", "batch_fraction", "kick", "replica", "time"]}),
    ):
        path = copy / "results.zarr" / name / file
        before = path.read_bytes()
        rewritten(path, lambda value, change=change: value.update(change))
        with pytest.raises(PackingError, match=name):
            open_results(copy)[name].load()
        path.write_bytes(before)
    open_results(copy).load()


def test_positions_are_checked_when_they_are_read(copy, whole):
    results = open_results(copy)
    place = copy / "results.zarr" / "positions"
    (place / "2.0.0.1.0.0").write_bytes((place / "2.0.0.0.0.0").read_bytes())
    right = opened(whole)["positions"]
    xr.testing.assert_equal(results["positions"][2, 0, 0, 0].load(), right[2, 0, 0, 0].drop_attrs())
    with pytest.raises(PackingError, match=LAST_CELL):
        results["positions"].load()


def test_parts_of_arrays_that_stay_on_the_disk(whole):
    """Numbers, slices, steps backwards and lists, as xarray alone reads them."""
    here, there = open_results(whole), opened(whole)
    for name in ("activity", "positions", "diameters", "energy"):
        for at in (
            {}, {"phi": 1}, {"phi": [2, 0], "replica": slice(None, None, -1)}, {"phi": slice(0, 2), "replica": 1},
        ):  # fmt: skip
            place = {dim: key for dim, key in at.items() if dim in here[name].dims}
            np.testing.assert_array_equal(here[name].isel(place).values, there[name].isel(place).values)
    last = here["positions"].isel(phi=2, particle=[5, 3], axis=-1)
    np.testing.assert_array_equal(last.values, there["positions"].values[2, ..., [5, 3], -1].transpose(1, 2, 3, 0))
    assert here.drop_vars("steps_done").load().identical(there.drop_vars("steps_done"))


def test_a_trajectory_of_another_cell(copy, capsys):
    files = sorted((copy / "trajectories").glob("*.gsd"))
    shutil.copyfile(files[4], files[5])
    assert main(["movie", str(copy), "--cell", "5"]) == 2
    assert f"{files[5]} is not what was written there" in capsys.readouterr().err
    assert main(["status", str(copy), "--verify"]) == 1
    assert resume(copy, like(trajectory="every:100")).done == 6
    assert main(["status", str(copy), "--verify"]) == 0


@pytest.mark.parametrize("name", ["activity/2.0.0.1.0", "energy/0.0.0.0.0", "phi/0", "time/0", "diameters/1.0"])
@pytest.mark.parametrize("act", [hostile.clear, hostile.folder, lambda path: hostile.put(path, b"")])
def test_status_sees_what_is_missing(copy, name, act, capsys):
    act(copy / "results.zarr" / name)
    if name == "diameters/1.0" and act is hostile.clear:
        return  # zarr writes no blank chunk
    assert main(["status", str(copy)]) == 1
    said = capsys.readouterr().out
    assert name in said
    assert f"packing-jax sweep --resume {copy}" in said


def test_a_link_to_the_same_file_elsewhere(copy, whole, capsys):
    """What is outside is not read, whatever it holds."""
    for name in ("results.zarr/activity/2.0.0.1.0", "results.zarr/activity", "manifest.jsonl"):
        path = copy / name
        aside = path.rename(path.with_name("aside")) if name != "results.zarr/activity" else path.rename(copy / "aside")
        path.symlink_to(whole / name)
        assert main(["report", str(copy)]) == 2
        assert f"{path} is a link" in capsys.readouterr().err
        path.unlink()
        aside.rename(path)


# --- words and numbers ----------------------------------------------------------------------------------------


def test_a_terminal_is_not_commanded(copy, capsys):
    escape = "\x1b]0;mine\x07\x1b[2J\u202e\ud800\r\nall is well"
    attributes = description(copy) | {"kind": escape, "own": {escape: 1}, "command": escape}
    hostile.describe(copy / "results.zarr", attributes)
    path = copy / "manifest.jsonl"
    lines = [json.loads(line[33:]) for line in path.read_bytes().splitlines()]
    for kind, value in lines[2:]:
        if kind == "cell":
            value |= {"state": "failed", "reason": escape}
    path.write_bytes(b"".join(map(hostile.line, lines)))
    for words in (["status"], ["status", "--log", "json"], ["report"], ["rerun", "--cell", "0"], ["sweep", "--resume"]):
        main([words[0], *words[1:], str(copy)] if words[0] != "rerun" else ["rerun", str(copy), "--cell", "0"])
        said = capsys.readouterr()
        for text in (said.out, said.err):
            assert all(char.isprintable() or char == "\n" for char in text), text
            assert "\nall is well" not in text


def test_printable():
    assert printable("phi 0.3 äß \u03c6") == "phi 0.3 äß \u03c6"
    assert printable("a\x1b[2J\nb\ud800") == "a\\x1b[2J\\nb\\ud800"


@pytest.mark.parametrize("value", [float("inf"), 10**400, -(10**400), float("nan")])
def test_numbers_that_json_alone_has(copy, value, capsys):
    for name in ("steps", "phi", "replicas", "particles"):
        attributes = description(copy)
        wrong = [value] if name == "phi" else value
        text = json.dumps({**{key: one for key, one in attributes.items() if key != "seal"}, name: wrong})
        plain = json.loads(text)
        seal = digest(json.dumps(plain, sort_keys=True).encode())
        shutil.copytree(copy, copy.parent / name)
        for file in (".zattrs", ".zmetadata"):
            (copy.parent / name / "results.zarr" / file).write_text(text[:-1] + f', "seal": "{seal}"}}')
        for command in (["status"], ["report"], ["rerun", "--cell", "0"], ["movie"]):
            assert main([command[0], str(copy.parent / name), *command[1:]]) in (0, 1, 2), (name, command)
            said = capsys.readouterr().err
            assert said == "" or said.startswith("packing-jax: ")


# --- mended ---------------------------------------------------------------------------------------------------


def test_a_folder_in_the_place_of_any_file_is_mended(copy, whole):
    for name in (
        "results.zarr/.zattrs", "results.zarr/activity/.zarray", "results.zarr/diameters/0.0",
        "results.zarr/positions/2.0.0.1.0.0", "progress.json", "trajectories/phi0.1_kick0.3_bf1.0_replica0.gsd",
    ):  # fmt: skip
        hostile.folder(copy / name)
    for file in (copy / "checkpoints").iterdir():
        hostile.folder(file)
    assert resume(copy).done == 6
    assert tree(copy) == tree(whole)
    for name in ("progress.json", "trajectories/phi0.1_kick0.3_bf1.0_replica0.gsd"):
        assert (copy / name).is_file()
    assert main(["status", str(copy), "--verify"]) == 0
