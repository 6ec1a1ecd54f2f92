"""``replace_head``: a fresh classifier on the features of a network that was trained for something else."""

from __future__ import annotations

import math

import numpy as np

from microtune.compress.joining import features, join
from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph


def replace_head(graph: Graph, classes: int, seed: int = 0) -> Graph:
    """The graph with a new dense layer of ``classes`` outputs in the place of its last layer and what follows that.

    The weights are uniform, a tenth as large as keeps the variance of the features, so that the net starts undecided;
    the same ``seed`` gives the same ones. Biases are zero. Features of an int8 graph are dequantised: the head is
    float32. Learn it with ``Head(1)``, or with any scheme. Raises ModelError where ``features`` does.
    """
    if classes < 1:
        raise ModelError(f"replace_head(classes={classes}): a head has at least one output")
    body = features(graph)
    size = body.tensor(body.outputs[0]).size
    bound = 0.1 * math.sqrt(3.0 / size)
    weight = np.random.default_rng(seed).uniform(-bound, bound, (classes, size))
    builder = Builder("head")
    x = builder.input("features", (size,))
    constants = (
        builder.constant("head.weight", weight, "replace_head"),
        builder.constant("head.bias", np.zeros(classes), "replace_head"),
    )
    return join(graph, builder.finish(builder.emit("dense", (x, *constants), "head", "replace_head"), "replace_head"))
