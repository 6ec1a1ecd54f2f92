"""The PyTorch layers that ``to_torch`` writes for each operator of a float graph."""

from __future__ import annotations

import operator

from microtune.training import bridge_elementwise as elementwise
from microtune.training import bridge_layers as layers
from microtune.training import bridge_layout as layout
from microtune.training.bridge_writer import Rule

RULES: dict[str, Rule] = {
    **dict.fromkeys(("dense", "dense_weight8"), layers.dense),
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "conv2d_weight8", "depthwise_conv2d_weight8"), layers.convolution),
    "channel_affine": layers.channel_affine,
    "max_pool2d": layers.max_pool,
    "average_pool2d": layers.average_pool,
    "global_average": layers.global_average,
    "reshape": layout.reshape,
    "transpose": layout.transpose,
    "pad": layout.pad,
    "slice": layout.take_slice,
    "concat": layout.concat,
    "add": elementwise.two(operator.add),
    "multiply": elementwise.two(operator.mul),
    "scale": elementwise.scale,
    "relu": elementwise.activation("ReLU"),
    "relu6": elementwise.activation("ReLU6"),
    "clamp": elementwise.activation("Hardtanh", "low", "high"),
    "leaky_relu": elementwise.activation("LeakyReLU", "alpha"),
    "hard_swish": elementwise.activation("Hardswish"),
    "hard_sigmoid": elementwise.hard_sigmoid,
    "sigmoid": elementwise.activation("Sigmoid"),
    "tanh": elementwise.activation("Tanh"),
    "softmax": elementwise.softmax,
    "embedding": layers.embedding,
}
"""By operator."""
