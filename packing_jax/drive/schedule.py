"""When a run records: times in steps, checked."""

import numpy as np

from packing_jax.errors import PackingError

STEP_LIMIT = 2**31 - 2**20


def linear_times(steps: int, every: int) -> np.ndarray:
    """0, every, 2 every, ... and the last step.

    Raises:
        PackingError: steps that are no whole number, or an interval not between 1 and the steps.
    """
    _check_steps(steps)
    if not 1 <= every <= max(steps, 1):
        raise PackingError(f"recording every {every} steps; it must be between 1 and the number of steps, {steps}")
    return np.union1d(np.arange(0, steps + 1, every), [0, steps]).astype(np.int32)


def log_times(steps: int, count: int = 60) -> np.ndarray:
    """0, 1 and about ``count`` logarithmically spaced steps up to the last.

    Raises:
        PackingError: steps that are no whole number from 0 on.
    """
    _check_steps(steps)
    return np.union1d(np.rint(np.geomspace(1, max(steps, 1), count)), [0, steps])[: steps + 1].astype(np.int32)


def _check_steps(steps: int) -> None:
    if not (isinstance(steps, (int, np.integer)) and 0 <= steps <= STEP_LIMIT):
        raise PackingError(f"{steps} steps; it must be a whole number from 0 to {STEP_LIMIT}")


def check_times(times: np.ndarray, steps: int) -> np.ndarray:
    """Record times: whole steps, strictly increasing, ending at the last step."""
    _check_steps(steps)
    array = np.asarray(times)
    if array.ndim != 1 or not len(array) or not np.all(array == np.rint(array)) or np.any(np.diff(array) <= 0):
        raise PackingError("the times to record at must be whole steps in increasing order")
    if array[0] < 0 or array[-1] != steps:
        raise PackingError(f"the times to record at run from {array[0]} to {array[-1]}; they must end at step {steps}")
    return array.astype(np.int32)
