"""Steps to record at."""

import numpy as np
import pytest

import packing_jax as pj
from packing_jax.errors import PackingError


def test_linear_times() -> None:
    np.testing.assert_array_equal(pj.linear_times(10, 3), [0, 3, 6, 9, 10])
    np.testing.assert_array_equal(pj.linear_times(10, 5), [0, 5, 10])
    np.testing.assert_array_equal(pj.linear_times(0, 1), [0])
    for steps, every in [(10, 0), (10, 11), (-1, 1)]:
        with pytest.raises(PackingError):
            pj.linear_times(steps, every)


def test_log_times() -> None:
    times = pj.log_times(10**6, 60)
    assert times[0] == 0
    assert times[1] == 1
    assert times[-1] == 10**6
    assert 45 <= len(times) <= 62
    assert np.all(np.diff(times) > 0)
    late = times[times > 100]
    np.testing.assert_allclose(late[1:] / late[:-1], 10 ** (6 / 59), rtol=0.02)
    np.testing.assert_array_equal(pj.log_times(0), [0])
    np.testing.assert_array_equal(pj.log_times(1), [0, 1])
    np.testing.assert_array_equal(pj.log_times(3), [0, 1, 2, 3])
    for steps in (-1, 2**31):
        with pytest.raises(PackingError, match="whole number from 0"):
            pj.log_times(steps)
