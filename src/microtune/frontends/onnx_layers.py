"""Fully connected layers and batch normalisation of ONNX.

A layer behind an image that is kept channels last gets its weight's columns sorted at import, so that nothing is
transposed on the device.
"""

from __future__ import annotations

import math

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.onnx_elementwise import channel_affine
from microtune.frontends.onnx_quantized import int8_layer
from microtune.frontends.onnx_values import Call, Constant, Value, Variable
from microtune.ir import Tensor


def _dense(
    call: Call,
    x: Variable,
    weight: Constant,
    matrix: np.ndarray,
    bias: Constant | None,
    wish: str,
    stored_axis: int | None = None,
) -> Variable:
    """``matrix`` is the weight as (outputs, inputs), the inputs as the source model lists them.

    bias: (outputs,). stored_axis: which axis of the weight's own array holds the outputs, where that array is the
    matrix or its transpose and may be used as the integers it is.
    """
    outputs = len(matrix)

    def turn(array: np.ndarray) -> np.ndarray:
        own = array.reshape(matrix.shape if stored_axis == 0 else matrix.shape[::-1])
        return x.arrangement.sort(own if stored_axis == 0 else own.T)

    if x.is_int8 and stored_axis is not None:
        y = int8_layer(call, "dense_int8", x, call.vector(x), weight, stored_axis, turn, 0, bias)
        if y is not None:
            return call.settled(call.result(y, (outputs,)), y)
    vector = call.vector(call.real(x))
    named = bias or Constant(f"{call.name}.bias", np.zeros(outputs, np.float32))
    constants: list[Tensor] = [
        call.builder.constant(weight.name, x.arrangement.sort(matrix), call.where),
        call.builder.constant(named.name, named.array, call.where),
    ]
    y = call.builder.emit("dense", (vector, *constants), wish, call.where, call.name)
    return call.result(y, (outputs,))


def gemm(call: Call) -> Value:
    """alpha A' B' + beta C, with A the value and B the weight."""
    x, weight, addend = call.variable(0), call.array(1, "weight"), call.input(2)
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    is_turned = bool(call.attributes.get("transB", 0))
    if call.attributes.get("transA", 0):
        raise ModelError(f"{call.where}: transA=1 transposes the batch; only the weight may be transposed")
    if len(x.shape) != 1 or weight.array.ndim != 2:
        raise ModelError(f"{call.where}: takes matrices, not {call.full(x)} and {weight.array.shape}")
    matrix = weight.array.astype(np.float64) * alpha
    matrix = matrix if is_turned else matrix.T
    if matrix.shape[1] != x.tensor.size:
        raise ModelError(f"{call.where}: the weight {weight.array.shape} does not fit the value {call.full(x)}")
    if not isinstance(addend, Variable):
        bias = None
        if addend is not None:
            vector = call.per_sample(addend, (call.batch, len(matrix)))
            with np.errstate(all="ignore"):  # what is not finite is refused where it becomes a constant
                bias = Constant(addend.name, vector.astype(np.float64) * beta)
        stored_axis = None if alpha != 1.0 else 0 if is_turned else 1
        return _dense(call, x, weight, matrix, bias, call.output, stored_axis)
    product = _dense(call, x, weight, matrix, None, f"{call.output}.product")
    addend = call.real(call.listed(addend))
    if beta != 1.0:
        factor = call.builder.constant(f"{call.name}.beta", np.full(addend.shape, beta), call.where)
        return call.result(
            call.emit(
                "add", product.tensor, call.emit("multiply", addend.tensor, factor, wish=f"{call.output}.addend")
            ),
            product.shape,
        )
    return call.result(call.emit("add", product.tensor, addend.tensor), product.shape)


def matmul(call: Call) -> Value:
    """value @ W, or W @ value where the value is one column per sample."""
    a, b = call.input(0), call.input(1)
    stored_axis = None
    if isinstance(a, Variable) and isinstance(b, Constant):
        x, weight, matrix = a, b, b.array
        full = call.full(x)
        fits = full[-1] == x.tensor.size and len(full) > 1 and 1 <= matrix.ndim <= len(full)
        result = (*full[:-1], *matrix.shape[-1:]) if matrix.ndim > 1 else full[:-1]
        if matrix.ndim > 1:
            matrix = np.swapaxes(matrix, -1, -2)
            stored_axis = 1 if matrix.ndim == 2 else None
    elif isinstance(a, Constant) and isinstance(b, Variable):
        x, weight, matrix = b, a, a.array
        full = call.full(x)
        fits = len(full) > 2 and full[-1] == 1 and full[-2] == x.tensor.size and 1 <= matrix.ndim <= len(full)
        result = (*full[:-2], matrix.shape[-2], 1) if matrix.ndim > 1 else (*full[:-2], 1)
    else:
        raise ModelError(f"{call.where}: one of the two must be a constant weight")
    if not fits or matrix.shape[-1] != x.tensor.size or math.prod(matrix.shape[:-2]) != 1:
        raise ModelError(
            f"{call.where}: {call.full(x)} and the constant '{weight.name}' {weight.array.shape} are not one "
            "dense layer on one vector per sample"
        )
    matrix = matrix.reshape(-1, x.tensor.size)
    flat = result == (call.batch, len(matrix))
    product = _dense(call, x, weight, matrix, None, call.output if flat else f"{call.output}.product", stored_axis)
    return call.as_shape(product, result)


def batch_normalization(call: Call) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift per channel (the first dimension of a sample)."""
    x = call.variable()
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
        offset = shift - mean * factor
    x = call.real(x)
    return channel_affine(
        call, x, 0, Constant(constants[0].name, factor), Constant(constants[1].name, offset), call.output
    )
