"""Optimiser steps as operators: parameter and gradient in, parameter out, in the same memory.

A ``*_dense``, ``*_conv2d`` or ``*_depthwise_conv2d`` operator takes the two factors of that layer's weight gradient,
dL/dy and x, and forms each element just when it is used, so that the gradient never occupies memory.
Optimiser state (momentum, second moments) is updated in place too. The learning rate is an input, ``rate``:
it may decay from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.convolution import weight_gradient
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.window import window_output, window_sizes

HEADER = "mt_kernels_update.h"
CONV_HEADER = "mt_kernels_update_conv.h"
# {gradient of a weight: what the update that forms it itself is called, behind the rule}
FUSED: Mapping[str, str] = {f"{layer}_grad_weight": layer for layer in ("dense", "conv2d", "depthwise_conv2d")}

# operator: (state tensors per parameter, scalar inputs, constants), in the order of the C arguments
RULES: Mapping[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "sgd": (0, ("rate",), ("clip",)),
    "momentum": (1, ("rate",), ("momentum", "clip")),
    "rmsprop": (1, ("rate",), ("smoothing", "epsilon", "clip")),
    "adam": (2, ("correction", "rate"), ("beta1", "beta2", "epsilon", "clip")),
}


def _kernel_size(weight: Shape, layer: str) -> Shape:
    return weight[1:3] if layer == "conv2d" else weight[:2]


def _kernel(
    function: str, states: int, scalars: int, constants: tuple[str, ...], layer: str | None
) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """Node inputs: parameter, states..., scalars..., then gradient or (dL/dy, x)."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        memory, rest = node.inputs[: 1 + states], node.inputs[1 + states :]
        values, gradient = rest[:scalars], rest[scalars:]
        parameter = tensors[node.inputs[0]]
        size: tuple[int, ...] = (parameter.size,)
        if layer == "dense":
            size = tuple(reversed(parameter.shape))
        elif layer:
            dy, x = (tensors[name].shape for name in gradient)
            size = (*window_sizes(x, dy, _kernel_size(parameter.shape, layer), node.attributes), x[2], dy[2])
        extra = tuple(float(node.attributes[name]) for name in constants)
        return KernelCall(function, (*memory, *gradient, *values, *extra, *size))

    return kernel


def _gradient_shape(inputs: Sequence[Tensor], given: Attributes, layer: str | None) -> Shape:
    """Shape of the gradient that the last inputs hold or make. Raises ValueError if they do not fit."""
    if layer is None:
        return inputs[-1].shape
    dy, x = inputs[-2].shape, inputs[-1].shape
    if layer == "dense":
        return (*dy, *x)
    kernel = _kernel_size(inputs[0].shape, layer)
    size = window_output(x[:2], kernel, given)
    if dy[:2] != size:
        raise ValueError(f"takes dL/dy {size} for an input {x}, not {dy}")
    return (dy[2], *kernel, x[2]) if layer == "conv2d" else (*kernel, dy[2])


def _shape(states: int, layer: str | None) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        found, gradient = tuple(tensor.shape for tensor in inputs[: 1 + states]), _gradient_shape(inputs, given, layer)
        if set(found) != {gradient}:
            raise ValueError(f"steps a parameter and states of one shape, {gradient}, not {found}")
        return found

    return shape


def _step(
    name: str, parameter: np.ndarray, state: Sequence[np.ndarray], scalars: Sequence[np.ndarray], gradient: np.ndarray,
    given: Attributes,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    if given["clip"] > 0:
        gradient = np.clip(gradient, -given["clip"], given["clip"])
    if name == "sgd":
        return (parameter - scalars[0] * gradient,)
    if name == "momentum":
        velocity = given["momentum"] * state[0] + gradient
        return parameter - scalars[0] * velocity, velocity
    if name == "rmsprop":
        second = given["smoothing"] * state[0] + (1 - given["smoothing"]) * gradient**2
        return parameter - scalars[0] * gradient / (np.sqrt(second) + given["epsilon"]), second
    correction, rate = scalars
    first = given["beta1"] * state[0] + (1 - given["beta1"]) * gradient
    second = given["beta2"] * state[1] + (1 - given["beta2"]) * gradient**2
    # correction holds (1 - beta1^t, sqrt(1 - beta2^t))
    step = rate / correction[0] * first / (np.sqrt(second) / correction[1] + given["epsilon"])
    return parameter - step, first, second


def _gradient(inputs: Sequence[np.ndarray], given: Attributes, layer: str | None) -> np.ndarray:
    if layer is None:
        return inputs[-1]
    if layer == "dense":
        return np.outer(inputs[-2], inputs[-1])
    window = {**given, "kernel": _kernel_size(inputs[0].shape, layer)}
    return weight_gradient(inputs[-2], inputs[-1], window, layer == "depthwise_conv2d")


def _reference(
    name: str, states: int, scalars: int, layer: str | None
) -> Callable[[Sequence[np.ndarray], Attributes], tuple[np.ndarray, ...]]:
    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        state, values = inputs[1 : 1 + states], inputs[1 + states : 1 + states + scalars]
        return _step(name, inputs[0], state, values, _gradient(inputs, given, layer), given)

    return reference


def _multiply_adds(layer: str | None) -> Callable[[Sequence[Tensor], Sequence[Tensor]], int]:
    if layer in (None, "dense"):
        return lambda inputs, outputs: inputs[0].size
    return lambda inputs, outputs: inputs[0].size * (inputs[-2].size // inputs[-2].shape[-1])


def _ops() -> tuple[Op, ...]:
    found = []
    for name, (states, scalars, constants) in RULES.items():
        for layer in (None, *FUSED.values()):
            full = f"{name}_{layer}" if layer else name
            found.append(
                Op(
                    name=full,
                    summary=f"{name} step" + (f" of a {layer} weight, from dL/dy and x" if layer else ""),
                    shape=_shape(states, layer),
                    reference=_reference(name, states, len(scalars), layer),
                    kernel=_kernel(f"mt_{full}", states, len(scalars), constants, layer),
                    header=CONV_HEADER if layer in ("conv2d", "depthwise_conv2d") else HEADER,
                    multiply_adds=_multiply_adds(layer),
                )
            )
    return tuple(found)


OPS = _ops()
