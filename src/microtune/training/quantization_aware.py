"""``mt.quantize_aware``: train a net as int8 computes it, where quantising it after training costs too much."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from microtune.compress.bias_correction import correct_biases
from microtune.compress.quantization import (
    check_choices,
    checked_calibration,
    checked_graph,
    chosen_quantizations,
    int8_graph,
    with_float_output,
)
from microtune.errors import ModelError
from microtune.ir import Graph, Quantization, Tensor, constant, verify
from microtune.ops.quantized_build import dequantize_array
from microtune.progress import Progress
from microtune.training import require
from microtune.training.bridge import without_last_activation
from microtune.tuning.losses import Loss

if TYPE_CHECKING:
    from microtune.training.fit import Epoch

CHANNELS = {"dense": 0, "conv2d": 0, "depthwise_conv2d": 2, "channel_affine": 0}
"""Layers that are trained, and the axis of their weight that counts the outputs."""


def _float_graph(model: Any, x: Any) -> Graph:
    """The graph of whatever ``mt.load`` reads; a module is given the first sample."""
    from microtune.frontends.load import load

    return model if isinstance(model, Graph) else load(model, example=x[:1])


def trainable(graph: Graph) -> Graph:
    """The graph with a bias and constants of its own for each layer, so that each is trained for itself.

    Raises ModelError for a layer whose weights are int8 already, or are computed.
    """
    taken = set[str]()
    nodes, new = [], list[Tensor]()

    def own(wish: str, data: np.ndarray) -> str:
        name, count = wish, 1
        while name in taken or (name != wish and name in graph.tensors):
            count += 1
            name = f"{wish}_{count}"
        taken.add(name)
        new.append(constant(name, data))
        return name

    for node in graph.nodes:
        if node.op.endswith("_weight8"):
            raise ModelError(f"node '{node.name}' ({node.op}): its weights are int8 already; give the float graph")
        if node.op in CHANNELS or node.op == "embedding":
            arrays = []
            for name in node.inputs[1:]:
                data = graph.tensor(name).data
                if data is None:
                    raise ModelError(
                        f"node '{node.name}' ({node.op}): '{name}' is computed; int8 needs it as a constant"
                    )
                arrays.append((name, data))
            if node.op in CHANNELS and len(arrays) == 1:
                weight, data = arrays[0]
                arrays.append((f"{weight}.bias", np.zeros(data.shape[CHANNELS[node.op]], np.float32)))
            node = replace(node, inputs=(node.inputs[0], *(own(name, data) for name, data in arrays)))
        nodes.append(node)
    return graph.with_nodes(nodes, new)


def _corrected(graph: Graph, chosen: dict[str, Quantization], per_channel: bool, x: np.ndarray) -> Graph:
    """The float graph with the biases of the int8 form that ``mt.quantize`` makes: training begins where that ends."""
    quantized = correct_biases(graph, int8_graph(graph, chosen, per_channel), x)
    layers = {node.name: node for node in quantized.nodes}
    found = []
    for node in graph.nodes:
        if node.op in CHANNELS:
            bias = quantized.tensor(layers[node.name].inputs[2])
            if bias.data is not None and bias.quantization is not None:
                found.append(constant(node.inputs[2], dequantize_array(bias.data, bias.quantization)))
    return graph.with_nodes(graph.nodes, found)


def quantize_aware(
    model: Any,
    data: tuple[Any, Any],
    *,
    loss: str | Loss = "cross_entropy",
    epochs: int = 20,
    lr: float = 1e-3,
    batch: int = 32,
    seed: int = 0,
    calibration: Any = None,
    ranges: str = "mse",
    percentile: float = 99.99,
    per_channel: bool = True,
    samples: int = 200,
    output: str = "int8",
    progress: Progress[Epoch] | None = None,
) -> Graph:
    """An int8 graph like ``mt.quantize``'s, of a float net that was trained with the roundings of int8 in place.

    ``model``: a graph, a PyTorch module or whatever else ``load`` reads; it is left as it is. ``data``: a pair (x, y)
    to train with, x (n, *input shape), y class indices or values as ``loss`` needs them; a softmax or sigmoid at the
    end of the model is part of the loss. Adam with a learning rate ``lr`` that falls to zero, ``epochs`` times over the
    samples; the same ``seed`` gives the same graph.

    Batch normalisation is folded first. Then each forward pass rounds and limits exactly what the int8 graph does:
    weights by their channel's largest, biases, and every tensor by the range that ``calibration`` (default x) gives it
    as in ``mt.quantize``, which stays; gradients pass the roundings as if they were not there (Jacob et al., CVPR
    2018). ``ranges``, ``percentile``, ``per_channel``, ``samples`` and ``output`` mean what they do there.
    ``progress``: called after each epoch.

    Raises ModelError for operators that have no int8 form, naming the node, and TrainingError for samples that do not
    fit or a loss that is no longer finite.
    """
    require("quantize_aware")
    from microtune.training.fake_quantization import FakeQuantized
    from microtune.training.fit import check_settings, fit
    from microtune.training.samples import array_of, checked
    from microtune.training.settings import pair_of

    check_choices(ranges, percentile, samples, output)
    check_settings(epochs, lr, batch, seed)
    x, y = pair_of(data)
    x = array_of(x, "x")
    graph = trainable(checked_graph(_float_graph(model, x)))
    body = without_last_activation(graph)
    source = body.tensor(body.inputs[0])
    pairs = checked(x, y, source.shape, body.tensor(body.outputs[0]).size, loss)
    chosen_from = checked_calibration(graph, pairs.x if calibration is None else calibration, samples)
    chosen = chosen_quantizations(graph, chosen_from, ranges, percentile)
    net = FakeQuantized(_corrected(body, chosen, per_channel, chosen_from), chosen, per_channel)
    fit(net, pairs, loss=loss, epochs=epochs, lr=lr, batch=batch, seed=seed, progress=progress)
    found = net.written(graph)
    return verify(with_float_output(found) if output == "float32" else found, "quantisation-aware training")
