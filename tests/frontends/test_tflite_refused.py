"""Must hold: what cannot be read is refused with a sentence that says what, where, and what would work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.frontends.tflite_cases import Net, dense, load_bytes, window
from tests.ops.tflite_models import ModelBuilder

from microtune.errors import ModelError
from microtune.frontends import load
from microtune.frontends.tflite_operators import CONVERTERS


def image(dtype: str = "float32", shape: tuple[int, ...] = (1, 6, 6, 4)) -> Net:
    return Net(shape, dtype, np.random.default_rng(0))


def unsupported() -> Net:
    return image().emit("RELU", [], (1, 6, 6, 4)).emit("COS", [], (1, 6, 6, 4))


def custom() -> Net:
    net = image().emit("RELU", [], (1, 6, 6, 4))
    net.emit("CUSTOM", [], (1, 6, 6, 4))
    net.builder.model.operatorCodes[-1].customCode = b"TFLite_Detection"
    return net


def mirror_pad() -> Net:
    amounts = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    net = image()
    return net.emit("MIRROR_PAD", [net.constant(amounts)], (1, 8, 8, 4), "MirrorPadOptions")


def with_type(dtype: str) -> Net:
    net = image()
    net.builder = ModelBuilder()
    net.at = net.builder.input("x", (1, 4), dtype, 0.1)
    net.dtype = dtype
    return net.emit("RELU", [], (1, 4))


def with_hidden_type(dtype: str) -> Net:
    net = image(shape=(1, 4))
    net.dtype = "int8"
    net.emit("QUANTIZE", [], (1, 4))
    net.builder.graph.tensors[net.at].type = {"uint8": 3, "int16": 7}[dtype]
    return net.emit("RELU", [], (1, 4))


def dilated() -> Net:
    return window(image(), "CONV_2D", (3, 3), (1, 1), "SAME", 8, dilationHFactor=2, dilationWFactor=2)


def grouped() -> Net:
    net = image()
    others = [net.constant(np.zeros((8, 3, 3, 2), np.float32)), net.constant(np.zeros(8, np.float32))]
    return net.emit("CONV_2D", others, (1, 6, 6, 8), "Conv2DOptions", padding=0, strideH=1, strideW=1)


def dynamic() -> Net:
    net = image()
    net.builder.graph.tensors[0].shapeSignature = [-1, -1, -1, 4]
    return net.emit("RELU", [], net.shape)


def two_inputs() -> Net:
    net = image()
    other = net.builder.input("other", (1, 6, 6, 4))
    return net.emit("ADD", [other], net.shape, "AddOptions")


def two_outputs() -> Net:
    net = image().emit("RELU", [], (1, 6, 6, 4))
    finish = net.builder.finish
    net.builder.finish = lambda outputs: finish([*outputs, 0])  # type: ignore[method-assign]
    return net


def cycle() -> Net:
    net = image()
    net.emit("RELU", [], net.shape).emit("RELU", [], net.shape)
    first, second = net.builder.graph.operators
    first.inputs = list(second.outputs)
    return net


def mixed_batch() -> Net:
    net = image(shape=(1, 6, 4))
    return net.emit("RESHAPE", [net.constant(np.array([6, 4], np.int32))], (6, 4), "ReshapeOptions")


def mean_of_the_batch() -> Net:
    net = image()
    return net.emit("MEAN", [net.constant(np.array([0], np.int32))], (6, 6, 4), "ReducerOptions")


def asymmetric_weights() -> Net:
    net = window(image("int8"), "CONV_2D", (3, 3), (1, 1), "SAME", 8)
    weight = net.builder.graph.tensors[net.builder.graph.operators[0].inputs[1]]
    weight.quantization.zeroPoint = np.full(8, 3, np.int64)
    return net


def float_weights_in_int8() -> Net:
    net = image("int8", (1, 4))
    weight = net.constant(np.zeros((3, 4), np.float32))
    return net.emit("FULLY_CONNECTED", [weight], (1, 3), "FullyConnectedOptions")


def without_scale() -> Net:
    net = dense(image("int8", (1, 4)), 3)
    net.builder.graph.tensors[net.at].quantization = None
    return net


def zero_scale() -> Net:
    net = dense(image("int8", (1, 4)), 3)
    net.builder.graph.tensors[net.at].quantization.scale = np.zeros(1, np.float32)
    return net


def hidden_activation() -> Net:
    return dense(image(shape=(1, 4)), 3, "none").emit("RELU", [], (1, 3))


def sign_bit() -> Net:
    net = image()
    return net.emit("ADD", [net.at], net.shape, "AddOptions", fusedActivationFunction=5)


def wrong_options() -> Net:
    net = image()
    return net.emit("AVERAGE_POOL_2D", [], net.shape, "SoftmaxOptions")


def every_second() -> Net:
    net = image(shape=(1, 6))
    bounds = [net.constant(np.array(each, np.int32)) for each in ([0, 0], [1, 6], [1, 2])]
    return net.emit("STRIDED_SLICE", bounds, (1, 3), "StridedSliceOptions")


def integer_arithmetic() -> Net:
    net = with_type("int32")
    return net


def state() -> Net:
    net = image().emit("RELU", [], (1, 6, 6, 4))
    net.builder.graph.tensors[0].isVariable = True
    return net


def softmax_of_rows() -> Net:
    return image(shape=(1, 6, 4)).emit("SOFTMAX", [], (1, 6, 4), "SoftmaxOptions", beta=1.0)


def int8_subtraction() -> Net:
    net = image("int8")
    return net.emit("SUB", [net.at], net.shape, "SubOptions")


def wrong_declaration() -> Net:
    net = image().emit("RELU", [], (1, 6, 6, 4))
    net.builder.graph.tensors[net.at].shape = [1, 6, 6, 5]
    return net


def no_operators() -> Net:
    return image()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unsupported, r"operator 1 'net\.cos\d+' \(COS\): not supported\. Supported: ADD, AVERAGE_.*TRANSPOSE"),
        (custom, r"\(CUSTOM TFLite_Detection\): not supported\. Supported: ADD"),
        (mirror_pad, r"\(MIRROR_PAD\): not supported\. Supported: ADD"),
        (lambda: with_type("uint8"), r"input of the model: tensor 0 'x' is of the older uint8.*convert.*int8"),
        (lambda: with_type("int16"), r"is of int16 quantisation; convert the model to int8"),
        (lambda: with_type("bool"), r"of the type bool; float32 and int8 are supported"),
        (lambda: with_hidden_type("uint8"), r"operator 0 .*\(QUANTIZE\): .*uint8 quantisation; convert"),
        (lambda: with_hidden_type("int16"), r"operator 0 .*\(QUANTIZE\): .*int16 quantisation; convert"),
        (dilated, r"operator 0 .*\(CONV_2D\): has the dilation \(2, 2\); only 1 is supported"),
        (grouped, r"\(CONV_2D\): is a grouped convolution, 4 channels in groups of 2; supported are"),
        (dynamic, r"tensor 0 'x' has the dynamic shape \(-1, -1, -1, 4\).*Convert the model with a fixed"),
        (two_inputs, r"one input is needed, the model has 2 \('x', 'other'\); join"),
        (two_outputs, r"one output is needed, the model has 2"),
        (cycle, r"operator 0 .*reads tensor \d+ 'net/relu2', which nothing before it computes: a cycle"),
        (mixed_batch, r"\(RESHAPE\): .*\(6, 4\), which removes or mixes the batch dimension.*one sample at a time"),
        (mean_of_the_batch, r"\(MEAN\): works along the batch dimension"),
        (asymmetric_weights, r"have zero points; symmetric weights are needed"),
        (float_weights_in_int8, r"has int8 values but weights of float32; convert the whole model to int8"),
        (without_scale, r"\(FULLY_CONNECTED\): tensor \d+ .* needs one scale and one zero point, it has 0"),
        (zero_scale, r"needs a scale above zero and a zero point of -128 to 127"),
        (sign_bit, r"\(ADD\): fused activation 5 is not supported\. Supported: none, relu"),
        (wrong_options, r"options of operator 0 \(AVERAGE_POOL_2D\) are of the wrong kind; Pool2DOptions are needed"),
        (every_second, r"takes every 2th element of axis 1; only steps of 1"),
        (integer_arithmetic, r"\(RELU\): input 0 holds integers; supported on them are GATHER, CAST"),
        (state, r"tensor 0 'x' keeps a state between predictions; not supported"),
        (softmax_of_rows, r"over the last axis of \(1, 6, 4\) is not supported; over all of a sample it is"),
        (int8_subtraction, r"\(SUB\): of int8 values is not supported; ADD"),
        (wrong_declaration, r"computes float32 of the shape \(6, 6, 4\).*declared float32\(1, 6, 6, 5\)"),
        (no_operators, r"the file holds no operators"),
    ],
)  # fmt: skip
def test_refused(make: Callable[[], Net], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_bytes(make().finish())


def test_several_subgraphs_are_refused() -> None:
    net = hidden_activation()
    net.builder.model.subgraphs.append(net.builder.graph)
    with pytest.raises(ModelError, match=r"has 2 subgraphs; one is needed. Control flow"):
        load_bytes(net.finish())


def test_operators_that_are_not_supported_are_listed_together() -> None:
    net = image()
    for _ in range(7):
        net.emit("COS", [], net.shape)
    with pytest.raises(ModelError, match=r"operator 0 .*operator 4 'net\.cos5' \(COS\) and 2 more: not supported"):
        load_bytes(net.finish())


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\x00\x00\x00TFL2" + bytes(40), b"not a model at all"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(ModelError, match="no TensorFlow Lite file: its mark 'TFL3' is missing"):
        load(tmp_path / "net.tflite")


def test_the_list_of_operators_is_in_order() -> None:
    assert list(CONVERTERS) == sorted(CONVERTERS)
