"""Rules that move weights: each is a pytree of hyperparameters with one step."""

from packing_jax.networks.rules.base import Moved, WeightRule
from packing_jax.networks.rules.bro import bro
from packing_jax.networks.rules.contrastive import persistent_chains
from packing_jax.networks.rules.eigenvalues import eigenvalues, singular_values
from packing_jax.networks.rules.implicit import implicit_sgd
from packing_jax.networks.rules.langevin import langevin
from packing_jax.networks.rules.nag_gs import nag_gs
from packing_jax.networks.rules.sgd import heavy_ball, sgd, symmetric_noise

__all__ = [
    "Moved",
    "WeightRule",
    "bro",
    "eigenvalues",
    "heavy_ball",
    "implicit_sgd",
    "langevin",
    "nag_gs",
    "persistent_chains",
    "sgd",
    "singular_values",
    "symmetric_noise",
]
