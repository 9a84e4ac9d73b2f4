"""Small runs of every rule and a number at their end: what the tests of derivatives take derivatives of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import packing_jax as pj
from packing_jax import System
from packing_jax.derivatives.rollout import rollout
from packing_jax.spheres.neighbors import Plan, plan_for

KEY = jax.random.key(7)


def adam(rate: Any) -> Any:
    return Partial(optax.adam, learning_rate=rate, b1=0.8, eps_root=1e-3)


def clipped(rate: Any, limit: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(limit), optax.sgd(rate))


MOMENTUM = Partial(optax.sgd, learning_rate=0.3, momentum=0.5)
RULES: dict[str, Any] = {
    "bro": lambda: pj.bro(0.05),
    "bro independent": lambda: pj.bro(0.05, correlation=0.0),
    "bro correlated": lambda: pj.bro(0.05, correlation=0.5),
    "bro particle": lambda: pj.bro(0.05, "particle"),
    "bro normalised": lambda: pj.bro(0.05, "particle-normalised"),
    "ro": lambda: pj.random_organization(0.05),
    "ro pair": lambda: pj.random_organization(0.05, "pair"),
    "ro correlated": lambda: pj.random_organization(0.05, "pair", 0.5),
    "langevin": lambda: pj.langevin(0.2),
    "langevin independent": lambda: pj.langevin(0.2, correlation=0.0),
    "langevin correlated": lambda: pj.langevin(0.2, correlation=0.5),
    "langevin particle": lambda: pj.langevin(0.2, "particle"),
    "thermal": lambda: pj.thermal(0.2, 0.002),
    "sgd": lambda: pj.sgd(MOMENTUM, 0.5),
    "sgd independent": lambda: pj.sgd(MOMENTUM, 0.5, correlation=0.0),
    "sgd correlated": lambda: pj.sgd(MOMENTUM, 0.5, correlation=0.5),
    "sgd particle": lambda: pj.sgd(MOMENTUM, 0.5, "particle"),
    "sgd selective": lambda: pj.sgd(MOMENTUM, 0.5, selective=True),
    "adam": lambda: pj.sgd(adam(0.02)),
    "clipped": lambda: pj.sgd(Partial(clipped, rate=0.3, limit=0.4), 0.75),
    "scheduled": lambda: pj.sgd(Partial(scheduled, rate=0.3, decay=0.9), 0.75),
}


def scheduled(rate: Any, decay: Any) -> optax.GradientTransformation:
    # not optax.exponential_decay, which asks in Python whether the decay is zero
    return optax.sgd(lambda step: rate * decay**step)


def small_system(dim: int, n: int = 16, box: float = 1.7) -> System:
    sizes = pj.mixture_1_to_1_4(n) if dim == 2 else np.linspace(0.9, 1.1, n)
    energy = pj.overlap(jnp.asarray(2.2), jnp.asarray(0.6))
    return System.create(0.7 if dim == 2 else 0.5, n, dim, sizes=sizes, energy=energy, box=box, dtype=np.float64)


def arguments(dim: int, rule: Any) -> dict[str, Any]:
    system = small_system(dim)
    numbers = {f"rule {i}": leaf for i, leaf in enumerate(jax.tree.leaves(differentiable(rule)))}
    start = np.random.default_rng(dim).random((system.particles, dim)) * 1.7
    return {
        "start": jnp.asarray(start),
        "diameters": system.diameters,
        "phi": jnp.asarray(system.phi),
        "box": system.box,
        "unit": system.unit,
        "exponent": system.energy.exponent,
        "a0": system.energy.a0,
        **{name: jnp.asarray(value, jnp.float64) for name, value in numbers.items()},
    }


def differentiable(rule: Any) -> Any:
    """What a rule has a derivative in."""
    return rule.optimizer if hasattr(rule, "optimizer") else rule


def ending_of(dim: int, rule: Any, steps: int, plan: Plan | None = None, **options: Any) -> Callable[..., Any]:
    """A number that depends on where everything went, as a function of all that can be varied."""
    system = small_system(dim)
    plan = plan or plan_for(system, 0.4)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(system.particles, dim)))
    shape = jax.tree.structure(differentiable(rule))

    def number(a: dict[str, Any]) -> Any:
        energy = pj.overlap(a["exponent"], a["a0"])
        there = replace(system.at_phi(a["phi"]).with_energy(energy), box=a["box"])
        grown = a["diameters"] / system.diameters
        there = replace(there, diameters=there.diameters * grown, unit=there.unit * a["unit"] / system.unit)
        moving = jax.tree.unflatten(shape, [a[name] for name in a if name.startswith("rule")])
        made = replace(rule, optimizer=moving) if hasattr(rule, "optimizer") else moving
        end = rollout(there, made, steps, KEY, a["start"], plan=plan, **options)
        return jnp.sum(weights * end.moved) / there.box + jnp.mean(end.positions**2)

    return number
