"""Take the mean error that rounding brings into each layer out of its bias.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.2, with
the means measured on calibration samples and the layers corrected in order, each behind corrected ones.
"""

from __future__ import annotations

import numpy as np

from microtune.compress.batched import FLOAT_LAYERS, integer_sums, walk
from microtune.compress.quantized_operators import fused_activations
from microtune.compress.quantized_weights import LARGEST_BIAS
from microtune.ir import Graph, Node, Tensor, constant
from microtune.ops.quantized_build import quantize_array

SAMPLES = 64
"""Run at once through all layers of both graphs: enough for a mean per channel."""


def _float_means(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    """The mean of each channel of each layer before its activation, by the name of the int8 layer's output."""
    fused = fused_activations(graph)
    found: dict[str, np.ndarray] = {}
    for node, values in walk(graph, x):
        if node.op in (*FLOAT_LAYERS, "channel_affine"):
            name = fused[node.output].output if node.output in fused else node.output
            found[name] = values[node.output].reshape(-1, values[node.output].shape[-1]).mean(0, dtype=np.float64)
    return found


def correct_biases(source: Graph, quantized: Graph, samples: np.ndarray) -> Graph:
    """``quantized`` with biases by which each layer's mean per channel equals that of the float graph ``source``.

    ``samples`` (n, *input shape) are float inputs; at most SAMPLES of them, evenly picked, are run.
    """
    picked = np.linspace(0, len(samples) - 1, min(SAMPLES, len(samples))).round().astype(int)
    x = samples[picked]
    means = _float_means(source, x)
    corrected: list[Tensor] = []

    def correct(node: Node, arrays: list[np.ndarray]) -> None:
        bias = quantized.tensor(node.inputs[2]) if node.output in means and len(node.inputs) == 5 else None
        if bias is None or bias.quantization is None:
            return
        sums = integer_sums(node, arrays[0], arrays[1])
        step = np.float64(bias.quantization.scale)
        wanted = means[node.output] / step - sums.reshape(-1, sums.shape[-1]).mean(0)
        arrays[2] = np.clip(np.rint(wanted), -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32)
        corrected.append(constant(bias.name, arrays[2], bias.quantization))

    quantization = quantized.tensor(quantized.inputs[0]).quantization
    for _ in walk(quantized, x if quantization is None else quantize_array(x, quantization), before=correct):
        pass
    return quantized.with_nodes(quantized.nodes, corrected)
