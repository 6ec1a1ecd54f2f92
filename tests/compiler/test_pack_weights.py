"""Frozen weights stored without their zeros: the same bits, less flash, and only where that is so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import microtune as mt
from microtune.cli import app
from microtune.compiler.inference import emit_network
from microtune.compiler.passes import pack_weights as packing
from microtune.compiler.show import show_stage
from microtune.errors import PlanError
from microtune.frontends.builder import Builder
from microtune.ir import Graph, constant, verify
from microtune.ops.packed import pack
from microtune.targets.size import image_size

CORES = ("cortex-m0", "cortex-m4")


def image_net(kept: float) -> Graph:
    """6 x 6 x 4 > convolution 3 x 3 to 32 > 1 x 1 to 96 > dense 12 > dense 3. kept: share of what is not zero but in
    the last."""
    r = np.random.default_rng(5)
    builder = Builder("net")

    def weight(name: str, *shape: int, share: float = kept) -> Any:
        return builder.constant(name, r.normal(size=shape) / 6 * (r.random(shape) < share), "test")

    x = builder.input("x", (6, 6, 4))
    geometry = {"stride": (2, 2), "padding": ((1, 1), (1, 1))}
    for index, (taps, outputs) in enumerate(((3, 32), (1, 96))):
        inputs = [x, weight(f"w{index}", outputs, taps, taps, x.shape[2]), weight(f"b{index}", outputs, share=1.0)]
        x = builder.emit("conv2d", inputs, f"c{index}", "test", **geometry)
        x = builder.emit("relu", [x], f"r{index}", "test")
        geometry = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    x = builder.emit("reshape", [x], "flat", "test", shape=(x.size,))
    for index, (outputs, share) in enumerate(((12, kept), (3, 1.0)), start=2):
        inputs = [x, weight(f"w{index}", outputs, x.size, share=share), weight(f"b{index}", outputs, share=1.0)]
        x = builder.emit("dense", inputs, f"d{index}", "test")
        x = builder.emit("relu", [x], f"r{index}", "test") if index == 2 else x
    return verify(builder.finish(x, "test"))


X = np.random.default_rng(1).normal(size=(40, 6, 6, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    net = image_net(0.12)
    return {"float32": net, "int8": mt.quantize(net, calibration=X)}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_same_bits_in_less_flash(graphs: dict[str, Graph], dtype: str, tmp_path: Path) -> None:
    packed = mt.compile_inference(graphs[dtype], tmp_path / "net", ["host", *CORES])
    dense = mt.compile_inference(graphs[dtype], tmp_path / "dense" / "net", ["host", *CORES], sparse=False)
    assert packed.run(X).tobytes() == dense.run(X).tobytes()
    assert not dense.packed and dense.description["packed"]["saved"] == 0
    assert len(packed.packed) == 3 and packed.description["arena"] == dense.description["arena"]
    said = packed.description["packed"]
    less = dense.description["weights"] - packed.description["weights"]
    assert less == sum(each["dense"] - each["bytes"] for each in packed.packed) == said["saved"] + said["code"] > 0
    assert all(0.8 < each["zeros"] < 1 for each in packed.packed)
    for core in CORES:
        flash = [image_size(each.directory / each.description["targets_built"][core]).flash for each in (packed, dense)]
        assert flash[1] - flash[0] >= said["saved"] > 0, core


def test_nets_without_zeros_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    net = image_net(0.9)
    for graph in (net, mt.quantize(net, calibration=X)):
        emitted = emit_network(graph, "net")
        with monkeypatch.context() as patch:
            patch.setattr(packing, "_packable", lambda *_: {})
            assert emit_network(graph, "net") == emitted


def test_a_device_stores_what_is_frozen_packed(graphs: dict[str, Graph], tmp_path: Path) -> None:
    given: dict[str, Any] = {"loss": "cross_entropy", "optimizer": mt.SGD(0.1), "learner": mt.Learner(buffer=10)}
    plans = [mt.plan(graphs["float32"], mt.Head(1), **given, sparse=sparse) for sparse in ("auto", False)]
    memory = plans[0].memory
    assert {each.name for each in memory.packed} == {"w0", "w1", "w2"} and not plans[1].memory.packed
    assert plans[1].memory.flash - memory.flash >= memory.saved > 0
    assert replace(memory, flash=0, stack=0, ram=0, packed=(), saved=0) == replace(
        plans[1].memory, flash=0, stack=0, ram=0
    )
    text = show_stage(plans[0], "memory", "net")
    assert f"flash is at least {memory.saved} bytes smaller" in text and "w1: " in text
    assert "packed" not in show_stage(plans[1], "memory", "net")
    packages = [mt.build(plan, tmp_path / str(index) / "net") for index, plan in enumerate(plans)]
    manifest = json.loads((packages[0].directory / "manifest.json").read_text())["memory"]
    assert [each["name"] for each in manifest["packed"]] == [each.name for each in memory.packed]
    devices = [mt.Device(package) for package in packages]
    for x in X[:5]:
        assert devices[0].predict(x).value.tobytes() == devices[1].predict(x).value.tobytes()
    updates = []
    for _ in range(10):
        devices[0].predict(X[20])
        devices[0].observe(2)
        updates.append(devices[0].idle())
    assert any(each is not None and each.loss_after < each.loss_before for each in updates)


def test_weights_that_gradients_read_stay_dense(graphs: dict[str, Graph]) -> None:
    plan = mt.plan(graphs["float32"], mt.Bias(), "cross_entropy")
    assert {each.name for each in plan.programs.packing.weights} <= {"w0"}
    assert not mt.plan(graphs["float32"], mt.Full(), "cross_entropy").programs.packing.weights


def test_a_bias_of_minus_zero_keeps_its_layer_dense(graphs: dict[str, Graph]) -> None:
    graph = graphs["float32"]
    bias = np.asarray(graph.tensor("b1").data).copy()
    bias[3] = -0.0
    changed = replace(graph, tensors={**graph.tensors, "b1": constant("b1", bias)})
    assert {each.name for each in packing.pack_weights([changed])[1].weights} == {"w0", "w2"}
    assert {each.name for each in packing.pack_weights([graph], {"w1"})[1].weights} == {"w0", "w2"}


def test_the_command_says_what_is_packed_and_can_be_told_not_to(graphs: dict[str, Graph], tmp_path: Path) -> None:
    model = mt.save(graphs["int8"], tmp_path / "net.onnx")
    out = ["-o", str(tmp_path / "net")]
    shown = CliRunner().invoke(app, ["compile", str(model), *out])
    assert shown.exit_code == 0 and "stored packed: flash is at least" in shown.output, shown.output
    assert sum(" % zeros" in line for line in shown.output.splitlines()) == 3
    told = CliRunner().invoke(app, ["compile", str(model), *out, "--no-sparse", "--json"])
    assert told.exit_code == 0 and json.loads(told.stdout)["packed"] == [] and json.loads(told.stdout)["saved"] == 0


def test_an_unknown_choice_is_refused(graphs: dict[str, Graph], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="sparse='never': write 'auto'"):
        mt.plan(graphs["float32"], sparse="never")
    with pytest.raises(PlanError, match="sparse=True"):
        mt.compile_inference(graphs["float32"], tmp_path / "net", sparse=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_other_choice_of_forms_takes_fewer_bytes(seed: int) -> None:
    """Every assignment of forms to three layers, weighed one by one."""
    r = np.random.default_rng(seed)
    weights = {}
    for name in "abc":
        shape = (int(r.integers(20, 120)), int(r.integers(20, 120)))
        most = int(r.choice([7, 127]))
        data = r.integers(-most, most + 1, shape) * (r.random(shape) < r.choice([0.05, 0.15, 0.4, 0.9]))
        weights[name] = constant(name, data.astype(np.int8))
    chosen, code = packing._choose(weights, "int8")
    assert code == sum(packing.CODE["int8"][form] for form in {form for form, _ in chosen.values()})

    stored = {
        (name, form): pack(np.asarray(weights[name].data), form) for name in weights for form in packing.CODE["int8"]
    }

    def cost(forms: dict[str, str]) -> int:
        found = {name: stored[name, form] for name, form in forms.items()}
        if any(each is None or each.bytes > (1 - packing.WORTH) * weights[name].bytes for name, each in found.items()):
            return 0
        less = sum(-(-weights[name].bytes // 4) * 4 - each.bytes - packing.CALL for name, each in found.items() if each)
        return sum(packing.CODE["int8"][form] for form in set(forms.values())) - less

    options = (None, *packing.CODE["int8"])
    every = [
        {name: form for name, form in zip("abc", forms, strict=True) if form is not None}
        for forms in np.array(np.meshgrid(options, options, options)).T.reshape(-1, 3)
    ]
    assert cost({name: form for name, (form, _) in chosen.items()}) == min(map(cost, every))
