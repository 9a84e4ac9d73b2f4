"""run: what came out, as a table and against time."""

import dataclasses

import numpy as np
import pytest
from synthetic import store as stored
from synthetic import sweep, without
from tiny_sweep import TINY, go

from packing_jax.commands.main import main
from packing_jax.commands.run_report import against_time, run_report
from packing_jax.criticality import open_results


def test_a_run_says_what_came_out_and_draws_it(tmp_path, capsys):
    spec = dataclasses.replace(TINY, phi=(0.3,), replicas=3)
    go(tmp_path, spec)
    assert main(["report", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
    assert lines[0] == "phi 0.3, kick 0.3, 64 spheres in 2D, 300 steps"
    assert lines[2].split() == ["replica", "absorbed", "at", "activity", "energy", "displacement"]
    results = open_results(tmp_path).squeeze(["phi", "kick", "batch_fraction"]).load()
    for replica, line in enumerate(lines[5:8]):
        one = results.isel(replica=replica, time=-1)
        assert int(one["absorbed_at"]) >= 0
        number, step, *ends = (word.replace(",", "") for word in line.split())
        assert (int(number), int(step)) == (replica, int(one["absorbed_at"]))
        expected = [one["activity"], one["energy"], np.sqrt(one["msd"])]
        np.testing.assert_allclose([float(end) for end in ends], expected, rtol=1e-3, atol=1e-9)
    assert lines[8].split()[:4] == ["mean", "3", "of", "3"]
    assert (tmp_path / "figures" / "run.png").stat().st_size > 5000


def test_the_figure_marks_absorption_and_its_time_is_logarithmic():
    times = np.array([0, 1, 10, 100, 1000])
    records = {"activity": np.array([[1.0, 0.5, 0.1, 0.0, 0.0], [1.0, 0.5, 0.4, 0.4, 0.4]])}
    figure = against_time(times, records, np.array([37, -1]), "")
    (panel,) = figure.axes
    assert panel.get_xscale() == "log"
    assert [line.get_xdata()[0] for line in panel.lines if list(line.get_xdata()) == [37, 37]] == [37]
    told = [text.get_text() for text in panel.get_legend().get_texts()]
    assert told == ["absorbed at step 37", "active at the end"]
    gone, alive = (
        line.get_xdata().tolist() for line in panel.lines if len(line.get_xdata()) > 2 or 10 in line.get_xdata()
    )
    assert gone == [1, 10]
    assert alive == [1, 10, 100, 1000]


@pytest.mark.parametrize("results", [sweep(), without(sweep(phi=[0.63], replicas=1))], ids=["sweep", "nothing done"])
def test_what_is_no_run_has_no_such_report(tmp_path, results):
    assert run_report(stored(tmp_path, results)) is None


def test_many_replicas_and_many_observables_fit_a_terminal(tmp_path):
    results = sweep(phi=[0.63], replicas=12)
    for number in range(9):
        results[f"observable_{number}"] = results["activity"]
    lines = run_report(stored(tmp_path, results)).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 5 + 10 + 2
