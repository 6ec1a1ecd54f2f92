"""What an operator is: one declaration that shape inference, the reference, autodiff and C emission all read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]


class Tape(Protocol):
    """What a gradient rule may use to write the backward graph (see ``compiler.autodiff``)."""

    def wants(self, name: str) -> bool:
        """Whether the gradient with respect to this tensor is needed."""

    def keeps(self, name: str) -> bool:
        """Whether this tensor is read by the backward graph anyway: a layer whose weight learns takes it."""

    def tensor(self, name: str) -> Tensor: ...

    def emit(self, op: str, inputs: Sequence[str], wish: str, attributes: Attributes | None = None) -> str:
        """Append a node to the backward graph and return the name of its first output."""

    def constant(self, wish: str, data: np.ndarray) -> str:
        """Put a constant into flash beside the weights and return its name; equal wishes share one constant."""


GradientRule = Callable[[Tape, Node, str], dict[str, str]]


@dataclass(frozen=True)
class KernelCall:
    """A call of a C kernel. Arguments: a ``str`` names a tensor, numbers are compile-time constants.

    ``result`` names the scalar tensor that takes the returned value, if any.
    """

    function: str
    arguments: tuple[str | int | float, ...]
    result: str | None = None


@dataclass(frozen=True)
class Op:
    """One operator.

    ``shape`` infers output shapes and raises ValueError with a sentence when the inputs do not fit.
    ``reference`` computes it in numpy in the precision of its inputs. ``gradient`` maps
    (tape, node, gradient of the output) to {input: gradient} for the wanted inputs only; None means the
    operator is not differentiable. ``dtypes`` gives the types of the outputs; None means float32 for all.
    An output that no node reads is a workspace: memory that lives only while the node runs. ``kernel``
    gives the C call, and ``header`` the file that holds it. ``in_place`` lists the
    inputs (by position) whose memory the first output may take over. ``multiply_adds`` counts
    multiply-accumulate operations from the inputs and outputs.
    """

    name: str
    summary: str
    shape: Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]
    reference: Callable[[Sequence[np.ndarray], Attributes], tuple[np.ndarray, ...]]
    kernel: Callable[[Node, Mapping[str, Tensor]], KernelCall | None]
    header: str
    gradient: GradientRule | None = None
    in_place: tuple[int, ...] = ()
    multiply_adds: Callable[[Sequence[Tensor], Sequence[Tensor]], int] = lambda inputs, outputs: 0
    dtypes: Callable[[Sequence[Tensor], Attributes], tuple[str, ...]] | None = None

    def results(self, names: Sequence[str], inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Tensor, ...]:
        """The output tensors by their names. Raises ValueError when the inputs do not fit."""
        shapes = self.shape(inputs, attributes)
        dtypes = self.dtypes(inputs, attributes) if self.dtypes else ("float32",) * len(shapes)
        return tuple(Tensor(*each) for each in zip(names, shapes, dtypes, strict=True))

    def count(self, inputs: Sequence[Tensor], attributes: Attributes) -> int:
        """Number of outputs."""
        return len(self.shape(inputs, attributes))


def same_dtype(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[str, ...]:
    """For operators that only move values: the output has the type of the first input."""
    return (inputs[0].dtype,)
