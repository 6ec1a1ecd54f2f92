"""What quantisation did to a network, layer by layer: noise, saturation, bytes; and its answers before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from microtune.compress.batched import walk
from microtune.compress.calibration import CHUNK
from microtune.compress.quantization import checked_samples
from microtune.errors import ModelError
from microtune.ir import Graph, Quantization
from microtune.ops.quantized_build import dequantize_array, quantize_array


@dataclass(frozen=True)
class Layer:
    """One tensor that both graphs compute, and the constants that only it needs.

    ``sqnr``: signal to quantisation noise, 10 log10(sum y^2 / sum (y - y8)^2), in dB; infinite without any noise.
    ``saturated``: share of the float values that lie beyond what its int8 represents.
    """

    name: str
    op: str
    sqnr: float
    saturated: float
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Report:
    """A float graph against its int8 form on the same samples. ``print(report)`` shows a table.

    ``accuracy_*``: share of samples answered rightly, None without labels. ``agreement``: share of samples with the
    same answer before and after, None where the output is one number. ``bytes_*``: all constants. ``trained``: the same
    float graph against another int8 form of it, from ``quantize_aware``.
    """

    layers: tuple[Layer, ...]
    samples: int
    accuracy_before: float | None
    accuracy_after: float | None
    agreement: float | None
    bytes_before: int
    bytes_after: int
    trained: Report | None = None

    @property
    def output_sqnr(self) -> float:
        """Signal to quantisation noise of the output, in dB."""
        return self.layers[-1].sqnr

    def __str__(self) -> str:
        width = max(len("total"), *(len(layer.name) for layer in self.layers))
        kinds = max(len("operator"), *(len(layer.op) for layer in self.layers))
        trained = {} if self.trained is None else {layer.name: layer.sqnr for layer in self.trained.layers}
        lines = [f"{'tensor':{width}}  {'operator':{kinds}}  SQNR dB  saturated  bytes before   after"]
        lines[0] += "  trained dB" if trained else ""
        for layer in self.layers:
            other = f"  {trained[layer.name]:10.1f}" if layer.name in trained else ""
            lines.append(
                f"{layer.name:{width}}  {layer.op:{kinds}}  {layer.sqnr:7.1f}  {layer.saturated:9.3%}"
                f"  {layer.bytes_before:12d} {layer.bytes_after:7d}{other}"
            )
        total = f"{self.samples} samples"
        lines.append(
            f"{'total':{width}}  {total:{kinds}}  {'':7}  {'':9}  {self.bytes_before:12d} {self.bytes_after:7d}"
        )
        again = self.trained
        if self.agreement is not None:
            with_training = f", {again.agreement:.1%} trained" if again and again.agreement is not None else ""
            lines.append(f"same answer before and after: {self.agreement:.1%}{with_training}")
        if self.accuracy_before is not None and self.accuracy_after is not None:
            with_training = (
                f", {again.accuracy_after:.1%} trained" if again and again.accuracy_after is not None else ""
            )
            lines.append(f"accuracy: {self.accuracy_before:.1%} before, {self.accuracy_after:.1%} after{with_training}")
        return "\n".join(lines)


@dataclass
class _Sums:
    """What is summed over all samples for one tensor."""

    signal: float = 0.0
    noise: float = 0.0
    saturated: int = 0
    values: int = 0

    def add(self, real: np.ndarray, stored: np.ndarray, quantization: Quantization | None) -> None:
        shown = stored if quantization is None else dequantize_array(stored, quantization)
        exact = real.astype(np.float64)
        self.signal += float((exact**2).sum())
        self.noise += float(((exact - shown) ** 2).sum())
        self.values += real.size
        if quantization is not None:
            scale, zero = float(quantization.scale), int(quantization.zero_point)
            low, high = (scale * (end - zero) for end in (-128.5, 127.5))
            self.saturated += int(np.count_nonzero((exact < low) | (exact > high)))

    @property
    def sqnr(self) -> float:
        if self.noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self.signal / self.noise) if self.signal > 0.0 else -math.inf


def _own_bytes(graph: Graph, name: str, others: set[str], counted: set[str]) -> int:
    """Bytes of the constants behind a tensor up to those of ``others``; none that was counted before."""
    node = graph.producer(name)
    total = 0
    for source in node.inputs if node is not None else ():
        tensor = graph.tensor(source)
        if tensor.is_constant and source not in counted:
            counted.add(source)
            total += tensor.bytes
        elif not tensor.is_constant and source not in others:
            total += _own_bytes(graph, source, others, counted)
    return total


def _answers(outputs: np.ndarray, graph: Graph) -> np.ndarray:
    """The class each output (n, ...) stands for: the largest, or of one number whether it is the likelier."""
    flat = outputs.reshape(len(outputs), -1)
    if flat.shape[1] > 1:
        return np.asarray(flat.argmax(axis=1))
    last = graph.producer(graph.outputs[0])
    return np.asarray(flat[:, 0] > (0.5 if last is not None and last.op == "sigmoid" else 0.0)).astype(np.int64)


def _checked_labels(y: ArrayLike, samples: int, classes: int) -> np.ndarray:
    labels = np.asarray(y)
    if labels.shape != (samples,):
        raise ModelError(f"labels have the shape {labels.shape}; one class index per sample is needed, ({samples},)")
    if labels.dtype.kind not in "biu" and not (labels.dtype.kind == "f" and (labels == np.floor(labels)).all()):
        raise ModelError(f"labels must be class indices, whole numbers; found {labels.dtype} such as {labels[0]}")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise ModelError(f"label {labels[wrong[0]]} of sample {wrong[0]} is out of range: 0 to {classes - 1}")
    return labels.astype(np.int64)


def _stored_input(graph: Graph, x: np.ndarray) -> np.ndarray:
    quantization = graph.tensor(graph.inputs[0]).quantization
    return x if quantization is None else quantize_array(x, quantization)


def _shared(float_graph: Graph, int8_graph: Graph) -> list[str]:
    """Tensors that both graphs compute, in the int8 graph's order. Raises ModelError for graphs that do not match."""
    both = [name for node in int8_graph.nodes for name in node.outputs[:1] if name in float_graph.tensors]
    for attribute in ("inputs", "outputs"):
        names, others = getattr(float_graph, attribute), getattr(int8_graph, attribute)
        if names != others:
            raise ModelError(f"the graphs have different {attribute}: {', '.join(names)} and {', '.join(others)}")
    for name in (*float_graph.inputs, *both):
        shapes = float_graph.tensor(name).shape, int8_graph.tensor(name).shape
        if shapes[0] != shapes[1]:
            raise ModelError(f"'{name}' has the shape {shapes[0]} in one graph and {shapes[1]} in the other")
    return both


def quantization_report(
    float_graph: Graph,
    int8_graph: Graph,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    trained: Graph | None = None,
) -> Report:
    """Both graphs on real inputs ``x`` (n, *input shape), which the int8 graph is given quantised.

    ``y`` (n,) are class indices; of a network with one output, 0 or 1. ``trained``: another int8 graph, from
    ``quantize_aware``, told in the same report. Raises ModelError for samples, labels or graphs that do not fit.
    """
    if trained is not None:
        other = quantization_report(float_graph, trained, x, y)
        return replace(quantization_report(float_graph, int8_graph, x, y), trained=other)
    samples = checked_samples(float_graph, x, "x")
    if not len(samples):
        raise ModelError("x has no samples")
    shared = _shared(float_graph, int8_graph)
    output = float_graph.outputs[0]
    labels = None
    if y is not None:
        labels = _checked_labels(y, len(samples), max(2, float_graph.tensor(output).size))
    sums = {name: _Sums() for name in shared}
    answers: dict[str, list[np.ndarray]] = {"before": [], "after": []}
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        real: dict[str, np.ndarray] = {}
        for node, values in walk(float_graph, chunk):
            real.update({name: values[name] for name in node.outputs if name in sums})
        for node, values in walk(int8_graph, _stored_input(int8_graph, chunk)):
            if node.output in sums:
                quantization = int8_graph.tensor(node.output).quantization
                sums[node.output].add(real[node.output], values[node.output], quantization)
                if node.output == output:
                    shown = values[output] if quantization is None else dequantize_array(values[output], quantization)
                    answers["before"].append(_answers(real[output], float_graph))
                    answers["after"].append(_answers(shown, float_graph))
    before, after = (np.concatenate(answers[when]) for when in ("before", "after"))
    return Report(
        _layers(float_graph, int8_graph, sums),
        len(samples),
        None if labels is None else float((before == labels).mean()),
        None if labels is None else float((after == labels).mean()),
        float((before == after).mean()) if float_graph.tensor(output).size > 1 else None,
        sum(tensor.bytes for tensor in float_graph.constants),
        sum(tensor.bytes for tensor in int8_graph.constants),
    )


def _layers(float_graph: Graph, int8_graph: Graph, sums: Mapping[str, _Sums]) -> tuple[Layer, ...]:
    """One row per shared tensor, the output last."""
    found, seen_before, seen_after = [], set[str](), set[str]()
    operators = {node.output: node.op for node in int8_graph.nodes}
    for name in sorted(sums, key=lambda name: name == float_graph.outputs[0]):
        before = _own_bytes(float_graph, name, set(sums), seen_before)
        after = _own_bytes(int8_graph, name, set(sums), seen_after)
        found.append(
            Layer(name, operators[name], sums[name].sqnr, sums[name].saturated / sums[name].values, before, after)
        )
    return tuple(found)
