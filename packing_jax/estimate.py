"""A number that was estimated, and its standard error."""

from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """A value and its standard error: two numbers, or two arrays of one shape, as the function says."""

    value: Any
    stderr: Any
