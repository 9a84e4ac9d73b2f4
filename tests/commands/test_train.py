"""`packing-jax train`: help, runs, reports, resume and bad input."""

import json

import numpy as np
import pytest
from command_line import files, one_sentence, opened

from packing_jax.commands import learning_summary
from packing_jax.networks.tasks import TASKS
from packing_jax.sweeps.reader import Reader

TRAIN = ["train", "perceptron", "--dimension=20", "--alpha=0.2,3", "--kick=0.2", "--steps=300", "--replicas=2"]
TRAIN += ["--record-every=50"]

OWN = """
import jax, jax.numpy as jnp
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Squared
from packing_jax.networks.task import Task
from packing_jax.networks.tasks import Ready
from packing_jax.networks.tasks.perceptron import perceptron

ONES = Data(jnp.ones(4), jnp.ones(4))

def line(slope: float = 2.0) -> Task:
    '''A straight line.

    Args:
        slope: of it, which the weight has to find.
    '''
    x = jnp.arange(4.0)
    return Task(lambda key: jnp.zeros(1), lambda w, x: w[0] * x, Squared(), data_from=lambda key: Data(x, slope * x))

def wrong(rows: int = 3) -> Task:
    return Task(lambda key: jnp.zeros(1), lambda w, x: x[:rows], lambda out, y: out, data=ONES)

def infinite(at: float = 1.0) -> Task:
    return Task(lambda key: jnp.zeros(1), lambda w, x: at / w[0] * x, Squared(), data=ONES)

def far(seen):
    return jnp.abs(seen.weights).max()

packed = Ready(perceptron, control="alpha", size="dimension")
astray = Ready(line, control="alpha")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_lines.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_help_lists_tasks_and_a_tasks_own_options(packing):
    overview = packing("train", "--help")
    assert overview.code == 0
    assert all(name in overview.out for name in TASKS)
    one = packing("train", "random-labels", "--help")
    assert one.code == 0
    for word in ("--kappa", "--samples", "--learning-rate", "Margin of the hinge", "--resume", "--disorder-seed"):
        assert word in one.out
    assert "--kick" not in one.out
    assert "--kick" in packing("train", "random-labels", "--rule", "bro", "--help").out
    assert "train" in packing("--help").out
    for text in (overview.out, one.out):
        assert all(len(line) <= 80 for line in text.splitlines())


def test_a_run_its_report_status_rerun_and_resume(packing, tmp_path):
    done = packing(*TRAIN, "--out=there", "--record", "loss,activity,msd", "--record", "overlap=0.1", "--waits=0,100")
    assert done.code == 0, done.err
    assert "there: 4 of 4 cells are done" in done.err
    table = done.out.splitlines()
    assert all(len(line) <= 80 for line in table)
    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert [row["absorbed"] for row in summary["rows"]] == [2, 0]
    assert summary["rows"][1]["activity_mean"] > 0.05
    assert (summary["schema"], summary["recommended"]) == (2, [])
    assert any("no critical alpha: replicas were run at 2 alpha" in note for note in summary["notes"])
    assert {one.name for one in (tmp_path / "there" / "figures").iterdir()} == {
        *("loss_vs_steps.png", "activity_vs_steps.png", "activity_vs_load.png", "msd_vs_steps.png"),
        "overlap_vs_steps.png",
    }
    assert "2 absorbed, 2 active" in packing("status", "there").out
    assert packing("rerun", "there", "--cell", 3).code == 0

    more = packing("train", "--resume", "there", "--alpha", "0.5", "--steps", "400")
    assert more.code == 0, more.err
    assert "6 of 6 cells" in more.err
    results = opened(tmp_path / "there")
    assert results["alpha"].values.tolist() == [0.2, 0.5, 3]
    assert results.attrs["measure"] == ["loss", "activity", "msd", "overlap=0.1"]
    one_sentence(packing("train", "--resume", "there", "--seed", "1"), "seed is 0 there and 1 here")


def test_divergence_is_an_outcome(packing, tmp_path):
    words = ["--learning-rate=0.1,1000", "--steps=60", "--replicas=2", "--record-every=20"]
    done = packing("train", "regression", *words, "--out=there")
    assert done.code == 0, done.err
    assert "4 of 4 cells are done, 2 of them diverged (one diverged at step" in done.err
    summary = json.loads((tmp_path / "there" / "summary.json").read_text())
    assert [row["diverged"] for row in summary["rows"]] == [0, 2]
    assert all(0 < step < 60 for step in summary["rows"][1]["diverged_at"])
    assert "2 diverged, 0 failed" in packing("status", "there").out


PACKED = ("--rule=bro", "--dimension=16", "--kick=1", "--alpha=0.2,0.4,0.6,0.8", "--steps=200", "--replicas=8")


def test_a_task_of_ones_own_with_a_control_has_its_critical_value(packing, tmp_path, own):
    for task, out in (("perceptron", "named"), ("my_lines:packed", "own")):
        assert packing("train", task, *PACKED, "--record=activity", f"--out={out}").code == 0
    named, mine = (json.loads((tmp_path / out / "summary.json").read_text()) for out in ("named", "own"))
    assert [one["parameter"] for one in named["recommended"]] == ["alpha"]
    assert mine["recommended"] == named["recommended"]
    refused = packing("train", "my_lines:astray", "--steps=10", "--out=never")
    one_sentence(refused, "the control of the task is 'alpha'; it must be one of its numbers, slope")


def test_what_diverged_has_no_say_in_the_critical_value(packing, tmp_path):
    """A replica that diverged counts as if it had not been run, and not as one that stayed active."""
    assert packing("train", "perceptron", *PACKED, "--record=activity", "--out=there").code == 0
    reader = Reader(tmp_path / "there")
    curves = learning_summary._curves(reader)
    asked = reader.attributes, reader.cells.axes
    third = np.arange(8) % 3 == 0
    astray = [one._replace(absorbed_at=np.where(third, -1, one.absorbed_at)) for one in curves]
    said = [one._replace(diverged_at=np.where(third, 150, -1)) for one in astray]
    without = [one._replace(absorbed_at=one.absorbed_at[~third], diverged_at=np.full(5, -1)) for one in curves]
    assert learning_summary._recommended(said, *asked) == learning_summary._recommended(without, *asked)
    assert learning_summary._recommended(said, *asked) != learning_summary._recommended(astray, *asked)


def test_a_task_of_ones_own(packing, tmp_path, own):
    assert "which the weight has to find" in packing("train", "my_lines:line", "--help").out
    words = ["--slope=1,3", "--steps=50", "--record=loss,far=my_lines:far", "--record-every=25", "--replicas=1"]
    done = packing("train", "my_lines:line", *words, "--out=there")
    assert done.code == 0, done.err
    assert opened(tmp_path / "there")["far"].squeeze().values[:, -1] == pytest.approx([1, 3], abs=1e-3)
    refused = packing("train", "--resume", "there")
    one_sentence(refused, "task of your own")
    words = ["my_lines:line", "--resume=there", "--steps=60", "--record", "far=my_lines:far"]
    assert packing("train", *words).code == 0
    assert packing("rerun", "there", "--cell=0", "--task=my_lines:line", "--record=far=my_lines:far").code == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["perceptrons"], ["there is no task 'perceptrons'", "did you mean perceptron?"]),
        (["random-labels", "--batch-size=300"], ["a batch of 300 samples is larger than the data, which have 200"]),
        (["random-labels", "--rule=langevin", "--temperature=-1"], ["temperature is -1.0", "at least 0"]),
        (["random-labels", "--width=2.5"], ["width", "whole number"]),
        (["random-labels", "--kappa=a"], ["--kappa is 'a'"]),
        (["random-labels", "--record=lost"], ["'lost'", "test_loss"]),
        (["random-labels", "--record=test_loss"], ["no test samples"]),
        (["random-labels", "--from=nowhere"], ["nowhere is not a directory"]),
        (["regression", "--rule=bro"], ["no overlaps"]),
        (["parity", "--data=broken.npz"], ["broken.npz"]),
        (["parity", "--data=nowhere"], ["nowhere"]),
        (["my_lines:wrong"], ["outputs have shape (3,)", "one number for each"]),
        (["my_lines:infinite"], ["the loss is", "at the start"]),
        (["my_lines:lines"], ["there is no lines in my_lines"]),
        (["--resume", "nowhere"], ["nowhere is not a directory"]),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(packing, nothing_runs, tmp_path, own, words, named):
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    before = set(files(tmp_path))
    one_sentence(packing("train", *words), *named)
    assert {one for one in files(tmp_path) if "__pycache__" not in one.parts} == {
        one for one in before if "__pycache__" not in one.parts
    }
