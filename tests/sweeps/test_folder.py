"""A folder's files: nothing outside it is reached, nothing waits, and what is written is whole."""

import os
import re
import socket
from pathlib import Path

import pytest

from packing_jax.errors import PackingError
from packing_jax.sweeps import folder as module
from packing_jax.sweeps.folder import Folder


@pytest.fixture
def outside(tmp_path):
    """Something precious elsewhere."""
    place = tmp_path / "outside"
    (place / "inner").mkdir(parents=True)
    (place / "precious").write_bytes(b"precious")
    (place / "inner" / "precious").write_bytes(b"precious")
    yield place
    assert {str(path.relative_to(place)) for path in place.rglob("*")} == {"precious", "inner", "inner/precious"}
    assert (place / "precious").read_bytes() == (place / "inner" / "precious").read_bytes() == b"precious"


@pytest.fixture
def folder(tmp_path, outside):
    """A store from elsewhere, with every kind of entry."""
    root = tmp_path / "store"
    (root / "inner").mkdir(parents=True)
    (root / "file").write_bytes(b"mine")
    (root / "inner" / "file").write_bytes(b"mine too")
    (root / "link").symlink_to(outside / "precious")
    (root / "way").symlink_to(outside)
    (root / "nowhere").symlink_to(outside / "new")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(root / "socket"))
    return Folder(root)


READING = {
    "read": lambda folder, name: folder.read(name, 100),
    "open": lambda folder, name: folder.open(name),
    "change": lambda folder, name: folder.open(name, "r+b"),
    "append": lambda folder, name: folder.open(name, "ab"),
    "stat": lambda folder, name: folder.stat(name),
    "is_file": lambda folder, name: folder.is_file(name),
    "is_folder": lambda folder, name: folder.is_folder(name),
    "names": lambda folder, name: folder.names(name),
    "folder": lambda folder, name: folder.folder(name),
    "make": lambda folder, name: folder.make(name),
    "link": lambda folder, name: folder.link(name, "second"),
    "flush": lambda folder, name: folder.flush(name),
    "beyond": lambda folder, name: folder.read(f"{name}/precious", 100),
    "write beyond": lambda folder, name: folder.write({f"{name}/precious": b"x"}),
    "drafts": lambda folder, name: folder.write({"new": b"x"}, drafts=name),
    "remove beyond": lambda folder, name: folder.remove(f"{name}/precious"),
    "move in": lambda folder, name: folder.rename("file", f"{name}/precious"),
    "move out": lambda folder, name: folder.rename(f"{name}/precious", "mine"),
    "exchange": lambda folder, name: folder.exchange("inner", f"{name}/inner"),
}


@pytest.mark.parametrize("name", ["link", "way", "nowhere", "fifo", "socket"])
@pytest.mark.parametrize("act", READING.values(), ids=READING.keys())
def test_a_link_or_a_special_file_is_refused_by_name(folder, act, name):
    before = folder.names()
    kind = "is not a regular file" if name in ("fifo", "socket") else "is a link"
    with pytest.raises(PackingError, match=f"{re.escape(str(folder.path / name))} {kind}"):
        act(folder, name)
    assert folder.names() == before


@pytest.mark.parametrize("name", ["link", "way", "nowhere", "fifo", "socket"])
def test_what_has_the_name_is_replaced_and_removed_itself(folder, name):
    if name != "way":
        folder.write({name: b"new"})
        assert folder.read(name, 3) == b"new"
    folder.remove(name)
    assert folder.stat(name) is None
    folder.remove(name)


@pytest.mark.parametrize("name", ["..", "../outside/precious", "inner/../../outside/precious", "", "/etc/hostname"])
def test_a_name_that_leads_out(folder, name):
    for act in (lambda: folder.read(name, 9), lambda: folder.write({name: b""}), lambda: folder.remove(name)):
        with pytest.raises(ValueError, match="is not a file name"):
            act()


def test_a_tree_is_removed_and_not_what_its_links_lead_to(folder, outside):
    (folder.path / "inner" / "link").symlink_to(outside)
    folder.make("inner/deeper")
    (folder.path / "inner" / "deeper" / "link").symlink_to(outside / "precious")
    folder.remove("inner")
    assert folder.stat("inner") is None


def test_the_path_itself_may_be_a_link(tmp_path, folder):
    (tmp_path / "mine").symlink_to(folder.path)
    through = Folder(tmp_path / "mine")
    assert through.read("file", 4) == b"mine"
    assert through.is_at_its_path()
    folder.path.rename(tmp_path / "moved")
    assert not through.is_at_its_path()
    through.write({"file": b"moved"})
    assert (tmp_path / "moved" / "file").read_bytes() == b"moved"


def test_reading(folder):
    assert folder.read("inner/file", 8) == b"mine too"
    with pytest.raises(PackingError, match=r"inner/file has 8 bytes; at most 7 make sense"):
        folder.read("inner/file", 7)
    with pytest.raises(PackingError, match=r"inner is not a regular file but a folder"):
        folder.read("inner", 7)
    with pytest.raises(FileNotFoundError):
        folder.read("missing", 7)
    assert folder.is_file("file")
    assert folder.is_folder("inner")
    assert not folder.is_folder("file")
    assert folder.stat("missing") is folder.stat("missing/deeper") is folder.stat("file/deeper") is None
    inner = folder.folder("inner")
    assert (inner.path, inner.names()) == (folder.path / "inner", ["file"])
    with pytest.raises(NotADirectoryError):
        folder.names("file")


def test_writing(folder):
    names = [f"inner/{number}" for number in range(20)]
    folder.write({name: name.encode() for name in names}, drafts=".drafts")
    assert [folder.read(name, 100).decode() for name in names] == names
    assert folder.names(".drafts") == []
    with pytest.raises(FileExistsError):
        folder.open("file", "xb")
    with folder.open("file", "ab") as file:
        file.write(b"!")
    assert folder.read("file", 5) == b"mine!"


def test_what_is_not_written_whole_is_not_there(folder):
    def half():
        with folder.replacing("file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    before = folder.names()
    with pytest.raises(KeyboardInterrupt):
        half()
    assert folder.names() == before
    assert folder.read("file", 4) == b"mine"


def test_a_second_name_and_a_copy(folder, monkeypatch):
    folder.link("file", "inner/same")
    with (folder.path / "file").open("rb") as file:
        assert folder.is_same("inner/same", file.fileno())
        assert not folder.is_same("inner/file", file.fileno())

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    folder.link("file", "inner/copy")
    assert folder.read("inner/copy", 4) == b"mine"


@pytest.mark.parametrize("one_call", [True, False])
def test_two_folders_change_places(folder, monkeypatch, one_call):
    if not one_call:
        monkeypatch.setattr(module, "_exchange_in_one_call", lambda *_: False)
    folder.make("other")
    folder.write({"other/new": b"new"})
    folder.exchange("other", "inner")
    assert (folder.names("inner"), folder.names("other")) == (["new"], ["file"])


def test_an_exchange_that_was_cut_is_undone(folder):
    folder.rename("inner", ".inner.aside")
    folder.recover("inner")
    assert folder.names("inner") == ["file"]
    folder.make(".inner.aside")
    folder.recover("inner")
    assert folder.names("inner") == ["file"]
    assert folder.stat(".inner.aside") is None


def test_a_library_opens_the_same_file(folder, tmp_path):
    with folder.open("file") as file:
        (folder.path / "file").unlink()
        (folder.path / "file").symlink_to(tmp_path / "outside" / "precious")
        with Path(f"/dev/fd/{file.fileno()}").open("rb") as again:
            assert again.read() == b"mine"
