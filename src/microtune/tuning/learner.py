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

    @property
    def described(self) -> bool:
        """Whether anything is known of it but its place."""
        plain = self.unit == "" and self.low == float("-inf") and self.high == float("inf")
        return not (plain and self.name.startswith("input "))


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
        Parameters are floats then: integers that learn (precision "mixed") are not pulled.
    tolerance: regression: an absolute error up to this, in output units, counts as right.
    threshold: confidence below which the safe default is given and the person is asked.
    fallback: the safe default, in output units or probabilities; None: what the base model predicts.
    in_place: learn on the parameters in use, without the two copies that judging and undoing take: for nets
        whose parameters fill the RAM. Needs ``folds=0`` and ``restart=False``; ``forget`` then goes back to
        the base, and so does an update that ends in numbers that are not finite.
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
    in_place: bool = False

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
        if self.in_place and (self.folds != 0 or self.restart):
            raise PlanError(
                "Learner(in_place=True): nothing is kept to judge or to begin again; set folds=0, restart=False"
            )
