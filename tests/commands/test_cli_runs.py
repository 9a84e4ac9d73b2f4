"""The command line: what it does, and how it ends when it is told to."""

import errno
import json
import shlex
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import SWEEP, SYSTEM, TRANSITION, child, one_sentence, opened

from packing_jax.sweeps.folder import Folder

# --- what it does ---------------------------------------------------------------------------------------------


def test_a_sweep_across_a_transition(packing, tmp_path):
    arguments = ["sweep", *TRANSITION, "--out", "my results", "--log", "bar"]
    done = packing(*arguments)
    assert done.code == 0
    assert "10/10 done" in done.err  # the progress bar
    assert done.err.splitlines()[-1] == "my results: 10 of 10 cells are done"
    assert "threshold" in done.out
    assert "my results/summary.json" in done.out
    summary = json.loads((tmp_path / "my results" / "summary.json").read_text())
    (row,) = (row for row in summary["phi_c"] if row["method"] == "threshold")
    assert (row["kick"], row["batch_fraction"]) == (0.3, 1.0)
    assert summary["zero_kick_limit"] is None
    assert (summary["runs"], summary["missing"], summary["failed"]) == (10, 0, 0)
    drawn = {path.name for path in (tmp_path / "my results" / "figures").iterdir()}
    assert drawn == {"activity_vs_phi.png", "activity_vs_time.png", "packing.png"}
    results = opened(tmp_path / "my results")
    assert results["phi"].values.tolist() == [0.1, 0.3, 0.5, 0.7, 0.9]
    # the largest phi whose activity ends below 0.1; the crossing is somewhere in the gap of 0.2 above it
    late = results["activity"].isel(time=slice(-10, None)).mean(["replica", "time"]).squeeze()
    assert row["value"] == late["phi"].where(late < 0.1).max()
    assert row["statistical"] == pytest.approx(0.2 / np.sqrt(3))  # that of the gap alone: replicas agree on it
    # what is stored as the command runs it again
    assert shlex.split(results.attrs["command"]) == ["packing-jax", *arguments]
    again = packing(*arguments)
    one_sentence(again, "exists already")
    # the table once more from the store
    told = packing("report", "my results")
    assert (told.code, told.err) == (0, "")
    assert told.out == done.out
    # and where it stands
    look = packing("status", "my results")
    assert (look.code, look.err) == (0, "")
    assert look.out.startswith("my results: complete, 10 of 10 cells done (")
    assert "phi_c so far: between" in look.out
    facts = json.loads(packing("status", "my results", "--log", "json").out)
    gone = int((results["absorbed_at"] >= 0).sum())
    assert (facts["absorbed"], facts["active"], facts["missing"], facts["running"]) == (gone, 10 - gone, 0, False)
    assert [session["command"] for session in facts["sessions"]] == [results.attrs["command"]]
    # one cell again
    fine = packing("rerun", "my results", "--cell", "9")
    assert (fine.code, fine.err) == (0, "")
    assert "cell 9 (phi 0.9, kick 0.3, batch fraction 1, replica 1) comes out again with the same bytes" in fine.out
    one_sentence(packing("rerun", "my results", "--cell", "10"), "no cell 10", "0 to 9")
    # other words than those of the store
    refused = packing("sweep", "--resume", "my results", "--seed", "1", "--steps", "200", "--rule", "ro")
    one_sentence(refused, "rule is bro there and ro here", "seed is 0 there and 1 here", "300 steps there and 200 here")
    one_sentence(packing("sweep", "--resume", "my results", "--out", "x"), "omit --out")
    # nothing is left to do
    again = packing("sweep", "--resume", "my results", "--log", "json")
    assert again.code == 0
    last = json.loads(again.err.splitlines()[-1])
    assert (last["event"], last["done"], last["missing"], last["failed"]) == ("end", 10, 0, 0)


def test_a_run(packing, tmp_path):
    """The same replica as in the sweep, in the default directory."""
    done = packing("run", *SYSTEM, "--phi", "0.9", "--kick", "0.3", "--replicas", "3")
    assert done.code == 0
    results = opened(tmp_path / "packing-run")
    assert dict(results.sizes) == {
        "phi": 1, "kick": 1, "batch_fraction": 1, "replica": 3, "time": 31, "particle": 64, "axis": 2
    }  # fmt: skip
    assert np.all(results["steps_done"] == 300)
    assert (tmp_path / "packing-run" / "figures" / "activity_vs_time.png").stat().st_size > 5000


def test_diverged_replicas_are_said(packing, tmp_path):
    done = packing(
        "sweep", *SYSTEM, "--rule", "sgd", "--phi", "0.1,8", "--kick", "0.6", "--replicas", "2", "--out", "there"
    )
    assert done.code == 4
    assert "there: 2 of 4 cells are done, 2 failed (one diverged at step" in done.err.splitlines()[-1]
    assert opened(tmp_path / "there")["failed"].values.ravel().tolist() == [0, 0, 1, 1]
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["failed"] == 2


def test_a_disk_that_fills_up_in_the_middle(packing, tmp_path, monkeypatch):
    """The third replica does not fit."""

    write, one_at_a_time = Folder._write, threading.Lock()

    def full(folder, name, data, drafts, flushed):
        path = folder.path / name
        with one_at_a_time:
            if (
                not name.startswith(".tmp/")
                and path.parent.name == "positions"
                and len(list(path.parent.glob("[0-9]*"))) >= 2
            ):
                raise OSError(errno.ENOSPC, "No space left on device")
            write(folder, name, data, drafts, flushed)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "_write", full)
        done = packing("sweep", *TRANSITION, "--out", "there")
    last = done.err.splitlines()[-1]
    one_sentence(SimpleNamespace(code=done.code, out=done.out, err=last), "No space left on device", "is kept")
    assert "Traceback" not in done.err
    results = opened(tmp_path / "there")
    ran = results["steps_done"] > 0
    assert int(ran.sum()) <= 2
    assert np.all(np.isfinite(results["activity"].where(ran, 0.0)))
    assert np.all(np.isfinite(results["positions"].where(ran, 0.0)))
    resumed = packing("sweep", "--resume", "there")  # space was made
    assert resumed.code == 0
    assert resumed.err.splitlines()[-1] == "there: 10 of 10 cells are done"
    assert json.loads((tmp_path / "there" / "summary.json").read_text())["missing"] == 0


# --- Ctrl-C ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c():
    """Children react to SIGINT, even where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_keeps_what_is_finished(packing, tmp_path, number, code, name):
    """Two dilute replicas are absorbed at once, two dense ones would run for hours."""
    arguments = ["--dim=2", "--particles=64", "--phi=0.1,1.2", "--kick=0.3", "--replicas=2", "--steps=1000000000"]
    process = child("-m", "packing_jax.commands.main", "sweep", *arguments, "--out=there", "--log=json", cwd=tmp_path)
    guard = threading.Timer(120, process.kill)
    guard.start()
    seen = b""
    while b'"done": 2' not in seen and (more := process.stderr.read1()):
        seen += more
    looked = json.loads(packing("status", "there", "--log", "json").out)
    assert (looked["running"], looked["done"], looked["missing"], looked["under_way"]) == (True, 2, 2, 2)
    one_sentence(packing("sweep", "--resume", "there"), "another process is writing there")
    process.send_signal(number)
    out, err = process.communicate()
    guard.cancel()
    assert process.returncode == code, seen + err
    assert out == b""
    assert b"Traceback" not in seen + err
    told = json.loads(err.decode().splitlines()[-1])
    assert (told["event"], told["stopped"], told["done"], told["missing"]) == ("end", name, 2, 2)
    assert f"stopped by {name}; there: 2 of 4 cells are done, 2 are missing" in told["text"]
    results = opened(tmp_path / "there")
    np.testing.assert_array_equal(results["steps_done"].squeeze(), [[10**9, 10**9], [0, 0]])
    assert np.all(results["absorbed_at"].sel(phi=0.1) > 0)
    assert np.all(np.isfinite(results["activity"].sel(phi=0.1)))
    assert np.all(np.isnan(results["activity"].sel(phi=1.2)))
    kept = len(list((tmp_path / "there" / "checkpoints").iterdir()))
    assert kept == 1 or "failed" not in told  # a program was being compiled, which is not waited for
    done = packing("report", "there")
    assert done.code == 0
    assert "2 of 4 runs are not done" in done.out
    assert "there: stopped, 2 of 4 cells done" in packing("status", "there").out


def test_a_time_limit(packing, tmp_path):
    """It has to stop before its limit, and did."""
    arguments = ["--dim=2", "--particles=64", "--phi=1.2", "--kick=0.3", "--replicas=3", "--steps=1000000000"]
    clock = time.monotonic()
    process = child(
        "-m", "packing_jax.commands.main", "sweep", *arguments, "--out=there", "--max-walltime=0:12", cwd=tmp_path
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert time.monotonic() - clock < 17  # the interpreter itself starts before the clock does
    assert b"stopped by walltime; there: 0 of 3 cells are done, 3 are missing" in err.splitlines()[-1]


def test_ctrl_c_before_anything_is_finished(packing, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("packing_jax.sweeps.compute.run", stop)
    done = packing(*SWEEP, "--out", "there")
    assert done.code == 130
    assert "stopped by SIGINT; there: 0 of 6 cells are done, 6 are missing" in done.err.splitlines()[-1]
    assert not np.any(opened(tmp_path / "there")["steps_done"])
    monkeypatch.setattr("packing_jax.commands.options.run_sweep", stop)
    done = packing(*SWEEP, "--out", "elsewhere")
    assert (done.code, done.err.splitlines()[-1]) == (130, "packing-jax: interrupted")
