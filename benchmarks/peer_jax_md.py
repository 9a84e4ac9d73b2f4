"""jax-md: gradient descent of soft spheres along its own neighbour lists, and the rebuild of these lists.

Lengths are in diameters. The energy is jax-md's soft_sphere with alpha = 1, which is (1 - r)/2.
"""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
from common import Channel, Failed, Start, pilot
from jax_md import energy, partition, space


def _meta(note: str) -> dict:
    return {
        "code": "jax-md",
        "version": importlib.metadata.version("jax-md"),
        "dtype": "float32",
        "threads": None,
        "note": note,
    }


class Spheres:
    """Unit spheres with one of jax-md's lists."""

    def __init__(self, start: Start, list_format: str, skin: float, rate: float) -> None:
        side = 1.0 / start.diameter
        displacement, shift = space.periodic(side)
        neighbor_fn, energy_fn = energy.soft_sphere_neighbor_list(
            displacement,
            side,
            sigma=1.0,
            epsilon=0.5,
            alpha=1.0,
            dr_threshold=skin,
            format=getattr(partition.NeighborListFormat, list_format),
        )
        self.x = jnp.asarray(start.positions.astype(np.float64) / start.diameter, jnp.float32)
        self.neighbors = neighbor_fn.allocate(self.x)
        self.gradient = jax.grad(energy_fn)
        self.shift = shift
        self.skin = skin

        @jax.jit
        def advance(x, neighbors, steps):
            def step(_, carry):
                x, neighbors = carry
                neighbors = neighbors.update(x)
                return shift(x, -rate * self.gradient(x, neighbors)), neighbors

            return jax.lax.fori_loop(0, steps, step, (x, neighbors))

        self._advance = advance
        self._update = jax.jit(lambda x, neighbors: neighbors.update(x))

    def advance(self, steps: int) -> None:
        """Make so many moves."""
        self.x, self.neighbors = self._advance(self.x, self.neighbors, steps)
        self._check()

    def rebuild(self, times: int) -> None:
        """Rebuild the list so many times: all particles move to and fro by more than half a skin."""
        there = self.shift(self.x, jnp.asarray([0.6 * self.skin, 0.0, 0.0], jnp.float32))
        for k in range(times):
            self.neighbors = self._update(there if k % 2 == 0 else self.x, self.neighbors)
        if times % 2:
            self.x = there
        self._check()

    def _check(self) -> None:
        if self.neighbors.did_buffer_overflow:
            raise Failed("jax-md's neighbour list overflowed")


def step(channel: Channel, start: Start, kick: float, formats: tuple[str, ...], skins: tuple[float, ...]) -> None:
    """The gradient step, in the format and with the skin that are fastest here."""
    n, rate = len(start.positions), 4.0 * kick / 3.0

    made = {(f, s): Spheres(start, f, s, rate) for f in formats for s in skins}
    tried = {choice: pilot(spheres.advance, n, 0.3) for choice, spheres in made.items()}
    best = max(tried, key=tried.__getitem__)
    speeds = ", ".join(f"{f} {max(v for (g, _), v in tried.items() if g == f) / 1e6:.2g}" for f in formats)
    note = f"{best[0]}, skin {best[1]}; best of each format, M/s: {speeds}"
    channel.serve(made[best].advance, n, _meta(note))


def rebuild(channel: Channel, start: Start, formats: tuple[str, ...], skin: float) -> None:
    """The list rebuild, in the format that is fastest here."""
    n = len(start.positions)

    made = {name: Spheres(start, name, skin, 0.0) for name in formats}
    tried = {name: pilot(spheres.rebuild, n, 0.5) for name, spheres in made.items()}
    best = max(tried, key=tried.__getitem__)
    note = f"{best}, skin {skin}; all formats, M/s: " + ", ".join(f"{f} {v / 1e6:.2g}" for f, v in tried.items())
    channel.serve(made[best].rebuild, n, _meta(note))


def gradient_move(_: Channel, start: Start, rate: float) -> np.ndarray:
    """One gradient move in diameters, (N, dim)."""
    spheres = Spheres(start, "OrderedSparse", 0.2, rate)
    return np.asarray(-rate * spheres.gradient(spheres.x, spheres.neighbors))
