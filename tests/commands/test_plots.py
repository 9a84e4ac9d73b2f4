"""Figures show the numbers they are given, are labelled, and need neither a display nor pyplot."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import EllipseCollection
from synthetic import sweep, without

from packing_jax.commands import learning_plots, phi_c_plots, plots
from packing_jax.criticality import estimate_phi_c, zero_kick_limit
from packing_jax.criticality.recommended import Recommended
from packing_jax.criticality.stationarity import final_activity
from packing_jax.errors import PackingError


def drawn(figure):
    """The axes of a figure that a real PNG came out of."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return figure.axes[0]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def discs(axes):
    (collection,) = (c for c in axes.collections if isinstance(c, EllipseCollection))
    return collection.get_offsets(), collection.get_widths() / 2, collection.get_facecolors()


def test_no_pyplot_and_a_light_import():
    code = (
        "import sys; import packing_jax.commands.plots as plots; assert 'matplotlib' not in sys.modules;"
        "plots.packing([[0.2, 0.5], [0.3, 0.5]], [0.2, 0.2]).savefig('/dev/null', format='png');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


class TestActivityAgainstPhi:
    def test_curves_bands_and_phi_c(self):
        results = sweep(kicks=(0.02, 0.05))
        estimates = estimate_phi_c(results)
        figure = phi_c_plots.activity_vs_phi(results, estimates)
        axes = drawn(figure)
        curves = [line for line in axes.lines if len(line.get_xdata()) == 13 and line.get_linestyle() != "None"]
        points = [line for line in axes.lines if line.get_label()[0] == "$" and len(line.get_xdata()) > 2]
        assert len(curves) == 2
        first = results.isel(kick=0, batch_fraction=0).transpose("phi", "replica", "time", ...)
        final = final_activity(results["time"], first["activity"], first["absorbed_at"] >= 0)
        np.testing.assert_allclose(curves[0].get_ydata(), final.mean(axis=1))
        assert len({line.get_linestyle() for line in curves}) == 2
        assert len({line.get_marker() for line in points}) == 2
        marks = [line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]]
        assert marks == [e.recommended().value for e in estimates]
        assert r"\phi" in axes.get_xlabel()
        assert "f_a" in axes.get_ylabel()
        assert f"{estimates[1].recommended().value:.4f}" in legend(figure)[1]

    def test_what_each_method_says_stands_below_a_single_curve(self):
        (estimate,) = estimate_phi_c(results := sweep())
        above, below = phi_c_plots.activity_vs_phi(results, [estimate]).axes
        assert [text.get_text() for text in below.get_yticklabels()][:2] == ["absorption", "threshold"]
        assert r"\phi" in below.get_xlabel()
        assert not above.get_xlabel()
        values = [line.get_xdata()[0] for line in below.lines if line.get_marker() == "o"]
        assert values == [getattr(estimate, method).value for method, _ in estimate.errors]

    def test_points_that_still_fall_are_open_and_said_to_be_left_out(self):
        results = sweep()
        decay = 1 - 0.8 * results["time"].values / results["time"].values[-1]
        results["activity"].values[8] *= decay
        figure = phi_c_plots.activity_vs_phi(results)
        (axes,) = figure.axes
        (opened,) = (line for line in axes.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata()))
        np.testing.assert_allclose(opened.get_xdata(), results["phi"][8])
        assert "still falling" in legend(figure)[-1]

    def test_learning_rates_are_called_so(self):
        results = sweep(kicks=(0.05,), fractions=(0.2, 0.6), rule="sgd")
        labels = legend(phi_c_plots.activity_vs_phi(results))
        assert all(r"\alpha = 0.05" in label for label in labels)
        assert "b_f = 0.2" in labels[0]

    def test_unfinished_and_small_sweeps(self):
        partial = without(without(sweep(), replica=[1, 2]), phi=[0, 5])
        curve = drawn(phi_c_plots.activity_vs_phi(partial)).lines[0]
        assert len(curve.get_xdata()) == 11
        alone = sweep(phi=[0.63], replicas=1)
        (point,) = (line for line in drawn(phi_c_plots.activity_vs_phi(alone)).lines if line.get_label()[0] == "$")
        final = final_activity(alone["time"], alone["activity"].squeeze(), alone["absorbed_at"].squeeze() >= 0)
        np.testing.assert_allclose(point.get_xydata(), [[0.63, final]])
        many = sweep(kicks=tuple(np.linspace(0.02, 0.2, 10)), replicas=2)
        assert len(legend(phi_c_plots.activity_vs_phi(many))) == 10
        with pytest.raises(PackingError, match="nothing to draw"):
            phi_c_plots.activity_vs_phi(without(sweep()))


class TestActivityAgainstTime:
    def test_a_curve_for_each_phi_dashed_where_absorbed(self):
        results = sweep()
        figure = plots.activity_vs_time(results, kick=0.05)
        axes = drawn(figure)
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        lines = [line for line in axes.lines if len(line.get_xdata())]
        assert len(lines) == 13
        assert min(line.get_xdata().min() for line in lines) == 1  # t = 0 has no place on a log axis
        assert lines[0].get_linestyle() == "--"
        assert lines[-1].get_linestyle() == "-"
        assert r"\phi" in figure.axes[1].get_ylabel()

    def test_choice_of_cell(self):
        results = sweep(kicks=(0.02, 0.05), fractions=(0.5, 1.0))
        axes = drawn(plots.activity_vs_time(results, 0.05, 0.5))
        assert "0.05" in axes.get_legend().get_title().get_text()
        expected = results["activity"].sel(kick=0.05, batch_fraction=0.5).isel(phi=-1).mean("replica")
        np.testing.assert_allclose(axes.lines[12].get_ydata(), expected[1:], rtol=1e-5)
        with pytest.raises(PackingError, match=r"nothing was run at kick 0\.3"):
            plots.activity_vs_time(results, 0.3)

    def test_a_single_unfinished_run(self):
        results = sweep(phi=[0.63])
        axes = drawn(plots.activity_vs_time(without(results, replica=[0])))
        (line,) = (line for line in axes.lines if len(line.get_xdata()))
        mean = results["activity"].squeeze()[1:].mean("replica")
        np.testing.assert_allclose(line.get_ydata(), mean[1:], rtol=1e-5)


class TestPhiCAgainstKick:
    def test_points_line_and_intercept(self):
        estimates = estimate_phi_c(sweep(kicks=(0.02, 0.04, 0.05), phi=np.linspace(0.585, 0.66, 16)))
        limit = zero_kick_limit([0.02, 0.04, 0.05], 0.6401 - 0.8 * np.array([0.02, 0.04, 0.05]), np.full(3, 1e-3))
        figure = phi_c_plots.phi_c_vs_kick(estimates, {("power_law", 1.0): limit})
        axes = drawn(figure)
        assert "0.6401" in legend(figure)[0]
        assert "threshold" in legend(figure)[1]
        (line,) = (line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 50)
        assert line.get_xdata()[0] == 0
        assert line.get_ydata()[0] == pytest.approx(0.6401)
        assert r"\epsilon" in axes.get_xlabel()
        assert r"\alpha" in phi_c_plots.phi_c_vs_kick(estimates, rule="sgd").axes[0].get_xlabel()

    def test_nothing_to_draw(self):
        with pytest.raises(PackingError, match="no phi_c was estimated"):
            phi_c_plots.phi_c_vs_kick(estimate_phi_c(sweep(phi=[0.5, 0.51])))


class TestPacking:
    def test_overlap_across_an_edge_and_its_image(self):
        # 0.02 and 0.98 are 0.04 apart; diameters 0.1 overlap by 1 - 0.04/0.1 = 0.6. The third is free.
        figure = plots.packing([[0.02, 0.5], [0.98, 0.5], [0.5, 0.5]], [0.1, 0.1, 0.1])
        axes = drawn(figure)
        centre, radius, colour = discs(axes)
        np.testing.assert_allclose(radius, 0.5)  # in mean diameters
        np.testing.assert_allclose(np.sort(centre[:, 0]), [-0.2, 0.2, 5.0, 9.8, 10.2], atol=1e-9)
        assert figure.axes[1].get_ylim()[1] == pytest.approx(0.6)
        assert len(np.unique(colour, axis=0)) == 2
        assert axes.get_xlim() == pytest.approx((0, 10))
        assert axes.get_aspect() == 1

    def test_overlaps_equal_all_pairs(self):
        rng = np.random.default_rng(3)
        for dim in (2, 3, 5):
            x, sigma = rng.random((80, dim)), rng.uniform(0.1, 0.4, 80)
            apart = x[:, None] - x
            r = np.linalg.norm(apart - np.round(apart), axis=-1)
            depth = np.maximum(1 - r / ((sigma[:, None] + sigma) / 2), 0)
            np.fill_diagonal(depth, 0)
            np.testing.assert_allclose(plots._largest_overlap(x, sigma), depth.max(axis=1), atol=1e-12)

    def test_a_slice_cuts_spheres(self):
        # Radius 0.1 cut 0.06 from the centre leaves 0.08; the second sphere is not reached.
        figure = plots.packing([[0.5, 0.5, 0.56], [0.2, 0.2, 0.7]], [0.2, 0.2], title=r"$\phi = 0.1$")
        axes = drawn(figure)
        _, radius, _ = discs(axes)
        np.testing.assert_allclose(radius, 0.08 / 0.2)
        assert axes.get_title() == r"$\phi = 0.1$, slice of the 3D box"
        four = plots.packing([[0.5, 0.5, 0.53, 0.54]], [0.2])
        np.testing.assert_allclose(discs(drawn(four))[1], np.sqrt(0.01 - 0.0025) / 0.2)

    def test_coordinates_just_outside_the_box(self):
        centre, radius, _ = discs(drawn(plots.packing([[-1e-20, 0.5], [1.0, 0.2]], [0.1, 0.1])))
        np.testing.assert_allclose(radius, 0.5)
        # both lie on the edges at 0 and 10, and are seen at both
        expected = [[0.0, 2.0], [0.0, 5.0], [10.0, 2.0], [10.0, 5.0]]
        np.testing.assert_allclose(sorted(np.round(centre, 9).tolist()), expected, atol=1e-9)

    @pytest.mark.parametrize(
        ("positions", "diameters", "sentence"),
        [
            ([[0.1], [0.2]], [0.1, 0.1], "two dimensions or more"),
            ([[0.1, 0.2]], [0.1, 0.1], "shape"),
            ([[0.1, np.nan]], [0.1], "finite"),
            ([[0.1, 0.2]], [0.0], "positive"),
        ],
    )
    def test_refusals(self, positions, diameters, sentence):
        with pytest.raises(PackingError, match=sentence):
            plots.packing(positions, diameters)


class TestBandsOfNetworks:
    def curves(self, replicas):
        activity = np.linspace(0.9, 0.1, 20) * np.linspace(0.9, 1.1, replicas)[:, None]
        return [
            learning_plots.Curve(
                {"alpha": load},
                np.arange(20.0),
                {"activity": activity},
                np.full(replicas, -1),
                np.full(replicas, -1),
                load,
                20,
            )
            for load in (0.2, 0.4)
        ]

    def test_the_legend_names_them(self):
        figure = learning_plots.against_steps(self.curves(3), "activity")
        drawn(figure)
        assert legend(figure)[-1] == "first to third quartile of replicas"
        figure = learning_plots.against_load(self.curves(3), "alpha")
        drawn(figure)
        assert legend(figure) == ["standard error of the activity"]
        best = Recommended("alpha", {}, 0.3, 0.02, 0.02, 0.0, 0.0, "absorption", "made up")
        figure = learning_plots.against_load(self.curves(3), "alpha", [best])
        drawn(figure)
        assert legend(figure)[0] == r"critical $\alpha$ = 0.3 $\pm$ 0.02"

    def test_one_replica_has_none(self):
        assert len(legend(learning_plots.against_steps(self.curves(1), "activity"))) == 2
        assert not learning_plots.against_load(self.curves(1), "alpha").legends
