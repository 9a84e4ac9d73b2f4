"""The clock, the memory floor and the starts behind the benchmarks."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree

from packing_jax import PackingError, bro
from packing_jax.commands import bench
from packing_jax.commands.bench import Row, Work, tiled, tiling


@pytest.mark.parametrize(
    ("particles", "dim", "expected"),
    [(1_000, 3, (1_000, 1)), (10_000, 3, (1_250, 2)), (100_000, 3, (800, 5)), (10_000, 2, (625, 4)), (64, 3, (64, 1))],
)
def test_a_tile_is_the_smallest_of_at_least_500_particles(particles, dim, expected):
    assert tiling(particles, dim) == expected
    n, copies = expected
    assert n * copies**dim == particles


@pytest.mark.parametrize(("dim", "copies"), [(2, 4), (3, 2), (4, 2)])
def test_copies_of_a_packing_have_its_contacts(dim, copies):
    generator = np.random.default_rng(dim)
    n, reach = 200, 0.12
    positions = generator.random((n, dim), dtype=np.float32)
    sizes = generator.random(n)
    many, many_sizes = tiled(positions, sizes, copies)
    assert many.shape == (n * copies**dim, dim)
    assert many.min() >= 0
    assert many.max() < 1
    one = cKDTree(positions.astype(float), boxsize=1.0).count_neighbors(cKDTree(positions, boxsize=1.0), reach)
    tree = cKDTree(many.astype(float), boxsize=1.0)
    assert tree.count_neighbors(tree, reach / copies) == one * copies**dim
    # each copy keeps its size
    original = cKDTree(positions.astype(float), boxsize=1.0).query((many * copies) % 1.0)[1]
    np.testing.assert_array_equal(many_sizes, sizes[original])


def test_cell_order_keeps_neighbours_close_in_memory():
    positions = np.random.default_rng(0).random((1000, 3), dtype=np.float32)
    many, _ = tiled(positions, None, 1)
    jumps = np.abs(np.diff(many[:, 0])).mean(), np.abs(np.diff(positions[:, 0])).mean()
    assert jumps[0] < 0.25 * jumps[1]


def test_the_floor_counts_what_a_step_moves():
    # 3D, float32: coordinates in, out and at the last rebuild (36), a tag (4), 0.66 * 2.8^3 neighbours of 4 bytes
    assert bench.step_bytes(Work(1000)) == pytest.approx(36 + 4 + 4 * 0.66 * 2.8**3)
    assert bench.rebuild_bytes(Work(1000, dtype="float64")) == pytest.approx(2 * (24 + 4) + 4 * 0.66 * 2.8**3)


def test_a_copy_reads_and_writes_its_bytes_in_the_best_of_seven_times(monkeypatch):
    seconds = [0.5, 0.25, 0.75, 0.125, 1.0, 0.5, 2.0]
    ticks = iter(np.cumsum([part for one in seconds for part in (10.0, one)]))
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert bench.copy_bandwidth(megabytes=16) == 2 * 16 * 2**20 / 0.125
    assert next(ticks, None) is None


def test_the_clock_asks_after_warming_up_and_after_each_round():
    work = Work(64)
    start, _ = bench.thermalised(work)
    assert start.shape == (64, 3)
    asked = []

    def order(rate):
        asked.append(rate)
        return 0.02 if len(asked) < 3 else None

    bench.time_long_run(work.system(None), bro(work.kick), jax.random.key(0), start, order, warmup=0.0)
    assert asked[0] is None
    assert len(asked) == 3
    assert all(1e3 < rate < 1e10 for rate in asked[1:])


def test_a_start_below_the_transition_is_refused():
    with pytest.raises(PackingError, match=r"phi = 0\.3 in 3D is absorbed at kick 0\.02; nothing is left to time"):
        bench.thermalised(Work(64, phi=0.3))


def test_the_command_prints_a_table_and_writes_rows(tmp_path, capsys, monkeypatch):
    def measured(work, name, start, bandwidth):
        return row(work=name, N=work.particles, particle_steps_per_s=2e6, floor=bandwidth / 100)

    monkeypatch.setattr(bench, "measured", measured)  # the clock is tested above; three compilations are not needed
    monkeypatch.setattr(bench, "copy_bandwidth", lambda: 1e9)
    out = tmp_path / "bench.json"
    assert bench.BenchCommand(particles=(64,), out=out).execute("packing-jax bench") == 0
    printed = capsys.readouterr().out
    assert "M/s" in printed
    written = json.loads(out.read_text())
    assert [line["work"] for line in written["rows"]] == list(bench.RULES)
    assert written["command"] == "packing-jax bench"


def test_the_command_refuses_tiny_systems():
    with pytest.raises(PackingError, match="10 particles; at least 64"):
        bench.BenchCommand(particles=(10,)).execute("")


def test_rows_line_up_and_leave_out_what_was_not_measured():
    text = bench.format_rows([row(), row(N=100_000, ratio=3.14159, against="Numba", fraction_of_floor=0.25, floor=8e6)])
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["code", "work"]
    assert "3.14" in lines[2]
    assert "Numba" in lines[2]
    assert lines[1].index("0.66") == lines[2].index("0.66")
    assert "None" not in text


def row(**changes):
    values = {
        "code": "packing_jax",
        "work": "BRO step",
        "device": "cpu",
        "N": 1000,
        "replicas": 1,
        "phi": 0.66,
        "kick": 0.02,
        "dim": 3,
        "dtype": "float32",
        "particle_steps_per_s": 1e6,
        "ratio": None,
        "against": None,
        "fraction_of_floor": None,
        "floor": None,
        "rounds": [1e6],
        "seconds": 1.0,
    }
    return Row(**(values | changes))
