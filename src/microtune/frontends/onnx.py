"""Read ONNX models, a file or a ``ModelProto``: checked on the way in, then converted node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from microtune.errors import ModelError
from microtune.frontends.builder import Builder, check_size, safe_name
from microtune.frontends.onnx_constants import CONSTANT_RULES
from microtune.frontends.onnx_layout import plain
from microtune.frontends.onnx_operators import ADVICE, CONVERTERS, TAKES
from microtune.frontends.onnx_quantized import target_of
from microtune.frontends.onnx_values import Call, Constant, Value, Variable
from microtune.ir import Graph, Tensor

LARGEST_FILE = 1 << 30
OLDEST_OPSET = 7  # before it, broadcasting was an attribute and batch normalisation had a training switch
SUPPORTED = tuple(sorted({*CONVERTERS, *CONSTANT_RULES, "Constant"}))
_ONLY_CONSTANT = set(CONSTANT_RULES) - set(CONVERTERS)
_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}
_WHOLE = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model of a file, without its external data. Raises ModelError, or whatever protobuf raises."""
    if path.stat().st_size > LARGEST_FILE:
        raise ModelError(f"{path} is larger than {LARGEST_FILE} bytes: not a model for a small device")
    model = onnx.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def _where(node: onnx.NodeProto) -> str:
    operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    return f"node '{node.name or ', '.join(node.output)}' ({operator})"


def _opset(model: onnx.ModelProto) -> int:
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1:
        raise ModelError("the model does not say which version of the ONNX operators it uses")
    if versions[0] > newest:
        raise ModelError(
            f"the model uses ONNX operators of version {versions[0]}; the installed onnx knows {newest}: upgrade it"
        )
    if versions[0] < OLDEST_OPSET:
        raise ModelError(
            f"the model uses ONNX operators of version {versions[0]}; {OLDEST_OPSET} to {newest} are read. "
            f"onnx.version_converter.convert_version(model, {OLDEST_OPSET}) may help"
        )
    return int(versions[0])


def _check_supported(graph: onnx.GraphProto) -> None:
    unknown = [
        node for node in graph.node if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED
    ]  # fmt: skip
    if unknown:
        listed = ", ".join(map(_where, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        advice = next((ADVICE[node.op_type] for node in unknown if node.op_type in ADVICE), None)
        if advice:
            raise ModelError(f"{listed}: not supported; {advice}")
        raise ModelError(f"{listed}: not supported. Supported: {', '.join(SUPPORTED)}")


def _array(tensor: onnx.TensorProto, folder: Path | None, where: str) -> np.ndarray:
    """The data of an initialiser; its size is checked before anything is allocated."""
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"{where} has the shape {tuple(tensor.dims)}")
    check_size([max(size, 1) for size in tensor.dims], where)
    external = onnx.external_data_helper.uses_external_data(tensor)
    if external and folder is None:
        raise ModelError(f"{where} is kept in an external file; load the model by its path")
    try:
        return onnx.numpy_helper.to_array(tensor, str(folder or ""))
    except Exception as error:
        hint = (
            f"its external data in {folder} cannot be read" if external else "its data does not fit its shape and type"
        )
        raise ModelError(f"{where}: {hint} ({error})") from error


def _attributes(node: onnx.NodeProto, opset: int, folder: Path | None) -> dict[str, Any]:
    """Attributes by name, checked against what the operator's version declares."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError as error:
        raise ModelError(f"{_where(node)}: does not exist in version {opset} of the ONNX operators") from error
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise ModelError(f"{_where(node)}: has {len(node.input)} inputs, not {schema.min_input} to {schema.max_input}")
    if not schema.min_output <= len(node.output) <= schema.max_output or not node.output[0]:
        raise ModelError(
            f"{_where(node)}: has {len(node.output)} outputs, not {schema.min_output} to {schema.max_output}"
        )
    found: dict[str, Any] = {}
    for item in node.attribute:
        declared = schema.attributes.get(item.name)
        # the stub of onnx does not say that AttrType is a number
        if declared is None or int(declared.type) != item.type:  # type: ignore[call-overload]
            raise ModelError(f"{_where(node)}: attribute '{item.name}' is unknown or of the wrong type")
        value = onnx.helper.get_attribute_value(item)
        is_tensor = isinstance(value, onnx.TensorProto)
        found[item.name] = _array(value, folder, f"{_where(node)}: '{item.name}'") if is_tensor else value
    missing = [name for name, declared in schema.attributes.items() if declared.required and name not in found]
    if missing:
        raise ModelError(f"{_where(node)}: attribute '{missing[0]}' is missing")
    return found


def _input(graph: onnx.GraphProto, builder: Builder) -> tuple[str, Variable, int]:
    """Name, value, and batch size of the only input; indices are kept as whole numbers in float32."""
    weights = {tensor.name for tensor in graph.initializer} | {item.values.name for item in graph.sparse_initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(f"'{item.name}'" for item in inputs) or "none"
        raise ModelError(
            f"one input is needed, the model has {len(inputs)} ({names}); join them into one vector before export"
        )
    name, kind = inputs[0].name, inputs[0].type.tensor_type
    if kind.elem_type not in _FLOATS | _WHOLE:
        known = kind.elem_type in onnx.TensorProto.DataType.values()
        found = onnx.TensorProto.DataType.Name(kind.elem_type) if known else kind.elem_type
        raise ModelError(
            f"input '{name}' is of the type {found}; a floating-point tensor is needed, or int32 or int64 indices"
        )
    dimensions = [item.dim_value if item.HasField("dim_value") else item.dim_param or "?" for item in kind.shape.dim]
    printed = f"({', '.join(map(str, dimensions))})"
    if not kind.HasField("shape") or len(dimensions) < 2 or len(dimensions) > 8:
        raise ModelError(
            f"input '{name}' has the shape {printed}; a batch dimension and 1 to 7 more are needed, such as (1, 4)"
        )
    for index, size in enumerate(dimensions[1:], 1):
        if not isinstance(size, int):
            raise ModelError(
                f"input '{name}' has the non-static shape {printed}: dimension {index} ('{size}') must be a "
                "fixed number. Export the model with a fixed size there; only the batch dimension may be open"
            )
    batch, *sample = dimensions
    if isinstance(batch, int) and not 1 <= batch <= 1 << 20:
        raise ModelError(f"input '{name}' has the shape {printed}; a batch of {batch} makes no sense")
    shape = tuple(int(size) for size in sample)
    numbers = "whole" if kind.elem_type in _WHOLE else "real"
    value = Variable(builder.input(name, shape), shape, plain(shape), numbers)
    return name, value, batch if isinstance(batch, int) else 1


def _convert(call: Call, op: str) -> Value:
    """One node: computed now if all its inputs are constant, otherwise written into the graph."""
    if op == "Constant":
        keys = [
            key for key in call.attributes if key in ("value", "value_float", "value_floats", "value_int", "value_ints")
        ]
        if len(keys) != 1:
            raise ModelError(f"{call.where}: must hold one tensor, number or list of numbers")
        kind = {"value": None, "value_int": np.int64, "value_ints": np.int64}.get(keys[0], np.float32)
        return Constant(call.output, np.asarray(call.attributes[keys[0]], dtype=kind))
    given = [value for value in call.inputs if value is not None]
    if op in CONSTANT_RULES and given and all(isinstance(value, Constant) for value in given):
        arrays = [value.array if isinstance(value, Constant) else None for value in call.inputs]
        try:
            # an optional input that is left out is None; a rule that needs it raises, which is told below
            return Constant(call.output, np.asarray(CONSTANT_RULES[op](arrays, call.attributes)))  # type: ignore[arg-type]
        except Exception as error:
            raise ModelError(f"{call.where}: cannot be computed from its constants ({error})") from error
    if op in _ONLY_CONSTANT:
        raise ModelError(f"{call.where}: supported on constants only, not on values that depend on the input")
    for numbers, names in TAKES.items():
        if op not in names and any(isinstance(value, Variable) and value.kind == numbers for value in given):
            raise ModelError(
                f"{call.where}: works on {numbers} integers, which is supported for {', '.join(sorted(names))}"
            )
    return CONVERTERS[op](call)


def _constants(graph: onnx.GraphProto, folder: Path | None) -> dict[str, Value]:
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise ModelError(f"initialiser '{name}' is sparse; store it as an ordinary tensor")
    found: dict[str, Value] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in found:
            raise ModelError(f"initialiser '{tensor.name}' has no name or one that another has too")
        found[tensor.name] = Constant(tensor.name, _array(tensor, folder, f"initialiser '{tensor.name}'"))
    return found


def _resolve(values: Mapping[str, Value], name: str, node: onnx.NodeProto, graph: onnx.GraphProto) -> Value | None:
    if name == "" or name in values:
        return values[name] if name else None
    owner = next((other for other in graph.node if name in other.output), None)
    if owner is None:
        raise ModelError(f"{_where(node)}: reads '{name}', which is no input, initialiser or output of another node")
    if list(owner.output).index(name) > 0:
        raise ModelError(f"{_where(node)}: reads '{name}', a second output of {_where(owner)}, which is not supported")
    raise ModelError(
        f"{_where(node)}: reads '{name}' before {_where(owner)} computes it: a cycle, or nodes out of order"
    )


def from_onnx(model: onnx.ModelProto, name: str | None = None, folder: Path | None = None) -> Graph:
    """The graph of a model. ``folder`` holds its external data, if any.

    Raises ModelError with a sentence for everything the model itself says wrong; a damaged model may raise
    other exceptions from protobuf or numpy, which ``load`` turns into a ModelError.
    """
    graph = model.graph
    if not graph.node:
        raise ModelError("the file holds no ONNX graph, or an empty one")
    _check_supported(graph)
    opset = _opset(model)
    if len(graph.output) != 1:
        names = ", ".join(f"'{item.name}'" for item in graph.output) or "none"
        raise ModelError(
            f"one output is needed, the model has {len(graph.output)} ({names}); export only the one to be learnt"
        )
    output = graph.output[0].name
    builder = Builder(name or graph.name or "model")
    input_name, start, batch = _input(graph, builder)
    values: dict[str, Value] = {**_constants(graph, folder), input_name: start}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for item in node.input:
            readers.setdefault(item, []).append(node)
    # constants first: a layer looks at the scales of the QuantizeLinear behind it
    moved: dict[tuple[Any, ...], Tensor] = {}
    for node in sorted(graph.node, key=lambda node: node.op_type != "Constant"):
        attributes = _attributes(node, opset, folder)
        inputs = tuple(_resolve(values, item, node, graph) for item in node.input)
        result = node.output[0]
        if result in values:
            raise ModelError(f"{_where(node)}: computes '{result}', which exists already")
        call = Call(
            _where(node),
            node.name or result,
            result,
            inputs,
            attributes,
            opset,
            batch,
            result == output,
            target_of(result, readers, values, (output,)),
            builder,
            moved,
        )
        values[result] = _convert(call, node.op_type)
    found = values.get(output)
    if found is None:
        raise ModelError(f"output '{output}' is computed by no node")
    if not isinstance(found, Variable):
        raise ModelError(f"output '{output}' does not depend on the input")
    # `call` is that of some node; only its builder and the name of the output matter now
    last = replace(call, where=f"output '{output}'", output=output, is_output=True)
    final = last.listed(last.real(found) if found.kind == "real" else found)
    return _with_output_named(builder.finish(final.tensor, f"model '{builder.name}'"), safe_name(output))


def _with_output_named(graph: Graph, name: str) -> Graph:
    """The graph with its output under the model's name, which nodes that only move elements may have pushed back."""
    (last,) = graph.outputs
    if last == name or name in graph.inputs:
        return graph
    names = {last: name, name: last}

    def turned(given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(item, item) for item in given)

    nodes = [replace(node, inputs=turned(node.inputs), outputs=turned(node.outputs)) for node in graph.nodes]
    tensors = {
        names.get(item, item): replace(tensor, name=names.get(item, item)) for item, tensor in graph.tensors.items()
    }
    return Graph(graph.name, tensors, tuple(nodes), graph.inputs, (name,))
