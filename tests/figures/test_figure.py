"""Verdicts, result files and tables of figures, and the command that makes them."""

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import one_sentence
from PIL import Image, ImageSequence

from packing_jax.commands.main import main
from packing_jax.errors import PackingError
from packing_jax.figures import catalogue, every
from packing_jax.figures.descents import Descents
from packing_jax.figures.figure import Figure, Interrupted, Measured, Row, Run, verdict
from packing_jax.figures.modes import modes_task
from packing_jax.figures.result import checked, read_result, result_of, table, with_error, write_result
from packing_jax.figures.session import reproduce
from packing_jax.networks.rules import heavy_ball, sgd
from packing_jax.observables import learning
from packing_jax.sweeps.progress import Stop


def row(value=1.0, stderr=0.01, reference=1.0, reference_error=0.0, quantity="length"):
    return Row(quantity, reference, reference_error, "exact", value, stderr)


def figure(measure=lambda _: Measured([row()], {}), **more):
    return Figure(
        **{
            "name": "ruler",
            "source": "arXiv:0000.00000",
            "claim": "A ruler is one long.",
            "meaning": "Nothing.",
            "minutes": {"quick": 1.0, "full": 2.0},
            "resolution": {"length": 0.02, "width": 0.02},
            "measure": measure,
            "draw": lambda canvas, _: canvas.add_subplot().plot([0, 1], [0, 1]),
            **more,
        }
    )


@pytest.fixture
def ruler(monkeypatch):
    """The only figure there is, of which one counts how often it was measured."""
    calls = []

    def measure(run):
        calls.append(run)
        run.reached(0.5, "half")
        return Measured([row(), row(2.0, quantity="width")], {})

    monkeypatch.setattr(catalogue, "FIGURES", {"ruler": figure(measure)})
    return calls


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (row(1.019), "yes"),
        (row(1.021), "no"),
        (row(0.979), "no"),
        (row(1.0, 0.021), "undecided"),
        (row(1.05, 0.03), "undecided"),
        (row(1.07, 0.03), "no"),  # too coarse to agree, and too far to be undecided
        (row(1.04, 0.01, reference_error=0.02), "yes"),
        (row(1.05, 0.01, reference_error=0.02), "no"),
        (row(np.nan, 0.01), "undecided"),
        (row(1.0, np.inf), "undecided"),
    ],
)
def test_verdict(line, expected):
    assert verdict(line, 0.02) == expected
    assert figure().agrees(line, "quick") == expected
    assert figure().agrees(line, "smoke") is None


def test_rows_have_one_name_and_a_resolution(tmp_path):
    for rows in ([row(), row()], [row(quantity="depth")]):
        with pytest.raises(PackingError, match="ruler measures"):
            figure(lambda _, rows=rows: Measured(rows, {})).measured(Run("quick", 0, tmp_path))


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.5196, 0.005, "0.5196(50)"),
        (0.5, 0.0, "0.5"),
        (1.08123e-4, 1.2e-6, "1.081(12)e-4"),
        (12345.0, 25.0, "12345(25)"),
        (1234567.0, 2500.0, "1.2346(25)e6"),
        (-0.0312, 0.25, "-0.03(25)"),
        (None, 0.1, "not measured"),
    ],
)
def test_numbers_with_errors(value, error, text):
    assert with_error(value, error) == text


def test_result_file_and_table(tmp_path):
    long = figure(resolution={"length": 0.02, "a quantity whose name is far too long for its column": 1.0})
    rows = [row(), row(np.nan, quantity="a quantity whose name is far too long for its column")]
    result = result_of(long, rows, "quick", 1.5)
    write_result(tmp_path, result)
    assert read_result(tmp_path / "result.json") == result
    assert [one["agrees"] for one in result["rows"]] == ["yes", "undecided"]
    assert result["rows"][1]["value"] is None
    assert result["versions"]["packing_jax"]
    assert {path.name for path in tmp_path.iterdir()} == {"result.json"}
    lines = table(result).splitlines()
    assert max(map(len, lines)) <= 80
    assert re.match(r"length +exact +1 +1\.000\(10\) yes", lines[2])
    assert "not measured" in lines[3]


def spoilt(**more):
    result = result_of(figure(), [row()], "quick", 1.0)
    return result | more


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ([], "nothing else"),
        ({"name": "ruler"}, "nothing else"),
        (spoilt(more=1), "nothing else"),
        (spoilt(name=3), "name"),
        (spoilt(seconds="long"), "seconds"),
        (spoilt(size="huge"), "size"),
        (spoilt(size="smoke"), "agrees"),  # which has no verdicts
        (spoilt(rows=[{"quantity": "length"}]), "row"),
        (spoilt(rows=[spoilt()["rows"][0] | {"value": "1"}]), "numbers"),
        (spoilt(rows=[spoilt()["rows"][0] | {"reference": float("nan")}]), "numbers"),
        (spoilt(rows=[spoilt()["rows"][0] | {"kind": "rumour"}]), "kind"),
        (spoilt(rows=[spoilt()["rows"][0] | {"agrees": True}]), "agrees"),
    ],
)
def test_what_is_no_result(result, words):
    with pytest.raises(PackingError, match=words):
        checked(result, "it")


class TestSession:
    def test_once(self, ruler, tmp_path):
        first = reproduce("ruler", tmp_path / "here", size="full", seed=7)
        assert (ruler[0].size, ruler[0].seed) == ("full", 7)
        assert [one["agrees"] for one in first["rows"]] == ["yes", "no"]
        assert (tmp_path / "here" / "figure.png").read_bytes().startswith(b"\x89PNG")
        # size and seed as they were, and nothing is measured again
        assert reproduce("ruler", tmp_path / "here", resume=True) == first
        assert len(ruler) == 1

    def test_a_movie_has_its_frames(self, monkeypatch, tmp_path):
        def film(canvas, _):
            axes = canvas.add_subplot()
            for left in (2, 1, 0):
                axes.clear()
                axes.axvspan(left, left + 1, color="k")
                yield left

        monkeypatch.setattr(catalogue, "FIGURES", {"ruler": figure(film=film)})
        reproduce("ruler", tmp_path)
        with Image.open(tmp_path / "movie.gif") as movie:
            shown = [np.asarray(one.convert("L")) for one in ImageSequence.Iterator(movie)]
        assert len(shown) == 3
        assert not np.array_equal(shown[0], shown[2])

    def test_goes_on_after_a_signal(self, ruler, tmp_path):
        stop = Stop()
        stop.signal = signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"):
            reproduce("ruler", tmp_path, size="smoke", seed=3, stop=stop)
        assert not (tmp_path / "result.json").exists()
        result = reproduce("ruler", tmp_path, resume=True)
        assert (ruler[1].size, ruler[1].seed, result["size"]) == ("smoke", 3, "smoke")
        assert [one["agrees"] for one in result["rows"]] == [None, None]

    def test_another_run_is_not_written_over(self, ruler, tmp_path):
        reproduce("ruler", tmp_path)
        for more, words in (
            ({}, "not empty"),
            ({"resume": True, "size": "full"}, "holds the size quick"),
            ({"resume": True, "seed": 1}, "holds the seed 0"),
        ):
            with pytest.raises(PackingError, match=words):
                reproduce("ruler", tmp_path, **more)
        with pytest.raises(PackingError, match="nothing to resume"):
            reproduce("ruler", tmp_path / "nowhere", resume=True)
        assert len(ruler) == 1

    def test_damage(self, ruler, tmp_path):
        reproduce("ruler", tmp_path)
        (tmp_path / "result.json").write_text("{")
        with pytest.raises(PackingError, match=r"result\.json is damaged"):
            reproduce("ruler", tmp_path, resume=True)
        for text in ("{", "[]", '{"name": "ruler", "size": "huge", "seed": 0, "seconds": 0.0}'):
            (tmp_path / "reproduce.json").write_text(text)
            with pytest.raises(PackingError, match=r"reproduce\.json is damaged"):
                reproduce("ruler", tmp_path, resume=True)


class TestCommand:
    @pytest.fixture
    def packing(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)

        class Done:
            def __init__(self, *words):
                self.code = main(list(words))
                self.out, self.err = capsys.readouterr()

        return Done

    def test_list(self, packing):
        done = packing("reproduce")
        assert done.code == 0
        assert max(map(len, done.out.splitlines())) <= 80
        for name, one in catalogue.FIGURES.items():
            assert re.search(rf"^{name} .* min$", done.out, re.MULTILINE)
            assert set(one.minutes) == {"quick", "full"}

    def test_disagreement_is_a_result(self, packing, ruler, tmp_path):
        done = packing("reproduce", "ruler")
        assert (done.code, done.err) == (0, "")
        assert re.search(r"^width .* no$", done.out, re.MULTILINE)
        assert (tmp_path / "reproduce-ruler" / "result.json").exists()
        packing("reproduce", "ruler", "--seed", "1")
        assert json.loads((tmp_path / "reproduce-ruler-2" / "reproduce.json").read_text())["seed"] == 1
        again = packing("reproduce", "ruler", "--resume")
        assert again.out == done.out
        assert len(ruler) == 2

    def test_progress_as_json(self, packing, ruler):
        lines = packing("reproduce", "ruler", "--log", "json").err.splitlines()
        assert json.loads(lines[0]) == {"event": "progress", "share": 0.5, "what": "half"}

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["ruller"], ["'ruller'", "did you mean ruler?"]),
            (["zzz"], ["'zzz'", "there are ruler"]),
            (["ruler", "--all"], ["--all"]),
            (["--resume"], ["which figure"]),
            (["ruler", "--seed", "-1"], ["seed is -1"]),
            (["ruler", "--resume", "--out", "nowhere"], ["nothing to resume"]),
        ],
    )
    def test_bad_input(self, packing, ruler, tmp_path, words, said):
        one_sentence(packing("reproduce", *words), *said)
        assert not ruler
        assert not list(tmp_path.iterdir())


# --- all figures, each in a process of its own ---------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch):
    """Figures of these names, and :mod:`stand_in_command` for the command."""

    def names(*those):
        known = {name: figure(name=name) for name in those}
        monkeypatch.setattr(every, "FIGURES", known)
        monkeypatch.setattr(every, "_COMMAND", ("stand_in_command", "main"))

    return names


def test_all_figures_and_one_that_fails(stand_in, tmp_path, monkeypatch, capsys):
    stand_in("good", "bad", "other")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reproduce-all" / "good").mkdir(parents=True)
    code = main(["reproduce", "--all", "--size", "full", "--resume"])
    out, err = capsys.readouterr()
    assert code == 4
    assert "not reproduced: bad" in err
    assert "bad: packing-jax: no disk" in out
    # what is there is gone on with, what is not is begun
    assert f"good --size=full --out {Path('reproduce-all/good')} --log json --resume" in out
    assert f"other --size=full --out {Path('reproduce-all/other')} --log json\n" in out


def test_all_figures_end_on_a_signal(stand_in, tmp_path):
    stand_in("slow", "good")
    stop, shares = Stop(), []

    def progress(share, what):
        shares.append(share)
        if share >= 0.5:
            stop.signal = signal.SIGTERM

    began = time.monotonic()
    codes = {name: code for name, code, _ in every.reproduce_every(tmp_path, [], False, progress, stop)}
    assert codes["slow"] == -signal.SIGTERM
    assert time.monotonic() - began < 30
    assert max(shares) <= 1


def test_a_sweep_whose_facts_hide_its_fields_is_refused():
    """What a store says of a fact called rule would be read as the sweep's rule when it is gone on with."""
    with pytest.raises(PackingError, match="rule: a fact"):
        Descents(
            task=modes_task([1.0], 1),
            rule=lambda size: sgd(heavy_ball(size)),
            over={"size": (1.0,)},
            observables={"loss": learning.loss},
            at=[0, 1],
            steps=1,
            replicas=1,
            facts={"rule": "SGD"},
        )


# --- real ones ------------------------------------------------------------------------------------------------


class After(Stop):
    """Asks for the end when it is asked for the n-th time."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def reason(self):
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def test_the_same_numbers_after_an_interruption(tmp_path):
    whole = reproduce("oscillations", tmp_path / "whole", size="smoke")
    with pytest.raises(Interrupted):
        reproduce("oscillations", tmp_path / "cut", size="smoke", stop=After(1))
    cut = reproduce("oscillations", tmp_path / "cut", resume=True)
    assert cut["rows"] == whole["rows"]
    periods = {row["quantity"]: row for row in whole["rows"] if row["quantity"].startswith("period")}
    assert len(periods) == 3
    for row in periods.values():
        assert verdict(Row(**{name: row[name] for name in Row._fields}), 0.05) == "yes"
