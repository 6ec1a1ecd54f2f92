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


WHOLE = valid()


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
