"""Extreme calls of the public names: each is refused in one sentence, or gives the right result."""

import json
from pathlib import Path

import pytest
from command_line import child
from extreme_calls import CALLS


@pytest.fixture(scope="module")
def came() -> dict[str, tuple[str, str]]:
    """What came of every call, in a process of its own: here, types would be checked before the package sees them."""
    process = child(str(Path(__file__).with_name("extreme_calls.py")))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    found: dict[str, tuple[str, str]] = json.loads(out)
    return found


@pytest.mark.parametrize("name", CALLS)
def test_refused_in_a_sentence_or_right(name: str, came: dict[str, tuple[str, str]]) -> None:
    wanted = CALLS[name][1]
    kind, text = came[name]
    assert kind == ("refused" if isinstance(wanted, str) else "right"), text
    if isinstance(wanted, str):
        assert wanted in text
        assert "\n" not in text
        assert len(text) < 500
