"""Several processes in one folder: one of them writes, and nobody loses what another has finished."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_sweep import go, resume, tree

import packing_jax
from packing_jax.commands import options
from packing_jax.commands.main import main
from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest

DRIVER = Path(__file__).with_name("racing.py")


def once(act, done=0):
    """What is called with the progress the first time that so many cells are done."""
    called = []

    def progress(now):
        if now.done >= done and not called:
            called.append(now)
            act(now)

    return progress


def played(what, number, directory, environment):
    """What the processes of racing.py did; a traceback of one of them is a fault too."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", DRIVER, what, str(number), "1", directory],
        env=environment, capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["faults"] == {}, done.stderr
    return said["outcomes"]


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(packing_jax.__file__).parents[1]))
    return dict(os.environ)


@pytest.mark.parametrize("number", [25, pytest.param(1000, marks=pytest.mark.validation)])
def test_sweeps_that_are_begun_at_the_same_time(tmp_path, environment, number):
    """Three processes begin, go on with or fail in one new folder; what any of them finished is there at the end."""
    outcomes = played("races", number, tmp_path, environment)
    assert outcomes["begin: done"] > number / 3
    assert outcomes["begin: another process is writing"] > 0
    assert outcomes["begin: exists already"] > 0


@pytest.mark.parametrize("number", [10, pytest.param(100, marks=pytest.mark.validation)])
def test_a_sweep_that_is_killed_while_it_is_begun(tmp_path, environment, number):
    """Before any of its system calls; what is there is begun anew, or gone on with."""
    outcomes = played("kills", number, tmp_path, environment)
    assert {*outcomes} <= {"killed: works", "killed: exists already, works"}
    assert sum(outcomes.values()) == number


def test_two_sweeps_in_one_process(tmp_path):
    """The one that comes second touches nothing, and what was there goes on."""

    def second(_):
        with pytest.raises(PackingError, match="exists already"):
            go(tmp_path)
        with pytest.raises(PackingError, match="another process is writing"):
            resume(tmp_path)

    assert go(tmp_path, on_progress=once(second)).done == 6
    assert resume(tmp_path).notes == ()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_manifest_that_disappears_ends_the_sweep(tmp_path, whole, replaced):
    """At the next cell that is finished, of which nothing is written; what is there can be gone on with."""
    manifest, seen = tmp_path / "new" / "manifest.jsonl", []

    def act(now):
        manifest.rename(tmp_path / "aside")
        if replaced:
            manifest.write_bytes((tmp_path / "aside").read_bytes())
        seen.append((now.done, tree(tmp_path / "new")))

    with pytest.raises(PackingError, match=r"manifest\.jsonl was removed or replaced while this sweep wrote") as caught:
        go(tmp_path / "new", on_progress=once(act, done=2))
    ((done, before),) = seen
    assert f"; {done} cells were finished, and --resume" in str(caught.value)
    assert tree(tmp_path / "new") == before
    assert manifest.exists() == replaced
    outcome = resume(tmp_path / "new")
    assert outcome.done == 6
    assert tree(tmp_path / "new") == tree(whole)


def test_a_folder_that_disappears_ends_the_sweep(tmp_path, capsys, monkeypatch):
    """And another one of the same name is none of its business."""

    def act(_):
        (tmp_path / "new").rename(tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone")
        (tmp_path / "new").mkdir()

    run = options.run_sweep
    monkeypatch.setattr(options, "run_sweep", lambda *args, **words: run(*args, **words | {"on_progress": once(act)}))
    words = ["--dim", "2", "--particles", "64", "--phi", "0.3", "--kick", "0.3", "--steps", "300", "--replicas", "1"]
    assert main(["sweep", *words, "--out", str(tmp_path / "new")]) == 2
    assert "was removed or replaced" in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path):
    """Whoever waited for it gets that of the file which is there."""
    folder = Folder(tmp_path)
    first = Manifest.lock(folder, 6)
    said = []

    def wait():
        try:
            Manifest.lock(folder, 6)
        except PackingError as error:
            said.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    folder.remove("manifest.jsonl")
    second = Manifest.lock(folder, 6)
    first.close()
    waiting.join()
    assert not first.is_held()
    assert second.is_held()
    assert said == [f"another process is writing {tmp_path}; wait until it ends, or stop it"]
    second.close()
