"""Tensors of the intermediate representation: a name, a static shape, one type, and data if constant."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

DTYPE_BYTES = {"float32": 4, "int32": 4, "int16": 2, "int8": 1, "uint8": 1}


@dataclass(frozen=True, eq=False)
class Quantization:
    """Affine quantisation, real = scale * (stored - zero_point); per channel when ``axis`` is set."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """One value of a graph.

    Shapes are those of one sample: the batch dimension is dropped on import, since a device sees one
    sample at a time. ``data`` is set for constants (weights) and None for what is computed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    data: np.ndarray | None = field(default=None, repr=False)
    quantization: Quantization | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of storage."""
        return self.size * DTYPE_BYTES[self.dtype]

    @property
    def is_constant(self) -> bool:
        return self.data is not None


def constant(name: str, data: np.ndarray, quantization: Quantization | None = None) -> Tensor:
    """A constant tensor from an array (copied, C order)."""
    array = np.array(data, order="C")
    array.setflags(write=False)
    return Tensor(name, tuple(array.shape), str(array.dtype), array, quantization)
