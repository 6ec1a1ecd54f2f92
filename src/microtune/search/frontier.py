"""The schemes that were measured, the ones no other beats, and the one to take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from microtune.choices import optimizer_text, python_text, scheme_text
from microtune.errors import BudgetError
from microtune.ir import Graph
from microtune.tuning.budget import Budget
from microtune.tuning.optimizers import Gradient
from microtune.tuning.schemes import Scheme

UNTRIED = "was not tried: no time left"
"""Why a scheme is left out that would have been next."""


def name_of(scheme: Scheme | None, precision: str, model: str = "") -> str:
    """As on a command line, the precision where it is not float32: ``sparse:2=0:8,biases=3 mixed``; behind the name of
    the model where there are several: ``pruned int8 > head:1``. Without a scheme, the model."""
    if scheme is None:
        return model
    text = scheme_text(scheme) + ("" if precision == "float32" else f" {precision}")
    return f"{model} > {text}" if model else text


@dataclass(frozen=True)
class Point:
    """One scheme, measured. ``accuracy`` 0 to 1 on held-out samples; ``ram`` and ``flash`` in bytes, the device struct
    with stack, as ``Plan.memory`` has them; ``instructions`` of one training step on Cortex-M4, None if not measured;
    ``parameters`` that learn; ``optimizer`` with the learning rate that suited the scheme; ``right``: of each
    held-out sample, how much was right. ``model``: which of several it learns on; ``base``: the accuracy of that
    before it learns."""

    scheme: Scheme
    precision: str
    accuracy: float
    ram: int
    flash: int
    instructions: int | None
    parameters: int
    optimizer: Gradient
    right: tuple[float, ...] = field(repr=False, compare=False)
    model: str = ""
    base: float | None = None

    @property
    def name(self) -> str:
        """The scheme as on a command line, behind its model."""
        return name_of(self.scheme, self.precision, self.model)

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.optimizer.lr)

    @property
    def command(self) -> str:
        """Options of ``microtune build`` and ``plan`` that choose this."""
        precision = "" if self.precision == "float32" else f" --precision {self.precision}"
        return f"--learn {scheme_text(self.scheme)} --optimizer {optimizer_text(self.optimizer)}{precision}"

    @property
    def python(self) -> str:
        """Arguments of ``mt.plan`` that choose this."""
        precision = "" if self.precision == "float32" else f', precision="{self.precision}"'
        return f"learn={python_text(self.scheme)}, optimizer={python_text(self.optimizer)}{precision}"


@dataclass(frozen=True)
class LeftOut:
    """A scheme that is no choice, and why. ``ram``: bytes it takes at least. ``accuracy``: None if it was not trained.
    ``excess``: how many times the budget it takes, at least; 0 where that is not the reason. Without a scheme, a whole
    ``model``."""

    scheme: Scheme | None
    precision: str
    reason: str
    ram: int | None = None
    accuracy: float | None = None
    excess: float = 0.0
    model: str = ""

    @property
    def name(self) -> str:
        """The scheme as on a command line, behind its model."""
        return name_of(self.scheme, self.precision, self.model)


def undominated(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that no other beats in accuracy at no more RAM, by RAM."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each.ram, -each.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return tuple(found)


@dataclass(frozen=True)
class Frontier:
    """What a search found. ``base`` is the accuracy of the untrained model, of several the best; ``judged`` the
    held-out samples. ``models``: the graphs by name, those made here too, and ``bases``, how right each is untrained;
    of one model alone the name is ""."""

    points: tuple[Point, ...]
    base: float
    judged: int
    budget: Budget
    left_out: tuple[LeftOut, ...]
    models: Mapping[str, Graph] = field(default_factory=dict, repr=False, compare=False)
    bases: Mapping[str, float] = field(default_factory=dict)

    @property
    def frontier(self) -> tuple[Point, ...]:
        """The points that no other beats in accuracy at no more RAM, by RAM."""
        return undominated(self.points)

    @property
    def best(self) -> Point:
        """The most accurate point; where others are within one standard error of the difference, counted on the same
        held-out samples, the one of these with least RAM.

        Raises BudgetError, naming the scheme that comes nearest, when nothing fitted the budget.
        """
        if not self.points:
            over = [each for each in self.left_out if each.excess > 0]
            if over:
                nearest = min(over, key=lambda each: each.excess)
                raise BudgetError(f"no update scheme fits the budget. The nearest, {nearest.name}, {nearest.reason}")
            reasons = "; ".join(dict.fromkeys(each.reason for each in self.left_out))
            raise BudgetError(f"no update scheme can be taken: {reasons}")
        top = max(self.points, key=lambda each: (each.accuracy, -each.ram))
        near = []
        for each in self.points:
            lost = np.subtract(top.right, each.right)
            if lost.mean() <= lost.std() / np.sqrt(len(lost)):
                near.append(each)
        return min(near, key=lambda each: (each.ram, each.parameters, -each.accuracy))
