"""Random int8 networks of bottlenecks, convolutions and residuals, with the odd geometry."""

from __future__ import annotations

from typing import Any

import numpy as np

from microtune.frontends.builder import Builder
from microtune.ir import Graph, Quantization, Tensor, verify
from microtune.ops.quantized_build import add_attributes, layer_attributes, layer_constants

SCALE = 0.05


def _quantization(r: np.random.Generator) -> Quantization:
    return Quantization(np.array(SCALE, np.float32), np.array(int(r.integers(-20, 20)), np.int32))


def layer(builder: Builder, r: np.random.Generator, x: Tensor, op: str, outputs: int, taps: int, step: int) -> Tensor:
    """A convolution of any kind, padded so that a stride of 1 keeps the size."""
    depthwise = op == "depthwise_conv2d_int8"
    shape = (taps, taps, outputs) if depthwise else (outputs, taps, taps, x.shape[2])
    weight = r.integers(-127, 128, shape).astype(np.int8)
    scales = r.uniform(0.001, 0.004, outputs).astype(np.float32)
    y_q = _quantization(r)
    assert x.quantization is not None
    attributes: dict[str, Any] = layer_attributes(x.quantization, y_q)
    bias = r.integers(-500, 500, outputs).astype(np.int32)
    multiplier, shift = layer_constants(x.quantization, scales, y_q)
    weight_q = Quantization(scales, np.zeros(outputs, np.int32), 2 if depthwise else 0)
    bias_q = Quantization(scales * np.float32(SCALE), np.zeros(outputs, np.int32), 0)
    inputs = [x] + [
        builder.quantized(name, array, "test", q)
        for name, array, q in (
            ("w", weight, weight_q),
            ("b", bias, bias_q),
            ("m", multiplier, None),
            ("s", shift, None),
        )
    ]
    edge = ((taps - 1) // 2, taps // 2)
    return builder.emit(
        op, inputs, "h", "test", quantization=y_q, stride=(step, step), padding=(edge, edge), **attributes
    )


def random_images(r: np.random.Generator, blocks: int = 3, classes: int | None = None) -> Graph:
    """Up to ``blocks`` bottlenecks behind a stem, some with a residual or a tensor that is read twice.

    ``classes``: a float classifier behind it.
    """
    builder = Builder("images")
    size = int(r.integers(6, 13))
    x = builder.input("x", (size, size, 3), "int8", _quantization(r))
    x = layer(builder, r, x, "conv2d_int8", int(r.integers(2, 9)), 3, int(r.integers(1, 3)))
    for _ in range(int(r.integers(1, blocks + 1))):
        before, wide = x, x
        if r.random() < 0.8:
            wide = layer(builder, r, x, "conv2d_int8", int(x.shape[2] * r.integers(1, 6)), 1, 1)
        step = int(r.integers(1, 3))
        y = layer(builder, r, wide, "depthwise_conv2d_int8", wide.shape[2], int(r.choice([3, 3, 5])), step)
        if r.random() < 0.8:
            kept = step == 1 and r.random() < 0.6
            y = layer(builder, r, y, "conv2d_int8", x.shape[2] if kept else int(r.integers(2, 9)), 1, 1)
        other = before if r.random() < 0.7 else wide
        if other.shape == y.shape:
            q = _quantization(r)
            assert other.quantization is not None and y.quantization is not None
            attributes: dict[str, Any] = add_attributes(other.quantization, y.quantization, q)
            y = builder.emit("add_int8", [other, y], "sum", "test", quantization=q, **attributes)
        x = y
    if classes is not None:
        assert x.quantization is not None
        numbers: dict[str, Any] = {"scale": SCALE, "zero_point": int(x.quantization.zero_point)}
        real = builder.emit("dequantize", [builder.reshape(x, (x.size,), "flat", "test")], "real", "test", **numbers)
        weight = builder.constant("weight", 0.1 * r.normal(size=(classes, x.size)), "test")
        x = builder.emit("dense", [real, weight, builder.constant("bias", np.zeros(classes), "test")], "y", "test")
    return verify(builder.finish(x, "test"))
