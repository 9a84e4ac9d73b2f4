"""What can be done to the files of a store: damage, and what somebody who wants harm would write."""

import json
import os
import shutil
import struct

from packing_jax.sweeps.manifest import digest
from packing_jax.sweeps.schema import sealed

VALUES = [
    float("inf"), float("nan"), 10**400, -(10**400), 1e308, 2**31, 2**63, -1, 0, 1, 1.5, True, None, "", "x", [], {},
    "\x1b[2J\x1b]0;mine\x07", "\ud800", "\u202e", "../../outside", "$\\frac{", "a\nb: all is well",
    [1] * 1000, {"": {}}, [[]], [float("nan")], ["phi"], 10**8, 10**12,
]  # fmt: skip
NESTED = json.loads("[" * 900 + "]" * 900)


def bomb(size):
    """A frame of Zstandard that holds so many zeros in a 30,000th of their bytes."""
    block = 2**17
    blocks = [min(block, size - start) for start in range(0, size, block)]
    body = [
        ((n << 3) | 2 | (number == len(blocks) - 1)).to_bytes(3, "little") + b"\0" for number, n in enumerate(blocks)
    ]
    return b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + struct.pack("<Q", size) + b"".join(body)


def put(path, data):
    """Write a file, whatever is there."""
    clear(path)
    path.write_bytes(data)


def clear(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(path, target):
    clear(path)
    path.symlink_to(target)


def fifo(path):
    clear(path)
    os.mkfifo(path)


def folder(path):
    clear(path)
    path.mkdir()
    (path / "inside").write_bytes(b"something")


def sparse(path, size=2**36):
    """A file of so many zeros that take no room on the disk."""
    clear(path)
    with path.open("wb") as file:
        file.truncate(size)


def spelled(value):
    """JSON of a value, with numbers that Python alone would read."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def changed(value, where, new):
    """A JSON value with another one in the place that a list of numbers leads to."""
    if not where or not isinstance(value, (dict, list)) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else range(len(value))
    at = keys[where[0] % len(keys)]
    copy = value.copy()
    copy[at] = changed(value[at], where[1:], new)
    return copy


def describe(path, attributes, seal=True):
    """Write both copies of the attributes of a dataset."""
    attributes = sealed(attributes) if seal else attributes
    (path / ".zattrs").write_bytes(spelled(attributes))
    whole = json.loads((path / ".zmetadata").read_bytes())
    whole["metadata"][".zattrs"] = attributes
    (path / ".zmetadata").write_bytes(spelled(whole))


def line(value):
    """A line of the manifest."""
    content = spelled(value)
    return digest(content).encode() + b" " + content + b"\n"
