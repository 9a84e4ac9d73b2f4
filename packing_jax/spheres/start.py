"""The caller's arguments as replicas: checked, each with a leading replica axis, in a box of side 1."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.drive.kind import Replicas
from packing_jax.errors import PackingError, calling, real_numbers, shown
from packing_jax.random_words import threefry2x32
from packing_jax.spheres.geometry import to_fixed
from packing_jax.spheres.rules.base import check_kick_of, check_rule
from packing_jax.spheres.system import System, check_system

_FARTHEST = 64.0  # box sides; float32 has lost six of its 24 bits there


def gather_replicas(system: System, rule: Any, key: Array, start: Array | np.ndarray | None) -> tuple[Replicas, bool]:
    """The arguments with a leading replica axis each, and whether any had one before."""
    dtype = system.box.dtype
    check_system(system)
    check_rule(rule)
    check_key(key)
    key = threefry(key)

    def as_leaf(leaf: Any) -> Array:
        with calling(f"a hyperparameter of the rule {type(rule).__name__}", "a number or an array of numbers"):
            leaf = jnp.asarray(leaf)
        if leaf.ndim > 1:
            raise PackingError(f"a hyperparameter has shape {leaf.shape}; it must be one number or one per replica")
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise PackingError(f"a hyperparameter is complex, {shown(leaf)}; it must be a real number")
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    rule = jax.tree.map(as_leaf, rule)
    start = None if start is None else jnp.asarray(check_start(start, system), dtype)
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
    check_kick_of(rule, system)

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
    return Replicas(system, rule, noise_keys, coordinates), batched


def check_key(key: Any) -> None:
    """Refuse a plain seed, and an untyped (uint32) key, which looks like two replicas."""
    if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        given = "an array of numbers" if isinstance(key, Array | np.ndarray) else shown(key)
        raise PackingError(f"the key is {given}; it must be a typed key, jax.random.key(seed)")
    if key.ndim > 1:
        raise PackingError(f"the keys have shape {key.shape}; there must be one, or one per replica")


def threefry(key: Array) -> Array:
    """The key, or keys, as Threefry-2x32 keys made of their first two words, whatever ``jax_default_prng_impl`` is.

    What is drawn then depends on these words alone, and on no setting of jax.
    """
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl="threefry2x32")


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
    """A Poisson pattern, (dim, N): particle i's position depends on the key and i only, not on the precision."""
    words = _start_words(jax.random.fold_in(key, 0), system.particles, system.dim)
    if dtype == np.float32:
        return words.astype(jnp.int32)
    return words.astype(jnp.int64) << 32


@partial(jax.jit, static_argnums=(1, 2))
def _start_words(key: Array, particles: int, dim: int) -> Array:
    """The words (dim, N) of ``jax.random.bits(key, (N, dim))``, whatever ``jax_threefry_partitionable`` is."""
    high, low = jax.random.key_data(key)
    counter = jnp.arange(particles * dim, dtype=jnp.uint32).reshape(particles, dim).T
    first, second = threefry2x32((high, low), (jnp.zeros_like(counter), counter))
    return first ^ second


def check_start(start: Any, system: System) -> np.ndarray:
    """The positions that a run starts from, (N, dim) or one of these for each replica.

    Raises:
        PackingError: not real numbers, of the wrong shape, or too far from the box for its precision.
    """
    array = real_numbers(start)
    if array is None:
        raise PackingError(f"the start is {shown(start)}; it must be an array of real numbers")
    expected = (system.particles, system.dim)
    if array.ndim not in (2, 3) or array.shape[-2:] != expected:
        raise PackingError(f"the start has shape {array.shape}; it must end in {expected}, particles by dimension")
    if not np.all(np.isfinite(array)):
        raise PackingError(
            f"{int(np.sum(~np.isfinite(array)))} start coordinates are NaN or infinite; all must be finite"
        )
    farthest = float(np.max(np.abs(array), initial=0.0) / np.min(np.asarray(system.box)))
    if farthest > _FARTHEST:
        raise PackingError(
            f"start coordinates reach {farthest:.3g} box sides, where their precision resolves no contacts; all must "
            f"be within {_FARTHEST:g}, and the box itself is best"
        )
    return array
