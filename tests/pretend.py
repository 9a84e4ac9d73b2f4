"""A made-up simulator of absorbing-state dynamics with a known phi_c, for the adaptive search."""

import numpy as np

from packing_jax.criticality.absorption import scaling_in
from packing_jax.criticality.search import Answer, SearchSettings


class Pretend:
    """Replicas that are absorbed by t with probability 1/(1 + exp((phi - phi_h)/w)), by the law of finite-size scaling.

    phi_h = phi_c + a x + b x^2 - c (t/2000)^(-1/nu_par) and w = 0.004 x, x = (N/256)^-omega: b is a correction to
    scaling.
    """

    def __init__(self, seed, phi_c=0.555, dim=3, a=-0.004, b=0.0, c=0.002, width=0.004):
        self.seed, self.phi_c, self.a, self.b, self.c, self.width = seed, phi_c, a, b, c, width
        self.scaling = scaling_in(dim)
        self.asked = []

    def __call__(self, ask):
        self.asked.append(ask)
        x = (ask.particles / 256) ** -self.scaling.omega
        absorbed_at, spent = [], 0
        for phi, number in ask.replicas:
            u = np.random.default_rng([self.seed, ask.particles, round(phi * 1e6), number]).random()
            room = self.phi_c + self.a * x + self.b * x**2 - phi + self.width * x * np.log(1 / u - 1)
            at = 2000 * (self.c / room) ** (1 / self.scaling.decay) if room > 0 else np.inf
            absorbed_at.append(max(1, round(at)) if at <= ask.steps else -1)
            spent += ask.particles * min(max(1, round(min(at, 1e9))), ask.steps)
        return Answer(tuple(absorbed_at), spent)


def settings(tolerance=0.003, budget=10**9, dim=3, bracket=(0.1, 0.7)):
    return SearchSettings(scaling_in(dim), bracket, 256, 2000, tolerance, budget, highest=bracket[1])
