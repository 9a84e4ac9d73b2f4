"""Words that are misspelt, misplaced or of another command: one sentence that says what was meant."""

from types import SimpleNamespace

import pytest
from command_line import RUN, SWEEP, child, one_sentence
from synthetic import store as synthetic_store
from synthetic import sweep as synthetic_sweep

from packing_jax.commands import options
from packing_jax.errors import PackingError

MEANT = [
    (["swep"], ["no command 'swep'", "did you mean sweep?"]),
    (["help"], ["did you mean --help?"]),
    (["--verson"], ["did you mean --version?"]),
    (["walk"], ["no command 'walk'", "run, sweep, train", "and bench"]),
    ([*RUN, "--particls=5"], ["run has no option --particls", "did you mean --particles?"]),
    ([*RUN, "--recordevery", "5"], ["did you mean --record-every?"]),
    (["run", "-phi", "0.5"], ["did you mean --phi?"]),
    ([*RUN, "--scheduler=tcp://x"], ["it is an option of sweep and train"]),
    ([*RUN, "--pressure=1"], ["run has no option --pressure", "packing-jax run --help"]),
    ([*RUN, "--resume", "there"], ["packing-jax sweep --resume DIR continues a run"]),
    (["train", "perceptro"], ["no task 'perceptro'", "did you mean perceptron?"]),
    (["train", "--steps=5"], ["which task?", "packing-jax train TASK", "regression"]),
    (["train", "perceptron", "--aplha=0.5"], ["train perceptron has no option --aplha", "did you mean --alpha?"]),
    (["sweep", "--phi", "0.5", "0.6"], ["write --phi 0.5,0.6"]),
    (["sweep", "--phi", "0.5,", "0.6,", "0.7"], ["write --phi 0.5,0.6,0.7"]),
    (["sweep", "--phi=0.5", "0.6", "--dim=2"], ["write --phi 0.5,0.6"]),
    (["run", "--phi", "0.5", "0.6"], ["run takes one value", "packing-jax sweep --phi 0.5,0.6"]),
    (["run", "--phi", "0.5:0.6:3"], ["run takes one value", "packing-jax sweep --phi 0.5:0.6:3"]),
    (["sweep", "--phi", "0.5", "dense"], ["what is 'dense'?", "--phi takes one word"]),
    (["report", "here", "there"], ["what is 'there'?", "packing-jax report --help"]),
    ([*RUN, "--steps"], ["--steps needs a value: --steps INT"]),
    (["sweep", "--phi", "--dim=2"], ["--phi needs a value: --phi LIST|LO:HI:N"]),
    (["sweep", "--phi=0.5:0.6"], ["lacks its number of values", "0.5:0.6:9"]),
    (["sweep", "--phi=0.5:0.6:1"], ["at least two values"]),
    (["sweep", "--phi=0.5:0.6:0"], ["at least two values"]),
    (["sweep", "--phi=0.5:0.6:1000000"], ["1000000 values", "100000"]),
    (["run", "--phi", "dense"], ["--phi is 'dense'; it must be a number"]),
    (["run", "--phi=0.5", "--steps=1e3"], ["--steps is '1e3'; it must be a whole number"]),
    (["sweep", "--mixture=1:1.5"], ["--mixture is '1:1.5'; it must be mono or 1:1.4: did you mean 1:1.4?"]),
    (["status", "here", "--log=xml"], ["--log is 'xml'; it must be text or json"]),
    ([*SWEEP, "--out="], ["--out is empty", "name of a file or directory"]),
    ([*RUN, "--out", ""], ["--out is empty"]),
    (["run", "--phi", "0.5", "--phi=0.6"], ["--phi is given twice", "packing-jax sweep --phi LIST takes several"]),
    (["sweep", "--phi=0.5", "--dim=2", "--phi", "0.6"], ["--phi is given twice; give all values at once: --phi LIST"]),
    ([*RUN, "--record-every=2", "--record_every", "3"], ["--record-every is given twice; give it once"]),
    (["train", "perceptron", "--alpha=0.5", "--alpha=0.6"], ["--alpha is given twice; give all values at once"]),
    (["train", "perceptron", "--rule=sgd", "--rule=bro"], ["--rule is given twice; give it once"]),
    (["critical", "--kick=0.1", "--kick=0.2"], ["--kick is given twice; give it once"]),
    (["status", "--verify", "there", "--verify"], ["--verify is given twice; once is enough"]),
    (["reproduce", "jamming", "--size=smoke", "--size=quick"], ["--size is given twice; give it once"]),
    (["movie", "there", "--fps=5", "--fps=6"], ["--fps is given twice; give it once"]),
    (["critical", "--out=taken"], ["taken", "is a file"]),
    ([*SWEEP, "--out=taken"], ["cannot write taken", "is a file"]),
]  # fmt: skip


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("words", "said"), MEANT, ids=[" ".join(words) for words, _ in MEANT])
def test_what_was_meant(packing, tmp_path, words, said):
    (tmp_path / "taken").write_text("mine")
    one_sentence(packing(*words), *said)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_phi_where_nothing_can_be_absorbed(packing, monkeypatch):
    def run(*_, **__):
        raise PackingError("the sentence came before")

    monkeypatch.setattr(options, "run_sweep", run)
    done = packing("run", "--dim=3", "--particles=64", "--phi=2", "--out=there")
    assert [line[:15] for line in done.err.splitlines()] == ["phi = 2 in 3D: ", "packing-jax: th"]


def test_the_sentence_about_such_a_phi():
    spec = options.Sweep(dim=3, phi=(0.7, 2.0), particles=64).checked()
    assert "phi = 2 in 3D" in options._never_absorbed(spec)
    assert "stop with Ctrl-C and give --phi below 0.7405" in options._never_absorbed(spec)
    for possible in ({"phi": (0.74,)}, {"phi": (2.0,), "mixture": "1:1.4"}, {"phi": (0.9,), "dim": 2}):
        spec = options.Sweep(**({"dim": 3, "particles": 64} | possible)).checked()
        assert options._never_absorbed(spec) == ""


def test_no_words_are_answered_by_the_commands(packing):
    done = packing()
    assert (done.code, done.err) == (0, "")
    for word in ("sweep", "train", "JAX_COMPILATION_CACHE_DIR", "packing-jax doctor"):
        assert word in done.out


def test_a_report_of_nothing(packing, tmp_path):
    """It is no success, and says how to go on."""
    results = synthetic_sweep()
    results["steps_done"][...] = 0
    synthetic_store(tmp_path / "there", results)
    one_sentence(packing("report", "there"), "nothing to report", "cells of there", "packing-jax sweep --resume there")
    assert not (tmp_path / "there" / "summary.json").exists()


def test_a_sweep_that_was_stopped_early_is_not_damaged(packing, tmp_path):
    """Of the marks of cells that are all zero no file is written."""
    results = synthetic_sweep()
    results["steps_done"][1:] = 0
    synthetic_store(tmp_path / "there", results)
    done = packing("status", "there", "--verify")
    assert (done.code, done.err) == (0, "")
    assert "is missing" not in done.out


def test_where_compiled_programs_are_kept(tmp_path):
    """In a process of its own: jax takes the name once."""
    code = "from packing_jax.commands import machine; machine.keep_compiled(); print(machine._kept())"
    done = child("-c", code)
    out, err = done.communicate()
    found = SimpleNamespace(code=done.returncode, out=out.decode(), err=err.decode())
    assert (found.code, found.err) == (0, "")
    assert "packing_jax" in found.out or "JAX_COMPILATION_CACHE_DIR" in found.out
