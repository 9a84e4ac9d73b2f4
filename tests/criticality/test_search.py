"""The adaptive search: phi_c of made-up dynamics with an honest error, a small real run, and every refusal."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from pretend import Pretend, settings

from packing_jax import adaptive as critical
from packing_jax.commands import search_report
from packing_jax.commands.main import main
from packing_jax.criticality.absorption import scaling_in
from packing_jax.criticality.search import Answer, Round, refine
from packing_jax.errors import PackingError

COARSE = {"dim": 2, "rule": "ro", "kick": 1.0, "tolerance": 0.05, "budget": 10**8, "seed": 3}


def quietly(*_):
    pass


def test_replicas_are_where_the_transition_is():
    pretend = Pretend(0)
    found = refine(settings(), pretend, quietly)
    first = found.rounds[0].particles
    later = [one.phi for one in found.outcomes if one.particles > first]
    assert np.abs(np.array(later) - 0.555).max() < 0.03
    assert found.particle_steps == sum(one.particle_steps for one in found.rounds) <= found.budget
    assert [one.particles for one in found.rounds][:3] == [first, 2 * first, 4 * first]


def test_a_budget_that_ends_is_no_answer_within_the_tolerance():
    found = refine(settings(budget=5 * 10**7), Pretend(0), quietly)
    assert not found.reached
    assert found.particle_steps <= 5 * 10**7
    with pytest.raises(PackingError, match=r"takes .* or more"):
        refine(settings(budget=1000), Pretend(0), quietly)
    # a round that ends without an answer has been paid for
    small, paid = Pretend(0), []

    def stubborn(ask):
        answer = small(ask)
        if ask.particles > 256:
            answer = Answer((-1,) * len(ask.replicas), ask.particles * ask.steps * len(ask.replicas))
        paid.append(answer.particle_steps)
        return answer

    unlucky = refine(settings(tolerance=0.002, budget=10**8), stubborn, quietly)
    assert unlucky.particle_steps == sum(paid) > sum(one.particle_steps for one in unlucky.rounds)
    told = search_report.format_result(found)
    assert ("not extrapolated" in told) == (not math.isfinite(found.stderr))


def test_the_error_of_an_answer_is_all_of_it_and_holds_phi_c():
    pretend = Pretend(0)
    found = refine(settings(), pretend, quietly)
    assert found.reached
    parts = found.law.statistical, found.law.run_length, found.law.size
    assert found.stderr == pytest.approx(np.linalg.norm(parts))
    assert found.stderr <= 0.003
    assert abs(found.value - pretend.phi_c) < 3 * found.stderr
    half = found.law.half_absorbed(1.0, 1.0)
    assert half == pytest.approx(found.value + found.law.amplitude - found.law.remaining)


def test_time_grows_where_the_length_of_runs_is_what_the_error_is_made_of():
    begun = settings()
    first = Round(256, 2000, 0.55, 1e-3, 1e-3, 16, 10**6)
    law = refine(begun, Pretend(0), quietly).law
    assert begun.size([], None) == (256, 2000)
    assert begun.size([first], None) == (512, math.ceil(2000 * 2 ** scaling_in(3).growth))
    slow = replace(law, run_length=2 * max(law.size, law.statistical))
    assert begun.size([first], slow) == (256, 8000)
    assert begun.size([first], replace(law, run_length=0.0)) == begun.size([first], None)


def test_no_transition_in_the_bracket():
    with pytest.raises(PackingError, match=r"absorbed, up to phi = 0\.5: there is no transition"):
        refine(settings(bracket=(0.1, 0.5)), Pretend(0), quietly)


def test_a_transition_below_the_bracket_is_found():
    # random organization at kick 1 in 5D and 6D: a sixteenth of random close packing
    found = refine(settings(bracket=(0.6, 0.7)), Pretend(0, 0.04), quietly)
    assert abs(found.value - 0.04) < 3 * found.stderr
    assert found.reached
    first = found.rounds[0].particles
    assert max(one.phi for one in found.outcomes if one.particles > first) < 0.1  # found once
    few = refine(settings(bracket=(0.6, 0.7), budget=5 * 10**7), Pretend(0, 0.04), quietly)
    assert few.interval[0] <= few.value <= few.interval[1]
    with pytest.raises(PackingError, match=r"every replica is active, down to phi = .*: there is no transition"):
        refine(settings(budget=10**12), lambda ask: Answer((-1,) * len(ask.replicas), 1), quietly)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"tolerance": 0.0}, "the tolerance is 0"),
        ({"tolerance": math.nan}, "the tolerance is nan"),
        ({"budget": 10}, "the budget is 10"),
        ({"kick": 0.0}, "the kick is 0"),
        ({"kick": -1.0}, "the kick is -1"),
        ({"seed": -1}, "the seed is -1"),
        ({"dim": 7}, "dimension"),
        ({"batch_fraction": 0.5}, "belongs to the rule sgd"),
    ],
)
def test_refusals(words, sentence):
    with pytest.raises(PackingError, match=sentence):
        critical.search(**{**COARSE, **words})


@pytest.mark.validation  # compiles for every size: a minute of CPU
def test_a_real_search():
    assert 0.25 < critical.search(**COARSE).value < 0.45


def test_a_search_that_is_cut_goes_on_to_the_same_numbers(tmp_path, capsys, monkeypatch):
    pretend = Pretend(0, 0.34, dim=2)
    monkeypatch.setattr(critical._Recorded, "_run", lambda _, ask: pretend(ask))
    words = ["critical", "--dim=2", "--rule=ro", "--kick=1", "--tolerance=0.05", "--budget=1e8", "--seed=3"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*words, f"--out={whole}"]) == 0
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines()[:-2])) <= 80
    assert "phi_c = 0." in said.out
    assert said.err == f"{whole}: phi_c is known to the tolerance 0.05\n"
    facts = json.loads((whole / "search.json").read_bytes())
    assert 0.25 < json.loads((whole / "summary.json").read_bytes())["recommended"][0]["value"] < 0.45
    assert (whole / "critical.png").stat().st_size > 10_000

    # what a process that was killed after three batches left
    cut.mkdir()
    (cut / "search.json").write_text(json.dumps({**facts, "batches": facts["batches"][:3]}))
    critical.search(**COARSE, out=cut)
    for name in ("search.json", "summary.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()

    with pytest.raises(PackingError, match="another system"):
        critical.search(**{**COARSE, "seed": 4}, out=cut)
    (cut / "search.json").write_text("{")
    with pytest.raises(PackingError, match="damaged"):
        critical.search(**COARSE, out=cut)
