"""``replace_head``: a fresh classifier on the features of a network that was trained for something else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microtune.compress.joining import features, join, vector
from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops import quantized_build as build

LOGITS = 16.0
"""What the outputs of an int8 head reach to where they are stored as int8; integers that learn keep them as sums."""


def replace_head(graph: Graph, classes: int, seed: int = 0, reach: float | None = None) -> Graph:
    """The graph with a new dense layer of ``classes`` outputs in the place of its last layer and what follows that.

    The weights are uniform, a tenth as large as keeps the variance of the features, so that the net starts undecided;
    the same ``seed`` gives the same ones. Biases are zero. Features of an int8 graph are dequantised: the head is
    float32. Learn it with ``Head(1)``, or with any scheme.

    reach, of an int8 graph: the head computes in int8 too, for ``precision="int8"``; its weights can grow to
    +-``reach``, in 127 steps, so that it should be little more than what they are expected to come to.

    Raises ModelError where ``features`` does.
    """
    if classes < 1:
        raise ModelError(f"replace_head(classes={classes}): a head has at least one output")
    if reach is not None and not 0 < reach < math.inf:
        raise ModelError(f"replace_head(reach={reach}): the largest weight that can be learnt, above 0, such as 1.0")
    body = features(graph)
    size = body.tensor(body.outputs[0]).size
    bound = 0.1 * math.sqrt(3.0 / size)
    weight = np.random.default_rng(seed).uniform(-bound, bound, (classes, size))
    if reach is not None:
        return join(graph, _int8_head(graph, weight, reach))
    builder = Builder("head")
    x = builder.input("features", (size,))
    constants = (
        builder.constant("head.weight", weight, "replace_head"),
        builder.constant("head.bias", np.zeros(classes), "replace_head"),
    )
    return join(graph, builder.finish(builder.emit("dense", (x, *constants), "head", "replace_head"), "replace_head"))


def _int8_head(graph: Graph, weight: np.ndarray, reach: float) -> Graph:
    """A dense int8 layer on the graph's int8 features."""
    body = vector(graph)
    taken = body.tensor(body.outputs[0])
    if taken.dtype != "int8" or taken.quantization is None:
        raise ModelError(
            f"replace_head(reach={reach}): the features of '{graph.name}' are {taken.dtype}; quantise it first, "
            "mt.quantize(graph, calibration=x), or leave reach out"
        )
    scales = np.full(len(weight), reach / 127, np.float32)
    stored = np.clip(np.round(weight * 127 / reach), -127, 127).astype(np.int8)
    q = build.activation_quantization(LOGITS / 127, 0)
    multiplier, shift = build.layer_constants(taken.quantization, scales, q)
    builder = Builder("head")
    x = builder.input("features", taken.shape, "int8", taken.quantization)
    constants = [
        builder.quantized(f"head.{name}", array, "replace_head", each)
        for name, array, each in (
            ("weight", stored, build.channel_quantization(scales, 0)),
            ("bias", np.zeros(len(weight), np.int32), build.bias_quantization(taken.quantization, scales)),
            ("multiplier", multiplier, None),
            ("shift", shift, None),
        )
    ]
    given: dict[str, Any] = {"quantization": q, **build.layer_attributes(taken.quantization, q)}
    logits = builder.emit("dense_int8", (x, *constants), "head", "replace_head", **given)
    return builder.finish(logits, "replace_head")
