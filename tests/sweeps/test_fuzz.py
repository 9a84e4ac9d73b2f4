"""Whatever is in the files of a store, every command ends in a sentence or the right result, in bounds and inside.

Each example damages a copy of a small store in one to three places and runs the commands that read it. Counted are
refusals (exit code 2, or 1 with the damage named), right results; and what must never be: tracebacks, commands that
hang, memory beyond the limit, control characters on the terminal, wrong results, files changed outside.
"""

import collections
import json
import os
import shutil
import sys

import hostile
import pytest
from guarded import Guarded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_sweep import go, like, tree

MEMORY, SECONDS = 2**30, 20

KINDS = (
    "bytes", "flip", "truncate", "empty", "remove", "json", "sealed json", "line", "swap", "bomb",
    "huge bomb", "sparse", "link out", "link to zero", "dangling link", "fifo", "folder", "nested", "metadata",
)  # fmt: skip


@st.composite
def damages(draw):
    """What is done, to which file by its number, and the numbers that it takes."""
    kind = draw(st.sampled_from(KINDS))
    return (
        kind,
        draw(st.integers(0, 10**6)),
        draw(st.lists(st.integers(0, 1000), min_size=1, max_size=4)),
        draw(st.sampled_from(hostile.VALUES)),
        draw(st.binary(max_size=100)),
    )


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("intact")
    assert go(directory, like(trajectory="every:100")).done == 6
    return directory


@pytest.fixture(scope="module")
def outside(intact, tmp_path_factory):
    """A whole copy that links lead to, so that who follows one finds nothing wrong."""
    directory = tmp_path_factory.mktemp("outside") / "copy"
    shutil.copytree(intact, directory)
    return directory


@pytest.fixture(scope="module")
def guarded():
    server = Guarded()
    yield server
    server.close()


def every(root):
    """All files and folders, in order, but those that only a session under way reads."""
    found = sorted(path for path in root.rglob("*") if "figures" not in path.parts and path.name != "summary.json")
    return [path for path in found if not path.is_dir() or path.name in ("results.zarr", "activity", "trajectories")]


def state(root):
    """What a folder holds, times of last changes included."""
    return {str(path): (os.lstat(path).st_mtime_ns, os.lstat(path).st_size) for path in sorted(root.rglob("*"))}


def damage(store, outside, what):
    """Do it; whether a store that is whole can come of it that is another one."""
    kind, number, where, value, data = what
    files = every(store)
    path = files[number % len(files)]
    if kind in ("json", "sealed json"):
        return _json(store, kind, number, where, value)
    if kind in ("line", "metadata"):
        return _line(store, where, value) if kind == "line" else _metadata(store, number, where, value)
    if path.is_symlink() or not path.exists() or (path.is_dir() and kind in ("flip", "truncate", "swap", "empty")):
        return False
    content = path.read_bytes() if path.is_file() and path.stat().st_size < 2**20 else b""
    siblings = [one for one in path.parent.iterdir() if one.is_file() and one.stat().st_size < 2**20]
    inside = path.relative_to(store)
    acts = {
        "bytes": lambda: hostile.put(path, data),
        "flip": lambda: hostile.put(path, _flipped(content, where[0])),
        "truncate": lambda: hostile.put(path, content[: where[0] * len(content) // 1001]),
        "empty": lambda: hostile.put(path, b""),
        "remove": lambda: hostile.clear(path),
        "swap": lambda: hostile.put(path, siblings[where[0] % len(siblings)].read_bytes()) if siblings else None,
        "bomb": lambda: hostile.put(path, hostile.bomb(2**31)),
        "huge bomb": lambda: hostile.put(path, hostile.bomb(2**35)),
        "sparse": lambda: hostile.sparse(path),
        "link out": lambda: hostile.link(path, outside / inside),
        "link to zero": lambda: hostile.link(path, "/dev/zero"),
        "dangling link": lambda: hostile.link(path, outside / "nothing"),
        "fifo": lambda: hostile.fifo(path),
        "folder": lambda: hostile.folder(path),
        "nested": lambda: hostile.put(path, b"[" * 100_000 if where[0] % 2 else hostile.spelled(hostile.NESTED)),
    }
    acts[kind]()
    return path.name == "manifest.jsonl"  # cut between two lines it is that of a sweep under way


def _flipped(content, at):
    changed = bytearray(content)
    if changed:
        changed[at % len(changed)] ^= 1 << at % 8
    return bytes(changed)


def _json(store, kind, number, where, value):
    """Another value somewhere in the description, which with a seal is a description, or in other JSON."""
    names = (
        [".zattrs"] if kind == "sealed json" else [".zmetadata", "activity/.zarray", "activity/.zattrs", "time/.zarray"]
    )
    path = store / "results.zarr" / names[number % len(names)]
    try:
        right = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if path.is_symlink() or not isinstance(right, dict):
        return False
    wrong = hostile.changed(right, where[:2], value)
    if kind == "sealed json" and isinstance(wrong, dict):
        try:
            hostile.describe(store / "results.zarr", wrong)
        except (OSError, ValueError, KeyError, TypeError):  # NaN has no seal
            hostile.put(path, hostile.spelled(wrong))
        return True
    hostile.put(path, hostile.spelled(wrong))
    return False


def _line(store, where, value):
    """Another value somewhere in a line of the manifest, which has its checksum."""
    path = store / "manifest.jsonl"
    if not path.is_file() or path.is_symlink() or path.stat().st_size > 2**20:
        return False
    lines = path.read_bytes().splitlines(keepends=True)
    at = where[0] % len(lines) if lines else 0
    try:
        lines[at] = hostile.line(hostile.changed(json.loads(lines[at][33:]), where[1:], value))
    except (ValueError, IndexError, RecursionError):
        return False
    path.write_bytes(b"".join(lines))
    return True


def _metadata(store, number, where, value):
    """An array that says it is larger, and a chunk that is as large as it says."""
    name = ("activity", "positions", "time", "diameters", "steps_done")[number % 5]
    path = store / "results.zarr" / name / ".zarray"
    try:
        array = json.loads(path.read_bytes())
        size = 2 ** (20 + where[0] % 20)
        array["shape"][-1] = array["chunks"][-1] = size
        if path.is_symlink():
            return False
        path.write_bytes(hostile.spelled(array))
        for chunk in (store / "results.zarr" / name).iterdir():
            if not chunk.name.startswith("."):
                hostile.put(chunk, hostile.bomb(min(size * 8, 2**34)))
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        pass
    return False


# --- what comes of it -----------------------------------------------------------------------------------------


def commands(directory):
    place = str(directory)
    return [
        ["status", place, "--log", "json"], ["status", place], ["status", place, "--verify"], ["report", place],
        ["movie", place, "--cell", "0", "--out", str(directory / "movie.gif")],
    ]  # fmt: skip


def results(directory):
    """What the commands made, without what names the directory."""
    made = {}
    for name in ("summary.json", "movie.gif"):
        path = directory / name
        if path.is_file():
            made[name] = path.read_bytes()
    return made


def without_picture(summary):
    """The numbers of a report; a damaged chunk of the positions costs the picture alone, and a note says so."""
    value = json.loads(summary)
    value["notes"] = [note for note in value["notes"] if not note.startswith("No figure packing.png")]
    return value


class Tally:
    """Counts of what came out, and the largest memory and time."""

    def __init__(self, right):
        self.right, self.counts, self.taken = right, collections.Counter(), 0

    def judge(self, directory, ran, another):
        """Refuse whatever is neither a sentence nor the right result."""
        for words, one in zip(commands(directory), ran, strict=False):
            what = words[0] + "".join(word for word in words[2:3] if word.startswith("--v"))
            self.counts["inputs"] += 1
            self.taken = max(self.taken, one.taken)
            assert one.code in (0, 1, 2), f"{words}: {one}"
            assert one.taken <= MEMORY, f"{words}: {one}"
            assert all(char.isprintable() or char == "\n" for char in one.out + one.err), f"{words}: {one}"
            if one.code == 2:
                assert one.err.startswith("packing-jax: "), one
                assert one.err.count("\n") == 1, one
                assert "not enough memory" not in one.err, one
                self.counts["refused"] += 1
            elif one.code == 1:
                assert words[0] == "status", one
                assert "--resume" in one.out, one
                self.counts["damage named"] += 1
            else:
                self.counts[f"right: {what}"] += 1
                if not another:
                    self.same(directory, words, one)
        assert len(ran) == len(commands(directory))

    def same(self, directory, words, one):
        made = results(directory)
        if words[0] == "report":
            assert without_picture(made["summary.json"]) == without_picture(self.right["summary.json"])
        elif words[0] == "movie":
            assert made["movie.gif"] == self.right["movie.gif"]
        elif "json" in words:
            assert json.loads(one.out) == self.right["status"]


def trial(intact, outside, guarded, place, tally, whats):
    """One example; whether what came of it may be another store that is whole."""
    store = place / "store"
    hostile.clear(store)
    shutil.copytree(intact, store)
    another = max([damage(store, outside, what) for what in whats])
    before = state(outside.parent)
    ran = guarded(*commands(store), memory=MEMORY, seconds=SECONDS)
    assert state(outside.parent) == before
    tally.judge(store, ran, another)
    return another


@pytest.fixture(scope="module")
def tally(intact, guarded):
    ran = guarded(*commands(intact))
    assert [one.code for one in ran] == [0] * 5, ran
    right = results(intact) | {"status": json.loads(ran[0].out)}
    for name in ("summary.json", "movie.gif", "figures"):
        hostile.clear(intact / name)
    found = Tally(right)
    yield found
    sys.stderr.write(f"\n{dict(found.counts)}, at most {found.taken / 2**20:.0f} MiB; nothing else\n")


def fuzzed(count):
    return settings(
        max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
    )


@fuzzed(16)
@given(whats=st.lists(damages(), min_size=1, max_size=3))
def test_a_store_from_elsewhere(intact, outside, guarded, tally, tmp_path_factory, whats):
    place = tmp_path_factory.getbasetemp() / "fuzz"
    place.mkdir(exist_ok=True)
    trial(intact, outside, guarded, place, tally, whats)


@pytest.mark.validation
@fuzzed(500)
@given(whats=st.lists(damages(), min_size=1, max_size=3), computed=st.integers(0, 9))
def test_many_stores_from_elsewhere(intact, outside, guarded, tally, tmp_path_factory, whats, computed):
    """One in ten is gone on with as well, which ends in the same bytes, or in a sentence."""
    place = tmp_path_factory.getbasetemp() / "fuzz"
    place.mkdir(exist_ok=True)
    another = trial(intact, outside, guarded, place, tally, whats)
    if computed == 0:
        before = state(outside.parent)
        store = str(place / "store")
        words = ["sweep", "--resume", store, "--log", "quiet"]
        (ran,) = guarded(words, memory=2**31, seconds=200)
        assert state(outside.parent) == before
        assert ran.code in (0, 2, 4), ran
        tally.counts[f"resume: {ran.code}"] += 1
        if ran.code == 0 and not another:
            assert tree(place / "store") == tree(intact)
