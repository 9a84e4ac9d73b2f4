"""Refuse stores from elsewhere that would run code or take all memory."""

import json
import math
import os
from pathlib import Path

import numpy as np

from packing_jax.errors import PackingError

LARGEST_STORE = 2**40  # bytes; a slip in a range should not fill a disk


def check_memory(size: int) -> None:
    """Refuse to read more than half of this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise PackingError(f"it would take {size / 2**30:.3g} GiB of memory, more than half of what this machine has")


def check_metadata(path: Path) -> None:
    """Refuse a Zarr store from elsewhere that would run code or that claims absurd sizes.

    Arrays of numbers behind ordinary compression only: a filter or an object codec could be ``pickle``.

    Raises:
        PackingError: which array, and why.
    """
    for file in sorted([*path.glob("*/.zarray"), *path.glob("*/zarr.json")]):
        try:
            with file.open("rb") as handle:
                array = json.loads(handle.read(2**20))
            if file.name == ".zarray":
                dtype, chunks = np.dtype(array["dtype"]), array["chunks"]
                codecs = [codec["id"] for codec in (array["compressor"], *(array.get("filters") or ())) if codec]
            else:
                if array["node_type"] == "group":
                    continue
                dtype, chunks = np.dtype(array["data_type"]), array["chunk_grid"]["configuration"]["chunk_shape"]
                codecs = [codec["name"] for codec in array["codecs"]]
            size = max(math.prod(map(int, axes)) for axes in (array["shape"], chunks)) * dtype.itemsize
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise PackingError(f"{file} is damaged") from error
        if dtype.kind not in "fiub" or not set(codecs) <= _KNOWN_CODECS:
            raise PackingError(f"{file} asks for more than numbers behind ordinary compression, and is not read")
        if size > LARGEST_STORE:
            raise PackingError(f"{file} claims {size / 2**30:.3g} GiB, more than any sweep stores")


_KNOWN_CODECS = {"zstd", "blosc", "zlib", "gzip", "lz4", "bytes", "crc32c"}
