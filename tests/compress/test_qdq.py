"""``mt.save``: what is read back predicts the same bits, and onnxruntime predicts the same but for its own rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.compress.random_networks import random_network

import microtune as mt
from microtune.compress.batched import run
from microtune.compress.qdq import to_onnx
from microtune.frontends.builder import Builder
from microtune.ir import Graph
from microtune.ops.quantized_build import dequantize_array, quantize_array

MODELS = Path(__file__).parents[3] / "shared/data/models/mlperf_tiny"


def int8_network(seed: int) -> tuple[Graph, np.ndarray]:
    """A random net and inputs (24, ...)."""
    r = np.random.default_rng(seed)
    graph = random_network(r)
    x = r.normal(size=(24, *graph.tensor(graph.inputs[0]).shape)).astype(np.float32)
    return mt.quantize(graph, x), x


def real(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Real outputs of a graph with an int8 input and output."""
    source, result = (graph.tensor(names[0]).quantization for names in (graph.inputs, graph.outputs))
    assert source is not None and result is not None
    return dequantize_array(run(graph, quantize_array(x, source)), result)


def runtime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(found)


def test_random_nets_come_back_to_the_bit() -> None:
    """All operators that ``mt.quantize`` writes, and none that is computed in floats."""
    apart = []
    for seed in range(80):
        graph, x = int8_network(seed)
        model = to_onnx(graph)
        onnx.checker.check_model(model)
        again = mt.load(model)
        assert np.array_equal(run(again, x), real(graph, x)), f"seed {seed}"
        borders = [node.op for node in again.nodes if again.tensor(node.output).dtype == "float32"]
        assert borders == ["dequantize"], f"seed {seed}: {borders}"
        if seed < 40:
            scale = float(np.asarray(again.producer(again.outputs[0]).attributes["scale"]))  # type: ignore[union-attr]
            apart.append(np.rint(np.abs(runtime(model, x) - real(graph, x)) / scale).ravel())
    # onnxruntime computes in float32 and rounds half to even; ours rounds twice where a factor is small, as TFLite's
    steps = np.concatenate(apart)
    assert (steps > 1).mean() < 0.02 and (steps == 0).mean() > 0.85


@pytest.mark.parametrize("name", ["kws_ref_model", "pretrainedResnet_quant", "ad01_int8"])
def test_published_nets(name: str, tmp_path: Path) -> None:
    path = MODELS / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    graph = mt.load(path)
    q = graph.tensor(graph.inputs[0]).quantization
    assert q is not None
    stored = np.random.default_rng(0).integers(-128, 128, (6, *graph.tensor(graph.inputs[0]).shape)).astype(np.int8)
    x = dequantize_array(stored, q)
    again = mt.load(mt.save(graph, tmp_path / "net.onnx"))
    assert np.array_equal(run(again, x), real(graph, x))
    assert len(again.nodes) == len(graph.nodes) + 2  # to int8 and back
    found = runtime(onnx.load(tmp_path / "net.onnx"), x)
    assert (found.argmax(1) == real(graph, x).argmax(1)).all()


def test_a_float_graph_is_saved_by_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    r = np.random.default_rng(0)
    builder = Builder("net")
    x = builder.input("x", (3,))
    y = builder.emit("dense", [x, builder.constant("w", r.normal(size=(2, 3)), "test")], "sum", "test")
    graph = builder.finish(builder.emit("softmax", [y], "answer", "test"), "test")
    given = r.normal(size=(5, 3)).astype(np.float32)
    found = run(mt.load(mt.save(graph, tmp_path / "deep" / "net.onnx")), given)
    assert np.abs(found - run(graph, given)).max() <= 2.0**-22


def test_refusals(tmp_path: Path) -> None:
    graph, _ = int8_network(0)
    with pytest.raises(mt.ModelError, match=r"net.tflite: graphs are saved as .onnx files"):
        mt.save(graph, tmp_path / "net.tflite")
    (tmp_path / "file").touch()
    (tmp_path / "folder.onnx").mkdir()
    odd = ("file/net.onnx", "folder.onnx", f"{'x' * 300}.onnx", "zero\0.onnx")
    for path, said in (*((tmp_path / each, "cannot be written: ") for each in odd), (None, "None is no path")):
        with pytest.raises(mt.ModelError, match=said):
            mt.save(graph, path)  # type: ignore[arg-type]
    for take in (mt.to_torch, lambda given: mt.save(given, tmp_path / "net.onnx")):
        with pytest.raises(mt.ModelError, match=r"graphs?, and this is str: mt.load makes"):
            take("net.onnx")
    (tmp_path / "file").unlink()
    (tmp_path / "folder.onnx").rmdir()
    goal = mt.save(graph, tmp_path / "net.onnx")
    before = goal.read_bytes()
    nodes = [*graph.nodes[:-1], graph.nodes[-1].__class__("conv2d_grad", "odd", *_ends(graph))]
    with pytest.raises(mt.ModelError, match=r"node 'odd' \(conv2d_grad\): has no QDQ form"):
        mt.save(graph.with_nodes(nodes), goal)
    assert goal.read_bytes() == before and list(tmp_path.iterdir()) == [goal]


def _ends(graph: Graph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return graph.nodes[-1].inputs[:1], graph.nodes[-1].outputs
