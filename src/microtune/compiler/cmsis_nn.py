"""Inference by Arm's CMSIS-NN, where the user has it: its functions in the place of our int8 kernels.

The library is not part of microtune. It is compiled from the user's folder, and each layer gets the workspace that the
library itself asks for. What it has no function for stays ours. Results are those of its rounding: convolutions, pools
and sums are the same bits as ours; dense layers round twice where LiteRT and we round once, and its softmax works in
integers, so that an output may be one step away.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microtune import toolchain
from microtune.compiler.sources import runtime_directory
from microtune.errors import BuildError, ToolchainError
from microtune.ir import Graph, Node, Tensor
from microtune.ops import OPS
from microtune.ops.cmsis_nn import HEADER as CALLS
from microtune.ops.cmsis_nn import PREFIX, SHIFT
from microtune.ops.fixed_point import quantize_multiplier
from microtune.ops.quantized_build import softmax_table
from microtune.targets.catalogue import Target

ROOMS = (
    "ActivationFunctions", "BasicMathFunctions", "ConvolutionFunctions", "FullyConnectedFunctions",
    "NNSupportFunctions", "PoolingFunctions", "SoftmaxFunctions", "TransposeFunctions",
)  # fmt: skip
_ROOM = Path(__file__).parent / "cmsis_nn_c"
PARTS = ("Include/arm_nnfunctions.h", "Source/ConvolutionFunctions")
SOURCE = "https://github.com/ARM-software/CMSIS-NN"
KNOWN = "The state of July 2026 works, and others with arm_convolve_wrapper_s8_get_buffer_size_mve should."
# off in the library's own build too
_FLOATING_POINT = re.compile(r"_f(16|32)$")
_INTEGER_BITS = 5  # of a softmax's differences, as TFLite has it


@dataclass(frozen=True)
class CmsisNN:
    """A folder of CMSIS-NN. ``sources`` are compiled with ``include``."""

    path: Path

    @property
    def include(self) -> list[Path]:
        """Where its headers are, and those that it looks for elsewhere."""
        return [_ROOM, self.path / "Include"]

    @property
    def sources(self) -> list[Path]:
        """All but those that compute in floating point."""
        found = [file for room in ROOMS for file in (self.path / "Source" / room).glob("*.c")]
        return sorted(file for file in found if not _FLOATING_POINT.search(file.stem))


def find(path: str | os.PathLike[str]) -> CmsisNN:
    """CMSIS-NN in this folder. Raises BuildError for a folder that is not it."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise BuildError(f"cmsis_nn: there is no folder {folder}. Give that of CMSIS-NN: git clone {SOURCE}")
    missing = [name for name in PARTS if not (folder / name).exists()]
    if missing:
        raise BuildError(f"cmsis_nn: {folder} is not CMSIS-NN, it has no {missing[0]}. Get it by: git clone {SOURCE}")
    return CmsisNN(folder.resolve())


def has_vectors(target: Target) -> bool:
    """Whether the library uses the vector instructions (MVE) of this core, and then wants other workspaces."""
    return re.search(r"cortex_m(52|55|85)", target.cpu) is not None


class _Workspaces:
    """What the library asks for, from its own functions, compiled for this machine."""

    def __init__(self, library: CmsisNN, vectors: bool) -> None:
        self._cores = (0, 1, 2) if vectors else (0, 1)
        sources = [_ROOM / "workspaces.c", *(each for each in library.sources if "buffer_size" in each.stem)]
        defines = ["MT_CMSIS_NN_VECTORS=1"]
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "sizes.so"
            include = [*library.include, runtime_directory()]
            try:
                toolchain.compile_library(sources, include, file, defines=defines)
                self._sizes = ctypes.CDLL(str(file))
            except (ToolchainError, OSError) as error:
                raise BuildError(f"cmsis_nn: {library.path} cannot be compiled. {KNOWN} {error}") from error

    def bytes(self, op: str, numbers: Sequence[int]) -> int:
        """At least 4, so that there is something to point at."""
        function = getattr(self._sizes, f"mt_{op}_bytes", None)
        if function is None:
            return 4
        given = (ctypes.c_int32 * len(numbers))(*numbers)
        return max(4, *(int(function(core, given)) for core in self._cores))


def by_library(graph: Graph, library: CmsisNN, vectors: bool) -> Graph:
    """The graph with all that the library computes as operators of ``ops.cmsis_nn``; ``vectors``: on such cores too."""
    sizes = _Workspaces(library, vectors)
    for node in graph.nodes:
        if f"{PREFIX}{node.op}" in OPS and len(node.inputs) <= SHIFT + 1:
            graph = _replaced(graph, node, sizes)
    return graph


def _replaced(graph: Graph, node: Node, sizes: _Workspaces) -> Graph:
    name, given, inputs = f"{PREFIX}{node.op}", dict(node.attributes), list(node.inputs)
    added: list[Tensor] = []
    outputs = [node.output]
    if node.op == "softmax_int8":
        factors = _softmax(graph, node)
        if factors is None:
            return graph
        given |= factors
        del inputs[1:]
    elif node.op not in ("add_int8", "multiply_int8"):
        call = OPS[node.op].kernel(node, graph.tensors)
        assert call is not None
        numbers = [each for each in call.arguments if isinstance(each, int)]
        given["workspace"] = sizes.bytes(name, numbers)
        outputs.append(graph.fresh_name(f"{node.output}.workspace"))
        added.append(Tensor(outputs[-1], (given["workspace"],), "int8"))
        if len(inputs) == SHIFT + 1:
            multiplier, shift = (np.asarray(graph.tensor(each).data) for each in inputs[SHIFT - 1 :])
            given["alike"] = int(np.ptp(multiplier) == 0 and np.ptp(shift) == 0)
            inputs[SHIFT] = graph.fresh_name(f"{inputs[SHIFT]}.wide")
            added.append(Tensor(inputs[SHIFT], shift.shape, "int32", data=shift.astype(np.int32)))
    made = Node(name, node.name, tuple(inputs), tuple(outputs), given)
    return graph.with_nodes([made if each is node else each for each in graph.nodes], added)


def _softmax(graph: Graph, node: Node) -> dict[str, float] | None:
    """The factor of a plain softmax's differences as TFLite's integer kernel takes it; None where beta is not 1."""
    x, table = (graph.tensor(name) for name in node.inputs)
    if x.quantization is None or table.data is None or not np.array_equal(table.data, softmax_table(x.quantization)):
        return None
    step = float(x.quantization.scale)
    # in two steps, as a multiplier takes no shift above 30
    multiplier, shift = quantize_multiplier(min(step * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1) / 2.0**29)
    shift += 29
    if shift < 0:
        return None
    lowest = -math.floor((2**_INTEGER_BITS - 1) * 2.0 ** (31 - _INTEGER_BITS) / 2.0**shift)
    return {"multiplier": multiplier, "shift": shift, "lowest": lowest, "step": step}


def compiled_with(library: CmsisNN | None, folder: Path) -> tuple[list[Path], list[Path]]:
    """All sources of a network in ``folder``, and where their headers are; the folder gets that of the calls."""
    if library is None:
        return sorted(folder.glob("*.c")), [folder]
    shutil.copy(_ROOM / CALLS, folder)
    return [*sorted(folder.glob("*.c")), *library.sources], [folder, *library.include]
