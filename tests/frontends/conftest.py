"""A bound on the difference between two float32 runs of a graph, for tolerances that are derived."""

from collections.abc import Callable

import numpy as np
import pytest

from microtune.ir import Graph
from microtune.ops import OPS

UNIT = 2.0**-24  # unit roundoff of float32
# exp, sigmoid and tanh of other libraries are rational approximations, good to a few units of the last place
APPROXIMATION = 1e-6


def bound_of(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Running error analysis of an unfolded graph on one sample (Higham 2002, chapters 2 and 3).

    Each rule takes the values and error bounds of its inputs. A sum of n products has an error of at most
    (n + 2) u times the sum of the magnitudes; folding may round every constant up to four times.
    """
    values = {tensor.name: np.asarray(tensor.data, np.float64) for tensor in graph.constants}
    errors = {tensor.name: 4 * UNIT * np.abs(tensor.data) for tensor in graph.constants}
    values[graph.inputs[0]], errors[graph.inputs[0]] = x.astype(np.float64), UNIT * np.abs(x)
    for node in graph.nodes:
        v, e = [values[name] for name in node.inputs], [errors[name] for name in node.inputs]
        (y,) = OPS[node.op].reference(v, node.attributes)
        match node.op:
            case "dense":
                size = np.abs(v[1]) @ (np.abs(v[0]) + e[0]) + np.abs(v[2])
                error = np.abs(v[1]) @ e[0] + (v[0].size + 8) * UNIT * size
            case "add":
                error = e[0] + e[1] + 2 * UNIT * (np.abs(v[0]) + np.abs(v[1]) + e[0] + e[1])
            case "multiply":
                size = (np.abs(v[0]) + e[0]) * (np.abs(v[1]) + e[1])
                error = size - np.abs(v[0] * v[1]) + 4 * UNIT * size
            case "relu" | "relu6":
                error = e[0]
            case "leaky_relu":
                error = (e[0] + 2 * UNIT * np.abs(v[0])) * max(1.0, abs(node.attributes["alpha"]))
            case "sigmoid" | "tanh":
                error = e[0] + APPROXIMATION
            case "softmax":  # d ln y = dx - <y, dx>
                error = y * np.expm1(2 * e[0].max()) + APPROXIMATION
            case "conv2d" | "depthwise_conv2d":
                terms = v[1].size // (v[1].shape[0] if node.op == "conv2d" else v[1].shape[2])
                sizes = [np.abs(v[0]) + e[0], *(np.abs(each) for each in v[1:])]
                (size,) = OPS[node.op].reference(sizes, node.attributes)
                (spread,) = OPS[node.op].reference([e[0], np.abs(v[1])], node.attributes)
                error = spread + (terms + 8) * UNIT * size
            case "channel_affine":
                size = np.abs(v[1]) * (np.abs(v[0]) + e[0])
                error = np.abs(v[1]) * e[0] + e[1] * (np.abs(v[0]) + e[0]) + e[2] + 4 * UNIT * (size + np.abs(v[2]))
            case "average_pool2d" | "global_average":
                (size,) = OPS[node.op].reference([np.abs(v[0]) + e[0]], node.attributes)
                (spread,) = OPS[node.op].reference([e[0]], node.attributes)
                error = spread + (v[0].size + 4) * UNIT * size
            case "hard_swish":  # its slope is at most 1.5
                error = 1.5 * e[0] + 8 * UNIT * (np.abs(v[0]) + 1)
            case "hard_sigmoid":
                error = abs(node.attributes["alpha"]) * e[0] + 8 * UNIT
            case "clamp":
                error = e[0] + UNIT * np.abs(y)
            case "embedding":
                error = 4 * UNIT * np.abs(y)
            case "max_pool2d" | "transpose" | "concat" | "slice":
                (error,) = OPS[node.op].reference(e, node.attributes)
            case "pad":
                error = OPS["pad"].reference(e, {**node.attributes, "value": 0.0})[0] + UNIT * np.abs(y)
            case "reshape":
                error = e[0].reshape(y.shape)
            case other:
                raise AssertionError(f"no error rule for {other}")
        values[node.output], errors[node.output] = y, error
    return errors[graph.outputs[0]]


@pytest.fixture(scope="session")
def error_bound() -> Callable[[Graph, np.ndarray], np.ndarray]:
    return bound_of
