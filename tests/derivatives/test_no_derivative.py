"""Where a run has no derivative: zeros that are said to be zeros, NaN that are explained, and sentences."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from small_runs import KEY, clipped, small_system

import packing_jax as pj
from packing_jax import PackingError, System
from packing_jax.derivatives import segment
from packing_jax.derivatives.averages import common_random_numbers
from packing_jax.derivatives.rollout import rollout, rollout_plan
from packing_jax.spheres.neighbors import plan_for

# --- what has no derivative -----------------------------------------------------------------------------------


def test_absorbed_runs_say_that_nothing_moves_and_give_zeros_not_nans() -> None:
    """At the start, and on the way, with a gradient norm whose derivative is 0/0 once nothing overlaps."""
    system = System.create(0.1, 12, 2, energy=pj.LINEAR, dtype=np.float64)
    start = jnp.asarray(np.random.default_rng(2).random((12, 2)))
    rule = pj.sgd(Partial(clipped, rate=0.9, limit=0.2))
    met = rollout(system, rule, 60, KEY, start)
    assert 0 < met.absorbed_at < 60
    assert "the derivative of the energy is zero" in met.check()

    @jax.jit
    def slopes(x: Any, limit: Any) -> Any:
        def number(x: Any, limit: Any) -> Any:
            made = pj.sgd(Partial(clipped, rate=0.9, limit=limit))
            end = rollout(system, made, 60, KEY, x, plan=met.plan, checkpoint_every=20)
            return jnp.stack([pj.total_energy(system, end.positions), jnp.sum(end.moved**2)])

        back = jax.vjp(number, x, limit)[1]
        return back(jnp.array([1.0, 0.0])), back(jnp.array([0.0, 1.0]))

    energy, moved = slopes(start, 0.2)
    assert all(not np.any(one) for one in energy)
    assert all(np.all(np.isfinite(one)) for one in moved)
    assert np.any(moved[0] != 0)
    assert all(not np.any(one) for one in slopes(met.positions, 0.2)[1])


def test_an_empty_minibatch_passes_no_nan_back_through_a_norm() -> None:
    system = System.create(0.3, 32, 2, dtype=np.float64)
    plan = plan_for(system, 0.4)

    def spread(rate: Any) -> Any:
        rule = pj.sgd(Partial(clipped, rate=rate, limit=0.5), 0.5)
        return jnp.mean(rollout(system, rule, 60, jax.random.key(3), plan=plan).moved ** 2)

    slope = jax.grad(spread)(0.5)
    np.testing.assert_allclose(slope, jax.jvp(spread, (0.5,), (1.0,))[1], rtol=1e-9)
    assert slope != 0


def test_derivatives_that_go_elsewhere_are_named() -> None:
    system = small_system(2)
    with pytest.raises(PackingError, match="a derivative goes through"):
        jax.grad(lambda kick: jnp.sum(pj.simulate(system, pj.bro(kick), 3, KEY).positions))(0.1)
    with pytest.raises(PackingError, match="Partial"):
        jax.grad(lambda rate: jnp.sum(pj.sgd(optax.sgd(rate)).batch_fraction))(0.1)
    with pytest.raises(PackingError, match="holds a traced number"):
        jax.grad(lambda c: pj.PairEnergy(lambda r, sigma: c * (sigma - r), 1.0).slope_bound * c)(0.5)
    with pytest.raises(PackingError, match="holds a function"):
        pj.sgd(Partial(optax.sgd, learning_rate=optax.cosine_decay_schedule(0.1, 10)))
    with pytest.raises(PackingError, match="more than a gradient"):
        pj.sgd(optax.lbfgs())


def test_choices_and_constants_are_refused_in_a_sentence() -> None:
    system = small_system(2)
    plan = plan_for(system, 0.4)

    def number(rate: Any, fraction: Any) -> Any:
        rule = pj.sgd(Partial(optax.sgd, learning_rate=rate), fraction)
        return jnp.sum(rollout(system, rule, 3, KEY, plan=plan).moved ** 2)

    assert jax.grad(number)(0.3, 0.5) != 0
    assert jax.grad(jax.jit(number))(0.3, 0.5) != 0
    for wrong in (jax.grad(number, 1), jax.grad(jax.jit(number), 1), lambda a, b: jax.jvp(number, (a, b), (0.0, 1.0))):
        with pytest.raises(PackingError, match=r"chooses which pairs move.*common_random_numbers"):
            wrong(0.3, 0.5)
    for twice in (jax.grad(jax.grad(number)), jax.hessian(number)):
        with pytest.raises(PackingError, match=r"first derivatives only"):
            twice(0.3, 0.5)
    with pytest.raises(PackingError, match=r"plan=rollout_plan"):
        jax.grad(lambda phi: jnp.sum(rollout(system.at_phi(phi), pj.bro(0.1), 3, KEY).moved))(0.7)


def test_bad_input() -> None:
    system, rule = small_system(2), pj.bro(0.1)
    for wrong, sentence in [
        (lambda: rollout(system, rule, -1, KEY), "whole number"),
        (lambda: rollout(system, rule, 9, KEY, checkpoint_every=10), "from 1 to the number of steps, 9"),
        (lambda: rollout(system, rule, 9, jax.random.key_data(KEY)), "typed key"),
        (lambda: rollout(system, pj.bro(np.array([0.1, 0.2])), 9, KEY), "takes one system"),
        (lambda: rollout(system, rule, 9, KEY, np.zeros((3, 2))), r"must end in \(16, 2\)"),
        (lambda: rollout(system, rule, 9, KEY, np.full((16, 2), np.nan)), "finite"),
        (lambda: rollout(system, pj.sgd(Partial(optax.adam, learning_rate=0.1)), 9, KEY), "eps_root"),
        (lambda: common_random_numbers(lambda v, _: v, 0.5, 0.0, jax.random.split(KEY, 3)), "width"),
        (lambda: common_random_numbers(lambda v, _: v, 0.5, 0.1, KEY), "at least 2 runs"),
        (lambda: common_random_numbers(lambda v, _: v, 0.5, 0.1, jax.random.key_data(KEY)), "typed key"),
        (lambda: common_random_numbers(lambda v, _: v[0], 0.5, 0.1, jax.random.split(KEY, 3)), "one number for each"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            wrong()


def test_traced_numbers_out_of_range_make_nan_and_a_sentence() -> None:
    system = small_system(2)
    plan, start = plan_for(system, 0.4), np.random.default_rng(0).random((16, 2))

    @partial(jax.jit, static_argnums=0)
    def run(rule: Any, number: Any, phi: Any, exponent: Any, first: Any) -> Any:
        there = system.at_phi(phi).with_energy(pj.overlap(exponent))
        return rollout(there, rule(number), 3, KEY, first + start, plan=plan)

    assert run(pj.langevin, 0.1, 0.7, 2.0, 0.0).check() == ""
    descent = partial(pj.sgd, optax.sgd(0.1))
    for numbers in [
        (pj.langevin, 0.0, 0.7, 2.0, 0.0),
        (pj.langevin, 0.1, -0.3, 2.0, 0.0),
        (pj.langevin, 0.1, 0.7, 0.5, 0.0),
        (pj.langevin, 0.1, 0.7, 2.0, np.nan),
        (descent, 1.5, 0.7, 2.0, 0.0),
    ]:
        end = run(*numbers)
        assert np.isnan(end.moved).all(), numbers
        with pytest.raises(PackingError, match="a traced value is out of range"):
            end.check()


def test_lost_neighbours_and_divergence_are_never_silent() -> None:
    system = small_system(2)
    short = replace(plan_for(system, 0.4), capacity=4)
    value, slope = jax.value_and_grad(
        lambda kick: jnp.sum(rollout(system, pj.bro(kick), 5, KEY, plan=short).positions)
    )(0.1)
    assert np.isnan(value)
    assert np.isnan(slope)
    end = rollout(system, pj.bro(0.1), 5, KEY, plan=short)
    with pytest.raises(PackingError, match="more than the plan holds"):
        end.check()
    fit = rollout_plan(system, pj.bro(0.1), 5, KEY)
    assert fit.capacity >= int(end.needed_row)
    wide = rollout(System.create(0.8, 300, 2), pj.bro(0.1), 5, KEY, plan=plan_for(System.create(0.3, 300, 2), 0.4))
    assert np.isnan(wide.positions).all()
    with pytest.raises(PackingError, match="made for smaller ones"):
        wide.check()
    wild = pj.sgd(Partial(optax.sgd, learning_rate=1e6))
    with pytest.raises(PackingError, match="diverged"):
        rollout_plan(system, wild, 5, KEY)


@pytest.mark.validation
def test_a_list_that_does_not_fit_on_the_way_back_makes_the_derivative_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    system = small_system(2)
    plan = plan_for(system, 0.4)
    monkeypatch.setattr(segment.nb, "overflowed", lambda *_: jnp.ones((), bool))
    value, slope = jax.value_and_grad(lambda kick: jnp.sum(rollout(system, pj.bro(kick), 3, KEY, plan=plan).moved))(0.1)
    assert np.isfinite(value)
    assert np.isnan(slope)
