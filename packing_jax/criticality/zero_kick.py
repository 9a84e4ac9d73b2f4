"""phi_c at zero kick: phi_c(kick) extrapolated to kick = 0 by a straight line and by a parabola."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from packing_jax.criticality.fits import akaike_weights, misfit
from packing_jax.errors import PackingError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """phi_c(kick) = value + slope * kick + bend * kick^2, the limit at zero kick being `value`.

    `weight` is the form's share exp(-AIC/2) / sum exp(-AIC/2), AIC = chi^2 + 2 (parameters).
    """

    name: Literal["linear", "quadratic"]
    value: float
    stderr: float
    interval: tuple[float, float]
    slope: float
    slope_stderr: float
    bend: float
    bend_stderr: float
    chi2: float
    dof: int
    weight: float

    def at(self, kick: ArrayLike) -> Array:
        """phi_c of the form at `kick`."""
        x = np.asarray(kick, float)
        phi_c: Array = self.value + self.slope * x + self.bend * x**2
        return phi_c


@dataclass(frozen=True)
class ZeroKickLimit:
    """phi_c at zero kick: of the parabola where there are four kicks or more, of the straight line otherwise.

    `forms` holds both, that of the larger weight first.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    forms: tuple[Form, ...]

    @property
    def form(self) -> Form:
        """The form whose limit is `value`: the one with the most terms."""
        return min(self.forms, key=lambda form: form.dof)


def zero_kick_limit(kick: ArrayLike, phi_c: ArrayLike, stderr: ArrayLike) -> ZeroKickLimit:
    """phi_c at zero kick, from weighted least squares of a straight line and, with four kicks or more, a parabola.

    The limit is the parabola's. It is right wherever the line is, with a wider error; where phi_c(kick) bends a little,
    the line is off by more than its error, and so is an average over both. Both are reported, with their Akaike weights
    and the bend with its error. Errors of a form come from the weights 1/stderr^2, times sqrt(chi^2/dof) where the
    p-value of chi^2 is below 0.05. Three kicks give the line only: a parabola through three points cannot be tested.
    arXiv:2411.11834 fits the line.

    Args:
        kick: kick sizes in mean diameters (for SGD: learning rates), (kick,).
        phi_c: estimates, (kick,).
        stderr: their standard errors, (kick,), positive.

    Raises:
        PackingError: fewer than three different kicks, shapes that differ, values that are not finite, or kicks or
            errors that are not positive.
    """
    x, y, stderr = (np.atleast_1d(np.asarray(part, float)) for part in (kick, phi_c, stderr))
    if x.ndim != 1 or not x.shape == y.shape == stderr.shape:
        raise PackingError(
            "kick, phi_c and stderr must be lists of one length, and their shapes are "
            f"{x.shape}, {y.shape} and {stderr.shape}"
        )
    if not np.isfinite([x, y, stderr]).all() or (x <= 0).any() or (stderr <= 0).any():
        raise PackingError("kick, phi_c and stderr must be finite, and every kick and stderr positive")
    kicks = len(np.unique(x))
    if kicks < 3:
        raise PackingError(
            f"the limit at zero kick needs phi_c at three or more kicks, and it is known at {kicks}: sweep more kicks"
        )
    degrees = (1, 2) if kicks > 3 else (1,)
    fits = [_least_squares(x, y, stderr, degree) for degree in degrees]
    cost = np.array([chi2 + 2 * len(terms) for terms, _, chi2 in fits])
    share = akaike_weights(cost)
    forms = [
        _form(terms, errors, chi2, len(x), weight)
        for (terms, errors, chi2), weight in zip(fits, share.tolist(), strict=True)
    ]
    widest = forms[-1]
    forms.sort(key=lambda form: -form.weight)
    return ZeroKickLimit(widest.value, widest.stderr, widest.interval, tuple(forms))


def _least_squares(x: Array, y: Array, stderr: Array, degree: int) -> tuple[Array, Array, float]:
    """Coefficients by increasing power, their errors from the weights, and chi^2."""
    scale = np.abs(x).max()
    design = np.vander(x / scale, degree + 1, increasing=True) / stderr[:, None]
    inverse = np.linalg.pinv(design)
    powers = scale ** -np.arange(degree + 1.0)
    terms = inverse @ (y / stderr)
    chi2 = np.sum((y / stderr - design @ terms) ** 2)
    return terms * powers, np.sqrt(np.sum(inverse**2, axis=1)) * powers, float(chi2)


def _form(terms: Array, errors: Array, chi2: float, points: int, weight: float) -> Form:
    dof = points - len(terms)
    stretched = misfit(chi2, dof) * errors
    value, slope, bend = (float(part) for part in np.append(terms, 0.0)[:3])
    value_error, slope_error, bend_error = (float(part) for part in np.append(stretched, 0.0)[:3])
    return Form(
        name="linear" if len(terms) == 2 else "quadratic",
        value=value,
        stderr=value_error,
        interval=_interval(value, value_error),
        slope=slope,
        slope_stderr=slope_error,
        bend=bend,
        bend_stderr=bend_error,
        chi2=chi2,
        dof=dof,
        weight=weight,
    )


def _interval(value: float, stderr: float) -> tuple[float, float]:
    half = float(ndtri(0.975)) * stderr
    return value - half, value + half
