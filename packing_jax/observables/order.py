"""Bond-orientational order: psi6 in two dimensions, Q6 in three, and how much of a packing is crystalline."""

from typing import NamedTuple

import numpy as np
import scipy
from jax import Array
from numpy.typing import NDArray

from packing_jax.errors import PackingError
from packing_jax.observables.periodic import Float, nearest, one_configuration


class BondOrder(NamedTuple):
    """Steinhardt's order parameter of degree l."""

    local: Float  #: (N,) q_l of each particle, from its own bonds
    whole: float  #: Q_l of the mean over all bonds; at large N zero for a liquid, and for many small crystals
    connections: NDArray[np.int64]  #: (N,) neighbours k with q(i).q(k)* / |q(i)||q(k)| above the threshold


def hexatic_order(positions: np.ndarray | Array, box: float, neighbours: int = 6) -> NDArray[np.complex128]:
    r"""psi_6 of each particle of a two-dimensional configuration, psi_6(j) = (1/n) sum_k exp(6 i theta_jk).

    |psi_6| is 1 on a triangular lattice, and its phase is six times the lattice's orientation. The mean of |psi_6|
    measures local crystalline order, and |mean of psi_6| whether it is one crystal.

    Args:
        positions: (N, 2), any periodic image, in the unit of ``box``.
        box: side of the box.
        neighbours: n, the nearest particles that count as bonded.

    Returns:
        (N,) complex.

    Raises:
        PackingError: not two-dimensional, or fewer than n + 1 particles.

    Source: Nelson and Halperin, Phys. Rev. B 19, 2457 (1979).
    """
    array = one_configuration(positions, box)
    if array.shape[1] != 2:
        raise PackingError(f"psi6 is an angle in the plane, and these positions have {array.shape[1]} dimensions")
    _, bond = nearest(array, box, neighbours)
    return np.asarray(np.exp(6j * np.arctan2(bond[..., 1], bond[..., 0])).mean(axis=1))


def steinhardt_order(
    positions: np.ndarray | Array, box: float, neighbours: int = 12, degree: int = 6, threshold: float = 0.7
) -> BondOrder:
    r"""Q_l = sqrt(4 pi / (2 l + 1) sum_m |<Y_lm>|^2) over the bonds of each particle, and over all bonds.

    Over the nearest 12, Q6 is 0.57452 for fcc and 0.48476 for hcp; over the nearest 14, 0.51069 for bcc. Random
    packings have a mean local q6 near 0.4, not far below. The number of connections tells crystals apart more clearly:
    a particle with 7 or more connections among its 12 neighbours is in a crystal.

    Args:
        positions: (N, 3), any periodic image, in the unit of ``box``.
        box: side of the box.
        neighbours: the nearest particles that count as bonded.
        degree: l.
        threshold: neighbours are connected when q(i).q(k)* / |q(i)||q(k)| is above this.

    Raises:
        PackingError: not three-dimensional, too few particles, or a degree below 1.

    Sources: Steinhardt, Nelson and Ronchetti, Phys. Rev. B 28, 784 (1983); ten Wolde, Ruiz-Montero and Frenkel,
    J. Chem. Phys. 104, 9932 (1996) (connections).
    """
    array = one_configuration(positions, box)
    if array.shape[1] != 3:
        raise PackingError(f"Q6 is about directions in space, and these positions have {array.shape[1]} dimensions")
    if degree < 1:
        raise PackingError(f"the degree l is {degree}; it must be at least 1")
    index, bond = nearest(array, box, neighbours)
    polar = np.arctan2(np.hypot(bond[..., 0], bond[..., 1]), bond[..., 2])
    azimuth = np.arctan2(bond[..., 1], bond[..., 0])
    # m >= 0 suffices: Y_l,-m is the conjugate of Y_lm up to its sign, and so are the means
    harmonics = np.stack(
        [scipy.special.sph_harm_y(degree, m, polar, azimuth).mean(axis=1) for m in range(degree + 1)], axis=1
    )
    both_signs = np.where(np.arange(degree + 1) == 0, 1.0, 2.0)
    power = np.abs(harmonics) ** 2 @ both_signs
    overall = np.abs(harmonics.mean(axis=0)) ** 2 @ both_signs
    norm = 4.0 * np.pi / (2 * degree + 1)
    aligned = np.real(np.einsum("nm,nkm,m->nk", harmonics, harmonics[index].conj(), both_signs))
    length = np.sqrt(power)
    connections = np.sum(aligned > threshold * length[:, None] * length[index], axis=1)
    return BondOrder(np.sqrt(norm * power), float(np.sqrt(norm * overall)), connections)
