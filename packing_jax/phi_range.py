"""Where to sweep: packing fractions that bracket a transition nobody has told of, by a short search.

Single replicas of a small system, followed for a thirtieth of a sweep's usual time, are absorbed or not: eight packing
fractions from dilute to dense, then eight more between the densest that was absorbed and the most dilute that stayed
active, until that gap is narrow. A range begins there. A longer and larger run is absorbed up to somewhat denser
systems (the drift of phi_c with time and size goes upwards), so its low end is absorbed. The range ends where the
activity is three quarters of what it is in the densest system: the rise from the transition to there takes a width that
suits each rule, kick and dimension. Where the activity jumps, the range is at least 3 % wide. Ends and spacing are
rounded, so that another machine's rounding of forces seldom changes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from packing_jax.drive.run import Progress, run
from packing_jax.errors import PackingError
from packing_jax.simulation import DEFAULT_RECORD
from packing_jax.spheres.geometry import ball_volume
from packing_jax.spheres.particles import particles_of
from packing_jax.spheres.tuning import first_skin
from packing_jax.sweeps.spheres import Sweep

DENSEST = {1: 1.0, 2: 0.9, 3: 0.7, 4: 0.5, 5: 0.34, 6: 0.22}
"""By dimension: above random close packing, where nothing is absorbed."""

_DILUTEST = 1 / 8  # of that, where a search begins; it goes lower if all is active there
_LOWEST = 1e-3  # of that, where it ends
_SMALLEST, _SIDE = 256, 4  # particles, and mean diameters along a side
_STEPS, _FEWEST = 100.0, 1000  # kick times steps, and steps at least: large kicks and own rules may relax slowly
_PHIS = 8  # at a time
_BATCHES = 3  # usually
_RISE = 0.75  # the activity at the upper end, of that in the densest system
_INTERVALS = 9  # about so many in a range
_LEAST = 0.03  # of phi: how wide a range is at least where the rise of the activity was not seen, as in the main job

Pair = tuple[float, float]  #: kick and batch fraction


class Range(NamedTuple):
    """Packing fractions lo, lo + h, ..., hi of one kick and batch fraction."""

    low: float
    high: float
    points: int

    @property
    def spacing(self) -> float:
        """h."""
        return (self.high - self.low) / (self.points - 1)

    @property
    def values(self) -> tuple[float, ...]:
        """All of them, as one would type them."""
        return tuple(float(f"{phi:.10g}") for phi in np.linspace(self.low, self.high, self.points))

    def __str__(self) -> str:
        """As the option --phi takes it."""
        return f"{self.low:g}:{self.high:g}:{self.points}"


class Seen(NamedTuple):
    """What one replica did."""

    absorbed: bool
    activity: float  #: at its end


def find_ranges(spec: Sweep, on_progress: Callable[[float], None] = lambda _: None) -> dict[Pair, Range]:
    """A range of packing fractions across the transition, for each kick and batch fraction of a sweep without phi.

    Takes seconds: systems of 256 particles (more in four dimensions and above), for 100 / kick steps and at least 1000.
    Each range is a function of the system, the steps, the seed, and its own kick and batch fraction.

    Args:
        spec: the sweep; its phi does not count.
        on_progress: called now and then with the share of the work, 0 to 1.

    Raises:
        PackingError: a specification out of range, a replica that fails, or no transition.
    """
    spec = _small(spec)
    pairs = [(kick, fraction) for kick in spec.kick for fraction in spec.batch_fraction or (1.0,)]
    return {
        pair: _find(spec, pair, partial(_part_of, on_progress, done, len(pairs))) for done, pair in enumerate(pairs)
    }


def _part_of(on_progress: Callable[[float], None], done: int, count: int, share: float) -> None:
    on_progress((done + share) / count)


def _find(spec: Sweep, pair: Pair, on_progress: Callable[[float], None]) -> Range:
    steps = _steps(spec, pair[0])
    seen: dict[float, Seen] = {}
    batch, kind = 0, None
    while asked := _next(seen, spec.phi[0], steps):
        _, replicas = replace(spec, phi=tuple(asked)).build([(phi, *pair, 0) for phi in asked])
        # One program for all: the first batch has the densest system, whose box has the fewest cells, and to follow the
        # run with the program's shapes would take longer than the run.
        kind = kind or particles_of(replicas, first_skin(spec.dim))
        record = {"activity": DEFAULT_RECORD["activity"]}

        def tell(now: Progress, done: int = batch) -> None:
            on_progress(min((done + now.share) / _BATCHES, 1.0))

        for index, one in run(kind, replicas, np.array([steps], np.int32), record, on_progress=tell):
            if one.failed:
                raise PackingError(
                    f"looking for the transition, the replica at phi {asked[index]:g} and kick {pair[0]:g} "
                    f"{one.reason}; give --phi"
                )
            seen[asked[index]] = Seen(one.absorbed_at >= 0, float(one.records["activity"][-1]))
        batch += 1
    return rounded(*_ends(seen))


def joined(ranges: Mapping[Pair, Range]) -> tuple[float, ...]:
    """One grid of packing fractions for all ranges: everywhere the finest spacing of those that reach there."""
    found = set()
    for one in ranges.values():
        finer = [other for other in ranges.values() if other.spacing < one.spacing * (1 - 1e-9)]
        found |= {phi for phi in one.values if not any(other.low <= phi <= other.high for other in finer)}
    return tuple(sorted(found))


def _small(spec: Sweep) -> Sweep:
    """The sweep with a small system and few steps, checked at the densest phi."""
    if spec.rule == "thermal":
        raise PackingError("at a temperature no run is absorbed, and there is no transition to be found: give --phi")
    spec = replace(spec, phi=(DENSEST.get(spec.dim, 1.0),), replicas=1, trajectory=None, record_every=None).checked()
    number = min(spec.particles) if isinstance(spec.particles, tuple) else spec.particles
    in_box = spec.phi[0] * _SIDE**spec.dim / (ball_volume(spec.dim) / 2**spec.dim)
    few = max(_SMALLEST, 2 ** math.ceil(math.log2(in_box)))
    steps = _steps(spec, spec.kick[0])
    spec = replace(spec, particles=number, steps=steps)
    if few >= number or spec.sizes is not None:
        return spec.checked()
    try:
        return replace(spec, particles=few).checked()
    except PackingError:  # a kick that is too long for a smaller box
        return spec.checked()


def _steps(spec: Sweep, kick: float) -> int:
    """That each replica is followed for at most."""
    return min(spec.steps or 0, max(math.ceil(_STEPS / kick), _FEWEST))


def _next(seen: Mapping[float, Seen], dense: float, steps: int) -> list[float]:
    """The packing fractions to try next; none where the transition is known well enough."""
    if not seen:
        return _typed(np.linspace(dense * _DILUTEST, dense, _PHIS))
    active, lowest = [phi for phi, one in seen.items() if not one.absorbed], min(seen)
    if not active or (lowest in active and lowest < _LOWEST * dense):
        what, where = ("active", f"down to phi = {lowest:g}") if active else ("absorbed", f"up to phi = {dense:g}")
        raise PackingError(
            f"every replica is {what}, {where}, after {steps} steps: no transition was found to sweep across; give "
            "--phi, or more --steps"
        )
    if lowest in active:
        return _typed(np.linspace(lowest * _DILUTEST, lowest, _PHIS + 1)[:-1])
    (low, high), above = _ends(seen), min(active)
    return [] if above - low <= (high - low) / _INTERVALS else _typed(np.linspace(low, above, _PHIS + 2)[1:-1])


def _typed(phis: np.ndarray) -> list[float]:
    return sorted({float(f"{phi:.5g}") for phi in phis})


def _ends(seen: Mapping[float, Seen]) -> tuple[float, float]:
    """The densest absorbed phi below all active ones, and where the activity is most of the largest."""
    phis = sorted(seen)
    first = next(i for i, phi in enumerate(phis) if not seen[phi].absorbed)
    f_a = np.maximum.accumulate([seen[phi].activity for phi in phis])
    enough = _RISE * f_a[-1]
    beyond = int(np.argmax(f_a >= enough))
    if beyond == 0 or f_a[beyond] == f_a[beyond - 1]:
        high = phis[beyond]
    else:
        high = float(np.interp(enough, f_a[beyond - 1 : beyond + 1], phis[beyond - 1 : beyond + 1]))
    low = phis[first - 1]
    if seen[phis[beyond - 1]].absorbed:  # a jump from rest: one replica does not tell how far away others stay active
        high = max(high, low * (1 + _LEAST))
    return low, max(high, phis[first])


def rounded(low: float, high: float) -> Range:
    """The range between about these ends whose spacing is 1, 2, 2.5 or 5 times a power of ten."""
    wanted = (high - low) / _INTERVALS
    power = 10.0 ** math.floor(math.log10(wanted))
    spacing = min((part * power for part in (1.0, 2.0, 2.5, 5.0, 10.0)), key=lambda h: abs(math.log(h / wanted)))
    first, last = math.floor(low / spacing + 1e-9), math.ceil(high / spacing - 1e-9)
    first = max(first, 1)
    low, high = (float(f"{k * spacing:.10g}") for k in (first, last))
    return Range(low, high, last - first + 1)
