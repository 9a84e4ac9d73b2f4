"""Closed forms in float64 that simulations of networks are held against; one topic a file."""

from typing import TypeAlias

from numpy.typing import ArrayLike

#: Real numbers: one, or an array of them. (ArrayLike has one number as `complex` only, to a check at run time.)
Numbers: TypeAlias = ArrayLike | float | int
