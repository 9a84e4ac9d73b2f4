"""`packing-jax sweep` without --phi: a short search finds packing fractions on both sides of the transition."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import one_sentence

from packing_jax import phi_range
from packing_jax.commands.main import main
from packing_jax.drive.run import Progress
from packing_jax.errors import PackingError
from packing_jax.phi_range import Range, find_ranges, joined
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.spheres import Sweep


@pytest.fixture
def pretended(monkeypatch):
    """Replicas that are absorbed below phi_c = 0.6 - kick, and the packing fractions that were tried."""
    tried = []

    def run(kind, replicas, times, record, on_progress):
        kick = float(np.asarray(replicas.rule.kick)[0])
        for i, phi in enumerate(np.asarray(replicas.system.phi, float)):
            above = phi - (run.phi_c - kick)
            tried.append(phi)
            yield (
                i,
                SimpleNamespace(
                    failed=False,
                    absorbed_at=-1 if above > 0 else 5,
                    records={"activity": np.array([1 - math.exp(-max(above, 0) / run.rise)])},
                ),
            )
        on_progress(Progress(1, 1, 1.0, 0))

    run.phi_c, run.rise, run.tried = 0.6, 0.01, tried
    monkeypatch.setattr(phi_range, "run", run)
    return run


@pytest.mark.parametrize("rise", [0.002, 0.01, 0.1])
def test_a_range_brackets_its_transition_as_widely_as_the_activity_rises(pretended, rise):
    pretended.rise = rise
    (one,) = find_ranges(Sweep(kick=(0.05,))).values()
    below = [phi for phi in one.values if phi < 0.55]
    above = [phi for phi in one.values if phi > 0.55]
    assert below
    assert len(above) >= 6
    assert 7 <= one.points <= 14
    full = 1 - math.exp(-0.15 / rise)  # at the densest
    assert 1 - math.exp(-(above[-1] - 0.55) / rise) == pytest.approx(0.75 * full, abs=0.12)
    assert len(pretended.tried) <= 40


def test_one_lonely_active_replica_does_not_end_a_range():
    """Replicas of a rule whose activity jumps: one is active below others at rest, as happens in small systems."""
    activity = {0.7875: 0, 0.80556: 0, 0.80694: 0.71, 0.80833: 0, 0.81111: 0, 0.8125: 0.81, 0.825: 0.62, 0.9: 1.0}
    low, high = phi_range._ends({phi: phi_range.Seen(f_a == 0, f_a) for phi, f_a in activity.items()})
    assert low == 0.80556
    assert high >= 1.03 * low


def test_kicks_share_a_grid_with_the_finest_spacing_of_each_place(pretended):
    apart = find_ranges(Sweep(kick=(0.05, 0.2)))
    assert [*apart] == [(0.05, 1.0), (0.2, 1.0)]
    alone = find_ranges(Sweep(kick=(0.2,)))
    assert apart[0.2, 1.0] == alone[0.2, 1.0]  # of its own kick alone
    assert joined(apart) == (*apart[0.2, 1.0].values, *apart[0.05, 1.0].values)
    nested = {(1.0, 1.0): Range(0.1, 0.5, 5), (2.0, 1.0): Range(0.25, 0.35, 5)}
    assert joined(nested) == (0.1, 0.2, 0.25, 0.275, 0.3, 0.325, 0.35, 0.4, 0.5)


def test_no_transition_is_said(pretended):
    for phi_c, what in ((2.0, "absorbed, up to phi = 0.7"), (-1.0, "active, down to phi")):
        pretended.phi_c = phi_c
        with pytest.raises(PackingError, match=rf"every replica is {what}.*give --phi"):
            find_ranges(Sweep(kick=(0.05,)))


def test_bad_input_is_refused_before_a_search(packing, tmp_path, pretended):
    for wrong, words in ((["--particles=2"], "2 particles"), (["--kick=0.1,0.1"], "twice"), (["--dim=9"], "dim")):
        one_sentence(packing("sweep", "--steps=100", *wrong, "--out", "here"), words)
    assert not pretended.tried
    assert not list(tmp_path.iterdir())


def test_a_sweep_finds_its_range_once(packing, pretended):
    words = ["--dim=2", "--rule=ro", "--kick=0.3", "--particles=64", "--steps=20", "--replicas=1", "--out=here"]
    pretended.phi_c = 0.7
    done = packing("sweep", *words)
    assert done.code == 0, done.err
    (found,) = [line for line in done.err.splitlines() if line.startswith("no --phi")]
    cells = Reader(Path("here")).cells.axes["phi"]
    low, high, count = found.split(" found ")[1].split(":")
    assert (cells[0], cells[-1], len(cells)) == (float(low), float(high), int(count))
    assert cells[0] < 0.4 < cells[-1]
    before = len(pretended.tried)
    again = packing("sweep", "--resume=here", "--replicas=2")
    assert again.code == 0, again.err
    assert (len(pretended.tried), "no --phi" in again.err) == (before, False)
    assert Reader(Path("here")).cells.axes["phi"] == cells


def test_the_time_limit_holds_for_the_search_too(packing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = packing(
        "sweep", "--dim=2", "--kick=0.5", "--particles=100", "--steps=200", "--max-walltime=0:01", "--out=it"
    )
    assert done.code == 3
    assert "stopped by --max-walltime 0:01 in the search for packing fractions" in done.err
    assert not (tmp_path / "it").exists()


def test_the_main_job_has_its_range(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("packing_jax.commands.sweep.sweep_and_report", lambda spec, *_, **__: asked.append(spec) or 0)
    monkeypatch.setattr("packing_jax.commands.sweep._with_phi", lambda *_: pytest.fail("a search was made"))
    assert main(["sweep", "--replicas=2", "--seed=3"]) == 0
    assert len(asked[0].phi) >= 8


def test_a_real_system():
    """Random organization of discs at kick 1, whose transition is near phi = 0.34."""
    spec = Sweep(dim=2, rule="ro", kick=(1.0,), seed=4)
    (one,) = find_ranges(spec).values()
    assert 0.15 < one.low < 0.335
    assert 0.4 < one.high < 0.6


@pytest.mark.validation  # half a minute of CPU
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_range_of_the_main_job_is_about_what_the_search_finds(seed):
    from packing_jax.commands.options import numbers
    from packing_jax.commands.sweep import _MAIN_PHI

    phi = numbers("phi", _MAIN_PHI)
    (one,) = find_ranges(Sweep(kick=(0.05,), seed=seed)).values()
    assert one.low == pytest.approx(phi[0], abs=0.006)
    assert one.high == pytest.approx(phi[-1], abs=0.006)
