"""Digests of runs of every rule, to be compared with diff before and after a change that must not move a bit.

A line is a case, ``name  sha256``: final positions, records and absorption steps of three replicas around the
transition. Each case is run with dense steps, with active-only steps if its moves are local, and in 3D one of its
replicas alone; that all of these agree is asserted here. On two devices the three lie on both, the lone one on one.

    python benchmarks/bits.py --devices 1 > one.txt
    python benchmarks/bits.py --devices 2 > two.txt  # the same lines
    python benchmarks/bits.py --x64 > x64.txt  # bro in float64

Active-only steps are forced: every plan is given a list of active particles, and tuning changes no plan.
"""

import argparse
import hashlib
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
import optax

from packing_jax import (
    HARMONIC,
    LINEAR,
    System,
    bro,
    langevin,
    mixture_1_to_1_4,
    random_organization,
    sgd,
    simulate,
    stack,
)
from packing_jax.spheres import neighbors, tuning

N, STEPS, KEY = 128, 250, 20
LIST = 64  # particles of a list; it is taken up when three quarters of it hold all active ones
ALONE = 2  # the replica that is run alone, the densest
KICKED = (0.66, 0.70, 0.74), (0.44, 0.48, 0.52)  # packing fractions in 2D and 3D, around where replicas freeze


class Case(NamedTuple):
    rule: object
    phis: tuple = KICKED
    local: bool = True  # nothing moves but what overlaps
    energy: object = LINEAR


def cases():
    """Name -> case, for every rule and coupling."""
    momentum, adam = optax.sgd(0.05, momentum=0.8), optax.adam(0.01)
    wild, wild_pairs = ((0.30, 0.34, 0.37), (0.14, 0.17, 0.19)), ((0.36, 0.42, 0.46), (0.16, 0.20, 0.23))
    return {
        "bro pair": Case(bro(0.1)),
        "bro correlated": Case(bro(0.1, correlation=0.5)),
        "bro independent": Case(bro(0.1, correlation=0.0)),
        "bro particle": Case(bro(0.1, "particle")),
        "bro particle-normalised": Case(bro(0.1, "particle-normalised")),
        "random_organization particle": Case(random_organization(0.5), wild),
        "random_organization pair": Case(random_organization(0.5, "pair"), wild_pairs),
        "sgd pair": Case(sgd(optax.sgd(0.13), 0.5)),
        "sgd particle": Case(sgd(optax.sgd(0.13), 0.5, "particle")),
        "sgd selective": Case(sgd(optax.sgd(0.13), 0.5, selective=True)),
        "sgd pair momentum": Case(sgd(momentum, 0.5), local=False),
        "sgd particle momentum": Case(sgd(momentum, 0.5, "particle"), local=False),
        "sgd pair adam": Case(sgd(adam, 0.5), local=False),
        "sgd particle adam": Case(sgd(adam, 0.5, "particle"), local=False),
        "sgd pair harmonic": Case(sgd(optax.sgd(0.5), 0.5), local=False, energy=HARMONIC),
        "langevin pair": Case(langevin(0.1)),
        "langevin particle": Case(langevin(0.1, "particle")),
    }


@contextmanager
def replaced(function, other):
    """Another function wherever the package holds this one by its name."""
    name = function.__name__
    modules = [module for path, module in list(sys.modules.items()) if path.split(".")[0] == "packing_jax"]
    holders = [module for module in modules if vars(module).get(name) is function]
    for module in holders:
        setattr(module, name, other)
    try:
        yield
    finally:
        for module in holders:
            setattr(module, name, function)


def run(case, systems, keys, active):
    """Positions, absorption steps and records with lists of so many active particles, 0 for dense steps."""
    plan_for, plans = neighbors.plan_for, []

    def planned(*arguments):
        plans.append(replace(plan_for(*arguments), active=active))
        return plans[-1]

    with replaced(plan_for, planned), replaced(tuning.next_plan, lambda plan, *_: (plan, 0.0)):
        done = simulate(systems, case.rule, STEPS, keys)
    assert plans, "the driver asked for no plan: nothing was forced"
    return {"positions": done.positions, "absorbed_at": done.absorbed_at, **done.records}


def same(name, one, other):
    """Fail where two variants of a case differ in a bit."""
    for what, values in one.items():
        assert values.shape == other[what].shape, f"{name}: {what} has another shape"
        assert values.dtype == other[what].dtype, f"{name}: {what} has another dtype"
        assert values.tobytes() == other[what].tobytes(), f"{name}: {what} differs"


def digest(found):
    """16 hexadecimal digits of everything that was found."""
    parts = hashlib.sha256()
    for what in sorted(found):
        parts.update(f"{what} {found[what].dtype.str} {found[what].shape}".encode())
        parts.update(np.ascontiguousarray(found[what]).tobytes())
    return parts.hexdigest()[:16]


def examined(name, dim):
    """The line of a case in a dimension, after all its variants have agreed."""
    case, line = cases()[name], f"{name} {dim}D"
    phis, sizes = case.phis[dim - 2], mixture_1_to_1_4(N) if dim == 2 else None
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    systems = [System.create(phi, N, dim, sizes=sizes, energy=case.energy, dtype=dtype) for phi in phis]
    keys = jax.vmap(jax.random.key)(np.arange(KEY, KEY + len(systems)))
    dense = run(case, stack(systems), keys, 0)
    if case.local:
        same(f"{line}, active-only", dense, run(case, stack(systems), keys, LIST))
        few = dense["activity"].max(axis=0) <= 0.75 * LIST / N
        assert few.any(), f"{line}: too many are active for lists"
        assert not few.all(), f"{line}: lists would be in use from the start"
    if dim == 3:  # every variant is a program to compile
        lone = run(case, systems[ALONE], keys[ALONE], LIST if case.local else 0)
        same(f"{line}, alone", {what: values[ALONE] for what, values in dense.items()}, lone)
    return f"{line}  {digest(dense)}"


def configure(devices, x64):
    """Tell jax, before it starts."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", x64)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", default=list(cases()), help="cases; all when none is named")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices of a process")
    parser.add_argument("--x64", action="store_true", help="bro in 3D in float64, and nothing else")
    parser.add_argument("--jobs", type=int, default=2, help="processes, which share the cases")
    words = parser.parse_args()
    todo = [("bro pair", 3)] if words.x64 else [(name, dim) for name in words.names for dim in (2, 3)]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(words.jobs, fresh, configure, (words.devices, words.x64)) as pool:
        for line in pool.map(examined, *zip(*todo, strict=True)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
