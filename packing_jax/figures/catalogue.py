"""The figures there are, by name."""

from packing_jax.errors import PackingError, did_you_mean
from packing_jax.figures import (
    anomalous_diffusion,
    bro_is_sgd,
    capacity,
    correlated_noise,
    coulomb_gas,
    currents,
    disordered_dynamics,
    dmft_error,
    edge_of_stability,
    epochs,
    equipartition,
    flat_minima,
    hyperuniformity,
    implicit_sgd,
    in_and_out,
    jamming,
    kernel_and_rich,
    large_steps,
    law_of_balance,
    linear_fdt,
    low_rank_factorisation,
    manifold_learning,
    manifold_packing,
    mean_field_langevin,
    modified_flows,
    modified_loss,
    nag_gs,
    oscillations,
    phase_diagram,
    phi_c,
    relu_phases,
    spacing,
    spectral_bias,
    universality,
    weight_overlap,
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
        law_of_balance.FIGURE,
        linear_fdt.FIGURE,
        low_rank_factorisation.FIGURE,
        modified_flows.FIGURE,
        implicit_sgd.FIGURE,
        nag_gs.FIGURE,
        mean_field_langevin.FIGURE,
        edge_of_stability.FIGURE,
        disordered_dynamics.FIGURE,
        spectral_bias.FIGURE,
        epochs.FIGURE,
        in_and_out.FIGURE,
        kernel_and_rich.FIGURE,
        dmft_error.FIGURE,
        large_steps.FIGURE,
        relu_phases.FIGURE,
        spacing.FIGURE,
        coulomb_gas.FIGURE,
        weight_overlap.FIGURE,
        phase_diagram.FIGURE,
        manifold_packing.FIGURE,
        manifold_learning.FIGURE,
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
