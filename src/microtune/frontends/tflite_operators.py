"""The TensorFlow Lite operators that are read. To add one: write its converter and enter it here."""

from __future__ import annotations

from collections.abc import Mapping

from microtune.frontends import tflite_elementwise as elementwise
from microtune.frontends import tflite_layers as layers
from microtune.frontends import tflite_layout as layout
from microtune.frontends.tflite_values import Converter

CONVERTERS: Mapping[str, Converter] = {
    "ADD": elementwise.add,
    "AVERAGE_POOL_2D": layers.average_pool,
    "CAST": layout.cast,
    "CONCATENATION": layout.concatenate,
    "CONV_2D": layers.convolution,
    "DEPTHWISE_CONV_2D": layers.depthwise,
    "DEQUANTIZE": elementwise.dequantize,
    "EXPAND_DIMS": layout.reshape,
    "FULLY_CONNECTED": layers.dense,
    "GATHER": layout.gather,
    "HARD_SWISH": elementwise.hard_swish,
    "LEAKY_RELU": elementwise.leaky_relu,
    "LOGISTIC": elementwise.sigmoid,
    "MAX_POOL_2D": layers.max_pool,
    "MEAN": layers.mean,
    "MUL": elementwise.multiply,
    "PACK": layout.pack,
    "PAD": layout.pad,
    "PADV2": layout.pad,
    "QUANTIZE": elementwise.quantize,
    "RELU": elementwise.relu,
    "RELU6": elementwise.relu6,
    "RELU_N1_TO_1": elementwise.relu_n1_to_1,
    "RESHAPE": layout.reshape,
    "SHAPE": layout.shape_of,
    "SLICE": layout.slice_of,
    "SOFTMAX": elementwise.softmax,
    "SPLIT": layout.split,
    "SQUEEZE": layout.reshape,
    "STRIDED_SLICE": layout.strided_slice,
    "SUB": elementwise.subtract,
    "TANH": elementwise.tanh,
    "TRANSPOSE": layout.transpose,
}
