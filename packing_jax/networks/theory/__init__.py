"""Closed forms in float64 for comparison with simulations of networks; one topic per file."""

from typing import TypeAlias

from numpy.typing import ArrayLike

#: Real numbers: one, or an array. (A check at run time takes ArrayLike's single number as `complex` only.)
Numbers: TypeAlias = ArrayLike | float | int
