"""What a TFLite operator works on: constants, values that depend on the input, and the call of one converter.

The file is channels last as microtune is: a value of the graph has the file's shape without its batch dimension.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import Builder, as_float32
from microtune.frontends.tflite_reader import Operator, Stored
from microtune.ir import Quantization, Tensor
from microtune.ops.quantized_build import activation_quantization

ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh"}
LARGEST_SPREAD = 1 << 20
"""Most elements of a constant that is stored smaller in the file: flash for it is beyond any target."""
_OPERATION = re.compile(
    r"/(Conv[12]D|depthwise|convolution|MatMul|BiasAdd|FusedBatchNormV3|ReadVariableOp|resource|ExpandDims)(_?\d+)?$"
)
_NAMELESS = re.compile(r"(tfl\.|arith\.|std\.)\w*|\s*")  # what newer converters call constants


@dataclass(frozen=True, eq=False)
class Constant:
    """A value known at import: integers as the file stores them, or real numbers."""

    array: np.ndarray
    stored: Stored


@dataclass(frozen=True, eq=False)
class Variable:
    """A value that depends on the input. ``whole``: the file takes it for integers; ``tensor`` is then float32."""

    tensor: Tensor
    whole: bool = False


Value = Constant | Variable


def tensor_name(stored: Stored) -> str:
    """A tensor's name for the graph. The converter joins the names of what it fused; the first was the last to run."""
    return stored.name.split(";")[0].replace("/", ".") or f"tensor{stored.index}"


def whole_quantization(stored: Stored, where: str) -> Quantization:
    """The quantisation of an int8 tensor that has one scale. Raises ModelError if it has not."""
    if stored.dtype != "int8":
        raise ModelError(f"{where}: {stored.where} is of the type {stored.dtype}; int8 is needed here")
    if len(stored.scales) != 1 or len(stored.zero_points) != 1:
        raise ModelError(f"{where}: {stored.where} needs one scale and one zero point, it has {len(stored.scales)}")
    try:
        return activation_quantization(float(stored.scales[0]), int(stored.zero_points[0]))
    except ValueError as error:
        raise ModelError(f"{where}: {stored.where}: {error}") from error


def channel_scales(stored: Stored, axis: int, channels: int, where: str) -> np.ndarray:
    """A scale for each of the channels of int8 weights along ``axis`` of the file's shape; one for all is repeated."""
    scales, zero_points = stored.scales, stored.zero_points
    if len(scales) not in (1, channels) or (len(scales) > 1 and stored.axis != axis):
        raise ModelError(
            f"{where}: the weights {stored.where} have {len(scales)} scales along axis {stored.axis}; "
            f"one, or {channels} along axis {axis}, are needed"
        )
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ModelError(f"{where}: the weights {stored.where} have a scale that is not above zero")
    if (zero_points != 0).any():
        raise ModelError(f"{where}: the weights {stored.where} have zero points; symmetric weights are needed")
    return np.array(np.broadcast_to(scales, channels), np.float32)


@dataclass(frozen=True, eq=False)
class Call:
    """One operator with its inputs resolved; ``outputs`` are as the file declares them."""

    where: str
    operator: Operator
    inputs: tuple[Value | None, ...]
    outputs: tuple[Stored, ...]
    batch: int
    builder: Builder

    @property
    def y(self) -> Stored:
        return self.outputs[0]

    def error(self, what: str) -> ModelError:
        return ModelError(f"{self.where}: {what}")

    def input(self, index: int) -> Value | None:
        """An input, or None where an optional one is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int = 0) -> Tensor:
        """An input that depends on the model's, in real numbers or int8."""
        value = self.input(index)
        if not isinstance(value, Variable):
            raise self.error(f"input {index} must depend on the input of the model")
        if value.whole:
            raise self.error(f"input {index} holds integers; supported on them are GATHER, CAST and reshaping")
        return value.tensor

    def constant(self, index: int, what: str) -> Constant:
        value = self.input(index)
        if not isinstance(value, Constant):
            raise self.error(f"its {what} must be constant")
        return value

    def integers(self, index: int, what: str, count: int | None = None) -> list[int]:
        """A constant vector of integers, of ``count`` entries if that is given."""
        array = self.constant(index, what).array
        if array.dtype.kind != "i" or array.ndim > 1 or (count is not None and array.size != count):
            wanted = "" if count is None else f"{count} "
            raise self.error(f"its {what} must be {wanted}integers, not {array.dtype} of the shape {array.shape}")
        return [int(value) for value in array.reshape(-1)]

    def option(self, kind: str, name: str) -> Any:
        """A field of the operator's options, which are of this kind."""
        return self.operator.option(kind, name)

    def activation(self, kind: str) -> str:
        """The activation fused into the operator, by our name."""
        number = self.option(kind, "FusedActivationFunction")
        if number not in ACTIVATIONS:
            raise self.error(
                f"fused activation {number} is not supported. Supported: {', '.join(ACTIVATIONS.values())}"
            )
        return ACTIVATIONS[number]

    def sample_axis(self, axis: int, rank: int) -> int:
        """An axis of the file's shape as one of the sample's; the batch dimension is refused."""
        if not -rank <= axis < rank:
            raise self.error(f"axis {axis} does not exist among {rank} dimensions")
        if axis % rank == 0:
            raise self.error("works along the batch dimension (axis 0); a device sees one sample at a time")
        return axis % rank - 1

    def sample_shape(self, stored: Stored) -> tuple[int, ...]:
        """The shape of one sample of a tensor that depends on the input."""
        if not stored.shape or stored.shape[0] != self.batch:
            raise self.error(
                f"{stored.where} has the shape {stored.shape}, which removes or mixes the batch dimension "
                f"(the first, {self.batch}); a device sees one sample at a time"
            )
        return stored.shape[1:]

    def per_sample(self, array: np.ndarray, shape: Sequence[int], spread: bool = True) -> np.ndarray:
        """A constant for one sample of a value of this shape; ``spread`` to it, or as small as the file has it."""
        full = (self.batch, *shape)
        try:
            np.broadcast_to(array, full)
        except ValueError:
            raise self.error(f"a constant of the shape {array.shape} does not fit into {full}") from None
        if array.ndim == len(full):
            if not (array == array[:1]).all():
                raise self.error("its constant differs between the samples of a batch")
            array = array[0]
        if spread and math.prod(shape) > max(array.size, LARGEST_SPREAD):
            raise self.error(f"its constant of {array.size} numbers would be spread over {math.prod(shape)}")
        return np.broadcast_to(array, tuple(shape)) if spread else array

    def emit(self, op: str, *inputs: Tensor, wish: str = "", node: str = "", **attributes: Any) -> Tensor:
        """A node; one without a ``wish`` computes the operator's output and has its name."""
        return self.builder.emit(op, inputs, wish or tensor_name(self.y), self.where, node, **attributes)

    def activated(self, op: str, inputs: Sequence[Tensor], kind: str, node: str = "", **attributes: Any) -> Tensor:
        """A float operator with the activation of this kind behind it."""
        name = node or tensor_name(self.y)
        if kind == "none":
            return self.emit(op, *inputs, node=node, **attributes)
        x = self.emit(op, *inputs, wish=f"{name}.sum", node=node, **attributes)
        return self.emit("clamp", x, low=-1.0, high=1.0) if kind == "relu_n1_to_1" else self.emit(kind, x)

    def layer_name(self, weight: Stored) -> str:
        """The layer's name as its author wrote it, from that of its weights; else operator and index."""
        name = weight.name.split(";")[-1]
        while (shorter := _OPERATION.sub("", name)) != name:
            name = shorter
        if _NAMELESS.fullmatch(name):
            return f"{self.operator.code.lower().removesuffix('_2d')}_{self.operator.index}"
        return name.replace("/", ".")

    def quantization(self, stored: Stored) -> Quantization:
        """Of an int8 tensor with one scale."""
        return whole_quantization(stored, self.where)

    def real(self, constant: Constant, axis: int | None = None) -> np.ndarray:
        """A constant as float32; int8 weights with their scales along ``axis``."""
        array, stored = constant.array, constant.stored
        if array.dtype.kind == "f":
            return as_float32(array, f"{self.where}: {stored.where}")
        if array.dtype != np.int8:
            raise self.error(f"the constant {stored.where} is of the type {array.dtype}; float32 or int8 is needed")
        if axis is None or len(stored.scales) == 1:
            q = self.quantization(stored)
            return np.asarray((array.astype(np.float32) - np.float32(q.zero_point)) * q.scale, np.float32)
        scales = channel_scales(stored, axis, array.shape[axis], self.where)
        shape = [1] * array.ndim
        shape[axis] = -1
        return as_float32(array * scales.reshape(shape), f"{self.where}: {stored.where}")


Converter = Callable[[Call], Value | tuple[Value, ...]]
