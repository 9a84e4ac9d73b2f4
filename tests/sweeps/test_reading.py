"""Reading a store loads no driver, and what a store from elsewhere claims is checked before it is believed."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import packing_jax
from packing_jax.errors import PackingError
from packing_jax.sweeps.schema import MOST_CELLS, stored_cells, stored_control, stored_kind, stored_steps, stored_width

STORES = Path(__file__).parent / "stores"

DRIVER, ALL = ("packing_jax.drive", "packing_jax.simulation"), ("packing_jax.drive", "packing_jax.spheres", "jax.")
READERS = {
    "status": "from packing_jax.sweeps.status import status; status(directory)",
    "report": "from packing_jax.commands.summary import report; report(directory)",
    "movie": "from packing_jax.commands.movie import MovieCommand\ntry: MovieCommand(directory=directory).execute('')\n"
    "except packing_jax.errors.PackingError: pass",
}
SCRIPT = """
import sys
from pathlib import Path
import packing_jax.errors
directory = Path(sys.argv[1])
{act}
print(*(name for name in sys.modules if name.startswith({left_out})))
packing_jax.bro
print("packing_jax.drive.run" in sys.modules)
"""


@pytest.mark.parametrize(("reader", "left_out"), [("status", ALL), ("movie", ALL), ("report", DRIVER)])
def test_reading_a_store_loads_no_driver(tmp_path, reader, left_out):
    """And those who compute nothing load not even jax."""
    with tarfile.open(STORES / "finished.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (store,) = tmp_path.iterdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(act=READERS[reader], left_out=left_out), str(store)],
        env=os.environ | {"PYTHONPATH": str(Path(packing_jax.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["", "True"]  # nothing, until a name is used


def test_names_of_the_package():
    assert set(packing_jax.names.__all__) <= set(dir(packing_jax))
    for name in packing_jax.names.__all__:
        assert getattr(packing_jax, name) is getattr(packing_jax.names, name)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        packing_jax.nonsense  # noqa: B018


STORED = {
    "kind": "walks", "axes": ["size", "rate"], "control": "rate", "size": [8, 16], "rate": [0.1, 0.5], "replicas": 3,
    "steps": 10, "block_width": 4,
}  # fmt: skip


def test_cells_of_a_description():
    cells = stored_cells(STORED)
    assert (cells.dims, cells.shape) == (("size", "rate", "replica"), (2, 2, 3))
    assert cells.name((1, 0, 2)) == (16, 0.1, 2)
    assert list(cells.places())[:2] == [(8, 0.1, 0), (8, 0.1, 1)]
    assert cells.described((16, 0.1, 2)) == "size 16, rate 0.1, replica 2"
    assert (stored_kind(STORED), stored_control(STORED), stored_steps(STORED), stored_width(STORED)) == (
        "walks", "rate", 10, 4
    )  # fmt: skip
    assert stored_control({**STORED, "control": None}) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"axes": "rate"}, "axes = rate"),
        ({"axes": ["size", 3]}, "axes"),
        ({"axes": ["size", "other"]}, "other = None"),
        ({"rate": [0.1, "x"]}, "rate"),
        ({"rate": [0.1, 0.1]}, "rate"),
        ({"rate": [0.1, float("inf")]}, "rate"),
        ({"rate": []}, "rate"),
        ({"replicas": 0}, "replicas = 0"),
        ({"replicas": 2.0}, "replicas = 2.0"),
        ({"replicas": True}, "replicas = True"),
        ({"replicas": MOST_CELLS + 1}, "replicas"),
        ({"replicas": MOST_CELLS}, "claims 4000000 cells"),
        ({"steps": "10"}, "steps = 10"),
        ({"block_width": 0}, "block_width = 0"),
    ],
)
def test_a_description_that_is_no_sweep(change, words):
    attributes = {**STORED, **change}
    with pytest.raises(PackingError, match=words):
        stored_cells(attributes), stored_steps(attributes), stored_width(attributes)
