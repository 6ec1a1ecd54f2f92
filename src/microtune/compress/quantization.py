"""Post-training quantisation: a float graph and samples of its input become an int8 graph.

The arithmetic is that of the TFLite quantisation specification (Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018): symmetric int8 weights with a scale per output
channel, int32 biases, asymmetric int8 activations with a scale per tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike

from microtune.compress.bias_correction import correct_biases
from microtune.compress.calibration import RANGES, choose_range, observe, range_quantization
from microtune.compress.folding import drop_dead
from microtune.compress.quantized_operators import RULES, SAME_SCALE, Int8Writer, fused_activations, sole_reader
from microtune.errors import ModelError
from microtune.ir import Graph, Node, Quantization, Tensor, verify
from microtune.ops.trees import trees_of

LEAST_SAMPLES = 8
"""Fewer cannot say what values a network takes."""


def checked_samples(graph: Graph, x: ArrayLike, what: str) -> np.ndarray:
    """``x`` as float32 (n, *input shape), or ModelError: which shape is needed, which sample is not finite."""
    if len(graph.inputs) != 1:
        raise ModelError(f"graph '{graph.name}' has {len(graph.inputs)} inputs; quantisation takes graphs with one")
    shape = graph.tensor(graph.inputs[0]).shape
    try:
        array = np.asarray(x, np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{what} cannot be read as an array of numbers: {error}") from error
    if array.shape[1:] != shape or array.ndim != len(shape) + 1:
        hint = "; for one sample put an axis of 1 in front" if array.shape == shape else ""
        raise ModelError(f"{what} has the shape {array.shape}; (samples, {', '.join(map(str, shape))}) is needed{hint}")
    broken = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
    if len(broken):
        raise ModelError(f"{what}: sample {broken[0]} holds NaN or infinity ({len(broken)} of {len(array)} samples do)")
    return array


def checked_calibration(graph: Graph, calibration: ArrayLike, samples: int) -> np.ndarray:
    """At most ``samples`` of the calibration samples, evenly picked from all of them."""
    array = checked_samples(graph, calibration, "calibration")
    if len(array) < LEAST_SAMPLES:
        raise ModelError(f"calibration has {len(array)} samples; at least {LEAST_SAMPLES} are needed, 100 are good")
    if (array == array.flat[0]).all():
        raise ModelError(f"calibration: every value is {array.flat[0]:g}; samples of the real input are needed")
    if samples < len(array):
        array = array[np.linspace(0, len(array) - 1, samples).round().astype(int)]
    return array


def checked_graph(graph: Graph) -> Graph:
    """The graph without dead nodes, or ModelError for what cannot become int8."""
    graph = drop_dead(verify(graph, "what came before quantisation"))
    if trees_of(graph):
        raise ModelError(f"graph '{graph.name}' has trees, whose comparisons are integers already: leave it as it is")
    for node in graph.nodes:
        weights = node.inputs[1:2] if node.op.endswith("_weight8") else ()
        names = [name for name in (*node.inputs, *node.outputs) if name not in weights]
        integers = [name for name in names if graph.tensor(name).dtype != "float32"]
        if integers:
            raise ModelError(
                f"graph '{graph.name}' is already quantised: node '{node.name}' ({node.op}) has"
                f" '{integers[0]}' in {graph.tensor(integers[0]).dtype}; give the float graph"
            )
        if node.op not in RULES:
            raise ModelError(
                f"node '{node.name}' ({node.op}): not supported in int8. Supported: {', '.join(sorted(RULES))}"
            )
    return graph


def _representatives(graph: Graph) -> dict[str, str]:
    """Tensors that only a concatenation reads take the quantisation of its output, so that nothing is rescaled.

    Where the operator behind one has a scale of its own (sigmoid, a pool), it keeps that and is rescaled.
    """
    found: dict[str, str] = {}
    for node in reversed(graph.nodes):
        if node.op == "concat":
            wanted = found.get(node.output, node.output)
        elif node.op in SAME_SCALE and node.output in found:
            wanted = found[node.output]
        else:
            continue
        for name in node.inputs:
            if graph.producer(name) is not None and sole_reader(graph, name):
                found[name] = wanted
    return found


def chosen_quantizations(graph: Graph, x: np.ndarray, ranges: str, percentile: float) -> dict[str, Quantization]:
    """What suits the values each tensor takes on the calibration samples."""
    try:
        spreads = observe(graph, x)
    except FloatingPointError as error:
        raise ModelError(f"graph '{graph.name}' computes NaN or infinity in '{error}' on the calibration") from error
    own = {name: range_quantization(*choose_range(spread, ranges, percentile)) for name, spread in spreads.items()}
    return own | {name: own[other] for name, other in _representatives(graph).items()}


def int8_graph(graph: Graph, chosen: Mapping[str, Quantization], per_channel: bool) -> Graph:
    """The int8 graph, node by node. ``chosen``: the quantisation that suits the values of each float tensor."""
    writer = Int8Writer(graph, chosen, fused_activations(graph), per_channel)
    source = graph.tensor(graph.inputs[0])
    if not any(node.op == "embedding" for node in graph.consumers(source.name)):
        entry = Tensor(source.name, source.shape, "int8", None, writer.chosen[source.name])
        writer.activations[source.name] = writer.add(entry)
    skipped = {activation.output for activation in writer.fused.values()}
    for node in graph.nodes:
        if node.output not in skipped:
            try:
                RULES[node.op](writer, node)
            except ValueError as error:
                raise ModelError(f"node '{node.name}' ({node.op}) cannot be made int8: it {error}") from error
    return replace(graph, tensors=dict(writer.tensors), nodes=tuple(writer.nodes))


def with_float_output(graph: Graph) -> Graph:
    """The int8 graph with its outputs dequantised; these keep their names, the int8 values before get others."""
    new = {name: graph.fresh_name(f"{name}.int8") for name in graph.outputs}

    def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new.get(name, name) for name in names)

    nodes = [replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs)) for node in graph.nodes]
    tensors = [replace(graph.tensor(old), name=name) for old, name in new.items()]
    for tensor, old in zip(tensors, new, strict=True):
        q = tensor.quantization
        if q is not None:
            crossing = {"scale": float(q.scale), "zero_point": int(q.zero_point)}
            nodes.append(Node("dequantize", f"{old}.dequantize", (tensor.name,), (old,), crossing))
    return graph.with_nodes(nodes, [*tensors, *(Tensor(old, graph.tensor(old).shape) for old in new)])


def check_choices(ranges: str, percentile: object, samples: object, output: str) -> None:
    """Raises ModelError for a choice that there is not."""
    if ranges not in RANGES:
        raise ModelError(f"ranges must be one of {', '.join(RANGES)}, not {ranges!r}")
    if not isinstance(percentile, Real) or not 50.0 < float(percentile) <= 100.0:
        raise ModelError(f"percentile must be above 50 and at most 100, not {percentile!r}")
    if output not in ("int8", "float32"):
        raise ModelError(f"output must be 'int8' or 'float32', not {output!r}")
    if not isinstance(samples, Integral) or int(samples) < LEAST_SAMPLES:
        raise ModelError(f"samples must be at least {LEAST_SAMPLES}, not {samples!r}")


def quantize(
    graph: Graph,
    calibration: ArrayLike,
    *,
    ranges: str = "mse",
    percentile: float = 99.99,
    per_channel: bool = True,
    correct_bias: bool = True,
    samples: int = 200,
    output: str = "int8",
) -> Graph:
    """An int8 graph that computes what ``graph`` does, as nearly as int8 can.

    ``calibration`` (n, *input shape) are real inputs; at most ``samples`` of them, evenly picked, are run. Each
    tensor's range has the least mean squared error over the values seen there (``ranges="mse"``), leaves out the share
    beyond ``percentile`` at either end ("percentile"), or is all of them ("minmax").
    ``per_channel=False`` gives a layer's weights one scale. ``correct_bias`` takes the mean error of each layer out
    of its bias (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019).

    The input becomes int8 with the quantisation in its tensor; so does the output, or with ``output="float32"`` it is
    dequantised. Tensors keep their names. A relu, relu6 or clamp that alone follows a layer becomes its limits.

    Raises ModelError for samples or operators that do not fit, naming them.
    """
    check_choices(ranges, percentile, samples, output)
    graph = checked_graph(graph)
    x = checked_calibration(graph, calibration, samples)
    found = int8_graph(graph, chosen_quantizations(graph, x, ranges, percentile), per_channel)
    if correct_bias:
        found = correct_biases(graph, found, x)
    if output == "float32":
        found = with_float_output(found)
    return verify(found, "quantisation")
