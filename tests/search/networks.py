"""Small networks whose person differs from the base in a known way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 4


def two_layers(seed: int = 0, inputs: int = 6, hidden: int = 8) -> dict[str, np.ndarray]:
    """A random net whose own decisions are the labels of its world: by them it is always right."""
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(inputs, hidden)).astype("f4"),
        "b1": rng.normal(size=hidden).astype("f4") * 0.3,
        "w2": rng.normal(size=(hidden, CLASSES)).astype("f4"),
        "b2": np.zeros(CLASSES, "f4"),
    }


def answers(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The class the net decides for, by numpy."""
    hidden = np.maximum(x @ weights["w1"] + weights["b1"], 0)
    return np.asarray((hidden @ weights["w2"] + weights["b2"]).argmax(1))


def write_onnx(weights: dict[str, np.ndarray], path: Path) -> Path:
    """The net as a file: dense, ReLU, dense."""
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], name="early"),
            helper.make_node("Relu", ["a"], ["h"]),
            helper.make_node("Gemm", ["h", "w2", "b2"], ["y"], name="late"),
        ],
        "person",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, len(weights["w1"])])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def shifted(weights: dict[str, np.ndarray], samples: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """A sensor with an offset on every input, up or down: the biases of the first layer take it back exactly, no head
    can."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(samples, len(weights["w1"]))).astype("f4")
    offset = rng.choice([-2.0, 2.0], x.shape[1]).astype("f4")
    return x + offset, answers(weights, x)


def renamed(weights: dict[str, np.ndarray], samples: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """The same inputs, other classes: the head takes it back exactly."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(samples, len(weights["w1"]))).astype("f4")
    return x, (answers(weights, x) + 1) % CLASSES
