"""Random calls of the layers' operators, and how far float32 may take each from its float64 reference.

Bounds are those of test_kernels.py: a sum of products in which every term goes through k roundings is off by at most
gamma(k) of the sum of the magnitudes, which is the operator's own reference on absolute values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from microtune.ops import OPS
from microtune.ops.window import window_output

U = 2.0**-24  # unit roundoff of float32
Arrays = Sequence[np.ndarray]
Given = dict[str, Any]
Case = tuple[list[np.ndarray], Given]
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")


def gamma(roundings: float) -> float:
    return roundings * U / (1 - roundings * U)


class Draw:
    """Values and sizes of one example. All numbers are float32 numbers, held in float64."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
        self.scale = data.draw(st.sampled_from([0.01, 1.0, 8.0]), label="scale")

    def values(self, *shape: int) -> np.ndarray:
        return np.float32(self.scale * self.generator.normal(size=shape)).astype(np.float64)

    def positive(self, *shape: int) -> np.ndarray:
        return np.float32(self.generator.uniform(0.001, 0.1, shape)).astype(np.float64)

    def int8(self, *shape: int) -> np.ndarray:
        return self.generator.integers(-128, 128, shape).astype(np.int8)

    def size(self, most: int, label: str = "size") -> int:
        return self.data.draw(st.integers(1, most), label=label)

    def choice(self, *options: Any) -> Any:
        return self.data.draw(st.sampled_from(options))

    def window(self) -> tuple[tuple[int, int], Given]:
        """Height and width of an image, and a window that fits."""
        sizes, kernel, stride, padding = [], [], [], []
        for _ in range(2):
            taps = self.size(4, "taps")
            before, after = (self.data.draw(st.integers(0, taps - 1), label="padding") for _ in range(2))
            least = max(1, taps - before - after)
            sizes.append(self.data.draw(st.integers(least, least + 5), label="length"))
            kernel.append(taps)
            stride.append(self.size(3, "stride"))
            padding.append((before, after))
        return (sizes[0], sizes[1]), {"kernel": tuple(kernel), "stride": tuple(stride), "padding": tuple(padding)}

    def same_window(self) -> tuple[tuple[int, int], Given]:
        """A window in steps of one that gives an image of the size of the input."""
        kernel = (self.size(4, "taps"), self.size(4, "taps"))
        before = [self.data.draw(st.integers(0, taps - 1), label="padding") for taps in kernel]
        padding = tuple((first, taps - 1 - first) for first, taps in zip(before, kernel, strict=True))
        return (self.size(7), self.size(7)), {"kernel": kernel, "stride": (1, 1), "padding": padding}


def layer(op: str, draw: Draw, same: bool = False, bias: bool | None = None) -> Case:
    """A convolution, its gradients, or its fused update's factors; ``same``: of one size and step 1."""
    depthwise, weight8 = op.startswith("depthwise"), "weight8" in op
    size, given = draw.same_window() if same else draw.window()
    channels = draw.choice(1, 3, 4, 17) if depthwise else draw.size(9, "channels")
    outputs = channels * (1 if same else draw.size(3, "multiplier")) if depthwise else draw.size(9, "outputs")
    kernel = given.pop("kernel")
    weight_shape = (*kernel, outputs) if depthwise else (outputs, *kernel, channels)
    weight = draw.int8(*weight_shape) if weight8 else draw.values(*weight_shape)
    x, dy = draw.values(*size, channels), draw.values(*window_output(size, kernel, given), outputs)
    scale = [draw.positive(outputs)] if weight8 else []
    if op.endswith("grad_input"):
        return [dy, weight, *scale], {**given, "input_shape": x.shape}
    if op.endswith("grad_weight"):
        return [dy, x], {**given, "kernel": kernel}
    with_bias = weight8 or (draw.choice(True, False) if bias is None else bias)
    return [x, weight, *scale, *([draw.values(outputs)] if with_bias else [])], given


def _dense(op: str, draw: Draw) -> Case:
    inputs, outputs = draw.size(19), draw.size(9)
    weight, scale = draw.int8(outputs, inputs), draw.positive(outputs)
    if op.endswith("grad_input"):
        return [draw.values(outputs), weight, scale], {}
    return [draw.values(inputs), weight, scale, draw.values(outputs)], {}


def _pool(op: str, draw: Draw) -> Case:
    size, given = draw.window()
    shape = (*size, draw.size(5, "channels"))
    if "average" in op:
        given["include_padding"] = draw.choice(True, False)
    x = draw.values(*shape)
    if draw.choice(True, False):  # ties: the first maximum gets the gradient
        x = np.round(x / draw.scale)
    forward = op.removesuffix("_grad")
    if op == forward:
        return [x], given
    y = OPS[forward].reference([x], given)[0]
    dy = draw.values(*y.shape)
    return ([dy], {**given, "input_shape": shape}) if "average" in op else ([dy, x, y], given)


def _positions(draw: Draw) -> tuple[int, ...]:
    return tuple(draw.size(5) for _ in range(draw.size(3, "rank")))


def _any_type(draw: Draw, *shape: int) -> np.ndarray:
    return draw.int8(*shape) if draw.choice(True, False) else draw.values(*shape)


def _moved(op: str, draw: Draw) -> Case:
    """An operator that moves values of any type."""
    shape = tuple(draw.size(5) for _ in range(draw.size(4 if op == "transpose" else 3, "rank")))
    x = _any_type(draw, *shape)
    axis = draw.size(len(shape), "axis") - 1
    if op == "transpose":
        return [x], {"permutation": tuple(draw.data.draw(st.permutations(range(len(shape)))))}
    if op == "pad":
        padding = tuple((draw.size(3) - 1, draw.size(3) - 1) for _ in shape)
        return [x], {"padding": padding, "value": int(draw.int8()) if x.dtype == np.int8 else 1.5}
    if op == "slice":
        start = draw.size(shape[axis]) - 1
        return [x], {"axis": axis, "start": start, "stop": start + draw.size(shape[axis] - start)}
    if op == "reshape":
        return [x], {"shape": (x.size,)}
    parts = [x]
    for _ in range(draw.size(3, "more")):
        other = (*shape[:axis], draw.size(4), *shape[axis + 1 :])
        parts.append(draw.int8(*other) if x.dtype == np.int8 else draw.values(*other))
    return parts, {"axis": axis}


def _piecewise(op: str, draw: Draw) -> Case:
    # multiples of powers of two: the constants in C are the same numbers
    given = {"clamp": {"low": -0.75, "high": 1.25}, "hard_sigmoid": {"alpha": 0.1875, "beta": 0.5}}
    forward = op.removesuffix("_grad")
    attributes: Given = dict(given.get(forward, {}))
    x = draw.values(draw.size(19))
    if op == forward:
        return [x], attributes
    second = x if forward == "hard_swish" else OPS[forward].reference([x], attributes)[0]
    return [draw.values(x.size), np.float32(second).astype(np.float64)], attributes


def _channels(op: str, draw: Draw) -> Case:
    shape = (*_positions(draw), draw.size(9, "channels"))
    x = draw.values(*shape)
    if op == "channel_dot":
        return [x, draw.values(*shape)], {}
    return [x, *(draw.values(shape[-1]) for _ in range({"channel_affine": 2, "channel_scale": 1}.get(op, 0)))], {}


def _embedding(op: str, draw: Draw) -> Case:
    rows, size, count = draw.size(6), draw.size(6), draw.size(6)
    indices = draw.generator.integers(-2, rows + 2, count).astype(np.float64)
    indices[indices == -2] = draw.choice(-1e30, np.nan, -np.inf, np.inf, 1e30)
    if op == "embedding":
        return [indices, draw.values(rows, size)], {}
    return [draw.values(count, size), indices], {"rows": rows}


def _global(op: str, draw: Draw) -> Case:
    shape = (*_positions(draw), draw.size(9, "channels"))
    if op == "global_average":
        return [draw.values(*shape)], {}
    return [draw.values(shape[-1])], {"input_shape": shape}


def _absolute(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    """The operator on absolute values."""
    return OPS[op].reference([np.abs(each.astype(np.float64)) for each in inputs], given)[0]


def _forward_roundings(op: str, inputs: Arrays) -> int:
    """Product, sums, and scale and bias; of a convolution a lane's share of each row, and the lanes."""
    weight = inputs[1].shape
    if op.startswith("depthwise"):
        return 1 + weight[0] * weight[1] + 2
    return 1 + weight[1] * math.ceil(weight[2] * weight[3] / 4) + 2 + 2


def _layer_bound(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    if op.endswith("grad_weight"):
        roundings = 1 + math.prod(inputs[0].shape[:2])
    elif op.endswith("grad_input"):  # product, scale, and at most one sum for each weight of an input channel
        channels = given["input_shape"][2]
        roundings = 2 + inputs[1].size // channels
    else:
        roundings = _forward_roundings(op, inputs)
    return gamma(roundings) * _absolute(op, inputs, given)


def _window_bound(op: str, inputs: Arrays, given: Given) -> np.ndarray | float:
    if op == "max_pool2d":
        return 0.0
    taps = math.prod(given["kernel"])
    if op == "max_pool2d_grad":
        return gamma(taps) * OPS[op].reference([np.abs(inputs[0]), *inputs[1:]], given)[0]
    return gamma(taps + 2) * _absolute(op, inputs, given)


def _summed(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    """Sums over positions, at most two more roundings."""
    return gamma(inputs[0].size + 2) * _absolute(op, inputs, given)


def _four(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    """At most four roundings of one product."""
    return gamma(4) * np.abs(OPS[op].reference(inputs, given)[0])


def _affine(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    return gamma(2) * _absolute(op, inputs, given)


def _hard_sigmoid(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    return gamma(2) * (given["alpha"] * np.abs(inputs[0]) + given["beta"])


def _dense_bound(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    return gamma(max(inputs[1].shape) + 5) * _absolute(op, inputs, given)


def _embedding_bound(op: str, inputs: Arrays, given: Given) -> np.ndarray:
    return gamma(len(inputs[1])) * OPS[op].reference([np.abs(inputs[0]), inputs[1]], given)[0]


def _exact(op: str, inputs: Arrays, given: Given) -> float:
    return 0.0


LAYERS = tuple(
    f"{name}{suffix}"
    for name in (*CONVOLUTIONS, *(f"{name}_weight8" for name in CONVOLUTIONS))
    for suffix in ("", "_grad_input", *(() if "weight8" in name else ("_grad_weight",)))
)
Bound = Callable[[str, Arrays, Given], np.ndarray | float]
# {operator: (an example, allowed error of its first output)}
CASES: Mapping[str, tuple[Callable[[str, Draw], Case], Bound]] = {
    **dict.fromkeys(LAYERS, (layer, _layer_bound)),
    **dict.fromkeys(("dense_weight8", "dense_weight8_grad_input"), (_dense, _dense_bound)),
    **dict.fromkeys(("average_pool2d", "average_pool2d_grad", "max_pool2d", "max_pool2d_grad"), (_pool, _window_bound)),
    **dict.fromkeys(("global_average", "global_average_grad"), (_global, _summed)),
    **dict.fromkeys(("transpose", "pad", "concat", "slice", "reshape"), (_moved, _exact)),
    **dict.fromkeys(("clamp", "clamp_grad"), (_piecewise, _exact)),
    "hard_sigmoid": (_piecewise, _hard_sigmoid),
    **dict.fromkeys(("hard_sigmoid_grad", "hard_swish", "hard_swish_grad"), (_piecewise, _four)),
    **dict.fromkeys(("channel_sum", "channel_dot"), (_channels, _summed)),
    **dict.fromkeys(("channel_affine", "channel_scale"), (_channels, _affine)),
    "embedding": (_embedding, _exact),
    "embedding_grad": (_embedding, _embedding_bound),
}
