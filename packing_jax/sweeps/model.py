"""The model of a sweep of spheres: rule, system and observables, of the package by their names, or a user's own."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial

from packing_jax.errors import PackingError
from packing_jax.simulation import DEFAULT_RECORD
from packing_jax.spheres.geometry import mixture_1_to_1_4
from packing_jax.spheres.potential import Overlap, PairEnergy, overlap
from packing_jax.spheres.rules import Rule, bro, langevin, random_organization, sgd, thermal
from packing_jax.spheres.rules.base import check_kick
from packing_jax.spheres.system import System
from packing_jax.sweeps.fingerprint import name_of
from packing_jax.trees import named_leaves

#: The rules with an absorbing state, of which there is a phi_c.
RuleName = Literal["bro", "sgd", "ro", "langevin"]
#: The rules that a sweep knows by name.
SweepRuleName = Literal["bro", "sgd", "ro", "langevin", "thermal"]
CouplingName = Literal["pair", "pair-independent", "particle", "particle-normalised"]

# names that a store has for other things
_TAKEN = {"positions", "diameters", "absorbed_at", "steps_done", "failed", "particles", "phi", "kick", "batch_fraction"}
_TAKEN |= {"replica", "time", "particle", "axis"}


@runtime_checkable
class Model(Protocol):
    """What of a sweep says what is moved, by what, and what is recorded; see the fields of its name."""

    @property
    def rule(self) -> Any: ...  # noqa: D102
    @property
    def coupling(self) -> CouplingName | None: ...  # noqa: D102
    @property
    def correlation(self) -> float: ...  # noqa: D102
    @property
    def phi(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def kick(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def mixture(self) -> str: ...  # noqa: D102
    @property
    def particles(self) -> int | tuple[int, ...]: ...  # noqa: D102
    @property
    def sizes(self) -> Any: ...  # noqa: D102
    @property
    def exponent(self) -> float: ...  # noqa: D102
    @property
    def energy(self) -> Any: ...  # noqa: D102
    @property
    def record(self) -> Mapping[str, Any] | None: ...  # noqa: D102


def make_rule(spec: Model, kick: Array, batch_fraction: Array, temperature: Array | None = None) -> Rule:
    """The rule of a specification, with one kick, batch fraction and temperature per replica."""
    correlation = spec.correlation
    if spec.rule == "thermal":
        return thermal(kick, 0.0 if temperature is None else temperature)
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
    made = _made(spec.rule, kick)
    if isinstance(made, Rule):
        return made
    return sgd(made if made is spec.rule else Partial(spec.rule, kick), batch_fraction, coupling, correlation)


def make_system(spec: Model, particles: int, phi: float) -> System:
    """The system of a specification at one packing fraction."""
    sizes = None if spec.sizes is None else np.asarray(spec.sizes)
    if spec.mixture == "1:1.4":
        sizes = mixture_1_to_1_4(particles)
    return System.create(phi, particles, spec.dim, sizes=sizes, energy=spec.energy or overlap(spec.exponent))


def check_model(spec: Model) -> tuple[float, ...]:
    """The kicks of a sweep, whose rule, energy and observables go together.

    Raises:
        PackingError: what does not, in a sentence.
    """
    if spec.energy is not None and not isinstance(spec.energy, (Overlap, PairEnergy)):
        raise PackingError(
            f"the energy is of type {type(spec.energy).__name__}; it must be a packing_jax.PairEnergy, or one of "
            "packing_jax.overlap"
        )
    if spec.energy is not None and spec.exponent != 1.0:
        raise PackingError("give either an energy or an exponent: the exponent is of the energy that there is without")
    if spec.sizes is not None and (spec.mixture != "mono" or np.shape(spec.sizes) != (spec.particles,)):
        raise PackingError(
            f"the sizes have shape {np.shape(spec.sizes)} for {spec.particles} particles, mixture {spec.mixture}; give "
            "one relative diameter for each particle, one number of particles, and omit the mixture"
        )
    for name, one in (spec.record or {}).items():
        if not (isinstance(name, str) and name.isidentifier()) or name in _TAKEN:
            raise PackingError(f"an observable cannot be called {name!r}; choose a plain word that the store lacks")
        if name in DEFAULT_RECORD and DEFAULT_RECORD[name] is not one:
            raise PackingError(f"{name} is recorded anyway; give your observable another name")
    return _check_rule(spec)


def _check_rule(spec: Model) -> tuple[float, ...]:
    if isinstance(spec.rule, str):
        if spec.rule not in get_args(SweepRuleName):
            raise PackingError(
                f"the rule is {spec.rule!r}; it must be bro, sgd, ro, langevin or thermal, or an object of your "
                "own, which the command line takes as module:object"
            )
        if spec.rule == "thermal" and (spec.coupling not in (None, "particle") or spec.correlation != 1.0):
            raise PackingError(
                "the rule thermal draws for each particle on its own: omit the coupling and the correlation"
            )
        return spec.kick or (0.05,)
    kicks = _kicks_of(spec) if isinstance(spec.rule, (Rule, optax.GradientTransformation)) else spec.kick or (0.05,)
    given = spec.coupling not in (None, "pair") or spec.correlation != 1.0
    if given and isinstance(_made(spec.rule, np.float32(kicks[0])), Rule):
        raise PackingError("coupling and correlation are of the package's rules; omit them with one of your own")
    return kicks


def check_kicks(spec: Model, numbers: tuple[int, ...]) -> None:
    """Refuse kicks that are too long for the box, or too short for the coordinates, of these numbers of particles.

    Raises:
        PackingError: which it is.
    """
    check_kick(spec.kick[-1], make_system(spec, numbers[0], spec.phi[-1]))
    check_kick(spec.kick[0], make_system(spec, numbers[-1], spec.phi[0]))


def takes_batches(spec: Model) -> bool:
    """Whether the rule has a batch fraction: sgd, and what an optimizer makes of it."""
    if isinstance(spec.rule, str):
        return spec.rule == "sgd"
    return not isinstance(_made(spec.rule, np.float32((spec.kick or (0.05,))[0])), Rule)


def rule_name(rule: Any) -> str:
    """What a store calls a rule."""
    return rule if isinstance(rule, str) else name_of(rule)


def _kicks_of(spec: Model) -> tuple[float, ...]:
    """The kick of a rule that is made already: one number, its own where it has one."""
    own = named_leaves(spec.rule).get("kick")
    if own is not None and np.ndim(own):
        raise PackingError("the rule has kicks of its own for several replicas; give a function of the kick instead")
    kicks = spec.kick or (() if own is None else (float(f"{float(own):.7g}"),))  # a float32 as one would type it
    if own is None and len(kicks) != 1:
        raise PackingError(
            f"the rule {name_of(spec.rule)} is made already and has no kick: give the sweep one kick, the size of its "
            "moves in mean diameters, or give as the rule a function that makes one from a kick"
        )
    if own is not None and not (len(kicks) == 1 and np.float32(kicks[0]) == np.float32(own)):
        raise PackingError(
            f"the rule {name_of(spec.rule)} has the kick {float(own):g} and the sweep {kicks}: omit the sweep's, "
            "or give as the rule a function that makes one from a kick"
        )
    return kicks


def _made(rule: Any, kick: Any) -> Rule | optax.GradientTransformation:
    if isinstance(rule, (Rule, optax.GradientTransformation)):
        return rule
    if not callable(rule):
        raise PackingError(
            f"the rule is of type {type(rule).__name__}; it must be a packing_jax rule, an optax optimizer, or a "
            "function that makes one from a kick"
        )
    try:
        made = rule(kick)
    except Exception as error:
        raise PackingError(
            f"the rule {name_of(rule)} cannot be made from a kick, or from an array with one for each replica: "
            f"{'' if isinstance(error, PackingError) else type(error).__name__ + ': '}{' '.join(str(error).split())}"
        ) from error
    if not isinstance(made, (Rule, optax.GradientTransformation)):
        raise PackingError(
            f"the rule {name_of(rule)} makes an object of type {type(made).__name__}; it must make a packing_jax "
            "rule, derived from packing_jax.spheres.rules.Rule, or an optax optimizer"
        )
    return made
