r"""Mean-field Langevin dynamics of N particles on a quadratic functional, exact at any step and any N.

    F = (1/2)(E x - a)^2 + (r/2) E x^2,   x_i' = x_i - eta [(mean x - a) + r x_i] + sqrt(2 eta lambda) xi_i

The mean of the particles and what each differs from it by are independent linear recursions: the mean has the expected
value a/(1+r) and the variance (lambda/N)/[(1+r)(1 - eta (1+r)/2)], the rest the variance (lambda/r)(1 - 1/N)/
(1 - eta r/2). Their sum tends to that of the mean-field limit as 1/N, at a rate that no time changes (propagation of
chaos). Source: arXiv:2306.07221 (the functional); the variances derived.
"""

from dataclasses import dataclass

from packing_jax.errors import PackingError


@dataclass(frozen=True, kw_only=True)
class MeanField:
    """Settings, and the stationary values.

    Raises:
        PackingError: a setting out of range, or a learning rate at which the particles diverge.
    """

    particles: int  #: N
    learning_rate: float  #: eta
    temperature: float  #: lambda
    pull: float  #: r
    goal: float  #: a

    def __post_init__(self) -> None:
        if self.particles < 1 or not self.temperature >= 0 or not self.pull > 0:
            raise PackingError(
                f"{self.particles} particles, a temperature of {self.temperature:g} and a pull of {self.pull:g}; they "
                "must be at least 1, at least 0 and above 0"
            )
        if not 0 < self.learning_rate * (1 + self.pull) < 2:
            raise PackingError(
                f"the learning rate is {self.learning_rate:g}; times 1 + r it must lie between 0 and 2, or the "
                "particles diverge"
            )

    @property
    def mean(self) -> float:
        """a/(1+r)."""
        return self.goal / (1 + self.pull)

    @property
    def variance_of_mean(self) -> float:
        """(lambda/N)/[(1+r)(1 - eta(1+r)/2)]."""
        stiffness = 1 + self.pull
        return self.temperature / self.particles / (stiffness * (1 - self.learning_rate * stiffness / 2))

    @property
    def centred_variance(self) -> float:
        """(lambda/r)(1 - 1/N)/(1 - eta r/2): the mean of (x_i - mean x)^2."""
        alone = self.temperature / (self.pull * (1 - self.learning_rate * self.pull / 2))
        return alone * (1 - 1 / self.particles)
