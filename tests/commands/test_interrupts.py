"""Ctrl-C and SIGTERM from the first moment on: never lost, never a traceback."""

import re
import signal
import time

import pytest
from command_line import child

from packing_jax.sweeps import progress

SOON = 3.0  # seconds

#: As an installed `packing-jax` begins, and says when signals have an answer.
COMMAND = """
import sys
from packing_jax.commands import main
run = main._run
main._run = lambda *arguments: (print("ready", flush=True), run(*arguments))[1]
sys.exit(main.main())
"""

#: What a command may be doing, without the seconds that jax takes to be imported.
WORK = """
import ctypes, gc, signal, sys, time, types
from packing_jax.commands import interrupts
from packing_jax.errors import PackingError
interrupts._UNWINDING = 0.3
interrupts.unwind_on_signals()

def in_a_callback_of_the_collector():
    def slow(*_):
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
    gc.callbacks.append(slow)
    while True:
        gc.collect()

class Slow:
    def __del__(self):
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass

def in_a_destructor():
    while True:
        Slow()

def in_a_library_that_waits_for_no_line_of_python():
    while True:
        ctypes.CDLL(None).sleep(60)

def in_code_that_turns_it_into_another_error():
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("numpy failed to import") from None

def in_code_that_swallows_it():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def in_code_that_tidies_up():
    try:
        time.sleep(60)
    finally:
        print("tidied", flush=True)

def in_a_sweep():
    work = types.SimpleNamespace(answered=False, patience=0.5)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with interrupts.stopped_by_flag(work, lambda name: f"stopped by {name}; 3 of 4 cells are done"):
        ctypes.CDLL(None).sleep(60)
        time.sleep(60)

def in_a_sweep_that_is_writing():
    work = types.SimpleNamespace(answered=True, patience=0.1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with interrupts.stopped_by_flag(work, lambda name: "no"):
        ctypes.CDLL(None).sleep(60)
        time.sleep(0.8)
        print("written", flush=True)
        sys.exit(130)

def in_a_sweep_that_has_said_its_last_words():
    work = types.SimpleNamespace(answered=False, patience=60.0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with interrupts.stopped_by_flag(work, lambda name: "no"):
        time.sleep(0.8)
        print("said", flush=True)
    time.sleep(60)

what = globals()[sys.argv[1]]
print("ready", flush=True)
try:
    what()
except BaseException as error:
    if isinstance(error, SystemExit) or interrupts.asked() is None:
        raise
    interrupts.end(interrupts.asked())
"""


@pytest.fixture(autouse=True)
def ctrl_c():
    """Children react to SIGINT, even where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(process, after, number=signal.SIGINT):
    """What it printed from the signal on; it ended soon."""
    assert process.stdout.readline() == b"ready\n"
    time.sleep(after)
    clock = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - clock < SOON
    assert b"Traceback" not in err
    return out.decode(), err.decode()


@pytest.mark.parametrize(("after", "number"), [(0.0, "SIGINT"), (0.1, "SIGTERM"), (0.3, "SIGINT"), (0.9, "SIGINT")])
def test_while_packages_are_imported(tmp_path, after, number):
    process = child("-c", COMMAND, "sweep", "--out=there", cwd=tmp_path)
    assert interrupted(process, after, getattr(signal, number)) == ("", "packing-jax: interrupted\n")
    assert process.returncode == 128 + getattr(signal, number)
    assert not list(tmp_path.iterdir())


def test_what_is_imported_before_signals_have_an_answer():
    """Nothing but what Python has imported itself: each module is a moment in which Ctrl-C is a traceback."""
    code = "import sys; before = {*sys.modules}; import packing_jax.commands.main; print(*{*sys.modules} - before)"
    out, _ = child("-S", "-c", code).communicate()
    assert {*out.decode().split()} <= {
        "__future__", "packing_jax", "packing_jax.commands", "packing_jax.commands.main", "packing_jax.versions", "os",
        "stat", "_stat", "posixpath", "genericpath", "_collections_abc", "os.path",
    }  # fmt: skip


def doing(what):
    return child("-c", WORK, what)


@pytest.mark.parametrize(
    "what",
    [
        "in_a_callback_of_the_collector",
        "in_a_destructor",
        "in_a_library_that_waits_for_no_line_of_python",
        "in_code_that_turns_it_into_another_error",
        "in_code_that_swallows_it",
    ],
)
def test_where_python_would_lose_it(what):
    process = doing(what)
    assert interrupted(process, 0.12) == ("", "packing-jax: interrupted\n")
    assert process.returncode == 130


def test_what_is_half_written_is_removed():
    process = doing("in_code_that_tidies_up")
    assert interrupted(process, 0.1, signal.SIGTERM) == ("tidied\n", "packing-jax: interrupted\n")
    assert process.returncode == 143


def test_a_sweep_that_compiles_is_not_waited_for():
    process = doing("in_a_sweep")
    assert interrupted(process, 0.1)[1] == "stopped by SIGINT; 3 of 4 cells are done\n"
    assert process.returncode == 130


def test_a_sweep_that_writes_is_waited_for():
    process = doing("in_a_sweep_that_is_writing")
    out, err = interrupted(process, 0.1)
    assert (out, err, process.returncode) == ("written\n", "", 130)


def test_after_its_last_words_nothing_more_is_said():
    process = doing("in_a_sweep_that_has_said_its_last_words")
    out, err = interrupted(process, 0.1)
    assert (out, err, process.returncode) == ("said\n", "", 130)


def test_a_second_one_ends_it_at_once():
    process = doing("in_a_sweep_that_is_writing")
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"", 130)
    assert re.fullmatch(b"packing-jax: interrupted\n", err)


def test_patience_grows_with_the_chunks(monkeypatch):
    now = iter([0.0, 0.0, 9.0, 9.5, 14.5, 19.5, 24.5, 29.5])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    stop = progress.Stop()
    patience = [stop.patience]
    for _ in range(6):
        assert stop.reason() is None
        patience.append(stop.patience)
    # the first chunk compiles, and others may; four chunks of five seconds are long ones
    assert patience == [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 10.0]
