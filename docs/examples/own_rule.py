"""A model of your own, from its rule to phi_c and a figure. Run it: python own_rule.py, ten seconds on two cores."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp

from packing_jax import PairEnergy, pair_rule
from packing_jax.commands import phi_c_plots
from packing_jax.criticality import estimate_phi_c, half_absorbed_phi_c, open_results
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep


def push(pair, u, kick):
    """What moves a particle, from each of its overlaps; u is random, and the same for both partners."""
    return kick * u * jnp.sqrt(pair.overlap) * pair.direction


def rule(kick):
    """The rule at a kick size: a sweep makes it for all kicks at once."""
    return pair_rule(push, kick=kick)


def farthest(seen):
    """An observable: the longest way of a particle, along one axis."""
    return jnp.abs(seen.displacements).max()


energy = PairEnergy(lambda r, sigma: (1 - r / (1.2 * sigma)) ** 2, slope_bound=2.0, reach=1.2)  # beyond contact
model = Sweep(rule=rule, energy=energy, record={"farthest": farthest}, dim=2, particles=128, kick=(0.3,), steps=500)

if __name__ == "__main__":
    directory = Path("own-rule")
    run_sweep(replace(model, phi=(0.76, 0.8, 0.84, 0.88)), directory)
    # goes on with the same sweep; another version of the rule, energy or observable would be refused
    run_sweep(replace(model, phi=(0.79, 0.81, 0.82, 0.83)), directory, resume=True)
    print(half_absorbed_phi_c(directory))
    phi_c_plots.activity_vs_phi(open_results(directory), estimate_phi_c(directory)).savefig(directory / "activity.png")
