"""The ONNX operators that are read, one small converter each. To add one: write it and enter it in the table.

The source model is read at its own batch size (1 if that is open): a value has the shape (batch, *sample).
The graph drops the batch dimension, so a converter must refuse what mixes samples.
"""

from __future__ import annotations

from collections.abc import Mapping

from microtune.frontends import onnx_convolution, onnx_layers, onnx_quantized, onnx_shapes
from microtune.frontends import onnx_elementwise as elementwise
from microtune.frontends.onnx_values import Converter

CONVERTERS: Mapping[str, Converter] = {
    "Add": elementwise.commutative("add"),
    "AveragePool": onnx_convolution.average_pool,
    "BatchNormalization": onnx_layers.batch_normalization,
    "Cast": elementwise.cast,
    "Clip": elementwise.clip,
    "Concat": onnx_shapes.concat,
    "Conv": onnx_convolution.conv,
    "DequantizeLinear": onnx_quantized.dequantize_linear,
    "Div": elementwise.divide,
    "Dropout": elementwise.dropout,
    "Flatten": onnx_shapes.flatten,
    "Gather": onnx_shapes.gather,
    "Gemm": onnx_layers.gemm,
    "GlobalAveragePool": onnx_convolution.global_average_pool,
    "GlobalMaxPool": onnx_convolution.global_max_pool,
    "HardSigmoid": elementwise.activation("hard_sigmoid", alpha=0.2, beta=0.5),
    "HardSwish": elementwise.activation("hard_swish"),
    "Identity": onnx_shapes.identity,
    "LeakyRelu": elementwise.activation("leaky_relu", alpha=0.01),
    "MatMul": onnx_layers.matmul,
    "MaxPool": onnx_convolution.max_pool,
    "Mul": elementwise.commutative("multiply"),
    "Neg": elementwise.negate,
    "Pad": onnx_shapes.pad,
    "QuantizeLinear": onnx_quantized.quantize_linear,
    "ReduceMean": onnx_convolution.reduce_mean,
    "Relu": elementwise.activation("relu"),
    "Reshape": onnx_shapes.reshape,
    "Shape": onnx_shapes.shape_,
    "Sigmoid": elementwise.activation("sigmoid"),
    "Slice": onnx_shapes.slice_,
    "Softmax": elementwise.softmax,
    "Squeeze": onnx_shapes.squeeze,
    "Sub": elementwise.subtract,
    "Tanh": elementwise.activation("tanh"),
    "Transpose": onnx_shapes.transpose,
    "Unsqueeze": onnx_shapes.unsqueeze,
}
"""Operators on values; ``Constant`` and those of CONSTANT_RULES are computed at import."""

_MOVES = frozenset(
    ("Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
)  # fmt: skip
TAKES: Mapping[str, frozenset[str]] = {
    "whole": _MOVES | {"Cast"},
    "stored": _MOVES | {"Cast", "DequantizeLinear"},
    "settled": onnx_quantized.PASSED | {"Relu", "Clip", "QuantizeLinear"},
}
"""Operators for each kind of value that is not real; see ``Variable``."""

QDQ = (
    "export it with QuantizeLinear and DequantizeLinear around float operators instead "
    "(onnxruntime: quantize_static(..., quant_format=QuantFormat.QDQ))"
)
ADVICE: Mapping[str, str] = {
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm", "QLinearAveragePool",
         "QLinearGlobalAveragePool", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax",
         "QLinearReduceMean", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
        QDQ,
    ),
    "PRelu": "its slopes are weights of their own; LeakyRelu, with one fixed slope, is read",
}  # fmt: skip
"""What would work instead of an operator that is not read."""
