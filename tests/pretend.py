"""A made-up simulator of absorbing-state dynamics with a known phi_c, for the adaptive search."""

import numpy as np

from packing_jax.criticality.search import Answer, SearchSettings, size_exponents


class Pretend:
    """Replicas that are absorbed with probability 1/(1 + exp((phi - phi_h)/w)), by the law of finite-size scaling.

    phi_h = phi_c + a x + b x^2 and w = 0.004 x, x = (N/256)^-omega: b is a correction to scaling.
    """

    def __init__(self, seed, phi_c=0.555, dim=3, a=-0.004, b=0.0, width=0.004):
        self.seed, self.phi_c, self.a, self.b, self.width = seed, phi_c, a, b, width
        self.omega = size_exponents(dim)[0]
        self.asked = []

    def __call__(self, ask):
        self.asked.append(ask)
        x = (ask.particles / 256) ** -self.omega
        half = self.phi_c + self.a * x + self.b * x**2
        absorbed_at, spent = [], 0
        for phi, number in ask.replicas:
            name = [self.seed, ask.particles, round(phi * 1e6), number]
            rng = np.random.default_rng(name)
            gone = rng.random() < 1 / (1 + np.exp(np.clip((phi - half) / (self.width * x), -500, 500)))
            at = int(rng.integers(1, ask.steps + 1)) if gone else -1
            absorbed_at.append(at)
            spent += ask.particles * (at if gone else ask.steps)
        return Answer(tuple(absorbed_at), spent)


def settings(tolerance=0.003, budget=10**9, dim=3, bracket=(0.1, 0.7)):
    return SearchSettings(dim, bracket, 256, 2000, tolerance, budget)
