"""`packing-jax critical` and its directory: stopped, gone on with, looked at, begun from a sweep and swept around."""

import json

import pytest
from command_line import changed, one_sentence
from pretend import Pretend
from tiny_sweep import go, like

from packing_jax import adaptive
from packing_jax.commands import critical as command
from packing_jax.errors import PackingError
from packing_jax.search_folder import range_around, standing, stored_search
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.manifest import Manifest
from packing_jax.sweeps.progress import Stop

WORDS = ["--dim=2", "--rule=ro", "--kick=1", "--tolerance=0.05", "--budget=1e8", "--seed=3"]


@pytest.fixture
def asked(monkeypatch):
    """The batches that were asked for; they are answered at once."""
    pretend = Pretend(0, 0.34, dim=2)

    def run(self, ask):
        self._tell(ask.particles, 0)
        return pretend(ask)

    monkeypatch.setattr(adaptive._Recorded, "_run", run)
    return pretend.asked


@pytest.fixture
def finished(packing, asked):
    """The directory of a finished search."""
    assert packing("critical", *WORDS, "--out=done").code == 0
    return Folder("done").path


def test_the_end_is_told_and_written(packing, asked):
    done = packing("critical", *WORDS)
    assert done.code == 0
    assert "packing-critical: phi_c is known to the tolerance 0.05" in done.err
    facts = json.loads(Folder("packing-critical").read("summary.json", 2**20))
    (best,) = facts["recommended"]
    assert (best["parameter"], best["axes"]) == ("phi", {"kick": 1.0, "batch_fraction": 1.0})
    assert best["value"] == pytest.approx(0.34, abs=3 * best["stderr"])
    assert best["stderr"] <= 0.05
    assert isinstance(facts["schema"], int)
    assert max(map(len, done.out.splitlines())) <= 80


def test_a_budget_that_ends_has_an_exit_code_of_its_own(packing, asked):
    done = packing("critical", *changed(WORDS, "--tolerance=0.0001"), "--out=short")
    assert done.code == 5
    assert (
        "not known to the tolerance 0.0001; to continue: packing-jax critical --out short with a larger --budget"
        in done.err
    )
    assert "the budget is spent" in packing("status", "short").out
    # a larger tolerance is reached, with little more than what is there
    count = len(asked)
    assert packing("critical", "--out=short", "--tolerance=0.05").code == 0
    assert len(asked) < 2 * count


def test_a_search_that_is_stopped_goes_on_without_its_words(packing, asked, finished, monkeypatch):
    whole, calls = json.loads((finished / "summary.json").read_bytes()), []

    class After(Stop):
        def reason(self):
            calls.append(None)
            return "SIGTERM" if len(calls) > 4 else None

    monkeypatch.setattr(command, "Stop", After)
    cut = packing("critical", *WORDS, "--out=cut")
    assert (cut.code, cut.err) == (143, "stopped by SIGTERM; to continue: packing-jax critical --out cut\n")
    where = standing(Folder("cut").path)
    told = packing("status", "cut").out
    assert "a search for phi_c, stopped" in told
    assert "to continue: packing-jax critical --out cut" in told
    facts = json.loads(packing("status", "cut", "--log=json").out)
    assert (facts["done"], facts["rounds"]) == (False, len(where.rounds))
    assert facts["left"] > 0
    monkeypatch.setattr(command, "Stop", Stop)
    assert packing("critical", "--out=cut").code == 0
    assert json.loads(Folder("cut").read("summary.json", 2**20)) == whole
    one_sentence(packing("critical", "--out=cut", "--seed=4"), "another system, seed")


def test_status_and_report_of_a_finished_search(packing, finished):
    told = packing("status", finished)
    assert told.code == 0
    assert "complete" in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    before = (finished / "summary.json").read_bytes()
    for name in ("summary.json", "critical.png"):
        (finished / name).unlink()
    done = packing("report", finished)
    assert done.code == 0
    assert "phi_c = 0.3" in done.out
    assert (finished / "summary.json").read_bytes() == before
    assert (finished / "critical.png").stat().st_size > 10_000


def test_nothing_to_report(packing, finished):
    facts = json.loads((finished / "search.json").read_bytes())
    (finished / "search.json").write_text(json.dumps({**facts, "batches": facts["batches"][:1]}))
    one_sentence(packing("report", finished), "nothing to report", "no round")
    assert "0 rounds done" in packing("status", finished).out


def test_a_search_of_version_0_1_0(packing, finished, asked):
    facts = json.loads((finished / "search.json").read_bytes())
    for name in ("bracket", "tolerance", "budget"):
        del facts[name]
    old = finished.resolve().parent / "old"
    old.mkdir()
    (old / "critical.json").write_text(json.dumps({**facts, "result": {"tolerance": 0.05}}))
    assert standing(old).result is not None
    count = len(asked)
    assert packing("critical", *WORDS, "--out=old").code == 0
    assert len(asked) == count
    assert (old / "summary.json").read_bytes() == (finished / "summary.json").read_bytes()
    assert stored_search(old).answers == stored_search(finished).answers


def test_two_searches_in_one_folder(packing, finished):
    lock = Manifest.lock(Folder(finished), 0)
    try:
        one_sentence(packing("critical", "--out=done"), "another process")
        assert "running" in packing("status", finished).out
    finally:
        lock.close()


@pytest.mark.parametrize("content", ["{", "[]", '{"search": {"dim": 3, "kick": [0]}, "batches": [], "digest": ""}'])
def test_damage(packing, finished, content):
    (finished / "search.json").write_text(content)
    for words in (("critical", "--out=done"), ("status", "done"), ("report", "done")):
        one_sentence(packing(*words), "search.json", "damaged")


@pytest.mark.usefixtures("asked")
def test_from_a_sweep_and_around_a_search(packing, tmp_path, finished, monkeypatch):
    go(tmp_path / "swept", like(rule="ro", kick=(0.3, 0.5), phi=(0.05, 0.3, 0.8), steps=300))
    one_sentence(packing("critical", "--from=swept", "--out=s"), "kick 0.3, 0.5", "--kick")
    one_sentence(packing("critical", "--from=swept", "--kick=0.3", "--dim=3", "--out=s"), "dim is 2 in swept and 3")
    one_sentence(packing("critical", "--from=swept", "--kick=0.3", "--out=done"), "begun already")
    one_sentence(packing("critical", "--from=swept", "--kick=0.3", "--out=swept"), "holds a sweep")
    one_sentence(packing("sweep", "--phi=0.3", "--out=done"), "holds a search")
    one_sentence(packing("sweep", "--from=swept", "--out=s"), "no search.json")
    seen = []

    def search(**words):
        seen.append(words)
        raise PackingError("enough")

    monkeypatch.setattr(adaptive, "search", search)
    one_sentence(packing("critical", "--from=swept", "--kick=0.3", "--tolerance=0.1", "--out=s"), "enough")
    (words,) = seen
    assert {name: words[name] for name in ("dim", "rule", "kick", "coupling", "tolerance")} == {
        "dim": 2,
        "rule": "ro",
        "kick": 0.3,
        "coupling": "particle",
        "tolerance": 0.1,
    }
    low, high = words["bracket"]
    assert low < 0.3 < high

    swept = []
    monkeypatch.setattr("packing_jax.commands.sweep.sweep_and_report", lambda spec, *_, **__: swept.append(spec) or 0)
    assert packing("sweep", "--from=done", "--particles=512", "--kick=1.0").code == 0
    (spec,) = swept
    assert (spec.rule, spec.dim, spec.kick, spec.particles) == ("ro", 2, (1.0,), 512)
    assert spec.phi[0] < 0.34 < spec.phi[-1]
    assert spec.phi == range_around(finished, 512).values
    one_sentence(packing("sweep", "--from=done", "--dim=3"), "dim is 2 in done and 3 here")
    one_sentence(packing("sweep", "--from=done", "--kick=0.5"), "kick is 1.0 in done and 0.5 here")
    one_sentence(packing("sweep", "--from=done", "--phi=0.3"), "omit --phi")
