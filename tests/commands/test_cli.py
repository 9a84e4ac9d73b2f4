"""The command line: one sentence for everything that it cannot do, help, and a quick start."""

import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import xarray as xr
from command_line import RUN, SGD, SWEEP, SYSTEM, changed, child, files, one_sentence
from synthetic import store as synthetic_store
from synthetic import sweep as synthetic_sweep

import packing_jax
from packing_jax.commands.options import free_directory

# --- arguments out of range -----------------------------------------------------------------------------------

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
    (["sweep"], ["--resume=nowhere"], ["nowhere is not a directory"]),
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
    (["sweep"], ["--particles=2"], ["2 particles"]),
    (["sweep"], ["--replicas=100000000"], ["replicas", "ask for fewer"]),
]  # fmt: skip


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("command", "wrong", "words"), [pytest.param(*case, id=" ".join(case[1])) for case in BAD])
def test_out_of_range(packing, tmp_path, command, wrong, words):
    one_sentence(packing(*changed(command, *wrong), "--out", "here"), *words)
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
        changed(RUN, "--particles=99999999999"),
        changed(RUN, "--particles=99999999999", "--mixture=1:1.4"),
        changed(RUN, "--steps=2000000000", "--record-every=1"),
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
        (["run", "--phi=0.5", "--pressure=1"], "--pressure"),
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
    synthetic_store(directory, synthetic_sweep())
    for path in (directory / "results.zarr").rglob(".z*"):
        path.write_text('{"zarr_format": 2, "sha')


def _garbled_chunks(directory):
    synthetic_store(directory, synthetic_sweep())
    for path in (directory / "results.zarr" / "activity").glob("[0-9]*"):
        path.write_bytes(b"not what was written")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_nothing, "is not a directory"),
        (_file, "is not a directory"),
        (_empty, "has no results.zarr"),
        (_empty_store, "is missing"),
        (_foreign, "damaged or from an earlier version"),
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
    one_sentence(packing(*command, "nowhere"), "nowhere is not a directory")
    one_sentence(packing(*command, "a" * 260))
    assert not list(tmp_path.iterdir())


def test_a_report_of_a_sweep_that_was_absorbed_before_its_first_record(packing, tmp_path):
    results = synthetic_sweep()
    results["activity"][..., 1:] = 0.0
    results["absorbed_at"][...] = 1
    synthetic_store(tmp_path / "there", results)
    done = packing("report", "there")
    assert (done.code, done.err) == (0, "")
    assert "no phi_c can be recommended" in done.out
    assert "activity_vs_time" in done.out  # a note says why this figure is missing


# --- help and start-up ----------------------------------------------------------------------------------------

WORDS = [
    "bro|sgd|ro|langevin|thermal|MODULE:OBJECT", "--energy", "--record NAME=MODULE:OBJECT", "--trust-rule",
    "--coupling pair|pair-independent|particle|particle-normalised",
    "--correlation", "--dim", "--particles", "--phi", "--kick", "--batch-fraction", "--temperature", "--exponent",
    "--mixture", "--steps", "--record-every", "--trajectory every:K|log", "--replicas", "--seed", "--out DIR",
    "--max-walltime TIME", "--log bar|json|quiet",
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["run", "sweep", "critical", "status", "rerun", "reproduce", "report", "doctor", "movie"]),
        (["run"], WORDS),
        (["sweep"], [*WORDS, "LIST|LO:HI:N", "0.58:0.62:9", "--resume DIR", "143"]),
        (
            ["critical"],
            [
                "--dim",
                "--rule",
                "--kick",
                "--tolerance",
                "--budget",
                "--seed",
                "--out DIR",
                "--from DIR",
                "--log",
                "5:",
            ],
        ),
        (["status"], ["DIR", "json"]),
        (["rerun"], ["DIR", "--cell INT"]),
        (["reproduce"], ["[NAME]", "--size", "--seed", "--out DIR", "--resume", "--all", "result.json"]),
        (["report"], ["DIR", "summary.json"]),
        (["doctor"], ["versions", "devices"]),
        (["movie"], ["DIR", "--cell INT", "--out FILE.mp4|.gif", "--fps INT"]),
    ],
    ids=["packing-jax", "run", "sweep", "critical", "status", "rerun", "reproduce", "report", "doctor", "movie"],
)
def test_help(packing, command, words):
    done = packing(*command, "--help")
    assert (done.code, done.err) == (0, "")
    for word in words:
        assert word in done.out
    assert not [line for line in done.out.splitlines() if len(line) > 80]
    assert not re.search(r"\{None|Path|<class|typing\.", done.out)  # types as Python spells them
    # a line of an option's help goes on to the next one only where that one's first word has no place left in it
    texts = [line.strip("│ ") for line in done.out.splitlines() if line.startswith("│   ")]
    assert not [line for line in texts if line and not line.endswith((".", ")", ":")) and len(line) < 20]


def test_version(packing):
    done = packing("--version")
    assert (done.code, done.out, done.err) == (0, f"packing-jax {packing_jax.__version__}\n", "")


def test_slow_packages_are_imported_by_what_uses_them():
    slow = ["jax_md", "matplotlib", "pandas", "scipy.optimize", "xarray", "zarr"]
    code = (
        f"import sys; import packing_jax, packing_jax.commands.parser; print([n for n in {slow} if n in sys.modules])"
    )
    out, err = child("-c", code).communicate()
    assert (out.decode().strip(), err) == ("[]", b"")


def test_bad_input_in_a_process_of_its_own(tmp_path):
    process = child("-m", "packing_jax.commands.main", *changed(RUN, "--phi=-1"), "--out", "here", cwd=tmp_path)
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
