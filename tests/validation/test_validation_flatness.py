"""Do noisier SGD runs end in flatter states above phi_c? `pytest -m validation -k flatness`; rows go to flatness.json.

The claim of arXiv:2411.11834, asked in three ways that differ: at equal learning rate, at equal mean step alpha b_f,
and at equal energy, because a state with fewer overlaps is flatter and lower alike. And of the minima below the states
reached, which are not minima themselves.
"""

from typing import Any

import jax
import numpy as np
import pytest
from flatness_runs import (
    ENERGIES,
    PARTICLES,
    REPLICAS,
    SEED,
    cells,
    minima,
    states,
    systems,
)
from results import keep
from scipy import stats

from packing_jax.figures.flat_minima import (
    BATCH,
    DENSE,
    PHI,
    RATES,
    STEPS,
    Ratio,
    at_equal_energy,
    equal_energy,
    equal_steps,
    exact_flatness,
    log_ratio,
)
from packing_jax.landscape.flatness import PAPER_SCALE, packing_flatness

pytestmark = pytest.mark.validation


def facts(name: str) -> dict[str, Any]:
    """What every row of one energy says."""
    found = states(name)
    return {
        "particles": PARTICLES,
        "replicas": REPLICAS,
        "steps": list(STEPS[name]),
        "seed": SEED,
        "seconds": round(float(found.seconds.sum())),
        "crystalline": float(found.crystalline.max()),
        "absorbed": int(found.absorbed.sum()),
    }


def rounded(one: Ratio) -> list[float]:
    return [round(one.value, 4), round(one.stderr, 4)]


def mean_and_error(values: np.ndarray) -> list[float]:
    return [float(f"{x:.4g}") for x in (values.mean(), values.std(ddof=1) / values.size**0.5)]


NOTES = {
    ("rate", "linear"): (
        "Holds for phi >= 0.68 at every rate: 4 to 22 % flatter, and 6 to 11 % higher in energy. At phi = 0.64 it "
        "holds at alpha = 0.3 alone. dV is not Tr H/2N here: the Hessian is a delta function at contact."
    ),
    ("rate", "harmonic"): (
        "Holds at alpha = 0.3 and 0.5, where gradient descent settles, for phi >= 0.68: 2 to 9 % flatter, and 1.5 to 2 "
        "times as high. At phi = 0.64 it is the other way round and at 0.66 nothing is gained: these runs still come "
        "down (drift), and the smaller batch is later. At alpha = 1.5 gradient descent does not settle, its states are "
        "the higher and flatter ones, and the claim is reversed, by 5 to 6 %."
    ),
    ("step", "linear"): (
        "Holds, by factors of 1.6 and 7.9: at equal alpha b_f the smaller batch has the larger learning rate, which is "
        "what decides. Higher in energy too, 1.4 and 3.8 times."
    ),
    ("step", "harmonic"): (
        "Holds: 4 % flatter at b_f = 0.6 and 41 % at 0.2, with 1.13 and 5.6 times the energy. The mean motion is the "
        "same in as many steps, so that neither is merely later."
    ),
    ("energy", "linear"): (
        "Does not hold: k beyond about 0.08 is excluded. The energy alone explains 99.8 % of the variance of log dV at "
        "each phi, the higher the flatter."
    ),
    ("energy", "harmonic"): (
        "Not resolved. The higher state is the flatter one at each phi; k changes its sign with the form of the curve, "
        "and an effect of 5 to 10 %, as large as the one at equal learning rate, is not excluded."
    ),
    "minima": (
        "Where gradient descent settles (alpha = 0.3 and 0.5) the minima below the states of all batch fractions have "
        "the same trace within 0.4 %: SGD's states are flatter, their basins are not. The rate of 1.5 ends in minima "
        "that are flatter by 1 %, and lower; most so with full batches, which do not settle there."
    ),
}


# --- what is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENERGIES)
def test_without_sampling_is_the_limit_of_many_perturbations(name):
    """Target: ``packing_flatness`` scatters about the exact mean by its own standard error, in 60 states.

    The mean of 60 deviations must be below 0.5 standard errors (of one) and their rms within 0.7 and 1.3: false alarms
    once in ten thousand runs and once in a thousand.
    """
    ends = states(name).last[0]
    exponent = float(ENERGIES[name].exponent)
    sampled = packing_flatness(systems(name), ends.reshape(-1, PARTICLES, 3), jax.random.key(SEED), samples=1000)
    exact = [
        exact_flatness(x, phi, exponent) for (phi, _, _), x in zip(cells(), ends.reshape(-1, PARTICLES, 3), strict=True)
    ]
    z = (np.asarray(sampled.value) - exact) / np.asarray(sampled.stderr)
    assert abs(z.mean()) < 0.5
    assert 0.7 < np.sqrt(np.mean(z**2)) < 1.3


LATE = slice(PHI.index(DENSE), None)


def log_ratios(name: str, low: tuple[int, int], high: tuple[int, int]) -> tuple[Ratio, Ratio, dict[str, Any]]:
    """Flatness and energy of one (learning rate, batch fraction) over another: for phi >= 0.68, and each phi alone."""
    found = states(name)
    parts = {
        what: (x[low[0], :, low[1]], x[high[0], :, high[1]])
        for what, x in (("flatness", found.flatness), ("energy", found.energy))
    }
    flat, height = (log_ratio(one[LATE], two[LATE]) for one, two in parts.values())
    alone = {
        f"{phi}": {what: rounded(log_ratio(one[p], two[p])) for what, (one, two) in parts.items()}
        for p, phi in enumerate(PHI)
    }
    return flat, height, {"flatness": rounded(flat), "energy": rounded(height), "by_phi": alone}


def opposite(flat: Ratio, height: Ratio) -> bool:
    """Whether the flatter of two is the higher one, each beyond 4 standard errors."""
    return min(abs(flat.deviation), abs(height.deviation)) > 4 and flat.value * height.value < 0


def told(name: str) -> dict[str, list[Any]]:
    """Energy, flatness and drift of every cell with their errors over replicas."""
    found = states(name)
    return {
        f"phi {phi}, alpha {rate}, b_f {fraction}": [
            mean_and_error(x[a, p, b]) for x in (found.flatness, found.energy, found.drift)
        ]
        for a, rate in enumerate(RATES[name])
        for p, phi in enumerate(PHI)
        for b, fraction in enumerate(BATCH)
    }


def by_scale(name: str) -> dict[str, dict[str, list[float]]]:
    """Log ratios of dV at the end, b_f = 0.2 over 1, for half and twice the paper's perturbation, phi >= 0.68."""
    ends = states(name).last[:, LATE][:, :, [0, -1]]
    exponent, found = float(ENERGIES[name].exponent), {}
    for scale in (0.5 * PAPER_SCALE, PAPER_SCALE, 2 * PAPER_SCALE):
        dv = np.zeros(ends.shape[:4])
        for place in np.ndindex(dv.shape):
            dv[place] = exact_flatness(ends[place], PHI[LATE][place[1]], exponent, scale)
        ratios = [rounded(log_ratio(one[:, 0], one[:, 1])) for one in dv]
        found[f"s = {scale:g}"] = dict(zip(map("alpha {}".format, RATES[name]), ratios, strict=True))
    return found


@pytest.mark.parametrize("name", ENERGIES)
def test_smaller_batches_end_flatter_at_equal_learning_rate(name):
    """Target: dV of b_f = 0.2 is below that of 1 by more than 4 standard errors, phi >= 0.68.

    The log of the ratio, averaged over three phi. Its error has about 10 degrees of freedom: a rate without a
    difference passes once in a thousand runs. Asked of the rates at which gradient descent on the harmonic energy
    settles; at the third it does not, and its states are the higher ones, and flatter. So at every rate the flatter of
    the two must be the higher one, by the same measure: its flatness is not that of a low energy.
    """
    rows, found = {}, []
    for i, rate in enumerate(RATES[name]):
        flat, height, rows[f"alpha {rate}"] = log_ratios(name, (i, 0), (i, -1))
        found.append((flat, height))
    keep(
        "flatness.json",
        f"equal learning rate, {name}",
        {
            "target": "log dV(b_f = 0.2)/dV(1) < 0 by 4 standard errors, phi >= 0.68",
            "met": all(flat.deviation < -4 for flat, _ in found),
            "log_ratios": rows,
            "of_other_perturbations": by_scale(name),
            **facts(name),
            "note": NOTES["rate", name],
            "cells": told(name),
        },
    )
    settling = found[:2] if name == "harmonic" else found
    assert all(flat.deviation < -4 for flat, _ in settling), rows
    assert all(opposite(flat, height) for flat, height in found), rows


@pytest.mark.parametrize("name", ENERGIES)
def test_smaller_batches_end_flatter_at_equal_mean_step(name):
    """Target: the same at equal alpha b_f, where only the noise differs: b_f = 0.2 and 0.6 against 1."""
    step, rows, found = RATES[name][0], {}, []
    for low in equal_steps(name):
        flat, height, rows[f"b_f {BATCH[low[1]]}"] = log_ratios(name, low, (0, -1))
        found.append((flat, height))
    keep(
        "flatness.json",
        f"equal mean step {step:g}, {name}",
        {
            "target": "log dV(b_f)/dV(1) < 0 by 4 standard errors for b_f = 0.2 and 0.6, phi >= 0.68",
            "met": all(flat.deviation < -4 for flat, _ in found),
            "log_ratios": rows,
            **facts(name),
            "note": NOTES["step", name],
        },
    )
    assert all(flat.deviation < -4 for flat, _ in found), rows
    assert all(opposite(flat, height) for flat, height in found), rows


@pytest.mark.parametrize("name", ENERGIES)
def test_flatness_at_equal_energy(name):
    """Of log dV = quadratic(log E) + k b_f, a quadratic for each phi >= 0.68: the claim is k > 0 by 4 standard errors.

    It does not hold, and what is tested is that: no k beyond 4 standard errors (17 degrees of freedom, a false alarm
    once in a thousand), while dV falls with the energy at each phi. The scatter about the quadratics is the misfit of
    the form and not noise, so that k is also given for straight lines and for cubics.
    """
    found = states(name)
    parts = found.flatness[:, LATE], found.energy[:, LATE]
    by_form = equal_energy(*parts)
    flat, height = (np.log(np.swapaxes(x.mean(axis=-1), 0, 1).reshape(len(PHI[LATE]), -1)) for x in parts)
    correlation = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(flat, height, strict=True)]
    keep(
        "flatness.json",
        f"equal energy, {name}",
        {
            "target": "k > 0 by 4 standard errors",
            "met": by_form[2].deviation > 4,
            "k": {f"power {power}": rounded(one) for power, one in by_form.items()},
            "correlation_of_log_flatness_and_log_energy": dict(zip(map(str, PHI[LATE]), correlation, strict=True)),
            **facts(name),
            "note": NOTES["energy", name],
        },
    )
    assert max(correlation) < -0.85, correlation
    assert abs(by_form[2].deviation) < 4, by_form


@pytest.mark.parametrize("phi", [0.68, 0.70])
def test_minima_below_the_states(phi):
    """Are the minima below flatter where the batch was smaller, and are they so at equal energy of the minimum?

    Log ratios of b_f = 0.2 over 1 at each learning rate, and k of log Tr H = line(log E) + k b_f over 36 minima. The
    claim would be beyond 4 standard errors. What is tested is that at a minimum the trace grows with its energy.
    """
    found = minima(phi)
    ratios = {
        f"alpha {rate}": {
            what: rounded(log_ratio(found[what][a, 0], found[what][a, -1]))
            for what in ("half_trace", "flatness", "energy")
        }
        for a, rate in enumerate(RATES["harmonic"])
    }
    fractions = np.broadcast_to(np.array(BATCH)[:, None], found["energy"].shape)
    flat, height, fractions = (x.reshape(1, -1) for x in (found["half_trace"], found["energy"], fractions))
    remaining = at_equal_energy(flat, height, fractions, 1)
    slope = stats.linregress(np.log(height[0]), np.log(flat[0]))
    keep(
        "flatness.json",
        f"minima below SGD on the harmonic energy, phi {phi}",
        {
            "target": "k > 0, or log ratios of the trace < 0, by 4 standard errors",
            "met": remaining.deviation > 4,
            "k": rounded(remaining),
            "log_trace_against_log_energy": [slope.slope, slope.stderr],
            "log_ratios": ratios,
            "cells": {
                f"alpha {rate}, b_f {fraction}": {
                    what: mean_and_error(found[what][a, b]) for what in ("half_trace", "flatness", "energy")
                }
                for a, rate in enumerate(RATES["harmonic"])
                for b, fraction in enumerate(BATCH)
            },
            **facts("harmonic"),
            "seconds_minimising": round(float(found["seconds"])),
            "note": NOTES["minima"],
        },
    )
    assert slope.slope > 4 * slope.stderr
    assert abs(remaining.deviation) < 4, remaining
