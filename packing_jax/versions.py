"""The versions that made a result, and the device."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # nothing that takes time is imported before the command line answers Ctrl-C
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

#: Settings of jax that change the bits of a trajectory or of what a user draws, and their defaults.
_SETTINGS = {
    "jax_accurate_erf_inv": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_enable_x64": False,
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
}

#: Flags of XLA that change how much memory or time is taken, and no bits; of any other one cannot know.
_HARMLESS = (
    "xla_force_host_platform_device_count",
    "xla_cpu_parallel_codegen_split_count",
    "xla_gpu_cuda_data_dir",
    "xla_gpu_force_compilation_parallelism",
    "xla_dump",
)

_PACKAGES = ("jax", "jaxlib", "optax", "numpy", "xarray", "zarr")


def package_versions() -> dict[str, str]:
    """Versions of this package, of Python and of what the numbers depend on."""
    import platform

    return {
        "packing_jax": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def jax_settings() -> dict[str, Any]:
    """Settings of jax and flags of XLA in this process that are not at their defaults and may change bits."""
    import jax

    now = {name: getattr(jax.config, name, default) for name, default in _SETTINGS.items()}
    found: dict[str, Any] = {name: value for name, value in now.items() if value != _SETTINGS[name]}
    flags = os.environ.get("XLA_FLAGS", "").split()
    if changing := sorted(flag for flag in flags if not flag.lstrip("-").startswith(_HARMLESS)):
        found["XLA_FLAGS"] = " ".join(changing)
    return {name: value if type(value) in (bool, int, str) else str(value) for name, value in found.items()}


def provenance(*, exact: bool = True) -> dict[str, str]:
    """Versions and device that make the data of this process.

    Args:
        exact: False where sums round as they are shared out among a processor's threads, whose number then counts.
    """
    import jax

    device = jax.devices()[0]
    made = {**package_versions(), "device": f"{device.platform}: {device.device_kind}"}
    if not exact and device.platform == "cpu":
        made["threads"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    return made
