"""A number that was estimated, and its standard error."""

from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")


class Estimate(NamedTuple, Generic[Value]):
    """A value and its standard error, one number each or arrays of one shape."""

    value: Value
    stderr: Value
