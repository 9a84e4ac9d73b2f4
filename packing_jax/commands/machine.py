"""Where a program runs: versions, devices, memory, and where compiled programs are kept."""

import os
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
        ("compiled programs", _kept()),
        ("float64", "on (jax_enable_x64)" if jax.config.read("jax_enable_x64") else "off (jax_enable_x64)"),
    ]


def keep_compiled() -> None:
    """Keep compiled programs for the next process in the user's cache directory, unless jax was told of another."""
    # jax before 0.12 prints lines of errors from C++ whenever it reads what it kept for a CPU
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and jax.__version_info__ >= (0, 12):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "packing_jax"))


def _kept() -> str:
    """Where compiled programs are kept, and how many bytes they take."""
    place = jax.config.jax_compilation_cache_dir
    if not place:
        return "kept for this process only; set JAX_COMPILATION_CACHE_DIR to a directory to keep them"
    try:
        sizes = [file.stat().st_size for file in Path(place).iterdir()]
    except OSError:  # nothing yet, or another program removes some just now
        sizes = []
    return f"{place} ({sum(sizes) / 2**20:.0f} MiB in {len(sizes)} files; can be deleted at any time)"


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
