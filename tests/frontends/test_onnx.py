"""A1 for ONNX: random dense nets against onnxruntime, every operator in its versions, and clear refusals."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from microtune.errors import ModelError
from microtune.frontends import load
from microtune.frontends.onnx import from_onnx
from microtune.frontends.onnx_constants import CONSTANT_RULES
from microtune.ops.evaluate import evaluate

from .onnx_models import Arrays, model_of, node, normal, runtime


def assert_same(model: onnx.ModelProto, error_bound: Callable[..., np.ndarray], x: np.ndarray) -> None:
    """The imported graph, folded, agrees with onnxruntime within the error bound of the unfolded one."""
    expected = runtime(model, x)
    unfolded, folded = from_onnx(model), load(model)
    found = evaluate(folded, {folded.inputs[0]: x}, np.float64)[folded.outputs[0]]
    for row, want, got in zip(x, expected.reshape(len(x), -1), found.reshape(len(x), -1), strict=True):
        bound = error_bound(unfolded, row).reshape(-1)
        assert want.shape == got.shape
        assert (np.abs(want - got) <= bound).all(), (want - got, bound)


@st.composite
def nets(draw: st.DrawFn) -> tuple[onnx.ModelProto, int]:
    """A chain of one to eight random steps, with a skip connection here and there, at a random batch size."""
    width = draw(st.integers(1, 9))
    batch: Any = draw(st.sampled_from([1, "N", 3]))
    inputs, generator = width, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights: Arrays = {}
    nodes: list[onnx.NodeProto] = []
    current = "x"

    def weight(*shape: int, low: float | None = None) -> str:
        name = f"w{len(weights)}"
        values = generator.normal(size=shape) if low is None else generator.uniform(low, 2, size=shape)
        weights[name] = values.astype(np.float32)
        return name

    def step(op: str, *args: str, **attributes: Any) -> str:
        name = f"t{len(nodes)}"
        nodes.append(node(op, *args, output=name, **attributes))
        return name

    unary = ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "Softmax", "Clip", "Neg", "Identity", "Dropout"]
    shaped = ["Flatten", "Reshape", "Unsqueeze"]
    for op in draw(
        st.lists(
            st.sampled_from(["Gemm", "MatMul", "scale", "norm", "skip", *unary, *shaped]),
            min_size=1,
            max_size=8,
        )
    ):
        if op == "Gemm":
            out, turned = int(generator.integers(1, 9)), bool(generator.integers(2))
            bias = [[], [weight(out)], [weight(1, out)], [weight(1)]][int(generator.integers(4))]
            shape = (out, width) if turned else (width, out)
            factors = (
                {"alpha": float(generator.normal()), "beta": float(generator.normal())} if generator.integers(2) else {}
            )
            current, width = step("Gemm", current, weight(*shape), *bias, transB=int(turned), **factors), out
        elif op == "MatMul":
            out = int(generator.integers(1, 9))
            current, width = step("Add", step("MatMul", current, weight(width, out)), weight(out)), out
        elif op == "scale":
            kind = ["Add", "Sub", "Mul", "Div"][int(generator.integers(4))]
            constant = weight(*[(), (1,), (width,), (1, width)][int(generator.integers(4))], low=0.5)
            swapped = kind != "Div" and generator.integers(2)
            current = step(kind, *((constant, current) if swapped else (current, constant)))
        elif op == "norm":
            # of opposite signs, so that shift - mean * factor, which both compute, does not cancel
            scale, shift, mean, variance = (weight(width, low=0.1) for _ in range(4))
            weights[mean] = -weights[mean]
            current = step("BatchNormalization", current, scale, shift, mean, variance)
        elif op == "skip":
            kind = ["Add", "Sub", "Mul"][int(generator.integers(3))]
            current = step(kind, current, step("Tanh", current))
        elif op == "Clip":
            weights["zero"], weights["six"] = np.float32(0), np.float32(6)
            current = step("Clip", current, "zero", *(["six"] if generator.integers(2) else []))
        elif op == "Reshape":
            weights[rows := f"rows{len(weights)}"] = np.array([-1 if batch == "N" else 0, width], np.int64)
            current = step("Reshape", current, rows)
        elif op == "Unsqueeze":
            weights[axis := f"axis{len(weights)}"] = np.array([int(generator.integers(1, 3))], np.int64)
            current = step("Squeeze", step("Unsqueeze", current, axis), axis)
        else:
            current = step(op, current)
    if all(item.op_type in ("Identity", "Dropout", "Flatten", "Reshape") for item in nodes):
        current = step("Relu", current)
    return model_of(nodes, weights, (batch, inputs), current), 3 if batch != 1 else 1


@settings(max_examples=150, deadline=None)
@given(nets(), st.integers(0, 2**32 - 1))
def test_random_nets_agree_with_onnxruntime(error_bound: Any, net: tuple[onnx.ModelProto, int], seed: int) -> None:
    model, rows = net
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    assert_same(model, error_bound, normal(rows, width, seed=seed))


W, V = normal(4, 3, seed=1), normal(3, seed=2)
MATRIX = node("MatMul", "x", "w", output="h")
ACCEPTED: dict[str, onnx.ModelProto] = {
    "vector weight": model_of([node("MatMul", "x", "v")], {"v": normal(4)}, ("N", 4)),
    "weight on the left": model_of([node("MatMul", "w", "x")], {"w": normal(3, 4)}, (1, 4, 1)),
    "vector on the left": model_of([node("MatMul", "w", "x")], {"w": normal(4)}, (1, 4, 1)),
    "row per sample": model_of([node("MatMul", "x", "w")], {"w": W}, ("N", 1, 4)),
    "weight with leading ones": model_of([node("MatMul", "x", "w")], {"w": W[None]}, ("N", 1, 4)),
    "gemm adds a value": model_of([MATRIX, node("Gemm", "x", "w", "h", beta=0.5, alpha=2.0)], {"w": W}),
    "equal rows as bias": model_of([MATRIX, node("Add", "h", "b")], {"w": W, "b": np.tile(V, (2, 1))}, (2, 4)),
    "softmax of opset 11": model_of([node("Softmax", "x")], {}, ("N", 2, 3), opset=11),
    "softmax over the last axis": model_of([node("Softmax", "x")], {}, ("N", 1, 3), opset=13),
    "clip of opset 10": model_of([node("Clip", "x", min=0.0, max=6.0)], {}, opset=10),
    "clip of opset 10 without end": model_of([node("Clip", "x", min=0.0)], {}, opset=10),
    "unsqueeze of opset 11": model_of(
        [
            node("Unsqueeze", "x", axes=[1], output="u"),
            node("Squeeze", "u", axes=[1], output="s"),
            node("Relu", "s"),
        ],
        {},
        opset=11,
    ),
    "squeeze at the end": model_of([node("Gemm", "x", "w", output="h"), node("Squeeze", "h")], {"w": W[:, :1]}),
    "transpose of ones": model_of(
        [node("Transpose", "x", perm=[0, 2, 1], output="t"), node("Relu", "t")], {}, ("N", 1, 4)
    ),
    "image flattened": model_of(
        [node("Div", "x", "c", output="d"), node("Flatten", "d", output="f"), node("Gemm", "f", "w")],
        {"c": np.float32(255), "w": normal(12, 3)},
        ("N", 1, 3, 4),
    ),
    "batch norm of an image": model_of(
        [node("BatchNormalization", "x", "a", "a", "b", "a", epsilon=0.01)],
        {"a": np.float32([1, 2, 0.5]), "b": np.float32([-1, -3, -0.2])},
        ("N", 3, 2),
    ),
    "weights computed on the way": model_of(
        [
            node("Transpose", "w", output="t"),
            node("Constant", value_float=2.0, output="two"),
            node("Mul", "t", "two", output="m"),
            node("MatMul", "x", "m"),
        ],
        {"w": W.T.copy()},
    ),
    "reshape by the shape of the input": model_of(
        [
            node("Shape", "x", output="s"),
            node("Slice", "s", "from", "to", output="n"),
            node("Concat", "n", "rest", axis=0, output="r"),
            node("Reshape", "x", "r", output="f"),
            node("Gemm", "f", "w"),
        ],
        {"from": np.array([0]), "to": np.array([1]), "rest": np.array([-1]), "w": normal(6, 2)},
        ("N", 2, 3),
    ),
    "cast": model_of(
        [
            node("Cast", "x", to=TensorProto.FLOAT16, output="c"),
            node("Cast", "c", to=TensorProto.FLOAT, output="d"),
            node("Relu", "d"),
        ],
        {},
    ),
    "unused node": model_of([node("Gemm", "x", "w", output="h"), node("Relu", "x")], {"w": W}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_forms_agree_with_onnxruntime(name: str, error_bound: Any) -> None:
    model = ACCEPTED[name]
    batch, *sample = (item.dim_value for item in model.graph.input[0].type.tensor_type.shape.dim)
    x = np.abs(normal(batch or 2, *sample, seed=7)).round(2).astype(np.float16).astype(np.float32)
    assert_same(model, error_bound, x)


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_other_float_types_become_float32(kind: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = load(model_of([node("Gemm", "x", "w")], {"w": W.astype(dtype)}, kind=kind))
    (weight, _) = graph.constants
    assert weight.dtype == "float32"
    np.testing.assert_array_equal(np.asarray(weight.data), W.T.astype(dtype).astype(np.float32))


def test_matmul_and_add_become_one_dense_with_the_names_of_the_model() -> None:
    model = model_of([MATRIX, node("Add", "h", "fc.bias")], {"w": W, "fc.bias": V})
    (dense,) = load(model).nodes
    assert (dense.op, dense.inputs, dense.output) == ("dense", ("x", "w", "fc.bias"), "y")


def test_standardisation_folds_into_the_first_layer() -> None:
    nodes = [
        node("Sub", "x", "mean", output="a"),
        node("Div", "a", "std", output="b"),
        node("Gemm", "b", "w"),
    ]
    assert [
        item.op for item in load(model_of(nodes, {"mean": normal(4), "std": np.float32([1, 2, 3, 4]), "w": W})).nodes
    ] == ["dense"]


def test_equal_weights_of_two_layers_are_not_tied() -> None:
    """An exporter stores equal initial biases once; each layer must still be able to learn its own."""
    square = normal(4, 4)
    graph = load(
        model_of(
            [node("Gemm", "x", "w", "b", output="h"), node("Gemm", "h", "w", "b")],
            {"w": square, "b": normal(4)},
        )
    )
    assert len({name for item in graph.nodes for name in item.inputs[1:]}) == 4


def test_external_data_is_read_and_its_absence_reported(tmp_path: Path) -> None:
    model = model_of([node("Gemm", "x", "w")], {"w": W})
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    graph = load(tmp_path / "net.onnx")
    assert graph.name == "net"
    np.testing.assert_array_equal(np.asarray(graph.constants[0].data), W.T)
    with pytest.raises(ModelError, match="'w' is kept in an external file; load the model by its path"):
        load(onnx.load(tmp_path / "net.onnx", load_external_data=False))
    (tmp_path / "net.bin").unlink()
    with pytest.raises(ModelError, match=r"initialiser 'w': its external data in .* cannot be read"):
        load(tmp_path / "net.onnx")


def with_external_path(location: str) -> onnx.ModelProto:
    model = model_of([node("Gemm", "x", "w")], {"w": W})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(W.tobytes())
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "net.onnx").write_bytes(with_external_path("../secret").SerializeToString())
    with pytest.raises(ModelError, match=r"external data .* cannot be read"):
        load(tmp_path / "inner" / "net.onnx")


def edited(edit: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = model_of([node("Gemm", "x", "w", output="h"), node("Relu", "h")], {"w": W})
    edit(model)
    return model


def _more_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 4)))


def _more_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, (1, 3)))


def _absurd(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


REFUSED: list[tuple[onnx.ModelProto, str]] = [
    (
        model_of([node("ConvTranspose", "x", "w")], {"w": W}),
        r"node 'convtranspose_of_y' \(ConvTranspose\): not supported. Supported: Add",
    ),
    (
        model_of([helper.make_node("LinearClassifier", ["x"], ["y"], domain="ai.onnx.ml")], {}),
        r"node 'y' \(ai.onnx.ml.LinearClassifier\): not supported. Supported: .*Gemm",
    ),
    (model_of([node("Concat", "x", "x", axis=0)], {}), r"\(Concat\): works along the batch"),
    (model_of([node("Reciprocal", "x")], {}), r"\(Reciprocal\): supported on constants only"),
    (
        model_of([node("Relu", "x")], {}, ("N", "T", 3)),
        r"input 'x' has the non-static shape \(N, T, 3\): dimension 1 \('T'\)",
    ),
    (
        model_of([node("Relu", "x")], {}, (1, 0)),
        r"input 'x' has the shape \(0,\); every dimension must be at least 1",
    ),
    (model_of([node("Relu", "x")], {}, (1, 2**20, 2**20)), "more than the 67108864 elements"),
    (model_of([node("Relu", "x")], {}, (4,)), "a batch dimension and 1 to 7 more are needed"),
    (model_of([node("Relu", "x")], {}, kind=TensorProto.BOOL), "input 'x' is of the type BOOL"),
    (model_of([node("Relu", "x")], {}, kind=TensorProto.INT64), "works on whole integers, which is supported for Cast"),
    (edited(_more_inputs), r"the model has 2 \('x', 'z'\)"),
    (edited(_more_outputs), r"the model has 2 \('y', 'h'\)"),
    (
        edited(lambda model: model.graph.ClearField("initializer")),
        "reads 'w', which is no input, initialiser or output",
    ),
    (edited(_absurd), r"initialiser 'w' has the shape \(1099511627776, 1099511627776\), more than"),
    (edited(lambda model: model.ClearField("graph")), "holds no ONNX graph"),
    (edited(lambda model: model.ClearField("opset_import")), "does not say which version"),
    (
        edited(lambda model: setattr(model.opset_import[0], "version", 99)),
        "version 99; the installed onnx knows .*: upgrade it",
    ),
    (edited(lambda model: setattr(model.opset_import[0], "version", 6)), "version 6; 7 to .* are read"),
    (
        model_of([node("Gemm", "x", "w")], {"w": np.full_like(W, np.nan)}),
        "'w' holds numbers that are NaN, infinite",
    ),
    (
        model_of([node("Gemm", "x", "w")], {"w": np.full_like(W, 1e300, np.float64)}, kind=TensorProto.DOUBLE),
        "too large for float32",
    ),
    (
        model_of([node("Relu", "h"), node("Neg", "y", output="h")], {}),
        r"reads 'h' before node 'neg_of_h' \(Neg\) computes it: a cycle",
    ),
    (model_of([node("Relu", "x"), node("Neg", "x")], {}), "computes 'y', which exists already"),
    (model_of([node("Relu", "x", output="h")], {}), "output 'y' is computed by no node"),
    (model_of([node("Constant", value_float=1.0)], {}), "does not depend on the input"),
    (model_of([node("Identity", "x")], {}), "does not depend on the input through any operator"),
    (model_of([node("Gemm", "x", "w", transA=1)], {"w": W}), "transA=1 transposes the batch"),
    (model_of([node("MatMul", "x", "x")], {}, (4, 4)), "one of the two must be a constant weight"),
    (model_of([node("MatMul", "w", "x")], {"w": normal(3, 2)}, (2, 4)), "are not one dense layer"),
    (model_of([node("MatMul", "x", "w")], {"w": W}, (1, 5, 4)), "are not one dense layer"),
    (model_of([node("Add", "x", "c")], {"c": normal(2, 4)}, (2, 4)), "differs between the samples"),
    (
        model_of([node("Add", "x", "c")], {"c": normal(2, 4)}, (1, 4)),
        r"of shape \(2, 4\) does not fit into \(1, 4\)",
    ),
    (model_of([node("Div", "x", "c")], {"c": np.float32([1, 0, 1, 1])}), "divides by zero"),
    (model_of([node("Div", "c", "x")], {"c": V[:1]}), "input 0 must depend on the input"),
    (model_of([node("Flatten", "x", axis=0)], {}, (2, 4)), "removes or mixes the batch dimension"),
    (
        model_of([node("Reshape", "x", "s")], {"s": np.array([-1, 2])}, ("N", 4)),
        "removes or mixes the batch dimension",
    ),
    (model_of([node("Reshape", "x", "s")], {"s": np.array([1, 3])}), r"cannot reshape \(1, 4\) to \(1, 3\)"),
    (model_of([node("Softmax", "x", axis=0)], {}, (2, 4)), "must span a whole sample"),
    (model_of([node("Softmax", "x", axis=0)], {}, (4, 4)), "must span a whole sample"),
    (model_of([node("Softmax", "x", axis=1)], {}, (1, 2, 4), opset=13), "must span a whole sample"),
    (model_of([node("Softmax", "x")], {}, (1, 2, 4)), "must span a whole sample"),
    (
        model_of([node("Clip", "x", "a", "b")], {"a": np.float32(1), "b": np.float32(-1)}),
        "limits 1 and -1 leave no values between them",
    ),
    (model_of([node("Cast", "x", to=TensorProto.INT32)], {}), "casts to INT32"),
    (model_of([node("Transpose", "x")], {}, (1, 4)), "moves elements|removes or mixes"),
    (model_of([node("Squeeze", "x", output="s"), node("Relu", "s")], {}), "removes or mixes the batch"),
    (model_of([node("Relu", "x", alpha=1.0)], {}), "attribute 'alpha' is unknown"),
    (model_of([node("Gemm", "x")], {}), "has 1 inputs, not 2 to 3"),
    (
        model_of([node("BatchNormalization", "x", "v", "v", "v", "v")], {"v": V}),
        r"'v' has the shape \(3,\), not \(4,\)",
    ),
    (
        model_of([node("BatchNormalization", "x", "a", "a", "a", "a", training_mode=1)], {"a": normal(4)}, opset=15),
        "is in training mode",
    ),
    (
        model_of([node("Gather", "c", "i", output="g"), node("Add", "x", "g")], {"c": V, "i": np.array([9])}),
        "cannot be computed from its constants",
    ),
]


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=lambda index: REFUSED[index][1][:40])
def test_refusals_name_the_place_and_what_would_work(index: int) -> None:
    model, message = REFUSED[index]
    with pytest.raises(ModelError) as caught:
        load(model)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_huge_broadcast_of_constants_is_refused_before_it_is_allocated() -> None:
    column, row = np.zeros((1 << 14, 1), np.float32), np.zeros((1, 1 << 14), np.float32)
    with pytest.raises(ModelError, match="more than the 67108864 elements"):
        load(model_of([node("Add", "c", "r", output="m"), node("Add", "x", "m")], {"c": column, "r": row}))


@given(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -1, 1, 2]), st.booleans())
def test_slice_of_a_constant_is_that_of_onnx(start: int, end: int, step: int, is_open: bool) -> None:
    end = (-(2**31) if step < 0 else 2**31) if is_open else end
    arrays = {
        "d": np.arange(5),
        "s": np.array([start]),
        "e": np.array([end]),
        "a": np.array([0]),
        "t": np.array([step]),
    }
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, (None,)) for name in (*arrays, "y")]
    graph = helper.make_graph([node("Slice", *arrays)], "slice", values[:-1], values[-1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, arrays)[0]
    np.testing.assert_array_equal(CONSTANT_RULES["Slice"](list(arrays.values()), {}), expected)


def test_doubling_of_a_constant_is_refused_before_it_is_allocated() -> None:
    nodes = [node("Concat", f"c{i}", f"c{i}", output=f"c{i + 1}", axis=0) for i in range(40)]
    model = model_of([*nodes, node("Add", "x", "c40")], {"c0": np.zeros(1, np.float32)})
    with pytest.raises(ModelError, match="more than the 67108864 elements"):
        load(model)


def test_many_spread_constants_are_refused_before_they_are_allocated() -> None:
    """A file of a few hundred bytes, each of whose additions would take 64 MB."""
    nodes = [node("Add", "x" if i == 0 else f"t{i - 1}", "c", output=f"t{i}") for i in range(40)]
    model = model_of(nodes, {"c": np.float32(1)}, (1, 1 << 24), "t39")
    with pytest.raises(ModelError, match="the constants have more than 67108864 elements together"):
        load(model)


def test_names_cannot_leave_a_comment_of_the_generated_code() -> None:
    evil = "w*/ system(); /*\n"
    graph = load(model_of([node("Gemm", "x", evil)], {evil: W}))
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+", name) for name in (*graph.tensors, *(item.name for item in graph.nodes)))


def test_name_is_that_of_the_file_the_graph_or_the_caller(tmp_path: Path) -> None:
    model = model_of([node("Gemm", "x", "w")], {"w": W})
    onnx.save(model, tmp_path / "toast er.onnx")
    assert load(tmp_path / "toast er.onnx").name == "toast_er"
    assert (load(model).name, load(model, name="mine").name) == ("net", "mine")
