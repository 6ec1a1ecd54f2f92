"""Activations and element-wise arithmetic. A gradient reads the activation's output, never its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape, Tape, same_dtype

HEADER = "mt_kernels_elementwise.h"
Reference = Callable[..., np.ndarray]


def same_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    shapes = {tensor.shape for tensor in inputs}
    if len(shapes) != 1:
        raise ValueError(f"takes tensors of one shape, not {', '.join(str(tensor.shape) for tensor in inputs)}")
    return (inputs[0].shape,)


def elementwise_kernel(function: str, *names: str) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """A call ``function(inputs..., output, attributes named here..., size)``."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        extra = tuple(float(node.attributes[name]) for name in names)
        return KernelCall(function, (*node.inputs, node.output, *extra, tensors[node.output].size))

    return kernel


def activation(
    name: str,
    summary: str,
    forward: Reference,
    backward: Reference,
    *attributes: str,
    kernel: str | None = None,
    header: str = HEADER,
) -> tuple[Op, Op]:
    """An activation y = forward(x) and its gradient dx = backward(dy, y)."""

    def gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
        x = node.inputs[0]
        return {x: tape.emit(f"{name}_grad", (dy, node.output), f"{x}.grad", node.attributes)} if tape.wants(x) else {}

    return (
        Op(
            name,
            summary,
            same_shape,
            lambda inputs, given: (forward(*inputs, *(given[key] for key in attributes)),),
            elementwise_kernel(kernel or f"mt_{name}", *attributes),
            header,
            gradient,
            in_place=(0,),
        ),
        Op(
            f"{name}_grad",
            f"gradient of {name}, from dL/dy and y",
            same_shape,
            lambda inputs, given: (backward(*inputs, *(given[key] for key in attributes)),),
            elementwise_kernel(f"mt_{name}_grad", *attributes),
            header,
            in_place=(0, 1),
        ),
    )


def _softmax(x: np.ndarray) -> np.ndarray:
    e: np.ndarray = np.exp(x - x.max())
    return np.asarray(e / e.sum())


ACTIVATIONS = (
    *activation("relu", "max(x, 0)", lambda x: np.maximum(x, 0), lambda dy, y: dy * (y > 0)),
    *activation("relu6", "min(max(x, 0), 6)", lambda x: np.clip(x, 0, 6), lambda dy, y: dy * ((y > 0) & (y < 6))),
    *activation(
        "leaky_relu",
        "x where x > 0, else alpha x",
        lambda x, alpha: np.where(x > 0, x, alpha * x),
        lambda dy, y, alpha: np.where(y > 0, dy, alpha * dy),
        "alpha",
    ),
    *activation(
        "sigmoid",
        "1 / (1 + exp(-x))",
        lambda x: np.exp(-np.logaddexp(0, -x)),
        lambda dy, y: dy * (y * (1 - y)),
        kernel="mt_sigmoid_all",
    ),
    *activation("tanh", "tanh(x)", np.tanh, lambda dy, y: dy * (1 - y * y), kernel="mt_tanh_all"),
    *activation("softmax", "exp(x) / sum(exp(x)) over all elements", _softmax, lambda dy, y: y * (dy - np.vdot(dy, y))),
)


def _add_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    a, b = node.inputs
    if a == b:
        return {a: tape.emit("add", (dy, dy), f"{a}.grad")} if tape.wants(a) else {}
    return {name: dy for name in node.inputs if tape.wants(name)}


def _multiply_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    a, b = node.inputs
    if a == b and tape.wants(a):
        half = tape.emit("multiply", (dy, a), f"{a}.half_grad")
        return {a: tape.emit("add", (half, half), f"{a}.grad")}
    found = {}
    if tape.wants(a):
        found[a] = tape.emit("multiply", (dy, b), f"{a}.grad")
    if tape.wants(b):
        found[b] = tape.emit("multiply", (dy, a), f"{b}.grad")
    return found


def _scale_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    return {x: tape.emit("scale", (dy,), f"{x}.grad", node.attributes)} if tape.wants(x) else {}


add = Op(
    "add", "a + b", same_shape, lambda inputs, _: (inputs[0] + inputs[1],), elementwise_kernel("mt_add"), HEADER,
    _add_gradient, in_place=(0, 1),
)  # fmt: skip
multiply = Op(
    "multiply", "a * b", same_shape, lambda inputs, _: (inputs[0] * inputs[1],),
    elementwise_kernel("mt_multiply"), HEADER, _multiply_gradient, in_place=(0, 1),
    multiply_adds=lambda inputs, outputs: inputs[0].size,
)  # fmt: skip
scale = Op(
    "scale", "factor * x", same_shape, lambda inputs, given: (inputs[0] * given["factor"],),
    elementwise_kernel("mt_scale", "factor"), HEADER, _scale_gradient, in_place=(0,),
    multiply_adds=lambda inputs, outputs: inputs[0].size,
)  # fmt: skip


def _reshape_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    shape = tuple(attributes["shape"])
    if int(np.prod(shape)) != inputs[0].size:
        raise ValueError(f"cannot reshape {inputs[0].shape} to {shape}: {inputs[0].size} elements")
    return (shape,)


def _reshape_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    if not tape.wants(x):
        return {}
    return {x: tape.emit("reshape", (dy,), f"{x}.grad", {"shape": tape.tensor(x).shape})}


reshape = Op(
    name="reshape",
    summary="the same elements in another shape",
    shape=_reshape_shape,
    reference=lambda inputs, given: (inputs[0].reshape(given["shape"]),),
    kernel=lambda node, tensors: KernelCall("mt_copy_bytes", (node.inputs[0], node.output, tensors[node.output].bytes)),
    header="mt_kernels_layout.h",
    gradient=_reshape_gradient,
    in_place=(0,),
    dtypes=same_dtype,
)

OPS = (*ACTIVATIONS, add, multiply, scale, reshape)
