"""phi_c, critical exponents and the universality class, each with a standard error and a 95 % interval.

Below phi_c every replica is absorbed in the end: no overlap is left and f_a = 0 for ever. Above it a finite activity
survives. Each estimate of phi_c has its file, and all read the same records:

- `absorption`: the steps at which replicas were absorbed, extrapolated to infinite runs; the recommended one;
- `threshold`: the definition of arXiv:2411.11834, the largest scanned phi with f_a < 0.1;
- `power_law`: the stationary activity, f_a = A (phi - phi_c)^beta with phi_c, A and beta free;
- `decay`: the straightest log-log decay of f_a(t), which at phi_c is t^-alpha;
- `relaxation`: the relaxation times, which diverge as |phi - phi_c|^-nu_par from both sides;
- `half_absorbed`: the phi at which half of the replicas are absorbed.

`estimates` applies them to a sweep, and `recommended` adds errors for finite run length and size. `zero_kick`
extrapolates phi_c(kick) to kick = 0. `exponents` fits power laws at a known phi_c, `data_collapse` finds phi_c and
exponents from several sizes or times. `search` says what to run next to find phi_c to a tolerance, and `universality`
compares exponents with the known classes. All of it is float64 NumPy on the host. Estimates take arrays, or `results`
that have them: a trajectory, a dataset or the directory of a sweep. Where the data do not suffice, a `PackingError`
says what would help.

`stderr` is one standard deviation: from the bootstrap over replicas, or from the likelihood where absorbed replicas are
counted (`half_absorbed`, `absorption`). `interval` contains the true value in 95 of 100 cases, as the tests check on
known models.
"""

from packing_jax.criticality.absorption import AbsorptionTimes, absorption_phi_c
from packing_jax.criticality.data_collapse import Collapse, collapse, time_collapse
from packing_jax.criticality.decay import StraightestDecay, straightest_decay_phi_c
from packing_jax.criticality.estimates import KickEstimate, estimate_phi_c, finite_size_collapse
from packing_jax.criticality.exponents import Exponent, exponent, fluctuations
from packing_jax.criticality.half_absorbed import HalfAbsorbed, half_absorbed_phi_c
from packing_jax.criticality.power_law import MIN_POINTS, PowerLaw, power_law_phi_c
from packing_jax.criticality.recommended import ErrorParts, Recommended
from packing_jax.criticality.relaxation import Relaxation, relaxation_phi_c, relaxation_times
from packing_jax.criticality.results import as_sweep, by_other_axes, check_results, open_results, was_run
from packing_jax.criticality.search import SearchResult
from packing_jax.criticality.threshold import ACTIVITY_CUT, Threshold, threshold_phi_c
from packing_jax.criticality.universality import CLASSES, UniversalityClass, Verdict, classes_in, verdict
from packing_jax.criticality.zero_kick import Form, ZeroKickLimit, zero_kick_limit

__all__ = [
    "ACTIVITY_CUT",
    "CLASSES",
    "MIN_POINTS",
    "AbsorptionTimes",
    "Collapse",
    "ErrorParts",
    "Exponent",
    "Form",
    "HalfAbsorbed",
    "KickEstimate",
    "PowerLaw",
    "Recommended",
    "Relaxation",
    "SearchResult",
    "StraightestDecay",
    "Threshold",
    "UniversalityClass",
    "Verdict",
    "ZeroKickLimit",
    "absorption_phi_c",
    "as_sweep",
    "by_other_axes",
    "check_results",
    "classes_in",
    "collapse",
    "estimate_phi_c",
    "exponent",
    "finite_size_collapse",
    "fluctuations",
    "half_absorbed_phi_c",
    "open_results",
    "power_law_phi_c",
    "relaxation_phi_c",
    "relaxation_times",
    "straightest_decay_phi_c",
    "threshold_phi_c",
    "time_collapse",
    "verdict",
    "was_run",
    "zero_kick_limit",
]
