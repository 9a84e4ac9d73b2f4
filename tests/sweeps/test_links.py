"""Links in a folder of results: what a command writes or removes stays inside, and a sentence says what was refused."""

import os
import re

import pytest
from tiny_sweep import go, like, resume, tree

from packing_jax.commands.main import main
from packing_jax.commands.summary import report
from packing_jax.errors import PackingError
from packing_jax.sweeps.trajectory import trajectory_name

CELL = ("phi", "kick", "batch_fraction", "replica")


@pytest.fixture
def outside(tmp_path):
    """Something precious elsewhere, with names that a store has too."""
    place = tmp_path / "outside"
    for name in ("precious", "0.0.0.0", "activity_vs_phi.png", ".parts/precious", "results.zarr/precious"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"precious")

    def content():
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}

    before = content()
    yield place
    assert content() == before


def in_place_of(path, target):
    """A link where a file or folder was."""
    if os.path.lexists(path):
        path.rename(path.with_name(f"{path.name}-before"))
    path.symlink_to(target)


@pytest.mark.parametrize("name", [".tmp", "checkpoints", "trajectories", "results.zarr", "manifest.jsonl"])
@pytest.mark.parametrize("target", ["", "precious", "nothing"])
def test_a_sweep_is_not_begun_among_links(tmp_path, outside, name, target):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).symlink_to(outside / target)
    with pytest.raises(PackingError, match=f"{re.escape(str(tmp_path / 'new' / name))} is a link"):
        go(tmp_path / "new")
    assert (tmp_path / "new" / name).is_symlink()


@pytest.mark.parametrize(
    "name", [".tmp", "checkpoints", "trajectories", "manifest.jsonl", "results.zarr/absorbed_at", "results.zarr/time"]
)
def test_a_sweep_does_not_go_on_among_links(copy, outside, name, capsys):
    in_place_of(copy / name, outside / "precious" if name == "manifest.jsonl" else outside)
    assert main(["sweep", "--resume", str(copy), "--steps", "600"]) == 2
    assert f"{copy / name} is a link" in capsys.readouterr().err
    assert (copy / name).is_symlink()


@pytest.mark.parametrize(
    "name", ["results.zarr/absorbed_at/0.0.0.0", "results.zarr/activity/0.0.0.0.0", "progress.json"]
)
def test_a_link_in_the_place_of_a_file_is_replaced_itself(copy, whole, outside, name):
    in_place_of(copy / name, outside / "precious")
    assert resume(copy).done == 6
    assert not (copy / name).is_symlink()
    (copy / f"{name}-before").unlink()
    assert tree(copy) == tree(whole)


def test_links_among_checkpoints_are_removed_themselves(copy, whole, outside):
    for name in ("running-1.ckpt", "running-2.ckpt"):
        (copy / "checkpoints" / name).symlink_to(outside / "precious")
    assert resume(copy).done == 6
    assert not list((copy / "checkpoints").glob("running-*"))
    assert tree(copy) == tree(whole)


def test_a_folder_in_the_place_of_a_file_is_mended(copy, whole):
    for name in ("activity/0.0.0.0.0", "failed/1.0.0.0", "phi/0"):
        (copy / "results.zarr" / name).unlink()
        (copy / "results.zarr" / name / "deeper").mkdir(parents=True)
    assert resume(copy).done == 6
    assert tree(copy) == tree(whole)


def test_figures_are_not_drawn_elsewhere(copy, outside, capsys):
    in_place_of(copy / "figures", outside)
    assert main(["report", str(copy)]) == 2
    assert f"{copy / 'figures'} is a link" in capsys.readouterr().err
    (copy / "figures").unlink()
    for name in ("figures/activity_vs_phi.png", "summary.json"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).symlink_to(outside / "precious")
    report(copy)
    assert (copy / "figures" / "activity_vs_phi.png").read_bytes()[:4] == b"\x89PNG"
    assert not (copy / "summary.json").is_symlink()


def test_the_directory_itself_may_be_a_link(tmp_path, whole):
    (tmp_path / "disk").mkdir()
    (tmp_path / "mine").symlink_to(tmp_path / "disk")
    assert go(tmp_path / "mine").done == 6
    assert tree(tmp_path / "disk") == tree(whole)
    assert resume(tmp_path / "mine", like(replicas=3)).done == 9


def test_frames_and_movies_stay_inside(tmp_path, outside, capsys):
    spec, new = like(phi=(0.9,), replicas=1, trajectory="every:150"), tmp_path / "new"
    file = new / trajectory_name(CELL, (0.9, 0.3, 1.0, 0))
    file.parent.mkdir(parents=True)
    (file.parent / ".parts").symlink_to(outside / ".parts")
    with pytest.raises(PackingError, match=r"\.parts is a link"):
        go(new, spec)
    (file.parent / ".parts").unlink()
    file.symlink_to(outside / "precious")
    assert go(new, spec).done == 1
    assert not file.is_symlink()
    (new / "movies").symlink_to(outside)
    assert main(["movie", str(new)]) == 2
    assert f"{new / 'movies'} is a link" in capsys.readouterr().err
    (new / "movies").unlink()
    (new / "movies").mkdir()
    (new / "movies" / f"{file.stem}.gif").symlink_to(outside / "precious")
    assert main(["movie", str(new), "--out", str(new / "movies" / f"{file.stem}.gif")]) == 0
    assert [path.is_symlink() for path in (new / "movies").iterdir()] == [False]
