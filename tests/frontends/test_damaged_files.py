"""Must hold: whatever is in a file, ``load`` returns a sound graph or raises ModelError with a sentence."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from microtune.errors import ModelError
from microtune.frontends import load
from microtune.ir import verify


def valid() -> bytes:
    generator = np.random.default_rng(3)
    weights = {
        name: generator.normal(size=shape)
        for name, shape in (("w1", (3, 4)), ("b1", 3), ("w2", (3, 2)), ("b2", 2), ("mean", 4))
    }
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["x", "mean"], ["c"], name="centre"),
            helper.make_node("Gemm", ["c", "w1", "b1"], ["h"], name="fc1", transB=1, alpha=0.5),
            helper.make_node("LeakyRelu", ["h"], ["r"], name="act", alpha=0.1),
            helper.make_node("Reshape", ["r", "shape"], ["s"], name="flat"),
            helper.make_node("MatMul", ["s", "w2"], ["m"], name="fc2"),
            helper.make_node("Add", ["m", "b2"], ["a"], name="bias2"),
            helper.make_node("Softmax", ["a"], ["y"], name="end", axis=-1),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 2))],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
        + [numpy_helper.from_array(np.array([-1, 3]), "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def image_net() -> bytes:
    """A convolutional net with QDQ pairs, pools, a skip connection and every kind of list in its attributes."""
    generator = np.random.default_rng(4)
    weights = {
        "a": generator.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "d": generator.integers(-127, 128, (3, 1, 3, 3)).astype(np.int8),
        "ds": np.full(3, 0.01, np.float32),
        "dz": np.zeros(3, np.int8),
        "s": np.float32(0.05),
        "z": np.int8(3),
        "n": np.ones(3, np.float32),
        "w": generator.normal(size=(12, 2)).astype(np.float32),
        "p": np.array([0, 0, 1, 1, 0, 0, 0, 0]),
        "lo": np.array([0]),
        "end": np.array([4]),
        "ax": np.array([2]),
    }

    def pair(name: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}i"], name=f"q_{name}"),
            helper.make_node("DequantizeLinear", [f"{name}i", "s", "z"], [f"{name}q"], name=f"r_{name}"),
        ]

    nodes = [
        helper.make_node("Pad", ["x", "p"], ["padded"], name="pad"),
        helper.make_node("Conv", ["padded", "a"], ["c"], name="conv", strides=[1, 1], pads=[0, 0, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "n", "n", "n", "n"], ["b"], name="norm"),
        helper.make_node("HardSwish", ["b"], ["h"], name="act"),
        *pair("h"),
        helper.make_node("DequantizeLinear", ["d", "ds", "dz"], ["dq"], name="weight", axis=0),
        helper.make_node("Conv", ["hq", "dq"], ["e"], name="depthwise", group=3, auto_pad="SAME_UPPER"),
        *pair("e"),
        helper.make_node("Add", ["hq", "eq"], ["sum"], name="skip"),
        *pair("sum"),
        helper.make_node("MaxPool", ["sumq"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Slice", ["m", "lo", "end", "ax"], ["cut"], name="cut"),
        helper.make_node("Transpose", ["cut"], ["t"], name="turn", perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["t"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 2, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 2))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


WHOLE, IMAGES = valid(), image_net()


def check(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    try:
        graph = load(path)
    except ModelError as error:
        assert str(error).strip()
        return
    verify(graph)
    assert all(np.isfinite(np.asarray(tensor.data)).all() for tensor in graph.constants)


SETTINGS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    check(bytes(data), tmp_path / "net.onnx")


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, len(IMAGES) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_of_an_image_net(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(IMAGES)
    for at, value in changes:
        data[at] = value
    check(bytes(data), tmp_path / "net.onnx")


def test_bits_and_truncations_of_an_image_net(tmp_path: Path) -> None:
    assert "conv2d" in [item.op for item in load(onnx.load_from_string(IMAGES)).nodes]
    for at in range(len(IMAGES)):
        check(IMAGES[:at] + bytes([IMAGES[at] ^ (1, 8, 128)[at % 3]]) + IMAGES[at + 1 :], tmp_path / "net.onnx")
    for length in range(0, len(IMAGES), 3):
        check(IMAGES[:length], tmp_path / "net.onnx")


ABSURD = st.integers(-(2**40), 2**40) | st.integers(-3, 9)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_absurd_numbers_and_wires_of_an_image_net(data: st.DataObject) -> None:
    """Lists of numbers in attributes, shapes of weights, and which value a node reads: cycles too."""
    model = onnx.load_from_string(IMAGES)
    item = data.draw(st.sampled_from([item for item in model.graph.node if item.attribute]))
    for attribute in item.attribute:
        if attribute.ints:
            attribute.ints[:] = data.draw(st.lists(ABSURD, max_size=6))
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = data.draw(ABSURD)
    if data.draw(st.booleans()):
        rewired = data.draw(st.sampled_from(list(model.graph.node)))
        names = [name for other in model.graph.node for name in other.output] + [
            t.name for t in model.graph.initializer
        ]
        rewired.input[data.draw(st.integers(0, len(rewired.input) - 1))] = data.draw(st.sampled_from(names))
    if data.draw(st.booleans()):
        weight = data.draw(st.sampled_from(list(model.graph.initializer)))
        if data.draw(st.booleans()):
            weight.dims[:] = data.draw(st.lists(ABSURD, max_size=5))
        else:  # indices and pads of any size
            values = np.array(data.draw(st.lists(ABSURD, min_size=1, max_size=8)))
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    try:
        verify(load(model))
    except ModelError as error:
        assert str(error).strip()


def test_every_single_bit(tmp_path: Path) -> None:
    """The lowest, a middle and the highest bit of every byte: lengths, tags, sizes, types, names, numbers."""
    for at in range(len(WHOLE)):
        for bit in (0, 3, 7):
            check(WHOLE[:at] + bytes([WHOLE[at] ^ 1 << bit]) + WHOLE[at + 1 :], tmp_path / "net.onnx")


def test_every_truncation(tmp_path: Path) -> None:
    for length in range(len(WHOLE)):
        check(WHOLE[:length], tmp_path / "net.onnx")
    with pytest.raises(ModelError):
        (tmp_path / "half.onnx").write_bytes(WHOLE[: len(WHOLE) // 2])
        load(tmp_path / "half.onnx")


@SETTINGS
@given(st.binary(max_size=300))
@example(b"")
@example(b"not a model at all")
def test_arbitrary_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"\w+ \w+"):
        load(path)


def test_the_undamaged_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(WHOLE)
    assert [node.op for node in load(tmp_path / "net.onnx").nodes] == [
        "dense",
        "leaky_relu",
        "dense",
        "softmax",
    ]


def test_a_damaged_file_is_named_and_the_cause_kept(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match=r"cannot read .*net\.onnx: damaged or not a valid model") as caught:
        load(tmp_path / "net.onnx")
    assert caught.value.__cause__ is not None


SHAPES = st.lists(st.integers(-3, 2**33), max_size=9)


@settings(max_examples=300, deadline=None)
@given(SHAPES, SHAPES, st.lists(st.integers(-(2**40), 2**40), max_size=10))
def test_absurd_shapes(shape: list[int], dims: list[int], target: list[int]) -> None:
    model = onnx.load_from_string(WHOLE)
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    for size in shape:
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    if dims:
        model.graph.initializer[0].dims[:] = dims
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array(target, np.int64), "shape"))
    try:
        verify(load(model))
    except ModelError as error:
        assert str(error).strip()
