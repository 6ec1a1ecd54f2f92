"""References of float layers, to which test_layer_kernels.py holds the C, against ONNX Runtime in float32.

Allowed is twice the bound of our own kernels: ONNX Runtime may sum in blocks and round once more for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from microtune.ops import OPS

from .layer_cases import CASES, Draw, gamma

Given = dict[str, Any]


def _window(attributes: Given) -> Given:
    (top, bottom), (left, right) = attributes["padding"]
    return {"strides": attributes["stride"], "pads": (top, left, bottom, right)}


def _first(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1)[None]


def _onnx(op: str, inputs: list[np.ndarray], given_: Given) -> tuple[str, list[np.ndarray], Given, bool]:
    """Operator, inputs and attributes in ONNX, and whether images are channels first there."""
    if op == "conv2d":
        return "Conv", [_first(inputs[0]), inputs[1].transpose(0, 3, 1, 2), *inputs[2:]], _window(given_), True
    if op == "depthwise_conv2d":
        weight = inputs[1].transpose(2, 0, 1)[:, None]
        return "Conv", [_first(inputs[0]), weight, *inputs[2:]], {**_window(given_), "group": inputs[0].shape[2]}, True
    if op == "average_pool2d":
        options = {"kernel_shape": given_["kernel"], "count_include_pad": int(given_["include_padding"])}
        return "AveragePool", [_first(inputs[0])], {**_window(given_), **options}, True
    if op == "max_pool2d":
        return "MaxPool", [_first(inputs[0])], {**_window(given_), "kernel_shape": given_["kernel"]}, True
    if op == "pad":
        pads = np.array(given_["padding"], np.int64).T.ravel()
        return "Pad", [inputs[0], pads, np.array(given_["value"], np.float32)], {}, False
    if op == "concat":
        return "Concat", inputs, {"axis": given_["axis"]}, False
    if op == "hard_swish":
        return "HardSwish", inputs, {}, False
    rows = np.clip(np.nan_to_num(inputs[0]), 0, len(inputs[1]) - 1).astype(np.int64)
    return "Gather", [inputs[1], rows], {"axis": 0}, False


@pytest.mark.parametrize(
    "op",
    ["conv2d", "depthwise_conv2d", "average_pool2d", "max_pool2d", "pad", "concat", "hard_swish", "embedding"],
)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_values_equal_onnxruntime(op: str, data: st.DataObject) -> None:
    inputs, attributes = CASES[op][0](op, Draw(data))
    inputs = [each.astype(np.float64) for each in inputs]
    kind, arrays, options, first = _onnx(op, inputs, attributes)
    arrays = [each.astype(np.float32) if each.dtype == np.float64 else each for each in arrays]
    types = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    names = [f"in{index}" for index in range(len(arrays))]
    described = zip(names, arrays, strict=True)
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"], **options)],
        "one",
        [helper.make_tensor_value_info(n, types[each.dtype], each.shape) for n, each in described],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, dict(zip(names, arrays, strict=True)))
    wanted = OPS[op].reference(inputs, attributes)[0]
    found = y[0].transpose(1, 2, 0) if first else y
    allowed = 2 * np.asarray(CASES[op][1](op, inputs, attributes))
    if op == "hard_swish":  # there x / 6 + 1 / 2 is computed, whose error stays when the two nearly cancel
        x = np.abs(inputs[0])
        allowed = allowed + gamma(3) * x * (x / 6 + 0.5)
    excess = np.abs(found.astype(np.float64) - wanted) - np.maximum(allowed, 2.0**-140)
    assert found.shape == wanted.shape
    assert np.all(excess <= 0), f"{op} is off by up to {excess.max():g} too much"
