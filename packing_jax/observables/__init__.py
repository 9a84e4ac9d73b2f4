"""What is measured: pure functions of a configuration, for one system; the driver vmaps them."""

from packing_jax.observables.activity import (
    Configuration,
    Observable,
    activity,
    energy,
    exact_mean,
    mean_squared_displacement,
)

__all__ = ["Configuration", "Observable", "activity", "energy", "exact_mean", "mean_squared_displacement"]
