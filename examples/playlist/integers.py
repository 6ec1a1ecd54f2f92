"""The network in int8, with room to grow: what somebody likes counts several times what the crowd likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from network import graph

import microtune as mt
from microtune.ir import Graph, Node

REACH: Mapping[str, float] = {"scoring": 1.0, "time": 2.0}
"""How far from zero a weight must be able to come. A step is this over 127, or up to twice that."""


def stored(parameters: Mapping[str, np.ndarray], calibration: np.ndarray, name: str = "playlist") -> Graph:
    """The int8 network of these parameters; ``calibration`` (n, 24) are inputs as they come. Plan it with
    ``learn=LEARN, precision="int8"``; mood, history and skip then lie in one tensor of 18, in this order."""
    given = calibration.astype(np.float32)
    found = mt.quantize(graph(parameters, name), calibration=given, ranges="minmax", per_channel=False)
    for layer in [node for node in found.nodes if node.op == "dense_int8"]:
        found = _widened(found, layer, REACH[layer.inputs[1]])
    return found


def _widened(given: Graph, layer: Node, reach: float) -> Graph:
    """The graph in which weights of a dense layer can come to ``reach``: each step counts a power of two more."""
    weight, bias, shift = (given.tensor(layer.inputs[each]) for each in (1, 2, 4))
    assert weight.data is not None and bias.data is not None and shift.data is not None
    assert weight.quantization is not None and bias.quantization is not None
    places = max(0, int(np.ceil(np.log2(reach / (127.0 * float(np.max(weight.quantization.scale)))))))
    wide = np.float32(2**places)
    found = (
        replace(
            weight, data=np.rint(weight.data / wide).astype(np.int8),
            quantization=replace(weight.quantization, scale=weight.quantization.scale * wide),
        ),
        replace(
            bias, data=np.rint(bias.data / wide).astype(np.int32),
            quantization=replace(bias.quantization, scale=bias.quantization.scale * wide),
        ),
        replace(shift, data=(shift.data + places).astype(np.int8)),
    )  # fmt: skip
    return replace(given, tensors={**given.tensors, **{each.name: each for each in found}})
