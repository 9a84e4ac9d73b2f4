"""Several processes in one folder: one of them writes, and nobody loses what another has finished."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sweep import go, resume, tree

import packing_jax
from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest
from packing_jax.sweeps.store import Store

DRIVER = Path(__file__).with_name("racing.py")


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
    import os

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
