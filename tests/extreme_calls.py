"""Extreme calls of the public names: name -> the call, and words of the sentence that refuses it or the right result.

Run as a program, it makes all of them as a user would, without the checks of types that the tests switch on, and prints
what came of each as JSON.
"""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import packing_jax as pj
from packing_jax import System
from packing_jax.derivatives.averages import common_random_numbers
from packing_jax.derivatives.rollout import rollout
from packing_jax.drive.schedule import check_times
from packing_jax.observables import structure_factor
from packing_jax.spheres.rules import Info, Rule
from packing_jax.sweeps.spheres import Sweep
from packing_jax.trees import pytree

KEY, S = jax.random.key(5), System.create(0.3, 16, 2)
START = np.random.default_rng(0).random((16, 2))
HUGE, NAN, INF = 10**400, float("nan"), float("inf")
SGD = optax.sgd(0.1)
NUMBER = "must be a positive number"


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    inner: Any = 0.1
    for _ in range(levels):
        inner = [inner]
    return inner


def updates(change: Callable[[Any], Any]) -> optax.GradientTransformation:
    """An optimizer whose updates are no gradients."""
    return optax.GradientTransformation(lambda _: (), lambda g, state, params=None: (change(g), state))  # noqa: ARG005


@pytree()
@dataclass(frozen=True)
class Own(Rule):
    """A rule of a user's whose step is wrong: it raises, or returns another shape or type."""

    kick: Any
    wrong: Any = "raises"

    def step(self, words: Any, system: Any, coordinates: Any, neighbors: Any, state: Any) -> Any:
        number = coordinates.shape[1]
        active, failed = jnp.ones(number, bool), jnp.zeros((), bool)
        if self.wrong is None:
            raise KeyError("my own mistake")
        return self.wrong * coordinates[:1], state, Info(active, failed)


@dataclass(frozen=True)
class Held(Rule):
    """A rule that is no pytree."""

    kick: float = 0.1


class Broken:
    """A problem whose prepare raises."""

    def prepare(self, rule: Any, key: Any, start: Any) -> Any:
        raise ZeroDivisionError("in prepare")


def simulated(rule: Any = None, system: Any = S, steps: Any = 2, key: Any = KEY, **options: Any) -> Any:
    return pj.simulate(system, pj.bro(0.1) if rule is None else rule, steps, key, **options)


def moved(start: Any) -> Any:
    return pj.simulate(S, pj.bro(0.1), 0, KEY, start=start).positions


#: name -> (call, words of its refusal, or what it returns).
CALLS: dict[str, tuple[Callable[[], Any], Any]] = {
    # numbers of particles, dimensions
    "particles 64.7": (lambda: System.create(0.3, 64.7, 2), "number of particles is 64.7; it must be a whole number"),
    "packing fraction of 64.7 particles": (lambda: pj.packing_fraction(0.1, 64.7, 2), "must be a whole number"),
    "packing fraction of -3 particles": (lambda: pj.packing_fraction(0.1, -3, 2), "at least 1"),
    "a system made by hand of 64.7": (lambda: replace(S, particles=64.7), "must be a whole number"),
    "mixture of 64.7": (lambda: pj.mixture_1_to_1_4(64.7), "must be a whole number"),
    "mixture of -3": (lambda: pj.mixture_1_to_1_4(-3), "at least 1"),
    "mixture of 10^400": (lambda: pj.mixture_1_to_1_4(HUGE), "can be indexed"),
    "particles 10^400": (lambda: System.create(0.3, HUGE, 2), "can be indexed"),
    "particles of 9999 digits": (lambda: System.create(0.3, 10**9998, 2), "can be indexed"),
    "particles 2^40": (lambda: System.create(0.3, 2**40, 2), "can be indexed"),
    "particles True": (lambda: System.create(0.3, True, 2), "must be a whole number"),
    "particles '64'": (lambda: System.create(0.3, "64", 2), "must be a whole number"),
    "sweep of 64.7": (lambda: Sweep(phi=(0.6,), particles=64.7).checked(), "whole number"),
    "sweep of 2^40": (lambda: Sweep(phi=(0.6,), particles=2**40).checked(), "can be indexed"),
    "dimension 2.0": (lambda: System.create(0.3, 64, 2.0), "the dimension is 2.0"),
    "dimension True": (lambda: pj.ball_volume(True), "the dimension is True"),
    "dimension 10^400": (lambda: pj.ball_volume(HUGE), "must be a whole number from 1 to 6"),
    # packing fractions, boxes, diameters
    "phi '0.3'": (lambda: S.at_phi("0.3"), NUMBER),
    "phi None": (lambda: S.at_phi(None), NUMBER),
    "phi True": (lambda: S.at_phi(True), NUMBER),
    "phi complex": (lambda: S.at_phi(0.3 + 0.1j), NUMBER),
    "phi 10^400": (lambda: S.at_phi(HUGE), NUMBER),
    "phi 1e-300": (lambda: System.create(1e-300, 16, 2), "beyond the range of float32"),
    "phi 1e-30": (lambda: System.create(1e-30, 16, 2), "below the resolution of coordinates"),
    "phi a list": (lambda: pj.stack([S, S]).at_phi([0.2, 0.3]).phi, [0.2, 0.3]),
    "phi nan": (lambda: System.create(NAN, 16, 2), NUMBER),
    "phi nested": (lambda: System.create(nested(5000), 16, 2), NUMBER),
    "box 1e-300": (lambda: System.create(0.3, 16, 2, box=1e-300), "beyond the range of float32"),
    "box 1e300": (lambda: System.create(0.3, 16, 2, box=1e300), "beyond the range of float32"),
    "box '1'": (lambda: System.create(0.3, 16, 2, box="1"), NUMBER),
    "box 0": (lambda: pj.packing_fraction(0.1, 16, 2, 0), "positive numbers"),
    "sizes that underflow": (
        lambda: System.create(0.3, 16, 2, sizes=np.full(16, 1e-200)),
        "beyond the range of float64",
    ),
    "one size that underflows": (
        lambda: System.create(0.3, 16, 2, sizes=[1.0] * 15 + [1e-60]),
        "beyond the range of float32",
    ),
    "sizes complex": (lambda: System.create(0.3, 16, 2, sizes=np.ones(16) + 1j), "no real numbers"),
    "sizes of text": (lambda: System.create(0.3, 2, 2, sizes=["a", "b"]), "no real numbers"),
    "sizes ragged": (lambda: System.create(0.3, 2, 2, sizes=[[1.0], [1.0, 2.0]]), "no real numbers"),
    "diameters complex": (lambda: S.with_diameters(0.1 + 0.1j), "positive numbers"),
    "diameters '0.1'": (lambda: S.with_diameters("0.1"), "positive numbers"),
    "diameters None": (lambda: S.with_diameters(None), "positive numbers"),
    "diameters 10^400": (lambda: System.from_diameters(HUGE, 16, 2), "positive number"),
    "diameters of text": (lambda: pj.packing_fraction("0.1", 16, 2), "positive numbers"),
    "diameter negative": (lambda: pj.packing_fraction(-0.1, 16, 2), "positive numbers"),
    "diameters a list": (lambda: pj.packing_fraction([0.1] * 16, 16, 2), 0.04 * np.pi),
    "precision banana": (lambda: System.create(0.3, 16, 2, dtype="banana"), "it must be float32 or float64"),
    "precision None": (lambda: System.create(0.3, 16, 2, dtype=None), "it must be float32 or float64"),
    "precision float16": (lambda: System.create(0.3, 16, 2, dtype=np.float16), "it must be float32 or float64"),
    # energies
    "energy None": (lambda: System.create(0.3, 16, 2, energy=None), "the energy is None"),
    "energy None, by hand": (lambda: replace(S, energy=None), "the energy is None"),
    "energy None of a system": (lambda: S.with_energy(None), "the energy is None"),
    "exponent '2'": (lambda: pj.overlap("2"), "the energy's exponent is '2'"),
    "exponent None": (lambda: pj.overlap(None), "the energy's exponent is None"),
    "exponent True": (lambda: pj.overlap(True), "the energy's exponent is True"),
    "amplitude 10^400": (lambda: pj.overlap(2.0, HUGE), "finite positive number"),
    "amplitude complex": (lambda: pj.overlap(2.0, 1j), "finite positive number"),
    "amplitude 1e-300": (lambda: System.create(0.3, 16, 2, energy=pj.overlap(2.0, 1e-300)), "beyond the range"),
    "an energy that raises": (lambda: pj.PairEnergy(lambda r, s: 1 / 0, 3.0), "pair energy fails: ZeroDivisionError"),  # noqa: ARG005
    "slope bound 10^400": (lambda: pj.PairEnergy(lambda r, s: (1 - r / s) ** 2, HUGE), "finite positive number"),
    "reach None": (lambda: pj.PairEnergy(lambda r, s: (1 - r / s) ** 2, 3.0, None), "from 1 (contact) to 10"),
    "energy of complex positions": (lambda: pj.total_energy(S, jnp.asarray(START + 1j)), "array of real numbers"),
    "energy of other positions": (lambda: pj.total_energy(S, START[:3]), "the positions have shape (3, 2)"),
    "energy of no system": (lambda: pj.total_energy(None, START), "must be a packing_jax.System"),
    "energy along rows that are none": (lambda: pj.total_energy(S, START, "all"), "the rows are 'all'"),
    # rules and their numbers
    "kick '0.1'": (lambda: pj.bro("0.1"), "the kick is '0.1'"),
    "kick below the quantum": (lambda: simulated(pj.bro(1e-9)), "well above the resolution of the coordinates"),
    "kick above a quarter": (lambda: simulated(pj.bro(2.0)), "below a quarter of a side"),
    "one kick of two above it": (lambda: simulated(pj.langevin([0.1, 2.0])), "a kick of 2 diameters"),
    "kick above a quarter, followed": (lambda: rollout(S, pj.bro(2.0), 2, KEY), "below a quarter of a side"),
    "kick 1e-300": (lambda: pj.random_organization(1e-300), "beyond the range of float32"),
    "kick 1e300": (lambda: pj.langevin(1e300), "beyond the range of float32"),
    "kick complex": (lambda: pj.bro(0.1 + 1j), "finite positive number"),
    "kick 10^400": (lambda: pj.bro(HUGE), "finite positive number"),
    "kick nested": (lambda: pj.bro(nested(5000)), "finite positive number"),
    "batch fraction 1e-300": (lambda: pj.sgd(SGD, 1e-300), "below the resolution of a random number"),
    "batch fraction None": (lambda: pj.sgd(SGD, None), "above 0 and at most 1"),
    "correlation '1'": (lambda: pj.bro(0.1, correlation="1"), "between 0 (independent) and 1"),
    "coupling None": (lambda: pj.bro(0.1, None), "the coupling is None"),
    "an optimizer as a rule": (lambda: simulated(SGD), "give packing_jax.sgd(optimizer)"),
    "a maker of rules as a rule": (lambda: simulated(pj.bro), "call it, as in"),
    "a name as a rule": (lambda: simulated("bro"), "it is the name 'bro'"),
    "a rule that is no tree": (lambda: simulated(Held()), "hyperparameter of the rule Held"),
    "a rule whose step raises": (lambda: simulated(Own(0.1, None)), "step of the rule Own fails: KeyError"),
    "a rule that moves along one axis": (
        lambda: simulated(Own(0.1, 1)),
        "of shapes [(1, 16), (16,), ()]; they must be",
    ),
    "a push with a hole": (lambda: pj.pair_rule(lambda pair, u: None), "vector for each pair"),  # noqa: ARG005
    "a push with a deep number": (lambda: pj.pair_rule(lambda p, u, k: k * u * p.direction, k=nested(5000)), "finite"),
    "an update that broadcasts": (
        lambda: simulated(pj.sgd(updates(lambda g: -g[:1]))),
        "the optimizer's update has the",
    ),
    "a complex update": (lambda: simulated(pj.sgd(updates(lambda g: -g + 0j))), "the optimizer's update has the"),
    "an update that raises": (lambda: simulated(pj.sgd(updates(lambda g: g["x"]))), "the optimizer"),
    "an optimizer that is none": (lambda: pj.sgd(0.1), "optimizer is of type float"),
    # what a run is asked for
    "steps '2'": (lambda: simulated(steps="2"), "must be a whole number"),
    "steps True": (lambda: simulated(steps=True), "must be a whole number"),
    "steps 10^400": (lambda: simulated(steps=HUGE), "must be a whole number"),
    "steps -1 followed": (lambda: rollout(S, pj.bro(0.1), -1, KEY), "must be a whole number"),
    "chunk steps 1.5": (lambda: simulated(chunk_steps=1.5), "must be a whole number"),
    "chunk steps True": (lambda: simulated(chunk_steps=True), "must be a whole number"),
    "chunk steps 10^400": (lambda: simulated(chunk_steps=HUGE).times, [0, 1, 2]),
    "batch 10^400": (lambda: simulated(batch=HUGE).times, [0, 1, 2]),
    "batch None of text": (lambda: simulated(batch="2"), "must be a whole number"),
    "skin 'wide'": (lambda: simulated(skin="wide"), "the neighbour skin is 'wide'"),
    "skin an array": (lambda: simulated(skin=jnp.asarray(0.4)).times, [0, 1, 2]),
    "unsigned times that fall": (lambda: check_times(np.array([0, 5, 3, 9], np.uint32), 9), "in increasing order"),
    "unsigned times": (lambda: check_times(np.array([0, 5, 9], np.uint8), 9), [0, 5, 9]),
    "complex times": (lambda: simulated(times=[0j, 2 + 1j]), "whole steps in increasing order"),
    "times nan": (lambda: simulated(times=[0, NAN, 2]), "whole steps in increasing order"),
    "times ragged": (lambda: simulated(times=[[0], [1, 2]]), "whole steps in increasing order"),
    "log times, a count of -1": (lambda: pj.log_times(10, -1), "whole number from 0"),
    "log times, a count of 2^40": (lambda: pj.log_times(10, 2**40), "whole number from 0"),
    "every 2.5": (lambda: pj.linear_times(10, 2.5), "whole number from 1"),
    "every None": (lambda: pj.linear_times(10, None), "whole number from 1"),
    # keys and starts
    "key None": (lambda: simulated(key=None), "the key is None"),
    "key a seed": (lambda: simulated(key=5), "the key is 5"),
    "key a list": (lambda: simulated(key=[0, 5]), "the key is [0, 5]"),
    "key of the old kind": (lambda: simulated(key=jax.random.PRNGKey(5)), "the key is an array of numbers"),
    "keys in a square": (lambda: simulated(key=jax.random.split(KEY, (2, 2))), "the keys have shape (2, 2)"),
    "no keys": (lambda: simulated(key=jax.random.split(KEY, 0)), "there are no replicas"),
    "vmap over keys": (lambda: jax.vmap(lambda k: simulated(key=k)["msd"])(jax.random.split(KEY, 2)), "under jax.vmap"),
    "no starts": (lambda: simulated(start=np.zeros((0, 16, 2))), "there are no replicas"),
    "a complex start": (lambda: simulated(start=START + 0.5j), "array of real numbers"),
    "a start of text": (lambda: simulated(start=START.astype(str)), "array of real numbers"),
    "a start that is nested": (lambda: simulated(start=nested(5000)), "nested too deeply"),
    "a start far away": (lambda: simulated(start=START + 1e9), "reach 1e+09 box sides"),
    "a complex start, followed": (lambda: rollout(S, pj.bro(0.1), 2, KEY, START + 0.5j), "array of real numbers"),
    "the start itself": (lambda: moved(START), START),
    # systems, records
    "no system": (lambda: simulated(system=None), "the system is of type NoneType"),
    "a problem that raises": (lambda: simulated(system=Broken()), "prepare of the Broken fails: ZeroDivisionError"),
    "a nest of systems": (lambda: simulated(system=nested(100_000)), "nested too deeply"),
    "a stack of numbers": (lambda: pj.stack([2, 3]), "stack takes a list of systems"),
    "a stack of none": (lambda: pj.stack(None), "stack takes a list of systems"),
    "records in a list": (lambda: simulated(record=["activity"]), "record is of type list"),
    "a record of None": (lambda: simulated(record={"x": lambda _: None}), "x returns an object of type NoneType"),
    "a record of a list": (
        lambda: simulated(record={"x": lambda seen: [seen.side]}),
        "x returns an object of type list",
    ),
    "a record called 5": (lambda: simulated(record={5: len}), "its name must be a text"),
    "progress told to nobody": (lambda: simulated(on_progress=None), "must be a function"),
    "a space that is none": (lambda: pj.box_of_jax_md(None, 2), "displacement function fails: TypeError"),
    # what measures
    "complex positions": (lambda: structure_factor(START + 1j, 1.0, np.ones((1, 2))), "array of real numbers"),
    "a width of text": (lambda: common_random_numbers(len, 0.5, "0.1", jax.random.split(KEY, 2)), "the width is '0.1'"),
    "a measure that raises": (
        lambda: common_random_numbers(lambda v, k: 1 / 0, 0.5, 0.1, jax.random.split(KEY, 2)),  # noqa: ARG005
        "the measure fails: ZeroDivisionError",
    ),
}


def main() -> None:
    """Make all calls; JSON of name -> (kind, what came of it)."""
    came: dict[str, tuple[str, str]] = {}
    for name, (call, wanted) in CALLS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = call()
            right = not isinstance(wanted, str) and np.allclose(np.asarray(found), np.asarray(wanted), atol=1e-6)
            came[name] = ("right" if right else "wrong", str(found)[:200])
        except pj.PackingError as error:
            came[name] = ("refused", str(error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported
            came[name] = ("raw", f"{type(error).__name__}: {error}"[:300])
    json.dump(came, sys.stdout)


if __name__ == "__main__":
    main()
