"""The devices of this process, and how a batch of replicas lies on them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

#: The leading axis of a batch, cut into one piece for each device.
BY_REPLICA = PartitionSpec("replica")


def local_devices() -> Sequence[jax.Device]:
    """Where this process computes: all its devices, or the one that ``jax.default_device`` names."""
    config: Any = jax.config  # known to its types under no release
    chosen = config.jax_default_device
    if chosen is None:
        return jax.local_devices()
    return jax.local_devices(backend=chosen)[:1] if isinstance(chosen, str) else [chosen]


def on_cpu() -> bool:
    """Whether this process computes on processors and not on accelerators."""
    return local_devices()[0].platform == "cpu"


def padded(width: int) -> int:
    """Places of a batch of so many replicas: as many on each device, and no device without a replica to start with."""
    share = min(width, len(local_devices()))
    return -(-width // share) * share


def spread(tree: Any) -> Any:
    """Put a batch on the devices.

    Args:
        tree: numpy arrays with a leading replica axis, whose length :func:`padded` returns.
    """
    devices = local_devices()
    if len(devices) == 1:
        return jax.device_put(tree)
    share = min(len(jax.tree.leaves(tree)[0]), len(devices))
    if share == 1:
        return jax.device_put(tree, devices[0])
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices[:share]), ("replica",)), BY_REPLICA))


def mesh_of(array: Array) -> Mesh | None:
    """The devices that an array of a batch is spread over, None for one device."""
    sharding = array.sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None
