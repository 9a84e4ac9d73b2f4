"""The names that a user types as ``packing_jax.NAME``; loaded when the first of them is asked for."""

from packing_jax.drive.schedule import linear_times, log_times
from packing_jax.errors import PackingError
from packing_jax.simulation import Trajectory, simulate
from packing_jax.spheres.energy import total_energy
from packing_jax.spheres.geometry import ball_volume, mixture_1_to_1_4, packing_fraction
from packing_jax.spheres.potential import HARMONIC, HERTZIAN, LINEAR, PairEnergy, overlap
from packing_jax.spheres.rules import bro, langevin, pair_rule, random_organization, sgd, thermal
from packing_jax.spheres.system import System, box_of_jax_md, stack

__all__ = [
    "HARMONIC",
    "HERTZIAN",
    "LINEAR",
    "PackingError",
    "PairEnergy",
    "System",
    "Trajectory",
    "ball_volume",
    "box_of_jax_md",
    "bro",
    "langevin",
    "linear_times",
    "log_times",
    "mixture_1_to_1_4",
    "overlap",
    "packing_fraction",
    "pair_rule",
    "random_organization",
    "sgd",
    "simulate",
    "stack",
    "thermal",
    "total_energy",
]
