"""Training of int8 weights and int32 biases in place: gradients of int8 weights, and SGD with stochastic rounding.

A stored weight w stands for scale * w, so a step of -rate * gradient in real units is -rate * gradient / scale steps
of the grid: what quantisation-aware scaling (Lin et al., On-Device Training Under 256KB Memory, 2022) amounts to. A
move that is no whole number of steps is rounded up or down at random with its mean kept (Gupta et al., Deep Learning
with Limited Numerical Precision, 2015). Random numbers are a hash of (``noise``, ``salt``, element): the same numbers
in give the same weights out. A gradient that is not finite leaves its weight as it is.

``FUSED`` maps each weight gradient to the update that forms it element by element and never stores it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.window import window_sizes, windows

GRADIENT_HEADER = "mt_kernels_int8_weight.h"
UPDATE_HEADER = "mt_kernels_int8_update.h"

# {gradient of a weight: its update}; the update takes (weight, rate, noise, *the gradient's inputs, scale) and the
# gradient's attributes with ``clip`` and ``salt``
FUSED: Mapping[str, str] = {
    f"{layer}_int8_grad_weight": f"sgd_{layer}_int8" for layer in ("conv2d", "depthwise_conv2d", "dense")
}
# an int8 weight stays within -127..127; a bias within what its layer can add to a sum
LIMITS = {"int8": 127, "int32": 2**30 - 1}
LONGEST_MOVE = {"int8": 255.0, "int32": float(2**30 - 64)}

Gradient = Callable[[np.ndarray, np.ndarray, Attributes], np.ndarray]


def _real(x: np.ndarray, given: Attributes, dtype: np.dtype) -> np.ndarray:
    """Real values of the input channels the weight meets."""
    start = given.get("start", 0)
    taken = x[..., start : start + given["channels"]] if "channels" in given else x
    return np.asarray(given["x_scale"] * (taken.astype(dtype) - given["x_zero"]))


def _conv2d_gradient(dy: np.ndarray, x: np.ndarray, given: Attributes) -> np.ndarray:
    taps = windows(_real(x, given, dy.dtype), given["kernel"], given, 0)
    return np.asarray(np.einsum("yxo,yxcij->oijc", dy, taps))


def _depthwise_gradient(dy: np.ndarray, x: np.ndarray, given: Attributes) -> np.ndarray:
    taps = windows(_real(x, given, dy.dtype), given["kernel"], given, 0)
    taps = np.repeat(taps, dy.shape[2] // x.shape[2], axis=2)
    return np.asarray(np.einsum("yxc,yxcij->ijc", dy, taps))


def _dense_gradient(dy: np.ndarray, x: np.ndarray, given: Attributes) -> np.ndarray:
    return np.outer(dy, _real(x, given, dy.dtype))


def _check_range(x: Tensor, given: Attributes) -> None:
    start, channels = given["start"], given["channels"]
    if start < 0 or channels < 1 or start + channels > x.shape[-1]:
        raise ValueError(f"cannot take the channels {start} to {start + channels} of an input {x.shape}")


def _conv2d_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    _check_range(inputs[1], given)
    return ((inputs[0].shape[2], *given["kernel"], given["channels"]),)


def _depthwise_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    return ((*given["kernel"], inputs[0].shape[2]),)


def _dense_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
    _check_range(inputs[1], given)
    return ((inputs[0].shape[0], given["channels"]),)


def _layer_numbers(op: str, dy: Shape, x: Shape, given: Attributes) -> tuple[int | float, ...]:
    """Scale and zero point of x, the sizes, and the range of channels, as the C takes them."""
    window = () if "dense" in op else (*window_sizes(x, dy, given["kernel"], given), x[2])
    taken = () if "depthwise" in op else (given["start"], given["channels"])
    return (float(given["x_scale"]), int(given["x_zero"]), *window, dy[-1], *taken)


def _grad_weight(layer: str, shape: Callable[..., tuple[Shape, ...]], gradient: Gradient) -> Op:
    name = f"{layer}_int8_grad_weight"

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        dy, x = (tensors[each].shape for each in node.inputs)
        numbers = _layer_numbers(name, dy, x, node.attributes)
        return KernelCall(f"mt_{name}", (*node.inputs, node.output, *numbers))

    return Op(
        name=name,
        summary=f"dL/dW of {layer}_int8 in real units, from dL/dy and the int8 input",
        shape=shape,
        reference=lambda inputs, given: (gradient(inputs[0], inputs[1], given),),
        kernel=kernel,
        header=GRADIENT_HEADER,
    )


# Stochastic rounding


def _mix(h: np.ndarray) -> np.ndarray:
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x85EBCA6B)
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0xC2B2AE35)
    return np.asarray(h ^ (h >> np.uint32(16)))


def noise_fractions(noise: int, salt: int, size: int) -> np.ndarray:
    """Uniform in [0, 1), multiples of 2^-24 (float64): one for each element; see ``mt_noise_fraction``."""
    golden = 0x9E3779B9
    salted = _mix(np.array([(salt + golden) % 2**32], np.uint32))
    key = _mix(np.array([noise % 2**32], np.uint32) ^ salted)
    elements = np.arange(size, dtype=np.uint64) * np.uint64(golden) % np.uint64(2**32)
    return np.asarray((_mix(key ^ elements.astype(np.uint32)) >> np.uint32(8)) * 2.0**-24)


def grid_moves(gradient: np.ndarray, steps: np.ndarray, given: Attributes, dtype: str) -> np.ndarray:
    """How many grid steps each weight goes down, before rounding; ``steps`` = rate / scale, spread over the weight."""
    usable = np.isfinite(gradient)
    known = np.where(usable, gradient, 0)
    clipped = np.clip(known, -given["clip"], given["clip"]) if given["clip"] > 0 else known
    move = np.nan_to_num(steps * clipped, nan=0.0, posinf=np.inf, neginf=-np.inf)
    return np.asarray(np.clip(move, -LONGEST_MOVE[dtype], LONGEST_MOVE[dtype]))


def stochastic_step(
    stored: np.ndarray, gradient: np.ndarray, steps: np.ndarray, noise: np.ndarray, given: Attributes
) -> np.ndarray:
    """The weights after a step of -steps * gradient, rounded at random, in the type of ``stored``."""
    dtype = str(stored.dtype)
    move = grid_moves(gradient, steps, given, dtype)
    whole = np.floor(move)
    fractions = noise_fractions(int(noise), int(given["salt"]), stored.size).reshape(stored.shape)
    down = (whole + (fractions < move - whole)).astype(np.int64)
    most = LIMITS[dtype]
    # int32: brought within the limits first, so that the C cannot overflow
    old = np.clip(stored.astype(np.int64), -max(most, 128), max(most, 128))
    return np.where(down == 0, stored, np.clip(old - down, -most, most)).astype(dtype)


def spread(scale: np.ndarray, shape: Shape, axis: int) -> np.ndarray:
    """Per-channel numbers in the shape of a weight whose channels lie along ``axis``."""
    wide = [1] * len(shape)
    wide[axis] = -1
    return np.broadcast_to(scale.reshape(wide), shape)


def _check_parameter(parameter: Tensor, scale: Tensor, gradient: Shape, dtype: str, axis: int) -> tuple[Shape, ...]:
    if parameter.dtype != dtype or parameter.shape != gradient:
        raise ValueError(f"steps {dtype}{gradient}, not {parameter.dtype}{parameter.shape}")
    if scale.shape != (gradient[axis],):
        raise ValueError(f"takes a scale per channel ({gradient[axis]},), not {scale.shape}")
    return (parameter.shape,)


def _update_attributes(given: Attributes) -> tuple[float, int]:
    return float(given["clip"]), int(given["salt"])


def _fused(layer: str, shape: Callable[..., tuple[Shape, ...]], gradient: Gradient) -> Op:
    """Inputs: weight, rate, noise, dL/dy, x, scale."""
    name, axis = f"sgd_{layer}_int8", 2 if layer == "depthwise_conv2d" else 0

    def fused_shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        weight, _, _, *factors, scale = inputs
        return _check_parameter(weight, scale, shape(factors, given)[0], "int8", axis)

    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        weight, rate, noise, dy, x, scale = inputs
        steps = rate / spread(scale, weight.shape, axis)
        return (stochastic_step(weight, gradient(dy, x, given), steps, noise, given),)

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        weight, rate, noise, dy, x, scale = node.inputs
        numbers = _layer_numbers(name, tensors[dy].shape, tensors[x].shape, node.attributes)
        choices = _update_attributes(node.attributes)
        return KernelCall(f"mt_{name}", (weight, dy, x, scale, rate, noise, *choices, *numbers))

    return Op(
        name=name,
        summary=f"SGD step of an int8 weight of {layer}_int8 from dL/dy and x, rounded at random",
        shape=fused_shape,
        reference=reference,
        kernel=kernel,
        header=UPDATE_HEADER,
        dtypes=lambda inputs, _: ("int8",),
        multiply_adds=lambda inputs, outputs: inputs[0].size * (inputs[3].size // inputs[3].shape[-1]),
    )


def _stored(dtype: str) -> Op:
    """Inputs: parameter, rate, noise, gradient, scale."""
    name = f"sgd_{dtype}"

    def axis(given: Attributes) -> int:
        return int(given.get("axis", 0))

    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        parameter, _, _, gradient, scale = inputs
        return _check_parameter(parameter, scale, gradient.shape, dtype, axis(given))

    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        parameter, rate, noise, gradient, scale = inputs
        steps = rate / spread(scale, parameter.shape, axis(given))
        return (stochastic_step(parameter, gradient, steps, noise, given),)

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        parameter, rate, noise, gradient, scale = node.inputs
        target = tensors[parameter]
        channels = target.shape[axis(node.attributes)]
        inner = int(np.prod(target.shape[axis(node.attributes) + 1 :], dtype=int))
        layout = (inner, channels) if dtype == "int8" else ()
        choices = _update_attributes(node.attributes)
        return KernelCall(f"mt_{name}", (parameter, gradient, scale, rate, noise, *choices, *layout, target.size))

    return Op(
        name=name,
        summary=f"SGD step of an {dtype} parameter from its gradient, rounded at random",
        shape=shape,
        reference=reference,
        kernel=kernel,
        header=UPDATE_HEADER,
        dtypes=lambda inputs, _: (dtype,),
        multiply_adds=lambda inputs, outputs: inputs[0].size,
    )


_PARTS = (
    ("conv2d", _conv2d_shape, _conv2d_gradient),
    ("depthwise_conv2d", _depthwise_shape, _depthwise_gradient),
    ("dense", _dense_shape, _dense_gradient),
)
OPS = (
    *(_grad_weight(*part) for part in _PARTS),
    *(_fused(*part) for part in _PARTS),
    _stored("int8"),
    _stored("int32"),
)
