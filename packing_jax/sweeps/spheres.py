"""Grids of (phi, kick, batch fraction, replica): what to sweep, checked, and what may be added to it later.

A replica's random key is a function of the seed, its own phi, kick, batch fraction and replica number, and not of its
place in the grid: the same replica is the same trajectory in any sweep that contains it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial

from packing_jax.drive.kind import Replicas
from packing_jax.drive.schedule import STEP_LIMIT, linear_times, log_times
from packing_jax.errors import PackingError
from packing_jax.simulate import DEFAULT_RECORD
from packing_jax.spheres.energy import overlap
from packing_jax.spheres.geometry import MAX_DIM, mixture_1_to_1_4
from packing_jax.spheres.rules import Rule, bro, langevin, random_organization, sgd
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System, stack
from packing_jax.sweeps.cells import Layout, provenance
from packing_jax.sweeps.manifest import Name, digest_of
from packing_jax.sweeps.trajectory import check_trajectory

RuleName = Literal["bro", "sgd", "ro", "langevin"]
CouplingName = Literal["pair", "pair-independent", "particle", "particle-normalised"]
Mixture = Literal["mono", "1:1.4"]

_LARGEST_STORE = 2**40  # bytes; a slip in a range should not fill a disk
_MOST_RECORDS = 10**6
_MOST_REPLICAS = 10**6  # each is a file for every variable
_MOST_PARTICLES = 10**8  # 32-bit indices
_SHORTEST_KICK = 2.0**-24  # box sides, 256 quanta of the coordinates


@dataclass(frozen=True)
class Sweep:
    """What to sweep; every field is recorded in the store."""

    rule: RuleName = "bro"
    coupling: CouplingName | None = None  #: None: particle for ro, else pair
    correlation: float = 1.0
    dim: int = 3
    particles: int = 1000
    phi: tuple[float, ...] = ()
    kick: tuple[float, ...] = ()  #: empty: 0.05
    batch_fraction: tuple[float, ...] | None = None  #: None: 3/4 for sgd, where alpha = 4 eps/3 matches BRO
    exponent: float = 1.0
    mixture: Mixture = "mono"
    steps: int | None = None  #: None: 500 over the smallest kick
    record_every: int | None = None  #: None: 40 logarithmic and 100 linear times
    replicas: int | None = None  #: None: 3
    seed: int = 0
    trajectory: str | None = None  #: every:K or log, see packing_jax.sweeps.trajectory; None: none
    extended_from: tuple[int, ...] = ()  #: steps before each extension; what was recorded then is kept


def checked(spec: Sweep) -> Sweep:
    """The specification with its defaults filled in.

    Raises:
        PackingError: a field out of range, in one sentence.
    """
    spec = _in_plain_numbers(spec)
    spec = replace(spec, kick=spec.kick or (0.05,), replicas=3 if spec.replicas is None else spec.replicas)
    _check_numbers(spec)
    if spec.batch_fraction not in (None, (1.0,)) and spec.rule != "sgd":
        raise PackingError(f"a batch fraction belongs to the rule sgd; {spec.rule} has none")
    coupling = spec.coupling or ("particle" if spec.rule == "ro" else "pair")
    fractions = spec.batch_fraction or ((0.75,) if spec.rule == "sgd" else (1.0,))
    steps = spec.steps
    if steps is None:
        wanted = 500 / min(spec.kick)
        if not wanted <= STEP_LIMIT:
            raise PackingError(
                f"a kick of {min(spec.kick):g} takes {wanted:g} steps; give --steps, at most {STEP_LIMIT}"
            )
        steps = int(np.ceil(wanted))
    filled = Sweep(
        **{
            **asdict(spec),
            "coupling": coupling,
            "correlation": 0.0 if coupling == "pair-independent" and spec.correlation == 1.0 else spec.correlation,
            "phi": tuple(sorted(spec.phi)),
            "kick": tuple(sorted(spec.kick)),
            "batch_fraction": tuple(sorted(fractions)),
            "steps": steps,
        }
    )
    record_times(filled)
    overlap(filled.exponent)
    _check_size(filled)
    _check_reach(filled)
    make_rule(filled, jnp.asarray(filled.kick), jnp.asarray(fractions))
    return filled


def _in_plain_numbers(spec: Sweep) -> Sweep:
    """With Python's own numbers: a store is described in JSON, and numpy's print and compare differently."""
    return Sweep(**{name: _plain(value) for name, value in asdict(spec).items()})


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list, np.ndarray)):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _check_reach(spec: Sweep) -> None:
    widest, narrowest = (float(_system(spec, phi).unit) for phi in (spec.phi[-1], spec.phi[0]))
    if spec.kick[-1] * widest > 0.25:
        raise PackingError(
            f"a kick of {spec.kick[-1]:g} diameters is {spec.kick[-1] * widest:.3g} box sides for {spec.particles} "
            "particles; it must be below a quarter of a side: use more particles or a smaller kick"
        )
    if spec.kick[0] * narrowest < _SHORTEST_KICK:
        raise PackingError(
            f"at phi = {spec.phi[0]:g} a kick of {spec.kick[0]:g} diameters is {spec.kick[0] * narrowest:.2g} box "
            f"sides; it must be at least {_SHORTEST_KICK:.2g}, well above the resolution of the coordinates"
        )


def _check_numbers(spec: Sweep) -> None:
    if spec.rule not in ("bro", "sgd", "ro", "langevin"):
        raise PackingError(f"the rule is {spec.rule!r}; it must be bro, sgd, ro or langevin")
    if not 1 <= spec.dim <= MAX_DIM:
        raise PackingError(f"the dimension is {spec.dim}; it must be from 1 to {MAX_DIM}")
    if spec.particles < 2:
        raise PackingError(f"{spec.particles} particles; at least 2 are needed for a pair")
    if (spec.replicas or 0) < 1:
        raise PackingError(f"{spec.replicas} replicas; at least 1 is needed")
    if not 0 <= spec.seed < 2**32:
        raise PackingError(f"the seed is {spec.seed}; it must be from 0 to {2**32 - 1}")
    for name, values in (("phi", spec.phi), ("kick", spec.kick), ("batch fraction", spec.batch_fraction)):
        if values is None:
            continue
        if not values:
            raise PackingError(f"there is no {name}; give at least one value")
        if not all(np.isfinite(values)) or min(values) <= 0:
            raise PackingError(f"the {name} is {_shown(values)}; every value must be a positive number")
        if len(set(values)) < len(values):
            raise PackingError(f"the {name} is {_shown(values)}; no value may be listed twice")


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values[:6]) + (",..." if len(values) > 6 else "")


def _check_size(spec: Sweep) -> None:
    replicas = len(spec.phi) * len(spec.kick) * len(spec.batch_fraction or (1.0,)) * (spec.replicas or 0)
    size = replicas * 4 * (spec.particles * spec.dim + 3 * len(record_times(spec)))
    if spec.trajectory is not None:
        check_trajectory(spec.trajectory, spec.steps or 0, spec.dim, spec.particles, replicas)
    if spec.particles > _MOST_PARTICLES:
        raise PackingError(f"{spec.particles} particles; at most {_MOST_PARTICLES} can be indexed")
    if size > _LARGEST_STORE or replicas > _MOST_REPLICAS:
        raise PackingError(
            f"the sweep has {replicas} replicas of {spec.particles} particles and would store {size / 2**30:.0f} GiB; "
            f"the limits are {_MOST_REPLICAS} replicas and {_LARGEST_STORE // 2**30} GiB, ask for fewer replicas, "
            "particles or records"
        )


def record_times(spec: Sweep) -> np.ndarray:
    """When a sweep records: every so many steps, or logarithmic early and linear late."""
    steps = spec.steps or 0
    if steps < 1:
        raise PackingError(f"{spec.steps} steps; at least 1 is needed")
    if list(spec.extended_from) != sorted(set(spec.extended_from)) or any(
        not 1 <= before < steps for before in spec.extended_from
    ):
        raise PackingError(f"a sweep of {steps} steps cannot have been extended from {spec.extended_from}")
    times = _schedule(spec, spec.extended_from[0] if spec.extended_from else steps)
    for longer in (*spec.extended_from[1:], steps):
        later = _schedule(spec, longer)
        times = np.concatenate([times, later[later > times[-1]]])
    return times


def _schedule(spec: Sweep, steps: int) -> np.ndarray:
    if spec.record_every is not None:
        if steps > _MOST_RECORDS * max(spec.record_every, 1):
            raise PackingError(
                f"recording every {spec.record_every} of {steps} steps makes more than {_MOST_RECORDS} records; "
                "record less often"
            )
        return linear_times(steps, spec.record_every)
    return np.union1d(log_times(steps, 40), linear_times(steps, max(1, steps // 100)))


def make_rule(spec: Sweep, kick: Array, batch_fraction: Array) -> Rule:
    """The rule of a specification, with one kick and batch fraction per replica."""
    correlation = spec.correlation
    if spec.coupling == "pair-independent":
        if correlation not in (0.0, 1.0):
            raise PackingError(f"pair-independent means correlation 0; for {correlation} use the coupling pair")
        correlation = 0.0
    coupling: Any = "pair" if spec.coupling == "pair-independent" else spec.coupling
    match spec.rule:
        case "sgd":
            return sgd(Partial(optax.sgd, learning_rate=kick), batch_fraction, coupling, correlation)
        case "bro":
            return bro(kick, coupling, correlation)
        case "ro":
            return random_organization(kick, coupling, correlation)
        case "langevin":
            return langevin(kick, coupling, correlation)


def _system(spec: Sweep, phi: float) -> System:
    sizes = mixture_1_to_1_4(spec.particles) if spec.mixture == "1:1.4" else None
    return System.create(phi, spec.particles, spec.dim, sizes=sizes, energy=overlap(spec.exponent))


def replica_key(seed: int, phi: float, kick: float, batch_fraction: float, replica: int) -> Array:
    """The key of one replica: the seed folded with what the replica is."""
    key = jax.random.key(seed)
    for value in (phi, kick, batch_fraction):
        bits = int(np.float64(value).view(np.uint64))
        key = jax.random.fold_in(jax.random.fold_in(key, bits & 0xFFFFFFFF), bits >> 32)
    return jax.random.fold_in(key, replica)


def replicas_of(spec: Sweep, names: Sequence[Name]) -> Replicas:
    """The replicas of some cells (phi, kick, batch fraction, replica), in this order."""
    systems = {phi: _system(spec, phi) for phi in {name[0] for name in names}}
    keys = jnp.stack([replica_key(spec.seed, *name) for name in names])
    rule = make_rule(spec, jnp.array([name[1] for name in names]), jnp.array([name[2] for name in names]))
    replicas, _ = gather_replicas(stack([systems[name[0]] for name in names]), rule, keys, None)
    return replicas


def layout_of(spec: Sweep, command: str) -> Layout:
    """What is known of a store before the first step."""
    systems = [_system(spec, phi) for phi in spec.phi]
    return Layout(
        coordinates={
            "phi": np.array(spec.phi),
            "kick": np.array(spec.kick),
            "batch_fraction": np.array(spec.batch_fraction),
            "replica": np.arange(spec.replicas or 0),
            "time": record_times(spec),
        },
        diameters=np.stack([np.broadcast_to(np.asarray(system.diameters), (spec.particles,)) for system in systems]),
        record=tuple(DEFAULT_RECORD),
        attributes={
            **asdict(spec),
            "energy": f"(a0/a) (1 - r/sigma)^a, a = {spec.exponent:g}, a0 = 1/2 mean diameter",
            "activity_cut": systems[0].cut,
            "precision": "float32 forces on int32 fixed-point coordinates",
            "start": "independent uniform positions",
            "command": command,
            "configuration": digest_of({name: getattr(spec, name) for name in _FIXED}),
            "versions": provenance(),
        },
    )


# --- going on with a sweep ------------------------------------------------------------------------------------

_AXES = ("phi", "kick", "batch_fraction")  # more values may be added to these
_FIXED = ("rule", "coupling", "correlation", "dim", "particles", "exponent", "mixture", "record_every", "seed")


def recorded(attributes: Mapping[str, Any]) -> Sweep:
    """The specification in the attributes of a store, which may come from elsewhere.

    Raises:
        PackingError: a field is missing, of another type or out of range.
    """
    values: dict[str, Any] = {}
    for field in fields(Sweep):
        value = attributes.get(field.name, field.default)
        kinds: tuple[type, ...] = (int,)
        if field.name in (*_AXES, "extended_from"):
            value = tuple(value) if isinstance(value, list | tuple) else (None,)
            kinds = (int,) if field.name == "extended_from" else (int, float)
        elif field.name in ("rule", "coupling", "mixture"):
            kinds = (str,)
        elif field.name in ("correlation", "exponent"):
            kinds = (int, float)
        elif field.name == "record_every":
            kinds = (int, type(None))
        elif field.name == "trajectory":
            kinds = (str, type(None))
        if not all(type(one) in kinds for one in (value if isinstance(value, tuple) else (value,))):
            raise PackingError(
                f"the store says {field.name} = {str(attributes.get(field.name))[:80]}; that is no sweep"
            )
        values[field.name] = value
    if values["mixture"] not in get_args(Mixture):
        raise PackingError(f"the store says mixture = {values['mixture'][:80]}; that is no sweep")
    return checked(Sweep(**values))


def extended(stored: Sweep, asked: Sweep) -> Sweep:
    """A sweep with more steps, more replicas or more values of phi, kick and batch fraction than it had.

    What is None or empty in ``asked`` is as it was.

    Raises:
        PackingError: anything else differs, or there would be less; each difference is named.
    """
    asked, differences = _in_plain_numbers(asked), []
    for name in (*_FIXED, "trajectory"):
        was, wanted = getattr(stored, name), getattr(asked, name)
        if wanted != was and not (wanted is None and name in ("coupling", "trajectory")):
            differences.append(f"{name.replace('_', ' ')} is {was} there and {wanted} here")
    steps = stored.steps if asked.steps is None else asked.steps
    replicas = stored.replicas if asked.replicas is None else asked.replicas
    for name, was, wanted in (("steps", stored.steps, steps), ("replicas", stored.replicas, replicas)):
        if was is not None and wanted is not None and wanted < was:
            differences.append(f"there are {was} {name} there and {wanted} here, fewer")
    if differences:
        raise PackingError(
            f"this is another sweep than the one in the store: {'; '.join(differences)}. A sweep that goes on may have "
            "more steps, replicas and values of phi, kick and batch fraction, and nothing else may differ"
        )
    grown: dict[str, Any] = {name: tuple({*getattr(stored, name), *(getattr(asked, name) or ())}) for name in _AXES}
    before = stored.extended_from + ((stored.steps,) if stored.steps is not None and steps != stored.steps else ())
    return checked(replace(stored, **grown, steps=steps, replicas=replicas, extended_from=before))
