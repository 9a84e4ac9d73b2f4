"""Sweeps of spheres over phi, kick, batch fraction, temperature, and numbers of particles if there are several.

A replica's random key is a function of the seed, its own phi, kick, batch fraction, temperature and replica number, and
not of its place in the sweep: the same replica is the same trajectory in any sweep that contains it.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.drive.kind import Kind, Replicas
from packing_jax.drive.schedule import STEP_LIMIT
from packing_jax.errors import PackingError, shown
from packing_jax.simulation import DEFAULT_RECORD, check_record
from packing_jax.spheres.geometry import check_dim, check_particles
from packing_jax.spheres.particles import particles_of
from packing_jax.spheres.potential import overlap
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import stack
from packing_jax.sweeps.field_types import Mixture, check_types, stored_field
from packing_jax.sweeps.fingerprint import described, name_of
from packing_jax.sweeps.manifest import Name
from packing_jax.sweeps.model import (
    CouplingName,
    SweepRuleName,
    check_kicks,
    check_model,
    make_rule,
    make_system,
    rule_name,
    takes_batches,
)
from packing_jax.sweeps.own import given_again
from packing_jax.sweeps.schema import MOST_CELLS, Table, Variable
from packing_jax.sweeps.spec import Spec, plain
from packing_jax.sweeps.times import extended_times
from packing_jax.sweeps.trajectory import Trajectories, check_trajectory
from packing_jax.untrusted import LARGEST_STORE

_FIXED = ("rule", "coupling", "correlation", "dim", "particles", "exponent", "mixture", "record_every", "seed")
_AXES = ("phi", "kick", "batch_fraction", "temperature")
_OWN = ("energy", "record", "trust_rule")  # fields that are not stored as they are


@dataclass(frozen=True)
class Sweep(Spec):
    """What to sweep; every field is recorded in the store, of a user's objects a description.

    A rule, energy or observable of a user's is never made from a store: who goes on with the sweep gives it again, and
    another version is refused, see :mod:`packing_jax.sweeps.own`.
    """

    kind: ClassVar[str] = "spheres"
    unit: ClassVar[str] = "particle"
    control: ClassVar[str | None] = "phi"
    labels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "particles": ("number of particles", "1"),
        "phi": ("packing fraction", "1"),
        "kick": ("kick size eps, or learning rate for sgd", "mean diameters"),
        "batch_fraction": ("batch fraction b_f (1 where the rule has none)", "1"),
        "temperature": ("temperature kT of the rule thermal", "mean diameters, as the energy"),
        "activity": ("fraction of particles with at least one overlap", "1"),
        "energy": ("energy per particle", "mean diameters (a0 = 1/2)"),
        "msd": ("mean squared displacement from the start", "squared mean diameters"),
        "absorbed_at": ("first step without an overlap, -1 if still active", "steps"),
        "positions": ("final positions", "box sides"),
        "diameters": ("diameters", "box sides"),
        "box": ("side of the periodic box", "mean diameters"),
    }

    rule: SweepRuleName | Any = "bro"  #: or a Rule, an optax optimizer, or a function that makes one from the kick
    coupling: CouplingName | None = None  #: None: particle for ro and thermal, else pair
    correlation: float = 1.0
    dim: int = 3
    particles: int | tuple[int, ...] = 1000  #: several are an axis of the store, named particles
    phi: tuple[float, ...] = ()
    kick: tuple[float, ...] = ()  #: empty: 0.05
    batch_fraction: tuple[float, ...] | None = None  #: None: 3/4 for sgd, where alpha = 4 eps/3 matches BRO
    temperature: tuple[float, ...] | None = None  #: kT of the rule thermal, which needs it; 0 is gradient descent
    exponent: float = 1.0
    mixture: Mixture = "mono"
    sizes: Any = None  #: (N,) relative diameters, of one number of particles; None: those of the mixture
    steps: int | None = None  #: None: 3000 over the smallest kick
    record_every: int | None = None  #: None: 40 logarithmic and 100 linear times
    replicas: int | None = None  #: None: 3
    seed: int = 0
    trajectory: str | None = None  #: every:K or log, see packing_jax.sweeps.trajectory; None: none
    extended_from: tuple[int, ...] = ()  #: steps before each extension; what was recorded then is kept
    energy: Any = None  #: an Overlap or PairEnergy; None: (a0/a) (1 - r/sigma)^a with the exponent above
    #: name -> observable, beside activity, energy and msd, which are added
    record: Mapping[str, Any] | None = None  # type: ignore[assignment]
    trust_rule: bool = False  #: go on with objects that have no source to be compared, typed in a session

    def __post_init__(self) -> None:
        object.__setattr__(self, "record", {**DEFAULT_RECORD, **check_record(self.record or {})})
        object.__setattr__(self, "sizes", plain(self.sizes))

    # --- the protocol of a specification ----------------------------------------------------------------------

    @property
    def axes(self) -> Mapping[str, tuple[float | int, ...]]:
        """phi, kick and batch fraction; before them what there is of several numbers of particles and temperatures."""
        axes = {"phi": self.phi, "kick": self.kick, "batch_fraction": self.batch_fraction or ()}
        axes = axes if self.temperature is None else {"temperature": self.temperature, **axes}
        return {"particles": self.particles, **axes} if isinstance(self.particles, tuple) else axes

    @property
    def fixed(self) -> Mapping[str, Any]:
        """All but the axes, steps, replicas and trajectories."""
        known = {name: getattr(self, name) for name in _FIXED if name not in self.axes}
        known |= {} if self.sizes is None else {"sizes": self.sizes}
        if not self.own:
            return known
        found = {what: described(one) for what, one in self.own.items()}
        return {**known, "rule": rule_name(self.rule), "own": {what: [*one[1:]] for what, one in found.items()}}

    @property
    def own(self) -> Mapping[str, Any]:
        """The user's objects, by what they are of the sweep."""
        return {
            **({} if isinstance(self.rule, str) else {"rule": self.rule}),
            **({} if self.energy is None else {"energy": self.energy}),
            **{f"record {name}": one for name, one in (self.record or {}).items() if name not in DEFAULT_RECORD},
        }

    @property
    def finals(self) -> Mapping[str, Variable]:
        """The positions; of fewer particles than the largest system has, NaN at their end."""
        return {"positions": Variable(("particle", "axis"), (max(_numbers(self)), self.dim))}

    @property
    def tables(self) -> Mapping[str, Table]:
        """At each phi the diameters, in box sides, NaN as in the positions, and the box, in mean diameters."""
        numbers = _numbers(self)
        diameters = np.full((len(numbers), len(self.phi), max(numbers)), np.nan, np.float32)
        for i, n in enumerate(numbers):
            for j, phi in enumerate(self.phi):
                diameters[i, j, :n] = make_system(self, n, phi).diameters
        box = 1.0 / np.nanmean(diameters, axis=-1, dtype=np.float64)
        if "particles" in self.axes:
            along = ("particles", "phi")
            return {"diameters": Table((*along, "particle"), diameters), "box": Table(along, box)}
        return {"diameters": Table(("phi", "particle"), diameters[0]), "box": Table(("phi",), box[0])}

    def times(self) -> np.ndarray:
        """When a sweep records: every so many steps, or logarithmic early and linear late."""
        return extended_times(self.steps, self.extended_from, self.record_every)

    def group(self, name: Name) -> Hashable:
        """The number of particles."""
        return _numbers_of(self, [name])[0]

    def build(self, names: Sequence[Name]) -> tuple[Kind, Replicas]:
        """The replicas of some cells of the same number of particles, in this order."""
        (n,) = set(_numbers_of(self, names))
        phis, kicks, fractions, numbers = zip(*(name[-4:] for name in names), strict=True)
        systems = {phi: make_system(self, n, phi) for phi in set(phis)}
        heats = [() if self.temperature is None else (name[-5],) for name in names]
        named = zip(phis, kicks, fractions, map(int, numbers), heats, strict=True)
        keys = jnp.stack([replica_key(self.seed, phi, kick, b, r, heat) for phi, kick, b, r, heat in named])
        rule = make_rule(self, jnp.array(kicks), jnp.array(fractions), None if not heats[0] else jnp.array(heats)[:, 0])
        replicas, _ = gather_replicas(stack([systems[phi] for phi in phis]), rule, keys, None)
        return particles_of(replicas), replicas

    def trajectories(self, directory: Path) -> Trajectories | None:
        """GSD files, where they were asked for."""
        if self.trajectory is None:
            return None
        return Trajectories(directory, self.trajectory, self.steps or 0, self.cells.dims, self.particles)

    def described(self) -> Mapping[str, Any]:
        """Every field, and what the model is beyond them."""
        return {
            **self.settings(),
            "energy": f"(a0/a) (1 - r/sigma)^a, a = {self.exponent:g}, a0 = 1/2 mean diameter"
            if self.energy is None
            else name_of(self.energy),
            **({"own": {what: described(one).stored() for what, one in self.own.items()}} if self.own else {}),
            "activity_cut": make_system(self, _numbers(self)[0], self.phi[0]).cut,
            "precision": "float32 forces on int32 fixed-point coordinates",
            "start": "independent uniform positions",
        }

    def settings(self) -> dict[str, Any]:
        """Every field as JSON keeps it; of a rule the name."""
        left_out = (*_OWN, *(name for name in ("sizes", "temperature") if getattr(self, name) is None))
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out}
        return {**values, "rule": rule_name(self.rule)}

    def checked(self) -> "Sweep":
        """The specification with its defaults filled in.

        Raises:
            PackingError: a field out of range, in one sentence.
        """
        for name in _AXES:
            if not isinstance(values := getattr(self, name), (tuple, list, np.ndarray, type(None))):
                raise PackingError(f"{name} is {values!r}; it must be a tuple of numbers, such as (0.6,) for one")
        spec = super().checked()
        elsewhere = ("rule", "sizes", *_OWN)  # are checked
        check_types({one.name: getattr(spec, one.name) for one in fields(spec) if one.name not in elsewhere})
        spec = replace(spec, kick=check_model(spec), replicas=3 if spec.replicas is None else spec.replicas)
        _check_numbers(spec)
        _check_temperature(spec)
        batches = takes_batches(spec)
        if spec.batch_fraction not in (None, (1.0,)) and not batches:
            raise PackingError(f"a batch fraction belongs to the rule sgd; {rule_name(spec.rule)} has none")
        coupling = spec.coupling or ("particle" if spec.rule in ("ro", "thermal") else "pair")
        fractions = spec.batch_fraction or ((0.75,) if batches else (1.0,))
        numbers = tuple(sorted(_numbers(spec)))
        filled = replace(
            spec,
            coupling=coupling,
            correlation=0.0 if coupling == "pair-independent" and spec.correlation == 1.0 else spec.correlation,
            particles=numbers if len(numbers) > 1 else numbers[0],
            phi=_sorted(spec.phi),
            kick=_sorted(spec.kick),
            batch_fraction=_sorted(fractions),
            temperature=None if spec.temperature is None else _sorted(spec.temperature),
            steps=_default_steps(spec) if spec.steps is None else spec.steps,
        )
        filled.times()
        overlap(filled.exponent)
        _check_size(filled)
        check_kicks(filled, _numbers(filled))
        heats = None if filled.temperature is None else jnp.asarray(filled.temperature)
        make_rule(filled, jnp.asarray(filled.kick), jnp.asarray(fractions), heats)
        return filled

    def recorded(self, attributes: Mapping[str, Any]) -> "Sweep":
        """The specification in the attributes of a store, which may come from elsewhere.

        Raises:
            PackingError: a field is missing, of another type or out of range; or a user's object is not given again, or
                is another version.
        """
        given_again(attributes.get("own", {}), self.own, self.trust_rule)
        known = [one for one in fields(self) if one.name not in _OWN and (one.name != "rule" or "rule" not in self.own)]
        return replace(self, **{one.name: stored_field(one, attributes) for one in known}).checked()

    def trusted(self, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """A sentence for each object that has no source and was taken for the one in the store."""
        return given_again(attributes.get("own", {}), self.own, self.trust_rule)

    def differences(self, asked: "Sweep") -> list[str]:
        """Why another specification is not this one with more of it; what is None there is as it was."""
        same = {
            name: getattr(self, name) for name in ("coupling", "sizes", "trajectory") if getattr(asked, name) is None
        }
        asked = replace(asked, **same)
        found = super().differences(asked)
        if isinstance(asked.particles, int) and "particles" in self.axes and asked.particles not in _numbers(self):
            found.append(f"particles are {self.particles} there and {asked.particles} here")
        if asked.trajectory != self.trajectory:
            found.append(f"trajectory is {self.trajectory} there and {asked.trajectory} here")
        return found

    def extended(self, asked: "Sweep") -> "Sweep":
        """This sweep with more steps, replicas or values of its axes; the times of its records are kept."""
        grown = super().extended(asked)
        if grown.steps == self.steps:
            return grown
        return replace(grown, extended_from=(*self.extended_from, self.steps or 0)).checked()


# --- checks ---------------------------------------------------------------------------------------------------


def _numbers(spec: Sweep) -> tuple[int, ...]:
    """The numbers of particles of a sweep."""
    return spec.particles if isinstance(spec.particles, tuple) else (spec.particles,)


def _numbers_of(spec: Sweep, names: Sequence[Name]) -> list[int]:
    """The number of particles of each of some cells."""
    return [int(name[0]) if "particles" in spec.axes else _numbers(spec)[0] for name in names]


def _sorted(values: tuple[float | int, ...]) -> tuple[float, ...]:
    return tuple(sorted(map(float, values)))


def _default_steps(spec: Sweep) -> int:
    wanted = 3000 / min(spec.kick)
    if not wanted <= STEP_LIMIT:
        raise PackingError(f"a kick of {min(spec.kick):g} takes {wanted:g} steps; give --steps, at most {STEP_LIMIT}")
    return int(np.ceil(wanted))


def _check_numbers(spec: Sweep) -> None:
    check_dim(spec.dim)
    numbers = _numbers(spec)
    if not numbers or len(set(numbers)) < len(numbers):
        raise PackingError(f"the numbers of particles are {numbers}; they must be different whole numbers")
    for one in numbers:
        check_particles(one)
    if not 1 <= (spec.replicas or 0) <= MOST_CELLS:
        raise PackingError(
            f"{shown(spec.replicas)} replicas; at least 1 is needed, and at most {MOST_CELLS} of all packing fractions "
            "and numbers of particles together are possible: ask for fewer"
        )
    if not 0 <= spec.seed < 2**32:
        raise PackingError(f"the seed is {shown(spec.seed)}; it must be from 0 to {2**32 - 1}")
    for name, values in (("phi", spec.phi), ("kick", spec.kick), ("batch fraction", spec.batch_fraction)):
        if values is None:
            continue
        if not values:
            raise PackingError(f"there is no {name}; give at least one value")
        if not all(np.isfinite(values)) or min(values) <= 0:
            raise PackingError(f"the {name} is {_shown(values)}; every value must be a positive number")
        if len(set(values)) < len(values):
            raise PackingError(f"the {name} is {_shown(values)}; no value may be listed twice")


def _check_temperature(spec: Sweep) -> None:
    heats = spec.temperature
    if spec.rule != "thermal":
        if heats is not None:
            raise PackingError(f"a temperature belongs to the rule thermal; {rule_name(spec.rule)} has none")
        return
    if not heats:
        raise PackingError("the rule thermal needs a temperature kT, in the units of the energy, such as 1e-4")
    if not all(np.isfinite(heats)) or min(heats) < 0:
        raise PackingError(f"the temperature is {_shown(heats)}; every value must be a finite number, at least 0")
    if len(set(heats)) < len(heats):
        raise PackingError(f"the temperature is {_shown(heats)}; no value may be listed twice")


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values[:6]) + (",..." if len(values) > 6 else "")


def _check_size(spec: Sweep) -> None:
    particles = max(_numbers(spec))
    replicas = math.prod(map(len, spec.axes.values())) * (spec.replicas or 0)
    size = replicas * 4 * (particles * spec.dim + len(spec.record or {}) * len(spec.times()))
    if spec.trajectory is not None:
        check_trajectory(spec.trajectory, spec.steps or 0, spec.dim, particles, replicas)
    if size > LARGEST_STORE or replicas > MOST_CELLS:
        raise PackingError(
            f"the sweep has {replicas} replicas of {particles} particles and would store {size / 2**30:.0f} GiB; "
            f"the limits are {MOST_CELLS} replicas and {LARGEST_STORE // 2**30} GiB, ask for fewer replicas, "
            "particles or records"
        )


# --- what is built --------------------------------------------------------------------------------------------


def replica_key(
    seed: int, phi: float, kick: float, batch_fraction: float, replica: int, temperature: tuple[float, ...] = ()
) -> Array:
    """The key of one replica: the seed folded with what the replica is; its temperature is there if it has one."""
    # the key of the seed, whatever kind of keys jax makes by default
    key = jax.random.wrap_key_data(jnp.asarray([0, seed], jnp.uint32), impl="threefry2x32")
    for value in (phi, kick, batch_fraction, *temperature):
        bits = int(np.float64(value).view(np.uint64))
        key = jax.random.fold_in(jax.random.fold_in(key, bits & 0xFFFFFFFF), bits >> 32)
    return jax.random.fold_in(key, replica)
