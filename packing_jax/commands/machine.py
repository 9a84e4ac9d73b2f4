"""Where a program runs: versions, devices, memory."""

from collections import Counter
from pathlib import Path
from typing import Any

import jax

from packing_jax.versions import package_versions

#: Releases that the package's requirements exclude, and why.
KNOWN_WRONG = {
    "0.10.2": "issue 39103: compiled products and sums over more than 32,768 rows are wrong on CPUs",
    "0.11.0": "issue 40633: operations outside jit are wrong or NaN on some NVIDIA GPUs",
    "0.11.1": "issue 40633: operations outside jit are wrong or NaN on some NVIDIA GPUs",
}


def environment() -> list[tuple[str, str]]:
    """Versions, devices and memory, as (name, value) lines."""
    versions = package_versions()
    installed = {versions["jax"], versions["jaxlib"]}
    wrong = "; ".join(f"{version}, {KNOWN_WRONG[version]}" for version in sorted(installed & KNOWN_WRONG.keys()))
    return [
        *versions.items(),
        ("known wrong results", wrong or "none in this release"),
        *(("device", line) for line in _devices()),
        ("free memory", _free_memory()),
        ("float64", "on (jax_enable_x64)" if jax.config.read("jax_enable_x64") else "off (jax_enable_x64)"),
    ]


def _devices() -> list[str]:
    """One line for each kind of device."""
    try:
        devices = jax.devices()
    except RuntimeError as error:  # a platform was asked for that is not there
        return [f"none: {(str(error).splitlines() or ['no message'])[0]}"]

    def describe(device: Any) -> str:
        kind = device.platform if device.device_kind == device.platform else f"{device.platform} ({device.device_kind})"
        try:
            memory = (device.memory_stats() or {}).get("bytes_limit")
        except RuntimeError:  # not every platform counts
            memory = None
        return kind if memory is None else f"{kind}, {_gibibytes(memory)} for jax"

    return [f"{count} x {line}" for line, count in Counter(describe(device) for device in devices).items()]


def _free_memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return "unknown on this system"
    return _gibibytes(kibibytes * 2**10)


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
