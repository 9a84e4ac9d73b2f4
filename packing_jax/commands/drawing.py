"""What the figures of all reports have in common: size, colours, markers and legends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.sweeps.folder import Folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
POINTS: dict[str, Any] = {"ms": 4.5, "mec": "white", "mew": 0.5, "lw": 1.2}
DPI = 200


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(which="both", direction="in", top=True, right=True, labelsize=9)
    return figure, axes


def shades_of(count: int) -> list[Any]:
    """Dark to light colours of equal lightness steps, short of the palest."""
    from matplotlib import colormaps

    return [colormaps["viridis"](value) for value in np.linspace(0.05, 0.8, max(count, 2))[:count]]


def colour_scale(low: float, high: float, name: str, start: float, stop: float) -> ScalarMappable:
    """Values from low to high on the part [start, stop] of a colour map."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = ListedColormap(colormaps[name](np.linspace(start, stop, 256)))
    return ScalarMappable(Normalize(low, high if high > low else low + 1e-3), colours)


def colour_bar(figure: Figure, axes: Axes, shade: ScalarMappable, label: str) -> None:
    """What colours stand for, to the right of the axes."""
    bar = figure.colorbar(shade, ax=axes, label=label, pad=0.02)
    bar.ax.tick_params(direction="in", labelsize=9)


def legend(figure: Figure, axes: Axes) -> None:
    """A legend above the axes, where it hides no curve; to their right if it is long."""
    count = len(axes.get_legend_handles_labels()[1])
    if count <= 8:
        figure.legend(frameon=False, fontsize=7.5, loc="outside upper center", ncols=1 + (count > 2))
    else:
        figure.set_figwidth(figure.get_figwidth() + 2.6)
        figure.legend(frameon=False, fontsize=7.5, loc="outside right upper")


def write_figures(folder: Folder, place: str, jobs: Mapping[str, Callable[[], Figure]]) -> list[str]:
    """Draw each figure into a folder in it, ``place/NAME.png``; a note for each that cannot be drawn."""
    notes = []
    for name, draw in jobs.items():
        try:
            figure = draw()
        except PackingError as error:
            notes.append(f"No figure {name}.png: {error}.")
            continue
        with folder.replacing(f"{place}/{name}.png", flushed=False) as file:
            figure.savefig(file, format="png")
    return notes
