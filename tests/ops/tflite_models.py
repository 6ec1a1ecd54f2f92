"""Little .tflite models written tensor by tensor, and LiteRT to run them: the oracle of everything int8.

    builder = ModelBuilder()
    x = builder.input("x", (1, 8, 8, 3), "int8", 0.05, -3)
    w = builder.constant("w", weights, scale=per_channel_scales, axis=0)
    b = builder.constant("b", biases, scale=0.05 * per_channel_scales, axis=0)
    y = builder.tensor("y", (1, 4, 4, 16), "int8", 0.1, 5)
    builder.operator("CONV_2D", [x, w, b], [y], "Conv2DOptions", strideW=2, strideH=2, padding=0)
    outputs = run(builder.finish([y]), [image])

Shapes are those of the file, batch dimension included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import ArrayLike

PADDING = {"SAME": 0, "VALID": 1}
ACTIVATION = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3}


def same_padding(size: int, taps: int, stride: int) -> tuple[int, int]:
    """Elements of padding before and after one axis under the file's padding "SAME"."""
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    return total // 2, total - total // 2


class ModelBuilder:
    """One subgraph under construction. Tensors are known by their index, as in the file."""

    def __init__(self, name: str = "main") -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = "microtune test"
        self.model.buffers = [schema.BufferT()]  # the first buffer is empty by convention
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.name = name
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "float32",
        scale: ArrayLike | None = None,
        zero_point: ArrayLike = 0,
        axis: int = 0,
        buffer: int = 0,
    ) -> int:
        """A tensor that something computes. ``scale`` may be an array: one per index of ``axis``."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.hasRank = True
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            quantization = schema.QuantizationParametersT()
            quantization.scale = scales
            quantization.zeroPoint = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape).copy()
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def input(
        self, name: str, shape: Sequence[int], dtype: str = "float32", scale: ArrayLike | None = None, zero: int = 0
    ) -> int:
        """An input of the model."""
        index = self.tensor(name, shape, dtype, scale, zero)
        self.graph.inputs.append(index)
        return index

    def constant(
        self, name: str, data: np.ndarray, scale: ArrayLike | None = None, zero_point: ArrayLike = 0, axis: int = 0
    ) -> int:
        """A tensor whose data is in the file, with the type of ``data``."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        dtype = str(data.dtype)
        return self.tensor(name, data.shape, dtype, scale, zero_point, axis, len(self.model.buffers) - 1)

    def operator(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str | None = None,
        version: int = 1,
        **values: Any,
    ) -> None:
        """An operator by its name in BuiltinOperator, its options class and their values; -1 is no input."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._opcode(getattr(schema.BuiltinOperator, code), version)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in values.items():
                if not hasattr(operator.builtinOptions, name):
                    raise AttributeError(f"{options} has no {name}: {', '.join(vars(operator.builtinOptions))}")
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)

    def _opcode(self, builtin: int, version: int) -> int:
        for index, known in enumerate(self.model.operatorCodes):
            if (known.builtinCode, known.version) == (builtin, version):
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = builtin, version
        code.deprecatedBuiltinCode = min(builtin, 127)
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def finish(self, outputs: Sequence[int]) -> bytes:
        """The file."""
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def run(model: bytes, inputs: Sequence[np.ndarray], reference: bool = True) -> list[np.ndarray]:
    """Outputs of a model under LiteRT without delegates; ``reference`` takes its plain kernels, not its fast ones."""
    resolver = OpResolverType.BUILTIN_REF if reference else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], np.ascontiguousarray(value, detail["dtype"]).reshape(detail["shape"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
