"""The figures there are, by name."""

from packing_jax.errors import PackingError, did_you_mean
from packing_jax.figures import (
    anomalous_diffusion,
    bro_is_sgd,
    capacity,
    correlated_noise,
    currents,
    equipartition,
    flat_minima,
    hyperuniformity,
    jamming,
    modified_loss,
    oscillations,
    phi_c,
    universality,
)
from packing_jax.figures.figure import Figure

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        phi_c.FIGURE,
        bro_is_sgd.FIGURE,
        universality.FIGURE,
        correlated_noise.FIGURE,
        hyperuniformity.FIGURE,
        flat_minima.FIGURE,
        jamming.FIGURE,
        oscillations.FIGURE,
        equipartition.FIGURE,
        currents.FIGURE,
        modified_loss.FIGURE,
        anomalous_diffusion.FIGURE,
        capacity.FIGURE,
    )
}


def find(name: str) -> Figure:
    """A figure by its name.

    Raises:
        PackingError: there is none, with the nearest name.
    """
    if name in FIGURES:
        return FIGURES[name]
    hint = did_you_mean(name, FIGURES) or f"there are {', '.join(FIGURES)}"
    raise PackingError(f"there is no figure {name!r}: {hint}")
