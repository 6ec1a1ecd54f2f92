"""``compile_inference(cmsis_nn=PATH)``: int8 layers become calls of the user's CMSIS-NN, and say so when they cannot.

What needs the library runs where MICROTUNE_CMSIS_NN names a clone of it, and is skipped elsewhere.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.compiler import cmsis_nn
from microtune.errors import BuildError
from microtune.frontends.builder import Builder
from microtune.ir import Graph, Tensor, verify
from microtune.ops import OPS
from microtune.ops import cmsis_nn as calls
from microtune.targets.catalogue import target
from microtune.targets.emulator import Emulator

LIBRARY = os.environ.get("MICROTUNE_CMSIS_NN")
needs_library = pytest.mark.skipif(not LIBRARY, reason="MICROTUNE_CMSIS_NN names no clone of ARM-software/CMSIS-NN")
CALLS = Path(cmsis_nn.__file__).parent / "cmsis_nn_c" / "mt_cmsis_nn.h"


def _images(channels: int, softmax: bool = True) -> Graph:
    """A small int8 net with every kind of layer; ``channels`` may be odd."""
    r = np.random.default_rng(channels)
    b = Builder("eye")
    same: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1))}
    halved: dict[str, Any] = {"stride": (2, 2), "padding": ((0, 1), (0, 1))}
    flat: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}

    numbers = itertools.count()

    def constant(*shape: int) -> Tensor:
        return b.constant(f"w{next(numbers)}", r.normal(size=shape) / np.sqrt(np.prod(shape[1:])), "test")

    def conv(x: Tensor, rows: int, before: int, after: int, given: dict[str, Any], name: str) -> Tensor:
        weight = constant(after, rows, rows, before)
        y = b.emit("conv2d", [x, weight, constant(after)], name, "test", **given)
        return b.emit("relu", [y], f"{name}_relu", "test")

    x = b.input("image", (9, 7, 3))
    first = conv(x, 3, 3, channels, same, "stem")
    weight = constant(3, 3, channels)
    deep = b.emit("depthwise_conv2d", [first, weight, constant(channels)], "deep", "test", **same)
    wide = conv(deep, 1, channels, channels, flat, "point")
    both = b.emit("add", [first, wide], "both", "test")
    pooled = b.emit("max_pool2d", [both], "largest", "test", kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)))
    less = conv(pooled, 3, channels, 8, halved, "less")
    mean = b.emit("average_pool2d", [less], "mean", "test", kernel=(2, 1), include_padding=False, **flat)
    size = 8  # (1, 1, 8)
    y = b.emit("dense", [b.reshape(mean, (size,), "flat", "test"), constant(5, size), constant(5)], "y", "test")
    y = b.emit("softmax", [y], "classes", "test") if softmax else y
    graph = verify(b.finish(y, "test"))
    samples = r.normal(size=(30, 9, 7, 3)).astype(np.float32)
    return mt.quantize(graph, calibration=samples, output="int8")


class _Asked:
    """Stands for the library's own answers."""

    def bytes(self, op: str, numbers: list[int]) -> int:
        return 40


def test_every_layer_is_replaced_and_called_as_its_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmsis_nn, "_Workspaces", lambda library, vectors: _Asked())
    graph = _images(6)
    replaced = verify(cmsis_nn.by_library(graph, cmsis_nn.CmsisNN(Path("nowhere")), False))
    wanted = {f"cmsis_{node.op}" for node in graph.nodes} - {"cmsis_reshape"}
    assert (
        wanted
        == {node.op for node in replaced.nodes} - {"reshape"}
        == {op.name for op in calls.OPS} - {"cmsis_multiply_int8"}
    )
    header = CALLS.read_text()
    for node in replaced.nodes:
        call = OPS[node.op].kernel(node, replaced.tensors)
        if call is None or not node.op.startswith("cmsis_"):
            continue
        found = re.search(rf"static inline void {call.function}\(([^)]*)\)", header)
        assert found is not None, call.function
        parameters = found[1].split(",")
        pointers = ["*" in each for each in parameters]
        assert pointers == [isinstance(each, str) for each in call.arguments], call.function
        # numbers keep the names, and so the places, of our own kernels
        assert len(node.inputs) == sum(pointers) - len(node.outputs)


def test_a_learning_layer_stays_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmsis_nn, "_Workspaces", lambda library, vectors: _Asked())
    graph = _images(4)
    dense = next(node for node in graph.nodes if node.op == "dense_int8")
    learnt = replace(dense, inputs=(*dense.inputs, dense.inputs[1]), attributes={**dense.attributes, "start": 0})
    graph = graph.with_nodes([learnt if node is dense else node for node in graph.nodes])
    replaced = cmsis_nn.by_library(graph, cmsis_nn.CmsisNN(Path("nowhere")), False)
    assert "dense_int8" in {node.op for node in replaced.nodes}


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
def test_only_cores_with_vectors_get_their_workspaces(core: str) -> None:
    assert cmsis_nn.has_vectors(target(core)) == (core == "cortex-m55")


def test_a_wrong_path_is_told(tmp_path: Path) -> None:
    graph, goal = _images(4), tmp_path / "eye"
    with pytest.raises(BuildError, match=r"no folder .*nowhere.*git clone"):
        mt.compile_inference(graph, goal, cmsis_nn=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match=r"empty is not CMSIS-NN, it has no Include/arm_nnfunctions\.h"):
        mt.compile_inference(graph, goal, cmsis_nn=tmp_path / "empty")
    old = tmp_path / "old"
    (old / "Source" / "ConvolutionFunctions").mkdir(parents=True)
    (old / "Include").mkdir()
    (old / "Include" / "arm_nnfunctions.h").write_text("typedef int cmsis_nn_context;\n")
    with pytest.raises(BuildError, match=r"old cannot be compiled\. .*get_buffer_size_mve"):
        mt.compile_inference(graph, goal, cmsis_nn=old)
    assert not goal.exists()


@needs_library
@pytest.mark.parametrize("channels", [4, 7, 16])
def test_the_same_bits_as_ours(channels: int, tmp_path: Path) -> None:
    """Of all but dense layers, which round twice there: at most one step away, and that must be the last layer."""
    graph = _images(channels, softmax=False)
    cores = ["host", "cortex-m0", "cortex-m4"]
    ours = mt.compile_inference(graph, tmp_path / "ours")
    theirs = mt.compile_inference(graph, tmp_path / "theirs", cores, cmsis_nn=LIBRARY)
    x = np.random.default_rng(1).integers(-128, 128, (20, 9, 7, 3)).astype(np.int8)
    expected, found = ours.run(x), theirs.run(x)
    assert np.abs(expected.astype(int) - found.astype(int)).max() <= 1
    for core in cores[1:]:
        machine = Emulator(theirs.directory / theirs.description["targets_built"][core], core)
        source, result, arena = (machine.allocate(size) for size in (x[0].nbytes, 8, theirs.description["arena"]))
        for image, wanted in zip(x[:3], found[:3], strict=True):
            machine.write(source, image.tobytes())
            machine.call("theirs_run", source, result, arena)
            assert machine.read(result, wanted.nbytes) == wanted.tobytes(), core


@needs_library
def test_convolutions_pools_and_sums_are_the_same_bits(tmp_path: Path) -> None:
    graph = _images(7)
    cut = next(node for node in graph.nodes if node.op == "average_pool2d_int8").output
    graph = replace(graph, outputs=(cut,)).with_nodes(
        [node for node in graph.nodes if node.op not in ("dense_int8", "softmax_int8", "reshape")]
    )
    x = np.random.default_rng(2).integers(-128, 128, (20, 9, 7, 3)).astype(np.int8)
    ours = mt.compile_inference(graph, tmp_path / "ours").run(x)
    theirs = mt.compile_inference(graph, tmp_path / "theirs", cmsis_nn=LIBRARY)
    np.testing.assert_array_equal(ours, theirs.run(x))
    assert (theirs.directory / "mt_cmsis_nn.h").exists() and theirs.description["cmsis_nn"]


@needs_library
def test_softmax_is_as_near_as_its_input(tmp_path: Path) -> None:
    graph = _images(5)
    x = np.random.default_rng(3).integers(-128, 128, (50, 9, 7, 3)).astype(np.int8)
    ours = mt.compile_inference(graph, tmp_path / "ours").run(x)
    theirs = mt.compile_inference(graph, tmp_path / "theirs", cmsis_nn=LIBRARY).run(x)
    last = next(node for node in graph.nodes if node.op == "softmax_int8")
    logits = graph.tensor(last.inputs[0]).quantization
    assert logits is not None
    scale = logits.scale
    # where each logit may be a step s away, a probability p moves by 2 p (1 - p) s at most; and both round
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 256 * scale / 2 + 2
