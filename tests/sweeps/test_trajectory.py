"""Trajectories: what GSD files say is what the sweep did, whatever happened to it on the way."""

import dataclasses
import resource
import shutil
import sys

import freud
import gsd.hoomd
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from packing_jax.commands import movie
from packing_jax.commands.main import main
from packing_jax.commands.movie import discs
from packing_jax.errors import PackingError
from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.trajectory import frame_times, trajectory_name

TINY = Sweep(
    dim=2, particles=64, phi=(0.3, 0.5, 0.9), kick=(0.3,), steps=300, record_every=10, replicas=2, seed=5,
    mixture="1:1.4", trajectory="every:20",
)  # fmt: skip


def go(directory, spec=TINY, **options):
    return run_sweep(spec, directory, **{"batch": 3, "chunk_steps": 50, "checkpoint_seconds": 0.0} | options)


def tree(directory):
    root = directory / "trajectories"
    return {path.name: path.read_bytes() for path in sorted(root.glob("*.gsd"))}


AXES = ("phi", "kick", "batch_fraction", "replica")


def cells(results):
    """Every cell of a dataset: its index, its file."""
    for index in np.ndindex(*results["absorbed_at"].shape):
        phi, kick, fraction, number = (results[axis].values[i] for axis, i in zip(AXES, index, strict=True))
        yield index, (float(phi), float(kick), float(fraction), int(number))


class After(Stop):
    """Stops a sweep after so many chunks."""

    def __init__(self, chunks):
        super().__init__()
        self.left = chunks

    def reason(self):
        self.left -= 1
        return "walltime" if self.left < 0 else None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    outcome = go(directory)
    assert (outcome.done, outcome.failed, outcome.notes) == (6, 0, ())
    return directory


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


# --- what the files say ---------------------------------------------------------------------------------------


def test_frames_are_what_the_store_recorded(whole):
    results = xr.open_zarr(whole / "results.zarr").load()
    absorbed = 0
    for index, name in cells(results):
        end = int(results["absorbed_at"].values[index])
        absorbed += end >= 0
        end = 300 if end < 0 else end
        diameters = results["diameters"].values[index[0]].astype(float)
        side = 1 / diameters.mean()
        with gsd.hoomd.open(whole / trajectory_name(AXES, name)) as file:
            steps = [frame.configuration.step for frame in file]
            assert steps == sorted({*range(0, end + 1, 20), end})
            for frame in file:
                assert frame.configuration.dimensions == 2
                np.testing.assert_allclose(frame.configuration.box, [side, side, 0, 0, 0, 0], rtol=1e-6)
                np.testing.assert_allclose(frame.particles.diameter, diameters * side, rtol=1e-6)
                np.testing.assert_array_equal(frame.particles.typeid, [0] * 32 + [1] * 32)
                assert np.all(frame.particles.position[:, 2] == 0)
                active = frame.log["particles/active"]
                assert active.shape == (64,)
                assert frame.log["activity"][0] == active.mean()
                if frame.configuration.step % 10 == 0:
                    at = frame.configuration.step // 10
                    assert active.mean() == results["activity"].values[(*index, at)]
                assert [float(frame.log[word][0]) for word in ("phi", "kick", "batch_fraction", "replica")] == [*name]
            final = results["positions"].values[index].astype(float) * side
            apart = file[-1].particles.position[:, :2] - final
            assert np.abs(apart - side * np.rint(apart / side)).max() < 1e-5
    assert 0 < absorbed < 6


def test_freud_finds_the_overlaps_of_every_frame(whole):
    seen = set()
    for path in sorted((whole / "trajectories").glob("*.gsd")):
        with gsd.hoomd.open(path) as file:
            for frame in file:
                sigma = frame.particles.diameter
                query = freud.locality.AABBQuery.from_system(frame)
                pairs = query.query(frame.particles.position, {"r_max": 1.5, "exclude_ii": True}).toNeighborList()
                contact = (sigma[pairs.query_point_indices] + sigma[pairs.point_indices]) / 2
                gap = pairs.distances - contact
                surely, perhaps = np.zeros(64, int), np.zeros(64, int)
                surely[pairs.query_point_indices[gap < -1e-5]] = 1
                perhaps[pairs.query_point_indices[gap < 1e-5]] = 1  # positions in the file are float32
                active = frame.log["particles/active"]
                assert np.all((surely <= active) & (active <= perhaps))
                seen |= {int(active.sum())}
    assert 0 in seen
    assert max(seen) > 30


# --- the same bytes, whatever happens ------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [pytest.param((1, 7), marks=pytest.mark.validation), (2, 1000)])
def test_batches_and_chunks_change_nothing(whole, tmp_path, pace):
    go(tmp_path, batch=pace[0], chunk_steps=pace[1])
    assert tree(tmp_path) == tree(whole)


def test_stopped_sweeps_go_on(whole, tmp_path):
    for chunks in (1, 3, 5):
        outcome = go(tmp_path / "a", TINY if chunks == 1 else None, resume=chunks > 1, stop=After(chunks))
        assert outcome.stopped == "walltime"
        assert any((tmp_path / "a/trajectories/.parts").iterdir())
    assert go(tmp_path / "a", None, resume=True).notes == ()
    assert tree(tmp_path / "a") == tree(whole)
    assert not any((tmp_path / "a/trajectories/.parts").iterdir())


@pytest.mark.parametrize(
    "damage", ["flip", *(pytest.param(one, marks=pytest.mark.validation) for one in ("cut", "remove"))]
)
def test_a_cell_whose_frames_were_lost_starts_again(whole, tmp_path, damage):
    go(tmp_path, stop=After(4))
    parts = [path for path in (tmp_path / "trajectories/.parts").iterdir() if path.stat().st_size > 2000]
    assert parts
    for part in parts:
        data = bytearray(part.read_bytes())
        data[700] ^= 4
        if damage == "remove":
            part.unlink()
        else:
            part.write_bytes(data[:900] if damage == "cut" else data)
    outcome = go(tmp_path, None, resume=True)
    assert len([note for note in outcome.notes if "lost; it starts again" in note]) == len(parts)
    assert tree(tmp_path) == tree(whole)


def test_more_frames_than_a_checkpoint_knows_of_are_made_again(whole, tmp_path):
    """As after a kill: frames were written after the last checkpoint, the last of them cut off."""
    go(tmp_path, stop=After(3), checkpoint_seconds=1e9)
    states = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    with pytest.raises(RuntimeError, match="killed"):
        go(tmp_path, None, resume=True, on_progress=interrupt_after(3), checkpoint_seconds=1e9)
    for path in (tmp_path / "trajectories/.parts").iterdir():
        path.write_bytes(path.read_bytes() + b"half a frame")
    for name, data in states.items():
        (tmp_path / "checkpoints" / name).write_bytes(data)
    assert go(tmp_path, None, resume=True).notes == ()
    assert tree(tmp_path) == tree(whole)


def interrupt_after(chunks):
    calls = iter(range(chunks))

    def on_progress(_):
        if next(calls, None) is None:
            raise RuntimeError("killed")

    return on_progress


@pytest.mark.validation  # two sweeps of half a minute
def test_longer_sweeps_have_the_frames_of_ones_that_were_long_from_the_start(tmp_path):
    """The shorter one ends between two frames; what it showed of its end is no frame of the longer one."""
    spec = dataclasses.replace(TINY, phi=(0.5, 0.9), replicas=1, trajectory="log")
    go(tmp_path / "grown", spec, batch=1)
    longer = dataclasses.replace(spec.checked(), steps=430)
    assert go(tmp_path / "grown", longer, batch=1, resume=True).notes == ()
    go(tmp_path / "long", dataclasses.replace(spec, steps=430), batch=1)
    assert tree(tmp_path / "grown") == tree(tmp_path / "long")


@pytest.mark.parametrize("damage", ["cut", "remove"])
def test_a_damaged_file_is_named_and_made_again(whole, copy, damage):
    # three, as many as a batch: a narrower one would be another program to compile
    paths = sorted((copy / "trajectories").glob("*.gsd"))[-3:]
    for path in paths:
        data = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(data[:300])
    outcome = go(copy, None, resume=True)
    for path in paths:
        assert any(path.name in note and "computed again" in note for note in outcome.notes)
    assert tree(copy) == tree(whole)


def test_a_full_disk_is_one_sentence(whole, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, limits[1]))
    try:
        with pytest.raises(PackingError, match=r"cannot write .*: File too large; what was finished before is kept"):
            go(tmp_path, checkpoint_seconds=1e9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert go(tmp_path, None, resume=True).failed == 0
    assert tree(tmp_path) == tree(whole)


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trajectory": "every"}, "must be every:K"),
        ({"trajectory": "every:-3"}, "must be every:K"),
        ({"trajectory": "linear:10"}, "must be every:K"),
        ({"trajectory": "every:0"}, "between 1 and the number of steps, 300"),
        ({"trajectory": "every:301"}, "between 1 and the number of steps, 300"),
        ({"trajectory": "every:1", "steps": 2 * 10**6}, "more than 1000000 frames"),
        ({"trajectory": "every:1", "steps": 10**5, "particles": 10**6}, r"100002 frames of 1000000 particles .* GiB"),
        ({"dim": 4, "phi": (0.1,)}, "two dimensions or three"),
    ],
)
def test_bad_input_is_one_sentence(changes, words):
    with pytest.raises(PackingError, match=words):
        dataclasses.replace(TINY, **changes).checked()


def test_times_of_frames():
    assert frame_times("every:40", 100).tolist() == [0, 40, 80]
    assert frame_times("log", 12).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    long = frame_times("log", 10**6)
    for steps in (1, 2, 999, 1000, 1001):
        assert frame_times("log", steps).tolist() == long[long <= steps].tolist()
    assert len(long[long > 100]) == 80


def test_a_sweep_begun_anew_leaves_other_files_alone(whole, tmp_path):
    folder = tmp_path / "trajectories"
    folder.mkdir()
    (folder / "mine.gsd").write_bytes(b"of somebody else")
    path = folder / "phi0.9_kick0.3_bf1.0_replica1.gsd"
    path.write_bytes(b"of a sweep that was removed")
    go(tmp_path, stop=After(0))
    assert not path.exists()
    go(tmp_path, None, resume=True)
    assert tree(tmp_path) == tree(whole) | {"mine.gsd": b"of somebody else"}


def test_gsd_is_asked_for_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gsd.hoomd", None)
    with pytest.raises(PackingError, match=r'pip install "packing_jax\[trajectory\]"'):
        go(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_another_schedule_is_another_sweep(copy, capsys):
    assert main(["sweep", "--resume", str(copy), "--trajectory", "log"]) == 2
    assert "trajectory is every:20 there and log here" in capsys.readouterr().err
    assert Sweep().recorded(description(copy)).trajectory == "every:20"


# --- movies ---------------------------------------------------------------------------------------------------


def red(picture):
    """The share of a picture that is red."""
    rgb = np.asarray(picture.convert("RGB")).astype(int)
    return ((rgb[..., 0] > 180) & (rgb[..., 1] < 160)).mean()


def test_a_movie_has_every_frame_and_shows_what_overlaps(whole, tmp_path, capsys):
    assert main(["movie", str(whole), "--cell", "2", "--out", str(tmp_path / "m.gif"), "--fps", "10"]) == 0
    name = list(cells(xr.open_zarr(whole / "results.zarr")))[2][1]
    with gsd.hoomd.open(whole / trajectory_name(AXES, name)) as file, Image.open(tmp_path / "m.gif") as gif:
        assert f"{len(file)} frames" in capsys.readouterr().out
        assert gif.n_frames == len(file)
        assert gif.info["duration"] == 100
        for number in (0, len(file) - 1):
            gif.seek(number)
            shown, _, active = discs(file[number])
            assert (red(gif) > 0.01) == active.any()
            assert len(shown) >= 64
        assert not active.any()
    assert [path.name for path in tmp_path.iterdir()] == ["m.gif"]


def test_discs_cover_the_packing_fraction_and_cuts_are_those_of_spheres():
    frame = gsd.hoomd.Frame()
    frame.configuration.box, frame.configuration.dimensions = [10, 10, 0, 0, 0, 0], 2
    frame.particles.N, frame.particles.diameter = 2, np.array([2.0, 1.0])
    frame.particles.position = np.array([[4.5, -4.8, 0.0], [0.0, 0.0, 0.0]])
    frame.log["particles/active"] = np.array([1, 0])
    centres, radii, active = discs(frame)
    assert sorted(map(tuple, np.round(centres[active], 6))) == [(-5.5, -4.8), (-5.5, 5.2), (4.5, -4.8), (4.5, 5.2)]
    assert radii.tolist() == [0.5, 1.0, 1.0, 1.0, 1.0]
    frame.configuration.box, frame.configuration.dimensions = [10, 10, 10, 0, 0, 0], 3
    frame.particles.position = np.array([[0.0, 0.0, 0.6], [2.0, 2.0, 0.51]])
    centres, radii, active = discs(frame)
    assert centres.tolist() == [[0.0, 0.0]]
    np.testing.assert_allclose(radii, 0.8)


def test_movies_are_refused_in_one_sentence(whole, copy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(movie.shutil, "which", lambda _: None)
    for words, sentence in [
        (["--out", str(tmp_path / "m.mp4")], "MP4 needs the program ffmpeg"),
        (["--out", str(tmp_path / "m.avi")], "must end in .mp4 or .gif"),
        (["--cell", "6"], "has cells 0 to 5"),
        (["--fps", "0"], "from 1 to 50"),
    ]:
        assert main(["movie", str(whole), *words]) == 2
        assert sentence in capsys.readouterr().err
    file = min((copy / "trajectories").glob("*.gsd"))
    file.write_bytes(file.read_bytes()[:200])
    cell = str(sorted((copy / "trajectories").glob("*.gsd")).index(file))
    assert main(["movie", str(copy), "--cell", cell, "--out", str(tmp_path / "m.gif")]) == 2
    assert "is not what was written there" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.gif"))
    shutil.rmtree(copy / "trajectories")
    assert main(["movie", str(copy)]) == 2
    assert "no cell with a trajectory" in capsys.readouterr().err


def test_workers_of_a_cluster_write_no_trajectories(tmp_path):
    spec = Sweep(phi=(0.3,), particles=16, steps=4, replicas=1, trajectory="every:2")
    with pytest.raises(PackingError, match="trajectories are written by the process that owns the sweep"):
        run_sweep(spec, tmp_path / "sweep", client=object())
    assert not (tmp_path / "sweep" / "results.zarr").exists()
