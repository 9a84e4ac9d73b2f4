"""Published numbers of packings, and what their theory says exactly: the one place where ours are held against them.

Figures and the validation suite both take them from here, by their quantity. An error is one standard deviation where
the source gives one; otherwise the half-width of what the source leaves open, and where it says nothing of errors, of
what is accepted here. Exponents of universality classes are those of :mod:`packing_jax.criticality.universality`.
"""

from typing import NamedTuple

from packing_jax.criticality.universality import classes_in
from packing_jax.errors import PackingError
from packing_jax.figures.figure import Kind, Row

_BRO = "arXiv:2411.11834; Wilken et al., Phys. Rev. Lett. 127, 038002 (2021)"
_HIGHER = "Wilken et al., Phys. Rev. Lett. 131, 238202 (2023)"
_JAMMING = "O'Hern et al., Phys. Rev. E 68, 011306 (2003), arXiv:cond-mat/0304421"
_CORRELATED = "arXiv:2505.22933, its data"
_ABSORBING = "Hexner and Levine, Phys. Rev. Lett. 114, 110602 (2015), arXiv:1407.0146"
_DIRECTED = "as collected by Hinrichsen, Adv. Phys. 49, 815 (2000), arXiv:cond-mat/0001070"
_MANNA = "Luebeck, Int. J. Mod. Phys. B 18, 3977 (2004), arXiv:cond-mat/0501259"


class Published(NamedTuple):
    """A number that ours are held against."""

    quantity: str
    value: float
    error: float  #: see the head of this file; 0 where exact
    kind: Kind
    source: str  #: with its arXiv number, where it has one

    def row(self, value: float, stderr: float, quantity: str | None = None) -> Row:
        """Ours beside it, as a row of a figure's table, under this quantity's name or another."""
        return Row(quantity or self.quantity, self.value, self.error, self.kind, value, stderr)


_NUMBERS = (
    Published("phi_c at zero kick, 3D", 0.640, 0.005, "published", _BRO),
    Published("phi_c at zero kick, 4D", 0.455, 0.010, "published", _HIGHER),
    Published("phi_c at zero kick, 5D", 0.300, 0.010, "published", _HIGHER),
    # no limit of BRO is published
    Published("phi_c at zero kick, 2D 1:1.4", 0.842, 0.003, "published", f"phi_J of energy minimisation: {_JAMMING}"),
    Published("phi_c at learning rate 0.01, 3D SGD", 0.635, 0.003, "published", "arXiv:2411.11834, its scan ranges"),
    # brackets: their middle, and half their width
    Published("phi_c at kick 1, 2D BRO pair", 0.378, 0.006, "published", "program of arXiv:2411.11834, N = 1e4"),
    Published(
        "phi_c at learning rate 0.5, 2D SGD pair, b_f = 0.5",
        0.625,
        0.010,
        "published",
        "program of arXiv:2411.11834, N = 1e4",
    ),
    Published(
        "phi_c at kick 0.05, 3D BRO pair",
        0.597,
        0.003,
        "consistency",
        "runs of N = 32,768: at rest at 0.594 by 3e4 steps, active at 0.600 at 1e5",
    ),
    Published("contacts at phi_c, kick -> 0, 3D", 6.0, 0.1, "published", _BRO),
    Published("contacts at phi_c, kick -> 0, 4D", 8.0, 0.2, "published", _HIGHER),
    Published("contacts at phi_c, kick -> 0, 5D", 10.0, 0.2, "published", _HIGHER),
    Published("S(q) / (q sigma)^2, 2D BRO phi = 0.8, kick 1, reciprocal", 0.212, 0.010, "published", _CORRELATED),
    Published("S(q -> 0), 2D BRO phi = 0.8, kick 1, independent", 0.054, 0.0054, "published", _CORRELATED),
    # kicks of a pair that add up to zero move no centre of mass
    Published("S(q -> 0), 2D BRO phi = 0.8, kick 1, reciprocal", 0.0, 0.0, "derived", "arXiv:2505.22933"),
    Published("hyperuniformity exponent at phi_c, 2D", 0.45, 0.08, "published", _ABSORBING),
    Published("hyperuniformity exponent at phi_c, 3D", 0.25, 0.08, "published", f"{_BRO}; {_ABSORBING}"),
    Published("phi_J, 2D", 0.842, 0.003, "published", _JAMMING),
    Published("phi_J, 3D", 0.639, 0.004, "published", _JAMMING),
    # "the smaller, the flatter", of all of them
    Published("share of runs in which the smaller batch ends flatter", 1.0, 0.0, "published", "arXiv:2411.11834"),
    # E ~ dphi^a and p ~ dphi^(a-1), of the exponent a = 2 of the harmonic energy
    Published("exponent of the energy above phi_J, harmonic", 2.0, 0.0, "derived", _JAMMING),
    Published("exponent of the pressure above phi_J, harmonic", 1.0, 0.0, "derived", _JAMMING),
    Published("exponent of the excess contacts above phi_J, harmonic", 0.50, 0.05, "published", _JAMMING),
)


def _of_class(which: int, source: str) -> dict[tuple[str, int], Published]:
    return {
        (name, dim): Published(f"{name}, {one.name} class, {dim}D", value, error, "published", source)
        for dim in (1, 2, 3)
        for one in classes_in(dim)[which : which + 1]
        for name, (value, error) in one.exponents.items()
        if name != "hyperuniformity"  # whose errors are not published: above
    }


#: Exponents of the Manna class, and of directed percolation for contrast, (exponent, dimension) -> the number.
MANNA = _of_class(0, _MANNA)
DIRECTED_PERCOLATION = _of_class(1, _DIRECTED)

PUBLISHED: dict[str, Published] = {
    one.quantity: one for one in (*_NUMBERS, *MANNA.values(), *DIRECTED_PERCOLATION.values())
}


def published(quantity: str) -> Published:
    """A number by its quantity.

    Raises:
        PackingError: there is none of this name.
    """
    if quantity not in PUBLISHED:
        raise PackingError(f"no published number is called {quantity!r}; see packing_jax/figures/published.py")
    return PUBLISHED[quantity]
