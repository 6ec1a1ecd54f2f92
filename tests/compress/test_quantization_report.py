"""The report on a quantised network: its figures against plain arithmetic, its table, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.compress.quantization_report import Report
from microtune.errors import ModelError
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops.evaluate import evaluate
from microtune.ops.quantized_build import quantize_array


def classifier(outputs: int = 3, last: str | None = None) -> Graph:
    r = np.random.default_rng(0)
    builder = Builder("net")
    x = builder.input("x", (6,))
    for index, width in enumerate((10, outputs)):
        weight = builder.constant(f"w{index}", r.normal(size=(width, x.shape[0])), "test")
        x = builder.emit("dense", [x, weight, builder.constant(f"b{index}", r.normal(size=width), "test")], "h", "test")
        x = x if index else builder.emit("relu", [x], "hidden", "test")
    return builder.finish(builder.emit(last, [x], "y", "test") if last else x, "test")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return classifier()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def int8_graph(graph: Graph, x: np.ndarray) -> Graph:
    return mt.quantize(graph, x)


@pytest.fixture(scope="module")
def labels(graph: Graph, x: np.ndarray) -> np.ndarray:
    """What the float network answers, but for every fifth sample."""
    answers = evaluate(graph, {"x": x})[graph.outputs[0]].argmax(axis=1)
    answers[::5] = (answers[::5] + 1) % 3
    return answers


@pytest.fixture(scope="module")
def report(graph: Graph, int8_graph: Graph, x: np.ndarray, labels: np.ndarray) -> Report:
    return mt.quantization_report(graph, int8_graph, x, labels)


def test_each_layer_is_measured_on_the_values_both_graphs_compute(
    graph: Graph, int8_graph: Graph, x: np.ndarray, report: Report
) -> None:
    assert [layer.name for layer in report.layers] == ["hidden", graph.outputs[0]]
    assert [layer.op for layer in report.layers] == ["dense_int8", "dense_int8"]
    stored = quantize_array(x, int8_graph.tensor("x").quantization)
    for layer in report.layers:
        whole = [Graph("net", g.tensors, g.nodes, g.inputs, (layer.name,)) for g in (graph, int8_graph)]
        exact = evaluate(whole[0], {"x": x.astype(np.float64)}, np.float64)[layer.name]
        quantization = int8_graph.tensor(layer.name).quantization
        steps = evaluate(whole[1], {"x": stored})[layer.name].astype(float) - int(quantization.zero_point)
        scale = float(quantization.scale)
        noise = ((exact - steps * scale) ** 2).sum()
        assert layer.sqnr == pytest.approx(10 * np.log10((exact**2).sum() / noise), abs=0.01)
        ends = [(end - int(quantization.zero_point)) * scale for end in (-128.5, 127.5)]
        assert layer.saturated == np.mean((exact < ends[0]) | (exact > ends[1]))
    assert report.output_sqnr == report.layers[-1].sqnr > 25


def test_bytes_are_those_of_the_constants(graph: Graph, int8_graph: Graph, report: Report) -> None:
    hidden, output = report.layers
    assert (hidden.bytes_before, output.bytes_before) == (4 * (60 + 10), 4 * (30 + 3))
    # int8 weights; int32 bias, int32 multiplier and int8 shift of each output
    assert (hidden.bytes_after, output.bytes_after) == (60 + 9 * 10, 30 + 9 * 3)
    assert report.bytes_before == sum(tensor.bytes for tensor in graph.constants)
    assert report.bytes_after == sum(tensor.bytes for tensor in int8_graph.constants) == 60 + 30 + 9 * 13


def test_a_weight_of_two_layers_is_counted_once() -> None:
    builder = Builder("net")
    x, weight = builder.input("x", (3,)), builder.constant("w", np.diag([1.0, 2.0, 3.0]), "test")
    graph = builder.finish(
        builder.emit("dense", [builder.emit("dense", [x, weight], "h", "test"), weight], "y", "test"), "test"
    )
    x_values = np.random.default_rng(0).normal(size=(20, 3))
    report = mt.quantization_report(graph, mt.quantize(graph, x_values), x_values)
    assert [layer.bytes_before for layer in report.layers] == [36, 0]
    assert report.bytes_before == 36


def test_accuracy_before_and_after(report: Report) -> None:
    assert report.samples == 50
    assert report.accuracy_before == 0.8
    assert abs(report.accuracy_after - 0.8) <= 0.04
    assert report.agreement >= 0.96


def test_the_table_names_every_layer_and_says_the_accuracy(report: Report) -> None:
    text = str(report).splitlines()
    assert len({len(line) for line in text[:4]}) == 1
    assert text[0].split() == ["tensor", "operator", "SQNR", "dB", "saturated", "bytes", "before", "after"]
    assert text[1].split()[:3] == ["hidden", "dense_int8", f"{report.layers[0].sqnr:.1f}"]
    assert text[3].split() == ["total", "50", "samples", str(report.bytes_before), str(report.bytes_after)]
    assert text[4] == f"same answer before and after: {report.agreement:.1%}"
    assert text[5] == f"accuracy: 80.0% before, {report.accuracy_after:.1%} after"


@pytest.mark.parametrize(("last", "threshold"), [(None, 0.0), ("sigmoid", 0.5)])
def test_one_output_is_a_yes_or_no(x: np.ndarray, last: str | None, threshold: float) -> None:
    graph = classifier(outputs=1, last=last)
    answers = evaluate(graph, {"x": x})[graph.outputs[0]][:, 0] > threshold
    assert 0.1 < answers.mean() < 0.9
    report = mt.quantization_report(graph, mt.quantize(graph, x), x, answers)
    assert report.accuracy_before == 1.0
    assert report.accuracy_after > 0.9
    assert report.agreement is None
    assert "same answer" not in str(report)


def test_without_labels_there_is_no_accuracy(graph: Graph, int8_graph: Graph, x: np.ndarray) -> None:
    report = mt.quantization_report(graph, int8_graph, x)
    assert report.accuracy_before is report.accuracy_after is None
    assert "accuracy" not in str(report)


def test_a_float_output_is_compared_as_it_is(graph: Graph, x: np.ndarray, report: Report) -> None:
    dequantised = mt.quantization_report(graph, mt.quantize(graph, x, output="float32"), x)
    assert dequantised.output_sqnr == pytest.approx(report.output_sqnr, abs=0.01)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros(49, int), r"labels have the shape \(49,\); one class index per sample is needed, \(50,\)"),
        (np.zeros((50, 3), int), r"labels have the shape \(50, 3\)"),
        (np.r_[np.zeros(20, int), 3, np.zeros(29, int)], "label 3 of sample 20 is out of range: 0 to 2"),
        (np.r_[-1, np.zeros(49, int)], "label -1 of sample 0 is out of range: 0 to 2"),
        (np.full(50, 0.5), "labels must be class indices, whole numbers"),
        (np.array(["cat"] * 50), "labels must be class indices, whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    graph: Graph, int8_graph: Graph, x: np.ndarray, labels: Any, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        mt.quantization_report(graph, int8_graph, x, labels)


def test_samples_and_graphs_that_do_not_fit_are_refused(graph: Graph, int8_graph: Graph, x: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"x has the shape \(50, 5\); \(samples, 6\) is needed"):
        mt.quantization_report(graph, int8_graph, x[:, :5])
    with pytest.raises(ModelError, match="x has no samples"):
        mt.quantization_report(graph, int8_graph, x[:0])
    other = classifier(outputs=4)
    with pytest.raises(ModelError, match=r"'h_2' has the shape \(4,\) in one graph and \(3,\) in the other"):
        mt.quantization_report(other, int8_graph, x)
    with pytest.raises(ModelError, match="the graphs have different outputs: y and h_2"):
        mt.quantization_report(classifier(last="softmax"), int8_graph, x)
