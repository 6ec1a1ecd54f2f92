"""The ONNX operators that are read, one small converter each. To add one: write it and enter it in the table.

The source model is read at its own batch size (1 if that is open): a value has the shape (batch, *sample).
The graph drops the batch dimension, so a converter must refuse what mixes samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.frontends.onnx_constants import axes_of, reshaped
from microtune.ir import Tensor


@dataclass(frozen=True, eq=False)
class Constant:
    """A value known at import, with the name it has in the source model."""

    name: str
    array: np.ndarray


Value = Tensor | Constant


@dataclass(frozen=True, eq=False)
class Call:
    """One ONNX node with its inputs resolved. ``is_output``: it computes the output of the model."""

    where: str
    name: str
    output: str
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    opset: int
    batch: int
    is_output: bool
    builder: Builder

    def input(self, index: int) -> Value | None:
        """An input, or None where an optional one is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int = 0) -> Tensor:
        value = self.input(index)
        if not isinstance(value, Tensor):
            raise ModelError(f"{self.where}: input {index} must depend on the input of the model")
        return value

    def array(self, index: int, what: str) -> Constant:
        value = self.input(index)
        if not isinstance(value, Constant):
            raise ModelError(f"{self.where}: its {what} must be constant")
        return value

    def full(self, x: Tensor) -> tuple[int, ...]:
        """The shape in the source model, batch first."""
        return (self.batch, *x.shape)

    def emit(self, op: str, *inputs: Tensor, wish: str = "", **attributes: Any) -> Tensor:
        return self.builder.emit(
            op, inputs, wish or self.output, self.where, self.name if not wish else "", **attributes
        )

    def as_shape(self, x: Tensor, full: Sequence[int], wish: str = "") -> Tensor:
        """``x`` reshaped to a shape given with its batch dimension."""
        if not full or full[0] != self.batch:
            raise ModelError(
                f"{self.where}: turns {self.full(x)} into {tuple(full)}, which removes or mixes the batch "
                f"dimension (the first, {self.batch}); a device sees one sample at a time"
            )
        return self.builder.reshape(x, tuple(full[1:]), wish or self.output, self.where)

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

    def constant(self, constant: Constant, full: tuple[int, ...]) -> Tensor:
        return self.builder.constant(constant.name, self.per_sample(constant, full), self.where)


Converter = Callable[[Call], Value]


def _dense(call: Call, x: Tensor, weight: Constant, matrix: np.ndarray, bias: Tensor | None, wish: str) -> Tensor:
    """``matrix`` is the weight as (outputs, inputs)."""
    if bias is None:
        bias = call.builder.constant(f"{call.name}.bias", np.zeros(len(matrix), np.float32), call.where)
    return call.builder.emit(
        "dense",
        (x, call.builder.constant(weight.name, matrix, call.where), bias),
        wish,
        call.where,
        call.name,
    )


def _gemm(call: Call) -> Value:
    """alpha A' B' + beta C, with A the value and B the weight."""
    x, weight, addend = call.tensor(0), call.array(1, "weight"), call.input(2)
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    if call.attributes.get("transA", 0):
        raise ModelError(f"{call.where}: transA=1 transposes the batch; only the weight may be transposed")
    if len(x.shape) != 1 or weight.array.ndim != 2:
        raise ModelError(f"{call.where}: takes matrices, not {call.full(x)} and {weight.array.shape}")
    matrix = weight.array.astype(np.float64) * alpha
    matrix = matrix if call.attributes.get("transB", 0) else matrix.T
    if matrix.shape[1] != x.size:
        raise ModelError(f"{call.where}: the weight {weight.array.shape} does not fit the value {call.full(x)}")
    if not isinstance(addend, Tensor):
        bias = None
        if addend is not None:
            vector = call.per_sample(addend, (call.batch, len(matrix))).astype(np.float64) * beta
            bias = call.builder.constant(addend.name, vector, call.where)
        return _dense(call, x, weight, matrix, bias, call.output)
    product = _dense(call, x, weight, matrix, None, f"{call.output}.product")
    if beta != 1.0:
        factor = call.builder.constant(f"{call.name}.beta", np.full(addend.shape, beta), call.where)
        addend = call.emit("multiply", addend, factor, wish=f"{call.output}.addend")
    return call.emit("add", product, addend)


def _matmul(call: Call) -> Value:
    """value @ W, or W @ value where the value is one column per sample."""
    a, b = call.input(0), call.input(1)
    if isinstance(a, Tensor) and isinstance(b, Constant):
        x, weight, matrix = a, b, b.array
        full = call.full(x)
        fits = full[-1] == x.size and len(full) > 1 and 1 <= matrix.ndim <= len(full)
        result = (*full[:-1], *matrix.shape[-1:]) if matrix.ndim > 1 else full[:-1]
        if matrix.ndim > 1:
            matrix = np.swapaxes(matrix, -1, -2)
    elif isinstance(a, Constant) and isinstance(b, Tensor):
        x, weight, matrix = b, a, a.array
        full = call.full(x)
        fits = len(full) > 2 and full[-1] == 1 and full[-2] == x.size and 1 <= matrix.ndim <= len(full)
        result = (*full[:-2], matrix.shape[-2], 1) if matrix.ndim > 1 else (*full[:-2], 1)
    else:
        raise ModelError(f"{call.where}: one of the two must be a constant weight")
    if not fits or matrix.shape[-1] != x.size or math.prod(matrix.shape[:-2]) != 1:
        raise ModelError(
            f"{call.where}: {call.full(x)} and the constant '{weight.name}' {weight.array.shape} are not one "
            "dense layer on one vector per sample"
        )
    matrix = matrix.reshape(-1, x.size)
    vector = call.as_shape(x, (call.batch, x.size), f"{call.output}.vector")
    flat = result == (call.batch, len(matrix))
    product = _dense(call, vector, weight, matrix, None, call.output if flat else f"{call.output}.product")
    return call.as_shape(product, result)


def _with_constant(call: Call, op: str, x: Tensor, constant: Constant, wish: str = "") -> Tensor:
    return call.emit(op, x, call.constant(constant, call.full(x)), wish=wish)


def _negated(call: Call, x: Tensor, wish: str) -> Tensor:
    minus = call.builder.constant(f"{call.name}.minus", np.full(x.shape, -1.0), call.where)
    return call.emit("multiply", x, minus, wish=wish)


def _commutative(op: str) -> Converter:
    """An element-wise operator of two values, or of a value and a constant in either order."""

    def convert(call: Call) -> Value:
        a, b = call.inputs
        if isinstance(a, Constant):
            a, b = b, a
        if isinstance(a, Tensor) and isinstance(b, Constant):
            return _with_constant(call, op, a, b)
        return call.emit(op, call.tensor(0), call.tensor(1))

    return convert


def _subtract(call: Call) -> Value:
    a, b = call.inputs
    if isinstance(b, Constant):
        return _with_constant(call, "add", call.tensor(0), Constant(b.name, -b.array.astype(np.float64)))
    negative = _negated(call, call.tensor(1), f"{call.output}.negative")
    if isinstance(a, Constant):
        return _with_constant(call, "add", negative, a)
    return call.emit("add", call.tensor(0), negative)


def _divide(call: Call) -> Value:
    x, divisor = call.tensor(0), call.array(1, "divisor")
    if not divisor.array.all():
        raise ModelError(f"{call.where}: '{divisor.name}' divides by zero")
    with np.errstate(over="ignore"):
        return _with_constant(call, "multiply", x, Constant(divisor.name, 1.0 / divisor.array.astype(np.float64)))


def _batch_normalization(call: Call) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift per channel (the first dimension of a sample)."""
    x = call.tensor(0)
    if call.attributes.get("training_mode", 0):
        raise ModelError(f"{call.where}: is in training mode; export the model for inference")
    if call.attributes.get("spatial", 1) != 1 or not x.shape:
        raise ModelError(f"{call.where}: needs one mean and variance per channel")
    names = ("scale", "shift", "mean", "variance")
    constants = [call.array(index, name) for index, name in enumerate(names, 1)]
    scale, shift, mean, variance = (item.array.astype(np.float64) for item in constants)
    for item in constants:
        if item.array.shape != (x.shape[0],):
            raise ModelError(f"{call.where}: '{item.name}' has the shape {item.array.shape}, not {(x.shape[0],)}")
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    column = (-1, *[1] * (len(x.shape) - 1))
    scaled = _with_constant(
        call, "multiply", x, Constant(constants[0].name, factor.reshape(column)), f"{call.output}.scaled"
    )
    return _with_constant(call, "add", scaled, Constant(constants[1].name, (shift - mean * factor).reshape(column)))


def _clip(call: Call) -> Value:
    """ReLU or ReLU6; the limits are attributes before opset 11 and inputs since."""
    limits = [call.attributes.get("min", -np.inf), call.attributes.get("max", np.inf)]
    for index in (1, 2):
        if call.input(index) is not None:
            limits[index - 1] = float(call.array(index, "limit").array.reshape(()))
    low, high = limits
    if low == 0 and high == 6:
        return call.emit("relu6", call.tensor())
    if low == 0 and high >= np.finfo(np.float32).max:
        return call.emit("relu", call.tensor())
    raise ModelError(
        f"{call.where}: limits {low:g} and {high:g} are not supported. Supported: 0 and 6 (ReLU6), 0 and none (ReLU)"
    )


def _softmax(call: Call) -> Value:
    """Over the whole sample. Before opset 13 all dimensions from ``axis`` on count as one."""
    x = call.tensor()
    full = call.full(x)
    axis = call.attributes.get("axis", 1 if call.opset < 13 else -1)
    if not -len(full) <= axis < len(full):
        raise ModelError(f"{call.where}: axis {axis} does not fit {full}")
    axis %= len(full)
    together = math.prod(full[axis:]) if call.opset < 13 else full[axis]
    if axis == 0 or together != x.size:
        raise ModelError(f"{call.where}: must span a whole sample; axis {axis} of {full} does not")
    return call.emit("softmax", x)


def _identity(call: Call) -> Value:
    return call.tensor()


def _dropout(call: Call) -> Value:
    training = call.input(2)
    if training is not None and (not isinstance(training, Constant) or training.array.any()):
        raise ModelError(f"{call.where}: is in training mode; export the model for inference")
    return call.tensor()


def _cast(call: Call) -> Value:
    import onnx

    target = onnx.TensorProto.DataType.Name(call.attributes["to"])
    if target not in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"):
        raise ModelError(f"{call.where}: casts to {target}; only casts between floating-point types are supported")
    return call.tensor()


def _flatten(call: Call) -> Value:
    x = call.tensor()
    full, axis = call.full(x), call.attributes.get("axis", 1)
    if not -len(full) <= axis <= len(full):
        raise ModelError(f"{call.where}: axis {axis} does not fit {full}")
    axis = axis + len(full) if axis < 0 else axis
    return call.as_shape(x, (math.prod(full[:axis]), math.prod(full[axis:])))


def _reshape(call: Call) -> Value:
    x, target = call.tensor(0), call.array(1, "shape").array
    if target.ndim != 1 or target.size > 8 or target.dtype.kind != "i":
        raise ModelError(f"{call.where}: takes a list of at most 8 whole numbers as shape")
    allow_zero = bool(call.attributes.get("allowzero", 0))
    return call.as_shape(x, reshaped(call.full(x), target.tolist(), allow_zero, call.where))


def _squeeze(call: Call) -> Value:
    x = call.tensor()
    full = call.full(x)
    given = (None, call.array(1, "axes").array) if call.input(1) is not None else ()
    axes = axes_of(given, call.attributes, len(full), call.where)
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(full) if size == 1)
    if any(full[axis] != 1 for axis in axes):
        raise ModelError(f"{call.where}: axes {axes} of {full} are not all of size 1")
    # at the very end nothing can mistake the next dimension for the batch
    kept = [size for axis, size in enumerate(full) if axis not in axes or (axis == 0 and call.is_output)]
    return call.as_shape(x, kept if 0 not in axes or call.is_output else kept[:0])


def _unsqueeze(call: Call) -> Value:
    x = call.tensor()
    full = list(call.full(x))
    given = call.attributes.get("axes")
    if given is None:
        given = call.array(1, "axes").array
    count = np.atleast_1d(given).size
    for axis in axes_of((), {"axes": given}, len(full) + count, call.where) or ():
        if axis == 0:
            raise ModelError(f"{call.where}: puts a dimension before the batch")
        full.insert(axis, 1)
    return call.as_shape(x, full)


def _transpose(call: Call) -> Value:
    """Only where no element moves: dimensions of size 1 change places."""
    x = call.tensor()
    full = call.full(x)
    order = call.attributes.get("perm", tuple(reversed(range(len(full)))))
    if sorted(order) != list(range(len(full))):
        raise ModelError(f"{call.where}: perm {tuple(order)} does not fit {full}")
    moved = [axis for axis in order if full[axis] != 1]
    if order[0] != 0 or moved != sorted(moved):
        raise ModelError(f"{call.where}: moves elements of {full} to other places, which is not supported")
    return call.as_shape(x, [full[axis] for axis in order])


def _shape(call: Call) -> Value:
    full = call.full(call.tensor())
    return Constant(call.output, np.array(full[call.attributes.get("start", 0) : call.attributes.get("end")], np.int64))


CONVERTERS: Mapping[str, Converter] = {
    "Add": _commutative("add"),
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Div": _divide,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _identity,
    "LeakyRelu": lambda call: call.emit("leaky_relu", call.tensor(), alpha=float(call.attributes.get("alpha", 0.01))),
    "MatMul": _matmul,
    "Mul": _commutative("multiply"),
    "Neg": lambda call: _negated(call, call.tensor(), call.output),
    "Relu": lambda call: call.emit("relu", call.tensor()),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": lambda call: call.emit("sigmoid", call.tensor()),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _subtract,
    "Tanh": lambda call: call.emit("tanh", call.tensor()),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators on values; ``Constant`` and those of CONSTANT_RULES are computed at import."""
