"""Optimisers for tiny batches, as PyTorch defines them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from microtune.errors import PlanError


def check(owner: object, **conditions: bool) -> None:
    """Raises PlanError naming the first condition, by its name, that does not hold."""
    for text, holds in conditions.items():
        if not holds:
            raise PlanError(f"{owner}: {text.replace('_', ' ')}")


@dataclass(frozen=True)
class SGD:
    """p -= rate g, or with momentum v = momentum v + g, p -= rate v. rate = lr / (1 + decay step)."""

    lr: float = 0.05
    momentum: float = 0.0
    decay: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            lr_must_be_above_0_and_finite=0 < self.lr < float("inf"),
            momentum_must_be_in_0_to_1=0 <= self.momentum < 1,
            decay_must_not_be_negative=self.decay >= 0,
            clip_must_not_be_negative=self.clip >= 0,
        )

    @property
    def rule(self) -> str:
        return "momentum" if self.momentum else "sgd"

    @property
    def constants(self) -> Mapping[str, float]:
        return {"momentum": self.momentum, "clip": self.clip} if self.momentum else {"clip": self.clip}


@dataclass(frozen=True)
class RMSProp:
    """v = smoothing v + (1 - smoothing) g^2, p -= rate g / (sqrt(v) + epsilon) (Tieleman and Hinton 2012)."""

    lr: float = 0.001
    smoothing: float = 0.99
    epsilon: float = 1e-8
    decay: float = 0.0
    clip: float = 0.0
    rule = "rmsprop"

    def __post_init__(self) -> None:
        check(
            self,
            lr_must_be_above_0_and_finite=0 < self.lr < float("inf"),
            smoothing_must_be_in_0_to_1=0 <= self.smoothing < 1,
            epsilon_must_be_above_0=self.epsilon > 0,
            decay_must_not_be_negative=self.decay >= 0,
            clip_must_not_be_negative=self.clip >= 0,
        )

    @property
    def constants(self) -> Mapping[str, float]:
        return {"smoothing": self.smoothing, "epsilon": self.epsilon, "clip": self.clip}


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction (Kingma and Ba 2015)."""

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0
    clip: float = 0.0
    rule = "adam"

    def __post_init__(self) -> None:
        check(
            self,
            lr_must_be_above_0_and_finite=0 < self.lr < float("inf"),
            betas_must_be_in_0_to_1=0 <= self.beta1 < 1 and 0 <= self.beta2 < 1,
            epsilon_must_be_above_0=self.epsilon > 0,
            decay_must_not_be_negative=self.decay >= 0,
            clip_must_not_be_negative=self.clip >= 0,
        )

    @property
    def constants(self) -> Mapping[str, float]:
        return {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon, "clip": self.clip}


Gradient = SGD | RMSProp | Adam
