"""Sweeps on many processes: the bytes of one process, whatever is killed, stopped or late."""

import dataclasses
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import packing_jax
from packing_jax.errors import PackingError
from packing_jax.sweeps.cluster import Cluster, connected
from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep

SPEC = Sweep(dim=2, particles=64, phi=(0.1, 0.9, 1.0), kick=(0.3,), steps=6000, record_every=300, replicas=4, seed=5)
OPTIONS = {"batch": 4, "chunk_steps": 200, "checkpoint_seconds": 0.0}


def tree(directory):
    root = directory / "results.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What workers get: packing_jax, one device, and one cache of compiled programs for all."""
    changes = {
        "PYTHONPATH": str(Path(packing_jax.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def client(environment):
    """Three worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=3, processes=True, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as here,
        Client(here, set_as_default=False) as client,  # others read stores with dask as well
    ):
        yield client


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same sweep in this process."""
    directory = tmp_path_factory.mktemp("whole")
    assert run_sweep(SPEC, directory, **OPTIONS).done == 12
    return directory


def test_one_worker_killed_and_another_too_late(client, whole, tmp_path, monkeypatch):
    """The store of one process byte for byte; what arrives a second time is thrown away, garbled or not."""
    pids = client.run(os.getpid)
    killed, late = [], []
    take = Cluster._take

    def kill(now):
        if now.unit_steps > 0 and not killed:
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

    def twice(self, folder, entries):
        take(self, folder, entries)
        if entries and not late:
            for name in ("positions 0.0.0.0.0.0", "activity 0.0.0.0.0"):
                place = self.store.folder.path / self._place / folder
                place.mkdir(exist_ok=True)
                (place / name).write_bytes(b"late")
            late.append(entries)
            take(self, folder, entries)

    monkeypatch.setattr(Cluster, "_take", twice)
    outcome = run_sweep(SPEC, tmp_path, client=client, on_progress=kill, **OPTIONS)
    assert (outcome.done, outcome.failed, outcome.stopped) == (12, 0, None)
    assert killed
    assert late
    assert tree(tmp_path) == tree(whole)
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert sum('["cell"' in line for line in lines) == 12
    assert not (tmp_path / ".tmp").exists()
    assert not list((tmp_path / "checkpoints").glob("running-*"))


def test_stopped_and_gone_on_with_by_one_process(client, whole, tmp_path):
    stop = Stop()

    def end(now):
        if now.unit_steps > 0:
            stop.signal = signal.SIGTERM

    outcome = run_sweep(SPEC, tmp_path, client=client, on_progress=end, stop=stop, **OPTIONS)
    assert outcome.stopped == "SIGTERM"
    assert outcome.done < 12
    assert list((tmp_path / "checkpoints").glob("running-*"))
    assert run_sweep(None, tmp_path, resume=True, **OPTIONS).done == 12
    assert tree(tmp_path) == tree(whole)


def test_a_worker_whose_session_is_over_writes_nothing(client, whole, tmp_path):
    """The owner is gone while a worker is in the middle of it: it finds no place to write, and stops."""
    shutil.copytree(whole, tmp_path / "copy")
    before = tree(tmp_path / "copy")
    from packing_jax.sweeps.cluster import Task, work

    (tmp_path / "copy" / ".tmp" / "session-1").mkdir(parents=True)
    # so many steps that it is under way whenever it is looked at, of cells that are not absorbed
    endless = dataclasses.replace(SPEC, steps=10**8, record_every=5 * 10**6).checked()
    cells = tuple((1, 0, 0, replica) for replica in range(4))
    said = queue.SimpleQueue()
    client.subscribe_topic("session-1", lambda event: said.put(event[1]))
    future = client.submit(work, Task(endless, cells, str(tmp_path / "copy"), "session-1", 4, 200, 1e9), pure=False)
    assert said.get(timeout=120)["steps"] > 0
    assert not future.done()
    shutil.rmtree(tmp_path / "copy" / ".tmp")
    ended = future.result(timeout=120)
    assert ended.seen
    assert ended.arrived == []
    assert tree(tmp_path / "copy") == before
    assert not (tmp_path / "copy" / ".tmp").exists()


SBATCH = """#!/bin/sh
cp "$1" "$0.$$"
setsid bash "$0.$$" > "$0.$$.log" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -- "-$1"
"""


@pytest.mark.validation  # half a minute for workers to start twice
def test_the_lines_for_slurm(environment, whole, tmp_path):
    """Those of the documentation, with two jobs of a small sweep, where ``sbatch`` starts one at once."""
    pytest.importorskip("dask_jobqueue")
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    page = (Path(__file__).parents[2] / "docs" / "howto" / "machines.md").read_text()
    (lines,) = re.findall(r"```python\n(from dask[^`]*SLURMCluster[^`]*)```", page)
    small = f"{SPEC!r}, {str(tmp_path / 'sweep')!r}"
    for old, new in (("jobs=10", "jobs=2"), ('Sweep(phi=(0.59, 0.6, 0.61), replicas=64), "big"', small)):
        assert old in lines
        lines = lines.replace(old, new)
    done = subprocess.run(
        [sys.executable, "-c", lines + "jobs.close()\n"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.glob("sbatch.*.log"))) == 2
    assert tree(tmp_path / "sweep") == tree(whole)


def test_words_that_exclude_each_other_and_nobody_there():
    with pytest.raises(PackingError, match="not both"), connected("tcp://localhost:1", 2):
        pass
    with pytest.raises(PackingError, match="at least 1"), connected(None, 0):
        pass
    with pytest.raises(PackingError, match="no Dask scheduler answers"), connected("nonsense://localhost:1", None):
        pass
    with connected(None, None) as none:
        assert none is None


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PackingError, match=r"packing_jax\[cluster\]"), connected(None, 2):
        pass
