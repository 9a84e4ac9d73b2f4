"""The versions that made a result, and the device."""

import importlib.metadata
import os
import platform

__version__ = "0.1.0"

_PACKAGES = ("jax", "jaxlib", "optax", "numpy", "xarray", "zarr")


def package_versions() -> dict[str, str]:
    """Versions of this package, of Python and of what the numbers depend on."""
    return {
        "packing_jax": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


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
