"""How figures of this folder look: frames with ticks inwards, colours and markers that can be told apart in grey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
#: Points of a simulation, beside lines of a theory.
POINTS: dict[str, Any] = {"ls": "none", "ms": 4.5, "mec": "white", "mew": 0.5}


def panels(figure: Figure, columns: int, rows: int = 1) -> list[Axes]:
    """So many panels, left to right and top to bottom, of a size that suits a page."""
    figure.set_size_inches(4.3 * columns, 3.6 * rows)
    found = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for axes in found:
        axes.tick_params(which="both", direction="in", top=True, right=True, labelsize=9)
    return found


def shades(count: int) -> list[Any]:
    """Dark to light colours of equal steps of lightness, short of the palest."""
    from matplotlib import colormaps

    return [colormaps["viridis"](value) for value in np.linspace(0.05, 0.8, max(count, 2))[:count]]


def legend(axes: Axes, **more: Any) -> None:
    """A legend without a frame, where it hides least."""
    axes.legend(frameon=False, fontsize=7.5, **more)


def ticks(axes: Axes, *places: float) -> None:
    """These ticks alone on a logarithmic x axis of less than two decades, whose own labels would overlap."""
    axes.set_xticks(places, [f"{one:g}" for one in places])
    axes.set_xticks([], minor=True)
