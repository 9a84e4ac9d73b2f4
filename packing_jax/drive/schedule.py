"""When a run records: times in steps, checked."""

import numpy as np

from packing_jax.errors import PackingError, is_whole, real_numbers, shown

STEP_LIMIT = 2**31 - 2**20
_MOST_TIMES = 10**6


def linear_times(steps: int, every: int) -> np.ndarray:
    """0, every, 2 every, ... and the last step.

    Raises:
        PackingError: steps that are no whole number, or an interval not between 1 and the steps.
    """
    check_steps(steps)
    if not (is_whole(every) and 1 <= every <= max(steps, 1)):
        raise PackingError(
            f"recording every {shown(every)} steps; it must be a whole number from 1 to the number of steps, {steps}"
        )
    return np.union1d(np.arange(0, steps + 1, every), [0, steps]).astype(np.int32)


def log_times(steps: int, count: int = 60) -> np.ndarray:
    """0, 1 and about ``count`` logarithmically spaced steps up to the last.

    Raises:
        PackingError: steps that are no whole number from 0 on, or a count that is none or above a million.
    """
    check_steps(steps)
    if not (is_whole(count) and 0 <= count <= _MOST_TIMES):
        raise PackingError(f"{shown(count)} logarithmic times; it must be a whole number from 0 to {_MOST_TIMES}")
    return np.union1d(np.rint(np.geomspace(1, max(steps, 1), count)), [0, steps])[: steps + 1].astype(np.int32)


def check_steps(steps: int) -> None:
    """Raise unless ``steps`` is a number of moves that can be counted."""
    if not (is_whole(steps) and 0 <= steps <= STEP_LIMIT):
        raise PackingError(f"{shown(steps)} steps; it must be a whole number from 0 to {STEP_LIMIT}")


def check_times(times: np.ndarray, steps: int) -> np.ndarray:
    """Record times: whole steps, strictly increasing, ending at the last step."""
    check_steps(steps)
    array = real_numbers(times)
    if array is None or array.ndim != 1 or not len(array):
        raise PackingError(
            "the times to record at are not a list of steps; they must be whole steps in increasing order"
        )
    array = array.astype(np.float64)  # differences of unsigned ones would wrap; whole numbers up to any step are exact
    if not np.all(np.isfinite(array)) or np.any(array != np.rint(array)) or np.any(np.diff(array) <= 0):
        raise PackingError("the times to record at must be whole steps in increasing order")
    if array[0] < 0 or array[-1] != steps:
        raise PackingError(
            f"the times to record at run from {array[0]:.0f} to {array[-1]:.0f}; they must end at step {steps}"
        )
    return array.astype(np.int32)
