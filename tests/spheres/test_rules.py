"""Batches of an exact size, what rules conserve, and arguments that they refuse."""

import inspect
import math
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from jax.tree_util import Partial
from placed import Placed, listed, step

import packing_jax as pj
from packing_jax.errors import PackingError
from packing_jax.spheres import noise
from packing_jax.spheres.geometry import quanta
from packing_jax.spheres.system import System


def test_extreme_words_give_finite_kicks_and_full_batches() -> None:
    """Once in 2^24 draws or so a word is at the end of its range: a kick there is finite, and b_f = 1 is all pairs."""

    words = jnp.asarray([0, 1, 255, 256, 511, 2**31, 2**32 - 512, 2**32 - 257, 2**32 - 256, 2**32 - 1], jnp.uint32)
    float32 = np.dtype(np.float32)
    assert np.all((np.asarray(noise.uniform(words, float32)) > 0) & (np.asarray(noise.uniform(words, float32)) < 1))
    assert np.all(np.abs(np.asarray(noise.normal(words, float32))) < 5.5)
    assert np.all(np.asarray(noise.chosen(words, jnp.float32(1.0))))
    assert np.all(np.isfinite(np.asarray(noise.unit_vectors(words, 3, float32))))


def test_different_rules_are_different_programs() -> None:
    """jax compares the trees of two classes of ``register_dataclass`` by their fields only, not by their type (0.10.1,
    0.12.0.1): where hashes meet in a table, a jitted function then runs the program of the other rule.
    """
    rules = [pj.bro(0.1), pj.langevin(0.1), pj.random_organization(0.1, "pair"), pj.sgd(optax.sgd(0.1))]
    rules.append(pj.thermal(0.1, 0.1))
    structures = [jax.tree.structure(rule) for rule in rules]
    for i, structure in enumerate(structures):
        assert [structure == other for other in structures] == [i == j for j in range(len(rules))]


# --- batches of an exact size ---------------------------------------------------------------------------------


@cache
def _dimers() -> Placed:
    """Thirty-two separate overlapping pairs (k and k + 32) and eight lone discs (from 64) on a grid of 8 by 5 cells."""
    corners = np.stack(np.meshgrid(np.arange(8) / 8, np.arange(5) / 5), axis=-1).reshape(-1, 2)
    partners = corners[:32] + np.array([0.03, 0.01])
    return listed(System.from_diameters(0.05, 72, 2), np.concatenate([corners[:32], partners, corners[32:]]))


@pytest.mark.parametrize("b", [0.01, 0.2, 0.75, 0.99, 1.0])
@pytest.mark.parametrize("coupling", ["pair", "particle"])
def test_selective_batches_have_an_exact_size_and_no_favourites(coupling: Any, b: float) -> None:
    draws = 4000
    system, coordinates, neighbors = _dimers()
    rule = pj.sgd(Partial(optax.sgd, learning_rate=jnp.float32(0.2)), b, coupling, selective=True)
    moves, info = step(jax.random.split(jax.random.key(8), draws), rule, system, coordinates, neighbors)
    assert np.all(np.sum(info.active, axis=1) == 64)
    moved = np.zeros((draws, 72), bool)
    moved[:, np.asarray(neighbors.tags)] = np.any(np.asarray(moves) != 0, axis=1)
    assert not np.any(moved[:, 64:])
    candidates = moved[:, :64]
    if coupling == "pair":
        assert np.all(candidates[:, :32] == candidates[:, 32:])
        candidates = candidates[:, :32]
    n = candidates.shape[1]
    count = min(math.floor(b * n) + 1, n)
    assert np.all(candidates.sum(axis=1) == count)
    if count < n:
        q = count / n
        seen = candidates.sum(axis=0)
        # without replacement the n counts have covariance D q(1-q)/(1-1/n) (identity - 1/n): chi squared, n - 1
        statistic = np.sum((seen - draws * q) ** 2) / (draws * q * (1 - q)) * (n - 1) / n
        low, high = scipy.stats.chi2.ppf([1e-6, 1 - 1e-6], n - 1)
        assert low < statistic < high


# --- conservation ---------------------------------------------------------------------------------------------


@cache
def _crowd(dtype: type) -> Placed:
    """A Poisson pattern of a hundred spheres, five overlaps each."""
    return listed(System.create(0.6, 100, 3, dtype=dtype), np.random.default_rng(2).random((100, 3)))


RECIPROCAL = {
    "bro": lambda: pj.bro(0.3),
    "ro": lambda: pj.random_organization(0.3, "pair"),
    "langevin": lambda: pj.langevin(0.3),
    "sgd": lambda: pj.sgd(optax.sgd(0.4), 0.6),
    "sgd selective": lambda: pj.sgd(optax.sgd(0.4), 0.6, selective=True),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("name", RECIPROCAL)
def test_reciprocal_rules_conserve_the_centre_of_mass(name: str, dtype: type, tolerance: float) -> None:
    with jax.enable_x64(dtype == np.float64):
        system, coordinates, neighbors = _crowd(dtype)
        keys = jax.random.split(jax.random.key(4), 20)
        moves, info = step(keys, RECIPROCAL[name](), system, coordinates, neighbors)
        assert np.all(np.sum(info.active, axis=1) > 90)
        moves = np.asarray(moves)
        assert moves.dtype == (np.int32 if dtype == np.float32 else np.int64)
        total = np.array([[sum(int(x) for x in axis) for axis in one] for one in moves], dtype=object)
        # moves are integers that cancel in pairs; only optax, which sees floats, leaves a rounding
        if not name.startswith("sgd"):
            assert np.all(total == 0)
        unit = float(system.unit)
        size = np.abs(moves).max(axis=(1, 2)) / quanta(np.dtype(dtype)) / unit
        assert np.all(size > 0.1)
        drift = total.astype(float) / quanta(np.dtype(dtype)) / unit / 100
        assert np.max(np.abs(drift)) < tolerance


@pytest.mark.parametrize(
    "make",
    [
        lambda: pj.bro(0.3, correlation=0.5),
        lambda: pj.bro(0.3, "particle"),
        lambda: pj.sgd(optax.sgd(0.3), 0.5, "particle"),
    ],
)
def test_the_others_do_not(make: Any) -> None:
    system, coordinates, neighbors = _crowd(np.float32)
    moves, _ = step(jax.random.split(jax.random.key(4), 20), make(), system, coordinates, neighbors)
    drift = np.asarray(moves).sum(axis=2, dtype=np.int64) / quanta(np.dtype(np.float32)) / float(system.unit) / 100
    assert np.all(np.max(np.abs(drift), axis=1) > 1e-4)


def test_rows_in_another_order_give_the_same_bits() -> None:
    system, coordinates, neighbors = _crowd(np.float32)
    shuffled = np.random.default_rng(1).permuted(np.asarray(neighbors.rows), axis=1)
    other = replace(neighbors, rows=jnp.asarray(shuffled))
    keys = jax.random.split(jax.random.key(4), 20)
    for make in RECIPROCAL.values():
        first, _ = step(keys, make(), system, coordinates, neighbors)
        second, _ = step(keys, make(), system, coordinates, other)
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


# --- arguments out of range -----------------------------------------------------------------------------------
# The import hook of the tests checks annotations first, so these go to the undecorated functions.

bro, random_organization, langevin, sgd = (
    inspect.unwrap(function) for function in (pj.bro, pj.random_organization, pj.langevin, pj.sgd)
)


def test_hyperparameters_are_numbers_or_one_per_replica() -> None:
    """With the annotations checked: integers, numpy's arrays and jax's are all welcome."""
    for kick in (1, np.float32(0.1), np.array([0.1, 0.2]), jnp.asarray([0.1, 0.2])):
        for make in (pj.bro, pj.random_organization, pj.langevin):
            assert make(kick).kick.dtype == np.float32
        assert pj.sgd(optax.sgd(0.1), kick).batch_fraction.dtype == np.float32


@pytest.mark.parametrize("make", [bro, random_organization, langevin])
@pytest.mark.parametrize("kick", [0.0, -0.1, np.nan, np.inf, "much", True, np.array([0.1, -0.1])])
def test_kicks_out_of_range(make: Any, kick: Any) -> None:
    with pytest.raises(PackingError, match=r"the kick is .* must be a finite positive number"):
        make(kick)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.0001, np.nan, "half", np.array([0.5, 2.0])])
def test_batch_fractions_out_of_range(fraction: Any) -> None:
    with pytest.raises(PackingError, match=r"the batch fraction is .* above 0 and at most 1"):
        sgd(optax.sgd(0.1), fraction)


@pytest.mark.parametrize(
    ("make", "coupling"),
    [(bro, "triplet"), (random_organization, "particle-normalised"), (langevin, "particle-normalised"), (bro, "")],
)
def test_unknown_couplings(make: Any, coupling: Any) -> None:
    with pytest.raises(PackingError, match=r"the coupling is .*; this rule knows .*pair"):
        make(0.1, coupling)


def test_unknown_couplings_of_sgd() -> None:
    with pytest.raises(PackingError, match="this rule knows pair, particle"):
        sgd(optax.sgd(0.1), 1.0, "particle-normalised")


@pytest.mark.parametrize("correlation", [-0.1, 1.1, np.nan])
def test_correlations_out_of_range(correlation: float) -> None:
    with pytest.raises(PackingError, match=r"must be between 0 .* and 1"):
        bro(0.1, "pair", correlation)


def test_arguments_that_do_not_go_together() -> None:
    with pytest.raises(PackingError, match="needs coupling 'pair'"):
        bro(0.1, "particle", 0.5)
    with pytest.raises(PackingError, match="selective batches"):
        sgd(optax.sgd(0.1), 0.5, correlation=0.5, selective=True)
    with pytest.raises(PackingError, match=r"the optimizer is of type float; .*optax\.sgd"):
        sgd(0.1)
