"""Dense layers and convolutions whose frozen weights are stored without their zeros, or in four bits each.

How the C reads them is in runtime/mt_kernels_packed.h. Runs of zeros in few bits are what Han et al., Deep Compression
(2016), store pruned networks by; theirs takes 3 to 8 bits for each run, 4 of them here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from microtune.ir.graph import Node
from microtune.ir.tensor import Tensor
from microtune.ops import convolution, dense, quantized_layers
from microtune.ops.op import Attributes, KernelCall, Op, Shape
from microtune.ops.window import window_sizes

LONGEST_RUN = 15  # MT_LONGEST_RUN of runtime/mt_kernels_packed.h
BASES = {
    op.name: op for op in (dense.dense, convolution.OPS[0], quantized_layers.dense_int8, quantized_layers.conv2d_int8)
}
"""Operators whose second input may be packed."""


@dataclass(frozen=True)
class Packed:
    """A weight as it is stored; ``values`` is empty where the codes are all."""

    codes: np.ndarray
    values: np.ndarray

    @property
    def bytes(self) -> int:
        """In flash, where every tensor takes whole words."""
        return sum(-(-each.nbytes // 4) * 4 for each in (self.codes, self.values))


def _bytes_of(nibbles: np.ndarray) -> np.ndarray:
    """Two to a byte, the lower half first."""
    even = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8)).astype(np.uint8)
    return np.asarray(even[0::2] | even[1::2] << 4, np.uint8).view(np.int8)


def _nibbles_of(codes: np.ndarray) -> np.ndarray:
    found = codes.view(np.uint8)
    return np.stack([found & 15, found >> 4], axis=1).ravel()


def _values(lines: np.ndarray) -> np.ndarray:
    """What is not zero; one zero, which nobody reads, where nothing is: tensors are not empty."""
    found = lines[lines != 0]
    return found if found.size else np.zeros(1, lines.dtype)


def _runs(lines: np.ndarray) -> Packed:
    found: list[int] = []
    length = lines.shape[1]
    for line in lines:
        place = 0
        for index in np.flatnonzero(line):
            gap = int(index) - place
            found += [LONGEST_RUN] * (gap // LONGEST_RUN) + [gap % LONGEST_RUN]
            place = int(index) + 1
        whole, rest = divmod(length - place, LONGEST_RUN)
        found += [LONGEST_RUN] * whole + ([rest] if rest else [])
    return Packed(_bytes_of(np.array(found, np.uint8)), _values(lines))


def _from_runs(codes: np.ndarray, values: np.ndarray, lines: np.ndarray) -> None:
    nibbles, left = iter(_nibbles_of(codes)), iter(values)
    for line in lines:
        place = 0
        while place < len(line):
            gap = int(next(nibbles))
            place += gap
            if gap < LONGEST_RUN and place < len(line):
                line[place] = next(left)
                place += 1


def _bitmap(lines: np.ndarray) -> Packed:
    return Packed(np.packbits(lines != 0, axis=1, bitorder="little").ravel().view(np.int8), _values(lines))


def _from_bitmap(codes: np.ndarray, values: np.ndarray, lines: np.ndarray) -> None:
    bits = codes.view(np.uint8).reshape(len(lines), -1)
    kept = np.unpackbits(bits, axis=1, count=lines.shape[1], bitorder="little") != 0
    lines[kept] = values[: np.count_nonzero(kept)]


def _halves(lines: np.ndarray) -> Packed | None:
    if lines.dtype != np.int8 or lines.min() < -8 or lines.max() > 7:
        return None
    even = np.pad(lines, ((0, 0), (0, lines.shape[1] % 2)))
    return Packed(_bytes_of((even.ravel() & 15).astype(np.uint8)), np.zeros(0, np.int8))


def _from_halves(codes: np.ndarray, values: np.ndarray, lines: np.ndarray) -> None:
    signed = ((_nibbles_of(codes) ^ 8).astype(np.int16) - 8).reshape(len(lines), -1)
    lines[:] = signed[:, : lines.shape[1]]


Pack = Callable[[np.ndarray], Packed | None]
Unpack = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
FORMS: dict[str, tuple[Pack, Unpack]] = {
    "runs": (_runs, _from_runs), "bitmap": (_bitmap, _from_bitmap), "halves": (_halves, _from_halves)
}  # fmt: skip


def line_of(shape: Shape) -> int:
    """Elements of a weight that lie beside each other in the input: of a dense layer all, of a kernel a row."""
    return math.prod(shape[2:]) if len(shape) == 4 else shape[1]


def pack(weight: np.ndarray, form: str) -> Packed | None:
    """A weight (outputs, inputs) or (outputs, rows, columns, channels) in a form; None where that cannot hold it."""
    found: Packed | None = FORMS[form][0](weight.reshape(-1, line_of(weight.shape)))
    return found


def unpack(packed: Packed, form: str, shape: Shape) -> np.ndarray:
    """The weight of this shape again."""
    values = packed.values
    lines = np.zeros((math.prod(shape) // line_of(shape), line_of(shape)), values.dtype if values.size else np.int8)
    FORMS[form][1](packed.codes, values, lines)
    return lines.reshape(shape)


def packed_name(op: str, form: str) -> str:
    """The operator that computes ``op`` from a weight in this form."""
    return f"{op}_{form}"


def _layer(base: Op, form: str) -> Op:
    """Inputs: x, codes, values, and what follows the weight in ``base``. Where codes are all there is no third input;
    ``weight`` is the shape of the weight."""
    integers, is_dense = "int8" in base.name, base.name.startswith("dense")
    behind = 2 if form == "halves" else 3

    def dense_inputs(inputs: Sequence[Tensor], given: Attributes) -> list[Tensor]:
        weight = Tensor("weight", tuple(given["weight"]), "int8" if integers else "float32")
        return [inputs[0], weight, *inputs[behind:]]

    def shape(inputs: Sequence[Tensor], given: Attributes) -> tuple[Shape, ...]:
        return base.shape(dense_inputs(inputs, given), given)

    def reference(inputs: Sequence[np.ndarray], given: Attributes) -> tuple[np.ndarray, ...]:
        values = inputs[2] if behind == 3 else np.zeros(0, np.int8)
        weight = unpack(Packed(inputs[1], values), form, tuple(given["weight"]))
        return base.reference([inputs[0], weight, *inputs[behind:]], given)

    def kernel(node: Node, tensors: Mapping[str, Tensor]) -> KernelCall:
        given = node.attributes
        x, y, weight = tensors[node.inputs[0]].shape, tensors[node.output].shape, tuple(given["weight"])
        if is_dense:
            sizes: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 0, 0, *x, *y)
        else:
            sizes = (*window_sizes(x, y, weight[1:3], given), x[2], y[2])
        limits = tuple(int(given[key]) for key in ("x_zero", "y_zero", "low", "high")) if integers else ()
        arrays = node.inputs if behind == 3 else (*node.inputs[:2], node.inputs[1], *node.inputs[2:])
        function = f"mt_conv2d_{'int8_' if integers else ''}{form}"
        return KernelCall(function, (*arrays, node.output, *sizes, *((int(is_dense),) if integers else ()), *limits))

    def multiply_adds(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
        kept = inputs[2].size if behind == 3 else 2 * inputs[1].size
        return kept * math.prod(outputs[0].shape[:-1])

    return Op(
        name=packed_name(base.name, form),
        summary=f"{base.name} from a frozen weight stored as {form}",
        shape=shape,
        reference=reference,
        kernel=kernel,
        header="mt_kernels_packed_int8.h" if integers else "mt_kernels_packed.h",
        multiply_adds=multiply_adds,
        dtypes=base.dtypes,
    )


OPS = tuple(_layer(base, form) for base in BASES.values() for form in FORMS if form != "halves" or "int8" in base.name)
