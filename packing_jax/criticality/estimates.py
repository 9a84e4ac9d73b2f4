"""Every estimate of phi_c and of exponents from one sweep, or a sentence that says why its data do not allow it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from packing_jax.criticality.absorption import AbsorptionTimes
from packing_jax.criticality.data_collapse import Collapse, collapse
from packing_jax.criticality.decay import StraightestDecay, straightest_decay_phi_c
from packing_jax.criticality.exponents import Exponent, exponent, fluctuations
from packing_jax.criticality.half_absorbed import HalfAbsorbed, half_absorbed_phi_c
from packing_jax.criticality.power_law import PowerLaw, power_law_phi_c
from packing_jax.criticality.recommended import (
    ErrorParts,
    Recommended,
    absorption_of,
    error_parts,
    halfway,
)
from packing_jax.criticality.relaxation import Relaxation, relaxation_phi_c
from packing_jax.criticality.results import Scan, as_sweep, number_of_particles, scan_of
from packing_jax.criticality.scan import DRAWS, drifting, replicas_run, scan_order
from packing_jax.criticality.threshold import Threshold, threshold_phi_c
from packing_jax.errors import PackingError

if TYPE_CHECKING:
    from packing_jax.criticality.results import Results

Array = NDArray[np.float64]

PREFERRED = {
    "absorption": "from the step at which each replica was absorbed, extrapolated to infinite runs and systems",
    "power_law": "from the activity where it is stationary, as it vanishes with a power law",
    "threshold": "the largest scanned phi with an activity below 0.1, the definition of arXiv:2411.11834",
}
"""Methods whose value may be recommended, the preferred one first, each with the reason that is given."""

_CRITICAL = 0.2  # an exponent is compared with the classes only if the lowest fitted f_a is below this


@dataclass(frozen=True)
class KickEstimate:
    """phi_c of one kick and batch fraction by each method; None where a method refused.

    `errors` holds a pair (method, parts of its error) for each that did not refuse; a method's own `stderr` is only the
    statistical part, except for `absorption`. `fluctuations` is the exponent -gamma' of N Var(f_a), at the phi_c of the
    power law. `refusals` holds a pair (method, sentence) for each that refused. `runs` counts the (phi, replica) runs,
    `missing` those that are not in the results yet.
    """

    kick: float
    batch_fraction: float
    absorption: AbsorptionTimes | None
    threshold: Threshold | None
    power_law: PowerLaw | None
    decay: StraightestDecay | None
    relaxation: Relaxation | None
    half_absorbed: HalfAbsorbed | None
    fluctuations: Exponent | None
    errors: tuple[tuple[str, ErrorParts], ...]
    refusals: tuple[tuple[str, str], ...]
    missing: int
    runs: int

    def recommended(self) -> Recommended | None:
        """The value to quote: that of the first method of `PREFERRED` whose total error is known."""
        parts, refused = dict(self.errors), dict(self.refusals)
        for method, why in PREFERRED.items():
            part = parts.get(method)
            if part is None or (total := part.total) is None or part.run_length is None or part.size is None:
                continue
            first = next(iter(PREFERRED))
            return Recommended(
                parameter="phi",
                axes={"kick": self.kick, "batch_fraction": self.batch_fraction},
                value=float(getattr(self, method).value),
                stderr=total,
                statistical=part.statistical,
                run_length=part.run_length,
                size=part.size,
                method=method,
                why=why if method == first else f"{why}; the times of absorption do not give it: {refused[first]}",
            )
        return None

    def exponents(self) -> dict[str, tuple[float, float]]:
        """The exponents for a verdict: (value, stderr) by `packing_jax.criticality.universality.NAMES`.

        beta and gamma' are given only where the lowest fitted activity is below 0.2. Their errors are joined with one
        for corrections to scaling, whose relative size is taken as the activity in the middle of the fit,
        sqrt(f_low f_high). With the corrections c of :func:`power_law_phi_c`: at c = 3 this is 0.06, beta is off by
        0.07, and 1.96 joint errors contain the true value 92 times in 100; at c = 6 it is 0.04, beta is off by 0.13,
        and they do 42 times in 100. nu_par is not given: see :func:`relaxation_phi_c`.
        """
        found = {}
        if self.decay:
            found["alpha"] = self.decay.alpha, self.decay.alpha_stderr
        law = self.power_law
        if law is None or _lowest(law) >= _CRITICAL:
            return found
        corrections = float(np.sqrt(np.prod(law.activity(list(law.window)))))
        found = {"beta": (law.beta, math.hypot(law.beta_stderr, corrections * law.beta)), **found}
        if self.fluctuations:
            one = self.fluctuations
            found["gamma_prime"] = -one.value, math.hypot(one.stderr, corrections * one.value)
        return found


def estimate_phi_c(results: Results, *, draws: int = DRAWS, seed: int = 0) -> tuple[KickEstimate, ...]:
    """phi_c by every method for each kick and batch fraction of a sweep, in increasing order.

    Replicas not run yet or failed (see `was_run`), and those without records in the last half of the time, are left out
    and counted as missing.

    Args:
        results: a trajectory, the directory of a sweep, or a dataset: dims phi, kick, batch_fraction, replica, time;
            variables activity, absorbed_at, steps_done; the attribute particles, or a coordinate () of this name,
            without which there are no fluctuations.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        PackingError: results without these dims and variables. A method that refuses raises nothing here: its
            sentence is in `refusals`.
    """
    sweep = as_sweep(results)
    kicks, fractions = (sweep[axis].values for axis in ("kick", "batch_fraction"))
    return tuple(
        _estimate(scan_of(sweep, int(k), int(b)), float(kicks[k]), float(fractions[b]), draws, seed)
        for k in np.argsort(kicks)
        for b in np.argsort(fractions)
    )


def finite_size_collapse(results: Sequence[Results], *, draws: int = DRAWS, seed: int = 0) -> Collapse:
    """nu_perp, beta/nu_perp and phi_c by `collapse` of the stationary activity of sweeps at several N, L = N^(1/d).

    Active replicas are averaged; a phi at which they drift is left out. Packing fractions far from phi_c, where the
    critical law no longer holds, must not be in the results: a large chi^2 of the collapse tells that some are.

    Args:
        results: of one kick and batch fraction each, with the attributes particles and dim; as for `estimate_phi_c`.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        PackingError: more than one kick or batch fraction, missing attributes, or what `collapse` refuses.
    """
    scales, phis, values = [], [], []
    for one in map(as_sweep, results):
        particles, dim = number_of_particles(one), one.attrs.get("dim")
        if one.sizes["kick"] != 1 or one.sizes["batch_fraction"] != 1 or not particles or not dim:
            raise PackingError("each sweep needs one kick, one batch fraction, and the attributes particles and dim")
        cell = scan_of(one, 0, 0)
        still = stationary(cell)
        scales.append(float(particles) ** (1.0 / float(dim)))
        phis.append(cell.phi[still])
        values.append(cell.final[still])
    return collapse(scales, phis, values, draws=draws, seed=seed)


def _lowest(law: PowerLaw) -> float:
    return float(law.activity([law.window[0]])[0])


def stationary(cell: Scan) -> list[int]:
    """Indices of the phi whose active replicas do not drift."""
    order = scan_order(cell.phi, cell.final)
    moves = drifting(replicas_run(cell.final, order), cell.drift, order)
    return [i for i, moving in zip(order, moves, strict=True) if not moving]


def _estimate(cell: Scan, kick: float, batch_fraction: float, draws: int, seed: int) -> KickEstimate:
    refusals = []

    def attempt(method: str, estimate: Callable[[], Any]) -> Any:
        try:
            return estimate()
        except PackingError as refusal:
            refusals.append((method, str(refusal)))
            return None

    how = {"draws": draws, "seed": seed}
    phi, f_a, gone = cell.phi, cell.activity, cell.absorbed_at
    half = halfway(cell)

    methods: dict[str, Callable[[Scan], Any]] = {
        "threshold": lambda c: threshold_phi_c(c.phi, c.final, c.drift, **how),
        "power_law": lambda c: power_law_phi_c(c.phi, c.final, c.drift, **how),
        "decay": lambda c: straightest_decay_phi_c(c.time, c.phi, c.activity, **how),
        "relaxation": lambda c: relaxation_phi_c(c.time, c.phi, c.activity, c.absorbed_at, **how),
        "half_absorbed": lambda c: half_absorbed_phi_c(c.phi, c.absorbed),
    }
    absorption = attempt("absorption", lambda: absorption_of(cell, half, seed))
    found = {method: attempt(method, partial(estimate, cell)) for method, estimate in methods.items()}
    power_law = found["power_law"]

    def variance() -> Exponent:
        if power_law is None or cell.particles is None:
            raise PackingError("fluctuations need the phi_c of a power law and the number of particles")
        active = np.where((gone < 0)[..., None], f_a, np.nan)
        inside = [i for i in stationary(cell) if phi[i] <= power_law.window[1]]
        spread = fluctuations(cell.time, active[inside], cell.particles)
        return exponent(phi[inside], spread, power_law.value, power_law.stderr, **how)

    spread = attempt("fluctuations", variance)
    if power_law is not None and _lowest(power_law) >= _CRITICAL:
        refusals.append(
            (
                "exponents",
                f"the lowest fitted activity is {_lowest(power_law):.2g}, and beta is an effective exponent there: "
                "scan closer to phi_c, in larger systems",
            )
        )
    errors = {method: error_parts(cell, half, one, methods[method]) for method, one in found.items() if one is not None}
    if absorption is not None:
        errors = {"absorption": ErrorParts(absorption.statistical, absorption.run_length, absorption.size)} | errors
    return KickEstimate(
        kick=kick,
        batch_fraction=batch_fraction,
        absorption=absorption,
        **found,
        fluctuations=spread,
        errors=tuple(errors.items()),
        refusals=tuple(refusals),
        missing=int(np.isnan(cell.final).sum()),
        runs=cell.final.size,
    )
