"""Sweeps over temperature: stopped and resumed, extended, from Python and from the command line."""

import dataclasses

import numpy as np
import pytest
from tiny_sweep import After, go, like, opened, resume, tree

from packing_jax.commands.main import main
from packing_jax.errors import PackingError

HEATED = like(rule="thermal", temperature=(1e-2, 0.0), phi=(0.1,), kick=(0.3,), replicas=1)


@pytest.fixture(scope="module")
def heated(tmp_path_factory):
    directory = tmp_path_factory.mktemp("heated")
    assert go(directory, HEATED).done == 2
    return directory


def test_temperature_is_an_axis(heated):
    found = opened(heated)
    assert found["activity"].dims[:4] == ("temperature", "phi", "kick", "batch_fraction")
    np.testing.assert_array_equal(found["temperature"], [0.0, 1e-2])
    absorbed = found["absorbed_at"].values.ravel()
    assert absorbed[0] > 0 > absorbed[1]  # descent separates all overlaps; with noise nothing is ever at rest
    assert found["msd"].values[1].ravel()[-1] > 0.5 * 2 * 2 * 1e-2 * 0.3 * 300


def test_stopped_and_gone_on_with_it_is_the_same(heated, tmp_path):
    assert go(tmp_path / "a", HEATED, stop=After(2)).stopped
    while resume(tmp_path / "a", stop=After(2)).stopped:
        pass
    assert tree(tmp_path / "a") == tree(heated)


def test_further_temperatures_leave_the_others_as_they_were(heated, tmp_path):
    go(tmp_path / "b", dataclasses.replace(HEATED, temperature=(1e-2,)))
    assert resume(tmp_path / "b", HEATED).done == 2
    for name in ("activity", "energy", "msd", "positions", "absorbed_at"):
        np.testing.assert_array_equal(opened(tmp_path / "b")[name], opened(heated)[name])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rule": "bro"}, "a temperature belongs to the rule thermal; bro has none"),
        ({"temperature": None}, "the rule thermal needs a temperature kT"),
        ({"temperature": (-1.0,)}, "the temperature is -1; every value must be a finite number, at least 0"),
        ({"temperature": (0.1, 0.1)}, "no value may be listed twice"),
        ({"coupling": "pair"}, "the rule thermal draws for each particle on its own"),
        ({"batch_fraction": (0.5,)}, "a batch fraction belongs to the rule sgd"),
    ],
)
def test_refused(given, words):
    with pytest.raises(PackingError, match=words):
        dataclasses.replace(HEATED, **given).checked()


def test_on_the_command_line(heated, tmp_path, monkeypatch, capsys):
    """The same cells by the same words, a list of temperatures; and resumed with one more."""
    monkeypatch.chdir(tmp_path)
    words = "--rule=thermal --dim=2 --particles=64 --kick=0.3 --steps=300 --record-every=10 --seed=5 --log=quiet"
    grid = ["--phi=0.1", "--temperature=0,1e-2", "--replicas=1", "--out=there"]
    assert main(["sweep", *words.split(), *grid]) == 0
    for name in ("activity", "msd", "positions"):
        np.testing.assert_array_equal(opened(tmp_path / "there")[name], opened(heated)[name])
    said = " ".join(capsys.readouterr().out.split())
    assert "temperature 0.01: With a temperature no run is ever absorbed, and there is no phi_c." in said
    assert "temperature 0.01: Kick" not in said
    assert main(["sweep", "--resume=there", "--temperature=0,1e-2,3e-2", "--log=quiet"]) == 0
    assert opened(tmp_path / "there").sizes["temperature"] == 3
    assert main(["run", *words.split(), "--phi=0.1", "--temperature=1e-2", "--out=one"]) == 0
    alone = opened(tmp_path / "one")["msd"].values.ravel()
    np.testing.assert_array_equal(alone, opened(heated)["msd"].values[1].ravel())
    capsys.readouterr()
    assert main(["sweep", *words.split(), "--temperature=1e-2"]) == 2
    assert "there is no transition to be found: give --phi" in " ".join(capsys.readouterr().err.split())
