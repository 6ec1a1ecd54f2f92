"""An int8 graph in QDQ form, which ``mt.load`` and onnxruntime read.

QDQ: each int8 tensor is a QuantizeLinear and a DequantizeLinear around float operators. ``mt.load`` makes of a float
operator between them the int8 operator that ends there, so what is read back predicts the same bits. Images lie
channels first, as ONNX has them; an axis moves only where an operator needs it elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from microtune.compress import qdq_layers as layers
from microtune.compress import qdq_layout as layout
from microtune.compress.qdq_writer import Rule, Writer
from microtune.errors import ModelError
from microtune.ir import Graph

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""The newest that every onnxruntime since 1.12 reads."""

RULES: dict[str, Rule] = {
    "dense_int8": layers.dense,
    "conv2d_int8": layers.convolution,
    "depthwise_conv2d_int8": layers.convolution,
    "max_pool2d_int8": layers.pool,
    "average_pool2d_int8": layers.pool,
    "global_average_int8": layers.global_average,
    "add_int8": layers.two("Add"),
    "multiply_int8": layers.two("Mul"),
    "reshape": layout.reshape,
    "transpose": layout.transpose,
    "pad": layout.pad,
    "slice": layout.take_slice,
    "concat": layout.concat,
    "lookup_int8": layers.lookup,
    "softmax_int8": layers.softmax,
    "embedding": layers.embedding,
    "quantize": layers.quantize,
    "dequantize": layers.dequantize,
}
"""By operator of an int8 graph."""


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """An int8 graph as an ONNX model in QDQ form, real numbers in and out, any batch.

    Raises ModelError for a node that has no such form, naming it.
    """
    from onnx import TensorProto, helper, numpy_helper

    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(f"graph '{graph.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
                         "a file has one of each")  # fmt: skip
    (source,), (result,) = graph.inputs, graph.outputs
    writer = Writer(graph, names={source, result})
    indices = any(node.op == "embedding" for node in graph.consumers(source))
    if graph.tensor(source).quantization is None:
        writer.keep(source, source)
    else:
        writer.quantized(source, source)
    for node in graph.nodes:
        if node.op not in RULES:
            raise ModelError(f"node '{node.name}' ({node.op}): has no QDQ form. Supported: {', '.join(sorted(RULES))}")
        RULES[node.op](writer, node)
    writer.nodes.append(helper.make_node("Identity", [writer.plain(result)], [result], name=result))
    kinds = TensorProto.INT64 if indices else TensorProto.FLOAT, TensorProto.FLOAT
    ends = [
        helper.make_tensor_value_info(name, kind, ["batch", *graph.tensor(name).shape])
        for name, kind in zip((source, result), kinds, strict=True)
    ]
    arrays = [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in writer.arrays.items()]
    made = helper.make_graph(writer.nodes, graph.name, ends[:1], ends[1:], arrays)
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="microtune"
    )
