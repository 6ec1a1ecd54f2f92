"""What is decided about a device before its C is written: the plan, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from microtune.compiler.factory import Calibration
from microtune.compiler.passes.pack_weights import PackedWeight
from microtune.compiler.program import Programs, target_shape
from microtune.ir import Graph
from microtune.tuning.bayes import Bayes
from microtune.tuning.budget import Budget
from microtune.tuning.heads import ClosedForm
from microtune.tuning.learner import Context, Input, Learner
from microtune.tuning.losses import Loss
from microtune.tuning.optimizers import SGD, Adam, RMSProp
from microtune.tuning.schemes import Scheme
from microtune.tuning.sensors import SensorModel

Optimizer = SGD | RMSProp | Adam | ClosedForm | Bayes


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is decided before C is written. ``memory`` says what it will cost.

    contexts: each with the place of its input. sensors: what is usual for each input; empty where it is not looked
    at. pulls: of each parameter, how far it goes back to the base after a step (elastic weights).
    """

    graph: Graph
    scheme: Scheme
    loss: Loss
    optimizer: Optimizer
    learner: Learner
    inputs: tuple[Input, ...]
    budget: Budget
    precision: str
    programs: Programs
    measure: Callable[[Plan], Memory] = field(repr=False)
    calibration: Calibration | None = field(default=None, repr=False)
    contexts: tuple[tuple[int, Context], ...] = ()
    sensors: tuple[SensorModel, ...] = field(default=(), repr=False)
    pulls: np.ndarray | None = field(default=None, repr=False)

    @property
    def fixed(self) -> bool:
        """Whether all is computed in integers: numbers are fixed-point."""
        return self.precision == "int8"

    @cached_property
    def memory(self) -> Memory:
        """What the plan costs; measured when first asked for, since that compiles it."""
        return self.measure(self)


@dataclass(frozen=True)
class Span:
    """One buffer in time: bytes at an offset of the arena, live from node ``first`` to node ``last``."""

    program: str
    name: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Memory:
    """Bytes of a plan on a 32-bit core. ``flash`` and ``stack`` are measured on the C compiled for Cortex-M4.

    ram: the whole device struct and the worst-case stack. arena: scratch of the network, shared by prediction
    and training; ``bound`` is the most bytes ever live at once. parameters: what learns, once.
    buffers: the samples, of everybody. packed: frozen weights that are stored without their zeros or in four bits;
    ``saved`` is how much smaller flash is by them at least, with the code that reads them counted.
    """

    ram: int
    flash: int
    stack: int
    arena: int
    bound: int
    parameters: int
    optimizer: int
    buffers: int
    timeline: tuple[Span, ...]
    packed: tuple[PackedWeight, ...] = ()
    saved: int = 0


LONG = 32
"""Inputs beyond which a list of them is left out where nothing is known of any."""


def lists_inputs(plan: Plan) -> bool:
    """Whether the inputs are listed one by one: a camera's thousands of unnamed ones say nothing."""
    return len(plan.inputs) <= LONG or any(each.described for each in plan.inputs)


def target_size(plan: Plan) -> int:
    """Floats of one target."""
    return 1 if plan.programs.hidden else int(np.prod(target_shape(plan.programs.head.graph, plan.loss)))
