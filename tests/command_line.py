"""What the tests of the command line share."""

import os
import subprocess
import sys
from pathlib import Path

import xarray as xr

import packing_jax

# Small and quick, and of one shape, so that the runs below share their compiled programs.
SYSTEM = ["--dim", "2", "--particles", "64", "--steps", "300", "--record-every", "10"]
TRANSITION = [*SYSTEM, "--phi", "0.1:0.9:5", "--kick", "0.3", "--replicas", "2"]
RUN = ["run", *SYSTEM, "--phi=0.5", "--kick=0.3"]
SGD = [*RUN, "--rule=sgd"]
SWEEP = ["sweep", *SYSTEM, "--phi=0.5,0.6", "--kick=0.3"]


def changed(words, *new):
    """The words of a command with new options in the place of its own of the same name, which may be given once."""
    names = {word.partition("=")[0] for word in new}
    kept, words = [], iter(words)
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in names:
            kept.append(word)
        elif not equals:
            next(words)
    return [*kept, *new]


def child(*arguments, **options):
    """The same in its own process, with no more than a user's environment."""
    environment = os.environ | {"PYTHONPATH": str(Path(packing_jax.__file__).parents[1]), "COLUMNS": "80"}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options)


def files(directory):
    return {path.relative_to(directory): path.is_file() and path.read_bytes() for path in directory.rglob("*")}


def one_sentence(done, *words):
    """Exit code 2 and exactly one sentence, which names what was wrong."""
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("packing-jax: ")
    assert len(done.err.splitlines()) == 1
    assert len(done.err) < 500
    for word in words:
        assert word in done.err


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()
