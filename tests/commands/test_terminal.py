"""What a terminal of 80, 60 and 40 columns shows: a bar in one line and words in another, sentences in several."""

import fcntl
import io
import os
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from packing_jax.commands.lines import wrapped
from packing_jax.commands.progress_bar import ProgressReport
from packing_jax.sweeps.progress import SweepProgress, Transition

WIDTHS = (80, 60, 40)
NOTE = (
    "the finished cell at phi 0.6, kick 0.05, batch fraction 1, replica 1 is damaged and is computed again: "
    "there/results.zarr/activity/0.0.0.1.0 is cut off"
)


class Terminal:
    """A pseudo-terminal of so many columns, and what is on its screen."""

    def __init__(self, columns):
        self.columns = columns
        self._main, side = os.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.set_blocking(self._main, False)
        self.stream = io.TextIOWrapper(io.FileIO(side, "w"), encoding="utf-8", write_through=True)
        self._written = ""

    def close(self):
        self.stream.close()
        os.close(self._main)

    def lines(self):
        """The lines of the screen; one that is too long breaks, as on a terminal."""
        self.stream.flush()
        with_more = b""
        try:
            while more := os.read(self._main, 65536):
                with_more += more
        except BlockingIOError:
            pass
        self._written += with_more.decode()
        rows, row, column = {}, 0, 0
        for found in re.finditer(r"\x1b\[(\d*)([A-Za-z])|(.|\n)", self._written):
            if found[2] == "A":
                row -= int(found[1] or 1)
            elif found[3] == "\r":
                column = 0
            elif found[3] == "\n":
                row += 1
            elif found[3]:
                if column == self.columns:
                    row, column = row + 1, 0
                rows[row, column] = found[3]
                column += 1
        last = max(place[0] for place in rows)
        return ["".join(rows.get((i, j), " ") for j in range(self.columns)).rstrip() for i in range(last + 1)]


@pytest.fixture
def terminal(columns):
    made = Terminal(columns)
    yield made
    made.close()


def progress(share, done=3, seconds_left=754.0, speed=4.3e6):
    transitions = (Transition("phi", {}, 0.595, 0.5975),)
    return SweepProgress(done, 24, 1, 2, 1, 12, share, "particle", 1000, speed, seconds_left, transitions)


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_bar(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    report = ProgressReport("bar")
    report.progress(progress(0.0, 0, None, 0.0))
    first, second, *more = terminal.lines()
    assert (first[:6], second[:21]) == ("  0% |", "0/24 done, compiling,")
    report.progress(progress(0.42))
    first, second, *more = terminal.lines()
    assert more == []
    assert first.startswith(" 42% |")
    assert first.endswith("0:12:34 left")
    assert len(first[first.index("|") + 1 : first.rindex("|")]) >= 10
    assert second.startswith("3/24 done, phi_c 0.595 to 0.5975")
    assert ("12 under way" in second) == (terminal.columns == 80)


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_note_and_the_end_leave_the_bar_in_one_piece(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    report = ProgressReport("bar")
    report.progress(progress(0.2))
    report.progress(progress(0.4))
    report.note(NOTE)
    report.progress(progress(0.6))
    report.close()
    terminal.stream.write("the last line\n")
    *note, first, second, last = [line for line in terminal.lines() if line]
    assert " ".join(note) == NOTE
    assert first.startswith(" 60% |")
    assert first.endswith("left")
    assert second.startswith("3/24 done")
    assert last == "the last line"


@pytest.mark.parametrize("columns", WIDTHS)
def test_sentences(terminal):
    name = "a-directory/with-a/long-name-" + "x" * 30
    terminal.stream.write(wrapped(f"packing-jax: cannot write {name}: it is a file, and that is that", terminal.stream))
    lines = terminal.lines()
    assert " ".join(lines).startswith("packing-jax: cannot write")
    if terminal.columns >= 60:
        assert any(name in line for line in lines)  # and can be copied


def test_programs_get_one_line(tmp_path):
    with (tmp_path / "log").open("w") as log:
        assert wrapped(NOTE, log) == NOTE


def test_a_dash_in_the_table_is_explained():
    from packing_jax.commands.summary import format_summary

    row = {"kick": 0.2, "batch_fraction": 1.0, "method": "relaxation", "value": 0.7, "stderr": 0.01}
    row |= {"statistical": 0.01, "run_length": 0.0, "size": 0.0, "chi2": 1.0, "dof": 3}
    summary = {"recommended": [], "phi_c": [row], "refusals": [], "zero_kick_limit": None, "notes": []}
    assert "- : unknown" not in format_summary(summary)
    row |= {"stderr": None, "run_length": None}
    assert "- : unknown, since half of the run is too short" in format_summary(summary)


def test_a_smoke_result_says_why_it_has_no_verdict(tmp_path):
    from packing_jax.commands.reproduce import shown

    result = {"name": "one", "size": "smoke", "source": "none", "rows": [], "seconds": 1.0}
    assert "the size smoke is too small to tell" in shown(result, tmp_path)
    assert "too small" not in shown({**result, "size": "quick"}, tmp_path)


def test_a_running_sweep_says_that_its_time_is_not_known_yet():
    from packing_jax.sweeps.status import format_status

    facts = {"running": True, "missing": 15, "done": 0, "total": 15, "absorbed": 0, "active": 0, "failed": 0}
    facts |= {"diverged": 0, "transitions": [], "reasons": [], "damage": [], "own": [], "kind": "spheres"}
    facts |= {"under_way": 15, "speed": None, "unit": None, "seconds_left": None}
    assert "no estimate yet of the time left" in format_status(Path("there"), facts)
    facts |= {"speed": 1e6, "unit": "particle"}
    assert "M particle-steps/s, no estimate yet of the time left" in format_status(Path("there"), facts)
    assert "about 0:01:00 left" in format_status(Path("there"), facts | {"seconds_left": 60.0})
    stopped = facts | {"running": False, "speed": None}
    assert "time left" not in format_status(Path("there"), stopped)
