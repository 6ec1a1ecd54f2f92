"""How the device learns: the settings of the learner in ``runtime/mt_learner.h``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microtune.errors import PlanError


@dataclass(frozen=True)
class Input:
    """One input feature, as the generated header documents it. Values outside low..high are refused."""

    name: str
    low: float = float("-inf")
    high: float = float("inf")
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise PlanError(f"Input('{self.name}'): low {self.low} must be below high {self.high}")


@dataclass(frozen=True)
class Learner:
    """Settings of the on-device loop.

    buffer: samples kept; the oldest makes room for the newest.
    every: new samples that cause an update.
    epochs: passes over the buffer in one update.
    folds: an update is judged by cross-validation over the buffer in so many folds, and dropped when the
        base does better; 0 takes every update unjudged.
    restart: learn each update from the base over all of the buffer (no drift by path), or go on from the
        present parameters.
    pull: after each step the parameters move this share back towards the base (L2-SP, Li et al. 2018).
    tolerance: regression: an absolute error up to this, in output units, counts as right.
    threshold: confidence below which the safe default is given and the person is asked.
    fallback: the safe default, in output units or probabilities; None: what the base model predicts.
    """

    buffer: int = 100
    every: int = 5
    epochs: int = 8
    folds: int = 5
    restart: bool = True
    pull: float = 0.0
    tolerance: float = 0.1
    threshold: float = 0.0
    fallback: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("buffer", 1, 65535), ("every", 1, 65535), ("epochs", 1, 65535), ("folds", 0, 64),
            ("pull", 0, 1), ("threshold", 0, 1),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise PlanError(f"Learner({name}={getattr(self, name)}): must be {low} to {high}")
        if not self.tolerance > 0:
            raise PlanError(f"Learner(tolerance={self.tolerance}): must be above 0")
        if self.every > self.buffer:
            raise PlanError(
                f"Learner(every={self.every}, buffer={self.buffer}): an update needs more samples than are kept"
            )
        if self.folds == 1:
            raise PlanError("Learner(folds=1): judging needs at least 2 folds, or 0 to take every update unjudged")
