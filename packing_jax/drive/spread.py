"""How a batch of replicas lies on the devices of this process."""

from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from packing_jax.devices import local_devices

#: The leading axis of a batch, cut into one piece for each device.
BY_REPLICA = PartitionSpec("replica")


class Spread:
    """How the batches of a run lie on the devices: in pieces of one size, and one copy of what is shared."""

    def __init__(self, shared: Any, block: int | None) -> None:
        """Keep what all replicas share.

        Args:
            shared: arrays without a replica axis.
            block: replicas that a device computes, no more and no fewer; None: as many as there are.
        """
        self._shared, self._block = shared, block
        self._copies: dict[int, Any] = {}  # devices -> what is shared, on each of them

    def _devices(self, width: int) -> int:
        return min(width if self._block is None else -(-width // self._block), len(local_devices()))

    def places(self, width: int) -> int:
        """Places of a batch of so many replicas: as many on each device, and none without a replica to start with."""
        return self._devices(width) * self.on_each(width)

    def on_each(self, width: int) -> int:
        """Of these, those of one device."""
        return -(-width // self._devices(width)) if self._block is None else self._block

    def __call__(self, replicas: Any, state: Any) -> tuple[Any, Any]:
        """Put a batch on the devices.

        Args:
            replicas: numpy arrays with a leading replica axis, whose length :meth:`places` returns.
            state: likewise.
        """
        devices = local_devices()
        share = self._devices(len(replicas.key))
        if share == 1:
            where = everywhere = devices[0]
        else:
            mesh = Mesh(np.array(devices[:share]), ("replica",))
            where, everywhere = NamedSharding(mesh, BY_REPLICA), NamedSharding(mesh, PartitionSpec())
        if share not in self._copies:
            self._copies = {share: jax.device_put(self._shared, everywhere)}
        replicas, state = jax.device_put((replicas, state), where)
        return replicas._replace(shared=self._copies[share]), state

    def with_shared(self, replicas: Any) -> Any:
        """Replicas of a batch with what they share."""
        return replicas._replace(shared=self._shared)


def mesh_of(array: Array) -> Mesh | None:
    """The devices that an array of a batch is spread over, None for one device."""
    sharding = array.sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None
