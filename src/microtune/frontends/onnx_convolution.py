"""Conv, the pools and means of ONNX. Images (C, H, W) become (H, W, C); sequences (C, T) become (1, T, C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import check_size
from microtune.frontends.onnx_constants import axes_of
from microtune.frontends.onnx_layout import channels_last, plain
from microtune.frontends.onnx_quantized import int8_layer, same
from microtune.frontends.onnx_values import Call, Value, Variable
from microtune.ir import Tensor
from microtune.ops.quantized_build import average_attributes, pool_attributes

Pair = tuple[int, int]
LARGEST_WINDOW = 1 << 15


@dataclass(frozen=True)
class Window:
    """A window that slides over an image, sequences being images of one row."""

    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]

    @property
    def is_padded(self) -> bool:
        return any(map(any, self.padding))

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}


def _numbers(call: Call, name: str, count: int, default: int, least: int) -> tuple[int, ...]:
    found = tuple(int(number) for number in call.attributes.get(name, (default,) * count))
    if len(found) != count or any(not least <= number <= LARGEST_WINDOW for number in found):
        raise ModelError(
            f"{call.where}: {name} {found} must be {count} numbers of {least} to {LARGEST_WINDOW} "
            f"for {count} spatial dimensions"
        )
    return found


def _padding(call: Call, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[Pair]:
    """Elements before and after each spatial dimension."""
    rank, mode = len(sizes), call.attributes.get("auto_pad", b"NOTSET").decode()
    if mode == "VALID":
        return [(0, 0)] * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, taps, step in zip(sizes, kernel, stride, strict=True):
            total = max((-(-size // step) - 1) * step + taps - size, 0)
            less, more = total // 2, total - total // 2
            found.append((less, more) if mode == "SAME_UPPER" else (more, less))
        return found
    if mode != "NOTSET":
        raise ModelError(f"{call.where}: auto_pad '{mode}' is unknown")
    pads = _numbers(call, "pads", 2 * rank, 0, 0)
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _rounded_up(call: Call, sizes: Sequence[int], window: Sequence[tuple[int, int, Pair]]) -> list[Pair]:
    """With ceil_mode a last window that starts inside the image may reach beyond it: padding for that."""
    found = []
    for size, (taps, step, (before, after)) in zip(sizes, window, strict=True):
        room = size + before + after - taps
        count = max(-(-room // step), 0)
        if count * step >= size + before:
            count -= 1
        found.append((before, after + max(count * step - room, 0)))
    return found


def _window(call: Call, x: Variable, kernel: Sequence[int] | None) -> Window:
    """The window of a convolution or pool; ``kernel`` is that of the weight, if there is one."""
    sizes = x.shape[1:]
    rank = len(sizes)
    if rank not in (1, 2):
        raise ModelError(
            f"{call.where}: reads {call.full(x)}; sequences (N, C, T) and images (N, C, H, W) are supported"
        )
    declared = call.attributes.get("kernel_shape")
    if kernel is None or declared is not None:
        shape = _numbers(call, "kernel_shape", rank, 0, 1)
        if kernel is not None and shape != tuple(kernel):
            raise ModelError(f"{call.where}: kernel_shape {shape} is not that of the weight, {tuple(kernel)}")
        kernel = shape
    dilations = _numbers(call, "dilations", rank, 1, 1)
    if any(step > 1 and taps > 1 for step, taps in zip(dilations, kernel, strict=True)):
        raise ModelError(f"{call.where}: dilations {dilations} are not supported; 1 is")
    stride = _numbers(call, "strides", rank, 1, 1)
    padding = _padding(call, sizes, kernel, stride)
    if call.attributes.get("ceil_mode", 0):
        grown = _rounded_up(call, sizes, list(zip(kernel, stride, padding, strict=True)))
        if grown != padding and call.attributes.get("count_include_pad", 0):
            raise ModelError(f"{call.where}: ceil_mode with count_include_pad is not supported; set one of them to 0")
        padding = grown
    if rank == 1:
        return Window((1, int(kernel[0])), (1, stride[0]), ((0, 0), padding[0]))
    return Window((int(kernel[0]), int(kernel[1])), (stride[0], stride[1]), (padding[0], padding[1]))


def _image(call: Call, x: Variable) -> Tensor:
    """``x`` as (H, W, C)."""
    shape = (*([1] * (3 - len(x.shape))), *x.shape[1:], x.shape[0])
    return call.arranged(x, channels_last(len(x.shape)), shape)


def _result(call: Call, x: Variable, y: Tensor) -> Variable:
    sizes = y.shape[-len(x.shape) : -1]
    return call.result(y, (y.shape[-1], *sizes), channels_last(len(x.shape)))


def _padded(call: Call, tensor: Tensor, window: Window) -> tuple[Tensor, Window]:
    """The padding as a node of its own, of zeros."""
    value: float | int = 0.0 if tensor.quantization is None else int(tensor.quantization.zero_point)
    padding = (*window.padding, (0, 0))
    check_size([n + sum(pair) for n, pair in zip(tensor.shape, padding, strict=True)], call.where)
    wish = f"{tensor.name}.padded"
    moved = call.emit("pad", tensor, wish=wish, quantization=tensor.quantization, padding=padding, value=value)
    return moved, replace(window, padding=((0, 0), (0, 0)))


def conv(call: Call) -> Value:
    x, weight = call.variable(0), call.array(1, "weight")
    array, group = weight.array, int(call.attributes.get("group", 1))
    if len(x.shape) < 2 or array.ndim != len(x.shape) + 1:
        raise ModelError(f"{call.where}: a weight {array.shape} does not fit {call.full(x)}")
    window = _window(call, x, array.shape[2:])
    channels, outputs = x.shape[0], array.shape[0]
    if group < 1 or array.shape[1] * group != channels or outputs % group or not outputs:
        raise ModelError(f"{call.where}: a weight {array.shape} in {group} groups does not fit {call.full(x)}")
    if group not in (1, channels):
        raise ModelError(
            f"{call.where}: {group} groups of {channels} channels are not supported. Supported: one group, or one per "
            "channel (depthwise)"
        )
    bias = None
    if call.input(2) is not None:
        bias = call.array(2, "bias")
        if bias.array.shape != (outputs,):
            raise ModelError(f"{call.where}: the bias {bias.array.shape} does not fit {outputs} channels")
    is_depthwise = group > 1
    op, axis = ("depthwise_conv2d", 2) if is_depthwise else ("conv2d", 0)

    def turn(given: np.ndarray) -> np.ndarray:
        image = given.reshape(outputs, -1, *window.kernel)
        return image[:, 0].transpose(1, 2, 0) if is_depthwise else image.transpose(0, 2, 3, 1)

    if x.is_int8 and (call.target is None or weight.stored is None):
        x = call.real(x)
    tensor = _image(call, x)
    if any(max(pair) >= taps for pair, taps in zip(window.padding, window.kernel, strict=True)):
        tensor, window = _padded(call, tensor, window)
    y = int8_layer(call, f"{op}_int8", x, tensor, weight, 0, turn, axis, bias, **window.geometry)
    if y is not None:
        return call.settled(_result(call, x, y), y)
    if x.is_int8:
        tensor = call.real(replace(x, tensor=tensor)).tensor
    constants = [call.builder.constant(weight.name, turn(array), call.where)]
    if bias is not None:
        constants.append(call.builder.constant(bias.name, bias.array, call.where))
    return _result(call, x, call.emit(op, tensor, *constants, **window.geometry))


def _check_pool(call: Call, window: Window) -> None:
    if any(max(pair) >= taps for pair, taps in zip(window.padding, window.kernel, strict=True)):
        raise ModelError(f"{call.where}: a padding {window.padding} as wide as the window {window.kernel} is no pool")


def max_pool(call: Call) -> Value:
    x = call.variable()
    window = _window(call, x, None)
    _check_pool(call, window)
    return _largest(call, x, window)


def _largest(call: Call, x: Variable, window: Window) -> Value:
    given = {"kernel": window.kernel, **window.geometry}
    tensor = _image(call, x)
    if not x.is_int8:
        return _result(call, x, call.emit("max_pool2d", tensor, **given))
    limits: dict[str, Any] = pool_attributes(x.quantization)
    return _result(call, x, call.emit("max_pool2d_int8", tensor, quantization=x.quantization, **given, **limits))


def average_pool(call: Call) -> Value:
    x = call.variable()
    window = _window(call, x, None)
    _check_pool(call, window)
    include = bool(call.attributes.get("count_include_pad", 0)) and window.is_padded
    target = call.target
    if x.is_int8 and (target is None or not same(target.quantization, x.quantization)):
        x = call.real(x)
    tensor = _image(call, x)
    if not x.is_int8 or target is None:
        given = {"kernel": window.kernel, **window.geometry, "include_padding": include}
        return _result(call, x, call.emit("average_pool2d", tensor, **given))
    if include:
        tensor, window = _padded(call, tensor, window)
    limits = pool_attributes(target.quantization, target.kind)
    given = {"kernel": window.kernel, **window.geometry, **limits}
    y = call.emit("average_pool2d_int8", tensor, quantization=target.quantization, **given)
    return call.settled(_result(call, x, y), y)


def _mean(call: Call, x: Variable, axes: Sequence[int], shape: Sequence[int]) -> Value:
    """The mean over some axes of a sample; ``shape`` is that of the result."""
    x = call.ending_in(x, [axis for axis in range(len(x.shape)) if axis not in axes])
    if math.prod(shape) == x.tensor.size:  # each mean is that of one number
        return replace(x, shape=tuple(shape), arrangement=plain(tuple(shape)))
    if not x.is_int8 or call.target is None:
        return call.result(call.emit("global_average", call.real(x).tensor), shape)
    q, kind = call.target.quantization, call.target.kind
    given: dict[str, Any] = average_attributes(x.quantization, q, x.tensor.size // x.tensor.shape[-1], kind)
    y = call.emit("global_average_int8", x.tensor, quantization=q, **given)
    return call.settled(call.result(y, shape), y)


def global_average_pool(call: Call) -> Value:
    x = call.variable()
    if len(x.shape) < 2:
        raise ModelError(f"{call.where}: {call.full(x)} has no spatial dimensions")
    return _mean(call, x, range(1, len(x.shape)), (x.shape[0], *[1] * (len(x.shape) - 1)))


def global_max_pool(call: Call) -> Value:
    x = call.variable()
    if len(x.shape) not in (2, 3):
        raise ModelError(f"{call.where}: reads {call.full(x)}; (N, C, T) and (N, C, H, W) are supported")
    height, width = (1, *x.shape[1:])[-2:]
    return _largest(call, x, Window((height, width), (1, 1), ((0, 0), (0, 0))))


def reduce_mean(call: Call) -> Value:
    """Over any axes of a sample; the axes are an attribute before opset 18 and an input since."""
    x = call.variable()
    full = call.full(x)
    given = (None, call.array(1, "axes").array) if call.input(1) is not None else ()
    axes = axes_of(given, call.attributes, len(full), call.where)
    if not axes:
        if call.attributes.get("noop_with_empty_axes", 0):
            return x
        axes = tuple(range(len(full)))
    if 0 in axes:
        raise ModelError(f"{call.where}: takes the mean over the batch; a device sees one sample at a time")
    keep = bool(call.attributes.get("keepdims", 1))
    shape = [1 if axis in axes else size for axis, size in enumerate(full) if keep or axis not in axes]
    return _mean(call, x, [axis - 1 for axis in axes], shape[1:])
