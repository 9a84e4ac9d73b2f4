"""`critical --task`: the same search, for the number of samples per weight that a task's networks can satisfy."""

import json
import math

import numpy as np
import pytest

from packing_jax import adaptive, search_folder
from packing_jax.commands.main import main
from packing_jax.criticality.absorption import OF_TASKS
from packing_jax.criticality.search import Answer, SearchSettings, refine
from packing_jax.errors import PackingError
from packing_jax.networks.tasks.perceptron import perceptron
from packing_jax.networks.tasks.ready import Ready


class Patterns:
    """Half of the replicas can be absorbed up to alpha_c + a/N, in time c/(room), instances scattered by N^-1/2."""

    def __init__(self, seed, alpha_c):
        self.seed, self.alpha_c, self.asked = seed, alpha_c, []

    def __call__(self, ask):
        self.asked.append(ask)
        absorbed_at = []
        for alpha, number in ask.replicas:
            rng = np.random.default_rng([self.seed, ask.particles, round(alpha * 1e6), number])
            room = self.alpha_c + 0.3 / ask.particles - alpha + 0.15 * rng.logistic() / math.sqrt(ask.particles)
            at = max(1, round(4.0 / room)) if room > 0 else ask.steps + 1
            absorbed_at.append(at if at <= ask.steps else -1)
        return Answer(tuple(absorbed_at), ask.particles * ask.steps * len(ask.replicas))


def settings(tolerance, budget=10**10):
    what = {"axes": {"kick": 0.1}, "control": "alpha"}
    return search_folder.task_settings(what, (0.2, 0.65), tolerance, budget)


@pytest.mark.parametrize("alpha_c", [0.52, 2.0])
def test_the_capacity_is_found_inside_the_first_bracket_and_far_above_it(alpha_c):
    # three errors hold alpha_c in both searches with probability 0.995 if errors are right
    for seed in range(2):
        pretend = Patterns(seed, alpha_c)
        found = refine(settings(0.02), pretend, lambda *_: None)
        assert found.reached
        assert found.parameter == "alpha"
        assert found.stderr <= 0.02
        assert abs(found.value - alpha_c) < 3 * found.stderr
        for ask in pretend.asked:
            for alpha, _ in ask.replicas:
                assert alpha * ask.particles == pytest.approx(round(alpha * ask.particles), abs=1e-3)


def test_all_at_rest_is_said_of_alpha():
    never = SearchSettings(OF_TASKS, (0.2, 0.6), 64, 100, 0.01, 10**12, 0.6, samples=True, parameter="alpha")
    with pytest.raises(PackingError, match=r"every replica is absorbed, up to alpha = 0\.59"):
        refine(never, lambda ask: Answer((1,) * len(ask.replicas), 1), lambda *_: None)
    with pytest.raises(PackingError, match="weight-steps"):
        settings(0.01, budget=5).check()


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of tiny networks whose budget ends after two rounds."""
    place = tmp_path_factory.mktemp("search") / "there"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_folder, "_FEWEST_WEIGHTS", 8)
        words = ["--kick=1", "--budget=3e5", "--tolerance=0.3", f"--out={place}"]
        code = main(["critical", "--task=perceptron", *words])
        again = json.loads((place / "search.json").read_text())
        yield place, code, again


def test_the_directory_tells_of_alpha(searched, capsys):
    place, code, facts = searched
    assert code in (0, 5)
    assert facts["search"]["task"] == "perceptron"
    assert facts["search"]["axes"] == {"kappa": 1.0, "exponent": 1, "kick": 1.0, "batch_size": 0}
    assert main(["status", str(place)]) == 0
    told = capsys.readouterr().out
    assert "a search for alpha_c, complete" in told
    assert "weight-steps spent" in told
    assert main(["report", str(place)]) == 0
    assert "half absorbed at alpha" in capsys.readouterr().out
    summary = json.loads((place / "summary.json").read_text())
    assert summary["schema"] == 2
    assert summary["task"] == "perceptron"
    for one in summary["recommended"]:
        assert one["parameter"] == "alpha"
    assert (place / "critical.png").stat().st_size > 0


def test_it_goes_on_without_the_task_being_named(searched, capsys):
    place, code, facts = searched
    assert main(["critical", f"--out={place}"]) == code
    capsys.readouterr()
    assert json.loads((place / "search.json").read_text()) == facts
    assert main(["critical", f"--out={place}", "--kappa=0"]) == 2
    assert "a search of another system" in capsys.readouterr().err
    assert main(["sweep", f"--from={place}"]) == 2
    assert "is of a task" in capsys.readouterr().err


def test_it_goes_on_with_the_rule_that_it_was_begun_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search_folder, "_FEWEST_WEIGHTS", 8)
    words = ["--rule=sgd", "--learning-rate=0.5", "--budget=5e6", "--tolerance=0.3"]
    code = main(["critical", "--task=perceptron", *words, f"--out={tmp_path / 'there'}"])
    facts = json.loads((tmp_path / "there" / "search.json").read_text())
    assert code in (0, 5), capsys.readouterr().err
    assert facts["search"]["rule"] == "sgd"
    assert facts["search"]["axes"]["learning_rate"] == 0.5
    assert main(["critical", f"--out={tmp_path / 'there'}"]) == code
    assert json.loads((tmp_path / "there" / "search.json").read_text()) == facts
    capsys.readouterr()
    assert main(["critical", f"--out={tmp_path / 'there'}", "--rule=bro"]) == 2
    assert "another system" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--task=regression"], "critical cannot search regression"),
        (["--task=percepton"], "did you mean perceptron"),
        (["--task=perceptron", "--alpha=3"], "no option --alpha"),
        (["--task=perceptron", "--exponent=1.5"], "it must be a whole number"),
        (["--task=perceptron", "--tolerance=0"], "the tolerance is 0"),
        (["--task=perceptron", "--budget=nan"], "the budget is nan"),
        (["--task=perceptron", "--kick=-1"], "kick"),
        (["--task"], "--task needs a value"),
    ],
)
def test_wrong_words(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["critical", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_task_of_a_users_needs_a_control_and_a_size():
    with pytest.raises(PackingError, match="this task has none"):
        adaptive.search_task(perceptron)
    with pytest.raises(PackingError, match="critical chooses dimension by itself"):
        adaptive.search_task(Ready(perceptron, {"alpha": (0.4, 0.6)}, "alpha", "dimension"), axes={"dimension": 8})
