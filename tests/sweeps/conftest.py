"""The sweep of tiny_sweep.py, finished."""

import shutil

import pytest
from tiny_sweep import go


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that nothing ever happened to."""
    directory = tmp_path_factory.mktemp("whole")
    outcome = go(directory)
    assert (outcome.done, outcome.total, outcome.failed, outcome.stopped, outcome.notes) == (6, 6, 0, None, ())
    return directory


@pytest.fixture
def copy(whole, tmp_path):
    """A sweep of one's own, finished."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"
