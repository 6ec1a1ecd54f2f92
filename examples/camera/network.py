"""The published networks of "On-Device Training Under 256KB Memory" (Lin et al., NeurIPS 2022) as graphs.

Three convolutional nets of inverted bottlenecks in int8 for images of 128 x 128: MobileNetV2 at width 0.35,
ProxylessNAS at width 0.3, and MCUNet for five frames a second. Their arithmetic is that of the int8 operators:
a scale per output channel, no activation but the limits of int8 (a zero point of -128 is the ReLU).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Quantization, Tensor, verify
from microtune.ops import quantized_build as build

PROJECT = Path(__file__).resolve().parents[2]
DIRECTORY = PROJECT.parent / "shared" / "data" / "models" / "mcunetv3"
NETWORKS = ("mbv2-w0.35", "mcunet-5fps", "proxyless-w0.3")
SEED = 20221  # of the new classifier
FIRST_WEIGHTS = 0.01  # standard deviation of the new classifier's weights

Description = Mapping[str, Any]


class _Reader:
    """The arrays of a network, and the graph that grows as its layers are read."""

    def __init__(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        self.name = name
        self.arrays = arrays
        self.builder = Builder(name)

    def layer_constants(
        self, wish: str, weight: np.ndarray, parameters: Description, x_q: Quantization, y_q: Quantization, axis: int
    ) -> list[Tensor]:
        """Weight, bias, multiplier and shift of a convolution or dense layer."""
        scales = self.arrays[parameters["w_scales"]["array"]]
        bias = self.arrays[parameters["bias"]["array"]]
        multiplier, shift = build.layer_constants(x_q, scales, y_q)
        named = (
            ("weight", weight, build.channel_quantization(scales, axis)),
            ("bias", bias, build.bias_quantization(x_q, scales)),
            ("multiplier", multiplier, None),
            ("shift", shift, None),
        )
        return [self.builder.quantized(f"{wish}.{part}", array, self.name, q) for part, array, q in named]

    def convolution(self, x: Tensor, given: Description, wish: str) -> Tensor:
        parameters = given["params"]
        x_q, y_q = (build.activation_quantization(parameters[f"{s}_scale"], parameters[f"{s}_zero"]) for s in "xy")
        weight = self.arrays[parameters["weight"]["array"]]
        depthwise = given["depthwise"]
        # (O, I, kh, kw) to channels last; a depthwise weight (C, 1, kh, kw) to (kh, kw, C)
        weight = weight[:, 0].transpose(1, 2, 0) if depthwise else weight.transpose(0, 2, 3, 1)
        inputs = self.layer_constants(wish, weight, parameters, x_q, y_q, 2 if depthwise else 0)
        attributes: dict[str, Any] = build.layer_attributes(x_q, y_q)
        (rows, columns), step = given["kernel_size"], given["stride"]
        return self.builder.emit(
            "depthwise_conv2d_int8" if depthwise else "conv2d_int8", [x, *inputs], wish, self.name, wish, y_q,
            stride=(step, step), padding=((rows // 2, rows // 2), (columns // 2, columns // 2)),
            **attributes,
        )  # fmt: skip

    def block(self, x: Tensor, given: Description, index: int) -> Tensor:
        """An inverted bottleneck: expand, filter each channel, project; the input is added where it says so."""
        y = x
        for part, short in (("pointwise1", "expand"), ("depthwise", "depthwise"), ("pointwise2", "project")):
            if given[part]:
                y = self.convolution(y, given[part], f"block{index}.{short}")
        if not given["residual"]:
            return y
        parameters = given["residual"]["params"]
        q = build.activation_quantization(parameters["y_scale"], parameters["y_zero"])
        assert x.quantization is not None and y.quantization is not None
        attributes: dict[str, Any] = build.add_attributes(x.quantization, y.quantization, q)
        return self.builder.emit("add_int8", [x, y], f"block{index}.add", self.name, quantization=q, **attributes)

    def classifier(self, x: Tensor, given: Description, classes: int | None) -> Tensor:
        q = x.quantization
        assert q is not None
        if classes is None:
            parameters = given["params"]
            y_q = build.activation_quantization(parameters["y_scale"], parameters["y_zero"])
            weight = self.arrays[parameters["weight"]["array"]][:, :, 0, 0]
            inputs = self.layer_constants("classifier", weight, parameters, q, y_q, 0)
            attributes: dict[str, Any] = build.layer_attributes(q, y_q)
            logits = self.builder.emit(
                "dense_int8", [x, *inputs], "classifier", self.name, quantization=y_q, **attributes
            )
            return self.real(logits, "logits")
        weight = np.random.default_rng(SEED).normal(0.0, FIRST_WEIGHTS, (classes, x.size))
        inputs = [
            self.real(x, "features"),
            self.builder.constant("classifier.weight", weight, self.name),
            self.builder.constant("classifier.bias", np.zeros(classes), self.name),
        ]
        return self.builder.emit("dense", inputs, "logits", self.name, "classifier")

    def real(self, x: Tensor, wish: str) -> Tensor:
        q = x.quantization
        assert q is not None
        numbers: dict[str, Any] = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
        return self.builder.emit("dequantize", [x], wish, self.name, **numbers)


def published_network(name: str, directory: str | Path = DIRECTORY, classes: int | None = None) -> Graph:
    """One of ``NETWORKS``: an int8 image (128, 128, 3), -1 to 1 in steps of 1/127.5, to float logits.

    ``classes`` puts a new float classifier in the place of the published one of 1000 int8 outputs. Raises
    ModelError when there is no such network in ``directory``.
    """
    directory = Path(directory)
    if not (directory / f"{name}.json").is_file() or not (directory / f"{name}.npz").is_file():
        raise ModelError(
            f"there is no network '{name}' in {directory}; it would be {name}.json and {name}.npz. Known: "
            f"{', '.join(NETWORKS)}"
        )
    given = json.loads((directory / f"{name}.json").read_text())
    with np.load(directory / f"{name}.npz") as arrays:
        reader = _Reader(name, dict(arrays))
    first = given["first_conv"]
    q = build.activation_quantization(first["params"]["x_scale"], first["params"]["x_zero"])
    x = reader.builder.input("image", (first["in_shape"], first["in_shape"], first["in_channel"]), "int8", q)
    x = reader.convolution(x, first, "stem")
    for index, block in enumerate(given["blocks"]):
        x = reader.block(x, block, index)
    assert x.quantization is not None
    # the published net averages in the scale of the last tensor
    attributes: dict[str, Any] = build.average_attributes(x.quantization, x.quantization, x.shape[0] * x.shape[1])
    x = reader.builder.emit(
        "global_average_int8", [x], "pooled", reader.name, quantization=x.quantization, **attributes
    )
    return verify(reader.builder.finish(reader.classifier(x, given["classifier"], classes), reader.name))
