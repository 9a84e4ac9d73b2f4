"""The loop: it moves any configuration by any rule until each replica is absorbed or done, and knows no particle.

A family of four. :mod:`~packing_jax.drive.kind` says what the loop asks of a configuration, which may be spheres, the
weights of a network or a pytree of your own. :mod:`~packing_jax.drive.chunk` is the compiled half, at most so many
steps of a batch. :mod:`~packing_jax.drive.run` is the host's half: it calls chunks until all replicas have ended, and
hands each out as it ends. :mod:`~packing_jax.drive.batch` keeps the books of who moves, waits and has ended.
"""
