"""The schemes that were measured, the ones no other beats, and the one to take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from microtune.errors import BudgetError
from microtune.tuning.budget import Budget
from microtune.tuning.schemes import Scheme


@dataclass(frozen=True)
class Point:
    """One scheme, measured. ``accuracy`` 0 to 1 on held-out samples; ``ram`` and ``flash`` in bytes, the device struct
    with stack, as ``Plan.memory`` has them; ``instructions`` of one training step on Cortex-M4, None if not measured;
    ``parameters`` that learn."""

    scheme: Scheme
    precision: str
    accuracy: float
    ram: int
    flash: int
    instructions: int | None
    parameters: int

    @property
    def name(self) -> str:
        """The scheme as a user would write it."""
        text = f"{self.scheme}".replace(", layers=None", "").replace(", alpha=None", "")
        return text if self.precision == "float32" else f"{text}, {self.precision}"


@dataclass(frozen=True)
class Frontier:
    """What a search found. ``base`` is the accuracy of the untrained model; ``judged`` the held-out samples."""

    points: tuple[Point, ...]
    base: float
    judged: int
    budget: Budget
    left_out: tuple[str, ...]

    @property
    def frontier(self) -> tuple[Point, ...]:
        """The points that no other beats in accuracy at no more RAM, by RAM."""
        found: list[Point] = []
        for point in sorted(self.points, key=lambda each: (each.ram, -each.accuracy)):
            if not found or point.accuracy > found[-1].accuracy:
                found.append(point)
        return tuple(found)

    @property
    def best(self) -> Point:
        """The most accurate point; among those within one standard error of it, the one with least RAM.

        Raises BudgetError when nothing fitted the budget.
        """
        if not self.points:
            reasons = "; ".join(self.left_out[:3])
            raise BudgetError(f"no update scheme fits the budget: {reasons}")
        top = max(self.points, key=lambda each: each.accuracy).accuracy
        error = math.sqrt(max(top * (1 - top), 0.25 / self.judged) / self.judged)
        near = [each for each in self.points if each.accuracy >= top - error]
        return min(near, key=lambda each: (each.ram, each.parameters, -each.accuracy))
