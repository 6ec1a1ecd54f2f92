"""Activations made of straight pieces: clamp, hard sigmoid, hard swish."""

from __future__ import annotations

import numpy as np

from microtune.ir.graph import Node
from microtune.ops.elementwise import activation, elementwise_kernel, same_shape
from microtune.ops.op import Op, Tape

HEADER = "mt_kernels_piecewise.h"


def _hard_swish_gradient(tape: Tape, node: Node, dy: str) -> dict[str, str]:
    x = node.inputs[0]
    return {x: tape.emit("hard_swish_grad", (dy, x), f"{x}.grad")} if tape.wants(x) else {}


def _hard_swish_slope(x: np.ndarray) -> np.ndarray:
    return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2 * x + 3) / 6)).astype(x.dtype)


OPS = (
    *activation(
        "clamp",
        "min(max(x, low), high)",
        lambda x, low, high: np.clip(x, low, high),
        lambda dy, y, low, high: dy * ((y > low) & (y < high)),
        "low",
        "high",
        kernel="mt_clamp_all",
        header=HEADER,
    ),
    *activation(
        "hard_sigmoid",
        "min(max(alpha x + beta, 0), 1)",
        lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
        lambda dy, y, alpha, beta: alpha * dy * ((y > 0) & (y < 1)),
        "alpha",
        "beta",
        header=HEADER,
    ),
    Op(
        "hard_swish",
        "x min(max(x + 3, 0), 6) / 6",
        same_shape,
        lambda inputs, _: (inputs[0] * np.clip(inputs[0] + 3, 0, 6) / 6,),
        elementwise_kernel("mt_hard_swish"),
        HEADER,
        _hard_swish_gradient,
        in_place=(0,),
    ),
    Op(
        "hard_swish_grad",
        "gradient of hard_swish, from dL/dy and x",
        same_shape,
        lambda inputs, _: (inputs[0] * _hard_swish_slope(inputs[1]),),
        elementwise_kernel("mt_hard_swish_grad"),
        HEADER,
        in_place=(0, 1),
    ),
)
