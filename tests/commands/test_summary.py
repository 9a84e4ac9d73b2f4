"""report: store in, summary, table and figures out; anything else is one clear sentence."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from synthetic import store as stored
from synthetic import sweep, true_phi_c, without

from packing_jax.commands.summary import METHODS, OTHERS, _doubts, format_summary, report
from packing_jax.criticality import estimate_phi_c, open_results
from packing_jax.errors import PackingError


def strictly(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def main(summary):
    """The estimates that every sweep is made for."""
    return [row for row in summary["phi_c"] if row["method"] in METHODS]


def figures(directory):
    return sorted(path.name for path in (directory / "figures").iterdir())


def test_a_sweep_of_kicks_and_batch_fractions(tmp_path):
    kicks, phi = (0.01, 0.03, 0.05), np.linspace(0.585, 0.67, 18)
    stored(tmp_path, sweep(kicks=kicks, fractions=(0.5, 1.0), phi=phi, rule="sgd"))
    summary = report(tmp_path)
    assert summary == strictly(tmp_path / "summary.json")
    assert len(main(summary)) == 18
    for row in summary["phi_c"]:
        assert {"kick", "batch_fraction", "value", "stderr", "method"} <= set(row)
        if row["method"] == "power_law":
            assert abs(row["value"] - true_phi_c(row["kick"])) < 3 * row["stderr"]
            assert row["dof"] == row["points"] - 3
    assert len(summary["verdicts"]) == 6
    assert all("Manna in 2D is" in row["text"] for row in summary["verdicts"])
    limit = summary["zero_kick_limit"]
    assert limit["method"] == "absorption"
    assert limit["batch_fraction"] is None  # the mean over both
    assert abs(limit["value"] - true_phi_c(0)) < 3 * limit["stderr"]
    assert len(summary["zero_kick_limits"]) == 6
    assert (summary["rule"], summary["missing"], summary["runs"]) == ("sgd", 0, 648)
    assert "packing.png" in figures(tmp_path)
    assert "phi_c_vs_kick.png" in figures(tmp_path)
    assert "activity_vs_time_kick_0.03_batch_0.5.png" in figures(tmp_path)
    assert len(figures(tmp_path)) == 9
    assert all((tmp_path / "figures" / name).stat().st_size > 5000 for name in figures(tmp_path))
    assert not list(tmp_path.glob(".summary*"))


def test_one_kick_has_no_limit_and_no_note_about_it(tmp_path):
    summary = report(stored(tmp_path, sweep()))
    assert summary["zero_kick_limit"] is None
    assert summary["notes"] == []
    assert [row["method"] for row in summary["phi_c"]][:3] == ["absorption", "power_law", "threshold"]
    methods = {row["method"] for row in summary["phi_c"] + summary["refusals"]}
    methods |= {"fluctuations"} if any(one["name"] == "gamma_prime" for one in summary["exponents"]) else set()
    assert methods == {"absorption", "power_law", "threshold", "decay", "relaxation", "half_absorbed", "fluctuations"}
    assert figures(tmp_path) == ["activity_vs_phi.png", "activity_vs_time.png", "packing.png"]
    assert report(tmp_path) == summary  # again, over what is there


def test_one_value_is_recommended_first_with_the_parts_of_its_error(tmp_path):
    summary = report(stored(tmp_path, sweep()))
    assert summary["schema"] == 2
    (best,) = summary["recommended"]
    assert (best["parameter"], best["method"]) == ("phi", "absorption")
    assert best["axes"] == {"kick": 0.05, "batch_fraction": 1.0}
    parts = [best[name] for name in ("statistical", "run_length", "size")]
    assert best["stderr"] == pytest.approx(np.linalg.norm(parts))
    assert min(parts) > 0
    first = format_summary(summary).splitlines()[0]
    assert first.startswith(f"phi_c = {best['value']:.5f} +- {best['stderr']:.5f} at kick 0.05")
    (row,) = [row for row in summary["phi_c"] if row["method"] == "absorption"]
    assert all(row[name] == best[name] for name in ("value", "stderr", "statistical", "run_length", "size"))


def test_the_threshold_stands_in_for_a_refused_power_law(tmp_path):
    coarse = np.linspace(0.60, 0.66, 5)
    summary = report(stored(tmp_path, sweep(kicks=(0.01, 0.02, 0.03), phi=coarse)))
    assert {row["method"] for row in main(summary)} == {"absorption", "threshold"}
    assert {one["method"] for one in summary["zero_kick_limits"]} == {"absorption", "threshold"}
    assert sum("no phi_c by power law" in note for note in summary["notes"]) == 3
    assert "known at 0" in summary["notes"][-2]
    assert "three kicks allow only a straight line" in summary["notes"][-1]


def test_an_unfinished_sweep(tmp_path):
    partial = without(without(sweep(dim=3), replica=[4, 5]), phi=[0, 1])
    summary = report(stored(tmp_path, partial))
    assert summary["missing"] == 26 + 8
    assert summary["notes"][0] == "34 of 78 runs are not done: this report uses the others."
    assert len(main(summary)) == 3


def test_failed_runs_are_left_out_and_said(tmp_path):
    results = sweep()
    results["failed"] = (results["steps_done"].dims, np.zeros(results["steps_done"].shape, np.int32))
    results["failed"][3, 0, 0, 1] = 1
    results["activity"][3, 0, 0, 1] = np.nan
    summary = report(stored(tmp_path, results))
    assert (summary["missing"], summary["failed"]) == (0, 1)
    assert summary["notes"] == ["1 of 78 runs failed: this report leaves them out."]


def test_nothing_run_yet(tmp_path):
    summary = report(stored(tmp_path, without(sweep())))
    assert summary["phi_c"] == []
    assert summary["zero_kick_limit"] is None
    assert any("nothing to draw" in note for note in summary["notes"])
    assert summary["recommended"] == []
    assert "no phi_c can be recommended" in format_summary(summary)


@pytest.mark.parametrize("dim", [1, 4])
def test_other_dimensions(tmp_path, dim):
    summary = report(stored(tmp_path, sweep(dim=dim)))
    assert ("packing.png" in figures(tmp_path)) == (dim > 1)
    assert len(summary["notes"]) == (dim == 1)


def test_a_single_run(tmp_path):
    summary = report(stored(tmp_path, sweep(phi=[0.63], replicas=1)))
    assert summary["phi_c"] == []
    assert all("scan a range of phi" in note or "scan more phi" in note for note in summary["notes"])
    assert "activity_vs_time.png" in figures(tmp_path)


def test_methods_that_disagree_are_told(tmp_path):
    results = sweep(phi=np.linspace(0.585, 0.66, 16))
    (estimate,) = estimate_phi_c(results)
    assert not [note for note in _doubts([estimate], "bro") if "joint errors" in note]
    half = replace(estimate.half_absorbed, value=estimate.absorption.value - 0.1)
    (note,) = [note for note in _doubts([replace(estimate, half_absorbed=half)], "bro") if "joint errors" in note]
    assert "half absorbed gives phi_c" in note
    assert "larger systems" in note


def test_the_table_says_why_a_method_lacks(tmp_path):
    """Of those whose refusal is no note."""
    summary = report(stored(tmp_path, sweep(phi=np.linspace(0.585, 0.61, 6))))
    lacking = {one["method"]: one["why"] for one in summary["refusals"] if one["method"] in OTHERS}
    assert {"relaxation", "decay"} & set(lacking)
    table = format_summary(summary)
    words = " ".join(table.split())
    for method, why in lacking.items():
        assert f"{method.replace('_', ' ')} no value: {why}" in words
    assert max(len(line) for line in table.splitlines()) <= 80


def test_the_table_fits_a_terminal(tmp_path):
    results = sweep(kicks=(0.012345678, 0.03, 0.05), phi=np.linspace(0.60, 0.67, 8))
    results["kick"] = results["kick"] / 1000
    table = format_summary(report(stored(tmp_path, results)))
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "phi_c at zero kick: 0." in table
    assert "threshold" in table


@pytest.mark.parametrize(
    ("phi", "own", "command"),
    [
        ((0.585, 0.595), {}, "to scan higher phi: packing-jax sweep --resume there --phi 0.5975:0.605:4"),
        ((0.63, 0.65), {}, "to scan lower phi: packing-jax sweep --resume there --phi 0.61:0.625:4"),
        ((0.63, 0.65), {}, "to run more steps: packing-jax sweep --resume there --steps 60000"),
        ((0.63, 0.65), {"exponent": 3.0}, "more steps first: where the force vanishes"),
    ],
)
def test_the_report_ends_in_the_commands_for_its_notes(packing, tmp_path, phi, own, command):
    results = sweep(phi=np.linspace(*phi, 5))
    results.attrs |= own
    stored(tmp_path / "there", results)
    done = packing("report", "there")
    assert done.code == 0, done.err
    assert command in done.out.splitlines() or (own and command in done.out)
    assert ("more steps first" in done.out) == bool(own)


def test_a_report_without_such_notes_has_no_commands(packing, tmp_path):
    stored(tmp_path / "there", sweep())
    assert "packing-jax sweep" not in packing("report", "there").out


class TestStoresThatAreNone:
    def test_no_directory(self, tmp_path):
        with pytest.raises(PackingError, match="nowhere is not a directory: give the directory"):
            report(tmp_path / "nowhere")

    def test_no_store(self, tmp_path):
        with pytest.raises(PackingError, match=r"has no results\.zarr: give the directory"):
            report(tmp_path)

    def test_an_empty_store(self, tmp_path):
        (tmp_path / "results.zarr").mkdir()
        with pytest.raises(PackingError, match=r"description of the sweep in .* is missing"):
            report(tmp_path)

    def test_garbled_metadata(self, tmp_path):
        stored(tmp_path, sweep())
        (tmp_path / "results.zarr" / "activity" / ".zarray").write_text('{"zarr_format": 2, "sha')
        with pytest.raises(PackingError, match=r"activity/\.zarray .* is damaged; packing-jax sweep --resume"):
            report(tmp_path)

    def test_a_garbled_chunk(self, tmp_path):
        stored(tmp_path, sweep())
        (tmp_path / "results.zarr" / "activity" / "7.0.0.3.0").write_bytes(b"not what was written")
        where = r"the finished cell at phi 0\.62, kick 0\.05, batch fraction 1, replica 3 is damaged: "
        with pytest.raises(PackingError, match=f"{where}.*; packing-jax sweep --resume .* computes it again") as caught:
            report(tmp_path)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "summary.json").exists()

    def test_a_lost_variable(self, tmp_path):
        stored(tmp_path, sweep())
        shutil.rmtree(tmp_path / "results.zarr" / "activity")
        with pytest.raises(PackingError, match="activity"):
            open_results(tmp_path)

    def test_impossible_values(self, tmp_path):
        results = sweep()
        results["activity"][...] = 7.0
        with pytest.raises(PackingError, match="between 0 and 1"):
            report(stored(tmp_path, results))

    def test_damaged_positions_cost_the_picture_alone(self, tmp_path):
        stored(tmp_path, sweep())
        for chunk in (tmp_path / "results.zarr" / "positions").glob("[0-9]*"):
            if chunk.is_file():
                chunk.write_bytes(b"not what was written")
        summary = report(tmp_path)
        assert len(main(summary)) == 3
        assert "positions cannot be read" in summary["notes"][-1]

    def test_a_directory_that_cannot_be_written(self, tmp_path):
        stored(tmp_path, sweep())
        (tmp_path / "figures").write_text("in the way")
        with pytest.raises(PackingError, match="cannot be written"):
            report(tmp_path)


def test_a_sweep_of_several_sizes_is_reported_size_by_size(tmp_path):
    """Each size is what its own sweep would be; an estimate alone asks for one of them."""
    one = sweep(seed=3, particles=64)
    both = xr.concat([one, one], "particles", join="exact").assign_coords(particles=[64, 128]).pad(particle=(0, 64))
    both = both.transpose("particles", ...).assign_attrs(particles=[64, 128])
    both.attrs["axes"] = ["particles", "phi", "kick", "batch_fraction"]
    summary = report(stored(tmp_path, both))
    alone = estimate_phi_c(one)
    for size in (64, 128):
        laws = [row for row in summary["phi_c"] if row["particles"] == size and row["method"] == "power_law"]
        assert [row["value"] for row in laws] == pytest.approx([e.power_law.value for e in alone], rel=1e-6)
        assert (tmp_path / "figures" / f"particles_{size}" / "activity_vs_phi.png").exists()
    assert summary["axes"] == ["particles"]
    assert summary["runs"] == 2 * sum(e.runs for e in alone)
    table = format_summary(summary).splitlines()
    assert table.index("particles 64, kick 0.05") < table.index("particles 128, kick 0.05")
    with pytest.raises(PackingError, match=r"2 numbers of particles, .* choose it by \.sel\(particles=\.\.\.\)"):
        estimate_phi_c(tmp_path)
    chosen = estimate_phi_c(both.sel(particles=[64]))
    assert [e.power_law.value for e in chosen] == pytest.approx([e.power_law.value for e in alone], rel=1e-6)
