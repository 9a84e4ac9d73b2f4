"""Caps on a sphere: steps as numpy makes them, and rest where no pair overlaps; larger caps have no such rest."""

import jax
import numpy as np
import optax
import pytest

from packing_jax import PackingError, simulate
from packing_jax.figures import manifold_packing as figure
from packing_jax.networks.rules import sgd
from packing_jax.networks.tasks.caps import caps

KEYS = jax.random.split(jax.random.key(4), 4)


@pytest.fixture(scope="module")
def packing():
    record = {"c": lambda seen: seen.weights["centres"], "r": lambda seen: seen.weights["radii"]}
    return simulate(
        caps(8, 3, 0.5), sgd(optax.sgd(0.05)), 400, KEYS, record=record, times=np.array([0, 1, *range(50, 401, 50)])
    )


def test_a_step_is_that_of_numpy(packing):
    for c, after in zip(packing["c"][:, 0].astype(float), packing["c"][:, 1], strict=True):
        moved = c.copy()
        for i in range(8):
            for j in range(8):
                apart = c[i] - c[j]
                d = np.linalg.norm(apart)
                if i != j and d < 1.0:
                    moved[i] += 0.05 * apart / d
        np.testing.assert_allclose(after, moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-5)


def test_they_rest_where_none_overlaps(packing):
    """Eight caps of radius 1/2: the best packing of eight on a sphere has distances of 1.215."""
    np.testing.assert_allclose(np.linalg.norm(packing["c"], axis=-1), 1, rtol=1e-6)
    assert (packing["r"] == 0.5).all()
    apart = figure.separations(packing["c"][:, -1].astype(float), packing["r"][:, -1].astype(float))
    at_rest = packing.absorbed_at >= 0
    assert at_rest.any()
    np.testing.assert_array_equal((apart >= 1 - 1e-6).all(axis=1), at_rest)
    larger = figure.separations(packing["c"][:, -1].astype(float), 1.1 * packing["r"][:, -1].astype(float))
    assert (larger[at_rest].min(axis=1) < 1).all()


def motion(packing, radii):
    """The caps in the place of networks and of their caps."""
    c, t = packing["c"].astype(float), len(packing["c"][0])
    r = np.broadcast_to(radii, c.shape[:-1])
    moved = {(name, which): c for name in ("BRO", "SGD") for which in (0.0, 1.0)}
    activity = np.tile((packing.absorbed_at < 0)[:, None], t)
    return figure.Motion(np.arange(t), np.full(c.shape[:2], figure.ABSORBED), c, c, r, activity, moved)


def test_rows_count_overlaps(packing):
    rows = {row.quantity: row for row in figure.compared({4: motion(packing, 0.5)})}
    assert rows.keys() <= figure.FIGURE.resolution.keys()
    assert rows[figure._OVERLAPS].value == 0
    assert rows[figure._MOVE_NETWORK].value == 1
    assert rows[figure._caps_rest(1.0, "BRO")].value == (packing.absorbed_at >= 0).mean()
    wrong = {row.quantity: row for row in figure.compared({4: motion(packing, 0.55)})}
    assert wrong[figure._OVERLAPS].value > 0
    assert figure.FIGURE.agrees(wrong[figure._OVERLAPS], "quick") == "no"
    assert wrong[figure._caps_rest(1.0, "BRO")].value < rows[figure._caps_rest(1.0, "BRO")].value


def test_refused():
    with pytest.raises(PackingError, match="at least two of both"):
        caps(1)
