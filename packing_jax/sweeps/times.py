"""When a sweep records, and how a longer one goes on with that."""

import numpy as np

from packing_jax.drive.schedule import linear_times, log_times
from packing_jax.errors import PackingError

_MOST_RECORDS = 10**6
_MOST_EXTENSIONS = 1000  # each makes the times longer


def check_extended(steps: int | None, extended_from: tuple[int, ...]) -> None:
    """Refuse steps that are no sweep's.

    Raises:
        PackingError: none, or fewer than before an extension.
    """
    if type(steps) is not int or steps < 1:
        raise PackingError(f"{steps} steps; at least 1 is needed")
    if list(extended_from) != sorted(set(extended_from)) or any(not 1 <= before < steps for before in extended_from):
        raise PackingError(f"a sweep of {steps} steps cannot have been extended from {extended_from[:6]}")
    if len(extended_from) > _MOST_EXTENSIONS:
        raise PackingError(
            f"a sweep that has been extended {len(extended_from)} times; the limit is {_MOST_EXTENSIONS}"
        )


def extended_times(steps: int | None, extended_from: tuple[int, ...], record_every: int | None) -> np.ndarray:
    """Times of a sweep that was extended: those before it stay, and the longer schedule's are added to them.

    Args:
        steps: the last.
        extended_from: steps before each extension.
        record_every: steps between two records; None: 40 logarithmic and 100 linear times.

    Raises:
        PackingError: steps out of range, or too many records.
    """
    check_extended(steps, extended_from)
    first, *later = (*extended_from, steps or 0)
    times = _times(first, record_every)
    for longer in later:
        more = _times(longer, record_every)
        times = np.concatenate([times, more[more > times[-1]]])
    return times


def _times(steps: int, record_every: int | None) -> np.ndarray:
    if record_every is None:
        return np.union1d(log_times(steps, 40), linear_times(steps, max(1, steps // 100)))
    if steps > _MOST_RECORDS * max(record_every, 1):
        raise PackingError(
            f"recording every {record_every} of {steps} steps makes more than {_MOST_RECORDS} records; "
            "record less often"
        )
    return linear_times(steps, record_every)
