"""int8 layers: convolution, depthwise convolution and dense, as the TFLite quantisation specification has them.

y = clamp(y_zero + rescale(bias + sum of (x - x_zero) w), low, high), with a multiplier and a shift per output
channel. Weights have no zero point; padding adds nothing. Sums are exact; adding the bias saturates to int32.
LiteRT's plain kernels round convolutions twice (``rescale``) and fully connected layers once (``rescale_once``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.fixed_point import rescale, rescale_once, saturate
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.quantized_gradients import layer_gradient
from microtune.ops.window import convolution_multiply_adds, window_output, window_sizes, windows

HEADER = "mt_kernels_int8_layers.h"
DEPTHWISE_HEADER = "mt_kernels_int8_depthwise.h"
# (x - x_zero) w is at most 255 * 128, so that sums of this many terms fit into 31 bits
MOST_TERMS = (2**31 - 1) // (255 * 128)
# channels a depthwise kernel works on at once; mt_kernels_int8.h calls it MT_INT8_BLOCK
BLOCK = 16


def int8_outputs(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[str, ...]:
    """For operators with one int8 output."""
    return ("int8",)


def check_types(inputs: Sequence[Tensor], *dtypes: str) -> None:
    """Raise ValueError unless the inputs have these types."""
    given = tuple(tensor.dtype for tensor in inputs)
    if given != dtypes:
        raise ValueError(f"takes {', '.join(dtypes)}, not {', '.join(given)}")


def _check_layer(inputs: Sequence[Tensor], outputs: int, terms: int, may_learn: bool = True) -> None:
    learnt = ("int8",) if may_learn and len(inputs) == 6 else ()
    check_types(inputs, "int8", "int8", "int32", "int32", "int8", *learnt)
    for name, tensor in zip(("bias", "multiplier", "shift"), inputs[2:5], strict=True):
        if tensor.shape != (outputs,):
            raise ValueError(f"takes a {name} of shape ({outputs},), not {tensor.shape}")
    if terms > MOST_TERMS:
        raise ValueError(f"sums {terms} products; 32 bits hold {MOST_TERMS}")


def _check_learnt(weight: Tensor, learnt: Sequence[Tensor], attributes: Attributes) -> None:
    """A sixth input stands for the weight's input channels ``start`` to ``start`` + its own."""
    if not learnt:
        return
    *before, channels = weight.shape
    start, own = attributes["start"], learnt[0].shape[-1] if learnt[0].shape else 0
    if learnt[0].shape[:-1] != tuple(before) or start < 0 or start + own > channels:
        raise ValueError(f"cannot put learnt channels {learnt[0].shape} at {start} of a weight {weight.shape}")


def _whole_weight(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """The weight as int64, with the learnt channels in their place."""
    weight = inputs[1].astype(np.int64)
    if len(inputs) == 6:
        start = attributes["start"]
        weight[..., start : start + inputs[5].shape[-1]] = inputs[5]
    return weight


def _finish(
    sums: np.ndarray, inputs: Sequence[np.ndarray], given: Attributes, scaled: Callable[..., np.ndarray] = rescale
) -> np.ndarray:
    accumulator = saturate(sums + inputs[2].astype(np.int64))
    y = given["y_zero"] + scaled(accumulator, inputs[3], inputs[4])
    return np.asarray(np.clip(y, given["low"], given["high"]), np.int8)


def _shifted(x: np.ndarray, attributes: Attributes) -> np.ndarray:
    return np.asarray(x.astype(np.int64) - attributes["x_zero"])


def _limits(attributes: Attributes) -> tuple[int, ...]:
    return tuple(int(attributes[name]) for name in ("x_zero", "y_zero", "low", "high"))


def _layer_call(function: str, node: Node, sizes: tuple[int, ...], workspace: bool = False) -> KernelCall:
    """``function(inputs..., output[, workspace], sizes..., [first learnt channel, their number,] limits...)``."""
    outputs = node.outputs if workspace else node.outputs[:1]
    return KernelCall(function, (*node.inputs, *outputs, *sizes, *_limits(node.attributes)))


def _conv2d_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, weight, *rest = inputs
    if len(x.shape) != 3 or len(weight.shape) != 4 or weight.shape[3] != x.shape[2]:
        raise ValueError(f"takes x (H, W, C) and weight (O, kh, kw, C), not {x.shape} and {weight.shape}")
    outputs, rows, columns, channels = weight.shape
    _check_layer(inputs, outputs, rows * columns * channels)
    _check_learnt(weight, rest[3:], attributes)
    return ((*window_output(x.shape[:2], (rows, columns), attributes), outputs),)


def _conv2d_reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
    weight = _whole_weight(inputs, attributes)
    taps = windows(_shifted(inputs[0], attributes), weight.shape[1:3], attributes, 0)
    sums = np.zeros((*taps.shape[:2], len(weight)), np.int64)
    for row, column in np.ndindex(weight.shape[1:3]):
        sums += taps[..., row, column] @ weight[:, row, column].T
    return (_finish(sums, inputs, attributes),)


def _learnt_range(node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    return (int(node.attributes["start"]), tensors[node.inputs[5]].shape[-1]) if len(node.inputs) == 6 else ()


def _conv2d_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    x, weight, y = tensors[node.inputs[0]].shape, tensors[node.inputs[1]].shape, tensors[node.output].shape
    learnt = _learnt_range(node, tensors)
    sizes = (*window_sizes(x, y, weight[1:3], node.attributes), x[2], y[2], *learnt)
    return _layer_call("mt_conv2d_int8_learnt" if learnt else "mt_conv2d_int8", node, sizes)


conv2d_int8 = Op(
    name="conv2d_int8",
    summary="int8 convolution, scaled per output channel; a sixth input stands for some input channels of the weight",
    shape=_conv2d_shape,
    reference=_conv2d_reference,
    kernel=_conv2d_kernel,
    header=HEADER,
    gradient=layer_gradient,
    multiply_adds=lambda inputs, outputs: convolution_multiply_adds(inputs[1], outputs[0], depthwise=False),
    dtypes=int8_outputs,
)


def depthwise_workspace(x: Shape, y: Shape, attributes: Attributes) -> Shape | None:
    """What a depthwise convolution keeps of its input, so that its output may lie over it.

    Where it keeps the size, output row r lies over input row r: of 16 channels at a time, the original rows that
    later windows still reach. Another geometry with as many bytes: all of the input. None where bytes differ.
    """
    if x == y and tuple(attributes["stride"]) == (1, 1):
        return (attributes["padding"][0][0] + 1, x[1], min(BLOCK, x[2]))
    return x if math.prod(x) == math.prod(y) else None


def _depthwise_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, weight = inputs[:2]
    if len(x.shape) != 3 or len(weight.shape) != 3 or weight.shape[2] % x.shape[2]:
        raise ValueError(f"takes x (H, W, C) and weight (kh, kw, C * m), not {x.shape} and {weight.shape}")
    rows, columns, outputs = weight.shape
    _check_layer(inputs, outputs, rows * columns, may_learn=False)
    y = (*window_output(x.shape[:2], (rows, columns), attributes), outputs)
    workspace = depthwise_workspace(x.shape, y, attributes)
    return (y,) if workspace is None else (y, workspace)


def _depthwise_reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
    weight = inputs[1].astype(np.int64)
    rows, columns, outputs = weight.shape
    taps = windows(_shifted(inputs[0], attributes), (rows, columns), attributes, 0)
    taps = np.repeat(taps, outputs // taps.shape[2], axis=2)
    sums = np.zeros(taps.shape[:3], np.int64)
    for row, column in np.ndindex(rows, columns):
        sums += taps[..., row, column] * weight[row, column]
    y = _finish(sums, inputs, attributes)
    workspace = depthwise_workspace(inputs[0].shape, y.shape, attributes)
    return (y,) if workspace is None else (y, np.zeros(workspace, np.int8))


def _depthwise_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    x, weight, y = tensors[node.inputs[0]].shape, tensors[node.inputs[1]].shape, tensors[node.output].shape
    sizes = (*window_sizes(x, y, weight[:2], node.attributes), x[2], y[2])
    workspace = depthwise_workspace(x, y, node.attributes)
    if workspace is None:
        return _layer_call("mt_depthwise_conv2d_int8", node, sizes)
    function = "mt_depthwise_conv2d_int8_copied" if workspace == x else "mt_depthwise_conv2d_int8_rows"
    return _layer_call(function, node, sizes, workspace=True)


depthwise_conv2d_int8 = Op(
    name="depthwise_conv2d_int8",
    summary="int8 depthwise convolution; in place where the size stays, with a few rows of 16 channels beside",
    shape=_depthwise_shape,
    reference=_depthwise_reference,
    kernel=_depthwise_kernel,
    header=DEPTHWISE_HEADER,
    gradient=layer_gradient,
    in_place=(0,),
    multiply_adds=lambda inputs, outputs: convolution_multiply_adds(inputs[1], outputs[0], depthwise=True),
    dtypes=lambda inputs, attributes: ("int8",) * len(_depthwise_shape(inputs, attributes)),
)


def _dense_shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    x, weight, *rest = inputs
    if len(x.shape) != 1 or len(weight.shape) != 2 or weight.shape[1] != x.shape[0]:
        raise ValueError(f"takes x (inputs) and weight (outputs, inputs), not {x.shape} and {weight.shape}")
    _check_layer(inputs, weight.shape[0], weight.shape[1])
    _check_learnt(weight, rest[3:], attributes)
    return ((weight.shape[0],),)


def _dense_kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    outputs, inputs = tensors[node.inputs[1]].shape
    learnt = _learnt_range(node, tensors)
    function = "mt_dense_int8_learnt" if learnt else "mt_dense_int8"
    return _layer_call(function, node, (inputs, outputs, *learnt))


dense_int8 = Op(
    name="dense_int8",
    summary="int8 fully connected layer, scaled per output; a sixth input stands for some inputs of the weight",
    shape=_dense_shape,
    reference=lambda inputs, given: (
        _finish(_whole_weight(inputs, given) @ _shifted(inputs[0], given), inputs, given, rescale_once),
    ),
    kernel=_dense_kernel,
    header=HEADER,
    gradient=layer_gradient,
    multiply_adds=lambda inputs, outputs: inputs[1].size,
    dtypes=int8_outputs,
)

OPS = (conv2d_int8, depthwise_conv2d_int8, dense_int8)
