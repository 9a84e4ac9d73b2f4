"""A hundred Ctrl-C at random moments: every one ends the command, and nothing is lost.

Python says where it was if it is interrupted before it runs any line of a program, within some tens of milliseconds.

By hand: `pytest -m validation -n 0 tests/commands/test_many_interrupts.py`, about half an hour on two cores.
"""

import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command_line import child, files

from packing_jax.sweeps.status import status

pytestmark = pytest.mark.validation

#: What an installed `packing-jax` is.
INSTALLED = "import sys; from packing_jax.commands.main import main; sys.exit(main())"

#: About half a minute on two cores.
SWEEP = ["sweep", "--dim=2", "--particles=256", "--phi=0.1:0.9:5", "--kick=0.3", "--replicas=4", "--steps=20000"]
ROUNDS, SIGNALS, LATEST, PATIENCE, STARTING = 10, 10, 30.0, 3.0, 0.1
OTHERS = {
    "run": ["run", "--phi=0.6", "--steps=100000"],
    "train": ["train", "perceptron"],
    "critical": ["critical", "--dim=2"],
}


@pytest.fixture(autouse=True)
def ctrl_c():
    """Children react to SIGINT, even where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(words, moment, cwd):
    """Seconds from the signal to the end, None if it ended before; the exit code."""
    process = child("-c", INSTALLED, *words, cwd=cwd)
    clock = None
    try:
        _, err = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        clock = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    took = None if clock is None else time.monotonic() - clock
    end = f"exit code {process.returncode}, {'before' if took is None else f'after {took:.2f} s'}"
    sys.stdout.write(f"{words[0]} at {moment:.2f} s: {end}, {err.decode().strip()[-200:]}\n")
    assert b"Traceback" not in err or moment < STARTING, err
    # a process that has not become Python yet dies of the signal itself
    assert process.returncode in (
        (0,) if took is None else (130, 0) if moment > 0.2 else (130, 0, 1, -signal.SIGINT)
    ), err
    return took, process.returncode


def chunks(directory):
    return {name: data for name, data in files(directory / "results.zarr").items() if not name.name.startswith(".")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    process = child("-c", INSTALLED, *SWEEP, "--out=there", cwd=place)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return chunks(place / "there")


@pytest.mark.parametrize("number", range(ROUNDS))
def test_sweeps(tmp_path, undisturbed, number):
    moments, there = random.Random(number), tmp_path / "there"
    slow, done, left = [], 0, SIGNALS
    while True:
        words = ["sweep", "--resume", "there"] if (there / "results.zarr").exists() else [*SWEEP, "--out=there"]
        took, code = interrupted(words, moments.uniform(0.0, LATEST) if left > 0 else 1000.0, tmp_path)
        left -= took is not None
        slow += [took] if took is not None and took > PATIENCE else []
        if (there / "results.zarr").exists():
            now = status(there, verify=True)
            assert now["damage"] == []
            assert now["done"] >= done
            done = now["done"]
        if code == 0:
            assert chunks(there) == undisturbed
            if left <= 0:
                break
            shutil.rmtree(there)
            done = 0
    assert not slow


@pytest.mark.parametrize("command", OTHERS)
def test_other_commands(tmp_path, command):
    moments = random.Random(command)
    for number in range(3):
        took, _ = interrupted([*OTHERS[command], f"--out=there-{number}"], moments.uniform(0.0, 20.0), tmp_path)
        assert took is None or took < PATIENCE


def test_reports(tmp_path):
    process = child("-c", INSTALLED, "run", "--phi=0.3", "--steps=100", "--out=there", cwd=tmp_path)
    assert process.communicate()[0]
    for moment in (0.5, 2.0, 4.0, 6.0):
        took, _ = interrupted(["report", "there"], moment, tmp_path)
        assert took is None or took < PATIENCE
