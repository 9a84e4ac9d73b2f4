"""`packing-jax` in the process of the tests."""

from types import SimpleNamespace

import pytest

from packing_jax.commands.main import main
from packing_jax.drive import run as driver


@pytest.fixture
def packing(tmp_path, monkeypatch, capsys):
    """`packing-jax` in an empty directory: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(driver, "default_batch", lambda *_: 3)

    def command(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # tyro: help, unknown words
            code = stop.code
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return command


@pytest.fixture
def nothing_runs(monkeypatch):
    """Bad input must end before the first step."""

    def run(*arguments, **options):
        raise AssertionError("the simulation started")

    monkeypatch.setattr("packing_jax.sweeps.compute.run", run)
