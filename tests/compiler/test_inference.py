"""A network that only predicts: the same values as the numpy meaning of its graph, in C, on every kind of target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.errors import BuildError, DeviceError
from microtune.ir import Graph, Node, Tensor
from microtune.ops.evaluate import evaluate
from microtune.targets.disassembly import is_forbidden, undefined_symbols
from microtune.toolchain import compile_objects


@pytest.fixture(scope="module")
def made(net: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, mt.Network]:
    graph = net([4, 6, 3], "softmax")
    return graph, mt.compile_inference(graph, tmp_path_factory.mktemp("inference") / "plain")


def test_predicts_what_the_graph_means(made: tuple[Any, mt.Network]) -> None:
    graph, network = made
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    expected = evaluate(graph, {graph.inputs[0]: x}, np.float64)[graph.outputs[0]]
    # a dozen roundings to float32, and an exponential exact to 2e-7
    np.testing.assert_allclose(network.run(x), expected, atol=2e-6)
    np.testing.assert_array_equal(network.run(x[3]), network.run(x)[3])


@pytest.mark.parametrize("target", ["host", "cortex-m0", "cortex-m4", "wasm32"])
def test_clean_and_freestanding(made: tuple[Any, mt.Network], target: str) -> None:
    network = made[1]
    objects = compile_objects(network.sources, [network.directory], target, strict=True)
    if target != "wasm32":  # whose objects are not ELF files
        assert not [name for path in objects for name in undefined_symbols(path) if is_forbidden(name)]


def test_refuses_what_it_cannot_take(made: tuple[Any, mt.Network], tmp_path: Path) -> None:
    graph, network = made
    with pytest.raises(DeviceError, match=r"shape \(5,\)"):
        network.run(np.zeros(5))
    with pytest.raises(DeviceError, match="NaN"):
        network.run([0.0, np.nan, 0.0, 0.0])
    with pytest.raises(BuildError, match=r"network\.json"):
        mt.Network(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("keep")
    with pytest.raises(BuildError, match="not a compiled network"):
        mt.compile_inference(graph, tmp_path / "other")
    assert (tmp_path / "other" / "precious.txt").read_text() == "keep"


def test_replaced_when_compiled_again(net: Any, tmp_path: Path) -> None:
    first = mt.compile_inference(net([2, 2], seed=1), tmp_path / "twice")
    before = first.run([1.0, 2.0])
    second = mt.compile_inference(net([2, 2], seed=2), tmp_path / "twice")
    assert (second.run([1.0, 2.0]) != before).any()


def test_a_network_without_weights_is_clean_c_and_one_that_computes_nothing_is_refused(tmp_path: Path) -> None:
    x = Tensor("x", (3,), "float32")
    graph = Graph(
        "sharp", {"x": x, "y": Tensor("y", (3,), "float32")}, (Node("relu", "y", ("x",), ("y",)),), ("x",), ("y",)
    )
    network = mt.compile_inference(graph, tmp_path / "sharp", targets=["host"])
    assert network.run([-1.0, 0.0, 2.0]).tolist() == [0.0, 0.0, 2.0] and network.description["weights"] == 0
    assert "sharp_weights" not in (tmp_path / "sharp" / "sharp.h").read_text()  # an empty struct is no C
    with pytest.raises(mt.PlanError, match="computes nothing: its output is its input"):
        mt.compile_inference(Graph("idle", {"x": x}, (), ("x",), ("x",)), tmp_path / "idle", targets=["host"])
