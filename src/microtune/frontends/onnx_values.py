"""What an ONNX node works on: constants, values that depend on the input, and the call of one converter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.frontends.onnx_layout import Arrangement, arrange, plain
from microtune.ir import Quantization, Tensor


@dataclass(frozen=True, eq=False)
class Stored:
    """The integers behind a constant that DequantizeLinear made."""

    array: np.ndarray
    quantization: Quantization


@dataclass(frozen=True, eq=False)
class Constant:
    """A value known at import, with the name it has in the source model."""

    name: str
    array: np.ndarray
    stored: Stored | None = None


@dataclass(frozen=True, eq=False)
class Variable:
    """A value that depends on the input: ``shape`` is that of one sample in the source model.

    ``kind`` says what the source model takes it for: ``real`` numbers (an int8 tensor then stands for the real
    numbers of its quantisation), ``whole`` numbers (indices), ``stored`` integers between QuantizeLinear and
    DequantizeLinear, or ``settled``: an int8 tensor to which the activation and QuantizeLinear that alone follow
    are already applied.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    arrangement: Arrangement
    kind: str = "real"

    @property
    def is_int8(self) -> bool:
        return self.tensor.dtype == "int8"

    @property
    def quantization(self) -> Quantization:
        """Of an int8 tensor."""
        assert self.tensor.quantization is not None
        return self.tensor.quantization


Value = Variable | Constant


@dataclass(frozen=True, eq=False)
class Target:
    """The quantisation that alone follows a node, behind an activation (``relu``, ``relu6``) or ``none``."""

    quantization: Quantization
    kind: str


@dataclass(frozen=True, eq=False)
class Call:
    """One ONNX node with its inputs resolved. ``is_output``: it computes the output of the model.

    ``moved`` remembers, for all nodes of a model, what is shared between them.
    """

    where: str
    name: str
    output: str
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    opset: int
    batch: int
    is_output: bool
    target: Target | None
    builder: Builder
    moved: dict[tuple[Any, ...], Tensor]

    def once(
        self, op: str, x: Tensor, wish: str, quantization: Quantization | None = None, **attributes: Any
    ) -> Tensor:
        """A node that all calls share, however many of them want the same of the same tensor."""
        key = (op, x.name, *attributes.values())
        if key not in self.moved:
            self.moved[key] = self.emit(op, x, wish=wish, quantization=quantization, **attributes)
        return self.moved[key]

    def seen_as(self, x: Tensor, shape: tuple[int, ...], wish: str) -> Tensor:
        """``x`` reshaped; ``x`` itself if it has that shape."""
        return x if x.shape == shape else self.once("reshape", x, wish, x.quantization, shape=shape)

    def input(self, index: int) -> Value | None:
        """An input, or None where an optional one is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def variable(self, index: int = 0) -> Variable:
        value = self.input(index)
        if not isinstance(value, Variable):
            raise ModelError(f"{self.where}: input {index} must depend on the input of the model")
        return value

    def array(self, index: int, what: str) -> Constant:
        value = self.input(index)
        if not isinstance(value, Constant):
            raise ModelError(f"{self.where}: its {what} must be constant")
        return value

    def full(self, x: Variable) -> tuple[int, ...]:
        """The shape in the source model, batch first."""
        return (self.batch, *x.shape)

    def emit(
        self,
        op: str,
        *inputs: Tensor,
        wish: str = "",
        quantization: Quantization | None = None,
        **attributes: Any,
    ) -> Tensor:
        """A node; one without a ``wish`` computes the output of the call and has its name."""
        node = "" if wish else self.name
        return self.builder.emit(op, inputs, wish or self.output, self.where, node, quantization, **attributes)

    def result(self, tensor: Tensor, shape: Sequence[int], order: Sequence[int] | None = None) -> Variable:
        """A new value of ``shape`` whose axes ``tensor`` has in ``order``; without it, as they are."""
        shape = tuple(shape)
        return Variable(tensor, shape, plain(shape) if order is None else arrange(shape, order))

    def vector(self, x: Variable) -> Tensor:
        """The elements of ``x`` in the order of memory."""
        return self.seen_as(x.tensor, (x.tensor.size,), f"{x.tensor.name}.vector")

    def arranged(self, x: Variable, order: Sequence[int], shape: tuple[int, ...] | None = None) -> Tensor:
        """The tensor of ``x`` with the axes of its shape in ``order``, seen as ``shape`` if that is given."""
        wish, name = f"{x.tensor.name}.arranged", x.tensor.name
        target = shape or tuple(x.shape[axis] for axis in order)
        wanted = tuple(axis for axis in order if x.shape[axis] != 1)
        have = x.arrangement.axes(x.shape)
        if have == wanted:
            return self.seen_as(x.tensor, target, f"{name}.reshaped")
        if have is None:
            sizes = tuple(x.arrangement.grid[index] for index in x.arrangement.order)
            back = tuple(int(index) for index in np.argsort(x.arrangement.order))
            tensor = self.seen_as(x.tensor, sizes, f"{name}.grid")
            tensor = self.once("transpose", tensor, f"{name}.listed", tensor.quantization, permutation=back)
            return self.arranged(replace(x, tensor=tensor, arrangement=plain(x.shape)), order, shape)
        # axes of size 1 are left out of the move and come back with the last reshape
        sizes = tuple(x.shape[axis] for axis in have)
        tensor = self.seen_as(x.tensor, sizes, f"{name}.axes")
        turned = tuple(have.index(axis) for axis in wanted)
        tensor = self.once("transpose", tensor, wish, tensor.quantization, permutation=turned)
        return self.seen_as(tensor, target, f"{wish}.reshaped")

    def ending_in(self, x: Variable, axes: Sequence[int]) -> Variable:
        """``x`` in a tensor whose last dimension is these axes as one; nothing is moved if that is so already."""
        have = x.arrangement.axes(x.shape)
        rest = [axis for axis in range(len(x.shape)) if axis not in axes]
        if have is not None:
            rank = {axis: index for index, axis in enumerate(have)}
            rest.sort(key=lambda axis: rank.get(axis, -1))
        order, size = (*rest, *axes), math.prod(x.shape[axis] for axis in axes)
        if x.tensor.shape[-1:] == (size,) and x.arrangement == arrange(x.shape, order):
            return x
        tensor = self.arranged(x, order, (*(x.shape[axis] for axis in rest), size))
        return replace(x, tensor=tensor, arrangement=arrange(x.shape, order))

    def listed(self, x: Variable) -> Variable:
        """``x`` with its elements as the source model lists them, in a tensor of its shape."""
        return replace(x, tensor=self.arranged(x, range(len(x.shape))), arrangement=plain(x.shape))

    def real(self, x: Variable) -> Variable:
        """``x`` in a float32 tensor."""
        if not x.is_int8:
            return x
        q = x.quantization
        scale, zero_point = float(q.scale), int(q.zero_point)
        wish = f"{x.tensor.name}.real"
        return replace(x, tensor=self.once("dequantize", x.tensor, wish, scale=scale, zero_point=zero_point))

    def settled(self, x: Variable, tensor: Tensor) -> Variable:
        """``x`` in another tensor, that of an int8 operator to which the target is already applied."""
        return replace(x, tensor=tensor, kind="settled")

    def as_shape(self, x: Variable, full: Sequence[int]) -> Variable:
        """``x`` reshaped to a shape given with its batch dimension."""
        if not full or full[0] != self.batch:
            raise ModelError(
                f"{self.where}: turns {self.full(x)} into {tuple(full)}, which removes or mixes the batch "
                f"dimension (the first, {self.batch}); a device sees one sample at a time"
            )
        shape = tuple(full[1:])
        if x.arrangement.is_plain:
            return replace(x, tensor=self.builder.reshape(x.tensor, shape, self.output, self.where), shape=shape)
        return replace(x, shape=shape)

    def per_sample(self, constant: Constant, full: tuple[int, ...]) -> np.ndarray:
        """A constant spread to the shape of one sample of a value of shape ``full``."""
        try:
            spread = np.broadcast_to(constant.array, full)
        except ValueError:
            raise ModelError(
                f"{self.where}: '{constant.name}' of shape {constant.array.shape} does not fit into {full}"
            ) from None
        if len(full) == constant.array.ndim and not (constant.array == constant.array[:1]).all():
            raise ModelError(f"{self.where}: '{constant.name}' differs between the samples of a batch")
        sample: np.ndarray = spread[0]
        return sample


Converter = Callable[[Call], Value]
