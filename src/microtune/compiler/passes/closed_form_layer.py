"""What the passes of closed-form heads share: the layer that a head learns, and the node that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from microtune.compiler.factory import Samples
from microtune.errors import PlanError
from microtune.ir import Tensor
from microtune.ops.op import Attributes, KernelCall
from microtune.tuning.heads import MAP, RLS, SLDA, Logistic

Sampled = Callable[[str, str], Samples]
"""The factory's samples at (the input of the last layer, its output)."""
LOSSES = {RLS: "mse", MAP: "cross_entropy", SLDA: "cross_entropy", Logistic: "binary_cross_entropy"}
"""The loss that each head is the closed form of."""


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The last layer as (C, H), its input and its output, the names of the target and of the loss's gradient, and how
    names are found for what is new."""

    outputs: int
    inputs: int
    x: Tensor
    y: Tensor
    target: str
    gradient: str
    fresh: Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Update:
    """What the node of a head is: its operator, the shape of its state, what else it reads, how its state begins."""

    op: str
    state: tuple[int, ...]
    reads: tuple[str, ...]
    attributes: Attributes
    begin: Callable[[str], KernelCall]
    constants: tuple[Tensor, ...] = ()
    begin_constants: tuple[Tensor, ...] = ()


def copied(state: str, beginning: Tensor) -> KernelCall:
    """A state begins as a constant."""
    return KernelCall("MT_COPY", (state, beginning.name, beginning.bytes))


def needed(sampled: Sampled | None, wanted: str, why: str) -> Sampled:
    """The factory's samples, of a head that cannot do without."""
    if sampled is None:
        raise PlanError(
            f"{why}: pass plan(..., calibration={wanted}), or --calibration FILE.npz, some hundred samples that the "
            "base learnt from"
        )
    return sampled


def map_needs(sampled: Sampled | None) -> Sampled:
    """The factory's inputs, for MAP."""
    return needed(sampled, "x", "MAP() begins with the factory's samples as its prior")


def slda_needs(sampled: Sampled | None) -> Sampled:
    """The factory's inputs and classes, for SLDA."""
    return needed(sampled, "(x, y)", "SLDA() begins with the factory's mean of each class")
