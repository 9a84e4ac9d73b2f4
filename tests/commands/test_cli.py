"""The command line: what it does, and one sentence for everything that it cannot do."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st
from synthetic import sweep as synthetic_sweep

import packing_jax
from packing_jax.commands.main import main
from packing_jax.commands.options import free_directory, numbers
from packing_jax.drive import run as driver
from packing_jax.errors import PackingError
from packing_jax.sweeps import files as files_module

# Small and quick, and of one shape, so that the runs below share their compiled programs.
SYSTEM = ["--dim", "2", "--particles", "64", "--steps", "300", "--record-every", "10"]
TRANSITION = [*SYSTEM, "--phi", "0.1:0.9:5", "--kick", "0.3", "--replicas", "2"]


@pytest.fixture
def packing(tmp_path, monkeypatch, capsys):
    """`packing-jax` in an empty directory: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(driver, "default_batch", lambda *_: 3)

    def command(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # tyro: help, unknown words
            code = stop.code
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return command


def child(*arguments, **options):
    """The same in its own process, with no more than a user's environment."""
    environment = os.environ | {"PYTHONPATH": str(Path(packing_jax.__file__).parents[1]), "COLUMNS": "80"}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options)


def files(directory):
    return {path.relative_to(directory): path.is_file() and path.read_bytes() for path in directory.rglob("*")}


def one_sentence(done, *words):
    """Exit code 2 and exactly one sentence, which names what was wrong."""
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("packing-jax: ")
    assert len(done.err.splitlines()) == 1
    assert len(done.err) < 500
    for word in words:
        assert word in done.err


@pytest.fixture
def nothing_runs(monkeypatch):
    """Bad input must end before the first step."""

    def run(*arguments, **options):
        raise AssertionError("the simulation started")

    monkeypatch.setattr("packing_jax.sweeps.compute.run", run)


# --- arguments out of range -----------------------------------------------------------------------------------

RUN = ["run", *SYSTEM, "--phi=0.5", "--kick=0.3"]
SGD = [*RUN, "--rule=sgd"]
SWEEP = ["sweep", *SYSTEM, "--phi=0.5,0.6", "--kick=0.3"]

NEITHER_LIST_NOR_RANGE = [
    "a,b", "1:2", "0.6:0.7:0", "0.6:0.7:-2", "0.6:0.7:2.5", "0.1:0.2:3:4", "", "0.6,,0.7", "0.6;0.7",
    "0.6:0.7:1000000", ":::",
]  # fmt: skip

BAD = [
    (RUN, ["--phi=-0.1"], ["phi", "-0.1"]),
    (RUN, ["--phi=0"], ["phi"]),
    (RUN, ["--phi=nan"], ["phi", "nan"]),
    (RUN, ["--phi=inf"], ["phi", "inf"]),
    (RUN, ["--phi=1e300"], ["phi = 1e+300"]),
    (RUN, ["--phi=1e-300"], ["phi", "1e-300"]),  # a diameter that float32 calls zero
    (RUN, ["--phi=1e-12"], ["phi", "1e-12"]),  # far less than the resolution of the coordinates
    (RUN, ["--dim=3", "--phi=9"], ["phi = 9 in 3D", "up to phi = 8"]),
    (RUN, ["--dim=6", "--phi=1.5", "--particles=100000"], ["phi = 1.5 in 6D", "up to phi = 1"]),
    (RUN, ["--dim=3", "--phi=0.6", "--particles=3"], ["3 particles", "half a side"]),
    (RUN, ["--dim=1", "--phi=0.9", "--particles=2", "--mixture=1:1.4"], ["2 particles", "half a side"]),
    (RUN, ["--kick=0"], ["the kick is 0"]),
    (RUN, ["--kick=-0.1"], ["the kick is -0.1"]),
    (RUN, ["--kick=nan"], ["the kick is nan"]),
    (RUN, ["--kick=inf"], ["the kick is inf"]),
    (RUN, ["--kick=1000"], ["a kick of 1000 diameters", "box sides"]),
    (RUN, ["--kick=1e300"], ["kick", "1e+300"]),
    (SGD, ["--kick=1000"], ["1000"]),
    (RUN, ["--kick=1e-12"], ["kick", "1e-12"]),  # nothing would ever move
    (["run", "--phi=0.5"], ["--kick=1e-320"], ["kick"]),  # and the default number of steps would be infinite
    (["run", "--phi=0.5"], ["--kick=1e-9"], ["steps"]),
    (SGD, ["--batch-fraction=0"], ["batch fraction"]),
    (SGD, ["--batch-fraction=-0.5"], ["batch fraction"]),
    (SGD, ["--batch-fraction=1.5"], ["batch fraction", "1.5"]),
    (SGD, ["--batch-fraction=nan"], ["batch fraction"]),
    (RUN, ["--batch-fraction=0.5"], ["batch fraction", "sgd"]),
    (RUN, ["--particles=1"], ["1 particles", "at least 2"]),
    (RUN, ["--particles=0"], ["0 particles"]),
    (RUN, ["--particles=-5"], ["-5 particles"]),
    (RUN, ["--dim=0"], ["dimension is 0", "from 1 to 6"]),
    (RUN, ["--dim=7"], ["dimension is 7", "from 1 to 6"]),
    (RUN, ["--replicas=0"], ["0 replicas"]),
    (RUN, ["--replicas=-1"], ["-1 replicas"]),
    (RUN, ["--steps=0"], ["0 steps"]),
    (RUN, ["--steps=-1"], ["-1 steps"]),
    (RUN, ["--steps=2147483648"], ["2147483648 steps"]),
    (RUN, ["--steps=99999999999999999999"], ["99999999999999999999 steps"]),
    (RUN, ["--record-every=0"], ["every 0 steps"]),
    (RUN, ["--record-every=-10"], ["every -10 steps"]),
    (RUN, ["--record-every=301"], ["every 301 steps", "300"]),
    (RUN, ["--correlation=-0.1"], ["correlation is -0.1"]),
    (RUN, ["--correlation=1.5"], ["correlation is 1.5"]),
    (RUN, ["--correlation=nan"], ["correlation is nan"]),
    (RUN, ["--correlation=0.5", "--coupling=particle"], ["correlation of 0.5", "'pair'"]),
    (RUN, ["--correlation=0.5", "--coupling=pair-independent"], ["pair-independent", "0.5"]),
    (RUN, ["--correlation=0.5", "--rule=ro"], ["correlation of 0.5", "'pair'"]),
    (SGD, ["--coupling=particle-normalised"], ["particle-normalised", "pair, particle"]),
    (RUN, ["--coupling=particle-normalised", "--rule=ro"], ["particle-normalised"]),
    (RUN, ["--coupling=particle-normalised", "--rule=langevin"], ["particle-normalised"]),
    (RUN, ["--exponent=0.5"], ["exponent is 0.5", "at least 1"]),
    (RUN, ["--exponent=nan"], ["exponent is nan"]),
    (RUN, ["--exponent=1e9"], ["exponent is 1", "100"]),
    (RUN, ["--max-walltime=soon"], ["--max-walltime", "'soon'", "HH:MM:SS"]),
    (RUN, ["--max-walltime=-5"], ["--max-walltime"]),
    (RUN, ["--max-walltime=1-30"], ["--max-walltime"]),
    (["sweep"], ["--resume=nowhere"], ["nowhere has no results.zarr"]),
    (RUN, ["--seed=-1"], ["seed is -1"]),
    (RUN, ["--seed=4294967296"], ["seed is 4294967296"]),
    *[(SWEEP, [f"--phi={text}"], ["--phi", repr(text)]) for text in NEITHER_LIST_NOR_RANGE],
    (SWEEP, ["--kick=0.1:0.2"], ["--kick", "'0.1:0.2'"]),
    (SWEEP, ["--rule=sgd", "--batch-fraction=0.5;1"], ["--batch-fraction", "'0.5;1'"]),
    (SWEEP, ["--phi=0.5:0.6:1"], ["--phi", "0.5:0.6:1"]),  # one value cannot include both ends
    (SWEEP, ["--phi=0.5,0.6,0.5"], ["phi", "0.5", "twice"]),
    (SWEEP, ["--phi=0.5:0.5:3"], ["phi", "0.5", "twice"]),
    (SWEEP, ["--kick=0.3,0.3"], ["kick", "0.3", "twice"]),
    (SWEEP, ["--rule=sgd", "--batch-fraction=0.5,0.5"], ["batch fraction", "twice"]),
    (SWEEP, ["--phi=-0.5:0.5:3"], ["phi", "-0.5"]),
    (SWEEP, ["--phi=0.5:inf:3"], ["phi", "inf"]),
    (SWEEP, ["--phi=0.5,nan"], ["phi", "nan"]),
    (SWEEP, ["--kick=0.3,0"], ["kick"]),
    (SWEEP, ["--kick=0.3,1000"], ["kick", "1000"]),
    (SWEEP, ["--rule=sgd", "--batch-fraction=0.5,1.5"], ["batch fraction", "1.5"]),
    (SWEEP, ["--batch-fraction=0.5,0.7"], ["batch fraction", "sgd"]),
    (SWEEP, ["--replicas=0"], ["0 replicas"]),
    (["sweep", *SYSTEM], [], ["no default --phi"]),
    (["sweep"], ["--kick=0.1"], ["no default --phi"]),
    (["sweep"], ["--particles=2"], ["2 particles"]),
    (["sweep"], ["--replicas=100000000"], ["replicas", "ask for fewer"]),
]  # fmt: skip


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("command", "wrong", "words"), [pytest.param(*case, id=" ".join(case[1])) for case in BAD])
def test_out_of_range(packing, tmp_path, command, wrong, words):
    # the last of two equal words counts, so `wrong` replaces what the command says
    one_sentence(packing(*command, *wrong, "--out", "here"), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_runs")
def test_an_absurdly_large_sweep_is_refused_at_once(packing, tmp_path):
    clock = time.perf_counter()
    done = packing("sweep", *SYSTEM, "--phi", "0.1:0.9:100000", "--replicas", "100000", "--out", "here")
    one_sentence(done, "10000000000 replicas", "GiB")
    assert time.perf_counter() - clock < 10
    assert not list(tmp_path.iterdir())


def test_what_no_memory_could_hold(tmp_path):
    """In a process that may use 12 GiB, so that a failure of this test does not take the machine with it."""
    commands = [
        [*RUN, "--particles=99999999999"],
        [*RUN, "--particles=99999999999", "--mixture=1:1.4"],
        [*RUN, "--steps=2000000000", "--record-every=1"],
    ]
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))\n"
        "from packing_jax.commands.main import main\n"
        f"for words in {commands}: print(main(words))"
    )
    out, err = child("-c", code, cwd=tmp_path).communicate()
    assert out.split() == [b"2"] * len(commands), err
    sentences = err.decode().splitlines()
    assert len(sentences) == len(commands)
    assert all(sentence.startswith("packing-jax: ") for sentence in sentences)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (["run", "--phi=0.5", "--rule=metropolis"], "metropolis"),
        (["run", "--phi=0.5", "--coupling=triple"], "triple"),
        (["run", "--phi=0.5", "--mixture=2:1"], "2:1"),
        (["run", "--phi=half"], "half"),
        (["run", "--phi=0.5", "--particles=1.5"], "1.5"),
        (["run", "--phi=0.5", "--temperature=1"], "--temperature"),
        (["run"], "--phi"),
        (["report"], "DIR"),
        (["walk"], "walk"),
    ],
)
def test_words_it_does_not_know(packing, tmp_path, wrong, word):
    """These sentences are tyro's."""
    done = packing(*wrong)
    assert done.code == 2
    assert word in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


# --- directories ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_runs")
def test_a_store_that_exists(packing, tmp_path):
    (tmp_path / "mine" / "results.zarr").mkdir(parents=True)
    (tmp_path / "mine" / "results.zarr" / "precious").write_text("data")
    before = files(tmp_path)
    for command in (RUN, SWEEP):
        one_sentence(packing(*command, "--out", "mine"), "mine/results.zarr exists already")
    assert files(tmp_path) == before


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("out", ["taken", "taken/deeper", "a" * 260], ids=["file", "below a file", "too long"])
def test_an_out_that_cannot_be_created(packing, tmp_path, out):
    (tmp_path / "taken").write_text("mine")
    before = files(tmp_path)
    one_sentence(packing(*RUN, "--out", out), "cannot write", out)
    assert files(tmp_path) == before


def test_a_free_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_directory("packing-run") == Path("packing-run")
    Path("packing-run").mkdir()
    Path("packing-run-2").write_text("taken")
    assert free_directory("packing-run") == Path("packing-run-3")


def _nothing(directory):
    pass


def _empty(directory):
    directory.mkdir()


def _file(directory):
    directory.write_text("no directory")


def _empty_store(directory):
    (directory / "results.zarr").mkdir(parents=True)


def _foreign(directory):
    xr.Dataset({"temperature": ("city", [20.0, 25.0])}).to_zarr(directory / "results.zarr", zarr_format=2)


def _garbled_metadata(directory):
    synthetic_sweep().to_zarr(directory / "results.zarr", zarr_format=2)
    for path in (directory / "results.zarr").rglob(".z*"):
        path.write_text('{"zarr_format": 2, "sha')


def _garbled_chunks(directory):
    synthetic_sweep().to_zarr(directory / "results.zarr", zarr_format=2)
    for path in (directory / "results.zarr" / "steps_done").glob("[0-9]*"):
        path.write_bytes(b"not what was written")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_nothing, "is not a directory"),
        (_file, "is not a directory"),
        (_empty, "has no results.zarr"),
        (_empty_store, "damaged"),
        (_foreign, "is not a sweep"),
        (_garbled_metadata, "damaged"),
        (_garbled_chunks, "damaged"),
    ],
)
def test_reports_of_what_is_no_sweep(packing, tmp_path, damage, words):
    damage(tmp_path / "there")
    before = files(tmp_path)
    one_sentence(packing("report", "there"), "there", words)
    assert files(tmp_path) == before


def test_a_report_of_a_name_that_is_too_long(packing):
    one_sentence(packing("report", "a" * 260))


@pytest.mark.parametrize("command", [["sweep", "--resume"], ["status"], ["rerun", "--cell=0"]], ids=" ".join)
def test_going_on_with_nothing(packing, tmp_path, command):
    one_sentence(packing(*command, "nowhere"), "nowhere has no results.zarr")
    one_sentence(packing(*command, "a" * 260))
    assert not list(tmp_path.iterdir())


def test_a_report_of_a_sweep_that_was_absorbed_before_its_first_record(packing, tmp_path):
    results = synthetic_sweep()
    results["activity"][..., 1:] = 0.0
    results["absorbed_at"][...] = 1
    results.to_zarr(tmp_path / "there" / "results.zarr", zarr_format=2)
    done = packing("report", "there")
    assert (done.code, done.err) == (0, "")
    assert "no estimate of phi_c" in done.out
    assert "activity_vs_time" in done.out  # a note says why this figure is missing


# --- what it does ---------------------------------------------------------------------------------------------


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()


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
    assert row["stderr"] == pytest.approx(0.2 / np.sqrt(3))  # that of the gap alone: replicas agree on it
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
    one_sentence(packing("sweep", "--resume", "my results", "--out", "x"), "leave --out away")
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

    write, one_at_a_time = files_module._replace, threading.Lock()

    def full(scratch, path, data, flushed):
        with one_at_a_time:
            if path.parent.name == "positions" and len(list(path.parent.glob("[0-9]*"))) >= 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(scratch, path, data, flushed)

    with monkeypatch.context() as patch:
        patch.setattr(files_module, "_replace", full)
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
    last = json.loads(err.decode().splitlines()[-1])
    assert (last["event"], last["stopped"], last["done"], last["missing"]) == ("end", name, 2, 2)
    assert f"stopped by {name}; there: 2 of 4 cells are done, 2 are missing" in last["text"]
    results = opened(tmp_path / "there")
    np.testing.assert_array_equal(results["steps_done"].squeeze(), [[10**9, 10**9], [0, 0]])
    assert np.all(results["absorbed_at"].sel(phi=0.1) > 0)
    assert np.all(np.isfinite(results["activity"].sel(phi=0.1)))
    assert np.all(np.isnan(results["activity"].sel(phi=1.2)))
    assert len(list((tmp_path / "there" / "checkpoints").iterdir())) == 1
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


# --- help and start-up ----------------------------------------------------------------------------------------

WORDS = [
    "bro|sgd|ro|langevin|MODULE:OBJECT", "--energy", "--record NAME=MODULE:OBJECT", "--trust-rule",
    "pair,pair-independent,particle,particle-normalised}", "--coupling",
    "--correlation", "--dim", "--particles", "--phi", "--kick", "--batch-fraction", "--exponent", "--mixture",
    "--steps", "--record-every", "--trajectory every:K|log", "--replicas", "--seed", "--out DIR",
    "--max-walltime TIME", "--log", "bar,json,quiet",
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["run", "sweep", "critical", "status", "rerun", "report", "doctor", "movie"]),
        (["run"], WORDS),
        (["sweep"], [*WORDS, "LIST|LO:HI:N", "0.58:0.62:9", "--resume DIR", "143"]),
        (["critical"], ["--dim", "--rule", "--kick", "--tolerance", "--budget", "--seed", "--out DIR"]),
        (["status"], ["DIR", "json"]),
        (["rerun"], ["DIR", "--cell INT"]),
        (["report"], ["DIR", "summary.json"]),
        (["doctor"], ["versions", "devices"]),
        (["movie"], ["DIR", "--cell INT", "--out FILE.mp4|.gif", "--fps INT"]),
    ],
    ids=["packing-jax", "run", "sweep", "critical", "status", "rerun", "report", "doctor", "movie"],
)
def test_help(packing, command, words):
    done = packing(*command, "--help")
    assert (done.code, done.err) == (0, "")
    for word in words:
        assert word in done.out
    # tyro does not break the line of usage, which names all commands
    wide = [line for line in done.out.splitlines() if len(line) > 80 and not line.startswith("usage: ")]
    assert not wide


def test_version(packing):
    done = packing("--version")
    assert (done.code, done.out, done.err) == (0, f"packing-jax {packing_jax.__version__}\n", "")


def test_slow_packages_are_imported_by_what_uses_them():
    slow = ["jax_md", "matplotlib", "pandas", "scipy.optimize", "xarray", "zarr"]
    code = f"import sys; import packing_jax, packing_jax.commands.main; print([n for n in {slow} if n in sys.modules])"
    out, err = child("-c", code).communicate()
    assert (out.decode().strip(), err) == ("[]", b"")


def test_bad_input_in_a_process_of_its_own(tmp_path):
    process = child("-m", "packing_jax.commands.main", *RUN, "--phi=-1", "--out", "here", cwd=tmp_path)
    out, err = process.communicate()
    one_sentence(SimpleNamespace(code=process.returncode, out=out.decode(), err=err.decode()), "phi", "-1")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away():
    """As in `packing-jax --help | head -1`."""
    process = child("-m", "packing_jax.commands.main", "--help")
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


# --- lists and ranges -----------------------------------------------------------------------------------------

NUMBER = st.floats(-1e6, 1e6)
ON_A_BUSY_MACHINE = hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.too_slow])


@ON_A_BUSY_MACHINE
@hypothesis.given(st.lists(NUMBER, min_size=1, max_size=8))
def test_a_list_is_its_numbers(values):
    assert numbers("phi", ",".join(map(repr, values))) == tuple(values)


@ON_A_BUSY_MACHINE
@hypothesis.given(NUMBER, NUMBER, st.integers(2, 50))
def test_a_range_includes_both_ends(low, high, count):
    values = numbers("phi", f"{low!r}:{high!r}:{count}")
    assert len(values) == count
    assert (values[0], values[-1]) == (low, high)
    # ten digits of the numbers and of their distance
    np.testing.assert_allclose(values, np.linspace(low, high, count), rtol=1e-9, atol=1e-9 * abs(high - low))


def test_a_range_gives_the_numbers_one_would_type():
    assert numbers("phi", "0.58:0.62:9") == (0.58, 0.585, 0.59, 0.595, 0.6, 0.605, 0.61, 0.615, 0.62)
    assert numbers("phi", "0.1:0.9:9") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert numbers("phi", "0.5:0.5:1") == (0.5,)
    assert numbers("phi", "0.3:0.1:3") == (0.3, 0.2, 0.1)
    assert numbers("phi", " 0.1, 2e-1 ,.3") == (0.1, 0.2, 0.3)


@ON_A_BUSY_MACHINE
@hypothesis.given(st.text("0123456789.,:;e-+ nai_", max_size=12))
def test_any_text_is_numbers_or_one_sentence(text):
    try:
        assert len(numbers("phi", text)) >= 1
    except PackingError:
        hypothesis.event("refused")
