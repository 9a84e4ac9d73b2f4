"""What moves a configuration: one rule per file, each an (init, step) pair.

``init(system, coordinates) -> state`` and ``step(words, system, coordinates, neighbors, state) -> displacement, state,
info`` are pure functions for one system; the driver vmaps them. ``words`` are the step's random words, from the
replica's key, the step and the particles' tags (:mod:`packing_jax.spheres.noise`); coordinates are fixed-point (dim, N)
and the displacement is in quanta, or both are real where derivatives are followed
(:mod:`packing_jax.spheres.fixed_point`). What is carried (state) and what is reported (info) are separate. The method
``by_particle`` tells which leaves of the state are per particle and must be sorted with them.

A rule is a pytree whose leaves are its hyperparameters, so replicas with different kicks or batch fractions are one
batch and one compiled program. A new rule that sums over overlaps is made of one function by :func:`pair_rule`; any
other derives from :class:`Rule`, as ``bro.py`` does.

All moves of a step are computed from the same configuration, and every sum over neighbours is a sum of integers:
the order of the row cannot matter.
"""

from packing_jax.spheres.rules.base import Info, Rule
from packing_jax.spheres.rules.bro import BRO, bro
from packing_jax.spheres.rules.langevin import Langevin, langevin
from packing_jax.spheres.rules.pairwise import Pair, PairRule, pair_rule
from packing_jax.spheres.rules.random_organization import RandomOrganization, random_organization
from packing_jax.spheres.rules.sgd import SGD, sgd
from packing_jax.spheres.rules.thermal import Thermal, thermal

__all__ = [
    "BRO",
    "SGD",
    "Info",
    "Langevin",
    "Pair",
    "PairRule",
    "RandomOrganization",
    "Rule",
    "Thermal",
    "bro",
    "langevin",
    "pair_rule",
    "random_organization",
    "sgd",
    "thermal",
]
