"""An inverted bottleneck as one operator that works row by row: its wide middle never exists as a whole.

Sandler et al., MobileNetV2 (2018), remark that the expanded tensor of a bottleneck need not be stored. Here only as
many of its rows are kept as one window of the depthwise convolution covers; each is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.quantized_layers import conv2d_int8, depthwise_conv2d_int8

HEADER = "mt_kernels_int8_bottleneck.h"
ARRAYS = 4  # weight, bias, multiplier and shift of each layer
LAYERS = {op.name: op for op in (conv2d_int8, depthwise_conv2d_int8)}
# {which layers: the kernel}
FUNCTIONS = {
    ("conv2d_int8", "depthwise_conv2d_int8", "conv2d_int8"): "mt_bottleneck_int8",
    ("conv2d_int8", "depthwise_conv2d_int8"): "mt_expand_depthwise_int8",
    ("depthwise_conv2d_int8", "conv2d_int8"): "mt_depthwise_project_int8",
}


def _names(attributes: Attributes) -> tuple[str, ...]:
    return tuple(name for name, _ in attributes["layers"])


def _images(inputs: Sequence[Tensor], attributes: Attributes) -> list[Tensor]:
    """The input, and the output that each layer would have by itself."""
    images = [inputs[0]]
    for index, (name, given) in enumerate(attributes["layers"]):
        arrays = inputs[1 + ARRAYS * index : 1 + ARRAYS * (index + 1)]
        shape = LAYERS[name].shape([images[-1], *arrays], given)[0]
        images.append(Tensor(name, shape, "int8"))
    return images


def _shape(inputs: Sequence[Tensor], attributes: Attributes) -> tuple[Shape, ...]:
    names = _names(attributes)
    if names not in FUNCTIONS or len(inputs) != 1 + ARRAYS * len(names):
        raise ValueError(f"takes {' or '.join(' > '.join(each) for each in FUNCTIONS)}, not {' > '.join(names)}")
    if names[-1] == "conv2d_int8":
        weight, given = inputs[1 + ARRAYS * (len(names) - 1)], attributes["layers"][-1][1]
        if weight.shape[1:3] != (1, 1) or tuple(given["stride"]) != (1, 1):
            raise ValueError(
                f"projects by a 1 x 1 convolution, not by {weight.shape[1:3]} in steps of {given['stride']}"
            )
    images = _images(inputs, attributes)
    middle = names.index("depthwise_conv2d_int8")
    rows = inputs[1 + ARRAYS * middle].shape[0]
    expanded, filtered = images[middle], images[middle + 1]
    workspace = min(rows, expanded.shape[0]) * expanded.shape[1] * expanded.shape[2] if middle else 0
    if names[-1] == "conv2d_int8":
        workspace += filtered.shape[1] * filtered.shape[2]
    return (images[-1].shape, (workspace,))


def _reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[np.ndarray, ...]:
    y = inputs[0]
    for index, (name, given) in enumerate(attributes["layers"]):
        y = LAYERS[name].reference([y, *inputs[1 + ARRAYS * index : 1 + ARRAYS * (index + 1)]], given)[0]
    tensors = [Tensor("", array.shape, str(array.dtype)) for array in inputs]
    return y, np.zeros(_shape(tensors, attributes)[1], np.int8)


def _kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
    inputs = [tensors[name] for name in node.inputs]
    images = _images(inputs, node.attributes)
    numbers: list[int] = [*images[0].shape]
    for index, (name, given) in enumerate(node.attributes["layers"]):
        weight = inputs[1 + ARRAYS * index].shape
        (top, _), (left, _) = given["padding"]
        window = weight[:2] if name == "depthwise_conv2d_int8" else weight[1:3]
        limits = (int(given[key]) for key in ("x_zero", "y_zero", "low", "high"))
        numbers += [*images[index + 1].shape, *window, *given["stride"], top, left, *limits]
    return KernelCall(FUNCTIONS[_names(node.attributes)], (*node.inputs, *node.outputs, *numbers))


bottleneck_int8 = Op(
    name="bottleneck_int8",
    summary="[conv2d_int8 >] depthwise_conv2d_int8 [> 1 x 1 conv2d_int8] row by row, a few rows of the middle beside",
    shape=_shape,
    reference=_reference,
    kernel=_kernel,
    header=HEADER,
    dtypes=lambda inputs, attributes: ("int8", "int8"),
)

OPS = (bottleneck_int8,)
