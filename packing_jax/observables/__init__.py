"""What is measured, on the device and on the host.

* Observables of a configuration, which a simulation records as it runs: `activity`, `energy`,
  `mean_squared_displacement`, `displacement`, `recorded_structure_factor`. One of your own is a function of a
  `Configuration`: ``record={"far": lambda seen: jnp.max(jnp.abs(seen.displacements))}``.
* Structure of a run's positions, on the host: S(q), g(r), hyperuniformity, bond order, contacts.
* Correlators between two times, of positions or of any other arrays.

Every run imports these modules, so they write ``scipy.spatial.KDTree`` where they use it and do not import it by name:
scipy then loads that part only when it is needed.
"""

from packing_jax.exact import exact_mean
from packing_jax.observables.contacts import ContactNetwork, find_contacts, force_distribution, gap_distribution
from packing_jax.observables.correlators import (
    average_over_origins,
    chi_4,
    lag_pairs,
    mean_squared_move,
    self_overlap,
    self_scattering,
)
from packing_jax.observables.hyperuniformity import fit_hyperuniformity, fit_zero_limit, number_variance
from packing_jax.observables.order import hexatic_order, steinhardt_order
from packing_jax.observables.recorded import activity, displacement, energy, mean_squared_displacement
from packing_jax.observables.structure import (
    ShellAverage,
    isotropic_average,
    pair_correlation,
    recorded_structure_factor,
    spectral_density,
    structure_factor,
    wave_vectors,
)
from packing_jax.spheres.configuration import Configuration, Neighbours, Observable

__all__ = [
    "Configuration",
    "ContactNetwork",
    "Neighbours",
    "Observable",
    "ShellAverage",
    "activity",
    "average_over_origins",
    "chi_4",
    "displacement",
    "energy",
    "exact_mean",
    "find_contacts",
    "fit_hyperuniformity",
    "fit_zero_limit",
    "force_distribution",
    "gap_distribution",
    "hexatic_order",
    "isotropic_average",
    "lag_pairs",
    "mean_squared_displacement",
    "mean_squared_move",
    "number_variance",
    "pair_correlation",
    "recorded_structure_factor",
    "self_overlap",
    "self_scattering",
    "spectral_density",
    "steinhardt_order",
    "structure_factor",
    "wave_vectors",
]
