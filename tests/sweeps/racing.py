"""Processes that begin, go on with and are killed in one folder, with a delay at every system call.

    python racing.py races NUMBER SEED DIRECTORY
    python racing.py kills NUMBER SEED DIRECTORY

Prints what happened, as JSON. A process of its own, for its children are forked: no device of jax is ever asked for,
and the empty store is laid out once, so that a race takes a fraction of a second.
"""

import collections
import errno
import fcntl
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps import manifest, store
from packing_jax.sweeps.cells import Finished
from packing_jax.sweeps.schema import Cells, Layout, Variable, description, empty_store
from packing_jax.sweeps.store import Store

LAYOUT = Layout(
    cells=Cells({"phi": (0.5,)}, 3),
    times=np.array([0, 5], np.int32),
    records={"activity": Variable()},
    finals={},
    tables={},
    labels={},
    attributes={"axes": ["phi"], "phi": [0.5], "replicas": 3, "steps": 5, "rule": "bro", "configuration": "",
                "command": "", "versions": {}},
)  # fmt: skip
RECORDS = {"activity": np.array([1, 0.5], np.float32)}
CALLS = [(os, name) for name in (
    "open", "close", "mkdir", "rmdir", "unlink", "rename", "replace", "stat", "fstat", "fsync", "write", "ftruncate",
    "scandir", "link",
)] + [(fcntl, "flock")]  # fmt: skip


def each_call(before):
    """Call something before every system call of this process."""

    def delayed(call, name):
        def called(*args, **options):
            before(name)
            return call(*args, **options)

        return called

    for module, name in CALLS:
        setattr(module, name, delayed(getattr(module, name), name))


def fork(act, *args):
    """Run something in a child; its exit code says whether it ended as it should."""
    child = os.fork()
    if child:
        return child
    try:
        act(*args)
    except BaseException:  # noqa: BLE001 - it ends here in any case
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def opened(directory):
    """Go on with what is there."""
    attributes = description(directory)
    return Store.open(directory, LAYOUT._replace(attributes=attributes))


def one_writer(root, role, seed):
    """Begin or go on, finish cells, and leave word of what became of it."""
    rng = random.Random(seed)
    pace, fails = rng.choice([0.0, 0.0002, 0.001]), rng.randint(1, 12) if role == "full disk" else 0
    manifest._LOCK_PATIENCE = rng.choice([0.0, 0.05, 0.3])
    synced = 0

    def before(name):
        nonlocal synced
        if rng.random() < 0.3:
            time.sleep(rng.expovariate(1.0) * pace)
        if rng.random() < 0.002:
            time.sleep(0.02)
        synced += name == "fsync"
        if name == "fsync" and synced == fails:
            raise OSError(errno.ENOSPC, "No space left on device")

    each_call(before)
    done, said = [], ""
    if role == "resume":  # what is not there cannot be gone on with
        time.sleep(rng.random() * 0.4)
    try:
        one = opened(root / "new" / "there") if role == "resume" else Store.create(root / "new" / "there", LAYOUT)
        (root / "holder").touch(exist_ok=False)  # fails where two processes write
        one.begin_session(role)
        for cell in one.missing():
            one.write([Finished(cell, RECORDS, {}, "active", 5, -1)])
            done.append(one.layout.cells.name(cell))
        (root / "holder").unlink()
        one.close()
    except PackingError as error:
        said = str(error)
        if (root / "holder").exists() and done:
            (root / "holder").unlink()
    (root / f"{os.getpid()}.json").write_text(json.dumps([role, done, said]))


def race(root, rng):
    """Three processes; what was said, after a check that nothing is lost that one of them finished."""
    roles = rng.choice([["begin"] * 3, ["begin", "begin", "resume"], ["begin", "full disk", "begin"],
                        ["full disk", "resume", "begin"]])  # fmt: skip
    children = [fork(one_writer, root, role, rng.getrandbits(32)) for role in roles]
    faults = [f"{role}: a traceback" for role, child in zip(roles, children, strict=True) if os.waitpid(child, 0)[1]]
    words = [json.loads((root / f"{child}.json").read_text()) for child in children if not faults]
    finished = {tuple(cell) for _, done, _ in words for cell in done}
    began = [role for role, _, said in words if role == "begin" and not said]
    if "full disk" not in roles and len(began) != 1:
        faults.append(f"{len(began)} sweeps were begun")
    if finished and not faults:
        try:
            again = opened(root / "new" / "there")
            faults += [f"{len(finished - again.names_done())} cells were lost"] if finished - again.names_done() else []
            faults += ["damage was found"] if again.notes else []
            again.close()
        except PackingError as error:
            faults.append(f"all cells were lost: {str(error).replace(str(root), '')}")
    if (root / "new" / "there" / ".tmp").exists():
        faults.append("drafts were left")
    return faults, [f"{role}: {_kind(said)}" for role, _, said in words]


def begin(root, last, report=False):
    """Begin a sweep and finish a cell, and be killed before a system call, or say how many it takes."""
    calls = 0

    def before(_):
        nonlocal calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)

    each_call(before)
    one = Store.create(root / "new" / "there", LAYOUT)
    one.begin_session("begin")
    one.write([Finished(one.missing()[0], RECORDS, {}, "active", 5, -1)])
    one.close()
    if report:
        (root / "calls").write_text(str(calls))


def killed(root, rng, calls):
    """A process that is killed before any of its system calls, and then a sweep that is begun or gone on with."""

    def go_on():
        words = []
        for act in (lambda: Store.create(root / "new" / "there", LAYOUT), lambda: opened(root / "new" / "there")):
            try:
                one = act()
                words.append("works")
                assert len(one.missing()) == 3 - len(one.names_done())
                assert not one.notes
                one.write([Finished(cell, RECORDS, {}, "active", 5, -1) for cell in one.missing()])
                one.close()
                break
            except PackingError as error:
                words.append(_kind(str(error)))
        (root / "word.json").write_text(json.dumps(words))

    status = os.waitpid(fork(begin, root, rng.randint(1, calls)), 0)[1]
    how = "killed" if os.WIFSIGNALED(status) else "over before"
    if os.waitpid(fork(go_on), 0)[1]:
        return ["a traceback"], [how]
    words = json.loads((root / "word.json").read_text())
    return ([] if words[-1] == "works" else ["nothing works"]), [f"{how}: {', '.join(words)}"]


def _kind(said):
    known = (
        "exists already",
        "another process is writing",
        "has no results.zarr",
        "No space left",
        "by another process just now",
    )
    return next((kind for kind in known if kind in said), said) or "done"


def main(what, number, seed, directory):
    """Again and again, each in a folder of its own."""
    files = empty_store(LAYOUT)
    store.empty_store = lambda _: files
    store.provenance = lambda **_: {}
    rng, outcomes, faults, clock = random.Random(int(seed)), collections.Counter(), collections.Counter(), time.time()
    os.waitpid(fork(begin, Path(directory), 0, True), 0)
    calls = int((Path(directory) / "calls").read_text())
    for turn in range(int(number)):
        root = Path(directory) / str(turn)
        root.mkdir()
        wrong, words = race(root, rng) if what == "races" else killed(root, rng, calls)
        faults.update(wrong)
        outcomes.update(words)
    said = {"seconds": round(time.time() - clock, 1), "calls": calls, "outcomes": outcomes, "faults": faults}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
