"""Read TensorFlow Lite models, float and int8: checked on the way in, then converted operator by operator."""

from __future__ import annotations

from microtune.errors import ModelError
from microtune.frontends.builder import LARGEST, Builder
from microtune.frontends.tflite_operators import CONVERTERS
from microtune.frontends.tflite_reader import File, Operator, Stored, read_tflite
from microtune.frontends.tflite_values import Call, Constant, Value, Variable, tensor_name, whole_quantization
from microtune.ir import Graph, Tensor

# what a value of these types becomes in the graph
_GRAPH_TYPES = {"float32": "float32", "int8": "int8", "int32": "float32", "int64": "float32"}
_ADVICE = {
    "uint8": "of the older uint8 quantisation; convert the model to int8 "
    "(inference_input_type and inference_output_type = tf.int8)",
    "int16": "of int16 quantisation; convert the model to int8 (TFLITE_BUILTINS_INT8)",
    "float16": "of float16; convert the model with float32 or int8 values (float16 weights are read)",
}
LARGEST_BATCH = 1 << 20


def _where(operator: Operator, file: File) -> str:
    written = [tensor_name(file.tensor(index)) for index in operator.outputs[:1] if index >= 0]
    return f"operator {operator.index} '{''.join(written)}' ({operator.code})"


def _check_supported(file: File) -> None:
    unknown = [operator for operator in file.operators if operator.code not in CONVERTERS]
    if unknown:
        listed = ", ".join(_where(operator, file) for operator in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ModelError(f"{listed}{more}: not supported. Supported: {', '.join(CONVERTERS)}")


def _one(file: File, indices: tuple[int, ...], what: str, advice: str) -> Stored:
    if len(indices) != 1 or indices[0] < 0:
        names = ", ".join(f"'{file.tensor(index).name}'" for index in indices[:8] if index >= 0) or "none"
        raise ModelError(f"one {what} is needed, the model has {len(indices)} ({names}); {advice}")
    return file.tensor(indices[0])


def _check_type(stored: Stored, where: str) -> None:
    """Raise ModelError for a value of a type that the graph does not compute with."""
    if stored.dtype not in _GRAPH_TYPES:
        advice = _ADVICE.get(stored.dtype, f"of the type {stored.dtype}; float32 and int8 are supported")
        raise ModelError(f"{where}: {stored.where} is {advice}")


def _input(stored: Stored, builder: Builder) -> tuple[Variable, int]:
    """The input of the model and its batch size."""
    _check_type(stored, "the input of the model")
    if stored.data is not None:
        raise ModelError(f"the input of the model, {stored.where}, is a constant")
    if len(stored.shape) < 2 or not 1 <= stored.shape[0] <= LARGEST_BATCH:
        raise ModelError(
            f"input '{stored.name}' has the shape {stored.shape}; a batch dimension and 1 to 7 more are needed, "
            "such as (1, 4)"
        )
    dtype = _GRAPH_TYPES[stored.dtype]
    q = whole_quantization(stored, "the input of the model") if dtype == "int8" else None
    tensor = builder.input(tensor_name(stored), stored.shape[1:], dtype, q)
    return Variable(tensor, whole=stored.dtype.startswith("int") and dtype == "float32"), stored.shape[0]


def _resolve(values: dict[int, Value], index: int, file: File, where: str) -> Value | None:
    if index < 0:
        return None
    if index in values:
        return values[index]
    stored = file.tensor(index)
    if stored.data is None:
        raise ModelError(
            f"{where}: reads {stored.where}, which nothing before it computes: a cycle, or operators out of order"
        )
    values[index] = Constant(stored.data, stored)
    return values[index]


def _check_result(value: Value, stored: Stored, where: str) -> None:
    """What the converter computes is what the file declares."""
    if isinstance(value, Constant):
        found, dtype = value.array.shape, str(value.array.dtype)
        if found != stored.shape:
            raise ModelError(f"{where}: computes the shape {found}, where {stored.where} is declared {stored.shape}")
        return
    shape, dtype = value.tensor.shape, value.tensor.dtype
    if shape != stored.shape[1:] or dtype != _GRAPH_TYPES[stored.dtype]:
        raise ModelError(
            f"{where}: computes {dtype} of the shape {shape} from each sample, where {stored.where} is declared "
            f"{stored.dtype}{stored.shape}"
        )


def _convert(operator: Operator, values: dict[int, Value], file: File, batch: int, builder: Builder) -> int:
    """One operator; what it computes is added to ``values``. Returns the number of elements computed now."""
    where = _where(operator, file)
    if not operator.outputs or min(operator.outputs) < 0:
        raise ModelError(f"{where}: has no output")
    outputs = tuple(file.tensor(index) for index in operator.outputs)
    for stored in outputs:
        if stored.index in values or stored.data is not None:
            raise ModelError(f"{where}: computes {stored.where}, which exists already")
    inputs = tuple(_resolve(values, index, file, where) for index in operator.inputs)
    call = Call(where, operator, inputs, outputs, batch, builder)
    computed_now = all(isinstance(value, Constant) for value in inputs if value is not None)
    for stored in outputs if not computed_now else ():
        _check_type(stored, where)
    try:
        found = CONVERTERS[operator.code](call)
    except ValueError as error:  # scales that the int8 arithmetic cannot hold
        raise ModelError(f"{where}: {error}") from error
    results = found if isinstance(found, tuple) else (found,)
    if len(results) != len(outputs):
        raise ModelError(f"{where}: has {len(outputs)} outputs, not {len(results)}")
    for stored, value in zip(outputs, results, strict=True):
        _check_result(value, stored, where)
        values[stored.index] = value
    return sum(value.array.size for value in results if isinstance(value, Constant))


def from_tflite(file: File, name: str) -> Graph:
    """The graph of an opened file; int8 inputs and outputs keep their type, their scale is in the tensor.

    An input of integers (indices of an embedding) becomes float32 that holds them. Raises ModelError with a
    sentence for whatever is damaged or not supported.
    """
    if not file.operators:
        raise ModelError("the file holds no operators")
    _check_supported(file)
    builder = Builder(name)
    stored_input = _one(file, file.inputs, "input", "join them into one vector before export")
    stored_output = _one(file, file.outputs, "output", "export only the one to be learnt")
    variable, batch = _input(stored_input, builder)
    values: dict[int, Value] = {stored_input.index: variable}
    computed = 0
    for operator in file.operators:
        computed += _convert(operator, values, file, batch, builder)
        if computed > LARGEST:
            raise ModelError(f"{_where(operator, file)}: more than {LARGEST} elements of constants are computed")
    found = values.get(stored_output.index)
    if found is None:
        raise ModelError(f"the output of the model, {stored_output.where}, is computed by no operator")
    if not isinstance(found, Variable):
        raise ModelError(f"the output of the model, {stored_output.where}, does not depend on the input")
    if found.whole:
        raise ModelError(f"the output of the model, {stored_output.where}, holds integers; numbers are needed")
    output: Tensor = found.tensor
    return builder.finish(output, f"model '{builder.name}'")


__all__ = ["from_tflite", "read_tflite"]
