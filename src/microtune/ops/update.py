"""Optimiser steps as operators: parameter and gradient in, parameter out, in the same memory.

A ``*_dense`` operator takes the two factors of a dense layer's weight gradient, dL/dy and x, and forms
each element of their outer product just when it is used, so that the gradient never occupies memory.
Optimiser state (momentum, second moments) is updated in place too. The learning rate is an input, ``rate``:
it may decay from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape

HEADER = "mt_kernels_update.h"

# operator: (state tensors per parameter, scalar inputs, constants), in the order of the C arguments
RULES: Mapping[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "sgd": (0, ("rate",), ("clip",)),
    "momentum": (1, ("rate",), ("momentum", "clip")),
    "rmsprop": (1, ("rate",), ("smoothing", "epsilon", "clip")),
    "adam": (2, ("correction", "rate"), ("beta1", "beta2", "epsilon", "clip")),
}


def _kernel(
    function: str, states: int, scalars: int, constants: tuple[str, ...], dense: bool
) -> Callable[[Node, Mapping[str, Tensor]], KernelCall]:
    """Node inputs: parameter, states..., scalars..., then gradient or (dL/dy, x)."""

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        memory, rest = node.inputs[: 1 + states], node.inputs[1 + states :]
        values, gradient = rest[:scalars], rest[scalars:]
        parameter = tensors[node.inputs[0]]
        size = tuple(reversed(parameter.shape)) if dense else (parameter.size,)
        extra = tuple(float(node.attributes[name]) for name in constants)
        return KernelCall(function, (*memory, *gradient, *values, *extra, *size))

    return kernel


def _shape(states: int) -> Callable[[Sequence[Tensor], Attributes], tuple[Shape, ...]]:
    return lambda inputs, _: tuple(tensor.shape for tensor in inputs[: 1 + states])


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


def _reference(
    name: str, states: int, scalars: int, dense: bool
) -> Callable[[Sequence[np.ndarray], Attributes], tuple[np.ndarray, ...]]:
    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        state, values, gradient = (
            inputs[1 : 1 + states],
            inputs[1 + states : 1 + states + scalars],
            inputs[-1],
        )
        if dense:
            gradient = np.outer(inputs[-2], inputs[-1])
        return _step(name, inputs[0], state, values, gradient, given)

    return reference


def _ops() -> tuple[Op, ...]:
    found = []
    for name, (states, scalars, constants) in RULES.items():
        for dense in (False, True):
            found.append(
                Op(
                    name=f"{name}_dense" if dense else name,
                    summary=f"{name} step" + (" of a dense weight, from dL/dy and x" if dense else ""),
                    shape=_shape(states),
                    reference=_reference(name, states, len(scalars), dense),
                    kernel=_kernel(f"mt_{name}" + ("_dense" if dense else ""), states, len(scalars), constants, dense),
                    header=HEADER,
                    multiply_adds=lambda inputs: inputs[0].size,
                )
            )
    return tuple(found)


OPS = _ops()
