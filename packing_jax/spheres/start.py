"""What a caller gives, as replicas: one leading axis on everything, checked, in a box of side 1."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.drive.kind import Replicas
from packing_jax.errors import PackingError
from packing_jax.spheres.geometry import to_fixed
from packing_jax.spheres.rules.base import check_rule
from packing_jax.spheres.system import System


def gather_replicas(system: System, rule: Any, key: Array, start: Array | np.ndarray | None) -> tuple[Replicas, bool]:
    """One leading replica axis on everything, and whether the caller had one."""
    dtype = system.box.dtype
    check_rule(rule)
    check_key(key)

    def as_leaf(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        if leaf.ndim > 1:
            raise PackingError(f"a hyperparameter has shape {leaf.shape}; it must be one number or one per replica")
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    rule = jax.tree.map(as_leaf, rule)
    start = None if start is None else _check_start(start, system)
    sizes = {len(leaf) for leaf in jax.tree.leaves(rule) if leaf.ndim}
    sizes |= {len(system.box)} if system.box.ndim else set()
    sizes |= {len(key)} if key.ndim else set()
    sizes |= {len(start)} if start is not None and start.ndim == 3 else set()
    if len(sizes) > 1:
        raise PackingError(f"replica axes of lengths {sorted(sizes)}; system, rule, keys and start must agree on one")
    count = sizes.pop() if sizes else 1
    if not count:
        raise PackingError("there are no replicas: the replica axis has length 0, and at least 1 is needed")
    batched = bool(system.box.ndim or key.ndim or any(x.ndim for x in jax.tree.leaves(rule)))
    batched = batched or (start is not None and start.ndim == 3)

    def spread(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (count, *leaf.shape))

    if not key.ndim:
        key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count)) if batched else key[None]
    system = system if system.box.ndim else jax.tree.map(spread, system)
    rule = jax.tree.map(lambda leaf: leaf if leaf.ndim else spread(leaf), rule)
    if start is None:
        coordinates = jax.vmap(lambda k: random_start(k, system, dtype))(key)
    else:
        start = start if start.ndim == 3 else spread(start)
        coordinates = to_fixed(start.astype(dtype), system.box)
    system = _in_box_sides(system)
    noise_keys = jax.vmap(lambda k: jax.random.key_data(jax.random.fold_in(k, 1)))(key)
    return Replicas(system, rule, noise_keys[:, :2], coordinates), batched


def check_key(key: Any) -> None:
    """Refuse a seed, and a key of the old kind, which looks like two replicas."""
    if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        given = "an array of numbers" if isinstance(key, Array | np.ndarray) else repr(key)
        raise PackingError(f"the key is {given}; it must be a typed key, jax.random.key(seed)")


def _in_box_sides(system: System) -> System:
    """The same system in a box of side 1, so that nothing is divided by the side in the compiled program.

    There XLA is free to write box/sigma for 1/(sigma/box), which rounds differently, and does so for some batch sizes.
    """
    box = np.asarray(system.box)
    diameters = np.asarray(system.diameters)
    return replace(
        system,
        box=jnp.ones_like(system.box),
        diameters=jnp.asarray(diameters / box.reshape(box.shape + (1,) * (diameters.ndim - box.ndim))),
        unit=jnp.asarray(np.asarray(system.unit) / box),
    )


def random_start(key: Array, system: System, dtype: np.dtype) -> Array:
    """A Poisson pattern, (dim, N): particle i's place depends on the key and i only, and not on the precision."""
    words = jax.random.bits(jax.random.fold_in(key, 0), (system.particles, system.dim), dtype=jnp.uint32).T
    if dtype == np.float32:
        return words.astype(jnp.int32)
    return words.astype(jnp.int64) << 32


def _check_start(start: Array | np.ndarray, system: System) -> Array:
    array = np.asarray(start)
    expected = (system.particles, system.dim)
    if array.ndim not in (2, 3) or array.shape[-2:] != expected:
        raise PackingError(f"the start has shape {array.shape}; it must end in {expected}, particles by dimension")
    if not np.all(np.isfinite(array)):
        raise PackingError(
            f"{int(np.sum(~np.isfinite(array)))} start coordinates are NaN or infinite; all must be finite"
        )
    return jnp.asarray(array, dtype=system.box.dtype)
