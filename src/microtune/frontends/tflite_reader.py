"""The contents of a .tflite file, read piece by piece and with suspicion.

The flatbuffers reader of Python checks nothing: lengths and offsets are whatever the file says. Here every vector is
held against the size of the file before it is looped over, every index against what it points into, and whatever the
reader itself stumbles over becomes a ModelError that says which piece of the file is damaged.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tflite

from microtune.errors import ModelError
from microtune.frontends.builder import LARGEST

LARGEST_FILE = 1 << 29
# no file for a small device comes near these; without them a crafted file could ask for hours of work
MOST_OPERATORS = 2_000
MOST_OPERANDS = 1_000
MOST_DIMENSIONS = 8
LONGEST_NAME = 4_096
SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"

OPERATOR_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}
TYPE_NAMES: dict[int, str] = {
    value: name.lower() for name, value in vars(tflite.TensorType).items() if isinstance(value, int)
}
_NUMPY = {name: np.dtype(name).newbyteorder("<") for name in ("float32", "float16", "int8", "uint8", "int16", "int32",
                                                            "int64", "bool")}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stored:
    """One tensor of the file: ``shape`` with its batch dimension, ``data`` if it is constant.

    ``scales`` and ``zero_points`` are as in the file, empty without quantisation, and not yet checked.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int

    @property
    def where(self) -> str:
        return f"tensor {self.index} '{self.name}'"


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator of the file; an input of -1 is left out."""

    index: int
    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    record: Any = field(repr=False)

    def option(self, kind: str, name: str) -> Any:
        """A field of its options, which must be of ``kind``; a number, or an array. Zero where it has no options."""
        what = f"the options of operator {self.index} ({self.code})"
        found = _read(self.record.BuiltinOptionsType, what)
        if found == tflite.BuiltinOptions.NONE:
            return 0
        if found != getattr(tflite.BuiltinOptions, kind):
            raise ModelError(f"{what} are of the wrong kind; {kind} are needed")
        table = _read(self.record.BuiltinOptions, what)
        if table is None:
            return 0
        options = getattr(tflite, kind)()
        options.Init(table.Bytes, table.Pos)
        return _read(getattr(options, name), what)


def _read(get: Callable[..., Any], what: str, *arguments: Any) -> Any:
    """What the flatbuffers reader gives, or ModelError where it runs out of the file."""
    try:
        return get(*arguments)
    except (struct.error, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ModelError(f"{what} lies outside the file: it is damaged or cut off") from error


def _array(get: Callable[[], Any], what: str) -> np.ndarray:
    """A vector of numbers; empty where the file has none (the reader gives 0)."""
    found = _read(get, what)
    return found if isinstance(found, np.ndarray) else np.empty(0)


def _count(get: Callable[[], int], size: int, what: str, most: int | None = None) -> int:
    """The length of a vector of tables: each takes four bytes at least of a file of ``size``."""
    found = int(_read(get, what))
    if found > size // 4:
        raise ModelError(f"{what} should be {found} long, more than the file can hold: it is damaged or cut off")
    if most is not None and found > most:
        raise ModelError(f"{what} are {found}; at most {most} are read")
    return found


def _name(tensor: Any, what: str) -> str:
    """The name of a tensor; its length is looked at before it is copied."""
    table = tensor._tab
    offset = _read(table.Offset, what, 10)
    if offset == 0:
        return ""
    length = _read(table.VectorLen, what, offset)
    if length > LONGEST_NAME:
        raise ModelError(f"{what} has a name of {length} bytes; at most {LONGEST_NAME} are read")
    return str(_read(tensor.Name, what), "utf-8", "replace")


class File:
    """One .tflite file. Tensors and their data are read when they are asked for."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 8 or data[4:8] != IDENTIFIER:
            raise ModelError("this is no TensorFlow Lite file: its mark 'TFL3' is missing")
        self._size = len(data)
        self._model = _read(tflite.Model.GetRootAs, "the model", data, 0)
        version = _read(self._model.Version, "the model")
        if version != SCHEMA_VERSION:
            raise ModelError(f"the file is of schema version {version}; {SCHEMA_VERSION} is read")
        graphs = _count(self._model.SubgraphsLength, self._size, "the subgraphs")
        if graphs != 1:
            raise ModelError(
                f"the model has {graphs} subgraphs; one is needed. Control flow (if, while) is not supported, "
                "and of several signatures only one can be exported"
            )
        self._graph = _read(self._model.Subgraphs, "the subgraph", 0)
        self._tensors = _count(self._graph.TensorsLength, self._size, "the tensors")
        self._buffers = _count(self._model.BuffersLength, self._size, "the buffers")
        self._codes = _count(self._model.OperatorCodesLength, self._size, "the operator codes")
        self._known: dict[int, Stored] = {}
        self.inputs = self._indices(self._graph.InputsAsNumpy, "the inputs of the model")
        self.outputs = self._indices(self._graph.OutputsAsNumpy, "the outputs of the model")
        operators = _count(self._graph.OperatorsLength, self._size, "the operators", MOST_OPERATORS)
        self.operators = tuple(self._operator(index) for index in range(operators))

    def _indices(self, get: Callable[[], Any], what: str) -> tuple[int, ...]:
        found = _array(get, what)
        if len(found) > MOST_OPERANDS:
            raise ModelError(f"{what} are {len(found)}; at most {MOST_OPERANDS} are read")
        indices = tuple(int(index) for index in found)
        if any(not -1 <= index < self._tensors for index in indices):
            raise ModelError(f"{what} name a tensor that does not exist; the model has {self._tensors}")
        return indices

    def _operator(self, index: int) -> Operator:
        what = f"operator {index}"
        record = _read(self._graph.Operators, what, index)
        code = int(_read(record.OpcodeIndex, what))
        if code >= self._codes:
            raise ModelError(f"{what} has the code {code}; the model lists {self._codes}")
        inputs = self._indices(record.InputsAsNumpy, f"the inputs of {what}")
        outputs = self._indices(record.OutputsAsNumpy, f"the outputs of {what}")
        return Operator(index, self._code(code), inputs, outputs, record)

    def _code(self, index: int) -> str:
        what = f"operator code {index}"
        record = _read(self._model.OperatorCodes, what, index)
        # old files have the short number only, new ones both: the larger is meant
        number = max(int(_read(record.BuiltinCode, what)), int(_read(record.DeprecatedBuiltinCode, what)))
        if number == tflite.BuiltinOperator.CUSTOM:
            custom = bytes(_read(record.CustomCode, what) or b"")[:80].decode("utf-8", "replace")
            return f"CUSTOM {custom}".strip()
        return OPERATOR_NAMES.get(number, f"operator number {number}")

    def tensor(self, index: int) -> Stored:
        """The tensor of an index that ``inputs``, ``outputs`` or an operator names."""
        if index not in self._known:
            self._known[index] = self._stored(index)
        return self._known[index]

    def _stored(self, index: int) -> Stored:
        what = f"tensor {index}"
        record = _read(self._graph.Tensors, what, index)
        name = _name(record, what)
        what = f"{what} '{name}'"
        kind = _read(record.Type, what)
        dtype = TYPE_NAMES.get(kind, f"type {kind}")
        if _read(record.IsVariable, what):
            raise ModelError(f"{what} keeps a state between predictions; not supported")
        if _read(record.Sparsity, what) is not None:
            raise ModelError(f"{what} is stored sparse; not supported. Convert the model without sparsity")
        shape = self._shape(record, what)
        scales, zero_points, axis = self._quantization(record, what)
        data = self._data(int(_read(record.Buffer, what)), shape, dtype, what)
        return Stored(index, name, shape, dtype, data, scales, zero_points, axis)

    def _shape(self, record: Any, what: str) -> tuple[int, ...]:
        shape = tuple(self._sizes(record.ShapeAsNumpy, what))
        signature = self._sizes(record.ShapeSignatureAsNumpy, what)
        if any(size < 0 for size in (*shape, *signature[1:])):
            printed = tuple(int(size) for size in (signature if len(signature) else shape))
            raise ModelError(
                f"{what} has the dynamic shape {printed}: every dimension but the first must be a fixed number. "
                "Convert the model with a fixed input shape"
            )
        if math.prod(shape) > LARGEST:
            raise ModelError(f"{what} has the shape {shape}, more than the {LARGEST} elements a tensor may have")
        return shape

    def _sizes(self, get: Callable[[], Any], what: str) -> list[int]:
        found = _array(get, f"the shape of {what}")
        if len(found) > MOST_DIMENSIONS:
            raise ModelError(f"{what} has {len(found)} dimensions; at most {MOST_DIMENSIONS} are read")
        return [int(size) for size in found]

    def _quantization(self, record: Any, what: str) -> tuple[np.ndarray, np.ndarray, int]:
        what = f"the quantisation of {what}"
        found = _read(record.Quantization, what)
        if found is None:
            return np.empty(0, np.float32), np.empty(0, np.int64), 0
        if _read(found.DetailsType, what) != tflite.QuantizationDetails.NONE:
            raise ModelError(f"{what} is of a custom kind; scales and zero points are read")
        scales = _array(found.ScaleAsNumpy, what).astype(np.float32)
        zero_points = _array(found.ZeroPointAsNumpy, what).astype(np.int64)
        return scales, zero_points, int(_read(found.QuantizedDimension, what))

    def _data(self, index: int, shape: tuple[int, ...], dtype: str, what: str) -> np.ndarray | None:
        if index == 0:
            return None
        if index >= self._buffers:
            raise ModelError(f"{what} has its data in buffer {index}; the model has {self._buffers}")
        buffer = _read(self._model.Buffers, f"the buffer of {what}", index)
        if _read(buffer.Offset, what) > 1:
            raise ModelError(f"{what} has its data behind the model, as only files beyond 2 GB need: too large")
        raw = _array(buffer.DataAsNumpy, f"the data of {what}")
        if not len(raw):
            return None
        if dtype not in _NUMPY:
            raise ModelError(f"{what} is a constant of {dtype}; read are {', '.join(_NUMPY)}")
        if len(raw) != math.prod(shape) * _NUMPY[dtype].itemsize:
            raise ModelError(f"{what} holds {len(raw)} bytes, which does not fit {dtype} of the shape {shape}")
        # a view of the file: tensors may share a buffer, and a crafted file could ask for any number of copies
        return raw.view(_NUMPY[dtype]).reshape(shape).astype(dtype, copy=False)


def read_tflite(path: Path) -> File:
    """The file at ``path``, opened. Raises ModelError for what cannot be one."""
    if path.stat().st_size > LARGEST_FILE:
        raise ModelError(f"{path} is larger than {LARGEST_FILE} bytes: not a model for a small device")
    return File(path.read_bytes())
