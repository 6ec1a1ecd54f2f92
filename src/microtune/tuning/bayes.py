"""Settings of the Bayesian residual head (docs/bayes.md has the reason and the measurement behind each)."""

from __future__ import annotations

from dataclasses import dataclass, fields

from microtune.errors import PlanError


@dataclass(frozen=True)
class Bayes:
    """A Bayesian linear model of what the base gets wrong, refitted exactly after each use, with change detection.

    It learns on the last hidden layer, the raw inputs and a constant, over the frozen base; loss ``"mse"``, one
    output, inputs and targets about 1 in size. Variances are in squared target units.

    bumps: places for changes confined to one context. noise: variance of a person's settings, first guess,
    worth ``noise_uses`` uses and never below ``noise_floor``. trend: a drift is -age / ``trend_unit`` times a
    weight of its own. wild_share: share of settings that may be anything over a range of 1 / ``wild_density``.
    surprise: |z| that may begin a jump; jump_evidence: gain in log likelihood that makes it one. Distances
    between contexts are squared.
    """

    bumps: int = 2
    hidden_variance: float = 0.01
    input_variance: float = 0.015
    bias_variance: float = 0.8
    bump_variance: float = 1.0
    trend_variance: float = 0.006
    trend_unit: float = 20.0
    trend_reach: float = 30.0
    bump_width_squared: float = 0.4
    noise: float = 0.035
    noise_uses: float = 4.0
    noise_floor: float = 0.003
    outlier_squared: float = 6.25
    wild_share: float = 0.15
    wild_density: float = 0.2
    surprise: float = 3.0
    jump_evidence: float = 7.0
    probation: float = 0.3
    apart_squared: float = 1.2
    affected_squared: float = 0.887
    crowded_squared: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.bumps <= 16:
            raise PlanError(f"Bayes(bumps={self.bumps}): must be 0 to 16")
        for each in fields(self):
            if each.name != "bumps" and not getattr(self, each.name) > 0:
                raise PlanError(f"Bayes({each.name}={getattr(self, each.name)}): must be above 0")
        if not (self.wild_share < 1 and self.probation <= 1):
            raise PlanError(f"{self}: wild_share must be below 1 and probation at most 1")

    @property
    def constants(self) -> dict[str, float]:
        """The C settings in the order of ``mt_bayes_settings``, behind its four sizes."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "bumps"}
